"""Ratings from files, recognised by their content."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mfkernel import _checks, _text
from mfkernel.convert import DUPLICATES
from mfkernel.engine import interruptible
from mfkernel.ratings import Ratings

GZIP, ZIP, MARKET = b"\x1f\x8b", b"PK\x03\x04", b"%%MatrixMarket"

Lines = Callable[[], Iterator[str]]


def read_ratings(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[_text.Column] | None = None,
    duplicates: str = "raise",
) -> Ratings:
    """Read ratings from a file, plain or gzipped, whose format is known by its content.

    ======================  ==============================================================================
    MovieLens ``u.data``    tabs: user, item, rating, …
    ``ratings.dat``         ``::`` between user, item, rating, …
    ``ratings.csv``         commas, semicolons or tabs, with a header that names the columns
    plain text (LIBMF)      ``user item rating``, white space between
    MatrixMarket            ``%%MatrixMarket``; rows and columns keep their numbers
    scipy ``.npz``          what ``scipy.sparse.save_npz`` wrote; rows and columns keep their numbers
    ======================  ==============================================================================

    In text, the users' ids are integers if all of them are, else strings, and so are the items'; sorted, they
    become the ``user_ids`` and ``item_ids`` of the result, and the row of user ``user_ids[u]`` is u.

    Parameters
    ----------
    path
        the file.
    columns
        Which columns of a text hold user, item and rating, by name in the header or by position from 0. By
        default known names, such as userId, movieId and rating; without a header the first three.
    duplicates
        What becomes of several ratings of one user for one item: ``"raise"``, ``"sum"``, ``"mean"``,
        ``"last"``.

    Returns
    -------
    Ratings
        float32 where that holds all values exactly, else float64.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it cannot be understood; the message names file, line and content.

    Examples
    --------
    >>> ratings = read_ratings("ml-latest-small/ratings.csv")  # doctest: +SKIP
    """
    _checks.one_of("duplicates", duplicates, DUPLICATES)
    source = Path(path)
    open_binary = _opener(source)

    def lines() -> Iterator[str]:
        # bytes that are not UTF-8 must not stop us before their line can be named
        with io.TextIOWrapper(open_binary(), "utf-8-sig", "surrogateescape") as text:
            yield from text

    try:
        with open_binary() as file:
            start = file.read(len(MARKET))
        if start.startswith(ZIP):
            return _read_npz(source, open_binary, duplicates)
        if start == MARKET:
            return _read_market(source, lines, duplicates)
        return _read_text(source, lines, columns, duplicates)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{source} is damaged: {error}") from error


def _opener(path: Path) -> Callable[[], BinaryIO]:
    """Return what opens the file, unzipped, from its start, as often as it is called."""
    content = None if path.is_file() else path.read_bytes()  # a pipe can be read only once

    def open_raw() -> BinaryIO:
        return path.open("rb") if content is None else io.BytesIO(content)

    with open_raw() as file:
        zipped = file.read(len(GZIP)) == GZIP
    if not zipped:
        return open_raw
    return lambda: cast(BinaryIO, gzip.open(path if content is None else io.BytesIO(content), "rb"))


def _read_npz(path: Path, open_binary: Callable[[], BinaryIO], duplicates: str) -> Ratings:
    from scipy import sparse

    with open_binary() as file:
        content = io.BytesIO(file.read())
    try:
        matrix: Any = interruptible(lambda: sparse.load_npz(content))
    except Exception as error:
        raise ValueError(f"{path} is no matrix saved by scipy.sparse.save_npz") from error
    try:
        return Ratings(matrix, duplicates=duplicates, dtype=_exact_dtype(matrix.data), copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_text(path: Path, lines: Lines, columns: Sequence[_text.Column] | None, duplicates: str) -> Ratings:
    layout = _text.find_layout(path, lines(), columns)
    table = _text.parse(path, layout, lines)
    user_ids, item_ids = table.user_ids, table.item_ids
    triplets = (table.users, table.items, table.values, (user_ids.size, item_ids.size))
    dtype = _exact_dtype(table.values)
    try:
        return Ratings(triplets, duplicates=duplicates, dtype=dtype, user_ids=user_ids, item_ids=item_ids)
    except ValueError as error:
        found = interruptible(lambda: _duplicates_by_id(path, user_ids[table.users], item_ids[table.items]))
        raise found or error from None


def _read_market(path: Path, lines: Lines, duplicates: str) -> Ratings:
    """Read MatrixMarket; scipy's reader is not used as it crashes the process on some damaged files."""
    banner, size, head = _market_head(path, lines())
    _, _, layout, kind, symmetry = banner
    m, n = size[:2]

    def entries() -> Iterator[str]:
        body = islice(lines(), head, None)
        blank = ["\n"] * head  # so that lines keep their numbers
        if layout == "array":
            return chain(blank, _market_cells(body, m, symmetry == "symmetric"))
        if kind == "pattern":
            return chain(blank, (f"{line.rstrip()} 1\n" if line.strip() else line for line in body))
        return chain(blank, body)

    table = _text.parse(path, _text.Layout(None, (0, 1, 2), matrix=True), entries)
    rows, cols, values = table.user_ids[table.users], table.item_ids[table.items], table.values
    for numbers, count, name in ((rows, m, "row"), (cols, n, "column")):
        outside = (numbers < 1) | (numbers > count)
        if outside.any():
            number, line = _text.line_of_entry(entries(), int(outside.argmax()))
            raise _text.bad_line(path, number, line, f"a {name} from 1 to {count}")
    stored = size[2] if layout == "coordinate" else m * n if symmetry == "general" else n * (n + 1) // 2
    if values.size != stored:
        raise ValueError(f"{path} has {values.size} entries, but {stored} by its head")
    if layout == "array":
        rows, cols, values = (x[values != 0] for x in (rows, cols, values))
    if symmetry == "symmetric":
        mirrored = rows != cols
        rows, cols = np.append(rows, cols[mirrored]), np.append(cols, rows[mirrored])
        values = np.append(values, values[mirrored])
    triplets = (rows - 1, cols - 1, values, (m, n))
    try:
        return Ratings(triplets, duplicates=duplicates, dtype=_exact_dtype(values))
    except ValueError as error:
        raise _duplicates_by_id(path, rows, cols) or error from None


