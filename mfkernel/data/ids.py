"""Check and look up the ids of users and items: unique integers or texts."""

import difflib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import Immutable, immutable, readonly
from mfkernel._support.lazy import lazy
from mfkernel.typing import Unknown

Ids = NDArray[Any] | None

MAX_PADDING = 8  # largest size of a fixed-width array, in multiples of the characters of all its texts
MISSING_TYPES = ("NAType", "NaTType")  # pandas.NA, pandas.NaT
MAX_NAMES = 3  # unknown ids in a message
MAX_COMPARED = 10_000  # ids, neighbours in order, that are compared with an unknown one
ID_RULE = "ids must be integers or text, none missing"


class Vocabulary(Immutable):
    """The ids of all rows, or of all columns, in their order; ids are unique.

    Attributes
    ----------
    ids
        (n,) int64, uint64 or text, read-only. Text has dtype U. If one long id would make that array large,
        the elements are Python ``str`` objects.
    """

    _ids: NDArray[Any]

    def __init__(self, ids: NDArray[Any]) -> None:
        self._set_once(_ids=immutable(ids))

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary, (self._ids,)  # pickling loses the read-only flag

    def __len__(self) -> int:
        return int(self._ids.size)

    @property
    def ids(self) -> NDArray[Any]:
        """The ids; a read-only copy if they are objects, because NumPy cannot lock them."""
        return readonly(self._ids.copy()) if self._ids.dtype.hasobject else self._ids

    def take(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Return the ids at these positions, without the copy of all that :attr:`ids` may make."""
        found: NDArray[Any] = self._ids[positions]
        return found

    @classmethod
    def of(cls, name: str, ids: Any, count: int) -> "Vocabulary | None":
        """Check ids, one per row or column (``count`` of them); None stays None."""
        if ids is None or (isinstance(ids, Vocabulary) and len(ids) == count):
            return ids
        array = ids.ids if isinstance(ids, Vocabulary) else as_ids(name, ids)
        if array.shape != (count,):
            raise ValueError(
                f"{name} must have the shape ({count},), one for each row or column, got {array.shape}"
            )
        vocabulary = cls(array)
        ordered = vocabulary._ids[vocabulary._order]
        repeated = np.asarray(ordered[1:] == ordered[:-1], np.bool_)
        if repeated.any():
            # the sort is stable: the first of equal ids comes first
            second = int(vocabulary._order[1:][repeated].min())
            first = int(np.flatnonzero(array == array[second])[0])
            raise ValueError(
                f"{name} must be unique, but {name}[{first}] and {name}[{second}] are both "
                f"{array[second : second + 1].tolist()[0]!r}"
            )
        return vocabulary

    @lazy
    def _order(self) -> NDArray[np.intp]:
        return np.argsort(self._ids, kind="stable")

    @property
    def is_text(self) -> bool:
        """Whether the ids are text rather than integers."""
        return self._ids.dtype.kind in "UO"

    def find(self, wanted: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the position of each id (0 if unknown) and a mask of unknown ids.

        ``wanted`` must come from :func:`as_ids`.
        """
        nowhere = np.zeros(wanted.shape, np.intp), np.ones(wanted.shape, np.bool_)
        if self._ids.size == 0 or self.is_text != (wanted.dtype.kind in "UO"):
            return nowhere
        if self.is_text:
            outside = np.zeros(wanted.shape, np.bool_)
        else:
            limits = np.iinfo(self._ids.dtype)
            outside = (wanted < limits.min) | (wanted > limits.max)
            wanted = np.where(outside, 0, wanted).astype(self._ids.dtype)  # 0 keeps the type, unlike an id
        positions = np.searchsorted(self._ids, wanted, sorter=self._order).clip(max=self._ids.size - 1)
        found = np.asarray(self._order[positions])
        unknown = outside | np.asarray(self._ids[found] != wanted, np.bool_)
        return np.where(unknown, 0, found), unknown

    def positions(self, kind: str, ids: Any, unknown: Unknown = "raise") -> NDArray[np.intp]:
        """Return the position of each id; with ``unknown="default"``, len(self) for an unknown one.

        Raises
        ------
        KeyError
            For ids that are unknown, or that cannot be ids. The message starts with ``kind``.
        """
        try:
            wanted = as_ids(f"{kind} ids", ids)
        except (TypeError, ValueError) as error:  # such as 5.5, which cannot be an id
            raise KeyError(str(error)) from None
        found, is_unknown = self.find(wanted)
        if not is_unknown.any():
            return found
        if unknown == "default":
            return np.where(is_unknown, len(self), found)
        missed = wanted[is_unknown]
        hint = self._hint(missed.reshape(-1)[:1].tolist()[0])
        raise KeyError(f"{_phrase(kind, missed)} not in the model{hint}")

    def _hint(self, wanted: Any) -> str:
        """Name the known id nearest to an unknown one; for a number, also the way to positions."""
        number = not isinstance(wanted, str)
        remedy = "; model.by_position takes row and column numbers" if number else ""
        if len(self) == 0:
            return ""
        if self.is_text == number:
            kind, example = "text" if self.is_text else "integers", self.ids[:1].tolist()[0]
            return f", whose ids are {kind} such as {example!r}{remedy}"
        ids = self._ids[self._order]
        if not self.is_text:
            return f"; the nearest is {min(ids.tolist(), key=lambda x: abs(x - wanted))}{remedy}"
        at = int(np.searchsorted(ids, wanted))
        window = ids[max(0, at - MAX_COMPARED // 2) : at + MAX_COMPARED // 2].tolist()
        plain = {x.casefold().strip(): x for x in window}
        near = difflib.get_close_matches(wanted.casefold().strip(), plain, n=1)
        return f"; the nearest is {plain[near[0]]!r}" if near else ""


def _phrase(kind: str, unknown: NDArray[Any]) -> str:
    """Return the start of a sentence on unknown ids, such as "user ids 3, 7 are"."""
    names = list(dict.fromkeys(unknown.ravel().tolist()))
    if len(names) == 1:
        return f"{kind} id {names[0]!r} is"
    return f"{kind} ids {checks.listed(names, MAX_NAMES)} are"


def as_ids(name: str, ids: Any) -> NDArray[Any]:
    """Copy ids of any shape into an array of int64, uint64 or text.

    Takes lists, arrays of integers, text or objects, and columns of data frames, also nullable and
    categorical ones.

    Raises
    ------
    TypeError, ValueError
        If an id is missing, or is neither an integer nor text. Also if integers and text are mixed. The
        message names the first wrong id.
    """
    checks.unmasked(name, ids)
    array = np.array(ids, object) if isinstance(ids, list | tuple | str) else np.asarray(ids)
    if array.dtype.kind == "T":  # NumPy's text of any width
        array = array.astype(object)
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} must be text, got bytes that are not UTF-8 ({error})") from None
    kind = array.dtype.kind
    if kind in "iu":
        return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)
    if kind == "f":
        return _as_integers(name, array)
    if kind == "U":
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
        if array.dtype.itemsize and array.size and array.reshape(-1).view(np.uint32).max() > sys.maxunicode:
            raise ValueError(f"{name} must be text, got characters beyond Unicode")
        return array
    if array.size == 0:
        return np.empty(array.shape, np.int64)
    if kind != "O":
        raise TypeError(f"{name} has dtype {array.dtype}; {ID_RULE}")
    return _of_objects(name, array)


def text_array(texts: Sequence[str]) -> NDArray[Any]:
    """Return texts as an array, fixed-width, or of objects if that would be large."""
    longest, total = max(map(len, texts), default=0), sum(map(len, texts))
    wide = len(texts) * longest > MAX_PADDING * total + 4096
    array = np.empty(len(texts), object if wide else f"U{max(1, longest)}")
    array[:] = texts
    return array


def _of_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    flat = array.ravel().tolist()
    texts = sum(isinstance(x, str) for x in flat)
    if texts == len(flat):
        bad = next((n for n, x in enumerate(flat) if x.endswith("\0")), None)
        if bad is not None:  # NumPy drops a trailing NUL, so "a\0" would become "a"
            raise ValueError(f"{name}[{bad}] is {flat[bad]!r}; ids must not end with the character NUL")
        return text_array(flat).reshape(array.shape)
    for n, x in enumerate(flat):
        if x is None or type(x).__name__ in MISSING_TYPES or (isinstance(x, float) and x != x):
            raise ValueError(f"{name}[{n}] is {x!r}; {ID_RULE}")
        if isinstance(x, bool | np.bool_) or not isinstance(x, str | int | float | np.integer | np.floating):
            raise TypeError(f"{name}[{n}] is {x!r}; {ID_RULE}: pass str(id) for each")
    if texts:
        text = next(x for x in flat if isinstance(x, str))
        number = next(x for x in flat if not isinstance(x, str))
        raise TypeError(f"{name} must be all integers or all text, got {number!r} and {text!r}")
    if any(isinstance(x, float | np.floating) for x in flat):
        _as_integers(
            name, np.array([x if isinstance(x, float | np.floating) else 0 for x in flat], np.float64)
        )
        flat = [int(x) for x in flat]  # integers next to floats keep all their digits
        array = np.array(flat, object).reshape(array.shape)
    least, most = min(flat), max(flat)
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return array.astype(dtype)
    raise ValueError(
        f"{name} must fit in 64 bits, got {least if least < -(2**63) else most}; pass str(id) for each"
    )


def _as_integers(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """Convert floats with integer values to integers.

    Data frames turn integers into floats if some are missing. From 2⁵³ on, one float represents several
    integers, so such floats are refused.
    """
    array = array.astype(np.float64)
    whole = np.isfinite(array) & (array == np.rint(array)) & (np.abs(array) < 2**53)
    if not whole.all():
        raise ValueError(f"{checks.first(name, array, ~whole)}; {ID_RULE}")
    return array.astype(np.int64)


def union_ids(
    kind: str,
    old: Vocabulary | None,
    new: Vocabulary | None,
    n_old: int,
    n_new: int,
    sides: tuple[str, str] = ("the old ratings", "the new ratings"),
) -> tuple[Vocabulary | None, NDArray[np.intp]]:
    """Unite the ids of old and new rows, or their numbers if neither has ids.

    Returns
    -------
    tuple
        All ids, old ones first, or None; and the position of each new row among them.
    """
    if (old is None) != (new is None):
        named, other = sides if new is None else sides[::-1]
        raise ValueError(f"{other} must have {kind} ids like {named}, got none; give both or neither")
    if old is None or new is None:
        return None, np.arange(n_new)
    if n_old and n_new and old.is_text != new.is_text:
        words = {True: "text", False: "integers"}
        raise ValueError(
            f"{kind} ids are {words[old.is_text]} in {sides[0]} and {words[new.is_text]} in {sides[1]}"
        )
    found, unknown = old.find(new.ids)
    positions = np.where(unknown, n_old - 1 + np.cumsum(unknown), found)
    if not unknown.any():
        return old, positions
    if n_old == 0:
        return new, positions
    # as objects: neither the longest text nor the width of a number changes other ids
    both = np.concatenate([old.ids.astype(object), new.ids[unknown].astype(object)])
    return Vocabulary(as_ids(f"{kind}_ids", both)), positions


def pack_ids(name: str, ids: Ids) -> dict[str, NDArray[Any] | None]:
    """Return ids as arrays that need no pickle.

    Text objects become UTF-8 bytes and the position where each text ends.
    """
    if ids is None or ids.dtype.kind != "O":
        return {name: ids}
    texts = [x.encode("utf-8", "surrogatepass") for x in ids]
    ends = np.cumsum([len(x) for x in texts], dtype=np.int64)
    return {f"{name}_text": np.frombuffer(b"".join(texts), np.uint8), f"{name}_ends": ends}


def unpack_ids(name: str, arrays: dict[str, Any]) -> Any:
    """Take ids out of the arrays of :func:`pack_ids`; return None if it has no ids."""
    text, ends = arrays.pop(f"{name}_text", None), arrays.pop(f"{name}_ends", None)
    if text is None or ends is None:
        return arrays.pop(name, None)
    content = text.astype(np.uint8).tobytes()
    starts = [0, *ends[:-1].tolist()]
    if ends.dtype.kind not in "iu" or starts != sorted(starts) or ends[-1:].tolist() != [len(content)]:
        raise ValueError(f"{name} must end where their text ends")
    return [content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends.tolist(), strict=True)]
