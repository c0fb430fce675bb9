"""Predictions from biases alone, a baseline for factors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings

DAMPING = 10.0  # ratings equal to the mean that are added to each row and column
BASELINE_SWEEPS = 3  # sweeps over users and items


class Biases(NamedTuple):
    """μ, b_u (m,) and b_i (n,) of the prediction μ + b_u + b_i."""

    mean: float
    users: NDArray[np.float64]
    items: NDArray[np.float64]

    def rmse(self, ratings: Ratings) -> float:
        """Return the root mean square error; new users and items have the bias 0."""
        residuals = ratings.values - self.mean
        for biases, rows in ((self.users, ratings.users), (self.items, ratings.items)):
            residuals = residuals - np.append(biases, 0.0)[np.minimum(rows, biases.size)]
        return float(np.sqrt(np.mean(np.square(residuals))))


def bias_baseline(ratings: Ratings) -> Biases:
    """Fit damped biases of users and items in alternation, each given the other.

    Koren, "Factor in the neighbors: scalable and accurate collaborative filtering", TKDD 2010, section 2.1.
    """
    from mfkernel.kernels.baseline import bias_sweep

    users, items = np.zeros(ratings.n_users), np.zeros(ratings.n_items)
    counts = ratings.item_counts()
    for sweep in range(BASELINE_SWEEPS):
        sums = np.zeros(ratings.n_items)
        # infinite damping in the first sweep, which only computes the items' means
        damping = np.inf if sweep == 0 else DAMPING
        bias_sweep(ratings.indptr, ratings.indices, ratings.values, ratings.mean, damping, items, users, sums)
        items = sums / (counts + DAMPING)
    return Biases(ratings.mean, users, items)
