"""The one checked container of known ratings."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import Immutable, immutable
from mfkernel._support.lazy import lazy
from mfkernel.data import convert
from mfkernel.data.ids import Ids, Vocabulary, as_ids
from mfkernel.data.weights import aligned, checked, own
from mfkernel.engines.threads import interruptible

if TYPE_CHECKING:
    from scipy import sparse


BLOCK = 2**17  # ratings that are handled at once in float64


class Ratings(Immutable):
    """Known ratings of m users for n items: a CSR matrix that has been checked and cannot be changed.

    Rows are sorted by item and hold an item at most once; every number is in range and every rating finite.
    The arrays are read-only, and their own. Threads may share it.

    Parameters
    ----------
    R
        A dense (m, n) array, in which zero and nan are unknown (see ``missing``); a masked array; any
        ``scipy.sparse`` matrix or array, whose stored entries are ratings, explicit zeros too (but DIA, and
        BSR with blocks beyond 1 × 1, store zeros only to fill up); or triplets ``(users, items, values)`` or
        ``(users, items, values, shape)`` in a tuple (a list is a dense array).
    missing
        ``"zero"``: zero and nan are unknown in a dense array; ``"nan"``: only nan is.
    duplicates
        How several ratings of one user for one item are merged: ``"raise"`` an error, or their ``"sum"``,
        their ``"mean"`` or the ``"last"``.
        Neither matters for what is a ``Ratings`` already.
    dtype
        float32 or float64; by default float32 where that holds the values exactly by their type (float16,
        float32, integers up to 16 bits), else float64.
    user_ids, item_ids
        (m,), (n,) what the rows and columns are called outside, if not by number: integers or text, none
        missing and each once.
    sample_weight
        How often each rating counts, at least zero: (m, n) like R, or in one dimension in the order of the
        triplets, of ``R.data``, or of the values of a ``Ratings``. By default once.
    copy
        Pass False to share the values with a CSR matrix that has them as float32 or float64; they must then
        not change while the ratings are in use. Row and column numbers are copied in any case.

    Attributes
    ----------
    indptr
        (m + 1,) int64; user u has the entries ``indptr[u]:indptr[u + 1]``.
    indices
        (nnz,) the items, int32, or int64 if there are more than 2³¹ - 1.
    values
        (nnz,) the ratings.
    weights
        (nnz,) how often each counts, or None.

    Raises
    ------
    TypeError, ValueError
        If R cannot be read as ratings; the message names the first bad value and its place.

    Examples
    --------
    >>> R = Ratings([[5, 3, 0], [4, 0, 0]])
    >>> R
    Ratings(2 users × 3 items, 3 ratings, float64)
    >>> R.T.indices
    array([0, 1, 0], dtype=int32)
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]
    shape: tuple[int, int]
    weights: NDArray[Any] | None
    users_by_id: Vocabulary | None
    items_by_id: Vocabulary | None

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
        known_dtype = None if dtype is None else checks.float_dtype(dtype)
        if sample_weight is not None:
            R = own(R)  # which is read twice
        if isinstance(R, Ratings):
            user_ids = R.users_by_id if user_ids is None else user_ids
            item_ids = R.items_by_id if item_ids is None else item_ids
            csr = R._csr()
            if known_dtype is not None and known_dtype != R.dtype:
                csr = csr._replace(values=checks.copied(R.values, known_dtype, "values[{}]".format))
        else:
            csr = self._converted(R, missing, duplicates, known_dtype, copy, user_ids, item_ids)
        weights = R.weights if isinstance(R, Ratings) else None
        if sample_weight is not None:
            weights = interruptible(lambda: aligned(sample_weight, R, csr, duplicates))
        self._set(csr, user_ids, item_ids, weights)

    @staticmethod
    def _converted(
        R: Any,
        missing: str,
        duplicates: str,
        dtype: np.dtype[Any] | None,
        copy: bool,
        user_ids: Any,
        item_ids: Any,
    ) -> convert.Csr:
        try:
            return interruptible(lambda: convert.to_csr(R, missing, duplicates, dtype, copy))
        except convert.DuplicateError as error:
            names = []
            for name, ids, number in (("user_ids", user_ids, error.user), ("item_ids", item_ids, error.item)):
                known = None if ids is None else as_ids(name, ids).ravel()
                names.append(number if known is None or number >= known.size else known.tolist()[number])
            raise convert.DuplicateError(error.count, *names) from None

    def _set(
        self, csr: convert.Csr, user_ids: Any, item_ids: Any, weights: NDArray[Any] | None = None
    ) -> None:
        m, n = int(csr.shape[0]), int(csr.shape[1])
        if weights is not None and weights.shape != csr.values.shape:
            raise ValueError("R has changed while its weights were read")
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
    ) -> "Ratings":
        """Make ratings of a matrix that has been checked, and is nobody else's."""
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
    ) -> "Ratings":
        """Check the arrays of a CSR matrix, and share their memory where that is possible."""
        from scipy import sparse

        for name, array in (("indptr", indptr), ("indices", indices)):
            if array.dtype.kind not in "iu":  # SciPy would make them integers
                raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
        R = sparse.csr_array((values, indices, indptr), shape=shape)
        return cls(R, sample_weight=weights, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # a pickled array forgets that it is read-only
        return Ratings._of, (self._csr(), self.users_by_id, self.items_by_id, self.weights)

    def _csr(self) -> convert.Csr:
        return convert.Csr(self.indptr, self.indices, self.values, self.shape)

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
        """(m,) what the rows are called outside, or None."""
        return None if self.users_by_id is None else self.users_by_id.ids

    @property
    def item_ids(self) -> Ids:
        """(n,) what the columns are called outside, or None."""
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
        """(nnz,) the row of each entry; made on first use."""
        return immutable(convert.row_numbers(self.indptr))

    @property
    def items(self) -> NDArray[Any]:
        """(nnz,) the column of each entry, another name of ``indices``."""
        return self.indices

    @lazy
    def mean(self) -> float:
        """Mean rating, weighted if there are weights; 0 if there is none."""
        return self._average(lambda x: x)

    @lazy
    def std(self) -> float:
        """Spread of the ratings, their standard deviation, weighted like the mean; 0 if there is none."""
        most = self.largest
        unit = 1.0 if 1e-100 < most < 1e100 else 2.0 ** math.frexp(most)[1]  # squares must not overflow

        def squares(x: NDArray[np.float64]) -> NDArray[np.float64]:
            x -= self.mean
            x /= unit
            return np.square(x, out=x)

        return unit * math.sqrt(self._average(squares))

    @lazy
    def largest(self) -> float:
        """Largest absolute rating; 0 if there is none."""
        values = self.values  # of which np.abs would be a copy
        return max(float(values.max()), -float(values.min())) if self.nnz else 0.0

    @lazy
    def _total(self) -> float:
        return float(max(1, self.nnz) if self.weights is None else self.weights.sum(dtype=np.float64) or 1)

    def _average(self, of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        """Average something of the ratings, which may change its argument, weighted if there are weights.

        In blocks, of which float64 copies are small, and without BLAS, whose threads stay busy for a while.
        """
        total = 0.0
        for start in range(0, self.nnz, BLOCK):
            part = slice(start, start + BLOCK)
            terms = of(self.values[part].astype(np.float64))
            if self.weights is not None:
                terms *= self.weights[part]
            total += float(terms.sum())
        return total / self._total

    @property
    def T(self) -> "Ratings":  # noqa: N802 (as numpy and scipy call it)
        """The transposed ratings, items as users and users as items; made on each call, in linear time."""
        csr = interruptible(lambda: convert.transposed(self._csr()))
        weights = self.weights
        if weights is not None:
            given = self._csr()._replace(values=weights)
            weights = interruptible(lambda: convert.transposed(given)).values
        return Ratings._of(csr, self.items_by_id, self.users_by_id, weights)

    def user_counts(self) -> NDArray[np.int64]:
        """Count the ratings of each user, (m,)."""
        return np.diff(self.indptr)

    def item_counts(self) -> NDArray[np.int64]:
        """Count the ratings of each item, (n,)."""
        return self._item_counts

    @lazy
    def _item_counts(self) -> NDArray[np.int64]:
        from mfkernel.kernels.csr import count  # np.bincount would copy all indices to int64

        counts = np.zeros(self.n_items, np.int64)
        count(self.indices, counts)
        return immutable(counts)

    def select(self, entries: NDArray[np.bool_]) -> "Ratings":
        """Keep the ratings that the (nnz,) mask marks; shape and ids stay."""
        checks.unmasked("entries", entries)
        entries = np.array(entries)  # nobody may change what the counts below are made of
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

    def take_rows(self, rows: ArrayLike) -> "Ratings":
        """Return the rows of these users, a 1-D array, in this order and without their ids."""
        rows = checks.bounded("rows", rows, self.n_users, "n_users")
        if rows.ndim != 1:
            raise ValueError(f"rows must be 1-D, got the shape {rows.shape}")
        starts, counts = self.indptr[:-1][rows], self.user_counts()[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        csr = convert.Csr(indptr, self.indices[at], self.values[at], (counts.size, self.n_items))
        return Ratings._of(csr, None, self.items_by_id, None if self.weights is None else self.weights[at])

    def reshaped(self, shape: tuple[int, int]) -> "Ratings":
        """Return the same ratings with rows and columns without ratings added at the end, and no ids."""
        m, n = convert.check_shape(shape)
        if m < self.n_users or n < self.n_items:
            raise ValueError(
                f"shape must be at least {self.shape}, got {(m, n)}; select and take_rows leave out"
            )
        indptr = np.concatenate([self.indptr, np.full(m - self.n_users, self.nnz)])
        return Ratings._of(self._csr()._replace(indptr=indptr, shape=(m, n)), None, None, self.weights)

    def with_ids(self, users: Vocabulary | None, items: Vocabulary | None) -> "Ratings":
        """Return the same ratings with other ids."""
        return Ratings._of(self._csr(), users, items, self.weights)

    def with_values(self, values: ArrayLike, weights: ArrayLike | None = None) -> "Ratings":
        """Return the same entries with other values, (nnz,), finite, and other weights, or none.

        Values of another type than float32 become float64.
        """
        checks.unmasked("values", values)
        given = np.asarray(values)
        if given.shape != (self.nnz,):
            raise ValueError(f"values must have the shape ({self.nnz},), one per rating, got {given.shape}")
        checks.numeric("values", given)
        dtype = np.dtype(np.float32 if given.dtype == np.float32 else np.float64)
        csr = self._csr()._replace(values=checks.copied(given, dtype, "values[{}]".format))
        if weights is not None:
            weights = checked(weights, self.nnz, "ratings")
        return Ratings._of(csr, self.users_by_id, self.items_by_id, weights)

    def hold_out(
        self, count: int, rng: np.random.Generator, *, keep_rows: bool = False
    ) -> "tuple[Ratings, Ratings]":
        """Part the ratings at random into those that are kept and ``count`` that are held out.

        With ``keep_rows``, a rating of each user and of each item is kept if so many can be.
        """
        if checks.integer("count", count, 0) > self.nnz:
            raise ValueError(f"count must be at most {self.nnz}, the number of ratings, got {count}")
        held_out = np.zeros(self.nnz, np.bool_)
        if keep_rows:
            turn = rng.random(self.nnz)
            for rows, size in ((self.users, self.n_users), (self.items, self.n_items)):
                last = np.zeros(size)
                np.maximum.at(last, rows, turn)
                turn[turn == last[rows]] += 1.0  # of both, a user's and an item's last: later still
            held_out[np.argpartition(turn, count)[:count]] = True
        else:
            held_out[rng.choice(self.nnz, count, replace=False, shuffle=False)] = True
        return self.select(~held_out), self.select(held_out)

    def to_scipy(self) -> "sparse.csr_array":
        """Return a copy as ``scipy.sparse.csr_array``."""
        from scipy import sparse

        return sparse.csr_array((self.values, self.indices, self.indptr), shape=self.shape, copy=True)

    def __repr__(self) -> str:
        return f"Ratings({self.n_users:,} users × {self.n_items:,} items, {self.nnz:,} ratings, {self.dtype})"
