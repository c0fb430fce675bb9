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

from mfkernel.kernels.gram_tiles import (
    LANES,
    LINES,
    NARROW,
    PANEL,
    ROWS,
    add_rows,
    add_tile,
    dot_rows,
    scale_row,
)
from mfkernel.kernels.jit import inlined, jit

ZERO: Any = np.int64(0)  # a literal 0 would have whatever takes it compiled once more
SQUARED, ABSOLUTE, HUBER, LOGISTIC, IMPLICIT = 0, 1, 2, 3, 4  # kinds of loss

CHUNK = 128  # ratings in A at a time: with 64 coordinates, 32 KiB of float32
SINGULAR = 30.0  # times the rounding of a number: a pivot of a smaller part of its diagonal is nothing
PASSES, CONVERGED = 100, 1e-8  # of Newton's method at most; the relative change of x at which it ends
SWEEPS, DESCENDED = 1000, 1e-10  # the same of coordinate descent
HALVINGS = 40  # of a step of Newton's method at most
SMOOTH = 1e-6  # |e| becomes √(e² + ε²), where ε is this part of the mean |e| at x = 0
NEARLY = 1e-12  # of the first ‖gradient‖²: conjugate gradients can go no further
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


@jit
def solve_span(
    first: int,
    last: int,
    known: Known,
    objective: Objective,
    solver: Solver,
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    failed: NDArray[np.bool_],
    measure: bool,
) -> float:
    """Solve rows ``first:last`` of a squared loss, block by block.

    Parameters
    ----------
    X, bias
        (n_rows, K), (n_rows,); where a warm solver starts, and overwritten where there are ratings.
    failed
        (n_rows,) set where equations are not positive definite.

    Returns
    -------
    float
        if ``measure``, the sum of the losses of these rows' ratings at their solutions: w (r - z)², or of
        implicit feedback c (1 - z)² - w₀ z², which with w₀ z² of all cells is the loss of all cells.
    """
    work, total = new_work(known, objective, solver.block, longest(first, last, known)), 0.0
    for u in range(first, last):
        if known.indptr[u] == known.indptr[u + 1]:
            continue
        load_row(u, objective, solver.warm, X, bias, work.x)
        if not solve_row(u, known, objective, solver, work, measure):
            failed[u] = True
        store_row(u, objective, work.x, X, bias)
        if measure:
            total += row_loss(u, known, objective, work.z)
    return total


@jit
def newton_span(
    first: int,
    last: int,
    known: Known,
    objective: Objective,
    solver: Solver,
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    failed: NDArray[np.bool_],
    measure: bool,
) -> float:
    """Solve rows ``first:last`` of any other loss, all coordinates at once; as :func:`solve_span`."""
    work = new_work(known, objective, solver.block, longest(first, last, known))
    for u in range(first, last):
        if known.indptr[u] == known.indptr[u + 1]:
            continue
        load_row(u, objective, False, X, bias, work.x)
        newton_row(u, known, objective, work)
        store_row(u, objective, work.x, X, bias)
    return 0.0


@jit
def approach_span(
    first: int,
    last: int,
    known: Known,
    objective: Objective,
    solver: Solver,
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    failed: NDArray[np.bool_],
    measure: bool,
) -> float:
    """Bring rows ``first:last`` of a squared loss nearer to their solutions; as :func:`solve_span`."""
    work, total = new_work(known, objective, 0, longest(first, last, known)), 0.0
    for u in range(first, last):
        if known.indptr[u] == known.indptr[u + 1]:
            continue
        load_row(u, objective, True, X, bias, work.x)
        unit, K = known.scale.dtype.type(objective.bias_unit), known.Y.shape[1]
        work.x[K] /= unit
        approach(u, known, objective, solver.steps, work)
        work.x[K] *= unit
        store_row(u, objective, work.x, X, bias)
        if measure:
            total += row_loss(u, known, objective, work.z)
    return total


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


