"""Solving rows of one side of the factorization, given the other side; Gram matrices."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.engines.threads import Task, ThreadEngine
from mfkernel.linalg.rows import pad_rows, padded_rank, row_tasks

if TYPE_CHECKING:
    from mfkernel.kernels.row_problem import Objective, RowProblem, Solver

MULTIPLY_ADDS_PER_TASK = 4e7  # about a millisecond
MIN_RIDGE = 1e-10  # least λ c, relative to the mean diagonal of the Gram matrix: no system is singular
SUBSPACE_COORDINATES = 64  # coordinates per block of the subspace solver
CG_STEPS = 3  # steps of conjugate gradients per row and half of an epoch
EXPECTED_NEWTON_STEPS = 20  # steps of Newton's method per row, to estimate its work
GRAM_ROWS_PER_TASK = 2**11  # rows of Y per task of :func:`gram`


class Penalty(NamedTuple):
    """The penalties of a row; its scale multiplies each.

    Attributes
    ----------
    reg, bias_reg
        λ of ½ λ‖x‖² and λ_b of ½ λ_b b².
    l1
        λ₁ of λ₁‖x‖₁; it does not apply to the bias.
    nonnegative
        whether x ≥ 0; the bias may be negative.
    """

    reg: float
    bias_reg: float = 0.0
    l1: float = 0.0
    nonnegative: bool = False


class Implicit(NamedTuple):
    r"""The weights of implicit feedback.

    A stored entry of strength r is a 1, or for r < 0 a 0, with the weight 1 + α\|r\|. Any other cell is a 0
    with the weight w₀. All weights may be divided by a common unit; then ``observed_weight`` is one over it.

    Attributes
    ----------
    alpha, unobserved, observed
        α, w₀, and the 1 of 1 + α\|r\|.
    """

    alpha: float = 1.0
    unobserved_weight: float = 1.0
    observed_weight: float = 1.0


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
    squares: NDArray[np.float64] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Find the factors x and the bias b of each row that minimize its objective.

    .. math::
        \sum_n w_n \ell(r_n, \text{base}_i + b + x \cdot y_i) + c \left[ \tfrac{\lambda}{2} \lVert x \rVert^2
        + \tfrac{\lambda_b}{2} b^2 + \lambda_1 \lVert x \rVert_1 \right]

    Rows do not depend on one another, so the result is the same, bit by bit, on any number of threads. A row
    is not interrupted.

    Parameters
    ----------
    indptr, indices, values
        (s + 1,) int64, (nnz,), (nnz,) CSR matrix of the ratings: finite values, and 0 or 1 if the loss is
        logistic.
    Y
        (n_items, k) factors of the other side, float32 or float64.
    base
        (n_items,) score of each item at x = 0 and b = 0: mean and bias of the other side. Default: zeros.
    scale
        (s,) c of each row.
    penalty
        λ, λ_b, λ₁ and whether x ≥ 0.
    engine
        runs the rows, in tasks of equal work.
    weights
        (nnz,) weight of each rating. Default: 1.
    biased
        whether rows have a bias b.
    loss
        ``"squared"``: ½ e². ``"absolute"``: \|e\|, smoothed to √(e² + ε²) with ε a millionth of the mean
        \|e\|. ``"huber"``: ½ e² up to \|e\| = δ, linear beyond. ``"logistic"``: the cross-entropy of σ(z).
    huber_delta
        δ, positive.
    implicit
        weights of implicit feedback, if the values are its strengths. The loss is then
        ½ (1 + α\|r\|) (t - x·y)² for stored entries, where t is 1, or 0 for r < 0, and ½ w₀ (x·y)² for all
        other items.
    squares
        (K, K) YᵀY with padding, from :func:`gram`. Default: computed, if it is needed.

    Returns
    -------
    X, bias
        (s, k), (s,) of Y's dtype, computed in float64. They are zero for rows without ratings of positive
        weight; biases are zero unless ``biased``. If λ = 0 leaves more than one solution, X is the one of
        least norm, up to rounding: each step takes a λ of at least 1e-10 times the mean diagonal of the Gram
        matrix.
    """
    from mfkernel.kernels.row_problem import RowProblem

    k, dtype = Y.shape[1], np.dtype(np.float64)
    if implicit is not None and squares is None:
        squares = gram(pad_rows(Y), engine, dtype)
    if indices.size < len(Y):  # only these rows of Y may need padding
        used, places = np.unique(indices, return_inverse=True)
        indices = places.astype(indices.dtype)  # for which the kernel is compiled
        Y, base = Y[used], None if base is None else base[used]
    rows = pad_rows(Y)
    X, bias = np.zeros((indptr.size - 1, k), Y.dtype), np.zeros(indptr.size - 1, Y.dtype)
    problem = RowProblem(
        readonly(indptr),
        readonly(indices),
        readonly(values),
        None if weights is None else readonly(weights),
        readonly(rows),
        None if base is None else readonly(np.ascontiguousarray(base, dtype)),
        readonly(np.ascontiguousarray(scale, dtype)),
        None if implicit is None or squares is None else readonly(implicit.unobserved_weight * squares),
    )
    objective = make_objective(k, penalty, biased, loss, huber_delta, implicit, MIN_RIDGE)
    solve_all_rows(problem, objective, make_solver("cholesky", k), X, bias if biased else None, engine)
    return X, bias


