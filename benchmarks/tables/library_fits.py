"""A fit by each library, in a process of its own: ``python -m benchmarks.tables.library_fits``.

So threads are limited, and the peak of memory counts that fit alone. All libraries train on the same ratings
and predict the same others, unclipped.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
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
from benchmarks import probes, repository

Figures = dict[str, float]  # "seconds", "rmse", "ndcg" and "MiB" of a fit, as far as it has them
NDCG_CUTOFF = 100


@dataclass
class Fit:
    """A fit: training ratings, ratings to predict, and the figures that were measured."""

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


def mfkernel(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with this library."""
    return mfkernel_ranks(fit, **settings).by_position.predict(fit.test.users, fit.test.items)


def mfkernel_ranks(fit: Fit, **settings: Any) -> mf.Factors:
    """Fit with this library, to rank items."""
    with fit.clock():
        model = mf.factorize(fit.train, fit.k, rng=0, n_threads=fit.threads, **settings)
    return model  # noqa: RET504 (the clock stops first)


def libmf(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with libmf, which takes rows of user, item and rating."""
    model = import_module("libmf.mf").MF(k=fit.k, nr_threads=fit.threads, quiet=True, **settings)
    rows = np.column_stack([fit.train.users, fit.train.items, fit.train.values]).astype(np.float32)
    with fit.clock():
        model.fit(rows)
    # fit reads memory row by row, but predict column by column, whatever the strides say
    return np.asarray(model.predict(np.stack([fit.test.users, fit.test.items]).T))


def cornac(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with cornac, which takes triplets and the numbers of users' and items' names."""
    numbers = [{name: name for name in range(count)} for count in fit.train.shape]
    triplets = (fit.train.users.astype(np.int64), fit.train.items.astype(np.int64), fit.train.values)
    data = import_module("cornac.data").Dataset(*fit.train.shape, *numbers, triplets)
    model = import_module("cornac.models").MF(k=fit.k, num_threads=fit.threads, **settings)
    with fit.clock():
        model.fit(data)
    # it has no call for a list of pairs
    users, items = fit.test.users, fit.test.items
    products = (model.u_factors[users] * model.i_factors[items]).sum(axis=1)
    return np.asarray(products + model.global_mean + model.u_biases[users] + model.i_biases[items])


def surprise(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with Surprise, which takes a data frame and predicts one rating at a time."""
    library = import_module("surprise")
    data = library.Dataset.load_from_df(_frame(fit.train), library.Reader()).build_full_trainset()
    model = library.SVD(n_factors=fit.k, random_state=0, **settings)
    with fit.clock():
        model.fit(data)
    pairs = zip(fit.test.users.tolist(), fit.test.items.tolist(), strict=True)
    return np.array([model.predict(user, item, clip=False).est for user, item in pairs])


def kernel_mf(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with matrix-factorization, which takes a data frame."""
    model = import_module("matrix_factorization").KernelMF(n_factors=fit.k, verbose=0, **settings)
    frame = _frame(fit.train)
    with fit.clock():
        model.fit(frame, frame["rating"])
    return np.asarray(model.predict(_frame(fit.test), bound_ratings=False))


def cmfrec(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with cmfrec, which takes a COO matrix."""
    model = import_module("cmfrec").CMF(k=fit.k, nthreads=fit.threads, **settings)
    R = sparse.coo_matrix(fit.train.to_scipy())
    with fit.clock():
        model.fit(R)
    return np.asarray(model.predict(fit.test.users, fit.test.items))


def cmfrec_ranks(fit: Fit, **settings: Any) -> mf.Factors:
    """Fit implicit feedback with cmfrec."""
    model = import_module("cmfrec").CMF_implicit(k=fit.k, nthreads=fit.threads, **settings)
    R = sparse.coo_matrix(fit.train.to_scipy())
    with fit.clock():
        model.fit(R)
    return mf.Factors(model.A_, model.B_.T, ratings=fit.train)


def implicit(fit: Fit, **settings: Any) -> mf.Factors:
    """Fit with implicit, which takes a CSR matrix and predicts no ratings."""
    als = import_module("implicit.cpu.als").AlternatingLeastSquares
    model = als(factors=fit.k, num_threads=fit.threads, random_state=0, **settings)
    R = sparse.csr_matrix(fit.train.to_scipy())
    with fit.clock():
        model.fit(R, show_progress=False)
    return mf.Factors(model.user_factors, model.item_factors.T, ratings=fit.train)


def myfm(fit: Fit, **settings: Any) -> NDArray[Any]:
    """Fit with myfm, which takes a matrix with a column per user and per item."""
    model = import_module("myfm").MyFMRegressor(rank=fit.k, random_seed=0)
    with fit.clock():
        model.fit(_indicators(fit.train), fit.train.values, group_shapes=list(fit.train.shape), **settings)
    return np.asarray(model.predict(_indicators(fit.test)))


def _indicators(R: mf.Ratings) -> sparse.csr_matrix:
    """Return a row per rating, with a one in the column of its user and a one in that of its item."""
    columns = np.stack([R.users.astype(np.int64), R.n_users + R.items.astype(np.int64)], axis=1).ravel()
    rows, ones = np.arange(R.nnz + 1) * 2, np.ones(columns.size)
    return sparse.csr_matrix((ones, columns, rows), (R.nnz, sum(R.shape)))


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
_SAMPLED = "Gibbs sampling, with biases"

PEERS = {
    "blocks": Peer("mfkernel", mfkernel, "SGD", {"schedule": "blocks"}),
    "hogwild": Peer("mfkernel", mfkernel, "SGD", {"schedule": "hogwild"}),
    "biases": Peer("mfkernel", mfkernel, _BIASED, {"biases": True}),
    "als": Peer("mfkernel", mfkernel, "ALS", {"method": "als"}),
    "als with biases": Peer("mfkernel", mfkernel, "ALS, with biases", {"method": "als", "biases": True}),
    "bayesian": Peer("mfkernel", mfkernel, _SAMPLED, {"method": "bayesian"}),
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
    "myfm": Peer("myfm", myfm, _SAMPLED, {"n_iter": 100}, False),
    "implicit": Peer("implicit", implicit, _RANKS, {"iterations": 15}),
    "implicit, Cholesky": Peer("implicit", implicit, _RANKS, {"iterations": 15, "use_cg": False}),
}


def fit_in_new_process(name: str, split: Path, k: int, threads: int) -> Figures:
    """Fit in a process of its own."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    # those who call BLAS call it from threads of their own
    limits |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.tables.library_fits", name, str(split), str(k), str(threads)]
    environment = os.environ | limits
    child = subprocess.run(command, cwd=repository.ROOT, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError((child.stderr.strip() or f"exit status {child.returncode}").splitlines()[-1])
    # a library may also print something
    figures: Figures = json.loads(next(line for line in child.stdout.splitlines() if line.startswith("{")))
    return figures


def fit_here(peer: Peer, split: Path, k: int, threads: int) -> Figures:
    """Fit in this process, after a small fit that compiles."""
    small = mf.datasets.synthetic(300, 200, 10_000)
    peer.fit(Fit(small, small, k, threads), **peer.settings)
    train, test = pickle.loads(split.read_bytes())
    fit = Fit(train, test, k, threads)
    found = peer.fit(fit, **peer.settings)
    if isinstance(found, mf.Factors):
        fit.figures["ndcg"] = mf.metrics.ndcg_at_n(found, test, NDCG_CUTOFF)
    else:
        fit.figures["rmse"] = rmse(train, test, found)
    return fit.figures


def rmse(train: mf.Ratings, test: mf.Ratings, predictions: NDArray[Any]) -> float:
    """Return the test RMSE, with the mean for what a library knows nothing about."""
    known = (train.user_counts()[test.users] > 0) & (train.item_counts()[test.items] > 0)
    errors = np.where(known, predictions.astype(np.float64), train.mean) - test.values
    return float(np.sqrt(np.mean(errors**2)))


def _frame(R: mf.Ratings) -> Any:
    # ids as floats: matrix-factorization writes nan for unknown ones, which an integer column refuses
    ids = {"user_id": R.users.astype(np.float64), "item_id": R.items.astype(np.float64)}
    return import_module("pandas").DataFrame({**ids, "rating": R.values})


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    if package == mf.__name__:
        return mf.__version__  # may run from its folder, not installed
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Print the figures of one fit, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables.library_fits", description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("split", type=Path, help="a pickled pair: training and test ratings")
    parser.add_argument("k", type=int)
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    print(json.dumps(fit_here(PEERS[options.name], options.split, options.k, options.threads)))


if __name__ == "__main__":
    main()
