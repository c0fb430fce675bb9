"""Alternating least squares, against normal equations and objectives computed here in float64."""

import math
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import reference
from mfkernel.cli import main
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import Penalty, solve_rows
from mfkernel.methods.baseline import bias_baseline
from tests.files import write_ratings
from tests.helpers import DENSE, assert_never_rises, assert_same, bits, examples, losses, quick
from tests.samples import low_rank_ratings, random_ratings

RANKS = (1, 3, 7, 9, 17, 33)
KINDS = ("plain", "biased", "weights")  # the last with biases, too
SOLVERS = ("cholesky", "cg", "subspace")
# what is compiled apart is asked for in few combinations
PAIRS = [(solver, kind) for solver in SOLVERS for kind in KINDS if (solver, kind) != ("cg", "biased")]
# plain runs compile but some: in float64, with neither biases nor weights, or with both
SOME_PAIRS = [("cholesky", "weights"), ("cg", "plain"), ("subspace", "weights")]
F64 = {"dtype": np.float64}
THREADS = (2, 3, 7)


def fit(R, k=3, kind="plain", **options):
    if kind != "plain":
        options["biases"] = True
    if kind == "weights":
        R = mf.Ratings(R, sample_weight=np.random.default_rng(7).choice([0.25, 1, 3], R.nnz))
    return mf.factorize(R, k, **{"method": "als", "epochs": 3, "rng": 0} | F64 | options)


def weights_of(R):
    """Return the weights in float64, ones if there are none."""
    return np.ones(R.nnz) if R.weights is None else R.weights.astype(np.float64)


def sides_of(model):
    """Return rows of P and Q with biases, as columns of their own, in float64."""
    sides = [model.P.astype(np.float64), model.Q.T.astype(np.float64)]
    if model.user_bias is not None:
        biases = model.user_bias, model.item_bias
        sides = [np.column_stack([X, b.astype(np.float64)]) for X, b in zip(sides, biases, strict=True)]
    return sides


def penalties_of(model):
    """Return λ times the scale of each coordinate of both sides; of rows without ratings zeros."""
    R, s = model.ratings, model.settings
    found = []
    for rows, size, reg in zip((R.users, R.items), model.shape, s.regularization, strict=True):
        regs = [reg] * model.k + ([s.bias_regularization] if s.biases else [])
        scale = np.bincount(rows, weights_of(R), size)
        found.append(np.outer(scale if s.is_per_rating else scale > 0, regs))
    return found


def predictions(model):
    R, score = (
        model.ratings,
        np.einsum("uk,ku->u", model.P[model.ratings.users], model.Q[:, model.ratings.items]),
    )
    return score.astype(np.float64) if model.user_bias is None else model.predict(R.users, R.items)


def objective(model):
    """Return what is minimized, without the penalty of rows that have no ratings."""
    R = model.ratings
    (P, Q), X = sides_of(model), penalties_of(model)
    z = np.sum(P[R.users, : model.k] * Q[R.items, : model.k], axis=1)
    if model.user_bias is not None:
        z += model.mean + P[R.users, -1] + Q[R.items, -1]
    loss = weights_of(R) @ np.square(R.values.astype(np.float64) - z)
    return loss + sum(float(np.sum(penalty * side**2)) for penalty, side in zip(X, (P, Q), strict=True))


def pulls(model, side):
    """Return minus half the gradient of the objective by the rows of a side, and the size of its parts."""
    R = model.ratings
    turn = slice(None, None, -1 if side else 1)
    rows, columns = (R.users, R.items)[turn]
    X, Y = sides_of(model)[turn]
    r, w = R.values.astype(np.float64), weights_of(R)[:, None]
    y, x = Y[columns], X[rows]
    if model.user_bias is not None:
        r = r - model.mean - y[:, -1]
        y = np.column_stack([y[:, :-1], np.ones(len(y))])
    e = r - np.sum(x * y, axis=1)
    penalty = penalties_of(model)[side] * X
    pull, size = -penalty, abs(penalty)
    np.add.at(pull, rows, w * e[:, None] * y)
    parts = abs(R.values) + np.sum(abs(x * y), axis=1)
    np.add.at(size, rows, w * parts[:, None] * abs(y))
    return pull, size


def assert_solved(model, side=1, tolerance=1e-12, rows=slice(None)):
    pull, size = pulls(model, side)
    assert np.isfinite(size).all()
    excess = np.abs(pull) - tolerance * size
    assert (excess[rows] <= 0).all(), f"{np.max(np.abs(pull) / np.maximum(size, 1e-300)):.3g}"