@jit
def solve_row(u: int, known: Known, objective: Objective, solver: Solver, work: Work, measure: bool) -> bool:
    """Step from ``work.x`` to the solution of row u, block by block; say whether all were positive definite.

    With λ₁ or x ≥ 0, the equations are solved by coordinate descent.
    """
    x, step, K, definite = work.x, work.step, known.Y.shape[1], True
    start_scores(u, known, objective, work, solver.warm)
    for first in range(0, K, solver.block):
        last = min(first + solver.block, K)
        biased = objective.biased and last == K
        m = last - first + (1 if biased else 0)
        normal_equations(u, first, last, biased, known, objective, 0.0, work)
        if objective.l1 > 0 or objective.nonnegative:
            descend(work, m, last, objective.l1 * known.scale[u], objective.nonnegative)
        else:
            definite = factorize(work.G, m, step) and definite
            back_substitute(work.G, m, step)
        for f in range(m):
            x[first + f] += step[f]
        if measure or last < K:
            add_scores(u, first, last, biased, known, work)
    return definite


@jit
def newton_row(u: int, known: Known, objective: Objective, work: Work) -> None:
    """Step from zero to the solution of row u by Newton's method; zeros if its ratings have no weight.

    The absolute and Huber's loss have the curvature of the parabola that touches and lies above (iteratively
    reweighted least squares, which cannot rise); steps of the logistic loss are halved until it falls. With
    λ₁ or x ≥ 0 each step minimizes its quadratic model by coordinate descent.
    """
    x, step, K = work.x, work.step, known.Y.shape[1]
    m = K + (1 if objective.biased else 0)
    start_scores(u, known, objective, work, False)
    epsilon = mean_residual(u, known) if objective.kind == ABSOLUTE else 0.0
    least = SMOOTH * epsilon  # reached by and by: residuals that are small by chance are not to stay so
    for _ in range(PASSES):
        epsilon = max(0.2 * epsilon, least)
        normal_equations(u, 0, K, objective.biased, known, objective, epsilon, work)
        if objective.l1 > 0 or objective.nonnegative:
            descend(work, m, K, objective.l1 * known.scale[u], objective.nonnegative)
        else:
            factorize(work.G, m, step)
            back_substitute(work.G, m, step)
        if objective.kind == LOGISTIC:
            shorten(u, known, objective, x, step)
        for f in range(m):
            x[f] += step[f]
        add_scores(u, ZERO, K, objective.biased, known, work)
        if np.abs(step).max() <= CONVERGED * np.abs(x).max() and epsilon <= least:
            break


@jit
def shorten(u: int, known: Known, objective: Objective, x: NDArray[Any], step: NDArray[Any]) -> None:
    """Halve the step from x until the logistic objective does not rise."""
    highest = logistic_objective(u, known, objective, x)
    highest += 1e-12 * abs(highest)  # it is rounded
    for _ in range(HALVINGS):
        if logistic_objective(u, known, objective, x + step) <= highest:
            break
        step *= 0.5


@jit
def mean_residual(u: int, known: Known) -> float:
    """Return the mean |r - base| of row u."""
    count, total = 0.0, 0.0
    for n in range(known.indptr[u], known.indptr[u + 1]):
        w = weight(known.weights, n)
        count += w
        total += w * abs(known.values[n] - base_of(known.base, known.indices[n], 0.0))
    return total / count if count > 0 else 0.0


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


