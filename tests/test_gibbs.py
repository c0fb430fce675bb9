"""Draws of rows, priors and noise, against NumPy, theory and one another."""

import math
import os

import numpy as np
import pytest

from mfkernel import reference
from mfkernel.engines.threads import ThreadEngine
from mfkernel.kernels.gibbs import Noise, Stream, draw_normals, philox
from mfkernel.kernels.jit import jit
from mfkernel.kernels.row_problem import RowProblem
from mfkernel.linalg import gibbs
from mfkernel.linalg.gibbs import (
    BIAS_SHARE,
    Precisions,
    Prior,
    Products,
    Rows,
    draw_by_slices,
    draw_precisions,
    draw_prior,
    draw_rows,
    draw_sigma,
    draw_wishart,
    rescale,
)
from mfkernel.linalg.means import Product, mean_product
from mfkernel.linalg.rows import aligned_rows, pad_rows
from tests.helpers import quick

VECTORS = [  # counter, key and result, from the test vectors of Random123
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@jit
def four(position, row, stream):
    return philox(np.uint64(position), np.uint64(row), stream)


@jit
def normals_of(u, stream, sigma, out):
    draw_normals(u, stream, sigma, out)


# Random numbers


@pytest.mark.kernel
@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_philox__gives_the_published_numbers(counter, key, result):
    assert reference.philox(counter, key) == result
    assert list(four(counter[0], counter[1], Stream(*key, *counter[2:]))) == result


@pytest.mark.kernel
def test_normals__are_normal_and_differ_by_row_sweep_side_and_seed():
    out = np.zeros(4004)
    normals_of(3, Stream(1, 2, 5, 0), 2.0, out)
    drawn = out[:4000] / 2
    assert abs(drawn.mean()) < 4 / math.sqrt(4000)
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / 4000)
    assert abs((drawn**4).mean() - 3) < 4 * math.sqrt(96 / 4000)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 4 / math.sqrt(4000)
    for u, stream in (
        (4, (1, 2, 5, 0)),
        (3, (9, 2, 5, 0)),
        (3, (1, 9, 5, 0)),
        (3, (1, 2, 6, 0)),
        (3, (1, 2, 5, 1)),
    ):
        other = np.zeros(4004)
        normals_of(u, Stream(*stream), 2.0, other)
        assert abs(np.corrcoef(out[:4000], other[:4000])[0, 1]) < 0.07


# Rows