def alternated(R, Q0, epochs, reg, bias_reg, per, item_bias=None):
    """Return P and Q after some epochs of the reference, biases in their last column if there are such."""
    w, (m, n), biased = weights_of(R), R.shape, item_bias is not None
    P, Q = np.zeros((m, Q0.shape[0])), Q0.T.copy()
    biases = [np.zeros(m), np.zeros(n)]
    for _ in range(epochs):
        for X, Y, rows, columns, side in ((P, Q, R.users, R.items, 0), (Q, P, R.items, R.users, 1)):
            base = R.mean + biases[1 - side] if biased else np.zeros(len(Y))
            for u in np.unique(rows):
                at = rows == u
                c = w[at].sum() if per == "rating" else 1.0
                x = reference.als_row(
                    Y, columns[at], R.values[at], w[at], base, c * reg[side], c * bias_reg if biased else None
                )
                X[u], biases[side][u] = (x[:-1], x[-1]) if biased else (x, 0.0)
    return P, Q, *biases


# what is right


@pytest.mark.kernel
@pytest.mark.parametrize("per", ["row", "rating"])
@pytest.mark.parametrize("kind", quick(KINDS, "plain", "weights"))
def test_factors__are_those_of_the_reference(kind, per):
    R, rng = random_ratings(6, 5, 0.6), np.random.default_rng(1)
    init = rng.normal(size=(6, 3)), rng.normal(size=(3, 5))
    reg = {"regularization": (0.2, 0.5), "regularization_per": per}
    if kind != "plain":
        reg["bias_regularization"] = 0.3
    model = fit(R, 3, kind, init=init, **reg)
    assert (model.ratings.weights is not None) == (kind == "weights")
    P, Q, b, c = alternated(
        model.ratings, init[1], 3, (0.2, 0.5), 0.3, per, None if kind == "plain" else np.zeros(5)
    )
    np.testing.assert_allclose(model.P, P, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.Q, Q.T, rtol=1e-9, atol=1e-10)
    if kind != "plain":
        np.testing.assert_allclose(model.user_bias, b, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(model.item_bias, c, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", quick(KINDS, "plain", "weights"))
@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    k=st.sampled_from(RANKS),
    per=st.sampled_from(["row", "rating"]),
    reg=st.sampled_from([0.01, 0.3, 20.0]),
    ratio=st.sampled_from([0.1, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 999),
)
def test_items__solve_their_normal_equations(m, n, share, k, kind, per, reg, ratio, scale, seed):
    R = random_ratings(m, n, share, seed)
    R = R.with_values(R.values * scale)
    regs = {"regularization": (reg * scale, ratio * reg * scale), "regularization_per": per}
    if kind != "plain":
        regs["bias_regularization"] = ratio
    model = fit(R, k, kind, solver="cholesky", rng=seed, epochs=2, **regs)
    assert model.P.shape == (m, k)
    assert model.P.dtype == model.Q.dtype == np.float64
    assert model.settings.regularization == regs["regularization"]
    assert_solved(model, tolerance=1e-11)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert_never_rises(model, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("k", [5, 40])
@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_items__solve_their_normal_equations_in_float32(kind, k, ratings):
    model = fit(ratings, k, kind, dtype=np.float32, solver="cholesky")
    assert model.P.dtype == np.float32
    assert_solved(model, tolerance=2e-5)


@pytest.mark.kernel
def test_users__were_solved_given_the_items_before(rng):
    """A half step is one call of ``solve_rows``, bit by bit; of the transpose, it is the other half."""
    R = random_ratings(7, 9, 0.5)
    init, options = (rng.normal(size=(7, 9)), rng.normal(size=(9, 9))), {"solver": "cholesky", "epochs": 1}
    model = fit(R, 9, init=init, regularization=(0.25, 0.75), **options)
    with ThreadEngine(1) as engine:
        for rows, Y, found, reg in (
            (R, init[1].T, model.P, 0.25),
            (R.T, model.P, model.Q.T, 0.75),
        ):
            scale = np.ones(len(found))
            X, _ = solve_rows(
                rows.indptr, rows.indices, rows.values, Y.copy(), None, scale, Penalty(reg), engine
            )
            np.testing.assert_array_equal(found, X)
    swapped = fit(R.T, 9, init=(init[1].T, model.P.T), regularization=(0.75, 0.25), **options)
    np.testing.assert_array_equal(swapped.P, model.Q.T)


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="takes long")
@pytest.mark.parametrize(
    ("method", "shape", "k"),
    quick([("als", (12_000, 11_000), 4), ("implicit", (300, 200), 104)], ("als", (12_000, 11_000), 4)),
)
def test_one_thread__keeps_one_core_at_work(method, shape, k):
    """Long sums by BLAS would set its own threads to work, which stay busy for a while on other cores."""
    R = mf.datasets.synthetic(*shape, 20_000, rng=0)
    mf.factorize(R, k, method=method, epochs=1, n_threads=1, **F64)
    cpu, wall = time.process_time(), time.perf_counter()
    mf.factorize(R, k, method=method, epochs=20, n_threads=1, **F64)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert cpu <= 1.2 * wall


def test_transpose__converges_to_the_same_objective():
    R = random_ratings(12, 15, 0.6)
    rng = np.random.default_rng(0)
    P0, Q0 = rng.normal(size=(12, 8)), rng.normal(size=(8, 15))
    options = {"regularization": 2.0, "epochs": 400}  # so much that less than k factors are left
    one, other = fit(R, 8, init=(P0, Q0), **options), fit(R.T, 8, init=(Q0.T, P0.T), **options)
    assert np.linalg.matrix_rank(one.P, tol=1e-6) < 8
    assert losses(one)[-1] == pytest.approx(losses(other)[-1], rel=1e-8)
    np.testing.assert_allclose(one.reconstruct(), other.reconstruct().T, atol=1e-4)


def test_regularization_per__is_lambda_per_rating():
    R = random_ratings(6, 4, 1.0)
    one = fit(R, 3, regularization=0.5, regularization_per="rating")
    other = fit(R, 3, regularization=(0.5 * 4, 0.5 * 6), regularization_per="row")
    assert (one.settings.is_per_rating, other.settings.is_per_rating) == (True, False)
    np.testing.assert_allclose(one.P, other.P, rtol=1e-12)
    assert losses(one)[-1] == pytest.approx(losses(other)[-1], rel=1e-12)


def test_regularization_per__is_the_default_unless_regularization_is_given(ratings):
    chosen = fit(ratings, epochs=1)
    assert chosen.settings.is_per_rating
    assert not fit(ratings, epochs=1, regularization=1.0).settings.is_per_rating
    assert not fit(ratings, epochs=1, regularization_per="row").settings.is_per_rating
    assert fit(ratings, epochs=1, regularization=1.0, regularization_per="rating").settings.is_per_rating
    again = fit(ratings, epochs=1, regularization_per="rating", regularization=chosen.settings.regularization)
    assert_same(again, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("per", ["row", "rating"])
def test_weights__only_their_ratios_to_penalties_per_row_matter(per):
    """Where λ is per rating, it counts as often as the rating."""
    R = random_ratings(9, 8, 0.5)
    w = np.random.default_rng(0).choice([1.0, 2.0, 5.0], R.nnz)

    def found(c, weights):
        per_row = 1.0 if per == "rating" else c
        regs = {"regularization": 0.5 * per_row, "bias_regularization": 0.25 * per_row}
        return fit(R, biases=True, regularization_per=per, sample_weight=weights, **regs)

    one, other, uneven = found(1, w), found(4, 4 * w), found(3, 3 * w)
    assert_same(one, other)
    assert (4 * losses(one)).tolist() == losses(other).tolist()
    assert other.history[-1].rmse == one.history[-1].rmse
    np.testing.assert_allclose(uneven.P, one.P, rtol=1e-8)
    np.testing.assert_allclose(found(0.5, np.full(R.nnz, 0.5)).P, found(1, None).P, rtol=1e-8)
    assert abs(found(1, None).P - one.P).max() > 1e-3


@pytest.mark.parametrize("per", ["row", "rating"])
def test_weights__of_any_size_are_met_by_defaults(per):
    R, w = random_ratings(9, 8, 0.6), np.random.default_rng(0).choice([1.0, 2.0, 5.0], 72)
    one, other = (fit(R, biases=True, regularization_per=per, sample_weight=c * w[: R.nnz]) for c in (1, 64))
    np.testing.assert_allclose(other.predict(R.users, R.items), one.predict(R.users, R.items), rtol=1e-6)


def test_weights__of_zero_leave_a_rating_out():
    R = random_ratings(9, 8, 0.5)
    w = np.where(np.arange(R.nnz) % 5 == 0, 0.0, 2.0)
    w[R.users == 4] = 0
    options = {"biases": True, "regularization_per": "row", "regularization": 0.5}
    one = fit(R, sample_weight=w, **options)
    other = fit(R.select(w > 0), sample_weight=w[w > 0], **options)
    assert_same(one, other)
    assert not one.known_users[4]


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["plain", "weights"])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_nonnegative__meets_the_conditions_of_a_minimum(k, kind):
    R = random_ratings(8, 6, 0.7, mean=1.0)
    R = R.with_values(np.where(R.values < 0, 0, R.values) if kind == "plain" else R.values - 1)
    model = fit(R, k, kind, nonnegative=True, regularization=0.1, epochs=4)
    assert_conditions(model)
    assert_never_rises(model, 1e-9)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert k == 1 or (model.Q == 0).any()


@pytest.mark.slow
def test_nonnegative__holds_for_any_rank_by_default(ratings):
    model = fit(ratings, 72, nonnegative=True, epochs=2)
    assert (model.P >= 0).all()
    assert (model.Q >= 0).all()
    assert_conditions(model)
    assert_same(model, fit(ratings, 72, nonnegative=True, epochs=2, solver="cholesky"))


def assert_conditions(model):
    """Assert that each coordinate of Q is zero and pulled below it, or is not pulled at all."""
    pull, size = pulls(model, 1)
    Q = sides_of(model)[1]
    free = Q > 0
    if model.user_bias is not None:
        free[:, -1] = True
    assert (model.P >= 0).all()
    assert (model.Q >= 0).all()
    assert (np.abs(pull)[free] <= 1e-8 * size[free]).all()
    assert (pull[~free] <= 1e-8 * size[~free]).all()


@pytest.mark.kernel
@pytest.mark.parametrize(("solver", "kind"), quick(PAIRS, *SOME_PAIRS))
def test_result__is_the_same_on_any_number_of_threads(solver, kind, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 3000)
    monkeypatch.setattr("mfkernel.linalg.normal.SUBSPACE_COORDINATES", 8)
    R = random_ratings(11, 9, 0.4)
    one = fit(R, 9, kind, solver=solver, n_threads=1, epochs=2)
    for n in THREADS:
        assert bits(fit(R, 9, kind, solver=solver, n_threads=n, epochs=2)) == bits(one)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_result__is_the_same_on_any_number_of_threads_in_float32(kind, ratings, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 1e5)
    one = fit(ratings, 30, kind, dtype=np.float32, n_threads=1)
    for n in THREADS:
        assert bits(fit(ratings, 30, kind, dtype=np.float32, n_threads=n)) == bits(one)


# the objective


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "kind"), [pair for pair in PAIRS if pair[1] != "weights"])
@pytest.mark.parametrize("k", [7, 33])
def test_loss__is_the_objective_in_float32(k, solver, kind, ratings):
    model = fit(ratings, k, kind, solver=solver, dtype=np.float32, epochs=12)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-5)
    assert_never_rises(model, 1e-6)
    assert model.history[-1].rmse == pytest.approx(model.rmse(ratings), rel=1e-5)


