"""Parse lines of text with a user, an item and a rating each."""

import io
import math
import re
import warnings
from array import array
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfkernel.data.files.layout import (
    AS_ARRAY,
    BY_POSITION,
    COMMENT,
    COMMENT_MARKS,
    Layout,
    rating_fault,
    splitter,
)
from mfkernel.data.files.lines import SPACE, Lines
from mfkernel.data.files.streams import check_memory
from mfkernel.data.ids import text_array
from mfkernel.data.tables import MIN_TIME
from mfkernel.engines.threads import interruptible

MAX_ID_LENGTH = 1000  # characters

INTEGER = re.compile(r"0|-?[1-9][0-9]*")  # in the form of str(int)
INT64 = np.iinfo(np.int64)
MEASUREMENT = re.compile(
    r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-[0-9]+|[+-]?[0-9]+[eE][+-][0-9]+"
)
DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}(?:[T ][0-9].*)?")
RATING_DTYPE = np.dtype([("user", np.int64), ("item", np.int64), ("value", np.float64)])
TIMED_DTYPE = np.dtype(
    [*((name, RATING_DTYPE[name]) for name in RATING_DTYPE.names or ()), ("time", np.float64)]
)
GUESSED_DTYPES = {3: RATING_DTYPE, 4: TIMED_DTYPE}  # by number of fields
OTHER_NUMBER = re.compile(r'(?:^|[\s,;:"])(?:\+[0-9]|-?0[0-9]|-0(?!\.))', re.MULTILINE)  # 007 is not 7

# loadtxt treats some control characters as space, and NUL as an end
CONTROL_BYTES = bytes({*range(32)} - {*b"\t\n\v\f"})
PLAIN_BYTES = bytes.maketrans(b"\v\f" + CONTROL_BYTES, b"  " + b"?" * len(CONTROL_BYTES))


class Table(NamedTuple):
    """The ratings of a text: ``user_ids[users[n]]`` rates ``item_ids[items[n]]`` with ``values[n]``."""

    user_ids: NDArray[Any]
    users: NDArray[Any]
    item_ids: NDArray[Any]
    items: NDArray[Any]
    values: NDArray[np.float64]


class NotPlainError(ValueError):
    """A block is not plain, so its lines must be read one by one.

    A plain line has integers and a finite rating.
    """


class _TableError(ValueError):
    """A line looks like the row of a table; the message says what is expected."""


def parse(lines: Lines, layout: Layout) -> Table:
    """Read all lines.

    User ids are int64 if all of them are integers, else text; the same holds for item ids. Blank lines, lines
    whose fields are all empty, and lines that begin with ``#`` or ``%`` and a space are skipped.

    Raises
    ------
    ValueError
        For the first wrong line. The message has its number and content.
    """
    users, items = _Ids(), _Ids()
    values: list[NDArray[np.float64]] = []
    count = 0
    for number, text in lines.blocks():
        try:
            block = _plain_ratings(text, layout)
        except NotPlainError:
            values.append(_read_block(lines, layout, number, text, users, items))
        else:
            users.add(block["user"])
            items.add(block["item"])
            values.append(block["value"].copy())
        count += values[-1].size
        check_memory(lines.path, count)
    if count == 0:
        raise ValueError(f"{lines.path} has no ratings")
    return interruptible(lambda: Table(*users.number_ids(), *items.number_ids(), np.concatenate(values)))


