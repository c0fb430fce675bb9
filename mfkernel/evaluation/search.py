"""Find the settings that predict held-out ratings best."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from mfkernel._support import checks
from mfkernel._support.frames import in_library
from mfkernel.evaluation.results import RMSE, CrossValidation, RankSelection, Search
from mfkernel.evaluation.runs import run_fits


def cross_validate(
    R: Any, k: int, cv: Any = 5, *, rng: Any = None, n_threads: int | None = None, **settings: Any
) -> CrossValidation:
    """Fit and test ``factorize(R, k, **settings)`` on each of several folds.

    A fit that fails (``ArithmeticError``, ``ValueError`` or ``MemoryError``) leaves nan and a warning. The
    first error is raised only if all fits fail. The same holds for :func:`grid_search` and
    :func:`select_rank`.

    Parameters
    ----------
    R, k
        Ratings and rank, as for ``factorize``.
    cv
        Number of folds, at least 2; each holds out a random share 1/cv of the ratings. Or pairs of training
        and test ratings, such as ``[(train, test)]``, which are matched by id. Default: 5.
    rng
        Seed or generator of folds and fits, as for ``factorize``. The same integer gives the same folds in
        :func:`grid_search` and :func:`select_rank`. Default: random.
    n_threads
        Number of fits that run in parallel, each on one thread. Default: the cores available to this process.
    **settings
        Other arguments of ``factorize``, also those that say how R is read: ``user``, ``user_ids``.

    Returns
    -------
    CrossValidation
        Training error, test error and seconds per fold. For implicit feedback, the test measures the NDCG of
        the best 10 items.

    Examples
    --------
    >>> from mfkernel import datasets
    >>> cross_validate(datasets.synthetic(), 4, cv=3, rng=0, epochs=1).test_rmse.shape
    (3,)
    """
    figures, metric, library = run_fits(R, settings, [{"k": k}], cv, rng, n_threads)
    train, test, seconds = figures[:, 0]
    rmse, ndcg = (test, None) if metric == RMSE else (None, test)
    return in_library(library, CrossValidation(train, rmse, seconds, ndcg))


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
    R
        Ratings, as for ``factorize``.
    grid
        Values to try for each argument of ``factorize``, such as ``{"k": [16, 64], "regularization": [0.03,
        0.05]}``. Either ``grid`` or ``settings`` must have ``k``.
    cv, rng, n_threads
        As for :func:`cross_validate`.
    **settings
        Arguments of ``factorize`` that are the same for all candidates, also those that say how R is read.

    Returns
    -------
    Search
        Errors of all candidates; ``best`` has the settings with the lowest mean test RMSE, or for implicit
        feedback the highest mean NDCG of the best 10 items.
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
            raise ValueError(f"grid[{name!r}] must have a value to try, got none")
    candidates = [dict(zip(values, choice, strict=True)) for choice in itertools.product(*values.values())]
    figures, metric, library = run_fits(R, settings, candidates, cv, rng, n_threads)
    return in_library(library, Search(candidates, figures, metric))


def select_rank(
    R: Any,
    ks: Iterable[int],
    cv: Any = 5,
    *,
    rng: Any = None,
    n_threads: int | None = None,
    **settings: Any,
) -> RankSelection:
    """Find the smallest rank that predicts held-out ratings almost best.

    Parameters
    ----------
    R
        Ratings, as for ``factorize``.
    ks
        Ranks to try, each at least 1.
    cv, rng, n_threads
        As for :func:`cross_validate`.
    **settings
        Other arguments of ``factorize``, also those that say how R is read: ``user``, ``user_ids``.

    Returns
    -------
    RankSelection
        Errors of all ranks. ``k`` is the smallest rank whose RMSE, or NDCG for implicit feedback, is within
        one standard error of the best. ``plot`` draws training and test error against rank.

    References
    ----------
    Breiman, Friedman, Olshen and Stone, "Classification and regression trees", 1984 (the one standard error
    rule).
    """
    ranks = sorted({checks.integer(f"ks[{n}]", k, 1) for n, k in enumerate(ks)})
    if not ranks:
        raise ValueError("ks must have a rank to try, got none")
    candidates = [{"k": k} for k in ranks]
    figures, metric, library = run_fits(R, settings, candidates, cv, rng, n_threads)
    return in_library(library, RankSelection(candidates, figures, metric))