def problem_of(rng, m, n, k, dtype, weighted):
    """Return ratings of a part of the cells, the last row without any, and the other side."""
    known = rng.random((m, n)) < 0.4
    known[-1] = False
    users, items = np.nonzero(known)
    indptr = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    values = rng.normal(size=users.size).astype(dtype)
    weights = rng.uniform(0.5, 2, users.size).astype(dtype) if weighted else None
    Y, base = rng.normal(size=(n, k)).astype(dtype), rng.normal(size=n).astype(dtype)
    problem = RowProblem(
        indptr,
        items.astype(np.int32),
        values,
        np.empty_like(values),
        pad_rows(Y),
        base,
        np.ones(m, dtype),
        None,
    )
    return problem, weights


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
@pytest.mark.parametrize("k", [1, 5, 8, 33])
@pytest.mark.parametrize("weighted", quick([False, True], False))
def test_rows__are_those_of_the_reference(dtype, k, weighted, rng, monkeypatch):
    monkeypatch.setattr(gibbs, "MIN_SPARSE_RANK", 10**6)
    m, n = 7, 40
    problem, weights = problem_of(rng, m, n, k, dtype, weighted)
    root = rng.normal(size=(k, k))
    prior = Prior(rng.normal(size=k), root @ root.T + np.eye(k), 0.3, 2.0)
    noise = Noise(0.7, weights, rng.uniform(0.5, 2, m).astype(dtype), rng.uniform(0.5, 2, n).astype(dtype))
    rows, expected = (Rows(aligned_rows(m, k, np.dtype(dtype)), np.zeros(m, dtype)) for _ in range(2))
    stream = Stream(3, 4, 5, 1)
    with ThreadEngine(2) as engine:
        failed, products, loss = draw_rows(problem, k, noise, prior, stream, rows, engine, expected=expected)
    assert not failed.any()
    precision = np.zeros((k + 1, k + 1))
    precision[:k, :k], precision[k, k] = prior.precision, prior.bias_precision
    mean = np.append(prior.mean, prior.bias_mean)
    total = 0.0
    for u in range(m):
        part = slice(problem.indptr[u], problem.indptr[u + 1])
        i, r = problem.indices[part], problem.values[part]
        w = np.ones(r.size) if weights is None else weights[part]
        w = w * noise.rows[u] * noise.others[i]
        normals = np.zeros(k + 4 + -(k % -4))
        normals_of(u, stream, 1.0, normals)
        Y, base = problem.Y[i, :k].astype(np.float64), problem.base[i]
        draw, center = reference.gibbs_row(Y, base, r, w, (mean, precision), 0.7, normals[: k + 1])
        tolerance = {"rtol": 2e-3, "atol": 2e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-11}
        np.testing.assert_allclose(np.append(rows.X[u, :k], rows.bias[u]), draw, **tolerance)
        np.testing.assert_allclose(np.append(expected.X[u, :k], expected.bias[u]), center, **tolerance)
        assert not rows.X[u, k:].any()
        d = rows.bias[u] - prior.bias_mean
        f = Y @ (rows.X[u, :k] - prior.mean)
        e = r - base - Y @ rows.X[u, :k] - rows.bias[u]
        found = np.array([x[u] for x in products])
        sums = [w @ (a * b) for a, b in ((e, e), (e, f), (e, d), (f, f), (f, d), (d * np.ones_like(e), d))]
        np.testing.assert_allclose(found, sums, rtol=2e-3, atol=1e-3)
        total += e @ (e if weights is None else weights[part] * e)
    np.testing.assert_allclose(loss, total, rtol=1e-3)


@pytest.mark.kernel
@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float64))
@pytest.mark.parametrize("n_ratings", [0, 1, 4, 7])
def test_sparse_rows__have_the_mean_and_covariance_of_the_reference(dtype, n_ratings, rng):
    """All rows have the same ratings, so that their draws show the distribution."""
    compiled = os.environ.get("NUMBA_DISABLE_JIT") != "1"
    m, n, k = 6000 if compiled else 40, 9, 14
    items = np.arange(n_ratings, dtype=np.int32)
    r, w = rng.normal(size=n_ratings), rng.uniform(0.5, 2, n_ratings)
    Y, base = rng.normal(size=(n, k)), rng.normal(size=n)
    problem = RowProblem(
        np.arange(m + 1) * n_ratings,
        np.tile(items, m),
        np.tile(r.astype(dtype), m),
        np.empty(m * n_ratings, dtype),
        pad_rows(Y.astype(dtype)),
        base.astype(dtype),
        np.ones(m, dtype),
        None,
    )
    root = rng.normal(size=(k, k))
    prior = Prior(rng.normal(size=k), root @ root.T + np.eye(k), 0.3, 2.0)
    others = rng.uniform(0.5, 2, n)
    noise = Noise(0.7, np.tile(w.astype(dtype), m), np.full(m, 1.5, dtype), others.astype(dtype))
    rows, expected = (Rows(aligned_rows(m, k, np.dtype(dtype)), np.zeros(m, dtype)) for _ in range(2))
    assert gibbs.find_sparse_rows(problem.indptr, problem.Y.shape).size == m
    with ThreadEngine(2) as engine:
        failed, products, _ = draw_rows(
            problem, k, noise, prior, Stream(3, 4, 5, 1), rows, engine, expected=expected
        )
    assert not failed.any()
    precision = np.zeros((k + 1, k + 1))
    precision[:k, :k], precision[k, k] = prior.precision, prior.bias_precision
    mean, weights = np.append(prior.mean, prior.bias_mean), w * 1.5 * others[:n_ratings]
    given = Y[:n_ratings], base[:n_ratings], r, weights, (mean, precision), 0.7
    units = [reference.gibbs_row(*given, unit) for unit in np.eye(k + 1)]
    center = units[0][1]
    root = np.array([draw - center for draw, _ in units])
    tolerance = 1e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(
        np.column_stack([expected.X[:, :k], expected.bias])[0], center, rtol=tolerance, atol=tolerance
    )
    assert not rows.X[:, k:].any()
    e = r - base[:n_ratings] - Y[:n_ratings] @ rows.X[5, :k] - rows.bias[5]
    np.testing.assert_allclose(products.ee[5], weights @ e**2, rtol=1e-2, atol=1e-9)
    if not compiled:
        return  # so few draws do not show their distribution
    draws = np.column_stack([rows.X[:, :k], rows.bias]).astype(np.float64)
    variance = (root**2).sum(axis=0)
    assert np.abs((draws.mean(axis=0) - center) / np.sqrt(variance / m)).max() < 4.5
    scaled = np.cov((draws / np.sqrt(variance)).T)
    correlation = (root.T @ root) / np.sqrt(np.outer(variance, variance))
    assert np.abs(scaled - correlation).max() < 5 * np.sqrt(2 / m)


