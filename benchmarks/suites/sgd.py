"""Stochastic gradient descent: an epoch by each configuration, its kernels, the preparation, a whole fit.

A configuration is a schedule with its number of threads, or an interpreted program.
"""

import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import data, private, probes
from benchmarks.suites import trainers
from benchmarks.suites.base import (
    LIMIT_SHARE,
    MIB,
    RANKS,
    SCHEDULES,
    SECONDS,
    SIZES,
    SPEED,
    Case,
    Suite,
    run_once,
)

KERNEL_RANKS = ("8", "16", "32", "64", "128", "512")
MAX_INTERPRETED = 200_000  # ratings: an interpreted epoch of a million would take minutes


# An epoch


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
    return run_once(lambda: run(next(epochs)))


CONFIGURATIONS: dict[str, Callable[[mf.Ratings, int], Case]] = {
    "naive loop": naive_loop,
    "numpy reference": numpy_reference,
    "sequential": partial(compiled, schedule="sequential"),
    "hogwild, 2 threads": partial(compiled, schedule="hogwild", n_threads=2),
    "blocks": partial(compiled, schedule="blocks"),
    "blocks, 2 threads": partial(compiled, schedule="blocks", n_threads=2),
}
INTERPRETED = ("naive loop", "numpy reference")
COMPILED = tuple(name for name in CONFIGURATIONS if name not in INTERPRETED)
KERNELS: dict[str, Callable[[mf.Ratings, int], Case]] = {
    "rows": partial(compiled, schedule="sequential"),
    "rows, adaptive": partial(compiled, schedule="sequential", decay="adaptive"),
    "tiles": partial(compiled, schedule="blocks"),
    "tiles, adaptive": partial(compiled, schedule="blocks", decay="adaptive"),
}


def epoch(configuration: str, size: str, k: str) -> Case:
    """Build an epoch by a configuration."""
    return CONFIGURATIONS[configuration](data.generated(size), int(k))


def has_epoch(configuration: str, size: str, k: str) -> bool:
    """Whether this case of an epoch exists."""
    return is_fast_enough(configuration, data.GENERATED[size][2])


def is_fast_enough(configuration: str, nnz: int) -> bool:
    """Whether an epoch of ``nnz`` ratings takes seconds at most."""
    return configuration not in INTERPRETED or nnz <= MAX_INTERPRETED


def kernel(name: str, k: str, dtype: str) -> Case:
    """Build an epoch of one kernel on one thread."""
    return KERNELS[name](data.generated("ml-100k-like", dtype), int(k))


# Before the epochs


def preparation(step: str, size: str) -> Case:
    """Build a step between the user's ratings and the first epoch."""
    R = data.generated(size)
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
    return run_once(steps[step])


STEPS = ("ratings from triplets", "ratings from scipy", "transpose", "split", "blocks", "bands")


# The whole


def fit(schedule: str, size: str) -> Case:
    """Build the plain call, from ratings to factors."""
    R = data.generated(size)
    settings: dict[str, Any] = {"schedule": schedule}
    mf.factorize(R, 32, epochs=1, **settings)
    return lambda: mf.factorize(R, 32, rng=0, **settings)


def fit_memory(schedule: str, size: str) -> Case:
    """Build the peak of memory of a fit, beyond the memory that is held before it."""
    run = partial(mf.factorize, data.generated(size), 32, epochs=probes.EPOCHS, schedule=schedule, rng=0)
    return run_once(partial(probes.peak_of, run))


def speed(configuration: str, size: str, k: str) -> Case:
    """Build the throughput of the public call's fastest epoch, in million ratings per second."""
    R = data.generated(size)
    schedule, _, threads = configuration.partition(", ")
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


def share_of_limit(configuration: str, size: str, k: str) -> Case:
    """Build the share of the limit of the cores at work, which ``probes`` measure, in per cent."""
    reached = speed(configuration, size, k)
    measured = probes.limit_probes()
    n_threads = 2 if "2 threads" in configuration else 1

    def figure() -> float:
        seconds = probes.median_seconds({name: probe for name, (probe, _) in measured.items()}, 7)
        rates = {name: work / seconds[name] for name, (_, work) in measured.items()}
        return float(100e6 * reached() / (n_threads * probes.update_limit(int(k), rates)))

    return figure


_COMPILED = {"configuration": COMPILED, "size": SIZES, "k": RANKS}

SUITES = {
    "epoch": Suite(
        SECONDS, {"configuration": tuple(CONFIGURATIONS), "size": SIZES, "k": RANKS}, epoch, has_epoch
    ),
    "kernel": Suite(
        SECONDS, {"kernel": tuple(KERNELS), "k": KERNEL_RANKS, "dtype": ("float32", "float64")}, kernel
    ),
    "preparation": Suite(SECONDS, {"step": STEPS, "size": SIZES}, preparation),
    "fit": Suite(SECONDS, {"schedule": SCHEDULES, "size": SIZES}, fit, peak=True),
    "fit memory": Suite(MIB, {"schedule": SCHEDULES, "size": SIZES}, fit_memory, version="3"),
    "speed": Suite(SPEED, _COMPILED, speed),
    "share of limit": Suite(LIMIT_SHARE, _COMPILED, share_of_limit),
}
