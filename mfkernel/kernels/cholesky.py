"""Cholesky factorization in place, four rows at a time, and back substitution."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.gram_tiles import LANES, LINES, NARROW, PANEL, add_tile
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.row_problem import up

SINGULAR = 30.0  # times the rounding of a number: a pivot of a smaller part of its diagonal is nothing


@jit
def factorize(G: NDArray[Any], m: int, diagonal: NDArray[Any]) -> bool:
    """Replace the upper triangle of G[:m, :m] by U, where UᵀU = G; and column m, g, by U⁻ᵀ g.

    Four rows at a time: what the rows above leave of them, the triangle on the diagonal, and by its means the
    rest of the rows. On the diagonal of U stands 1 / U instead, or 0 where nothing is left; then the answer
    is False. ``diagonal``, (m,), is overwritten.
    """
    minus, definite = G.dtype.type(-1), True
    columns, width = LANES * up(m + 1, LANES), len(PANEL)
    tiny = SINGULAR * np.finfo(G.dtype).eps
    for i in range(m):
        diagonal[i] = tiny * G[i, i]
    for a in range(0, m, len(LINES)):
        b = a // LANES * LANES
        if a > 0:
            while b + width <= columns:
                add_tile(G, a, b, G, a, minus, LINES, PANEL)
                b += width
            if b < columns:
                add_tile(G, a, b, G, a, minus, LINES, NARROW)
        if a + 4 > m:  # no more than one row, of the bias
            definite = divide_line(G, a, diagonal) and definite
        else:
            definite = divide(G, a, columns, diagonal) and definite
    return definite


@inlined
def inverse_root(pivot: Any, least: Any) -> Any:
    """Return 1 / √pivot, or 0 of what is not more than rounding leaves of nothing."""
    return type(pivot)(1 / math.sqrt(pivot)) if pivot > least else type(pivot)(0)


@inlined
def divide_line(G: NDArray[Any], a: int, diagonal: NDArray[Any]) -> bool:
    """Divide the last row, of one coordinate, by its pivot."""
    inverse = inverse_root(G[a, a], diagonal[a])
    G[a, a + 1] *= inverse
    G[a, a] = inverse
    return bool(inverse > 0)


@inlined
def divide(G: NDArray[Any], a: int, columns: int, diagonal: NDArray[Any]) -> bool:
    """Eliminate rows a to a + 3 from each other."""
    l0, l1, l2, l3 = G[a], G[a + 1], G[a + 2], G[a + 3]
    i0 = inverse_root(l0[a], diagonal[a])
    c01, c02, c03 = i0 * l0[a + 1], i0 * l0[a + 2], i0 * l0[a + 3]
    i1 = inverse_root(l1[a + 1] - c01 * c01, diagonal[a + 1])
    c12, c13 = i1 * (l1[a + 2] - c01 * c02), i1 * (l1[a + 3] - c01 * c03)
    i2 = inverse_root(l2[a + 2] - c02 * c02 - c12 * c12, diagonal[a + 2])
    c23 = i2 * (l2[a + 3] - c02 * c03 - c12 * c13)
    i3 = inverse_root(l3[a + 3] - c03 * c03 - c13 * c13 - c23 * c23, diagonal[a + 3])
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
    """Solve U x = g, with U and g, its column m, as :func:`factorize` leaves them."""
    for c in range(m - 1, -1, -1):
        line, total = U[c], U.dtype.type(0)
        for t in range(c + 1, m):
            total += line[t] * x[t]
        x[c] = (line[m] - total) * line[c]
