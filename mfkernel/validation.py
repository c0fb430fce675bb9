"""How well the factors predict ratings that they have not seen, while they are being trained."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.engine import Task, ThreadEngine
from mfkernel.methods import Sgd
from mfkernel.ratings import Ratings
from mfkernel.schedule import Schedule

CHUNK = 2**15  # ratings a task


class Validation:
    """Ratings to predict, at the places of a schedule.

    Parameters
    ----------
    held_out
        what is to be predicted.
    known
        the ratings that are trained with. Where a row or column has none of them, the mean is predicted
        without biases, and with them the mean and the other one's bias.
    schedule
        says where the rows of P and Q stand.
    biases
        whether the model has biases.
    """

    def __init__(self, held_out: Ratings, known: Ratings, schedule: Schedule, biases: bool) -> None:
        users, items, values = held_out.users, held_out.items, held_out.values
        self._nnz, self._unknown_loss = held_out.nnz, 0.0
        if not biases:
            warm = (known.user_counts() > 0)[users] & (known.item_counts() > 0)[items]
            if not warm.all():
                residuals = values[~warm] - known.mean
                self._unknown_loss = float(np.square(residuals, dtype=np.float64).sum())
                users, items, values = users[warm], items[warm], values[warm]
        self._arrays = _placed(users, schedule.user_places), _placed(items, schedule.item_places), values

    def rmse(self, method: Sgd, engine: ThreadEngine) -> float:
        """Return the root mean square error of the predictions as they are now."""
        from mfkernel.kernels.sgd import squared_errors

        model, _, biases, loss, _ = method.update

        def part(chunk: slice, cancelled: Callable[[], bool]) -> float:
            users, items, values = (array[chunk] for array in self._arrays)
            return squared_errors(users, items, values, model, biases, loss)

        size = self._arrays[2].size
        tasks = [Task(slice(start, start + CHUNK)) for start in range(0, size, CHUNK)]
        return math.sqrt((self._unknown_loss + sum(engine.run(part, tasks))) / self._nnz)


def _placed(rows: NDArray[Any], places: NDArray[np.int64] | slice) -> NDArray[Any]:
    return rows if isinstance(places, slice) else places[rows].astype(rows.dtype)
