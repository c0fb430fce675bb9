"""Move held-out ratings, new ratings and those of new users to a model's rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.frames import is_frame
from mfkernel.data.ids import Vocabulary, union_ids
from mfkernel.data.ratings import Ratings
from mfkernel.data.reading import read_by_id


def are_rows(users: Any) -> bool:
    """Return whether ``users`` are row numbers, rather than ratings of new users."""
    if isinstance(users, tuple):
        return all(np.ndim(u) == 0 for u in users)
    if isinstance(users, Ratings | Mapping) or hasattr(users, "tocsr") or is_frame(users):
        return False
    return np.ndim(users) < 2


def is_one_user(R: Any) -> bool:
    """Return whether R is one user's ratings: {item: rating}, or (items, ratings)."""
    return (isinstance(R, Mapping) and not hasattr(R, "tocsr")) or (isinstance(R, tuple) and len(R) == 2)


def new_user_ratings(
    R: Any,
    n_items: int,
    item_ids: Vocabulary | None,
    dtype: np.dtype[Any],
    *,
    missing: str = "zero",
    duplicates: str = "raise",
    **columns: Any,
) -> Ratings:
    """Return ratings of new users, one row per user, for the model's items.

    Parameters
    ----------
    R
        For one user, ``{item: rating}`` or a pair ``(items, ratings)``. For several users, any form that
        :class:`Ratings` takes, one row per user. Items are ids if the model has them.
    **columns
        ``like`` and ``needs_rating``, as for :func:`read_by_id`.
    """
    if is_one_user(R):
        items, values = (list(R), list(R.values())) if isinstance(R, Mapping) else R
        if item_ids is None:
            items = checks.copy_indices("items", items, n_items, "n_items")
        else:
            items = item_ids.positions("item", items)
        R = np.zeros(items.size, np.int32), items, values, (1, n_items)
    form: dict[str, Any] = {"missing": missing, "duplicates": duplicates, "dtype": dtype}
    ratings = read_by_id(R, None, item_ids, **columns, **form)
    if ratings.items_by_id is not None and item_ids is not None:
        users, n_users = ratings.users_by_id, ratings.n_users
        moved = match_ratings(ratings, (users, item_ids), (n_users, n_items), "ratings")
        unknown = moved.indices >= n_items
        if unknown.any():
            item_ids.positions("item", ratings.items_by_id.ids[ratings.item_counts() > 0])  # names them
        return Ratings(_cut(moved, (n_users, n_items)), user_ids=users, item_ids=item_ids)
    if ratings.n_items > n_items or (ratings.n_items < n_items and not isinstance(R, tuple)):
        raise ValueError(
            f"ratings must have a column for each of the model's {n_items} items, got {ratings.shape}"
        )
    return ratings if ratings.n_items == n_items else ratings.reshaped((ratings.n_users, n_items))


def match_ratings(
    ratings: Ratings,
    ids: tuple[Vocabulary | None, Vocabulary | None],
    shape: tuple[int, int],
    name: str = "R",
    others: str = "the model",
) -> Ratings:
    """Move ratings to the target's rows and columns.

    Rows and columns are matched by id if both sides have ids, else by position.

    Parameters
    ----------
    ratings
        Ratings to move. They may have any shape if both sides have ids.
    ids, shape
        Ids and shape (m, n) of the target.
    name, others
        Names of the ratings and of the target in an error.

    Returns
    -------
    Ratings
        Rows from m on, and columns from n on, are users and items whose ids are not in the target.

    Raises
    ------
    ValueError
        If one side has no ids and the lengths differ, or one has text and the other integers.
    """
    positions, sizes = [], []
    sides = (("user", ratings.users_by_id, ids[0]), ("item", ratings.items_by_id, ids[1]))
    for (kind, own, known), size, wanted in zip(sides, ratings.shape, shape, strict=True):
        if own is None or known is None:
            if size != wanted:
                raise ValueError(
                    f"{name} must have {others}'s shape {shape}, got {ratings.shape}; pass triplets with a "
                    f"shape, or {kind} ids on both sides"
                )
            own = known = None
        _, rows = union_ids(kind, known, own, wanted, size, (others, name))
        positions.append(rows)
        sizes.append(max(wanted, int(rows.max(initial=-1)) + 1))
    if all(np.array_equal(rows, np.arange(size)) for rows, size in zip(positions, shape, strict=True)):
        return ratings
    moved = positions[0][ratings.users], positions[1][ratings.items], ratings.values, tuple(sizes)
    return _with_the_same(ratings, moved)


def keep_within(ratings: Ratings, shape: tuple[int, int]) -> Ratings:
    """Leave out the ratings beyond the m rows and n columns of ``shape``."""
    if ratings.shape == shape:
        return ratings
    return _cut(ratings.select((ratings.users < shape[0]) & (ratings.items < shape[1])), shape)


def _cut(ratings: Ratings, shape: tuple[int, int]) -> Ratings:
    return _with_the_same(ratings, (ratings.users, ratings.items, ratings.values, shape))


def _with_the_same(ratings: Ratings, triplets: tuple[Any, ...]) -> Ratings:
    """Return triplets in the order of some ratings, with their type, weights and times."""
    return Ratings(
        triplets, dtype=ratings.dtype, sample_weight=ratings.weights, timestamps=ratings.timestamps
    )


def merge_ratings(
    old: Ratings, new: Ratings, *, add: bool = False
) -> tuple[Ratings, NDArray[np.intp], NDArray[np.intp]]:
    """Unite old and new ratings; a new rating replaces the old one of its cell, or is added to it.

    Rows are the same if they have the same id, or the same number if neither side has ids. If both have
    times, the later rating replaces the earlier one; if only one has, times are dropped.

    Returns
    -------
    tuple
        All ratings, old rows and columns first; then the positions of the new rows and of the new columns.
    """
    user_ids, users = union_ids("user", old.users_by_id, new.users_by_id, old.n_users, new.n_users)
    item_ids, items = union_ids("item", old.items_by_id, new.items_by_id, old.n_items, new.n_items)
    shape = (
        max(old.n_users, int(users.max(initial=-1)) + 1),
        max(old.n_items, int(items.max(initial=-1)) + 1),
    )
    rows = np.concatenate([old.users, users[new.users]])
    columns = np.concatenate([old.items, items[new.items]])
    values = np.concatenate([old.values, new.values])
    weights = None
    if old.weights is not None or new.weights is not None:
        if add:
            raise ValueError("add must be False if ratings have weights, got True; pass the sums")
        parts = [np.ones(x.nnz, x.dtype) if x.weights is None else x.weights for x in (old, new)]
        weights = np.concatenate(parts)
    times = None
    if old.timestamps is not None and new.timestamps is not None:
        times = np.concatenate([old.timestamps, new.timestamps])
    return (
        Ratings(
            (rows, columns, values, shape),
            duplicates="sum" if add else "last",
            dtype=old.dtype,
            user_ids=user_ids,
            item_ids=item_ids,
            sample_weight=weights,
            timestamps=times,
        ),
        users,
        items,
    )


def add_zero_rows(array: NDArray[Any], n_rows: int) -> NDArray[Any]:
    """Return a copy with ``n_rows`` rows; added rows are zero."""
    result = np.zeros((n_rows, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
