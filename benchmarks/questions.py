"""Builders of cases that make a model with options, ask it, let it learn on, or search for settings."""

import copy
from functools import cache, partial
from typing import Any

import numpy as np

import mfkernel as mf
from benchmarks import probes
from benchmarks.generated import Case, ratings, split, warm

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
}


def _fit(option: str, train: mf.Ratings, k: int = 32, **settings: Any) -> mf.Factors:
    settings |= OPTIONS[option]
    if option == "sample weights":
        settings["sample_weight"] = np.linspace(0.5, 1.5, train.nnz)
    return mf.factorize(_labels(option, train), k, rng=0, **settings)


def _labels(option: str, R: mf.Ratings) -> mf.Ratings:
    """Return the ratings, or for the logistic loss whether each is high."""
    if option != "logistic loss":
        return R
    return mf.Ratings((R.users, R.items, (R.values > 3.5).astype(R.dtype), R.shape), dtype=R.dtype)


def fit_with(option: str, size: str) -> Case:
    """Build a fit with something besides P and Q, or another objective."""
    return warm(partial(_fit, option, ratings(size)))


def error_with(option: str, size: str, k: str) -> Case:
    """Build the held-out RMSE of such a fit."""
    train, test = split(size)
    return lambda: _fit(option, train, int(k)).rmse(_labels(option, test))


def has_error(option: str, size: str, k: str) -> bool:
    """Whether there is such a case: other ranks of fits with biases alone."""
    return option != "implicit feedback" and (k == "32" or option == "biases")


@cache
def _model(size: str) -> mf.Factors:
    """Return a model of rank 32 that has seen nine tenths of the ratings."""
    return mf.factorize(split(size)[0], 32, biases=True, epochs=5, rng=0)


def prediction(call: str, size: str) -> Case:
    """Build a question to a model of rank 32."""
    train, test = split(size)
    model = mf.factorize(train, 32, epochs=1, rng=0)
    calls: dict[str, Case] = {
        "pairs": lambda: model.predict(test.users, test.items),
        "rmse": lambda: model.rmse(test),
        "reconstruct": model.reconstruct,
    }
    return warm(calls[call])


PREDICTION = ("pairs", "rmse", "reconstruct")


def question(call: str, size: str) -> Case:
    """Build a question to a model of rank 32 with biases, or the learning of new ratings."""
    train, test = split(size)
    model = _model(size)
    everyone, items = np.arange(train.n_users), np.arange(train.n_items)
    strangers = mf.Ratings((test.users, test.items, test.values, train.shape), dtype=train.dtype)
    one = {int(item): float(value) for item, value in zip(test.items[:20], test.values[:20], strict=True)}
    new = test.select(np.arange(test.nnz) % 10 == 0)
    user, item = int(test.users[0]), int(test.items[0])
    calls: dict[str, Case] = {
        "recommend": lambda: model.recommend(everyone, 10),
        "recommend to one": lambda: model.recommend(user, 10),
        "recommend to a new user": lambda: model.recommend(one, 10),
        "similar items": lambda: model.similar_items(items, 10),
        "explain": lambda: model.explain(user, item),
        "fold in": lambda: model.fold_in(strangers),
        "partial fit": lambda: copy.copy(model).partial_fit(new),
        "rankings": lambda: mf.metrics.ranking(model, test, 10),
    }
    return warm(calls[call])


QUESTIONS = (
    *("recommend", "recommend to one", "recommend to a new user", "similar items", "explain"),
    *("fold in", "partial fit", "rankings"),
)


def search(what: str) -> Case:
    """Build a search for settings."""
    R = ratings("ml-100k-like")
    searches: dict[str, Case] = {
        "cross-validate": lambda: mf.cross_validate(R, k=32, biases=True, cv=5, rng=0),
        "select rank": lambda: mf.select_rank(R, [8, 32], cv=3, biases=True, rng=0),
    }
    return warm(searches[what])


SEARCHES = ("cross-validate", "select rank")


def memory(call: str, size: str) -> Case:
    """Build the peak of memory of a fit with an option, or a question, beyond what is held before it."""
    if call in OPTIONS:
        run: Case = partial(_fit, call, ratings(size), epochs=probes.EPOCHS)
    else:
        run = question(call, size)
    return warm(partial(probes.peak_of, run))


MEMORY = (
    *("biases", "biases and validation", "als", "implicit feedback"),
    *("recommend", "similar items", "fold in", "partial fit"),
)


def ranking_score(score: str, size: str) -> Case:
    """Build how well a fit with biases, or of implicit feedback, finds held-out items for each user."""
    train, test = split(size)
    name, settings, n = SCORES[score]

    def figure() -> float:
        return mf.metrics.ranking(mf.factorize(train, 32, rng=0, **settings), test, n)[name]

    return figure


SCORES: dict[str, tuple[str, dict[str, Any], int]] = {
    "ndcg": ("ndcg", {"biases": True}, 10),
    "auc": ("auc", {"biases": True}, 10),
    "implicit, recall of 20": ("recall", {"method": "implicit"}, 20),
    "implicit, ndcg of 100": ("ndcg", {"method": "implicit"}, 100),
}
