r"""Exact solution of rows of one side, given the other side: normal equations, Cholesky, Newton.

Each row has a vector x of k factors and a bias b, which minimize

.. math::
    \sum_n w_n \left[ \ell(r_n, z_n) + \tfrac{\lambda}{2} \lVert x \rVert^2 + \tfrac{\lambda_b}{2} b^2
    + \lambda_1 \lVert x \rVert_1 \right], \qquad z_n = \text{base}_i + b + x \cdot y_i.

The weighted ratings of a row are the *columns* of A: m lines of coordinates, which are the k of y and a 1
for the bias, and one line of residuals. So A Aᵀ is the Gram matrix with the right side in line m, and all of
it, like all of its Cholesky factor, is made of dot products of long lines.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._jit import inlined, jit

SQUARED, ABSOLUTE, HUBER, LOGISTIC = 0, 1, 2, 3  # kinds of loss

CHUNK = 120  # ratings in A at a time: an odd number of cache lines, so that its lines spread over the cache
FLOOR = 1e-10  # the least λ, as a part of the mean diagonal of the Gram matrix: no system is singular
PASSES, CONVERGED = 100, 1e-8  # of Newton's method at most; the relative change of x at which it ends
SWEEPS, DESCENDED = 1000, 1e-10  # the same of coordinate descent
HALVINGS = 40  # of a step of Newton's method at most
SMOOTH = 1e-6  # |e| becomes √(e² + ε²), where ε is this part of the mean |e| at x = 0
FLATTEST = 1e-12  # the least curvature of the logistic loss


class Known(NamedTuple):
    """What is known of the rows that are looked for.

    Attributes
    ----------
    indptr, indices, values, weights
        (n_rows + 1,), (nnz,), (nnz,) CSR matrix of ratings, and (nnz,) how often each counts, or None.
    Y, base
        (n_items, k) the other side, and (n_items,) what is predicted of its rows if x and b are zero.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    weights: NDArray[Any] | None
    Y: NDArray[Any]
    base: NDArray[np.float64]


class Objective(NamedTuple):
    """What a row minimizes: the kind of loss, Huber's δ, whether b is there, λ, λ_b, λ₁, whether x ≥ 0."""

    kind: int
    delta: float
    biased: bool
    reg: float
    bias_reg: float
    l1: float
    nonnegative: bool


class Work(NamedTuple):
    """Float64 arrays of one thread; ``size`` is m + 1 rounded up to a multiple of 4.

    Attributes
    ----------
    A
        (size, CHUNK) columns √(w h) (y, 1, pull / h), of which h is the curvature of the loss.
    G
        (size, size) A Aᵀ + Λ in the lower triangle, minus the gradient in line m; then its factor L.
    x, step
        (m,) the coordinates, the bias last; and what is added to them.
    """

    A: NDArray[np.float64]
    G: NDArray[np.float64]
    x: NDArray[np.float64]
    step: NDArray[np.float64]


@jit
def solve_span(
    first: int,
    last: int,
    known: Known,
    objective: Objective,
    X: NDArray[Any],
    bias: NDArray[Any],
) -> None:
    """Solve rows ``first:last``.

    Parameters
    ----------
    X, bias
        (n_rows, k), (n_rows,); overwritten, the bias only if there is one.
    """
    k = known.Y.shape[1]
    m = k + 1 if objective.biased else k
    size = (m + 4) // 4 * 4
    work = Work(np.zeros((size, CHUNK)), np.zeros((size, size)), np.zeros(m), np.zeros(m))
    for u in range(first, last):
        solve_row(u, known, objective, work)
        for f in range(k):
            X[u, f] = work.x[f]
        if objective.biased:
            bias[u] = work.x[k]


@jit
def solve_row(u: int, known: Known, objective: Objective, work: Work) -> None:
    """Leave the solution of row u in ``work.x``; zeros if its ratings have no weight.

    One pass solves the normal equations. Losses that are not squared take several: Newton's method, in which
    the absolute and Huber's loss have the curvature of the parabola that touches and lies above (iteratively
    reweighted least squares, which cannot rise) and steps of the logistic loss are halved until it falls.
    With λ₁ or x ≥ 0 each step minimizes its quadratic model by coordinate descent.
    """
    x, step = work.x, work.step
    x[:] = 0
    count, scale = total_weight(u, known)
    if count == 0:
        return
    epsilon = scale if objective.kind == ABSOLUTE else 0.0
    least = SMOOTH * epsilon  # reached by and by: residuals that are small by chance are not to stay so
    for _ in range(1 if objective.kind == SQUARED else PASSES):
        epsilon = max(0.2 * epsilon, least)
        normal_equations(u, known, objective, count, epsilon, work)
        if objective.l1 > 0 or objective.nonnegative:
            descend(work, known.Y.shape[1], objective.l1 * count, objective.nonnegative)
        else:
            factorize(work.G, x.size)
            back_substitute(work.G, step)
        if objective.kind == LOGISTIC:
            shorten(u, known, objective, count, x, step)
        x += step
        if np.abs(step).max() <= CONVERGED * np.abs(x).max() and epsilon <= least:
            break