@pytest.mark.kernel
@pytest.mark.parametrize(("solver", "kind"), quick(PAIRS, *SOME_PAIRS))
def test_loss__is_the_objective(solver, kind, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.SUBSPACE_COORDINATES", 8)
    model = fit(random_ratings(8, 7, 0.5), 9, kind, solver=solver, epochs=4)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert_never_rises(model, 1e-12)
    e = np.square(model.ratings.values - predictions(model))
    w = weights_of(model.ratings)
    assert model.history[-1].rmse == pytest.approx(math.sqrt(w @ e / w.sum()), rel=1e-9)
    assert [record.epoch for record in model.history] == [1, 2, 3, 4]
    assert {record.learning_rate for record in model.history} == {None}
    assert {record.validation_error for record in model.history} == {None}
    assert model.stop_reason == "epochs"


@pytest.mark.kernel
@pytest.mark.parametrize(("kind", "k"), quick([("plain", 3), ("weights", 2)], ("plain", 3)))
def test_conjugate_gradients__are_exact_of_as_many_coordinates_as_steps(kind, k):
    R, options = random_ratings(8, 7, 0.6), {"regularization": 0.3, "bias_regularization": 0.2, "epochs": 2}
    if kind == "plain":
        del options["bias_regularization"]
    exact, found = (fit(R, k, kind, solver=solver, **options) for solver in ("cholesky", "cg"))
    np.testing.assert_allclose(found.P, exact.P, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.Q, exact.Q, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("k", [16, 48, 80])
@pytest.mark.slow
def test_solvers__are_near_cholesky_in_half_as_many_epochs_more(k):
    R = low_rank_ratings(300, 200, 6000, 8)
    exact = losses(fit(R, k, epochs=10, solver="cholesky"))[-1]
    for solver in ("cg", "subspace"):
        found = losses(fit(R, k, epochs=15, solver=solver))
        assert found[-1] < 1.001 * exact
        assert found[0] > 1.001 * exact


def test_solvers__differ_in_the_steps_that_they_take(monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.SUBSPACE_COORDINATES", 16)
    R = random_ratings(20, 15, 0.6)
    exact, *others = (fit(R, 40, solver=solver, epochs=1) for solver in SOLVERS)
    for other in others:
        assert abs(other.P - exact.P).max() > 1e-6


def test_solver__is_chosen_by_k():
    R = random_ratings(40, 35, 0.6)
    for k, name, other in ((32, "cholesky", "cg"), (33, "cg", "cholesky")):
        chosen = fit(R, k, epochs=1)
        assert_same(chosen, fit(R, k, epochs=1, solver=name))
        assert abs(chosen.P - fit(R, k, epochs=1, solver=other).P).max() > 1e-6


# rows that cannot be solved, and ratings of one kind


@pytest.mark.parametrize(
    ("dense", "row"),
    [([[1.0, 2], [0, 3], [2, 1]], "user 1 "), ([[1.0, 2, 0], [3, 1, 1]], "item 2 ")],
)
@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float64))
def test_no_penalty__is_refused_where_ratings_are_too_few(dense, row, dtype):
    with pytest.raises(np.linalg.LinAlgError, match=rf"{row}.*\b1 ratings.*larger regularization"):
        fit(np.array(dense), 2, regularization=0, dtype=dtype)


@given(k=st.integers(2, 20), missing=st.integers(1, 19), seed=st.integers(0, 999))
def test_no_penalty__is_refused_however_few_ratings_are_missing(k, missing, seed):
    rng = np.random.default_rng(seed)
    dense = rng.normal(3, 1, (k + 9, k + 9))
    dense[0] = 0
    dense[0, rng.choice(k + 9, max(1, k - missing), replace=False)] = 3
    with pytest.raises(np.linalg.LinAlgError, match=f"user 0 .*{max(1, k - missing)} ratings"):
        fit(dense, k, regularization=0, epochs=1)


def test_no_penalty__is_possible_where_there_are_enough():
    model = fit(random_ratings(8, 9, 1.0), 3, regularization=0, epochs=5)
    assert_solved(model)


@pytest.mark.parametrize("biases", quick([False, True], False))
def test_ratings_that_are_all_the_same__are_predicted_by_default(biases):
    R = random_ratings(8, 7, 0.5)
    R = R.with_values(np.full(R.nnz, 3.0))
    assert fit(R, 3, biases=biases).rmse(R) < 0.05


def test_one_rating__is_predicted_by_default():
    assert fit([[4.0]], 2).predict(0, 0) == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 6), (6, 1)])
