"""Convert ratings to a checked, canonical CSR matrix: sorted rows, no duplicates."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import readonly
from mfkernel.data import grouping
from mfkernel.data.duplicates import DuplicateError, by_id
from mfkernel.data.tables import refuse_table_of_triplets
from mfkernel.engines.resources import available_memory
from mfkernel.engines.threads import interruptible

DUPLICATES = ("raise", "sum", "mean", "last")
MISSING = ("zero", "nan")

NUMBERING_REMEDY = (
    "user_ids, users = np.unique(ids, return_inverse=True) numbers ids; with mf.Ratings((users, items, "
    "values), user_ids=user_ids, item_ids=item_ids), the model takes and returns the ids"
)


class Csr(NamedTuple):
    """A CSR matrix whose rows are sorted and have each column at most once."""

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    shape: tuple[int, int]


def to_csr(
    R: Any,
    missing: str,
    duplicates: str,
    dtype: np.dtype[Any] | None,
    copy: bool,
    times: NDArray[np.float64] | None = None,
) -> Csr:
    """Convert a dense array, a scipy.sparse matrix or a tuple of triplets, which may have times.

    The checks run on a copy, so that a kernel never sees numbers that another thread has changed. Without
    ``copy``, the result may share the values of a canonical CSR matrix.
    """
    if isinstance(R, tuple):
        if len(R) not in (3, 4):
            raise TypeError(
                "triplets must be (users, items, values) or (users, items, values, shape), "
                f"got a tuple of {len(R)}"
            )
        return from_triplets(*R, duplicates=duplicates, dtype=dtype, times=times)
    if hasattr(R, "format") and hasattr(R, "tocoo"):
        return _from_sparse(R, duplicates, dtype, copy)
    refuse_table_of_triplets(R)
    return _from_dense(R, missing, dtype)


def to_csr_of_ids(
    R: Any,
    missing: str,
    duplicates: str,
    dtype: np.dtype[Any] | None,
    copy: bool,
    user_ids: Any,
    item_ids: Any,
    times: NDArray[np.float64] | None = None,
) -> Csr:
    """Convert ratings as :func:`to_csr` does; an error for duplicates names their ids."""
    try:
        return interruptible(lambda: to_csr(R, missing, duplicates, dtype, copy, times))
    except DuplicateError as error:
        raise by_id(error, user_ids, item_ids) from None


def from_triplets(
    users: Any,
    items: Any,
    values: Any,
    shape: Any = None,
    *,
    duplicates: str = "raise",
    dtype: np.dtype[Any] | None = None,
    names: tuple[str, str] = ("users", "items"),
    label: Callable[[int], str] = "values[{}]".format,
    times: NDArray[np.float64] | None = None,
) -> Csr:
    """Convert triplets: user ``users[n]`` rates item ``items[n]`` with ``values[n]``.

    Without a shape, m and n are the largest numbers plus one. Masked entries are left out. Duplicates
    keep the order in which they came, or with ``times`` (nnz,) that of their times.
    """
    n_users, n_items = (None, None) if shape is None else check_shape(shape)
    masked = [np.ma.getmask(x) for x in (users, items, values)]
    users, items, values = np.asarray(users), np.asarray(items), np.asarray(values)
    if not (users.ndim == 1 and users.shape == items.shape == values.shape):
        shapes = f"{users.shape}, {items.shape} and {values.shape}"
        raise ValueError(f"users, items and values must be 1-D and of one length, got the shapes {shapes}")
    if times is not None and times.shape != users.shape:
        raise ValueError(f"timestamps must have one time per rating, {users.size}, got {times.size}")
    if any(mask is not np.ma.nomask for mask in masked):
        known = ~np.logical_or.reduce(np.broadcast_arrays(*masked, users)[:3])
        users, items, values = users[known], items[known], values[known]
        times = None if times is None else times[known]
    users, n_users = _copy_indices(names[0], users, n_users, "n_users")
    items, n_items = _copy_indices(names[1], items, n_items, "n_items")
    values = _copy_values(values, dtype, label)
    _check_memory(n_users, n_items)
    if times is not None and (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
        users, items, values = users[order], items[order], values[order]
    triplets = [users, items, values]
    del users, items, values
    return from_own_triplets(triplets, (n_users, n_items), duplicates)


def from_own_triplets(triplets: list[NDArray[Any]], shape: tuple[int, int], duplicates: str) -> Csr:
    """Convert checked triplets that no other object uses.

    The list is emptied, so that their memory is free while the matrix takes its own.
    """
    from mfkernel.kernels.csr import count, is_sorted

    n_users, n_items = shape
    users, items, values = triplets
    triplets.clear()
    if not is_sorted(readonly(users)):
        by_item = Csr(*grouping.grouped(items, users, values, n_items), (n_items, n_users))
        del users, items, values
        return _merge_duplicates(transpose_csr(by_item), duplicates)
    indptr = np.zeros(n_users + 1, np.int64)
    count(readonly(users), indptr[1:])
    np.cumsum(indptr, out=indptr)
    del users
    return _canonical(Csr(indptr, items, values, (n_users, n_items)), duplicates)


def of_triplets(
    numbers: NDArray[Any], R: tuple[Any, ...], csr: Csr, duplicates: str, times: NDArray[np.float64] | None
) -> NDArray[Any]:
    """Return float64 numbers of triplets, (nnz,), in the order of the matrix ``csr`` that they became."""
    masked = np.ma.getmask(R[2])
    given = numbers if masked is np.ma.nomask else np.ma.array(numbers, mask=masked)
    return to_csr((*R[:2], given, csr.shape), "zero", duplicates, np.dtype(np.float64), True, times).values


def transpose_csr(csr: Csr) -> Csr:
    """Transpose in linear time; the rows need not be sorted, but those of the result are."""
    m, n = csr.shape
    return Csr(*grouping.transposed(*csr[:3], n, index_dtype(m)), (n, m))


def row_numbers(indptr: NDArray[np.int64]) -> NDArray[Any]:
    """Return the row of each entry."""
    m = indptr.size - 1
    return np.repeat(np.arange(m, dtype=index_dtype(m)), np.diff(indptr))


def index_dtype(count: int) -> type[np.signedinteger[Any]]:
    """Return int32 if it holds all numbers below ``count``, else int64."""
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def exact_dtype(values: NDArray[Any]) -> type[np.floating[Any]]:
    """Return float32 if it holds all these numbers exactly, else float64."""
    if values.dtype == np.float32:
        return np.float32
    if values.dtype.kind not in "iuf":
        return np.float64
    with np.errstate(over="ignore"):
        exact = bool((values.astype(np.float32) == values).all())
    return np.float32 if exact else np.float64


def _check_memory(n_users: int, n_items: int) -> None:
    """Refuse more rows and columns than fit in memory; empty ones also take memory."""
    size, free = 24 * (n_users + n_items), available_memory()
    if free is not None and size > free:
        raise MemoryError(
            f"R must fit in {free / 2**30:,.1f} GiB of free memory, got {n_users:,} rows and {n_items:,} "
            f"columns, which take {size / 2**30:,.1f} GiB before any factor; if these are ids, "
            f"{NUMBERING_REMEDY}"
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
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"R must hold real numbers, got dtype {array.dtype}; if its rows are ratings, pass triplets "
            f"(users, items, values), where {NUMBERING_REMEDY}"
        )
    known = ~np.isnan(array)
    if missing == "zero":
        known &= array != 0
    if masked is not None:
        known &= ~masked
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(known, axis=1))])
    columns = np.flatnonzero(known) % max(1, array.shape[1])
    values = _copy_values(array[known], dtype, partial(_cell, indptr, columns))
    return Csr(indptr, columns.astype(index_dtype(array.shape[1])), values, array.shape)


def _from_sparse(R: Any, duplicates: str, dtype: np.dtype[Any] | None, copy: bool) -> Csr:
    """Convert any of SciPy's seven formats; all stored entries are ratings.

    Explicit zeros also count as ratings. DIA and the blocks of BSR store zeros only as padding, so a zero is
    unknown in these formats.
    """
    if len(R.shape) != 2:
        raise TypeError(f"R must have 2 dimensions, got a sparse array of shape {R.shape}")
    checks.numeric("R", R)
    if R.format == "csr":
        csr = _compressed(R, R.shape, ("n_users", "n_items"), _cell, dtype, copy)
        return _canonical(csr, duplicates)
    if R.format == "csc":
        by_item = _compressed(R, R.shape[::-1], ("n_items", "n_users"), _cell_of_transpose, dtype, copy)
        return _merge_duplicates(transpose_csr(by_item), duplicates)
    users, items, values = _coo_triplets(R)
    return from_triplets(
        users,
        items,
        values,
        R.shape,
        duplicates=duplicates,
        dtype=dtype,
        names=("R.row", "R.col"),
        label=lambda n: f"R[{users[n]}, {items[n]}]",
    )


def _coo_triplets(R: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    try:
        coo = R.tocoo(copy=False)
    except (IndexError, ValueError) as error:
        raise ValueError(f"R must be a valid {R.format} matrix, got a damaged one: {error}") from error
    if R.format == "bsr" and R.blocksize != (1, 1):
        known = coo.data != 0
        return coo.row[known], coo.col[known], coo.data[known]
    return coo.row, coo.col, coo.data


def _compressed(
    R: Any,
    shape: tuple[int, int],
    names: tuple[str, str],
    cell: Callable[[NDArray[Any], NDArray[Any], int], str],
    dtype: np.dtype[Any] | None,
    copy: bool,
) -> Csr:
    """Copy CSR or CSC arrays and check the copies; SciPy accepts indices out of range."""
    arrays = R.indptr, R.indices, R.data  # read once, because another thread may replace them
    for name, array in zip(("indptr", "indices", "data"), arrays, strict=True):
        if array.ndim != 1 or (name != "data" and array.dtype.kind not in "iu"):
            kind = "1-D" if name == "data" else "1-D integers"
            raise ValueError(f"R.{name} must be {kind}, got the shape {array.shape} and dtype {array.dtype}")
    _check_memory(*shape)
    indptr = np.array(arrays[0], np.int64)
    if indptr.size != shape[0] + 1 or indptr[0] != 0:
        raise ValueError(
            f"R.indptr must start with 0 and have {names[0]} + 1 = {shape[0] + 1} entries, "
            f"got {indptr.size} from {indptr[:1]}"
        )
    if (falls := indptr[1:] < indptr[:-1]).any():
        row = int(falls.argmax())
        raise ValueError(
            f"R.indptr must not decrease, got R.indptr[{row + 1}] = {indptr[row + 1]} after {indptr[row]}"
        )
    nnz = min(arrays[1].size, arrays[2].size)
    if indptr[-1] > nnz:
        raise ValueError(f"R.indptr must end at or below {nnz}, the stored entries, got {indptr[-1]}")
    nnz = int(indptr[-1])
    indices, _ = _copy_indices("R.indices", arrays[1][:nnz], shape[1], names[1])
    values = _copy_values(arrays[2][:nnz], dtype, partial(cell, indptr, indices), copy)
    return Csr(indptr, indices, values, shape)


def _canonical(csr: Csr, duplicates: str) -> Csr:
    """Sort the rows where they are not, and merge duplicates."""
    from mfkernel.kernels.csr import is_canonical

    if is_canonical(readonly(csr.indptr), readonly(csr.indices)):
        return csr
    return _merge_duplicates(transpose_csr(transpose_csr(csr)), duplicates)


def _merge_duplicates(csr: Csr, duplicates: str) -> Csr:
    """Apply the policy for a user who rated an item more than once; equal entries are neighbours here."""
    from mfkernel.kernels.csr import is_canonical

    if is_canonical(readonly(csr.indptr), readonly(csr.indices)):
        return csr
    indptr, indices, values, shape = csr
    repeated = np.empty(indices.size, np.bool_)
    repeated[:1] = False
    np.equal(indices[1:], indices[:-1], out=repeated[1:])
    repeated[indptr[:-1][indptr[:-1] < indices.size]] = False
    count = int(np.count_nonzero(repeated))
    if duplicates == "raise":
        entry = int(repeated.argmax())
        user = int(np.searchsorted(indptr, entry, side="right")) - 1
        raise DuplicateError(count, user, int(indices[entry]))
    firsts = np.flatnonzero(~repeated)
    if duplicates == "last":
        merged = values[np.append(firsts[1:], indices.size) - 1]
    else:
        with np.errstate(over="ignore"):  # infinite sums are refused below
            merged = np.add.reduceat(values, firsts, dtype=np.float64)
        if duplicates == "mean":
            merged /= np.diff(np.append(firsts, indices.size))
        cell = partial(_cell, np.searchsorted(firsts, indptr), indices[firsts])
        kind = f"the {duplicates} of the duplicates"
        merged = checks.copy_ratings(merged, values.dtype, lambda n: f"{kind} {cell(n)}")
    return Csr(np.searchsorted(firsts, indptr), indices[firsts], merged, shape)


def check_shape(shape: Any) -> tuple[int, int]:
    """Return (n_users, n_items), both checked to be integers of at least 0."""
    try:
        m, n = shape
    except (TypeError, ValueError):
        raise TypeError(f"shape must be (n_users, n_items), got {shape!r}") from None
    return checks.integer("n_users in shape", m, 0), checks.integer("n_items in shape", n, 0)


def _cell(indptr: NDArray[Any], indices: NDArray[Any], n: int) -> str:
    """Return the cell of entry n of a CSR matrix, such as ``R[2, 5]``."""
    return f"R[{int(np.searchsorted(indptr, n, side='right')) - 1}, {indices[n]}]"


def _cell_of_transpose(indptr: NDArray[Any], indices: NDArray[Any], n: int) -> str:
    """Return the cell of entry n of a CSC matrix, such as ``R[2, 5]``."""
    return f"R[{indices[n]}, {int(np.searchsorted(indptr, n, side='right')) - 1}]"


def _copy_indices(
    name: str, numbers: NDArray[Any], count: int | None, count_name: str
) -> tuple[NDArray[Any], int]:
    """Copy row or column numbers and check the copy; ``count`` defaults to maximum + 1."""
    if numbers.dtype.kind not in "iu":
        if numbers.size:
            raise TypeError(f"{name} must be integers, got dtype {numbers.dtype}; {NUMBERING_REMEDY}")
        numbers = numbers.astype(np.int32)
    if count is None:
        count = int(numbers.max()) + 1 if numbers.size else 0
    result = np.empty(numbers.size, index_dtype(count))
    for start in range(0, numbers.size, checks.VALUES_PER_BLOCK):
        block = slice(start, start + checks.VALUES_PER_BLOCK)
        kept = result[block]
        part = kept if numbers.dtype == result.dtype else np.empty(kept.shape, numbers.dtype)
        part[:] = numbers[block]  # another thread may change the caller's array
        # a negative number is large when read as unsigned
        if int(part.view(part.dtype.str.replace("i", "u")).max()) >= count:
            n = int(((part < 0) | (part >= count)).argmax())
            limit = "numbers must not be negative" if part[n] < 0 else f"but {count_name} = {count}"
            joint = "; " if part[n] < 0 else " "
            raise ValueError(f"{name}[{start + n}] = {part[n]}{joint}{limit}")
        if part is not kept:
            kept[:] = part
    return result, count


def _copy_values(
    values: NDArray[Any], dtype: np.dtype[Any] | None, label: Callable[[int], str], copy: bool = True
) -> NDArray[Any]:
    """Check ratings and convert them to float32 or float64.

    Without ``dtype``, the type is float32 if it holds the values exactly, else float64. Without ``copy``,
    values that already have the type are not copied.
    """
    if values.size == 0 and values.dtype.kind not in "iuf":
        values = values.astype(np.float32)
    checks.numeric("values", values)
    if dtype is None:
        exact = np.can_cast(values.dtype.newbyteorder("="), np.float32, "safe")
        dtype = np.dtype(np.float32 if exact else np.float64)
    if not copy and values.dtype == dtype and values.flags.c_contiguous:
        checks.finite(values, label)
        return values
    return checks.copy_ratings(values, dtype, label)
