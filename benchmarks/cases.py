"""The catalogue: everything that is measured, by names that stay the same over time.

asv, pytest-benchmark, the gate and the tables all take their cases from ``SUITES``; a new capability
adds its suite here and nowhere else. A builder gets a case's parameters, which are strings, does the set-up
and one untimed call, so that kernels are compiled, and returns a function without arguments: what is timed,
or what returns the figure. Builders take names that are not public from ``private``, and call them by
keyword, so that an older commit does not serve one wrongly.
"""

import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mfkernel as mf
from benchmarks import als, private, probes, questions, trainers
from benchmarks.generated import SIZES, Case, ratings, split, warm

SECONDS, MIB, RMSE, SCORE, COUNT = "seconds", "MiB", "RMSE", "score", "count"
MORE_IS_BETTER = {SCORE, "M ratings/s", "% of the limit", "packed FMA"}


class Suite(NamedTuple):
    """Cases that differ in their parameters.

    Attributes
    ----------
    unit
        ``SECONDS`` if the case is to be timed; else what the figure that it returns counts.
    parameters
        their names, each with the strings that it takes.
    build
        the builder.
    exists
        which combinations exist.
    peak
        whether asv also watches the peak of memory.
    version
        another one begins a new history: the cases mean something else.
    """

    unit: str
    parameters: dict[str, tuple[str, ...]]
    build: Callable[..., Case]
    exists: Callable[..., bool] = lambda *parameters: True
    peak: bool = False
    version: str = "1"

    def combinations(self) -> list[tuple[str, ...]]:
        """Return the parameters of each case."""
        return [p for p in itertools.product(*self.parameters.values()) if self.exists(*p)]


RANKS = ("8", "32", "128")
KERNEL_RANKS = ("8", "16", "32", "64", "128", "512")
SCHEDULES = ("sequential", "hogwild", "blocks")
SLOW_ENGINES = ("naive loop", "numpy reference")
MOST_INTERPRETED = 200_000  # ratings: an interpreted epoch of a million would take minutes
FIXED_RMSE = {"ml-100k-like": 0.91, "ml-1m-like": 0.86}  # held out; all reach it, after several epochs


# An epoch, by everything that can run one


def naive_loop(R: mf.Ratings, k: int) -> Case:
    """Build the textbook's program: a Python loop over every cell and factor."""
    rng = np.random.default_rng(0)
    dense = R.to_scipy().toarray().astype(np.float64)
    P, Q = rng.random((R.n_users, k)), rng.random((k, R.n_items))
    return lambda: private.textbook_program(dense, P, Q, alpha=1e-4, passes=1)


def numpy_reference(R: mf.Ratings, k: int) -> Case:
    """Build the reference: a Python loop over the ratings, NumPy over the factors."""
    rng = np.random.default_rng(0)
    P, Q = rng.random((R.n_users, k)), rng.random((R.n_items, k))
    arrays = (np.arange(R.n_users), R.indptr[:-1], R.indptr[1:], R.indices, R.values.astype(np.float64), P, Q)
    return lambda: private.sgd_span(*arrays, 1e-4, 0.05)


def compiled(R: mf.Ratings, k: int, schedule: str, n_threads: int = 1, decay: str = "constant") -> Case:
    """Build an epoch of the kernel, exactly as training runs it."""
    run, epochs = trainers.sgd_epoch(R, k, schedule, n_threads, decay), itertools.count(1)

    def epoch() -> None:
        run(next(epochs))

    epoch()
    return epoch


ENGINES: dict[str, Callable[[mf.Ratings, int], Case]] = {
    "naive loop": naive_loop,
    "numpy reference": numpy_reference,
    "sequential": partial(compiled, schedule="sequential"),
    "hogwild, 2 threads": partial(compiled, schedule="hogwild", n_threads=2),
    "blocks": partial(compiled, schedule="blocks"),
    "blocks, 2 threads": partial(compiled, schedule="blocks", n_threads=2),
}
COMPILED_ENGINES = tuple(engine for engine in ENGINES if engine not in SLOW_ENGINES)
KERNELS: dict[str, Callable[[mf.Ratings, int], Case]] = {
    "rows": partial(compiled, schedule="sequential"),
    "rows, adaptive": partial(compiled, schedule="sequential", decay="adaptive"),
    "tiles": partial(compiled, schedule="blocks"),
    "tiles, adaptive": partial(compiled, schedule="blocks", decay="adaptive"),
}


def epoch(engine: str, size: str, k: str) -> Case:
    """Build an epoch by an engine."""
    return ENGINES[engine](ratings(size), int(k))


def has_epoch(engine: str, size: str, k: str) -> bool:
    """Whether there is such a case of an epoch."""
    return is_fast_enough(engine, SIZES[size][2])