@pytest.mark.parametrize("kind", quick(["plain", "biased"], "plain"))
def test_one_row__is_enough(shape, kind):
    R = random_ratings(*shape, 1.0)
    model = fit(R, 3, kind)
    assert_solved(model)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)


@pytest.mark.parametrize("kind", quick(["plain", "biased"], "plain"))
def test_empty_rows__are_predicted_by_means(kind):
    R = random_ratings(9, 8, 0.5)
    R = R.select((R.users != 2) & (R.items != 5))
    model = fit(R, 3, kind)
    known = np.array([0, 1, 3])
    expected = np.full(3, model.mean)
    if kind == "biased":
        expected = model.mean + model.item_bias[known]
        assert model.user_bias[2] == 0
        assert not model.P[2].any()
    np.testing.assert_allclose(model.predict(2, known), expected, rtol=1e-12)
    assert not model.known_users[2]
    assert not model.known_items[5]


@pytest.mark.parametrize(
    ("kind", "scale"),
    quick([("plain", 2.0**20), ("plain", 2.0**-20), ("biased", -(2.0**20))], ("plain", 2.0**20)),
)
def test_scale__of_ratings_scales_predictions(kind, scale):
    R = low_rank_ratings(60, 40, 900, 8)
    one, other = fit(R, 4, kind), fit(R.with_values(R.values * scale), 4, kind)
    found = other.predict(R.users, R.items) / scale
    np.testing.assert_allclose(found, one.predict(R.users, R.items), rtol=1e-9)


