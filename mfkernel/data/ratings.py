"""The checked, immutable container of known ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import immutable
from mfkernel.data import convert
from mfkernel.data.entries import Entries
from mfkernel.data.frames import Named
from mfkernel.data.ids import Vocabulary
from mfkernel.data.named import number_frame, number_ids
from mfkernel.data.weights import align_weights, check_weights, copy_input
from mfkernel.engines.threads import interruptible

if TYPE_CHECKING:
    from scipy import sparse


class Ratings(Entries):
    """Known ratings of m users for n items: a checked, immutable CSR matrix.

    Each row is sorted by item and has an item at most once. All numbers are in range and all ratings finite.
    The arrays are read-only and owned by the object. Threads may share it.

    Parameters
    ----------
    R
        A dense (m, n) array, where ``missing`` says which values are unknown. A masked array. Any
        ``scipy.sparse`` matrix or array: all stored entries are ratings, also explicit zeros, but not the
        zeros with which DIA and BSR blocks beyond 1 × 1 are padded. A tuple ``(users, items, values)``, where
        text is an id and integers are positions, or ``(users, items, values, shape)``; a list is a dense
        array. A data frame, as for :meth:`from_frame`.
    missing
        Unknown values of a dense array: ``"zero"`` for zero and nan, ``"nan"`` for nan only. Ignored if R is
        a ``Ratings``. Default: ``"zero"``.
    duplicates
        How to merge several ratings of one user for one item: ``"raise"`` an error, or take their ``"sum"``,
        their ``"mean"`` or the ``"last"``. Ignored if R is a ``Ratings``. Default: ``"raise"``.
    dtype
        float32 or float64. Default: float32 if the type of the values always fits in it (float16, float32,
        integers up to 16 bits), else float64.
    user_ids, item_ids
        (m,), (n,) ids of the rows and columns: integers or text, unique, none missing. Default: those of R,
        if it has any.
    sample_weight
        How often each rating counts, at least 0: (m, n) like R, or one-dimensional in the order of the
        triplets, of ``R.data``, or of the values of a ``Ratings``. Default: each rating counts once.
    copy
        Pass False to share the values of a CSR matrix of float32 or float64. The values must then not change
        while the ratings are in use. Row and column numbers are always copied. Default: True.

    Attributes
    ----------
    indptr
        (m + 1,) int64. User u has the entries ``indptr[u]:indptr[u + 1]``.
    indices
        (nnz,) item of each rating. int32, or int64 for more than 2³¹ - 1 items.
    values
        (nnz,) ratings.
    weights
        (nnz,) how often each rating counts, or None.

    Raises
    ------
    TypeError, ValueError
        If R cannot be read as ratings. The message names the first wrong value and its position.

    Examples
    --------
    >>> R = Ratings([[5, 3, 0], [4, 0, 0]])
    >>> R
    Ratings(2 users × 3 items, 3 ratings, float64)
    >>> R.T.indices
    array([0, 1, 0], dtype=int32)
    """

    _remedy = "ratings never change; with_values, select and mf.Ratings(…) make new ones"

    @checks.explains_names
    def __init__(
        self,
        R: Any,
        *,
        missing: str = "zero",
        duplicates: str = "raise",
        dtype: DTypeLike | None = None,
        user_ids: Any = None,
        item_ids: Any = None,
        sample_weight: Any = None,
        copy: bool = True,
    ) -> None:
        checks.one_of("missing", missing, convert.MISSING)
        checks.one_of("duplicates", duplicates, convert.DUPLICATES)
        float_type = None if dtype is None else checks.float_dtype(dtype)
        R = number_ids(R)
        if isinstance(R, Named):
            user_ids = R.user_ids if user_ids is None else user_ids
            item_ids = R.item_ids if item_ids is None else item_ids
            R = R.ratings
        if sample_weight is not None:
            R = copy_input(R)  # because R is read twice
        if isinstance(R, Ratings):
            user_ids = R.users_by_id if user_ids is None else user_ids
            item_ids = R.items_by_id if item_ids is None else item_ids
            csr = R._csr()
            if float_type is not None and float_type != R.dtype:
                csr = csr._replace(values=checks.copy_ratings(R.values, float_type, "values[{}]".format))
        else:
            csr = convert.to_csr_of_ids(R, missing, duplicates, float_type, copy, user_ids, item_ids)
        weights = R.weights if isinstance(R, Ratings) else None
        if sample_weight is not None:
            weights = interruptible(lambda: align_weights(sample_weight, R, csr, duplicates))
        self._set(csr, user_ids, item_ids, weights)

    @classmethod
    @checks.explains_names
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        count: bool = False,
        nulls: str = "raise",
        missing: str = "zero",
        duplicates: str = "raise",
        dtype: DTypeLike | None = None,
    ) -> Ratings:
        """Read a data frame of pandas, polars, Arrow or another library (extra ``frame``).

        Ids are sorted. A categorical column keeps its categories and their order, also unused ones.

        Parameters
        ----------
        frame
            Frame with a row per rating; or with a row per user and a column per item, whose index and column
            names are the ids.
        user, item, rating
            Names of the columns. Default: found by their usual names, such as ``userId``, ``movie_id`` and
            ``stars``. Without a column of ratings, each row is a 1.
        count
            Add up the rows of each user and item, each as a 1. Default: False.
        nulls
            Whether missing ids and ratings ``"raise"`` an error, or their rows are left out, ``"drop"``.
            Default: ``"raise"``.
        missing, duplicates, dtype
            As for :class:`Ratings`.

        Returns
        -------
        Ratings
            The ratings, with ids.

        Raises
        ------
        ImportError
            If narwhals is not installed.
        TypeError, ValueError
            If a column is not in the frame, has missing values, or cannot be read.

        Examples
        --------
        >>> import pandas
        >>> frame = pandas.DataFrame({"who": ["ada", "bob"], "film": ["Heat", "Cube"], "stars": [5, 3]})
        >>> R = Ratings.from_frame(frame, user="who", item="film")
        >>> R.user_ids.tolist(), R.item_ids.tolist()
        (['ada', 'bob'], ['Cube', 'Heat'])
        """
        columns: dict[str, Any] = {"user": user, "item": item, "rating": rating}
        read = number_frame(frame, **columns, count=checks.boolean("count", count), nulls=nulls)
        return cls(
            read.ratings,
            missing=missing,
            duplicates="sum" if count else duplicates,
            dtype=dtype,
            user_ids=read.user_ids,
            item_ids=read.item_ids,
        )

    def _set(
        self, csr: convert.Csr, user_ids: Any, item_ids: Any, weights: NDArray[Any] | None = None
    ) -> None:
        m, n = int(csr.shape[0]), int(csr.shape[1])
        if weights is not None and weights.shape != csr.values.shape:
            raise ValueError("R must not change while it is read, but another thread has changed it")
        self._set_once(
            indptr=immutable(csr.indptr),
            indices=immutable(csr.indices),
            values=immutable(csr.values),
            weights=None if weights is None else immutable(weights.astype(csr.values.dtype, copy=False)),
            shape=(m, n),
            users_by_id=Vocabulary.of("user_ids", user_ids, m),
            items_by_id=Vocabulary.of("item_ids", item_ids, n),
        )

    @classmethod
    def _of(
        cls, csr: convert.Csr, user_ids: Any, item_ids: Any, weights: NDArray[Any] | None = None
    ) -> Ratings:
        """Wrap a checked matrix that no other object owns."""
        ratings = cls.__new__(cls)
        ratings._set(csr, user_ids, item_ids, weights)
        return ratings

    @classmethod
    def of_csr(
        cls,
        indptr: NDArray[Any],
        indices: NDArray[Any],
        values: NDArray[Any],
        shape: tuple[int, int],
        weights: NDArray[Any] | None = None,
    ) -> Ratings:
        """Check the arrays of a CSR matrix, and share their memory where possible.

        Parameters
        ----------
        indptr, indices, values
            Arrays of the CSR matrix: row pointers (m + 1,), column numbers (nnz,) and ratings (nnz,).
        shape
            (m, n), number of users and items.
        weights
            (nnz,) how often each rating counts, at least 0. Default: each rating counts once.
        """
        from scipy import sparse

        for name, array in (("indptr", indptr), ("indices", indices)):
            if array.dtype.kind not in "iu":  # SciPy would convert them to integers
                raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
        R = sparse.csr_array((values, indices, indptr), shape=shape)
        return cls(R, sample_weight=weights, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # pickling loses the read-only flag
        return Ratings._of, (self._csr(), self.users_by_id, self.items_by_id, self.weights)

    def _csr(self) -> convert.Csr:
        return convert.Csr(self.indptr, self.indices, self.values, self.shape)

    @property
    def T(self) -> Ratings:  # noqa: N802 (as numpy and scipy call it)
        """Transposed ratings, items as users; computed at each access in linear time."""
        csr = interruptible(lambda: convert.transpose_csr(self._csr()))
        weights = self.weights
        if weights is not None:
            given = self._csr()._replace(values=weights)
            weights = interruptible(lambda: convert.transpose_csr(given)).values
        return Ratings._of(csr, self.items_by_id, self.users_by_id, weights)

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

        csr = interruptible(kept)
        weights = None if self.weights is None else self.weights[entries]
        return Ratings._of(csr, self.users_by_id, self.items_by_id, weights)

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
        return Ratings._of(csr, None, self.items_by_id, None if self.weights is None else self.weights[at])

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
        return Ratings._of(self._csr()._replace(indptr=indptr, shape=(m, n)), None, None, self.weights)

    def with_ids(self, users: Vocabulary | None, items: Vocabulary | None) -> Ratings:
        """Return the same ratings with other ids.

        Parameters
        ----------
        users, items
            Ids of the rows and of the columns, or None for no ids.
        """
        return Ratings._of(self._csr(), users, items, self.weights)

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
        return Ratings._of(csr, self.users_by_id, self.items_by_id, weights)

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
        held_out = np.zeros(self.nnz, np.bool_)
        if keep_rows:
            priority = rng.random(self.nnz)
            for rows, size in ((self.users, self.n_users), (self.items, self.n_items)):
                last = np.zeros(size)
                np.maximum.at(last, rows, priority)
                # the last rating of both its user and its item is raised twice, so it is held out even later
                priority[priority == last[rows]] += 1.0
            held_out[np.argpartition(priority, count)[:count]] = True
        else:
            held_out[rng.choice(self.nnz, count, replace=False, shuffle=False)] = True
        return self.select(~held_out), self.select(held_out)

    def to_scipy(self) -> sparse.csr_array:
        """Return a copy as ``scipy.sparse.csr_array``."""
        from scipy import sparse

        return sparse.csr_array((self.values, self.indices, self.indptr), shape=self.shape, copy=True)

    def __repr__(self) -> str:
        return f"Ratings({self.n_users:,} users × {self.n_items:,} items, {self.nnz:,} ratings, {self.dtype})"
