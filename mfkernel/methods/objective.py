"""Losses: encode targets, and convert scores to predictions."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings
from mfkernel.options import Settings

MIN_PROBABILITY = 1e-3  # least mean under the logistic loss: the log-odds of 0 would be infinite


def link(mean: float, loss: str) -> float:
    """Return the score that predicts ``mean``: itself, or the log-odds of a probability."""
    if loss != "logistic":
        return mean
    share = min(max(mean, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    return math.log(share / (1 - share))


def prediction(score: NDArray[Any], loss: str) -> NDArray[Any]:
    """Return the prediction of a score: itself, or for the logistic loss the probability of 1."""
    if loss != "logistic":
        return score
    return np.asarray(0.5 * (1 + np.tanh(0.5 * score)))  # 1 / (1 + exp(-z)) would overflow


def penalty_scale(settings: Settings, rows: Ratings) -> NDArray[np.float64]:
    """Return the factor of the penalties of each row, (m,).

    It is 1 if λ is per row. If λ is per rating, as always for SGD, it is the sum of the weights of the row's
    ratings. For implicit feedback, every item also counts as a rating of weight w₀: Rendle, Krichene, Zhang
    and Koren, "Revisiting the performance of iALS on item recommendation benchmarks", 2021.
    """
    counts = rows.user_counts().astype(np.float64)
    if not settings.is_per_rating:
        return np.ones_like(counts)
    if settings.implicit:
        return counts + settings.unobserved_weight * rows.n_items
    if rows.weights is None:
        return counts
    return np.bincount(rows.users, rows.weights, rows.n_users).astype(np.float64)


def expected_scores(ratings: Ratings, settings: Settings) -> NDArray[Any]:
    """Return the values that scores should equal: ratings, or for implicit feedback 1, and 0 for dislikes."""
    return (ratings.values >= 0).astype(ratings.dtype) if settings.implicit else ratings.values


def encode_targets(ratings: Ratings, settings: Settings) -> Ratings:
    """Return the ratings as the loss needs them.

    Weights of implicit feedback multiply its strengths; for the logistic loss, -1 becomes 0.

    Raises
    ------
    ValueError
        If ratings for the logistic loss are not of two kinds.
    """
    loss, weights = settings.loss, ratings.weights
    if settings.implicit and weights is not None:
        return ratings.with_values(ratings.values * weights).select(weights > 0)
    if loss != "logistic":
        return ratings
    values = ratings.values
    lowest = -1 if values.size and values.min() < 0 else 0
    if ((values == lowest) | (values == 1)).all():
        return ratings.with_values((values > 0).astype(values.dtype), ratings.weights) if lowest else ratings
    bad = int(((values != lowest) & (values != 1)).argmax())
    raise ValueError(
        f"R must hold -1 and 1, or 0 and 1, with loss='logistic', got R[{ratings.users[bad]}, "
        f"{ratings.indices[bad]}] = {values[bad]:g}"
    )
