"""The names of mfkernel that benchmarks use and that are not public: the only place that knows their modules.

The gate runs these benchmarks with the package of an older commit as well. So ``WHERE`` lists all modules and
names that each has had, the present one first. A name is looked up when it is used: a builder that an older
commit cannot serve takes no other with it.
"""

import importlib
from typing import Any

WHERE: dict[str, tuple[str, ...]] = {
    "ALSTrainer": ("methods.als.ALSTrainer",),
    "Parameters": ("methods.base.Parameters",),
    "Problem": ("methods.base.Problem",),
    "SGDTrainer": ("methods.sgd.SGDTrainer",),
    "aligned_rows": ("linalg.rows.aligned_rows", "_rows.aligned_rows"),
    "Adaptive": ("kernels.sgd.Adaptive",),
    "BlockSchedule": ("methods.schedules.blocks.BlockSchedule", "blocks.BlockSchedule"),
    "COMPILE_OPTIONS": ("kernels.jit.OPTIONS", "_jit.OPTIONS"),
    "FactorRows": ("kernels.sgd.FactorRows",),
    "Rates": ("kernels.sgd.Rates",),
    "RowSchedule": ("methods.schedules.rows.RowSchedule", "schedule.RowSchedule"),
    "TILE_COORDINATES": (
        "methods.schedules.blocks.TILE_COORDINATES",
        "methods.schedules.blocks.COORDINATES",
        "blocks.COORDINATES",
    ),
    "ThreadEngine": ("engines.threads.ThreadEngine", "engine.ThreadEngine"),
    "Tiles": ("kernels.sgd.Tiles",),
    "jit": ("kernels.jit.jit", "_jit.jit"),
    "make_solver": ("linalg.normal.make_solver", "ridge.solver_of"),
    "multiply_adds": ("linalg.normal.multiply_adds", "ridge.multiply_adds"),
    "rank_token": ("kernels.vectors.rank_token", "_simd.vectors_of"),
    "sgd_span": ("reference.sgd_span",),
    "sgd_tiles": ("kernels.sgd.sgd_tiles",),
    "textbook_program": ("reference.textbook_program",),
}
# names of earlier commits that have no counterpart
EARLIER: dict[str, tuple[str, ...]] = {
    "Als": ("als.Als",),
    "Model": ("kernels.sgd.Model",),
    "Settings": ("objective.Settings",),
    "Sgd": ("methods.Sgd",),
    "State": ("methods.State",),
    "choose": ("defaults.choose",),
}


def __getattr__(name: str) -> Any:
    """Return the object that goes by ``name`` here, from the first module that has it."""
    paths = WHERE.get(name) or EARLIER.get(name)
    if paths is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for path in paths:
        module, _, attribute = path.rpartition(".")
        try:
            return getattr(importlib.import_module(f"mfkernel.{module}"), attribute)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"this version of mfkernel has none of {', '.join(paths)}")


def field(named_tuple: Any, *names: str) -> str:
    """Return the name of a field: the first of its present and earlier names that a named tuple has."""
    return next(name for name in names if name in named_tuple._fields)
