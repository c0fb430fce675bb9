"""The exact solver for squared losses: all coordinates at once, or block by block.

References
----------
Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008. Rendle, Krichene,
Zhang and Koren, "iALS++: speeding up matrix factorization with subspace optimization", 2021.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, cholesky
from mfkernel.kernels.coordinate_descent import coordinate_descent
from mfkernel.kernels.jit import jit
from mfkernel.kernels.normal import normal_equations
from mfkernel.kernels.row_problem import (
    Objective,
    RowProblem,
    Solver,
    Workspace,
    add_scores,
    init_scores,
    load_row,
    max_row_length,
    new_workspace,
    row_loss,
    store_row,
)


@jit
def solve_span(
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
    """Solve rows ``first:last`` of a squared loss, block by block.

    Rows without ratings are skipped.

    Parameters
    ----------
    X, bias
        (n_rows, K), (n_rows,) start of a warm solver; overwritten with the solution.
    failed
        (n_rows,) set to True for rows whose equations are not positive definite.
    measure
        whether to compute the loss.

    Returns
    -------
    float
        if ``measure``, the loss of the ratings at the solutions: Σ w (r - z)². For implicit feedback,
        Σ c (1 - z)² - w₀ z²; added to w₀ z² of all cells, this is the loss of all cells.
    """
    row_length = max_row_length(first, last, problem)
    work, total = new_workspace(problem, objective, solver.block_size, row_length), 0.0
    for u in range(first, last):
        if problem.indptr[u] == problem.indptr[u + 1]:
            continue
        load_row(u, objective, solver.warm_start, X, bias, work.x)
        if not solve_row(u, problem, objective, solver, work, measure):
            failed[u] = True
        store_row(u, objective, work.x, X, bias)
        if measure:
            total += row_loss(u, problem, objective, work.z)
    return total


@jit
def solve_row(
    u: int, problem: RowProblem, objective: Objective, solver: Solver, work: Workspace, measure: bool
) -> bool:
    """Step from ``work.x`` to the solution of row u, block by block.

    With λ₁ or x ≥ 0, coordinate descent solves the equations. If ``measure``, ``work.z`` ends as the scores.
    Return whether all equations were positive definite.
    """
    x, step, K, definite = work.x, work.step, problem.Y.shape[1], True
    init_scores(u, problem, objective, work, solver.warm_start)
    for first in range(0, K, solver.block_size):
        last = min(first + solver.block_size, K)
        biased = objective.biased and last == K
        m = last - first + (1 if biased else 0)
        normal_equations(u, first, last, biased, problem, objective, 0.0, work)
        if objective.l1 > 0 or objective.nonnegative:
            coordinate_descent(work, m, last, objective.l1 * problem.scale[u], objective.nonnegative)
        else:
            definite = cholesky(work.G, m, step) and definite
            back_substitute(work.G, m, step)
        for f in range(m):
            x[first + f] += step[f]
        if measure or last < K:
            add_scores(u, first, last, biased, problem, work)
    return definite
