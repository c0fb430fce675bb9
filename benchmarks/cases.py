"""The catalogue: what is timed, by names that stay the same over time.

A builder does the set-up, makes one untimed call, so that kernels are compiled, and returns a function
without arguments that visits every rating once.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import count

import numpy as np

import mfkernel as mf
from mfkernel import methods, reference
from mfkernel.blocks import BlockSchedule
from mfkernel.engine import ThreadEngine
from mfkernel.factors import padded_rank
from mfkernel.schedule import RowSchedule, Schedule

Epoch = Callable[[], None]

SIZES = {"ml-100k-like": (943, 1682, 100_000), "ml-1m-like": (6040, 3706, 1_000_209)}
RANKS = (8, 32, 128)
MOST_INTERPRETED = 200_000  # ratings: an interpreted epoch of a million would take minutes


@cache
def ratings(size: str) -> mf.Ratings:
    """Generate the ratings of one of ``SIZES``."""
    return mf.datasets.synthetic(*SIZES[size])


def naive_loop(R: mf.Ratings, k: int) -> Epoch:
    """Build the textbook's program: a Python loop over every cell and factor."""
    rng = np.random.default_rng(0)
    dense = R.to_scipy().toarray().astype(np.float64)
    P, Q = rng.random((R.n_users, k)), rng.random((k, R.n_items))
    return lambda: _finish(reference.textbook_program(dense, P, Q, alpha=1e-4, passes=1))


def numpy_reference(R: mf.Ratings, k: int) -> Epoch:
    """Build the reference: a Python loop over the ratings, NumPy over the factors."""
    rng = np.random.default_rng(0)
    P, Q = rng.random((R.n_users, k)), rng.random((R.n_items, k))
    arrays = (np.arange(R.n_users), R.indptr[:-1], R.indptr[1:], R.indices, R.values.astype(np.float64), P, Q)
    return lambda: _finish(reference.sgd_span(*arrays, 1e-4, 0.05))


def compiled(R: mf.Ratings, k: int, schedule: str, n_threads: int) -> Epoch:
    """Build an epoch of the kernel, exactly as training runs it."""
    engine = ThreadEngine(n_threads)
    order: Schedule
    if schedule == "blocks":
        order = BlockSchedule(R, padded_rank(k), True, 0, engine)
    else:
        order = RowSchedule(R, n_threads, True, 0)
    P, Q = methods.default_start(R, k, R.dtype, np.random.default_rng(0))
    sgd = methods.Sgd(R, order, P, Q, k, learning_rate=1e-3, decay="constant", regularization=0.05)
    epochs = count(1)

    def epoch() -> None:
        n = next(epochs)
        sgd.begin_epoch(n, n, math.inf)
        engine.run(sgd.visit, order.tasks(n))

    epoch()
    return epoch


ENGINES: dict[str, Callable[[mf.Ratings, int], Epoch]] = {
    "naive loop": naive_loop,
    "numpy reference": numpy_reference,
    "sequential": partial(compiled, schedule="sequential", n_threads=1),
    "hogwild, 2 threads": partial(compiled, schedule="hogwild", n_threads=2),
    "blocks": partial(compiled, schedule="blocks", n_threads=1),
    "blocks, 2 threads": partial(compiled, schedule="blocks", n_threads=2),
}
SLOW_ENGINES = ("naive loop", "numpy reference")

# one epoch each: name -> (engine, size, rank)
EPOCHS = {
    f"{engine}, {size}, k={k}": (engine, size, k)
    for size in SIZES
    for k in RANKS
    for engine in ENGINES
    if SIZES[size][2] <= MOST_INTERPRETED or engine not in SLOW_ENGINES
}


def epoch(name: str) -> Epoch:
    """Build a case of ``EPOCHS``."""
    engine, size, k = EPOCHS[name]
    return ENGINES[engine](ratings(size), k)


def held_out_rmse(R: mf.Ratings, k: int, schedule: str, seed: int = 0) -> float:
    """Return the test RMSE of the plain call, a tenth of the ratings held out."""
    train, test = mf.train_test_split(R, 0.1, rng=seed)
    threads = None if schedule == "sequential" else 2
    return mf.factorize(train, k, schedule=schedule, n_threads=threads, rng=seed).rmse(test)


def _finish(result: object) -> None:
    """Drop a result: a case returns nothing."""
