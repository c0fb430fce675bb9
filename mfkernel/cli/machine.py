"""The commands about this machine: doctor and warm-up."""

import argparse
import logging
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.cli.output import print_table
from mfkernel.engines.resources import available_cores, available_memory
from mfkernel.methods import METHODS

SPEED_RANK, SPEED_EPOCHS = 32, 20  # of the fit that measures the speed
SHARED = (4000, 2000, 400_000)  # users, items and ratings: enough for several threads


def doctor(options: argparse.Namespace) -> None:
    """Print versions, cores, memory, the processor, the cache and the speed of a fit."""
    import scipy

    from mfkernel.kernels.about import about

    free = available_memory()
    rows = {
        "mfkernel": mf.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        **about(),
        "system": platform.platform(),
        "cores": f"{available_cores()} available",
        "free memory": "unknown" if free is None else f"{free / 2**30:,.1f} GiB",
    }
    print_table([[name, value] for name, value in rows.items()], left=(0, 1))
    R = mf.datasets.synthetic(*SHARED)
    for threads in dict.fromkeys((1, available_cores())):
        fit = {"rng": 0, "n_threads": threads}
        first = _seconds(lambda fit=fit: mf.factorize(R, SPEED_RANK, epochs=1, **fit))  # type: ignore[misc]
        again = _seconds(lambda fit=fit: mf.factorize(R, SPEED_RANK, epochs=1, **fit))  # type: ignore[misc]
        long = _seconds(
            lambda fit=fit: mf.factorize(R, SPEED_RANK, epochs=1 + SPEED_EPOCHS, **fit)  # type: ignore[misc]
        )
        rate = R.nnz * SPEED_EPOCHS / max(long - again, 1e-9) / 1e6
        print(
            f"{threads} thread{'' if threads == 1 else 's'}: first fit {first:.1f} s, next {again:.2f} s, "
            f"{rate:,.0f} million ratings per second at k = {SPEED_RANK}"
        )


def warm_up(options: argparse.Namespace) -> None:
    """Compile the kernels of the chosen methods into the cache, and say how long each took."""
    k, methods = checks.integer("-k", options.k, 1), options.methods or tuple(METHODS)
    for method in methods:
        checks.one_of("METHOD", method, tuple(METHODS))
    problems: list[str] = []
    handler = _Collector(problems)
    logging.getLogger("mfkernel").addHandler(handler)
    try:
        for method in methods:
            seconds = _seconds(lambda method=method: _use(method, k))  # type: ignore[misc]
            print(f"{method}: {seconds:.1f} s")
    finally:
        logging.getLogger("mfkernel").removeHandler(handler)
    if problems:
        raise OSError(problems[0])


def _use(method: Any, k: int) -> None:
    """Call whatever a deployment calls: fits, on one thread and several, and every answer of a model."""
    few, many = mf.datasets.synthetic(60, 40, 900), mf.datasets.synthetic(*SHARED)
    model = mf.factorize(few, k, method, rng=0, epochs=1)
    mf.factorize(many, k, method, rng=0, epochs=1, n_threads=2)
    biased = [model]
    if "biases" in model.settings.names():
        biased.append(mf.factorize(few, k, method, biases=True, rng=0, epochs=1))
    for each in biased:
        each.recommend([0, 1])
        each.recommend(0, items=[1, 2, 3])
        each.similar_items(0)
        each.explain(0, 0)
        each.recommend({0: 4.0, 3: 2.0})
        each.partial_fit(([0], [0], [3.0]))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class _Collector(logging.Handler):
    """Collects warnings, such as that of a cache that cannot be written."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())