def make_objective(
    k: int,
    penalty: Penalty,
    biased: bool,
    loss: str = "squared",
    huber_delta: float = 1.0,
    implicit: Implicit | None = None,
    min_ridge: float = 0.0,
    bias_unit: float = 1.0,
) -> "Objective":
    """Return the objective in the form that kernels take.

    Arguments as for :func:`solve_rows`. The steps of conjugate gradients depend on the unit of biases.
    ``bias_unit``, the square root of the standard deviation of the ratings, is the typical size of a factor.
    """
    from mfkernel.kernels.losses import ABSOLUTE, HUBER, IMPLICIT, LOGISTIC, SQUARED
    from mfkernel.kernels.row_problem import Objective

    weights = implicit or Implicit()
    kinds = {"squared": SQUARED, "absolute": ABSOLUTE, "huber": HUBER, "logistic": LOGISTIC}
    return Objective(
        k,
        kinds[loss] if implicit is None else IMPLICIT,
        float(huber_delta),
        biased,
        float(penalty.reg),
        float(penalty.bias_reg),
        float(penalty.l1),
        bool(penalty.nonnegative),
        min_ridge,
        float(weights.alpha),
        float(weights.unobserved_weight),
        float(weights.observed_weight),
        float(bias_unit),
    )


def make_solver(name: str, k: int) -> "Solver":
    """Return the settings of ``"cholesky"``, ``"cg"`` or ``"subspace"`` for rank k."""
    from mfkernel.kernels.row_problem import Solver

    rank = padded_rank(k)
    if name == "cg":
        return Solver(rank, CG_STEPS, True)
    if name == "subspace":
        return Solver(min(SUBSPACE_COORDINATES, rank), 0, True)
    return Solver(rank, 0, False)


def solve_all_rows(
    problem: "RowProblem",
    objective: "Objective",
    solver: "Solver",
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    engine: ThreadEngine,
    measure: bool = False,
) -> tuple[NDArray[np.bool_], float]:
    """Solve all rows in place; return which were singular, and the loss if ``measure``."""
    failed = np.zeros(len(X), np.bool_)
    kernel = _kernel(objective, solver)

    def solve(span: tuple[int, int], cancelled: Callable[[], bool]) -> float:
        return kernel(*span, problem, objective, solver, X, bias, failed, measure)

    per_rating, per_row = multiply_adds(solver, objective.k + objective.biased, problem.gram is not None)
    n_steps = 1 if _is_squared(objective) else EXPECTED_NEWTON_STEPS
    spans = balanced_spans(problem.indptr, per_rating, per_row, n_steps)
    return failed, sum(engine.run(solve, [Task(span) for span in spans]))


def compile_solver(
    problem: "RowProblem",
    objective: "Objective",
    solver: "Solver",
    X: NDArray[Any],
    bias: NDArray[Any] | None,
    measure: bool,
) -> None:
    """Compile the kernel of :func:`solve_all_rows` by a call for no rows."""
    failed = np.zeros(len(X), np.bool_)
    _kernel(objective, solver)(0, 0, problem, objective, solver, X, bias, failed, measure)


def _kernel(objective: "Objective", solver: "Solver") -> Callable[..., float]:
    if solver.cg_steps:
        from mfkernel.kernels.cg import cg_span

        return cg_span
    if _is_squared(objective):
        from mfkernel.kernels.exact import solve_span

        return solve_span
    from mfkernel.kernels.newton import newton_span

    return newton_span


def _is_squared(objective: "Objective") -> bool:
    from mfkernel.kernels.losses import IMPLICIT, SQUARED

    return objective.loss in (SQUARED, IMPLICIT)


def multiply_adds(solver: "Solver", m: int, all_cells: bool) -> tuple[float, float]:
    """Return the least multiply-adds per rating and per row to solve for m coordinates.

    ``all_cells`` says whether the equations have a Gram matrix of all items.
    """
    gram_product = m * m if all_cells else 0
    if solver.cg_steps:  # scores and their sums, at the start and in each step
        return (solver.cg_steps + 1) * 2 * m, (solver.cg_steps + 1) * gram_product
    block = min(solver.block_size, m)
    scores = 2 * m if solver.warm_start else 0
    return m * (block + 1) / 2 + scores, m * block**2 / 6 + gram_product


def balanced_spans(
    indptr: NDArray[np.int64], per_rating: float, per_row: float, n_steps: int
) -> list[tuple[int, int]]:
    """Cut rows into spans of nearly equal work.

    ``per_rating`` and ``per_row`` are multiply-adds per step.
    """
    work = n_steps * (np.diff(indptr) * (per_rating + 100.0) + per_row + 1000)  # 100, 1000: overheads
    done = np.cumsum(work)
    n_cuts = int(done[-1] / MULTIPLY_ADDS_PER_TASK) if done.size else 0
    cuts = np.searchsorted(done, done[-1:] / (n_cuts + 1) * np.arange(1, n_cuts + 1))
    bounds = np.unique(np.concatenate([[0], cuts, [work.size]])).tolist()
    return list(pairwise(bounds))


def gram(Y: NDArray[Any], engine: ThreadEngine, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return YᵀY of padded rows Y.

    It is summed in ``dtype`` per task, and in float64 over the tasks. The result is the same, bit by bit, on
    any number of threads.
    """
    from mfkernel.kernels.normal import gram_span

    K = Y.shape[1]

    def part(rows: tuple[int, int], cancelled: Callable[[], bool]) -> NDArray[Any]:
        return gram_span(*rows, readonly(Y), dtype.type(1))

    total = np.zeros((K, K))
    for upper in engine.run(part, row_tasks(len(Y), GRAM_ROWS_PER_TASK)):
        total += upper
    upper = np.triu(total)
    result: NDArray[np.float64] = upper + np.triu(upper, 1).T
    return result
