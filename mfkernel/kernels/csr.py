"""Building and cutting CSR matrices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._jit import jit


@jit
def counting_argsort(
    keys: NDArray[Any], order: NDArray[np.int64], offsets: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """Sort the entries ``order`` by their keys, stably, in time linear in entries and keys.

    Parameters
    ----------
    keys
        (nnz,) integers in ``range(n_keys)``.
    order
        (nnz,) a permutation of the entries: equal keys keep this order.
    offsets
        (n_keys + 1,) zeros; becomes the first position of each key in ``out`` and, last, nnz.
    out
        (nnz,) the sorted permutation, overwritten.
    """
    for n in range(keys.size):
        offsets[keys[n] + 1] += 1
    for key in range(1, offsets.size):
        offsets[key] += offsets[key - 1]
    for n in order:
        out[offsets[keys[n]]] = n
        offsets[keys[n]] += 1
    for key in range(offsets.size - 1, 0, -1):  # each offset has moved on to where the next key begins
        offsets[key] = offsets[key - 1]
    offsets[0] = 0


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
