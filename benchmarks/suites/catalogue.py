"""The catalogue: everything that is measured, by names that stay the same over time.

asv, pytest-benchmark, the gate and the tables all take their cases from ``SUITES``. A new capability adds its
suite to the module of its subject, and a new module is named here. Builders take names that are not public
from ``private``, and call them by keyword, so that an older commit does not serve one wrongly.
"""

from benchmarks.suites import als, counts, files, model, quality, sgd, start
from benchmarks.suites.base import Case, Suite

SUITES: dict[str, Suite] = {
    name: suite
    for module in (sgd, als, model, quality, files, start, counts)
    for name, suite in module.SUITES.items()
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
    """Return the name of a suite in asv's methods, without ``track_`` or ``time_``."""
    return suite.replace(" ", "_").lower()
