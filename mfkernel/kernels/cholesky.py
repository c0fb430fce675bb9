"""Cholesky factorization in place, four rows at a time, and back substitution."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import FOUR_ROWS, LANES, TILE_COLUMNS, VECTOR_COLUMNS, add_tile, round_up
from mfkernel.kernels.jit import inlined, jit

PIVOT_TOLERANCE = 30.0  # machine epsilons: pivots below this fraction of their diagonal count as zero


@jit
def cholesky(G: NDArray[Any], m: int, min_pivots: NDArray[Any]) -> bool:
    """Replace G[:m, :m] by its Cholesky factor U, and column m, g, by U⁻ᵀ g.

    UᵀU = G; only upper triangles are read and written.
    The diagonal of U is stored inverted, as 1 / U, or 0 where a pivot is not positive. The rows above update
    each group of four rows. Then its triangle is factored, and the rest of its rows is divided by it.

    Parameters
    ----------
    min_pivots
        (m,) overwritten by the pivots that count as zero.

    Returns
    -------
    bool
        whether G is positive definite.
    """
    minus, definite = G.dtype.type(-1), True
    columns, width = round_up(m + 1, LANES), len(TILE_COLUMNS)
    tiny = PIVOT_TOLERANCE * np.finfo(G.dtype).eps
    for i in range(m):
        min_pivots[i] = tiny * G[i, i]
    for a in range(0, m, len(FOUR_ROWS)):
        b = a // LANES * LANES
        if a > 0:
            while b + width <= columns:
                add_tile(G, a, b, G, a, minus, FOUR_ROWS, TILE_COLUMNS)
                b += width
            if b < columns:
                add_tile(G, a, b, G, a, minus, FOUR_ROWS, VECTOR_COLUMNS)
        if a + 4 > m:  # m is a multiple of four, or one more for the bias
            definite = factor_last_row(G, a, min_pivots) and definite
        else:
            definite = factor_four_rows(G, a, columns, min_pivots) and definite
    return definite


@inlined
def inverse_pivot(pivot: Any, min_pivot: Any) -> Any:
    """Return 1 / √pivot, or 0 if the pivot counts as zero."""
    return type(pivot)(1 / math.sqrt(pivot)) if pivot > min_pivot else type(pivot)(0)


@inlined
def factor_last_row(G: NDArray[Any], a: int, min_pivots: NDArray[Any]) -> bool:
    """Factor row a, which is the last; return whether its pivot is positive."""
    inverse = inverse_pivot(G[a, a], min_pivots[a])
    G[a, a + 1] *= inverse
    G[a, a] = inverse
    return bool(inverse > 0)


@inlined
def factor_four_rows(G: NDArray[Any], a: int, columns: int, min_pivots: NDArray[Any]) -> bool:
    """Factor rows a to a + 3; return whether all pivots are positive."""
    l0, l1, l2, l3 = G[a], G[a + 1], G[a + 2], G[a + 3]
    i0 = inverse_pivot(l0[a], min_pivots[a])
    c01, c02, c03 = i0 * l0[a + 1], i0 * l0[a + 2], i0 * l0[a + 3]
    i1 = inverse_pivot(l1[a + 1] - c01 * c01, min_pivots[a + 1])
    c12, c13 = i1 * (l1[a + 2] - c01 * c02), i1 * (l1[a + 3] - c01 * c03)
    i2 = inverse_pivot(l2[a + 2] - c02 * c02 - c12 * c12, min_pivots[a + 2])
    c23 = i2 * (l2[a + 3] - c02 * c03 - c12 * c13)
    i3 = inverse_pivot(l3[a + 3] - c03 * c03 - c13 * c13 - c23 * c23, min_pivots[a + 3])
    b = a // LANES * LANES
    for t in range((columns - b) // LANES * LANES):
        v0 = i0 * l0[b + t]
        v1 = i1 * (l1[b + t] - c01 * v0)
        v2 = i2 * (l2[b + t] - c02 * v0 - c12 * v1)
        v3 = i3 * (l3[b + t] - c03 * v0 - c13 * v1 - c23 * v2)
        l0[b + t], l1[b + t], l2[b + t], l3[b + t] = v0, v1, v2, v3
    l0[a], l1[a + 1], l2[a + 2], l3[a + 3] = i0, i1, i2, i3
    return bool(i0 > 0 and i1 > 0 and i2 > 0 and i3 > 0)


@jit
def back_substitute(U: NDArray[Any], m: int, x: NDArray[Any]) -> None:
    """Solve U x = g, with U and its column m, g, as :func:`cholesky` leaves them."""
    for c in range(m - 1, -1, -1):
        row, total = U[c], U.dtype.type(0)
        for t in range(c + 1, m):
            total += row[t] * x[t]
        x[c] = (row[m] - total) * row[c]
