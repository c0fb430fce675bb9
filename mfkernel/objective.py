"""What is minimized, and what its scores predict."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel import _checks
from mfkernel.convert import MISSING
from mfkernel.ratings import Ratings

METHODS = ("sgd", "als", "implicit")
SOLVERS = ("cholesky", "cg", "subspace")
LOSSES = ("squared", "absolute", "huber", "logistic")
DECAYS = ("constant", "inverse-time", "linear", "cosine", "adaptive")

Pair = tuple[float, float]


class Settings(NamedTuple):
    """What is minimized, and by which steps; None is left to the ratings.

    Attributes
    ----------
    method
        "sgd", "als" or "implicit".
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
    weighted
        of ALS, whether λ is per rating, as it is for SGD, or per row.
    solver
        of ALS, one of ``ridge.SOLVERS``.
    alpha, unobserved_weight
        of implicit feedback, what a strength and a cell without one weigh.
    missing
        "zero" or "nan": what is unknown in a dense table, as ``factorize`` was told.
    """

    method: str = "sgd"
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
    weighted: bool = False
    solver: str | None = None
    alpha: float = 1.0
    unobserved_weight: float = 1.0
    missing: str = "zero"

    @property
    def implicit(self) -> bool:
        """Whether ratings are strengths of feedback, and all cells without one count as zeros."""
        return self.method == "implicit"


def check_settings(settings: Settings) -> Settings:
    """Return settings that some fit can have had.

    Raises
    ------
    TypeError, ValueError
        For the first that is not.
    """
    for name, allowed in (
        ("method", METHODS),
        ("loss", LOSSES),
        ("decay", DECAYS),
        ("missing", MISSING),
        ("solver", (None, *SOLVERS)),
    ):
        value = getattr(settings, name)
        if value is not None or None not in allowed:
            _checks.one_of(f"settings.{name}", value, [x for x in allowed if x is not None])
    numbers = {
        "huber_delta": True,
        "learning_rate": True,
        "bias_learning_rate": True,
        "bias_regularization": False,
    }
    numbers |= {"alpha": False, "unobserved_weight": False}
    changes: dict[str, Any] = {
        name: _checks.optional(f"settings.{name}", getattr(settings, name), positive=positive)
        for name, positive in numbers.items()
    }
    for name in ("biases", "nonnegative", "adapts", "weighted"):
        changes[name] = _checks.boolean(f"settings.{name}", getattr(settings, name))
    for name in ("regularization", "l1"):
        value = getattr(settings, name)
        changes[name] = value if value is None else _checks.pair(f"settings.{name}", value)
    settings = settings._replace(**changes)
    if settings.l1 is None or settings.alpha is None or settings.unobserved_weight is None:
        raise ValueError("settings.l1, alpha and unobserved_weight must be numbers, got None")
    if settings.method != "sgd" and settings.loss != "squared":
        raise ValueError(
            f"settings.loss must be 'squared' for method={settings.method!r}, got {settings.loss!r}"
        )
    if settings.method != "sgd" and (any(settings.l1) or settings.learning_rate or settings.huber_delta):
        raise ValueError(
            f"settings of method={settings.method!r} must have no l1, learning_rate or huber_delta"
        )
    if settings.decay == "adaptive" and (
        settings.nonnegative or any(settings.l1) or settings.method != "sgd"
    ):
        raise ValueError("settings.decay must be another than 'adaptive' with these settings")
    if settings.implicit and (settings.biases or settings.unobserved_weight > 1):
        raise ValueError(
            "settings of method='implicit' must have no biases, and an unobserved_weight up to 1"
        )
    return settings


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


def is_per_rating(settings: Settings) -> bool:
    """Whether λ counts once per rating of a row, not once per row."""
    return settings.method == "sgd" or settings.weighted


def penalty_scale(settings: Settings, rows: Ratings) -> NDArray[np.float64]:
    """Return what the penalties of each row are multiplied by.

    Σ w of its ratings if λ is per rating, as it is under SGD; else 1. Of implicit feedback, every item counts
    as a rating of weight w₀, too: Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on
    item recommendation benchmarks", 2021.
    """
    counts = rows.user_counts().astype(np.float64)
    if not is_per_rating(settings):
        return np.ones_like(counts)
    if settings.implicit:
        return counts + settings.unobserved_weight * rows.n_items
    if rows.weights is None:
        return counts
    return np.bincount(rows.users, rows.weights, rows.n_users).astype(np.float64)


def responses(ratings: Ratings, settings: Settings) -> NDArray[Any]:
    """Return what the scores of ratings are compared with: themselves, or a 1 for each implicit feedback."""
    return np.ones_like(ratings.values) if settings.implicit else ratings.values


def targets(ratings: Ratings, settings: Settings) -> Ratings:
    """Return the ratings as they are fitted: 0 and 1 for the logistic loss, of which -1 becomes 0.

    Strengths of implicit feedback stay as they are, but must not be negative, nor have other weights.
    """
    loss = settings.loss
    if settings.implicit and ratings.weights is not None:
        raise ValueError("R has weights, which do not go with method='implicit': strengths are its weights")
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
