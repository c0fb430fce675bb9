"""Exact solution of rows of one side of the factorization, given the other side."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.convert import frozen
from mfkernel.engine import Task, ThreadEngine

WORK = 2e7  # multiplications of a task, about 2 ms


class Penalty(NamedTuple):
    """What holds the solution of a row down, as much for each of its ratings.

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


def solve_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    Y: NDArray[Any],
    base: NDArray[Any],
    penalty: Penalty,
    engine: ThreadEngine,
    *,
    weights: NDArray[Any] | None = None,
    biased: bool = False,
    loss: str = "squared",
    huber_delta: float = 1.0,
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Find the factors x and the bias b of each row that minimize its objective exactly.

    .. math::
        \sum_n w_n \left[ \ell(r_n, \text{base}_i + b + x \cdot y_i) + \tfrac{\lambda}{2} \lVert x \rVert^2
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
        (n_items,) what is predicted without the row: the mean and the bias of the other side, or zeros.
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

    Returns
    -------
    X, bias
        (s, k), (s,) of Y's dtype, computed in float64. Zeros where a row has no ratings, or none with weight,
        and as biases if there are none. Where λ = 0 leaves more than one solution, that of least norm but for
        rounding: no step is computed with a λ below 1e-10 times the mean square of the coordinates of Y.
    """
    from mfkernel.kernels import ridge

    kinds = {
        "squared": ridge.SQUARED,
        "absolute": ridge.ABSOLUTE,
        "huber": ridge.HUBER,
        "logistic": ridge.LOGISTIC,
    }
    Y = np.ascontiguousarray(Y)
    k = Y.shape[1]
    X, bias = np.zeros((indptr.size - 1, k), Y.dtype), np.zeros(indptr.size - 1, Y.dtype)
    known = ridge.Known(
        frozen(indptr),
        frozen(indices),
        frozen(values),
        None if weights is None else frozen(weights),
        frozen(Y),
        frozen(np.ascontiguousarray(base, np.float64)),
    )
    objective = ridge.Objective(
        kinds[loss],
        float(huber_delta),
        biased,
        float(penalty.reg),
        float(penalty.bias_reg),
        float(penalty.l1),
        bool(penalty.nonnegative),
    )

    def solve(span: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        ridge.solve_span(*span, known, objective, X, bias)

    engine.run(solve, [Task(span) for span in spans(indptr, k + biased, 1 if loss == "squared" else 20)])
    return X, bias


def spans(indptr: NDArray[np.int64], m: int, passes: int) -> list[tuple[int, int]]:
    """Cut rows into spans of nearly equal work: a Gram matrix of the ratings and its Cholesky factor each."""
    work = passes * (np.diff(indptr) * (m * m / 2 + m) + m**3 / 6 + 10 * m + 100)
    done = np.cumsum(work)
    n_cuts = int(done[-1] / WORK) if done.size else 0
    cuts = np.searchsorted(done, done[-1:] / (n_cuts + 1) * np.arange(1, n_cuts + 1))
    bounds = np.unique(np.concatenate([[0], cuts, [work.size]])).tolist()
    return list(pairwise(bounds))