def test_sparse_rows__are_left_to_the_equations_where_these_are_faster():
    def found(counts, n_items, K):
        return gibbs.find_sparse_rows(np.concatenate([[0], np.cumsum(counts)]), (n_items, K)).tolist()

    assert found([0, 3, 16, 17, 40] * 100, 10, 32)[:4] == [0, 1, 2, 5]
    assert found([3] * 100, 10, 8) == []  # the rank is small
    assert found([3] * 100, 10_000, 32) == []  # there are more items to map than rows
    assert found([], 0, 32) == []


def test_products__follow_the_scale(rng):
    e, f, d, w = rng.normal(size=(4, 50))
    w = np.abs(w)

    def sums(e, f, d):
        return [np.array([w @ (a * b)]) for a, b in ((e, e), (e, f), (e, d), (f, f), (f, d), (d, d))]

    scaled = Products(*sums(e, f, d)).scaled(1.3, 0.6)
    np.testing.assert_allclose(scaled, sums(e - 0.3 * f + 0.4 * d, 1.3 * f, 0.6 * d), rtol=1e-12)


# Priors and noise


def test_wishart__has_the_mean_and_variance_of_theory(rng):
    scale = np.array([[2.0, 0.5], [0.5, 1.0]])
    draws = np.array([draw_wishart(np.linalg.inv(scale), 7.0, rng) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), 7 * scale, rtol=0.05)
    variance = 7 * (scale**2 + np.outer(np.diag(scale), np.diag(scale)))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.15)


def test_slices__draw_from_the_density(rng):
    draws, x = np.empty(20_000), 0.0
    for n in range(draws.size):  # of the logarithm of a gamma variable of shape 4
        x = draws[n] = draw_by_slices(lambda t: 4 * t - math.exp(t), x, rng)
    assert abs(np.exp(draws).mean() - 4) < 0.15
    assert abs(np.exp(draws).var() - 4) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_all_draws__leave_the_joint_distribution_as_it_is(sparse, monkeypatch):
    """Draw parameters and ratings together, and one after the other: both must have the same distribution.

    Geweke, "Getting it right: joint distribution tests of posterior simulators", JASA 2004.
    """
    if sparse:  # all rows have at most half as many ratings as coordinates, with padding
        monkeypatch.setattr(gibbs, "find_sparse_rows", lambda indptr, shape: np.arange(indptr.size - 1))
    rng = np.random.default_rng(1)
    chain = Joint(rng)
    direct = np.array([Joint(rng).statistics() for _ in range(6000)])
    in_turn = np.empty((20_000, direct.shape[1]))
    for n in range(len(in_turn)):
        chain.sweep(n)
        chain.draw_ratings()
        in_turn[n] = chain.statistics()
    batches = in_turn.reshape(40, -1, direct.shape[1]).mean(axis=1)
    error = np.sqrt(batches.var(axis=0, ddof=1) / len(batches) + direct.var(axis=0) / len(direct))
    z = (in_turn.mean(axis=0) - direct.mean(axis=0)) / error
    assert np.abs(z).max() < 4, z


