"""Recommendations for users, and the most similar users or items."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.engines.threads import default_engine
from mfkernel.linalg.top_n import Panels, Recommendations, top_n
from mfkernel.methods.objective import prediction
from mfkernel.model.state import State

NO_ITEM = np.iinfo(np.int32).max  # item number under a mask, which is an error as an index

Pack = Callable[[NDArray[Any]], Panels]


def recommend(
    state: State,
    asked: State,
    rows: NDArray[Any],
    n: int,
    n_threads: int | None,
    pack: Pack,
    *,
    exclude_seen: bool,
    items: ArrayLike | None,
    one: bool,
) -> Recommendations:
    """Find the n items of ``state`` with the highest predictions for some users.

    Parameters
    ----------
    asked, rows
        The model of the users, ``state`` or one that was folded in, and their rows in it.
    n_threads
        Number of threads. Default: one per core.
    pack
        Function that lays out the vectors of items, such as :func:`pack_items`.
    items
        Column numbers to choose from. Default: all.
    one
        Whether the answer is for a single user.
    """
    X, only = state.queries(asked, rows)
    allowed = None
    if items is not None:
        allowed = np.zeros(state.shape[1], np.bool_)
        allowed[state.columns(items)] = True
    excluded = None
    if exclude_seen:
        seen = asked.seen(rows)
        excluded = seen.indptr, seen.indices
    panels = state.item_panels(pack)
    with default_engine(n_threads) as engine:
        found = top_n(X, panels, n, engine, excluded=excluded, allowed=allowed)
    scores = np.where(np.isnan(only)[:, None], found.scores, only[:, None])
    return _answer(found.items, prediction(scores, state.settings.loss), one)


def similar(
    rows: NDArray[Any],
    name: str,
    n: int,
    X: NDArray[Any],
    known: NDArray[np.bool_],
    pack: Pack,
) -> Recommendations:
    """Find the n known rows of X with the greatest cosines to each of some rows.

    Errors call these rows ``name``.
    """
    n = checks.integer("n", n, 1)
    if rows.ndim > 1:
        raise ValueError(f"{name} must be a number or a 1-D array, got the shape {rows.shape}")
    largest = np.abs(X).max(axis=1, keepdims=True, initial=0)
    Y = X / np.where(largest > 0, largest, 1)  # the squares now neither overflow nor vanish
    lengths = np.linalg.norm(Y, axis=1, keepdims=True)
    Y = np.ascontiguousarray(Y / np.where(lengths > 0, lengths, 1))
    known = known & (lengths[:, 0] > 0)
    asked = rows.reshape(-1)
    itself = np.arange(asked.size + 1), asked.astype(np.int32)
    with default_engine(None) as engine:  # its threads hold copies of Y until they end
        found = top_n(Y[asked], pack(Y), n, engine, excluded=itself, allowed=known)
    return _answer(np.where(known[asked, None], found.items, -1), found.scores, rows.ndim == 0)


def _answer(items: NDArray[np.int32], scores: NDArray[Any], one: bool) -> Recommendations:
    """Leave out missing items: cut the answer for one row, mask it for several."""
    missing = items < 0
    if one:
        return Recommendations(items[0][~missing[0]], scores[0][~missing[0]])
    items = np.where(missing, NO_ITEM, items)
    return Recommendations(
        np.ma.array(items, mask=missing, fill_value=NO_ITEM),
        np.ma.array(scores, mask=missing, fill_value=np.nan),
    )
