r"""Gibbs sampling of rows with fewer ratings than factors.

Such a row costs n² k for its n ratings instead of k³. Its deviation from the prior mean is :math:`M z`, where
:math:`M M^T` is the covariance of the prior and z is standard normal before the ratings are known. In these
coordinates, the items are the rows of :math:`V = Y M`, and the bias is one more coordinate. A draw from the
prior :math:`z_0`, with noise :math:`\epsilon_0`, is moved to one from the posterior:

.. math::
    z = z_0 + V^T S^{-1} (r - V z_0 - \epsilon_0), \qquad S = V V^T + \operatorname{diag}(\sigma^2 / w)

References
----------
Bhattacharya, Chakraborty and Mallick, "Fast sampling with Gaussian scale mixture priors in high-dimensional
regression", Biometrika 2016.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, cholesky
from mfkernel.kernels.gibbs import (
    Noise,
    Stream,
    add_product,
    draw_normals,
    set_weights,
    store_deviation,
    sum_products,
)
from mfkernel.kernels.gram_tiles import LANES, add_rows, dot_rows, round_up
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import weight
from mfkernel.kernels.row_problem import (
    ZERO,
    Objective,
    RowProblem,
    Workspace,
    add_scores,
    init_scores,
    new_workspace,
    next_four_items,
)


class White(NamedTuple):
    """The prior as a map from standard normals, and the items in the coordinates of these.

    Attributes
    ----------
    M
        (K, K) map M, transposed: row f is the change of the factors per unit of z_f.
    V
        (n_items, K) items, Y M.
    bias_scale
        standard deviation of the bias.
    """

    M: NDArray[Any]
    V: NDArray[Any]
    bias_scale: float


@jit
def sample_sparse_rows(
    first: int,
    last: int,
    rows: NDArray[np.int64],
    most: int,
    problem: RowProblem,
    objective: Objective,
    noise: Noise,
    mean: NDArray[Any],
    white: White,
    stream: Stream,
    X: NDArray[Any],
    bias: NDArray[Any],
    expected: NDArray[Any],
    expected_bias: NDArray[Any],
    failed: NDArray[np.bool_],
    products: NDArray[np.float64],
) -> None:
    """Draw the rows ``rows[first:last]`` of at most ``most`` ratings; see ``sample_span``."""
    K = problem.Y.shape[1]
    work = new_workspace(problem, objective, K, most)
    zero = problem.scale.dtype.type(0)
    z, right = np.zeros(K + 1, problem.scale.dtype), np.zeros(most + 4, problem.scale.dtype)
    normals = np.zeros(round_up(K + 1, 4) + round_up(most, 4), problem.scale.dtype)
    for at in range(first, last):
        u = rows[at]
        n = problem.indptr[u + 1] - problem.indptr[u]
        set_weights(u, problem, noise)
        init_scores(u, problem, objective, work, False)
        if not covariance_factor(u, n, problem, noise.sigma, white, work):
            failed[u] = True
        size = round_up(n, 4)
        if expected.size:
            solve_white(u, n, problem, white, work, z, zero)
            map_to_factors(white, z, work)
            store_deviation(u, objective, mean, work, expected, expected_bias)
        draw_normals(u, stream, 1.0, normals)
        for f in range(K + 1):
            z[f] = normals[f]
        for f in range(objective.k, K):
            z[f] = 0
        prior_scores(u, n, problem, noise.sigma, white, z, normals[round_up(K + 1, 4) :], work, right)
        for i in range(size):  # U⁻ᵀ of the scores of the prior's draw
            total = right[i]
            for j in range(i):
                total -= work.G[j, i] * right[j]
            right[i] = total * work.G[i, i]
            work.G[i, size] -= right[i]
        solve_white(u, n, problem, white, work, z, type(zero)(1))
        map_to_factors(white, z, work)
        add_scores(u, ZERO, K, True, problem, work)
        sum_products(u, problem, noise, work, products[u])
        store_deviation(u, objective, mean, work, X, bias)


@jit
def map_rows(first: int, last: int, Y: NDArray[Any], T: NDArray[Any], out: NDArray[Any]) -> None:
    """Add rows ``first:last`` of Y T to those of ``out``, for T (K, K)."""
    for i in range(first, last):
        add_product(out[i], Y[i], T)


@inlined
def covariance_factor(
    u: int, n: int, problem: RowProblem, sigma: float, white: White, work: Workspace
) -> bool:
    """Set ``work.G`` to the factor of S, and its last column to U⁻ᵀ r; S is padded to a multiple of 4."""
    G, v, K, start = work.G, work.rhs, problem.Y.shape[1], problem.indptr[u]
    size, variance = round_up(n, 4), white.bias_scale**2
    for i in range(size):
        for j in range(round_up(size + 1, LANES)):
            G[i, j] = 0
        G[i, i] = 1
    for i in range(n):
        item = problem.indices[start + i]
        for f in range(K):
            v[f] = white.V[item, f]
        for j in range(i // 4 * 4, n, 4):
            items = next_four_items(problem.indices, start + j, start + n - 1)
            a, b, c, d = dot_rows(v, white.V, items, 0, K)
            G[i, j] = a + variance
            if j + 1 < n:
                G[i, j + 1] = b + variance
            if j + 2 < n:
                G[i, j + 2] = c + variance
            if j + 3 < n:
                G[i, j + 3] = d + variance
        G[i, i] += sigma**2 / weight(problem.weights, start + i, 1.0)
        G[i, size] = problem.values[start + i] - work.z[i]
    return bool(cholesky(G, size, work.step))


@inlined
def prior_scores(
    u: int,
    n: int,
    problem: RowProblem,
    sigma: float,
    white: White,
    z: NDArray[Any],
    normals: NDArray[Any],
    work: Workspace,
    out: NDArray[Any],
) -> None:
    """Set ``out`` to the noisy ratings, less their mean, of a row drawn from the prior; padding is zero."""
    K, start = problem.Y.shape[1], problem.indptr[u]
    b = z[K] * white.bias_scale
    for i in range(n, round_up(n, 4)):
        out[i] = 0
    for i in range(0, n, 4):
        items = next_four_items(problem.indices, start + i, start + n - 1)
        scores = dot_rows(z, white.V, items, 0, K)
        for j in range(min(4, n - i)):
            spread = sigma / np.sqrt(weight(problem.weights, start + i + j, 1.0))
            out[i + j] = scores[j] + b + spread * normals[i + j]


@inlined
def solve_white(
    u: int, n: int, problem: RowProblem, white: White, work: Workspace, z: NDArray[Any], keep: Any
) -> None:
    """Set z to keep · z + Vᵀ S⁻¹ y, where ``work.G`` has the factor of S, and U⁻ᵀ y in its last column."""
    K, start, size, v = problem.Y.shape[1], problem.indptr[u], round_up(n, 4), work.rhs
    back_substitute(work.G, size, work.step)
    for f in range(K + 1):
        z[f] *= keep
        v[f] = 0
    total = problem.scale.dtype.type(0)
    for i in range(0, n, 4):
        items = next_four_items(problem.indices, start + i, start + n - 1)
        factors = work.step[i], work.step[i + 1], work.step[i + 2], work.step[i + 3]
        add_rows(v, white.V, items, 0, K, factors)
        total += factors[0] + factors[1] + factors[2] + factors[3]
    for f in range(K):
        z[f] += v[f]
    z[K] += white.bias_scale * total


@inlined
def map_to_factors(white: White, z: NDArray[Any], work: Workspace) -> None:
    """Set ``work.step`` to the deviation M z, the bias last."""
    K = z.size - 1
    for f in range(K):
        work.step[f] = 0
    add_product(work.step, z, white.M)
    work.step[K] = z[K] * white.bias_scale
