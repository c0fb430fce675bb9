"""Rows of factors as the kernels take them: padded and aligned."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
PADDING = 8  # coordinates: a row is a whole number of 32-byte vectors in float32


def padded_rank(k: int) -> int:
    """Round k up to whole vectors."""
    return -(-k // PADDING) * PADDING


def aligned_rows(n_rows: int, k: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make zeros (n_rows, padded k) that start on a cache line; NumPy promises only 16 bytes."""
    spare = ALIGNMENT // dtype.itemsize
    size = n_rows * padded_rank(k)
    buffer = np.zeros(size + spare, dtype)
    offset = -buffer.ctypes.data % ALIGNMENT // dtype.itemsize
    return buffer[offset : offset + size].reshape(n_rows, padded_rank(k))


def padded(X: NDArray[Any]) -> NDArray[Any]:
    """Return X (n_rows, k) as such rows, itself if k needs no padding."""
    n_rows, k = X.shape
    if k == padded_rank(k) and X.flags.c_contiguous:
        return X
    rows = aligned_rows(n_rows, k, X.dtype)
    rows[:, :k] = X
    return rows
