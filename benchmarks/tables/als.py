"""Alternating least squares: seconds of an epoch by method, solver and rank, on one thread and on two.

These alternate. The share of the peak is that of the multiply-adds that the solver needs at least, among
those that a core does in registers.
"""

import argparse
import statistics
from typing import Any

import mfkernel as mf
from benchmarks import data, private, probes, store
from benchmarks.progress import show
from benchmarks.suites.als import METHODS, SOLVERS
from benchmarks.tables import markdown

RANKS = (32, 64, 128)
EPOCHS = 3  # of a fit, of which the first is not counted


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    data.add_option(parser)
    parser.add_argument("--set", action="append", choices=data.SETS, help="may be given repeatedly")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds and shares of each method, solver and rank."""
    names = options.set or ["ml-1m-like"]
    data.require(options.data, names)
    rows = []
    for name in names:
        R = data.load(name, options.data)
        for method in METHODS:
            for k in RANKS:
                for solver in SOLVERS if k > 64 else SOLVERS[:2]:
                    if name == "generated 10M" and method != "implicit" and solver == "subspace":
                        continue
                    case = {"set": name, "method": method, "solver": solver, "k": k}
                    rows.append(case | figures(R, k, method, solver, options.repeats, name))
    show("")
    return {"rows": rows, "repeats": options.repeats}


def figures(R: mf.Ratings, k: int, method: str, solver: str, repeats: int, name: str) -> dict[str, float]:
    """Return the median seconds of an epoch, on one thread and on two, and the share of the peak."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    peaks = []
    for repeat in range(repeats):
        show(f"{name}: {method}, k = {k}, {solver}, fits {repeat + 1} of {repeats}")
        for threads, times in seconds.items():
            times.append(seconds_of_epoch(R, k, method, solver, threads))
        run, work = probes.arithmetic_probe()
        peaks.append(work / probes.clock(run))
    one, two = (statistics.median(times) for times in seconds.values())
    share = min_multiply_adds(R, k, method, solver) / one / statistics.median(peaks)
    return {"seconds": one, "seconds, 2 threads": two, "share": share}


def seconds_of_epoch(R: mf.Ratings, k: int, method: str, solver: str, threads: int) -> float:
    """Return the least seconds of an epoch of a fit."""
    settings = METHODS[method] | {"solver": solver, "n_threads": threads, "epochs": EPOCHS, "rng": 0}
    return min(record.seconds for record in mf.factorize(R, k, **settings).history[1:])


def min_multiply_adds(R: mf.Ratings, k: int, method: str, solver: str) -> float:
    """Return the multiply-adds that an epoch needs at least, for products and for equations."""
    coordinates, all_cells = k + ("biases" in method), method == "implicit"
    per_rating, per_row = private.multiply_adds(private.make_solver(solver, k), coordinates, all_cells)
    return float(2 * R.nnz * per_rating + sum(R.shape) * per_row)


def render(results: store.Results) -> str:
    """Return the table of seconds and shares, and its caption."""
    rows = [
        [
            *(row["set"], row["method"], str(row["k"]), row["solver"]),
            *(f"{row[name]:.3g}" for name in ("seconds", "seconds, 2 threads")),
            f"{row['seconds'] / row['seconds, 2 threads']:.2f} ×",
            f"{row['share']:.0%}",
        ]
        for row in results["rows"]
    ]
    head = ["ratings", "method", "k", "solver", "s/epoch", "2 threads", "2 threads, speed", "of the peak"]
    return (
        f"{markdown.table(head, rows)}\n\nSeconds of an epoch, float32, the median of {results['repeats']} "
        f"alternating fits of {EPOCHS} epochs; of the peak: the multiply-adds that the solver needs at "
        f"least, as a share of what a core does in registers in that time. {results['machine']}"
    )
