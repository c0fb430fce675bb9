"""Split ratings into training and test ratings: at random, by time, per user, or by user."""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.ratings import Ratings
from mfkernel.data.times import as_time
from mfkernel.engines.threads import interruptible


@checks.explains_names
def train_test_split(
    R: Any, test: float = 0.1, *, rng: Any = None, missing: str = "zero", duplicates: str = "raise"
) -> tuple[Ratings, Ratings]:
    """Hold out a random share of the ratings.

    Parameters
    ----------
    R
        Ratings in any form that :class:`Ratings` takes.
    test
        Share to hold out, between 0 and 1. At least one rating is held out and one is kept. Default: 0.1.
    rng
        Seed or generator, as for ``np.random.default_rng``. Default: random.
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
    share = _share("test", test)
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    if ratings.nnz < 2:
        raise ValueError(f"R must have at least 2 ratings to split, got {ratings.nnz}")
    count = min(max(1, round(share * ratings.nnz)), ratings.nnz - 1)
    return ratings.hold_out(count, np.random.default_rng(rng))


@checks.explains_names
def time_split(
    R: Any,
    test: float | None = None,
    *,
    cut: Any = None,
    missing: str = "zero",
    duplicates: str = "raise",
) -> tuple[Ratings, Ratings]:
    """Hold out the latest ratings, by one time for all users.

    Ratings of the same time stay together. Some users and items may be in the test ratings alone.

    Parameters
    ----------
    R
        Ratings with timestamps.
    test
        Share to hold out, between 0 and 1. Default: 0.1, or as ``cut`` says.
    cut
        Time of the first held-out ratings, in the unit of the timestamps, or a date. Default: ``test`` says.
    missing, duplicates
        As for :class:`Ratings`.

    Returns
    -------
    tuple of Ratings
        Training and test ratings, both of R's shape and with its ids.

    Raises
    ------
    ValueError
        If R has no timestamps, or no rating would be left for training, or for the test.

    Examples
    --------
    >>> R = Ratings(([0, 0, 1], [0, 1, 0], [5, 3, 4]), timestamps=["2024-01-01", "2024-03-01", "2024-02-01"])
    >>> train, test = time_split(R, cut="2024-02-15")
    >>> train.nnz, test.values
    (2, array([3.]))
    """
    if test is not None and cut is not None:
        raise ValueError(f"cut must be None with test={test!r}, got {cut!r}; pass one of the two")
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    times = _times(ratings)
    if cut is None:
        share = _share("test", 0.1 if test is None else test)
        count = min(max(1, round(share * ratings.nnz)), ratings.nnz)
        first = float(np.partition(times, ratings.nnz - count)[ratings.nnz - count]) if count else math.inf
    else:
        first = as_time("cut", cut)
    held_out = times >= first
    if held_out.all() or not held_out.any():
        side = "before" if held_out.all() else "from"
        raise ValueError(
            f"{'test' if cut is None else 'cut'} must leave ratings on both sides, got none {side} the time "
            f"{first:g}"
        )
    return ratings.select(~held_out), ratings.select(held_out)


@checks.explains_names
def leave_n_out(
    R: Any,
    n: int = 1,
    *,
    last: bool = False,
    rng: Any = None,
    missing: str = "zero",
    duplicates: str = "raise",
) -> tuple[Ratings, Ratings]:
    """Hold out n ratings per user with more than n ratings: random ones, or the last ones.

    Users with n ratings or fewer keep all of them and have empty test rows. So every user with ratings keeps
    some for training.

    Parameters
    ----------
    R
        Ratings in any form that :class:`Ratings` takes.
    n
        Number of ratings to hold out per user, at least 1. Default: 1.
    last
        Hold out the latest ratings by their timestamps; of equal times, random ones. Default: False.
    rng
        Seed or generator, as for ``np.random.default_rng``. Default: random.
    missing, duplicates
        As for :class:`Ratings`.

    Returns
    -------
    tuple of Ratings
        Training and test ratings, both of R's shape and with its ids and weights.

    Raises
    ------
    TypeError, ValueError
        If n is not an integer of at least 1, or no user has more than n ratings. Also if R has no timestamps
        but ``last`` needs them.

    Examples
    --------
    >>> leave_n_out([[5, 3, 4], [4, 1, 0], [0, 0, 2]], rng=0)
    (Ratings(3 users × 3 items, 4 ratings, float64), Ratings(3 users × 3 items, 2 ratings, float64))
    """
    n = checks.integer("n", n, 1)
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    counts = ratings.user_counts()
    most = int(counts.max(initial=0))
    if most <= n:
        if most < 2:
            raise ValueError(f"R must have a user with two or more ratings, got at most {most} per user")
        raise ValueError(f"n must be at most {most - 1}, one below the most ratings of a user, got {n}")
    times = _times(ratings) if checks.boolean("last", last) else None
    return _hold_out_per_user(ratings, np.where(counts > n, n, 0), np.random.default_rng(rng), times)


def leave_k_out(R: Any, n: int = 1, **options: Any) -> tuple[Ratings, Ratings]:
    """Former name of :func:`leave_n_out`."""
    warnings.warn(
        "mf.leave_k_out is now mf.leave_n_out; the old name will be removed in version 0.2",
        DeprecationWarning,
        stacklevel=2,
    )
    return leave_n_out(R, n, **options)


class UserSplit(NamedTuple):
    """A split by user: s of the m users are new users, who are not in training.

    Attributes
    ----------
    train
        (m - s, n) ratings of all other users.
    support
        (s, n) one row per new user: the ratings given to ``fold_in``.
    held_out
        (s, n) the other ratings of the new users, to be predicted.
    """

    train: Ratings
    support: Ratings
    held_out: Ratings

    @property
    def training(self) -> Ratings:
        """Former name of ``train``."""
        return self._former("training", "train")

    @property
    def known(self) -> Ratings:
        """Former name of ``support``."""
        return self._former("known", "support")

    def _former(self, old: str, new: str) -> Ratings:
        warnings.warn(
            f"UserSplit.{old} is now UserSplit.{new}; the old name will be removed in version 0.2",
            DeprecationWarning,
            stacklevel=3,
        )
        ratings: Ratings = getattr(self, new)
        return ratings


@checks.explains_names
def strong_generalization_split(
    R: Any,
    test_users: float = 0.1,
    holdout: float = 0.2,
    *,
    rng: Any = None,
    missing: str = "zero",
    duplicates: str = "raise",
) -> UserSplit:
    """Make random users new users, and hold out a share of their ratings.

    This split tests a model on new users. The model learns from ``train``, folds in the ``support`` ratings
    of the new users, and predicts their ``held_out`` ratings.

    Parameters
    ----------
    R
        Ratings in any form that :class:`Ratings` takes.
    test_users
        Share of the users with at least two ratings, between 0 and 1, or an integer number of users. At least
        one such user becomes a new user, and at least one user with ratings stays in training. Default: 0.1.
    holdout
        Share of a new user's ratings to hold out, between 0 and 1. At least one rating is held out and one
        is in ``support``. Default: 0.2.
    rng
        Seed or generator, as for ``np.random.default_rng``. Default: random.
    missing, duplicates
        As for :class:`Ratings`.

    Returns
    -------
    UserSplit
        Training, support and held-out ratings. Users keep the order of R, and their ids if R has ids. All
        items of R, their ids, and weights stay.

    Raises
    ------
    TypeError, ValueError
        If ``test_users`` or ``holdout`` is out of range, or R has too few users. The split needs a new user
        with two ratings, and another user with one.

    References
    ----------
    Marlin, "Collaborative filtering: a machine learning perspective", University of Toronto 2004 (strong
    generalization). Liang, Krishnan, Hoffman and Jebara, "Variational autoencoders for collaborative
    filtering", WWW 2018.

    Examples
    --------
    >>> import mfkernel as mf
    >>> split = strong_generalization_split(mf.datasets.synthetic(200, 100, 3000), rng=0)
    >>> split.train.shape, split.support.shape, split.held_out.shape
    ((180, 100), (20, 100), (20, 100))
    >>> model = mf.factorize(split.train, 4, biases=True, rng=0)
    >>> new_users = model.fold_in(split.support)
    >>> mf.metrics.ranking(new_users, split.held_out, 20, relevant=4)["auc"] > 0.6
    True
    """
    if isinstance(test_users, int | np.integer):
        wanted: float = checks.integer("test_users", test_users, 1)
    else:
        wanted = _share("test_users", test_users, "; a number of users must be an integer")
    share = _share("holdout", holdout)
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    random = np.random.default_rng(rng)
    is_new = _new_users(ratings.user_counts(), wanted, random)
    train, new_users = (_users(ratings, np.flatnonzero(users)) for users in (~is_new, is_new))
    counts = new_users.user_counts()
    held_out = np.rint(share * counts).astype(np.int64).clip(1, counts - 1)
    return UserSplit(train, *_hold_out_per_user(new_users, held_out, random))


def _times(ratings: Ratings) -> NDArray[np.float64]:
    if ratings.timestamps is None:
        raise ValueError(
            "R must have timestamps, got none; pass Ratings.from_frame(frame, timestamp=…), "
            "read_ratings(path, timestamp=True) or mf.Ratings(…, timestamps=…)"
        )
    return ratings.timestamps


def _share(name: str, value: float, hint: str = "") -> float:
    share = checks.real(name, value, positive=True)
    if share >= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {share}{hint}")
    return share


def _new_users(counts: NDArray[np.int64], wanted: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return an (m,) mask of random new users, as many as the number or share wanted."""
    able, rated = np.flatnonzero(counts >= 2), int((counts > 0).sum())
    most = able.size if able.size < rated else rated - 1  # training needs one user with ratings
    if most < 1:
        raise ValueError(
            f"R must have a user with two ratings and another user with one, got {rated} users with ratings, "
            f"{able.size} of them with two or more; train_test_split needs neither"
        )
    if wanted > most:
        raise ValueError(
            f"test_users must be at most {most}, got {wanted}: {able.size} of {rated} users have two or more "
            "ratings, and one user with ratings must stay in training"
        )
    number = int(wanted) if wanted >= 1 else min(max(1, round(wanted * able.size)), most)
    is_new = np.zeros(counts.size, np.bool_)
    is_new[rng.choice(able, number, replace=False, shuffle=False)] = True
    return is_new


def _users(ratings: Ratings, rows: NDArray[np.intp]) -> Ratings:
    """Return the rows of some users, with their ids."""
    ids = ratings.user_ids
    return Ratings(ratings.take_rows(rows), user_ids=None if ids is None else ids[rows])


def _hold_out_per_user(
    ratings: Ratings,
    counts: NDArray[np.int64],
    rng: np.random.Generator,
    times: NDArray[np.float64] | None = None,
) -> tuple[Ratings, Ratings]:
    """Hold out ``counts[u]`` random ratings of user u, or the latest ones; return the kept, then these."""
    priority = rng.random(ratings.nnz)
    keys = (priority, ratings.users) if times is None else (priority, -times, ratings.users)
    order = interruptible(lambda: np.lexsort(keys))
    # order permutes within rows only, so the first places of a row hold the ratings of this row to hold out
    held_out = np.empty(ratings.nnz, np.bool_)
    held_out[order] = np.arange(ratings.nnz) < (ratings.indptr[:-1] + counts)[ratings.users]
    return ratings.select(~held_out), ratings.select(held_out)
