r"""Gibbs sampling of rows: a draw of each row's factors and bias, given the other side.

A row's deviation from the mean of its prior is normal. With the noise variance :math:`\sigma^2` and the prior
precision :math:`\Lambda`, it has the precision :math:`G / \sigma^2` and the mean :math:`G^{-1} g`, where
:math:`G = \sum w\,y y^T + \sigma^2 \Lambda` and :math:`g = \sum w\,e\,y` are the equations of least squares.
With :math:`G = U^T U` and a standard normal :math:`\xi`, the draw is :math:`U^{-1} (U^{-T} g + \sigma \xi)`:
least squares with noise added between the two substitutions.

References
----------
Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo", ICML
2008. Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox). Box and
Muller, "A note on the generation of random normal deviates", 1958.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, cholesky
from mfkernel.kernels.gram_tiles import add_rows
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import weight
from mfkernel.kernels.normal import normal_equations
from mfkernel.kernels.row_problem import (
    ZERO,
    Objective,
    RowProblem,
    Workspace,
    add_scores,
    base_score,
    init_scores,
    max_row_length,
    new_workspace,
    store_row,
)

PHILOX_ROUNDS = 10
PHILOX_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
PHILOX_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
UNIT = 2.0**-32  # width of the intervals that 32 random bits choose from


class Noise(NamedTuple):
    r"""The noise of the ratings: a rating has the precision w τ_u τ_i / σ².

    Attributes
    ----------
    sigma
        standard deviation σ of a rating if the other factors are 1.
    weights
        (nnz,) weight w of each rating, or None.
    rows, others
        (n_rows,), (n_items,) τ of the rows and of the other side.
    """

    sigma: float
    weights: NDArray[Any] | None
    rows: NDArray[Any]
    others: NDArray[Any]


class Stream(NamedTuple):
    """The random numbers of one half of a sweep: 32 bits each.

    Attributes
    ----------
    key0, key1
        halves of the seed.
    sweep, side
        number of the sweep; 0 for users, 1 for items.
    """

    key0: int
    key1: int
    sweep: int
    side: int


@jit
def sample_span(
    first: int,
    last: int,
    problem: RowProblem,
    objective: Objective,
    noise: Noise,
    mean: NDArray[Any],
    stream: Stream,
    X: NDArray[Any],
    bias: NDArray[Any],
    expected: NDArray[Any],
    expected_bias: NDArray[Any],
    failed: NDArray[np.bool_],
    products: NDArray[np.float64],
    most_sparse: int,
) -> None:
    """Draw the rows ``first:last`` of more than ``most_sparse`` ratings.

    Parameters
    ----------
    problem
        ``base`` is the score of an item for a row at the prior mean, and ``gram`` is σ²Λ of the factors;
        ``weights`` are overwritten with w τ_u τ_i.
    objective
        ``bias_reg`` is σ² times the precision of the biases; the loss is squared, and there are biases.
    mean
        (K + 1,) prior mean of a row, the bias last.
    X, bias
        (n_rows, K), (n_rows,) overwritten with the draws.
    expected, expected_bias
        (n_rows, K), (n_rows,) overwritten with the means of the draws; or empty, to compute none.
    failed
        (n_rows,) set to True for rows whose equations are not positive definite.
    products
        (n_rows, 7) overwritten with sums over the ratings of each row, at the draws, with the weights above:
        Σ w e², Σ w e f, Σ w e d, Σ w f², Σ w f d and Σ w d²; and Σ w e² without τ. e is the residual, d the
        deviation of the bias, and f the product of the factors' deviations and y.
    most_sparse
        number of ratings up to which rows are left to ``sample_sparse_rows``; -1 for none.
    """
    K = problem.Y.shape[1]
    work = new_workspace(problem, objective, K, max_row_length(first, last, problem))
    normals = np.zeros(K + 4, problem.scale.dtype)
    for u in range(first, last):
        if problem.indptr[u + 1] - problem.indptr[u] <= most_sparse:
            continue
        set_weights(u, problem, noise)
        work.x[:] = 0
        init_scores(u, problem, objective, work, False)
        normal_equations(u, ZERO, K, True, problem, objective, 0.0, work)
        if not cholesky(work.G, K + 1, work.step):
            failed[u] = True
        if expected.size:
            back_substitute(work.G, K + 1, work.step)
            store_deviation(u, objective, mean, work, expected, expected_bias)
        draw_normals(u, stream, noise.sigma, normals)
        add_noise(work, objective.k, normals)
        back_substitute(work.G, K + 1, work.step)
        add_scores(u, ZERO, K, True, problem, work)
        sum_products(u, problem, noise, work, products[u])
        store_deviation(u, objective, mean, work, X, bias)


@inlined
def set_weights(u: int, problem: RowProblem, noise: Noise) -> None:
    """Set the weights of row u to w τ_u τ_i."""
    one = problem.scale.dtype.type(1)
    for n in range(problem.indptr[u], problem.indptr[u + 1]):
        tau = noise.rows[u] * noise.others[problem.indices[n]]
        problem.weights[n] = weight(noise.weights, n, one) * tau  # type: ignore[index]


@inlined
def sum_products(
    u: int, problem: RowProblem, noise: Noise, work: Workspace, sums: NDArray[np.float64]
) -> None:
    """Sum the products of row u, see ``sample_span``, at the scores ``work.z`` of ``work.step``."""
    d = float(work.step[work.step.size - 1])
    ee, ef, ed, ff, fd, dd, plain = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    start = problem.indptr[u]
    for n in range(start, problem.indptr[u + 1]):
        z, w = float(work.z[n - start]), float(weight(problem.weights, n, 1.0))
        e = float(problem.values[n]) - z
        f = z - d - float(base_score(problem.base, problem.indices[n], 0.0))
        ee += w * e * e
        plain += float(weight(noise.weights, n, 1.0)) * e * e
        ef += w * e * f
        ed += w * e
        ff += w * f * f
        fd += w * f
        dd += w
    sums[0], sums[1], sums[2] = ee, ef, ed * d
    sums[3], sums[4], sums[5], sums[6] = ff, fd * d, dd * d * d, plain


@inlined
def store_deviation(
    u: int, objective: Objective, mean: NDArray[Any], work: Workspace, X: NDArray[Any], bias: NDArray[Any]
) -> None:
    """Write the mean plus ``work.step`` to row u of X and to its bias."""
    for f in range(mean.size):
        work.x[f] = mean[f] + work.step[f]
    store_row(u, objective, work.x, X, bias)


@inlined
def add_product(out: NDArray[Any], v: NDArray[Any], T: NDArray[Any]) -> None:
    """Add v T to ``out``, for T (K, K) and the first K numbers of v."""
    K = T.shape[1]
    for f in range(0, K, 4):
        add_rows(out, T, (f, f + 1, f + 2, f + 3), 0, K, (v[f], v[f + 1], v[f + 2], v[f + 3]))


@jit
def multiply_span(first: int, last: int, A: NDArray[Any], B: NDArray[Any], T: NDArray[Any]) -> None:
    """Replace rows ``first:last`` of A (n, K) by those of [A, B] T, for T (2K, K)."""
    K = A.shape[1]
    out = np.zeros(K, A.dtype)
    for u in range(first, last):
        a, b = A[u], B[u]
        out[:] = 0
        add_product(out, a, T[:K])
        add_product(out, b, T[K:])
        for f in range(K):
            a[f] = out[f]


@inlined
def add_noise(work: Workspace, k: int, normals: NDArray[Any]) -> None:
    """Add the noise of k factors and the bias to the right-hand side, the last column of ``work.G``."""
    K = work.x.size - 1
    for f in range(k):
        work.G[f, K + 1] += normals[f]
    work.G[K, K + 1] += normals[k]


@inlined
def draw_normals(u: int, stream: Stream, sigma: float, out: NDArray[Any]) -> None:
    """Fill ``out`` with normals of standard deviation ``sigma``, which depend on stream and row only."""
    for f in range(0, out.size - 3, 4):
        a, b, c, d = philox(np.uint64(f), np.uint64(u), stream)
        out[f], out[f + 1] = box_muller(a, b, sigma)
        out[f + 2], out[f + 3] = box_muller(c, d, sigma)


@inlined
def box_muller(a: Any, b: Any, sigma: float) -> tuple[float, float]:
    """Return two normals from 32 random bits each."""
    radius = sigma * math.sqrt(-2 * math.log((np.float64(a) + 0.5) * UNIT))
    angle = 2 * math.pi * UNIT * np.float64(b)
    return radius * math.cos(angle), radius * math.sin(angle)


@inlined
def philox(position: Any, row: Any, stream: Stream) -> tuple[Any, Any, Any, Any]:
    """Return four times 32 random bits of a row: Philox4x32-10."""
    first, second = PHILOX_MULTIPLIERS
    step0, step1 = PHILOX_KEY_STEPS
    key0, key1 = np.uint64(stream.key0), np.uint64(stream.key1)
    a, b, c, d = position, row, np.uint64(stream.sweep), np.uint64(stream.side)
    for _ in range(PHILOX_ROUNDS):
        ab, cd = first * a, second * c
        a, b, c, d = (cd >> HALF) ^ b ^ key0, cd & LOW, (ab >> HALF) ^ d ^ key1, ab & LOW
        key0, key1 = (key0 + step0) & LOW, (key1 + step1) & LOW
    return a, b, c, d
