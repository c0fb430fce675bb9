r"""The problem of one row: its data, its objective and its workspace.

Each row has a vector x of k factors and perhaps a bias b. Given the other side of the factorization, they
minimize

.. math::
    \sum_n w_n \ell(r_n, z_n) + \tfrac{\rho}{2} \lVert x \rVert^2 + \tfrac{\rho_b}{2} b^2
    + \lambda_1 c \lVert x \rVert_1, \qquad z_n = \text{base}_i + b + x \cdot y_i,

where c scales all penalties of the row and :math:`\rho = \lambda c`. For implicit feedback, all other items
count as zeros. Their loss is :math:`\tfrac{w_0}{2} \sum_i (x \cdot y_i)^2` over all items, that is
:math:`\tfrac{w_0}{2} x^T Y^T Y x`, minus the share of the stored entries.

Every solver takes steps s from x that solve the same equations, :math:`(\sum h_n y_n y_n^T + w_0 Y^T Y + \rho
I)\, s = \sum g_n y_n - w_0 Y^T Y x - \rho x`. Each rating contributes a negative gradient g and a curvature h
(:func:`loss_derivatives`). The solvers are

======================  ===============================================================================
``exact.py``            squared losses: all coordinates at once, or block by block
``newton.py``           all other losses: all coordinates at once, step by step
``cg.py``               squared losses: a few steps of conjugate gradients
======================  ===============================================================================
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels import ROW_MULTIPLE
from mfkernel.kernels.gram_tiles import LANES, dot_rows, round_up
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import ABSOLUTE, HUBER, IMPLICIT, LOGISTIC, weight

ZERO: Any = np.int64(0)  # an int64 as other callers pass: a literal 0 would compile its callee once more
ROWS_PER_GRAM_UPDATE = 128  # rows of A: 32 KiB of float32 at k = 64
MIN_CURVATURE = 1e-12  # of the logistic loss, whose curvature vanishes for large scores


class RowProblem(NamedTuple):
    """The data of all rows to be solved; K is k rounded up to a multiple of 8.

    Attributes
    ----------
    indptr, indices, values
        (n_rows + 1,), (nnz,), (nnz,) CSR matrix of the ratings.
    weights
        (nnz,) weight of each rating, or None.
    Y
        (n_items, K) factors of the other side, padded with zeros.
    base
        (n_items,) score of each item at x = 0 and b = 0, or None for zeros.
    scale
        (n_rows,) factor c of all penalties of a row. Its dtype is the dtype of the arithmetic.
    gram
        (K, K) w₀ YᵀY of the same dtype, or None.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    weights: NDArray[Any] | None
    Y: NDArray[Any]
    base: NDArray[Any] | None
    scale: NDArray[Any]
    gram: NDArray[Any] | None


class Objective(NamedTuple):
    r"""The objective of every row.

    Attributes
    ----------
    k
        coordinates, without padding.
    loss, delta
        kind of the loss, and Huber's δ.
    biased
        whether rows have a bias.
    reg, bias_reg, l1, nonnegative
        λ, λ_b, λ₁, and whether x ≥ 0.
    min_ridge
        lower bound of λ c, as a fraction of the mean diagonal of the Gram matrix.
    alpha, unobserved_weight, observed_weight
        for implicit feedback: a stored entry of strength r has the weight ``observed_weight`` + α\|r\|, any
        other cell w₀.
    bias_unit
        unit of biases in conjugate gradients: the norm of their column in the equations.
    """

    k: int
    loss: int
    delta: float
    biased: bool
    reg: float
    bias_reg: float
    l1: float
    nonnegative: bool
    min_ridge: float
    alpha: float
    unobserved_weight: float
    observed_weight: float
    bias_unit: float


class Solver(NamedTuple):
    """The settings of a solver.

    Attributes
    ----------
    block_size
        coordinates per block, a multiple of 8; K to solve for all at once.
    cg_steps
        steps of conjugate gradients, or 0 for an exact solver.
    warm_start
        whether to start from the present x; otherwise from zero.
    """

    block_size: int
    cg_steps: int
    warm_start: bool


