"""Losses: the targets that are fitted, and the predictions of scores."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings
from mfkernel.options import Settings


def link(mean: float, loss: str) -> float:
    """Return the score that predicts ``mean``: itself, or the log-odds of a probability."""
    if loss != "logistic":
        return mean
    share = min(max(mean, 1e-3), 1 - 1e-3)  # all of one kind would ask for infinite odds
    return math.log(share / (1 - share))


def prediction(score: NDArray[Any], loss: str) -> NDArray[Any]:
    """Return what a score predicts: itself, or under the logistic loss the probability of a 1."""
    if loss != "logistic":
        return score
    return np.asarray(0.5 * (1 + np.tanh(0.5 * score)))  # 1 / (1 + exp(-z)) would overflow


def penalty_scale(settings: Settings, rows: Ratings) -> NDArray[np.float64]:
    """Return what the penalties of each row are multiplied by.

    Σ w of its ratings if λ is per rating, as it is under SGD; else 1. For implicit feedback, every item
    also counts as a rating of weight w₀: Rendle, Krichene, Zhang and Koren, "Revisiting the performance of
    iALS on item recommendation benchmarks", 2021.
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
    """Return what the scores of ratings are compared with: themselves, or a 1 for each implicit feedback."""
    return np.ones_like(ratings.values) if settings.implicit else ratings.values


def encode_targets(ratings: Ratings, settings: Settings) -> Ratings:
    """Return the ratings as they are fitted: 0 and 1 for the logistic loss, of which -1 becomes 0.

    Strengths of implicit feedback stay as they are, but must not be negative, nor have other weights.
    """
    loss = settings.loss
    if settings.implicit and ratings.weights is not None:
        raise ValueError("R must have no sample_weight with method='implicit'; its strengths are weights")
    if settings.implicit and (ratings.values < 0).any():
        bad = int((ratings.values < 0).argmax())
        raise ValueError(
            f"method='implicit' needs strengths of feedback, zero or positive, but R[{ratings.users[bad]}, "
            f"{ratings.indices[bad]}] is {ratings.values[bad]:g}; leave dislikes out, or take method='als'"
        )
    if loss != "logistic":
        return ratings
    values = ratings.values
    lowest = -1 if values.size and values.min() < 0 else 0
    if ((values == lowest) | (values == 1)).all():
        return ratings.with_values((values > 0).astype(values.dtype), ratings.weights) if lowest else ratings
    bad = int(((values != lowest) & (values != 1)).argmax())
    raise ValueError(
        f"loss='logistic' needs ratings of -1 and 1, or 0 and 1, but R[{ratings.users[bad]}, "
        f"{ratings.indices[bad]}] is {values[bad]:g}"
    )
