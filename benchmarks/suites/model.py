"""Models: fits with options, questions to a model, new ratings, and searches for settings."""

import copy
from functools import cache, partial
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import data, probes
from benchmarks.suites.base import MIB, SECONDS, SIZES, Case, Suite, run_once

OPTIONS: dict[str, dict[str, Any]] = {
    "biases": {"biases": True},
    "biases and validation": {"biases": True, "validation": 0.1},
    "sample weights": {"biases": True},
    "l1": {"biases": True, "l1": 0.001},
    "nonnegative": {"nonnegative": True},
    "absolute loss": {"biases": True, "loss": "absolute"},
    "huber loss": {"biases": True, "loss": "huber"},
    "logistic loss": {"biases": True, "loss": "logistic"},
    "als": {"method": "als"},
    "als with biases": {"method": "als", "biases": True},
    "als, conjugate gradients": {"method": "als", "solver": "cg"},
    "implicit feedback": {"method": "implicit"},
    "bayesian": {"method": "bayesian", "epochs": 20},
}


def fit_option(option: str, train: mf.Ratings, k: int = 32, **settings: Any) -> mf.Factors:
    """Fit with one of ``OPTIONS``."""
    settings |= OPTIONS[option]
    if option == "sample weights":
        settings["sample_weight"] = np.linspace(0.5, 1.5, train.nnz)
    return mf.factorize(labels(option, train), k, rng=0, **settings)


def labels(option: str, R: mf.Ratings) -> mf.Ratings:
    """Return the ratings, or for the logistic loss whether each is high."""
    if option != "logistic loss":
        return R
    return mf.Ratings((R.users, R.items, (R.values > 3.5).astype(R.dtype), R.shape), dtype=R.dtype)


def fit_with(option: str, size: str) -> Case:
    """Build a fit with more than P and Q, or with another objective."""
    return run_once(partial(fit_option, option, data.generated(size)))


@cache
def _model(size: str) -> mf.Factors:
    """Return a model of rank 32 that has seen nine tenths of the ratings."""
    return mf.factorize(data.generated_split(size)[0], 32, biases=True, epochs=5, rng=0)


def prediction(call: str, size: str) -> Case:
    """Build a question to a model of rank 32."""
    train, test = data.generated_split(size)
    model = mf.factorize(train, 32, epochs=1, rng=0)
    calls: dict[str, Case] = {
        "pairs": lambda: model.predict(test.users, test.items),
        "rmse": lambda: model.rmse(test),
        "reconstruct": model.reconstruct,
    }
    return run_once(calls[call])


PREDICTIONS = ("pairs", "rmse", "reconstruct")


def question(call: str, size: str) -> Case:
    """Build a question to a model of rank 32 with biases, or an update by new ratings."""
    train, test = data.generated_split(size)
    model = _model(size)
    everyone, items = np.arange(train.n_users), np.arange(train.n_items)
    new_users = mf.Ratings((test.users, test.items, test.values, train.shape), dtype=train.dtype)
    one = {int(item): float(value) for item, value in zip(test.items[:20], test.values[:20], strict=True)}
    new = test.select(np.arange(test.nnz) % 10 == 0)
    user, item = int(test.users[0]), int(test.items[0])
    calls: dict[str, Case] = {
        "recommend": lambda: model.recommend(everyone, 10),
        "recommend to one": lambda: model.recommend(user, 10),
        "recommend to a new user": lambda: model.recommend(one, 10),
        "similar items": lambda: model.similar_items(items, 10),
        "explain": lambda: model.explain(user, item),
        "fold in": lambda: model.fold_in(new_users),
        "partial fit": lambda: copy.copy(model).partial_fit(new),
        "rankings": lambda: mf.metrics.ranking(model, test, 10),
    }
    return run_once(calls[call])


QUESTIONS = (
    *("recommend", "recommend to one", "recommend to a new user", "similar items", "explain"),
    *("fold in", "partial fit", "rankings"),
)


def search(kind: str) -> Case:
    """Build a search for settings."""
    R = data.generated("ml-100k-like")
    searches: dict[str, Case] = {
        "cross-validate": lambda: mf.cross_validate(R, k=32, biases=True, cv=5, rng=0),
        "select rank": lambda: mf.select_rank(R, [8, 32], cv=3, biases=True, rng=0),
    }
    return run_once(searches[kind])


SEARCHES = ("cross-validate", "select rank")


def memory(call: str, size: str) -> Case:
    """Build the peak of memory of a fit with an option, or a question, beyond the memory held before it."""
    if call in OPTIONS:
        run: Case = partial(fit_option, call, data.generated(size), epochs=probes.EPOCHS)
    else:
        run = question(call, size)
    return run_once(partial(probes.peak_of, run))


MEMORY = (
    *("biases", "biases and validation", "als", "implicit feedback", "bayesian"),
    *("recommend", "similar items", "fold in", "partial fit"),
)

SUITES = {
    "prediction": Suite(SECONDS, {"call": PREDICTIONS, "size": SIZES}, prediction),
    "question": Suite(SECONDS, {"call": QUESTIONS, "size": SIZES}, question),
    "search": Suite(SECONDS, {"what": SEARCHES}, search),
    "fit with": Suite(SECONDS, {"option": tuple(OPTIONS), "size": SIZES}, fit_with),
    "memory": Suite(MIB, {"call": MEMORY, "size": SIZES}, memory, version="3"),
}
