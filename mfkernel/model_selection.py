"""Which ratings to learn from, and which to test with."""

from typing import Any

import numpy as np

from mfkernel import _checks
from mfkernel.ratings import Ratings


def train_test_split(
    R: Any, test: float = 0.1, *, rng: Any = None, missing: str = "zero", duplicates: str = "raise"
) -> tuple[Ratings, Ratings]:
    """Hold out a random share of the ratings.

    Parameters
    ----------
    R
        Anything that :class:`Ratings` takes.
    test
        Share to hold out, between 0 and 1; at least one rating is held out and one is kept.
    rng
        As for ``np.random.default_rng``.
    missing, duplicates
        As for :class:`Ratings`.

    Returns
    -------
    tuple of Ratings
        Training and test ratings, both of R's shape and with its ids.

    Raises
    ------
    ValueError
        If there are fewer than two ratings, or ``test`` is not between 0 and 1.

    Examples
    --------
    >>> train_test_split([[5, 3], [4, 1]], 0.25, rng=0)
    (Ratings(2 users × 2 items, 3 ratings, float64), Ratings(2 users × 2 items, 1 ratings, float64))
    """
    share = _checks.real("test", test, positive=True)
    if share >= 1:
        raise ValueError(f"test must be between 0 and 1, got {share}")
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    if ratings.nnz < 2:
        raise ValueError(f"R has {ratings.nnz} ratings; to split them takes two")
    count = min(max(1, round(share * ratings.nnz)), ratings.nnz - 1)
    return ratings.hold_out(count, np.random.default_rng(rng))
