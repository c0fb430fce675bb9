"""Rows of a Bayesian model drawn again: of new users, and of users and items with new ratings."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import immutable, readonly
from mfkernel.data.merge import add_zero_rows
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.gibbs import Rows, draw_precisions, draw_rows, start_precisions
from mfkernel.linalg.rows import aligned_rows, pad_rows
from mfkernel.methods.posterior import PER_ROW, SIDES, Posterior, prior_of
from mfkernel.model.state import State

USERS, ITEMS = 0, 1
PARTIAL_FIT_SWEEPS = 2  # sweeps over users and then items with new ratings
INNER_SWEEPS = 3  # draws of rows and of the precisions of their ratings, which start equal
MAX_UNIT = 1e6  # noise or its inverse: beyond it, float32 does not hold the squares of squares


class Drawn(NamedTuple):
    """Rows drawn in every sample, and their means in the factors of the model.

    Attributes
    ----------
    factors, bias, precision
        (s, S, k), (s, S) and (s, S).
    mean_factors, mean_bias
        (s, k) and (s,).
    """

    factors: NDArray[Any]
    bias: NDArray[Any]
    precision: NDArray[Any]
    mean_factors: NDArray[Any]
    mean_bias: NDArray[Any]


def fold_in_samples(state: State, ratings: Ratings, engine: ThreadEngine) -> State:
    """Return a state of new users with the same items; a user without ratings comes from the prior."""
    drawn = draw_side(state, USERS, ratings, engine)
    return replace(
        state,
        P=drawn.mean_factors,
        user_bias=drawn.mean_bias,
        known_users=ratings.user_counts() > 0,
        history=(),
        stop_reason="",
        ratings=ratings,
        users=ratings.users_by_id,
        posterior=_with_rows(_posterior(state), USERS, None, drawn),
    )


def update_samples(
    state: State, known: Ratings, users: NDArray[Any], items: NDArray[Any], engine: ThreadEngine
) -> State:
    """Return a state where some users and items are drawn again from all their ratings, ``known``."""
    m, n = known.shape
    posterior = _grown(_posterior(state), (m, n))
    P, Y = add_zero_rows(state.P, m), add_zero_rows(state.Q.T, n)
    user_bias, item_bias = _biases(state)
    state = replace(
        state,
        P=P,
        Q=Y.T,
        user_bias=add_zero_rows(user_bias, m),
        item_bias=add_zero_rows(item_bias, n),
        known_users=known.user_counts() > 0,
        known_items=known.item_counts() > 0,
        ratings=known,
        users=known.users_by_id,
        items=known.items_by_id,
        posterior=posterior,
    )
    sides = (USERS, users, known.take_rows(users)), (ITEMS, items, known.T.take_rows(items))
    for _ in range(PARTIAL_FIT_SWEEPS):
        for side, rows, ratings in sides:
            state = _with_drawn(state, side, rows, draw_side(state, side, ratings, engine))
    return state


def redrawn_from_prior(state: State, side: int, rows: NDArray[Any], engine: ThreadEngine) -> State:
    """Return a state where some rows of one side are as if they had no ratings."""
    empty = np.zeros(rows.size + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, state.P.dtype)
    nothing = Ratings.of_csr(*empty, shape=(rows.size, state.shape[1 - side]))
    return _with_drawn(state, side, rows, draw_side(state, side, nothing, engine))


def draw_side(state: State, side: int, ratings: Ratings, engine: ThreadEngine) -> Drawn:
    """Draw users (side 0) or items (side 1) in every sample, given their ratings and the other side.

    Their rows in the factors of the model are those whose scores are nearest to the mean of the expected
    scores in each sample. A row of the other side counts as often as it has ratings, and once more.
    """
    posterior = _posterior(state)
    shape, dtype = (ratings.n_users, posterior.size), state.P.dtype
    factors = np.zeros((*shape, posterior.k), dtype)
    bias, precision = np.zeros(shape, dtype), np.zeros(shape, dtype)
    projections = _projections(state, side)
    total, total_bias = np.zeros((shape[0], posterior.k)), np.zeros(shape[0])
    values = (ratings.values.astype(np.float64) - state.mean).astype(dtype)
    used, places = np.unique(ratings.indices, return_inverse=True)
    indices = readonly(places.astype(ratings.indices.dtype))
    compact = ratings.indptr, indices, readonly(values), ratings.weights
    for s in range(posterior.size):
        drawn, expected, precisions = _draw_sample(posterior, side, s, compact, used, dtype, engine)
        factors[:, s], bias[:, s], precision[:, s] = drawn.X[:, : posterior.k], drawn.bias, precisions
        total += expected.X[:, : posterior.k] @ projections[s]
        total_bias += expected.bias
    means = (total / posterior.size).astype(dtype), (total_bias / posterior.size).astype(dtype)
    return Drawn(factors, bias, precision, *means)


def _draw_sample(
    posterior: Posterior,
    side: int,
    s: int,
    ratings: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any] | None],
    used: NDArray[Any],
    dtype: np.dtype[Any],
    engine: ThreadEngine,
) -> tuple[Rows, Rows, NDArray[Any]]:
    """Draw rows in sample s; return them, their means and the precisions of their ratings.

    ``ratings`` are indptr, indices, values and weights of a CSR matrix, whose columns are the rows ``used``
    of the other side.
    """
    from mfkernel.kernels.gibbs import Noise, Stream
    from mfkernel.kernels.row_problem import RowProblem

    indptr, indices, values, weights = ratings
    count, k, sigma = indptr.size - 1, posterior.k, float(posterior.noise[s])
    other = SIDES[1 - side]
    Y, other_bias, others = (getattr(posterior, f"{other}_{part}")[used, s] for part in PER_ROW)
    Y, precisions = pad_rows(np.ascontiguousarray(Y)), start_precisions(count, dtype)
    precisions = precisions._replace(degrees=float(getattr(posterior, f"{SIDES[side]}_degrees")[s]))
    drawn = Rows(aligned_rows(count, k, dtype), np.zeros(count, dtype))
    expected = Rows(np.zeros_like(drawn.X), np.zeros_like(drawn.bias))
    prior, usual = prior_of(posterior, side, s), 1 / MAX_UNIT < sigma < MAX_UNIT
    for step in range(INNER_SWEEPS):  # rows and precisions, given each other
        noise = Noise(sigma, weights, readonly(precisions.values), readonly(np.ascontiguousarray(others)))
        stream = Stream(step, 0, s, side)
        for number in (dtype, np.dtype(np.float64)) if usual else (np.dtype(np.float64),):
            problem = RowProblem(
                *(indptr, indices, values, np.empty(values.size, dtype), readonly(Y)),
                *(readonly(other_bias.astype(number)), readonly(np.ones(count, number)), None),
            )
            failed, products, _ = draw_rows(
                problem, k, noise, prior, stream, drawn, engine, expected=expected
            )
            if not failed.any():
                break
        rng = np.random.Generator(np.random.Philox(key=step, counter=[0, 0, side, s]))
        squares, counts = products.ee, np.diff(indptr)
        precisions = draw_precisions(precisions, squares, counts, sigma, rng, draws_degrees=False)
    return drawn, expected, precisions.values


def _projections(state: State, side: int) -> NDArray[np.float64]:
    """Return (S, k, k) maps from factors of each sample to those of the model; computed once."""
    name = f"_projections_{side}"
    if name not in state.__dict__:
        samples = getattr(_posterior(state), f"{SIDES[1 - side]}_factors")
        Y = (state.Q.T if side == USERS else state.P).astype(np.float64)
        weights = np.ones(len(Y))
        if state.ratings is not None and state.ratings.shape == state.shape:
            weights += state.ratings.item_counts() if side == USERS else state.ratings.user_counts()
        weighted = Y * weights[:, None]
        products = np.einsum("nsk,nl->skl", samples, weighted, optimize=True)
        inverse = np.linalg.pinv(weighted.T @ Y, hermitian=True)
        state.__dict__[name] = readonly(products @ inverse)
    maps: NDArray[np.float64] = state.__dict__[name]
    return maps


def user_penalty(state: State) -> NDArray[np.float64]:
    """Return the noise variance times the prior precision of a user, in the factors of the model, (k, k)."""
    posterior, maps = _posterior(state), _projections(state, USERS)
    covariances = np.linalg.inv(posterior.user_prior_precision[:, :-1, :-1])
    covariance = np.einsum("sab,sac,scd->bd", maps, covariances, maps) / posterior.size
    return np.asarray(np.mean(posterior.noise**2) * np.linalg.pinv(covariance, hermitian=True))


def _posterior(state: State) -> Posterior:
    assert state.posterior is not None
    return state.posterior


def _biases(state: State) -> tuple[NDArray[Any], NDArray[Any]]:
    assert state.user_bias is not None
    assert state.item_bias is not None
    return state.user_bias, state.item_bias


def _with_drawn(state: State, side: int, rows: NDArray[Any], drawn: Drawn) -> State:
    """Return a state with some rows of one side replaced."""
    posterior = _with_rows(_posterior(state), side, rows, drawn)
    X, bias = (state.P, state.Q.T)[side].copy(), _biases(state)[side].copy()
    X[rows], bias[rows] = drawn.mean_factors, drawn.mean_bias
    if side == USERS:
        return replace(state, P=X, user_bias=bias, posterior=posterior)
    return replace(state, Q=X.T, item_bias=bias, posterior=posterior)


def _with_rows(posterior: Posterior, side: int, rows: NDArray[Any] | None, drawn: Drawn) -> Posterior:
    """Return samples with some rows of one side replaced, or for None all of them."""
    changed = {}
    for part in PER_ROW:
        name, array = f"{SIDES[side]}_{part}", getattr(drawn, part)
        if rows is not None:
            values, array = array, getattr(posterior, name).copy()
            array[rows] = values
        changed[name] = immutable(array)
    return replace(posterior, **changed)


def _grown(posterior: Posterior, shape: tuple[int, int]) -> Posterior:
    """Return samples with rows of zeros for new users and items."""
    changed = {}
    for side, size in zip(SIDES, shape, strict=True):
        for name in (f"{side}_{part}" for part in PER_ROW):
            changed[name] = immutable(add_zero_rows(getattr(posterior, name), size))
    return replace(posterior, **changed)
