"""Tables with a row per rating, which are not matrices with a row per user."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# names of columns, as plain_name gives them
USER_NAMES = ("user", "userid", "uid", "reviewerid", "customerid")
ITEM_NAMES = (
    *("item", "itemid", "iid", "movie", "movieid", "product", "productid"),
    *("book", "bookid", "isbn", "asin"),
)
RATING_NAMES = ("rating", "ratings", "score", "stars", "value", "overall", "bookrating")
KNOWN_NAMES = (USER_NAMES, ITEM_NAMES, RATING_NAMES)

# names of the columns of frames that are surely no items of a matrix, though files may hold several of them
MORE_NAMES = (
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

RULE = "R must have a row per user and a column per item"

FEWEST_ROWS = 10  # from which columns can be told apart
SCALES = 2.0  # times the largest number of a column that another's is, if they do not hold the same thing
DISTINCT = 0.6  # of the pairs of user and item; the others have been rated again
TIMES = 1e8  # seconds since 1970: later than 1973


def plain_name(name: str) -> str:
    """Return a name without case, spaces and punctuation, and without a type, as in ``user_id:token``."""
    return re.sub(r"[\s_\-.]", "", re.sub(r"(?<=\w):\w+$", "", name)).lower()


def find_names(names: Iterable[object], known: tuple[tuple[str, ...], ...] = KNOWN_NAMES) -> list[int]:
    """Return the places of the columns of user, item and rating among these names, -1 for none."""
    plain = [plain_name(str(name)) for name in names]
    return [next((plain.index(x) for x in words if x in plain), -1) for words in known]


def refuse_table_of_triplets(R: Any) -> None:
    """Refuse a table, or a data frame, whose columns are user, item and rating.

    Raises
    ------
    ValueError
        With the call that takes it.
    """
    columns = R.dtype.names if hasattr(R, "dtype") else R if isinstance(R, Mapping) else None
    for name in ("column_names", "columns"):  # of Arrow, whose columns are no names; of pandas and polars
        columns = getattr(R, name, columns) if columns is None else columns
    names = list(columns) if columns is not None and not callable(columns) else []
    if names:
        user, item, rating = find_names(names, MORE_NAMES)
        if -1 not in (user, item):
            columns_of = [f"R[{names[place]!r}]" for place in (user, item)]
            columns_of.append(f"R[{names[rating]!r}]" if rating >= 0 else f"np.ones(len({columns_of[0]}))")
            shown = ", ".join(map(repr, names[:6]))
            raise ValueError(f"{RULE}, got the columns {shown}; {_remedy(columns_of)}")
    table = _numbers_of(R)
    if table is None:
        return
    if isinstance(R, list) and len(R) in (3, 4) and _start_of_triplets(table.T) is not None:
        raise ValueError(f"{RULE}, got a list of user, item and rating; pass them as triplets, tuple(R)")
    start = _start_of_triplets(table)
    if start is not None:
        column = "R[:, {}]" if type(R) is np.ndarray else "np.asarray(R)[:, {}]"
        remedy = _remedy([column.format(start + n) for n in range(3)])
        raise ValueError(
            f"{RULE}, got {len(table)} rows that look like user, item, rating; {remedy}; "
            "scipy.sparse.csr_array(R) takes it as a matrix"
        )


def _remedy(columns: Sequence[str]) -> str:
    user, item, rating = columns
    return (
        f"pass triplets: user_ids, users = np.unique({user}, return_inverse=True), item_ids and items "
        f"likewise of {item}, then mf.Ratings((users, items, {rating}), user_ids=user_ids, item_ids=item_ids)"
    )


def _numbers_of(R: Any) -> NDArray[np.float64] | None:
    """Return a table of three or four rows or columns as floats, or None."""
    try:
        if len(np.shape(R)) != 2 or min(np.shape(R)) not in (3, 4):
            return None
        table = np.asarray(R)
        return table.astype(np.float64) if table.dtype.kind in "iufO" else None
    except (TypeError, ValueError):
        return None


def _start_of_triplets(table: NDArray[np.float64]) -> int | None:
    """Return the first of three columns that are user, item and rating; None if there are no such.

    Users and items are whole numbers, as distinct pairs, on other scales than the ratings. The columns of a
    matrix hold the same thing, ratings of an item: on one scale, and soon with the same pair twice. A fourth
    column is of times, or numbers the rows.
    """
    start = 0
    if len(table) < FEWEST_ROWS or table.shape[1] not in (3, 4):
        return None
    if table.shape[1] == 4:
        numbers = np.arange(len(table))
        if (table[:, 0] - table[0, 0] == numbers).all() and table[0, 0] in (0, 1):
            start = 1
        elif not (table[:, 3] > TIMES).all():
            return None
    ids, values = table[:, start : start + 2], table[:, start + 2]
    if not (np.isfinite(ids).all() and (ids >= 0).all() and (ids == np.rint(ids)).all()):
        return None
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    largest = [float(np.abs(x).max()) for x in (*ids.T, known)]
    other_scales = max(largest) > SCALES * min(largest) or bool((known != np.rint(known)).any())
    if not other_scales or len(np.unique(ids, axis=0)) < DISTINCT * len(ids):
        return None
    return start
