"""The products of some rows with all items, and which of them are the greatest."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined, jit

GROUP = 4  # rows that are multiplied at a time, and coordinates


@inlined
def multiply(X: NDArray[Any], panel: NDArray[Any], scores: NDArray[Any]) -> None:
    """Set ``scores`` (4, w) to the product of X (4, d) and a panel (d, w), d being a multiple of 4.

    Sixteen products for each number that is stored. The order of the sums is the same for every row, so that
    a score does not depend on the rows beside it.
    """
    s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
    scores[:] = 0
    for f in range(0, panel.shape[0] // GROUP * GROUP, GROUP):
        y0, y1, y2, y3 = panel[f], panel[f + 1], panel[f + 2], panel[f + 3]
        a0, a1, a2, a3 = X[0, f], X[0, f + 1], X[0, f + 2], X[0, f + 3]
        b0, b1, b2, b3 = X[1, f], X[1, f + 1], X[1, f + 2], X[1, f + 3]
        c0, c1, c2, c3 = X[2, f], X[2, f + 1], X[2, f + 2], X[2, f + 3]
        d0, d1, d2, d3 = X[3, f], X[3, f + 1], X[3, f + 2], X[3, f + 3]
        for j in range(panel.shape[1] // 8 * 8):
            s0[j] += a0 * y0[j] + a1 * y1[j] + a2 * y2[j] + a3 * y3[j]
            s1[j] += b0 * y0[j] + b1 * y1[j] + b2 * y2[j] + b3 * y3[j]
            s2[j] += c0 * y0[j] + c1 * y1[j] + c2 * y2[j] + c3 * y3[j]
            s3[j] += d0 * y0[j] + d1 * y1[j] + d2 * y2[j] + d3 * y3[j]


@inlined
def copy(X: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy X to the upper left of an array that is no smaller; ``out[:] = X`` takes seconds to compile."""
    for r in range(X.shape[0]):
        for f in range(X.shape[1]):
            out[r, f] = X[r, f]


@inlined
def is_worse(score: Any, item: int, other_score: Any, other_item: int) -> bool:
    """Whether an item comes after another: its score is lower, or the same and its number higher."""
    return bool(score < other_score or (score == other_score and item > other_item))


