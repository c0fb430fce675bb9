"""Parse lines of text with a user, an item and a rating each."""

import io
import re
import threading
import warnings
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfkernel.data.files import arrow
from mfkernel.data.files.layout import (
    AS_ARRAY,
    BY_POSITION,
    COMMENT,
    COMMENT_MARKS,
    Layout,
    enumerate_records,
    rating_fault,
    splitter,
)
from mfkernel.data.files.lines import SPACE, Lines
from mfkernel.data.files.numbering import MEASUREMENT, IdColumn, integer_codes, text_codes
from mfkernel.data.files.streams import check_memory
from mfkernel.data.tables import MIN_TIME
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import Task, default_engine, interruptible

BLOCK_BYTES = 2**21  # that one thread reads at a time: a call of pyarrow takes as long as a few kilobytes
SHORT_FILE = 2**20  # bytes that are read before pyarrow could be imported

DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}(?:[T ][0-9].*)?")
RATING_DTYPE = np.dtype([("user", np.int64), ("item", np.int64), ("value", np.float64)])
TIMED_DTYPE = np.dtype(
    [*((name, RATING_DTYPE[name]) for name in RATING_DTYPE.names or ()), ("time", np.float64)]
)
GUESSED_DTYPES = {3: RATING_DTYPE, 4: TIMED_DTYPE}  # by number of fields
OTHER_NUMBER = re.compile(r'(?:^|[\s,;:"])(?:\+[0-9]|-?0[0-9]|-0(?!\.))', re.MULTILINE)  # 007 is not 7

POINTS = Layout(None, (0, 1, 2))  # numbers with decimal points

# loadtxt treats some control characters as space, and NUL as an end
CONTROL_BYTES = bytes({*range(32)} - {*b"\t\n\v\f"})
PLAIN_BYTES = bytes.maketrans(b"\v\f" + CONTROL_BYTES, b"  " + b"?" * len(CONTROL_BYTES))


class Table(NamedTuple):
    """The ratings of a text: ``user_ids[users[n]]`` rates ``item_ids[items[n]]`` with ``values[n]``."""

    user_ids: NDArray[Any]
    users: NDArray[Any]
    item_ids: NDArray[Any]
    items: NDArray[Any]
    values: NDArray[Any]
    times: NDArray[np.float64] | None = None


class NotPlainError(ValueError):
    """A block is not plain, so its lines must be read one by one.

    A plain line has integers and a finite rating.
    """


class _TimeError(ValueError):
    """A field is not a time."""


class _TableError(ValueError):
    """A line looks like the row of a table; the message says what is expected."""


class Rows(Protocol):
    """Reads blocks of lines: some at once, without the GIL, and any line by line."""

    def parse(self, block: bytes) -> arrow.Block | None:
        """Return the ratings of plain lines, or None where they are not plain; needs pyarrow."""
        ...

    def read_lines(self, first: int, text: str, users: IdColumn, items: IdColumn) -> arrow.Block:
        """Return the ratings of lines, of which the first has this number."""
        ...


def parse(lines: Lines, rows: Rows) -> Table:
    """Read all lines.

    User ids are int64 if all of them are integers, else text; the same holds for item ids. Blank lines, lines
    whose fields are all empty, and lines that begin with ``#`` or ``%`` and a space are skipped.

    Raises
    ------
    ValueError
        For the first wrong line. The message has its number and content.
    """
    reader = _Reader(lines, rows)
    n_threads = available_cores() if reader.is_fast else 1
    with default_engine(n_threads) as engine:
        engine.run(reader.work, [Task(None)] * n_threads)
        values, times = interruptible(reader.values)
        (user_ids, users), (item_ids, items) = engine.run(reader.numbered, [Task("users"), Task("items")])
    if reader.dropped:
        warnings.warn(f"{lines.path}: {reader.dropped:,} lines without a rating are left out", stacklevel=4)
    return Table(user_ids, users, item_ids, items, values, times)


class _Reader:
    """Reads the lines in blocks, several at a time.

    Attributes
    ----------
    is_fast
        Whether pyarrow reads plain blocks: not of a short file.
    dropped
        Number of lines without a rating.
    """

    def __init__(self, lines: Lines, rows: Rows) -> None:
        self._lines, self._rows = lines, rows
        self._users, self._items = IdColumn(), IdColumn()
        self._blocks, self._begun = lines.byte_blocks(BLOCK_BYTES), 0
        self._reading, self._careful = threading.Lock(), threading.Lock()
        self._read: dict[int, arrow.Block] = {}
        self._ids: dict[str, list[Any]] = {}
        self._count = self.dropped = 0
        self._faults: dict[int, Exception] = {}
        self.is_fast = lines.more_than(SHORT_FILE) and _can_parse()

    def work(self, _: None, cancelled: Callable[[], bool]) -> None:
        """Read one block after the other, until there are no more, or one of them is wrong."""
        while not cancelled():
            with self._reading:
                n = self._begun
                self._begun += 1
                try:
                    block = None if self._faults else next(self._blocks, None)
                    check_memory(self._lines.path, self._count)
                except Exception as error:
                    self._faults[n] = error
                    return
            if block is None:
                return
            try:
                self._read[n] = self._read_block(*block)
            except Exception as error:  # values() raises that of the first such block
                self._faults[n] = error
                return
            with self._reading:
                self._count += self._read[n].values.size
                self.dropped += self._read[n].dropped

    def _read_block(self, number: int, block: bytes) -> arrow.Block:
        if self.is_fast and (fast := self._rows.parse(block)) is not None:
            return fast
        text = self._lines.text(block)
        with self._careful:
            return self._rows.read_lines(number, text, self._users, self._items)

    def values(self) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Return all ratings and their times, if they are kept; or raise the first error."""
        if self._faults:
            raise self._faults[min(self._faults)]
        blocks = [self._read.pop(n) for n in sorted(self._read)]
        if not any(block.values.size for block in blocks):
            raise ValueError(f"{self._lines.path} has no ratings")
        self._ids = {side: [getattr(block, side) for block in blocks] for side in ("users", "items")}
        parts, times = [block.values for block in blocks], [block.times for block in blocks]
        blocks.clear()
        dtype = np.result_type(*{part.dtype for part in parts})
        return _joined(parts, dtype), None if times[0] is None else _joined(times, np.dtype(np.float64))

    def numbered(self, side: str, _: Callable[[], bool]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the distinct ids of the users, or of the items, and the position of each line's id."""
        column = self._users if side == "users" else self._items
        arrow.add_blocks(column, self._ids.pop(side))
        return column.numbered()


