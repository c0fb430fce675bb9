"""The ids of a file, numbered as blocks of its lines bring them."""

import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ids import text_array

MAX_ID_LENGTH = 1000  # characters
INTEGER = re.compile(r"0|-?[1-9][0-9]*")  # as str(int) writes it
INT64 = np.iinfo(np.int64)
MEASUREMENT = re.compile(  # a decimal or negative number
    r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-[0-9]+|[+-]?[0-9]+[eE][+-][0-9]+"
)

MIN_TABLE_SIZE = 2**20  # integers: a range of up to so many, or one per rating, is numbered by a table


class Codes(NamedTuple):
    """The ids of a block of lines: ``keys[codes[n]]``, or ``codes`` itself if there are no keys.

    Attributes
    ----------
    codes
        (n,) integers.
    keys
        (d,) distinct int64; or the numbers that :meth:`IdColumn.number` gave to texts.
    are_texts
        Whether codes, or keys, are numbers of texts, and not ids.
    """

    codes: NDArray[Any]
    keys: NDArray[Any] | None = None
    are_texts: bool = False

    @property
    def distinct(self) -> NDArray[Any]:
        """The keys, or without keys the codes, which may repeat."""
        return self.codes if self.keys is None else self.keys


def integer_codes(ids: NDArray[np.int64]) -> Codes:
    """Return the integer ids of a block in little memory."""
    if ids.size == 0:
        return Codes(ids)
    least, most = int(ids.min()), int(ids.max())
    if np.iinfo(np.int32).min <= least and most <= np.iinfo(np.int32).max:
        return Codes(ids.astype(np.int32))
    keys, codes = np.unique(ids, return_inverse=True)
    return Codes(codes.astype(np.int32), keys)


class IdColumn:
    """The ids of users, or of items; blocks of lines are added in their order."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # of texts
        self._blocks: list[Codes] = []

    def add(self, block: Codes) -> None:
        """Add the ids of the next block of lines."""
        self._blocks.append(block)

    def number(self, text: str) -> int:
        """Return the number of a text among all texts.

        Raises
        ------
        ValueError
            If it is empty, longer than an id may be, holds NUL, which arrays would lose, or what could not be
            decoded.
        """
        number = self._numbers.get(text)
        if number is None:
            if not 0 < len(text) <= MAX_ID_LENGTH or "\0" in text:
                raise ValueError(f"{text[:40]!r} is no id")
            if not text.isascii():
                text.encode()
            number = self._numbers[text] = len(self._numbers)
        return number

    def has(self, text: str) -> bool:
        """Return whether the text has a number already."""
        return text in self._numbers

    def numbered(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the distinct ids, sorted, and the position of each line's id among them.

        The ids are int64 if all of them are integers as ``str`` writes them, else text. The blocks are gone.
        """
        texts, blocks = list(self._numbers), self._blocks
        self._blocks = []
        if all(map(_is_int64, texts)):
            of_text = np.fromiter(map(int, texts), np.int64, len(texts))
            for n, block in enumerate(blocks):
                if block.are_texts:
                    blocks[n] = Codes(block.codes, of_text if block.keys is None else of_text[block.keys])
            return number_integers(blocks)
        for n, block in enumerate(blocks):
            blocks[n] = self._as_texts(block)
        ids = text_array(list(self._numbers))
        order = np.argsort(ids)
        rank = np.empty(order.size, np.int32 if order.size < 2**31 else np.int64)
        rank[order] = np.arange(order.size)
        return ids[order], _positions(blocks, lambda numbers: rank[numbers])

    def _as_texts(self, block: Codes) -> Codes:
        """Return the block with integer ids as numbers of texts."""
        if block.are_texts:
            return block
        keys, codes = block.keys, block.codes
        if keys is None:
            keys, codes = np.unique(codes, return_inverse=True)
        return Codes(codes, np.array([self.number(str(x)) for x in keys.tolist()], np.int64), are_texts=True)


def number_integers(blocks: list[Codes]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct integers, sorted, and the position of each among them; the list is emptied."""
    count = sum(block.codes.size for block in blocks)
    least = min((int(block.distinct.min()) for block in blocks if block.distinct.size), default=0)
    most = max((int(block.distinct.max()) for block in blocks if block.distinct.size), default=-1)
    if most - least >= max(MIN_TABLE_SIZE, count):
        ids = np.unique(np.concatenate([np.unique(block.distinct) for block in blocks]))
        return ids, _positions(blocks, lambda integers: np.searchsorted(ids, integers))
    is_there = np.zeros(most - least + 1, np.bool_)
    for block in blocks:
        is_there[block.distinct.astype(np.int64) - least] = True
    table = np.cumsum(is_there, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(is_there) + least, _positions(
        blocks, lambda integers: table[integers.astype(np.int64) - least]
    )


def _positions(blocks: list[Codes], position: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.int32]:
    """Return the positions of all ids, in the order of the lines; empty the list, so that memory is freed."""
    result = np.empty(sum(block.codes.size for block in blocks), np.int32)
    start = 0
    blocks.reverse()
    while blocks:
        codes, keys, _ = blocks.pop()
        found = position(codes) if keys is None else position(keys)[codes]
        result[start : start + codes.size] = found
        start += codes.size
    return result


def text_codes(numbers: "array[int] | Sequence[int]") -> Codes:
    """Return the ids of a block as numbers of texts."""
    return Codes(np.array(numbers, np.int64), are_texts=True)


def _is_int64(text: str) -> bool:
    return INTEGER.fullmatch(text) is not None and INT64.min <= int(text) <= INT64.max
