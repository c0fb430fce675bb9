"""The base class of trainers, which fitting and the training loop use."""

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
    from mfkernel.methods.posterior import Posterior

S = TypeVar("S", bound=Settings)

ROWS_PER_CHUNK = 2**14  # rows of factors per NumPy call, which bounds its temporary copies
TYPICAL_RATINGS = 30  # ratings per row or column: fewer count as sparse


class Parameters(NamedTuple):
    """The parameters in training: P (m, k) and Q (n, k), padded and aligned, and biases (m,), (n,).

    The trainer determines the order of the rows. Without biases, the last two are empty.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    user_bias: NDArray[Any]
    item_bias: NDArray[Any]


class EpochResult(NamedTuple):
    """The root mean square of an epoch's residuals, and the objective if the method computes it."""

    rmse: float
    loss: float | None = None


class Problem(NamedTuple, Generic[S]):
    """The problem that a trainer solves.

    Attributes
    ----------
    ratings
        Ratings to fit, with values of the factors' dtype.
    k, dtype
        Rank without padding, and type of the factors.
    settings
        Options without None, from :meth:`Trainer.resolve`.
    adaptive_regularization
        Whether λ is a default, which may fall with the residuals.
    start
        Function of the rows of users and items that returns start values, the same at each call.
    seed
        Seed of the order of the ratings.
    n_threads
        Number of tasks that run at once.
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
    """The algorithm of a method, which fits the factors epoch by epoch.

    Class methods are called before a trainer exists. A method must override :meth:`create`, :meth:`resolve`,
    :meth:`bytes_needed`, :meth:`epoch_choices`, :meth:`start_noise`, :meth:`threads`, :meth:`run_epoch` and
    :attr:`scorer_arguments`. It may override the others.

    Parameters
    ----------
    problem
        Problem to solve.
    row_of_user, row_of_item
        (m,), (n,) rows of users and items in the parameters. Default: the order of the ratings.
    """

    learning_rate: float | None = None  # learning rate of the current epoch; None for a method without one
    learning_rate_scale = 1.0  # factor of all learning rates; halved at each divergence
    regularization = (0.0, 0.0)  # λ of P and of Q in the current epoch
    zeros_unrated: ClassVar[bool] = True  # whether rows without ratings always start at zero
    patience: ClassVar[int | None] = 5  # default epochs without a lower validation error
    has_settled = True  # whether errors of the current epoch may end the training

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
        """Prepare the ratings and make the trainer."""
        raise NotImplementedError

    @classmethod
    def resolve(cls, options: S, ratings: Ratings, *, warm_start: bool = False) -> S:
        """Choose open options from the ratings; a warm start continues from a model."""
        raise NotImplementedError

    @classmethod
    def bytes_needed(
        cls, ratings: Ratings, k: int, dtype: np.dtype[Any], options: S, n_threads: int
    ) -> dict[str, int]:
        """Return the memory of training beside the ratings, in bytes per part."""
        raise NotImplementedError

    @classmethod
    def epoch_choices(cls, ratings: Ratings, options: S) -> tuple[int, ...]:
        """Return the default number of epochs, or several to choose from by a trial."""
        raise NotImplementedError

    @classmethod
    def start_noise(cls, k: int, spread: float, options: S) -> float:
        """Return the standard deviation of the start values; ``spread`` is that of the ratings."""
        raise NotImplementedError

    @classmethod
    def normalize_weights(cls, ratings: Ratings) -> Ratings:
        """Scale the weights of the ratings as the method needs them."""
        return ratings

    @classmethod
    def threads(cls, options: S, requested: int | None, nnz: int) -> int:
        """Return the number of threads; ``requested`` is the user's argument."""
        raise NotImplementedError

    # during training

    def restart(self) -> Parameters:
        """Return the start values."""
        return self._start(self.row_of_user, self.row_of_item)

    def forget_steps(self) -> None:
        """Reset the state of adaptive steps, after the parameters have been restored."""

    def state(self) -> dict[str, Any]:
        """Return what later epochs depend on beside the parameters: numbers and arrays by name."""
        return {"learning_rate_scale": self.learning_rate_scale, "regularization": self.regularization}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned, after the parameters and before an epoch."""
        self.learning_rate_scale = float(state["learning_rate_scale"])
        reg_p, reg_q = map(float, state["regularization"])
        self.regularization = reg_p, reg_q

    def compile(self) -> None:
        """Compile all kernels of an epoch without changing the parameters."""

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Prepare an epoch of 1, …, ``epochs``; ``rmse`` is that of the epoch before."""

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> EpochResult:
        """Run the epoch that :meth:`begin_epoch` has prepared."""
        raise NotImplementedError

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings with the current parameters."""
        raise NotImplementedError

    def is_finite(self) -> bool:
        """Return whether all parameters are finite."""
        return all(bool(np.isfinite(X).all()) for X in self.parameters)

    def posterior(self) -> "Posterior | None":
        """Return samples of the parameters, if the method draws any."""
        return None

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
    return math.sqrt(TYPICAL_RATINGS * sum(ratings.shape) / ratings.nnz)


def predict_mean_for_unrated(ratings: Ratings, P: NDArray[Any], Q: NDArray[Any], mean: float) -> None:
    """Set the factors of rows and columns without ratings so that predictions are near the mean.

    Users minimize Σ (x·q - mean)² over the rated items q. Items then minimize Σ (x·p - mean)² over all
    users p.
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
