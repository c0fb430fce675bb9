"""Newton's method for losses other than the squared one."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, cholesky
from mfkernel.kernels.coordinate_descent import coordinate_descent
from mfkernel.kernels.jit import jit
from mfkernel.kernels.losses import ABSOLUTE, LOGISTIC, weight
from mfkernel.kernels.normal import normal_equations
from mfkernel.kernels.row_problem import (
    ZERO,
    Objective,
    RowProblem,
    Solver,
    Workspace,
    add_scores,
    base_score,
    init_scores,
    load_row,
    max_row_length,
    new_workspace,
    store_row,
)

MAX_NEWTON_STEPS = 100  # steps per row
NEWTON_TOLERANCE = 1e-8  # largest coordinate of the last step, relative to the largest coordinate of x
MAX_HALVINGS = 40  # halvings per step
ABS_SMOOTHING = 1e-6  # ε of √(e² + ε²), which replaces |e|: relative to the mean |e| at x = 0


@jit
def newton_span(
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
    """Solve rows ``first:last`` of any loss from zero, all coordinates at once.

    Parameters as for ``exact.solve_span``, but ``failed`` is not set and the loss is not measured.
    """
    work = new_workspace(problem, objective, solver.block_size, max_row_length(first, last, problem))
    for u in range(first, last):
        if problem.indptr[u] == problem.indptr[u + 1]:
            continue
        load_row(u, objective, False, X, bias, work.x)
        newton_row(u, problem, objective, work)
        store_row(u, objective, work.x, X, bias)
    return 0.0


@jit
def newton_row(u: int, problem: RowProblem, objective: Objective, work: Workspace) -> None:
    """Step from zero to the solution of row u.

    The step is zero if its ratings have no weight. The absolute loss and Huber's take the curvature of the
    parabola that touches the loss and lies above it. This is iteratively reweighted least squares, whose
    objective cannot rise. Steps of the logistic loss are halved until its objective does not rise. With λ₁ or
    x ≥ 0, coordinate descent minimizes each quadratic model.
    """
    x, step, K = work.x, work.step, problem.Y.shape[1]
    m = K + (1 if objective.biased else 0)
    init_scores(u, problem, objective, work, False)
    epsilon = mean_absolute_residual(u, problem) if objective.loss == ABSOLUTE else 0.0
    # ε falls step by step: with the last one at first, residuals that happen to be small would stay small
    min_epsilon = ABS_SMOOTHING * epsilon
    for _ in range(MAX_NEWTON_STEPS):
        epsilon = max(0.2 * epsilon, min_epsilon)
        normal_equations(u, 0, K, objective.biased, problem, objective, epsilon, work)
        if objective.l1 > 0 or objective.nonnegative:
            coordinate_descent(work, m, K, objective.l1 * problem.scale[u], objective.nonnegative)
        else:
            cholesky(work.G, m, step)
            back_substitute(work.G, m, step)
        if objective.loss == LOGISTIC:
            backtrack(u, problem, objective, x, step)
        for f in range(m):
            x[f] += step[f]
        add_scores(u, ZERO, K, objective.biased, problem, work)
        if np.abs(step).max() <= NEWTON_TOLERANCE * np.abs(x).max() and epsilon <= min_epsilon:
            break


@jit
def backtrack(u: int, problem: RowProblem, objective: Objective, x: NDArray[Any], step: NDArray[Any]) -> None:
    """Halve the step from x until the logistic objective does not rise."""
    bound = logistic_objective(u, problem, objective, x)
    bound += 1e-12 * abs(bound)  # a margin for rounding
    for _ in range(MAX_HALVINGS):
        if logistic_objective(u, problem, objective, x + step) <= bound:
            break
        step *= 0.5


@jit
def mean_absolute_residual(u: int, problem: RowProblem) -> float:
    """Return the weighted mean of |r - base| over the ratings of row u."""
    count, total = 0.0, 0.0
    for n in range(problem.indptr[u], problem.indptr[u + 1]):
        w = float(weight(problem.weights, n, 1.0))
        count += w
        total += w * abs(problem.values[n] - base_score(problem.base, problem.indices[n], 0.0))
    return total / count if count > 0 else 0.0


@jit
def logistic_objective(u: int, problem: RowProblem, objective: Objective, x: NDArray[Any]) -> float:
    """Return the objective of row u at x: the logistic loss and all penalties."""
    total, squares, absolutes, K = 0.0, 0.0, 0.0, problem.Y.shape[1]
    b = float(x[K]) if objective.biased else 0.0
    for n in range(problem.indptr[u], problem.indptr[u + 1]):
        i = problem.indices[n]
        y, z = problem.Y[i], 0.0
        for f in range(K):
            z += float(x[f]) * float(y[f])
        z += float(base_score(problem.base, i, 0.0)) + b
        w = float(weight(problem.weights, n, 1.0))
        total += w * (max(z, 0.0) - problem.values[n] * z + math.log1p(math.exp(-abs(z))))
    for f in range(K):
        squares += float(x[f]) ** 2
        absolutes += abs(float(x[f]))
    penalty = 0.5 * objective.reg * squares + 0.5 * objective.bias_reg * b * b + objective.l1 * absolutes
    return total + float(problem.scale[u]) * penalty
