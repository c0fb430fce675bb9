"""What happens to the ratings of a task, and the settings that fit the data when none are given."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.blocks import block_bytes
from mfkernel.factors import aligned_rows, padded_rank
from mfkernel.ratings import Ratings
from mfkernel.schedule import MAX_BANDS, Schedule

if TYPE_CHECKING:
    from mfkernel.kernels.sgd import Adaptive

BUDGET = 2**22  # coordinates that one call of the kernel may visit: about 2 ms
SMALL_RESIDUAL = 0.5  # standard deviations; on real ratings residuals stay above 0.6
COPIED = 2**20  # numbers, at a time
KEEP_AFTER = 0.25  # seconds of training from one copy of the factors to the next
CHUNK = 2**14  # rows of factors handled at once where NumPy would copy them all

# the step size of an epoch over that of the first, by the share of the epochs that are done and their number
DECAYS: dict[str, Callable[[float, int], float]] = {
    "constant": lambda share, done: 1.0,
    "inverse-time": lambda share, done: 1 / (1 + done / 5),
    "linear": lambda share, done: 1 - share,
    "cosine": lambda share, done: (1 + math.cos(math.pi * share)) / 2,
    "adaptive": lambda share, done: 1.0,
}


class Sgd:
    """Stochastic gradient descent on the squared error plus λ(‖p‖² + ‖q‖²) of every known rating.

    Parameters
    ----------
    ratings
        what is fitted, with values of the factors' dtype.
    schedule
        the order in which it is visited.
    P, Q
        (m, k), (n, k) rows, padded and aligned, at the schedule's places; updated in place.
    k
        the rank, without padding.
    learning_rate
        γ; None chooses one.
    decay
        one of ``DECAYS``.
    regularization
        λ; None chooses one, and lowers it with the residuals once they are small.
    """

    def __init__(
        self,
        ratings: Ratings,
        schedule: Schedule,
        P: NDArray[Any],
        Q: NDArray[Any],
        k: int,
        learning_rate: float | None,
        decay: str,
        regularization: float | None,
    ) -> None:
        self.ratings, self.schedule, self.P, self.Q = ratings, schedule, P, Q
        self._k, self._decay, self._adapts = k, decay, regularization is None
        self._first_rate = default_learning_rate(ratings, decay) if learning_rate is None else learning_rate
        self._first_reg = default_regularization(ratings) if regularization is None else regularization
        self.learning_rate, self.regularization = self._first_rate, self._first_reg
        self._epoch: int | None = 0  # after which P and Q are as they are; None within one
        self._kept: tuple[int, NDArray[Any], NDArray[Any]] | None = None
        self._kept_at = time.perf_counter()
        self._states: tuple[NDArray[Any], NDArray[Any]] | None = None
        if decay == "adaptive":
            self._states = np.ones((len(P), 2), P.dtype), np.ones((len(Q), 2), Q.dtype)

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Set step size and λ for epoch 1, …, ``epochs``, after one that left the residuals at ``rmse``."""
        from mfkernel._simd import vectors_of
        from mfkernel.kernels.sgd import Model

        self.learning_rate = self._first_rate * DECAYS[self._decay]((epoch - 1) / epochs, epoch - 1)
        if self._adapts:
            self.regularization = self._first_reg * min(
                1.0, rmse / (SMALL_RESIDUAL * self.ratings.std or 1.0)
            )
        for X, state in zip((self.P, self.Q), self._states or (), strict=False):
            np.einsum("uk,uk->u", X, X, out=state[:, 0])  # anew, as the updates of the norms round
        number = self.P.dtype.type
        rate, reg = number(self.learning_rate), number(self.regularization)
        vectors = vectors_of(self.P.shape[1]) if self.schedule.unrolls else ()
        self._update = Model(self.P, self.Q, rate, reg, vectors), self._adaptive()
        self._epoch = None

    def end_epoch(self, epoch: int) -> None:
        """Note that all tasks of an epoch are done, and now and then keep a copy of the factors."""
        self._epoch = epoch
        if time.perf_counter() > self._kept_at + KEEP_AFTER:
            _, P, Q = self._kept or (0, np.empty_like(self.P), np.empty_like(self.Q))
            rows = max(1, COPIED // self.P.shape[1])
            for copy, X in ((P, self.P), (Q, self.Q)):
                for start in range(0, len(X), rows):  # Ctrl-C is answered between two parts
                    np.copyto(copy[start : start + rows], X[start : start + rows])
            self._kept, self._kept_at = (epoch, P, Q), time.perf_counter()

    def whole_epoch(self) -> int:
        """Take P and Q back to the end of an epoch, if training has been cut off within one; say which it is.

        That is the last whole epoch, or one that ended less than ``KEEP_AFTER`` before; 0 if there is none.
        """
        if self._epoch is None:
            self._epoch, self.P, self.Q = self._kept or (0, self.P, self.Q)
        return self._epoch

    def factors(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return copies of P (m, k) and Q (n, k), in the order of the ratings and without padding."""
        P = np.ascontiguousarray(self.P[self.schedule.user_places, : self._k])
        return P, np.ascontiguousarray(self.Q[self.schedule.item_places, : self._k])

    def is_finite(self) -> bool:
        """Whether all factors are numbers."""
        return bool(np.isfinite(self.P).all() and np.isfinite(self.Q).all())

    def visit(self, work: Any, cancelled: Callable[[], bool]) -> float:
        """Update P and Q by the ratings of a task; return the sum of their squared residuals."""
        budget = max(1, BUDGET // self.P.shape[1])
        return self.schedule.visit(work, budget, self._update, cancelled)

    def _adaptive(self) -> "Adaptive | None":
        """Return the state of adaptive steps, with G in units that the ratings' scale does not change."""
        from mfkernel.kernels.sgd import Adaptive

        if self._states is None:
            return None
        spread = self.ratings.std or abs(self.ratings.mean) or 1.0
        return Adaptive(*self._states, self.P.dtype.type(1 / (self._k * spread**3)))


# The defaults below were chosen on ML-100K, ML-1M, ml-latest-small and generated sets of other scales and
# densities, as a compromise between them (docs/architecture.md has the table and what it rests on).
# If R is multiplied by s, P and Q grow by √s, the step size must fall by s and λ rise by s: so each is a
# plain number times a scale of the ratings.


def default_learning_rate(ratings: Ratings, decay: str) -> float:
    """Choose a first step size: 0.03 over the size of a typical residual, or 0.1 if steps are adaptive.

    A step moves the prediction by γe(‖p‖² + ‖q‖²), and the factors carry the mean as well as what varies:
    ‖p‖² is at least about |mean|, so that a mean far from zero asks for smaller steps. So do outliers.
    """
    values = ratings.values
    farthest = max(float(values.max()) - ratings.mean, ratings.mean - float(values.min()))
    first = 0.1 if decay == "adaptive" else 0.03
    return first / (max(ratings.std, abs(ratings.mean) / 3, farthest / 10) or 1.0)


def default_regularization(ratings: Ratings) -> float:
    """Choose λ: 0.07 standard deviations up to 30 ratings a row or column, and less for more.

    λ is per rating, so that a row of n ratings is held by nλ; the more it has, the less of that it needs.
    This suits ratings with as much noise as people's; where the residuals fall below half a standard
    deviation, there is less noise, and λ falls with them.
    """
    density = ratings.nnz / sum(ratings.shape)
    return 0.07 * ratings.std * min(1.0, math.sqrt(math.sqrt(30 / density)))


def default_epochs(ratings: Ratings) -> int:
    """Choose the passes: 25, fewer on thin ratings, more where the mean makes the steps small.

    With a few ratings a row, each further pass learns them by heart.
    """
    passes = min(25.0, 2.5 + 1.5 * ratings.nnz / sum(ratings.shape))
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


def training_bytes(
    shape: tuple[int, int], nnz: int, k: int, dtype: np.dtype[Any], schedule: str, n_tasks: int
) -> dict[str, int]:
    """Return what training takes beyond the ratings, in bytes."""
    m, n = shape
    padded = (m + n) * padded_rank(k) * dtype.itemsize
    if schedule == "blocks":
        order = {"blocks": block_bytes(shape, nnz, dtype)}
    else:
        bounds = 0 if n_tasks == 1 else min(n_tasks, MAX_BANDS) + 1
        order = {"order of the rows": m * 8 * (6 + bounds)}
    return {"factors": padded, "a copy of them": padded, **order}
