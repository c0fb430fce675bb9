"""The training loop; there is no other."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfkernel._support.lazy import lazy
from mfkernel.engines.threads import ThreadEngine, interruptible
from mfkernel.methods.base import Trainer
from mfkernel.model.factors import Factors
from mfkernel.model.history import Epoch
from mfkernel.training.checkpoints import Checkpoints
from mfkernel.training.validation import Validation

Callback = Callable[[Epoch], Any]

MAX_PROGRESS_LINES = 50
MAX_RATE_HALVINGS = 10  # of the step size
DIVERGENCE_FACTOR = (
    1e3  # times the size of the ratings; more only if the first epoch, from a given start, met more
)


class DivergenceError(FloatingPointError):
    """The residuals grow without bound: the learning rate is too large for these ratings."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training.

    Attributes
    ----------
    model
        The :class:`Factors` of the last whole epoch, or of one that ended less than a quarter of a second
        before; made when they are asked for.
    """

    def __init__(self, message: str, finish: Callable[[], Factors]) -> None:
        super().__init__(message)
        self._finish = finish

    @lazy
    def model(self) -> Factors:
        """Make the factors of the last whole epoch."""
        return self._finish()


class Stopping(NamedTuple):
    """When training ends before its last epoch.

    Attributes
    ----------
    patience
        epochs without a lower validation error; None for any number.
    tol
        share of the RMSE, or of the objective, by which an epoch must lower it, or of the validation error if
        there is one; None for any.
    time_limit
        seconds after which no further epoch begins.
    """

    patience: int | None = None
    tol: float | None = None
    time_limit: float | None = None


def train(
    trainer: Trainer[Any],
    checkpoints: Checkpoints,
    epochs: int,
    engine: ThreadEngine,
    history: list[Epoch],
    callbacks: Sequence[Callback] = (),
    validation: Validation | None = None,
    stopping: Stopping = Stopping(),  # noqa: B008 (immutable)
    record_out: Callable[[Epoch], Epoch] = lambda record: record,
) -> str:
    """Run ``epochs`` epochs, each when the tasks of the one before are done.

    If an epoch diverges, the last checkpoint is restored and training continues with half the learning rate.
    With validation ratings, the checkpoint is of the best epoch so far, and is restored in the end.

    Parameters
    ----------
    checkpoints
        copies of the trainer's parameters.
    history
        empty; gets a record after each epoch.
    callbacks
        called with the record of each epoch; if one returns True, training stops there.
    record_out
        converts a record, in the units of the trainer's ratings, to what ``history`` and callbacks get.

    Returns
    -------
    str
        Why it ended: "epochs", "converged", "patience", "time limit" or "callback".

    Raises
    ------
    DivergenceError
        When the residuals are no longer finite, or absurd, however small the steps.
    """
    progress = _Progress(trainer, checkpoints, stopping, record_out)
    epoch, reason = 1, ""
    interruptible(trainer.compile)  # so that no epoch's seconds have that in them
    if validation is not None:
        validation.measure(trainer, engine, Epoch(0, math.inf, 0.0, None))
    while epoch <= epochs and not reason:
        checkpoints.begin_epoch()
        trainer.begin_epoch(epoch, epochs, progress.rmse)
        start = time.perf_counter()
        rmse, loss = trainer.run_epoch(epoch, engine)
        record = Epoch(epoch, rmse, time.perf_counter() - start, trainer.learning_rate, loss=loss)
        if progress.is_absurd(record) or (epoch == epochs and not interruptible(trainer.is_finite)):
            epoch = progress.roll_back(record, history) + 1
            continue
        if validation is not None:
            record = validation.measure(trainer, engine, record)
        history.append(record_out(record))  # before the epoch ends: a model of an epoch has its record
        checkpoints.end_epoch(epoch)
        reason = progress.reason_to_stop(record)
        answers = [callback(history[-1]) for callback in callbacks]
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            reason = "callback"
        epoch += 1
    if validation is not None:
        checkpoints.restore()
    elif reason and not interruptible(trainer.is_finite):
        raise progress.divergence(record)
    if trainer.learning_rate_scale < 1:
        warnings.warn(
            "training diverged; it restored the last good epoch and continued with "
            f"{trainer.learning_rate_scale:g} times the learning rate, as history shows",
            stacklevel=5,
        )
    return reason or "epochs"


class _Progress:
    """The progress of training, which decides when to stop and when to roll back."""

    def __init__(
        self,
        trainer: Trainer[Any],
        checkpoints: Checkpoints,
        stopping: Stopping,
        record_out: Callable[[Epoch], Epoch],
    ) -> None:
        self._trainer, self._checkpoints = trainer, checkpoints
        self._stopping, self._record_out = stopping, record_out
        self._limit = DIVERGENCE_FACTOR * math.hypot(trainer.ratings.mean, trainer.ratings.std)
        self._begun, self._halvings = time.perf_counter(), 0
        self.rmse = self._reached = self._best = math.inf
        self._best_epoch = 0

    def is_absurd(self, record: Epoch) -> bool:
        """Whether the residuals of an epoch show that it diverged, which takes steps."""
        if record.learning_rate is None:
            return not math.isfinite(record.rmse)
        if record.epoch == 1 and math.isfinite(record.rmse) and not self._halvings:
            self._limit = max(self._limit, record.rmse)
        return not record.rmse <= self._limit

    def roll_back(self, record: Epoch, history: list[Epoch]) -> int:
        """Undo an epoch that diverged and halve the step size; return the epoch before the next."""
        self._halvings += 1
        if self._halvings > MAX_RATE_HALVINGS or record.learning_rate is None:
            raise self.divergence(record)
        self._trainer.learning_rate_scale /= 2
        epoch = self._checkpoints.restore()
        history.append(self._record_out(record)._replace(rolled_back_to=epoch))
        return epoch

    def divergence(self, record: Epoch) -> DivergenceError:
        """Word the error for the epoch in which training is given up."""
        shrinkage = (record.learning_rate or 0.0) * max(self._trainer.regularization)  # has no unit
        return divergence(self._record_out(record), shrinkage)

    def reason_to_stop(self, record: Epoch) -> str:
        """Take note of an epoch; return why to stop after it, or nothing."""
        self.rmse = record.rmse
        patience, tol, time_limit = self._stopping
        before, self._reached = self._reached, record.rmse if record.loss is None else record.loss
        reached = self._reached
        if record.validation_error is not None:
            before, reached = self._best, record.validation_error
            if reached < self._best:
                self._best, self._best_epoch = reached, record.epoch
                self._checkpoints.save(record.epoch)
        else:
            self._checkpoints.save_if_due(record.epoch)
        if patience is not None and record.epoch >= self._best_epoch + patience:
            return "patience"
        # an objective rises by rounding alone
        risen = reached > before and (record.loss is None or record.validation_error is not None)
        if tol is not None and before - tol * before <= reached and not risen:
            return "converged"
        if time_limit is not None and time.perf_counter() > self._begun + time_limit:
            return "time limit"
        return ""


def divergence(record: Epoch, shrinkage: float) -> DivergenceError:
    """Word the error for an epoch in which a row shrinks by the share ``shrinkage`` at each rating."""
    if record.learning_rate is None:
        return DivergenceError(
            f"factors grew beyond measure in epoch {record.epoch} (rmse {record.rmse:g}); pass a larger "
            "regularization, or dtype=np.float64"
        )
    cause = f" or regularization, their product being {shrinkage:g}" if shrinkage > 0.5 else ""
    return DivergenceError(
        f"training diverged in epoch {record.epoch} (rmse {record.rmse:g}) with learning rate "
        f"{record.learning_rate:g}; pass a smaller learning_rate{cause}"
    )


def show_progress(epochs: int) -> Callback:
    """Return a callback that writes one line per epoch to stderr, at most one per second for many."""
    last = -math.inf

    def show(record: Epoch) -> None:
        nonlocal last
        if epochs > MAX_PROGRESS_LINES and record.epoch not in (1, epochs) and time.monotonic() < last + 1:
            return
        last = time.monotonic()
        figures = (
            ("rmse", "6g", record.rmse),
            ("loss", "8g", record.loss),
            ("validation", "6g", record.validation_rmse),
            ("validation ndcg", "6g", record.validation_ndcg),
            ("rate", "3g", record.learning_rate),
        )
        shown = "".join(f"{name} {figure:.{form}}  " for name, form, figure in figures if figure is not None)
        print(
            f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}  {shown}{record.seconds:.3g} s",
            file=sys.stderr,
        )

    return show
