"""Draw what a fit has learned and how well it predicts, with matplotlib (extra ``plot``).

Each function draws on the Axes ``ax``, by default on those of a new figure, and returns them. matplotlib is
imported by the first plot.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.labels import place_labels
from mfkernel._support.lazy import import_extra
from mfkernel.data.merge import match_ratings
from mfkernel.model.factors import Factors
from mfkernel.model.uncertainty import predict_with_uncertainty

if TYPE_CHECKING:
    from mfkernel.evaluation.results import RankSelection
    from mfkernel.model.history import Epoch

MAX_POINTS = 2000  # ratings drawn as points; more are counted in cells
MAX_LEVELS = 20  # distinct ratings that get a column of cells each
CELLS = 40  # cells per axis for other ratings
MAX_ITEMS = 40  # items on a map if none are named
MAX_LABEL = 24  # characters of a label
RMSE_LABEL = "RMSE (unit of the ratings)"
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of intervals
REFERENCE = {"color": "grey", "linestyle": ":"}  # style of lines to compare with


def learning_curve(model: Factors, ax: Any = None) -> Any:
    """Plot the training error and the validation metric by epoch, and mark the best epoch.

    The validation metric is the RMSE. For implicit feedback, it is the NDCG, on an axis of its own at the
    right. Epochs that diverged and were undone have a cross at the bottom instead of an error.

    Parameters
    ----------
    model
        A model with the history of its training.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot. The lines have the labels "training" and "validation".

    Raises
    ------
    ValueError
        If the model has no history.
    """
    records, diverged = _epochs_kept(_checked_model(model))
    if not records:
        raise ValueError("model must have a history of epochs, got none; factorize makes one")
    ax, settings = _axes(ax), model.settings
    epochs = np.array([record.epoch for record in records])
    style = {"marker": "o", "markersize": 3}
    ax.plot(epochs, [record.rmse for record in records], label="training", **style)
    unit = "RMSE (probability)" if settings.loss == "logistic" else RMSE_LABEL
    ax.set(xlabel="epoch", ylabel="weighted RMSE, all cells" if settings.implicit else unit)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if diverged:
        at = {"transform": ax.get_xaxis_transform(), "color": "tab:red", "label": "diverged, undone"}
        ax.plot(diverged, [0.04] * len(diverged), "x", **at)
    handles, _ = ax.get_legend_handles_labels()
    name = "validation_ndcg" if settings.implicit else "validation_rmse"
    metric = np.array([getattr(record, name) for record in records], np.float64)  # None becomes nan
    if not np.isnan(metric).all():
        right = ax.twinx() if settings.implicit else ax
        handles += right.plot(epochs, metric, color="C1", label="validation", **style)
        if settings.implicit:
            right.set_ylabel("NDCG of the best 100 items", color="C1")
        best = int(np.nanargmax(metric) if settings.implicit else np.nanargmin(metric))
        handles.append(ax.axvline(epochs[best], label=f"best epoch, {epochs[best]}", **REFERENCE))
        right.plot(epochs[best], metric[best], "*", markersize=11, color="C1", label="best")
    ax.legend(handles=handles, loc="center right" if settings.implicit else "best")
    return ax


def rank_curve(selection: RankSelection, ax: Any = None) -> Any:
    """Plot training and test error against the number of factors, to show underfitting and overfitting.

    Parameters
    ----------
    selection
        Result of :func:`~mfkernel.select_rank`.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot: test errors with their standard errors, training errors, and the selected k;
        for implicit feedback, the test NDCG.
    """
    if not hasattr(type(selection), "ks"):
        raise TypeError(f"selection must be a result of mf.select_rank, got {type(selection).__name__}")
    ax, ks, mean = _axes(ax), selection.ks, selection.mean
    judged_by_error = selection.metric == "rmse"
    if judged_by_error:
        ax.plot(ks, selection.train_rmse.mean(axis=1), marker="o", label="training")
    ax.errorbar(ks, mean, selection.standard_error, marker="o", label="test ± standard error", capsize=3)
    if not np.isnan(mean).all():
        ax.axvline(selection.k, label=f"selected k, {selection.k}", **REFERENCE)
    ax.set(
        xlabel="number of factors k",
        ylabel=RMSE_LABEL if judged_by_error else "NDCG of 10 items",
        xscale="log",
    )
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.minorticks_off()
    ax.legend()
    return ax


def predicted_against_actual(model: Factors, R: Any, ax: Any = None) -> Any:
    """Plot predictions against ratings, with the line of perfect predictions and the RMSE.

    Up to 2,000 ratings are points. More are counted in cells, one column per rating where there are at most
    20 different ones.

    Parameters
    ----------
    model
        A model of explicit ratings.
    R
        Held-out ratings, as for :meth:`~mfkernel.Factors.rmse`.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot.

    Raises
    ------
    ValueError
        If R has no ratings, or the model is of implicit feedback.
    """
    values, predicted = _expected(model, R)
    ax = _axes(ax)
    low, high = min(values.min(), predicted.min()), max(values.max(), predicted.max())
    if values.size <= MAX_POINTS:
        ax.plot(values, predicted, "o", markersize=4, alpha=0.3, markeredgewidth=0)
    else:
        levels = np.unique(values)
        columns: Any = CELLS
        if 1 < levels.size <= MAX_LEVELS:
            middles = (levels[1:] + levels[:-1]) / 2
            columns = np.concatenate([[2 * levels[0] - middles[0]], middles, [2 * levels[-1] - middles[-1]]])
        cells = ax.hist2d(values, predicted, [columns, CELLS], cmin=1, norm="log", cmap="Blues")[3]
        ax.figure.colorbar(cells, ax=ax, label="ratings per cell")
    ax.plot([low, high], [low, high], label="prediction = rating", **REFERENCE | {"linestyle": "-"})
    rmse = float(np.sqrt(np.mean(np.square(values - predicted))))
    ax.set(xlabel="rating", ylabel="prediction", title=f"RMSE {rmse:#.4g} of {values.size:,} ratings")
    ax.legend(loc="upper left")
    return ax


def calibration(model: Factors, R: Any, bins: int = 10, ax: Any = None) -> Any:
    """Plot the mean rating against the mean prediction, per bin of predictions.

    Bins have equally many ratings, except that equal predictions share a bin. Points on the line mean that
    ratings are as high as predicted, on average.

    Parameters
    ----------
    model
        A model of explicit ratings.
    R
        Held-out ratings, as for :meth:`~mfkernel.Factors.rmse`.
    bins
        Number of bins, at least 1. Default: 10.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot. Bars are one standard error of the mean rating; a bin of one rating has none.

    Raises
    ------
    ValueError
        If R has no ratings, or the model is of implicit feedback.
    """
    bins = checks.integer("bins", bins, 1)
    values, predicted = _expected(model, R)
    edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins, method="higher"))
    bin_of = np.searchsorted(edges, predicted, side="right")
    _, bin_of, counts = np.unique(bin_of, return_inverse=True, return_counts=True)
    mean_prediction, mean_rating = (np.bincount(bin_of, weights=x) / counts for x in (predicted, values))
    squares = np.bincount(bin_of, weights=np.square(values - mean_rating[bin_of]))
    degrees = np.where(counts > 1, counts - 1, np.nan)
    errors = np.sqrt(squares / degrees / counts)
    ax = _axes(ax)
    ends = mean_prediction[[0, -1]]
    ax.plot(ends, ends, label="rating = prediction", **REFERENCE | {"linestyle": "-"})
    ax.errorbar(mean_prediction, mean_rating, errors, fmt="o", capsize=3, label="mean ± standard error")
    ax.set(
        xlabel="mean prediction", ylabel="mean rating", title=f"{counts.size} bins of {values.size:,} ratings"
    )
    ax.legend(loc="upper left")
    return ax


def interval_coverage(model: Factors, R: Any, ax: Any = None) -> Any:
    """Plot the share of ratings that lie within their interval against its probability.

    Points on the line mean that intervals hold as many ratings as they say. Below it, the model is too sure.

    Parameters
    ----------
    model
        A model fitted with ``method="bayesian"``.
    R
        Held-out ratings, as for :meth:`~mfkernel.Factors.rmse`.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot.

    Raises
    ------
    ValueError
        If R has no ratings, or the model has no samples.
    """
    state = _checked_model(model).state
    if state.posterior is None:
        raise ValueError("model must have samples, got none; fit with method='bayesian'")
    ids = state.users, state.items
    ratings = match_ratings(state.read(R, copy=False), ids, state.shape)
    cells = ratings.users, ratings.items
    found = predict_with_uncertainty(state.by_position, *cells, "default", None, None)
    distances = np.abs(ratings.values - found.mean) / np.hypot(found.std, found.noise)
    normal = statistics.NormalDist()
    shares = [float(np.mean(distances <= normal.inv_cdf((1 + p) / 2))) for p in PROBABILITIES]
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], label="share = probability", **REFERENCE | {"linestyle": "-"})
    ax.plot(PROBABILITIES, shares, "o", label="held-out ratings")
    ax.set(
        xlabel="probability of the interval",
        ylabel="share of ratings within it",
        title=f"intervals of {ratings.nnz:,} ratings",
    )
    ax.legend(loc="upper left")
    return ax


def item_map(model: Factors, items: Any = None, labels: Any = None, ax: Any = None) -> Any:
    """Draw a map on which items that the model finds similar are near each other.

    The factors of each item are scaled to length 1. The map shows the two principal axes of the items
    drawn, each with its share of their variance; the sign of an axis makes its largest loading positive.
    Labels avoid each other; one that finds no room is left out.

    Parameters
    ----------
    model
        A model with at least 2 factors.
    items
        Ids, or column numbers without ids, at least 2. Default: the 40 items with the most training ratings.
    labels
        One text per item of ``items``; or the text of each id as a dict, where missing ones are labelled by
        id. Default: the ids, or column numbers.
    ax
        matplotlib Axes to draw on. Default: the Axes of a new figure.

    Returns
    -------
    matplotlib Axes
        The Axes with the plot.

    Raises
    ------
    KeyError
        If an id is not in the model.
    ValueError
        If the model has one factor or no training ratings to choose items by, or an item has no factors.
    """
    columns = _columns(_checked_model(model), items)
    texts = _label_texts(model, columns, items, labels)
    factors = model.Q.T[columns].astype(np.float64)
    length = np.linalg.norm(factors, axis=1)
    if not length.all():
        raise ValueError(
            f"items must have factors, got zeros for {texts[int(length.argmin())]}; leave it out"
        )
    unit = factors / length[:, None]
    unit -= unit.mean(axis=0)
    _, spread, axes = np.linalg.svd(unit, full_matrices=False)
    largest = np.abs(axes[:2]).argmax(axis=1)
    places = unit @ (axes[:2] * np.sign(axes[[0, 1], largest])[:, None]).T
    share = np.square(spread) / (np.square(spread).sum() or 1.0)
    ax = _axes(ax)
    ax.plot(*places.T, "o", markersize=4)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.15)
    ax.set(
        xlabel=f"axis 1 ({share[0]:.0%} of the variance)", ylabel=f"axis 2 ({share[1]:.0%} of the variance)"
    )
    place_labels(ax, places, texts)
    return ax


def _axes(ax: Any) -> Any:
    """Return ``ax``, or the Axes of a new figure."""
    if ax is None:
        _, ax = import_extra("matplotlib.pyplot", "plot", "mfkernel.plots").subplots(layout="constrained")
    if not hasattr(ax, "errorbar"):
        raise TypeError(f"ax must be matplotlib Axes, got {type(ax).__name__}; pass one of them")
    return ax


def _checked_model(model: Any) -> Factors:
    if not isinstance(model, Factors):
        raise TypeError(f"model must be mf.Factors, got {type(model).__name__}; factorize returns one")
    return model


def _epochs_kept(model: Factors) -> tuple[list[Epoch], list[int]]:
    """Return the records that training kept, and the numbers of the epochs that diverged."""
    kept: list[Epoch] = []
    diverged = []
    for record in model.history:
        if record.rolled_back_to is None:
            kept.append(record)
        else:
            diverged.append(record.epoch)
            kept = [before for before in kept if before.epoch <= record.rolled_back_to]
    return kept, diverged


def _expected(model: Any, R: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return held-out ratings and their predictions."""
    if _checked_model(model).settings.implicit:
        raise ValueError(
            "model must predict ratings, got one of implicit feedback; mf.metrics.ranking measures its lists"
        )
    state = model.state
    ratings = state.read(R, copy=False)
    values, predicted = model.expected(ratings)
    return values.astype(np.float64), predicted.astype(np.float64)