@inlined
def sift_down(scores: NDArray[Any], items: NDArray[Any], size: int, score: Any, item: Any) -> None:
    """Put an item in place of the root of a heap whose root is the worst, and restore the heap."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and is_worse(scores[right], items[right], scores[child], items[child]):
            child = right
        if not is_worse(scores[child], items[child], score, item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item


@inlined
def mask(
    scores: NDArray[Any],
    start: int,
    n_items: int,
    excluded: NDArray[Any],
    at: int,
    stop: int,
    allowed: NDArray[np.bool_] | None,
    mark: Any,
) -> int:
    """Set the scores of what is not to be counted to ``mark``; return the first exclusion of the next panel.

    ``scores`` are those of items ``start`` and further; beyond ``n_items`` there are none.
    """
    width = scores.size
    while at < stop and excluded[at] < start + width:
        scores[excluded[at] - start] = mark
        at += 1
    for j in range(max(0, n_items - start), width):
        scores[j] = mark
    if allowed is not None:
        for j in range(min(width, n_items - start)):
            if not allowed[start + j]:
                scores[j] = mark
    return at


@jit
def top_n_span(
    first: int,
    last: int,
    X: NDArray[Any],
    panels: NDArray[Any],
    n_items: int,
    bounds: NDArray[np.int64],
    excluded: NDArray[Any],
    allowed: NDArray[np.bool_] | None,
    items: NDArray[np.int32],
    scores: NDArray[Any],
) -> None:
    """Find the greatest products of rows ``first`` to ``last`` of X with all items.

    Parameters
    ----------
    X
        (s, d).
    panels
        (n_panels, d rounded up to 4, w): items ``w p`` and further are the columns of panel p.
    bounds, excluded
        (s + 1,) and (nnz,): row u leaves out the items ``excluded[bounds[u]:bounds[u + 1]]``, sorted.
    allowed
        (n_items,) which items may be found, or None for all.
    items, scores
        (s, n), full of -1 and -inf; become heaps and then sorted, best first.
    """
    n_panels, d, width = panels.shape
    nothing, n = X.dtype.type(-np.inf), items.shape[1]
    count = -(-(last - first) // GROUP) * GROUP
    rows = np.zeros((count, d), X.dtype)
    copy(X[first:last], rows)
    part = np.empty((GROUP, width), X.dtype)
    cursors = bounds[first:last].copy()
    for p in range(n_panels):
        start = p * width
        for group in range(0, count, GROUP):
            multiply(rows[group : group + GROUP], panels[p], part)
            for r in range(min(GROUP, last - first - group)):
                u, row = first + group + r, part[r]
                at, stop = cursors[group + r], bounds[u + 1]
                cursors[group + r] = mask(row, start, n_items, excluded, at, stop, allowed, nothing)
                heap, numbers = scores[u], items[u]
                worst = heap[0]
                for j in range(width):
                    if row[j] > worst:  # of equal scores, the one met first has the lower number
                        sift_down(heap, numbers, n, row[j], np.int32(start + j))
                        worst = heap[0]
    for u in range(first, last):
        heap, numbers = scores[u], items[u]
        for size in range(n - 1, 0, -1):  # the worst of all to the end, and so on
            score, item = heap[size], numbers[size]
            heap[size], numbers[size] = heap[0], numbers[0]
            sift_down(heap, numbers, size, score, item)


@jit
def ranks_span(
    first: int,
    last: int,
    X: NDArray[Any],
    panels: NDArray[Any],
    n_items: int,
    bounds: NDArray[np.int64],
    excluded: NDArray[Any],
    allowed: NDArray[np.bool_] | None,
    held_bounds: NDArray[np.int64],
    held_out: NDArray[Any],
    places: NDArray[np.int64],
    below: NDArray[np.int64],
    equal: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> None:
    """Find the places of held-out items among all candidates of rows ``first`` to ``last`` of X.

    Parameters
    ----------
    held_bounds, held_out
        (s + 1,) and (nnz,): row u has the held-out items ``held_out[held_bounds[u]:held_bounds[u + 1]]``.
    places, below, equal
        (nnz,) how many candidates come before each, in the order of ``top_n_span``; have a lower score; have
        the same.
    candidates
        (s,) how many candidates each row has.

    The other parameters are those of ``top_n_span``.
    """
    n_panels, d, width = panels.shape
    none = X.dtype.type(np.nan)
    rows = np.zeros((GROUP, d), X.dtype)
    part, all_scores = np.empty((GROUP, width), X.dtype), np.empty((GROUP, n_panels * width), X.dtype)
    for group in range(first, last, GROUP):
        size = min(GROUP, last - group)
        copy(X[group : group + size], rows)
        for p in range(n_panels):
            multiply(rows, panels[p], part)
            copy(part, all_scores[:, p * width : (p + 1) * width])
        for r in range(size):
            u, row = group + r, all_scores[r]
            for j in range(n_items):
                if np.isnan(row[j]):
                    row[j] = -np.inf
            start, stop = held_bounds[u], held_bounds[u + 1]
            own = np.empty(stop - start, X.dtype)
            for n in range(start, stop):
                own[n - start] = row[held_out[n]]
            mask(row, 0, n_items, excluded, bounds[u], bounds[u + 1], allowed, none)
            for n in range(start, stop):
                row[held_out[n]] = own[n - start]
            total = 0
            for j in range(n_items):
                total += not np.isnan(row[j])
            candidates[u] = total
            for n in range(start, stop):
                score, above, same, same_before = own[n - start], 0, 0, 0
                for j in range(n_items):
                    above += row[j] > score
                    same += row[j] == score
                for j in range(held_out[n]):
                    same_before += row[j] == score
                places[n] = above + same_before
                equal[n] = same - 1
                below[n] = total - above - same
