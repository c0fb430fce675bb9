"""Read JSON Lines: one object per line, with a user, an item and a rating."""

import json
import math
import re
from array import array
from typing import Any

import numpy as np

from mfkernel._support import checks
from mfkernel.data.convert import exact_dtype
from mfkernel.data.files.arrow import Block, TextIds, rated_columns
from mfkernel.data.files.form import Form
from mfkernel.data.files.layout import MISSING_RATINGS
from mfkernel.data.files.lines import Lines
from mfkernel.data.files.numbering import MAX_ID_LENGTH, Codes, IdColumn, integer_codes, text_codes
from mfkernel.data.tables import FRAME_COLUMN_NAMES, find_names, usual_time
from mfkernel.data.times import as_time

MAX_KEYS = 8  # names in a message
BEGINNING = re.compile(r'\s*\{\s*("|\}?\s*$)')  # of an object; an id may also be a brace


def is_json(lines: Lines) -> bool:
    """Return whether the first line is a JSON object."""
    return BEGINNING.match(lines.peek() or "") is not None


class Records:
    """The keys of user, item, rating and time, and the readers of blocks of lines."""

    def __init__(self, lines: Lines, form: Form) -> None:
        self._lines, self._drops = lines, form.nulls == "drop"
        record = self._object(lines.number, lines.peek() or "")
        names = list(record)
        positions = find_names(names, FRAME_COLUMN_NAMES)
        given: tuple[Any, ...] = form.columns or tuple(names[n] if n >= 0 else None for n in positions)
        time = usual_time(names) if form.timestamp is True else form.timestamp
        self._keys = (*given, *(() if time is False else (time,)))
        for kind, key in zip(("user", "item", "rating", "timestamp"), self._keys, strict=False):
            if not isinstance(key, str) or key not in names:
                raise ValueError(
                    f"{lines.path}: {kind} must be a key of the first object, "
                    f"{checks.listed(names, MAX_KEYS)}, got {key!r}; columns= names user, item and rating"
                )
        self._first = [record[key] for key in self._keys]

    def parse(self, block: bytes) -> Block | None:
        """Return the ratings of these lines by pyarrow, or None where one of them is not plain."""
        import pyarrow as pa
        from pyarrow import json as reader

        ids = [pa.string() if isinstance(x, str) else pa.int64() for x in self._first[:2]]
        schema = pa.schema(list(zip(self._keys, [*ids, pa.float64(), pa.float64()], strict=False)))
        try:
            table = reader.read_json(
                pa.BufferReader(block),
                reader.ReadOptions(use_threads=False, block_size=len(block) + 1),
                reader.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowInvalid:
            return None
        columns, dropped = rated_columns(table.select(list(self._keys)), self._drops)
        if not columns:
            return None
        values = columns[2].to_numpy()
        users, items = (_ids(pa, column) for column in columns[:2])
        if users is None or items is None or not np.isfinite(values).all():
            return None
        times = columns[3].to_numpy() if len(columns) == 4 else None
        return Block(users, items, values.astype(exact_dtype(values), copy=False), times, dropped)

    def read_lines(self, first: int, text: str, users: IdColumn, items: IdColumn) -> Block:
        """Return the ratings of these lines, one by one; an error names the line."""
        user_codes, item_codes, values, times, dropped = array("q"), array("q"), array("d"), array("d"), 0
        for number, line in enumerate(text.split("\n"), first):
            if not line.strip():
                continue
            record = self._object(number, line)
            missing = [key for key in self._keys if record.get(key) is None]
            if self._drops and _is_missing(record.get(self._keys[2])):
                dropped += 1
                continue
            if missing:
                raise self._lines.error(number, line, f"a value of {missing[0]!r}", "pass nulls='drop'")
            user, item, rating, *time = (record[key] for key in self._keys)
            user_codes.append(self._id(number, line, users, user))
            item_codes.append(self._id(number, line, items, item))
            if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
                raise self._lines.error(number, line, f"a finite number as {self._keys[2]!r}")
            values.append(rating)
            if time:
                times.append(self._time(number, line, time[0]))
        kept = np.array(times, np.float64) if len(self._keys) == 4 else None
        return Block(text_codes(user_codes), text_codes(item_codes), np.array(values), kept, dropped)

    def _object(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise self._lines.error(number, line, "a JSON object") from None
        return record

    def _id(self, number: int, line: str, ids: IdColumn, value: Any) -> int:
        try:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError
            return ids.number(str(value).strip())
        except ValueError:
            raise self._lines.error(number, line, "an integer or a text as an id") from None

    def _time(self, number: int, line: str, value: Any) -> float:
        try:
            return as_time("timestamp", value)
        except (TypeError, ValueError):
            raise self._lines.error(number, line, f"a time as {self._keys[3]!r}") from None


def _is_missing(rating: Any) -> bool:
    return rating is None or (isinstance(rating, str) and rating.lower() in MISSING_RATINGS)


def _ids(pa: Any, column: Any) -> Codes | TextIds | None:
    if pa.types.is_integer(column.type):
        return integer_codes(column.to_numpy())
    encoded = column.dictionary_encode()
    texts = encoded.dictionary
    plain = [text for text in texts.to_pylist() if text == text.strip() and 0 < len(text) <= MAX_ID_LENGTH]
    if len(plain) < len(texts) or any("\0" in text for text in plain):
        return None
    return TextIds(encoded.indices.to_numpy(), texts)
