"""Explanations of predictions by the user's ratings."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.frames import Framed
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import Penalty, solve_rows
from mfkernel.methods.objective import penalty_scale, prediction
from mfkernel.model.foldin import fold_in, make_penalty, usable_ratings
from mfkernel.model.sampled import user_penalty
from mfkernel.model.state import State

Vector = NDArray[np.float64]

MAX_RATINGS_RESOLVED = 10  # ratings: of so few, each influences the factors too much for a linear estimate
MAX_LEVERAGE = 0.2  # leverage of a rating, above which one step of Newton's method is inaccurate
MIN_REMAINDER = 1e-9  # least value of 1 - leverage, by which effects are divided


class _Parts(NamedTuple):
    score: float
    mean: float
    user_bias: float
    item_bias: float
    items: NDArray[Any]
    contributions: Vector
    rest: float


class Explanation(_Parts, Framed):
    """The parts of a prediction: score = mean + user_bias + item_bias + Σ contributions + rest.

    A frame of it has one row per listed rating, with the columns ``item`` and ``contribution``.

    Attributes
    ----------
    score
        The prediction; for the logistic loss, its log-odds.
    mean
        Mean rating μ; 0 without biases.
    user_bias, item_bias
        Biases b_u and b_i; 0 without biases.
    items
        (n,) ids of rated items, or column numbers without ids, by decreasing size of their contribution.
    contributions
        (n,) part of the score that each of these ratings contributes.
    rest
        Contributions of the user's other ratings, plus the part of the trained factors that ratings do not
        explain.
    """

    def _frame_columns(self) -> dict[str, NDArray[Any]]:
        return {"item": self.items, "contribution": self.contributions}


def explain(state: State, user: int, item: int, n: int) -> Explanation:
    """Explain the prediction for a user and an item; see :meth:`Factors.explain`.

    Raises
    ------
    ValueError
        If the model does not have its training ratings.
    """
    if state.ratings is None:
        raise ValueError(
            "the model must have its training ratings for explain, got none; save it with ratings=True"
        )
    row = state.ratings.take_rows(np.array([user]))
    if state.user_bias is None and not (state.implicit or state.known_items[item]):
        parts = np.zeros(row.nnz)  # the prediction is the mean
    elif state.settings.loss == "squared":
        parts = _shares(state, user, item, row)
    else:
        parts = _effects(state, item, row)
    mean = user_bias = item_bias = 0.0
    if state.user_bias is not None and state.item_bias is not None:
        mean, user_bias, item_bias = state.mean, float(state.user_bias[user]), float(state.item_bias[item])
    X, Y = state.user_vectors([user], state.has_gaps), state.item_vectors([item], state.has_gaps)
    score = float(X[0].astype(np.float64) @ Y[0])
    largest = np.argsort(-np.abs(parts), kind="stable")[:n]
    rest = score - mean - user_bias - item_bias - float(parts[largest].sum())
    listed = row.indices[largest]
    items = listed if state.items is None else state.items.take(listed)
    return Explanation(score, mean, user_bias, item_bias, items, parts[largest], rest)


def _item_gram(state: State) -> Vector:
    with ThreadEngine(1) as engine:
        return state.item_gram(engine)[: state.k, : state.k]


def _shares(state: State, user: int, item: int, row: Ratings) -> Vector:
    """Return the contribution of each rating to p·q for the least squares p, given the biases."""
    residuals = row.values.astype(np.float64)
    weights = _weights(row)
    if state.posterior is not None:
        penalty, A = Penalty(0.0), user_penalty(state)
    else:
        penalty = make_penalty(state, 0)
        A = penalty.reg * penalty_scale(state.settings, row)[0] * np.eye(state.k)
    if state.implicit is not None:
        confidence = 1 + state.implicit.alpha * np.abs(residuals)
        weights = confidence - state.implicit.unobserved_weight
        gradients = confidence * (residuals >= 0)
        A += state.implicit.unobserved_weight * _item_gram(state)
    else:
        if state.user_bias is not None and state.item_bias is not None:
            residuals -= state.mean + float(state.user_bias[user]) + state.item_bias[row.indices]
        gradients = weights * residuals
    Y, q = state.Q.T[row.indices].astype(np.float64), state.Q[:, item].astype(np.float64)
    A += (Y.T * weights) @ Y
    if penalty.l1 or penalty.nonnegative:  # coordinates at zero contribute nothing
        free = state.P[user] != 0
        A, Y, q = A[np.ix_(free, free)], Y[:, free], q[free]
    regularized = penalty.reg > 0 or state.implicit is not None or state.posterior is not None
    solution = np.linalg.solve(A, q) if regularized else np.linalg.lstsq(A, q, rcond=None)[0]
    return np.asarray((Y @ solution) * gradients)


def _effects(state: State, item: int, row: Ratings) -> Vector:
    r"""Return the amount by which the score of an item would fall without each rating.

    For few or influential ratings, and for the absolute loss, the user is solved without the rating. For
    others, the amount is of first order. At the user's optimum θ, the gradient
    :math:`-\sum w_j g_j y_j + c \Lambda \theta` is zero. Without rating j, a step of Newton's method moves
    θ by :math:`-H_j^{-1} w_j (g_j y_j - \Lambda \theta)`, where :math:`H_j` is the Hessian without it.
    The last term only applies to penalties per rating. θ holds the factors and the bias. Coordinates that an
    L1 penalty or a bound keeps at zero stay zero.
    """
    usable = usable_ratings(state, row, state.known_items)
    # the absolute loss has no curvature to go by
    if usable.nnz <= MAX_RATINGS_RESOLVED or state.settings.loss == "absolute":
        effects, strong = np.zeros(usable.nnz), np.arange(usable.nnz)
    else:
        effects, leverage = _first_order(state, item, usable)
        strong = np.flatnonzero(leverage > MAX_LEVERAGE)
    if strong.size:
        others = np.ones((strong.size, usable.nnz), np.bool_)
        others[np.arange(strong.size), strong] = False
        rows = usable.take_rows(np.zeros(strong.size + 1, np.intp))  # the last row stays complete
        rows = rows.select(np.append(others, np.ones(usable.nnz, np.bool_)))
        with ThreadEngine(1) as engine:
            found = fold_in(state, rows, engine)
        scores = found.scores(np.arange(strong.size + 1), np.full(strong.size + 1, item)).astype(np.float64)
        effects[strong] = scores[-1] - scores[:-1]
    result = np.zeros(row.nnz)
    result[np.isin(row.indices, usable.indices)] = effects
    return result


def _first_order(state: State, item: int, known: Ratings) -> tuple[Vector, Vector]:
    """Return the effects by one step of Newton's method, and the leverage of each rating."""
    settings, biased = state.settings, state.user_bias is not None
    Y = state.Q.T[known.indices].astype(np.float64)
    base = np.zeros(known.nnz)
    if state.item_bias is not None:
        base += state.mean + state.item_bias[known.indices].astype(np.float64)
    weights, r = _weights(known), known.values.astype(np.float64)
    penalty, scale = make_penalty(state, 0), penalty_scale(settings, known)
    delta = settings.huber_delta or 1.0
    with ThreadEngine(1) as engine:
        X, bias = solve_rows(
            known.indptr,
            np.arange(known.nnz),
            r,
            Y,
            base,
            scale,
            penalty,
            engine,
            weights=weights,
            biased=biased,
            loss=settings.loss,
            huber_delta=delta,
        )
    z = base + Y @ X[0] + bias[0]
    if settings.loss == "logistic":
        probability = prediction(z, "logistic")
        gradient, curvature = r - probability, probability * (1 - probability)
    else:
        gradient = np.clip(r - z, -delta, delta)
        curvature = (np.abs(r - z) < delta).astype(np.float64)
    free = np.append((X[0] != 0) | (not (penalty.l1 or penalty.nonnegative)), biased)
    vectors = np.column_stack([Y, np.ones(known.nnz)])[:, free]
    theta = np.append(X[0], bias[0])[free]
    asked = np.append(state.Q[:, item].astype(np.float64), 1.0)[free]
    ridge = np.append(np.full(state.k, penalty.reg), penalty.bias_reg)[free]
    slope = ridge * theta + np.append(penalty.l1 * np.sign(X[0]), 0.0)[free]
    hessian = (vectors.T * (weights * curvature)) @ vectors + scale[0] * np.diag(ridge)
    inverse = np.linalg.pinv(hessian, hermitian=True)
    gradients = weights[:, None] * (gradient[:, None] * vectors - slope * settings.is_per_rating)
    to_item, to_ratings = inverse @ asked, vectors @ inverse
    leverage = weights * curvature * np.einsum("nf,nf->n", to_ratings, vectors)
    again = weights * curvature * (vectors @ to_item) * np.einsum("nf,nf->n", to_ratings, gradients)
    return gradients @ to_item + again / np.maximum(1 - leverage, MIN_REMAINDER), leverage


def _weights(row: Ratings) -> Vector:
    return np.ones(row.nnz) if row.weights is None else row.weights.astype(np.float64)
