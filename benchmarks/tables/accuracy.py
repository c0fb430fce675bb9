"""Accuracy: held-out RMSE of fits with default settings, beside that of the means, for each split."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import data, store
from benchmarks.progress import show
from benchmarks.tables import markdown

Predictor = Callable[[mf.Ratings, mf.Ratings, int], float]

REAL = ("ML-1M", "ml-latest-small", "ML-100K")
SEEDS = 5
SCALES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "ML-100K as -10 … 10": lambda r: (r - 3) * 5,
    "ML-100K as 0 … 100": lambda r: (r - 1) * 25,
    "ML-100K × 10⁶": lambda r: r * 1e6,
}
DAMPING = 5  # ratings of no bias, in the prediction by mean and biases


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    data.add_option(parser)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the held-out RMSE of each predictor on each split."""
    data.require(options.data, REAL, *data.FOLDS)
    sets = {name: data.load(name, options.data) for name in REAL}
    ml_100k = sets["ML-100K"]
    for name, function in SCALES.items():
        values = function(ml_100k.values.astype(np.float64))
        sets[name] = mf.Ratings((ml_100k.users, ml_100k.items, values, ml_100k.shape))
    folds = [data.fold(options.data, n) for n in range(5)]
    rows = [{"data": "ML-100K", "split": "its five folds u1 … u5", "rmse": errors(folds)}]
    for name, R in sets.items():
        splits = [data.hold_out_tenth(R, seed) for seed in range(SEEDS)]
        rows.append({"data": name, "split": f"90/10, seeds 0 … {SEEDS - 1}", "rmse": errors(splits)})
    return {"rows": rows}


def errors(splits: list[data.Split]) -> dict[str, list[float]]:
    """Return each predictor's test RMSE on each split."""
    predictors: dict[str, Predictor] = {
        "predicting the mean": lambda train, test, seed: rmse(test, train.mean),
        "mean and biases": lambda train, test, seed: rmse(test, bias_predictions(train, test)),
        "blocks": partial(_test_rmse, schedule="blocks"),
        "sequential": partial(_test_rmse, schedule="sequential"),
        "hogwild, 2 threads": partial(_test_rmse, schedule="hogwild", n_threads=2),
        "with biases": partial(_test_rmse, biases=True),
        "with biases, k = 128": partial(_test_rmse, k=128, biases=True),
        "ALS": partial(_test_rmse, method="als"),
        "ALS with biases": partial(_test_rmse, method="als", biases=True),
        "Bayesian": partial(_test_rmse, method="bayesian"),
    }
    found: dict[str, list[float]] = {name: [] for name in predictors}
    for name, predictor in predictors.items():
        for seed, (train, test) in enumerate(splits):
            show(f"accuracy: {train.nnz:,} ratings, split {seed + 1} of {len(splits)}: {name}")
            found[name].append(predictor(train, test, seed))
    show("")
    return found


def render(results: store.Results) -> str:
    """Return the table of held-out RMSE, and its caption."""
    rows = [
        [row["data"], row["split"], *(f"{np.mean(x):.4g} ± {np.std(x):.1g}" for x in row["rmse"].values())]
        for row in results["rows"]
    ]
    return (
        f"{markdown.table(['data', 'split', *results['rows'][0]['rmse']], rows)}\n\n"
        "Test RMSE of `factorize(R, 32, rng=seed)` with default settings, except for the option in the "
        "column header; mean ± standard deviation over the splits. Mean and biases: mean + user's bias + "
        f"item's bias, each damped by {DAMPING} ratings of no bias. {results['machine']}"
    )


def bias_predictions(train: mf.Ratings, test: mf.Ratings) -> NDArray[np.float64]:
    """Predict mean + b_u + b_i, each bias a damped mean of residuals."""
    residuals = train.values - train.mean
    item_bias = np.bincount(train.items, residuals, train.n_items) / (train.item_counts() + DAMPING)
    user_sums = np.bincount(train.users, residuals - item_bias[train.items], train.n_users)
    user_bias = user_sums / (train.user_counts() + DAMPING)
    return np.asarray(train.mean + user_bias[test.users] + item_bias[test.items])


def rmse(test: mf.Ratings, predictions: NDArray[Any] | float) -> float:
    """Return the RMSE of predictions."""
    return float(np.sqrt(np.mean((test.values - predictions) ** 2)))


def _test_rmse(train: mf.Ratings, test: mf.Ratings, seed: int, k: int = 32, **settings: Any) -> float:
    return mf.factorize(train, k, rng=seed, **settings).rmse(test)