class Workspace(NamedTuple):
    """The arrays of one thread, of the dtype of the arithmetic.

    A block has m coordinates, the bias last.

    Attributes
    ----------
    A
        (ROWS_PER_GRAM_UPDATE, block_size) rows √h y of some ratings.
    G
        (m + 7, m + 1) AᵀA + Λ in the upper triangle, the right-hand side in column m; later the factor U.
        Rows and columns are padded to whole tiles.
    x
        (K + 1,) the coordinates, the bias last.
    step
        (K + 1,) the step from x.
    rhs, bias_column
        (K + 1,) right-hand side; Σ h y, the column of the bias in the equations.
    rhs_partial, bias_column_partial
        (K + 1,) the same sums over the ratings in A. Sums of many ratings in two stages round less.
    z, score_steps
        (longest row,) scores of its ratings; change of the scores per unit of a step.
    g, h
        (ROWS_PER_GRAM_UPDATE,) negative gradient and curvature of the ratings in A.
    """

    A: NDArray[Any]
    G: NDArray[Any]
    x: NDArray[Any]
    step: NDArray[Any]
    rhs: NDArray[Any]
    bias_column: NDArray[Any]
    rhs_partial: NDArray[Any]
    bias_column_partial: NDArray[Any]
    z: NDArray[Any]
    score_steps: NDArray[Any]
    g: NDArray[Any]
    h: NDArray[Any]


@inlined
def max_row_length(first: int, last: int, problem: RowProblem) -> int:
    """Return the number of ratings of the longest of the rows ``first:last``."""
    most = 0
    for u in range(first, last):
        most = max(most, problem.indptr[u + 1] - problem.indptr[u])
    return most


