"""Which ratings to learn from, which to test with, and which settings predict the latter best."""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.lazy import optional
from mfkernel.api import factorize
from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import Task, ThreadEngine, interruptible
from mfkernel.methods import make_settings
from mfkernel.methods.baseline import bias_baseline
from mfkernel.typing import FitKeywords

Fold = tuple[Ratings, Ratings]

FAILURES = (ArithmeticError, ValueError, MemoryError)  # of a fit, which leave other candidates their chance
FEW = 64  # ratings, for fits that only compile
# settings that are numbers to the kernels, or none of their business: they are compiled once for all values
NUMBERS = (
    *("epochs", "learning_rate", "regularization", "bias_learning_rate", "bias_regularization"),
    *("huber_delta", "alpha", "unobserved_weight", "patience", "tol", "time_limit", "rng"),
)


@checks.explains_names
def train_test_split(
    R: Any, test: float = 0.1, *, rng: Any = None, missing: str = "zero", duplicates: str = "raise"
) -> tuple[Ratings, Ratings]:
    """Hold out a random share of the ratings.

    Parameters
    ----------
    R
        Anything that :class:`Ratings` takes.
    test
        Share to hold out, between 0 and 1; at least one rating is held out and one is kept.
    rng
        As for ``np.random.default_rng``.
    missing, duplicates
        As for :class:`Ratings`.

    Returns
    -------
    tuple of Ratings
        Training and test ratings, both of R's shape and with its ids.

    Raises
    ------
    ValueError
        If there are fewer than two ratings, or ``test`` is not between 0 and 1.

    Examples
    --------
    >>> train_test_split([[5, 3], [4, 1]], 0.25, rng=0)
    (Ratings(2 users × 2 items, 3 ratings, float64), Ratings(2 users × 2 items, 1 ratings, float64))
    """
    share = checks.real("test", test, positive=True)
    if share >= 1:
        raise ValueError(f"test must be between 0 and 1, got {share}")
    ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
    if ratings.nnz < 2:
        raise ValueError(f"R has {ratings.nnz} ratings; to split them takes two")
    count = min(max(1, round(share * ratings.nnz)), ratings.nnz - 1)
    return ratings.hold_out(count, np.random.default_rng(rng))


