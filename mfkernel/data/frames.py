"""Read data frames of any library: a row per rating, or a row per user and a column per item.

Narwhals reads frames with a row per rating; no other module knows a frame library.
"""

import re
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.frames import LIBRARIES as FRAME_LIBRARIES
from mfkernel._support.lazy import import_extra
from mfkernel.data.ids import Vocabulary
from mfkernel.data.origin import COLUMN_KINDS, NO_FRAME, Origin
from mfkernel.data.tables import FRAME_COLUMN_NAMES, find_names
from mfkernel.data.times import as_times
from mfkernel.typing import Nulls

LIBRARIES = ("pandas", "polars", "pyarrow", "modin", "cudf", "dask", "duckdb", "ibis", "narwhals", "pyspark")
MAX_NAMES = 8  # columns in a message
DEFAULT_NAME = re.compile(r"column_?[0-9]+")  # as polars and Arrow name columns that have no name


class Column(NamedTuple):
    """The users or items of a frame with a row per rating.

    Attributes
    ----------
    name
        Name of the column in errors.
    codes
        (n,) the id of each row, or its position in ``ids``.
    ids
        The categories of a categorical column, or the distinct texts; else None.
    """

    name: str
    codes: Any
    ids: Any = None


class Long(NamedTuple):
    """A frame with a row per rating."""

    users: Column
    items: Column
    values: NDArray[Any]
    timestamps: NDArray[np.float64] | None = None
    origin: Origin = NO_FRAME


class Named(NamedTuple):
    """Ratings by position, with the ids of their rows and columns.

    Attributes
    ----------
    ratings
        Triplets (users, items, values, shape), or a dense matrix.
    user_ids, item_ids
        Ids of the rows and of the columns, or None.
    timestamps
        (nnz,) times of triplets, or None.
    origin
        The frame that they came from.
    """

    ratings: Any
    user_ids: Any
    item_ids: Any
    timestamps: NDArray[np.float64] | None = None
    origin: Origin = NO_FRAME


def is_frame(R: Any) -> bool:
    """Return whether R is a data frame or a table of Arrow."""
    kind = type(R)  # whose attributes cost nothing; those of lazy frames are computed
    return kind.__module__.partition(".")[0] in LIBRARIES and (
        hasattr(kind, "columns") or hasattr(kind, "column_names")
    )


def read(
    frame: Any,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    *,
    count: bool = False,
    nulls: str = "raise",
    needs_rating: bool = False,
    like: Origin = NO_FRAME,
    items: Vocabulary | None = None,
) -> Long | Named:
    """Read a frame; see :meth:`Ratings.from_frame`.

    Parameters
    ----------
    frame
        Frame of any library that narwhals supports.
    user, item, rating
        Names of the columns. Default: found by their usual names; without rating, each row is a 1. If
        neither users nor items are named or found, the frame has a row per user and a column per item.
    timestamp
        Name of the column of times.
    count
        Whether each row is a 1, whatever ``rating`` could be found.
    nulls
        Whether missing ids and ratings ``"raise"`` an error, or their rows are left out, ``"drop"``.
    needs_rating
        Whether a column of ratings must be named or found.
    like
        An earlier frame, instead of names, ``count`` and ``nulls``: its columns are looked for first.
    items
        Ids of the items of that frame, of which a frame with a column per item must have one.
    """
    checks.one_of("nulls", nulls, get_args(Nulls))
    names = _names(frame)
    columns = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    if like.has_columns:
        columns, count, nulls = like.columns_in(names), like.counted, like.nulls
    chosen = choose_columns(names, **columns, count=count, like=like)
    if chosen is None:
        return _wide(frame, names, like, items)
    if needs_rating and chosen[2] is None and not like.counted:
        raise ValueError(
            f"rating must be the column of ratings, got none among {shown(names)}; pass rating=, as in "
            "mf.Ratings.from_frame(frame, rating=…), or method='implicit' if each row is one event"
        )
    nw = import_extra("narwhals.stable.v2", "frame", "a data frame")
    table = nw.from_native(frame)
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    table = table.select(*(nw.col(name) for name in dict.fromkeys(chosen) if name is not None))
    table = _without_nulls(nw, table, chosen, nulls)
    values = (
        np.ones(len(table), np.float32) if chosen[2] is None else _values(nw, table.get_column(chosen[2]))
    )
    times = None if chosen[3] is None else _times(nw, table.get_column(chosen[3]))
    users, rated = (
        _ids(nw, kind, table.get_column(name))
        for kind, name in zip(COLUMN_KINDS[:2], chosen[:2], strict=True)
    )
    library = _answering(table.implementation.name.lower())
    return Long(users, rated, values, times, Origin(library, *chosen, count, nulls))


