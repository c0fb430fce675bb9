"""The normal equations of a row, and Gram matrices of many rows."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels import ROW_MULTIPLE
from mfkernel.kernels.gram_tiles import (
    LANES,
    TILE_COLUMNS,
    TILE_ROWS,
    VECTOR_COLUMNS,
    add_rows,
    add_tile,
    round_up,
    scale_row,
)
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import weight
from mfkernel.kernels.row_problem import (
    ROWS_PER_GRAM_UPDATE,
    Objective,
    RowProblem,
    Workspace,
    flush_partial_sum,
    loss_derivatives,
    next_four_items,
    squared_norm,
)


@jit
def normal_equations(
    u: int,
    first: int,
    last: int,
    biased: bool,
    problem: RowProblem,
    objective: Objective,
    epsilon: float,
    work: Workspace,
) -> None:
    """Fill ``work.G`` for a step of the coordinates ``first:last``.

    If ``biased``, the step has the bias as well. The matrix is the upper triangle; the right-hand side is the
    column after it, and ``work.rhs``.
    """
    A, G, x, rhs, bias_column = work.A, work.G, work.x, work.rhs, work.bias_column
    K, width = problem.Y.shape[1], last - first
    m = width + (1 if biased else 0)
    G[:] = 0
    rhs[:] = 0
    bias_column[:] = 0
    one = problem.scale.dtype.type(1)
    g, h = 0.0, 0.0
    for start in range(problem.indptr[u], problem.indptr[u + 1], ROWS_PER_GRAM_UPDATE):
        stop = min(start + ROWS_PER_GRAM_UPDATE, problem.indptr[u + 1])
        gather_ratings(u, start, stop, first, width, problem, objective, epsilon, work)
        flush_partial_sum(work.rhs_partial, rhs)
        if objective.biased:
            flush_partial_sum(work.bias_column_partial, bias_column)
        if biased:
            for n in range(stop - start):
                g += work.g[n]
                h += work.h[n]
        add_upper_triangle(G, A, stop - start, width, one)
    reg, bias_reg = objective.reg * problem.scale[u], objective.bias_reg * problem.scale[u]
    trace = 0.0
    for f in range(width):
        trace += float(G[f, f])
    for f in range(width):
        G[f, f] += max(reg, objective.min_ridge * trace / width)
        rhs[f] -= reg * x[first + f]
    add_gram_block(problem.gram, first, width, x, rhs, G)
    for f in range(max(0, objective.k - first), width):  # padding: its equation is 1 · s = 0
        G[f, f] = 1
        rhs[f] = 0
    if biased:
        for f in range(width):
            G[f, width] = bias_column[f]
        G[width, width] = h + max(bias_reg, objective.min_ridge * h)
        rhs[width] = g - bias_reg * x[K]
    for f in range(m):
        G[f, m] = rhs[f]


@inlined
def gather_ratings(
    u: int,
    start: int,
    stop: int,
    first: int,
    width: int,
    problem: RowProblem,
    objective: Objective,
    epsilon: float,
    work: Workspace,
) -> None:
    """Write ratings ``start:stop`` to ``work.A``, and add them to the partial sums."""
    A, Y = work.A, problem.Y
    one = problem.scale.dtype.type(1)
    g, h = work.g, work.h
    for n in range(start, stop):
        z, w = work.z[n - problem.indptr[u]], float(weight(problem.weights, n, 1.0))
        gradient, curvature = loss_derivatives(objective, float(problem.values[n]), float(z), epsilon)
        g[n - start], h[n - start] = w * gradient, w * curvature
        scale_row(A, n - start, Y, problem.indices[n], first, width, one * math.sqrt(h[n - start]))
    for n in range(stop - start, min(round_up(stop - start, 4), ROWS_PER_GRAM_UPDATE)):
        g[n] = h[n] = 0
    for n in range(0, stop - start, 4):  # four ratings per step, so that the sums are stored less often
        items = next_four_items(problem.indices, start + n, stop - 1)
        add_rows(work.rhs_partial, Y, items, first, width, (g[n], g[n + 1], g[n + 2], g[n + 3]))
        if objective.biased:
            factors = h[n], h[n + 1], h[n + 2], h[n + 3]
            add_rows(work.bias_column_partial, Y, items, first, width, factors)
    if width < A.shape[1]:
        A[: stop - start, width:] = 0


@inlined
def add_gram_block(
    gram: NDArray[Any] | None, first: int, width: int, x: NDArray[Any], rhs: NDArray[Any], G: NDArray[Any]
) -> None:
    """Add a diagonal block of w₀ YᵀY to G; subtract its rows times x from ``rhs``."""
    if gram is not None:
        starts_at_zero = squared_norm(x) == 0
        for f in range(width):
            source, target, total = gram[first + f], G[f], G.dtype.type(0)
            if not starts_at_zero:
                for c in range(gram.shape[1] // ROW_MULTIPLE * ROW_MULTIPLE):
                    total += source[c] * x[c]
                rhs[f] -= total
            for c in range(width // ROW_MULTIPLE * ROW_MULTIPLE):
                target[c] += source[first + c]


@jit
def gram_span(first: int, last: int, Y: NDArray[Any], one: Any) -> NDArray[Any]:
    """Return the upper triangle of Σ y yᵀ over rows ``first:last`` of Y.

    It is summed in the type of ``one``.
    """
    K = Y.shape[1]
    columns = round_up(K, LANES)
    A, G = np.zeros((ROWS_PER_GRAM_UPDATE, columns), type(one)), np.zeros((columns, columns), type(one))
    for start in range(first, last, ROWS_PER_GRAM_UPDATE):
        n = min(ROWS_PER_GRAM_UPDATE, last - start)
        for i in range(n):
            scale_row(A, i, Y, start + i, 0, K, one)
        add_upper_triangle(G, A, n, K, one)
    return G[:K, :K]


@inlined
def add_upper_triangle(G: NDArray[Any], A: NDArray[Any], n: int, width: int, one: Any) -> None:
    """Add the upper triangle of A[:n].T @ A[:n] to G, in whole tiles."""
    columns = round_up(width, LANES)
    for a in range(0, width, len(TILE_ROWS)):
        b = a // LANES * LANES
        while b + len(TILE_COLUMNS) <= columns:
            add_tile(G, a, b, A, n, one, TILE_ROWS, TILE_COLUMNS)
            b += len(TILE_COLUMNS)
        if b < columns:
            add_tile(G, a, b, A, n, one, TILE_ROWS, VECTOR_COLUMNS)
