"""The text of the Netflix prize: a line ``item:``, then lines ``user,rating,date`` of this item."""

import re

from mfkernel.data.files.streams import Stream

HEAD = re.compile(rb"([0-9]+):\r?\n")
HEADS = re.compile(rb"^([0-9]+):\r?\n", re.MULTILINE)
MAX_HEAD = 32  # bytes
COLUMNS = (1, 0, 2)  # positions of user, item and rating in what :func:`with_items` returns


def is_netflix(data: Stream) -> bool:
    """Return whether the first line names an item alone."""
    return HEAD.match(data.start(MAX_HEAD)) is not None


def with_items(data: Stream) -> Stream:
    """Return lines ``item,user,rating,date``; a line that names an item becomes an empty one."""
    item, rest = b"", b""

    def read(size: int) -> bytes:
        nonlocal item, rest
        while chunk := data.read(size):
            end = chunk.rfind(b"\n") + 1
            if end == 0:
                rest += chunk
                continue
            text, rest = rest + chunk[:end], chunk[end:]
            pieces = HEADS.split(text)
            parts = [_prefixed(pieces[0], item)]
            for number, lines in zip(pieces[1::2], pieces[2::2], strict=True):
                item = number
                parts.append(b"\n" + _prefixed(lines, item))
            return b"".join(parts)
        text, rest = rest, b""
        return _prefixed(text, item) if text else b""

    return Stream(read)


def _prefixed(lines: bytes, item: bytes) -> bytes:
    """Put the item and a comma before each line."""
    if not lines:
        return b""
    start = item + b","
    whole = lines[:-1].replace(b"\n", b"\n" + start) + lines[-1:]
    return start + whole
