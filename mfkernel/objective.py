"""What is minimized, and what its scores predict."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.ratings import Ratings

LOSSES = ("squared", "absolute", "huber", "logistic")

Pair = tuple[float, float]


class Settings(NamedTuple):
    """What is minimized, and by which steps; None is left to the ratings.

    Attributes
    ----------
    biases
        whether the prediction is μ + b_u + b_i + p·q, or p·q alone.
    loss, huber_delta
        one of ``LOSSES``, and the |e| where Huber's becomes linear.
    learning_rate, decay
        γ of the first epoch, and the name of its decay.
    regularization, l1
        λ and λ₁ of P and of Q.
    bias_learning_rate, bias_regularization
        the same for b_u and b_i.
    nonnegative
        whether P and Q stay ≥ 0.
    adapts
        whether λ falls with the residuals once they are small.
    """

    biases: bool = False
    loss: str = "squared"
    huber_delta: float | None = None
    learning_rate: float | None = None
    decay: str = "cosine"
    regularization: Pair | None = None
    bias_learning_rate: float | None = None
    bias_regularization: float | None = None
    l1: Pair = (0.0, 0.0)
    nonnegative: bool = False
    adapts: bool = False


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


def targets(ratings: Ratings, loss: str) -> Ratings:
    """Return the ratings as the loss takes them: 0 and 1 for the logistic one, of which -1 becomes 0."""
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