class Joint:
    """All that the model has, with ratings of every cell of a small table; the spread is 1."""

    K, SHAPE = 2, (4, 4)

    def __init__(self, rng):
        self.rng, k = rng, self.K
        self.sigma = draw_sigma(0.0, 0, 1.0, rng)
        self.rows, self.precisions, self.priors = [], [], []
        for size in self.SHAPE:
            precision = draw_wishart(np.eye(k), k, rng)
            mean = np.linalg.solve(np.linalg.cholesky(2 * precision).T, rng.standard_normal(k))
            bias_precision = rng.gamma(0.5) / (0.5 * BIAS_SHARE)
            bias_mean = rng.standard_normal() / math.sqrt(bias_precision)
            deviations = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal((k, size))).T
            X, bias = aligned_rows(size, k, np.dtype(np.float64)), np.zeros(size)
            X[:, :k] = mean + deviations
            bias[:] = bias_mean + rng.standard_normal(size) / math.sqrt(bias_precision)
            self.rows.append(Rows(X, bias))
            self.priors.append(Prior(mean, precision, bias_mean, bias_precision))
            degrees = 8 * abs(rng.standard_cauchy())
            while degrees < 2:
                degrees = 8 * abs(rng.standard_cauchy())
            values = np.maximum(rng.standard_gamma(degrees / 2, size) / (degrees / 2), 1e-4)
            self.precisions.append(Precisions(values, degrees))
        self.draw_ratings()

    def draw_ratings(self):
        (P, user_bias), (Q, item_bias) = self.rows
        scores = P @ Q.T + user_bias[:, None] + item_bias
        precision = np.outer(self.precisions[0].values, self.precisions[1].values)
        self.R = scores + self.sigma / np.sqrt(precision) * self.rng.standard_normal(self.SHAPE)

    def sweep(self, number):
        with ThreadEngine(1) as engine:
            for side in (0, 1):
                R, other, size = (self.R, self.R.T)[side], self.rows[1 - side], self.SHAPE[side]
                width = self.SHAPE[1 - side]
                problem = RowProblem(
                    np.arange(size + 1) * width,
                    np.tile(np.arange(width, dtype=np.int32), size),
                    np.ascontiguousarray(R).reshape(-1),
                    np.empty(R.size),
                    other.X,
                    other.bias,
                    np.ones(size),
                    None,
                )
                noise = Noise(
                    self.sigma, None, self.precisions[side].values, self.precisions[1 - side].values
                )
                prior = draw_prior(self.rows[side], self.K, 1.0, engine, self.rng)
                stream = Stream(int(self.rng.integers(2**32)), 0, number, side)
                _, products, _ = draw_rows(problem, self.K, noise, prior, stream, self.rows[side], engine)
                arguments = self.rows[side], self.K, prior, products, self.sigma, 1.0, self.rng
                self.priors[side], products = rescale(*arguments)
                old, counts = self.precisions[side], np.full(size, width)
                new = draw_precisions(old, products.ee, counts, self.sigma, self.rng)
                self.precisions[side] = new
        loss = float((products.ee * new.values / old.values).sum())
        self.sigma = draw_sigma(loss, self.R.size, 1.0, self.rng)

    def statistics(self):
        """Return bounded functions of all parts: the prior has no moments."""
        (P, user_bias), (Q, item_bias) = self.rows
        parts = [
            np.tanh(self.R[0, 0]),
            np.tanh(self.R[1, 2]) ** 2,
            np.tanh(P[0] @ Q[1]),
            math.tanh(self.sigma),
        ]
        parts += [np.tanh(P[0, 0]) ** 2, np.tanh(P[0, 0] * P[1, 0]), np.tanh(Q[1, 1]) ** 2]
        parts += [
            np.tanh(user_bias[1]) ** 2,
            np.tanh(item_bias[0]) ** 2,
            np.tanh(item_bias[0] * item_bias[1]),
        ]
        for prior, precisions in zip(self.priors, self.precisions, strict=True):
            parts += [math.tanh(np.trace(prior.precision) / 4), math.tanh(BIAS_SHARE * prior.bias_precision)]
            parts += [math.tanh(precisions.degrees / 30), math.tanh(precisions.values[0])]
            parts += [math.tanh(prior.mean[0]) ** 2, math.tanh(abs(prior.bias_mean))]
        return parts


