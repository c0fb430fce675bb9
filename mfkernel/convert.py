"""From whatever holds ratings to one canonical CSR matrix: rows sorted by column, no duplicates, checked."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel import _checks
from mfkernel._machine import available_memory

DUPLICATES = ("raise", "sum", "mean", "last")
MISSING = ("zero", "nan")


class Csr(NamedTuple):
    """A CSR matrix whose rows are sorted and hold each column at most once."""

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    shape: tuple[int, int]


def to_csr(R: Any, missing: str, duplicates: str, dtype: np.dtype[Any] | None, copy: bool) -> Csr:
    """Convert a dense array, a scipy.sparse matrix or a tuple of triplets.

    Without ``copy`` the result may share memory with a canonical CSR matrix; all other forms are copied.
    """
    if isinstance(R, tuple):
        if len(R) not in (3, 4):
            raise TypeError(
                "triplets must be (users, items, values) or (users, items, values, shape), "
                f"got a tuple of {len(R)}"
            )
        return from_triplets(*R, duplicates=duplicates, dtype=dtype)
    if hasattr(R, "format") and hasattr(R, "tocoo"):
        return _from_sparse(R, duplicates, dtype, copy)
    return _from_dense(R, missing, dtype)


def from_triplets(
    users: Any,
    items: Any,
    values: Any,
    shape: Any = None,
    *,
    duplicates: str = "raise",
    dtype: np.dtype[Any] | None = None,
    names: tuple[str, str] = ("users", "items"),
    place: Callable[[int], str] = "values[{}]".format,
) -> Csr:
    """Convert three arrays, the n-th rating being ``values[n]`` of user ``users[n]`` for item ``items[n]``.

    Without a shape, m and n are the largest numbers plus one. Two counting sorts, by item and then by user,
    both of which keep duplicates in the order in which they came.
    """
    from mfkernel.kernels.csr import group

    n_users, n_items = (None, None) if shape is None else _shape(shape)
    masked = np.ma.getmask(values)
    users, items, values = np.asarray(users), np.asarray(items), np.asarray(values)
    if not (users.ndim == 1 and users.shape == items.shape == values.shape):
        shapes = f"{users.shape}, {items.shape} and {values.shape}"
        raise ValueError(f"users, items and values must be 1-D and of one length, got the shapes {shapes}")
    if masked is not np.ma.nomask:
        users, items, values = users[~masked], items[~masked], values[~masked]
    users = _checks.bounded(names[0], users, n_users, "n_users")
    items = _checks.bounded(names[1], items, n_items, "n_items")
    values = _values(values, dtype, place)
    if n_users is None or n_items is None:
        n_users, n_items = (int(x.max()) + 1 if x.size else 0 for x in (users, items))
    _check_memory(n_users, n_items)
    users, items = _index_array(users, n_users), _index_array(items, n_items)
    by_item = Csr(
        np.zeros(n_items + 1, np.int64), np.empty_like(users), np.empty_like(values), (n_items, n_users)
    )
    group(items, users, frozen(values), by_item.indptr, by_item.indices, by_item.values)
    return _merge_duplicates(transposed(by_item), duplicates)


def transposed(csr: Csr) -> Csr:
    """Transpose in linear time; the rows need not be sorted, but those of the result are."""
    from mfkernel.kernels.csr import transpose

    m, n = csr.shape
    result = Csr(
        np.zeros(n + 1, np.int64),
        np.empty(csr.indices.size, index_dtype(m)),
        np.empty_like(csr.values),
        (n, m),
    )
    transpose(
        frozen(csr.indptr),
        frozen(csr.indices),
        frozen(csr.values),
        result.indptr,
        result.indices,
        result.values,
    )
    return result


def row_numbers(indptr: NDArray[np.int64]) -> NDArray[Any]:
    """Return the row of each entry."""
    m = indptr.size - 1
    return np.repeat(np.arange(m, dtype=index_dtype(m)), np.diff(indptr))


def index_dtype(count: int) -> type[np.signedinteger[Any]]:
    """Return int32 where it is wide enough for numbers below ``count``, else int64."""
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def _check_memory(n_users: int, n_items: int) -> None:
    """Refuse numbers so large that they must be ids: rows and columns take memory even if they are empty."""
    size, free = 24 * (n_users + n_items), available_memory()
    if free is not None and size > free:
        raise MemoryError(
            f"{n_users:,} rows and {n_items:,} columns take {size / 2**30:,.1f} GiB before any factor, but "
            f"only {free / 2**30:,.1f} GiB is free; np.unique(ids, return_inverse=True) numbers ids from 0"
        )


def _from_dense(R: Any, missing: str, dtype: np.dtype[Any] | None) -> Csr:
    masked = np.ma.getmaskarray(R) if isinstance(R, np.ma.MaskedArray) else None
    try:
        array = np.asarray(R)
        given = f"{type(R).__name__} of {array.ndim} dimensions"
    except ValueError:
        array, given = np.empty(0), f"{type(R).__name__} with rows of several lengths"
    if array.ndim != 2:
        raise TypeError(
            "R must be a 2-D array, a scipy.sparse matrix, a tuple (users, items, values) "
            f"or mf.Ratings, got {given}"
        )
    _checks.numeric("R", array)
    known = ~np.isnan(array)
    if missing == "zero":
        known &= array != 0
    if masked is not None:
        known &= ~masked
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(known, axis=1))])
    columns = np.flatnonzero(known) % max(1, array.shape[1])
    values = _values(array[known], dtype, partial(_cell, indptr, columns))
    return Csr(indptr, _index_array(columns, array.shape[1]), values, array.shape)


def _from_sparse(R: Any, duplicates: str, dtype: np.dtype[Any] | None, copy: bool) -> Csr:
    """Convert any of scipy's seven formats; stored entries are ratings, explicit zeros too.

    DIA and blocks of BSR store zeros only to fill up, so that there a zero is unknown.
    """
    if len(R.shape) != 2:
        raise TypeError(f"R must have 2 dimensions, got a sparse array of shape {R.shape}")
    _checks.numeric("R", R)
    if R.format == "csr":
        _check_compressed(R, R.shape, ("n_users", "n_items"))
        if _is_canonical(R.indptr, R.indices):
            values = _values(R.data[: R.indices.size], dtype, partial(_cell, R.indptr, R.indices))
            indptr = np.ascontiguousarray(R.indptr, dtype=np.int64)
            arrays = (indptr, _index_array(R.indices, R.shape[1]), values)
            pairs = zip(arrays, (R.indptr, R.indices, R.data), strict=True)
            own = [x.copy() if copy and np.may_share_memory(x, y) else x for x, y in pairs]
            return Csr(own[0], own[1], own[2], R.shape)
        rows = row_numbers(R.indptr)
        triplets = rows, R.indices[: rows.size], R.data[: rows.size]
    elif R.format == "csc":
        _check_compressed(R, R.shape[::-1], ("n_items", "n_users"))
        columns = row_numbers(R.indptr)
        triplets = R.indices[: columns.size], columns, R.data[: columns.size]
    else:
        triplets = _coo_triplets(R)
    users, items, values = triplets
    return from_triplets(
        users,
        items,
        values,
        R.shape,
        duplicates=duplicates,
        dtype=dtype,
        names=("R.row", "R.col"),
        place=lambda n: f"R[{users[n]}, {items[n]}]",
    )


def _coo_triplets(R: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    try:
        coo = R.tocoo(copy=False)
    except (IndexError, ValueError) as error:
        raise ValueError(f"R is a damaged {R.format} matrix: {error}") from error
    if R.format == "bsr" and R.blocksize != (1, 1):
        known = coo.data != 0
        return coo.row[known], coo.col[known], coo.data[known]
    return coo.row, coo.col, coo.data


def _check_compressed(R: Any, shape: tuple[int, int], names: tuple[str, str]) -> None:
    """Refuse CSR or CSC arrays that point outside: scipy takes them, a kernel would read wild memory."""
    for name in ("indptr", "indices", "data"):
        array = getattr(R, name)
        if array.ndim != 1 or (name != "data" and array.dtype.kind not in "iu"):
            kind = "1-D" if name == "data" else "1-D integers"
            raise ValueError(f"R.{name} must be {kind}, got the shape {array.shape} and dtype {array.dtype}")
    indptr = R.indptr
    if indptr.size != shape[0] + 1 or indptr[0] != 0:
        raise ValueError(
            f"R.indptr must start with 0 and have {names[0]} + 1 = {shape[0] + 1} entries, "
            f"got {indptr.size} from {indptr[:1]}"
        )
    if (falls := indptr[1:] < indptr[:-1]).any():
        place = int(falls.argmax())
        raise ValueError(
            f"R.indptr[{place + 1}] = {indptr[place + 1]} is less than R.indptr[{place}] = {indptr[place]}"
        )
    nnz = min(R.indices.size, R.data.size)
    if indptr[-1] > nnz:
        raise ValueError(f"R.indptr ends at {indptr[-1]} but R has {nnz} stored entries")
    _checks.bounded("R.indices", R.indices[: indptr[-1]], shape[1], names[1])


def _is_canonical(indptr: NDArray[Any], indices: NDArray[Any]) -> bool:
    """Whether every row is sorted by column, without duplicates and without entries left over."""
    if indices.size != indptr[-1]:
        return False
    rises = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    rises[starts[(starts > 0) & (starts < indices.size)] - 1] = True
    return bool(rises.all())


def _merge_duplicates(csr: Csr, duplicates: str) -> Csr:
    """Apply the policy for a user who rated an item more than once; equal entries are neighbours here."""
    indptr, indices, values, shape = csr
    again = np.empty(indices.size, np.bool_)
    again[:1] = False
    np.equal(indices[1:], indices[:-1], out=again[1:])
    again[indptr[:-1][indptr[:-1] < indices.size]] = False
    count = int(np.count_nonzero(again))
    if count == 0:
        return csr
    if duplicates == "raise":
        place = int(again.argmax())
        user = int(np.searchsorted(indptr, place, side="right")) - 1
        raise ValueError(
            f"{count} duplicate ratings (the first of user {user} for item {indices[place]}); "
            "pass duplicates='sum', 'mean' or 'last'"
        )
    firsts = np.flatnonzero(~again)
    if duplicates == "last":
        merged = values[np.append(firsts[1:], indices.size) - 1]
    else:
        merged = np.add.reduceat(values, firsts, dtype=np.float64)
        if duplicates == "mean":
            merged /= np.diff(np.append(firsts, indices.size))
        cell = partial(_cell, np.searchsorted(firsts, indptr), indices[firsts])
        merged = _checks.cast(merged, values.dtype, lambda n: f"the {duplicates} of the duplicates {cell(n)}")
    return Csr(np.searchsorted(firsts, indptr), indices[firsts], merged, shape)


def _shape(shape: Any) -> tuple[int, int]:
    try:
        m, n = shape
    except (TypeError, ValueError):
        raise TypeError(f"shape must be (n_users, n_items), got {shape!r}") from None
    return _checks.integer("n_users in shape", m, 0), _checks.integer("n_items in shape", n, 0)


def _cell(indptr: NDArray[Any], indices: NDArray[Any], n: int) -> str:
    """Name the place of entry n of a CSR matrix."""
    return f"R[{int(np.searchsorted(indptr, n, side='right')) - 1}, {indices[n]}]"


def _values(values: NDArray[Any], dtype: np.dtype[Any] | None, place: Callable[[int], str]) -> NDArray[Any]:
    """Check ratings and make them float32 or float64: as asked, else float32 where that loses nothing."""
    if values.size == 0 and values.dtype.kind not in "iuf":
        values = values.astype(np.float32)
    _checks.numeric("values", values)
    _checks.finite(values, place)
    if dtype is None:
        exact = np.can_cast(values.dtype.newbyteorder("="), np.float32, "safe")
        dtype = np.dtype(np.float32 if exact else np.float64)
    return _checks.cast(values, dtype, place)


def _index_array(numbers: NDArray[Any], count: int) -> NDArray[Any]:
    """Return checked numbers below ``count`` as a native array."""
    return frozen(np.ascontiguousarray(numbers, dtype=index_dtype(count)))


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: nothing can be changed through it, and kernels meet one type of array."""
    view = array.view()
    view.flags.writeable = False
    return view
