"""Ratings that come after the fit: of strangers, and new ones of known users and items."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel import _checks
from mfkernel._ids import Ids, positions, united
from mfkernel.ratings import Ratings


def is_one_stranger(R: Any) -> bool:
    """Whether R is a mapping of items to ratings, or a pair of items and ratings."""
    return isinstance(R, Mapping) or (isinstance(R, tuple) and len(R) == 2)


def of_strangers(R: Any, n_items: int, item_ids: Ids, dtype: np.dtype[Any]) -> Ratings:
    """Return ratings of strangers, a row each, for the model's items.

    Parameters
    ----------
    R
        ``{item: rating}`` or a pair ``(items, ratings)`` of one stranger; or of several, in any form that
        :class:`Ratings` takes, a row a stranger. Items are column numbers; but a :class:`Ratings` with item
        ids is brought into the order of the model by these.
    """
    if is_one_stranger(R):
        items, values = (list(R), list(R.values())) if isinstance(R, Mapping) else R
        items = _checks.bounded("items", items, n_items, "n_items")
        R = np.zeros(items.size, np.int32), items, values, (1, n_items)
    ratings = R if isinstance(R, Ratings) else None
    if ratings is not None and ratings.item_ids is not None and item_ids is not None:
        places = positions("item", ratings.item_ids, item_ids, np.argsort(item_ids))
        shape = (ratings.n_users, n_items)
        weights = ratings.weights
        users, indices = ratings.users, places[ratings.indices]
        moved = Ratings((users, indices, ratings.values, shape), dtype=dtype, user_ids=ratings.user_ids)
        if weights is None:
            return moved
        return moved.with_values(moved.values, Ratings((users, indices, weights, shape), dtype=dtype).values)
    ratings = Ratings(R, dtype=dtype, copy=False)
    if ratings.n_items > n_items or (ratings.n_items < n_items and not isinstance(R, tuple)):
        raise ValueError(
            f"ratings must have a column for each of the model's {n_items} items, got {ratings.shape}"
        )
    return ratings if ratings.n_items == n_items else ratings.reshaped((ratings.n_users, n_items))


def merged(old: Ratings, new: Ratings) -> tuple[Ratings, NDArray[np.intp], NDArray[np.intp]]:
    """Unite old ratings with new ones, which replace those of the same cells.

    Returns
    -------
    tuple
        All ratings, old rows and columns first; and the places of the new ones' rows and columns. Rows are
        the same if they have the same id, or the same number if neither side has ids.
    """
    user_ids, users = united("user", old.user_ids, new.user_ids, old.n_users, new.n_users)
    item_ids, items = united("item", old.item_ids, new.item_ids, old.n_items, new.n_items)
    shape = (
        max(old.n_users, int(users.max(initial=-1)) + 1),
        max(old.n_items, int(items.max(initial=-1)) + 1),
    )
    rows = np.concatenate([old.users, users[new.users]])
    columns = np.concatenate([old.items, items[new.items]])
    values = np.concatenate([old.values, new.values])
    weights = None
    if old.weights is not None or new.weights is not None:
        parts = [np.ones(x.nnz, x.dtype) if x.weights is None else x.weights for x in (old, new)]
        weights = np.concatenate(parts)
    return (
        Ratings(
            (rows, columns, values, shape),
            duplicates="last",
            dtype=old.dtype,
            user_ids=user_ids,
            item_ids=item_ids,
            sample_weight=weights,
        ),
        users,
        items,
    )


def grown(array: NDArray[Any], n_rows: int) -> NDArray[Any]:
    """Return a copy with so many rows, those beyond the old ones zero."""
    result = np.zeros((n_rows, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
