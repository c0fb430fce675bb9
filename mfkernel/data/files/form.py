"""Arguments about a file: its columns, separator, decimal mark and missing ratings."""

import operator
import re
from typing import Any, NamedTuple, get_args

import numpy as np

from mfkernel._support import checks
from mfkernel.typing import Nulls

Column = str | int

OWN_SEPARATOR = re.compile(r"[\t!#$%&'()*,/:;<=>?@\[\\\]^`{|}~]")  # any ASCII mark that no number has


class Form(NamedTuple):
    """Arguments of :func:`read_ratings` about the content of a file."""

    columns: tuple[Column, ...] | None = None
    timestamp: Column | bool = False
    separator: str | None = None
    decimal: str = "."
    nulls: str = "raise"


def check_form(columns: Any, timestamp: Any, separator: Any, decimal: Any, nulls: Any) -> Form:
    """Return the checked form of a text."""
    checks.one_of("decimal", decimal, (".", ","))
    checks.one_of("nulls", nulls, get_args(Nulls))
    if separator is not None and not (
        separator == "::" or (isinstance(separator, str) and OWN_SEPARATOR.fullmatch(separator))
    ):
        raise ValueError(
            f"separator must be '::', or one character that is neither a letter nor a digit, quote, sign or "
            f"point, got {separator!r}"
        )
    if not isinstance(timestamp, bool | np.bool_ | str) and (not isinstance(timestamp, int) or timestamp < 0):
        raise TypeError(f"timestamp must be True, a name or a position from 0, got {timestamp!r}")
    time = bool(timestamp) if isinstance(timestamp, bool | np.bool_) else timestamp
    return Form(check_columns(columns), time, separator, decimal, nulls)


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
