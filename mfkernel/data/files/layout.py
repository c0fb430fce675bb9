"""Find the layout of a text: the separator, and the user, item and rating columns."""

import math
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mfkernel.data.files.lines import SPACE, Lines
from mfkernel.data.tables import COLUMN_NAMES, find_names, plain_name

MAX_COMMENT_LENGTH = 2**17  # characters of comments before the first rating; each comment may name columns

Column = str | int

EMPTY_FIELD_CHARACTERS = SPACE + ',;:"'  # characters of a line whose fields are all empty
EMPTY_LINES = re.compile(rf"(?:[{EMPTY_FIELD_CHARACTERS}]*+\n)*+")
COMMENT_MARKS = "#%"  # first characters of comments
COMMENT = re.compile(f"[{COMMENT_MARKS}]+(?: |$)")
EMPTY_LINES_AND_COMMENTS = re.compile(
    rf"(?:[{EMPTY_FIELD_CHARACTERS}]*+\n|[{COMMENT_MARKS}]++(?: [^\n]*+)?\n)*+"
)
SEPARATORS = ("::", "\t", ",", ";")
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
    """

    separator: str | None
    columns: tuple[int, int, int]
    guessed: int = 0


def check_columns(columns: Any) -> tuple[Column, ...] | None:
    """Return ``columns`` as three names or positions, from any sequence or array.

    Raises
    ------
    TypeError, ValueError
        If there are not exactly three, or some are neither names nor positions.
    """
    if columns is None:
        return None
    rule = f"columns must be three different names or positions from 0, got {columns!r}"
    if isinstance(columns, str | bytes):
        raise ValueError(f"{rule}; pass a tuple")
    try:
        given: list[Column] = []
        for column in columns:
            if isinstance(column, bool | np.bool_):
                raise TypeError
            given.append(str(column) if isinstance(column, str) else operator.index(column))
    except TypeError:
        raise TypeError(rule) from None
    if len(set(given)) != 3 or len(given) != 3 or any(isinstance(c, int) and c < 0 for c in given):
        raise ValueError(rule)
    return tuple(given)


def find_layout(lines: Lines, columns: tuple[Column, ...] | None) -> Layout:
    """Find separator, header and columns; consume the lines before the first rating."""
    comment: tuple[int, str, list[str]] | None = None  # the last comment that names columns
    known = _take_separator(lines)
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
        return Layout(separator, positions)
    by_order = (0, 1, 2) if columns is None and positions is None and len(fields) >= 3 else None
    if by_order is not None and fields[2] and _may_be_rating(fields[2]):
        return Layout(separator, by_order, guessed=max(n for n, field in enumerate(fields, 1) if field))
    if positions is None:
        raise lines.error(lines.number, line, *_missing(fields, columns))
    user, item, rating = positions
    is_data = _is_number(fields[user]) or _is_number(fields[item]) or _may_be_rating(fields[rating])
    if is_data and not _are_named(columns):
        return Layout(separator, positions)
    lines.skip()
    shift = _row_names(lines, separator, len(fields), rating) if _are_named(columns) else 0
    return Layout(separator, (user + shift, item + shift, rating + shift))


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
        space = SPACE.replace(separator, "")
        field = re.compile(rf"[{space}]*(?:{QUOTED_FIELD}([^{separator}]*)|([^{separator}]*))({separator}?)")
        return lambda line: _quoted_fields(field, line)
    return lambda line: [field.strip(SPACE) for field in line.split(separator)]


def rating_fault(field: str) -> tuple[str, str] | None:
    """Return the expected rating and the remedy if the fault is known, else None."""
    shown = repr(field if len(field) <= 40 else field[:40] + "…")
    if field.lower() in MISSING_RATINGS:
        return "a finite rating", f"the rating is missing ({shown}): leave lines without a rating out"
    if DECIMAL_COMMA.fullmatch(field):
        return "a finite rating", f"{shown} has a decimal comma: write decimal points"
    if _is_number(field) and not math.isfinite(float(field)):
        return "a finite rating", f"{shown} is infinite or beyond float64: leave such lines out"
    return None


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
