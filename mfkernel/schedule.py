"""The order of the ratings, as data: waves of tasks, a task being spans for one thread.

=============  =================================================================================
sequential     one wave of one task, the rows in (shuffled) order: the textbook loop
Hogwild        one wave of T tasks over row ranges that may collide in Q (Niu et al. 2011)
=============  =================================================================================
"""

from collections.abc import Iterator
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


class RowSchedule:
    """Rows cut into ``n_tasks`` ranges of about equally many ratings; one task is the sequential schedule.

    Several tasks run at once, without locks. Two that update the same row of Q at the same time lose an
    update, which SGD forgives; but each write also takes the cache line from the other core, which costs more
    than the arithmetic. So the columns are cut into as many bands, and task t goes through its rows band by
    band, beginning with band t: threads of equal speed are never in the same band (two threads, k = 32, data
    of the size of ML-1M: 1.1 times the speed of one without bands, 1.7 times with them).

    Parameters
    ----------
    ratings
        what is to be visited.
    n_tasks
        how many row ranges; cut down to the number of items, as there are no more bands than that.
    shuffle
        permute the rows before each epoch.

    References
    ----------
    Niu, Recht, Ré and Wright, "Hogwild: a lock-free approach to parallelizing stochastic gradient descent",
    NIPS 2011.
    """

    def __init__(self, ratings: Ratings, n_tasks: int, shuffle: bool) -> None:
        self.n_tasks = max(1, min(n_tasks, ratings.n_items, ratings.n_users))
        self._counts = ratings.user_counts()
        self._shuffle = shuffle
        if self.n_tasks == 1:
            self._bounds = [ratings.indptr[:-1], ratings.indptr[1:]]
        else:
            self._bounds = list(_band_bounds(ratings, self.n_tasks))

    def waves(self, rng: np.random.Generator) -> Iterator[Wave]:
        """Yield the waves of one epoch; all ratings occur once."""
        n_rows = self._counts.size
        order = rng.permutation(n_rows) if self._shuffle else np.arange(n_rows)
        cuts = balanced_cuts(self._counts[order], self.n_tasks)
        bands = range(self.n_tasks)
        yield [
            [
                Span(order[cuts[t] : cuts[t + 1]], self._bounds[b], self._bounds[b + 1])
                for b in [*bands[t:], *bands[:t]]
            ]
            for t in bands
        ]


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