@jit
def normal_equations(
    u: int,
    first: int,
    last: int,
    biased: bool,
    known: Known,
    objective: Objective,
    epsilon: float,
    work: Work,
) -> None:
    """Fill the upper triangle of ``work.G`` for a step of the coordinates ``first:last``, the bias last."""
    A, G, x, side, border = work.A, work.G, work.x, work.side, work.border
    K, width = known.Y.shape[1], last - first
    m = width + (1 if biased else 0)
    G[:] = 0
    side[:] = 0
    border[:] = 0
    one = known.scale.dtype.type(1)
    pull, curvature = 0.0, 0.0
    for start in range(known.indptr[u], known.indptr[u + 1], CHUNK):
        stop = min(start + CHUNK, known.indptr[u + 1])
        gather(u, start, stop, first, width, known, objective, epsilon, work)
        move(work.part, side)
        if objective.biased:
            move(work.border_part, border)
        if biased:
            for n in range(stop - start):
                pull += work.pulls[n]
                curvature += work.curvatures[n]
        add_upper(G, A, stop - start, width, one)
    reg, bias_reg = objective.reg * known.scale[u], objective.bias_reg * known.scale[u]
    trace = 0.0
    for f in range(width):
        trace += float(G[f, f])
    for f in range(width):
        G[f, f] += max(reg, objective.floor * trace / width)
        side[f] -= reg * x[first + f]
    add_gram(known.gram, first, width, x, side, G)
    for f in range(max(0, objective.k - first), width):  # padding
        G[f, f] = 1
        side[f] = 0
    if biased:
        for f in range(width):
            G[f, width] = border[f]
        G[width, width] = curvature + max(bias_reg, objective.floor * curvature)
        side[width] = pull - bias_reg * x[K]
    for f in range(m):
        G[f, m] = side[f]


@inlined
def gather(
    u: int,
    start: int,
    stop: int,
    first: int,
    width: int,
    known: Known,
    objective: Objective,
    epsilon: float,
    work: Work,
) -> None:
    """Make ratings ``start:stop`` the first lines of ``work.A``, and sum them up for the right side."""
    A, Y, side, border = work.A, known.Y, work.part, work.border_part
    one = known.scale.dtype.type(1)
    e, h = work.pulls, work.curvatures
    for n in range(start, stop):
        z, w = work.z[n - known.indptr[u]], weight(known.weights, n)
        pull, curvature = pull_of(objective, float(known.values[n]), float(z), epsilon)
        e[n - start], h[n - start] = w * pull, w * curvature
        scale_row(A, n - start, Y, known.indices[n], first, width, one * math.sqrt(h[n - start]))
    for n in range(stop - start, min(4 * up(stop - start, 4), CHUNK)):
        e[n] = h[n] = 0
    for n in range(0, stop - start, 4):  # four at a time, so that the sums are stored less often
        rows = four(known.indices, start + n, stop - 1)
        add_rows(side, Y, rows, first, width, (e[n], e[n + 1], e[n + 2], e[n + 3]))
        if objective.biased:
            add_rows(border, Y, rows, first, width, (h[n], h[n + 1], h[n + 2], h[n + 3]))
    if width < A.shape[1]:
        A[: stop - start, width:] = 0


@inlined
def move(part: NDArray[Any], out: NDArray[Any]) -> None:
    """Add a part of a sum to it, and begin the next."""
    for f in range(part.size):
        out[f] += part[f]
        part[f] = 0


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


@jit
def logistic_objective(u: int, known: Known, objective: Objective, x: NDArray[Any]) -> float:
    """Return the whole objective of row u at x."""
    total, squares, absolutes, K = 0.0, 0.0, 0.0, known.Y.shape[1]
    b = float(x[K]) if objective.biased else 0.0
    for n in range(known.indptr[u], known.indptr[u + 1]):
        i = known.indices[n]
        y, z = known.Y[i], 0.0
        for f in range(K):
            z += float(x[f]) * float(y[f])
        z += float(base_of(known.base, i, 0.0)) + b
        w = weight(known.weights, n)
        total += w * (max(z, 0.0) - known.values[n] * z + math.log1p(math.exp(-abs(z))))
    for f in range(K):
        squares += float(x[f]) ** 2
        absolutes += abs(float(x[f]))
    penalty = 0.5 * objective.reg * squares + 0.5 * objective.bias_reg * b * b + objective.l1 * absolutes
    return total + float(known.scale[u]) * penalty


