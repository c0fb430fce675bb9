"""How fast are alternating least squares? ``python -m benchmarks.als [--data FOLDER] [--set NAME]``.

Seconds of an epoch by method, solver and rank, on one thread and on two, in alternation; and the share of
the multiply-adds that a core does in registers, of those that the solver needs at least.
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import mfkernel as mf
from benchmarks import generated, private, probes, real, results, trainers
from benchmarks.generated import Case
from benchmarks.progress import show

RANKS = (32, 64, 128)
SOLVERS = ("cholesky", "cg", "subspace")
METHODS: dict[str, dict[str, Any]] = {
    "explicit": {"method": "als"},
    "explicit, with biases": {"method": "als", "biases": True},
    "implicit": {"method": "implicit"},
}
EPOCHS = 3  # of a fit, of which the first is not counted
GENERATED_10M = (70_000, 10_000, 10_000_000)
SETS = (*generated.SIZES, *real.FILES, "generated 10M")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.als", description=__doc__)
    real.add_data(parser)
    parser.add_argument("--set", action="append", choices=SETS, help="may be given repeatedly")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--store", action="store_true", help="keep the results, for benchmarks.report")
    options = parser.parse_args()
    names = options.set or ["ml-1m-like"]
    real.check(parser, options.data, names)
    rows = [row for name in names for row in measure(name, options.data, options.repeats)]
    sets = " ".join(f"--set {name!r}" for name in names)
    command = f"python -m benchmarks.als --data FOLDER {sets} --store"
    stored = results.described(command, rows, repeats=options.repeats)
    print(table(stored))
    if options.store:
        results.store("als", stored)


def measure(name: str, data: Path | None, repeats: int) -> list[dict[str, Any]]:
    """Return seconds and shares of each method, solver and rank."""
    if name in real.FILES:
        assert data is not None
        R = real.read(name, data)
    else:
        R = generated.ratings(name) if name in generated.SIZES else mf.datasets.synthetic(*GENERATED_10M)
    rows = []
    for method in METHODS:
        for k in RANKS:
            for solver in SOLVERS if k > 64 else SOLVERS[:2]:
                if name == "generated 10M" and method != "implicit" and solver == "subspace":
                    continue
                seconds: dict[int, list[float]] = {1: [], 2: []}
                peaks = []
                for repeat in range(repeats):
                    show(f"{name}: {method}, k = {k}, {solver}, fits {repeat + 1} of {repeats}")
                    for threads, times in seconds.items():
                        times.append(seconds_of_epoch(R, k, method, solver, threads))
                    run, work = probes.arithmetic_probe()
                    peaks.append(work / probes.clock(run))
                one, two = (statistics.median(times) for times in seconds.values())
                share = needed(R, k, method, solver) / one / statistics.median(peaks)
                rows.append(
                    {"set": name, "method": method, "solver": solver, "k": k}
                    | {"seconds": one, "seconds, 2 threads": two, "share": share}
                )
    show("")
    return rows


def seconds_of_epoch(R: mf.Ratings, k: int, method: str, solver: str, threads: int) -> float:
    """Return the least seconds of an epoch of a fit."""
    settings = METHODS[method] | {"solver": solver, "n_threads": threads, "epochs": EPOCHS, "rng": 0}
    return min(record.seconds for record in mf.factorize(R, k, **settings).history[1:])


def needed(R: mf.Ratings, k: int, method: str, solver: str) -> float:
    """Return the multiply-adds that an epoch needs at least, for products and for equations."""
    coordinates, all_cells = k + ("biases" in method), method == "implicit"
    per_rating, per_row = private.multiply_adds(private.make_solver(solver, k), coordinates, all_cells)
    needed: float = 2 * R.nnz * per_rating + sum(R.shape) * per_row
    return needed


def table(stored: results.Stored) -> str:
    """Return the table of seconds and shares, and what it says."""
    rows = [
        [
            *(row["set"], row["method"], str(row["k"]), row["solver"]),
            *(f"{row[name]:.3g}" for name in ("seconds", "seconds, 2 threads")),
            f"{row['seconds'] / row['seconds, 2 threads']:.2f} ×",
            f"{row['share']:.0%}",
        ]
        for row in stored["rows"]
    ]
    head = ["ratings", "method", "k", "solver", "s/epoch", "2 threads", "2 threads, speed", "of the peak"]
    return (
        f"{results.table(head, rows)}\n\nSeconds of an epoch, float32, the median of {stored['repeats']} "
        f"alternating fits of {EPOCHS} epochs; of the peak: the multiply-adds that the solver needs at "
        f"least, as a share of what a core does in registers in that time. {stored['machine']}"
    )


# Cases of the catalogue


def epoch(method: str, solver: str, size: str, k: str) -> Case:
    """Build an epoch of alternating least squares."""
    settings = METHODS[method]
    biases = settings.get("biases", False)
    run = trainers.als_epoch(generated.ratings(size), int(k), solver, settings["method"], biases)
    return generated.warm(run)


def objective(method: str, solver: str, size: str, k: str) -> Case:
    """Build the root of the objective a rating after five epochs, which a worse solver leaves higher."""
    R, settings = generated.ratings(size), METHODS[method] | {"solver": solver, "epochs": 5, "rng": 0}
    return lambda: math.sqrt((mf.factorize(R, int(k), **settings).history[-1].loss or math.nan) / R.nnz)


def exists(method: str, solver: str, size: str, k: str) -> bool:
    """Whether there is such a case: blocks of coordinates are for long rows."""
    return solver != "subspace" or k == "128"


if __name__ == "__main__":
    main()
