"""From a file to lists: seconds and memory from a csv of clicks to ten items for each user.

Each library reads the same file, fits implicit feedback with the same rank and epochs, and recommends to all
users, in a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import mfkernel as mf
from benchmarks import probes, repository, store
from benchmarks.progress import show
from benchmarks.tables import markdown
from benchmarks.tables.library_fits import version

N = 10  # items per list
K, EPOCHS = 32, 10
HELD_OUT = 5  # entries per user in the test
STEPS = ("read", "fit", "lists")


class Lists(NamedTuple):
    """The users of lists, and their items, both as ids."""

    users: NDArray[Any]
    items: NDArray[Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    parser.add_argument("--ratings", type=int, default=25_000_000, help="lines (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the pipelines alternately."""
    contenders = {name: peer for name, peer in PIPELINES.items() if all(map(version, peer.packages))}
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        file, test = Path(folder) / "clicks.csv", Path(folder) / "test.npz"
        about = write_clicks(file, test, options.ratings)
        for repeat in range(options.repeats):
            for name in contenders:
                show(f"run {repeat + 1} of {options.repeats}: {name}")
                figures[name].append(run_in_new_process(name, file, test, options.threads))
    show("")
    rows = [
        {"pipeline": ", ".join(f"{x} {version(x)}" for x in contenders[name].packages), "runs": runs}
        for name, runs in figures.items()
    ]
    return {"rows": rows, "threads": options.threads, "repeats": options.repeats, **about}


def write_clicks(file: Path, test: Path, count: int) -> dict[str, Any]:
    """Write generated clicks in random order, and the ids of each user's held-out ones."""
    m, n = max(100, count // 154), max(100, round(count**0.645))
    R = mf.datasets.synthetic(m, n, count, rng=0)
    train, held_out = mf.leave_n_out(R, HELD_OUT, rng=0)
    order = np.random.default_rng(0).permutation(train.nnz)
    users, items = 3 * train.users[order] + 1, 7 * train.items[order] + 1
    with file.open("w") as out:
        out.write("userId,movieId,rating\n")
        for start in range(0, train.nnz, 2**20):
            part = slice(start, start + 2**20)
            values = train.values[order[part]].astype(int)
            lines = zip(users[part].tolist(), items[part].tolist(), values.tolist(), strict=True)
            out.writelines(f"{u},{i},{r}\n" for u, i, r in lines)
    np.savez(test, users=3 * held_out.users + 1, items=7 * held_out.items + 1)
    return {"lines": train.nnz, "users": m, "items": n, "MB": file.stat().st_size / 1e6}


def run_in_new_process(name: str, file: Path, test: Path, threads: int) -> dict[str, float]:
    """Return the seconds of each step, the peak of memory and the NDCG of one run."""
    limits = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
    command = [sys.executable, "-m", "benchmarks.tables.pipeline", name, str(file), str(test), str(threads)]
    environment = os.environ | dict.fromkeys(limits, str(threads))
    environment["OPENBLAS_NUM_THREADS"] = "1"  # implicit asks for it, as it calls BLAS on threads of its own
    done = subprocess.run(
        command, cwd=repository.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def with_mfkernel(file: Path, threads: int, done: Callable[[str], None]) -> Lists:
    """Read, fit and recommend with this library."""
    R = mf.read_ratings(file)
    done("read")
    model = mf.factorize(R, K, "implicit", epochs=EPOCHS, rng=0, n_threads=threads)
    done("fit")
    users = model.user_ids
    found = model.recommend(users, N, n_threads=threads)
    done("lists")
    return Lists(np.asarray(users), np.ma.filled(found.items, -1))


def with_implicit(file: Path, threads: int, done: Callable[[str], None]) -> Lists:
    """Read with polars, fit and recommend with implicit."""
    polars, sparse = import_module("polars"), import_module("scipy.sparse")
    frame = polars.read_csv(file)
    users, items = (frame[name].unique().sort().to_numpy() for name in ("userId", "movieId"))
    rows, columns = (frame[name].rank("dense").to_numpy() - 1 for name in ("userId", "movieId"))
    R = sparse.csr_matrix((frame["rating"].to_numpy().astype(np.float32), (rows, columns)))
    done("read")
    model = import_module("implicit.als").AlternatingLeastSquares(
        K, iterations=EPOCHS, num_threads=threads, random_state=0
    )
    model.fit(R, show_progress=False)
    done("fit")
    found, _ = model.recommend(np.arange(users.size), R, N)
    done("lists")
    return Lists(users, items[found])


class Pipeline(NamedTuple):
    """A way from the file to lists, and the packages that it needs."""

    run: Callable[[Path, int, Callable[[str], None]], Lists]
    packages: tuple[str, ...]


PIPELINES = {
    "mfkernel": Pipeline(with_mfkernel, ("mfkernel",)),
    "implicit": Pipeline(with_implicit, ("polars", "implicit")),
}


def run_here(name: str, file: Path, test: Path, threads: int) -> dict[str, float]:
    """Run a pipeline in this process; compilation comes before, on a few lines."""
    small = file.with_name("few.csv")
    with file.open() as lines:
        small.write_text("".join(line for _, line in zip(range(3000), lines, strict=False)))
    PIPELINES[name].run(small, threads, lambda step: None)
    figures: dict[str, float] = {}
    held = probes.reset_peak()
    last = start = time.perf_counter()

    def done(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        figures[step], last = now - last, now

    lists = PIPELINES[name].run(file, threads, done)
    figures["seconds"] = time.perf_counter() - start
    if held is not None:
        figures["MiB"] = probes.peak() - held
    return figures | {"ndcg": ndcg(lists, test)}


def ndcg(lists: Lists, test: Path) -> float:
    """Return the mean NDCG of the lists for the held-out items of their users."""
    arrays = np.load(test)
    rows = np.searchsorted(lists.users, arrays["users"])
    hits = lists.items[rows] == arrays["items"][:, None]
    gains = (hits / np.log2(np.arange(N) + 2)).sum(axis=1)
    per_user, counts = np.bincount(rows, gains), np.bincount(rows)
    ideal = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(N) + 2))])[np.minimum(counts, N)]
    return float((per_user[counts > 0] / ideal[counts > 0]).mean())