def _joined(parts: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the parts as one array; the list is emptied, so that their memory is freed meanwhile."""
    result = np.empty(sum(part.size for part in parts), dtype)
    end = result.size
    while parts:
        part = parts.pop()
        result[end - part.size : end] = part
        end -= part.size
    return result


class TextRows(arrow.BlockParser):
    """The rows of a text with fields."""

    def __init__(self, lines: Lines, layout: Layout) -> None:
        super().__init__(layout)
        self._lines = lines

    def read_lines(self, first: int, text: str, users: IdColumn, items: IdColumn) -> arrow.Block:
        """Return the ratings of lines: in one call where they are plain, else one by one."""
        if self._layout.is_usual:
            try:
                plain = _plain_ratings(text, self._layout)
                codes = integer_codes(plain["user"]), integer_codes(plain["item"])
                return arrow.Block(*codes, plain["value"].copy())
            except NotPlainError:
                pass
        return _read_lines(self._lines, self._layout, first, text, users, items)


def _can_parse() -> bool:
    """Return whether pyarrow is there; if not, warn that reading would be faster with it."""
    if not arrow.is_installed():
        warnings.warn(
            "large files are read several times faster with pyarrow: pip install 'mfkernel[files]'",
            stacklevel=5,
        )
    return arrow.is_installed()


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


def _read_lines(
    lines: Lines, layout: Layout, first: int, text: str, users: IdColumn, items: IdColumn
) -> arrow.Block:
    """Parse lines one by one, with ids of any kind."""
    u, i, v = layout.columns
    split = splitter(layout.separator, text)
    guessed = layout.guessed > 0
    user_codes, item_codes, values, times, dropped = array("q"), array("q"), array("d"), array("d"), 0
    for number, line in enumerate_records(text, layout.separator, first):
        if line[:1] in COMMENT_MARKS and COMMENT.match(line):
            continue
        fields = split(line)
        try:
            if guessed:
                _check_guessed(fields)
            if layout.is_missing(fields[v]) and any(fields):
                dropped += 1
                continue
            user, item = _number(users, fields[u], guessed), _number(items, fields[i], guessed)
            value = layout.parse_rating(fields[v])
            if layout.time is not None:
                times.append(_parse_time(fields[layout.time]))
        except _TableError as error:
            raise lines.error(number, line, str(error), f"{BY_POSITION}; {AS_ARRAY}") from None
        except _TimeError:
            expected = f"a time (a number, or a date such as 2005-09-06) in column {(layout.time or 0) + 1}"
            raise lines.error(number, line, expected) from None
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
    kept_times = None if layout.time is None else np.array(times, np.float64)
    return arrow.Block(
        text_codes(user_codes), text_codes(item_codes), np.array(values, np.float64), kept_times, dropped
    )


def _number(ids: IdColumn, text: str, guessed: bool) -> int:
    """Return the number of an id; refuse a measured number if only its position makes it an id."""
    if guessed and not ids.has(text) and MEASUREMENT.fullmatch(text):
        raise _TableError("a user and an item that are not decimal or negative numbers")
    return ids.number(text)


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


def _parse_time(field: str) -> float:
    """Return a time in seconds since 1970, or in the unit of the file."""
    try:
        return POINTS.parse_rating(field)
    except ValueError:
        pass
    try:
        if not DATE.fullmatch(field):
            raise ValueError
        return float(np.datetime64(field.removesuffix("Z"), "us").astype(np.int64)) / 1e6
    except ValueError:
        raise _TimeError from None


def _is_time(field: str) -> bool:
    if DATE.fullmatch(field):
        return True
    try:
        return POINTS.parse_rating(field) >= MIN_TIME
    except ValueError:
        return False


def _count_filled(text: str) -> int:
    """Count the lines that are not blank."""
    if text[:1] not in SPACE + "\n" and not any(x in text for x in ("\n\n", "\n ", "\n\t")):
        return text.count("\n") + (not text.endswith("\n"))
    return sum(1 for line in text.split("\n") if line.strip(SPACE))
