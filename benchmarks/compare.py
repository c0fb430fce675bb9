"""How fast is it here, and how accurate? ``python -m benchmarks.compare [--data FOLDER] [--store]``.

Speed: within a repetition all engines run one after the other, so that a change of the machine's speed hits
all alike; the figure is the median over the repetitions. Accuracy: fits with nothing but the rank given,
against the means.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import cases, generated, probes, real, results
from benchmarks.progress import show
from benchmarks.real import read_ml_100k

Predictor = Callable[[mf.Ratings, mf.Ratings, int], float]
Split = tuple[mf.Ratings, mf.Ratings]
Ranked = tuple[mf.Ratings, mf.Ratings, mf.Ratings]  # to learn from, known of those asked, held out

MAX_SLOW_REPEATS = 3
CALLS = 5  # of an engine in its turn


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    real.add_data(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--store", action="store_true", help="keep the results, for benchmarks.report")
    options = parser.parse_args()
    data: Path | None = options.data
    if data is not None:
        real.check(parser, data, real.FILES, *real.FOLDS)
    if options.store and data is None:
        parser.error("--store needs --data: docs/benchmarks.md also shows real ratings")
    stored = {"speed": measure_speed(data, options.repeats)}
    print(speed_table(stored["speed"]))
    if data is not None:
        stored["accuracy"] = measure_accuracy(data)
        print("\n" + accuracy_table(stored["accuracy"]))
        stored["rankings"] = measure_rankings(data)
        print("\n" + rankings_table(stored["rankings"]))
    if options.store:
        for name, figures in stored.items():
            results.store(name, figures)


def measure_speed(data: Path | None, repeats: int) -> results.Stored:
    """Measure the median seconds of an epoch by each engine."""
    sets = {size: generated.ratings(size) for size in generated.SIZES}
    if data is not None:
        sets |= {name: real.read(name, data) for name in ("ML-100K", "ML-1M")}
    rows = [
        {"ratings": name, "nnz": R.nnz, "k": int(k), "seconds": seconds_per_epoch(name, R, int(k), repeats)}
        for name, R in sets.items()
        for k in cases.RANKS
    ]
    return results.described("python -m benchmarks.compare --data FOLDER --store", rows, repeats=repeats)


def seconds_per_epoch(name: str, R: mf.Ratings, k: int, repeats: int) -> dict[str, float]:
    """Return the median time of an epoch by each engine that is fast enough."""
    engines = {
        engine: build(R, k) for engine, build in cases.ENGINES.items() if cases.is_fast_enough(engine, R.nnz)
    }
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    for repeat in range(repeats):
        for engine, epoch in engines.items():
            show(f"speed: {name}, k = {k}, round {repeat + 1} of {repeats}: {engine}")
            if engine not in cases.SLOW_ENGINES:
                seconds[engine] += [probes.clock(epoch) for _ in range(CALLS)]
            elif repeat < MAX_SLOW_REPEATS:
                seconds[engine].append(probes.clock(epoch))
    show("")
    return {engine: statistics.median(times) for engine, times in seconds.items()}


def speed_table(stored: results.Stored) -> str:
    """Return the table of seconds per epoch, and its caption."""
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
        f"{results.table(head, rows)}\n\nSeconds per epoch, the median of {stored['repeats']} rounds in "
        f"which engines alternate (the interpreted ones in float64, {MAX_SLOW_REPEATS} rounds). The last "
        "four columns describe blocks: throughput on one thread, speed-up over the naive loop, and speed-up "
        f"of two threads over one thread and over hogwild. {stored['machine']}"
    )


STEPS = {  # of docs/textbook.md, by what runs them
    "naive loop": "the program, over every cell",
    "numpy reference": "steps 1 and 2: ratings only, one vector operation per rating",
    "sequential": "step 3: compiled",
    "hogwild, 2 threads": "step 4: two threads without locks",
    "blocks": "step 5: blocks, one thread",
    "blocks, 2 threads": "step 5: blocks, two threads",
}


def steps_table(stored: results.Stored, size: str = "ml-100k-like", k: int = 32) -> str:
    """Return the table of what each step from the textbook's loop gains, and its caption."""
    (row,) = (x for x in stored["rows"] if (x["ratings"], x["k"]) == (size, k))
    seconds = row["seconds"]
    first = seconds["naive loop"]
    rows = [
        [text, _seconds(seconds[engine]), f"{first / seconds[engine]:,.0f} ×"]
        for engine, text in STEPS.items()
    ]
    return (
        f"{results.table(['step', 'seconds per epoch', 'speed-up'], rows)}\n\n{row['nnz']:,} generated "
        f"ratings ({size}), k = {k}, the median of {stored['repeats']} rounds in which all alternate (the "
        f"first two in float64, {MAX_SLOW_REPEATS} rounds). {stored['machine']}"
    )


def measure_accuracy(data: Path) -> results.Stored:
    """Measure the held-out RMSE of fits with their own defaults, and of the means, for each split."""
    ml_100k = real.read("ML-100K", data)
    folds = [ml_100k_fold(data, n) for n in range(5)]
    tenths: dict[str, mf.Ratings] = {
        "ML-1M": real.read("ML-1M", data),
        "ml-latest-small": real.read("ml-latest-small", data),
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
        "ALS": partial(_test_rmse, method="als"),
        "ALS with biases": partial(_test_rmse, method="als", biases=True),
    }
    found: dict[str, list[float]] = {name: [] for name in predictors}
    for name, predictor in predictors.items():
        for seed, (train, test) in enumerate(splits):
            show(f"accuracy: {train.nnz:,} ratings, split {seed + 1} of {len(splits)}: {name}")
            found[name].append(predictor(train, test, seed))
    show("")
    return found


