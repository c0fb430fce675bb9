"""How the lines of a text are written: what separates fields, and which of them are user, item and rating."""

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mfkernel._lines import SPACE, Lines

# header names, without case, spaces, underscores and hyphens
KNOWN_NAMES = (
    ("user", "userid", "uid", "reviewerid", "customerid"),
    ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "book", "bookid", "isbn", "asin"),
    ("rating", "ratings", "score", "stars", "value", "overall", "bookrating"),
)

MOST_FIELDS = 4  # of a line without a header: user, item, rating, time

Column = str | int

EMPTY = SPACE + ',;:"'  # of lines whose fields are all empty
EMPTY_LINES = re.compile(rf"(?:[{EMPTY}]*+\n)*+")
COMMENT = re.compile("#+(?: |$)")
QUOTED = r'"((?:[^"]++|"")*+)"?'  # without an end, to the end of the line
CONTROL = re.compile(r"[\x1c-\x1f]")  # str.split takes these for space

NAMED = "columns= names user, item and rating"
BY_POSITION = "pass columns=(0, 1, 2), the positions of user, item and rating"
AS_ARRAY = "if each line is the row of a table, read that as an array"


class Layout(NamedTuple):
    """How the lines are written.

    Attributes
    ----------
    separator
        ``::``, tab, comma, semicolon, or None for white space.
    columns
        Positions of user, item and rating.
    guessed
        The number of fields of the first line, if nothing but their order names them, else 0.
    """

    separator: str | None
    columns: tuple[int, int, int]
    guessed: int = 0


def check_columns(columns: Any) -> tuple[Column, ...] | None:
    """Return three names or positions, of any sequence or array of these.

    Raises
    ------
    TypeError, ValueError
        If they are not three, or not names and positions.
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
    """Find separator, header and columns, and take the lines before the first rating."""
    comment: tuple[int, str, list[str]] | None = None  # the last that names columns
    while (line := _next_filled(lines)) is not None:
        if line.startswith("#") and not _is_rating(line, columns):
            names = _split(line.lstrip("#"))[1] if _are_named(columns) and len(line) > 3 else []
            if len(names) >= 3 and _find_columns(names, columns) is not None:
                comment = lines.number, line, names
        elif line.strip(EMPTY):
            break
        lines.skip()
    else:
        raise ValueError(f"{lines.path} has no ratings")
    separator, fields = _split(line)
    places = _find_columns(fields, columns)
    if comment is not None and places is None:
        number, header, names = comment
        places = _find_columns(names, columns)
        if places is None or len(names) != len(fields):
            expected = f"a name for each of the {len(fields)} fields of line {lines.number}"
            raise lines.error(number, header, expected, BY_POSITION)
        return Layout(separator, places)
    if columns is None and len(fields) >= 3 and _is_number(fields[2]):
        count = max(n for n, field in enumerate(fields, 1) if field)
        if count > MOST_FIELDS:
            expected = f"at most user, item, rating and time without a header, not {count} fields"
            raise lines.error(lines.number, line, expected, f"{BY_POSITION}; {AS_ARRAY}")
        return Layout(separator, (0, 1, 2), guessed=count)
    if places is None:
        raise lines.error(lines.number, line, *_missing(fields, columns))
    if not _are_named(columns) and _is_number(fields[places[2]]):
        return Layout(separator, places)
    lines.skip()
    shift = _row_names(lines, separator, len(fields), places[2]) if _are_named(columns) else 0
    return Layout(separator, (places[0] + shift, places[1] + shift, places[2] + shift))


def splitter(separator: str | None, text: str) -> Callable[[str], list[str]]:
    """Return what splits each line of a text into fields, without space around them and without quotes."""
    quoted = '"' in text and separator != "::"
    if separator is None:
        if quoted:
            pattern = re.compile(rf"{QUOTED}([^{SPACE}]*)|([^{SPACE}]+)")
            return lambda line: [_unquoted(found) for found in pattern.finditer(line)]
        # str.split knows further kinds of space
        plain = text.isascii() and not CONTROL.search(text)
        return str.split if plain else re.compile(rf"[^{SPACE}]+").findall
    if quoted:
        space = SPACE.replace(separator, "")
        field = re.compile(rf"[{space}]*(?:{QUOTED}([^{separator}]*)|([^{separator}]*))({separator}?)")
        return lambda line: _quoted_fields(field, line)
    return lambda line: [field.strip(SPACE) for field in line.split(separator)]


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


def _split(line: str) -> tuple[str | None, list[str]]:
    """Find what separates the fields of a line, three or more of them, and return these, too."""
    for separator in ("::", "\t", ",", ";"):
        fields = splitter(separator, line)(line)
        if len(fields) >= 3:
            return separator, fields
    return None, splitter(None, line)(line)


def _next_filled(lines: Lines) -> str | None:
    lines.skip_all(EMPTY_LINES)
    return lines.peek()


def _is_rating(line: str, columns: tuple[Column, ...] | None) -> bool:
    """Whether a line that begins with ``#`` is a user, item and rating even so."""
    if COMMENT.match(line) or (columns is not None and _are_named(columns)):
        return False
    places = _find_columns(fields := _split(line)[1], columns or (0, 1, 2))
    return places is not None and _is_number(fields[places[2]])


def _are_named(columns: tuple[Column, ...] | None) -> bool:
    return columns is None or any(isinstance(column, str) for column in columns)


def _find_columns(names: list[str], columns: tuple[Column, ...] | None) -> tuple[int, int, int] | None:
    """Return the positions of three columns given by name or position, or of known names; None without."""
    plain = [_plain(name) for name in names] if _are_named(columns) else []
    if columns is None:
        places = [next((plain.index(x) for x in known if x in plain), -1) for known in KNOWN_NAMES]
    else:
        places = [_place(names, plain, x) if isinstance(x, str) else x for x in columns]
    if not all(0 <= place < len(names) for place in places):
        return None
    user, item, rating = places
    return user, item, rating


def _place(names: list[str], plain: list[str], name: str) -> int:
    """Return where the one column of this name is, exact or else in another form; -1 if there is not one."""
    found = [n for n, x in enumerate(names) if x == name] or [
        n for n, x in enumerate(plain) if x == _plain(name)
    ]
    return found[0] if len(found) == 1 else -1


def _plain(name: str) -> str:
    """Return a name without case, spaces and punctuation, and without a type, as in ``user_id:token``."""
    return re.sub(r"[\s_\-.]", "", re.sub(r"(?<=\w):\w+$", "", name)).lower()


def _missing(fields: list[str], columns: tuple[Column, ...] | None) -> tuple[str, str]:
    """Return what a first line should have been, and the remedy."""
    if columns is not None:
        if _are_named(columns):
            return (
                f"a header with each of the columns {columns!r} once",
                "columns= also takes positions, counted from 0",
            )
        return f"the columns {columns!r}, counted from 0, among {len(fields)}", ""
    plain = [_plain(field) for field in fields]
    found = [any(x in plain for x in known) for known in KNOWN_NAMES]
    name = ("user", "item", "rating")[found.index(False)]
    return f"'user item rating', or a header with a known name for the {name} column", NAMED


def _row_names(lines: Lines, separator: str | None, count: int, rating: int) -> int:
    """Return 1 if the lines below a header of ``count`` names begin with the name of a row, as R's do."""
    while (line := _next_filled(lines)) is not None:
        fields = splitter(separator, line)(line)
        if any(fields) and not COMMENT.match(line):
            break
        lines.skip()
    else:
        return 0
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
