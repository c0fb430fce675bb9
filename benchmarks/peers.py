"""Compare with other libraries: ``python -m benchmarks.peers [--data FOLDER] [--set NAME] [--store]``.

All learn from the same ratings and predict the same others, unclipped; each repetition is of another split.
Every fit has a process of its own, so that threads are limited and the peak of memory counts it alone.
As in ``compare``, they alternate.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import mfkernel as mf
from benchmarks import compare, probes, real, results
from benchmarks.progress import show

Split = tuple[mf.Ratings, mf.Ratings]
Figures = dict[str, float]  # "seconds", "rmse", "ndcg" and "MiB" of a fit, as far as it has them
PLACES = 100  # of a ranking that count

REAL = ("ML-1M", "ML-100K")
GENERATED = {
    "generated 100K": (943, 1682, 100_000),
    "generated 1M": (7000, 1000, 1_000_000),
    "generated 10M": (70_000, 10_000, 10_000_000),
}


@dataclass
class Case:
    """A fit: what it learns from, what it is to predict, and what it took."""

    train: mf.Ratings
    test: mf.Ratings
    k: int
    threads: int
    figures: Figures = field(default_factory=dict)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Measure the seconds, and the peak of memory above what is held at the start."""
        held = probes.reset_peak()
        start = time.perf_counter()
        yield
        self.figures["seconds"] = time.perf_counter() - start
        if held is not None:
            self.figures["MiB"] = probes.peak() - held


