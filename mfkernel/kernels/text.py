"""Looks at the bytes of texts, before others parse them."""

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined, jit

# bytes, and not integers, with which LLVM would compare one byte at a time
NUL, NEWLINE, SPACE, QUOTE, PLUS, MINUS, ZERO, NINE, HASH, PERCENT = np.frombuffer(b'\0\n "+-09#%', np.uint8)


@jit
def find_oddities(text: NDArray[np.uint8], separator: np.uint8) -> tuple[bool, bool, bool, bool]:
    """Return which rare things lines have: NUL, quotes, marks of comments, odd integers.

    A mark is ``#`` or ``%`` at the start of a line. An odd integer is one that Python would write in another
    way, such as ``007``, ``+7`` or ``-0``; some that are found are parts of longer fields.

    Parameters
    ----------
    text
        Whole lines, with two empty ones before and after them.
    separator
        The byte between fields.
    """
    nul = quote = mark = odd = False
    before_last, last, this, following = text[:-3], text[1:-2], text[2:-1], text[3:]
    for n in range(this.size):  # without branches and negative indices, so that LLVM compares 32 at a time
        a, b, c, d = before_last[n], last[n], this[n], following[n]
        nul |= c == NUL
        quote |= c == QUOTE
        mark |= (b == NEWLINE) & ((c == HASH) | (c == PERCENT))
        odd |= _starts_odd_integer(a, b, c, d, separator)
    return nul, quote, mark, odd


@inlined
def _starts_odd_integer(a: np.uint8, b: np.uint8, c: np.uint8, d: np.uint8, separator: np.uint8) -> bool:
    """Return whether the third of four bytes is the plus or the zero at the start of an odd integer."""
    starts = (b == separator) | (b == NEWLINE) | (b == QUOTE) | (b == SPACE)
    negative = ((a == separator) | (a == NEWLINE) | (a == QUOTE) | (a == SPACE)) & (b == MINUS)
    before_digit = (d >= ZERO) & (d <= NINE)
    odd: bool = (starts & ((c == PLUS) | ((c == ZERO) & before_digit))) | (negative & (c == ZERO))
    return odd


@jit
def breaks_quotes(text: NDArray[np.uint8]) -> bool:
    """Return whether a line ends within quotes."""
    quoted = found = False
    for n in range(text.size):
        quoted ^= text[n] == QUOTE
        found |= quoted & (text[n] == NEWLINE)
    return found


@jit
def has_odd_integer(text: NDArray[np.uint8], separator: np.uint8, first: int, second: int) -> bool:
    """Return whether one of two fields of some line begins as an odd integer; see :func:`find_oddities`.

    Parameters
    ----------
    text, separator
        As there; a separator or an end of line within quotes is part of its field.
    first, second
        Positions of the fields, from 0.
    """
    field, quoted = 0, False
    for n in range(2, text.size - 1):
        b, c = text[n - 1], text[n]
        if b == NEWLINE and not quoted:
            field = 0
        if (field == first or field == second) and _starts_odd_integer(  # noqa: SIM109 (a tuple is slower)
            text[n - 2], b, c, text[n + 1], separator
        ):
            return True
        if c == QUOTE:
            quoted = not quoted
        elif c == separator and not quoted:
            field += 1
    return False
