"""Ratings from files, recognised by their content."""

import csv
import gzip
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.engine import interruptible
from mfkernel.ratings import Ratings

GZIP, ZIP, MATRIX_MARKET = b"\x1f\x8b", b"PK\x03\x04", b"%%MatrixMarket"
BLOCK = 2**17  # lines parsed by one call, so that Ctrl-C is answered between two

# header names, without case, spaces and underscores
KNOWN_NAMES = (
    ("user", "userid", "uid", "reviewerid", "customerid"),
    ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "book", "bookid", "isbn", "asin"),
    ("rating", "ratings", "score", "stars", "value", "overall", "bookrating"),
)

Column = str | int
Triplets = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]


class Layout(NamedTuple):
    """How the lines of a text are written."""

    separator: str | None  # None: any white space
    columns: tuple[int, int, int]  # positions of user, item and rating
    header: bool


class NotIntegerError(ValueError):
    """Some field is no plain integer id or finite rating, so that the lines must be read one by one."""


def read_ratings(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[Column] | None = None,
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

    In text, user and item ids are integers, or else strings; sorted, they are the ``user_ids`` and
    ``item_ids`` of the result, and the row of user ``user_ids[u]`` is u.

    Parameters
    ----------
    path
        the file.
    columns
        Which columns hold user, item and rating, by name in the header or by position from 0. By default
        known names, such as userId, movieId and rating; without a header the first three.
    duplicates
        What becomes of several ratings of one user for one item: ``"raise"``, ``"sum"``, ``"mean"``,
        ``"last"``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it cannot be understood; for text the message names file, line and content.

    Examples
    --------
    >>> ratings = read_ratings("ml-latest-small/ratings.csv")  # doctest: +SKIP
    """
    with Path(path).open("rb") as file:
        zipped = file.read(2) == GZIP
    try:
        with gzip.open(path, "rb") if zipped else Path(path).open("rb") as binary:
            start = binary.peek(len(MATRIX_MARKET))
            if start.startswith(ZIP) or start.startswith(MATRIX_MARKET):
                return _read_matrix(Path(path), io.BytesIO(binary.read()), duplicates)
        return _read_text(Path(path), zipped, columns, duplicates)
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_matrix(path: Path, file: io.BytesIO, duplicates: str) -> Ratings:
    from scipy import sparse
    from scipy.io import mmread

    text = file.getbuffer()[: len(ZIP)] != ZIP
    try:
        matrix = interruptible(lambda: mmread(file) if text else sparse.load_npz(file))
        return interruptible(lambda: Ratings(matrix, duplicates=duplicates))
    except Exception as error:
        content = ""
        if text and (line := re.match(r"[Ll]ine (\d+)", str(error))):
            lines = file.getvalue().splitlines()
            content = f": {lines[int(line[1]) - 1].decode(errors='replace')!r}"
        raise ValueError(f"{path}: {error}{content}") from error


def _read_text(path: Path, zipped: bool, columns: Sequence[Column] | None, duplicates: str) -> Ratings:
    def lines() -> Iterator[str]:
        # a damaged or foreign encoding must not stop us before the line can be named
        with gzip.open(path, "rb") if zipped else path.open("rb") as binary:
            yield from io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline=None)

    layout = _layout(path, lines(), columns)
    try:
        parts = list(_parse_integers(layout, lines()))
    except NotIntegerError:
        parts = list(_parse_any(path, layout, lines()))
    if not parts:
        raise ValueError(f"{path} has no ratings")
    users, items, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def number() -> Ratings:
        user_ids, rows = np.unique(users, return_inverse=True)
        item_ids, cols = np.unique(items, return_inverse=True)
        short = values.astype(np.float32)
        exact = bool((short == values).all())
        triplets = (rows, cols, short if exact else values, (user_ids.size, item_ids.size))
        if duplicates == "raise":
            _refuse_duplicates(path, rows, cols, users, items)
        return Ratings(triplets, duplicates=duplicates, user_ids=user_ids, item_ids=item_ids)

    return interruptible(number)


def _layout(path: Path, lines: Iterator[str], columns: Sequence[Column] | None) -> Layout:
    """Find separator, header and columns from the first line that is not blank."""
    number, first = next(((n, x) for n, x in enumerate(lines, 1) if x.strip()), (0, ""))
    if not first:
        raise ValueError(f"{path} has no ratings")
    separator = next((s for s in ("::", "\t", ",", ";") if s in first), None)
    fields = _split(first, separator)
    if columns is not None and len(columns) != 3:
        raise ValueError(f"columns must name user, item and rating, got {columns!r}")
    if columns is None and len(fields) >= 3 and _is_number(fields[2]):
        return Layout(separator, (0, 1, 2), header=False)
    if columns is None:
        names = [re.sub(r"[\s_\-]", "", field).lower() for field in fields]
        found = [next((names.index(x) for x in known if x in names), -1) for known in KNOWN_NAMES]
        if -1 in found:
            missing = ("a user", "an item", "a rating")[found.index(-1)]
            raise ValueError(
                f"{path}, line {number}: neither 'user item rating' nor a header with {missing} column: "
                f"{_shown(first)}; columns= can name the three"
            )
        return Layout(separator, (found[0], found[1], found[2]), header=True)
    header = not all(isinstance(c, int) for c in columns)
    try:
        places = [c if isinstance(c, int) else fields.index(c) for c in columns]
        header = header or not _is_number(fields[places[2]])
    except (ValueError, IndexError):
        raise ValueError(f"{path}, line {number}: no columns {columns!r} in {_shown(first)}") from None
    return Layout(separator, (places[0], places[1], places[2]), header)


def _parse_integers(layout: Layout, lines: Iterator[str]) -> Iterator[Triplets]:
    """Parse lines whose ids are integers, a block at a time."""
    separator = layout.separator
    if separator == "::":
        lines, separator = (line.replace("::", "\t") for line in lines), "\t"
    dtype = np.dtype([("user", np.int64), ("item", np.int64), ("value", np.float64)])
    for _, block in _blocks(layout, lines):
        try:
            table = np.loadtxt(
                [line for line in block if not line.isspace()],
                dtype,
                delimiter=separator,
                usecols=layout.columns,
                comments=None,
                quotechar='"',
                ndmin=1,
            )
        except ValueError as error:
            raise NotIntegerError from error
        if not np.isfinite(table["value"]).all():
            raise NotIntegerError
        yield table["user"], table["item"], table["value"]


def _parse_any(path: Path, layout: Layout, lines: Iterator[str]) -> Iterator[Triplets]:
    """Parse lines with ids of any kind, each checked."""
    u, i, v = layout.columns
    for first, block in _blocks(layout, lines):
        users, items, values = [], [], []
        for number, line in enumerate(block, first):
            if not line.strip():
                continue
            fields = _split(line, layout.separator)
            try:
                user, item, value = fields[u], fields[i], float(fields[v])
                line.encode()
            except (IndexError, ValueError, UnicodeEncodeError):
                value = np.nan
            if not np.isfinite(value) or not user or not item:
                names = ", ".join(
                    f"{name} in column {place + 1}"
                    for name, place in zip(("user", "item", "rating"), layout.columns, strict=True)
                )
                raise ValueError(f"{path}, line {number}: expected {names}, got {_shown(line)}")
            users.append(user)
            items.append(item)
            values.append(value)
        yield np.array(users, str), np.array(items, str), np.array(values, np.float64)


def _blocks(layout: Layout, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Cut the lines after the header into blocks, each with the number of its first line."""
    rest, first = iter(lines), 1
    while layout.header and first == 1:
        for line in rest:
            first += 1
            if line.strip():
                break
    while block := list(islice(rest, BLOCK)):
        yield first, block
        first += len(block)


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    if separator == "::":
        return [field.strip() for field in line.split(separator)]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator))]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _shown(line: str) -> str:
    """Quote a line in a message, cut where it is very long."""
    text = line.rstrip("\r\n")
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _refuse_duplicates(
    path: Path, rows: NDArray[Any], cols: NDArray[Any], users: NDArray[Any], items: NDArray[Any]
) -> None:
    """Raise, with their number and the first of them, if a pair of user and item stands on two lines."""
    order = np.lexsort((cols, rows))
    again = (np.diff(rows[order]) == 0) & (np.diff(cols[order]) == 0)
    if again.any():
        n = int(order[1:][again].min())
        raise ValueError(
            f"{path}: {int(again.sum())} duplicate ratings, the first of user {users[n]} for item {items[n]}"
            "; pass duplicates='sum', 'mean' or 'last'"
        )
