"""Read ratings of any form: those that a fit begins with, and later ones."""

from typing import Any

from mfkernel._support import checks
from mfkernel.data import frames
from mfkernel.data.ids import Vocabulary
from mfkernel.data.named import number_frame, number_ids
from mfkernel.data.origin import NO_FRAME, Origin
from mfkernel.data.ratings import Ratings


def read_training(
    R: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    count: bool = False,
    nulls: str = "raise",
    needs_rating: bool = True,
    **form: Any,
) -> Ratings:
    """Return the ratings that a fit or a search begins with.

    Parameters
    ----------
    R
        Ratings in any form.
    user, item, rating, timestamp, count, nulls
        How a data frame is read, as for :meth:`Ratings.from_frame`; only for a frame.
    needs_rating
        Whether a frame must have a column of ratings.
    **form
        Other arguments of :class:`Ratings`.
    """
    columns: dict[str, Any] = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    columns |= {"count": checks.boolean("count", count), "nulls": nulls}
    if frames.is_frame(R):
        return Ratings(number_frame(R, **columns, needs_rating=needs_rating), **form)
    for name, value in columns.items():
        if value not in (None, False, "raise"):
            raise TypeError(
                f"{name} must be used with a data frame, got {name}={value!r} and {type(R).__name__}"
            )
    return Ratings(R, **form)


def read_by_id(
    R: Any,
    users: Vocabulary | None,
    items: Vocabulary | None,
    *,
    like: Origin = NO_FRAME,
    needs_rating: bool = False,
    **form: Any,
) -> Ratings:
    """Read ratings of any form, whose triplets have ids wherever the model has them.

    Triplets with a shape hold positions.

    Parameters
    ----------
    R
        The ratings.
    users, items
        Ids of the model.
    like
        The frame that the model was fitted on, whose columns a frame R has.
    needs_rating
        Whether a frame must have a column of ratings.
    **form
        The other arguments of :class:`Ratings`.
    """
    by_id = users is not None, items is not None
    return Ratings(number_ids(R, by_id, like=like, items=items, needs_rating=needs_rating), **form)
