"""What the benchmarks use of mfkernel beside its public names.

The gate runs the package of an earlier commit under these benchmarks, so that each name is looked up where it
is now and, failing that, where it was.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel.engine import ThreadEngine

MEAN, NOISE = 0.3, 0.05  # of start values


def sgd_epoch(R: mf.Ratings, k: int, schedule: str, n_threads: int, decay: str) -> Callable[[int], Any]:
    """Return what runs epoch n of stochastic gradient descent, exactly as training runs it."""
    options: dict[str, Any] = {"learning_rate": 1e-3, "decay": decay, "regularization": (0.05, 0.05)}
    engine = ThreadEngine(n_threads)
    try:
        from mfkernel.methods.sgd import SGDTrainer
    except ImportError:
        trainer = _earlier_sgd(R, k, schedule, n_threads, options, engine)
        run = trainer.visit
    else:
        settings = mf.SGD(**options, schedule=schedule)  # type: ignore[arg-type]
        trainer = SGDTrainer.create(_problem(R, k, settings, False, n_threads), engine)
        run = trainer._run_task

    def epoch(n: int) -> None:
        trainer.begin_epoch(n, n, math.inf)
        engine.run(run, trainer.schedule.tasks(n))

    return epoch


def als_epoch(R: mf.Ratings, k: int, solver: str, method: str, biases: bool = False) -> Callable[[], Any]:
    """Return what runs an epoch of alternating least squares on one thread."""
    engine = ThreadEngine(1)
    try:
        from mfkernel.methods.als import ALSTrainer
    except ImportError:
        trainer = _earlier_als(R, k, solver, method, biases)
    else:
        kind: Any = mf.ImplicitALS if method == "implicit" else mf.ALS
        options = kind(solver=solver, regularization_per="rating", **({"biases": True} if biases else {}))
        settings = ALSTrainer.resolve(options, R)
        trainer = ALSTrainer.create(_problem(R, k, settings, biases, 1), engine)
    return lambda: trainer.run_epoch(1, engine)


def _start(R: mf.Ratings, k: int, biases: bool) -> tuple[Any, ...]:
    """Return start values, padded as training has them."""
    from mfkernel._rows import aligned_rows

    rng = np.random.default_rng(0)
    X, Y = (aligned_rows(size, k, R.dtype) for size in R.shape)
    for rows in (X, Y):
        rows[:, :k] = MEAN + NOISE * rng.standard_normal((len(rows), k))
    return X, Y, *(np.zeros(size if biases else 0, R.dtype) for size in R.shape)


def _problem(R: mf.Ratings, k: int, settings: Any, biases: bool, n_threads: int) -> Any:
    from mfkernel.methods.base import Parameters, Problem

    return Problem(
        ratings=R,
        k=k,
        dtype=R.dtype,
        settings=settings,
        adapts=False,
        start=lambda users, items: Parameters(*_start(R, k, biases)),
        seed=0,
        n_threads=n_threads,
    )


def _earlier_sgd(
    R: mf.Ratings, k: int, schedule: str, n_threads: int, options: dict[str, Any], engine: ThreadEngine
) -> Any:
    from mfkernel import methods
    from mfkernel.blocks import BlockSchedule
    from mfkernel.schedule import RowSchedule

    earlier: Any = methods
    order: Any
    if schedule == "blocks":
        order = BlockSchedule(R, k=-(-k // 8) * 8, shuffle=True, seed=0, engine=engine)
    else:
        order = RowSchedule(R, n_tasks=n_threads, shuffle=True, seed=0)
    settings: Any = mf.Settings(**options)
    return earlier.Sgd(R, order, lambda: earlier.State(*_start(R, k, False)), k, settings)


def _earlier_als(R: mf.Ratings, k: int, solver: str, method: str, biases: bool) -> Any:
    from importlib import import_module

    als, methods = import_module("mfkernel.als"), import_module("mfkernel.methods")
    defaults = import_module("mfkernel.defaults")
    options = mf.Settings(method=method, biases=biases, weighted=True, solver=solver)
    settings = defaults.choose(options, R)
    return als.Als(R, lambda: methods.State(*_start(R, k, biases)), k, settings)
