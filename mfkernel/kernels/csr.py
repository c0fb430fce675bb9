"""Building, transposing and cutting CSR matrices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import jit


@jit
def count(keys: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add the number of occurrences of each key to ``counts``."""
    for n in range(keys.size):
        counts[keys[n]] += 1


@jit
def band_bounds(
    indptr: NDArray[np.int64], indices: NDArray[Any], cuts: NDArray[np.int64], bounds: NDArray[np.int64]
) -> None:
    """Find the first entry of each band of columns in each row.

    Parameters
    ----------
    indptr, indices
        (n_rows + 1,), (nnz,) of a CSR matrix with sorted rows.
    cuts
        (n_bands + 1,) band b has the columns ``cuts[b]:cuts[b + 1]``.
    bounds
        (n_bands + 1, n_rows) overwritten: the entries ``bounds[b, u]:bounds[b + 1, u]`` of row u are in band
        b.
    """
    for u in range(indptr.size - 1):
        first = indptr[u]
        for b in range(cuts.size):
            last = indptr[u + 1]
            while first < last:  # the first entry whose column is cuts[b] or later
                middle = (first + last) // 2
                if indices[middle] < cuts[b]:
                    first = middle + 1
                else:
                    last = middle
            bounds[b, u] = first


@jit
def is_sorted(keys: NDArray[Any]) -> bool:
    """Return whether no key is less than the one before it."""
    falls = False
    before, after = keys[:-1], keys[1:]
    for n in range(after.size):
        falls |= after[n] < before[n]
    return not falls


@jit
def scatter(
    keys: NDArray[Any],
    columns: NDArray[Any],
    values: NDArray[Any],
    cursors: NDArray[np.int64],
    out_columns: NDArray[Any],
    out_values: NDArray[Any],
) -> None:
    """Write columns and values where their keys' cursors point, in their order.

    Parameters
    ----------
    keys, columns, values
        (n,) the row, the column and the value of each entry.
    cursors
        (n_rows,) where the next entry of each row goes; moved on.
    out_columns, out_values
        (nnz,) written at these places.
    """
    for n in range(keys.size):
        position = cursors[keys[n]]
        cursors[keys[n]] = position + 1
        out_columns[position] = columns[n]
        out_values[position] = values[n]


@jit
def scatter_rows(
    first: int,
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    cursors: NDArray[np.int64],
    out_indices: NDArray[Any],
    out_values: NDArray[Any],
) -> None:
    """Write some rows of a CSR matrix into its transpose.

    Parameters
    ----------
    first, indptr
        The number of the first row, and (n + 1,) bounds of the rows.
    indices, values
        (nnz,) of all rows.
    cursors
        (n_columns,) where the next entry of each column goes; moved on.
    out_indices, out_values
        (nnz,) of the transpose; written at these places.
    """
    for row in range(indptr.size - 1):
        for n in range(indptr[row], indptr[row + 1]):
            position = cursors[indices[n]]
            cursors[indices[n]] = position + 1
            out_indices[position] = first + row
            out_values[position] = values[n]


@jit
def is_canonical(indptr: NDArray[np.int64], indices: NDArray[Any]) -> bool:
    """Return whether each row is sorted by column, without duplicates."""
    for row in range(indptr.size - 1):
        falls = False
        for n in range(indptr[row] + 1, indptr[row + 1]):
            falls |= indices[n] <= indices[n - 1]
        if falls:
            return False
    return True
