"""Run many fits in parallel."""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.api import factorize
from mfkernel.data.ratings import Ratings
from mfkernel.data.reading import read_by_id, read_training
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import Task, ThreadEngine, interruptible
from mfkernel.evaluation.results import NDCG, RMSE, format_arguments
from mfkernel.methods import make_settings
from mfkernel.methods.baseline import bias_baseline
from mfkernel.metrics import ndcg_at_n
from mfkernel.typing import FitKeywords

Fold = tuple[Ratings, Ratings]

FIT_ERRORS = (ArithmeticError, ValueError, MemoryError)  # these do not stop the fits of other candidates
COMPILE_RATINGS = 64  # ratings of the fits that only compile
# arguments of a fit about ratings, which are read once for all fits; validation ratings also need some
READ_ONCE = (
    *("user", "item", "rating", "timestamp", "count", "nulls"),
    *("user_ids", "item_ids", "sample_weight"),
)
ABOUT_RATINGS = (*READ_ONCE, "missing", "duplicates", "dtype")
# settings whose values do not change the compiled code: kernels take them as numbers or not at all
UNCOMPILED_ARGUMENTS = (
    *("epochs", "learning_rate", "regularization", "bias_learning_rate", "bias_regularization"),
    *("huber_delta", "alpha", "unobserved_weight", "patience", "tol", "time_limit", "rng"),
)


