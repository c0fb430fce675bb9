"""Arithmetic on a row of P and a row of Q, as straight-line code on vectors.

Each function here is one or two lines of NumPy, which run when the JIT is off. If the compiler knows the
rank, they become straight-line code on vectors of 64 bytes. LLVM alone would unroll a known rank to scalar
code. For an unknown rank, it neither keeps the rows in registers nor drops the loop. That costs a third of
the speed up to k = 64. Rows longer than 192 are left to LLVM's own vectoriser.

The *type* of the argument ``token`` tells the compiler the rank: it is a tuple with one item per eight
coordinates (:func:`rank_token`). So kernels are written once, and compiled for each short rank in use. LLVM
splits a vector of 64 bytes into the registers of the processor: one of AVX-512, two of AVX, four of SSE or
NEON.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from mfkernel.kernels import ROW_MULTIPLE
from mfkernel.kernels.jit import FASTMATH, INLINED

MAX_UNROLLED_RANK = 192  # coordinates: for longer rows, LLVM's loop is as fast
VECTOR_BITS = 512
LIVE_VECTORS = 3  # vectors of p, and as many of q, in registers at a time: 12 of the 16 registers of AVX
CACHE_LINE_BYTES = 64

LLVM_FLAGS = tuple(sorted(FASTMATH))
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)

RankToken = tuple[int, ...]


def rank_token(k: int) -> RankToken:
    """Return the tuple whose length tells the compiler a padded rank; () for a loop."""
    return (0,) * (k // ROW_MULTIPLE) if k <= MAX_UNROLLED_RANK else ()


def dot(P: NDArray[Any], u: int, Q: NDArray[Any], i: int, token: RankToken) -> Any:
    """Return p·q of the rows p = P[u] and q = Q[i]."""
    return (P[u] * Q[i]).sum()


def step(
    P: NDArray[Any], u: int, Q: NDArray[Any], i: int, a: Any, b: Any, c: Any, d: Any, token: RankToken
) -> None:
    """Set p ← a p + b q, and then q ← c q + d p."""
    P[u] = a * P[u] + b * Q[i]
    Q[i] = c * Q[i] + d * P[u]


def prefetch(X: NDArray[Any], u: int, token: RankToken) -> None:
    """Prefetch the row X[u] into the nearest cache, for writing."""


@overload(dot, jit_options=INLINED)
def _compile_dot(P: Any, u: Any, Q: Any, i: Any, token: Any) -> Any:
    def unrolled(P: Any, u: Any, Q: Any, i: Any, token: Any) -> Any:
        return _dot(P, u, Q, i, token)

    def loop(P: Any, u: Any, Q: Any, i: Any, token: Any) -> Any:
        k = P.shape[1] // 8 * 8  # LLVM sees a multiple of 8 and drops the remainder loop
        p, q, total = P[u], Q[i], P.dtype.type(0)
        for f in range(k):
            total += p[f] * q[f]
        return total

    return unrolled if len(token) else loop


@overload(step, jit_options=INLINED)
def _compile_step(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, token: Any) -> Any:
    def unrolled(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, token: Any) -> None:
        _step(P, u, Q, i, a, b, c, d, token)

    def loop(P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, token: Any) -> None:
        k = P.shape[1] // 8 * 8
        p, q = P[u], Q[i]
        for f in range(k):  # two plain statements: with a temporary, LLVM's code is half as fast
            p[f] = a * p[f] + b * q[f]
            q[f] = c * q[f] + d * p[f]

    return unrolled if len(token) else loop


@overload(prefetch, jit_options=INLINED)
def _compile_prefetch(X: Any, u: Any, token: Any) -> Any:
    def fetch(X: Any, u: Any, token: Any) -> None:
        _prefetch(X, u, token)

    return fetch


@intrinsic
def _dot(typing: Any, P: Any, u: Any, Q: Any, i: Any, token: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p, q = (_Row(context, builder, signature, arguments, n) for n in (0, 2))
        sums: dict[tuple[int, int], Any] = {}
        for n, (start, width) in enumerate(_pieces(P, token)):
            product = builder.fmul(p.load(start, width), q.load(start, width), flags=LLVM_FLAGS)
            which = width, n % 4  # four sums, as each addition waits for the one before it
            sums[which] = builder.fadd(sums[which], product, flags=LLVM_FLAGS) if which in sums else product
        total = ir.Constant(p.number, 0.0)
        for width in sorted({width for width, _ in sums}):
            vector, *others = (value for key, value in sums.items() if key[0] == width)
            for other in others:
                vector = builder.fadd(vector, other, flags=LLVM_FLAGS)
            add_up = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(p.number, [p.number, vector.type]),
                f"llvm.vector.reduce.fadd.v{width}f{P.dtype.bitwidth}",
            )
            total = builder.call(add_up, [total, vector], fastmath=LLVM_FLAGS)
        return total

    return P.dtype(P, u, Q, i, token), generate


@intrinsic
def _step(typing: Any, P: Any, u: Any, Q: Any, i: Any, a: Any, b: Any, c: Any, d: Any, token: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p, q = (_Row(context, builder, signature, arguments, n) for n in (0, 2))

        def combine(s: Any, x: Any, t: Any, y: Any) -> Any:
            terms = (
                builder.fmul(splat(builder, n, x.type), v, flags=LLVM_FLAGS) for n, v in ((s, x), (t, y))
            )
            return builder.fadd(*terms, flags=LLVM_FLAGS)

        # LLVM must assume that a store changes later loads. So a few vectors are loaded before any is stored.
        # A row of no more vectors is still in registers from the dot product.
        pieces = _pieces(P, token)
        for first in range(0, len(pieces), LIVE_VECTORS):
            group = pieces[first : first + LIVE_VECTORS]
            loaded = [(start, p.load(start, width), q.load(start, width)) for start, width in group]
            for start, x, y in loaded:
                new = combine(arguments[4], x, arguments[5], y)
                p.store(start, new)
                q.store(start, combine(arguments[6], y, arguments[7], new))
        return context.get_dummy_value()

    return types.void(P, u, Q, i, a, b, c, d, token), generate


@intrinsic
def _prefetch(typing: Any, X: Any, u: Any, token: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row = _Row(context, builder, signature, arguments, 0)
        pointer = ir.IntType(8).as_pointer()
        fetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32]),
            "llvm.prefetch.p0",
        )
        start, line = builder.bitcast(row.start, pointer), ir.Constant(_INT64, CACHE_LINE_BYTES)
        size = builder.mul(row.length, ir.Constant(_INT64, X.dtype.bitwidth // 8))
        for_write, keep, data = (ir.Constant(_INT32, n) for n in (1, 3, 1))
        with cgutils.for_range_slice(builder, ir.Constant(_INT64, 0), size, line, _INT64) as (offset, _):
            builder.call(fetch, [builder.gep(start, [offset]), for_write, keep, data])
        return context.get_dummy_value()

    return types.void(X, u, token), generate


class _Row:
    """Row ``arguments[n + 1]`` of ``arguments[n]``, a C-contiguous array."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, n: int) -> None:
        array, token, row = signature.args[n], signature.args[-1], arguments[n + 1]
        if row.type.width < _INT64.width:
            row = (builder.sext if signature.args[n + 1].signed else builder.zext)(row, _INT64)
        X = context.make_array(array)(context, builder, arguments[n])
        known = len(token) * ROW_MULTIPLE
        self.length = ir.Constant(_INT64, known) if known else builder.extract_value(X.shape, 1)
        self.start = builder.gep(X.data, [builder.mul(row, self.length)])
        self.number = context.get_value_type(array.dtype)
        self._builder = builder
        self._align = array.dtype.bitwidth // 8  # arrays promise no more, and aligned rows lose nothing by it

    def load(self, start: int, width: int) -> Any:
        vector = self._builder.load(self._pointer(start, ir.VectorType(self.number, width)))
        vector.align = self._align
        return vector

    def store(self, start: int, vector: Any) -> None:
        self._builder.store(vector, self._pointer(start, vector.type)).align = self._align

    def _pointer(self, start: int, vector: Any) -> Any:
        pointer = self._builder.gep(self.start, [ir.Constant(_INT64, start)])
        return self._builder.bitcast(pointer, vector.as_pointer())


def _pieces(P: Any, token: Any) -> list[tuple[int, int]]:
    """Cut a row into full vectors, and perhaps one of eight numbers: (start, width)."""
    k, full = len(token) * ROW_MULTIPLE, VECTOR_BITS // P.dtype.bitwidth
    return [(start, min(full, k - start)) for start in range(0, k, full)]


def splat(builder: Any, number: Any, vector: Any) -> Any:
    """Return a vector that repeats a number in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)