# what hangs on a model


@pytest.mark.filterwarnings("ignore:the validation RMSE")
@pytest.mark.parametrize("biases", quick([False, True], False))
def test_validation__brings_the_best_epoch_back(biases):
    R = low_rank_ratings(60, 40, 1300, 2, noise=0.7)
    R, held_out = R.hold_out(150, np.random.default_rng(0))
    R = R.select(R.users != held_out.users[0])  # what is not known is predicted, too
    options = {"validation": held_out, "regularization": 1.0, "epochs": 60, "biases": biases}
    model = fit(R, 4, patience=3, **options)
    errors = [record.validation_rmse for record in model.history]
    best = int(np.argmin(errors))
    assert best > 1
    assert model.stop_reason == "patience"
    assert len(errors) == best + 1 + 3
    assert model.rmse(held_out) == pytest.approx(errors[best], rel=1e-9)
    assert objective(model) == pytest.approx(model.history[best].loss, rel=1e-9)
    assert {record.validation_ndcg for record in model.history} == {None}


@pytest.mark.filterwarnings("ignore:the validation RMSE")
def test_validation__takes_a_share():
    model = fit(low_rank_ratings(60, 40, 900, 8), 2, validation=0.2, epochs=4)
    assert all(record.validation_rmse > 0 for record in model.history)


def test_tol__ends_when_the_objective_has_been_reached():
    """The RMSE may rise towards the minimum, as the penalty falls."""
    R = mf.datasets.synthetic(300, 200, 6000, rng=1)
    for reg in (None, 20.0):
        model = fit(R, 8, regularization=reg, tol=0.01, epochs=60)
        assert model.stop_reason == "converged"
        still = np.flatnonzero(-np.diff(losses(model)) < 1e-4 * losses(model)[:-1])
        assert still.size <= 2, losses(model)


def test_time_limit__ends_after_an_epoch():
    model = fit(DENSE, 1, regularization=0.1, time_limit=1e-9, epochs=9)
    assert (model.stop_reason, len(model.history)) == ("time limit", 1)


