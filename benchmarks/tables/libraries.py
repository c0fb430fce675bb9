"""Other libraries: seconds, memory and error of a fit by each, on the same splits.

Each repetition is of another split. As in the table of speed, the libraries alternate.
"""

import argparse
import pickle
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, probes, store
from benchmarks.progress import show
from benchmarks.tables import markdown
from benchmarks.tables.library_fits import NDCG_CUTOFF, PEERS, Figures, Peer, fit_in_new_process, version

REAL = ("ML-1M", "ML-100K")
SETS = (*data.FILES, "generated 100K", "generated 1M", "generated 10M")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    data.add_option(parser)
    parser.add_argument("--set", action="append", choices=SETS, help="may be given repeatedly")
    parser.add_argument("--k", type=int, default=64, help="rank (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="splits (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="the most (default: %(default)s)")
    parser.add_argument(
        "--only", metavar="PACKAGE", help="measure this library again, and keep the stored rows of the others"
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Fit each set with each library."""
    names = options.set or [*(REAL if options.data else []), "generated 1M"]
    data.require(options.data, names, *(data.FOLDS if "ML-100K" in names else ()))
    counts = sorted({1, options.threads})
    peers = {name: x for name, x in PEERS.items() if options.only in (None, x.package)}
    rows = [measure_set(name, options.data, options.k, counts, options.repeats, peers) for name in names]
    results = {"rows": rows, "k": options.k, "threads": counts, "repeats": options.repeats}
    return results if options.only is None else _among_stored(results, options.only)


def _among_stored(results: dict[str, Any], package: str) -> dict[str, Any]:
    """Return the stored results, where the rows of one library are replaced."""
    stored = store.load("libraries")
    for name, value in {**results, "machine": probes.machine()}.items():
        if name != "rows" and stored[name] != value:
            raise ValueError(f"--only must be used with the stored {name}, {stored[name]!r}, got {value!r}")
    new = {row["set"]: row for row in results["rows"]}
    if new.keys() != {row["set"] for row in stored["rows"]}:
        raise ValueError("--only must be used with all stored sets")
    for row in stored["rows"]:
        others = [peer for peer in row["peers"] if peer["library"].split()[0] != package]
        row["peers"] = new[row["set"]]["peers"] + others
        row["notes"] = []
    return {name: stored[name] for name in results}


def measure_set(
    name: str, folder: Path | None, k: int, counts: list[int], repeats: int, chosen: dict[str, Peer]
) -> dict[str, Any]:
    """Fit a set with each of the chosen libraries."""
    splits, description = splits_of(name, folder)
    fits, notes = fit_alternately(splits, k, counts, repeats, chosen)
    train, test = splits(0)
    peers = [
        {
            "library": f"{PEERS[peer].package} {version(PEERS[peer].package)}",
            "method": PEERS[peer].method,
            "settings": ", ".join(f"{key}={value!r}" for key, value in PEERS[peer].settings.items()),
            "fits": {str(count): figures for count, figures in by_threads.items()},
        }
        for peer, by_threads in fits.items()
    ]
    about = {"set": name, "train": train.nnz, "test": test.nnz, "splits": description}
    return about | {"peers": peers, "notes": notes}


def splits_of(name: str, folder: Path | None) -> tuple[Callable[[int], data.Split], str]:
    """Return a function that makes the n-th split of a set, and the description of the splits."""
    if name == "ML-100K":
        return lambda n: data.fold(folder or Path(), n % 5), "its folds u1, u2, …"
    R = data.load(name, folder)
    return lambda n: data.hold_out_tenth(R, n), "90/10, seeds 0, 1, …"


def fit_alternately(
    splits: Callable[[int], data.Split],
    k: int,
    counts: list[int],
    repeats: int,
    chosen: dict[str, Peer],
) -> tuple[dict[str, dict[int, list[Figures]]], list[str]]:
    """Return the figures of all fits by library and threads, and notes on missing ones."""
    fits: dict[str, dict[int, list[Figures]]] = {
        name: {count: [] for count in counts if peer.threaded or count == 1}
        for name, peer in chosen.items()
        if version(peer.package)
    }
    missing = [peer.package for name, peer in chosen.items() if name not in fits]
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.pickle"
        for repeat in range(repeats):
            path.write_bytes(pickle.dumps(splits(repeat)))
            for name, count in [(peer, count) for peer in fits for count in fits[peer]]:
                show(f"split {repeat + 1} of {repeats}: {name}, {count} thread{'s' * (count > 1)}")
                try:
                    fits[name][count].append(fit_in_new_process(name, path, k, count))
                except RuntimeError as error:
                    notes.append(f"{name} failed on {count} thread{'s' * (count > 1)}: {error}")
    show("")
    return fits, list(dict.fromkeys(notes))


def render(results: store.Results) -> str:
    """Return a table for each set, notes on missing libraries, and the caption."""
    counts = [str(count) for count in results["threads"]]
    seconds = (f"seconds, {count} thread{'s' * (count != '1')}" for count in counts)
    head = ["library", "settings", *seconds, "test RMSE", f"NDCG@{NDCG_CUTOFF}", "MiB"]
    texts = []
    for row in results["rows"]:
        rows = []
        for peer in row["peers"]:
            fits = peer["fits"]
            most = fits[max(fits, key=int)]
            timed = (_median(fits.get(count, []), "seconds", ".3g") for count in counts)
            cells = (*timed, _mean(most, "rmse"), _mean(most, "ndcg"), _median(most, "MiB", ".0f"))
            rows.append([peer["library"], f"{peer['method']}: `{peer['settings']}`", *cells])
        split = f"{row['train']:,} ratings to learn from, {row['test']:,} to predict, {row['splits']}"
        texts += [f"{row['set']}: {split}; k = {results['k']}.", markdown.table(head, rows), *row["notes"]]
    texts.append(
        f"Seconds of the library's fit call, the median of {results['repeats']} splits; building the data "
        "structure it takes is not counted, nor compilation. RMSE of unclipped predictions, or NDCG of how "
        "the held-out items rank among all that the user has not rated, mean ± standard deviation over the "
        "splits, and MiB of memory that the fit adds at its peak, all on several threads "
        "where the library has them. Other settings are the library's defaults. Users and items without "
        "training ratings are predicted by the mean. "
        f"{results['machine']}"
    )
    return "\n\n".join(texts)


# the labelled points of the picture: text, offset in points and alignment, by library, method and settings
LABELS: dict[tuple[str, str, str], tuple[str, tuple[float, float], str]] = {
    ("mfkernel", "SGD", "schedule='blocks'"): ("mfkernel", (0, 14), "center"),
    ("mfkernel", "SGD, with biases", "biases=True"): ("mfkernel, biases", (0, -26), "center"),
    ("mfkernel", "ALS", "method='als'"): ("mfkernel ALS", (16, -8), "left"),
    ("mfkernel", "Gibbs sampling, with biases", "method='bayesian'"): (
        "mfkernel Bayesian",
        (0, -26),
        "center",
    ),
    ("myfm", "Gibbs sampling, with biases", "n_iter=100"): ("myFM", (0, 12), "center"),
    ("libmf", "SGD", "nr_iters=20, lambda_p1=0, lambda_q1=0, lambda_p2=0.04, lambda_q2=0.04"): (
        *("LIBMF, wheel", (10, -4)),
        "left",
    ),
    ("cornac", "SGD, with biases", "max_iter=20, use_bias=True"): ("cornac, biases", (0, -20), "center"),
    (
        "cmfrec",
        "ALS",
        "niter=10, lambda_=0.05, scale_lam=True, user_bias=False, item_bias=False, finalize_chol=False, "
        "precompute_for_predictions=False",
    ): ("cmfrec ALS", (-10, -2), "right"),
    ("scikit-surprise", "SGD, with biases", "n_epochs=20"): ("Surprise, biases", (10, -4), "left"),
    ("matrix-factorization", "SGD, with biases", "n_epochs=20, lr=0.001, reg=0.005"): (
        *("matrix-factorization", (0, -22)),
        "right",
    ),
}
SUMMARIZED = (  # rows of README's table, by library and method
    *(("mfkernel", "SGD, with biases"), ("mfkernel", "ALS"), ("mfkernel", "Gibbs sampling, with biases")),
    *(("mfkernel", "ALS, ranks items"), ("cornac", "SGD, with biases"), ("cmfrec", "ALS")),
    *(("myfm", "Gibbs sampling, with biases"), ("implicit", "ALS, ranks items")),
)


def is_ours(peer: dict[str, Any]) -> bool:
    """Whether a stored row is of this library."""
    return bool(peer["library"].startswith("mfkernel"))


def measured(peer: dict[str, Any]) -> list[dict[str, float]]:
    """Return the fits of a stored row on one thread, or none if they have no error."""
    fits: list[dict[str, float]] = peer["fits"]["1"]
    return fits if all("rmse" in fit for fit in fits) else []


def render_summary(results: store.Results) -> str:
    """Return README's table: this library's methods and the best of the others, on the first set."""
    row, rows = results["rows"][0], []
    for library, method in SUMMARIZED:
        peer = next(x for x in row["peers"] if x["library"].split()[0] == library and x["method"] == method)
        fits = peer["fits"].get("2", peer["fits"]["1"])  # some have one thread only
        cells = (_median(fits, "seconds", ".3g"), _mean(fits, "rmse"), _mean(fits, "ndcg"))
        rows.append([peer["library"], peer["method"].replace(", ranks items", ", implicit feedback"), *cells])
    return (
        f"{markdown.table(['library', 'method', 'seconds', 'test RMSE', f'NDCG@{NDCG_CUTOFF}'], rows)}\n\n"
        f"{row['set']}, k = {results['k']}, 2 threads, {row['splits']}. {results['machine']}"
    )


def _median(fits: list[Figures], figure: str, form: str) -> str:
    values = [fit[figure] for fit in fits if figure in fit]
    return format(statistics.median(values), form) if values else "–"


def _mean(fits: list[Figures], figure: str) -> str:
    values = [fit[figure] for fit in fits if figure in fit]
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else "–"