def _columns(model: Factors, items: Any) -> NDArray[Any]:
    """Return the columns of the items to draw."""
    if model.k < 2:
        raise ValueError("model must have at least 2 factors for a map, got 1")
    if items is None:
        if model.ratings is None:
            raise ValueError("items must be given if the model has no training ratings, got None")
        counts = np.where(model.Q.any(axis=0) & model.known_items, model.ratings.item_counts(), 0)
        columns = np.argsort(-counts, kind="stable")[: min(MAX_ITEMS, np.count_nonzero(counts))]
    else:
        columns = model.state.columns(items)
        if columns.ndim != 1:
            raise ValueError(f"items must be a list of items, got the shape {columns.shape}")
    if columns.size < 2:
        raise ValueError(f"items must be at least 2, got {columns.size}")
    return columns


def _label_texts(model: Factors, columns: NDArray[Any], items: Any, labels: Any) -> list[str]:
    """Return the label of each item."""
    ids = (columns if model.item_ids is None else model.item_ids[columns]).tolist()
    if labels is None:
        texts = ids
    elif hasattr(labels, "get"):
        texts = [labels.get(name, name) for name in ids]
    elif items is None:
        raise TypeError(
            "labels must be a dict of ids and texts if items is None, got a list; pass items also"
        )
    elif isinstance(labels, str) or len(labels) != len(ids):
        found = repr(labels) if isinstance(labels, str) else len(labels)
        raise ValueError(f"labels must have one text per item, {len(ids)} of them, got {found}")
    else:
        texts = list(labels)
    return [
        text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1].rstrip() + "…" for text in map(str, texts)
    ]