def mfkernel(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with this library."""
    return mfkernel_ranks(case, **settings).predict(case.test.users, case.test.items)


def mfkernel_ranks(case: Case, **settings: Any) -> mf.Factors:
    """Fit with this library, to rank items."""
    with case.clock():
        model = mf.factorize(case.train, case.k, rng=0, n_threads=case.threads, **settings)
    return model  # noqa: RET504 (the clock stops first)


def libmf(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with libmf, which takes rows of user, item and rating."""
    model = import_module("libmf.mf").MF(k=case.k, nr_threads=case.threads, quiet=True, **settings)
    rows = np.column_stack([case.train.users, case.train.items, case.train.values]).astype(np.float32)
    with case.clock():
        model.fit(rows)
    # fit reads memory row by row, but predict column by column, whatever the strides say
    return np.asarray(model.predict(np.stack([case.test.users, case.test.items]).T))


def cornac(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with cornac, which takes triplets and the numbers of users' and items' names."""
    numbers = [{name: name for name in range(count)} for count in case.train.shape]
    triplets = (case.train.users.astype(np.int64), case.train.items.astype(np.int64), case.train.values)
    data = import_module("cornac.data").Dataset(*case.train.shape, *numbers, triplets)
    model = import_module("cornac.models").MF(k=case.k, num_threads=case.threads, **settings)
    with case.clock():
        model.fit(data)
    # it has no call for a list of pairs
    users, items = case.test.users, case.test.items
    products = (model.u_factors[users] * model.i_factors[items]).sum(axis=1)
    return np.asarray(products + model.global_mean + model.u_biases[users] + model.i_biases[items])


def surprise(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with Surprise, which takes a data frame and predicts one rating at a time."""
    library = import_module("surprise")
    data = library.Dataset.load_from_df(_frame(case.train), library.Reader()).build_full_trainset()
    model = library.SVD(n_factors=case.k, random_state=0, **settings)
    with case.clock():
        model.fit(data)
    pairs = zip(case.test.users.tolist(), case.test.items.tolist(), strict=True)
    return np.array([model.predict(user, item, clip=False).est for user, item in pairs])


def kernel_mf(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with matrix-factorization, which takes a data frame."""
    model = import_module("matrix_factorization").KernelMF(n_factors=case.k, verbose=0, **settings)
    frame = _frame(case.train)
    with case.clock():
        model.fit(frame, frame["rating"])
    return np.asarray(model.predict(_frame(case.test), bound_ratings=False))


def cmfrec(case: Case, **settings: Any) -> NDArray[Any]:
    """Fit with cmfrec, which takes a COO matrix."""
    model = import_module("cmfrec").CMF(k=case.k, nthreads=case.threads, **settings)
    R = sparse.coo_matrix(case.train.to_scipy())
    with case.clock():
        model.fit(R)
    return np.asarray(model.predict(case.test.users, case.test.items))


def cmfrec_ranks(case: Case, **settings: Any) -> mf.Factors:
    """Fit implicit feedback with cmfrec."""
    model = import_module("cmfrec").CMF_implicit(k=case.k, nthreads=case.threads, **settings)
    R = sparse.coo_matrix(case.train.to_scipy())
    with case.clock():
        model.fit(R)
    return mf.Factors(model.A_, model.B_.T, ratings=case.train)


def implicit(case: Case, **settings: Any) -> mf.Factors:
    """Fit with implicit, which takes a CSR matrix and predicts no ratings."""
    als = import_module("implicit.cpu.als").AlternatingLeastSquares
    model = als(factors=case.k, num_threads=case.threads, random_state=0, **settings)
    R = sparse.csr_matrix(case.train.to_scipy())
    with case.clock():
        model.fit(R, show_progress=False)
    return mf.Factors(model.user_factors, model.item_factors.T, ratings=case.train)


class Peer(NamedTuple):
    """A row of the table."""

    package: str
    fit: Callable[..., NDArray[Any] | mf.Factors]
    method: str
    settings: dict[str, Any]
    threaded: bool = True


# libmf's default is L1, which takes longer and predicts worse; this is L2 by as much
_L2 = {"lambda_p1": 0, "lambda_q1": 0, "lambda_p2": 0.04, "lambda_q2": 0.04}
# matrix-factorization's default is 100 epochs at λ = 1; this is its documentation's example
_EXAMPLE = {"n_epochs": 20, "lr": 0.001, "reg": 0.005}
# as cmfrec's documentation advises for MovieLens, and for speed
_SCALED = {"lambda_": 0.05, "scale_lam": True}
_FAST = {"finalize_chol": False, "precompute_for_predictions": False}
_UNBIASED = {"user_bias": False, "item_bias": False}
_BIASED = "SGD, with biases"
_RANKS = "ALS, ranks items"

PEERS = {
    "blocks": Peer("mfkernel", mfkernel, "SGD", {"schedule": "blocks"}),
    "hogwild": Peer("mfkernel", mfkernel, "SGD", {"schedule": "hogwild"}),
    "biases": Peer("mfkernel", mfkernel, _BIASED, {"biases": True}),
    "als": Peer("mfkernel", mfkernel, "ALS", {"method": "als"}),
    "als with biases": Peer("mfkernel", mfkernel, "ALS, with biases", {"method": "als", "biases": True}),
    "implicit feedback": Peer("mfkernel", mfkernel_ranks, _RANKS, {"method": "implicit"}),
    "libmf": Peer("libmf", libmf, "SGD", {"nr_iters": 20, **_L2}),
    "cornac": Peer("cornac", cornac, "SGD", {"max_iter": 20, "use_bias": False}),
    "cornac with biases": Peer("cornac", cornac, _BIASED, {"max_iter": 20, "use_bias": True}),
    "surprise": Peer("scikit-surprise", surprise, "SGD", {"n_epochs": 20, "biased": False}, False),
    "surprise with biases": Peer("scikit-surprise", surprise, _BIASED, {"n_epochs": 20}, False),
    "KernelMF": Peer("matrix-factorization", kernel_mf, _BIASED, _EXAMPLE, False),
    "cmfrec": Peer("cmfrec", cmfrec, "ALS", {"niter": 10, **_SCALED, **_UNBIASED, **_FAST}),
    "cmfrec with biases": Peer("cmfrec", cmfrec, "ALS, with biases", {"niter": 10, **_SCALED, **_FAST}),
    "cmfrec, implicit": Peer("cmfrec", cmfrec_ranks, _RANKS, {"niter": 15, **_FAST}),
    "implicit": Peer("implicit", implicit, _RANKS, {"iterations": 15}),
    "implicit, Cholesky": Peer("implicit", implicit, _RANKS, {"iterations": 15, "use_cg": False}),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    real.add_data(parser)
    parser.add_argument(
        "--set", action="append", choices=[*real.FILES, *GENERATED], help="may be given repeatedly"
    )
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="splits")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--store", action="store_true", help="keep the results, for benchmarks.report")
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)  # what a child process fits
    parser.add_argument("--split", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(fit_here(PEERS[options.one], options.split, options.k, options.threads)))
        return
    names = options.set or [*(REAL if options.data else []), "generated 1M"]
    real.check(parser, options.data, names, *(real.FOLDS if "ML-100K" in names else ()))
    rows = [measure(name, options) for name in names]
    settings = {"k": options.k, "threads": sorted({1, options.threads}), "repeats": options.repeats}
    command = f"python -m benchmarks.peers --data FOLDER --set {' --set '.join(names)} --store"
    stored = results.described(command, rows, **settings)
    print(table(stored))
    if options.store:
        results.store("peers", stored)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fit a set with each library."""
    splits, says = splits_of(name, options.data)
    counts = sorted({1, options.threads})
    fits, notes = fit_in_turns(splits, options.k, counts, options.repeats)
    train, test = splits(0)
    peers = [
        {
            "library": f"{PEERS[peer].package} {_version(PEERS[peer].package)}",
            "method": PEERS[peer].method,
            "settings": ", ".join(f"{key}={value!r}" for key, value in PEERS[peer].settings.items()),
            "fits": {str(count): figures for count, figures in by_threads.items()},
        }
        for peer, by_threads in fits.items()
    ]
    about = {"set": name, "train": train.nnz, "test": test.nnz, "splits": says}
    return about | {"peers": peers, "notes": notes}


def splits_of(name: str, data: Path | None) -> tuple[Callable[[int], Split], str]:
    """Return what makes the n-th split of a set, and what it says of them."""
    if name == "ML-100K":
        return lambda n: compare.ml_100k_fold(data or Path(), n % 5), "its folds u1, u2, …"
    R = real.read(name, data or Path()) if name in real.FILES else mf.datasets.synthetic(*GENERATED[name])
    return lambda n: mf.train_test_split(R, 0.1, rng=n), "90/10, seeds 0, 1, …"


def table(stored: results.Stored) -> str:
    """Return a table for each set, what is missing in it, and what the columns say."""
    counts = [str(count) for count in stored["threads"]]
    seconds = (f"seconds, {count} thread{'s' * (count != '1')}" for count in counts)
    head = ["library", "settings", *seconds, "test RMSE", f"NDCG@{PLACES}", "MiB"]
    texts = []
    for row in stored["rows"]:
        rows = []
        for peer in row["peers"]:
            fits = peer["fits"]
            most = fits[max(fits, key=int)]
            timed = (_median(fits.get(count, []), "seconds", ".3g") for count in counts)
            cells = (*timed, _mean(most, "rmse"), _mean(most, "ndcg"), _median(most, "MiB", ".0f"))
            rows.append([peer["library"], f"{peer['method']}: `{peer['settings']}`", *cells])
        split = f"{row['train']:,} ratings to learn from, {row['test']:,} to predict, {row['splits']}"
        texts += [f"{row['set']}: {split}; k = {stored['k']}.", results.table(head, rows), *row["notes"]]
    texts.append(
        f"Seconds of the library's fit call, the median of {stored['repeats']} splits; building the data "
        "structure it takes is not counted, nor compilation. RMSE of unclipped predictions, or NDCG of how "
        "the held-out items rank among all that the user has not rated, mean ± standard deviation over the "
        "splits, and MiB of memory that the fit adds at its peak, all on several threads "
        "where the library has them. Other settings are the library's defaults. Users and items without "
        "training ratings are predicted by the mean. "
        f"{stored['machine']}"
    )
    return "\n\n".join(texts)


# the labelled points of the picture: text, offset in points and alignment, by library, method and settings
LABELS: dict[tuple[str, str, str], tuple[str, tuple[float, float], str]] = {
    ("mfkernel", "SGD", "schedule='blocks'"): ("mfkernel", (0, 14), "center"),
    ("mfkernel", "SGD, with biases", "biases=True"): ("mfkernel, biases", (0, -26), "center"),
    ("mfkernel", "ALS", "method='als'"): ("mfkernel ALS", (16, -8), "left"),
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
    ): ("cmfrec ALS", (0, 12), "center"),
    ("scikit-surprise", "SGD, with biases", "n_epochs=20"): ("Surprise, biases", (10, -4), "left"),
    ("matrix-factorization", "SGD, with biases", "n_epochs=20, lr=0.001, reg=0.005"): (
        *("matrix-factorization", (0, -22)),
        "right",
    ),
}
SUMMARIZED = (  # rows of README's table, by library and method
    *(("mfkernel", "SGD, with biases"), ("mfkernel", "ALS"), ("mfkernel", "ALS, ranks items")),
    *(("cornac", "SGD, with biases"), ("cmfrec", "ALS"), ("implicit", "ALS, ranks items")),
)


def is_ours(peer: dict[str, Any]) -> bool:
    """Whether a stored row is of this library."""
    return bool(peer["library"].startswith("mfkernel"))


def measured(peer: dict[str, Any]) -> list[dict[str, float]]:
    """Return the fits of a stored row on one thread, or none if they have no error."""
    fits: list[dict[str, float]] = peer["fits"]["1"]
    return fits if all("rmse" in fit for fit in fits) else []


def summary(stored: results.Stored) -> str:
    """Return README's table: this library's methods and the best of the others, on the first set."""
    row, rows = stored["rows"][0], []
    for library, method in SUMMARIZED:
        peer = next(x for x in row["peers"] if x["library"].split()[0] == library and x["method"] == method)
        fits = peer["fits"]["2"]
        cells = (_median(fits, "seconds", ".3g"), _mean(fits, "rmse"), _mean(fits, "ndcg"))
        rows.append([peer["library"], peer["method"].replace(", ranks items", ", implicit feedback"), *cells])
    return (
        f"{results.table(['library', 'method', 'seconds', 'test RMSE', f'NDCG@{PLACES}'], rows)}\n\n"
        f"{row['set']}, k = {stored['k']}, 2 threads, {row['splits']}. {stored['machine']}"
    )


def fit_in_turns(
    splits: Callable[[int], Split], k: int, counts: list[int], repeats: int
) -> tuple[dict[str, dict[int, list[Figures]]], list[str]]:
    """Return the figures of all fits by library and threads, and notes on those that there are not."""
    fits: dict[str, dict[int, list[Figures]]] = {
        name: {count: [] for count in counts if peer.threaded or count == 1}
        for name, peer in PEERS.items()
        if _version(peer.package)
    }
    missing = [peer.package for name, peer in PEERS.items() if name not in fits]
    notes = [f"Not installed: {', '.join(missing)}."] if missing else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.pickle"
        for repeat in range(repeats):
            path.write_bytes(pickle.dumps(splits(repeat)))
            for name, count in [(peer, count) for peer in fits for count in fits[peer]]:
                show(f"split {repeat + 1} of {repeats}: {name}, {count} thread{'s' * (count > 1)}")
                try:
                    fits[name][count].append(fit_apart(name, path, k, count))
                except RuntimeError as error:
                    notes.append(f"{name} failed on {count} thread{'s' * (count > 1)}: {error}")
    show("")
    return fits, list(dict.fromkeys(notes))


def fit_apart(name: str, split: Path, k: int, threads: int) -> Figures:
    """Fit in a process of its own."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    # those who call BLAS call it from threads of their own
    limits |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    arguments = ("--one", name, "--split", str(split), "--k", str(k), "--threads", str(threads))
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    child = subprocess.run(command, cwd=results.ROOT, env=os.environ | limits, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError((child.stderr.strip() or f"exit status {child.returncode}").splitlines()[-1])
    # a library may also print something
    figures: Figures = json.loads(next(line for line in child.stdout.splitlines() if line.startswith("{")))
    return figures


def fit_here(peer: Peer, split: Path, k: int, threads: int) -> Figures:
    """Fit in this process, after a small fit that compiles."""
    small = mf.datasets.synthetic(300, 200, 10_000)
    peer.fit(Case(small, small, k, threads), **peer.settings)
    train, test = pickle.loads(split.read_bytes())
    case = Case(train, test, k, threads)
    found = peer.fit(case, **peer.settings)
    if isinstance(found, mf.Factors):
        case.figures["ndcg"] = mf.metrics.ndcg_at_n(found, test, PLACES)
    else:
        case.figures["rmse"] = rmse(train, test, found)
    return case.figures


def rmse(train: mf.Ratings, test: mf.Ratings, predictions: NDArray[Any]) -> float:
    """Return the test RMSE, with the mean for what a library knows nothing about."""
    known = (train.user_counts()[test.users] > 0) & (train.item_counts()[test.items] > 0)
    errors = np.where(known, predictions.astype(np.float64), train.mean) - test.values
    return float(np.sqrt(np.mean(errors**2)))


def _frame(R: mf.Ratings) -> Any:
    # ids as floats: matrix-factorization writes nan for unknown ones, which an integer column refuses
    ids = {"user_id": R.users.astype(np.float64), "item_id": R.items.astype(np.float64)}
    return import_module("pandas").DataFrame({**ids, "rating": R.values})


def _median(fits: list[Figures], figure: str, form: str) -> str:
    values = [fit[figure] for fit in fits if figure in fit]
    return format(statistics.median(values), form) if values else "–"


def _mean(fits: list[Figures], figure: str) -> str:
    values = [fit[figure] for fit in fits if figure in fit]
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else "–"


def _version(package: str) -> str | None:
    if package == mf.__name__:
        return mf.__version__  # may run from its folder, not installed
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
