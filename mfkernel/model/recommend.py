"""Recommendations for users, and the most similar users or items."""

import warnings
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.data.ids import Vocabulary
from mfkernel.engines.threads import default_engine
from mfkernel.linalg.top_n import Csr, Panels, top_n
from mfkernel.methods.objective import prediction
from mfkernel.model.answers import Recommendations
from mfkernel.model.explore import checked_explore, explore_top_n
from mfkernel.model.state import State
from mfkernel.typing import UnknownItems

NO_ITEM = np.iinfo(np.int32).max  # item number under a mask, which is an error as an index

UNKNOWN_ITEMS = get_args(UnknownItems)

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
    exclude: Any = None,
    items: ArrayLike | None,
    unknown: UnknownItems = "raise",
    min_count: int = 0,
    explore: Any = None,
    rng: Any = None,
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
    exclude
        Items to leave out for all users, or one list of them per user.
    items, unknown
        Items to choose from, and whether unknown ones raise an error. Default: all.
    min_count
        Least number of training ratings of an item.
    explore, rng
        How uncertain items are preferred, as for :func:`explore_top_n`. Default: not at all.
    one
        Whether the answer is for a single user.
    """
    allowed = None
    if items is not None:
        allowed = np.zeros(state.shape[1], np.bool_)
        allowed[_known_columns(state, items, unknown)] = True
    if min_count:
        if state.ratings is None:
            raise ValueError(
                f"min_count must be 0 if the model has no training ratings, got {min_count}; save the model "
                "with ratings=True"
            )
        enough = state.ratings.item_counts() >= min_count
        allowed = enough if allowed is None else allowed & enough
    excluded = None
    if exclude_seen:
        seen = asked.seen(rows)
        excluded = seen.indptr, seen.indices
    if exclude is not None:
        excluded = _with_excluded(state, excluded, exclude, rows.size)
    users = _ids_of(asked.users, rows)
    if explore is not None:
        arguments = state, asked, rows, n, checked_explore(explore), np.random.default_rng(rng)
        found = explore_top_n(*arguments, excluded=excluded, allowed=allowed)
        return _answer(users, found.items, found.scores, one, state.items)
    X, only = state.queries(asked, rows)
    panels = state.item_panels(pack)
    with default_engine(n_threads) as engine:
        found = top_n(X, panels, n, engine, excluded=excluded, allowed=allowed)
    scores = np.where(np.isnan(only)[:, None], found.scores, only[:, None])
    return _answer(users, found.items, prediction(scores, state.settings.loss), one, state.items)


def _with_excluded(state: State, excluded: Csr | None, exclude: Any, n_rows: int) -> Csr:
    """Add the items to leave out, of all users or per user, to those that users have seen."""
    lists = list(exclude) if np.iterable(exclude) and not isinstance(exclude, str) else [exclude]
    per_user = bool(lists) and all(np.iterable(x) and not isinstance(x, str | bytes) for x in lists)
    if per_user and len(lists) != n_rows:
        raise ValueError(f"exclude must be one list of items, or one per user, {n_rows}, got {len(lists)}")
    columns = [state.columns(x, "exclude", unknown="default") for x in (lists if per_user else [lists])]
    columns *= 1 if per_user else n_rows
    cells = [(row, x.reshape(-1)) for row, x in enumerate(columns)]
    rows = np.concatenate([np.full(x.size, row) for row, x in cells] or [np.empty(0, np.int64)])
    items = np.concatenate([x for _, x in cells] or [np.empty(0, np.int64)]).astype(np.int64)
    known = items < state.shape[1]
    rows, items = rows[known], items[known]
    if excluded is not None:
        rows = np.concatenate([rows, np.repeat(np.arange(n_rows), np.diff(excluded[0]))])
        items = np.concatenate([items, excluded[1]])
    cells_left = np.unique(rows * max(1, state.shape[1]) + items)
    rows, items = np.divmod(cells_left, max(1, state.shape[1]))
    return np.searchsorted(rows, np.arange(n_rows + 1)), items.astype(np.int32)


def _known_columns(state: State, items: Any, unknown: UnknownItems) -> NDArray[Any]:
    """Return the columns of items; leave out unknown ones, with a warning, if ``unknown`` is "ignore"."""
    checks.one_of("unknown", unknown, UNKNOWN_ITEMS)
    if unknown == "raise":
        return state.columns(items)
    columns = state.columns(items, unknown="default")
    known = columns < state.shape[1]
    if not known.all():
        warnings.warn(
            f"{int((~known).sum()):,} of {columns.size:,} items are left out, as they are not in the model",
            stacklevel=4,
        )
    return columns[known]


def similar(
    rows: NDArray[Any],
    name: str,
    ids: Vocabulary | None,
    n: int,
    X: NDArray[Any],
    known: NDArray[np.bool_],
    pack: Pack,
) -> Recommendations:
    """Find the n known rows of X with the greatest cosines to each of some rows.

    Errors call these rows ``name``. The answer has the ids of the rows if there are ``ids``.
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
    found_rows = np.where(known[asked, None], found.items, -1)
    return _answer(_ids_of(ids, asked), found_rows, found.scores, rows.ndim == 0, ids)


def _answer(
    asked: NDArray[Any], items: NDArray[np.int32], scores: NDArray[Any], one: bool, ids: Vocabulary | None
) -> Recommendations:
    """Leave out missing items: cut the answer for one row, mask it for several."""
    missing = items < 0
    if one:
        left = ~missing[0]
        return Recommendations.of(asked, _ids_of(ids, items[0][left]), scores[0][left])
    if ids is None:
        fill: Any = NO_ITEM
        named = np.where(missing, fill, items)
    else:
        named = _ids_of(ids, np.where(missing, 0, items)) if len(ids) else np.empty(items.shape, np.int64)
        fill = "" if ids.is_text else np.iinfo(named.dtype).max
        named[missing] = fill
    return Recommendations.of(
        asked,
        np.ma.array(named, mask=missing, fill_value=fill),
        np.ma.array(scores, mask=missing, fill_value=np.nan),
    )


def _ids_of(ids: Vocabulary | None, positions: NDArray[Any]) -> NDArray[Any]:
    """Return the ids at these positions; without ids, the positions."""
    return positions if ids is None else ids.take(positions)
