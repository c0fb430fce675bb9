"""Matrix factorization of known ratings, R ≈ P·Q, at compiled speed."""

from mfkernel import datasets, metrics
from mfkernel.api import factorize
from mfkernel.factors import Epoch, Explanation, Factors, load
from mfkernel.io import read_ratings
from mfkernel.model_selection import train_test_split
from mfkernel.objective import Settings
from mfkernel.ranking import Recommendations
from mfkernel.ratings import Ratings
from mfkernel.training import DivergenceError, Interrupted

__version__ = "0.1.0"

__all__ = [
    "DivergenceError",
    "Epoch",
    "Explanation",
    "Factors",
    "Interrupted",
    "Ratings",
    "Recommendations",
    "Settings",
    "datasets",
    "factorize",
    "load",
    "metrics",
    "read_ratings",
    "train_test_split",
]
