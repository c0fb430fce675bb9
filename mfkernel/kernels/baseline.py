"""Damped means of rows and columns, the baseline of validation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import jit


@jit
def bias_sweep(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    mean: float,
    damping: float,
    item_bias: NDArray[np.float64],
    user_bias: NDArray[np.float64],
    item_sums: NDArray[np.float64],
) -> None:
    """Set the user biases given the item biases, and sum the residuals per item.

    b_u = Σ (r - μ - b_i) / (n_u + damping); Σ (r - μ - b_u) is added to ``item_sums``.
    """
    for u in range(indptr.size - 1):
        total = 0.0
        for n in range(indptr[u], indptr[u + 1]):
            total += values[n] - mean - item_bias[indices[n]]
        bias = total / (indptr[u + 1] - indptr[u] + damping)
        user_bias[u] = bias
        for n in range(indptr[u], indptr[u + 1]):
            item_sums[indices[n]] += values[n] - mean - bias