@jit
def factorize(G: NDArray[Any], m: int, diagonal: NDArray[Any]) -> bool:
    """Replace the upper triangle of G[:m, :m] by U, where UᵀU = G; and column m, g, by U⁻ᵀ g.

    Four rows at a time: what the rows above leave of them, the triangle on the diagonal, and by its means the
    rest of the rows. On the diagonal of U stands 1 / U instead, or 0 where nothing is left; then the answer
    is False. ``diagonal``, (m,), is overwritten.
    """
    minus, definite = G.dtype.type(-1), True
    columns, width = LANES * up(m + 1, LANES), len(PANEL)
    tiny = SINGULAR * np.finfo(G.dtype).eps
    for i in range(m):
        diagonal[i] = tiny * G[i, i]
    for a in range(0, m, len(LINES)):
        b = a // LANES * LANES
        if a > 0:
            while b + width <= columns:
                add_tile(G, a, b, G, a, minus, LINES, PANEL)
                b += width
            if b < columns:
                add_tile(G, a, b, G, a, minus, LINES, NARROW)
        if a + 4 > m:  # no more than one row, of the bias
            definite = divide_line(G, a, diagonal) and definite
        else:
            definite = divide(G, a, columns, diagonal) and definite
    return definite


@inlined
def inverse_root(pivot: Any, least: Any) -> Any:
    """Return 1 / √pivot, or 0 of what is not more than rounding leaves of nothing."""
    return type(pivot)(1 / math.sqrt(pivot)) if pivot > least else type(pivot)(0)


@inlined
def divide_line(G: NDArray[Any], a: int, diagonal: NDArray[Any]) -> bool:
    """Divide the last row, of one coordinate, by its pivot."""
    inverse = inverse_root(G[a, a], diagonal[a])
    G[a, a + 1] *= inverse
    G[a, a] = inverse
    return bool(inverse > 0)


