"""The base class of trainers: the questions that fitting and the training loop ask of a method."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import ThreadEngine
from mfkernel.methods.schedules.rows import RowMap
from mfkernel.options import Settings

if TYPE_CHECKING:
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.sgd import Biases, FactorRows

S = TypeVar("S", bound=Settings)

ROWS_PER_CHUNK = 2**14  # rows of factors handled at once where NumPy would copy them all


class Parameters(NamedTuple):
    """The parameters in training: P (m, k) and Q (n, k), padded and aligned, and the biases, (m,) and (n,).

    Rows are in the order that the trainer has chosen. Without biases, the last two are empty.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    user_bias: NDArray[Any]
    item_bias: NDArray[Any]


class EpochResult(NamedTuple):
    """The root mean square of the residuals of an epoch, and the objective if the method knows it."""

    rmse: float
    loss: float | None = None


class Problem(NamedTuple, Generic[S]):
    """The problem that a trainer solves.

    Attributes
    ----------
    ratings
        what is fitted, with values of the factors' dtype.
    k, dtype
        the rank, without padding, and the type of the factors.
    settings
        what is minimized and by which steps, as :meth:`Trainer.resolve` returns them.
    adapts
        whether λ is ours to choose, so that it may fall with the residuals.
    start
        makes the start values, the same each time, for rows in the order of its arguments.
    seed
        of the order of the ratings.
    n_threads
        how many tasks are to run at once.
    """

    ratings: Ratings
    k: int
    dtype: np.dtype[Any]
    settings: S
    adaptive_regularization: bool
    start: Callable[[RowMap, RowMap], Parameters]
    seed: int
    n_threads: int


class Trainer(Generic[S]):
    """How a method finds factors for some ratings, one epoch at a time.

    Class methods answer what has to be known before there is a trainer. A method overrides those whose answer
    differs, and :meth:`create`, :meth:`resolve`, :meth:`bytes_needed`, :meth:`epoch_choices`,
    :meth:`start_noise`, :meth:`run_epoch` and :attr:`scorer_arguments` in any case.

    Parameters
    ----------
    problem
        what is to be solved.
    row_of_user, row_of_item
        rows of users and items in the parameters; ``slice(None)`` for the order of the ratings.
    """

    learning_rate: float | None = None  # of the present epoch; None for a method without one
    learning_rate_scale = 1.0  # of all steps; halved at each divergence
    regularization = (0.0, 0.0)  # of the epoch at hand
    zeros_unrated: ClassVar[bool] = True  # whether rows without ratings start at zero in any case

    def __init__(
        self, problem: Problem[S], row_of_user: RowMap = slice(None), row_of_item: RowMap = slice(None)
    ) -> None:
        self.ratings, self.settings, self._k = problem.ratings, problem.settings, problem.k
        self._adaptive_regularization = problem.adaptive_regularization
        self.row_of_user, self.row_of_item = row_of_user, row_of_item
        self._start = problem.start
        self.parameters = self.restart()

    # before training

    @classmethod
    def create(cls, problem: Problem[S], engine: ThreadEngine) -> "Trainer[S]":
        """Lay the ratings out and make the trainer."""
        raise NotImplementedError

    @classmethod
    def resolve(cls, options: S, ratings: Ratings, *, warm_start: bool = False) -> S:
        """Choose from the ratings what the options leave open; ``warm_start`` continues from a model."""
        raise NotImplementedError

    @classmethod
    def bytes_needed(
        cls, ratings: Ratings, k: int, dtype: np.dtype[Any], options: S, n_threads: int
    ) -> dict[str, int]:
        """Return what training takes beyond the ratings, in bytes."""
        raise NotImplementedError

    @classmethod
    def epoch_choices(cls, ratings: Ratings, options: S) -> tuple[int, ...]:
        """Return the default number of epochs; or several, of which a trial with held-out ratings decides."""
        raise NotImplementedError

    @classmethod
    def start_noise(cls, k: int, spread: float, options: S) -> float:
        """Return the standard deviation of the start values; ``spread`` is that of the ratings."""
        raise NotImplementedError

    @classmethod
    def normalize_weights(cls, ratings: Ratings) -> Ratings:
        """Return the ratings with weights of a size that suits the method."""
        return ratings

    @classmethod
    def threads(cls, options: S, requested: int | None, nnz: int) -> int:
        """Return how many threads run; ``requested`` is what the user has passed."""
        raise NotImplementedError

    # during training

    def restart(self) -> Parameters:
        """Return the start values, for training that begins again."""
        return self._start(self.row_of_user, self.row_of_item)

    def forget_steps(self) -> None:
        """Forget what steps have gathered over the epochs, as the parameters have been restored."""

    def compile(self) -> None:
        """Compile all kernels that an epoch needs, without a change of the parameters."""

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Prepare for epoch 1, …, ``epochs``, after one that left the residuals at ``rmse``."""

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> EpochResult:
        """Run the epoch that has begun."""
        raise NotImplementedError

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings by the present parameters."""
        raise NotImplementedError

    def is_finite(self) -> bool:
        """Whether all parameters are numbers."""
        return all(bool(np.isfinite(X).all()) for X in self.parameters)

    def results(self) -> Parameters:
        """Return copies of the parameters, in the order of the ratings and without padding."""
        P, Q, user_bias, item_bias = self.parameters
        users, items = self.row_of_user, self.row_of_item
        return Parameters(
            np.ascontiguousarray(P[users, : self._k]),
            np.ascontiguousarray(Q[items, : self._k]),
            np.ascontiguousarray(user_bias[users if user_bias.size else slice(0)]),
            np.ascontiguousarray(item_bias[items if item_bias.size else slice(0)]),
        )


def sparsity(ratings: Ratings) -> float:
    """Return √(30/d) for d ratings per row or column: above 1 for sparse ratings."""
    return math.sqrt(30 * sum(ratings.shape) / ratings.nnz)


def predict_mean_for_unrated(ratings: Ratings, P: NDArray[Any], Q: NDArray[Any], mean: float) -> None:
    """Give rows and columns without ratings the factors whose products with all others are nearest the mean.

    Least squares: minimizes Σ (x·q - mean)² over the rated items q, then Σ (x·p - mean)² over all users p.
    """
    users, items = ratings.user_counts() > 0, ratings.item_counts() > 0
    everybody = np.ones_like(users)
    for this, rated, other, rows in ((P, users, Q, items), (Q, items, P, everybody)):
        if not rated.all():
            k = other.shape[1]
            gram, total = np.zeros((k, k)), np.zeros(k)
            for start in range(0, other.shape[0], ROWS_PER_CHUNK):
                part = other[start : start + ROWS_PER_CHUNK][rows[start : start + ROWS_PER_CHUNK]].astype(
                    np.float64
                )
                gram += part.T @ part
                total += part.sum(axis=0)
            this[~rated] = np.linalg.lstsq(gram, total * mean, rcond=None)[0]