def _answering(library: str) -> str | None:
    """Return the name of a library if answers can be its frames."""
    return library if library in FRAME_LIBRARIES else None


def _names(frame: Any) -> list[Any]:
    if hasattr(frame, "collect_schema"):  # lazy frames of polars, whose columns are costly
        return list(frame.collect_schema())
    return list(frame.column_names if hasattr(frame, "column_names") else frame.columns)


def choose_columns(
    names: list[Any],
    user: Any,
    item: Any,
    rating: Any,
    timestamp: Any,
    count: bool,
    like: Origin = NO_FRAME,
) -> tuple[Any, Any, Any, Any] | None:
    """Return the columns of users, items, ratings and times, or None for a frame with a column per item.

    An earlier frame, ``like``, only matters for the message if a column is missing.
    """
    if rating is not None and count:
        raise ValueError(f"rating must be None with count=True, got {rating!r}")
    given, found = [user, item, rating, timestamp], [*find_names(names, FRAME_COLUMN_NAMES), -1]
    for kind, name in zip(COLUMN_KINDS, given, strict=True):
        if name is not None and name not in names:
            raise ValueError(f"{kind} must be a column of the frame, {shown(names)}, got {name!r}")
    named = any(name is not None for name in given)
    chosen = [
        name if name is not None else names[at] if at >= 0 and names[at] not in given else None
        for name, at in zip(given, found, strict=True)
    ]
    for kind, name in zip(("user", "item"), chosen, strict=False):
        if name is None and like.has_columns and named:
            raise ValueError(
                f"{kind} must be the column {getattr(like, kind)!r}, as in training, or have a usual name, "
                f"got {shown(names)}; pass mf.Ratings.from_frame(frame, {kind}=…)"
            )
        if name is None and ((count and not like.has_columns) or named):
            raise ValueError(f"{kind} must be a column of the frame, {shown(names)}, got none; pass {kind}=")
        if name is None:
            return None
    if chosen[0] == chosen[1]:
        raise ValueError(f"user and item must be two columns, got {chosen[0]!r} for both")
    return chosen[0], chosen[1], None if count else chosen[2], timestamp


def shown(names: list[Any]) -> str:
    """Return the names of columns for a message."""
    return checks.listed(names, MAX_NAMES)


def _without_nulls(nw: Any, table: Any, chosen: tuple[Any, ...], nulls: str) -> Any:
    """Refuse rows with missing values, or leave them out."""
    missing = np.zeros(len(table), np.bool_)
    for kind, name in zip(COLUMN_KINDS, chosen, strict=True):
        if name is None:
            continue
        column = table.get_column(name)
        null = column.is_null().to_numpy().astype(np.bool_)
        if column.dtype.is_float():
            null |= column.is_nan().fill_null(True).to_numpy().astype(np.bool_)
        if null.any() and nulls == "raise":
            raise ValueError(
                f"{kind} must have no missing values, got {int(null.sum()):,} in the column {name!r}, the "
                f"first in row {int(null.argmax())}; pass nulls='drop' to leave them out"
            )
        missing |= null
    return table.filter((~missing).tolist()) if missing.any() else table


def _values(nw: Any, column: Any) -> NDArray[Any]:
    dtype = column.dtype
    if not dtype.is_numeric():
        raise TypeError(
            f"rating must be a column of numbers, got {column.name!r} of type {dtype}; cast it first"
        )
    if dtype.is_decimal():
        column = column.cast(nw.Float64)
    values: NDArray[Any] = column.to_numpy()
    if values.dtype.kind == "O":  # integers that could be missing
        values = values.astype(np.int64 if dtype.is_integer() else np.float64)
    return values


