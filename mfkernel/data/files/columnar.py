"""Read tables of Parquet and Arrow files, through pyarrow."""

import warnings
from typing import Any, BinaryIO

from mfkernel._support.lazy import import_extra
from mfkernel.data import frames
from mfkernel.data.files.form import Form
from mfkernel.data.files.streams import Stream, report_damage
from mfkernel.data.named import number_frame
from mfkernel.data.origin import COLUMN_KINDS, NO_FRAME
from mfkernel.data.ratings import Ratings
from mfkernel.data.tables import usual_time

PARQUET = b"PAR1"
ARROW_FILES = (b"ARROW1\0\0", b"FEA1")
ARROW_STREAM = b"\xff\xff\xff\xff"


def is_columnar(data: Stream) -> bool:
    """Return whether a file is of Parquet, Feather, or Arrow."""
    start = data.start(8)
    return start.startswith((PARQUET, ARROW_STREAM, *ARROW_FILES))


def read_columnar(name: str, file: BinaryIO | None, data: Stream, form: Form, duplicates: str) -> Ratings:
    """Read the ratings of a table.

    Parameters
    ----------
    name
        Name of the file in errors.
    file
        The file, if it is seekable.
    data
        Its bytes, for a file that is not.
    """
    pa = import_extra("pyarrow", "files", "a Parquet or Arrow file")
    start = data.start(8)
    source = pa.BufferReader(_all(data)) if file is None else file
    if file is not None:
        file.seek(0)
    with report_damage(f"{name} must be a whole Parquet or Arrow file, got other"):
        names, read = _opened(pa, source, start)
    columns = _chosen(name, names, form)
    try:
        with report_damage(f"{name} is damaged"):
            table = read([column for column in columns.values() if column is not None])
        named = number_frame(table, **columns, nulls=form.nulls, needs_rating=True)
        left_out = table.num_rows - len(named.ratings[2])
        if left_out:
            warnings.warn(f"{name}: {left_out:,} rows with missing values are left out", stacklevel=4)
        return Ratings(named._replace(origin=NO_FRAME), duplicates=duplicates)
    except (TypeError, ValueError) as error:
        if name in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None


def _all(data: Stream) -> bytes:
    parts = []
    while part := data.read(2**24):
        parts.append(part)
    return b"".join(parts)


def _opened(pa: Any, source: Any, start: bytes) -> tuple[list[str], Any]:
    """Return the names of the columns, and a function that reads some of them."""
    if start.startswith(PARQUET):
        parquet = import_extra("pyarrow.parquet", "files", "a Parquet file")
        file = parquet.ParquetFile(source)
        return file.schema_arrow.names, lambda names: file.read(columns=names)
    if start.startswith(ARROW_STREAM):
        table = pa.ipc.open_stream(source).read_all()
    else:
        table = import_extra("pyarrow.feather", "files", "an Arrow file").read_table(source)
    return table.column_names, table.select


def _chosen(name: str, names: list[str], form: Form) -> dict[str, Any]:
    """Return the names of the columns by their kind."""
    given = [_name(name, names, column) for column in form.columns or ()]
    time = usual_time(names) if form.timestamp is True else form.timestamp
    user, item, rating = given or (None, None, None)
    timestamp = None if time is False else _name(name, names, time)
    chosen = frames.choose_columns(names, user, item, rating, timestamp, False)
    if chosen is None:
        raise ValueError(
            f"{name} must have columns of users and items, got {frames.shown(names)}; columns= names user, "
            "item and rating"
        )
    return dict(zip(COLUMN_KINDS, chosen, strict=True))


def _name(file: str, names: list[str], column: Any) -> str:
    """Return the name of a column that is given by name or position."""
    if isinstance(column, str):
        return column
    if column >= len(names):
        raise ValueError(f"{file}: columns must be below {len(names)}, the number of columns, got {column}")
    return str(names[column])
