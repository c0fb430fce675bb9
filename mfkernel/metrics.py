"""Measure the quality of predictions and rankings on held-out ratings.

Error metrics compare predictions with ratings. Unknown users and items get the default prediction.

Ranking metrics take each user with relevant held-out items, and rank these items among all that could be
recommended. Between equal scores, the lower item number comes first, as in ``recommend``. Each metric is the
mean over the users with relevant held-out items.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.merge import keep_within, match_ratings
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import default_engine
from mfkernel.linalg.top_n import ndcg, pack_items, rank_held_out
from mfkernel.methods.objective import encode_targets
from mfkernel.model.factors import Factors
from mfkernel.model.state import State

USERS_PER_CALL = 2**12  # users for whom items are found at a time, which bounds the memory


def rmse(model: Factors, R: Any, *, missing: str | None = None, duplicates: str = "raise") -> float:
    r"""Return the root mean square error :math:`\sqrt{\sum (r - \hat r)^2 / n}` of R.

    Parameters
    ----------
    model
        The model that predicts the ratings.
    R
        Ratings to compare with, in any form that :class:`~mfkernel.Ratings` takes.
    missing
        Meaning of a zero in a dense R, as for :class:`~mfkernel.Ratings`. Default: as in training.
    duplicates
        How to merge several ratings of one cell, as for :class:`~mfkernel.Ratings`. Default: ``"raise"``.
    """
    residuals, _ = _residuals(model, R, missing, duplicates)
    return float(np.sqrt(np.mean(np.square(residuals))))


def mae(model: Factors, R: Any, *, missing: str | None = None, duplicates: str = "raise") -> float:
    r"""Return the mean absolute error :math:`\sum |r - \hat r| / n` of R.

    Parameters
    ----------
    model, R, missing, duplicates
        As for :func:`rmse`.
    """
    residuals, _ = _residuals(model, R, missing, duplicates)
    return float(np.mean(np.abs(residuals)))


def r2(model: Factors, R: Any, *, missing: str | None = None, duplicates: str = "raise") -> float:
    r"""Return the share of the ratings' variance that the model predicts.

    It is :math:`1 - \sum (r - \hat r)^2 / \sum (r - \bar r)^2`. If all ratings are the same, it is 1 if the
    model predicts them exactly, else 0.

    Parameters
    ----------
    model, R, missing, duplicates
        As for :func:`rmse`.
    """
    residuals, values = _residuals(model, R, missing, duplicates)
    error, spread = float(residuals @ residuals), float(np.square(values - values.mean()).sum())
    if spread == 0:
        return float(error == 0)
    return 1 - error / spread


def precision_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    """Return the share of the n best items that are relevant: hits / n.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["precision"]


def recall_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    """Return the share of the relevant items that are among the n best.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["recall"]


def ndcg_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    r"""Return the NDCG: Σ 1 / log₂(place + 1) over the hits, divided by its maximum.

    A relevant item gains 1, any other item 0.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.

    References
    ----------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["ndcg"]


def map_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    """Return the mean average precision of the n best items.

    Each relevant item among the n best counts with the precision at its place, any other relevant item with
    0. The mean is over min(n, number of relevant items).

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["map"]


def mrr_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    """Return the mean reciprocal rank: 1 / place of the best relevant item, 0 beyond the n best.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["mrr"]