@inlined
def new_workspace(problem: RowProblem, objective: Objective, block_size: int, row_length: int) -> Workspace:
    """Allocate the workspace of a thread, for rows of up to ``row_length`` ratings."""
    K, dtype = problem.Y.shape[1], problem.scale.dtype
    m = block_size + (ROW_MULTIPLE if objective.biased else 0)
    return Workspace(
        np.zeros((ROWS_PER_GRAM_UPDATE, round_up(block_size, LANES)), dtype),
        np.zeros((m, round_up(m + 1, LANES)), dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(round_up(row_length, 4), dtype),
        np.zeros(round_up(row_length, 4), dtype),
        np.zeros(ROWS_PER_GRAM_UPDATE, dtype),
        np.zeros(ROWS_PER_GRAM_UPDATE, dtype),
    )


@inlined
def load_row(
    u: int,
    objective: Objective,
    warm_start: bool,
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    x: NDArray[Any],
) -> None:
    """Set x to its start for row u: zero, or its present values if ``warm_start``."""
    x[:] = 0
    if warm_start:
        for f in range(objective.k):
            x[f] = X[u, f]
        x[x.size - 1] = base_score(bias, u, 0.0)


@inlined
def store_row(
    u: int, objective: Objective, x: NDArray[Any], X: NDArray[Any], bias: NDArray[Any] | None
) -> None:
    """Write x to row u of X, and its last coordinate to the bias."""
    for f in range(objective.k):
        X[u, f] = x[f]
    store_bias(bias, u, x[x.size - 1])


@inlined
def store_bias(bias: NDArray[Any] | None, u: int, b: Any) -> None:
    """Write the bias of row u, if rows have biases."""
    if bias is not None:
        bias[u] = b


@inlined
def base_score(base: NDArray[Any] | None, i: int, zero: Any) -> Any:
    """Return the score of item i at x = 0 and b = 0."""
    return zero if base is None else base[i]


@inlined
def next_four_items(indices: NDArray[Any], n: int, last: int) -> tuple[Any, Any, Any, Any]:
    """Return the items of ratings n to n + 3, and repeat that of rating ``last``."""
    return (
        np.int64(indices[n]),
        np.int64(indices[min(n + 1, last)]),
        np.int64(indices[min(n + 2, last)]),
        np.int64(indices[min(n + 3, last)]),
    )


@jit
def init_scores(u: int, problem: RowProblem, objective: Objective, work: Workspace, warm_start: bool) -> None:
    """Set ``work.z`` to the scores of row u at ``work.x``, zero unless ``warm_start``."""
    start, stop, z = problem.indptr[u], problem.indptr[u + 1], work.z
    for n in range(start, stop):
        z[n - start] = base_score(problem.base, problem.indices[n], 0.0)
    if warm_start:
        K = problem.Y.shape[1]
        for f in range(K):
            work.step[f] = work.x[f]
        work.step[K] = work.x[K]
        add_scores(u, ZERO, K, objective.biased, problem, work)


@jit
def add_scores(u: int, first: int, last: int, biased: bool, problem: RowProblem, work: Workspace) -> None:
    """Add the scores of ``work.step`` to ``work.z``.

    The step has the coordinates ``first:last``, and the bias if ``biased``.
    """
    start, stop, z, step, width = problem.indptr[u], problem.indptr[u + 1], work.z, work.step, last - first
    b = step[width] if biased else problem.scale.dtype.type(0)
    for n in range(start, stop, 4):
        items = next_four_items(problem.indices, n, stop - 1)
        z0, z1, z2, z3 = dot_rows(step, problem.Y, items, first, width)
        at = n - start
        z[at] += b + z0
        z[at + 1] += b + z1
        z[at + 2] += b + z2
        z[at + 3] += b + z3


@inlined
def loss_derivatives(objective: Objective, r: float, z: float, epsilon: float) -> tuple[float, float]:
    """Return g = -∂ℓ/∂z of one rating, and the curvature h of its parabola.

    The parabola touches ℓ at z and replaces it. For implicit feedback, ℓ is ½ c (t - z)² - ½ w₀ z², which a
    stored entry adds to the ½ w₀ z² of all cells; t is 1, or 0 for a dislike.
    For the absolute loss, |e| is smoothed to √(e² + ε²).
    """
    if objective.loss == IMPLICIT:
        c = objective.observed_weight + objective.alpha * abs(r)
        target = 1.0 if r >= 0 else 0.0
        return c * target - (c - objective.unobserved_weight) * z, c - objective.unobserved_weight
    if objective.loss == LOGISTIC:
        small = math.exp(-abs(z))
        curvature = small / (1 + small) ** 2
        probability = (1.0 if z > 0 else small) / (1 + small)
        return r - probability, max(curvature, MIN_CURVATURE)
    e = r - z
    if objective.loss == ABSOLUTE:
        curvature = 1 / max(math.hypot(e, epsilon), 1e-100)
    elif objective.loss == HUBER:
        curvature = objective.delta / max(abs(e), objective.delta)
    else:
        curvature = 1.0
    return curvature * e, curvature


@jit
def row_loss(u: int, problem: RowProblem, objective: Objective, z: NDArray[Any]) -> float:
    """Return the sum of the squared losses of row u at scores z; see ``solve_span``."""
    start, total = problem.indptr[u], 0.0
    for n in range(start, problem.indptr[u + 1]):
        score, r = float(z[n - start]), float(problem.values[n])
        if objective.loss == IMPLICIT:
            c = objective.observed_weight + objective.alpha * abs(r)
            target = 1.0 if r >= 0 else 0.0
            total += c * (target - score) ** 2 - objective.unobserved_weight * score**2
        else:
            total += float(weight(problem.weights, n, 1.0)) * (r - score) ** 2
    return total


@inlined
def flush_partial_sum(partial: NDArray[Any], total: NDArray[Any]) -> None:
    """Add a partial sum to the total, and reset it to zero."""
    for f in range(partial.size):
        total[f] += partial[f]
        partial[f] = 0


@inlined
def squared_norm(v: NDArray[Any]) -> float:
    """Return ‖v‖²."""
    total = 0.0
    for f in range(v.size):
        total += float(v[f]) * float(v[f])
    return total
