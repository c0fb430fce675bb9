"""Errors of fits with several settings, and the choice of the best."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.lazy import import_extra
from mfkernel.plots import rank_curve


class CrossValidation(NamedTuple):
    """The errors and times of fits on several folds; nan for a failed fit.

    Attributes
    ----------
    train_rmse
        (n_folds,) root mean square of the residuals during the last epoch.
    test_rmse
        (n_folds,) root mean square error of the predictions for the fold's held-out ratings.
    seconds
        (n_folds,) duration of each fit in seconds, without compilation.
    """

    train_rmse: NDArray[np.float64]
    test_rmse: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame`` with one row per fold (extra ``frame``)."""
        frame = import_extra("pandas", "frame", "to_frame").DataFrame(self._asdict())
        frame.index.name = "fold"
        return frame.reset_index()


class Search:
    """The errors and times of fits with several settings, each on several folds.

    A failed fit has nan for all figures. A candidate with a failed fit has no mean, and is never the best.

    Parameters
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate.
    figures
        (3, n_candidates, n_folds) training error, test error and seconds.

    Attributes
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate.
    train_rmse, test_rmse
        (n_candidates, n_folds) root mean square of the residuals during the last epoch, and root mean square
        error of the predictions for the fold's held-out ratings.
    seconds
        (n_candidates, n_folds) duration of each fit in seconds, without compilation.
    """

    def __init__(self, settings: Sequence[dict[str, Any]], figures: NDArray[np.float64]) -> None:
        self.settings = list(settings)
        self.train_rmse, self.test_rmse, self.seconds = figures

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n_candidates,) mean test RMSE over the folds; nan if a fit failed."""
        result: NDArray[np.float64] = self.test_rmse.mean(axis=1)
        return result

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """(n_candidates,) standard error of the mean test RMSE."""
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
            raise ValueError("a candidate must be fitted on all folds to be the best, got none")
        return int(np.nanargmin(mean))

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame`` with one row per fit (extra ``frame``).

        Each row has the settings, the fold and the figures of the fit.
        """
        pandas = import_extra("pandas", "frame", "to_frame")
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
            f"{type(self).__name__}({fits}, best {format_arguments(self.settings[best])}: test RMSE "
            f"{self.mean[best]:.4g} ± {self.standard_error[best]:.2g})"
        )


class RankSelection(Search):
    """The errors and times of fits with several k, and the k to choose.

    Parameters
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate, with ``k``.
    figures
        (3, n_candidates, n_folds) training error, test error and seconds.
    """

    @property
    def ks(self) -> NDArray[np.int64]:
        """The ranks, in ascending order."""
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
        """Plot training and test error against k, as :func:`mfkernel.plots.rank_curve` does (extra ``plot``).

        Parameters
        ----------
        ax
            matplotlib Axes to draw on. Default: the Axes of a new figure.

        Returns
        -------
        matplotlib Axes
            The Axes with the plot.
        """
        return rank_curve(self, ax)


def format_arguments(settings: dict[str, Any]) -> str:
    """Return settings in the form of keyword arguments, such as ``k=4, rng=0``."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