def hit_rate_at_n(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> float:
    """Return the share of users with a relevant item among the n best.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, n, relevant=relevant, exclude_seen=exclude_seen)["hit_rate"]


def coverage_at_n(model: Factors, n: int = 10, *, exclude_seen: bool = True) -> float:
    """Return the share of the items that are among the n best of at least one user with ratings.

    Parameters
    ----------
    model
        The model that recommends the items.
    n
        Number of recommended items, at least 1. Default: 10.
    exclude_seen
        Leave out the items that the user rated in training. Default: True.
    """
    plain, found = model.by_position, np.zeros(model.shape[1], np.bool_)
    users = np.flatnonzero(model.known_users)
    for start in range(0, users.size, USERS_PER_CALL):
        items = plain.recommend(users[start : start + USERS_PER_CALL], n, exclude_seen=exclude_seen).items
        found[np.ma.masked_array(items).compressed()] = True
    return float(found.mean()) if found.size else math.nan


def auc(model: Factors, R: Any, *, relevant: float | None = None, exclude_seen: bool = True) -> float:
    """Return how often a relevant item outscores an irrelevant one; ties count 1/2.

    Users for whom all candidates are relevant do not count.

    Parameters
    ----------
    model, R, relevant, exclude_seen
        As for :func:`ranking`.
    """
    return ranking(model, R, relevant=relevant, exclude_seen=exclude_seen)["auc"]


def ranking(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> dict[str, float]:
    """Return all ranking metrics at once, in the time of one of them.

    Parameters
    ----------
    model
        The model that ranks the items.
    R
        Held-out ratings, in any form that :class:`~mfkernel.Ratings` takes. They are matched by id if both
        sides have ids; otherwise they must have the model's shape. Ratings of unknown users or items are left
        out, with a warning.
    n
        Number of recommended items, at least 1. Default: 10.
    relevant
        Lowest rating of a relevant item. Default: all held-out items are relevant, but for dislikes of
        implicit feedback.
    exclude_seen
        Leave out the items that the user rated in training (``model.ratings``), except held-out ones.
        Default: True.

    Returns
    -------
    dict
        "precision", "recall", "ndcg", "map", "mrr", "hit_rate" and "auc". "auc" is nan if all candidates of
        each user are relevant.

    Raises
    ------
    ValueError
        If R does not have the model's shape, or no user has a relevant held-out item. Also if the model was
        saved without the ratings that must be left out.
    """
    figures = per_user(model, R, n, relevant=relevant, exclude_seen=exclude_seen)
    del figures["user"]
    known = ~np.isnan(figures["auc"])
    auc = {"auc": float(figures.pop("auc")[known].mean()) if known.any() else np.nan}
    return {name: float(np.mean(values)) for name, values in figures.items()} | auc


def per_user(
    model: Factors, R: Any, n: int = 10, *, relevant: float | None = None, exclude_seen: bool = True
) -> dict[str, NDArray[Any]]:
    """Return the ranking metrics of each user with relevant held-out items.

    ``pandas.DataFrame(mf.metrics.per_user(model, test))`` makes a table of it.

    Parameters
    ----------
    model, R, n, relevant, exclude_seen
        As for :func:`ranking`.

    Returns
    -------
    dict
        "user", their ids, or row numbers without ids; and one array per metric of :func:`ranking`, all of the
        same length. "auc" is nan if all candidates of the user are relevant.
    """
    n, state = checks.integer("n", n, 1), model.state
    held_out = _held_out(state, R)
    if relevant is None and state.settings.implicit:
        relevant = 0.0
    if relevant is not None:
        held_out = held_out.select(held_out.values >= relevant)
    if held_out.nnz == 0:
        least = "" if relevant is None else f" of at least {relevant:g}"
        raise ValueError(f"R must have a relevant rating{least}, got none")
    users = np.flatnonzero(held_out.user_counts())
    rows = held_out.take_rows(users)
    seen = state.seen(users) if exclude_seen else None
    vectors, _ = state.queries(state, users)
    with default_engine(None) as engine:
        found = rank_held_out(
            vectors,
            state.item_panels(pack_items),
            (rows.indptr, rows.indices),
            engine,
            excluded=None if seen is None else (seen.indptr, seen.indices),
        )
    counts = rows.user_counts()
    share, n = 1 / n, min(n, state.shape[1])  # places beyond the items count as misses
    hits = np.where(found.ranks < n, 1.0, 0.0)
    # each user's relevant items by rank, and the number of relevant items before each
    order = np.lexsort((found.ranks, rows.users))
    before = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], counts)
    ranks = found.ranks[order]
    precisions = np.where(ranks < n, (before + 1) / (ranks + 1), 0.0)
    # each pair of relevant items is counted once, so n (n - 1) / 2 are subtracted
    pairs = counts * (counts - 1) / 2
    others = found.candidates - counts
    above = _sums(found.below + found.equal / 2, rows) - pairs
    known = others > 0
    best = np.minimum.reduceat(found.ranks, rows.indptr[:-1])
    return {
        "user": users if state.users is None else state.users.take(users),
        "precision": _sums(hits, rows) * share,
        "recall": _sums(hits, rows) / counts,
        "ndcg": ndcg(found.ranks, rows.indptr, n),
        "map": _sums(precisions, rows) / np.minimum(counts, n),
        "mrr": np.where(best < n, 1 / (best + 1), 0.0),
        "hit_rate": np.where(best < n, 1.0, 0.0),
        "auc": np.where(known, above / (counts * np.maximum(others, 1)), np.nan),
    }


def _sums(figures: NDArray[np.float64], rows: Ratings) -> NDArray[np.float64]:
    """Sum figures of the ratings per user; each user must have ratings."""
    sums: NDArray[np.float64] = np.add.reduceat(figures, rows.indptr[:-1])
    return sums


def _held_out(state: State, R: Any) -> Ratings:
    """Return held-out ratings in the model's rows and columns; warn if some are unknown."""
    ratings = state.read(R, needs_rating=False, copy=False)
    ratings = encode_targets(match_ratings(ratings, (state.users, state.items), state.shape), state.settings)
    known = keep_within(ratings, state.shape)
    if ratings.nnz and not known.nnz:
        raise ValueError("R must have a rating of a user and an item in the model, got none")
    if known.nnz < ratings.nnz:
        users, items = (
            np.unique(numbers[numbers >= size]).size
            for numbers, size in zip((ratings.users, ratings.items), state.shape, strict=True)
        )
        warnings.warn(
            f"{ratings.nnz - known.nnz:,} of {ratings.nnz:,} held-out ratings are left out, as {users:,} of "
            f"their users and {items:,} of their items are not in the model",
            stacklevel=3,
        )
    return known


def _residuals(
    model: Factors, R: Any, missing: str | None, duplicates: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ratings = model.state.read(R, missing=missing, duplicates=duplicates, copy=False)
    values, predicted = model.expected(ratings)
    values = values.astype(np.float64)
    return values - predicted, values
