"""Checks of what the user passes: each says what was expected, what came, and what to do."""

import difflib
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse what is not one of ``known``, and say which of them is nearest."""
    if isinstance(value, str) and value in known:
        return
    near = difflib.get_close_matches(str(value).lower(), known, n=1, cutoff=0.0)
    hint = f"; did you mean {near[0]!r}?" if isinstance(value, str) else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{hint}")


def integer(name: str, value: object, least: int) -> int:
    """Return ``value`` as an int, at least ``least``; a bool or a float is no integer."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real(name: str, value: object, *, positive: bool) -> float:
    """Return ``value`` as a finite float, above zero if ``positive``, else not below it."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        kind = "positive" if positive else "zero or positive"
        raise ValueError(f"{name} must be finite and {kind}, got {number}")
    return number


def optional(name: str, value: object, *, positive: bool) -> float | None:
    """Return ``value`` as :func:`real` does, or None."""
    return None if value is None else real(name, value, positive=positive)


def pair(name: str, value: Any) -> tuple[float, float]:
    """Return a number for P and one for Q, of which ``value`` may be both; neither below zero."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be a number or a pair for P and Q, got {value!r}")
        return real(f"{name}[0]", value[0], positive=False), real(f"{name}[1]", value[1], positive=False)
    number = real(name, value, positive=False)
    return number, number


def boolean(name: str, value: object) -> bool:
    """Return ``value``, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64 in native byte order."""
    try:
        for known in () if dtype is None else (np.dtype(np.float32), np.dtype(np.float64)):
            if np.dtype(dtype) == known:
                return known
    except TypeError:
        pass
    raise ValueError(f"dtype must be np.float32 or np.float64, got {dtype!r}")


def numeric(name: str, array: Any) -> None:
    """Refuse dtypes that hold no real numbers; bool tells what is known, but not how it is rated."""
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} has dtype {array.dtype}, but real numbers are needed (try {name}.astype(float))"
        )


def bounded(name: str, numbers: Any, count: int | None, count_name: str) -> NDArray[Any]:
    """Return ``numbers`` as an array of integers in ``range(count)``, or not negative without a count."""
    array = np.asarray(numbers)
    if array.dtype.kind not in "iu":
        if array.size:
            raise TypeError(
                f"{name} must be integers, got dtype {array.dtype}; "
                "np.unique(ids, return_inverse=True) numbers ids of any kind"
            )
        array = array.astype(np.int32)
    if array.size == 0:
        return array
    if int(array.min()) < 0:
        raise ValueError(f"{_first(name, array, array < 0)}; numbers must not be negative")
    if count is not None and int(array.max()) >= count:
        raise ValueError(f"{_first(name, array, array >= count)} but {count_name} = {count}")
    return array


def finite(array: NDArray[Any], place: Callable[[int], str]) -> None:
    """Refuse nan and inf; ``place`` names the n-th value, such as ``values[17]``."""
    known = np.isfinite(array)
    if not known.all():
        n = int(known.argmin())
        raise ValueError(f"{place(n)} is {array[n]}; ratings must be finite")


def cast(array: NDArray[Any], dtype: np.dtype[Any], place: Callable[[int], str]) -> NDArray[Any]:
    """Return finite ``array`` as a native, contiguous array of ``dtype``: itself where it is one already."""
    with np.errstate(over="ignore", under="ignore"):
        result = np.ascontiguousarray(array, dtype=dtype)
    if result.dtype.itemsize < array.dtype.itemsize:
        fits = np.isfinite(result)
        if array.any() and not result.any():  # a few tiny values may become zero, but not all
            fits = array == 0
        if not fits.all():
            n = int(fits.argmin())
            raise ValueError(
                f"{place(n)} = {array[n]} does not fit in {dtype}; pass dtype=np.float64 or rescale"
            )
    return result


def _first(name: str, array: NDArray[Any], where: NDArray[np.bool_]) -> str:
    """Say which value stands first in ``where``, such as ``users[3] = 12``."""
    place = np.unravel_index(int(where.argmax()), where.shape)
    index = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{name}{index} = {array[place]}"
