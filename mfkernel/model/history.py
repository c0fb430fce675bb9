"""The record of an epoch."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.frames import Framed


class Epoch(NamedTuple):
    """One pass over the ratings.

    Attributes
    ----------
    epoch
        1 for the first.
    rmse
        Root mean square of the residuals. For SGD, each residual is taken just before its own update, so
        ``model.rmse(R)`` is a little lower after the last epoch. For implicit feedback, it is over all cells,
        by their weights.
    seconds
        Wall time of this pass.
    learning_rate
        Step size of this pass; None if the method has none.
    validation_rmse
        Root mean square error for the validation ratings after this pass; None if there are none.
    rolled_back_to
        For a pass that diverged, the epoch that was restored, 0 for the start values; else None. The next
        record is of the epoch after that one, with half the learning rate.
    loss
        For ALS, the whole objective after this pass; else None.
    validation_ndcg
        For implicit feedback, NDCG of the best 100 items for the validation entries, of at most 1000 users;
        else None.
    """

    epoch: int
    rmse: float
    seconds: float
    learning_rate: float | None
    validation_rmse: float | None = None
    rolled_back_to: int | None = None
    loss: float | None = None
    validation_ndcg: float | None = None

    @property
    def validation_error(self) -> float | None:
        """Validation RMSE, or 1 − NDCG; lower is better."""
        return self.validation_rmse if self.validation_ndcg is None else 1 - self.validation_ndcg


class History(list[Epoch], Framed):
    """The records of all epochs of a fit.

    A frame of them has one row per epoch, and the attributes of :class:`Epoch` that an epoch has as columns;
    missing numbers are nan.
    """

    def _frame_columns(self) -> dict[str, NDArray[Any]]:
        table = np.array(self, np.float64).reshape(-1, len(Epoch._fields))
        columns = {
            name: column
            for name, column in zip(Epoch._fields, table.T, strict=True)
            if name in ("epoch", "rmse", "seconds") or not np.isnan(column).all()
        }
        return columns | {"epoch": columns["epoch"].astype(np.int64)}
