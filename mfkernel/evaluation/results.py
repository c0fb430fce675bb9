"""Errors of fits with several settings, and the choice of the best."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.frames import Framed
from mfkernel.plots import rank_curve

RMSE, NDCG = "rmse", "ndcg"  # what is measured on the test ratings


class _Figures(NamedTuple):
    train_rmse: NDArray[np.float64]
    test_rmse: NDArray[np.float64] | None
    seconds: NDArray[np.float64]
    test_ndcg: NDArray[np.float64] | None = None


class CrossValidation(_Figures, Framed):
    """The errors and times of fits on several folds; nan for a failed fit.

    A frame of them has one row per fold.

    Attributes
    ----------
    train_rmse
        (n_folds,) root mean square of the residuals during the last epoch.
    test_rmse
        (n_folds,) root mean square error of the predictions for the fold's held-out ratings; None for
        implicit feedback.
    seconds
        (n_folds,) duration of each fit in seconds, without compilation.
    test_ndcg
        (n_folds,) NDCG of the best 10 items for the fold's held-out entries; None for known ratings.
    """

    def _frame_columns(self) -> dict[str, NDArray[Any]]:
        figures = {name: figure for name, figure in self._asdict().items() if figure is not None}
        return {"fold": np.arange(self.seconds.size)} | figures


class Search(Framed):
    """The errors and times of fits with several settings, each on several folds.

    A frame of them has one row per fit, with its settings, its fold and its figures as columns.
    A failed fit has nan for all figures. A candidate with a failed fit has no mean, and is never the best.

    Parameters
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate.
    figures
        (3, n_candidates, n_folds) training error, test RMSE or NDCG, and seconds.
    metric
        Measure of the test: ``"rmse"``, or ``"ndcg"`` for implicit feedback. Default: ``"rmse"``.

    Attributes
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate.
    metric
        ``"rmse"`` or ``"ndcg"``.
    train_rmse, test_rmse
        (n_candidates, n_folds) root mean square of the residuals during the last epoch, and root mean square
        error of the predictions for the fold's held-out ratings; the latter is None for implicit feedback.
    test_ndcg
        (n_candidates, n_folds) NDCG of the best 10 items for the fold's held-out entries; None for known
        ratings.
    seconds
        (n_candidates, n_folds) duration of each fit in seconds, without compilation.
    """

    def __init__(
        self, settings: Sequence[dict[str, Any]], figures: NDArray[np.float64], metric: str = RMSE
    ) -> None:
        self.settings, self.metric = list(settings), metric
        self.train_rmse, self._test, self.seconds = figures
        self.test_rmse = self._test if metric == RMSE else None
        self.test_ndcg = self._test if metric == NDCG else None

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n_candidates,) mean test RMSE or NDCG over the folds; nan if a fit failed."""
        result: NDArray[np.float64] = self._test.mean(axis=1)
        return result

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """(n_candidates,) standard error of the mean; 0 for a single fold."""
        n_folds = self._test.shape[1]
        if n_folds == 1:
            return np.zeros(len(self._test))
        result: NDArray[np.float64] = self._test.std(axis=1, ddof=1) / np.sqrt(n_folds)
        return result

    @property
    def best(self) -> dict[str, Any]:
        """The settings with the lowest mean test RMSE, or the highest mean test NDCG.

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
        return int(np.nanargmin(mean) if self.metric == RMSE else np.nanargmax(mean))

    def _frame_columns(self) -> dict[str, NDArray[Any]]:
        n_candidates, n_folds = self._test.shape
        settings = {
            name: np.repeat(_column([each[name] for each in self.settings]), n_folds)
            for name in self.settings[0]
        }
        figures = {
            "fold": np.tile(np.arange(n_folds), n_candidates),
            "train_rmse": self.train_rmse.ravel(),
            f"test_{self.metric}": self._test.ravel(),
            "seconds": self.seconds.ravel(),
        }
        return settings | figures

    def __repr__(self) -> str:
        n_candidates, n_folds = self._test.shape
        failed = int(np.isnan(self._test).sum())
        fits = f"{n_candidates} × {n_folds} fits" + (f", {failed} of them failed" if failed else "")
        if np.isnan(self.mean).all():
            return f"{type(self).__name__}({fits}, none best)"
        best = self._best
        return (
            f"{type(self).__name__}({fits}, best {format_arguments(self.settings[best])}: test "
            f"{self.metric.upper()} {self.mean[best]:.4g} ± {self.standard_error[best]:.2g})"
        )


class RankSelection(Search):
    """The errors and times of fits with several k, and the k to choose.

    Parameters
    ----------
    settings
        One dict of arguments of ``factorize`` per candidate, with ``k``.
    figures
        (3, n_candidates, n_folds) training error, test RMSE or NDCG, and seconds.
    metric
        ``"rmse"``, or ``"ndcg"`` for implicit feedback. Default: ``"rmse"``.
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
        close = np.abs(self.mean - self.mean[best]) <= self.standard_error[best]
        return int(self.ks[close].min())

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


def _column(values: list[Any]) -> NDArray[Any]:
    """Return one value per candidate: of one type as it is, else as objects."""
    kind = type(values[0])
    if kind in (bool, int, float, str) and all(type(value) is kind for value in values):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def format_arguments(settings: dict[str, Any]) -> str:
    """Return settings in the form of keyword arguments, such as ``k=4, rng=0``."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
