"""Arithmetic on many rows at a time: tiles of a product Aᵀ A, and combinations of four rows.

Each function here is one or two lines of NumPy, which run when the JIT is off. Compiled, they become loops
over vectors that keep their sums in registers. LLVM's own vectoriser would store the product of each row, and
check before every loop whether rows overlap. That costs three times as much as the work.

A tile is as large as the registers of the processor allow. Its numbers do not depend on its size, as each is
a sum over the rows of A in order.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from mfkernel.kernels import ROW_MULTIPLE
from mfkernel.kernels.jit import INLINED, inlined
from mfkernel.kernels.vectors import LLVM_FLAGS, VECTOR_BITS, splat

LANES = VECTOR_BITS // 32  # float32 numbers per vector; columns are padded to a multiple of it
# AVX-512 has 32 registers of 64 bytes: other processors hold smaller tiles
_HAS_AVX512 = binding.get_host_cpu_features().get("avx512f", False)
# Shapes of tiles, as tuples whose length the compiler knows.
FOUR_ROWS = (0,) * 4
TILE_ROWS = FOUR_ROWS * 2 if _HAS_AVX512 else FOUR_ROWS
VECTOR_COLUMNS = (0,) * LANES
TILE_COLUMNS = VECTOR_COLUMNS * 2 if _HAS_AVX512 else VECTOR_COLUMNS

_INDEX = ir.IntType(64)

Shape = tuple[int, ...]
Four = tuple[Any, Any, Any, Any]


def add_tile(
    G: NDArray[Any], a: int, b: int, A: NDArray[Any], n: int, sign: Any, rows: Shape, columns: Shape
) -> None:
    """Add ``sign * A[:n, a:a+r].T @ A[:n, b:b+c]`` to ``G[a:a+r, b:b+c]``.

    r and c are the lengths of the tuples ``rows`` and ``columns``; c is a multiple of 16. G and A are
    C-contiguous.
    """
    r, c = len(rows), len(columns)
    G[a : a + r, b : b + c] += sign * (A[:n, a : a + r].T @ A[:n, b : b + c])


def scale_row(A: NDArray[Any], n: int, Y: NDArray[Any], i: int, first: int, width: int, factor: Any) -> None:
    """Set ``A[n, :width]`` to ``factor * Y[i, first:first+width]``.

    width is a multiple of 8.
    """
    A[n, :width] = factor * Y[i, first : first + width]


def add_rows(out: NDArray[Any], Y: NDArray[Any], rows: Four, first: int, width: int, factors: Four) -> None:
    """Add four rows of ``Y[:, first:first+width]``, times factors, to ``out[:width]``.

    width is a multiple of 8.
    """
    for i, factor in zip(rows, factors, strict=True):
        out[:width] += factor * Y[i, first : first + width]


def dot_rows(v: NDArray[Any], Y: NDArray[Any], rows: Four, first: int, width: int) -> Four:
    """Return the products of ``v[:width]`` and four rows of ``Y[:, first:first+width]``.

    width is a multiple of 8.
    """
    a, b, c, d = (v.dtype.type(Y[i, first : first + width] @ v[:width]) for i in rows)
    return a, b, c, d


@inlined
def round_up(n: int, multiple: int) -> int:
    """Return the least multiple that is not below n."""
    return (n + multiple - 1) // multiple * multiple


@overload(add_tile, jit_options=INLINED)
def _compile_add_tile(G: Any, a: Any, b: Any, A: Any, n: Any, sign: Any, rows: Any, columns: Any) -> Any:
    def add(G: Any, a: Any, b: Any, A: Any, n: Any, sign: Any, rows: Any, columns: Any) -> None:
        _add_tile(G, a, b, A, n, sign, rows, columns)

    return add


@overload(scale_row, jit_options=INLINED)
def _compile_scale_row(A: Any, n: Any, Y: Any, i: Any, first: Any, width: Any, factor: Any) -> Any:
    def scale(A: Any, n: Any, Y: Any, i: Any, first: Any, width: Any, factor: Any) -> None:
        _scale_row(A, n, Y, i, first, width, factor)

    return scale


@overload(add_rows, jit_options=INLINED)
def _compile_add_rows(out: Any, Y: Any, rows: Any, first: Any, width: Any, factors: Any) -> Any:
    def add(out: Any, Y: Any, rows: Any, first: Any, width: Any, factors: Any) -> None:
        _add_rows(out, Y, rows, first, width, factors)

    return add


@overload(dot_rows, jit_options=INLINED)
def _compile_dot_rows(v: Any, Y: Any, rows: Any, first: Any, width: Any) -> Any:
    def products(v: Any, Y: Any, rows: Any, first: Any, width: Any) -> Any:
        return _dot_rows(v, Y, rows, first, width)

    return products


@intrinsic
def _add_tile(typing: Any, G: Any, a: Any, b: Any, A: Any, n: Any, sign: Any, rows: Any, columns: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (_Matrix(context, builder, signature, arguments, at) for at in (0, 3))
        lanes = VECTOR_BITS // A.dtype.bitwidth
        _, first_row, first_column, _, count, sign, _, _ = arguments
        pieces = [builder.add(first_column, _INDEX(start)) for start in range(0, len(columns), lanes)]
        vector = ir.VectorType(source.number, lanes)
        zero = ir.Constant(vector, None)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(len(rows) * len(pieces))]
        for pointer in sums:
            builder.store(zero, pointer)  # here, or a second call would start with the old sums
        with cgutils.for_range(builder, count) as loop:
            row = source.row(loop.index)
            right = [source.load(row, piece, lanes) for piece in pieces]
            for r in range(len(rows)):
                number = source.load(row, builder.add(first_row, _INDEX(r)))
                left = splat(builder, number, vector)
                for v, value in enumerate(right):
                    _accumulate(builder, sums[r * len(pieces) + v], left, value)
        factor = splat(builder, sign, vector)
        for r in range(len(rows)):
            row = target.row(builder.add(first_row, _INDEX(r)))
            for v, piece in enumerate(pieces):
                product = builder.fmul(factor, builder.load(sums[r * len(pieces) + v]), flags=LLVM_FLAGS)
                old = target.load(row, piece, lanes)
                target.store(row, piece, builder.fadd(old, product, flags=LLVM_FLAGS))
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(G, int64, int64, A, int64, A.dtype, rows, columns), generate


@intrinsic
def _scale_row(typing: Any, A: Any, n: Any, Y: Any, i: Any, first: Any, width: Any, factor: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (_Matrix(context, builder, signature, arguments, at) for at in (0, 2))
        target_row, source_row = target.row(arguments[1]), source.row(arguments[3])

        def scale(at: Any, lanes: int) -> None:
            y = source.load(source_row, builder.add(arguments[4], at), lanes, target.number)
            target.store(
                target_row, at, builder.fmul(splat(builder, arguments[6], y.type), y, flags=LLVM_FLAGS)
            )

        _for_vectors(builder, arguments[5], A.dtype, scale)
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(A, int64, Y, int64, int64, int64, A.dtype), generate


@intrinsic
def _add_rows(typing: Any, out: Any, Y: Any, rows: Any, first: Any, width: Any, factors: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (_Matrix(context, builder, signature, arguments, at) for at in (0, 1))
        source_rows = [source.row(i) for i in cgutils.unpack_tuple(builder, arguments[2], 4)]
        numbers = cgutils.unpack_tuple(builder, arguments[5], 4)

        def add(at: Any, lanes: int) -> None:
            total = target.load(target.data, at, lanes)
            for row, number in zip(source_rows, numbers, strict=True):
                y = source.load(row, builder.add(arguments[3], at), lanes, target.number)
                product = builder.fmul(splat(builder, number, y.type), y, flags=LLVM_FLAGS)
                total = builder.fadd(total, product, flags=LLVM_FLAGS)
            target.store(target.data, at, total)

        _for_vectors(builder, arguments[4], out.dtype, add)
        return context.get_dummy_value()

    int64 = types.int64
    four = types.UniTuple(int64, 4), types.UniTuple(out.dtype, 4)
    return types.void(out, Y, four[0], int64, int64, four[1]), generate


@intrinsic
def _dot_rows(typing: Any, v: Any, Y: Any, rows: Any, first: Any, width: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, source = (_Matrix(context, builder, signature, arguments, at) for at in (0, 1))
        source_rows = [source.row(i) for i in cgutils.unpack_tuple(builder, arguments[2], 4)]
        full = ir.VectorType(given.number, VECTOR_BITS // v.dtype.bitwidth)
        sums: dict[int, list[Any]] = {}
        for lanes in {full.count, ROW_MULTIPLE}:
            zero = ir.Constant(ir.VectorType(given.number, lanes), None)
            sums[lanes] = [cgutils.alloca_once_value(builder, zero) for _ in source_rows]
            for pointer in sums[lanes]:
                builder.store(zero, pointer)

        def multiply(at: Any, lanes: int) -> None:
            x = given.load(given.data, at, lanes)
            for row, pointer in zip(source_rows, sums[lanes], strict=True):
                y = source.load(row, builder.add(arguments[3], at), lanes, given.number)
                _accumulate(builder, pointer, x, y)

        _for_vectors(builder, arguments[4], v.dtype, multiply)
        totals = []
        for n in range(4):
            total = ir.Constant(given.number, 0.0)
            for lanes, pointers in sums.items():
                add_up = cgutils.get_or_insert_function(
                    builder.module,
                    ir.FunctionType(given.number, [given.number, ir.VectorType(given.number, lanes)]),
                    f"llvm.vector.reduce.fadd.v{lanes}f{v.dtype.bitwidth}",
                )
                total = builder.call(add_up, [total, builder.load(pointers[n])], fastmath=LLVM_FLAGS)
            totals.append(total)
        return cgutils.pack_array(builder, totals)

    int64 = types.int64
    four = types.UniTuple(v.dtype, 4)
    return four(v, Y, types.UniTuple(int64, 4), int64, int64), generate


class _Matrix:
    """The C-contiguous array ``arguments[n]``, in the code being generated."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, n: int) -> None:
        array = signature.args[n]
        X = context.make_array(array)(context, builder, arguments[n])
        self.data, self.number = X.data, context.get_value_type(array.dtype)
        self._stride = builder.extract_value(X.shape, array.ndim - 1)
        self._builder, self._align = builder, array.dtype.bitwidth // 8

    def row(self, i: Any) -> Any:
        """Return the address of row i."""
        return self._builder.gep(self.data, [self._builder.mul(i, self._stride)])

    def load(self, row: Any, at: Any, lanes: int = 0, number: Any = None) -> Any:
        """Load a number, or a vector of ``lanes``, from a row, as the type ``number``."""
        pointer = self._builder.gep(row, [at])
        if lanes:
            pointer = self._builder.bitcast(pointer, ir.VectorType(self.number, lanes).as_pointer())
        value = self._builder.load(pointer)
        value.align = self._align
        if number is not None and number != self.number:
            value = self._builder.fpext(value, ir.VectorType(number, lanes))
        return value

    def store(self, row: Any, at: Any, vector: Any) -> None:
        """Store a vector to a row."""
        pointer = self._builder.bitcast(self._builder.gep(row, [at]), vector.type.as_pointer())
        self._builder.store(vector, pointer).align = self._align


def _accumulate(builder: Any, pointer: Any, x: Any, y: Any) -> None:
    """Add x y to a sum that LLVM keeps in a register."""
    product = builder.fmul(x, y, flags=LLVM_FLAGS)
    builder.store(builder.fadd(builder.load(pointer), product, flags=LLVM_FLAGS), pointer)


def _for_vectors(builder: Any, width: Any, dtype: Any, body: Callable[[Any, int], None]) -> None:
    """Run ``body(start, lanes)`` for all full vectors, and a last one of eight numbers."""
    full = VECTOR_BITS // dtype.bitwidth
    whole = builder.and_(width, _INDEX(-full))
    with cgutils.for_range_slice(builder, _INDEX(0), whole, _INDEX(full), _INDEX) as (at, _):
        body(at, full)
    if full > ROW_MULTIPLE:
        with builder.if_then(builder.icmp_signed("<", whole, width)):
            body(whole, ROW_MULTIPLE)
