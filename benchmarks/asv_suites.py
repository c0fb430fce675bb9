"""Suites that asv follows over the commits: each suite of the catalogue as a class."""

import itertools
from typing import Any

from benchmarks.suites import catalogue
from benchmarks.suites.base import SECONDS, Suite


def asv_class(name: str, suite: Suite) -> type:
    """Return the class of a suite, with a ``time_``, ``peakmem_`` or ``track_`` method.

    Names and parameters say what is measured and stay as they are, whatever becomes of the code; so does the
    version, of which asv would otherwise make a new one, and begin a new history, with each change of it.
    """

    def setup(self: Any, *parameters: str) -> None:
        self.case = suite.build(*parameters)

    def run(self: Any, *parameters: str) -> Any:
        return self.case()

    method = catalogue.asv_name(name)
    kinds = ["time" if suite.unit == SECONDS else "track"] + ["peakmem"] * suite.peak
    combinations = itertools.product(*suite.parameters.values())
    attributes = {
        "setup": setup,
        "params": list(map(list, suite.parameters.values())),
        "param_names": list(suite.parameters),
        "skip_params": [parameters for parameters in combinations if not suite.exists(*parameters)],
        "unit": suite.unit,
        "version": suite.version,
        "timeout": 600,
    }
    title = "".join(word[0].upper() + word[1:] for word in name.split())
    return type(title, (), attributes | {f"{kind}_{method}": run for kind in kinds})


for _name, _suite in catalogue.SUITES.items():
    _class = asv_class(_name, _suite)
    globals()[_class.__name__] = _class
