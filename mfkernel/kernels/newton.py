"""Rows of any other loss, solved by Newton's method."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.cholesky import back_substitute, factorize
from mfkernel.kernels.coordinate_descent import descend
from mfkernel.kernels.jit import jit
from mfkernel.kernels.normal import normal_equations
from mfkernel.kernels.row_problem import (
    ABSOLUTE,
    LOGISTIC,
    ZERO,
    Known,
    Objective,
    Solver,
    Work,
    add_scores,
    base_of,
    load_row,
    longest,
    new_work,
    start_scores,
    store_row,
    weight,
)

PASSES, CONVERGED = 100, 1e-8  # of Newton's method at most; the relative change of x at which it ends
HALVINGS = 40  # of a step of Newton's method at most
SMOOTH = 1e-6  # |e| becomes √(e² + ε²), where ε is this part of the mean |e| at x = 0


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
