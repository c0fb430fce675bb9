"""Limits of this machine's arithmetic and caches; seconds and memory of a call."""

import ctypes
import gc
import os
import platform
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.runtime import _nrt_python, rtsys
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import private
from benchmarks.private import jit

LANES = 16  # float32 numbers in the widest vectors
CHAINS = 12  # of multiply-adds at once, as each waits for the one before it
NEAREST = 2**14  # bytes copied within the first-level cache, which holds source and target
RATING = 12  # bytes
PAGE = 1024  # numbers
KIB = 1024


def machine() -> str:
    """Say what figures are measured on."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (
        model := re.search(r"model name\s*:\s*(.*)", info.read_text())
    ):
        cpu = model[1]
    return (
        f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Numba {numba.__version__}, mfkernel {mf.__version__}."
    )


def clock(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, in alternation, so that a change of the machine's speed hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(clock(run))
    return {name: statistics.median(times) for name, times in seconds.items()}


# Memory

EPOCHS = 8  # of a fit whose memory is measured: more take no more, of fewer validation warns


def peak_of(run: Callable[[], object]) -> float:
    """Return the MiB of Python objects and NumPy arrays that a call adds at its peak to those held before it.

    The resident set would depend on which freed memory the allocator happens to hold. Arrays that compiled
    code makes for itself, a few KiB per thread, are not counted. The result is the median of three calls.
    """
    peaks = []
    for _ in range(3):
        gc.collect()
        tracemalloc.start()
        try:
            run()
            peaks.append(tracemalloc.get_traced_memory()[1] / KIB**2)
        finally:
            tracemalloc.stop()
    return statistics.median(peaks)


def reset_peak() -> float | None:
    """Begin to watch for a new peak of the resident set; return the MiB held now, or None if unknown."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # or the next call takes first what is freed but still held
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return peak()


def peak() -> float:
    """Return the MiB that were resident at the peak since it was reset."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / KIB for line in status.splitlines() if line.startswith("VmHWM"))


# Compiled code


def assembly(kernel: Any, *arguments: Any) -> list[str]:
    """Return the lines of code that are generated for a call of a kernel, whose other arguments are left out.

    The kernel is compiled again, as code that comes from the disk cache has no assembly, and not run.
    """
    compiled = numba.njit(**private.COMPILE_OPTIONS)(kernel.py_func)
    n_left_out = kernel.py_func.__code__.co_argcount - len(arguments)
    left_out = [types.Omitted(default) for default in kernel.py_func.__defaults__[-n_left_out:]]
    compiled.compile((*map(numba.typeof, arguments), *left_out))
    (text,) = compiled.inspect_asm().values()
    lines: list[str] = text.splitlines()
    return lines


def allocations(run: Callable[[], object]) -> int:
    """Return how many arrays compiled code allocates in a call."""
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats().alloc
    run()
    return int(rtsys.get_allocation_stats().alloc - before)


# An update of one rating at rank k takes, in any order of the ratings, at least
#
# - 5k multiplications and fused multiply-adds: k for p·q, 2k each for the new p and q;
# - 8k bytes read and 8k written, of rows of P and Q, and 12 bytes of the rating itself.


def update_bytes(k: int) -> int:
    """Return the bytes that an update reads and writes, in float32."""
    return 16 * k + RATING


def limit_probes(*sizes: int) -> dict[str, tuple[Callable[[], None], int]]:
    """Return the probes of what a core does at most, by name, each with its work: numbers or bytes."""
    copies = {f"copy {size}": copy_probe(size) for size in (NEAREST, *sizes)}
    return {"arithmetic": arithmetic_probe(), **copies}


def update_limit(k: int, rates: dict[str, float]) -> float:
    """Return the most updates of rank k that a core does in a second, from the probes' work in a second."""
    return min(rates["arithmetic"] / (5 * k), rates[f"copy {NEAREST}"] / update_bytes(k))


@cache
def copy_probe(size: int) -> tuple[Callable[[], None], int]:
    """Return what copies ``size`` bytes in all, read and written, often enough to be timed; and the bytes."""
    # whole cache lines, half a page apart: a store to an address that ends as that of a later load delays it
    count = -(-size // 8 // LANES) * LANES
    buffer = np.ones(2 * count + 2 * PAGE, np.float32)
    first = -buffer.ctypes.data % (4 * LANES) // 4
    second = first + count + (PAGE // 2 - count) % PAGE
    source, target = buffer[first : first + count], buffer[second : second + count]
    times = max(1, 2**26 // size)

    def run() -> None:
        copies(source, target, times)

    run()
    return run, times * 4 * source.nbytes


@cache
def arithmetic_probe() -> tuple[Callable[[], None], int]:
    """Return what multiplies and adds in registers only, and how many numbers it does so with."""
    times = 100_000

    def run() -> None:
        multiply_adds(np.float32(0.5), times)

    run()
    return run, times * CHAINS * LANES


@jit
def copies(source: NDArray[np.float32], target: NDArray[np.float32], times: int) -> None:
    """Copy there and back."""
    for _ in range(times):
        for n in range(source.size):
            target[n] = source[n]
        for n in range(source.size):
            source[n] = target[n]


@jit
def multiply_adds(x: np.float32, times: int) -> float:
    """Replace x by x² - x, again and again, in many registers at once."""
    return float(_multiply_adds(x, times))


@extending.intrinsic
def _multiply_adds(typing: Any, x: Any, times: Any) -> Any:
    """Generate independent chains of multiply-adds of whole vectors; LLVM would choose narrower ones."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), LANES)
        start = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            start = builder.insert_element(start, arguments[0], ir.Constant(ir.IntType(32), lane))
        chains = [cgutils.alloca_once_value(builder, start) for _ in range(CHAINS)]
        with cgutils.for_range(builder, arguments[1]):
            for chain in chains:
                value = builder.load(chain)
                square = builder.fmul(value, value, flags=("contract",))
                builder.store(builder.fsub(square, start, flags=("contract",)), chain)
        total = builder.load(chains[0])
        for chain in chains[1:]:
            total = builder.fadd(total, builder.load(chain))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(x, times), generate
