"""Read ratings from files and recognize their format by content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO

from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.data.convert import DUPLICATES, exact_dtype, from_own_triplets
from mfkernel.data.duplicates import DuplicateError, by_id
from mfkernel.data.files.columnar import is_columnar, read_columnar
from mfkernel.data.files.form import Column, check_form
from mfkernel.data.files.layout import find_layout
from mfkernel.data.files.lines import Lines, check_encoding
from mfkernel.data.files.market import is_market, read_market
from mfkernel.data.files.netflix import COLUMNS, is_netflix, with_items
from mfkernel.data.files.npz import is_matrix, read_matrix
from mfkernel.data.files.records import Records, is_json
from mfkernel.data.files.streams import ZIP_SIGNATURES, Archive, Stream, open_source, refuse_binary, unpack
from mfkernel.data.files.text import Rows, TextRows, parse
from mfkernel.data.frames import Named
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import interruptible


@checks.explains_names
def read_ratings(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    columns: Sequence[Column] | ArrayLike | None = None,
    timestamp: Column | bool = False,
    separator: str | None = None,
    decimal: str = ".",
    nulls: str = "raise",
    duplicates: str = "raise",
    encoding: str | None = None,
) -> Ratings:
    """Read ratings from a file, a pipe, a URL or an open file; also packed by gzip, bzip2, xz, zstd or zip.

    The content of the file determines the format:

    ======================  ==============================================================================
    MovieLens ``u.data``    tabs: user, item, rating, time
    ``ratings.dat``         ``::`` between user, item, rating, time
    ``ratings.csv``         commas, semicolons, tabs or ``|``, with a header that names the columns
    plain text (LIBMF)      ``user item rating``, white space between
    RecBole                 tabs, with a header of names and types, such as ``user_id:token``
    Netflix prize           ``item:``, then lines of user, rating, date
    JSON Lines              an object per line, such as ``{"user": 1, "item": 7, "rating": 4}``
    Parquet, Arrow          tables with columns of users, items and ratings (extra ``files``)
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
        A file; a pipe such as ``/dev/stdin``; a URL, which fsspec opens (extra ``files``); or a file opened
        in binary mode. It is read once, from start to end.
    columns
        Columns of user, item and rating: three names in the header, or positions from 0. Default:
        known names, such as userId, movieId and rating; without a header, the first three columns.
    timestamp
        Column of times to keep as ``timestamps``: a name or a position; or True for the column with a usual
        name, such as timestamp or date, and without a header for the fourth. Default: False, none is kept.
    separator
        Mark between the fields of a text: ``"::"``, or one character. Default: found among ``::``, tab,
        comma, semicolon and ``|``, else white space.
    decimal
        Mark before the decimals of ratings, ``"."`` or ``","``. Default: ``"."``.
    nulls
        Whether a missing rating, such as an empty field or NULL, is an error, ``"raise"``, or its line is
        left out, ``"drop"``, with a warning that counts them. Default: ``"raise"``.
    duplicates
        How to merge several ratings of one user for one item: ``"raise"``, ``"sum"``, ``"mean"`` or
        ``"last"``, with timestamps the latest. Default: ``"raise"``.
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
    - a packed file that unpacks to more than 16 MiB plus 100 times its size;
    - a zip file of more than 1 GiB in another packed file or from a pipe;
    - a matrix file with more rows and columns than 10 million plus 100 times its entries.

    Examples
    --------
    >>> ratings = read_ratings("ml-latest-small/ratings.csv")  # doctest: +SKIP
    """
    checks.one_of("duplicates", duplicates, DUPLICATES)
    check_encoding(encoding)
    form = check_form(columns, timestamp, separator, decimal, nulls)
    with ExitStack() as stack:
        name, file = stack.enter_context(open_source(path))
        raw = Stream(file.read)
        data = unpack(name, raw) or raw
        seekable = file if data is raw and file.seekable() else None
        if data.start(4) in ZIP_SIGNATURES:
            archive = stack.enter_context(Archive(name, seekable, data))
            if is_matrix(archive):
                return _read_npz(name, archive, duplicates)
            data, seekable = archive.stream(archive.only_member()), None
        if is_columnar(data):
            return read_columnar(name, seekable, data, form, duplicates)
        refuse_binary(name, data)
        if is_netflix(data):
            data, form = with_items(data), form._replace(columns=form.columns or COLUMNS)
        lines = Lines(name, data, encoding)
        if is_market(lines):
            return _read_market(name, lines, duplicates)
        if is_json(lines):
            return _read_rows(name, lines, Records(lines, form), duplicates)
        return _read_rows(name, lines, TextRows(lines, find_layout(lines, form)), duplicates)


def _read_npz(path: str, archive: Archive, duplicates: str) -> Ratings:
    matrix: Any = interruptible(lambda: read_matrix(path, archive))
    try:
        return Ratings(
            matrix, duplicates=duplicates, dtype=interruptible(lambda: exact_dtype(matrix.data)), copy=False
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_rows(path: str, lines: Lines, rows: Rows, duplicates: str) -> Ratings:
    table = parse(lines, rows)
    ids, times = (table.user_ids, table.item_ids), table.times
    shape = ids[0].size, ids[1].size
    triplets = [table.users, table.items, interruptible(partial(_exact, table.values))]
    del table  # nothing but the list keeps the arrays
    try:
        if times is not None:
            return Ratings(Named((*triplets, shape), *ids, times), duplicates=duplicates)
        csr = interruptible(lambda: from_own_triplets(triplets, shape, duplicates))
    except DuplicateError as error:
        raise ValueError(f"{path}: {by_id(error, *ids) if times is None else error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Ratings.of_parts(csr, *ids)


def _exact(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(exact_dtype(values), copy=False)


def _read_market(path: str, lines: Lines, duplicates: str) -> Ratings:
    rows, columns, values, shape = read_market(lines)
    try:
        dtype = interruptible(lambda: exact_dtype(values))
        return Ratings((rows, columns, values, shape), duplicates=duplicates, dtype=dtype)
    except DuplicateError as error:
        counted_from_one = DuplicateError(error.count, error.user + 1, error.item + 1)
        raise ValueError(f"{path}: {counted_from_one}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
