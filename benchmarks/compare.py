"""Measure and print the tables of README.md: ``python -m benchmarks.compare [--data FOLDER] [--readme]``.

Speed: within a repetition all engines run one after the other, so that a change of the machine's speed hits
all alike; the figure is the median over the repetitions. Accuracy: the plain call against the means.
"""

import argparse
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import cases

Predictor = Callable[[mf.Ratings, mf.Ratings, int], float]

README = Path(__file__).parent.parent / "README.md"
MAX_SLOW_REPEATS = 3


def main() -> None:
    """Print the tables, or write them into README.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("MFKERNEL_DATA"), help="real ratings")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md")
    options = parser.parse_args()
    data = None if options.data is None else Path(options.data)
    tables = {"speed": "\n".join(speed_table(data, options.repeats))}
    if data is not None:
        tables["accuracy"] = "\n".join(accuracy_table(data))
    for name, text in tables.items():
        print(f"{text}\n")
        if options.readme:
            write_into_readme(name, text)


def speed_table(data: Path | None, repeats: int) -> Iterator[str]:
    """Yield the lines of the table of seconds per epoch."""
    sets = {size: cases.ratings(size) for size in cases.SIZES}
    if data is not None:
        sets |= {"ML-100K": read_ml_100k(data), "ML-1M": mf.read_ratings(data / "ml-1m" / "ratings.csv.gz")}
    head = ("ratings", "k", *cases.ENGINES, "M ratings/s", "of naive", "2 threads", "of hogwild")
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for name, R in sets.items():
        slow = R.nnz <= cases.MOST_INTERPRETED
        for k in cases.RANKS:
            s = seconds_per_epoch(R, k, slow, repeats)
            naive, blocks, two = s.get("naive loop"), s["blocks"], s["blocks, 2 threads"]
            cells = (
                *(_seconds(s.get(engine)) for engine in cases.ENGINES),
                f"{R.nnz / blocks / 1e6:.0f}",
                f"{naive / blocks:,.0f} ×" if naive else "",
                f"{blocks / two:.2f} ×",
                f"{s['hogwild, 2 threads'] / two:.2f} ×",
            )
            yield f"| {name} | {k} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"Seconds an epoch, the median of {repeats} rounds in which the engines take turns (the interpreted "
        f"ones in float64, {MAX_SLOW_REPEATS} rounds). Then, for blocks: ratings a second on one thread, "
        f"as a multiple of the naive loop's, and two threads as one of its own speed and of hogwild's. "
        f"{machine()}"
    )


def seconds_per_epoch(R: mf.Ratings, k: int, slow: bool, repeats: int) -> dict[str, float]:
    """Return the median time of an epoch by each engine."""
    engines = {
        name: build(R, k) for name, build in cases.ENGINES.items() if slow or name not in cases.SLOW_ENGINES
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(repeats):
        for name, epoch in engines.items():
            if name not in cases.SLOW_ENGINES:
                seconds[name] += [_clock(epoch) for _ in range(5)]
            elif repeat < MAX_SLOW_REPEATS:
                seconds[name].append(_clock(epoch))
    return {name: statistics.median(times) for name, times in seconds.items()}


def accuracy_table(data: Path) -> Iterator[str]:
    """Yield the lines of the table of held-out RMSE, all by the plain call ``factorize(R, 32)``."""
    head = (
        "data",
        "split",
        "predicting the mean",
        "mean and biases",
        "blocks",
        "sequential",
        "hogwild, 2 threads",
    )
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    ml_100k = read_ml_100k(data)
    folds = [(read_ml_100k(data, f"u{n}.base"), read_ml_100k(data, f"u{n}.test")) for n in range(1, 6)]
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
    yield accuracy_row("ML-100K", "its five folds u1 … u5", folds)
    for name, R in tenths.items():
        splits = [mf.train_test_split(R, 0.1, rng=seed) for seed in range(5)]
        yield accuracy_row(name, "90/10, seeds 0 … 4", splits)
    yield ""
    yield (
        "Test RMSE of `factorize(R, 32, rng=seed)` with nothing else given but the schedule, mean ± standard "
        "deviation over the splits. Mean and biases: mean + user's bias + item's bias, each damped by 5 "
        "ratings of no bias."
    )


def accuracy_row(name: str, split: str, pairs: list[tuple[mf.Ratings, mf.Ratings]]) -> str:
    """Return a row: mean and deviation of each predictor's test RMSE."""
    predictors: tuple[Predictor, ...] = (
        lambda train, test, seed: _rmse(test, train.mean),
        lambda train, test, seed: _rmse(test, bias_predictions(train, test)),
        partial(_test_rmse, schedule="blocks"),
        partial(_test_rmse, schedule="sequential"),
        partial(_test_rmse, schedule="hogwild", n_threads=2),
    )
    columns = []
    for predictor in predictors:
        figures = [predictor(train, test, seed) for seed, (train, test) in enumerate(pairs)]
        columns.append(f"{np.mean(figures):.4g} ± {np.std(figures):.1g}")
    return f"| {name} | {split} | {' | '.join(columns)} |"


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


def machine() -> str:
    """Say what the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (
        model := re.search(r"model name\s*:\s*(.*)", info.read_text())
    ):
        cpu = model[1]
    return (
        f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Numba {numba.__version__}, mfkernel {mf.__version__}."
    )


def write_into_readme(name: str, text: str, module: str = "compare") -> None:
    """Replace what stands between the two marks of a table."""
    start, stop = f"<!-- {name}: python -m benchmarks.{module} --readme -->\n", f"<!-- end of {name} -->"
    before, rest = README.read_text(encoding="utf-8").split(start)
    _, after = rest.split(stop)
    README.write_text(f"{before}{start}{text}\n{stop}{after}", encoding="utf-8")


def _test_rmse(train: mf.Ratings, test: mf.Ratings, seed: int, **settings: Any) -> float:
    return mf.factorize(train, 32, rng=seed, **settings).rmse(test)


def _rmse(test: mf.Ratings, predictions: NDArray[np.float64] | float) -> float:
    return float(np.sqrt(np.mean((test.values - predictions) ** 2)))


def _clock(epoch: cases.Epoch) -> float:
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


if __name__ == "__main__":
    main()