class CrossValidation(NamedTuple):
    """Errors and seconds of fits on several folds; nan for a fold that could not be fitted.

    Attributes
    ----------
    train_rmse
        (n_folds,) root mean square of the residuals as the last epoch met them.
    test_rmse
        (n_folds,) root mean square error of the predictions for the fold's held-out ratings.
    seconds
        (n_folds,) of each fit, without compilation.
    """

    train_rmse: NDArray[np.float64]
    test_rmse: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame`` with a row for each fold (extra ``frame``)."""
        frame = optional("pandas", "frame", "to_frame").DataFrame(self._asdict())
        frame.index.name = "fold"
        return frame.reset_index()


class Search:
    """Errors and seconds of fits with several settings, each on several folds.

    A fit that failed has nan for all figures. A candidate of which a fit failed has no mean, and is never the
    best.

    Attributes
    ----------
    settings
        One dict of what was passed to ``factorize`` for each candidate.
    train_rmse, test_rmse
        (n_candidates, n_folds) root mean square error: of the residuals as the last epoch met them, and of
        the predictions for the fold's held-out ratings.
    seconds
        (n_candidates, n_folds) of each fit, without compilation.
    """

    def __init__(self, settings: Sequence[dict[str, Any]], figures: NDArray[np.float64]) -> None:
        self.settings = list(settings)
        self.train_rmse, self.test_rmse, self.seconds = figures

    @property
    def mean(self) -> NDArray[np.float64]:
        """(n_candidates,) mean test RMSE over the folds; nan for a candidate of which a fit failed."""
        result: NDArray[np.float64] = self.test_rmse.mean(axis=1)
        return result

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """(n_candidates,) standard error of that mean."""
        n_folds = self.test_rmse.shape[1]
        result: NDArray[np.float64] = self.test_rmse.std(axis=1, ddof=1) / np.sqrt(n_folds)
        return result

    @property
    def best(self) -> dict[str, Any]:
        """The settings with the lowest mean test RMSE.

        Raises
        ------
        ValueError
            If no candidate could be fitted on all folds.
        """
        return self.settings[self._best]

    @property
    def _best(self) -> int:
        mean = self.mean
        if np.isnan(mean).all():
            raise ValueError("no candidate could be fitted on all folds, so that none is the best")
        return int(np.nanargmin(mean))

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame``, a row a fit: its settings, fold and figures (extra ``frame``)."""
        pandas = optional("pandas", "frame", "to_frame")
        rows = [
            settings
            | {
                "fold": fold,
                "train_rmse": self.train_rmse[c, fold],
                "test_rmse": self.test_rmse[c, fold],
                "seconds": self.seconds[c, fold],
            }
            for c, settings in enumerate(self.settings)
            for fold in range(self.test_rmse.shape[1])
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        n_candidates, n_folds = self.test_rmse.shape
        failed = int(np.isnan(self.test_rmse).sum())
        fits = f"{n_candidates} × {n_folds} fits" + (f", {failed} of them failed" if failed else "")
        if np.isnan(self.mean).all():
            return f"{type(self).__name__}({fits}, none best)"
        best = self._best
        return (
            f"{type(self).__name__}({fits}, best {_shown(self.settings[best])}: test RMSE "
            f"{self.mean[best]:.4g} ± {self.standard_error[best]:.2g})"
        )


class RankSelection(Search):
    """Errors and seconds of fits with several k, and the k that follows from them."""

    @property
    def ks(self) -> NDArray[np.int64]:
        """The ranks, in order."""
        return np.array([settings["k"] for settings in self.settings])

    @property
    def k(self) -> int:
        """The smallest rank within one standard error of the best (Breiman et al. 1984).

        Raises
        ------
        ValueError
            If no rank could be fitted on all folds.
        """
        best = self._best
        return int(self.ks[self.mean <= self.mean[best] + self.standard_error[best]].min())

    def plot(self, ax: Any = None) -> Any:
        """Draw training and test error by k, which shows under- and overfitting (extra ``plot``).

        Returns
        -------
        matplotlib Axes
            Of a new figure, unless ``ax`` is given.
        """
        if ax is None:
            _, ax = optional("matplotlib.pyplot", "plot", "plot").subplots()
        ax.errorbar(self.ks, self.mean, self.standard_error, marker="o", label="test", capsize=3)
        ax.plot(self.ks, self.train_rmse.mean(axis=1), marker="o", label="training")
        if not np.isnan(self.mean).all():
            ax.axvline(self.k, color="grey", linestyle=":", label=f"k = {self.k}")
        ax.set(xlabel="k", ylabel="RMSE", xscale="log", xticks=self.ks, xticklabels=self.ks)
        ax.legend()
        return ax


def cross_validate(
    R: Any, k: int, cv: Any = 5, *, rng: Any = None, n_threads: int | None = None, **settings: Any
) -> CrossValidation:
    """Fit and test ``factorize(R, k, **settings)`` on each of several folds.

    A fit that fails (``ArithmeticError``, ``ValueError`` or ``MemoryError``) leaves nan and a warning; the
    first error is raised only if all fits fail. The same holds for :func:`grid_search` and
    :func:`select_rank`.

    Parameters
    ----------
    R, k, settings
        As for ``factorize``.
    cv
        Number of folds, in each of which a random share of 1/cv of the ratings is held out, or pairs of
        training and test ratings.
    rng
        As for ``factorize``; folds and fits follow from it. The same integer gives the same folds to
        :func:`grid_search` and :func:`select_rank`.
    n_threads
        How many fits run side by side, each on one thread; by default the cores that this process may use.

    Examples
    --------
    >>> from mfkernel import datasets
    >>> cross_validate(datasets.synthetic(), 4, cv=3, rng=0, epochs=1).test_rmse.shape
    (3,)
    """
    return CrossValidation(*_run(R, settings, [{"k": k}], cv, rng, n_threads)[:, 0])


def grid_search(
    R: Any,
    grid: Mapping[str, Iterable[Any]],
    cv: Any = 5,
    *,
    rng: Any = None,
    n_threads: int | None = None,
    **settings: Any,
) -> Search:
    """Fit and test every combination of some settings on the same folds.

    Parameters
    ----------
    R, settings
        As for ``factorize``; what is the same for all.
    grid
        Values to try of each argument of ``factorize``, such as ``{"k": [16, 64], "regularization": [0.03,
        0.05]}``; it, or ``settings``, has ``k``.
    cv, rng, n_threads
        As for :func:`cross_validate`.

    Returns
    -------
    Search
        Its ``best`` are the settings with the lowest mean test RMSE.
    """
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid must be a dict of names and lists of values, got {type(grid).__name__}")
    for name, choices in grid.items():
        if isinstance(choices, str | bytes) or not isinstance(choices, Iterable):
            raise TypeError(
                f"grid[{name!r}] must be a list of values to try, got {choices!r}; pass [{choices!r}]"
            )
    values = {name: list(choices) for name, choices in grid.items()}
    for name, choices in values.items():
        if not choices:
            raise ValueError(f"grid[{name!r}] is empty")
    candidates = [dict(zip(values, choice, strict=True)) for choice in itertools.product(*values.values())]
    return Search(candidates, _run(R, settings, candidates, cv, rng, n_threads))


def select_rank(
    R: Any,
    ks: Iterable[int],
    cv: Any = 5,
    *,
    rng: Any = None,
    n_threads: int | None = None,
    **settings: Any,
) -> RankSelection:
    """Find the rank that predicts held-out ratings best, or nearly so with fewer factors.

    Parameters
    ----------
    R, settings
        As for ``factorize``.
    ks
        The ranks to try.
    cv, rng, n_threads
        As for :func:`cross_validate`.

    Returns
    -------
    RankSelection
        Its ``k`` is the smallest rank whose error is within a standard error of the lowest; ``plot`` draws
        training and test error by rank.

    References
    ----------
    Breiman, Friedman, Olshen and Stone, "Classification and regression trees", 1984 (the rule of one standard
    error).
    """
    ranks = sorted({checks.integer(f"ks[{n}]", k, 1) for n, k in enumerate(ks)})
    if not ranks:
        raise ValueError("ks is empty")
    candidates = [{"k": k} for k in ranks]
    return RankSelection(candidates, _run(R, settings, candidates, cv, rng, n_threads))


def _run(
    R: Any,
    common: dict[str, Any],
    choices: list[dict[str, Any]],
    cv: Any,
    rng: Any,
    n_threads: int | None,
) -> NDArray[np.float64]:
    """Return training error, test error and seconds, (3, n_candidates, n_folds); nan where a fit failed.

    All candidates share the folds, which are made once; the fits run side by side, the longest first.
    """
    candidates = [common | choice for choice in choices]
    for settings in candidates:
        for name in ("callback", "progress", "init"):
            if settings.get(name) not in (None, False):
                raise ValueError(f"{name} goes with a single fit, not with several")
        if "k" not in settings:
            raise TypeError("k is missing: pass k=…, or try several in the grid")
        checks.integer("k", settings["k"], 1)
        if _is_implicit(settings):
            raise ValueError(
                f"method must be for known ratings, got {settings['method']!r}, which rankings judge; fit "
                "the first part of leave_k_out or train_test_split, and pass the other to metrics.ranking"
            )
    # what is about R is the same for all, and is read once
    about_ratings = ("missing", "duplicates", "sample_weight", "dtype")
    given = {name: candidates[0][name] for name in about_ratings if name in candidates[0]}
    if any(settings.get(name) is not given.get(name) for settings in candidates for name in about_ratings):
        raise ValueError(f"{', '.join(about_ratings)} are the same for all fits; none can be in the grid")
    ratings = Ratings(R, **({"dtype": np.float32} | given), copy=False)
    generator = np.random.default_rng(rng)
    folds = _folds(ratings, cv, generator)
    seeds = generator.integers(2**63, size=len(folds)).tolist()
    read = about_ratings[:3]
    own = [{name: x for name, x in settings.items() if name not in read} for settings in candidates]
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
            figures[:, candidate, fold] = model.history[-1].rmse, model.rmse(test), seconds
        except FAILURES as error:
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
    return figures


def _is_implicit(settings: dict[str, Any]) -> bool:
    """Whether the arguments of a fit are for implicit feedback; errors in them are left to the fit."""
    own = ("k", "method", *FitKeywords.__annotations__)
    options = {name: value for name, value in settings.items() if name not in own}
    try:
        return make_settings(settings.get("method", "sgd"), options, own).implicit
    except FAILURES:
        return False


class _CompiledError(Exception):
    """Ends a fit whose kernels have all run."""


def _compile(ratings: Ratings, candidates: list[dict[str, Any]]) -> None:
    """Run what the candidates need on a few ratings, so that their seconds leave compilation out.

    Arguments that no fit takes are a ``TypeError`` here; of other failures the fits themselves will tell.
    """
    # a full square, so that each row and column has ratings to learn from beside those that are held out
    side = math.isqrt(min(FEW, ratings.nnz))
    (users, items), part = np.divmod(np.arange(side**2), side), slice(side**2)
    weights = None if ratings.weights is None else ratings.weights[part]
    few = Ratings((users, items, ratings.values[part]), dtype=ratings.dtype, sample_weight=weights)

    def stop(record: Any) -> None:
        raise _CompiledError

    done = set()
    for settings in candidates:
        compiled = {name: value for name, value in settings.items() if name not in NUMBERS}
        if (key := repr(compiled)) in done:
            continue
        done.add(key)
        # a penalty, so that few ratings will do for any rank
        tried = settings | {"epochs": 2, "rng": 0, "n_threads": 1, "callback": stop}
        if settings.get("regularization") is not None:
            tried["regularization"] = 1.0
        try:
            if settings.get("validation") is not None:
                tried["validation"] = 0.1
                bias_baseline(few)
            factorize(few, **tried)
        except (_CompiledError, *FAILURES):
            pass


def _warn_of(errors: dict[tuple[int, int], Exception], choices: list[dict[str, Any]]) -> None:
    """Warn of each candidate that failed, with its folds and its first error."""
    for candidate, group in itertools.groupby(sorted(errors), key=lambda work: work[0]):
        folds = [fold for _, fold in group]
        error = errors[candidate, folds[0]]
        places = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        warnings.warn(
            f"{_shown(choices[candidate])} failed on {places} and has nan there: "
            f"{type(error).__name__}: {error}",
            stacklevel=4,
        )


def _shown(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def _folds(ratings: Ratings, cv: Any, rng: np.random.Generator) -> list[Fold]:
    """Part the ratings at random, each being held out once; or take the pairs that are given."""
    if isinstance(cv, Iterable):
        folds = [(Ratings(training), Ratings(test)) for training, test in cv]
        if len(folds) < 2:
            raise ValueError(f"cv has {len(folds)} folds; it takes two")
        return folds
    n_folds = checks.integer("cv", cv, 2)
    if ratings.nnz < n_folds:
        raise ValueError(f"R has {ratings.nnz} ratings, too few for {n_folds} folds")
    fold = rng.permutation(ratings.nnz) % n_folds
    return [(ratings.select(fold != n), ratings.select(fold == n)) for n in range(n_folds)]
