"""Rows of a squared loss, brought nearer to their solutions by conjugate gradients."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import add_rows, dot_rows
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.row_problem import (
    CHUNK,
    Known,
    Objective,
    Solver,
    Work,
    base_of,
    four,
    load_row,
    longest,
    move,
    new_work,
    pull_of,
    row_loss,
    squares,
    store_row,
    weight,
)

NEARLY = 1e-12  # of the first ‖gradient‖²: conjugate gradients can go no further


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
def multiply_gram(gram: NDArray[Any] | None, v: NDArray[Any], out: NDArray[Any], sign: Any) -> None:
    """Add ± w₀ YᵀY v to ``out``."""
    if gram is not None:
        for f in range(0, gram.shape[0], 4):
            factors = sign * v[f], sign * v[f + 1], sign * v[f + 2], sign * v[f + 3]
            add_rows(out, gram, (f, f + 1, f + 2, f + 3), 0, gram.shape[1], factors)
