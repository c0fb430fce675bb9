"""Rows solved for, against NumPy's solution of the normal equations and the conditions of a minimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import Penalty, balanced_spans, solve_rows
from tests.helpers import gradient, quick

pytestmark = pytest.mark.kernel

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}
LOSSES = ["squared", "absolute", "huber", "logistic"]


class Problem:
    """Rows of the given lengths, and what solve_rows takes."""

    def __init__(self, counts, k, dtype=np.float64, loss="squared", seed=0, n_items=40):
        rng = np.random.default_rng(seed)
        self.indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        nnz = int(self.indptr[-1])
        self.indices = rng.integers(0, n_items, nnz).astype(np.int32)
        values = rng.integers(0, 2, nnz) if loss == "logistic" else rng.normal(size=nnz)
        self.values = values.astype(dtype)
        self.Y, self.base = rng.normal(size=(n_items, k)).astype(dtype), rng.normal(size=n_items)
        self.weights = rng.choice([0.5, 1, 2], nnz).astype(dtype)
        self.loss = loss

    def solve(self, penalty, n_threads=1, weights=None, biased=False):
        scale = np.array([self.row(u, weights)[3].sum() for u in range(self.indptr.size - 1)])
        args = self.indptr, self.indices, self.values, self.Y, self.base, scale, penalty
        with ThreadEngine(n_threads) as engine:
            X, bias = solve_rows(
                *args, engine, weights=weights, biased=biased, loss=self.loss, huber_delta=0.5
            )
        assert X.dtype == bias.dtype == self.Y.dtype
        assert X.shape == (self.indptr.size - 1, self.Y.shape[1])
        return X, bias

    def row(self, u, weights=None):
        """Return y, r, base and w of the ratings of row u, in float64."""
        span = slice(self.indptr[u], self.indptr[u + 1])
        r = self.values[span].astype(np.float64)
        w = np.ones(r.size) if weights is None else weights[span].astype(np.float64)
        return self.Y[self.indices[span]].astype(np.float64), r, self.base[self.indices[span]], w


def solve_row(y, r, base, w, penalty, biased):
    """Solve the normal equations of the squared loss; return the coordinates, the bias last."""
    y = np.column_stack([y, np.ones(r.size)]) if biased else y
    if not w.any():
        return np.zeros(y.shape[1])
    reg = np.full(y.shape[1], penalty.reg)
    if biased:
        reg[-1] = penalty.bias_reg
    return np.linalg.solve((y.T * w) @ y + w.sum() * np.diag(reg), y.T @ (w * (r - base)))


def loss_of(loss, r, z):
    e = np.abs(r - z)
    return {
        "squared": 0.5 * e**2,
        "absolute": e,
        "huber": np.where(e < 0.5, 0.5 * e**2, 0.5 * e - 0.125),
        "logistic": np.logaddexp(0, z) - r * z,
    }[loss]


def smooth_part(v, y, r, base, w, penalty, biased, loss):
    """Return the objective at coordinates v, the bias last, without λ₁."""
    x, b = (v[:-1], v[-1]) if biased else (v, 0.0)
    reg = 0.5 * penalty.reg * (x @ x) + 0.5 * penalty.bias_reg * b * b
    return w @ (loss_of(loss, r, base + b + y @ x) + reg)


@pytest.mark.parametrize(
    ("weighted", "dtype"),
    quick(
        [(weighted, dtype) for weighted in (False, True) for dtype in (np.float32, np.float64)],
        (False, np.float64),
    ),
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("k", [1, 2, 7, 8, 64, 65])
def test_squared__solves_the_normal_equations(k, biased, weighted, dtype):
    problem = Problem([3, 0, 1, k + 9] if k > 8 else [3, 0, 1, k + 9, 125], k, dtype)
    weights, penalty = problem.weights if weighted else None, Penalty(0.1, 0.02)
    X, bias = problem.solve(penalty, weights=weights, biased=biased)
    for u in range(len(X)):
        found = np.append(X[u], bias[u]) if biased else X[u]
        expected = solve_row(*problem.row(u, weights), penalty, biased)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * (1 + abs(expected).max()))
    assert not X[1].any()
    assert not bias[1]
    assert biased or not bias.any()


@pytest.mark.slow
def test_squared__counts_a_rating_of_weight_two_twice():
    once, penalty = Problem([5], 3), Penalty(0.1, 0.1)
    X, bias = once.solve(penalty, weights=np.array([1.0, 2, 1, 0, 1]), biased=True)
    twice = Problem([5], 3)
    for name in ("indices", "values"):
        setattr(twice, name, getattr(once, name)[[0, 1, 1, 2, 4]])
    np.testing.assert_allclose(*(np.append(*pair) for pair in ((X, bias), twice.solve(penalty, biased=True))))


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_ratings__give_zeros(counts):
    X, bias = Problem(counts, 3).solve(Penalty(0.1), n_threads=2, biased=True)
    assert not X.any()
    assert not bias.any()


@pytest.mark.slow
def test_rows_without_weight__are_zero():
    problem = Problem([5, 5], 3)
    X, bias = problem.solve(Penalty(0.0), weights=np.repeat([0.0, 1.0], 5), biased=True)
    assert not X[0].any()
    assert not bias[0]
    assert X[1].all()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("loss", quick(LOSSES, "squared"))
def test_no_penalty__leaves_the_fit_of_least_norm(loss, biased):
    problem = Problem([2, 30, 1], 6, loss=loss)
    X, bias = problem.solve(Penalty(0.0), biased=biased)
    assert np.isfinite(X).all()
    assert np.isfinite(bias).all()
    if loss != "logistic":  # fewer ratings than coordinates are met
        y, r, base, _ = problem.row(0)
        np.testing.assert_allclose(base + bias[0] + y @ X[0], r, atol=1e-5)
    if loss == "squared" and not biased:
        np.testing.assert_allclose(X[0], np.linalg.pinv(y) @ (r - base), atol=1e-5)
        y, r, base, _ = problem.row(1)
        np.testing.assert_allclose(X[1], np.linalg.lstsq(y, r - base)[0], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_solution__has_no_gradient(loss, biased):
    problem, penalty = Problem([12, 4], 5, loss=loss), Penalty(0.05, 0.01)
    X, bias = problem.solve(penalty, weights=problem.weights, biased=biased)
    for u in range(2):
        args = *problem.row(u, problem.weights), penalty, biased, loss
        v = np.append(X[u], bias[u]) if biased else X[u]
        slope = gradient(lambda v: smooth_part(v, *args), v)  # noqa: B023 (called at once)
        np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k", "reg"), [(12, 4, 0.05), (12, 4, 0.0), (3, 5, 0.02)])
def test_absolute__is_not_above_what_scipy_finds(n, k, reg):
    problem, penalty = Problem([n], k, loss="absolute"), Penalty(reg, reg)
    X, bias = problem.solve(penalty, biased=True)
    args = *problem.row(0), penalty, True, "absolute"
    found = smooth_part(np.append(X[0], bias[0]), *args)
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-12, "adaptive": True}
    best = min(
        minimize(smooth_part, start, args, method="Nelder-Mead", options=options).fun
        for start in (np.zeros(k + 1), np.append(X[0], bias[0]))
    )
    assert found <= best * (1 + 1e-4) + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("l1", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_l1_and_nonnegative__meet_the_conditions_of_a_minimum(loss, l1, nonnegative):
    problem, penalty = Problem([12, 4], 5, loss=loss), Penalty(0.05, 0.01, l1, nonnegative)
    X, bias = problem.solve(penalty, weights=problem.weights, biased=True)
    assert l1 == 0 or (X == 0).any()
    assert not nonnegative or (X >= 0).all()
    for u in range(2):
        args = *problem.row(u, problem.weights), penalty, True, loss
        slope = gradient(lambda v: smooth_part(v, *args), np.append(X[u], bias[u]))  # noqa: B023
        size = l1 * args[3].sum()
        np.testing.assert_allclose(slope[-1], 0, atol=1e-6)
        np.testing.assert_allclose(slope[:-1][X[u] > 0], -size, atol=1e-6)
        np.testing.assert_allclose(slope[:-1][X[u] < 0], size, atol=1e-6)
        assert (slope[:-1][X[u] == 0] >= -size - 1e-6).all()
        assert nonnegative or (slope[:-1][X[u] == 0] <= size + 1e-6).all()


@pytest.mark.parametrize("loss", quick(["squared", "absolute", "huber"], "squared"))
def test_perfect_base__leaves_nothing_to_add(loss):
    problem = Problem([6], 3, loss=loss)
    problem.values = problem.base[problem.indices]
    X, bias = problem.solve(Penalty(0.1), biased=True)
    assert not X.any()
    assert not bias.any()


@pytest.mark.slow
def test_logistic__stays_finite_if_a_score_separates():
    problem = Problem([20], 3, loss="logistic")
    problem.values = (problem.Y[problem.indices, 0] > 0).astype(np.float64)
    for reg in (0.0, 1e-6, 0.1):
        X, _ = problem.solve(Penalty(reg))
        assert np.isfinite(X).all()
        y, r, base, _ = problem.row(0)
        assert reg > 1e-3 or (((base + y @ X[0]) > 0) == (r == 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_result__is_the_same_on_any_number_of_threads(loss, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 300)
    problem = Problem([3, 9, 0, 7, 12, 2, 8, 5], 3, np.float32, loss)
    one, three = (problem.solve(Penalty(0.1, 0.1), n, biased=True) for n in (1, 3))
    np.testing.assert_array_equal(one[0], three[0])
    np.testing.assert_array_equal(one[1], three[1])


@pytest.mark.slow
def test_layout__does_not_matter():
    problem, penalty = Problem([9, 4], 4), Penalty(0.1)
    expected, _ = problem.solve(penalty)
    padded = np.zeros((40, 8))
    padded[:, :4] = problem.Y
    problem.indices = problem.indices.astype(np.int64)
    for Y in (np.asfortranarray(problem.Y), padded[:, :4]):
        problem.Y = Y
        np.testing.assert_array_equal(problem.solve(penalty)[0], expected)


@given(
    counts=st.lists(st.integers(0, 2**31), max_size=30),
    a_rating=st.floats(1, 1e5),
    a_row=st.floats(0, 1e7),
    passes=st.integers(1, 20),
)
def test_spans__cover_all_rows_once(counts, a_rating, a_row, passes):
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    indptr //= 2**16
    found = balanced_spans(indptr, a_rating, a_row, passes)
    assert [u for first, last in found for u in range(first, last)] == list(range(len(counts)))
    assert all(first < last for first, last in found)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    k=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    reg=st.sampled_from([0.0, 1e-9, 0.1, 100.0]),
    l1=st.sampled_from([0.0, 0.1]),
    nonnegative=st.booleans(),
    biased=st.booleans(),
    loss=st.sampled_from(LOSSES),
)
def test_solution__is_finite_and_not_worse_than_zero(
    counts, k, seed, scale, reg, l1, nonnegative, biased, loss
):
    problem, penalty = Problem(counts, k, loss=loss, seed=seed, n_items=6), Penalty(reg, reg, l1, nonnegative)
    problem.Y *= scale
    X, bias = problem.solve(penalty, biased=biased)
    assert np.isfinite(X).all()
    assert np.isfinite(bias).all()
    for u, x in enumerate(X):
        args = *problem.row(u), penalty, True, loss
        zero = smooth_part(np.zeros(k + 1), *args)
        found = smooth_part(np.append(x, bias[u]), *args) + l1 * counts[u] * abs(x).sum()
        assert found <= zero * (1 + 1e-5) + 1e-9
        if loss == "squared" and reg == 0.1 and l1 == 0 and not nonnegative and counts[u] and scale < 1e6:
            expected = solve_row(*problem.row(u), penalty, biased)
            np.testing.assert_allclose(np.append(x, bias[u])[: expected.size], expected, rtol=1e-7, atol=1e-9)
