"""The training loop that all methods share."""

import math
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
from mfkernel.training.resume import FitFile, Run
from mfkernel.training.validation import Validation

Callback = Callable[[Epoch], Any]

MAX_RATE_HALVINGS = 10  # halvings of the learning rate before training gives up
# RMSE of a diverged epoch, in units of the ratings' size; more only if the first epoch had more
DIVERGENCE_FACTOR = 1e3


class DivergenceError(FloatingPointError):
    """Training diverged: the learning rate is too large for these ratings."""


class Interrupted(KeyboardInterrupt):
    """Training was interrupted by Ctrl-C.

    Parameters
    ----------
    message
        Text of the exception.
    finish
        Function that returns the model.

    Attributes
    ----------
    model
        The :class:`Factors` of the last whole epoch, or of an epoch that ended at most 0.25 s earlier. With
        validation ratings, those of the best epoch.
    """

    def __init__(self, message: str, finish: Callable[[], Factors]) -> None:
        super().__init__(message)
        self._finish = finish

    @lazy
    def model(self) -> Factors:
        """Compute the factors of a whole epoch on first access."""
        return self._finish()


class Stopping(NamedTuple):
    """The conditions that end training before its last epoch.

    Attributes
    ----------
    patience
        Number of epochs without a lower validation error, at least 1. Default: no limit.
    tol
        Least relative improvement per epoch of the validation error, else of the objective, else of the
        RMSE. Default: no limit.
    time_limit
        Seconds after which no further epoch begins. Default: no limit.
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
    report: Callable[[Epoch], None] = lambda record: None,
    file: FitFile | None = None,
) -> str:
    """Run ``epochs`` epochs, one after the other.

    If an epoch diverges, the last checkpoint is restored and training continues with half the learning rate.
    With validation ratings, the checkpoint is that of the best epoch, and is restored at the end.

    Parameters
    ----------
    checkpoints
        Checkpoints of the trainer's parameters.
    history
        An empty list, to which one record per epoch is appended.
    callbacks
        Functions called with the record of each epoch. If one returns True, training stops.
    record_out
        Function that converts a record from the units of training to those of the ratings.
    report
        Function called with each record, also of epochs that were undone, before the callbacks.
    file
        File from which to resume, and to which checkpoints are written.

    Returns
    -------
    str
        Reason of the end: "epochs", "converged", "patience", "time limit" or "callback".

    Raises
    ------
    DivergenceError
        If training still diverges after all halvings of the learning rate.
    """
    progress = _Progress(trainer, checkpoints, stopping, record_out)
    done, reason = 0, ""
    interruptible(trainer.compile)  # before the first epoch, whose seconds exclude compilation
    if validation is not None:
        validation.measure(trainer, engine, Epoch(0, math.inf, 0.0, None))
    if file is not None:
        run = Run(trainer, checkpoints, progress, history, epochs, keeps_best=validation is not None)
        done, reason = file.begin(run)
    is_finished = bool(reason) or done == epochs
    while done < epochs and not reason:
        epoch = done + 1
        checkpoints.begin_epoch()
        trainer.begin_epoch(epoch, epochs, progress.rmse)
        start = time.perf_counter()
        rmse, loss = trainer.run_epoch(epoch, engine)
        record = Epoch(epoch, rmse, time.perf_counter() - start, trainer.learning_rate, loss=loss)
        if progress.is_absurd(record) or (epoch == epochs and not interruptible(trainer.is_finite)):
            done = progress.roll_back(record, history)
            report(history[-1])
            continue
        if validation is not None:
            record = validation.measure(trainer, engine, record)
        history.append(record_out(record))  # before end_epoch, so that each whole epoch has its record
        checkpoints.end_epoch(epoch)
        done = epoch
        reason = progress.reason_to_stop(record)
        report(history[-1])
        answers = [callback(history[-1]) for callback in callbacks]
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            reason = "callback"
        if file is not None and not reason and done < epochs:
            file.save_if_due(done)
    if validation is None and reason and not is_finished and not interruptible(trainer.is_finite):
        raise progress.divergence(record)
    if file is not None and not is_finished:
        file.save_at_end(done, reason)
    if validation is not None:
        checkpoints.restore()
    if trainer.learning_rate_scale < 1:
        warnings.warn(
            "training diverged; it restored the last good epoch and continued with "
            f"{trainer.learning_rate_scale:g} times the learning rate, as history shows",
            stacklevel=5,
        )
    return reason or "epochs"


class _Progress:
    """The progress of training, with the decisions to stop and to roll back."""

    _NUMBERS = ("rmse", "_reached", "_best", "_best_epoch", "_limit", "_halvings")

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

    def state(self) -> dict[str, Any]:
        """Return all numbers that later decisions depend on."""
        return {name: getattr(self, name) for name in self._NUMBERS}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned."""
        for name in self._NUMBERS:
            setattr(self, name, type(getattr(self, name))(state[name]))

    def is_absurd(self, record: Epoch) -> bool:
        """Return whether an epoch diverged; without a learning rate, whether it is not finite."""
        if record.learning_rate is None:
            return not math.isfinite(record.rmse)
        if record.epoch == 1 and math.isfinite(record.rmse) and not self._halvings:
            self._limit = max(self._limit, record.rmse)
        return not record.rmse <= self._limit

    def roll_back(self, record: Epoch, history: list[Epoch]) -> int:
        """Undo a diverged epoch and halve the learning rate; return the restored epoch."""
        self._halvings += 1
        if self._halvings > MAX_RATE_HALVINGS or record.learning_rate is None:
            raise self.divergence(record)
        self._trainer.learning_rate_scale /= 2
        epoch = self._checkpoints.restore()
        history.append(self._record_out(record)._replace(rolled_back_to=epoch))
        return epoch

    def divergence(self, record: Epoch) -> DivergenceError:
        """Return the error for the epoch in which training gives up."""
        shrinkage = (record.learning_rate or 0.0) * max(self._trainer.regularization)  # without a unit
        return divergence(self._record_out(record), shrinkage)

    def reason_to_stop(self, record: Epoch) -> str:
        """Record an epoch; return the reason to stop after it, or an empty string."""
        self.rmse = record.rmse
        patience, tol, time_limit = self._stopping
        before, self._reached = self._reached, record.rmse if record.loss is None else record.loss
        reached = self._reached
        if record.validation_error is not None:
            before, reached = self._best, record.validation_error
            if reached < self._best or not self._trainer.has_settled:
                self._best, self._best_epoch = reached, record.epoch
                self._checkpoints.save(record.epoch)
        else:
            self._checkpoints.save_if_due(record.epoch)
        if patience is not None and record.epoch >= self._best_epoch + patience:
            return "patience"
        # an objective can only rise by rounding, so a rise means convergence
        risen = reached > before and (record.loss is None or record.validation_error is not None)
        risen |= not self._trainer.has_settled
        if tol is not None and before - tol * before <= reached and not risen:
            return "converged"
        if time_limit is not None and time.perf_counter() > self._begun + time_limit:
            return "time limit"
        return ""


def divergence(record: Epoch, shrinkage: float) -> DivergenceError:
    """Return the error for a diverged epoch; each rating shrinks a row by ``shrinkage``."""
    if record.learning_rate is None:
        return DivergenceError(
            f"training diverged in epoch {record.epoch} (rmse {record.rmse:g}); pass a larger "
            "regularization, or dtype=np.float64"
        )
    cause = f" or regularization (their product is {shrinkage:g})" if shrinkage > 0.5 else ""
    return DivergenceError(
        f"training diverged in epoch {record.epoch} (rmse {record.rmse:g}) with learning rate "
        f"{record.learning_rate:g}; pass a smaller learning_rate{cause}"
    )
