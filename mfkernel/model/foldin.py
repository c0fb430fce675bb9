"""Rows solved for new users, and solved again for new ratings."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.merge import add_zero_rows, merge_ratings, new_user_ratings
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import ThreadEngine, default_engine
from mfkernel.linalg.normal import Penalty, solve_rows
from mfkernel.methods.objective import encode_targets, penalty_scale
from mfkernel.model.sampled import PARTIAL_FIT_SWEEPS, fold_in_samples, update_samples
from mfkernel.model.state import State
from mfkernel.options import both
from mfkernel.typing import Duplicates, Missing


def new_users(
    state: State,
    ratings: Any,
    n_threads: int | None,
    *,
    missing: Missing | None,
    duplicates: Duplicates = "raise",
    regularization: float | None = None,
    bias_regularization: float | None = None,
) -> State:
    """Return a state of new users from their ratings in any form; see :meth:`Factors.fold_in`."""
    missing = state.missing if missing is None else missing
    form: dict[str, Any] = {"missing": missing, "duplicates": duplicates, "like": state.origin}
    form["needs_rating"] = not state.settings.implicit
    new = new_user_ratings(ratings, state.shape[1], state.items, state.P.dtype, **form)
    with default_engine(n_threads) as engine:
        return fold_in(
            state, encode_targets(new, state.settings), engine, regularization, bias_regularization
        )


def fold_in(
    state: State,
    ratings: Ratings,
    engine: ThreadEngine,
    regularization: float | None = None,
    bias_regularization: float | None = None,
) -> State:
    """Return a state of new users with the same items."""
    if state.posterior is not None:
        for name, value in (
            ("regularization", regularization),
            ("bias_regularization", bias_regularization),
        ):
            if value is not None:
                raise ValueError(
                    f"{name} must be None for a Bayesian model, whose priors replace it, got {value!r}"
                )
        return fold_in_samples(state, usable_ratings(state, ratings, state.known_items), engine)
    penalty = make_penalty(state, 0, regularization, bias_regularization)
    rows = usable_ratings(state, ratings, state.known_items)
    squares = state.item_gram(engine) if state.settings.implicit else None
    P, bias = solve(state, rows, state.Q.T, state.item_bias, penalty, engine, squares)
    return State(
        P=P,
        Q=state.Q,
        mean=state.mean,
        user_bias=None if state.user_bias is None else bias,
        item_bias=state.item_bias,
        known_users=rows.user_counts() > 0,
        known_items=state.known_items,
        settings=state.settings,
        missing=state.missing,
        ratings=ratings,
        users=ratings.users_by_id,
        items=state.items,
        origin=state.origin,
    )


def update_state(
    state: State, old: Ratings, new: Ratings, engine: ThreadEngine, *, add: bool = False
) -> State:
    """Return a state that has also learned the ``new`` ratings; ``old`` are its training ratings.

    Only rows and columns with new ratings are solved again, from all their ratings. Users and items are
    solved one after the other, twice. With ``add``, new ratings are added to old ones of their cells.
    """
    known, user_positions, item_positions = merge_ratings(old, new, add=add)
    if state.posterior is not None:
        users, items = (np.unique(x) for x in (user_positions[new.users], item_positions[new.items]))
        return _finite(update_samples(state, known, users, items, engine), known)
    P, Y = add_zero_rows(state.P, known.n_users), add_zero_rows(state.Q.T, known.n_items)
    has_user, has_item = add_zero_rows(state.known_users, len(P)), add_zero_rows(state.known_items, len(Y))
    user_bias = item_bias = None
    if state.user_bias is not None and state.item_bias is not None:
        user_bias, item_bias = add_zero_rows(state.user_bias, len(P)), add_zero_rows(state.item_bias, len(Y))
    users, items = (np.unique(x) for x in (user_positions[new.users], item_positions[new.items]))
    by_user, by_item = known.take_rows(users), known.T.take_rows(items)
    penalties = make_penalty(state, 0), make_penalty(state, 1)
    for _ in range(PARTIAL_FIT_SWEEPS):
        rows = usable_ratings(state, by_user, has_item)
        P[users], bias = solve(state, rows, Y, item_bias, penalties[0], engine)
        has_user[users] = rows.user_counts() > 0
        if user_bias is not None:
            user_bias[users] = bias
        rows = usable_ratings(state, by_item, has_user)
        Y[items], bias = solve(state, rows, P, user_bias, penalties[1], engine)
        has_item[items] = rows.user_counts() > 0
        if item_bias is not None:
            item_bias[items] = bias
    changed = replace(
        state,
        P=P,
        Q=Y.T,
        user_bias=user_bias,
        item_bias=item_bias,
        known_users=has_user,
        known_items=has_item,
        ratings=known,
        users=known.users_by_id,
        items=known.items_by_id,
    )
    return _finite(changed, known)


def _finite(state: State, ratings: Ratings) -> State:
    """Return a state, or raise an error if its factors are not finite."""
    if not all(np.isfinite(X).all() for X in (state.P, state.Q)):
        raise FloatingPointError(
            f"factors must be finite in {state.P.dtype}, got others from ratings of up to "
            f"{np.abs(ratings.values).max():g}; the model has not changed"
        )
    return state


def make_penalty(
    state: State, side: int, regularization: float | None = None, bias_regularization: float | None = None
) -> Penalty:
    """Return the penalty of the user factors (side 0) or of the item factors (side 1)."""
    settings = state.settings
    reg = checks.optional("regularization", regularization, positive=False)
    bias_reg = checks.optional("bias_regularization", bias_regularization, positive=False)
    if reg is None:
        if settings.regularization is None:
            raise ValueError(
                "regularization must be given, as the model's settings have none; pass fold_in(…, "
                "regularization=λ_P), or make the model with settings=mf.SGD(regularization=(λ_P, λ_Q))"
            )
        reg = both(settings.regularization)[side]
    if bias_reg is None:
        bias_reg = settings.bias_regularization or 0.0
    return Penalty(reg, bias_reg, both(settings.l1)[side], settings.nonnegative)


def usable_ratings(state: State, rows: Ratings, known: NDArray[np.bool_]) -> Ratings:
    """Return the ratings with positive weight whose other side has factors."""
    usable = np.ones(rows.nnz, np.bool_) if rows.weights is None else rows.weights > 0
    if state.user_bias is None and not state.settings.implicit:
        usable &= known[rows.indices]
    return rows if usable.all() else rows.select(usable)


def solve(
    state: State,
    rows: Ratings,
    Y: NDArray[Any],
    bias: NDArray[Any] | None,
    penalty: Penalty,
    engine: ThreadEngine,
    squares: NDArray[np.float64] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Solve rows, given the factors Y and the biases of the other side, and perhaps YᵀY."""
    return solve_rows(
        rows.indptr,
        rows.indices,
        rows.values,
        Y,
        None if bias is None else state.mean + bias.astype(np.float64),
        penalty_scale(state.settings, rows),
        penalty,
        engine,
        weights=rows.weights,
        biased=bias is not None,
        loss=state.settings.loss,
        huber_delta=state.settings.huber_delta or 1.0,
        implicit=state.implicit,
        squares=squares,
    )