def render(results: store.Results) -> str:
    """Return the table and its caption."""
    head = ["with", "read, s", "fit, s", "lists, s", "total, s", "MiB at the peak", f"NDCG@{N}"]
    rows = []
    for row in results["rows"]:
        medians = {x: statistics.median(run.get(x, 0.0) for run in row["runs"]) for x in row["runs"][0]}
        times = [f"{medians[x]:.3g}" for x in (*STEPS, "seconds")]
        rows.append([row["pipeline"], *times, f"{medians.get('MiB', 0):,.0f}", f"{medians['ndcg']:.4f}"])
    return (
        f"{markdown.table(head, rows)}\n\n"
        f"{results['lines']:,} generated lines in random order ({results['MB']:.0f} MB) of "
        f"{results['users']:,} users and {results['items']:,} items; {HELD_OUT} more clicks of each user are "
        f"held out. Implicit feedback, k = {K}, {EPOCHS} epochs, all else by default, {results['threads']} "
        f"threads; ten items for each user. Median of {results['repeats']} run"
        f"{'s' * (results['repeats'] > 1)}, after a first call on a few lines, which compiles. "
        f"{results['machine']}"
    )


def main() -> None:
    """Print the figures of one run, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables.pipeline", description=__doc__)
    parser.add_argument("name", choices=PIPELINES)
    parser.add_argument("file", type=Path, help="the clicks")
    parser.add_argument("test", type=Path, help="the held-out clicks")
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    print(json.dumps(run_here(options.name, options.file, options.test, options.threads)))


if __name__ == "__main__":
    main()
