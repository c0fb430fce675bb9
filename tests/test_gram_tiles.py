"""Arithmetic on many rows at a time, against NumPy."""

import re

import numpy as np
import pytest

from mfkernel.kernels import gram_tiles
from mfkernel.kernels.jit import jit
from mfkernel.linalg.rows import aligned_rows

pytestmark = pytest.mark.kernel

TOLERANCE = {np.float32: 1e-4, np.float64: 1e-12}


@jit
def tile(G, a, b, A, n, sign, rows, columns):
    gram_tiles.add_tile(G, a, b, A, n, sign, rows, columns)


@jit
def row(A, n, Y, i, first, width, factor):
    gram_tiles.scale_row(A, n, Y, i, first, width, factor)


@jit
def combination(out, Y, rows, first, width, factors):
    gram_tiles.add_rows(out, Y, rows, first, width, factors)


@jit
def products(v, Y, rows, first, width):
    return gram_tiles.dot_rows(v, Y, rows, first, width)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [gram_tiles.FOUR_ROWS, gram_tiles.TILE_ROWS])
@pytest.mark.parametrize("columns", [gram_tiles.VECTOR_COLUMNS, gram_tiles.TILE_COLUMNS])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_add_tile__adds_a_tile_and_nothing_else(dtype, rows, columns, n, rng):
    A, G = (rng.normal(size=shape).astype(dtype) for shape in ((6, 64), (40, 64)))
    before = G.copy()
    tile(G, 16, 32, A, n, dtype(-2), rows, columns)
    expected = before.copy()
    expected[16 : 16 + len(rows), 32 : 32 + len(columns)] -= 2 * (
        A[:n, 16 : 16 + len(rows)].T @ A[:n, 32 : 32 + len(columns)]
    )
    np.testing.assert_allclose(G, expected, atol=TOLERANCE[dtype])
    tile(G, 16, 32, A, n, dtype(2), rows, columns)  # a second call begins anew
    np.testing.assert_allclose(G, before, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("source", "target"), [("f4", "f4"), ("f8", "f8"), ("f4", "f8")])
@pytest.mark.parametrize("width", [8, 16, 24, 40])
@pytest.mark.parametrize("first", [0, 8])
def test_rows__are_scaled_combined_and_multiplied(source, target, width, first, rng):
    Y = aligned_rows(7, 48, np.dtype(source))
    Y[:] = rng.normal(size=Y.shape)
    part, number = Y[:, first : first + width].astype(target), np.dtype(target).type
    A = rng.normal(size=(3, 48)).astype(target)
    expected = A.copy()
    expected[1, :width] = number(1.5) * part[4]
    row(A, 1, Y, 4, first, width, number(1.5))
    np.testing.assert_allclose(A, expected, rtol=1e-6)

    out, rows, factors = A[0].copy(), (6, 0, 3, 3), tuple(number(x) for x in (1, -2, 0, 0.5))
    expected = out.copy()
    expected[:width] += sum(f * part[i] for i, f in zip(rows, factors, strict=True))
    combination(out, Y, rows, first, width, factors)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)

    found = products(A[0], Y, rows, first, width)
    assert all(np.dtype(type(x)) == target or isinstance(x, float) for x in found)
    np.testing.assert_allclose(found, [part[i] @ A[0, :width] for i in rows], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(tile, "inspect_asm"), reason="the JIT is off")
def test_add_tile__keeps_its_sums_in_registers():
    import numba

    from mfkernel.kernels.jit import OPTIONS

    code = numba.njit(**OPTIONS)(tile.py_func)
    A = np.zeros((6, 64), np.float32)
    code(
        np.zeros((40, 64), np.float32),
        0,
        0,
        A,
        6,
        np.float32(1),
        gram_tiles.TILE_ROWS,
        gram_tiles.TILE_COLUMNS,
    )
    (text,) = code.inspect_asm().values()
    multiplied = re.findall(r"vfmadd\w+ps|fmla\s", text)
    # each number of the tile is a sum that one instruction in the loop adds to, and nothing is stored there
    assert (
        len(multiplied) >= len(gram_tiles.TILE_ROWS) * len(gram_tiles.TILE_COLUMNS) // 16 or "fma" not in text
    )
    loops = re.split(r"\n\.L\w+:", text)
    hottest = max(loops, key=lambda part: len(re.findall(r"vfmadd\w+ps|fmla\s", part)))
    assert not re.search(r"\bvmov\w*ps\s+%[xyz]mm\d+, .*\(%r", hottest.split("\tj")[0])
