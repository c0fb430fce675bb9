"""Entries of a matrix grouped by row, or by column, with stable counting sorts on all cores."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.engines.threads import Task, ThreadEngine, default_engine

ENTRIES_PER_PART = 2**18  # at least: fewer take less time than another thread needs to start

Arrays = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]


def grouped(rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], n_rows: int) -> Arrays:
    """Return row pointers, columns and values of the CSR matrix of some entries, (nnz,).

    Entries of one row keep their order.
    """
    from mfkernel.kernels.csr import count, scatter

    rows, columns, values = readonly(rows), readonly(columns), readonly(values)
    out = np.empty_like(columns), np.empty_like(values)

    def count_part(first: int, last: int, counts: NDArray[np.int64]) -> None:
        count(rows[first:last], counts)

    def write_part(first: int, last: int, cursors: NDArray[np.int64]) -> None:
        scatter(rows[first:last], columns[first:last], values[first:last], cursors, *out)

    with default_engine(None) as engine:
        cuts = np.linspace(0, rows.size, _parts(rows.size, n_rows, engine) + 1).astype(np.int64)
        return _counting_sort(cuts, n_rows, count_part, write_part, engine), *out


def transposed(
    indptr: NDArray[np.int64], indices: NDArray[Any], values: NDArray[Any], n_columns: int, dtype: Any
) -> Arrays:
    """Return row pointers, indices of this dtype and values of the transpose of a CSR matrix.

    Its rows need not be sorted; those of the transpose are. Entries of one cell keep their order.
    """
    from mfkernel.kernels.csr import count, scatter_rows

    indptr, indices, values = readonly(indptr), readonly(indices), readonly(values)
    out = np.empty(indices.size, dtype), np.empty_like(values)

    def count_part(first: int, last: int, counts: NDArray[np.int64]) -> None:
        count(indices[indptr[first] : indptr[last]], counts)

    def write_part(first: int, last: int, cursors: NDArray[np.int64]) -> None:
        scatter_rows(first, indptr[first : last + 1], indices, values, cursors, *out)

    with default_engine(None) as engine:
        n_parts = _parts(indices.size, n_columns, engine)
        cuts = np.searchsorted(indptr, np.linspace(0, indices.size, n_parts + 1).astype(np.int64))
        cuts[0], cuts[-1] = 0, indptr.size - 1
        return _counting_sort(cuts, n_columns, count_part, write_part, engine), *out


def _parts(n_entries: int, n_rows: int, engine: ThreadEngine) -> int:
    """Return in how many parts to sort: one per thread, unless their counts took longer than the entries."""
    return max(1, min(engine.n_threads, n_entries // max(n_rows, ENTRIES_PER_PART)))


def _counting_sort(
    cuts: NDArray[np.int64],
    n_rows: int,
    count_part: Callable[[int, int, NDArray[np.int64]], None],
    write_part: Callable[[int, int, NDArray[np.int64]], None],
    engine: ThreadEngine,
) -> NDArray[np.int64]:
    """Count each part, then write each part behind the parts before it; return the row pointers.

    Parameters
    ----------
    cuts
        (n_parts + 1,) bounds of the parts.
    count_part
        Adds the number of entries of each row in a part to its last argument.
    write_part
        Writes the entries of a part where its last argument points, and moves that on.
    """
    n_parts = cuts.size - 1
    cursors = np.zeros((n_parts, n_rows), np.int64)
    tasks = [Task(n) for n in range(n_parts)]
    engine.run(lambda n, _: count_part(int(cuts[n]), int(cuts[n + 1]), cursors[n]), tasks)
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(cursors.sum(axis=0), out=indptr[1:])
    start = indptr[:-1].copy()
    for n in range(n_parts):
        start, cursors[n] = start + cursors[n], start
    engine.run(lambda n, _: write_part(int(cuts[n]), int(cuts[n + 1]), cursors[n]), tasks)
    return indptr
