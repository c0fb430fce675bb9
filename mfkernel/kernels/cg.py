"""Conjugate gradients for squared losses: a few steps towards the solution of each row.

References
----------
Takács, Pilászy and Tikk, "Applications of the conjugate gradient method for implicit feedback collaborative
filtering", RecSys 2011.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import add_rows, dot_rows
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import weight
from mfkernel.kernels.row_problem import (
    ROWS_PER_GRAM_UPDATE,
    Objective,
    RowProblem,
    Solver,
    Workspace,
    base_score,
    flush_partial_sum,
    load_row,
    loss_derivatives,
    max_row_length,
    new_workspace,
    next_four_items,
    row_loss,
    squared_norm,
    store_row,
)

CG_TOLERANCE = 1e-12  # squared norm of the gradient, relative to the first: further steps only round


@jit
def cg_span(
    first: int,
    last: int,
    problem: RowProblem,
    objective: Objective,
    solver: Solver,
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    failed: NDArray[np.bool_],
    measure: bool,
) -> float:
    """Step rows ``first:last`` of a squared loss from X towards their solutions.

    Parameters and result as for ``exact.solve_span``, but ``failed`` is not set.
    """
    work, total = new_workspace(problem, objective, 0, max_row_length(first, last, problem)), 0.0
    for u in range(first, last):
        if problem.indptr[u] == problem.indptr[u + 1]:
            continue
        load_row(u, objective, True, X, bias, work.x)
        unit, K = problem.scale.dtype.type(objective.bias_unit), problem.Y.shape[1]
        work.x[K] /= unit
        cg_row(u, problem, objective, solver.cg_steps, work)
        work.x[K] *= unit
        store_row(u, objective, work.x, X, bias)
        if measure:
            total += row_loss(u, problem, objective, work.z)
    return total


@jit
def cg_row(u: int, problem: RowProblem, objective: Objective, n_steps: int, work: Workspace) -> None:
    """Take steps of conjugate gradients from ``work.x`` to the solution of row u.

    Each step passes once over the ratings of the row, and forms no matrix. The bias is in units of
    ``bias_unit``, so that the steps do not depend on the unit of the ratings.
    """
    x, residual, direction, product = work.x, work.rhs, work.step, work.bias_column
    count, number = problem.indptr[u + 1] - problem.indptr[u], problem.scale.dtype.type
    reg = number(objective.reg * problem.scale[u])
    bias_reg = number(objective.bias_reg * problem.scale[u] * objective.bias_unit**2)
    residual[:] = 0
    hessian_vector_product(u, problem, objective, x, work.z, work.rhs_partial, residual, True)
    add_penalty_product(problem, objective, reg, bias_reg, x, residual, number(-1))
    for f in range(x.size):
        direction[f] = residual[f]
    norm = squared_norm(residual)
    min_norm = norm * CG_TOLERANCE
    for _ in range(n_steps):
        if norm <= min_norm:
            break
        product[:] = 0
        partial, score_steps = work.rhs_partial, work.score_steps
        hessian_vector_product(u, problem, objective, direction, score_steps, partial, product, False)
        add_penalty_product(problem, objective, reg, bias_reg, direction, product, number(1))
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
            work.z[n] += length * work.score_steps[n]
        last_norm, norm = norm, squared_norm(residual)
        ratio = number(norm / last_norm)
        for f in range(x.size):
            direction[f] = residual[f] + ratio * direction[f]


@jit
def hessian_vector_product(
    u: int,
    problem: RowProblem,
    objective: Objective,
    v: NDArray[Any],
    z: NDArray[Any],
    partial: NDArray[Any],
    out: NDArray[Any],
    as_gradient: bool,
) -> None:
    """Add the product of v and the Hessian of the losses of row u to ``out``.

    The product is Σ h z y, where z = v·y of each rating; z is overwritten. If ``as_gradient``, z are the
    whole scores at v, and ``out`` gets the negative gradient Σ g y instead. ``partial`` is zero before and
    after.
    """
    start, stop, K, Y = problem.indptr[u], problem.indptr[u + 1], problem.Y.shape[1], problem.Y
    indices, zero = problem.indices, problem.scale.dtype.type(0)
    unit = problem.scale.dtype.type(objective.bias_unit)
    b = unit * v[K] if objective.biased else zero
    for n in range(start, stop, 4):
        items = next_four_items(indices, n, stop - 1)
        z0, z1, z2, z3 = dot_rows(v, Y, items, 0, K)
        at = n - start
        z[at], z[at + 1], z[at + 2], z[at + 3] = z0 + b, z1 + b, z2 + b, z3 + b
        if as_gradient:
            for c in range(n, min(n + 4, stop)):
                z[c - start] += base_score(problem.base, indices[c], zero)
        c0 = coefficient(problem, objective, n, stop, z[at], as_gradient)
        c1 = coefficient(problem, objective, n + 1, stop, z[at + 1], as_gradient)
        c2 = coefficient(problem, objective, n + 2, stop, z[at + 2], as_gradient)
        c3 = coefficient(problem, objective, n + 3, stop, z[at + 3], as_gradient)
        add_rows(partial, Y, items, 0, K, (c0, c1, c2, c3))
        if objective.biased:
            partial[K] += unit * (c0 + c1 + c2 + c3)
        if (at + 4) % ROWS_PER_GRAM_UPDATE == 0 or n + 4 >= stop:
            flush_partial_sum(partial, out)


@inlined
def coefficient(
    problem: RowProblem, objective: Objective, n: int, stop: int, z: Any, as_gradient: bool
) -> Any:
    """Return w h z of rating n, or w g if ``as_gradient``; zero from ``stop`` on."""
    if n >= stop:
        return type(z)(0)
    g, h = loss_derivatives(objective, float(problem.values[n]), float(z), 0.0)
    w = float(weight(problem.weights, n, 1.0))
    return type(z)(w * g if as_gradient else w * h * float(z))


@jit
def add_penalty_product(
    problem: RowProblem,
    objective: Objective,
    reg: Any,
    bias_reg: Any,
    v: NDArray[Any],
    out: NDArray[Any],
    sign: Any,
) -> None:
    """Add ± (w₀ YᵀY + ρ I) v to ``out``."""
    K = problem.Y.shape[1]
    for f in range(K):
        out[f] += sign * reg * v[f]
    if objective.biased:
        out[K] += sign * bias_reg * v[K]
    add_gram_product(problem.gram, v, out, sign)


@inlined
def add_gram_product(gram: NDArray[Any] | None, v: NDArray[Any], out: NDArray[Any], sign: Any) -> None:
    """Add ± w₀ YᵀY v to ``out``."""
    if gram is not None:
        for f in range(0, gram.shape[0], 4):
            factors = sign * v[f], sign * v[f + 1], sign * v[f + 2], sign * v[f + 3]
            add_rows(out, gram, (f, f + 1, f + 2, f + 3), 0, gram.shape[1], factors)
