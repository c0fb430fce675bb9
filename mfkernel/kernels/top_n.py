"""The products of rows with all items: the n greatest, and the ranks of held-out items."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined, jit

ROWS_PER_GROUP = 4  # rows, and coordinates, per step of the product


@inlined
def score_panel(X: NDArray[Any], panel: NDArray[Any], scores: NDArray[Any]) -> None:
    """Set ``scores`` (4, w) to the product of X (4, d) and a panel (d, w).

    d is a multiple of 4. Each store adds four products to a score. The order of sums is the same for every
    row, so a score does not depend on the rows beside it.
    """
    s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
    scores[:] = 0
    for f in range(0, panel.shape[0] // ROWS_PER_GROUP * ROWS_PER_GROUP, ROWS_PER_GROUP):
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
def copy_block(X: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy X to the upper left of ``out``; ``out[:] = X`` takes seconds to compile."""
    for r in range(X.shape[0]):
        for f in range(X.shape[1]):
            out[r, f] = X[r, f]


@inlined
def is_worse(score: Any, item: int, other_score: Any, other_item: int) -> bool:
    """Return whether an item ranks below another: by its score, or else its number."""
    return bool(score < other_score or (score == other_score and item > other_item))


@inlined
def sift_down(scores: NDArray[Any], items: NDArray[Any], size: int, score: Any, item: Any) -> None:
    """Replace the root of a heap, its worst item, and restore the heap."""
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
def mask_scores(
    scores: NDArray[Any],
    start: int,
    n_items: int,
    excluded: NDArray[Any],
    at: int,
    stop: int,
    allowed: NDArray[np.bool_] | None,
    mark: Any,
) -> int:
    """Set the scores of items that are no candidates to ``mark``.

    Parameters
    ----------
    scores
        (w,) scores of the items from ``start`` on; those from ``n_items`` on are padding.
    excluded, at, stop
        excluded items, sorted: those of this row from here on are ``excluded[at:stop]``.

    Returns
    -------
    int
        position of the first excluded item beyond these scores.
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
    """Find the n greatest products of each row ``first:last`` of X with all items.

    Parameters
    ----------
    X
        (s, d) rows.
    panels
        (n_panels, d rounded up to 4, w) the columns of panel p are the items from ``w p`` on.
    bounds, excluded
        (s + 1,), (nnz,) the items ``excluded[bounds[u]:bounds[u + 1]]``, sorted, are no candidates of row u.
    allowed
        (n_items,) mask of the candidates, or None for all.
    items, scores
        (s, n) full of -1 and -inf; overwritten, best first.
    """
    n_panels, d, width = panels.shape
    nothing, n = X.dtype.type(-np.inf), items.shape[1]
    count = -(-(last - first) // ROWS_PER_GROUP) * ROWS_PER_GROUP
    rows = np.zeros((count, d), X.dtype)
    copy_block(X[first:last], rows)
    part = np.empty((ROWS_PER_GROUP, width), X.dtype)
    cursors = bounds[first:last].copy()
    for p in range(n_panels):
        start = p * width
        for group in range(0, count, ROWS_PER_GROUP):
            score_panel(rows[group : group + ROWS_PER_GROUP], panels[p], part)
            for r in range(min(ROWS_PER_GROUP, last - first - group)):
                u, row = first + group + r, part[r]
                at, stop = cursors[group + r], bounds[u + 1]
                cursors[group + r] = mask_scores(row, start, n_items, excluded, at, stop, allowed, nothing)
                heap, numbers = scores[u], items[u]
                worst = heap[0]
                for j in range(width):
                    if row[j] > worst:  # an equal score would have a higher number
                        sift_down(heap, numbers, n, row[j], np.int32(start + j))
                        worst = heap[0]
    for u in range(first, last):
        heap, numbers = scores[u], items[u]
        for size in range(n - 1, 0, -1):  # heap sort: the worst item goes to the end
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
    ranks: NDArray[np.int64],
    below: NDArray[np.int64],
    equal: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> None:
    """Find the ranks of the held-out items of the rows ``first:last`` of X.

    Parameters
    ----------
    held_bounds, held_out
        (s + 1,), (nnz,) row u has the held-out items ``held_out[held_bounds[u]:held_bounds[u + 1]]``.
    ranks
        (nnz,) overwritten: number of candidates before each held-out item, in the order of ``top_n_span``.
    below, equal
        (nnz,) overwritten: number of candidates with a lower score, and of others with the same score.
    candidates
        (s,) overwritten: number of candidates of each row.

    The other parameters are those of ``top_n_span``.
    """
    n_panels, d, width = panels.shape
    none = X.dtype.type(np.nan)
    rows = np.zeros((ROWS_PER_GROUP, d), X.dtype)
    part, all_scores = (
        np.empty((ROWS_PER_GROUP, width), X.dtype),
        np.empty((ROWS_PER_GROUP, n_panels * width), X.dtype),
    )
    for group in range(first, last, ROWS_PER_GROUP):
        size = min(ROWS_PER_GROUP, last - group)
        copy_block(X[group : group + size], rows)
        for p in range(n_panels):
            score_panel(rows, panels[p], part)
            copy_block(part, all_scores[:, p * width : (p + 1) * width])
        for r in range(size):
            u, row = group + r, all_scores[r]
            for j in range(n_items):
                if np.isnan(row[j]):
                    row[j] = -np.inf
            start, stop = held_bounds[u], held_bounds[u + 1]
            own = np.empty(stop - start, X.dtype)
            for n in range(start, stop):
                own[n - start] = row[held_out[n]]
            mask_scores(row, 0, n_items, excluded, bounds[u], bounds[u + 1], allowed, none)
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
                ranks[n] = above + same_before
                equal[n] = same - 1
                below[n] = total - above - same
