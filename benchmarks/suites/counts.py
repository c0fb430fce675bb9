"""Counts, which do not jitter: signatures, instructions, allocations, and bytes of arrays."""

import re
import tempfile
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import data, private, probes
from benchmarks.suites.base import COUNT, PACKED_FMA, RANKS, Case, Suite, run_in_new_process, run_once
from benchmarks.suites.sgd import epoch

HOLDERS = ("ratings", "blocks", "model", "file of a model")
FMA_PATTERN = re.compile(r"\s(vfn?m\w+ps\s.*[yz]mm|fml[as]\s+v\d+\.4s)")  # of x86-64 and of 64-bit ARM
CONVERSION_PATTERN = re.compile(r"\s(v?cvt\w+|fcvt\w*|[su]cvtf)\s")


def signatures() -> Case:
    """Build how often something is compiled for fits of every kind and of both dtypes at one rank."""
    code = (
        "import sys, numpy as np, mfkernel as mf\n"
        "from benchmarks.suites.base import SCHEDULES\n"
        "R = mf.datasets.synthetic(60, 50, 900)\n"
        "for dtype in (np.float32, np.float64):\n"
        "    for schedule in SCHEDULES:\n"
        "        for decay in ('cosine', 'adaptive'):\n"
        "            options = {'epochs': 1, 'schedule': schedule, 'decay': decay, 'dtype': dtype}\n"
        "            mf.factorize((R.users, R.items, R.values), 32, **options)\n"
        "modules = [module for name, module in sys.modules.items() if name.split('.')[0] == 'mfkernel']\n"
        "named = {id(x): x for module in modules for x in vars(module).values() if hasattr(x, 'py_func')}\n"
        "print(sum(len(x.signatures) for x in named.values()))"
    )

    def figure() -> int:
        with tempfile.TemporaryDirectory() as empty:  # a kernel from the disk cache hides what it calls
            return int(run_in_new_process(code, NUMBA_CACHE_DIR=empty))

    return figure


def assembly(k: int, adaptive: bool = False) -> list[str]:
    """Return the lines of code that are generated for the walk over tiles of float32 rows of length k.

    It is compiled for the processor that ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` name, else for this
    one, and not run.
    """
    P, Q = np.zeros((2, 3, k), np.float32)
    ids, first = np.zeros(2, np.uint16), np.zeros(1, np.int64)
    tiles = private.Tiles(np.array([0, 2]), first, first, ids, ids, np.ones(2, np.float32))
    users, items = np.ones((2, 3, 2), np.float32)
    state = private.Adaptive(users, items, np.float32(1)) if adaptive else None
    token, numbers = private.rank_token(k), (np.float32(0.1),) * 3
    try:
        update: tuple[Any, ...] = private.FactorRows(P, Q, token), private.Rates(*numbers)
    except ImportError:  # an earlier commit
        update = (private.Model(P, Q, *numbers, token),)
    return probes.assembly(private.sgd_tiles, np.zeros(1, np.int64), 1, 9, tiles, *update, state)


def instructions(pattern: re.Pattern[str], k: str) -> Case:
    """Build the number of instructions of a kind in the walk over tiles."""
    return lambda: sum(bool(pattern.search(line)) for line in assembly(int(k)))


def allocations(configuration: str) -> Case:
    """Build how many arrays the kernels allocate in an epoch."""
    return partial(probes.allocations, epoch(configuration, "ml-100k-like", "32"))


def held_bytes(holder: str) -> Case:
    """Build the bytes of the arrays that an object holds, or of a file."""
    R = data.generated("ml-100k-like")
    schedule, engine = private.BlockSchedule, private.ThreadEngine(1)
    triplets = R.users.copy(), R.items.copy(), R.values.copy()
    model = mf.factorize(R, 32, epochs=1, rng=0)

    def saved() -> int:
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.npz")
            return (Path(folder) / "model.npz").stat().st_size

    makers: dict[str, Case] = {
        "ratings": lambda: array_bytes(lambda: mf.Ratings(triplets)),
        "blocks": lambda: array_bytes(lambda: schedule(R, k=32, shuffle=True, seed=0, engine=engine)),
        "model": lambda: array_bytes(lambda: mf.factorize(R, 32, epochs=1, rng=0)),
        "file of a model": saved,
    }
    return run_once(makers[holder])


def array_bytes(make: Case) -> int:
    """Return the bytes of NumPy's arrays that are alive because of an object."""
    make()
    tracemalloc.start()
    try:
        made = make()
        arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
        del made
        return sum(trace.size for trace in traces)
    finally:
        tracemalloc.stop()


SUITES = {
    "signatures": Suite(COUNT, {}, signatures),
    "packed FMA": Suite(PACKED_FMA, {"k": RANKS}, partial(instructions, FMA_PATTERN)),
    "conversions": Suite(COUNT, {"k": RANKS}, partial(instructions, CONVERSION_PATTERN)),
    "allocations": Suite(COUNT, {"configuration": ("sequential", "blocks")}, allocations),
    "bytes": Suite(COUNT, {"of": HOLDERS}, held_bytes),
}
