r"""Exact solution of rows of one side, given the other side: normal equations, Cholesky, Newton, gradients.

Each row has a vector x of k factors and perhaps a bias b, which minimize

.. math::
    \sum_n w_n \ell(r_n, z_n) + \tfrac{\rho}{2} \lVert x \rVert^2 + \tfrac{\rho_b}{2} b^2
    + \lambda_1 c \lVert x \rVert_1, \qquad z_n = \text{base}_i + b + x \cdot y_i,

where c scales all penalties of the row, :math:`\rho = \lambda c`. Of implicit feedback, all other items count
as zeros: :math:`\tfrac{w_0}{2} \sum_i (x \cdot y_i)^2` over all items is :math:`\tfrac{w_0}{2} x^T Y^T Y x`,
of which the known entries take their part back.

So each method is the same equations, :math:`(\sum h_n y_n y_n^T + w_0 Y^T Y + \rho I)\, s = \sum g_n y_n -
w_0 Y^T Y x - \rho x`, with a curvature h and a pull g of each rating (:func:`pull_of`), for a step s from x.
They are solved for all coordinates at once, or for blocks of them in turn, or nearly, by conjugate gradients.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import LANES, dot_rows
from mfkernel.kernels.jit import inlined, jit

ZERO: Any = np.int64(0)  # a literal 0 would have whatever takes it compiled once more
SQUARED, ABSOLUTE, HUBER, LOGISTIC, IMPLICIT = 0, 1, 2, 3, 4  # kinds of loss
CHUNK = 128  # ratings in A at a time: with 64 coordinates, 32 KiB of float32
FLATTEST = 1e-12  # the least curvature of the logistic loss


class Known(NamedTuple):
    """What is known of the rows that are looked for; K is k rounded up to a multiple of 8.

    Attributes
    ----------
    indptr, indices, values, weights
        (n_rows + 1,), (nnz,), (nnz,) CSR matrix of ratings, and (nnz,) how often each counts, or None.
    Y, base
        (n_items, K) the other side, padded with zeros, and (n_items,) what is predicted of its rows if x and
        b are zero, or None.
    scale
        (n_rows,) what the penalties of each row are multiplied by. Its dtype is that of the arithmetic.
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
    """What a row minimizes.

    Attributes
    ----------
    k
        coordinates, without padding.
    kind, delta
        the loss, and Huber's δ.
    biased
        whether b is there.
    reg, bias_reg, l1, nonnegative
        λ, λ_b, λ₁, whether x ≥ 0.
    floor
        the least λ c, as a part of the mean diagonal of the Gram matrix.
    alpha, unobserved, observed
        of implicit feedback: a stored entry of strength r weighs ``observed`` + αr, any other w₀.
    bias_unit
        what biases are measured in by conjugate gradients: their column of the equations is of this size.
    """

    k: int
    kind: int
    delta: float
    biased: bool
    reg: float
    bias_reg: float
    l1: float
    nonnegative: bool
    floor: float
    alpha: float
    unobserved: float
    observed: float
    bias_unit: float


class Solver(NamedTuple):
    """How rows are solved.

    Attributes
    ----------
    block
        coordinates that are solved for at a time, a multiple of 8; K for all.
    steps
        of conjugate gradients, if not 0.
    warm
        whether to start from the x that is there, or from zero.
    """

    block: int
    steps: int
    warm: bool


class Work(NamedTuple):
    """Arrays of one thread, of the dtype of the arithmetic; a block has m coordinates, the bias last.

    Attributes
    ----------
    A
        (CHUNK, block) lines √h y of some ratings.
    G
        (m + 7, m + 1) A Aᵀ + Λ in the upper triangle, its right side in column m; then its factor U. Rows and
        columns are padded to whole tiles.
    x
        (K + 1,) the coordinates, the bias last.
    step, side, border
        (K + 1,) what is added to x; right side; Σ h y.
    part, border_part
        (K + 1,) what CHUNK ratings add to side and border: sums of many ratings lose less in two steps.
    z, moves
        (most ratings of a row,) their scores; and what a step adds to them.
    pulls, curvatures
        (CHUNK,) of the ratings in A.
    """

    A: NDArray[Any]
    G: NDArray[Any]
    x: NDArray[Any]
    step: NDArray[Any]
    side: NDArray[Any]
    border: NDArray[Any]
    part: NDArray[Any]
    border_part: NDArray[Any]
    z: NDArray[Any]
    moves: NDArray[Any]
    pulls: NDArray[Any]
    curvatures: NDArray[Any]


@inlined
def longest(first: int, last: int, known: Known) -> int:
    """Return the most ratings of a row."""
    most = 0
    for u in range(first, last):
        most = max(most, known.indptr[u + 1] - known.indptr[u])
    return most


