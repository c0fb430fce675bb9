"""What training records of each epoch."""

from typing import NamedTuple


class Epoch(NamedTuple):
    """One pass over the ratings.

    Attributes
    ----------
    epoch
        1 for the first.
    rmse
        Root mean square of the residuals. Of stochastic gradient descent each as it was met, just before its
        own update; after the last epoch ``model.rmse(R)`` is a little lower. Of implicit feedback that of all
        cells, by their weights.
    seconds
        Wall time of this pass.
    learning_rate
        Step size of this pass; None if the method has none.
    validation_rmse
        Root mean square error for the validation ratings after this pass; None without such.
    rolled_back_to
        For a pass that diverged, the epoch that was restored, 0 for the start values; else None. The next
        record is of the epoch after that one, with half the learning rate.
    loss
        Of alternating least squares, the whole objective after this pass; else None.
    validation_ndcg
        Of implicit feedback, the NDCG of the 100 best for the validation entries, of at most 1000 users;
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
        """What the best epoch has least of: the RMSE, or 1 less the NDCG, for what was held out."""
        return self.validation_rmse if self.validation_ndcg is None else 1 - self.validation_ndcg
