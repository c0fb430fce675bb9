"""Generated ratings that the cases of the catalogue share."""

from collections.abc import Callable
from functools import cache
from typing import Any

import mfkernel as mf

Case = Callable[[], Any]

SIZES = {"ml-100k-like": (943, 1682, 100_000), "ml-1m-like": (6040, 3706, 1_000_209)}


@cache
def ratings(size: str, dtype: str = "float32") -> mf.Ratings:
    """Generate the ratings of one of ``SIZES``."""
    return mf.Ratings(mf.datasets.synthetic(*SIZES[size]), dtype=dtype)


@cache
def split(size: str) -> tuple[mf.Ratings, mf.Ratings]:
    """Hold a tenth of the ratings out."""
    return mf.train_test_split(ratings(size), 0.1, rng=0)


def warm(case: Case) -> Case:
    """Call once, so that kernels are compiled."""
    case()
    return case
