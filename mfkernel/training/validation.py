"""Validation during training: errors or rankings of held-out ratings."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import Task, ThreadEngine
from mfkernel.linalg.top_n import ndcg, pack_items, rank_held_out
from mfkernel.methods.base import Trainer
from mfkernel.methods.objective import link, prediction
from mfkernel.model.history import Epoch

RATINGS_PER_TASK = 2**15  # ratings per task
MAX_RANKED_USERS = 1000  # users: the NDCG is the mean over at most this many
NDCG_CUTOFF = 100  # items of a ranking that count


class Validation(Protocol):
    """A measure of held-out ratings."""

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record of an epoch, with the measure added."""
        ...


class ErrorValidation:
    """The root mean square error of held-out ratings.

    Parameters
    ----------
    held_out
        Ratings to predict. Rows and columns beyond those of ``train`` are new users and items.
    train
        Training ratings. The prediction for a row or column without them is the mean, plus the other side's
        bias if there are biases.
    trainer
        Trainer, which determines the rows of P and Q.
    """

    def __init__(self, held_out: Ratings, train: Ratings, trainer: Trainer[Any]) -> None:
        users, items, values = held_out.users, held_out.items, held_out.values
        self._nnz = held_out.nnz
        rated = train.user_counts() > 0, train.item_counts() > 0
        own = users < train.n_users, items < train.n_items
        warm = own[0] & own[1]
        if not trainer.settings.biases:
            warm[warm] = rated[0][users[warm]] & rated[1][items[warm]]
        arrays = (
            _map_rows(users[warm], trainer.row_of_user),
            _map_rows(items[warm], trainer.row_of_item),
            values[warm],
        )
        self._arrays = tuple(map(readonly, arrays))
        cold = ~warm
        self._cold = values[cold] - train.mean if trainer.settings.loss != "logistic" else values[cold]
        # new users and items have no bias
        self._cold_users = _map_rows(users[cold & own[0]], trainer.row_of_user), own[0][cold]
        self._cold_items = _map_rows(items[cold & own[1]], trainer.row_of_item), own[1][cold]

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record with the RMSE of the current predictions."""
        from mfkernel.kernels.sgd import squared_errors

        arguments = trainer.scorer_arguments

        def part(chunk: slice, cancelled: Callable[[], bool]) -> float:
            users, items, values = (array[chunk] for array in self._arrays)
            return squared_errors(users, items, values, *arguments)

        size = self._arrays[2].size
        tasks = [Task(slice(start, start + RATINGS_PER_TASK)) for start in range(0, size, RATINGS_PER_TASK)]
        total = self._cold_loss(trainer) + sum(engine.run(part, tasks))
        return record._replace(validation_rmse=math.sqrt(total / self._nnz))

    def _cold_loss(self, trainer: Trainer[Any]) -> float:
        """Return the sum of squared errors of the ratings without factors."""
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
    """The NDCG of held-out items, for a sample of the users that have such items.

    Parameters
    ----------
    held_out
        Items that should rank first.
    train
        Training ratings, whose items are excluded from the rankings.
    """

    def __init__(self, held_out: Ratings, train: Ratings) -> None:
        users = np.flatnonzero(held_out.user_counts())
        self._users = users[np.linspace(0, users.size - 1, min(users.size, MAX_RANKED_USERS)).astype(np.intp)]
        self._held_out, self._seen = (R.take_rows(self._users) for R in (held_out, train))

    def measure(self, trainer: Trainer[Any], engine: ThreadEngine, record: Epoch) -> Epoch:
        """Return the record with the NDCG of the current ranking."""
        P, Q = trainer.parameters.P[self._users], trainer.parameters.Q
        rows, seen = ((R.indptr, R.indices) for R in (self._held_out, self._seen))
        found = rank_held_out(P, pack_items(Q), rows, engine, excluded=seen)
        return record._replace(validation_ndcg=float(ndcg(found.ranks, rows[0], NDCG_CUTOFF).mean()))


def _map_rows(rows: NDArray[Any], row_map: NDArray[np.int64] | slice) -> NDArray[Any]:
    return rows if isinstance(row_map, slice) else row_map[rows].astype(rows.dtype)