def test_progress__shows_the_objective(capsys):
    model = fit(DENSE, 1, regularization=0.1, epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"loss {model.history[-1].loss:.8g} " in lines[-1]
    assert "rate" not in lines[-1]


@pytest.mark.kernel
@pytest.mark.parametrize("per", ["row", "rating"])
@pytest.mark.parametrize("kind", quick(["plain", "biased"], "plain"))
def test_fold_in__solves_the_normal_equations(kind, per):
    model = fit(random_ratings(8, 7, 0.6), 3, kind, regularization=(0.3, 0.9), regularization_per=per)
    new_users = random_ratings(4, 7, 0.5, seed=1)
    folded = model.fold_in(new_users)
    biased = kind == "biased"
    base = model.mean + model.item_bias if biased else np.zeros(7)
    for u in np.unique(new_users.users):
        at = new_users.users == u
        c = at.sum() if per == "rating" else 1
        x = reference.als_row(
            model.Q.T, new_users.items[at], new_users.values[at], np.ones(at.sum()), base, 0.3 * c,
            model.settings.bias_regularization * c if biased else None,
        )  # fmt: skip
        np.testing.assert_allclose(folded.P[u], x[:3], rtol=1e-9, atol=1e-12)
        assert not biased or folded.user_bias[u] == pytest.approx(x[3], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("per", ["row", "rating"])
def test_fold_in__finds_the_users_of_the_converged_model(per):
    R = random_ratings(9, 8, 0.7)
    model = fit(R, 2, "biased", regularization=0.5, regularization_per=per, epochs=500)
    folded = model.fold_in(R)
    np.testing.assert_allclose(folded.P, model.P, atol=1e-7)
    np.testing.assert_allclose(folded.user_bias, model.user_bias, atol=1e-7)


@pytest.mark.parametrize("per", ["row", "rating"])
@pytest.mark.parametrize("kind", quick(["plain", "biased"], "plain"))
def test_partial_fit__leaves_items_that_solve_their_equations(kind, per):
    R = random_ratings(9, 8, 0.6)
    model = fit(R, 3, kind, regularization=(0.3, 0.9), regularization_per=per)
    before = model.Q.copy()
    users, items = np.array([0, 9, 9, 10, 3]), np.array([1, 1, 4, 8, 8])
    model.partial_fit((users, items, np.array([5.0, 1, 2, 3, 4])))
    assert model.shape == (11, 9)
    assert_solved(model, rows=np.unique(items))
    np.testing.assert_array_equal(model.Q[:, [0, 2]], before[:, [0, 2]])


@pytest.mark.parametrize("per", ["row", "rating"])
def test_partial_fit__and_explain_heed_weights_as_training_does(per):
    R = random_ratings(9, 8, 0.6)
    free = np.flatnonzero(~np.isin(np.arange(8), R.indices[R.indptr[0] : R.indptr[1]]))[:1]
    models = []
    for c in (1.0, 16.0):
        w = c * np.random.default_rng(0).choice([0.5, 1.5, 2.0], R.nnz)
        per_row = 1.0 if per == "rating" else c
        regs = {"regularization": 0.5 * per_row, "bias_regularization": 0.25 * per_row}
        model = fit(R, 3, biases=True, regularization_per=per, sample_weight=w, **regs)
        parts = model.explain(1, 2)
        new = mf.Ratings(([0], free, [4.0], (9, 8)), sample_weight=[c])
        models.append((model.partial_fit(new), parts.contributions))
        assert_solved(model, rows=free)
    np.testing.assert_allclose(models[1][1], models[0][1], rtol=1e-9)
    np.testing.assert_allclose(models[1][0].P, models[0][0].P, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("per", ["row", "rating"])
@pytest.mark.parametrize("kind", quick(KINDS, "plain", "weights"))
def test_explain__adds_up_and_leaves_nothing_over(kind, per):
    model = fit(random_ratings(9, 8, 0.7), 2, kind, regularization=0.5, regularization_per=per, epochs=500)
    for u, i in ((0, 0), (3, 5), (8, 7)):
        parts = model.explain(u, i, 99)
        total = parts.mean + parts.user_bias + parts.item_bias + parts.contributions.sum() + parts.rest
        assert parts.score == pytest.approx(total, abs=1e-12)
        assert parts.score == pytest.approx(model.predict(u, i), abs=1e-12)
        assert parts.rest == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", quick(["plain", "biased"], "plain"))
def test_explain__of_a_stranger_leaves_nothing_over(kind):
    model = fit(random_ratings(9, 8, 0.7), 3, kind, epochs=2)
    parts = model.fold_in({0: 5.0, 3: 1.0, 6: 4.0}).explain(0, 2, 99)
    assert set(parts.items.tolist()) == {0, 3, 6}
    assert abs(parts.contributions).max() > 1e-3
    assert parts.rest == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("solver", "kind"), quick(PAIRS, *SOME_PAIRS))
def test_init__goes_on_from_a_model_as_if_it_had_not_ended(solver, kind):
    R = random_ratings(12, 10, 0.7)  # each row and column has some: others would keep their values
    whole, half = (fit(R, 9, kind, solver=solver, epochs=epochs) for epochs in (5, 3))
    before = bits(half)
    again = fit(R, 9, kind, solver=solver, epochs=2, init=half, rng=9)
    assert_same(again, whole)
    assert losses(again).tolist() == losses(whole)[3:].tolist()
    assert bits(half) == before


@pytest.mark.parametrize("solver", SOLVERS)
def test_init__takes_start_values(solver, rng):
    R, P0, Q0 = random_ratings(12, 10, 0.7), rng.normal(size=(12, 9)), rng.normal(size=(9, 10))
    options = {"solver": solver, "epochs": 1}
    one, same, other = (fit(R, 9, init=(P, Q0), **options) for P in (P0, P0.copy(), 2 * P0))
    assert_same(one, same)
    change = abs(one.P - other.P).max()
    assert change > 1e-3 if solver == "cg" else change < 1e-9  # what is solved exactly forgets where it was
    assert abs(fit(R, 9, init=(P0, 2 * Q0), **options).P - one.P).max() > 1e-3


@pytest.mark.slow
def test_init__of_sgd_is_a_start(ratings):
    first = mf.factorize(ratings, 8, epochs=5, rng=0, **F64)
    model = fit(ratings, 8, init=first, epochs=1)
    assert model.settings.method == "als"
    assert_solved(model, tolerance=1e-11)


@pytest.mark.parametrize("solver", SOLVERS)
def test_init__gives_values_to_rows_without_ratings(solver):
    first, fewer = fit(DENSE, 2), DENSE.copy()
    fewer[3] = 0
    again = fit(fewer, 2, init=first, epochs=1, solver=solver)
    assert again.known_users.all()
    np.testing.assert_array_equal(again.P[3], first.P[3])
    pair = fit(fewer, 2, init=(first.P, first.Q), epochs=1, solver=solver)
    np.testing.assert_array_equal(pair.P[3], first.P[3])


def test_ids__are_kept_and_found():
    users, items = ["eve", "bob", "Ann", "zoë"], np.array([30, 10, 20])
    first = fit(mf.Ratings(DENSE, user_ids=users, item_ids=items), 2)
    assert first.user_ids.tolist() == users
    assert first.item_columns([20]).tolist() == [2]
    moved = mf.Ratings(DENSE[::-1], user_ids=users[::-1], item_ids=items)
    again = fit(moved, 2, init=first, epochs=1)
    straight = fit(mf.Ratings(DENSE, user_ids=users, item_ids=items), 2, init=first, epochs=1)
    np.testing.assert_allclose(again.P[::-1], straight.P, rtol=1e-12)


# arguments


@pytest.mark.parametrize("method", ["als", "implicit"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.1), ("decay", "linear"), ("bias_learning_rate", 0.1), ("loss", "huber"),
        ("huber_delta", 1.0), ("l1", 0.1), ("l1", (0.0, 0.1)), ("shuffle", False), ("schedule", "hogwild"),
    ],
)  # fmt: skip
def test_arguments__of_sgd_are_refused(method, name, value):
    with pytest.raises(TypeError, match=rf"^{name} .*'sgd'.*{method}"):
        mf.factorize(DENSE, 1, method=method, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("regularization_per", "rating"),
        ("regularization_per", "row"),
        ("solver", "cg"),
        ("alpha", 2.0),
        ("unobserved_weight", 0.5),
    ],
)
def test_arguments__of_als_are_refused_by_sgd(name, value):
    with pytest.raises(TypeError, match=rf"^{name} .*'implicit'.*sgd"):
        mf.factorize(DENSE, 1, **{name: value})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 2.0}, TypeError, "^alpha .*'implicit'.*'als'"),
        ({"unobserved_weight": 0.5}, TypeError, "^unobserved_weight .*'implicit'.*'als'"),
        ({"solver": "qr"}, ValueError, "solver.*'cholesky', 'cg', 'subspace'.*'qr'"),
        ({"solver": 3}, ValueError, "solver.*3"),
        ({"solver": "cg", "nonnegative": True}, ValueError, "nonnegative.*'cholesky'.*'cg'"),
        ({"solver": "subspace", "nonnegative": True}, ValueError, "nonnegative.*'cholesky'.*'subspace'"),
        ({"regularization_per": "user"}, ValueError, "regularization_per.*'rating', 'row'.*'user'"),
        ({"weighted": True}, TypeError, "weighted; pass regularization_per"),
        ({"regularization": -1}, ValueError, "regularization.*-1"),
        ({"regularization": (1, math.nan)}, ValueError, r"regularization\[1\].*nan"),
        ({"bias_regularization": -1, "biases": True}, ValueError, "bias_regularization.*-1"),
        ({"epochs": 0}, ValueError, "epochs.*0"),
        ({"method": "ALS"}, ValueError, "method.*'als'.*'ALS'"),
    ],
)
def test_arguments__are_checked(options, error, message):
    with pytest.raises(error, match=message):
        mf.factorize(DENSE, 1, **{"method": "als"} | options)