@jit
def shorten(
    u: int,
    known: Known,
    objective: Objective,
    count: float,
    x: NDArray[np.float64],
    step: NDArray[np.float64],
) -> None:
    """Halve the step from x until the logistic objective does not rise."""
    highest = logistic_objective(u, known, objective, count, x)
    highest += 1e-12 * abs(highest)  # it is rounded
    for _ in range(HALVINGS):
        if logistic_objective(u, known, objective, count, x + step) <= highest:
            break
        step *= 0.5


@jit
def total_weight(u: int, known: Known) -> tuple[float, float]:
    """Return Σ w of row u, and the mean |r - base|."""
    count, total = 0.0, 0.0
    for n in range(known.indptr[u], known.indptr[u + 1]):
        w = weight(known.weights, n)
        count += w
        total += w * abs(known.values[n] - known.base[known.indices[n]])
    return count, total / count if count > 0 else 0.0


@jit
def normal_equations(
    u: int,
    known: Known,
    objective: Objective,
    count: float,
    epsilon: float,
    work: Work,
) -> None:
    """Fill the lower triangle of ``work.G`` for a step from ``work.x``, ``count`` being Σ w."""
    A, G, x = work.A, work.G, work.x
    k, m = known.Y.shape[1], x.size
    G[:] = 0
    for start in range(known.indptr[u], known.indptr[u + 1], CHUNK):
        stop = min(start + CHUNK, known.indptr[u + 1])
        gather(start, stop, known, objective, epsilon, work)
        n = (stop - start + 3) // 4 * 4
        A[:, stop - start : n] = 0
        for b in range(0, m + 1, 4):
            for a in range(b, m + 1, 2):
                add_products(G, a, b, A, n, 1.0)
    trace = 0.0
    for f in range(k):
        trace += float(G[f, f])
    reg, bias_reg = objective.reg * count, objective.bias_reg * count
    for f in range(k):
        G[f, f] += max(reg, FLOOR * trace / k)
        G[m, f] -= reg * x[f]
    if objective.biased:
        G[k, k] += max(bias_reg, FLOOR * float(G[k, k]))
        G[m, k] -= bias_reg * x[k]


@jit
def gather(
    start: int,
    stop: int,
    known: Known,
    objective: Objective,
    epsilon: float,
    work: Work,
) -> None:
    """Make ratings ``start:stop`` the first columns of ``work.A``."""
    A, x, k = work.A, work.x, known.Y.shape[1]
    for n in range(start, stop):
        i, column = known.indices[n], n - start
        y = known.Y[i]
        z = score(x, y, known.base[i], objective.biased)
        w = weight(known.weights, n)
        pull, curvature = pull_of(objective, float(known.values[n]), z, epsilon)
        root = math.sqrt(w * curvature)
        for f in range(k):
            A[f, column] = root * float(y[f])
        if objective.biased:
            A[k, column] = root
        A[x.size, column] = w * pull / root if root > 0 else 0.0


@inlined
def weight(weights: NDArray[Any] | None, n: int) -> float:
    """Return how often rating n counts."""
    return 1.0 if weights is None else float(weights[n])


@inlined
def score(x: NDArray[np.float64], y: NDArray[Any], base: float, biased: bool) -> float:
    """Return base + b + x·y."""
    z = 0.0
    for f in range(y.size):
        z += float(x[f]) * float(y[f])
    return z + base + (float(x[y.size]) if biased else 0.0)


@inlined
def pull_of(objective: Objective, r: float, z: float, epsilon: float) -> tuple[float, float]:
    """Return -∂ℓ/∂z of one rating, and the curvature of the parabola by which ℓ is replaced."""
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
def logistic_objective(
    u: int,
    known: Known,
    objective: Objective,
    count: float,
    x: NDArray[np.float64],
) -> float:
    """Return the whole objective of row u at x."""
    total, squares, absolutes = 0.0, 0.0, 0.0
    for n in range(known.indptr[u], known.indptr[u + 1]):
        i = known.indices[n]
        z = score(x, known.Y[i], known.base[i], objective.biased)
        w = weight(known.weights, n)
        total += w * (max(z, 0.0) - known.values[n] * z + math.log1p(math.exp(-abs(z))))
    for f in range(known.Y.shape[1]):
        squares += float(x[f]) ** 2
        absolutes += abs(float(x[f]))
    b = float(x[known.Y.shape[1]]) if objective.biased else 0.0
    penalty = 0.5 * objective.reg * squares + 0.5 * objective.bias_reg * b * b + objective.l1 * absolutes
    return total + count * penalty


