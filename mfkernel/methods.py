"""What a method is to the training loop; and stochastic gradient descent."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.blocks import block_bytes
from mfkernel.defaults import CHUNK
from mfkernel.engine import ThreadEngine
from mfkernel.linalg.rows import padded_rank
from mfkernel.objective import Settings, link
from mfkernel.ratings import Ratings
from mfkernel.schedule import MAX_BANDS, Places, Schedule

if TYPE_CHECKING:
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.sgd import Adaptive, Biases, Model, Prox

BUDGET = 2**22  # coordinates that one call of the kernel may visit: about 2 ms
SMALL_RESIDUAL = 0.5  # standard deviations; on real ratings residuals stay above 0.6
COPIED = 2**20  # numbers, at a time
KEEP_AFTER = 0.25  # seconds of training from one copy of the factors to the next

# the step size of an epoch over that of the first, by the share of the epochs that are done and their number
DECAYS: dict[str, Callable[[float, int], float]] = {
    "constant": lambda share, done: 1.0,
    "inverse-time": lambda share, done: 1 / (1 + done / 5),
    "linear": lambda share, done: 1 - share,
    "cosine": lambda share, done: (1 + math.cos(math.pi * share)) / 2,
    "adaptive": lambda share, done: 1.0,
}


class State(NamedTuple):
    """What training changes: P (m, k) and Q (n, k), padded and aligned, and the biases, (m,) and (n,).

    Rows stand at the schedule's places. Without biases these are empty.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    user_bias: NDArray[Any]
    item_bias: NDArray[Any]


class Pass(NamedTuple):
    """What one pass over the ratings met: the root mean square of the residuals; perhaps the objective."""

    rmse: float
    loss: float | None = None