# quality and the program


@pytest.mark.slow
def test_quality__is_above_that_of_biases():
    train, test = mf.train_test_split(mf.datasets.synthetic(), 0.1, rng=0)
    model = mf.factorize(train, 16, method="als", biases=True, rng=0)
    assert len(model.history) == 15
    assert model.settings.is_per_rating
    assert model.rmse(test) < 0.96 * bias_baseline(train).rmse(test)


@pytest.fixture
def rating_file(tmp_path, ratings):
    return write_ratings(tmp_path / "ratings.csv", ratings, head="user,item,rating\n")


@pytest.mark.slow
def test_program__factorizes(capsys, rating_file, tmp_path):
    options = ["--method", "als", "--biases", "-k", "4", "--seed", "3", "--dtype", "float64"]
    more = [
        "--solver",
        "subspace",
        "--regularization-per",
        "rating",
        "--regularization",
        "0.2",
        "--epochs",
        "5",
        "--test",
        "0.1",
    ]
    main(["factorize", str(rating_file), *options, *more, "-o", str(tmp_path / "model.npz")])
    captured = capsys.readouterr()
    model = mf.load(tmp_path / "model.npz")
    train, test = mf.train_test_split(mf.read_ratings(rating_file), 0.1, rng=3)
    expected = fit(
        train,
        4,
        "biased",
        rng=3,
        solver="subspace",
        regularization_per="rating",
        regularization=0.2,
        epochs=5,
    )
    assert_same(model, expected)
    assert model.settings == expected.settings
    assert f"{expected.rmse(train):.4f}    {expected.rmse(test):.4f}" in captured.out
    assert captured.err.count("\n") == 5
    assert f"loss {model.history[-1].loss:.8g} " in captured.err.splitlines()[-1]


