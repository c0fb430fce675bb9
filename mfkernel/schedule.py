"""The order of the ratings, as data: waves of tasks, a task being spans for one thread.

=============  =================================================================================
sequential     one wave of one task, the rows in (shuffled) order: the textbook loop
Hogwild        one wave of T tasks over row ranges that may collide in Q (Niu et al. 2011), each going
               through its rows one band of columns after another
=============  =================================================================================
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.convert import frozen
from mfkernel.ratings import Ratings


class Span(NamedTuple):
    """The rows ``order`` in turn, of each the entries ``starts[u]:stops[u]``."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


Task = list[Span]
Wave = list[Task]

MAX_BANDS = 16  # a row is visited once a band, and a band takes 8 bytes a row


class RowSchedule:
    """Rows cut into ``n_tasks`` ranges of about equally many ratings; one task is the sequential schedule.

    Several tasks run at once, without locks. Two that update the same row of Q at the same time lose an
    update, which SGD forgives; but each write also takes the cache line from the other core, which costs more
    than the arithmetic. So the columns are cut into as many bands, and each task goes through its rows band
    by band, beginning with another band than the rest: threads of equal speed are never in the same band (two
    threads, k = 32, data of the size of ML-1M: 1.1 times the speed of one without bands, 1.9 times with
    them). There are fewer bands than tasks where a row would have less than a rating in each.

    Parameters
    ----------
    ratings
        what is to be visited.
    n_tasks
        how many row ranges, if there are as many rows.
    shuffle
        permute the rows of each range before each epoch.

    References
    ----------
    Niu, Recht, Ré and Wright, "Hogwild: a lock-free approach to parallelizing stochastic gradient descent",
    NIPS 2011.
    """

    def __init__(self, ratings: Ratings, n_tasks: int, shuffle: bool) -> None:
        counts = ratings.user_counts()
        rows = np.flatnonzero(counts)
        self.n_rows = rows.size
        self.n_tasks = max(1, min(n_tasks, self.n_rows))
        self._ranges = np.split(rows, balanced_cuts(counts[rows], self.n_tasks)[1:-1])
        self._shuffle = shuffle
        n_bands = min(self.n_tasks, MAX_BANDS, 1 + ratings.nnz // max(1, self.n_rows))
        if n_bands == 1:
            self._bounds = [ratings.indptr[:-1], ratings.indptr[1:]]
        else:
            self._bounds = list(_band_bounds(ratings, n_bands))

    def waves(self, epoch: int, rng: np.random.Generator) -> list[Wave]:
        """Return the waves of one epoch; all ratings occur once."""
        n_bands = len(self._bounds) - 1
        wave = []
        for t, rows in enumerate(self._ranges):
            order = rng.permutation(rows) if self._shuffle else rows
            # an epoch starts in the band where the last one ended: its Q is still in this core's cache
            bands = [(t - epoch + step) % n_bands for step in range(n_bands)]
            wave.append([Span(order, self._bounds[b], self._bounds[b + 1]) for b in bands])
        return [wave]


def balanced_cuts(counts: NDArray[np.integer], n_parts: int) -> NDArray[np.int64]:
    """Cut a sequence of rows where the ratings before the cut are nearest to an equal share.

    Parameters
    ----------
    counts
        (n,) ratings of each row; their sum may exceed 32 bits.

    Returns
    -------
    ndarray
        (n_parts + 1,) from 0 to n; part t is ``cuts[t]:cuts[t + 1]``.
    """
    if n_parts == 1:
        return np.array([0, counts.size])
    before = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    shares = before[-1] * np.arange(n_parts + 1, dtype=np.float64) / n_parts
    right = np.searchsorted(before, shares).clip(max=counts.size)
    left = (right - 1).clip(min=0)
    cuts = np.where(shares - before[left] < before[right] - shares, left, right)
    cuts[0], cuts[-1] = 0, counts.size
    result: NDArray[np.int64] = cuts.astype(np.int64)
    return result


def _band_bounds(ratings: Ratings, n_bands: int) -> NDArray[np.int64]:
    from mfkernel.kernels.csr import band_bounds

    bounds = np.empty((n_bands + 1, ratings.n_users), np.int64)
    cuts = balanced_cuts(ratings.item_counts(), n_bands)
    band_bounds(ratings.indptr, ratings.indices, cuts, bounds)
    return frozen(bounds)