def _market_head(path: Path, lines: Iterator[str]) -> tuple[list[str], list[int], int]:
    """Return the words of the first line, the numbers of the size line, and how many lines these take."""
    number, line = 0, ""
    try:
        for number, line in enumerate(lines, 1):
            if number == 1:
                banner = line.lower().split()
                _, matrix, layout, kind, symmetry = banner
                if (
                    (matrix, layout) not in (("matrix", "coordinate"), ("matrix", "array"))
                    or kind not in ("real", "double", "integer", "pattern")
                    or symmetry not in ("general", "symmetric")
                ):
                    raise ValueError
            elif line.strip() and not line.startswith("%"):
                size = [_checks.integer("size", int(x), 0) for x in line.split()]
                if len(size) != (3 if layout == "coordinate" else 2):
                    raise ValueError
                return banner, size, number
    except ValueError:
        expected = "the head of a real, general or symmetric MatrixMarket file"
        raise _text.bad_line(path, number, line, expected) from None
    raise ValueError(f"{path} has no ratings: it ends before its size line")


def _market_cells(lines: Iterator[str], m: int, symmetric: bool) -> Iterator[str]:
    """Put row and column before each value of an array: columns in turn, from the diagonal if symmetric."""
    row, column = 1, 1
    for line in lines:
        if not line.strip():
            yield line
            continue
        yield f"{row} {column} {line}"
        row += 1
        if row > m:
            column += 1
            row = column if symmetric else 1


def _exact_dtype(values: NDArray[Any]) -> type[np.floating]:
    """Return float32 if that loses nothing, else float64."""
    if values.dtype.kind not in "iuf":
        return np.float64
    with np.errstate(over="ignore"):
        exact = interruptible(lambda: bool((values.astype(np.float32) == values).all()))
    return np.float32 if exact else np.float64


def _duplicates_by_id(path: Path, users: NDArray[Any], items: NDArray[Any]) -> ValueError | None:
    """Word the error for pairs that stand on several lines; None if there are none."""
    order = np.lexsort((items, users))
    users, items = users[order], items[order]
    again = np.flatnonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1])) + 1
    if again.size == 0:
        return None
    first = again[order[again].argmin()]
    return ValueError(
        f"{path}: {again.size} duplicate ratings, the first of user {users[first]} for item {items[first]}; "
        "pass duplicates='sum', 'mean' or 'last'"
    )
