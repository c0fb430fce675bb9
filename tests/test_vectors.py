"""The code that is generated for a row of each rank: right, and made of vector instructions."""

import functools
import json
import os
import platform
import re

import numpy as np
import pytest

from mfkernel.kernels.jit import jit
from mfkernel.kernels.vectors import MAX_UNROLLED_RANK, dot, prefetch, rank_token, step
from mfkernel.linalg.rows import aligned_rows, padded_rank
from tests.helpers import COMPILED, quick
from tests.processes import output_of

pytestmark = pytest.mark.kernel

RANKS = [1, 8, 16, 24, 32, 40, 56, 64, 96, 104, 128, 192, 200, 256, 512]


@jit
def dot_and_step(P, Q, u, i, a, b, c, d, vectors):
    prefetch(P, u, vectors)
    result = dot(P, u, Q, i, vectors)
    step(P, u, Q, i, a, b, c, d, vectors)
    return result


def test_vectors__are_as_many_as_a_padded_row_has_and_none_for_long_rows():
    assert padded_rank(1) == padded_rank(8) == 8
    assert [len(rank_token(k)) for k in (8, 24, 512)] == [1, 3, 0]
    assert len(rank_token(MAX_UNROLLED_RANK)) == MAX_UNROLLED_RANK // 8
    assert rank_token(MAX_UNROLLED_RANK + 8) == ()


@pytest.mark.parametrize("number", quick([np.int32, np.int64, np.uint16], np.uint16))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", quick(RANKS, 24, 200))
def test_dot_and_step__do_what_their_python_says(k, dtype, number):
    rng = np.random.default_rng(k)
    P, Q = aligned_rows(3, k, np.dtype(dtype)), aligned_rows(4, k, np.dtype(dtype))
    P[:], Q[:] = rng.normal(size=P.shape), rng.normal(size=Q.shape)
    P_ref, Q_ref = P.astype(np.float64), Q.astype(np.float64)
    a, b, c, d = (dtype(x) for x in (0.9, 0.2, 0.8, -0.3))
    result = dot_and_step(P, Q, number(2), number(1), a, b, c, d, rank_token(P.shape[1]))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12}
    assert type(result) is (dtype if os.environ.get("NUMBA_DISABLE_JIT") == "1" else float)
    np.testing.assert_allclose(result, P_ref[2] @ Q_ref[1], **tolerance)
    P_ref[2] = 0.9 * P_ref[2] + 0.2 * Q_ref[1]
    Q_ref[1] = 0.8 * Q_ref[1] - 0.3 * P_ref[2]
    np.testing.assert_allclose(P, P_ref, **tolerance)
    np.testing.assert_allclose(Q, Q_ref, **tolerance)


# of each kind the second unrolls loops over short rows
PROCESSORS = {"haswell": "AVX2", "znver3": "AVX2", "skylake-avx512": "AVX-512", "sapphirerapids": "AVX-512"}
FEW, MORE = (8,), (16, 24, 32, 48, 64, 128, 192, 256)  # ranks
COMPILE = """
import json
from benchmarks.suites.counts import assembly
print(json.dumps([[k, adaptive, assembly(k, adaptive)] for k in {ranks} for adaptive in (False, True)]))
"""


@functools.cache
def compiled_for(processor, ranks):
    """Return the code of the walk over tiles by rank and kind, for a processor that need not be this one."""
    environment = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "", "NUMBA_BOUNDSCHECK": "0"}
    answers = json.loads(output_of(COMPILE.format(ranks=ranks), **environment))
    return {(k, adaptive): lines for k, adaptive, lines in answers}


def innermost_loops(lines):
    """Return the lines' numbers from the target of a backward jump to the jump, where no other is inside."""
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if re.match(r"\.?\w+:", line)}
    jumps = [(n, re.fullmatch(r"\s+j\w+\s+(\.\w+)", line)) for n, line in enumerate(lines)]
    loops = [(labels[jump[1]], n) for n, jump in jumps if jump and labels[jump[1]] < n]
    inside = {
        outer for outer in loops for a, b in loops if outer != (a, b) and outer[0] <= a and b <= outer[1]
    }
    return [range(a, b + 1) for a, b in loops if (a, b) not in inside]


@COMPILED
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for processors of x86-64")
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("processor", "k"),
    [
        pytest.param(name, k, marks=() if k in FEW and name == "znver3" else pytest.mark.slow)
        for name in PROCESSORS
        for k in (*FEW, *MORE)
    ],
)
@pytest.mark.slow
def test_assembly__hot_loop_is_packed_fma_without_float64(processor, k, adaptive):
    """The hot loop is an innermost one: the loop around it adds the sum of 64 ratings to a float64.

    Where the hot loop takes two ratings at a time, an odd one stands in the loop around it, too.
    """
    lines = compiled_for(processor, FEW if k in FEW else MORE)[k, adaptive]
    packed = {n for n, line in enumerate(lines) if re.search(r"vfn?m\w+ps\s.*[yz]mm", line)}
    hot_loops = [loop for loop in innermost_loops(lines) if packed.intersection(loop)]
    assert hot_loops
    for loop in hot_loops:
        hot = [lines[n] for n in loop]
        assert not [line for line in hot if re.search(r"\bv?cvt\w+|\bcall|sd\s+.*%xmm", line)]
        if (
            k <= MAX_UNROLLED_RANK
        ):  # the loop over the ratings itself: rows are read and written whole, not bit by bit
            wide = PROCESSORS[processor] == "AVX-512" and k >= 16
            n_vectors = -(-k // (16 if wide else 8))
            assert len(packed.intersection(loop)) >= 3 * n_vectors - 2
            assert ("zmm" if wide else "ymm") in "".join(hot)
            scalar = [line for line in hot if re.search(r"\bv(mul|add|fm\w+)ss\b", line)]
            assert len(scalar) <= (60 if adaptive else 12)


@COMPILED
@pytest.mark.slow
def test_kernels__are_right_on_a_processor_without_avx():
    """The widest vectors are split into SSE registers, and there is no FMA."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("switches features of x86-64 off")
    code = (
        "import mfkernel as mf, numpy as np\n"
        "R = mf.datasets.synthetic(300, 200, 6000, rng=1)\n"
        "for k in (8, 24, 200): print(repr(mf.factorize(R, k, rng=0, n_threads=2, dtype=np.float64).rmse(R)))"
    )
    with_avx, without = (
        [float(line) for line in output_of(code, **features).split()]
        for features in ({}, {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"})
    )
    np.testing.assert_allclose(with_avx, without, rtol=1e-6)
