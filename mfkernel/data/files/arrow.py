"""Blocks of plain lines, parsed by pyarrow; its only importer."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.data.convert import exact_dtype
from mfkernel.data.files.layout import MISSING_RATINGS, TIME_POSITION, Layout
from mfkernel.data.files.lines import SPACE
from mfkernel.data.files.numbering import MAX_ID_LENGTH, MEASUREMENT, Codes, IdColumn, integer_codes
from mfkernel.data.tables import MIN_TIME

FAULTY_COLUMN = re.compile(r"column #(\d+)")
NULL_VALUES = sorted({x for name in MISSING_RATINGS for x in (name, name.upper(), name.title())})
GUESSED = (3, 4)  # fields of a line without header: user, item, rating and perhaps a time


class TextIds(NamedTuple):
    """The ids of a block of lines as texts: ``dictionary[codes[n]]``, an Arrow array of distinct texts."""

    codes: NDArray[np.int32]
    dictionary: Any


class Block(NamedTuple):
    """The ratings of a block of lines; the values are float32 where that holds them exactly, else float64.

    ``dropped`` is the number of lines without a rating.
    """

    users: Codes | TextIds
    items: Codes | TextIds
    values: NDArray[Any]
    times: NDArray[np.float64] | None = None
    dropped: int = 0


@cache
def is_installed() -> bool:
    """Return whether pyarrow can be imported."""
    try:
        import pyarrow.csv
    except ImportError:
        return False
    return bool(pyarrow.csv)


class BlockParser:
    """Parses blocks of plain lines without the GIL.

    It refuses a block that the reader of single lines may read in another way, or refuse by name.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._is_text = [False, False]  # users and items: as soon as one block has an id that is no integer
        self._is_date = False  # times: as soon as one block has a time that is no number

    def parse(self, block: bytes) -> Block | None:
        """Return the ratings of these lines, or None where they are not plain."""
        layout = self._layout
        if layout.guessed not in (0, *GUESSED):
            return None
        separator, block = _with_one_byte(block, layout.separator)
        lines = b"\n\n" + block + b"\n\n"
        if separator is None or not self._are_plain(np.frombuffer(lines, np.uint8), separator):
            return None
        names = [str(n) for n in range(_count_fields(block, separator, layout.separator != "::"))]
        time = TIME_POSITION if layout.guessed == 4 and layout.time is None else layout.time
        columns = layout.columns if time is None else (*layout.columns, time)
        if len(set(columns)) < len(columns):
            return None
        if max(columns) >= len(names) or (layout.guessed and layout.guessed != len(names)):
            return None
        table = self._table(lines, separator, names, [names[n] for n in columns])
        return None if table is None else self._checked(table)

    def _are_plain(self, text: NDArray[np.uint8], separator: str) -> bool:
        """Return whether pyarrow reads the lines as the reader does that goes line by line."""
        from mfkernel.kernels.text import breaks_quotes, find_oddities, has_odd_integer

        text, byte = readonly(text), np.uint8(ord(separator))
        nul, quote, mark, odd = find_oddities(text, byte)
        if nul or mark or (quote and self._layout.separator is None):
            return False
        if quote and breaks_quotes(text):
            return False
        columns = (-1 if x else at for x, at in zip(self._is_text, self._layout.columns, strict=False))
        return not (odd and has_odd_integer(text, byte, *columns))

    def _table(self, lines: bytes, separator: str, names: list[str], columns: list[str]) -> Any:
        """Return these columns, or None if a value is not of its type; columns of ids may become texts."""
        import pyarrow as pa
        from pyarrow import csv

        kinds = {True: pa.dictionary(pa.int32(), pa.string()), False: pa.int64()}
        is_text, is_date = self._is_text.copy(), self._is_date  # other threads change them
        while True:
            time = pa.timestamp("us") if is_date else pa.float64()
            types = [*(kinds[x] for x in is_text), pa.float64(), time]
            try:
                return csv.read_csv(
                    pa.BufferReader(lines),
                    csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=names),
                    csv.ParseOptions(
                        delimiter=separator, quote_char=False if self._layout.separator == "::" else '"'
                    ),
                    csv.ConvertOptions(
                        include_columns=columns,
                        column_types=dict(zip(columns, types, strict=False)),
                        null_values=NULL_VALUES if self._layout.drops else [],
                        strings_can_be_null=False,
                        decimal_point=self._layout.decimal,
                    ),
                )
            except pa.ArrowInvalid as error:
                found = FAULTY_COLUMN.search(str(error))
                side = columns.index(names[int(found[1])]) if found else 2
                if side == 2 or (side == 3 and is_date) or (side < 2 and is_text[side]):
                    return None
                if side == 3:
                    is_date = self._is_date = True
                else:
                    is_text[side] = self._is_text[side] = True

    def _checked(self, table: Any) -> Block | None:
        """Return the ratings, or None if some are faulty or may be read in another way."""
        columns, dropped = rated_columns(table, self._layout.drops)
        if not columns:
            return None
        values, times = columns[2].to_numpy(), None
        if not np.isfinite(values).all():
            return None
        if len(columns) == 4:
            times = _seconds(columns[3])
            if not np.isfinite(times).all():
                return None
            if self._layout.guessed == 4 and columns[3].type == "double" and times.min() < MIN_TIME:
                return None
        users, items = (self._ids(column) for column in columns[:2])
        if users is None or items is None:
            return None
        kept_times = None if self._layout.time is None else times
        return Block(users, items, values.astype(exact_dtype(values), copy=False), kept_times, dropped)

    def _ids(self, column: Any) -> Codes | TextIds | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_integer(column.type):
            integers = column.to_numpy()
            if self._layout.guessed and integers.min() < 0:
                return None
            return integer_codes(integers)
        texts = column.dictionary
        lengths = pc.min_max(pc.utf8_length(texts)).as_py()
        if not 0 < lengths["min"] <= lengths["max"] <= MAX_ID_LENGTH:
            return None
        if pc.any(pc.not_equal(pc.utf8_trim(texts, SPACE), texts)).as_py():
            return None
        measured = f"^(?:{MEASUREMENT.pattern})$"
        if self._layout.guessed and pc.any(pc.match_substring_regex(texts, measured)).as_py():
            return None
        return TextIds(column.indices.to_numpy(), texts)