@inlined
def add_products(G: NDArray[np.float64], a: int, b: int, A: NDArray[np.float64], n: int, sign: float) -> None:
    """Add ``sign * A[a:a+2, :n] @ A[b:b+4, :n].T`` to ``G[a:a+2, b:b+4]``; n is a multiple of 4.

    Eight sums of products that LLVM keeps in registers, for six numbers that are loaded; sums, unlike an
    update of G with one rating, store nothing in the loop.
    """
    p0, p1, q0, q1, q2, q3 = A[a], A[a + 1], A[b], A[b + 1], A[b + 2], A[b + 3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    for t in range(n // 4 * 4):
        s00 += p0[t] * q0[t]
        s01 += p0[t] * q1[t]
        s02 += p0[t] * q2[t]
        s03 += p0[t] * q3[t]
        s10 += p1[t] * q0[t]
        s11 += p1[t] * q1[t]
        s12 += p1[t] * q2[t]
        s13 += p1[t] * q3[t]
    g0, g1 = G[a], G[a + 1]
    g0[b] += sign * s00
    g0[b + 1] += sign * s01
    g0[b + 2] += sign * s02
    g0[b + 3] += sign * s03
    g1[b] += sign * s10
    g1[b + 1] += sign * s11
    g1[b + 2] += sign * s12
    g1[b + 3] += sign * s13


@jit
def factorize(G: NDArray[np.float64], m: int) -> None:
    """Replace the lower triangle of G by L, where G[:m, :m] = L Lᵀ; and line m, g, by L⁻¹ g.

    Four columns at a time, two lines at a time: what the columns to the left leave of them, and then the
    triangle on the diagonal. On the diagonal of L stands 1 / L instead, or 0 where nothing is left.
    """
    for b in range(0, m + 1, 4):
        for a in range(b, m + 1, 2):
            add_products(G, a, b, G, b, -1.0)
            if a >= b + 4:
                divide(G, a, b)
                divide(G, a + 1, b)
            else:
                for row in range(a, min(a + 2, m + 1)):
                    for c in range(b, min(row + 1, m)):
                        value = G[row, c]
                        for t in range(b, c):
                            value -= G[row, t] * G[c, t]
                        if c < row:
                            G[row, c] = value * G[c, c]
                        else:
                            G[row, c] = 1 / math.sqrt(value) if value > 0 else 0.0


@inlined
def divide(G: NDArray[np.float64], row: int, b: int) -> None:
    """Solve T x = G[row, b:b+4], where T is the triangle of L at b, and put x in its place."""
    line, t0, t1, t2, t3 = G[row], G[b], G[b + 1], G[b + 2], G[b + 3]
    x0 = line[b] * t0[b]
    x1 = (line[b + 1] - x0 * t1[b]) * t1[b + 1]
    x2 = (line[b + 2] - x0 * t2[b] - x1 * t2[b + 1]) * t2[b + 2]
    x3 = (line[b + 3] - x0 * t3[b] - x1 * t3[b + 1] - x2 * t3[b + 2]) * t3[b + 3]
    line[b], line[b + 1], line[b + 2], line[b + 3] = x0, x1, x2, x3


@jit
def back_substitute(L: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    """Solve Lᵀ x = g, with L and g, its line m, as :func:`factorize` leaves them."""
    m = x.size
    x[:] = L[m, :m]
    for c in range(m - 1, -1, -1):
        x[c] *= L[c, c]
        line, value = L[c], x[c]
        for t in range(c):
            x[t] -= value * line[t]


@jit
def descend(work: Work, k: int, l1: float, nonnegative: bool) -> None:
    """Find the step that minimizes ½ sᵀG s - g·s + λ₁‖x + s‖₁, with x + s ≥ 0 if asked for; not for the bias.

    Coordinate descent; line m of G holds g - G s throughout.
    """
    G, x, step, m = work.G, work.x, work.step, work.x.size
    for a in range(m):
        for b in range(a):
            G[b, a] = G[a, b]
    g = G[m]
    step[:] = x  # x + s, at first
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
            change = new - step[c]
            if change != 0:
                step[c] = new
                for t in range(m):
                    g[t] -= change * line[t]
            largest, length = max(largest, abs(change)), max(length, abs(new))
        if largest <= DESCENDED * length:
            break
    for c in range(m):
        step[c] -= x[c]
