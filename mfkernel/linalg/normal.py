"""Exact solution of rows of one side of the factorization, given the other side."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._arrays import frozen
from mfkernel.engine import Task, ThreadEngine
from mfkernel.linalg.rows import padded

if TYPE_CHECKING:
    from mfkernel.kernels.row_problem import Known, Objective, Solver

WORK = 4e7  # multiply-adds of a task, about a millisecond
FLOOR = 1e-10  # the least λ, as a part of the mean diagonal of the Gram matrix: no system is singular
BLOCK = 64  # coordinates that the subspace solver takes at a time
STEPS = 3  # of conjugate gradients, each time that a row is solved
PASSES = 20  # of Newton's method, roughly
GRAM_ROWS = 2**11  # of a task that sums squares of rows


class Penalty(NamedTuple):
    """What holds the solution of a row down, each times the row's scale.

    Attributes
    ----------
    reg, bias_reg
        λ of ½ λ‖x‖² and λ_b of ½ λ_b b².
    l1
        λ₁ of λ₁‖x‖₁; the bias is free of it.
    nonnegative
        whether x ≥ 0; the bias is free.
    """

    reg: float
    bias_reg: float = 0.0
    l1: float = 0.0
    nonnegative: bool = False


class Implicit(NamedTuple):
    """What feedback is worth: a stored strength r weighs 1 + αr as a 1, and any other cell w₀ as a 0.

    ``observed`` is the 1 of 1 + αr: all three may be in another unit.
    """

    alpha: float = 1.0
    unobserved: float = 1.0
    observed: float = 1.0


def solve_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    Y: NDArray[Any],
    base: NDArray[Any] | None,
    scale: NDArray[Any],
    penalty: Penalty,
    engine: ThreadEngine,
    *,
    weights: NDArray[Any] | None = None,
    biased: bool = False,
    loss: str = "squared",
    huber_delta: float = 1.0,
    implicit: Implicit | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Find the factors x and the bias b of each row that minimize its objective exactly.

    .. math::
        \sum_n w_n \ell(r_n, \text{base}_i + b + x \cdot y_i) + c \left[ \tfrac{\lambda}{2} \lVert x \rVert^2
        + \tfrac{\lambda_b}{2} b^2 + \lambda_1 \lVert x \rVert_1 \right]

    Rows do not depend on one another: the result is the same, bit by bit, on any number of threads. A row is
    not interrupted.

    Parameters
    ----------
    indptr, indices, values
        (s + 1,) int64, (nnz,), (nnz,) CSR matrix of the ratings; finite, and 0 or 1 if the loss is logistic.
    Y
        (n_items, k) the other side, float32 or float64.
    base
        (n_items,) what is predicted without the row: the mean and the bias of the other side, or zeros; None
        is zeros.
    scale
        (s,) c of each row.
    penalty
        λ, λ_b, λ₁ and whether x ≥ 0.
    engine
        runs the rows, cut into tasks of equal work.
    weights
        (nnz,) how often each rating counts, or None.
    biased
        whether there is a b.
    loss
        ``"squared"``, ½ e²; ``"absolute"``, \|e\|, of which the last millionth part is rounded off;
        ``"huber"``, ½ e² up to \|e\| = δ and straight beyond; ``"logistic"``, the cross-entropy of σ(score).
    huber_delta
        δ, positive.
    implicit
        if the values are strengths of feedback, what they are worth: then the sum is over all items, of
        ½ (1 + αr) (1 - x·y)² where there is one, and ½ w₀ (x·y)² elsewhere.

    Returns
    -------
    X, bias
        (s, k), (s,) of Y's dtype, computed in float64. Zeros where a row has no ratings, or none with weight,
        and as biases if there are none. Where λ = 0 leaves more than one solution, that of least norm but for
        rounding: no step is computed with a λ below 1e-10 times the mean square of the coordinates of Y.
    """
    from mfkernel.kernels import row_problem

    k, rows, dtype = Y.shape[1], padded(Y), np.dtype(np.float64)
    X, bias = np.zeros((indptr.size - 1, k), Y.dtype), np.zeros(indptr.size - 1, Y.dtype)
    known = row_problem.Known(
        frozen(indptr),
        frozen(indices),
        frozen(values),
        None if weights is None else frozen(weights),
        frozen(rows),
        None if base is None else frozen(np.ascontiguousarray(base, dtype)),
        frozen(np.ascontiguousarray(scale, dtype)),
        None if implicit is None else frozen(implicit.unobserved * gram(rows, engine, dtype)),
    )
    objective = objective_of(k, penalty, biased, loss, huber_delta, implicit, FLOOR)
    run_rows(known, objective, solver_of("cholesky", k), X, bias if biased else None, engine)
    return X, bias