# Means


@pytest.mark.parametrize("k", [1, 5, 8])
def test_mean_product__tends_to_the_nearest_product_of_its_rank(k, rng):
    shape, share = (30, 20), 0.4
    one, two = (Product(*(pad_rows(rng.normal(size=(size, k))) for size in shape)) for _ in range(2))
    weights = [rng.uniform(1, 9, size) for size in shape]
    roots = [np.sqrt(w) for w in weights]
    target = (1 - share) * one.P @ one.Q.T + share * two.P @ two.Q.T
    S = np.linalg.svd(roots[0][:, None] * target * roots[1], compute_uv=False)
    with ThreadEngine(2) as engine:
        mean_product(one, two, share, weights, k, engine)

    def error():
        return np.linalg.norm(roots[0][:, None] * (target - one.P @ one.Q.T) * roots[1])

    left = one.P[:, :k] * roots[0][:, None]  # the right factor is the best one given the left
    projected = left @ np.linalg.lstsq(left, roots[0][:, None] * target * roots[1])[0]
    np.testing.assert_allclose(roots[0][:, None] * (one.P @ one.Q.T) * roots[1], projected, atol=1e-6)
    assert np.linalg.norm(S[k:]) <= error() < 1.5 * np.linalg.norm(S[k:])
    assert not one.P[:, k:].any()


def test_mean_product__of_draws_around_a_product_is_near_to_it(rng):
    truth = Product(*(rng.normal(size=(size, 3)) for size in (200, 150)))
    mean = Product(*(pad_rows(X + 0.3 * rng.normal(size=X.shape)) for X in truth))
    with ThreadEngine(1) as engine:
        for n in range(2, 60):
            draw = Product(*(pad_rows(X + 0.3 * rng.normal(size=X.shape)) for X in truth))
            mean_product(mean, draw, 1 / n, [np.ones(200), np.ones(150)], 3, engine)
    error = mean.P @ mean.Q.T - truth.P @ truth.Q.T
    assert np.sqrt(np.mean(error**2)) < 0.1  # that of one draw is 0.75


def test_mean_product__of_equal_products_is_the_product(rng):
    product = Product(*(pad_rows(rng.normal(size=(size, 3))) for size in (9, 8)))
    before = product.P @ product.Q.T
    with ThreadEngine(1) as engine:
        mean_product(product, Product(*(X.copy() for X in product)), 0.3, [np.ones(9), np.ones(8)], 3, engine)
        zero = Product(*(np.zeros_like(X) for X in product))
        mean_product(zero, zero, 0.5, [np.ones(9), np.ones(8)], 3, engine)
    np.testing.assert_allclose(product.P @ product.Q.T, before, atol=1e-6)
    assert not zero.P.any()
