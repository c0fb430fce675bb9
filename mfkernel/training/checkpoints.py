"""Copies of the parameters that training restores when it diverges or ends."""

import time
from typing import Any

import numpy as np

from mfkernel.methods.base import Parameters, Trainer

NUMBERS_PER_COPY = 2**20  # parameters per copy: Python answers Ctrl-C between two copies
CHECKPOINT_INTERVAL = 0.25  # seconds of training between two checkpoints


class Checkpoints:
    """The last checkpoint of a trainer, and the epoch of its current parameters."""

    def __init__(self, trainer: Trainer[Any]) -> None:
        self._trainer = trainer
        self._epoch: int | None = 0  # epoch of the current parameters; None within an epoch
        self._saved: tuple[int, Parameters] | None = None
        self._saved_at = time.perf_counter()

    @property
    def saved(self) -> tuple[int, Parameters] | None:
        """The last checkpoint and its epoch."""
        return self._saved

    def resume(self, epoch: int, saved: tuple[int, Parameters] | None) -> None:
        """Continue after ``epoch``, whose parameters are restored, with a last checkpoint."""
        self._epoch, self._saved = epoch, saved

    def begin_epoch(self) -> None:
        """Note that the parameters are about to change."""
        self._epoch = None

    def end_epoch(self, epoch: int) -> None:
        """Note that all tasks of an epoch are done."""
        self._epoch = epoch

    def save_if_due(self, epoch: int) -> None:
        """Save the parameters after ``epoch``, unless the last checkpoint is recent."""
        if time.perf_counter() > self._saved_at + CHECKPOINT_INTERVAL:
            self.save(epoch)

    def save(self, epoch: int) -> None:
        """Copy the parameters after ``epoch``."""
        parameters = self._trainer.parameters
        _, saved = self._saved or (0, Parameters(*map(np.empty_like, parameters)))
        for copy, X in zip(saved, parameters, strict=True):
            rows = max(1, NUMBERS_PER_COPY // (X.shape[1] if X.ndim == 2 else 1))
            for start in range(0, len(X), rows):
                np.copyto(copy[start : start + rows], X[start : start + rows])
        self._saved, self._saved_at = (epoch, saved), time.perf_counter()

    def restore(self) -> int:
        """Restore the last checkpoint, else the start values; return its epoch, else 0."""
        self._trainer.forget_steps()
        if self._saved is None:
            self._epoch, self._trainer.parameters = 0, self._trainer.restart()
        else:
            self._epoch, saved = self._saved
            for X, copy in zip(self._trainer.parameters, saved, strict=True):
                np.copyto(X, copy)
        return self._epoch

    def restore_whole_epoch(self, best: bool) -> int:
        """Restore a whole epoch after an interrupt, and return its number.

        It is the last epoch, or with ``best`` the saved one. The result is 0 if no epoch is whole; the
        parameters are then useless.
        """
        if self._epoch is not None and not best:
            return self._epoch
        return self.restore() if self._saved else 0
