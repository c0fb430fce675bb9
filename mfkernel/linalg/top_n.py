"""Exact search for the n greatest products of rows, without a table of all products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.engines.threads import Task, ThreadEngine

ITEMS_PER_PANEL = 128  # items: 32 KiB of float32 per panel at k = 64
PRODUCTS_PER_TASK = 2e7  # about a millisecond
MAX_ROWS_PER_TASK = 64  # rows for which a panel is loaded once

Csr = tuple[NDArray[np.int64], NDArray[Any]]


class Best(NamedTuple):
    """The best items of each row, best first.

    Attributes
    ----------
    items
        (s, n) their positions, -1 where no candidate is left.
    scores
        (s, n) their scores.
    """

    items: NDArray[np.int32]
    scores: NDArray[Any]


class Ranks(NamedTuple):
    """The ranks of held-out items among the candidates of their rows.

    Attributes
    ----------
    ranks
        (nnz,) number of candidates before each held-out item, in the order of :func:`top_n`; 0 is the best.
    below, equal
        (nnz,) number of candidates with a lower score, and of others with the same score.
    candidates
        (s,) number of candidates of each row.
    """

    ranks: NDArray[np.int64]
    below: NDArray[np.int64]
    equal: NDArray[np.int64]
    candidates: NDArray[np.int64]


class Panels(NamedTuple):
    """The factors of items, in panels that are stored coordinate by coordinate."""

    panels: NDArray[Any]
    n_items: int


def pack_items(Y: NDArray[Any]) -> Panels:
    """Copy the factors Y (n, d) of items to panels, which take as much memory."""
    n, d = Y.shape
    panels = np.zeros((-(-n // ITEMS_PER_PANEL), -(-d // 4) * 4, ITEMS_PER_PANEL), Y.dtype)
    for p, start in enumerate(range(0, n, ITEMS_PER_PANEL)):
        part = Y[start : start + ITEMS_PER_PANEL]
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
) -> Best:
    """Find the n items with the greatest products x·y for each row of X (s, d).

    Items with equal products are ordered by number; products of nan and -inf are never found. The result of a
    row depends on that row alone, bit by bit. It has at most as many columns as there are items. Where no
    candidate is left, items are -1 and scores nan.

    Parameters
    ----------
    excluded
        ``(indptr, indices)`` of a CSR matrix with sorted rows: the items to leave out for each row of X.
    allowed
        (n_items,) mask of the candidates. Default: all items.
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
    scores[items < 0] = np.nan
    return Best(items, scores)


def rank_held_out(
    X: NDArray[Any],
    Y: Panels,
    held_out: Csr,
    engine: ThreadEngine,
    *,
    excluded: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Ranks:
    """Find the ranks of held-out items among all candidates of each row of X.

    The candidates are those of :func:`top_n`. A held-out item is a candidate even if it is excluded or not
    allowed. A score of nan counts as the lowest.
    """
    from mfkernel.kernels.top_n import ranks_span

    bounds, indices = held_out
    result = Ranks(*(np.zeros(size, np.int64) for size in (*[indices.size] * 3, len(X))))
    arguments = _arguments(X, Y, excluded, allowed)

    def search(rows: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        ranks_span(rows[0], rows[1], *arguments, readonly(bounds), readonly(indices), *result)

    engine.run(search, _tasks(len(X), Y))
    return result


def ndcg(ranks: NDArray[np.int64], bounds: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    r"""Return the NDCG of each row, (s,).

    It is Σ 1 / log₂(rank + 2) over the hits of the row, divided by its greatest possible value.

    Parameters
    ----------
    ranks
        (nnz,) ranks of the held-out items; 0 is the best.
    bounds
        (s + 1,) row u has the items ``bounds[u]:bounds[u + 1]``, at least one.
    n
        number of ranks that count as hits.

    References
    ----------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; a relevant item
    gains 1, any other 0.
    """
    worst = ranks.max(initial=0) + 1
    n = int(max(1, min(n, np.diff(bounds).max(initial=0) + worst)))  # later ranks cannot count
    gains = 1 / np.log2(np.arange(2, 2 + n))
    best = np.cumsum(gains)[np.minimum(np.diff(bounds), n) - 1]
    gained = np.where(ranks < n, gains[np.minimum(ranks, n - 1)], 0.0)
    result: NDArray[np.float64] = np.add.reduceat(gained, bounds[:-1]) / best
    return result


def _arguments(
    X: NDArray[Any], Y: Panels, excluded: Csr | None, allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return the common arguments of both kernels, in few types, as each is compiled."""
    if excluded is None:
        excluded = np.zeros(len(X) + 1, np.int64), np.empty(0, np.int32)
    mask = None if allowed is None else readonly(allowed)
    bounds, indices = excluded
    return (
        readonly(np.ascontiguousarray(X)),
        readonly(Y.panels),
        Y.n_items,
        readonly(bounds),
        readonly(indices),
        mask,
    )


def _tasks(n_rows: int, Y: Panels) -> list[Task]:
    step = int(min(MAX_ROWS_PER_TASK, max(4, PRODUCTS_PER_TASK // max(1, Y.panels.size)))) // 4 * 4
    return [Task((start, min(start + step, n_rows))) for start in range(0, n_rows, step)]
