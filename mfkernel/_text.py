"""Lines of text, each a user, an item and a rating: how they are written, and what they say."""

import contextlib
import csv
import io
import re
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.engine import interruptible

BLOCK = 2**17  # lines parsed by one call, so that Ctrl-C is answered between two

# header names, without case, spaces, underscores and hyphens
KNOWN_NAMES = (
    ("user", "userid", "uid", "reviewerid", "customerid"),
    ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "book", "bookid", "isbn", "asin"),
    ("rating", "ratings", "score", "stars", "value", "overall", "bookrating"),
)

LONGEST_ID = 1000  # characters; an array of strings is as wide as its longest

Column = str | int

INTEGER = re.compile(r"0|-?[1-9][0-9]*")  # as str(int) writes it
OTHER_NUMBER = re.compile(r'(?:^|[\s,;:"])(?:\+[0-9]|-?0[0-9]|-0(?!\.))', re.MULTILINE)  # 007 is not 7


class Layout(NamedTuple):
    """How the lines are written.

    Attributes
    ----------
    separator
        ``::``, tab, comma, semicolon, or None for any white space.
    columns
        Positions of user, item and rating.
    header
        Whether the first line that is not blank names the columns.
    matrix
        Whether a line must be two integers and a rating, and no more.
    """

    separator: str | None
    columns: tuple[int, int, int]
    header: bool = False
    matrix: bool = False


class Table(NamedTuple):
    """What the lines say: ``user_ids[users[n]]`` rates ``item_ids[items[n]]`` with ``values[n]``."""

    user_ids: NDArray[Any]
    users: NDArray[np.int64]
    item_ids: NDArray[Any]
    items: NDArray[np.int64]
    values: NDArray[np.float64]


class _NotPlainError(ValueError):
    """Some line is not plain integers and a finite rating, so that the lines must be read one by one."""


def find_layout(path: object, lines: Iterable[str], columns: Sequence[Column] | None) -> Layout:
    """Find separator, header and columns from the first line that is not blank."""
    number, first = next(((n, x) for n, x in enumerate(lines, 1) if x.strip()), (0, ""))
    if not first:
        raise ValueError(f"{path} has no ratings")
    separator = next((s for s in ("::", "\t", ",", ";") if s in first), None)
    fields = _split(first, separator)
    if columns is not None:
        places = _find_columns(fields, columns)
        if places is None:
            raise ValueError(f"{path}, line {number}: no three columns {columns!r} in {shown(first)}")
        named = any(isinstance(column, str) for column in columns)
        return Layout(separator, places, named or not _is_number(fields[places[2]]))
    if len(fields) >= 3 and _is_number(fields[2]):
        return Layout(separator, (0, 1, 2))
    names = [re.sub(r"[\s_\-]", "", field).lower() for field in fields]
    found = [next((names.index(x) for x in known if x in names), -1) for known in KNOWN_NAMES]
    if -1 in found:
        missing = ("a user", "an item", "a rating")[found.index(-1)]
        raise ValueError(
            f"{path}, line {number}: neither 'user item rating' nor a header with {missing} column: "
            f"{shown(first)}; columns= can name the three"
        )
    return Layout(separator, (found[0], found[1], found[2]), header=True)


def parse(path: object, layout: Layout, open_lines: Callable[[], Iterator[str]]) -> Table:
    """Read all lines; the ids of users, and of items, are int64 if all of them are integers, else strings.

    Raises
    ------
    ValueError
        For the first line that is wrong, with its number and content.
    """
    try:
        table = _parse_plain(layout, open_lines())
    except _NotPlainError:
        table = _parse_any(path, layout, open_lines())
    if table.values.size == 0:
        raise ValueError(f"{path} has no ratings")
    return table


def bad_line(path: object, number: int, line: str, expected: str) -> ValueError:
    """Word the error for a line."""
    return ValueError(f"{path}, line {number}: expected {expected}, got {shown(line)}")


def line_of_entry(lines: Iterable[str], entry: int) -> tuple[int, str]:
    """Return number and content of the line of an entry, counted from 0 over the lines that are not blank."""
    return next(islice(((n, x) for n, x in enumerate(lines, 1) if x.strip()), entry, None))


