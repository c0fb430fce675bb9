"""Building and cutting CSR matrices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import jit


@jit
def count(keys: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add to ``counts`` how often each key occurs."""
    for n in range(keys.size):
        counts[keys[n]] += 1


@jit
def row_bounds(keys: NDArray[Any], indptr: NDArray[np.int64]) -> None:
    """Turn ``indptr``, (n_rows + 1,) zeros, into where the entries of each row begin if grouped by key."""
    count(keys, indptr[1:])
    for row in range(1, indptr.size):
        indptr[row] += indptr[row - 1]


@jit
def group(
    keys: NDArray[Any],
    columns: NDArray[Any],
    values: NDArray[Any],
    indptr: NDArray[np.int64],
    out_columns: NDArray[Any],
    out_values: NDArray[Any],
) -> None:
    """Bring entries of one key together, in the order in which they come: a counting sort.

    Parameters
    ----------
    keys, columns, values
        (nnz,) the row, in ``range(n_rows)``, the column and the value of each entry.
    indptr
        (n_rows + 1,) zeros; becomes the first position of each row and, last, nnz.
    out_columns, out_values
        (nnz,) columns and values, row by row; overwritten.
    """
    row_bounds(keys, indptr)
    for n in range(keys.size):
        place = indptr[keys[n]]
        indptr[keys[n]] = place + 1
        out_columns[place] = columns[n]
        out_values[place] = values[n]
    shift(indptr)


@jit
def transpose(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[Any],
    out_values: NDArray[Any],
) -> None:
    """Transpose a CSR matrix, whose rows need not be sorted; those of the result are.

    Entries of one cell keep their order.

    Parameters
    ----------
    out_indptr
        (n_columns + 1,) zeros, overwritten; as are ``out_indices`` and ``out_values``, (nnz,).
    """
    row_bounds(indices, out_indptr)
    for row in range(indptr.size - 1):
        for n in range(indptr[row], indptr[row + 1]):
            place = out_indptr[indices[n]]
            out_indptr[indices[n]] = place + 1
            out_indices[place] = row
            out_values[place] = values[n]
    shift(out_indptr)


@jit
def shift(indptr: NDArray[np.int64]) -> None:
    """Undo that each bound has moved on to where the next row begins."""
    for row in range(indptr.size - 1, 0, -1):
        indptr[row] = indptr[row - 1]
    indptr[0] = 0


@jit
def band_bounds(
    indptr: NDArray[np.int64], indices: NDArray[Any], cuts: NDArray[np.int64], bounds: NDArray[np.int64]
) -> None:
    """Find where each row crosses from one band of columns into the next.

    Parameters
    ----------
    indptr, indices
        (n_rows + 1,), (nnz,) of a CSR matrix with sorted rows.
    cuts
        (n_bands + 1,) band b holds the columns ``cuts[b]:cuts[b + 1]``.
    bounds
        (n_bands + 1, n_rows) overwritten: row u has its entries of band b at
        ``bounds[b, u]:bounds[b + 1, u]``.
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
