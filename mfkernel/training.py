"""The training loop; there is no other."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mfkernel._lazy import lazy
from mfkernel.engine import ThreadEngine, interruptible
from mfkernel.factors import Epoch, Factors
from mfkernel.methods import Sgd

Callback = Callable[[Epoch], Any]

MOST_LINES = 50
BLOWN_UP = 1e3  # times the size of the ratings; more only if the first epoch, from a given start, met more


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


def train(
    method: Sgd,
    epochs: int,
    engine: ThreadEngine,
    history: list[Epoch],
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run ``epochs`` epochs, each when the tasks of the one before are done.

    Parameters
    ----------
    history
        empty; gets a record after each epoch.
    callbacks
        called with the record of each epoch; if one returns True, training stops there.

    Raises
    ------
    DivergenceError
        When the residuals are no longer finite, or absurd.
    """
    nnz = method.ratings.nnz
    limit = BLOWN_UP * math.hypot(method.ratings.mean, method.ratings.std)
    for epoch in range(1, epochs + 1):
        method.begin_epoch(epoch, epochs, history[-1].rmse if history else math.inf)
        start = time.perf_counter()
        loss = sum(engine.run(method.visit, method.schedule.tasks(epoch)))
        rmse = math.sqrt(loss / nnz)
        history.append(Epoch(epoch, rmse, time.perf_counter() - start, method.learning_rate))
        method.end_epoch(epoch)
        if epoch == 1:
            limit = max(limit, rmse)
        if not rmse <= limit:
            raise divergence(history[-1], method.regularization)
        answers = [callback(history[-1]) for callback in callbacks]
        if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
            break
    if not interruptible(method.is_finite):
        raise divergence(history[-1], method.regularization)


def divergence(record: Epoch, regularization: float) -> DivergenceError:
    """Word the error for the epoch in which training was given up."""
    shrinkage = record.learning_rate * regularization
    cause = f" or regularization, their product being {shrinkage:g}" if shrinkage > 0.5 else ""
    return DivergenceError(
        f"training diverged in epoch {record.epoch} (rmse {record.rmse:g}) with learning rate "
        f"{record.learning_rate:g}; pass a smaller learning_rate{cause}"
    )


def show_progress(epochs: int) -> Callback:
    """Return a callback that writes a line an epoch to stderr, of very many epochs a line a second."""
    last = -math.inf

    def show(record: Epoch) -> None:
        nonlocal last
        if epochs > MOST_LINES and record.epoch not in (1, epochs) and time.monotonic() < last + 1:
            return
        last = time.monotonic()
        print(
            f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}  rmse {record.rmse:.6g}  "
            f"rate {record.learning_rate:.3g}  {record.seconds:.3g} s",
            file=sys.stderr,
        )

    return show
