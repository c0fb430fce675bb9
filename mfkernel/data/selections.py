"""Parts of ratings and changed ratings, with their ids, weights and times."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.data import convert
from mfkernel.data.entries import Entries
from mfkernel.data.ids import Vocabulary
from mfkernel.data.weights import check_weights
from mfkernel.engines.threads import interruptible

if TYPE_CHECKING:
    from mfkernel.data.ratings import Ratings


class Selections(Entries):
    """Known ratings, of which some are selected, moved or changed; :class:`~mfkernel.Ratings` makes them."""

    @classmethod
    def of_parts(cls, csr: convert.Csr, *parts: Any) -> Ratings:
        """Wrap a checked matrix, with ids, weights, times and origin; see :meth:`Ratings.of_parts`."""
        raise NotImplementedError

    def _csr(self) -> convert.Csr:
        return convert.Csr(self.indptr, self.indices, self.values, self.shape)

    def _beside(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> list[Any]:
        """Return weights and timestamps, each moved as the values were, and the origin."""
        return [*(None if x is None else move(x) for x in (self.weights, self.timestamps)), self.origin]

    @property
    def T(self) -> Ratings:  # noqa: N802 (as numpy and scipy call it)
        """Transposed ratings, items as users; computed at each access in linear time."""
        csr = interruptible(lambda: convert.transpose_csr(self._csr()))

        def move(numbers: NDArray[Any]) -> NDArray[Any]:
            given = self._csr()._replace(values=numbers)
            return interruptible(lambda: convert.transpose_csr(given)).values

        *beside, origin = self._beside(move)
        return self.of_parts(csr, self.items_by_id, self.users_by_id, *beside, origin.transposed)

    def select(self, entries: NDArray[np.bool_]) -> Ratings:
        """Select ratings by a mask; shape and ids stay.

        Parameters
        ----------
        entries
            (nnz,) Boolean mask, True for the ratings to keep.

        Returns
        -------
        Ratings
            The marked ratings.
        """
        checks.unmasked("entries", entries)
        entries = np.array(entries)  # a copy: no other thread may change it before the counts below
        if entries.dtype != np.bool_ or entries.shape != (self.nnz,):
            raise ValueError(
                f"entries must be a mask of shape ({self.nnz},), got {entries.dtype} of shape {entries.shape}"
            )

        def kept() -> convert.Csr:
            indptr = np.concatenate([[0], np.cumsum(entries)])[self.indptr]
            return convert.Csr(indptr, self.indices[entries], self.values[entries], self.shape)

        own = interruptible(kept), self.users_by_id, self.items_by_id
        return self.of_parts(*own, *self._beside(lambda x: x[entries]))

    def take_rows(self, rows: ArrayLike) -> Ratings:
        """Return the rows of some users, in the given order and without user ids.

        Parameters
        ----------
        rows
            1-D array of row numbers, from 0 to m - 1.
        """
        rows = checks.copy_indices("rows", rows, self.n_users, "n_users")
        if rows.ndim != 1:
            raise ValueError(f"rows must be 1-D, got the shape {rows.shape}")
        starts, counts = self.indptr[:-1][rows], self.user_counts()[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        csr = convert.Csr(indptr, self.indices[at], self.values[at], (counts.size, self.n_items))
        return self.of_parts(csr, None, self.items_by_id, *self._beside(lambda x: x[at]))

    def reshaped(self, shape: tuple[int, int]) -> Ratings:
        """Return the ratings with empty rows and columns added at the end, without ids.

        Parameters
        ----------
        shape
            New (m, n), each at least as large as now.
        """
        m, n = convert.check_shape(shape)
        if m < self.n_users or n < self.n_items:
            raise ValueError(
                f"shape must be at least {self.shape}, got {(m, n)}; select and take_rows leave out"
            )
        indptr = np.concatenate([self.indptr, np.full(m - self.n_users, self.nnz)])
        csr = self._csr()._replace(indptr=indptr, shape=(m, n))
        return self.of_parts(csr, None, None, self.weights, self.timestamps, self.origin)

    def with_ids(self, users: Vocabulary | None, items: Vocabulary | None) -> Ratings:
        """Return the same ratings with other ids.

        Parameters
        ----------
        users, items
            Ids of the rows and of the columns, or None for no ids.
        """
        return self.of_parts(self._csr(), users, items, self.weights, self.timestamps, self.origin)

    def with_values(self, values: ArrayLike, weights: ArrayLike | None = None) -> Ratings:
        """Return the same entries with other values and weights.

        Parameters
        ----------
        values
            (nnz,) finite ratings. float32 stays; other types become float64.
        weights
            (nnz,) how often each rating counts, at least 0. Default: no weights.
        """
        checks.unmasked("values", values)
        given = np.asarray(values)
        if given.shape != (self.nnz,):
            raise ValueError(f"values must have the shape ({self.nnz},), one per rating, got {given.shape}")
        checks.numeric("values", given)
        dtype = np.dtype(np.float32 if given.dtype == np.float32 else np.float64)
        csr = self._csr()._replace(values=checks.copy_ratings(given, dtype, "values[{}]".format))
        if weights is not None:
            weights = check_weights(weights, self.nnz, "ratings")
        return self.of_parts(csr, self.users_by_id, self.items_by_id, weights, self.timestamps, self.origin)

    def hold_out(
        self, count: int, rng: np.random.Generator, *, keep_rows: bool = False
    ) -> tuple[Ratings, Ratings]:
        """Hold out random ratings.

        Parameters
        ----------
        count
            Number of ratings to hold out, from 0 to nnz.
        rng
            Random generator.
        keep_rows
            Keep at least one rating per user and per item, as far as ``count`` allows. Default: False.

        Returns
        -------
        tuple of Ratings
            The kept ratings and the held-out ones, both of the same shape and with the same ids.
        """
        if checks.integer("count", count, 0) > self.nnz:
            raise ValueError(f"count must be at most {self.nnz}, the number of ratings, got {count}")
        held_out = self._draw(count, rng, keep_rows)
        return self.select(~held_out), self.select(held_out)
