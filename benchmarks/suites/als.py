"""Alternating least squares: an epoch, and the objective after a few."""

import math
from typing import Any

import mfkernel as mf
from benchmarks import data
from benchmarks.suites import trainers
from benchmarks.suites.base import RANKS, RMSE, SECONDS, SIZES, SMALL, Case, Suite, run_once

SOLVERS = ("cholesky", "cg", "subspace")
METHODS: dict[str, dict[str, Any]] = {
    "explicit": {"method": "als"},
    "explicit, with biases": {"method": "als", "biases": True},
    "implicit": {"method": "implicit"},
}


def epoch(method: str, solver: str, size: str, k: str) -> Case:
    """Build an epoch of alternating least squares."""
    settings = METHODS[method]
    biases = settings.get("biases", False)
    return run_once(trainers.als_epoch(data.generated(size), int(k), solver, settings["method"], biases))


def objective(method: str, solver: str, size: str, k: str) -> Case:
    """Build the root of the objective per rating after five epochs, which a worse solver leaves higher."""
    R, settings = data.generated(size), METHODS[method] | {"solver": solver, "epochs": 5, "rng": 0}
    return lambda: math.sqrt((mf.factorize(R, int(k), **settings).history[-1].loss or math.nan) / R.nnz)


def exists(method: str, solver: str, size: str, k: str) -> bool:
    """Whether a case exists: blocks of coordinates are for long rows."""
    return solver != "subspace" or k == "128"


_PARAMETERS = {"method": tuple(METHODS), "solver": SOLVERS}

SUITES = {
    "als epoch": Suite(SECONDS, _PARAMETERS | {"size": SIZES, "k": RANKS}, epoch, exists),
    "als objective": Suite(RMSE, _PARAMETERS | {"size": SMALL, "k": RANKS}, objective, exists),
}
