"""Imputation: error and seconds of imputers where a fifth of a complete table is hidden."""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import store
from benchmarks.progress import show
from benchmarks.tables import markdown
from benchmarks.tables.library_fits import version

Table = NDArray[np.float64]
HIDDEN = 0.2  # share of the values
RANKS = (10, 20)  # of the factorization; NMF has the first


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    parser.add_argument("--repeats", type=int, default=3, help="masks (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Impute each table with each imputer."""
    rows = []
    for name, make in tables().items():
        complete = make()
        figures: dict[str, dict[str, list[float]]] = {x: {"r2": [], "seconds": []} for x in imputers()}
        for seed in range(options.repeats):
            hidden = np.random.default_rng(seed).random(complete.shape) < HIDDEN
            known = np.where(hidden, np.nan, complete)
            for imputer, impute in imputers().items():
                show(f"{name}, mask {seed + 1} of {options.repeats}: {imputer}")
                if seed == 0:
                    impute(known[:50], 0)  # compiles
                start = time.perf_counter()
                filled = impute(known, seed)
                figures[imputer]["seconds"].append(time.perf_counter() - start)
                figures[imputer]["r2"].append(r2(complete, filled, hidden))
        rows.append({"table": name, "shape": complete.shape, "figures": figures})
    show("")
    return {"rows": rows, "hidden": HIDDEN, "sklearn": version("scikit-learn"), "repeats": options.repeats}


def tables() -> dict[str, Callable[[], Table]]:
    """Return complete tables by name."""
    datasets = import_module("sklearn.datasets")
    return {
        "planted rank 5": planted,
        "digits": lambda: np.asarray(datasets.load_digits().data, np.float64),
        "breast cancer": lambda: np.asarray(datasets.load_breast_cancer().data, np.float64),
    }


def planted() -> Table:
    """Return a table of rank 5 with means per column and a little noise."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1000, 5)) @ rng.normal(size=(5, 60)) + rng.normal(0, 3, 60)
    return np.asarray(table + rng.normal(0, 0.1, table.shape))


def imputers() -> dict[str, Callable[[Table, int], Table]]:
    """Return functions that fill in a table, by name."""
    impute = import_module("sklearn.impute")
    import_module("sklearn.experimental.enable_iterative_imputer")

    def nmf(table: Table, seed: int) -> Table:
        """Fill in column means, as NMF takes complete tables only, then reconstruct."""
        least = np.nanmin(table, axis=0)
        filled = impute.SimpleImputer(keep_empty_features=True).fit_transform(table - least)
        decomposition = import_module("sklearn.decomposition")
        model = decomposition.NMF(RANKS[0], init="nndsvda", random_state=seed, max_iter=500)
        return np.asarray(model.inverse_transform(model.fit_transform(filled)) + least)

    return {
        **{f"`mfkernel.sklearn.MatrixImputer`, k = {k}": partial(with_mfkernel, k) for k in RANKS},
        "`KNNImputer`": lambda table, _: impute.KNNImputer(keep_empty_features=True).fit_transform(table),
        "`IterativeImputer`": lambda table, seed: impute.IterativeImputer(
            random_state=seed, keep_empty_features=True
        ).fit_transform(table),
        "scikit-learn's `NMF` after column means": nmf,
        "column means": lambda table, _: impute.SimpleImputer(keep_empty_features=True).fit_transform(table),
    }


def with_mfkernel(k: int, table: Table, seed: int) -> Table:
    """Fill in a table with this library."""
    imputer = import_module("mfkernel.sklearn").MatrixImputer(k, random_state=seed)
    return np.asarray(imputer.fit_transform(table))


def r2(complete: Table, filled: Table, hidden: NDArray[np.bool_]) -> float:
    """Return the share of the variance of hidden values, in units of each column, that is explained."""
    scale = complete.std(axis=0)
    scale[scale == 0] = 1
    errors, spread = (filled - complete) / scale, (complete - complete.mean(axis=0)) / scale
    return float(1 - np.square(errors[hidden]).sum() / np.square(spread[hidden]).sum())


def render(results: store.Results) -> str:
    """Return the table and its caption."""
    head = ["imputer", *(f"{row['table']}, {'×'.join(map(str, row['shape']))}" for row in results["rows"])]
    names = list(results["rows"][0]["figures"])
    rows = []
    for name in names:
        cells = [row["figures"][name] for row in results["rows"]]
        shown = (f"{np.mean(x['r2']):.4f}, {statistics.median(x['seconds']):.2g} s" for x in cells)
        rows.append([name, *shown])
    return (
        f"{markdown.table(head, rows)}\n\n"
        f"R² of the hidden values, {results['hidden']:.0%} of all, in units of each column's spread, and "
        f"seconds, mean and median of {results['repeats']} masks. NMF has k = {RANKS[0]}, all else is by "
        f"default; scikit-learn "
        f"{results['sklearn']}. {results['machine']}"
    )
