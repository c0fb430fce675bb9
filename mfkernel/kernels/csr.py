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
def row_bounds(keys: NDArray[Any], indptr: NDArray[np.int64]) -> None:
    """Write the row pointers of entries grouped by key to ``indptr``, all zeros."""
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
    """Group entries by key with a counting sort; entries of one key keep their order.

    Parameters
    ----------
    keys, columns, values
        (nnz,) the row, in ``range(n_rows)``, the column and the value of each entry.
    indptr
        (n_rows + 1,) zeros; overwritten with the row pointers.
    out_columns, out_values
        (nnz,) columns and values, row by row; overwritten.
    """
    row_bounds(keys, indptr)
    for n in range(keys.size):
        position = indptr[keys[n]]
        indptr[keys[n]] = position + 1
        out_columns[position] = columns[n]
        out_values[position] = values[n]
    shift_back(indptr)


@jit
def transpose(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    out_indptr: NDArray[np.int64],
    out_indices: NDArray[Any],
    out_values: NDArray[Any],
) -> None:
    """Transpose a CSR matrix.

    Its rows need not be sorted; those of the result are. Entries of one cell keep their order.

    Parameters
    ----------
    out_indptr
        (n_columns + 1,) zeros; overwritten with the row pointers.
    out_indices, out_values
        (nnz,) overwritten.
    """
    row_bounds(indices, out_indptr)
    for row in range(indptr.size - 1):
        for n in range(indptr[row], indptr[row + 1]):
            position = out_indptr[indices[n]]
            out_indptr[indices[n]] = position + 1
            out_indices[position] = row
            out_values[position] = values[n]
    shift_back(out_indptr)


@jit
def shift_back(indptr: NDArray[np.int64]) -> None:
    """Shift the row pointers back after their use as write cursors."""
    for row in range(indptr.size - 1, 0, -1):
        indptr[row] = indptr[row - 1]
    indptr[0] = 0


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