def run_fits(
    R: Any,
    common: dict[str, Any],
    choices: list[dict[str, Any]],
    cv: Any,
    rng: Any,
    n_threads: int | None,
) -> tuple[NDArray[np.float64], str, str | None]:
    """Return training error, test error or NDCG, and seconds, (3, n_candidates, n_folds), and the metric.

    Also return the library of the frame that R was.

    A failed fit has nan. All candidates share the folds, which are made once. The fits run in parallel, the
    longest first.
    """
    candidates = [common | choice for choice in choices]
    for settings in candidates:
        for name in ("callback", "progress", "init", "checkpoint", "resume"):
            if settings.get(name) not in (None, False):
                raise ValueError(f"{name} must not be passed to several fits, got {settings[name]!r}")
        if "k" not in settings:
            raise TypeError("k must be given; pass k=…, or several in the grid")
        checks.integer("k", settings["k"], 1)
    implicit = [is_implicit(settings) for settings in candidates]
    if any(implicit) and not all(implicit):
        raise ValueError("method must be for known ratings, or for implicit feedback, in all fits, got both")
    # arguments about R are the same for all candidates, and R is read once
    given = {name: candidates[0][name] for name in ABOUT_RATINGS if name in candidates[0]}
    if any(settings.get(name) is not given.get(name) for settings in candidates for name in ABOUT_RATINGS):
        raise ValueError(
            f"{', '.join(ABOUT_RATINGS)} must be the same for all fits, got several; "
            "leave them out of the grid"
        )
    form: dict[str, Any] = {"dtype": np.float32, "needs_rating": not implicit[0], "copy": False} | given
    ratings = read_training(R, **form)
    generator = np.random.default_rng(rng)
    folds = _folds(ratings, cv, generator, needs_rating=not implicit[0])
    seeds = generator.integers(2**63, size=len(folds)).tolist()
    own = [{name: x for name, x in settings.items() if name not in READ_ONCE} for settings in candidates]
    figures = np.full((3, len(candidates), len(folds)), np.nan)
    errors: dict[tuple[int, int], Exception] = {}

    def fit(work: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        candidate, fold = work
        training, test = folds[fold]
        settings = {"rng": seeds[fold]} | own[candidate]
        try:
            start = time.perf_counter()
            model = factorize(training, **settings, n_threads=1, callback=lambda record: cancelled())
            seconds = time.perf_counter() - start
            quality = ndcg_at_n(model, test) if implicit[0] else model.rmse(test)
            figures[:, candidate, fold] = model.history[-1].rmse, quality, seconds
        except FIT_ERRORS as error:
            errors[work] = error

    largest_first = sorted(range(len(candidates)), key=lambda c: candidates[c]["k"])
    tasks = [Task((c, fold)) for c in largest_first for fold in range(len(folds))]  # the last is taken first
    threads = available_cores() if n_threads is None else checks.integer("n_threads", n_threads, 1)
    interruptible(lambda: _compile(folds[0][0], own))
    with ThreadEngine(threads) as engine:
        engine.run(fit, tasks)
    if len(errors) == len(tasks):
        raise errors[min(errors)]
    _warn_of(errors, choices)
    return figures, NDCG if implicit[0] else RMSE, ratings.origin.library


def is_implicit(settings: dict[str, Any]) -> bool:
    """Return whether a fit is for implicit feedback; the fit reports wrong arguments."""
    own = ("k", "method", *FitKeywords.__annotations__)
    options = {name: value for name, value in settings.items() if name not in own}
    try:
        return make_settings(settings.get("method", "sgd"), options, own).implicit
    except FIT_ERRORS:
        return False


class _CompiledError(Exception):
    """Raised to end a fit after all its kernels have run."""


def _compile(ratings: Ratings, candidates: list[dict[str, Any]]) -> None:
    """Compile the candidates' kernels on a few ratings, so that times exclude compilation.

    Arguments that no fit takes raise a ``TypeError`` here. The fits themselves report other failures.
    """
    # a full square, so that each row and column also has ratings that are not held out
    side = math.isqrt(min(COMPILE_RATINGS, ratings.nnz))
    (users, items), part = np.divmod(np.arange(side**2), side), slice(side**2)
    weights = None if ratings.weights is None else ratings.weights[part]
    few = Ratings((users, items, ratings.values[part]), dtype=ratings.dtype, sample_weight=weights)

    def stop(record: Any) -> None:
        raise _CompiledError

    done = set()
    for settings in candidates:
        compiled = {name: value for name, value in settings.items() if name not in UNCOMPILED_ARGUMENTS}
        if (key := repr(compiled)) in done:
            continue
        done.add(key)
        # a penalty, so that a few ratings suffice for any rank
        tried = settings | {"epochs": 2, "rng": 0, "n_threads": 1, "callback": stop}
        if settings.get("regularization") is not None:
            tried["regularization"] = 1.0
        try:
            if settings.get("validation") is not None:
                tried["validation"] = 0.1
                bias_baseline(few)
            factorize(few, **tried)
        except (_CompiledError, *FIT_ERRORS):
            pass


def _warn_of(errors: dict[tuple[int, int], Exception], choices: list[dict[str, Any]]) -> None:
    """Warn about each failed candidate, with its folds and its first error."""
    for candidate, group in itertools.groupby(sorted(errors), key=lambda work: work[0]):
        folds = [fold for _, fold in group]
        error = errors[candidate, folds[0]]
        where = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        warnings.warn(
            f"{format_arguments(choices[candidate])} failed on {where} and has nan there: "
            f"{type(error).__name__}: {error}",
            stacklevel=4,
        )


def _folds(ratings: Ratings, cv: Any, rng: np.random.Generator, *, needs_rating: bool = True) -> list[Fold]:
    """Split the ratings at random, each held out once; or return the given pairs."""
    if isinstance(cv, Iterable):
        pairs = list(cv)
        if len(pairs) == 2 and any(isinstance(pair, Ratings) for pair in pairs):
            raise TypeError("cv must be pairs of training and test ratings, got one; pass cv=[(train, test)]")
        if not pairs:
            raise ValueError("cv must have at least 1 pair of training and test ratings, got none")

        def read(part: Any) -> Ratings:
            return read_by_id(part, None, None, like=ratings.origin, needs_rating=needs_rating)

        return [(read(training), read(test)) for training, test in pairs]
    n_folds = checks.integer("cv", cv, 2)
    if ratings.nnz < n_folds:
        raise ValueError(f"R must have at least one rating per fold, got {ratings.nnz} for {n_folds} folds")
    fold = rng.permutation(ratings.nnz) % n_folds
    return [(ratings.select(fold != n), ratings.select(fold == n)) for n in range(n_folds)]
