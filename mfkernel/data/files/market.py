"""Read MatrixMarket files.

SciPy's reader is not used, because it crashes the process on some damaged files.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.files.layout import splitter
from mfkernel.data.files.lines import SPACE, Lines
from mfkernel.data.files.streams import check_memory, check_shape
from mfkernel.data.files.text import POINTS, NotPlainError, plain_block

BANNER = "%%matrixmarket"
LAYOUTS = ("coordinate", "array")
FIELDS = ("real", "double", "integer", "unsigned-integer", "pattern")
SYMMETRIES = ("general", "symmetric", "skew-symmetric")
COMMENTS = re.compile(rf"(?:%[^\n]*+\n|[{SPACE}]*+\n)*+")
HEAD_RULE = "the head of a real MatrixMarket file: general, symmetric or skew-symmetric"


class Head(NamedTuple):
    """The head of a file: layout of the entries, m rows, n columns, number of entries."""

    is_array: bool
    is_pattern: bool
    symmetry: str
    m: int
    n: int
    stored: int


class Entries(NamedTuple):
    """The entries of the whole matrix; rows and columns count from 0."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]


def is_market(lines: Lines) -> bool:
    """Return whether the first line is that of a MatrixMarket file."""
    return (lines.peek() or "")[: len(BANNER)].lower() == BANNER


def read_market(lines: Lines) -> Entries:
    """Read a matrix; leave out the zeros of an array.

    Raises
    ------
    ValueError
        For the first wrong line. The message has its number and content.
    """
    head = _read_head(lines)
    check_shape(lines.path, (head.m, head.n), head.stored)
    table = _read_entries(lines, head)
    if table.size != head.stored:
        raise ValueError(f"{lines.path} has {table.size:,} entries, but {head.stored:,} by its head")
    values = np.ones(table.size) if head.is_pattern else table["value"]
    if head.is_array:
        rows, columns = _cells(head)
        rows, columns, values = (x[values != 0] for x in (rows, columns, values))
    else:
        rows, columns = table["row"] - 1, table["column"] - 1
    if head.symmetry != "general":
        mirrored = rows != columns
        sign = -1.0 if head.symmetry == "skew-symmetric" else 1.0
        rows, columns = np.append(rows, columns[mirrored]), np.append(columns, rows[mirrored])
        values = np.append(values, sign * values[mirrored])
    return Entries(rows, columns, values, (head.m, head.n))


def _read_head(lines: Lines) -> Head:
    """Consume the first line, the comments and the size line."""
    line = lines.peek() or ""
    _, matrix, layout, kind, symmetry, *rest = [*line.lower().split(), "", "", "", ""]
    if kind == "complex" or symmetry == "hermitian":
        raise lines.error(lines.number, line, HEAD_RULE, "ratings are real numbers")
    supported = matrix == "matrix" and layout in LAYOUTS and kind in FIELDS and symmetry in SYMMETRIES
    if not supported or any(rest) or (layout == "array" and kind == "pattern"):
        raise lines.error(lines.number, line, HEAD_RULE)
    lines.skip()
    lines.skip_all(COMMENTS)
    below = lines.peek() or ""
    if not below.strip(SPACE) or below.startswith("%"):
        raise ValueError(f"{lines.path} has no ratings: it ends before its size line")
    is_array = layout == "array"
    sizes = below.split()
    expected = "'rows columns'" if is_array else "'rows columns entries'"
    if len(sizes) != (2 if is_array else 3) or not all(_is_count(x) for x in sizes):
        raise lines.error(lines.number, below, expected)
    m, n = int(sizes[0]), int(sizes[1])
    if symmetry != "general" and m != n:
        raise lines.error(lines.number, below, f"as many rows as columns of a {symmetry} matrix")
    cells = {"general": m * n, "symmetric": n * (n + 1) // 2, "skew-symmetric": n * (n - 1) // 2}[symmetry]
    lines.skip()
    return Head(is_array, kind == "pattern", symmetry, m, n, cells if is_array else int(sizes[2]))


def _read_entries(lines: Lines, head: Head) -> NDArray[Any]:
    """Read the lines below the head, one entry per line."""
    names = ([] if head.is_array else ["row", "column"]) + ([] if head.is_pattern else ["value"])
    dtype = np.dtype([(name, np.float64 if name == "value" else np.int64) for name in names])
    blocks, count = [np.empty(0, dtype)], 0
    for first, text in lines.blocks():
        try:
            if '"' in text:
                raise NotPlainError
            block = plain_block(text, dtype)
        except NotPlainError:
            block = _read_block(lines, first, text, dtype)
        if (wrong := _find_fault(head, block)) is not None:
            entry, expected = wrong
            number, line = [(n, x) for n, x in enumerate(text.split("\n"), first) if x.strip(SPACE)][entry]
            raise lines.error(number, line, expected)
        blocks.append(block)
        count += block.size
        check_memory(lines.path, count)
        if count > head.stored:
            raise ValueError(f"{lines.path} has more entries than the {head.stored:,} of its head")
    return np.concatenate(blocks)


def _read_block(lines: Lines, first: int, text: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read lines one by one."""
    names = dtype.names or ()
    split = splitter(None, text.replace('"', "?"))
    entries: list[tuple[float, ...]] = []
    for number, line in enumerate(text.split("\n"), first):
        fields = split(line)
        if not fields:
            continue
        try:
            if len(fields) != len(names):
                raise ValueError
            entries.append(tuple(_number(x, name) for x, name in zip(fields, names, strict=True)))
        except ValueError:
            raise lines.error(number, line, f"'{' '.join(names)}'") from None
    return np.array(entries, dtype)


def _number(field: str, name: str) -> float:
    if name == "value":
        return POINTS.parse_rating(field)
    if not _is_count(field):
        raise ValueError
    return int(field)


def _find_fault(head: Head, block: NDArray[Any]) -> tuple[int, str] | None:
    """Return the first wrong entry and the expected position; None if all are right."""
    if head.is_array:
        return None
    for name, count in (("row", head.m), ("column", head.n)):
        outside = (block[name] < 1) | (block[name] > count)
        if outside.any():
            return int(outside.argmax()), f"a {name} from 1 to {count}"
    if head.symmetry == "skew-symmetric" and (same := block["row"] == block["column"]).any():
        return int(same.argmax()), "no entry on the diagonal of a skew-symmetric matrix"
    return None


def _cells(head: Head) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of each value of an array, column by column.

    If the matrix is symmetric, each column begins at the diagonal.
    """
    if head.symmetry == "general":
        columns, rows = np.divmod(np.arange(head.stored), max(1, head.m))
    else:
        columns, rows = np.triu_indices(head.n, 1 if head.symmetry == "skew-symmetric" else 0)
    return rows.astype(np.int64), columns.astype(np.int64)


def _is_count(field: str) -> bool:
    return field.isascii() and field.isdecimal() and len(field) <= 18
