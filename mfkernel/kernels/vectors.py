"""Arithmetic on a row of P and a row of Q, as straight-line code on vectors.

Each function here is one or two lines of NumPy, which is what runs when the JIT is off. Compiled, it becomes
straight-line code on vectors of 64 bytes where the rank is known to the compiler. LLVM by itself would unroll
a known rank to scalar code; and of an unknown one it neither keeps the rows in registers nor drops the loop,
which costs a third of the speed up to k = 64. Rows longer than 192 are left to LLVM's own vectoriser.

The rank is made known by the *type* of the argument ``vectors``, a tuple as long as a row has eights
(:func:`vectors_of`), so that kernels are written once and compiled for each short rank that is used.
A vector of 64 bytes is split into what the processor has: one register of AVX-512, two of AVX, four of
SSE or NEON.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from mfkernel.kernels.jit import FASTMATH, INLINED

EIGHT = 8  # rows are padded to a multiple of it
LONGEST = 192  # coordinates of a row that is unrolled; beyond, LLVM's loop is as fast
VECTOR = 512  # bits
HELD = 3  # vectors of p, and as many of q, that are in registers at a time: 12 of 16 registers of AVX
CACHE_LINE = 64  # bytes

FLAGS = tuple(sorted(FASTMATH))
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)

Vectors = tuple[int, ...]


def vectors_of(k: int) -> Vectors:
    """Return the tuple whose length tells kernels a padded rank; empty for ranks that stay loops."""
    return (0,) * (k // EIGHT) if k <= LONGEST else ()


def dot(P: NDArray[Any], u: int, Q: NDArray[Any], i: int, vectors: Vectors) -> Any:
    """Return p·q of the rows p = P[u] and q = Q[i]."""
    return (P[u] * Q[i]).sum()


def step(
    P: NDArray[Any], u: int, Q: NDArray[Any], i: int, a: Any, b: Any, c: Any, d: Any, vectors: Vectors
) -> None:
    """Set p ← a p + b q, and then q ← c q + d p."""
    P[u] = a * P[u] + b * Q[i]
    Q[i] = c * Q[i] + d * P[u]


def prefetch(X: NDArray[Any], u: int, vectors: Vectors) -> None:
    """Ask for the row X[u] to be brought into the nearest cache, for writing."""


@overload(dot, jit_options=INLINED)
def _compile_dot(P: Any, u: Any, Q: Any, i: Any, vectors: Any) -> Any:
    def unrolled(P: Any, u: Any, Q: Any, i: Any, vectors: Any) -> Any:
        return _dot(P, u, Q, i, vectors)

    def loop(P: Any, u: Any, Q: Any, i: Any, vectors: Any) -> Any:
        k = P.shape[1] // 8 * 8  # a count that LLVM knows to be a multiple of 8: no remainder loop
        p, q, total = P[u], Q[i], P.dtype.type(0)
        for f in range(k):
            total += p[f] * q[f]
        return total

    return unrolled if len(vectors) else loop


@overload(step, jit_options=INLINED)
def _compile_step(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, vectors: Any) -> Any:
    def unrolled(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, vectors: Any) -> None:
        _step(P, u, Q, i, a, b, c, d, vectors)

    def loop(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, vectors: Any) -> None:
        k = P.shape[1] // 8 * 8
        p, q = P[u], Q[i]
        for f in range(k):  # two plain statements: with a temporary, LLVM's code is half as fast
            p[f] = a * p[f] + b * q[f]
            q[f] = c * q[f] + d * p[f]

    return unrolled if len(vectors) else loop


@overload(prefetch, jit_options=INLINED)
def _compile_prefetch(X: Any, u: Any, vectors: Any) -> Any:
    def ask(X: Any, u: Any, vectors: Any) -> None:
        _prefetch(X, u, vectors)

    return ask


@intrinsic
def _dot(typing: Any, P: Any, u: Any, Q: Any, i: Any, vectors: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p, q = (_Row(context, builder, signature, arguments, n) for n in (0, 2))
        sums: dict[tuple[int, int], Any] = {}
        for n, (start, width) in enumerate(_pieces(P, vectors)):
            product = builder.fmul(p.load(start, width), q.load(start, width), flags=FLAGS)
            which = width, n % 4  # several sums, as each addition waits for the one before it
            sums[which] = builder.fadd(sums[which], product, flags=FLAGS) if which in sums else product
        total = ir.Constant(p.number, 0.0)
        for width in sorted({width for width, _ in sums}):
            vector, *others = (value for key, value in sums.items() if key[0] == width)
            for other in others:
                vector = builder.fadd(vector, other, flags=FLAGS)
            add_up = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(p.number, [p.number, vector.type]),
                f"llvm.vector.reduce.fadd.v{width}f{P.dtype.bitwidth}",
            )
            total = builder.call(add_up, [total, vector], fastmath=FLAGS)
        return total

    return P.dtype(P, u, Q, i, vectors), generate


@intrinsic
def _step(typing: Any, P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, vectors: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p, q = (_Row(context, builder, signature, arguments, n) for n in (0, 2))

        def combine(s: Any, x: Any, t: Any, y: Any) -> Any:
            terms = (builder.fmul(splat(builder, n, x.type), v, flags=FLAGS) for n, v in ((s, x), (t, y)))
            return builder.fadd(*terms, flags=FLAGS)

        # LLVM must assume that a store may change what is loaded after it. So a few vectors are loaded before
        # they are stored; of a row that has no more, LLVM still has them from the dot product.
        pieces = _pieces(P, vectors)
        for first in range(0, len(pieces), HELD):
            group = pieces[first : first + HELD]
            loaded = [(start, p.load(start, width), q.load(start, width)) for start, width in group]
            for start, x, y in loaded:
                new = combine(arguments[4], x, arguments[5], y)
                p.store(start, new)
                q.store(start, combine(arguments[6], y, arguments[7], new))
        return context.get_dummy_value()

    return types.void(P, u, Q, i, a, b, c, d, vectors), generate


@intrinsic
def _prefetch(typing: Any, X: Any, u: Any, vectors: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = _Row(context, builder, signature, arguments, 0)
        pointer = ir.IntType(8).as_pointer()
        ask = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32]),
            "llvm.prefetch.p0",
        )
        start, line = builder.bitcast(row.start, pointer), ir.Constant(_INT64, CACHE_LINE)
        size = builder.mul(row.length, ir.Constant(_INT64, X.dtype.bitwidth // 8))
        for_write, keep, data = (ir.Constant(_INT32, n) for n in (1, 3, 1))
        with cgutils.for_range_slice(builder, ir.Constant(_INT64, 0), size, line, _INT64) as (offset, _):
            builder.call(ask, [builder.gep(start, [offset]), for_write, keep, data])
        return context.get_dummy_value()

    return types.void(X, u, vectors), generate


class _Row:
    """Row ``arguments[n + 1]`` of the C-contiguous array ``arguments[n]``, in the code being generated."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, n: int) -> None:
        array, vectors, row = signature.args[n], signature.args[-1], arguments[n + 1]
        if row.type.width < _INT64.width:
            row = (builder.sext if signature.args[n + 1].signed else builder.zext)(row, _INT64)
        X = context.make_array(array)(context, builder, arguments[n])
        known = len(vectors) * EIGHT
        self.length = ir.Constant(_INT64, known) if known else builder.extract_value(X.shape, 1)
        self.start = builder.gep(X.data, [builder.mul(row, self.length)])
        self.number = context.get_value_type(array.dtype)
        self._builder = builder
        self._align = array.dtype.bitwidth // 8  # all that an array promises; aligned rows lose nothing by it

    def load(self, start: int, width: int) -> Any:
        vector = self._builder.load(self._pointer(start, ir.VectorType(self.number, width)))
        vector.align = self._align
        return vector

    def store(self, start: int, vector: Any) -> None:
        self._builder.store(vector, self._pointer(start, vector.type)).align = self._align

    def _pointer(self, start: int, vector: Any) -> Any:
        place = self._builder.gep(self.start, [ir.Constant(_INT64, start)])
        return self._builder.bitcast(place, vector.as_pointer())


def _pieces(P: Any, vectors: Any) -> list[tuple[int, int]]:
    """Cut a row into vectors of full width, and perhaps one of eight numbers; as (start, width)."""
    k, full = len(vectors) * EIGHT, VECTOR // P.dtype.bitwidth
    return [(start, min(full, k - start)) for start in range(0, k, full)]


def splat(builder: Any, number: Any, vector: Any) -> Any:
    """Repeat a number in all places of a vector."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, zeros)
