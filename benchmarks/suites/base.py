"""A case, a suite of cases and its unit, and the helpers that builders share.

A builder gets a case's parameters, which are strings. It does the set-up and one untimed call, so that
kernels are compiled, and returns a function without arguments. That function is timed, or returns the figure.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mfkernel as mf
from benchmarks import probes

Case = Callable[[], Any]

# units
SECONDS, MIB, RMSE, SCORE, COUNT = "seconds", "MiB", "RMSE", "score", "count"
SPEED, LIMIT_SHARE, EPOCHS, PACKED_FMA = "M ratings/s", "% of the limit", "epochs", "packed FMA"
MORE_IS_BETTER = {SCORE, SPEED, LIMIT_SHARE, PACKED_FMA}

# parameters that many suites share
SIZES = ("ml-100k-like", "ml-1m-like")  # generated sets
SMALL = SIZES[:1]
RANKS = ("8", "32", "128")
SCHEDULES = ("sequential", "hogwild", "blocks")


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


def run_once(case: Case) -> Case:
    """Call a case once, so that kernels are compiled, and return it."""
    case()
    return case


def run_in_new_process(code: str, **environment: str) -> str:
    """Run code in a new process, with this ``mfkernel`` and these benchmarks; return its output."""
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
