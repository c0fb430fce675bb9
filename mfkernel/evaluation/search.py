"""Which settings predict held-out ratings best."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from mfkernel._support import checks
from mfkernel.evaluation.results import CrossValidation, RankSelection, Search
from mfkernel.evaluation.runs import run_fits


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
    return CrossValidation(*run_fits(R, settings, [{"k": k}], cv, rng, n_threads)[:, 0])


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
    return Search(candidates, run_fits(R, settings, candidates, cv, rng, n_threads))


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
    return RankSelection(candidates, run_fits(R, settings, candidates, cv, rng, n_threads))
