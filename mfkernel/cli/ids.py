"""Ids on the command line and in files."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel.cli.output import join_names, quantity, say

INTEGER = re.compile(r"0|-?[1-9][0-9]*")


def decodings(text: str) -> list[str]:
    """Return the possible texts of an argument: decoded by the locale, as UTF-8 or as Latin-1.

    A text with bytes that the locale cannot decode comes last.
    """
    decodings = [text]
    if not text.isascii():
        with contextlib.suppress(UnicodeError):
            content = os.fsencode(text)
            unread = any("\ud800" <= x <= "\udfff" for x in text)
            for encoding in ("utf-8", "latin-1") if unread else ("utf-8",):
                with contextlib.suppress(UnicodeError):
                    decodings.insert(len(decodings) - unread, content.decode(encoding))
    return decodings


def known_ids(
    model: mf.Factors, kind: str, wanted: Sequence[str], *, skip_unknown: bool = False
) -> list[Any]:
    """Return ids from the command line as the model has them; numbers of rows or columns without ids.

    Unknown ids are an error; with ``skip_unknown`` they are left out, and counted.
    """
    ids, translate = (
        (model.user_ids, model.user_rows) if kind == "user" else (model.item_ids, model.item_columns)
    )
    rows, unknown = [], []
    for text in wanted:
        if ids is None and not INTEGER.fullmatch(text):
            raise ValueError(f"{kind}s must be numbers, as this model has no {kind} ids, got {text!r}")
        if ids is None:
            rows.append(int(text))
        elif (row := _row_of_id(kind, ids, translate, text)) is None:
            unknown.append(text)
        else:
            rows.append(row)
    if unknown and skip_unknown and rows:
        say(f"{quantity(len(unknown), kind)} not in the model left out")
    elif unknown:
        names = join_names(list(map(repr, unknown)))
        raise ValueError(
            f"{kind} id{'s' if len(unknown) > 1 else ''} {names} {'are' if len(unknown) > 1 else 'is'} "
            "not in the model"
        )
    return rows if ids is None else ids[rows].tolist()


def _row_of_id(kind: str, ids: Any, translate: Any, text: str) -> int | None:
    """Return the row or column number of an id; None if the model has no such id."""
    integers = ids.dtype.kind in "iu"
    if integers and not INTEGER.fullmatch(text):
        raise ValueError(f"{kind} ids must be integers, as in the model, got {text!r}")
    for decoding in [text] if integers else decodings(text):
        with contextlib.suppress(KeyError, OverflowError):
            wanted = np.array([int(text)], ids.dtype) if integers else [decoding]
            return int(translate(wanted)[0])
    return None


def as_in_model(ids: Any, model_ids: Any) -> list[Any]:
    """Convert ids of a file to integers or text, as the model has them."""
    names: list[Any] = ids.tolist()
    if model_ids.dtype.kind not in "iu":
        return list(map(str, names))
    return [int(x) if INTEGER.fullmatch(str(x)) else x for x in names]


def check_either_has_ids(kind: str, theirs: Any, own: Any, path: Path) -> None:
    """Refuse a file with ids for a model without ids, and vice versa."""
    if theirs is not None and own is None:
        raise ValueError(
            f"{path} must be MatrixMarket or scipy npz, whose rows and columns keep their numbers, got text, "
            f"whose {kind}s are ids; this model has no {kind} ids"
        )
    if theirs is None and own is not None:
        raise ValueError(
            f"{path} must be text with the {kind} ids of the model, got a matrix, whose {kind}s are numbers; "
            f"this model has {kind} ids"
        )


def only_known_items(model: mf.Factors, ratings: mf.Ratings, path: Path) -> mf.Ratings:
    """Leave out ratings of items that are not in the model, with a message."""
    check_either_has_ids("item", ratings.item_ids, model.item_ids, path)
    if ratings.item_ids is None or model.item_ids is None:
        return ratings
    ids, vocabulary = as_in_model(ratings.item_ids, model.item_ids), set(model.item_ids.tolist())
    known = np.array([x in vocabulary for x in ids], np.bool_)
    unknown = join_names([x for x in ids if x not in vocabulary])
    if not known.any():
        raise ValueError(f"{path} must have an item that is in the model, got {unknown}")
    kept = known[ratings.items]
    has_any = np.bincount(ratings.users[kept], minlength=ratings.n_users) > 0
    if not known.all():
        say(
            f"left out {quantity(ratings.nnz - int(kept.sum()), 'rating')} of "
            f"{quantity(int((~known).sum()), 'item')} not in the model: {unknown}"
        )
    names = np.arange(ratings.n_users) if ratings.user_ids is None else ratings.user_ids
    if not has_any.all():
        without = names[~has_any].tolist()
        say(f"left out {quantity(len(without), 'user')} who rated no other items: {join_names(without)}")
    rows, columns = np.cumsum(has_any) - 1, np.cumsum(known) - 1
    return mf.Ratings(
        (
            rows[ratings.users[kept]],
            columns[ratings.items[kept]],
            ratings.values[kept],
            (int(has_any.sum()), int(known.sum())),
        ),
        dtype=ratings.dtype,
        user_ids=names[has_any],
        item_ids=[x for x in ids if x in vocabulary],
    )
