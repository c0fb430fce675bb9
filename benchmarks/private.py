"""The names of mfkernel that benchmarks use and that are not public: the only place that knows their modules.

The gate runs these benchmarks with the package of an older commit as well. So ``WHERE`` lists all modules and
names that each has had, the present one first. A name is looked up when it is used: a builder that an older
commit cannot serve takes no other with it.
"""

import importlib
from typing import Any

WHERE: dict[str, tuple[str, ...]] = {
    "Adaptive": ("kernels.sgd.Adaptive",),
    "Als": ("als.Als",),
    "BlockSchedule": ("blocks.BlockSchedule",),
    "COMPILE_OPTIONS": ("kernels.jit.OPTIONS", "_jit.OPTIONS"),
    "Model": ("kernels.sgd.Model",),
    "RowSchedule": ("schedule.RowSchedule",),
    "Settings": ("objective.Settings",),
    "Sgd": ("methods.Sgd",),
    "State": ("methods.State",),
    "TILE_COORDINATES": ("blocks.COORDINATES",),
    "ThreadEngine": ("engine.ThreadEngine",),
    "Tiles": ("kernels.sgd.Tiles",),
    "choose": ("defaults.choose",),
    "jit": ("kernels.jit.jit", "_jit.jit"),
    "make_solver": ("linalg.normal.make_solver", "ridge.solver_of"),
    "multiply_adds": ("linalg.normal.multiply_adds", "ridge.multiply_adds"),
    "rank_token": ("kernels.vectors.rank_token", "_simd.vectors_of"),
    "sgd_span": ("reference.sgd_span",),
    "sgd_tiles": ("kernels.sgd.sgd_tiles",),
    "start_factors": ("defaults.start_factors",),
    "textbook_program": ("reference.textbook_program",),
}


def __getattr__(name: str) -> Any:
    """Return the object that goes by ``name`` here, from the first module that has it."""
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for path in WHERE[name]:
        module, _, attribute = path.rpartition(".")
        try:
            return getattr(importlib.import_module(f"mfkernel.{module}"), attribute)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"this version of mfkernel has none of {', '.join(WHERE[name])}")
