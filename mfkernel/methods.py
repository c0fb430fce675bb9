"""What happens to the ratings of a task, and the settings that fit the data when none are given."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.factors import PADDING, aligned_rows, padded_rank
from mfkernel.ratings import Ratings
from mfkernel.schedule import MAX_BANDS, Task

BUDGET = 2**22  # coordinates that one call of the kernel may visit: about 2 ms
SMALL_RESIDUAL = 0.5  # standard deviations; on real ratings residuals stay above 0.6
CHUNK = 2**14  # rows of factors handled at once where NumPy would copy them all


class Sgd:
    """Stochastic gradient descent on the squared error plus λ(‖p‖² + ‖q‖²) of every known rating.

    Parameters
    ----------
    ratings
        what is fitted, with values of the factors' dtype.
    P, Q
        (m, k), (n, k) rows, padded and aligned; updated in place.
    learning_rate
        γ; None chooses one, and lowers it linearly, towards zero after the last epoch.
    regularization
        λ; None chooses one, and lowers it with the residuals once they are small.
    """

    def __init__(
        self,
        ratings: Ratings,
        P: NDArray[Any],
        Q: NDArray[Any],
        *,
        learning_rate: float | None,
        regularization: float | None,
    ) -> None:
        self.ratings, self.P, self.Q = ratings, P, Q
        self._decays, self._adapts = learning_rate is None, regularization is None
        self._first_rate = default_learning_rate(ratings) if learning_rate is None else learning_rate
        self._first_reg = default_regularization(ratings) if regularization is None else regularization
        self.learning_rate, self.regularization = self._first_rate, self._first_reg

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Set step size and λ for epoch 1, …, ``epochs``, after one that left the residuals at ``rmse``."""
        if self._decays:
            self.learning_rate = self._first_rate * (1 - (epoch - 1) / epochs)
        if self._adapts:
            self.regularization = self._first_reg * min(
                1.0, rmse / (SMALL_RESIDUAL * self.ratings.std or 1.0)
            )

    def is_finite(self) -> bool:
        """Whether all factors are numbers."""
        return bool(np.isfinite(self.P).all() and np.isfinite(self.Q).all())

    def run(self, task: Task, cancelled: Callable[[], bool]) -> float:
        """Update P and Q by the ratings of a task; return the sum of their squared residuals."""
        from mfkernel.kernels.sgd import Rows, sgd_span

        scalar = self.P.dtype.type
        lr, reg = scalar(self.learning_rate), scalar(self.regularization)
        budget = max(1, BUDGET // self.P.shape[1])
        loss = 0.0
        for order, starts, stops in task:
            rows = Rows(starts, stops, self.ratings.indices, self.ratings.values)
            cursor = np.zeros(2, np.int64)
            while cursor[0] < order.size and not cancelled():
                loss += sgd_span(order, cursor, budget, rows, self.P, self.Q, lr, reg)
        return loss


# The defaults below were chosen on ML-100K, ML-1M, ml-latest-small and generated sets of other scales and
# densities, as a compromise between them (docs/architecture.md has the table and what it rests on).
# If R is multiplied by s, P and Q grow by √s, the step size must fall by s and λ rise by s: so each is a
# plain number times a scale of the ratings.


def default_learning_rate(ratings: Ratings) -> float:
    """Choose a step size: 0.025 over the size of a typical residual.

    A step moves the prediction by γe(‖p‖² + ‖q‖²), and the factors carry the mean as well as what varies:
    ‖p‖² is at least about |mean|, so that a mean far from zero asks for smaller steps. So do outliers.
    """
    values = ratings.values
    farthest = max(float(values.max()) - ratings.mean, ratings.mean - float(values.min()))
    return 0.025 / (max(ratings.std, abs(ratings.mean) / 3, farthest / 10) or 1.0)


def default_regularization(ratings: Ratings) -> float:
    """Choose λ: 0.07 standard deviations up to 30 ratings a row or column, and less for more.

    λ is per rating, so that a row of n ratings is held by nλ; the more it has, the less of that it needs.
    This suits ratings with as much noise as people's; where the residuals fall below half a standard
    deviation, there is less noise, and λ falls with them.
    """
    density = ratings.nnz / sum(ratings.shape)
    return 0.07 * ratings.std * min(1.0, math.sqrt(math.sqrt(30 / density)))


def default_epochs(ratings: Ratings) -> int:
    """Choose the passes: 30, fewer on thin ratings, more where the mean makes the steps small.

    With a few ratings a row, each further pass learns them by heart.
    """
    passes = min(30.0, 3 + 1.75 * ratings.nnz / sum(ratings.shape))
    smaller_steps = abs(ratings.mean) / (3 * ratings.std) if ratings.std > 0 else 1.0
    return round(passes * min(40.0, max(1.0, smaller_steps)))


def long_epochs(ratings: Ratings) -> int:
    """Return how many passes would fit a small table of which much is known; 0 if it is large or thin.

    Whether to fit it so closely depends on its noise, which only a trial shows.
    """
    m, n = ratings.shape
    much_is_known = ratings.nnz >= m * n / 10
    return min(1000, 300_000 // ratings.nnz) if much_is_known and ratings.nnz < 10_000 else 0


def default_start(
    ratings: Ratings, k: int, dtype: np.dtype[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Start where every prediction is about the mean: constant rows plus noise that breaks the symmetry.

    Returns
    -------
    tuple
        P (m, k) and Q (n, k), rows padded and aligned.
    """
    level = math.sqrt(abs(ratings.mean) / k)
    noise = 0.05 * math.sqrt(32 / k) * math.sqrt(ratings.std or abs(ratings.mean) or 1.0)
    rows = []
    for n_rows, center in ((ratings.n_users, level), (ratings.n_items, math.copysign(level, ratings.mean))):
        X = aligned_rows(n_rows, k, dtype)
        for start in range(0, n_rows, CHUNK):
            part = X[start : start + CHUNK, :k]
            part[:] = rng.standard_normal(part.shape, dtype=dtype)
            part *= dtype.type(noise)
            part += dtype.type(center)
        rows.append(X)
    return rows[0], rows[1]


def predict_mean_for_unknown(ratings: Ratings, P: NDArray[Any], Q: NDArray[Any]) -> None:
    """Give rows and columns without ratings the factors whose products with all others are nearest the mean.

    Least squares: minimizes Σ (x·q - mean)² over the known items q, then Σ (x·p - mean)² over all users p.
    """
    users, items = ratings.user_counts() > 0, ratings.item_counts() > 0
    everybody = np.ones_like(users)
    for this, known, other, rows in ((P, users, Q, items), (Q, items, P, everybody)):
        if not known.all():
            k = other.shape[1]
            gram, total = np.zeros((k, k)), np.zeros(k)
            for start in range(0, other.shape[0], CHUNK):
                part = other[start : start + CHUNK][rows[start : start + CHUNK]].astype(np.float64)
                gram += part.T @ part
                total += part.sum(axis=0)
            this[~known] = np.linalg.lstsq(gram, total * ratings.mean, rcond=None)[0]


def training_bytes(shape: tuple[int, int], k: int, dtype: np.dtype[Any], n_tasks: int) -> dict[str, int]:
    """Return what training takes beyond the ratings, in bytes."""
    m, n = shape
    trimmed = k if k % PADDING else 0  # the result is a copy without the padding
    bounds = 0 if n_tasks == 1 else min(n_tasks, MAX_BANDS) + 1
    return {
        "factors": (m + n) * (padded_rank(k) + trimmed) * dtype.itemsize,
        "order of the rows": m * 8 * (6 + bounds),
    }
