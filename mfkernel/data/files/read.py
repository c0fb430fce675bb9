"""Read ratings from files and recognize their format by content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.data.convert import DUPLICATES, exact_dtype
from mfkernel.data.files.layout import Column, check_columns, find_layout
from mfkernel.data.files.lines import Lines, check_encoding
from mfkernel.data.files.market import is_market, read_market
from mfkernel.data.files.npz import is_matrix, read_matrix
from mfkernel.data.files.streams import (
    GZIP_SIGNATURE,
    ZIP_SIGNATURES,
    Archive,
    Stream,
    gunzip,
    open_file,
    refuse_binary,
)
from mfkernel.data.files.text import parse
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import interruptible


@checks.explains_names
def read_ratings(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[Column] | ArrayLike | None = None,
    duplicates: str = "raise",
    encoding: str | None = None,
) -> Ratings:
    """Read ratings from a file or a pipe, plain, gzipped or zipped.

    The content of the file determines the format:

    ======================  ==============================================================================
    MovieLens ``u.data``    tabs: user, item, rating, time
    ``ratings.dat``         ``::`` between user, item, rating, time
    ``ratings.csv``         commas, semicolons or tabs, with a header that names the columns
    plain text (LIBMF)      ``user item rating``, white space between
    RecBole                 tabs, with a header of names and types, such as ``user_id:token``
    MatrixMarket            ``%%MatrixMarket``; rows and columns keep their numbers
    scipy ``.npz``          what ``scipy.sparse.save_npz`` wrote; rows and columns keep their numbers
    ======================  ==============================================================================

    In text, user ids are integers if all of them are integers, else strings. The same holds for item ids.
    The sorted ids become ``user_ids`` and ``item_ids`` of the result, and user ``user_ids[u]`` has row u.

    Fields may be quoted, except between ``::``. Only ASCII white space separates or surrounds fields; a
    no-break space is part of an id. A first line ``sep=;`` names the separator.

    These lines are skipped: blank lines, lines whose fields are all empty, and lines that begin with ``#`` or
    ``%`` and a space. A header may follow a ``#`` or ``%``.

    Without a header and ``columns``, lines that look like rows of a table are refused. Such a line has more
    than four fields, a fourth field that is not a time, or a decimal or negative number as an id. A time is
    a number of seconds since 1970, later than 1973, or a date such as 2005-09-06.

    Parameters
    ----------
    path
        A file, or a pipe such as ``/dev/stdin``. It is read once, from start to end.
    columns
        Columns of user, item and rating in a text: three names in the header, or positions from 0. Default:
        known names, such as userId, movieId and rating; without a header, the first three columns.
    duplicates
        How to merge several ratings of one user for one item: ``"raise"``, ``"sum"``, ``"mean"`` or
        ``"last"``. Default: ``"raise"``.
    encoding
        Encoding of a text, such as ``"latin-1"``. Default: UTF-8, or UTF-16 or UTF-32 if a byte-order mark
        says so.

    Returns
    -------
    Ratings
        float32 if it holds all values exactly, else float64.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file cannot be parsed; the message names file, line and content. Also if the file exceeds the
        bounds below.
    MemoryError
        If the ratings do not fit in memory.

    Notes
    -----
    Time and memory are proportional to the ratings: about 150 bytes per rating, and per distinct text id
    300 bytes plus up to 40 bytes per character. With pyarrow (the extra ``files``), all cores read texts of
    more than a megabyte, with the same result and the same errors.

    To prevent a small file from costing more, these are refused:

    - devices, such as ``/dev/zero``;
    - a line of more than 1,048,576 characters, or an id of more than 1000;
    - more than 131,072 characters of comments before the first rating;
    - a gzip or zip file that unpacks to more than 16 MiB plus 100 times its size;
    - a zip file of more than 1 GiB in gzip or from a pipe;
    - a matrix file with more rows and columns than 10 million plus 100 times its entries.

    Examples
    --------
    >>> ratings = read_ratings("ml-latest-small/ratings.csv")  # doctest: +SKIP
    """
    checks.one_of("duplicates", duplicates, DUPLICATES)
    check_encoding(encoding)
    names = check_columns(columns)
    source = Path(path)
    with ExitStack() as stack:
        file = stack.enter_context(open_file(source))
        raw = data = Stream(file.read)
        if raw.start(2) == GZIP_SIGNATURE:
            data = gunzip(source, raw)
        if data.start(4) in ZIP_SIGNATURES:
            seekable = file if data is raw and file.seekable() else None
            archive = stack.enter_context(Archive(source, seekable, data))
            if is_matrix(archive):
                return _read_npz(source, archive, duplicates)
            data = archive.stream(archive.only_member())
        refuse_binary(source, data)
        lines = Lines(source, data, encoding)
        if is_market(lines):
            return _read_market(source, lines, duplicates)
        return _read_text(source, lines, names, duplicates)


def _read_npz(path: Path, archive: Archive, duplicates: str) -> Ratings:
    matrix: Any = interruptible(lambda: read_matrix(path, archive))
    try:
        return Ratings(
            matrix, duplicates=duplicates, dtype=interruptible(lambda: exact_dtype(matrix.data)), copy=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_text(path: Path, lines: Lines, columns: tuple[Column, ...] | None, duplicates: str) -> Ratings:
    layout = find_layout(lines, columns)
    table = parse(lines, layout)
    user_ids, item_ids = table.user_ids, table.item_ids
    triplets = (table.users, table.items, table.values, (user_ids.size, item_ids.size))
    dtype = interruptible(lambda: exact_dtype(table.values))
    try:
        return Ratings(triplets, duplicates=duplicates, dtype=dtype, user_ids=user_ids, item_ids=item_ids)
    except ValueError as error:
        raise _add_path(path, error, duplicates, table.users, table.items, user_ids, item_ids) from error


def _read_market(path: Path, lines: Lines, duplicates: str) -> Ratings:
    rows, columns, values, (m, n) = read_market(lines)
    try:
        dtype = interruptible(lambda: exact_dtype(values))
        return Ratings((rows, columns, values, (m, n)), duplicates=duplicates, dtype=dtype)
    except ValueError as error:
        raise _add_path(path, error, duplicates, rows, columns, range(1, m + 1), range(1, n + 1)) from error


def _add_path(
    path: Path,
    error: ValueError,
    duplicates: str,
    users: NDArray[Any],
    items: NDArray[Any],
    user_ids: Sequence[Any] | NDArray[Any],
    item_ids: Sequence[Any] | NDArray[Any],
) -> ValueError:
    """Return an error about ratings with the file's name and, for duplicates, its ids."""
    if duplicates == "raise":
        order = interruptible(lambda: np.lexsort((items, users)))
        ordered_users, ordered_items = users[order], items[order]
        repeated = np.flatnonzero(
            (ordered_users[1:] == ordered_users[:-1]) & (ordered_items[1:] == ordered_items[:-1])
        )
        if repeated.size:
            first = order[repeated + 1].min()
            return ValueError(
                f"{path}: {repeated.size} duplicate ratings, the first of user {user_ids[users[first]]} for "
                f"item {item_ids[items[first]]}; pass duplicates='sum', 'mean' or 'last'"
            )
    return ValueError(f"{path}: {error}")