class Method:
    """How the factors of some ratings are found, an epoch at a time, and the state that training changes.

    Parameters
    ----------
    ratings
        what is fitted, with values of the factors' dtype.
    start
        makes the start values; called again if training must begin anew.
    k
        the rank, without padding.
    settings
        what is minimized and by which steps, nothing left open.
    places
        where the rows of users and items stand in the state, ``slice(None)`` if in the order of the ratings.
    """

    learning_rate: float | None = None  # of the epoch at hand, if there are such steps
    regularization = (0.0, 0.0)  # of the epoch at hand
    slowdown = 1.0  # of all step sizes; halved at each divergence

    def __init__(
        self,
        ratings: Ratings,
        start: Callable[[], State],
        k: int,
        settings: Settings,
        places: tuple[Places, Places] = (slice(None), slice(None)),
    ) -> None:
        self.ratings, self._start, self._k, self.settings = ratings, start, k, settings
        self.user_places, self.item_places = places
        self.state = start()
        self._epoch: int | None = 0  # after which the state is as it is; None within one
        self._kept: tuple[int, State] | None = None
        self._kept_at = time.perf_counter()

    def compile(self) -> None:
        """Have all kernels compiled that an epoch needs, without a change of the state."""

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Prepare for epoch 1, …, ``epochs``, after one that left the residuals at ``rmse``."""
        self._epoch = None

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> Pass:
        """Run the epoch that has begun."""
        raise NotImplementedError

    @property
    def scoring(self) -> "tuple[Model, Biases | None, Loss | None]":
        """What a kernel needs to predict ratings by the state as it is."""
        raise NotImplementedError

    def end_epoch(self, epoch: int) -> None:
        """Note that all tasks of an epoch are done."""
        self._epoch = epoch

    def keep_now_and_then(self, epoch: int) -> None:
        """Copy the state as it is after ``epoch``, unless that has been done a short while ago."""
        if time.perf_counter() > self._kept_at + KEEP_AFTER:
            self.keep(epoch)

    def keep(self, epoch: int) -> None:
        """Copy the state as it is after ``epoch``."""
        _, kept = self._kept or (0, State(*map(np.empty_like, self.state)))
        for copy, X in zip(kept, self.state, strict=True):
            rows = max(1, COPIED // (X.shape[1] if X.ndim == 2 else 1))
            for start in range(0, len(X), rows):  # Ctrl-C is answered between two parts
                np.copyto(copy[start : start + rows], X[start : start + rows])
        self._kept, self._kept_at = (epoch, kept), time.perf_counter()

    def back_to_kept(self) -> int:
        """Take the state back to the last copy; say of which epoch it is, 0 for the start values."""
        if self._kept is None:
            self._epoch, self.state = 0, self._start()
        else:
            self._epoch, kept = self._kept
            for X, copy in zip(self.state, kept, strict=True):
                np.copyto(X, copy)
        return self._epoch

    def rescue(self, best: bool) -> int:
        """After training was cut off, leave a whole epoch: the last, or the copy kept as best; say which.

        If it is 0, there is none, and the state is of no use.
        """
        if self._epoch is not None and not best:
            return self._epoch
        return self.back_to_kept() if self._kept else 0

    def is_finite(self) -> bool:
        """Whether all factors are numbers."""
        return all(bool(np.isfinite(X).all()) for X in self.state)

    def results(self) -> State:
        """Return copies of all, in the order of the ratings and without padding."""
        P, Q, user_bias, item_bias = self.state
        users, items = self.user_places, self.item_places
        return State(
            np.ascontiguousarray(P[users, : self._k]),
            np.ascontiguousarray(Q[items, : self._k]),
            np.ascontiguousarray(user_bias[users if user_bias.size else slice(0)]),
            np.ascontiguousarray(item_bias[items if item_bias.size else slice(0)]),
        )


class Sgd(Method):
    """Stochastic gradient descent on a loss of every known rating, with penalties on its factors.

    Parameters
    ----------
    schedule
        the order in which the ratings are visited.
    ratings, start, k, settings
        as for :class:`Method`.
    """

    def __init__(
        self, ratings: Ratings, schedule: Schedule, start: Callable[[], State], k: int, settings: Settings
    ) -> None:
        self.schedule = schedule
        super().__init__(ratings, start, k, settings, (schedule.user_places, schedule.item_places))
        self.learning_rate = self._first_rate
        self._steps: tuple[NDArray[Any], NDArray[Any]] | None = None

    @property
    def _first_rate(self) -> float:
        return self.slowdown * float(self.settings.learning_rate or 0)

    def compile(self) -> None:
        """Have the kernel of the schedule compiled for these options."""
        self.begin_epoch(1, 1, math.inf)
        self.schedule.compile(self.update)

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Set step size and λ for epoch 1, …, ``epochs``, after one that left the residuals at ``rmse``."""
        from mfkernel.kernels.sgd import Model
        from mfkernel.kernels.vectors import rank_token

        P, Q = self.state.P, self.state.Q
        number, settings = P.dtype.type, self.settings
        decay = DECAYS[settings.decay]((epoch - 1) / epochs, epoch - 1)
        self.learning_rate = self._first_rate * decay
        small = min(1.0, rmse / (SMALL_RESIDUAL * self.ratings.std or 1.0)) if settings.adapts else 1.0
        reg_p, reg_q = settings.regularization or (0.0, 0.0)
        self.regularization = reg_p, reg_q = reg_p * small, reg_q * small
        vectors = rank_token(P.shape[1]) if self.schedule.unrolls else ()
        model = Model(P, Q, number(self.learning_rate), number(reg_p), number(reg_q), vectors)
        self.update = model, self._adaptive(), self._biases(decay), self._loss(), self._prox()
        super().begin_epoch(epoch, epochs, rmse)

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> Pass:
        """Visit all ratings once."""
        loss = sum(engine.run(self.visit, self.schedule.tasks(epoch)))
        return Pass(math.sqrt(loss / self.ratings.nnz))

    def back_to_kept(self) -> int:
        """Take the state back, and begin anew with adaptive steps."""
        self._steps = None
        return super().back_to_kept()

    @property
    def scoring(self) -> "tuple[Model, Biases | None, Loss | None]":
        """What a kernel needs to predict ratings by the state as it is."""
        model, _, biases, loss, _ = self.update
        return model, biases, loss

    def visit(self, work: Any, cancelled: Callable[[], bool]) -> float:
        """Update P and Q by the ratings of a task; return the sum of their squared residuals."""
        budget = max(1, BUDGET // self.state.P.shape[1])
        return self.schedule.visit(work, budget, self.update, cancelled)

    def _adaptive(self) -> "Adaptive | None":
        """Return the state of adaptive steps, with G in units that the ratings' scale does not change."""
        from mfkernel.kernels.sgd import Adaptive

        if self.settings.decay != "adaptive":
            return None
        P, Q = self.state.P, self.state.Q
        if self._steps is None:
            self._steps = np.ones((len(P), 2), P.dtype), np.ones((len(Q), 2), Q.dtype)
        for X, step in zip((P, Q), self._steps, strict=True):
            np.einsum("uk,uk->u", X, X, out=step[:, 0])  # anew, as the updates of the norms round
        spread = self.ratings.std or abs(self.ratings.mean) or 1.0
        return Adaptive(*self._steps, P.dtype.type(1 / (self._k * spread**3)))

    def _biases(self, decay: float) -> "Biases | None":
        from mfkernel.kernels.sgd import Biases

        if not self.settings.biases:
            return None
        number = self.state.P.dtype.type
        rate = self.slowdown * float(self.settings.bias_learning_rate or 0) * decay
        reg = float(self.settings.bias_regularization or 0)
        mean = link(self.ratings.mean, self.settings.loss)
        return Biases(number(mean), self.state.user_bias, self.state.item_bias, number(rate), number(reg))

    def _loss(self) -> "Loss | None":
        from mfkernel.kernels.losses import ABSOLUTE, HUBER, LOGISTIC, Loss

        kinds = {"absolute": ABSOLUTE, "huber": HUBER, "logistic": LOGISTIC}
        if self.settings.loss == "squared":
            return None
        return Loss(kinds[self.settings.loss], self.state.P.dtype.type(self.settings.huber_delta))

    def _prox(self) -> "Prox | None":
        from mfkernel.kernels.sgd import Prox

        number, l1 = self.state.P.dtype.type, self.settings.l1
        if not (any(l1) or self.settings.nonnegative):
            return None
        return Prox(number(l1[0]), number(l1[1]), self.settings.nonnegative)


def predict_mean_for_unknown(ratings: Ratings, P: NDArray[Any], Q: NDArray[Any], mean: float) -> None:
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
            this[~known] = np.linalg.lstsq(gram, total * mean, rcond=None)[0]


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