def _parse_plain(layout: Layout, lines: Iterator[str]) -> Table:
    """Parse lines of integer ids, a block at a time."""
    tables = []
    separator = "\t" if layout.separator == "::" else layout.separator
    dtype = np.dtype([("user", np.int64), ("item", np.int64), ("value", np.float64)])
    for _, block in _blocks(layout, lines):
        count = sum(not line.isspace() for line in block)
        if count == 0:
            continue
        # loadtxt mistakes some characters beyond ASCII for digits
        text = "".join(block).encode("ascii", "replace").decode()
        if OTHER_NUMBER.search(text):
            raise _NotPlainError
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # before NumPy 2.4 a float is cut to an integer with a warning
                table = np.loadtxt(
                    io.StringIO(text.replace("::", "\t") if layout.separator == "::" else text),
                    dtype,
                    delimiter=separator,
                    usecols=None if layout.matrix else layout.columns,
                    comments=None,
                    quotechar='"' if separator in (",", ";") else None,
                    ndmin=1,
                )
        except (ValueError, Warning) as error:
            raise _NotPlainError from error
        if table.size != count or not np.isfinite(table["value"]).all():
            raise _NotPlainError
        tables.append(table)

    def number() -> Table:
        whole = np.concatenate(tables) if tables else np.empty(0, dtype)
        user_ids, users = np.unique(whole["user"], return_inverse=True)
        item_ids, items = np.unique(whole["item"], return_inverse=True)
        return Table(user_ids, users, item_ids, items, whole["value"])

    return interruptible(number)


def _parse_any(path: object, layout: Layout, lines: Iterator[str]) -> Table:
    """Parse lines with ids of any kind, each checked."""
    u, i, v = layout.columns
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    users, items, values = array("q"), array("q"), array("d")
    for first, block in _blocks(layout, lines):
        for number, line in enumerate(block, first):
            if not line.strip():
                continue
            try:
                fields = _split(line, layout.separator)
                user, item, value = fields[u], fields[i], _finite(fields[v])
                if layout.matrix and not (
                    len(fields) == 3 and INTEGER.fullmatch(user) and INTEGER.fullmatch(item)
                ):
                    raise ValueError
                _check_id(user)
                _check_id(item)
            except (IndexError, ValueError, csv.Error):
                places = zip(("user", "item", "rating"), layout.columns, strict=True)
                names = ", ".join(f"{name} in column {place + 1}" for name, place in places)
                raise bad_line(path, number, line, "row column value" if layout.matrix else names) from None
            users.append(user_numbers.setdefault(user, len(user_numbers)))
            items.append(item_numbers.setdefault(item, len(item_numbers)))
            values.append(value)
    return interruptible(
        lambda: Table(*_sorted_ids(user_numbers, users), *_sorted_ids(item_numbers, items), np.array(values))
    )


def _sorted_ids(numbers: dict[str, int], codes: "array[int]") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the distinct ids, sorted, and the place of each code's id among them."""
    ids = np.array(list(numbers), str)
    if all(INTEGER.fullmatch(x) for x in numbers):
        with contextlib.suppress(OverflowError, ValueError):  # integers beyond 64 bits stay strings
            ids = ids.astype(np.int64)
    order = np.argsort(ids)
    places = np.empty(order.size, np.int64)
    places[order] = np.arange(order.size)
    return ids[order], places[np.array(codes, np.int64)]


def _check_id(text: str) -> None:
    """Refuse an empty or endless id, and bytes that were not UTF-8."""
    if not 0 < len(text) <= LONGEST_ID:
        raise ValueError
    text.encode()


def _blocks(layout: Layout, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Cut the lines after the header into blocks, each with the number of its first line."""
    first = 1
    if layout.header:
        first += next((n for n, line in enumerate(lines, 1) if line.strip()), 0)
    while block := list(islice(lines, BLOCK)):
        yield first, block
        first += len(block)


def _find_columns(fields: list[str], columns: Sequence[Column]) -> tuple[int, int, int] | None:
    """Return the positions of three columns given by name or position; None if they are not there."""
    places = [fields.index(c) if c in fields else c for c in columns]
    if len(places) != 3 or not all(isinstance(p, int) and 0 <= p < len(fields) for p in places):
        return None
    user, item, rating = (int(p) for p in places)
    return user, item, rating


def _split(line: str, separator: str | None) -> list[str]:
    if separator in (",", ";") and '"' in line:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    return [field.strip() for field in line.split(separator)]


def _finite(field: str) -> float:
    value = float(field)
    if not np.isfinite(value) or "_" in field:  # Python reads 1_0 as 10
        raise ValueError
    return value


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def shown(line: str) -> str:
    """Quote a line in a message, cut where it is very long."""
    text = line.rstrip("\r\n")
    return repr(text if len(text) <= 200 else text[:200] + "…")