def plain_block(
    text: str, dtype: DTypeLike, separator: str | None = None, columns: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """Parse a block of lines with plain integers and finite ratings in one call.

    Raises
    ------
    NotPlainError
        If the block may have other lines or comments. The lines must then be read one by one.
    """
    # loadtxt takes some non-ASCII characters for digits, and others for space
    plain = text.encode("ascii", "replace").translate(PLAIN_BYTES).decode()
    count = _count_filled(plain)
    if count == 0:
        return np.empty(0, dtype)
    if OTHER_NUMBER.search(plain) or any(plain.startswith(x) or f"\n{x}" in plain for x in COMMENT_MARKS):
        raise NotPlainError
    if separator == "::":
        if "\t" in plain:
            raise NotPlainError
        plain = plain.replace("::", "\t")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # before NumPy 2.4, loadtxt truncates floats with a warning
            table = np.loadtxt(
                io.StringIO(plain),
                dtype,
                delimiter="\t" if separator == "::" else separator,
                usecols=columns,
                comments=None,
                quotechar=None if separator == "::" else '"',
                ndmin=1,
            )
    except (ValueError, Warning) as error:
        raise NotPlainError from error
    # an open quote swallows lines
    if table.size != count or not all(np.isfinite(table[name]).all() for name in table.dtype.names or ()):
        raise NotPlainError
    return table


def parse_rating(field: str) -> float:
    """Parse a finite rating; refuse forms that only Python accepts, such as ``1_0``."""
    value = float(field)
    if not math.isfinite(value) or "_" in field or not (field.isascii() and field.isprintable()):
        raise ValueError
    return value


class _Ids:
    """The ids of users, or of items, collected block by block."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # number of each text
        self._keys: list[NDArray[np.int64]] = []  # distinct integers per block
        self._codes: list[
            tuple[int, NDArray[Any]]
        ] = []  # (key number or -1, positions in it or text numbers)

    def add(self, ids: NDArray[np.int64]) -> None:
        """Add the integer ids of a block of lines."""
        keys, codes = np.unique(ids, return_inverse=True)
        self._codes.append((len(self._keys), codes.astype(np.int32)))
        self._keys.append(keys)

    def add_codes(self, codes: "array[int]") -> None:
        """Add the ids of a block of lines, numbered by :meth:`code`."""
        self._codes.append((-1, np.array(codes, np.int64)))

    def code(self, text: str, guessed: bool) -> int:
        """Return the number of an id; ``guessed`` if only its position makes it an id.

        Raises
        ------
        ValueError
            If the id is empty, too long, could not be decoded, or has a NUL, which arrays would lose. Also if
            a guessed id is a decimal or negative number.
        """
        code = self._numbers.get(text)
        if code is None:
            if not 0 < len(text) <= MAX_ID_LENGTH or "\0" in text:
                raise ValueError
            if not text.isascii():
                text.encode()
            if guessed and MEASUREMENT.fullmatch(text):
                raise _TableError("a user and an item that are not decimal or negative numbers")
            code = self._numbers[text] = len(self._numbers)
        return code

    def number_ids(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the sorted distinct ids, and the position of each line's id among them."""
        n_texts = len(self._numbers)
        are_integers = all(_is_int64(x) for x in self._numbers)
        if are_integers:
            self._keys.append(np.fromiter(map(int, self._numbers), np.int64, n_texts))
        ids, positions = np.unique(np.concatenate([*self._keys, np.empty(0, np.int64)]), return_inverse=True)
        bounds = np.cumsum([0, *(keys.size for keys in self._keys)])
        if are_integers:
            first_text = int(bounds[-2])
        else:
            first_text = positions.size
            names = [self._numbers.setdefault(str(x), len(self._numbers)) for x in ids.tolist()]
            texts = text_array(list(self._numbers))
            order = np.argsort(texts)
            rank = np.empty(order.size, np.int64)
            rank[order] = np.arange(order.size)
            ids = texts[order]
            positions = np.concatenate([rank[np.array(names, np.int64)][positions], rank[:n_texts]])
        positions = positions.astype(np.int32 if ids.size < 2**31 else np.int64)
        firsts = [first_text if n < 0 else int(bounds[n]) for n, _ in self._codes]
        codes = [positions[first:][part] for first, (_, part) in zip(firsts, self._codes, strict=True)]
        return ids, np.concatenate(codes)


def _read_block(
    lines: Lines, layout: Layout, first: int, text: str, users: _Ids, items: _Ids
) -> NDArray[np.float64]:
    """Parse lines one by one, with ids of any kind; return the ratings."""
    u, i, v = layout.columns
    split = splitter(layout.separator, text)
    guessed = layout.guessed > 0
    user_codes, item_codes, values = array("q"), array("q"), array("d")
    for number, line in enumerate(text.split("\n"), first):
        if line[:1] in COMMENT_MARKS and COMMENT.match(line):
            continue
        fields = split(line)
        try:
            if guessed:
                _check_guessed(fields)
            user, item = users.code(fields[u], guessed), items.code(fields[i], guessed)
            value = parse_rating(fields[v])
        except _TableError as error:
            raise lines.error(number, line, str(error), f"{BY_POSITION}; {AS_ARRAY}") from None
        except (IndexError, ValueError):
            if not any(fields):
                continue
            if len(fields) > max(layout.columns) and (fault := rating_fault(fields[v])) is not None:
                expected, remedy = fault
                raise lines.error(number, line, f"{expected} in column {v + 1}", remedy) from None
            positions = zip(("user", "item", "rating"), layout.columns, strict=True)
            expected = ", ".join(f"{name} in column {position + 1}" for name, position in positions)
            raise lines.error(number, line, expected) from None
        user_codes.append(user)
        item_codes.append(item)
        values.append(value)
    users.add_codes(user_codes)
    items.add_codes(item_codes)
    return np.array(values, np.float64)


def _plain_ratings(text: str, layout: Layout) -> NDArray[Any]:
    """Parse lines of plain ids and ratings; if columns were guessed, also of times."""
    if not layout.guessed:
        return plain_block(text, RATING_DTYPE, layout.separator, layout.columns)
    if layout.guessed not in GUESSED_DTYPES:
        raise NotPlainError
    block = plain_block(text, GUESSED_DTYPES[layout.guessed], layout.separator)
    if min(block["user"].min(initial=0), block["item"].min(initial=0)) < 0:
        raise NotPlainError
    if "time" in (block.dtype.names or ()) and block["time"].min(initial=MIN_TIME) < MIN_TIME:
        raise NotPlainError
    return block


def _check_guessed(fields: list[str]) -> None:
    """Refuse more fields than user, item, rating and a time.

    Raises
    ------
    _TableError
        If the line has such fields. The message says what is expected.
    """
    more = fields[3:]
    while more and not more[-1]:
        more.pop()
    if len(more) > 1:
        count = 3 + len(more)
        raise _TableError(f"at most user, item, rating and time without a header, not {count} fields")
    if more and not _is_time(more[0]):
        raise _TableError("a time (seconds since 1970, or a date) in column 4 without a header")


def _is_time(field: str) -> bool:
    if DATE.fullmatch(field):
        return True
    try:
        return parse_rating(field) >= MIN_TIME
    except ValueError:
        return False


def _is_int64(text: str) -> bool:
    return INTEGER.fullmatch(text) is not None and INT64.min <= int(text) <= INT64.max


def _count_filled(text: str) -> int:
    """Count the lines that are not blank."""
    if text[:1] not in SPACE + "\n" and not any(x in text for x in ("\n\n", "\n ", "\n\t")):
        return text.count("\n") + (not text.endswith("\n"))
    return sum(1 for line in text.split("\n") if line.strip(SPACE))
