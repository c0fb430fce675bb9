"""Recommendations that also try items whose ratings are uncertain."""

import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.linalg.top_n import Best, Csr
from mfkernel.model.state import State
from mfkernel.model.uncertainty import samples_of

THOMPSON = "thompson"
SCORES_PER_BLOCK = 2**22  # scores of all samples at a time


def checked_explore(explore: Any) -> float | str:
    """Return "thompson", or the number of standard deviations to add to scores."""
    rule = f"explore must be 'thompson' or a finite number of standard deviations, got {explore!r}"
    if isinstance(explore, str) and explore != THOMPSON:
        raise ValueError(rule)
    if isinstance(explore, bool | np.bool_) or not isinstance(explore, str | numbers.Real):
        raise TypeError(rule)
    if isinstance(explore, str):
        return explore
    if not math.isfinite(explore):
        raise ValueError(rule)
    return float(explore)


def explore_top_n(
    state: State,
    asked: State,
    rows: NDArray[Any],
    n: int,
    explore: float | str,
    rng: np.random.Generator,
    *,
    excluded: Csr | None,
    allowed: NDArray[np.bool_] | None,
) -> Best:
    """Find the n items with the highest scores for each user, where the scores heed their uncertainty.

    Parameters
    ----------
    asked, rows
        The model of the users, ``state`` or one that was folded in, and their rows in it.
    explore
        ``"thompson"``: the scores of a random sample per user. A number c: mean + c · standard deviation.
    rng
        Generator that chooses samples.
    excluded, allowed
        As for :func:`~mfkernel.linalg.top_n.top_n`.
    """
    size, n = samples_of(state, "explore", explore).size, min(n, state.shape[1])
    items = np.full((rows.size, n), -1, np.int32)
    best = np.full((rows.size, n), np.nan, state.P.dtype)
    choice = rng.integers(size, size=rows.size)
    for part, scores in _scores(state, asked, rows, explore, choice):
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if excluded is not None:
            indptr, columns = excluded
            starts, stop = indptr[part.start : part.stop + 1], indptr[part.stop]
            scores[
                np.repeat(np.arange(len(scores)), np.diff(starts)), columns[indptr[part.start] : stop]
            ] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        found = np.take_along_axis(scores, order, axis=1)
        left = np.isfinite(found)
        items[part][left], best[part][left] = order[left], found[left]
    return Best(items, best)


def _scores(
    state: State, asked: State, rows: NDArray[Any], explore: float | str, choice: NDArray[Any]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the scores of all items for some users at a time."""
    new, known = samples_of(asked, "explore", explore), samples_of(state, "explore", explore)
    step = max(1, SCORES_PER_BLOCK // max(1, known.size * state.shape[1]))
    for start in range(0, rows.size, step):
        part = slice(start, min(start + step, rows.size))
        users = rows[part]
        drawn = np.einsum("usk,isk->sui", new.user_factors[users], known.item_factors, optimize=True)
        drawn += new.user_bias[users].T[:, :, None] + known.item_bias.T[:, None, :] + state.mean
        if explore == THOMPSON:
            yield part, drawn[choice[part], np.arange(users.size)].astype(state.P.dtype)
            continue
        std = drawn.std(axis=0, ddof=min(1, known.size - 1))
        X, Y = asked.user_vectors(users, False), state.item_vectors(slice(None), False)
        yield part, (X @ Y.T + explore * std).astype(state.P.dtype)
