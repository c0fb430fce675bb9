"""Print how near each engine comes to what this machine can do: ``python -m benchmarks.roofline``.

An update of one rating at rank k takes, in any order of the ratings, at least

- 5k multiplications and fused multiply-adds: k for p·q, 2k each for the new p and q;
- 8k bytes read and 8k written, of rows of P and Q, and 12 bytes of the rating itself.

Two probes, run beside the engines, measure how many of either a core does in a second: multiply-adds
in registers, and a copy within the nearest cache. The limit is the smaller of the two; copies of the
size of a tile and of all of P and Q show what the rows cost that come from farther away.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

from benchmarks import cases
from benchmarks.compare import machine
from mfkernel._jit import jit
from mfkernel.blocks import COORDINATES

ENGINES = ("sequential", "hogwild, 2 threads", "blocks", "blocks, 2 threads")
RANKS = (8, 16, 32, 64, 128, 256)
LANES = 16  # float32 numbers in the widest vectors
CHAINS = 12  # of multiply-adds at once, as each waits for the one before it
NEAREST = 2**14  # bytes copied within the first-level cache, which holds source and target
RATING = 12  # bytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("--size", choices=cases.SIZES, default="ml-1m-like")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    R = cases.ratings(options.size)
    head = ("k", "limit", *(f"{engine}, share" for engine in ENGINES), "copies: nearest, tile, P and Q")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for k in RANKS:
        sizes = (NEAREST, 4 * COORDINATES, sum(R.shape) * k * 4)
        runs: dict[str, Callable[[], object]] = {engine: cases.ENGINES[engine](R, k) for engine in ENGINES}
        probes = {f"copy {size}": copy_probe(size) for size in sizes} | {"arithmetic": arithmetic_probe()}
        seconds = clock(runs | {name: run for name, (run, _) in probes.items()}, options.repeats)
        rates = {name: work / seconds[name] for name, (_, work) in probes.items()}
        bounds = [rates[f"copy {size}"] / (16 * k + RATING) for size in sizes]
        limit = min(rates["arithmetic"] / (5 * k), bounds[0])
        cells = [str(k), f"{limit / 1e6:.0f}"]
        for engine in ENGINES:
            rate, threads = R.nnz / seconds[engine], 2 if "2 threads" in engine else 1
            cells.append(f"{rate / 1e6:.0f}, {rate / (threads * limit):.0%}")
        print(f"| {' | '.join(cells)} | {', '.join(f'{bound / 1e6:.0f}' for bound in bounds)} |", flush=True)
    print(
        f"\nMillion ratings a second, {options.size}, float32, and the share of their cores' limit; "
        f"medians of {options.repeats} rounds in which engines and probes take turns. {machine()}"
    )


def clock(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def copy_probe(size: int) -> tuple[Callable[[], None], int]:
    """Return what copies ``size`` bytes in all, read and written, often enough to be timed; and the bytes."""
    source, target = (np.ones(max(1, size // 8), np.float32) for _ in range(2))
    times = max(1, 2**26 // size)

    def run() -> None:
        copies(source, target, times)

    run()
    return run, times * 4 * source.nbytes


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


if __name__ == "__main__":
    main()
