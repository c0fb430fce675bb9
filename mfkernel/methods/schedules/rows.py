"""Schedules of SGD: the tasks of an epoch, and the tasks that each of them waits for.

=============  =================================================================================
sequential     one task: the rows in (shuffled) order, as in a textbook
hogwild        T tasks over row ranges, which may collide in Q (Niu et al. 2011); each processes
               its rows band by band of the columns, and none waits
blocks         B waves of B tasks that share no row of P and no row of Q (``blocks.py``)
=============  =================================================================================
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import Task, interruptible

if TYPE_CHECKING:
    from mfkernel.kernels.sgd import Update

RowMap = NDArray[np.int64] | slice


class Schedule(Protocol):
    """The tasks of each epoch, and the loop over the ratings of a task."""

    row_of_user: RowMap  # P[row_of_user] are the rows of P in the order of the users
    row_of_item: RowMap
    uses_known_rank: bool  # whether the kernel is faster if the compiler knows the rank

    def tasks(self, epoch: int) -> list[Task]:
        """Return the tasks of an epoch, in an order in which they may also run one by one."""
        ...

    def run_task(self, work: Any, cancelled: Callable[[], bool], budget: int, update: "Update") -> float:
        """Update the factors for the ratings of a task, ``budget`` per kernel call; return Σ e²."""
        ...

    def compile(self, update: "Update") -> None:
        """Compile the kernel by a call without ratings."""
        ...


class Span(NamedTuple):
    """The rows ``order``, in this order, with the entries ``starts[u]:stops[u]`` of row u."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


MAX_COLUMN_BANDS = 16  # bands: each row is visited once per band, and a band takes 8 bytes per row
MAX_UNINTERRUPTED_ROWS = 2**17  # rows: a permutation of more would delay Ctrl-C


class RowSchedule:
    """Rows in ``n_tasks`` ranges with about equal numbers of ratings; one task is the sequential schedule.

    Several tasks run in parallel, without locks. If two update the same row of Q at the same time, one update
    is lost, which SGD tolerates. But each write also takes the cache line from the other core, which costs
    more than the arithmetic.

    The columns are therefore cut into bands, one per task, unless a row would have less than one rating per
    band. Each task processes its rows band by band and begins with a band of its own, so threads of equal
    speed never share a band. Two threads have 1.9 times the speed of one with bands, and 1.1 times without
    (k = 32, ML-1M's size).

    Parameters
    ----------
    ratings
        Ratings to visit.
    n_tasks
        Number of row ranges, at most the number of rows.
    shuffle
        Whether to permute the rows of each range before each epoch.
    seed
        Seed of the permutations.

    References
    ----------
    Niu, Recht, Ré and Wright, "Hogwild: a lock-free approach to parallelizing stochastic gradient descent",
    NIPS 2011.
    """

    row_of_user: RowMap = slice(None)
    row_of_item: RowMap = slice(None)
    # each update waits for the last one of the same row; LLVM's loops are then faster
    uses_known_rank = False

    def __init__(self, ratings: Ratings, n_tasks: int, shuffle: bool, seed: int) -> None:
        self._ratings, self._shuffle, self._seed = ratings, shuffle, seed
        counts = ratings.user_counts()
        rows = np.flatnonzero(counts)
        n_tasks = max(1, min(n_tasks, rows.size))
        self._ranges = np.split(rows, balanced_cuts(counts[rows], n_tasks)[1:-1])
        n_bands = min(n_tasks, MAX_COLUMN_BANDS, 1 + ratings.nnz // max(1, rows.size))
        if n_bands == 1:
            self._bounds = [ratings.indptr[:-1], ratings.indptr[1:]]
        else:
            self._bounds = list(_band_bounds(ratings, n_bands))

    def tasks(self, epoch: int) -> list[Task]:
        """Return the row ranges, each as spans of bands; each rating occurs once."""
        n_bands = len(self._bounds) - 1

        def make() -> list[Task]:
            rng = epoch_rng(self._seed, epoch)
            tasks = []
            for t, rows in enumerate(self._ranges):
                order = rng.permutation(rows) if self._shuffle else rows
                # an epoch starts in the band where the last one ended, whose Q is still in the core's cache
                bands = [(t - epoch + step) % n_bands for step in range(n_bands)]
                tasks.append(Task([Span(order, self._bounds[b], self._bounds[b + 1]) for b in bands]))
            return tasks

        return interruptible(make) if self._ratings.n_users > MAX_UNINTERRUPTED_ROWS else make()

    def compile(self, update: "Update") -> None:
        """Compile the kernel by a call without rows."""
        nothing, bounds = np.empty(0, np.int64), self._bounds
        self._sweep(Span(nothing, bounds[0], bounds[1]), np.zeros(2, np.int64), 1, update)

    def run_task(
        self, spans: list[Span], cancelled: Callable[[], bool], budget: int, update: "Update"
    ) -> float:
        """Update the factors for the ratings of the spans; return the sum of squared residuals."""
        loss = 0.0
        for span in spans:
            cursor = np.zeros(2, np.int64)
            while cursor[0] < span.order.size and not cancelled():
                loss += self._sweep(span, cursor, budget, update)
        return loss

    def _sweep(self, span: Span, cursor: NDArray[np.int64], budget: int, update: "Update") -> float:
        from mfkernel.kernels.sgd import Rows, sgd_span

        rows = Rows(span.starts, span.stops, self._ratings.indices, self._ratings.values)
        return sgd_span(span.order, cursor, budget, rows, *update, self._ratings.weights)


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the random generator of an epoch, which does not depend on other epochs."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch]))


def balanced_cuts(counts: NDArray[np.integer], n_parts: int) -> NDArray[np.int64]:
    """Cut a sequence of rows into parts with about equal numbers of ratings.

    Parameters
    ----------
    counts
        (n,) number of ratings per row. The sum may exceed 32 bits.

    Returns
    -------
    ndarray
        (n_parts + 1,) cuts from 0 to n. Part t is ``cuts[t]:cuts[t + 1]``.
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
    return readonly(bounds)
