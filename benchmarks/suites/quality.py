"""Quality: errors and ranking scores of held-out ratings, so that a faster but worse fit shows."""

from functools import partial
from typing import Any

import mfkernel as mf
from benchmarks import data
from benchmarks.suites.base import EPOCHS, RANKS, RMSE, SCHEDULES, SCORE, SIZES, Case, Suite
from benchmarks.suites.model import OPTIONS, fit_option, labels

FIXED_RMSE = {"ml-100k-like": 0.91, "ml-1m-like": 0.86}  # held out; all reach it, after several epochs
SCORES: dict[str, tuple[str, dict[str, Any], int]] = {
    "ndcg": ("ndcg", {"biases": True}, 10),
    "auc": ("auc", {"biases": True}, 10),
    "implicit, recall of 20": ("recall", {"method": "implicit"}, 20),
    "implicit, ndcg of 100": ("ndcg", {"method": "implicit"}, 100),
}


def held_out_rmse(size: str, k: int, schedule: str, **settings: Any) -> float:
    """Return the test RMSE of the plain call, a tenth of the ratings held out."""
    train, test = data.generated_split(size)
    settings |= {"schedule": schedule, "n_threads": 2 if schedule == "hogwild" else None}
    return mf.factorize(train, k, rng=0, **settings).rmse(test)


def error(schedule: str, size: str, k: str) -> Case:
    """Build the held-out RMSE after the default number of epochs."""
    return partial(held_out_rmse, size, int(k), schedule)


def error_after(epochs: str, size: str, k: str) -> Case:
    """Build the held-out RMSE after a given number of epochs."""
    return partial(held_out_rmse, size, int(k), "blocks", epochs=int(epochs))


def epochs_needed(schedule: str, size: str) -> Case:
    """Build the smallest number of epochs that reaches a fixed held-out RMSE at rank 32."""

    def figure() -> int:
        reached = (n for n in range(1, 61) if held_out_rmse(size, 32, schedule, epochs=n) <= FIXED_RMSE[size])
        return next(reached)

    return figure


def error_with(option: str, size: str, k: str) -> Case:
    """Build the held-out RMSE of a fit with an option."""
    train, test = data.generated_split(size)
    return lambda: fit_option(option, train, int(k)).rmse(labels(option, test))


def has_error(option: str, size: str, k: str) -> bool:
    """Whether a case of ``error_with`` exists: ranks other than 32 are for fits with biases alone."""
    return option != "implicit feedback" and (k == "32" or option == "biases")


def ranking_score(score: str, size: str) -> Case:
    """Build the score of held-out items of each user, for a fit with biases or of implicit feedback."""
    train, test = data.generated_split(size)
    name, settings, n = SCORES[score]

    def figure() -> float:
        return mf.metrics.ranking(mf.factorize(train, 32, rng=0, **settings), test, n)[name]

    return figure


SUITES = {
    "error": Suite(RMSE, {"schedule": SCHEDULES, "size": SIZES, "k": RANKS}, error),
    "error after epochs": Suite(RMSE, {"epochs": ("1", "5", "15"), "size": SIZES, "k": RANKS}, error_after),
    "error with": Suite(RMSE, {"option": tuple(OPTIONS), "size": SIZES, "k": RANKS}, error_with, has_error),
    "ranking score": Suite(SCORE, {"score": tuple(SCORES), "size": SIZES}, ranking_score),
    "epochs needed": Suite(EPOCHS, {"schedule": SCHEDULES, "size": SIZES}, epochs_needed),
}