def is_fast_enough(engine: str, nnz: int) -> bool:
    """Whether an epoch of so many ratings takes seconds at most."""
    return engine not in SLOW_ENGINES or nnz <= MOST_INTERPRETED


def kernel(name: str, k: str, dtype: str) -> Case:
    """Build an epoch of one kernel on one thread."""
    return KERNELS[name](ratings("ml-100k-like", dtype), int(k))


# Before and after the epochs


def preparation(step: str, size: str) -> Case:
    """Build a step between what the user has and the first epoch."""
    R = ratings(size)
    block_schedule, row_schedule = private.BlockSchedule, private.RowSchedule
    engine = private.ThreadEngine(1)
    shuffled = np.random.default_rng(0).permutation(R.nnz)
    triplets = R.users[shuffled], R.items[shuffled], R.values[shuffled]
    matrix = R.to_scipy()
    steps: dict[str, Case] = {
        "ratings from triplets": lambda: mf.Ratings(triplets),
        "ratings from scipy": lambda: mf.Ratings(matrix),
        "transpose": lambda: mf.Ratings(R).T,
        "split": lambda: mf.train_test_split(R, 0.1, rng=0),
        "blocks": lambda: block_schedule(R, k=32, shuffle=True, seed=0, engine=engine),
        "bands": lambda: row_schedule(R, n_tasks=2, shuffle=True, seed=0),
    }
    return warm(steps[step])


PREPARATION = ("ratings from triplets", "ratings from scipy", "transpose", "split", "blocks", "bands")


def file(operation: str, size: str) -> Case:
    """Build the reading of ratings from a file, or the saving or loading of a model of rank 32."""
    from scipy import io, sparse

    path = Path(tempfile.mkdtemp())
    R = ratings(size)
    model = mf.factorize(R, 32, epochs=1, rng=0)
    if operation == "read csv":
        rows = zip(R.users.tolist(), R.items.tolist(), R.values.tolist(), strict=True)
        lines = ["user,item,rating", *(f"{user},{item},{rating:.1f}" for user, item, rating in rows)]
        (path / "ratings.csv").write_text("\n".join(lines), encoding="ascii")
    elif operation == "read matrix market":
        io.mmwrite(path / "ratings.mtx", sparse.coo_array(R.to_scipy()), precision=3)
    elif operation == "read npz":
        sparse.save_npz(path / "ratings.npz", R.to_scipy())
    else:
        model.save(path / "model.npz")
    operations: dict[str, Case] = {
        "read csv": lambda: mf.read_ratings(path / "ratings.csv"),
        "read matrix market": lambda: mf.read_ratings(path / "ratings.mtx"),
        "read npz": lambda: mf.read_ratings(path / "ratings.npz"),
        "save": lambda: model.save(path / "model.npz"),
        "load": lambda: mf.load(path / "model.npz"),
    }
    case = operations[operation]
    weakref.finalize(case, shutil.rmtree, path, ignore_errors=True)
    return warm(case)


FILES = ("read csv", "read matrix market", "read npz", "save", "load")
FIRST_CALL = "import mfkernel as mf; mf.factorize([[5, 3, 0], [4, 0, 1]], 2)"
FIRST_QUESTION = f"{FIRST_CALL[:-1]}, biases=True).recommend(0)"


def start(what: str) -> Case:
    """Build a fresh process."""
    if what == "import":
        return warm(lambda: fresh("import mfkernel"))
    if what == "first call, compiled before":
        return warm(lambda: fresh(FIRST_CALL))

    code = FIRST_CALL if what == "first call" else FIRST_QUESTION

    def cold() -> None:
        with tempfile.TemporaryDirectory() as empty:
            fresh(code, NUMBA_CACHE_DIR=empty)

    return cold


STARTS = ("import", "first call, compiled before", "first call", "first call with biases, and question")


# The whole, and how good it is


def fit(schedule: str, size: str) -> Case:
    """Build the plain call, from ratings to factors."""
    R = ratings(size)
    settings: dict[str, Any] = {"schedule": schedule}
    mf.factorize(R, 32, epochs=1, **settings)
    return lambda: mf.factorize(R, 32, rng=0, **settings)


def fit_memory(schedule: str, size: str) -> Case:
    """Build the peak of memory of a fit, beyond what is held before it."""
    run = partial(mf.factorize, ratings(size), 32, epochs=probes.EPOCHS, schedule=schedule, rng=0)
    return warm(partial(probes.peak_of, run))


def held_out_rmse(size: str, k: int, schedule: str, **settings: Any) -> float:
    """Return the test RMSE of the plain call, a tenth of the ratings held out."""
    train, test = split(size)
    settings |= {"schedule": schedule, "n_threads": 2 if schedule == "hogwild" else None}
    return mf.factorize(train, k, rng=0, **settings).rmse(test)


