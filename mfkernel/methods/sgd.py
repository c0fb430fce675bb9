"""Stochastic gradient descent, and the defaults that it chooses from the ratings.

The defaults were chosen on ML-100K, ML-1M, ml-latest-small and generated sets of other scales and densities,
as a compromise between them; docs/architecture.md has the table and its evidence. If R is multiplied by s,
then P and Q grow by √s, the step size must fall by s and λ rise by s: so each default is a plain number times
a scale of the ratings.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.rows import padded_rank
from mfkernel.methods.base import EpochResult, Problem, Trainer, sparsity
from mfkernel.methods.objective import link
from mfkernel.methods.schedules.blocks import BlockSchedule, block_bytes
from mfkernel.methods.schedules.rows import MAX_COLUMN_BANDS, RowSchedule, Schedule
from mfkernel.options import SGD, both

if TYPE_CHECKING:
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.sgd import Adaptive, Biases, FactorRows, Prox

COORDINATES_PER_CALL = 2**22  # coordinates that one call of the kernel may visit: about 2 ms
SMALL_RESIDUAL = 0.5  # standard deviations; on real ratings residuals stay above 0.6
RATINGS_PER_THREAD = 300_000  # with fewer, an epoch takes less than handing its blocks out
MIN_TRIAL_RATINGS = 50  # of which a tenth would show nothing
BIAS_RATE = 0.15  # share of the factors' learning rate, in units of the ratings
BIAS_REGULARIZATION = 0.02  # per rating

# the learning rate of an epoch over that of the first, by the share of the epochs that are done and their
# number
DECAYS: dict[str, Callable[[float, int], float]] = {
    "constant": lambda share, done: 1.0,
    "inverse-time": lambda share, done: 1 / (1 + done / 5),
    "linear": lambda share, done: 1 - share,
    "cosine": lambda share, done: (1 + math.cos(math.pi * share)) / 2,
    "adaptive": lambda share, done: 1.0,
}


class SGDTrainer(Trainer[SGD]):
    """Stochastic gradient descent on a loss of every known rating, with penalties on its factors.

    Parameters
    ----------
    problem
        as for :class:`Trainer`; its settings are an ``SGD``.
    schedule
        the order in which the ratings are visited.
    """

    zeros_unrated = False

    def __init__(self, problem: Problem[SGD], schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(problem, schedule.row_of_user, schedule.row_of_item)
        self.learning_rate = self._first_rate
        self._steps: tuple[NDArray[Any], NDArray[Any]] | None = None

    @classmethod
    def create(cls, problem: Problem[SGD], engine: ThreadEngine) -> "SGDTrainer":
        """Lay the ratings out as the schedule visits them, and make the trainer."""
        settings, ratings = problem.settings, problem.ratings
        schedule: Schedule
        if settings.schedule == "blocks":
            k = padded_rank(problem.k)
            schedule = BlockSchedule(ratings, k, settings.shuffle, problem.seed, engine)
        else:
            schedule = RowSchedule(ratings, problem.n_threads, settings.shuffle, problem.seed)
        return cls(problem, schedule)

    @classmethod
    def resolve(cls, options: SGD, ratings: Ratings, *, warm_start: bool = False) -> SGD:
        """Choose from the ratings what the options leave open; a warm start takes smaller steps."""
        spread = ratings.std or abs(ratings.mean) or 1.0
        # the gradient of a rating is about its residual under the squared loss, and about 1 under the others
        gradient = {"absolute": spread, "logistic": 1.0}.get(options.loss, 1.0)
        reg: Any = options.regularization
        if reg is None:
            reg = (default_regularization(ratings, options) / gradient,) * 2
        rate = options.learning_rate
        if rate is None:
            rate = default_learning_rate(ratings, options) * gradient
            if options.loss == "absolute":  # the steps do not become smaller with the residuals
                rate /= 2
            if warm_start:
                rate *= 0.3
        bias_rate, bias_reg = options.bias_learning_rate, options.bias_regularization
        return options.changed(
            decay=options.decay or ("cosine" if options.learning_rate is None else "constant"),
            huber_delta=spread if options.huber_delta is None else options.huber_delta,
            learning_rate=rate,
            regularization=reg,
            bias_learning_rate=BIAS_RATE * rate * spread if bias_rate is None else bias_rate,
            bias_regularization=BIAS_REGULARIZATION / gradient if bias_reg is None else bias_reg,
        )

    @classmethod
    def bytes_needed(
        cls, ratings: Ratings, k: int, dtype: np.dtype[Any], options: SGD, n_threads: int
    ) -> dict[str, int]:
        """Return what training takes beyond the ratings, in bytes."""
        m, n = ratings.shape
        padded = (m + n) * padded_rank(k) * dtype.itemsize
        if options.schedule == "blocks":
            order = {"blocks": block_bytes(ratings.shape, ratings.nnz, dtype)}
        else:
            bounds = 0 if n_threads == 1 else min(n_threads, MAX_COLUMN_BANDS) + 1
            order = {"order of the rows": m * 8 * (6 + bounds)}
        return {"factors": padded, "a copy of them": padded, **order}

    @classmethod
    def epoch_choices(cls, ratings: Ratings, options: SGD) -> tuple[int, ...]:
        """Return the default epochs, and for a small table those that would fit it closely."""
        epochs, closely = default_epochs(ratings, options), epochs_to_fit_small_table(ratings)
        nothing_to_predict = ratings.nnz == ratings.n_users * ratings.n_items
        if closely <= epochs or ratings.nnz < MIN_TRIAL_RATINGS or nothing_to_predict:
            return (max(epochs, closely),)
        return epochs, closely

    @classmethod
    def start_noise(cls, k: int, spread: float, options: SGD) -> float:
        """Return the standard deviation of the start values."""
        noise = (0.007 if options.biases else 0.015) * math.sqrt(32 / k)
        return noise * math.sqrt(1.0 if options.loss == "logistic" else spread)

    @classmethod
    def normalize_weights(cls, ratings: Ratings) -> Ratings:
        """Bring weights to a mean of one, so that they do not change the size of the steps."""
        if ratings.weights is None:
            return ratings
        return ratings.with_values(ratings.values, ratings.weights / ratings.weights.mean(dtype=np.float64))

    @classmethod
    def threads(cls, options: SGD, requested: int | None, nnz: int) -> int:
        """Return how many threads the schedule uses, by default fewer for few ratings."""
        schedule = options.schedule
        if schedule == "sequential":
            if requested is not None and requested > 1:
                warnings.warn(
                    f"n_threads={requested} is not used: schedule='sequential' runs on one thread, "
                    "schedule='blocks' and 'hogwild' on several",
                    stacklevel=4,
                )
            return 1
        if requested is not None:
            return requested
        cores = available_cores()
        return max(1, min(cores, nnz // RATINGS_PER_THREAD)) if schedule == "blocks" else cores

    @property
    def _first_rate(self) -> float:
        return self.learning_rate_scale * float(self.settings.learning_rate or 0)

    def compile(self) -> None:
        """Compile the kernel of the schedule for these options."""
        self.begin_epoch(1, 1, math.inf)
        self.schedule.compile(self.update)

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Set learning rate and λ for an epoch, after one that left the residuals at ``rmse``."""
        from mfkernel.kernels.sgd import FactorRows, Rates
        from mfkernel.kernels.vectors import rank_token

        P, Q = self.parameters.P, self.parameters.Q
        number, settings = P.dtype.type, self.settings
        decay = DECAYS[settings.decay or "constant"]((epoch - 1) / epochs, epoch - 1)
        self.learning_rate = self._first_rate * decay
        small = 1.0
        if self._adaptive_regularization and settings.loss == "squared":
            small = min(1.0, rmse / (SMALL_RESIDUAL * self.ratings.std or 1.0))
        reg_p, reg_q = both(settings.regularization)
        self.regularization = reg_p, reg_q = reg_p * small, reg_q * small
        factors = FactorRows(P, Q, rank_token(P.shape[1]) if self.schedule.uses_known_rank else ())
        rates = Rates(number(self.learning_rate), number(reg_p), number(reg_q))
        self.update = factors, rates, self._adaptive(), self._biases(decay), self._loss(), self._prox()

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> EpochResult:
        """Visit all ratings once."""
        budget = max(1, COORDINATES_PER_CALL // self.parameters.P.shape[1])
        run_task = partial(self.schedule.run_task, budget=budget, update=self.update)
        loss = sum(engine.run(run_task, self.schedule.tasks(epoch)))
        return EpochResult(math.sqrt(loss / self.ratings.nnz))

    def forget_steps(self) -> None:
        """Begin again with adaptive steps."""
        self._steps = None

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings by the present parameters."""
        factors, _, _, biases, loss, _ = self.update
        return factors, biases, loss

    def _adaptive(self) -> "Adaptive | None":
        """Return the state of adaptive steps, with G in units that the ratings' scale does not change."""
        from mfkernel.kernels.sgd import Adaptive

        if self.settings.decay != "adaptive":
            return None
        P, Q = self.parameters.P, self.parameters.Q
        if self._steps is None:
            self._steps = np.ones((len(P), 2), P.dtype), np.ones((len(Q), 2), Q.dtype)
        for X, step in zip((P, Q), self._steps, strict=True):
            np.einsum("uk,uk->u", X, X, out=step[:, 0])  # afresh, as the updates of the norms round
        spread = self.ratings.std or abs(self.ratings.mean) or 1.0
        return Adaptive(*self._steps, P.dtype.type(1 / (self._k * spread**3)))

    def _biases(self, decay: float) -> "Biases | None":
        from mfkernel.kernels.sgd import Biases

        if not self.settings.biases:
            return None
        P, _, user_bias, item_bias = self.parameters
        number = P.dtype.type
        rate = self.learning_rate_scale * float(self.settings.bias_learning_rate or 0) * decay
        reg = float(self.settings.bias_regularization or 0)
        mean = link(self.ratings.mean, self.settings.loss)
        return Biases(number(mean), user_bias, item_bias, number(rate), number(reg))

    def _loss(self) -> "Loss | None":
        from mfkernel.kernels.losses import ABSOLUTE, HUBER, LOGISTIC, Loss

        kinds = {"absolute": ABSOLUTE, "huber": HUBER, "logistic": LOGISTIC}
        if self.settings.loss == "squared":
            return None
        return Loss(kinds[self.settings.loss], self.parameters.P.dtype.type(self.settings.huber_delta))

    def _prox(self) -> "Prox | None":
        from mfkernel.kernels.sgd import Prox

        number, l1 = self.parameters.P.dtype.type, both(self.settings.l1)
        if not (any(l1) or self.settings.nonnegative):
            return None
        return Prox(number(l1[0]), number(l1[1]), self.settings.nonnegative)


def default_learning_rate(ratings: Ratings, options: SGD) -> float:
    """Choose a first learning rate: 0.02 to 0.08 per size of a typical residual, 0.1 if steps are adaptive.

    More ratings per row or column need smaller steps: while the factors grow out of the noise, each rating of
    a row lengthens them, and large steps would lengthen them without bound. Small dense tables need smaller
    steps for the same reason. Without biases, sparse ratings need them as well, since large steps overfit
    their noise.

    A step moves the prediction by γe(‖p‖² + ‖q‖²). Without biases, the factors carry the mean as well: ‖p‖²
    is at least about |mean|, so that a mean far from zero needs smaller steps. Outliers do so too, and so do
    ratings whose weight is far above the average.
    """
    values = ratings.values
    farthest = max(float(values.max()) - ratings.mean, ratings.mean - float(values.min()))
    heaviest = 1.0 if ratings.weights is None else float(ratings.weights.max())
    sparse = sparsity(ratings)
    if options.decay == "adaptive":
        first = 0.1
    elif options.biases:
        unbounded = options.loss in ("squared", "huber")  # the gradient of a rating, which lengthens factors
        first = min(0.04 if unbounded and epochs_to_fit_small_table(ratings) else 0.08, 0.06 * sparse)
    else:
        first = min(0.06, 0.04 * math.sqrt(sparse), 0.006 * 30 / sparse**2)
    carried = 0.0 if options.biases else abs(ratings.mean) / 3
    return first / (max(ratings.std, carried, farthest / 10) or 1.0) / max(1.0, heaviest / 10)


def default_regularization(ratings: Ratings, options: SGD) -> float:
    """Choose λ: 0.07 standard deviations up to 30 ratings per row or column, 0.08 with biases; less for more.

    λ counts per rating, so the penalty of a row with n ratings is nλ; a row with more ratings needs a smaller
    λ. This suits ratings with as much noise as people's. Residuals below half a standard deviation show less
    noise, and λ falls with them.
    """
    most = 0.08 if options.biases else 0.07
    return most * ratings.std * min(1.0, sparsity(ratings))


def default_epochs(ratings: Ratings, options: SGD) -> int:
    """Choose the epochs: 25, fewer for sparse ratings, which overfit; more where steps are small."""
    passes = 2.5 + 1.5 * ratings.nnz / sum(ratings.shape)
    if options.biases:
        return round(min(20.0, passes))
    passes = min(25.0, passes)
    smaller_steps = abs(ratings.mean) / (3 * ratings.std) if ratings.std > 0 else 1.0
    return round(passes * min(40.0, max(1.0, smaller_steps)))


def epochs_to_fit_small_table(ratings: Ratings) -> int:
    """Return how many epochs fit a small dense table closely; 0 if it is large or sparse.

    Whether to fit it so closely depends on its noise, which only a trial shows.
    """
    m, n = ratings.shape
    much_is_known = ratings.nnz >= m * n / 10
    return min(1000, 300_000 // ratings.nnz) if much_is_known and ratings.nnz < 10_000 else 0
