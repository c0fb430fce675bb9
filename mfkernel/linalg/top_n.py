"""Exact search for the greatest products of rows, without a table of all products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import frozen
from mfkernel.engines.threads import Task, ThreadEngine

WIDTH = 128  # items of a panel: with 64 coordinates, 32 KiB of float32
WORK = 2e7  # products of a task, about a millisecond
MOST_ROWS = 64  # of a task: for so many, a panel is loaded once

Csr = tuple[NDArray[np.int64], NDArray[Any]]


class Recommendations(NamedTuple):
    """What is found for each row, best first.

    Attributes
    ----------
    items
        Numbers: (n,) of one row; (s, n) of several, masked where nothing is left.
    scores
        Of the same shape.
    """

    items: NDArray[np.int32]
    scores: NDArray[Any]


class Ranks(NamedTuple):
    """Where held-out items stand among the candidates of their rows.

    Attributes
    ----------
    places, below, equal
        (nnz,) how many candidates come before each, as :func:`top_n` orders them; have a lower score; have
        the same.
    candidates
        (s,) how many candidates each row has.
    """

    places: NDArray[np.int64]
    below: NDArray[np.int64]
    equal: NDArray[np.int64]
    candidates: NDArray[np.int64]


class Panels(NamedTuple):
    """Items cut into panels, coordinate by coordinate, as the kernels take them."""

    panels: NDArray[Any]
    n_items: int


def panels_of(Y: NDArray[Any]) -> Panels:
    """Lay rows Y (n, d) out for :func:`top_n`; this takes as much memory as they do."""
    n, d = Y.shape
    panels = np.zeros((-(-n // WIDTH), -(-d // 4) * 4, WIDTH), Y.dtype)
    for p, start in enumerate(range(0, n, WIDTH)):
        part = Y[start : start + WIDTH]
        panels[p, :d, : len(part)] = part.T
    return Panels(panels, n)


def top_n(
    X: NDArray[Any],
    Y: Panels,
    n: int,
    engine: ThreadEngine,
    *,
    excluded: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Recommendations:
    """Find the n items with the greatest products x·y for each row of X (s, d).

    Of equal products the lower number comes first; nan and -inf are never found. Each row's result depends
    on that row alone, bit by bit. There are no more columns than items; where nothing is left, items are -1
    and scores nan.

    Parameters
    ----------
    excluded
        ``(indptr, indices)`` of a CSR matrix with sorted rows: items that each row of X leaves out.
    allowed
        (n_items,) mask of the items that may be found.
    """
    from mfkernel.kernels.top_n import top_n_span

    size = max(0, min(n, Y.n_items))
    items = np.full((len(X), size), -1, np.int32)
    scores = np.full((len(X), size), -np.inf, X.dtype)
    arguments = _arguments(X, Y, excluded, allowed)

    def search(rows: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        top_n_span(rows[0], rows[1], *arguments, items, scores)

    if size:
        engine.run(search, _tasks(len(X), Y))
    missing = items < 0
    scores[missing] = np.nan
    return Recommendations(items, scores)


def ranks(
    X: NDArray[Any],
    Y: Panels,
    held_out: Csr,
    engine: ThreadEngine,
    *,
    excluded: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Ranks:
    """Find where the items ``held_out`` stand for each row of X among all that ``top_n`` would choose from.

    A held-out item is a candidate even if it is excluded or not allowed; nan counts as the lowest score.
    """
    from mfkernel.kernels.top_n import ranks_span

    bounds, indices = held_out
    result = Ranks(*(np.zeros(size, np.int64) for size in (*[indices.size] * 3, len(X))))
    arguments = _arguments(X, Y, excluded, allowed)

    def search(rows: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        ranks_span(rows[0], rows[1], *arguments, frozen(bounds), frozen(indices), *result)

    engine.run(search, _tasks(len(X), Y))
    return result


def ndcg(places: NDArray[np.int64], bounds: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    r"""Return Σ 1 / log₂(place + 1) of each row's hits over its greatest possible value, (s,).

    Parameters
    ----------
    places
        (nnz,) of the held-out items, 0 for the first.
    bounds
        (s + 1,) row u has the items ``bounds[u]:bounds[u + 1]``, at least one.
    n
        how many places count.

    References
    ----------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; a relevant item
    gains 1, any other 0.
    """
    n = int(max(1, min(n, np.diff(bounds).max(initial=0) + places.max(initial=0) + 1)))  # no more can count
    gains = 1 / np.log2(np.arange(2, 2 + n))
    best = np.cumsum(gains)[np.minimum(np.diff(bounds), n) - 1]
    gained = np.where(places < n, gains[np.minimum(places, n - 1)], 0.0)
    result: NDArray[np.float64] = np.add.reduceat(gained, bounds[:-1]) / best
    return result


def _arguments(
    X: NDArray[Any], Y: Panels, excluded: Csr | None, allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return what both kernels take, in types of which there are few."""
    if excluded is None:
        excluded = np.zeros(len(X) + 1, np.int64), np.empty(0, np.int32)
    mask = None if allowed is None else frozen(allowed)
    bounds, indices = excluded
    return frozen(np.ascontiguousarray(X)), frozen(Y.panels), Y.n_items, frozen(bounds), frozen(indices), mask


def _tasks(n_rows: int, Y: Panels) -> list[Task]:
    step = int(min(MOST_ROWS, max(4, WORK // max(1, Y.panels.size)))) // 4 * 4
    return [Task((start, min(start + step, n_rows))) for start in range(0, n_rows, step)]