def objective_of(
    k: int,
    penalty: Penalty,
    biased: bool,
    loss: str = "squared",
    huber_delta: float = 1.0,
    implicit: Implicit | None = None,
    floor: float = 0.0,
    bias_unit: float = 1.0,
) -> "Objective":
    """Say what rows minimize, in numbers that kernels take.

    ``bias_unit``, the square root of the ratings' standard deviation, is the size of a factor: conjugate
    gradients, whose steps depend on it, measure biases so.
    """
    from mfkernel.kernels import row_problem

    weights = implicit or Implicit()
    kinds = {
        "squared": row_problem.SQUARED,
        "absolute": row_problem.ABSOLUTE,
        "huber": row_problem.HUBER,
        "logistic": row_problem.LOGISTIC,
    }
    return row_problem.Objective(
        k,
        kinds[loss] if implicit is None else row_problem.IMPLICIT,
        float(huber_delta),
        biased,
        float(penalty.reg),
        float(penalty.bias_reg),
        float(penalty.l1),
        bool(penalty.nonnegative),
        floor,
        float(weights.alpha),
        float(weights.unobserved),
        float(weights.observed),
        float(bias_unit),
    )


def solver_of(name: str, k: int) -> "Solver":
    """Return what a solver of ``SOLVERS`` is to the kernel, for rows of rank k."""
    from mfkernel.kernels.row_problem import Solver

    rank = padded(np.empty((0, k))).shape[1]
    if name == "cg":
        return Solver(rank, STEPS, True)
    if name == "subspace":
        return Solver(min(BLOCK, rank), 0, True)
    return Solver(rank, 0, False)


def run_rows(
    known: "Known",
    objective: "Objective",
    solver: "Solver",
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    engine: ThreadEngine,
    measure: bool = False,
) -> tuple[NDArray[np.bool_], float]:
    """Solve all rows in place; return which equations were singular, and the loss if it is to be measured."""
    failed = np.zeros(len(X), np.bool_)
    kernel = _kernel(objective, solver)

    def solve(span: tuple[int, int], cancelled: Callable[[], bool]) -> float:
        return kernel(*span, known, objective, solver, X, bias, failed, measure)

    a_rating, a_row = multiply_adds(solver, objective.k + objective.biased, known.gram is not None)
    tasks = spans(known.indptr, a_rating, a_row, 1 if _is_squared(objective) else PASSES)
    return failed, sum(engine.run(solve, [Task(span) for span in tasks]))


def compile_rows(
    known: "Known",
    objective: "Objective",
    solver: "Solver",
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    measure: bool,
) -> None:
    """Call the kernel of :func:`run_rows` for no row at all."""
    failed = np.zeros(len(X), np.bool_)
    _kernel(objective, solver)(0, 0, known, objective, solver, X, bias, failed, measure)


def _kernel(objective: "Objective", solver: "Solver") -> Callable[..., float]:
    if solver.steps:
        from mfkernel.kernels.cg import approach_span

        return approach_span
    if _is_squared(objective):
        from mfkernel.kernels.exact import solve_span

        return solve_span
    from mfkernel.kernels.newton import newton_span

    return newton_span


def _is_squared(objective: "Objective") -> bool:
    from mfkernel.kernels.row_problem import IMPLICIT, SQUARED

    return objective.kind in (SQUARED, IMPLICIT)


def multiply_adds(solver: "Solver", m: int, all_cells: bool) -> tuple[float, float]:
    """Return how many a rating takes at least, and how many a row, to solve for m coordinates.

    ``all_cells`` says whether a Gram matrix of all items belongs to the equations.
    """
    of_gram = m * m if all_cells else 0
    if solver.steps:  # scores and their sums, at the start and in each step
        return (solver.steps + 1) * 2 * m, (solver.steps + 1) * of_gram
    block = min(solver.block, m)
    scores = 2 * m if solver.warm else 0
    return m * (block + 1) / 2 + scores, m * block**2 / 6 + of_gram


def spans(indptr: NDArray[np.int64], a_rating: float, a_row: float, passes: int) -> list[tuple[int, int]]:
    """Cut rows into spans of nearly equal work, in multiply-adds; a row is some work in any case."""
    work = passes * (np.diff(indptr) * (a_rating + 100.0) + a_row + 1000)
    done = np.cumsum(work)
    n_cuts = int(done[-1] / WORK) if done.size else 0
    cuts = np.searchsorted(done, done[-1:] / (n_cuts + 1) * np.arange(1, n_cuts + 1))
    bounds = np.unique(np.concatenate([[0], cuts, [work.size]])).tolist()
    return list(pairwise(bounds))


def gram(Y: NDArray[Any], engine: ThreadEngine, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return YᵀY of padded rows Y: sums of some thousand rows in ``dtype``, which are added up in float64.

    The same, bit by bit, on any number of threads.
    """
    from mfkernel.kernels.normal import gram_span

    K = Y.shape[1]

    def part(rows: tuple[int, int], cancelled: Callable[[], bool]) -> NDArray[Any]:
        return gram_span(*rows, frozen(Y), dtype.type(1))

    starts = range(0, len(Y), GRAM_ROWS)
    total = np.zeros((K, K))
    for upper in engine.run(part, [Task((start, min(start + GRAM_ROWS, len(Y)))) for start in starts]):
        total += upper
    upper = np.triu(total)
    result: NDArray[np.float64] = upper + np.triu(upper, 1).T
    return result