def _times(nw: Any, column: Any) -> NDArray[np.float64]:
    if column.dtype in (nw.Date, nw.Datetime) or isinstance(column.dtype, nw.Datetime):
        return as_times("timestamp", column.cast(nw.Datetime("us")).dt.timestamp("us").to_numpy() / 1e6)
    if column.dtype.is_numeric():
        return as_times("timestamp", _values(nw, column))
    return as_times("timestamp", np.array(column.to_list()))


def _ids(nw: Any, kind: str, column: Any) -> Column:
    """Return the ids of a column; categories and texts without a copy of the texts per row."""
    name = f"{kind} ids in the column {column.name!r}"
    if isinstance(column.dtype, nw.Categorical | nw.Enum):
        if column.implementation.is_pandas():
            native = column.to_native().cat
            return Column(name, native.codes.to_numpy().astype(np.int64), native.categories.to_numpy())
        return Column(name, *_dictionary(column))
    if column.dtype == nw.String and column.implementation.is_pandas():
        codes, texts = column.to_native().factorize()
        return Column(name, *_sorted(codes, np.array(texts.tolist(), object)))
    if column.dtype == nw.String and (
        column.implementation.is_polars() or column.implementation.is_pyarrow()
    ):
        return Column(name, *_dictionary(column))
    if column.dtype.is_integer() or column.dtype.is_float():
        return Column(name, column.to_numpy())
    return Column(name, np.array(column.to_list(), object))


def _dictionary(column: Any) -> tuple[NDArray[Any], Any]:
    """Return the positions of texts in their dictionary, sorted unless the column has categories."""
    pa = import_extra("pyarrow", "files", "a text column")
    array = column.to_arrow()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        return array.indices.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.to_pylist()
    encoded = array.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return _sorted(codes, np.array(encoded.dictionary.to_pylist(), object))


def _sorted(codes: NDArray[Any], texts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return codes of sorted texts, and these."""
    order = np.argsort(texts)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return rank[codes], texts[order]


def _wide(frame: Any, names: list[Any], like: Origin, items: Vocabulary | None) -> Named:
    """Return the numbers of a frame with a column per item, and its labels."""
    origin = Origin(_answering(type(frame).__module__.partition(".")[0]))
    if not hasattr(frame, "iloc"):
        labels = None if all(DEFAULT_NAME.fullmatch(str(name)) for name in names) else names
        _check_items(labels, like, items)
        table = np.asarray(frame.collect() if hasattr(frame, "collect") else frame)
        return Named(_numbers(table, names), None, labels, origin=origin)
    rows, columns = (
        None if type(index).__name__ == "RangeIndex" else index.to_numpy() for index in frame.axes
    )
    _check_items(None if columns is None else names, like, items)
    table = frame.to_numpy()
    if table.dtype.kind == "O" and all(kind.kind in "iuf" for kind in frame.dtypes):  # with pandas.NA
        table = frame.to_numpy(np.float64, na_value=np.nan)
    return Named(_numbers(table, names), rows, columns, origin=origin)


def _check_items(labels: list[Any] | None, like: Origin, items: Vocabulary | None) -> None:
    """Refuse columns of which none is an item, if an earlier frame had columns that are not there."""
    if not like.has_columns or labels is None:
        return
    if items is None or set(labels).isdisjoint(items.ids.tolist()):
        raise ValueError(
            f"the frame must have the columns {like.user!r} and {like.item!r}, as in training, or a column "
            f"per item, got the columns {shown(labels)}; pass mf.Ratings.from_frame(frame, user=…, item=…)"
        )


def _numbers(table: NDArray[Any], names: list[Any]) -> NDArray[Any]:
    if table.dtype.kind not in "iuf" and table.size:
        raise TypeError(
            f"R must be a frame of numbers with a column per item, or have a row per rating, got the columns "
            f"{shown(names)} of dtype {table.dtype}; pass user=, item= and rating= to name three of them"
        )
    return table
