"""The normal equations of a row, and Gram matrices of many rows."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import LANES, NARROW, PANEL, ROWS, add_rows, add_tile, scale_row
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.row_problem import (
    CHUNK,
    Known,
    Objective,
    Work,
    four,
    move,
    pull_of,
    squares,
    up,
    weight,
)


@jit
def normal_equations(
    u: int,
    first: int,
    last: int,
    biased: bool,
    known: Known,
    objective: Objective,
    epsilon: float,
    work: Work,
) -> None:
    """Fill the upper triangle of ``work.G`` for a step of the coordinates ``first:last``, the bias last."""
    A, G, x, side, border = work.A, work.G, work.x, work.side, work.border
    K, width = known.Y.shape[1], last - first
    m = width + (1 if biased else 0)
    G[:] = 0
    side[:] = 0
    border[:] = 0
    one = known.scale.dtype.type(1)
    pull, curvature = 0.0, 0.0
    for start in range(known.indptr[u], known.indptr[u + 1], CHUNK):
        stop = min(start + CHUNK, known.indptr[u + 1])
        gather(u, start, stop, first, width, known, objective, epsilon, work)
        move(work.part, side)
        if objective.biased:
            move(work.border_part, border)
        if biased:
            for n in range(stop - start):
                pull += work.pulls[n]
                curvature += work.curvatures[n]
        add_upper(G, A, stop - start, width, one)
    reg, bias_reg = objective.reg * known.scale[u], objective.bias_reg * known.scale[u]
    trace = 0.0
    for f in range(width):
        trace += float(G[f, f])
    for f in range(width):
        G[f, f] += max(reg, objective.floor * trace / width)
        side[f] -= reg * x[first + f]
    add_gram(known.gram, first, width, x, side, G)
    for f in range(max(0, objective.k - first), width):  # padding
        G[f, f] = 1
        side[f] = 0
    if biased:
        for f in range(width):
            G[f, width] = border[f]
        G[width, width] = curvature + max(bias_reg, objective.floor * curvature)
        side[width] = pull - bias_reg * x[K]
    for f in range(m):
        G[f, m] = side[f]


@inlined
def gather(
    u: int,
    start: int,
    stop: int,
    first: int,
    width: int,
    known: Known,
    objective: Objective,
    epsilon: float,
    work: Work,
) -> None:
    """Make ratings ``start:stop`` the first lines of ``work.A``, and sum them up for the right side."""
    A, Y, side, border = work.A, known.Y, work.part, work.border_part
    one = known.scale.dtype.type(1)
    e, h = work.pulls, work.curvatures
    for n in range(start, stop):
        z, w = work.z[n - known.indptr[u]], weight(known.weights, n)
        pull, curvature = pull_of(objective, float(known.values[n]), float(z), epsilon)
        e[n - start], h[n - start] = w * pull, w * curvature
        scale_row(A, n - start, Y, known.indices[n], first, width, one * math.sqrt(h[n - start]))
    for n in range(stop - start, min(4 * up(stop - start, 4), CHUNK)):
        e[n] = h[n] = 0
    for n in range(0, stop - start, 4):  # four at a time, so that the sums are stored less often
        rows = four(known.indices, start + n, stop - 1)
        add_rows(side, Y, rows, first, width, (e[n], e[n + 1], e[n + 2], e[n + 3]))
        if objective.biased:
            add_rows(border, Y, rows, first, width, (h[n], h[n + 1], h[n + 2], h[n + 3]))
    if width < A.shape[1]:
        A[: stop - start, width:] = 0


@inlined
def add_gram(
    gram: NDArray[Any] | None, first: int, width: int, x: NDArray[Any], side: NDArray[Any], G: NDArray[Any]
) -> None:
    """Add the block of w₀ YᵀY from ``first`` to G, and subtract its lines times x from the right side."""
    if gram is not None:
        starts_at_zero = squares(x) == 0
        for f in range(width):
            line, target, total = gram[first + f], G[f], G.dtype.type(0)
            if not starts_at_zero:
                for c in range(gram.shape[1] // 8 * 8):
                    total += line[c] * x[c]
                side[f] -= total
            for c in range(width // 8 * 8):
                target[c] += line[first + c]


@jit
def gram_span(first: int, last: int, Y: NDArray[Any], one: Any) -> NDArray[Any]:
    """Return the upper triangle of the sum of y yᵀ over rows ``first:last`` of Y, in the type of ``one``."""
    K = Y.shape[1]
    columns = LANES * up(K, LANES)
    A, G = np.zeros((CHUNK, columns), type(one)), np.zeros((columns, columns), type(one))
    for start in range(first, last, CHUNK):
        n = min(CHUNK, last - start)
        for i in range(n):
            scale_row(A, i, Y, start + i, 0, K, one)
        add_upper(G, A, n, K, one)
    return G[:K, :K]


@inlined
def add_upper(G: NDArray[Any], A: NDArray[Any], n: int, width: int, one: Any) -> None:
    """Add the upper triangle of A[:n].T @ A[:n] to G, in whole tiles."""
    columns = LANES * up(width, LANES)
    for a in range(0, width, len(ROWS)):
        b = a // LANES * LANES
        while b + len(PANEL) <= columns:
            add_tile(G, a, b, A, n, one, ROWS, PANEL)
            b += len(PANEL)
        if b < columns:
            add_tile(G, a, b, A, n, one, ROWS, NARROW)