def accuracy_table(stored: results.Stored) -> str:
    """Return the table of held-out RMSE, and what it says."""
    rows = [
        [row["data"], row["split"], *(f"{np.mean(x):.4g} ± {np.std(x):.1g}" for x in row["rmse"].values())]
        for row in stored["rows"]
    ]
    return (
        f"{results.table(['data', 'split', *stored['rows'][0]['rmse']], rows)}\n\n"
        "Test RMSE of `factorize(R, 32, rng=seed)` with default settings, except for the option in the "
        "column header; mean ± standard deviation over the splits. Mean and biases: mean + user's bias + "
        f"item's bias, each damped by 5 ratings of no bias. {stored['machine']}"
    )


def measure_rankings(data: Path) -> results.Stored:
    """Measure how well held-out items are ranked by fits with their own defaults, for each split."""
    sets = {name: real.read(name, data) for name in ("ML-1M", "ml-latest-small", "ML-100K")}
    splits: dict[str, Callable[[mf.Ratings, int], Ranked]] = {
        "a tenth of the ratings": lambda R, seed: _known(*mf.train_test_split(R, 0.1, rng=seed)),
        "5 of each user": lambda R, seed: _known(*mf.leave_k_out(R, 5, rng=seed)),
        "a fifth of each new user": lambda R, seed: mf.strong_generalization_split(R, rng=seed),
    }
    rows = [
        {"data": name, "held out": split, "scores": scores([part(R, seed) for seed in range(5)])}
        for name, R in sets.items()
        for split, part in splits.items()
    ]
    return results.described("python -m benchmarks.compare --data FOLDER --store", rows)


def scores(splits: list[Ranked]) -> dict[str, dict[str, list[float]]]:
    """Return recall and NDCG of each predictor on each split."""
    predictors: dict[str, Callable[[mf.Ratings, int], mf.Factors]] = {
        "popularity": popularity,
        "with biases": lambda R, seed: mf.factorize(R, 32, biases=True, rng=seed),
        "implicit": lambda R, seed: mf.factorize(R, 32, method="implicit", rng=seed),
        "implicit, k = 128": lambda R, seed: mf.factorize(R, 128, method="implicit", rng=seed),
    }
    found: dict[str, dict[str, list[float]]] = {name: {"recall": [], "ndcg": []} for name in predictors}
    for seed, (training, known, held_out) in enumerate(splits):
        for name, fit in predictors.items():
            show(f"rankings: {training.nnz:,} ratings, split {seed + 1} of {len(splits)}: {name}")
            model = fit(training, seed)
            if known is not training:
                model = model.fold_in(known)
            found[name]["recall"].append(mf.metrics.recall_at_n(model, held_out, 20))
            found[name]["ndcg"].append(mf.metrics.ndcg_at_n(model, held_out, 100))
    show("")
    return found


def popularity(R: mf.Ratings, seed: int) -> mf.Factors:
    """Return a model that ranks items by how many have rated them."""
    counts = R.item_counts().astype(np.float64)
    zeros = np.zeros((1, R.n_items))
    settings = mf.SGD(regularization=(1.0, 1.0))
    users = np.zeros(R.n_users)
    return mf.Factors(users[:, None], zeros, user_bias=users, item_bias=counts, settings=settings, ratings=R)


def rankings_table(stored: results.Stored) -> str:
    """Return the table of rankings, and what it says."""
    rows = [
        [
            *(row["data"], row["held out"]),
            *(f"{np.mean(x['recall']):.3f}, {np.mean(x['ndcg']):.3f}" for x in row["scores"].values()),
        ]
        for row in stored["rows"]
    ]
    most = max(np.std(x) for row in stored["rows"] for y in row["scores"].values() for x in y.values())
    return (
        f"{results.table(['data', 'held out', *stored['rows'][0]['scores']], rows)}\n\n"
        "Recall of the 20 best and NDCG of the 100 best among all items that the user has not rated, the "
        f"mean of five splits with a standard deviation of at most {most:.2g}, of `factorize(R, 32)` with "
        "default settings, except for the option in the column header. New users are a tenth of the users; "
        f"training has not seen them, and they are folded in. {stored['machine']}"
    )


def _known(training: mf.Ratings, held_out: mf.Ratings) -> Ranked:
    return training, training, held_out


def bias_predictions(train: mf.Ratings, test: mf.Ratings) -> NDArray[np.float64]:
    """Predict mean + b_u + b_i, each bias a mean of residuals damped by 5 ratings of no bias."""
    residuals = train.values - train.mean
    item_bias = np.bincount(train.items, residuals, train.n_items) / (train.item_counts() + 5)
    user_sums = np.bincount(train.users, residuals - item_bias[train.items], train.n_users)
    user_bias = user_sums / (train.user_counts() + 5)
    return np.asarray(train.mean + user_bias[test.users] + item_bias[test.items])


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