@inlined
def new_work(known: Known, objective: Objective, block: int, most: int) -> Work:
    """Make the arrays of a thread, for blocks of so many coordinates and rows of so many ratings."""
    K, dtype = known.Y.shape[1], known.scale.dtype
    m = block + (8 if objective.biased else 0)
    return Work(
        np.zeros((CHUNK, LANES * up(block, LANES)), dtype),
        np.zeros((m, LANES * up(m + 1, LANES)), dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(K + 1, dtype),
        np.zeros(4 * up(most, 4), dtype),
        np.zeros(4 * up(most, 4), dtype),
        np.zeros(CHUNK, dtype),
        np.zeros(CHUNK, dtype),
    )


@inlined
def load_row(
    u: int, objective: Objective, warm: bool, X: NDArray[Any], bias: NDArray[Any] | None, x: NDArray[Any]
) -> None:
    """Set x to where row u starts: zero, unless the solver is warm."""
    x[:] = 0
    if warm:
        for f in range(objective.k):
            x[f] = X[u, f]
        x[x.size - 1] = base_of(bias, u, 0.0)


@inlined
def store_row(
    u: int, objective: Objective, x: NDArray[Any], X: NDArray[Any], bias: NDArray[Any] | None
) -> None:
    """Note what has been found for row u."""
    for f in range(objective.k):
        X[u, f] = x[f]
    store_bias(bias, u, x[x.size - 1])


@inlined
def store_bias(bias: NDArray[Any] | None, u: int, b: Any) -> None:
    """Note the bias of row u, if there are biases."""
    if bias is not None:
        bias[u] = b


@inlined
def up(n: int, unit: int) -> int:
    """Return how many units hold n."""
    return (n + unit - 1) // unit


@inlined
def weight(weights: NDArray[Any] | None, n: int) -> float:
    """Return how often rating n counts."""
    return 1.0 if weights is None else float(weights[n])


@inlined
def base_of(base: NDArray[Any] | None, i: int, zero: Any) -> Any:
    """Return what is predicted of item i if x and b are zero."""
    return zero if base is None else base[i]


@inlined
def four(indices: NDArray[Any], n: int, most: int) -> tuple[Any, Any, Any, Any]:
    """Return the items of ratings n to n + 3, of which the last that there is stands for any beyond."""
    return (
        np.int64(indices[n]),
        np.int64(indices[min(n + 1, most)]),
        np.int64(indices[min(n + 2, most)]),
        np.int64(indices[min(n + 3, most)]),
    )


@jit
def start_scores(u: int, known: Known, objective: Objective, work: Work, warm: bool) -> None:
    """Set ``work.z`` to the scores of row u at ``work.x``, which is zero unless ``warm``."""
    start, stop, z = known.indptr[u], known.indptr[u + 1], work.z
    for n in range(start, stop):
        z[n - start] = base_of(known.base, known.indices[n], 0.0)
    if warm:
        K = known.Y.shape[1]
        for f in range(K):
            work.step[f] = work.x[f]
        work.step[K] = work.x[K]
        add_scores(u, ZERO, K, objective.biased, known, work)


@jit
def add_scores(u: int, first: int, last: int, biased: bool, known: Known, work: Work) -> None:
    """Add to ``work.z`` what ``work.step`` brings, of the coordinates ``first:last`` and perhaps the bias."""
    start, stop, z, step, width = known.indptr[u], known.indptr[u + 1], work.z, work.step, last - first
    b = step[width] if biased else known.scale.dtype.type(0)
    for n in range(start, stop, 4):
        z0, z1, z2, z3 = dot_rows(step, known.Y, four(known.indices, n, stop - 1), first, width)
        at = n - start
        z[at] += b + z0
        z[at + 1] += b + z1
        z[at + 2] += b + z2
        z[at + 3] += b + z3


@inlined
def pull_of(objective: Objective, r: float, z: float, epsilon: float) -> tuple[float, float]:
    """Return -∂ℓ/∂z of one rating, and the curvature of the parabola by which ℓ is replaced.

    Of implicit feedback, ℓ is ½ c (1 - z)² - ½ w₀ z²: what a stored entry adds to ½ w₀ z² of all cells.
    """
    if objective.kind == IMPLICIT:
        c = objective.observed + objective.alpha * r
        return c - (c - objective.unobserved) * z, c - objective.unobserved
    if objective.kind == LOGISTIC:
        small = math.exp(-abs(z))
        curvature = small / (1 + small) ** 2
        probability = (1.0 if z > 0 else small) / (1 + small)
        return r - probability, max(curvature, FLATTEST)
    e = r - z
    if objective.kind == ABSOLUTE:
        curvature = 1 / max(math.hypot(e, epsilon), 1e-100)
    elif objective.kind == HUBER:
        curvature = objective.delta / max(abs(e), objective.delta)
    else:
        curvature = 1.0
    return curvature * e, curvature


@jit
def row_loss(u: int, known: Known, objective: Objective, z: NDArray[Any]) -> float:
    """Return the squared losses of the ratings of row u with the scores z, as ``solve_span`` says."""
    start, total = known.indptr[u], 0.0
    for n in range(start, known.indptr[u + 1]):
        score, r = float(z[n - start]), float(known.values[n])
        if objective.kind == IMPLICIT:
            c = objective.observed + objective.alpha * r
            total += c * (1 - score) ** 2 - objective.unobserved * score**2
        else:
            total += weight(known.weights, n) * (r - score) ** 2
    return total


@inlined
def move(part: NDArray[Any], out: NDArray[Any]) -> None:
    """Add a part of a sum to it, and begin the next."""
    for f in range(part.size):
        out[f] += part[f]
        part[f] = 0


@inlined
def squares(v: NDArray[Any]) -> float:
    """Return ‖v‖²."""
    total = 0.0
    for f in range(v.size):
        total += float(v[f]) * float(v[f])
    return total
