"""Errors of fits with several settings, and what follows from them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.lazy import optional


class CrossValidation(NamedTuple):
    """Errors and seconds of fits on several folds; nan for a fold that could not be fitted.

    Attributes
    ----------
    train_rmse
        (n_folds,) root mean square of the residuals as the last epoch met them.
    test_rmse
        (n_folds,) root mean square error of the predictions for the fold's held-out ratings.
    seconds
        (n_folds,) of each fit, without compilation.
    """

    train_rmse: NDArray[np.float64]
    test_rmse: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame`` with a row for each fold (extra ``frame``)."""
        frame = optional("pandas", "frame", "to_frame").DataFrame(self._asdict())
        frame.index.name = "fold"
        return frame.reset_index()


class Search:
    """Errors and seconds of fits with several settings, each on several folds.

    A fit that failed has nan for all figures. A candidate of which a fit failed has no mean, and is never the
    best.

    Attributes
    ----------
    settings
        One dict of what was passed to ``factorize`` for each candidate.
    train_rmse, test_rmse
        (n_candidates, n_folds) root mean square error: of the residuals as the last epoch met them, and of
        the predictions for the fold's held-out ratings.
    seconds
        (n_candidates, n_folds) of each fit, without compilation.
    """

    def __init__(self, settings: Sequence[dict[str, Any]], figures: NDArray[np.float64]) -> None:
        self.settings = list(settings)
        self.train_rmse, self.test_rmse, self.seconds = figures

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n_candidates,) mean test RMSE over the folds; nan for a candidate of which a fit failed."""
        result: NDArray[np.float64] = self.test_rmse.mean(axis=1)
        return result

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """(n_candidates,) standard error of that mean."""
        n_folds = self.test_rmse.shape[1]
        result: NDArray[np.float64] = self.test_rmse.std(axis=1, ddof=1) / np.sqrt(n_folds)
        return result

    @property
    def best(self) -> dict[str, Any]:
        """The settings with the lowest mean test RMSE.

        Raises
        ------
        ValueError
            If no candidate could be fitted on all folds.
        """
        return self.settings[self._best]

    @property
    def _best(self) -> int:
        mean = self.mean
        if np.isnan(mean).all():
            raise ValueError("no candidate could be fitted on all folds, so that none is the best")
        return int(np.nanargmin(mean))

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame``, a row a fit: its settings, fold and figures (extra ``frame``)."""
        pandas = optional("pandas", "frame", "to_frame")
        rows = [
            settings
            | {
                "fold": fold,
                "train_rmse": self.train_rmse[c, fold],
                "test_rmse": self.test_rmse[c, fold],
                "seconds": self.seconds[c, fold],
            }
            for c, settings in enumerate(self.settings)
            for fold in range(self.test_rmse.shape[1])
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        n_candidates, n_folds = self.test_rmse.shape
        failed = int(np.isnan(self.test_rmse).sum())
        fits = f"{n_candidates} × {n_folds} fits" + (f", {failed} of them failed" if failed else "")
        if np.isnan(self.mean).all():
            return f"{type(self).__name__}({fits}, none best)"
        best = self._best
        return (
            f"{type(self).__name__}({fits}, best {shown(self.settings[best])}: test RMSE "
            f"{self.mean[best]:.4g} ± {self.standard_error[best]:.2g})"
        )


class RankSelection(Search):
    """Errors and seconds of fits with several k, and the k that follows from them."""

    @property
    def ks(self) -> NDArray[np.int64]:
        """The ranks, in order."""
        return np.array([settings["k"] for settings in self.settings])

    @property
    def k(self) -> int:
        """The smallest rank within one standard error of the best (Breiman et al. 1984).

        Raises
        ------
        ValueError
            If no rank could be fitted on all folds.
        """
        best = self._best
        return int(self.ks[self.mean <= self.mean[best] + self.standard_error[best]].min())

    def plot(self, ax: Any = None) -> Any:
        """Draw training and test error by k, which shows under- and overfitting (extra ``plot``).

        Returns
        -------
        matplotlib Axes
            The axes, of a new figure unless ``ax`` is given.
        """
        if ax is None:
            _, ax = optional("matplotlib.pyplot", "plot", "plot").subplots()
        ax.errorbar(self.ks, self.mean, self.standard_error, marker="o", label="test", capsize=3)
        ax.plot(self.ks, self.train_rmse.mean(axis=1), marker="o", label="training")
        if not np.isnan(self.mean).all():
            ax.axvline(self.k, color="grey", linestyle=":", label=f"k = {self.k}")
        ax.set(xlabel="k", ylabel="RMSE", xscale="log", xticks=self.ks, xticklabels=self.ks)
        ax.legend()
        return ax


def shown(settings: dict[str, Any]) -> str:
    """Return settings as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
