"""The entries of a CSR matrix of ratings: sizes, counts, mean and spread."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import Immutable, immutable
from mfkernel._support.html import facts_table
from mfkernel._support.lazy import lazy
from mfkernel.data import convert
from mfkernel.data.ids import Ids, Vocabulary
from mfkernel.data.origin import Origin

RATINGS_PER_COPY = 2**17  # ratings per block of float64 copies: 1 MiB


class Entries(Immutable):
    """Known ratings, row by row; :class:`~mfkernel.Ratings` says what they hold."""

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    shape: tuple[int, int]
    weights: NDArray[Any] | None
    timestamps: NDArray[np.float64] | None
    users_by_id: Vocabulary | None
    items_by_id: Vocabulary | None
    origin: Origin

    @property
    def n_users(self) -> int:
        """Number of rows, m."""
        return self.shape[0]

    @property
    def n_items(self) -> int:
        """Number of columns, n."""
        return self.shape[1]

    @property
    def user_ids(self) -> Ids:
        """(m,) ids of the rows, or None."""
        return None if self.users_by_id is None else self.users_by_id.ids

    @property
    def item_ids(self) -> Ids:
        """(n,) ids of the columns, or None."""
        return None if self.items_by_id is None else self.items_by_id.ids

    @property
    def nnz(self) -> int:
        """Number of known ratings."""
        return int(self.values.size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values: float32 or float64."""
        return self.values.dtype

    @lazy
    def users(self) -> NDArray[Any]:
        """(nnz,) row of each entry; computed on first use."""
        return immutable(convert.row_numbers(self.indptr))

    @property
    def items(self) -> NDArray[Any]:
        """(nnz,) column of each entry, the same as ``indices``."""
        return self.indices

    @lazy
    def mean(self) -> float:
        """Mean rating, weighted if there are weights; 0 without ratings."""
        return self._average(lambda x: x)

    @lazy
    def std(self) -> float:
        """Spread of the ratings: standard deviation, weighted like the mean; 0 if empty."""
        most = self.largest
        unit = 1.0 if 1e-100 < most < 1e100 else 2.0 ** math.frexp(most)[1]  # squares must not overflow

        def squares(x: NDArray[np.float64]) -> NDArray[np.float64]:
            x -= self.mean
            x /= unit
            return np.square(x, out=x)

        return unit * math.sqrt(self._average(squares))

    @lazy
    def largest(self) -> float:
        """Largest absolute rating; 0 without ratings."""
        values = self.values  # np.abs would copy them
        return max(float(values.max()), -float(values.min())) if self.nnz else 0.0

    @lazy
    def _total(self) -> float:
        return float(max(1, self.nnz) if self.weights is None else self.weights.sum(dtype=np.float64) or 1)

    def _repr_html_(self) -> str:
        (m, n), weights = self.shape, "no" if self.weights is None else "yes"
        density = f"{100 * self.nnz / (m * n):.3g} % of the cells" if m and n else "no cells"
        facts = [
            ("users × items", f"{m:,} × {n:,}"),
            ("ratings", f"{self.nnz:,}, {density}"),
            ("mean ± spread", f"{self.mean:.4g} ± {self.std:.4g}" if self.nnz else "no ratings"),
            ("ids", sides_with_ids(self.users_by_id, self.items_by_id)),
            ("weights", weights),
            ("times", "no" if self.timestamps is None else "yes"),
            ("dtype", self.dtype),
        ]
        return facts_table("Ratings", facts)

    def _average(self, of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        """Average a function of the ratings, weighted if there are weights.

        The function may change its argument. The sum runs over blocks, to keep the float64 copies small. It
        avoids BLAS, whose threads stay busy for a while.
        """
        total = 0.0
        for start in range(0, self.nnz, RATINGS_PER_COPY):
            part = slice(start, start + RATINGS_PER_COPY)
            terms = of(self.values[part].astype(np.float64))
            if self.weights is not None:
                terms *= self.weights[part]
            total += float(terms.sum())
        return total / self._total

    def user_counts(self) -> NDArray[np.int64]:
        """Count the ratings per user.

        Returns
        -------
        ndarray
            (m,) number of ratings per user.
        """
        return np.diff(self.indptr)

    def item_counts(self) -> NDArray[np.int64]:
        """Count the ratings per item.

        Returns
        -------
        ndarray
            (n,) number of ratings per item.
        """
        return self._item_counts

    @lazy
    def _item_counts(self) -> NDArray[np.int64]:
        from mfkernel.kernels.csr import count  # np.bincount would copy all indices to int64

        counts = np.zeros(self.n_items, np.int64)
        count(self.indices, counts)
        return immutable(counts)

    def _draw(self, count: int, rng: np.random.Generator, keep_rows: bool) -> NDArray[np.bool_]:
        """Return a mask of so many random entries; see :meth:`Ratings.hold_out`."""
        drawn = np.zeros(self.nnz, np.bool_)
        if not keep_rows:
            drawn[rng.choice(self.nnz, count, replace=False, shuffle=False)] = True
            return drawn
        priority = rng.random(self.nnz)
        for rows, size in ((self.users, self.n_users), (self.items, self.n_items)):
            last = np.zeros(size)
            np.maximum.at(last, rows, priority)
            # the last entry of both its user and its item is raised twice, so it is drawn even later
            priority[priority == last[rows]] += 1.0
        drawn[np.argpartition(priority, count)[:count]] = True
        return drawn


def sides_with_ids(users: Vocabulary | None, items: Vocabulary | None) -> str:
    """Say which sides have ids, for a reader."""
    sides = [name for name, ids in (("users", users), ("items", items)) if ids is not None]
    return f"yes, of {' and '.join(sides)}" if sides else "no"
