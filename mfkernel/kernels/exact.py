"""Rows of a squared loss, solved exactly: all coordinates at once, or block by block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, factorize
from mfkernel.kernels.coordinate_descent import descend
from mfkernel.kernels.jit import jit
from mfkernel.kernels.normal import normal_equations
from mfkernel.kernels.row_problem import (
    Known,
    Objective,
    Solver,
    Work,
    add_scores,
    load_row,
    longest,
    new_work,
    row_loss,
    start_scores,
    store_row,
)


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