@inlined
def divide(G: NDArray[Any], a: int, columns: int, diagonal: NDArray[Any]) -> bool:
    """Eliminate rows a to a + 3 from each other."""
    l0, l1, l2, l3 = G[a], G[a + 1], G[a + 2], G[a + 3]
    i0 = inverse_root(l0[a], diagonal[a])
    c01, c02, c03 = i0 * l0[a + 1], i0 * l0[a + 2], i0 * l0[a + 3]
    i1 = inverse_root(l1[a + 1] - c01 * c01, diagonal[a + 1])
    c12, c13 = i1 * (l1[a + 2] - c01 * c02), i1 * (l1[a + 3] - c01 * c03)
    i2 = inverse_root(l2[a + 2] - c02 * c02 - c12 * c12, diagonal[a + 2])
    c23 = i2 * (l2[a + 3] - c02 * c03 - c12 * c13)
    i3 = inverse_root(l3[a + 3] - c03 * c03 - c13 * c13 - c23 * c23, diagonal[a + 3])
    b = a // LANES * LANES
    for t in range((columns - b) // LANES * LANES):
        v0 = i0 * l0[b + t]
        v1 = i1 * (l1[b + t] - c01 * v0)
        v2 = i2 * (l2[b + t] - c02 * v0 - c12 * v1)
        v3 = i3 * (l3[b + t] - c03 * v0 - c13 * v1 - c23 * v2)
        l0[b + t], l1[b + t], l2[b + t], l3[b + t] = v0, v1, v2, v3
    l0[a], l1[a + 1], l2[a + 2], l3[a + 3] = i0, i1, i2, i3
    return bool(i0 > 0 and i1 > 0 and i2 > 0 and i3 > 0)


@jit
def back_substitute(U: NDArray[Any], m: int, x: NDArray[Any]) -> None:
    """Solve U x = g, with U and g, its column m, as :func:`factorize` leaves them."""
    for c in range(m - 1, -1, -1):
        line, total = U[c], U.dtype.type(0)
        for t in range(c + 1, m):
            total += line[t] * x[t]
        x[c] = (line[m] - total) * line[c]


@jit
def descend(work: Work, m: int, k: int, l1: float, nonnegative: bool) -> None:
    """Find the step that minimizes ½ sᵀG s - g·s + λ₁‖x + s‖₁, with x + s ≥ 0 if asked for; not for the bias.

    Coordinate descent, of all coordinates; ``work.side`` holds g - G s throughout.
    """
    G, x, step, g = work.G, work.x, work.step, work.side
    enough = max(DESCENDED, 4 * np.finfo(G.dtype).eps)
    for a in range(m):
        for b in range(a):
            G[a, b] = G[b, a]
    for c in range(m):
        step[c] = x[c]  # x + s, at first
    for _ in range(SWEEPS):
        largest, length = 0.0, 0.0
        for c in range(m):
            line, curvature = G[c], G[c, c]
            if curvature <= 0:
                continue
            new = step[c] + g[c] / curvature
            if c < k:
                new = math.copysign(max(abs(new) - l1 / curvature, 0.0), new)
                if nonnegative:
                    new = max(new, 0.0)
            change = g.dtype.type(new - step[c])
            if change != 0:
                step[c] = new
                for t in range(m):
                    g[t] -= change * line[t]
            largest, length = max(largest, abs(change)), max(length, abs(new))
        if largest <= enough * length:
            break
    for c in range(m):
        step[c] -= x[c]


@jit
def approach(u: int, known: Known, objective: Objective, steps: int, work: Work) -> None:
    """Make some steps of conjugate gradients from ``work.x`` towards the solution of row u.

    Each passes the ratings of the row once, and makes no matrix. Biases are in units of ``bias_unit``, so
    that the steps do not depend on the unit of the ratings.
    """
    x, residual, direction, product = work.x, work.side, work.step, work.border
    count, number = known.indptr[u + 1] - known.indptr[u], known.scale.dtype.type
    reg = objective.reg * known.scale[u]
    bias_reg = objective.bias_reg * known.scale[u] * objective.bias_unit**2
    residual[:] = 0
    apply(u, known, objective, x, work.z, work.part, residual, True)
    penalize(known, objective, number(reg), number(bias_reg), x, residual, number(-1))
    for f in range(x.size):
        direction[f] = residual[f]
    norm = squares(residual)
    enough = norm * NEARLY
    for _ in range(steps):
        if norm <= enough:
            break
        product[:] = 0
        apply(u, known, objective, direction, work.moves, work.part, product, False)
        penalize(known, objective, number(reg), number(bias_reg), direction, product, number(1))
        curvature = 0.0
        for f in range(x.size):
            curvature += float(direction[f]) * float(product[f])
        if curvature <= 0:
            break
        length = number(norm / curvature)
        for f in range(x.size):
            x[f] += length * direction[f]
            residual[f] -= length * product[f]
        for n in range(count):
            work.z[n] += length * work.moves[n]
        before, norm = norm, squares(residual)
        ratio = number(norm / before)
        for f in range(x.size):
            direction[f] = residual[f] + ratio * direction[f]


@inlined
def squares(v: NDArray[Any]) -> float:
    """Return ‖v‖²."""
    total = 0.0
    for f in range(v.size):
        total += float(v[f]) * float(v[f])
    return total


@jit
def apply(
    u: int,
    known: Known,
    objective: Objective,
    v: NDArray[Any],
    z: NDArray[Any],
    part: NDArray[Any],
    out: NDArray[Any],
    pulls: bool,
) -> None:
    """Set z to v·y of each rating of row u, and add Σ h (v·y) y to ``out``; with ``pulls``, Σ g y instead.

    Where ``pulls``, z are the whole scores at v.
    """
    start, stop, K, Y = known.indptr[u], known.indptr[u + 1], known.Y.shape[1], known.Y
    indices, none = known.indices, known.scale.dtype.type(0)
    unit = known.scale.dtype.type(objective.bias_unit)
    b = unit * v[K] if objective.biased else none
    for n in range(start, stop, 4):
        rows = four(indices, n, stop - 1)
        z0, z1, z2, z3 = dot_rows(v, Y, rows, 0, K)
        at = n - start
        z[at], z[at + 1], z[at + 2], z[at + 3] = z0 + b, z1 + b, z2 + b, z3 + b
        if pulls:
            for c in range(n, min(n + 4, stop)):
                z[c - start] += base_of(known.base, indices[c], none)
        c0 = coefficient(known, objective, n, stop, z[at], pulls)
        c1 = coefficient(known, objective, n + 1, stop, z[at + 1], pulls)
        c2 = coefficient(known, objective, n + 2, stop, z[at + 2], pulls)
        c3 = coefficient(known, objective, n + 3, stop, z[at + 3], pulls)
        add_rows(part, Y, rows, 0, K, (c0, c1, c2, c3))
        if objective.biased:
            part[K] += unit * (c0 + c1 + c2 + c3)
        if (at + 4) % CHUNK == 0 or n + 4 >= stop:
            move(part, out)


@inlined
def coefficient(known: Known, objective: Objective, n: int, stop: int, z: Any, pulls: bool) -> Any:
    """Return the pull of rating n at the score z, or z times its curvature; zero from ``stop`` on."""
    if n >= stop:
        return type(z)(0)
    pull, curvature = pull_of(objective, float(known.values[n]), float(z), 0.0)
    w = weight(known.weights, n)
    return type(z)(w * pull if pulls else w * curvature * float(z))


@jit
def penalize(
    known: Known, objective: Objective, reg: Any, bias_reg: Any, v: NDArray[Any], out: NDArray[Any], sign: Any
) -> None:
    """Add ± (w₀ YᵀY + ρ I) v to ``out``."""
    K = known.Y.shape[1]
    for f in range(K):
        out[f] += sign * reg * v[f]
    if objective.biased:
        out[K] += sign * bias_reg * v[K]
    multiply_gram(known.gram, v, out, sign)


@inlined
def add_gram(
    gram: NDArray[Any] | None, first: int, width: int, x: NDArray[Any], side: NDArray[Any], G: NDArray[Any]
) -> None:
    """Add the block of w₀ YᵀY from ``first`` to G, and subtract its lines times x from the right side."""
    if gram is not None:
        starts_at_zero = squares(x) == 0
        for f in range(width):
            line, target, total = gram[first + f], G[f], G.dtype.type(0)
            if not starts_at_zero:
                for c in range(gram.shape[1] // 8 * 8):
                    total += line[c] * x[c]
                side[f] -= total
            for c in range(width // 8 * 8):
                target[c] += line[first + c]


@inlined
def multiply_gram(gram: NDArray[Any] | None, v: NDArray[Any], out: NDArray[Any], sign: Any) -> None:
    """Add ± w₀ YᵀY v to ``out``."""
    if gram is not None:
        for f in range(0, gram.shape[0], 4):
            factors = sign * v[f], sign * v[f + 1], sign * v[f + 2], sign * v[f + 3]
            add_rows(out, gram, (f, f + 1, f + 2, f + 3), 0, gram.shape[1], factors)


@jit
def gram_span(first: int, last: int, Y: NDArray[Any], one: Any) -> NDArray[Any]:
    """Return the upper triangle of the sum of y yᵀ over rows ``first:last`` of Y, in the type of ``one``."""
    K = Y.shape[1]
    columns = LANES * up(K, LANES)
    A, G = np.zeros((CHUNK, columns), type(one)), np.zeros((columns, columns), type(one))
    for start in range(first, last, CHUNK):
        n = min(CHUNK, last - start)
        for i in range(n):
            scale_row(A, i, Y, start + i, 0, K, one)
        add_upper(G, A, n, K, one)
    return G[:K, :K]


@inlined
def add_upper(G: NDArray[Any], A: NDArray[Any], n: int, width: int, one: Any) -> None:
    """Add the upper triangle of A[:n].T @ A[:n] to G, in whole tiles."""
    columns = LANES * up(width, LANES)
    for a in range(0, width, len(ROWS)):
        b = a // LANES * LANES
        while b + len(PANEL) <= columns:
            add_tile(G, a, b, A, n, one, ROWS, PANEL)
            b += len(PANEL)
        if b < columns:
            add_tile(G, a, b, A, n, one, ROWS, NARROW)
