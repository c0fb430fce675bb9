"""What rows and columns are called outside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[Any] | None

WIDEST = 8  # times the characters of all texts that an array may take in which each is as wide as the longest


def text_array(texts: Sequence[str]) -> NDArray[Any]:
    """Return texts as an array: as wide as the longest, or where that is large, of Python objects."""
    longest, total = max(map(len, texts), default=0), sum(map(len, texts))
    wide = len(texts) * longest > WIDEST * total + 4096
    array = np.empty(len(texts), object if wide else f"U{max(1, longest)}")
    array[:] = texts
    return array


def positions(kind: str, ids: ArrayLike, vocabulary: Ids, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where in the vocabulary each id stands; ``order`` sorts the vocabulary."""
    wanted = np.asarray(ids)
    if vocabulary is None:
        raise ValueError(f"this model has no {kind} ids: its ratings were given by row and column number")
    found, unknown = _look_up(wanted, vocabulary, order)
    if unknown.any():
        raise KeyError(f"{kind} id {wanted[unknown].tolist()[0]!r} is not in the model")
    return np.asarray(found)


def united(kind: str, old: Ids, new: Ids, n_old: int, n_new: int) -> tuple[Ids, NDArray[np.intp]]:
    """Unite the ids of old and new rows, or their numbers if neither has ids.

    Returns
    -------
    tuple
        The ids of all, the old ones first, or None; and where each of the new rows stands among them.
    """
    if (old is None) != (new is None):
        named, other = ("old", "new") if new is None else ("new", "old")
        raise ValueError(
            f"the {named} ratings have {kind} ids and the {other} have none; give both or neither"
        )
    if old is None or new is None:
        return None, np.arange(n_new)
    if old.size and new.size and (old.dtype.kind == "U") != (new.dtype.kind == "U"):
        raise ValueError(f"{kind} ids are {old.dtype} in the old ratings and {new.dtype} in the new")
    if np.result_type(old, new).kind == "f":  # of a signed and an unsigned type, each with numbers of its own
        own, new = new, new.astype(old.dtype)
        if (own != new).any():
            raise ValueError(f"{kind} id {own[own != new][0]} does not fit among the old ones, {old.dtype}")
    found, unknown = _look_up(new, old, np.argsort(old))
    places = np.empty(n_new, np.intp)
    places[~unknown] = found[~unknown] if found.size else 0
    places[unknown] = n_old + np.arange(np.count_nonzero(unknown))
    return np.concatenate([old, new[unknown]]) if old.size else new, places


def _look_up(
    wanted: NDArray[Any], vocabulary: NDArray[Any], order: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    if vocabulary.size == 0 or (vocabulary.dtype.kind == "U") != (wanted.dtype.kind == "U"):
        return order[:0], np.ones(wanted.shape, np.bool_)
    places = np.searchsorted(vocabulary, wanted, sorter=order).clip(max=vocabulary.size - 1)
    found = order[places]
    return found, np.asarray(vocabulary[found] != wanted)
