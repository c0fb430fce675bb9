"""Rows of factors in the form that kernels take: padded and aligned."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.engines.threads import Task
from mfkernel.kernels import ROW_MULTIPLE

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register


def padded_rank(k: int) -> int:
    """Round k up to whole vectors."""
    return -(-k // ROW_MULTIPLE) * ROW_MULTIPLE


def aligned_rows(n_rows: int, k: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make zeros (n_rows, padded k) that start on a cache line.

    NumPy promises an alignment of 16 bytes only.
    """
    spare = ALIGNMENT_BYTES // dtype.itemsize
    size = n_rows * padded_rank(k)
    buffer = np.zeros(size + spare, dtype)
    offset = -buffer.ctypes.data % ALIGNMENT_BYTES // dtype.itemsize
    return buffer[offset : offset + size].reshape(n_rows, padded_rank(k))


def row_tasks(n_rows: int, rows_per_task: int) -> list[Task]:
    """Cut rows into tasks ``(first, last)`` of equally many."""
    starts = range(0, n_rows, rows_per_task)
    return [Task((start, min(start + rows_per_task, n_rows))) for start in starts]


def pad_rows(X: NDArray[Any]) -> NDArray[Any]:
    """Return X (n_rows, k) as padded rows: X itself, or an aligned copy."""
    n_rows, k = X.shape
    if k == padded_rank(k) and X.flags.c_contiguous:
        return X
    rows = aligned_rows(n_rows, k, X.dtype)
    rows[:, :k] = X
    return rows
