"""How well the factors predict ratings that they have not seen, while they are being trained."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import frozen
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import Task, ThreadEngine
from mfkernel.linalg.top_n import ndcg, pack_items, rank_held_out
from mfkernel.methods.base import Trainer
from mfkernel.methods.objective import link, prediction
from mfkernel.model.history import Epoch

CHUNK = 2**15  # ratings per task
USERS_ASKED = 1000  # users whose ranking is measured
PLACES = 100  # that count in it


class Validation(Protocol):
    """Ratings that are held out, and what is measured by them."""

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record of an epoch with what is measured after it."""
        ...


class ErrorValidation:
    """The error of predictions.

    Parameters
    ----------
    held_out
        what is to be predicted; rows and columns beyond those of ``known`` are of new users and items.
    known
        the ratings that are trained with. Where a row or column has none of them, the mean is predicted
        without biases, and with them the mean and the other one's bias.
    trainer
        has the rows of P and Q.
    """

    def __init__(self, held_out: Ratings, known: Ratings, trainer: Trainer[Any]) -> None:
        users, items, values = held_out.users, held_out.items, held_out.values
        self._nnz = held_out.nnz
        rated = known.user_counts() > 0, known.item_counts() > 0
        own = users < known.n_users, items < known.n_items
        warm = own[0] & own[1]
        if not trainer.settings.biases:
            warm[warm] = rated[0][users[warm]] & rated[1][items[warm]]
        arrays = (
            _placed(users[warm], trainer.row_of_user),
            _placed(items[warm], trainer.row_of_item),
            values[warm],
        )
        self._arrays = tuple(map(frozen, arrays))
        cold = ~warm
        self._cold = values[cold] - known.mean if trainer.settings.loss != "logistic" else values[cold]
        # of a new user or item there is no bias
        self._cold_users = _placed(users[cold & own[0]], trainer.row_of_user), own[0][cold]
        self._cold_items = _placed(items[cold & own[1]], trainer.row_of_item), own[1][cold]

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record with the root mean square error of the predictions as they are now."""
        from mfkernel.kernels.sgd import squared_errors

        model, biases, loss = trainer.scoring

        def part(chunk: slice, cancelled: Callable[[], bool]) -> float:
            users, items, values = (array[chunk] for array in self._arrays)
            return squared_errors(users, items, values, model, biases, loss)

        size = self._arrays[2].size
        tasks = [Task(slice(start, start + CHUNK)) for start in range(0, size, CHUNK)]
        total = self._cold_loss(trainer) + sum(engine.run(part, tasks))
        return record._replace(validation_rmse=math.sqrt(total / self._nnz))

    def _cold_loss(self, trainer: Trainer[Any]) -> float:
        """Return the squared errors of the ratings for which there are no factors."""
        residuals = self._cold.astype(np.float64)
        biases = np.zeros(residuals.size)
        if trainer.settings.biases:
            for (rows, there), bias in (
                (self._cold_users, trainer.parameters.user_bias),
                (self._cold_items, trainer.parameters.item_bias),
            ):
                biases[there] += bias[rows]
        if trainer.settings.loss == "logistic":
            mean = link(trainer.ratings.mean, "logistic")
            residuals -= prediction(mean + biases, "logistic")
        else:
            residuals -= biases
        return float(np.square(residuals).sum())


class RankingValidation:
    """The ranking of items by implicit feedback, for some of the users with held-out items.

    Parameters
    ----------
    held_out
        what is to come first.
    known
        the ratings that are trained with, which are left out.
    """

    def __init__(self, held_out: Ratings, known: Ratings) -> None:
        users = np.flatnonzero(held_out.user_counts())
        self._users = users[np.linspace(0, users.size - 1, min(users.size, USERS_ASKED)).astype(np.intp)]
        self._held_out, self._seen = (R.take_rows(self._users) for R in (held_out, known))

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record with the NDCG of the ranking as it is now."""
        P, Q = trainer.parameters.P[self._users], trainer.parameters.Q
        rows, seen = ((R.indptr, R.indices) for R in (self._held_out, self._seen))
        found = rank_held_out(P, pack_items(Q), rows, engine, excluded=seen)
        return record._replace(validation_ndcg=float(ndcg(found.ranks, rows[0], PLACES).mean()))


def _placed(rows: NDArray[Any], places: NDArray[np.int64] | slice) -> NDArray[Any]:
    return rows if isinstance(places, slice) else places[rows].astype(rows.dtype)
