"""Stochastic gradient descent, and the defaults that it chooses from the ratings.

The defaults are a compromise between ML-100K, ML-1M, ml-latest-small and generated sets of other scales and
densities. docs/architecture.md has the table and its evidence. If R is multiplied by s, then P and Q grow by
√s, the learning rate must fall by s, and λ must rise by s. Each default is therefore a number times a scale
of the ratings. Below, σ is the standard deviation of the ratings, and d the ratings per row or column.
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
from mfkernel.methods.base import TYPICAL_RATINGS, EpochResult, Problem, Trainer, sparsity
from mfkernel.methods.objective import link
from mfkernel.methods.schedules.blocks import BlockSchedule, block_bytes
from mfkernel.methods.schedules.rows import MAX_COLUMN_BANDS, RowSchedule, Schedule
from mfkernel.options import SGD, both

if TYPE_CHECKING:
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.sgd import Adaptive, Biases, FactorRows, Prox

COORDINATES_PER_CALL = 2**22  # coordinates per call of the kernel: about 2 ms
SMALL_RESIDUAL = 0.5  # σ: below it, λ falls; residuals of real ratings stay above 0.6 σ
RATINGS_PER_THREAD = 300_000  # ratings: with fewer, a thread costs more than it saves
MIN_TRIAL_RATINGS = 50  # ratings: a tenth of fewer would show nothing

# the first learning rate, in 1/σ
ADAPTIVE_RATE = 0.1  # for decay="adaptive"
RATE, MAX_RATE = 0.04, 0.06  # without biases: times √√(30/d)
RATE_PER_RATING = 0.006  # without biases, times d: with few ratings per row, large steps overfit their noise
BIASED_RATE, MAX_BIASED_RATE = 0.06, 0.08  # with biases: times √(30/d)
MAX_SMALL_TABLE_RATE = 0.04  # with biases: noise of small dense tables grows within an epoch
WARM_START_RATE = 0.3  # share of the rate: larger steps predicted worse than the model of the start
ABSOLUTE_RATE = 0.5  # share of the rate: under the absolute loss, steps do not shrink with the residuals
BIAS_RATE = 0.15  # σ² times the factors' rate
# what else than σ limits steps, in σ
MEAN_RATIO = 3  # |mean| / 3: without biases, the factors also carry the mean
OUTLIER_RATIO = 10  # farthest rating / 10
WEIGHT_RATIO = 10  # largest weight / 10, if more than the mean weight

SGD_REGULARIZATION, SGD_BIASED_REGULARIZATION = 0.07, 0.08  # σ, per rating
BIAS_REGULARIZATION = 0.02  # per rating
SGD_START_NOISE, SGD_BIASED_START_NOISE = 0.015, 0.007  # √σ at rank 32: more noise overfits
TUNED_RANK = 32  # rank for which the noise was chosen

MIN_EPOCHS, EPOCHS_PER_RATING = 2.5, 1.5  # epochs for d = 0, and per unit of d: more overfit sparse ratings
MAX_EPOCHS, MAX_BIASED_EPOCHS = 25.0, 20.0
MAX_EPOCHS_FACTOR = 40.0  # times the epochs, for smaller steps because of a large mean
# small dense tables, which may be free of noise
SMALL_TABLE_VISITS, MAX_SMALL_TABLE_EPOCHS = 300_000, 1000  # visits of ratings in all, and epochs
MAX_SMALL_TABLE_RATINGS = 10_000
CELLS_PER_RATING = 10  # most cells per rating of a dense table

INVERSE_TIME_EPOCHS = 5  # epochs after which the rate of decay="inverse-time" is half of the first
# ratio of an epoch's learning rate to the first, given the share and the number of the epochs done
DECAYS: dict[str, Callable[[float, int], float]] = {
    "constant": lambda share, done: 1.0,
    "inverse-time": lambda share, done: 1 / (1 + done / INVERSE_TIME_EPOCHS),
    "linear": lambda share, done: 1 - share,
    "cosine": lambda share, done: (1 + math.cos(math.pi * share)) / 2,
    "adaptive": lambda share, done: 1.0,
}


class SGDTrainer(Trainer[SGD]):
    """Stochastic gradient descent on the loss of every known rating and penalties on its factors.

    Parameters
    ----------
    problem
        Problem with settings of the type ``SGD``.
    schedule
        Order in which the ratings are visited.
    """

    zeros_unrated = False

    def __init__(self, problem: Problem[SGD], schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(problem, schedule.row_of_user, schedule.row_of_item)
        self.learning_rate = self._first_rate
        self._steps: tuple[NDArray[Any], NDArray[Any]] | None = None

    @classmethod
    def create(cls, problem: Problem[SGD], engine: ThreadEngine) -> "SGDTrainer":
        """Store the ratings in the order of the schedule, and make the trainer."""
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
        """Choose open options from the ratings; a warm start takes smaller steps."""
        spread = ratings.std or abs(ratings.mean) or 1.0
        # size of a rating's gradient, relative to its residual, on average
        gradient = {"absolute": spread, "logistic": 1.0}.get(options.loss, 1.0)
        reg: Any = options.regularization
        if reg is None:
            reg = (default_regularization(ratings, options) / gradient,) * 2
        rate = options.learning_rate
        if rate is None:
            rate = default_learning_rate(ratings, options) * gradient
            if options.loss == "absolute":
                rate *= ABSOLUTE_RATE
            if warm_start:
                rate *= WARM_START_RATE
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
        """Return the memory of training beside the ratings, in bytes."""
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
        """Return the default epochs, and for a small table also those of a close fit."""
        epochs, closely = default_epochs(ratings, options), epochs_to_fit_small_table(ratings)
        nothing_to_predict = ratings.nnz == ratings.n_users * ratings.n_items
        if closely <= epochs or ratings.nnz < MIN_TRIAL_RATINGS or nothing_to_predict:
            return (max(epochs, closely),)
        return epochs, closely

    @classmethod
    def start_noise(cls, k: int, spread: float, options: SGD) -> float:
        """Return the standard deviation of the start values."""
        noise = (SGD_BIASED_START_NOISE if options.biases else SGD_START_NOISE) * math.sqrt(TUNED_RANK / k)
        return noise * math.sqrt(1.0 if options.loss == "logistic" else spread)

    @classmethod
    def normalize_weights(cls, ratings: Ratings) -> Ratings:
        """Scale weights to a mean of 1, so that they do not change the size of steps."""
        if ratings.weights is None:
            return ratings
        return ratings.with_values(ratings.values, ratings.weights / ratings.weights.mean(dtype=np.float64))

    @classmethod
    def threads(cls, options: SGD, requested: int | None, nnz: int) -> int:
        """Return the number of threads; by default, few ratings use fewer."""
        schedule = options.schedule
        if schedule == "sequential":
            if requested is not None and requested > 1:
                warnings.warn(
                    f"n_threads must be 1 with schedule='sequential', got {requested}, which is not used; "
                    "schedule='blocks' and 'hogwild' run on several threads",
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
        """Set learning rate and λ for an epoch; ``rmse`` is that of the epoch before."""
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
        """Visit each rating once."""
        budget = max(1, COORDINATES_PER_CALL // self.parameters.P.shape[1])
        run_task = partial(self.schedule.run_task, budget=budget, update=self.update)
        loss = sum(engine.run(run_task, self.schedule.tasks(epoch)))
        return EpochResult(math.sqrt(loss / self.ratings.nnz))

    def forget_steps(self) -> None:
        """Reset the adaptive step sizes."""
        self._steps = None

    def state(self) -> dict[str, Any]:
        """Return what later epochs depend on, also the adaptive step sizes."""
        names = ("user_steps", "item_steps")
        return super().state() | dict(zip(names, self._steps or (), strict=False))

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned."""
        super().restore(state)
        self._steps = None
        if "user_steps" in state:
            steps = state["user_steps"], state["item_steps"]
            for X, step in zip(self.parameters[:2], steps, strict=True):
                if (step.shape, step.dtype) != ((len(X), 2), X.dtype):  # kernels rely on it
                    raise ValueError(f"steps must be of shape {(len(X), 2)}, got {step.shape}")
            self._steps = steps

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings with the current parameters."""
        factors, _, _, biases, loss, _ = self.update
        return factors, biases, loss

    def _adaptive(self) -> "Adaptive | None":
        """Return the state of adaptive steps; G does not depend on the scale of the ratings."""
        from mfkernel.kernels.sgd import Adaptive

        if self.settings.decay != "adaptive":
            return None
        P, Q = self.parameters.P, self.parameters.Q
        if self._steps is None:
            self._steps = np.ones((len(P), 2), P.dtype), np.ones((len(Q), 2), Q.dtype)
        for X, step in zip((P, Q), self._steps, strict=True):
            np.einsum("uk,uk->u", X, X, out=step[:, 0])  # recomputed, because updates of the norms round
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
    """Choose the first learning rate, in inverse units of a typical residual.

    Rows with many ratings need small steps. While the factors grow out of the noise, each rating of a row
    lengthens them, and large steps would lengthen them without bound. Small dense tables need small steps for
    the same reason. Without biases, sparse ratings also need small steps, since large ones overfit.

    A step moves the prediction by γe(‖p‖² + ‖q‖²). Without biases, the factors also carry the mean: ‖p‖² is
    at least about |mean|, so a mean far from zero needs small steps. Outliers and ratings of large weight
    need them as well.
    """
    values = ratings.values
    farthest = max(float(values.max()) - ratings.mean, ratings.mean - float(values.min()))
    heaviest = 1.0 if ratings.weights is None else float(ratings.weights.max())
    sparse = sparsity(ratings)
    if options.decay == "adaptive":
        first = ADAPTIVE_RATE
    elif options.biases:
        unbounded = options.loss in ("squared", "huber")  # whether large residuals have large gradients
        small_table = unbounded and epochs_to_fit_small_table(ratings) > 0
        first = min(MAX_SMALL_TABLE_RATE if small_table else MAX_BIASED_RATE, BIASED_RATE * sparse)
    else:
        first = min(MAX_RATE, RATE * math.sqrt(sparse), RATE_PER_RATING * TYPICAL_RATINGS / sparse**2)
    carried = 0.0 if options.biases else abs(ratings.mean) / MEAN_RATIO
    size = max(ratings.std, carried, farthest / OUTLIER_RATIO) or 1.0
    return first / size / max(1.0, heaviest / WEIGHT_RATIO)


def default_regularization(ratings: Ratings, options: SGD) -> float:
    """Choose λ, proportional to σ, and smaller for more than 30 ratings per row or column.

    λ applies per rating, so the penalty of a row with n ratings is nλ, and rows with more ratings need a
    smaller λ. The choice suits the noise of people's ratings. Residuals below σ/2 show less noise, and λ
    falls with them.
    """
    most = SGD_BIASED_REGULARIZATION if options.biases else SGD_REGULARIZATION
    return most * ratings.std * min(1.0, sparsity(ratings))


def default_epochs(ratings: Ratings, options: SGD) -> int:
    """Choose the epochs: fewer for sparse ratings, which overfit, and more for small steps."""
    epochs = MIN_EPOCHS + EPOCHS_PER_RATING * ratings.nnz / sum(ratings.shape)
    if options.biases:
        return round(min(MAX_BIASED_EPOCHS, epochs))
    epochs = min(MAX_EPOCHS, epochs)
    smaller_steps = abs(ratings.mean) / (MEAN_RATIO * ratings.std) if ratings.std > 0 else 1.0
    return round(epochs * min(MAX_EPOCHS_FACTOR, max(1.0, smaller_steps)))


def epochs_to_fit_small_table(ratings: Ratings) -> int:
    """Return the epochs of a close fit to a small dense table; 0 if it is large or sparse.

    Only a trial shows whether the table has little noise and needs such a fit.
    """
    m, n = ratings.shape
    if ratings.nnz < m * n / CELLS_PER_RATING or ratings.nnz >= MAX_SMALL_TABLE_RATINGS:
        return 0
    return min(MAX_SMALL_TABLE_EPOCHS, SMALL_TABLE_VISITS // ratings.nnz)