def error(schedule: str, size: str, k: str) -> Case:
    """Build the held-out RMSE after the epochs that are the default, so that faster but worse shows."""
    return partial(held_out_rmse, size, int(k), schedule)


def error_after(epochs: str, size: str, k: str) -> Case:
    """Build the held-out RMSE after as many epochs as are given."""
    return partial(held_out_rmse, size, int(k), "blocks", epochs=int(epochs))


def epochs_needed(schedule: str, size: str) -> Case:
    """Build the smallest number of epochs that reaches a fixed held-out RMSE at rank 32."""

    def figure() -> int:
        reached = (n for n in range(1, 61) if held_out_rmse(size, 32, schedule, epochs=n) <= FIXED_RMSE[size])
        return next(reached)

    return figure


def speed(engine: str, size: str, k: str) -> Case:
    """Build the throughput of the public call's fastest epoch, in ratings per second."""
    R = ratings(size)
    schedule, _, threads = engine.partition(", ")
    n_threads = 2 if threads else None if schedule == "sequential" else 1
    run = partial(mf.factorize, R, int(k), schedule=schedule, n_threads=n_threads, rng=0)
    run(epochs=1)

    def figure() -> float:
        fastest = math.inf
        for _ in range(5):
            time.sleep(0.05)  # or new threads may share a core with old ones
            fastest = min(fastest, *(epoch.seconds for epoch in run(epochs=20).history))
        return R.nnz / 1e6 / fastest

    return figure


def share_of_limit(engine: str, size: str, k: str) -> Case:
    """Build the share of what the arithmetic and nearest cache of the cores at work allow, in per cent."""
    reached = speed(engine, size, k)
    measured = probes.limit_probes()
    n_threads = 2 if "2 threads" in engine else 1

    def figure() -> float:
        seconds = probes.median_seconds({name: probe for name, (probe, _) in measured.items()}, 7)
        rates = {name: work / seconds[name] for name, (_, work) in measured.items()}
        return float(100e6 * reached() / (n_threads * probes.update_limit(int(k), rates)))

    return figure


# Counts, which do not jitter


def signatures() -> Case:
    """Build how often something is compiled for fits of every kind and of both dtypes at one rank."""
    code = (
        "import sys, numpy as np, mfkernel as mf, benchmarks.cases as cases\n"
        "R = mf.datasets.synthetic(60, 50, 900)\n"
        "for dtype in (np.float32, np.float64):\n"
        "    for schedule in cases.SCHEDULES:\n"
        "        for decay in ('cosine', 'adaptive'):\n"
        "            options = {'epochs': 1, 'schedule': schedule, 'decay': decay, 'dtype': dtype}\n"
        "            mf.factorize((R.users, R.items, R.values), 32, **options)\n"
        "modules = [module for name, module in sys.modules.items() if name.split('.')[0] == 'mfkernel']\n"
        "named = {id(x): x for module in modules for x in vars(module).values() if hasattr(x, 'py_func')}\n"
        "print(sum(len(x.signatures) for x in named.values()))"
    )

    def figure() -> int:
        with tempfile.TemporaryDirectory() as empty:  # what comes from the disk cache hides what it calls
            return int(fresh(code, NUMBA_CACHE_DIR=empty))

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


PACKED_FMA = re.compile(r"\s(vfn?m\w+ps\s.*[yz]mm|fml[as]\s+v\d+\.4s)")  # of x86-64 and of 64-bit ARM
CONVERSION = re.compile(r"\s(v?cvt\w+|fcvt\w*|[su]cvtf)\s")


def instructions(pattern: re.Pattern[str], k: str) -> Case:
    """Build the number of instructions of a kind in the walk over tiles."""
    return lambda: sum(bool(pattern.search(line)) for line in assembly(int(k)))


def allocations(engine: str) -> Case:
    """Build how many arrays the kernels allocate in an epoch."""
    return partial(probes.allocations, epoch(engine, "ml-100k-like", "32"))


def array_bytes(of: str) -> Case:
    """Build the bytes of the arrays that an object holds, or of a file."""
    R = ratings("ml-100k-like")
    schedule, engine = private.BlockSchedule, private.ThreadEngine(1)
    triplets = R.users.copy(), R.items.copy(), R.values.copy()
    model = mf.factorize(R, 32, epochs=1, rng=0)

    def saved() -> int:
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.npz")
            return (Path(folder) / "model.npz").stat().st_size

    makers: dict[str, Case] = {
        "ratings": lambda: _held(lambda: mf.Ratings(triplets)),
        "blocks": lambda: _held(lambda: schedule(R, k=32, shuffle=True, seed=0, engine=engine)),
        "model": lambda: _held(lambda: mf.factorize(R, 32, epochs=1, rng=0)),
        "file of a model": saved,
    }
    return warm(makers[of])


