"""Users and items that a model forgets."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ids import Vocabulary
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import ThreadEngine
from mfkernel.methods.posterior import PER_ROW, scale_draws
from mfkernel.model.sampled import redrawn_from_prior
from mfkernel.model.state import State


def forget(state: State, users: Any, items: Any) -> State:
    """Return a state without some users and items; see :meth:`Factors.forget`."""
    keeps = [np.ones(size, np.bool_) for size in state.shape]
    for keep, found in zip(keeps, (state.rows(users), state.columns(items)), strict=True):
        keep[found] = False
    ratings = state.ratings
    if ratings is not None:
        ratings = ratings.select(keeps[0][ratings.users] & keeps[1][ratings.items])
        ratings = _rows(_rows(ratings, keeps[0], state.users).T, keeps[1], state.items).T
    known_users, known_items = state.known_users & keeps[0], state.known_items & keeps[1]
    user_vocabulary, item_vocabulary = _left(state.users, keeps[0]), _left(state.items, keeps[1])
    if ratings is not None:
        ratings = ratings.with_ids(user_vocabulary, item_vocabulary)
    posterior = state.posterior
    if posterior is not None:
        cut = {
            f"{side}_{part}": _cut(getattr(posterior, f"{side}_{part}"), keep, ids)
            for side, keep, ids in (("user", keeps[0], state.users), ("item", keeps[1], state.items))
            for part in PER_ROW
        }
        posterior = scale_draws(replace(posterior, **cut), 1.0)
    left = replace(
        state,
        P=_cut(state.P, keeps[0], state.users),
        Q=_cut(state.Q.T, keeps[1], state.items).T,
        user_bias=None if state.user_bias is None else _cut(state.user_bias, keeps[0], state.users),
        item_bias=None if state.item_bias is None else _cut(state.item_bias, keeps[1], state.items),
        known_users=_cut(known_users, keeps[0], state.users),
        known_items=_cut(known_items, keeps[1], state.items),
        ratings=ratings,
        users=user_vocabulary,
        items=item_vocabulary,
        posterior=posterior,
    )
    if posterior is not None:
        for side, keep, ids in ((0, keeps[0], state.users), (1, keeps[1], state.items)):
            if ids is None and not keep.all():
                with ThreadEngine(1) as engine:
                    left = redrawn_from_prior(left, side, np.flatnonzero(~keep), engine)
    return left


def _cut(rows: NDArray[Any], keep: NDArray[np.bool_], ids: Vocabulary | None) -> NDArray[Any]:
    """Remove rows if they have ids, else set them to zero."""
    if ids is not None:
        return rows[keep]
    result = rows.copy()
    result[~keep] = 0
    return result


def _rows(ratings: Ratings, keep: NDArray[np.bool_], ids: Vocabulary | None) -> Ratings:
    """Remove rows, which have no ratings, if they have ids."""
    return ratings if ids is None else ratings.take_rows(np.flatnonzero(keep))


def _left(ids: Vocabulary | None, keep: NDArray[np.bool_]) -> Vocabulary | None:
    return None if ids is None else Vocabulary(ids.take(keep))
