"""Decode bytes of any encoding into lines of bounded length."""

import codecs
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from mfkernel.data.files.streams import BYTES_PER_READ, Stream

MAX_LINE_LENGTH = 2**20  # characters
MAX_QUOTED_LINES = 64  # lines with quotes at the end of a block that may belong to one field
SPACE = " \t\v\f"  # separates fields and is not part of them; a no-break space is part of a field

PROBE = "user,item\n1\t2 -.5\n"  # characters that every text encoding can represent

BYTE_ORDER_MARKS = {  # longer marks first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that Python does not know, or that does not decode to text."""
    if encoding is None:
        return
    if not isinstance(encoding, str):
        raise TypeError(f"encoding must be a name, such as 'latin-1', or None, got {encoding!r}")
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)
        # byte by byte and with our error handler: punycode, idna and others need whole words and no handler
        decoder = codecs.getincrementaldecoder(encoding)("mfkernel.bytes")
        if "".join(decoder.decode(bytes([byte])) for byte in PROBE.encode(encoding)) != PROBE:
            raise ValueError
    except (LookupError, ValueError):
        raise ValueError(
            f"encoding must be one of Python's for texts, such as 'latin-1' or 'utf-16', got {encoding!r}"
        ) from None


class Lines:
    """The lines of a text, read once and in order; LF, CR LF and CR end a line.

    Attributes
    ----------
    path
        Path named in errors.
    number
        Number of the next line, from 1.
    """

    def __init__(self, path: str, data: Stream, encoding: str | None) -> None:
        start = data.start(4)
        marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
        name = codecs.lookup(encoding or marked or "utf-8").name
        self._is_utf8 = name == "utf-8"
        # wrong bytes must not stop us before their line can be named
        errors = "surrogateescape" if name == "utf-8" else "mfkernel.bytes"
        decoder = codecs.getincrementaldecoder(name)(errors)
        self._undecodable = f"it is not {name.upper()}, " + (
            "as encoding= says"
            if encoding
            else "as its byte-order mark says"
            if marked
            else "as texts are by default; pass its encoding, such as encoding='latin-1'"
        )
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._data = data
        self._text, self._at, self._begun, self._ended = "", 0, False, False
        self.path = path
        self.number = 1

    def peek(self) -> str | None:
        """Return the next line without consuming it and without its end; None at the end."""
        while (end := self._text.find("\n", self._at)) < 0 and not self._ended:
            self._more()
        if end < 0:
            return self._text[self._at :] or None
        return self._text[self._at : end]

    def skip(self) -> None:
        """Consume the next line, after :meth:`peek`."""
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1
        self.number += 1

    def skip_all(self, few: re.Pattern[str]) -> None:
        """Consume lines while ``few`` matches; the pattern must match whole lines."""
        while self.peek() is not None:
            found = few.match(self._text, self._at)
            if found is None or found.end() == self._at:
                return
            self.number += self._text.count("\n", self._at, found.end())
            self._at = found.end()

    def blocks(self) -> Iterator[tuple[int, str]]:
        """Consume the other lines in blocks; yield each block's first line number and text."""
        while True:
            end = len(self._text) if self._ended else self._text.rfind("\n", self._at) + 1
            end = end if self._ended else _outside_quotes(self._text, '"', "\n", self._at, end)
            if end > self._at:
                number, block = self.number, self._text[self._at : end]
                self.number += block.count("\n")
                self._at = end
                yield number, block
            elif self._ended:
                return
            else:
                self._more()

    def more_than(self, size: int) -> bool:
        """Return whether more than so many bytes are left, or characters, of which some have been decoded."""
        return len(self._text) - self._at + len(self._data.start(size)) > size

    def byte_blocks(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Take all other lines in UTF-8, about ``size`` bytes at a time, with the number of the first one.

        Lines end with LF. Bytes that cannot be decoded stay as they are.
        """
        if not self._is_utf8:
            for number, text in self.blocks():
                yield number, text.encode("utf-8", "surrogatepass")
            return
        pending, flags = self._decoder.getstate()
        rest = self._text[self._at :].encode("utf-8", "surrogateescape") + b"\r" * (flags & 1) + pending
        self._text, self._at = "", 0
        while rest or not self._ended:
            chunk = self._data.read(size)
            self._ended = not chunk
            rest += chunk
            end = len(rest) if self._ended else max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
            end = end if self._ended else _outside_quotes(rest, b'"', b"\n", 0, end)
            block, rest = rest[:end], rest[end:]
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            self._check_lengths(block or rest)
            if block:
                number, self.number = self.number, self.number + _count_lines(block)
                yield number, block

    def text(self, block: bytes) -> str:
        """Return a block of lines as text, with half surrogates for what cannot be decoded."""
        return block.decode("utf-8", "surrogateescape" if self._is_utf8 else "surrogatepass")

    def _check_lengths(self, block: bytes) -> None:
        """Refuse a line of more than ``MAX_LINE_LENGTH`` characters; it fills at least one window."""
        window = MAX_LINE_LENGTH // 2
        if all(block.find(b"\n", at, at + window) >= 0 for at in range(0, len(block) - window, window)):
            return
        for n, line in enumerate(self.text(block).split("\n")):
            if len(line) > MAX_LINE_LENGTH:
                raise self._too_long(self.number + n, line)

    def _too_long(self, number: int, line: str) -> ValueError:
        return self.error(number, line[:300], f"a line of at most {MAX_LINE_LENGTH:,} characters")

    def error(self, number: int, line: str, expected: str, remedy: str = "") -> ValueError:
        """Return the error for a line."""
        if "\0" in line:
            remedy = "NUL is no text; if it is UTF-16 without a byte-order mark, pass encoding='utf-16-le'"
        elif any("\ud800" <= character <= "\udfff" for character in line):
            remedy = self._undecodable
        shown = repr(line if len(line) <= 200 else line[:200] + "…")
        return ValueError(
            f"{self.path}, line {number}: expected {expected}, got {shown}{'; ' if remedy else ''}{remedy}"
        )

    def _more(self) -> None:
        """Read another chunk; keep the lines not yet consumed."""
        chunk = self._data.read(BYTES_PER_READ)
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeError as error:
            raise ValueError(
                f"{self.path}, line {self.number} or below: {self._undecodable} ({error})"
            ) from error
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix("\ufeff")
        self._text, self._at = self._text[self._at :] + text, 0
        end = self._text.find("\n")
        if (len(self._text) if end < 0 else end) > MAX_LINE_LENGTH:
            raise self._too_long(self.number, self._text)


def _outside_quotes(text: Any, quote: Any, newline: Any, start: int, end: int) -> int:
    """Return an end of a line up to ``end`` before which quotes are closed.

    It is ``start`` if there is none, and ``end`` in a long text without one, which must have a stray quote.
    """
    found = end
    for _ in range(MAX_QUOTED_LINES):
        if found <= start or text.count(quote, start, found) % 2 == 0:
            break
        found = text.rfind(newline, start, text.rfind(quote, start, found)) + 1
    else:
        return end
    return end if found <= start and end - start > MAX_LINE_LENGTH else max(start, found)


def _count_lines(block: bytes) -> int:
    # bytes.count takes 9 times as long
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


def _as_surrogates(error: UnicodeError) -> tuple[str, int]:
    """Keep undecodable bytes as half surrogates, as ``surrogateescape`` does."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("mfkernel.bytes", _as_surrogates)
