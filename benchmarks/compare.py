"""How fast is it here, and how accurate? ``python -m benchmarks.compare [--data FOLDER] [--store]``.

Speed: within a repetition all engines run one after the other, so that a change of the machine's speed hits
all alike; the figure is the median over the repetitions. Accuracy: fits with nothing but the rank given,
against the means.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import cases, generated, probes, results

Predictor = Callable[[mf.Ratings, mf.Ratings, int], float]
Split = tuple[mf.Ratings, mf.Ratings]

MAX_SLOW_REPEATS = 3
CALLS = 5  # of an engine in its turn


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("MFKERNEL_DATA"), help="real ratings")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--store", action="store_true", help="keep the results, for benchmarks.report")
    options = parser.parse_args()
    data = None if options.data is None else Path(options.data)
    if options.store and data is None:
        parser.error("--store needs --data: README.md shows real ratings, too")
    stored = {"speed": measure_speed(data, options.repeats)}
    print(speed_table(stored["speed"]))
    if data is not None:
        stored["accuracy"] = measure_accuracy(data)
        print("\n" + accuracy_table(stored["accuracy"]))
    if options.store:
        for name, figures in stored.items():
            results.store(name, figures)


def measure_speed(data: Path | None, repeats: int) -> results.Stored:
    """Measure the median seconds of an epoch by each engine."""
    sets = {size: generated.ratings(size) for size in generated.SIZES}
    if data is not None:
        sets |= {"ML-100K": read_ml_100k(data), "ML-1M": mf.read_ratings(data / "ml-1m" / "ratings.csv.gz")}
    rows = [
        {"ratings": name, "nnz": R.nnz, "k": int(k), "seconds": seconds_per_epoch(R, int(k), repeats)}
        for name, R in sets.items()
        for k in cases.RANKS
    ]
    return results.described("python -m benchmarks.compare --data FOLDER --store", rows, repeats=repeats)


def seconds_per_epoch(R: mf.Ratings, k: int, repeats: int) -> dict[str, float]:
    """Return the median time of an epoch by each engine that is fast enough."""
    engines = {
        name: build(R, k) for name, build in cases.ENGINES.items() if cases.is_fast_enough(name, R.nnz)
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(repeats):
        for name, epoch in engines.items():
            if name not in cases.SLOW_ENGINES:
                seconds[name] += [probes.clock(epoch) for _ in range(CALLS)]
            elif repeat < MAX_SLOW_REPEATS:
                seconds[name].append(probes.clock(epoch))
    return {name: statistics.median(times) for name, times in seconds.items()}


def speed_table(stored: results.Stored) -> str:
    """Return the table of seconds an epoch, and what it says."""
    rows = []
    for row in stored["rows"]:
        s = row["seconds"]
        naive, blocks, two = s.get("naive loop"), s["blocks"], s["blocks, 2 threads"]
        rows.append(
            [
                *(row["ratings"], str(row["k"])),
                *(_seconds(s.get(engine)) for engine in cases.ENGINES),
                f"{row['nnz'] / blocks / 1e6:.0f}",
                f"{naive / blocks:,.0f} ×" if naive else "",
                f"{blocks / two:.2f} ×",
                f"{s['hogwild, 2 threads'] / two:.2f} ×",
            ]
        )
    head = ["ratings", "k", *cases.ENGINES, "M ratings/s", "of naive", "2 threads", "of hogwild"]
    return (
        f"{results.table(head, rows)}\n\nSeconds an epoch, the median of {stored['repeats']} rounds in which "
        f"the engines take turns (the interpreted ones in float64, {MAX_SLOW_REPEATS} rounds). Then, for "
        f"blocks: ratings a second on one thread, as a multiple of the naive loop's, and two threads as one "
        f"of its own speed and of hogwild's. {stored['machine']}"
    )


def measure_accuracy(data: Path) -> results.Stored:
    """Measure the held-out RMSE of fits with their own defaults, and of the means, for each split."""
    ml_100k = read_ml_100k(data)
    folds = [ml_100k_fold(data, n) for n in range(5)]
    tenths: dict[str, mf.Ratings] = {
        "ML-1M": mf.read_ratings(data / "ml-1m" / "ratings.csv.gz"),
        "ml-latest-small": mf.read_ratings(data / "ml-latest-small" / "ratings.csv"),
        "ML-100K": ml_100k,
    }
    scales: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "ML-100K as -10 … 10": lambda r: (r - 3) * 5,
        "ML-100K as 0 … 100": lambda r: (r - 1) * 25,
        "ML-100K × 10⁶": lambda r: r * 1e6,
    }
    for name, function in scales.items():
        values = function(ml_100k.values.astype(np.float64))
        tenths[name] = mf.Ratings((ml_100k.users, ml_100k.items, values, ml_100k.shape))
    rows = [{"data": "ML-100K", "split": "its five folds u1 … u5", "rmse": errors(folds)}]
    for name, R in tenths.items():
        splits = [mf.train_test_split(R, 0.1, rng=seed) for seed in range(5)]
        rows.append({"data": name, "split": "90/10, seeds 0 … 4", "rmse": errors(splits)})
    return results.described("python -m benchmarks.compare --data FOLDER --store", rows)


def errors(splits: list[Split]) -> dict[str, list[float]]:
    """Return each predictor's test RMSE on each split."""
    predictors: dict[str, Predictor] = {
        "predicting the mean": lambda train, test, seed: _rmse(test, train.mean),
        "mean and biases": lambda train, test, seed: _rmse(test, bias_predictions(train, test)),
        "blocks": partial(_test_rmse, schedule="blocks"),
        "sequential": partial(_test_rmse, schedule="sequential"),
        "hogwild, 2 threads": partial(_test_rmse, schedule="hogwild", n_threads=2),
        "with biases": partial(_test_rmse, biases=True),
        "with biases, k = 128": partial(_test_rmse, k=128, biases=True),
    }
    return {
        name: [predictor(train, test, seed) for seed, (train, test) in enumerate(splits)]
        for name, predictor in predictors.items()
    }