def rated_columns(table: Any, drops: bool) -> tuple[list[Any], int]:
    """Return the columns of a table, each as one array, and the number of dropped rows.

    Rows without a rating, the third column, are dropped on request. There are no columns if other values are
    missing, or if no row is left.
    """
    dropped = table.column(2).null_count if drops else 0
    if dropped:
        table = table.filter(table.column(2).is_valid())
    columns = [column.chunk(0) for column in table.combine_chunks().columns if column.num_chunks == 1]
    whole = len(columns) == table.num_columns and len(table) > 0 and not any(x.null_count for x in columns)
    return columns if whole else [], dropped


def _seconds(column: Any) -> NDArray[np.float64]:
    """Return times as they are, dates in seconds since 1970."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy() / 1e6)
    return np.asarray(column.to_numpy())


def add_blocks(column: IdColumn, blocks: list[Codes | TextIds]) -> None:
    """Add the ids of all blocks to the column, each distinct text once."""
    of_text = [block for block in blocks if isinstance(block, TextIds)]
    numbers: Iterator[NDArray[np.int64]] = iter(())
    if of_text:
        import pyarrow as pa

        whole = pa.chunked_array(
            [
                pa.DictionaryArray.from_arrays(
                    pa.array(np.arange(len(x.dictionary), dtype=np.int32)), x.dictionary
                )
                for x in of_text
            ]
        ).unify_dictionaries()
        texts = whole.chunk(0).dictionary.to_pylist()
        number = np.array([column.number(text) for text in texts], np.int64)
        numbers = iter([number[chunk.indices.to_numpy()] for chunk in whole.chunks])
    for block in blocks:
        if isinstance(block, TextIds):
            column.add(Codes(block.codes, next(numbers), are_texts=True))
        else:
            column.add(block)


def _with_one_byte(block: bytes, separator: str | None) -> tuple[str | None, bytes]:
    """Return a separator of one byte, and the lines with it; None if there is none."""
    if separator == "::":
        return (None, block) if b"\t" in block else ("\t", block.replace(b"::", b"\t"))
    if separator is not None:
        return separator, block
    block = block.replace(b"\t", b" ")
    several = block[:1] == b" " or any(x in block for x in (b"  ", b" \n", b"\n ", b"\v", b"\f"))
    return (None if several else " "), block


def _count_fields(lines: bytes, separator: str, quoted: bool) -> int:
    """Return how many fields the first line has."""
    first = lines.lstrip(b"\n").partition(b"\n")[0].decode(errors="replace")
    if not quoted or '"' not in first:
        return first.count(separator) + 1
    return re.sub(r'"[^"]*"', "", first).count(separator) + 1
