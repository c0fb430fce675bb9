"""Predictions of pairs, of ratings and of all cells."""

import numbers
import warnings
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.merge import match_ratings
from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_memory
from mfkernel.methods.objective import encode_targets, expected_scores, prediction
from mfkernel.model.state import State
from mfkernel.typing import Unknown

NUMBERS_PER_BLOCK = 2**20  # factors gathered at a time, so that they stay in the cache


def predict(state: State, users: Any, items: Any, unknown: Unknown = "raise") -> NDArray[Any]:
    """Predict the rating of each user for each item; see :meth:`Factors.predict`."""
    checks.one_of("unknown", unknown, get_args(Unknown))
    rows, columns = np.broadcast_arrays(
        state.rows(users, unknown=unknown), state.columns(items, unknown=unknown)
    )
    result = np.empty(rows.shape, state.P.dtype)
    flat, start = result.reshape(-1), 0
    pairs = np.nditer(  # in blocks, so that broadcast arrays are not copied as a whole
        [rows, columns],
        ["external_loop", "buffered", "zerosize_ok"],
        [["readonly"], ["readonly"]],
        order="C",
        buffersize=max(1, NUMBERS_PER_BLOCK // state.k),
    )
    for u, i in pairs:
        flat[start : start + u.size] = prediction(state.scores(u, i), state.settings.loss)
        start += u.size
    return result[()] if result.ndim == 0 else result


def checked_limits(state: State, clip: Any) -> tuple[Any, Any] | None:
    """Return the least and the greatest prediction to give, in P's dtype, or None for any."""
    if isinstance(clip, tuple | list):
        if len(clip) != 2 or not all(isinstance(x, numbers.Real) for x in clip) or not clip[0] <= clip[1]:
            raise ValueError(f"clip must be True, False or a pair (least, most), got {clip!r}")
        least, most = clip
    elif not checks.boolean("clip", clip):
        return None
    elif state.settings.implicit or state.settings.loss == "logistic":
        raise ValueError("clip must be a pair (least, most) if the ratings have no scale, got True")
    elif state.ratings is None or state.ratings.nnz == 0:
        raise ValueError("clip must be a pair (least, most) if the model has no training ratings, got True")
    else:
        least, most = state.rating_range
    return state.P.dtype.type(least), state.P.dtype.type(most)


def expected(state: State, R: Ratings, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ratings and their predictions; see :meth:`Factors.expected`."""
    ratings = encode_targets(match_ratings(R, (state.users, state.items), state.shape, name), state.settings)
    if ratings.nnz == 0:
        raise ValueError(f"{name} must have ratings to compare with, got none")
    if ratings.users.min() >= state.shape[0] or ratings.items.min() >= state.shape[1]:
        warnings.warn(f"some users or items of {name} are not in the model", stacklevel=4)
    predicted = np.empty(ratings.nnz, state.P.dtype)
    step = max(1, NUMBERS_PER_BLOCK // state.k)
    for start in range(0, ratings.nnz, step):
        part = slice(start, start + step)
        scores = state.scores(ratings.users[part], ratings.items[part])
        predicted[part] = prediction(scores, state.settings.loss)
    return expected_scores(ratings, state.settings), predicted


def reconstruct(state: State) -> NDArray[Any]:
    """Return all predictions, (m, n).

    Raises
    ------
    MemoryError
        If they do not fit in the free memory.
    """
    (m, n), dtype = state.shape, state.P.dtype
    size, free = m * n * dtype.itemsize, available_memory()
    if free is not None and size > free:
        raise MemoryError(
            f"P @ Q must fit in {free / 2**30:,.1f} GiB of free memory, got {m:,} × {n:,} {dtype}, "
            f"{size / 2**30:,.1f} GiB; predict(users, items) returns single cells"
        )
    scores = np.asarray(state.P @ state.Q)
    if state.user_bias is not None and state.item_bias is not None:
        scores += (state.mean + state.user_bias).astype(dtype)[:, None]
        scores += state.item_bias
    return prediction(scores, state.settings.loss)
