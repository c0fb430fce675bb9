"""The checked, immutable container of known ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike, NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import immutable
from mfkernel.data import convert
from mfkernel.data.frames import Named
from mfkernel.data.ids import Vocabulary
from mfkernel.data.named import number_frame, number_ids
from mfkernel.data.origin import NO_FRAME, Origin
from mfkernel.data.selections import Selections
from mfkernel.data.times import align_times, as_times, triplets_of
from mfkernel.data.weights import align_weights, copy_input
from mfkernel.engines.threads import interruptible

if TYPE_CHECKING:
    from scipy import sparse


class Ratings(Selections):
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
        (m,), (n,) ids of the rows and columns: unique integers or text. Default: those of R, if it has any.
    sample_weight
        How often each rating counts, at least 0: (m, n) like R, or one-dimensional in the order of the
        triplets, of ``R.data``, or of the values of a ``Ratings``. Default: each rating counts once.
    timestamps
        When each rating was given: dates, or numbers in any unit, in the order of the triplets, of
        ``R.data``, or of the values of a ``Ratings``. Dates become seconds since 1970. The ``"last"`` of
        duplicates is then the latest. Default: those of R, if it has any.
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
    timestamps
        (nnz,) float64 time of each rating, or None.
    origin
        The library and the columns of the data frame that the ratings came from.

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
        timestamps: Any = None,
        copy: bool = True,
    ) -> None:
        checks.one_of("missing", missing, convert.MISSING)
        checks.one_of("duplicates", duplicates, convert.DUPLICATES)
        float_type = None if dtype is None else checks.float_dtype(dtype)
        R = number_ids(R)
        origin = R.origin if isinstance(R, Named | Ratings) else NO_FRAME
        if isinstance(R, Named):
            duplicates = "sum" if origin.counted else duplicates
            user_ids = R.user_ids if user_ids is None else user_ids
            item_ids = R.item_ids if item_ids is None else item_ids
            timestamps = R.timestamps if timestamps is None else timestamps
            R = R.ratings
        if sample_weight is not None or timestamps is not None:
            R = copy_input(R)  # because R is read twice
        times = None if timestamps is None else as_times("timestamps", timestamps)
        R = R if times is None else triplets_of(R)
        if isinstance(R, Ratings):
            user_ids = R.users_by_id if user_ids is None else user_ids
            item_ids = R.items_by_id if item_ids is None else item_ids
            csr, weights, kept_times = R._csr(), R.weights, R.timestamps
            if float_type is not None and float_type != R.dtype:
                csr = csr._replace(values=checks.copy_ratings(R.values, float_type, "values[{}]".format))
        else:
            csr = convert.to_csr_of_ids(R, missing, duplicates, float_type, copy, user_ids, item_ids, times)
            weights = kept_times = None
        if sample_weight is not None:
            weights = interruptible(lambda: align_weights(sample_weight, R, csr, duplicates, times))
        if times is not None:
            kept_times = interruptible(lambda: align_times(times, R, csr))
        self._set(csr, user_ids, item_ids, weights, kept_times, origin)

    @classmethod
    @checks.explains_names
    def from_frame(
        cls,
        frame: Any,
        *,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        timestamp: str | None = None,
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
        timestamp
            Name of a column of dates or numbers, to keep as ``timestamps``. Default: none is kept.
        count
            Add up the rows of each user and item, each as a 1. Default: False.
        nulls
            Whether missing ids, ratings and times ``"raise"`` an error, or their rows are left out,
            ``"drop"``. Default: ``"raise"``.
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
        form: dict[str, Any] = {"count": checks.boolean("count", count), "nulls": nulls}
        read = number_frame(frame, user=user, item=item, rating=rating, timestamp=timestamp, **form)
        return cls(read, missing=missing, duplicates=duplicates, dtype=dtype)

    def _set(
        self,
        csr: convert.Csr,
        user_ids: Any,
        item_ids: Any,
        weights: NDArray[Any] | None = None,
        timestamps: NDArray[Any] | None = None,
        origin: Origin = NO_FRAME,
    ) -> None:
        m, n = int(csr.shape[0]), int(csr.shape[1])
        if any(x is not None and x.shape != csr.values.shape for x in (weights, timestamps)):
            raise ValueError("R must not change while it is read, but another thread has changed it")
        self._set_once(
            indptr=immutable(csr.indptr),
            indices=immutable(csr.indices),
            values=immutable(csr.values),
            weights=None if weights is None else immutable(weights.astype(csr.values.dtype, copy=False)),
            timestamps=None if timestamps is None else immutable(timestamps),
            shape=(m, n),
            users_by_id=Vocabulary.of("user_ids", user_ids, m),
            items_by_id=Vocabulary.of("item_ids", item_ids, n),
            origin=origin,
        )

    @classmethod
    def of_parts(cls, csr: convert.Csr, *parts: Any) -> Ratings:
        """Wrap a checked matrix that no other object owns, with ids, weights, times and origin.

        Parameters
        ----------
        csr
            The matrix.
        *parts
            User ids, item ids, weights, timestamps and origin.
        """
        ratings = cls.__new__(cls)
        ratings._set(csr, *parts)
        return ratings

    @classmethod
    def of_csr(
        cls,
        indptr: NDArray[Any],
        indices: NDArray[Any],
        values: NDArray[Any],
        shape: tuple[int, int],
        weights: NDArray[Any] | None = None,
        timestamps: NDArray[Any] | None = None,
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
        timestamps
            (nnz,) time of each rating. Default: unknown.
        """
        from scipy import sparse

        for name, array in (("indptr", indptr), ("indices", indices)):
            if array.dtype.kind not in "iu":  # SciPy would convert them to integers
                raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
        R = sparse.csr_array((values, indices, indptr), shape=shape)
        ratings = cls(R, sample_weight=weights, copy=False)
        return ratings if timestamps is None else cls(ratings, timestamps=timestamps)

    def __reduce__(self) -> tuple[Any, ...]:
        # pickling loses the read-only flag
        own = self._csr(), self.users_by_id, self.items_by_id, self.weights, self.timestamps, self.origin
        return Ratings.of_parts, own

    def to_scipy(self) -> sparse.csr_array:
        """Return a copy as ``scipy.sparse.csr_array``."""
        from scipy import sparse

        return sparse.csr_array((self.values, self.indices, self.indptr), shape=self.shape, copy=True)

    def __repr__(self) -> str:
        return f"Ratings({self.n_users:,} users × {self.n_items:,} items, {self.nnz:,} ratings, {self.dtype})"
