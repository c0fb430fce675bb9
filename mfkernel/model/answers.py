"""Recommended and similar items, by id, as arrays and as a data frame."""

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.frames import Framed
from mfkernel._support.html import columns_table

MAX_ROWS = 50  # rows of a table in a notebook


class _Items(NamedTuple):
    items: NDArray[Any]
    scores: NDArray[Any]


class Recommendations(_Items, Framed):
    """The items found for each user, or the rows similar to each row, best first.

    Unpacks as ``items, scores``. A frame of them has one row per item found, with the columns ``for``, the
    row asked for; ``place``, from 1; ``item`` and ``score``.

    Attributes
    ----------
    items
        Their ids, or positions without ids: (n,) for one user; (s, n) for several, masked where no candidate
        is left.
    scores
        Their scores, of the same shape.
    asked
        (s,) ids of the users, or of the items whose similar items these are; positions without ids.
    """

    asked: NDArray[Any]

    @classmethod
    def of(cls, asked: NDArray[Any], items: NDArray[Any], scores: NDArray[Any]) -> Self:
        """Return the items found for the rows ``asked``.

        Parameters
        ----------
        asked
            (s,) ids or positions of the rows.
        items, scores
            (n,) for one row, else (s, n) masked arrays.
        """
        answer = cls(items, scores)
        answer.asked = asked
        return answer

    def to_list(self) -> list[dict[str, Any]]:
        """Return the answer in Python's own types, ready for JSON.

        Returns
        -------
        list of dict
            For one user, ``{"item": …, "score": …}`` per item; for several, ``{"for": …, "items": […]}`` per
            user. A score that is not finite is None.
        """
        if np.ndim(self.items) == 1:
            return _records(self.items, self.scores)
        masks = ~np.ma.getmaskarray(self.items)
        parts = zip(
            self.asked.tolist(), np.ma.getdata(self.items), np.ma.getdata(self.scores), masks, strict=True
        )
        return [
            {"for": name, "items": _records(items[left], scores[left])} for name, items, scores, left in parts
        ]

    def _frame_columns(self) -> dict[str, NDArray[Any]]:
        left = ~np.ma.getmaskarray(np.atleast_2d(self.items))
        rows, places = np.nonzero(left)
        return {
            "for": self.asked[rows],
            "place": places + 1,
            "item": np.ma.getdata(np.atleast_2d(self.items))[left],
            "score": np.ma.getdata(np.atleast_2d(self.scores))[left],
        }

    def _repr_html_(self) -> str:
        left = ~np.ma.getmaskarray(np.atleast_2d(self.items))
        rows, places = (part[:MAX_ROWS] for part in np.nonzero(left))
        items, scores = (np.ma.getdata(np.atleast_2d(part)) for part in (self.items, self.scores))
        shown = [
            (self.asked[row], place + 1, items[row, place], f"{scores[row, place]:.4g}")
            for row, place in zip(rows, places, strict=True)
        ]
        more = int(left.sum()) - len(shown)
        note = f"and {more:,} more; to_frame returns all" if more else ""
        return columns_table(type(self).__name__, ("for", "place", "item", "score"), shown, note)


def _records(items: NDArray[Any], scores: NDArray[Any]) -> list[dict[str, Any]]:
    return [
        {"item": item, "score": score if math.isfinite(score) else None}
        for item, score in zip(items.tolist(), scores.tolist(), strict=True)
    ]