HOLDERS = ("ratings", "blocks", "model", "file of a model")


_SIZES, _DTYPES = tuple(SIZES), ("float32", "float64")
_SMALL = ("ml-100k-like",)

SUITES: dict[str, Suite] = {
    "epoch": Suite(SECONDS, {"engine": tuple(ENGINES), "size": _SIZES, "k": RANKS}, epoch, has_epoch),
    "kernel": Suite(SECONDS, {"kernel": tuple(KERNELS), "k": KERNEL_RANKS, "dtype": _DTYPES}, kernel),
    "preparation": Suite(SECONDS, {"step": PREPARATION, "size": _SIZES}, preparation),
    "prediction": Suite(SECONDS, {"call": questions.PREDICTION, "size": _SIZES}, questions.prediction),
    "question": Suite(SECONDS, {"call": questions.QUESTIONS, "size": _SIZES}, questions.question),
    "search": Suite(SECONDS, {"what": questions.SEARCHES}, questions.search),
    "file": Suite(SECONDS, {"operation": FILES, "size": _SMALL}, file),
    "start": Suite(SECONDS, {"what": STARTS}, start),
    "fit": Suite(SECONDS, {"schedule": SCHEDULES, "size": _SIZES}, fit, peak=True),
    "fit memory": Suite(MIB, {"schedule": SCHEDULES, "size": _SIZES}, fit_memory, version="3"),
    "error": Suite(RMSE, {"schedule": SCHEDULES, "size": _SIZES, "k": RANKS}, error),
    "error after epochs": Suite(RMSE, {"epochs": ("1", "5", "15"), "size": _SIZES, "k": RANKS}, error_after),
    "fit with": Suite(SECONDS, {"option": tuple(questions.OPTIONS), "size": _SIZES}, questions.fit_with),
    "error with": Suite(
        RMSE,
        {"option": tuple(questions.OPTIONS), "size": _SIZES, "k": RANKS},
        questions.error_with,
        questions.has_error,
    ),
    "als epoch": Suite(
        SECONDS,
        {"method": tuple(als.METHODS), "solver": als.SOLVERS, "size": _SIZES, "k": RANKS},
        als.epoch,
        als.exists,
    ),
    "als objective": Suite(
        RMSE,
        {"method": tuple(als.METHODS), "solver": als.SOLVERS, "size": _SMALL, "k": RANKS},
        als.objective,
        als.exists,
    ),
    "memory": Suite(MIB, {"call": questions.MEMORY, "size": _SIZES}, questions.memory, version="3"),
    "ranking score": Suite(
        SCORE, {"score": tuple(questions.SCORES), "size": _SIZES}, questions.ranking_score
    ),
    "epochs needed": Suite("epochs", {"schedule": SCHEDULES, "size": _SIZES}, epochs_needed),
    "speed": Suite("M ratings/s", {"engine": COMPILED_ENGINES, "size": _SIZES, "k": RANKS}, speed),
    "share of limit": Suite(
        "% of the limit", {"engine": COMPILED_ENGINES, "size": _SIZES, "k": RANKS}, share_of_limit
    ),
    "signatures": Suite(COUNT, {}, signatures),
    "packed FMA": Suite("packed FMA", {"k": RANKS}, partial(instructions, PACKED_FMA)),
    "conversions": Suite(COUNT, {"k": RANKS}, partial(instructions, CONVERSION)),
    "allocations": Suite(COUNT, {"engine": ("sequential", "blocks")}, allocations),
    "bytes": Suite(COUNT, {"of": HOLDERS}, array_bytes),
}

# name -> suite and parameters: "epoch: blocks, ml-1m-like, 32"
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    f"{name}: {', '.join(parameters)}".rstrip(": "): (name, parameters)
    for name, suite in SUITES.items()
    for parameters in suite.combinations()
}


def build(name: str) -> Case:
    """Build a case of ``CASES``."""
    suite, parameters = CASES[name]
    return SUITES[suite].build(*parameters)


def unit(name: str) -> str:
    """Return the unit of a case of ``CASES``."""
    return SUITES[CASES[name][0]].unit


def asv_name(suite: str) -> str:
    """Return what a suite is called in the names of asv's methods, ``track_`` or ``time_`` before it."""
    return suite.replace(" ", "_").lower()


def fresh(code: str, **environment: str) -> str:
    """Run code in a new process, with this ``mfkernel`` and these benchmarks; return what it prints."""
    packages = [str(Path(module.__file__ or "").parents[1]) for module in (mf, probes)]
    with tempfile.TemporaryDirectory() as elsewhere:  # or Python would look in the current folder first
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(packages)} | environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    return done.stdout


def _held(make: Case) -> int:
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
