"""Epochs of training by themselves, of this version of mfkernel and of those before it had trainers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import private

MEAN, NOISE = 0.3, 0.05  # of start values


def sgd_epoch(R: mf.Ratings, k: int, schedule: str, n_threads: int, decay: str) -> Callable[[int], Any]:
    """Return a function that runs epoch n of stochastic gradient descent, exactly as training runs it."""
    options: dict[str, Any] = {"learning_rate": 1e-3, "decay": decay, "regularization": (0.05, 0.05)}
    engine = private.ThreadEngine(n_threads)
    if hasattr(mf, "SGD"):
        settings = mf.SGD(**options, schedule=schedule)  # type: ignore[arg-type]
        trainer = private.SGDTrainer.create(_problem(R, k, settings, False, n_threads), engine)
    else:
        if schedule == "blocks":
            order = private.BlockSchedule(R, k=-(-k // 8) * 8, shuffle=True, seed=0, engine=engine)
        else:
            order = private.RowSchedule(R, n_tasks=n_threads, shuffle=True, seed=0)
        start = private.State(*_start(R, k, False))
        trainer = private.Sgd(R, order, lambda: start, k, private.Settings(**options))

    def epoch(n: int) -> None:
        trainer.begin_epoch(n, n, math.inf)
        trainer.run_epoch(n, engine)

    return epoch


def als_epoch(R: mf.Ratings, k: int, solver: str, method: str, biases: bool = False) -> Callable[[], Any]:
    """Return a function that runs an epoch of alternating least squares on one thread."""
    engine = private.ThreadEngine(1)
    if hasattr(mf, "ALS"):
        kind: Any = mf.ImplicitALS if method == "implicit" else mf.ALS
        options = kind(solver=solver, regularization_per="rating", **({"biases": True} if biases else {}))
        settings = private.ALSTrainer.resolve(options, R)
        trainer = private.ALSTrainer.create(_problem(R, k, settings, biases, 1), engine)
    else:
        options = private.Settings(method=method, biases=biases, weighted=True, solver=solver)
        start = private.State(*_start(R, k, biases))
        trainer = private.Als(R, lambda: start, k, private.choose(options, R))
    return lambda: trainer.run_epoch(1, engine)


def _start(R: mf.Ratings, k: int, biases: bool) -> tuple[Any, ...]:
    """Return start values, padded as training has them."""
    rng = np.random.default_rng(0)
    X, Y = (private.aligned_rows(size, k, R.dtype) for size in R.shape)
    for rows in (X, Y):
        rows[:, :k] = MEAN + NOISE * rng.standard_normal((len(rows), k))
    return X, Y, *(np.zeros(size if biases else 0, R.dtype) for size in R.shape)


def _problem(R: mf.Ratings, k: int, settings: Any, biases: bool, n_threads: int) -> Any:
    adapts = private.field(private.Problem, "adaptive_regularization", "adapts")
    return private.Problem(
        ratings=R,
        k=k,
        dtype=R.dtype,
        settings=settings,
        start=lambda users, items: private.Parameters(*_start(R, k, biases)),
        seed=0,
        n_threads=n_threads,
        **{adapts: False},
    )
