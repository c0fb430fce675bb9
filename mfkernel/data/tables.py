"""Recognize tables with one row per rating, which are not user × item matrices."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# names of columns, in the form that plain_name returns
USER_NAMES = ("user", "userid", "uid", "reviewerid", "customerid")
ITEM_NAMES = (
    *("item", "itemid", "iid", "movie", "movieid", "product", "productid"),
    *("book", "bookid", "isbn", "asin"),
)
RATING_NAMES = ("rating", "ratings", "score", "stars", "value", "overall", "bookrating")
TIME_NAMES = ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "unixtime", "when")
COLUMN_NAMES = (USER_NAMES, ITEM_NAMES, RATING_NAMES)

# column names that cannot be items of a matrix; a file may have several of them
FRAME_COLUMN_NAMES = (
    (
        *USER_NAMES,
        "visitor",
        "visitorid",
        "member",
        "memberid",
        "account",
        "accountid",
        "username",
        "reader",
        "readerid",
    ),
    (
        *ITEM_NAMES,
        *(
            word + end
            for word in ("track", "song", "artist", "show", "game", "recipe", "sku")
            for end in ("", "id")
        ),
        *(
            word + end
            for word in ("article", "news", "video", "anime", "beer", "joke", "venue")
            for end in ("", "id")
        ),
    ),
    (
        *RATING_NAMES,
        "rui",
        "liked",
        "like",
        "plays",
        "playcount",
        "clicks",
        "count",
        "quantity",
        "weight",
        "label",
    ),
)

MATRIX_RULE = "R must have a row per user and a column per item"

MIN_ROWS = 10  # rows needed to tell the columns apart
MIN_SCALE_RATIO = 2.0  # ratio of the columns' largest numbers above which the columns have different meanings
MIN_DISTINCT_SHARE = 0.6  # least share of distinct (user, item) pairs; the rest may be repeated ratings
MIN_TIME = 1e8  # seconds since 1970: later than 1973


def plain_name(name: str) -> str:
    """Return a name in lower case, without spaces, punctuation and a type.

    For example, ``user_id:token`` becomes ``userid``.
    """
    return re.sub(r"[\s_\-.]", "", re.sub(r"(?<=\w):\w+$", "", name)).lower()


def find_names(names: Iterable[object], known: tuple[tuple[str, ...], ...] = COLUMN_NAMES) -> list[int]:
    """Return the positions of the user, item and rating columns; -1 if not found."""
    plain = [plain_name(str(name)) for name in names]
    return [next((plain.index(x) for x in words if x in plain), -1) for words in known]


def usual_time(names: Sequence[str]) -> str:
    """Return the column that has a usual name of times, or "timestamp" if there is none."""
    (position,) = find_names(names, (TIME_NAMES,))
    return names[position] if position >= 0 else "timestamp"


def refuse_table_of_triplets(R: Any) -> None:
    """Refuse a table, or a data frame, whose columns are user, item and rating.

    Raises
    ------
    ValueError
        If R is such a table. The message shows the call that accepts it.
    """
    columns = R.dtype.names if hasattr(R, "dtype") else R if isinstance(R, Mapping) else None
    for name in ("column_names", "columns"):  # Arrow, whose columns are no names; pandas and polars
        columns = getattr(R, name, columns) if columns is None else columns
    names = list(columns) if columns is not None and not callable(columns) else []
    if names:
        user, item, rating = find_names(names, FRAME_COLUMN_NAMES)
        if -1 not in (user, item):
            columns_of = [f"R[{names[position]!r}]" for position in (user, item)]
            columns_of.append(f"R[{names[rating]!r}]" if rating >= 0 else f"np.ones(len({columns_of[0]}))")
            shown = ", ".join(map(repr, names[:6]))
            raise ValueError(f"{MATRIX_RULE}, got the columns {shown}; {_remedy(columns_of)}")
    table = _as_floats(R)
    if table is None:
        return
    if isinstance(R, list) and len(R) in (3, 4) and _find_triplets(table.T) is not None:
        raise ValueError(
            f"{MATRIX_RULE}, got a list of user, item and rating; pass them as triplets, tuple(R)"
        )
    start = _find_triplets(table)
    if start is not None:
        column = "R[:, {}]" if type(R) is np.ndarray else "np.asarray(R)[:, {}]"
        remedy = _remedy([column.format(start + n) for n in range(3)])
        raise ValueError(
            f"{MATRIX_RULE}, got {len(table)} rows that look like user, item, rating; {remedy}; "
            "scipy.sparse.csr_array(R) takes it as a matrix"
        )


def _remedy(columns: Sequence[str]) -> str:
    user, item, rating = columns
    return (
        f"pass triplets: user_ids, users = np.unique({user}, return_inverse=True), item_ids and items "
        f"likewise of {item}, then mf.Ratings((users, items, {rating}), user_ids=user_ids, item_ids=item_ids)"
    )


def _as_floats(R: Any) -> NDArray[np.float64] | None:
    """Return R as floats if it has three or four rows or columns, else None."""
    try:
        if len(np.shape(R)) != 2 or min(np.shape(R)) not in (3, 4):
            return None
        table = np.asarray(R)
        return table.astype(np.float64) if table.dtype.kind in "iufO" else None
    except (TypeError, ValueError):
        return None


def _find_triplets(table: NDArray[np.float64]) -> int | None:
    """Return the first of three columns user, item and rating, or None.

    Users and items are whole numbers, their pairs are distinct, and their scale differs from the ratings'.
    In a matrix, all columns hold ratings: they have one scale, and some pair soon repeats. A fourth column
    must hold times or row numbers.
    """
    start = 0
    if len(table) < MIN_ROWS or table.shape[1] not in (3, 4):
        return None
    if table.shape[1] == 4:
        numbers = np.arange(len(table))
        if (table[:, 0] - table[0, 0] == numbers).all() and table[0, 0] in (0, 1):
            start = 1
        elif not (table[:, 3] > MIN_TIME).all():
            return None
    ids, values = table[:, start : start + 2], table[:, start + 2]
    if not (np.isfinite(ids).all() and (ids >= 0).all() and (ids == np.rint(ids)).all()):
        return None
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    largest = [float(np.abs(x).max()) for x in (*ids.T, known)]
    other_scales = max(largest) > MIN_SCALE_RATIO * min(largest) or bool((known != np.rint(known)).any())
    if not other_scales or len(np.unique(ids, axis=0)) < MIN_DISTINCT_SHARE * len(ids):
        return None
    return start
