"""Factorize matrices of known ratings, R ≈ P·Q, at compiled speed."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from mfkernel import datasets, metrics, plots
from mfkernel.api import factorize
from mfkernel.data.files.read import read_ratings
from mfkernel.data.ratings import Ratings
from mfkernel.evaluation.results import CrossValidation, RankSelection, Search
from mfkernel.evaluation.search import cross_validate, grid_search, select_rank
from mfkernel.evaluation.splits import leave_k_out as leave_k_out  # the former name of leave_n_out
from mfkernel.evaluation.splits import (
    leave_n_out,
    strong_generalization_split,
    time_split,
    train_test_split,
)
from mfkernel.methods.posterior import Posterior
from mfkernel.model.answers import Recommendations
from mfkernel.model.explain import Explanation
from mfkernel.model.factors import Factors
from mfkernel.model.history import Epoch
from mfkernel.model.libmf import read_libmf, write_libmf
from mfkernel.model.load import load
from mfkernel.model.uncertainty import Prediction
from mfkernel.options import ALS, SGD, Bayesian, ImplicitALS, Settings
from mfkernel.training.loop import DivergenceError, Interrupted

logging.getLogger("mfkernel").addHandler(logging.NullHandler())  # silent unless the program asks for it

__version__ = "0.1.0"

__all__ = [
    "ALS",
    "SGD",
    "Bayesian",
    "CrossValidation",
    "DivergenceError",
    "Epoch",
    "Explanation",
    "Factors",
    "ImplicitALS",
    "Interrupted",
    "Posterior",
    "Prediction",
    "RankSelection",
    "Ratings",
    "Recommendations",
    "Search",
    "Settings",
    "cross_validate",
    "datasets",
    "factorize",
    "grid_search",
    "leave_n_out",
    "load",
    "metrics",
    "plots",
    "read_libmf",
    "read_ratings",
    "select_rank",
    "strong_generalization_split",
    "time_split",
    "train_test_split",
    "write_libmf",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "sklearn"])


if not TYPE_CHECKING:  # where any attribute would seem to exist

    def __getattr__(name: str) -> Any:
        if name != "sklearn":
            raise AttributeError(f"module 'mfkernel' has no attribute {name!r}")
        try:
            return importlib.import_module("mfkernel.sklearn")
        except ImportError as error:  # an AttributeError, for hasattr and help
            raise AttributeError(f"{error}") from error
