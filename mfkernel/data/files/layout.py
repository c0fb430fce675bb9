"""Find the layout of a text: the separator, and the user, item and rating columns."""

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mfkernel._support import checks
from mfkernel.data.files.form import Column, Form
from mfkernel.data.files.lines import SPACE, Lines
from mfkernel.data.tables import COLUMN_NAMES, TIME_NAMES, find_names, plain_name

MAX_COMMENT_LENGTH = 2**17  # characters of comments before the first rating; each comment may name columns

TIME_POSITION = 3  # of the time without a header

EMPTY_FIELD_CHARACTERS = SPACE + ',;:|"'  # characters of a line whose fields are all empty
EMPTY_LINES = re.compile(rf"(?:[{EMPTY_FIELD_CHARACTERS}]*+\n)*+")
COMMENT_MARKS = "#%"  # first characters of comments
COMMENT = re.compile(f"[{COMMENT_MARKS}]+(?: |$)")
EMPTY_LINES_AND_COMMENTS = re.compile(
    rf"(?:[{EMPTY_FIELD_CHARACTERS}]*+\n|[{COMMENT_MARKS}]++(?: [^\n]*+)?\n)*+"
)
SEPARATORS = ("::", "\t", ",", ";", "|")
SEPARATOR_LINE = re.compile(r'"?sep=(.*?)"?', re.IGNORECASE)  # a first line that names the separator
MISSING_RATINGS = (
    "",
    "nan",
    "+nan",
    "-nan",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "null",
    "none",
    "nil",
    r"\n",
    "?",
    "-",
    ".",
)
DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]+,[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
MAX_SPANNED_LINES = 1000  # lines of one quoted field
QUOTED_FIELD = r'"((?:[^"]++|"")*+)"?'  # without a closing quote, up to the end of the line
SPLIT_CONTROLS = re.compile(r"[\x1c-\x1f]")  # str.split treats these as space

NAMED = "columns= names user, item and rating"
BY_POSITION = "columns= gives the positions of user, item and rating, counted from 0"
AS_ARRAY = "if each line is the row of a table, read that as an array"


class Layout(NamedTuple):
    """The layout of the lines of a text.

    Attributes
    ----------
    separator
        ``::``, tab, comma, semicolon, or None for white space.
    columns
        Positions of user, item and rating.
    guessed
        Number of filled fields of the first line if only their order identifies them, else 0.
    time
        Position of the time, or None if times are not kept.
    decimal
        Mark between the digits of a rating: a point or a comma.
    drops
        Whether lines without a rating are left out.
    """

    separator: str | None
    columns: tuple[int, int, int]
    guessed: int = 0
    time: int | None = None
    decimal: str = "."
    drops: bool = False

    def parse_rating(self, field: str) -> float:
        """Parse a finite rating.

        Raises
        ------
        ValueError
            If it is none. Forms that only Python accepts, such as ``1_0``, are none.
        """
        if self.decimal == ",":
            field = field.replace(".", "_").replace(",", ".")
        value = float(field)
        if not math.isfinite(value) or "_" in field or not (field.isascii() and field.isprintable()):
            raise ValueError
        return value

    @property
    def is_usual(self) -> bool:
        """Whether all that is read of a line is user, item and rating, with a decimal point."""
        return self.time is None and self.decimal == "." and not self.drops

    def is_missing(self, field: str) -> bool:
        """Return whether a line with this rating is left out."""
        return self.drops and field.lower() in MISSING_RATINGS


def find_layout(lines: Lines, form: Form) -> Layout:
    """Find separator, header and columns; consume the lines before the first rating."""
    found, names = _find_layout(lines, form)
    time = None
    if form.timestamp is not False:
        time = _find_time(lines, form.timestamp, names)
    return found._replace(time=time, decimal=form.decimal, drops=form.nulls == "drop")


def _find_layout(lines: Lines, form: Form) -> tuple[Layout, list[str] | None]:
    """Return the layout without the time, and the names of the header if there is one."""
    columns = form.columns
    comment: tuple[int, str, list[str]] | None = None  # the last comment that names columns
    known = _take_separator(lines) or form.separator
    length = 0
    while (line := _next_filled(lines)) is not None:
        if line[:1] in COMMENT_MARKS and not _is_rating(line, columns, known):
            length += len(line)
            if length > MAX_COMMENT_LENGTH:
                expected = f"at most {MAX_COMMENT_LENGTH:,} characters of comments before the first rating"
                raise lines.error(lines.number, line, expected, "leave comments out")
            names = (
                _split(line.lstrip(COMMENT_MARKS), known)[1] if _are_named(columns) and len(line) > 3 else []
            )
            if len(names) >= 3 and _find_columns(names, columns) is not None:
                comment = lines.number, line, names
        elif line.strip(EMPTY_FIELD_CHARACTERS):
            break
        lines.skip()
    else:
        raise ValueError(f"{lines.path} has no ratings")
    separator, fields = _split(line, known)
    positions = _find_columns(fields, columns)
    if columns is None and positions is not None:
        _refuse_two_of_a_kind(lines, lines.number, line, fields)
    if comment is not None and positions is None:
        number, header, names = comment
        positions = _find_columns(names, columns)
        if positions is None or len(names) != len(fields):
            expected = f"a name for each of the {len(fields)} fields of line {lines.number}"
            raise lines.error(number, header, expected, BY_POSITION)
        if columns is None:
            _refuse_two_of_a_kind(lines, number, header, names)
        return Layout(separator, positions), names
    by_order = (0, 1, 2) if columns is None and positions is None and len(fields) >= 3 else None
    if by_order is not None and fields[2] and _may_be_rating(fields[2]):
        guessed = max(n for n, field in enumerate(fields, 1) if field)
        return Layout(separator, by_order, guessed), None
    if positions is None:
        raise lines.error(lines.number, line, *_missing(fields, columns))
    user, item, rating = positions
    is_data = _is_number(fields[user]) or _is_number(fields[item]) or _may_be_rating(fields[rating])
    if is_data and not _are_named(columns):
        return Layout(separator, positions), None
    lines.skip()
    shift = _row_names(lines, separator, len(fields), rating) if _are_named(columns) else 0
    return Layout(separator, (user + shift, item + shift, rating + shift)), [""] * shift + fields


def _find_time(lines: Lines, timestamp: Column | bool, names: list[str] | None) -> int:
    """Return the position of the time: given, or that of a usual name, or without a header the fourth."""
    if timestamp is True and names is None:
        return TIME_POSITION
    if isinstance(timestamp, int) and timestamp is not True:
        return timestamp
    wanted = TIME_NAMES if timestamp is True else (plain_name(str(timestamp)),)
    exact = [n for n, name in enumerate(names or []) if name == timestamp]
    position = exact[0] if exact else find_names(names or [], (wanted,))[0]
    if position < 0:
        raise ValueError(
            f"{lines.path}: timestamp must be a column, {checks.listed(names or [], 8)}, got {timestamp!r}; "
            "pass its name, or its position from 0"
        )
    return position


def splitter(separator: str | None, text: str) -> Callable[[str], list[str]]:
    """Return a function that splits a line into fields, without space and quotes."""
    quoted = '"' in text and separator != "::"
    if separator is None:
        if quoted:
            pattern = re.compile(rf"{QUOTED_FIELD}([^{SPACE}]*)|([^{SPACE}]+)")
            return lambda line: [_unquoted(found) for found in pattern.finditer(line)]
        # str.split also splits at other kinds of space
        plain = text.isascii() and not SPLIT_CONTROLS.search(text)
        return str.split if plain else re.compile(rf"[^{SPACE}]+").findall
    if quoted:
        field = _field_pattern(separator)
        return lambda line: _quoted_fields(field, line)
    return lambda line: [field.strip(SPACE) for field in line.split(separator)]


def enumerate_records(text: str, separator: str | None, first: int) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; lines that a quoted field spans are one.

    A quote that opens a field but is not closed within ``MAX_SPANNED_LINES`` lines spans nothing.
    """
    lines = text.split("\n")
    if separator in (None, "::") or '"' not in text:
        yield from enumerate(lines, first)
        return
    field = _field_pattern(str(separator))
    closes = re.compile(rf'(?:[^"]|"")*+"[{SPACE}]*(?:{re.escape(str(separator))}|$)')
    n = 0
    while n < len(lines):
        last, record = n, lines[n]
        while '"' in record and _is_open(field, record):
            end, most = last + 1, min(last + MAX_SPANNED_LINES, len(lines))
            while end < most and '"' not in lines[end].replace('""', ""):
                end += 1
            if end == most or not closes.match(lines[end]):
                break
            record, last = "\n".join([record, *lines[last + 1 : end + 1]]), end
        yield first + n, record
        n = last + 1


def _is_open(field: re.Pattern[str], record: str) -> bool:
    """Return whether the last field has a quote that is not closed."""
    at = 0
    while found := field.match(record, at):
        at = found.end()
        if not found[4]:
            return found[1] is not None and found.end(1) == len(record)
    return False


def rating_fault(field: str) -> tuple[str, str] | None:
    """Return the expected rating and the remedy if the fault is known, else None."""
    shown = repr(field if len(field) <= 40 else field[:40] + "…")
    if field.lower() in MISSING_RATINGS:
        return (
            "a finite rating",
            f"the rating is missing ({shown}); pass nulls='drop' to leave such lines out",
        )
    if DECIMAL_COMMA.fullmatch(field):
        return "a finite rating", f"{shown} has a decimal comma; pass decimal=','"
    if _is_number(field) and not math.isfinite(float(field)):
        return "a finite rating", f"{shown} is infinite or beyond float64: leave such lines out"
    return None


def _field_pattern(separator: str) -> re.Pattern[str]:
    """Return the pattern of a field: text in quotes, what follows it, text without quotes, the separator."""
    space, mark = SPACE.replace(separator, ""), re.escape(separator)
    return re.compile(rf"[{space}]*(?:{QUOTED_FIELD}([^{mark}]*)|([^{mark}]*))({mark}?)")


def _quoted_fields(pattern: re.Pattern[str], line: str) -> list[str]:
    fields, at = [], 0
    while found := pattern.match(line, at):
        fields.append(_unquoted(found))
        at = found.end()
        if not found[4]:
            break
    return fields


def _unquoted(found: re.Match[str]) -> str:
    field = found[3] if found[1] is None else found[1].replace('""', '"') + found[2]
    return field.strip(SPACE)


def _split(line: str, known: str | None) -> tuple[str | None, list[str]]:
    """Find the separator of a line with three or more fields; return it and the fields."""
    if known is not None:
        return known, splitter(known, line)(line)
    tried = [(separator, splitter(separator, line)(line)) for separator in SEPARATORS if separator in line]
    found = [x for x in tried if len(x[1]) >= 3]
    if not found:
        return None, splitter(None, line)(line)
    if found[0][0] == "," and len(found) == 2:  # the other one is part of a text, or the comma is decimal
        found.sort(key=lambda x: len(x[1][0]))
    return found[0]


def _take_separator(lines: Lines) -> str | None:
    """Consume a first line such as ``sep=;`` from a spreadsheet; return the separator."""
    line = _next_filled(lines) or ""
    named = SEPARATOR_LINE.fullmatch(line)
    if named is None:
        return None
    if named[1] not in SEPARATORS:
        raise lines.error(lines.number, line, "'sep=' and a tab, a comma, a semicolon or '::'")
    lines.skip()
    return named[1]


def _next_filled(lines: Lines) -> str | None:
    lines.skip_all(EMPTY_LINES)
    return lines.peek()


def _is_rating(line: str, columns: tuple[Column, ...] | None, known: str | None) -> bool:
    """Return whether a line that begins with ``#`` or ``%`` is a rating after all."""
    if COMMENT.match(line) or (columns is not None and _are_named(columns)):
        return False
    positions = _find_columns(fields := _split(line, known)[1], columns or (0, 1, 2))
    return positions is not None and _is_number(fields[positions[2]])


def _are_named(columns: tuple[Column, ...] | None) -> bool:
    return columns is None or any(isinstance(column, str) for column in columns)


def _find_columns(names: list[str], columns: tuple[Column, ...] | None) -> tuple[int, int, int] | None:
    """Return the positions of three columns, or None if not all are found.

    Columns are given by name or position, or have known names.
    """
    plain = [plain_name(name) for name in names] if _are_named(columns) else []
    if columns is None:
        positions = find_names(names)
    else:
        positions = [_find_column(names, plain, x) if isinstance(x, str) else x for x in columns]
    if not all(0 <= position < len(names) for position in positions):
        return None
    user, item, rating = positions
    return user, item, rating


def _refuse_two_of_a_kind(lines: Lines, number: int, line: str, names: list[str]) -> None:
    """Refuse a header with several candidates for a column, such as two user columns."""
    for kind, known in zip(("user", "item", "rating"), COLUMN_NAMES, strict=True):
        found = [name for name in names if plain_name(name) in known]
        if len(found) > 1:
            shown = ", ".join(map(repr, found[:4])) + (", …" if len(found) > 4 else "")
            expected = f"one column for the {kind}, not {len(found)} ({shown})"
            raise lines.error(number, line, expected, f"{BY_POSITION}, or names that occur once")


def _find_column(names: list[str], plain: list[str], name: str) -> int:
    """Return the position of the only column of a name, -1 if not exactly one.

    An exact match takes precedence over another form of the name.
    """
    found = [n for n, x in enumerate(names) if x == name] or [
        n for n, x in enumerate(plain) if x == plain_name(name)
    ]
    return found[0] if len(found) == 1 else -1


def _missing(fields: list[str], columns: tuple[Column, ...] | None) -> tuple[str, str]:
    """Return the expected content of a first line, and the remedy."""
    if columns is not None:
        if _are_named(columns):
            return (
                f"a header with each of the columns {columns!r} once",
                "columns= also takes positions, counted from 0",
            )
        return f"the columns {columns!r}, counted from 0, among {len(fields)}", ""
    plain = [plain_name(field) for field in fields]
    found = [any(x in plain for x in known) for known in COLUMN_NAMES]
    name = ("user", "item", "rating")[found.index(False)]
    return f"'user item rating', or a header with a known name for the {name} column", NAMED


def _row_names(lines: Lines, separator: str | None, count: int, rating: int) -> int:
    """Return 1 if lines below a header begin with a row name, as R writes them, else 0."""
    lines.skip_all(EMPTY_LINES_AND_COMMENTS)
    line = lines.peek() or ""
    fields = splitter(separator, line)(line)
    if len(fields) != count + 1 or not _is_number(fields[rating + 1]):
        return 0
    if line.lstrip(SPACE).startswith('"') and not line.rstrip(SPACE).endswith('"'):
        return 1
    raise lines.error(lines.number, line, f"{count} fields, as the header has, not {count + 1}", BY_POSITION)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _may_be_rating(field: str) -> bool:
    """Return whether a field is a rating, perhaps a faulty one, and not a column name."""
    return _is_number(field) or rating_fault(field) is not None
