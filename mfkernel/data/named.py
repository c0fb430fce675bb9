"""Number the ids of triplets and of data frames."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data import frames
from mfkernel.data.files.numbering import Codes, number_integers
from mfkernel.data.frames import Named
from mfkernel.data.ids import as_ids


def number_ids(R: Any, by_id: tuple[bool, bool] = (False, False), **form: Any) -> Any:
    """Return ratings whose rows and columns are numbered: triplets with ids, frames, arrays of xarray.

    Parameters
    ----------
    R
        Ratings in any form. Other forms than these, and triplets with a shape, are returned as they are.
    by_id
        Whether integers in triplets are ids, of users and of items. Text is always an id.
    **form
        How a frame is read, as for :func:`frames.read`.
    """
    if frames.is_frame(R):
        return number_frame(R, **form)
    if type(R).__module__.startswith("xarray.") and getattr(R, "ndim", 0) == 2:
        rows, columns = (R.coords[side].to_numpy() if side in R.coords else None for side in R.dims)
        return Named(R.to_numpy(), rows, columns)
    if type(R) is not tuple or len(R) != 3:
        return R
    sides: list[Any] = list(R)
    ids: list[Any] = [None, None]
    for side, name in enumerate(("users", "items")):
        if by_id[side] or _is_text(R[side]):
            ids[side], sides[side] = number(as_ids(name, R[side]))
    if all(known is None for known in ids):
        return R
    shape = tuple(_size(side, known) for side, known in zip(sides, ids, strict=False))
    return Named((*sides, shape), *ids)


def number_frame(frame: Any, **columns: Any) -> Named:
    """Return the ratings of a frame, see :func:`frames.read`, with its ids or labels."""
    read = frames.read(frame, **columns)
    if isinstance(read, Named):
        return read
    users, items = (
        (column.ids, column.codes) if column.ids is not None else number(as_ids(column.name, column.codes))
        for column in (read.users, read.items)
    )
    shape = len(users[0]), len(items[0])
    triplets = users[1], items[1], read.values, shape
    return Named(triplets, users[0], items[0], read.timestamps, read.origin)


def number(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct ids, sorted, and the position of each id among them."""
    if ids.ndim == 1 and ids.dtype == np.int64:
        return number_integers([Codes(ids)])
    return np.unique(ids, return_inverse=True)


def _is_text(side: Any) -> bool:
    """Return whether users or items of triplets are text."""
    if isinstance(side, np.ndarray) and side.dtype.kind in "iufb":
        return False
    first = next(iter(side), None) if np.iterable(side) else None
    return isinstance(first, str | bytes)


def _size(side: Any, ids: Any) -> int:
    """Return the number of rows of one side of triplets."""
    if ids is not None:
        return len(ids)
    numbers = np.asarray(side)
    return max(0, int(numbers.max()) + 1) if numbers.size and numbers.dtype.kind in "iu" else 0