def accuracy_table(stored: results.Stored) -> str:
    """Return the table of held-out RMSE, and what it says."""
    rows = [
        [row["data"], row["split"], *(f"{np.mean(x):.4g} ± {np.std(x):.1g}" for x in row["rmse"].values())]
        for row in stored["rows"]
    ]
    return (
        f"{results.table(['data', 'split', *stored['rows'][0]['rmse']], rows)}\n\n"
        "Test RMSE of `factorize(R, 32, rng=seed)` with nothing else given but what stands above the column, "
        "mean ± standard deviation over the splits. Mean and biases: mean + user's bias + item's bias, each "
        f"damped by 5 ratings of no bias. {stored['machine']}"
    )


def bias_predictions(train: mf.Ratings, test: mf.Ratings) -> NDArray[np.float64]:
    """Predict mean + b_u + b_i, each bias a mean of residuals damped by 5 ratings of no bias."""
    residuals = train.values - train.mean
    item_bias = np.bincount(train.items, residuals, train.n_items) / (train.item_counts() + 5)
    user_sums = np.bincount(train.users, residuals - item_bias[train.items], train.n_users)
    user_bias = user_sums / (train.user_counts() + 5)
    return np.asarray(train.mean + user_bias[test.users] + item_bias[test.items])


def read_ml_100k(data: Path, name: str = "u.data") -> mf.Ratings:
    """Read a file of ML-100K, with row and column numbers that all its files share."""
    users, items, values, _ = np.loadtxt(data / "ml-100k" / name, np.int64, unpack=True)
    return mf.Ratings((users - 1, items - 1, values, (943, 1682)), dtype=np.float32)


def ml_100k_fold(data: Path, n: int) -> Split:
    """Read one of the five folds of ML-100K, by its number from 0."""
    return read_ml_100k(data, f"u{n + 1}.base"), read_ml_100k(data, f"u{n + 1}.test")


def _test_rmse(train: mf.Ratings, test: mf.Ratings, seed: int, k: int = 32, **settings: Any) -> float:
    return mf.factorize(train, k, rng=seed, **settings).rmse(test)


def _rmse(test: mf.Ratings, predictions: NDArray[np.float64] | float) -> float:
    return float(np.sqrt(np.mean((test.values - predictions) ** 2)))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    main()