def test_program__factorizes_the_example(capsys):
    main(["factorize", "--method", "als", "--regularization", "0.01", "--seed", "0", "-q"])
    out = capsys.readouterr().out
    numbers = [float(x) for x in out.split("k = 2:")[1].replace("[", " ").replace("]", " ").split()]
    R = mf.datasets.textbook()[0].ravel()
    np.testing.assert_allclose(np.array(numbers)[R > 0], R[R > 0], atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "als", "--learning-rate", "0.1"], "learning_rate .*'sgd'.*'als'"),
        (["--method", "als", "--loss", "huber"], "loss .*'sgd'.*'als'"),
        (["--method", "als", "--l1", "1"], "l1 .*'sgd'.*'als'"),
        (["--method", "als", "--decay", "linear"], "decay .*'sgd'.*'als'"),
        (["--method", "als", "--schedule", "hogwild"], "schedule .*'sgd'.*'als'"),
        (["--method", "als", "--alpha", "2"], "alpha .*'implicit'.*'als'"),
        (["--method", "als", "--solver", "cg", "--nonnegative"], "nonnegative.*'cg'"),
        (["--method", "als", "--regularization", "0", "-k", "9"], "ratings, k = 9.*regularization"),
        (["--solver", "cg"], "solver .*'als'.*'sgd'"),
        (["--regularization-per", "rating"], "regularization_per .*'als'.*'sgd'"),
    ],
)
def test_program__says_in_one_line_what_is_wrong(capsys, rating_file, options, message):
    with pytest.raises(SystemExit, match=f"^mfkernel: .*{message}") as end:
        main(["factorize", str(rating_file), "-q", *options])
    assert "\n" not in str(end.value)
    assert "RMSE" not in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--method", "alternating"], ["--method", "als", "--solver", "qr"]])
def test_program__knows_methods_and_solvers(capsys, rating_file, option):
    with pytest.raises(SystemExit):
        main(["factorize", str(rating_file), *option])
    assert option[-1] in capsys.readouterr().err


@examples(20)
@pytest.mark.parametrize("kind", quick(KINDS, "plain", "weights"))
@given(m=st.integers(1, 9), n=st.integers(1, 9), k=st.sampled_from([1, 3, 9, 17]), seed=st.integers(0, 99))
def test_defaults__never_fail_where_ratings_differ(kind, m, n, k, seed):
    R = random_ratings(m, n, 0.4, seed)
    R = R.with_values(R.values + np.arange(R.nnz))
    if R.nnz > 1:
        model = fit(R, k, kind)
        assert np.isfinite(model.P).all()
        assert np.isfinite(model.Q).all()
        assert_never_rises(model, 1e-12)
