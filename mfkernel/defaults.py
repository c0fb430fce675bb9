"""The settings of a fit, and how those that the user leaves open follow from the ratings.

All were chosen on ML-100K, ML-1M, ml-latest-small and generated sets of other scales and densities, as a
compromise between them; docs/architecture.md has the table and what it rests on. If R is multiplied by s,
then P and Q grow by √s, the step size must fall by s and λ rise by s: so each is a plain number times a scale
of the ratings.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.linalg.rows import aligned_rows
from mfkernel.objective import Settings, link
from mfkernel.ratings import Ratings

IMPLICIT_REG, ALS_NOISE = 0.01, 0.3
BIAS_RATE, BIAS_REG = 0.15, 0.02  # of the factors' rate in units of the ratings; per rating
CHUNK = 2**14  # rows of factors handled at once where NumPy would copy them all


def choose(wishes: Settings, ratings: Ratings, *, goes_on: bool = False) -> Settings:
    """Fill in what is left open; training that goes on from a model takes smaller steps."""
    if wishes.method != "sgd":
        return _choose_als(wishes, ratings)
    spread = ratings.std or abs(ratings.mean) or 1.0
    # the pull of a rating is about its residual under the squared loss; under the others it is of size 1
    pull = {"absolute": spread, "logistic": 1.0}.get(wishes.loss, 1.0)
    reg = wishes.regularization
    if reg is None:
        reg = (default_regularization(ratings, wishes) / pull,) * 2
    rate = wishes.learning_rate
    if rate is None:
        rate = default_learning_rate(ratings, wishes) * pull
        if wishes.loss == "absolute":  # the steps do not become smaller with the residuals
            rate /= 2
        if goes_on:
            rate *= 0.3
    bias_rate, bias_reg = wishes.bias_learning_rate, wishes.bias_regularization
    return wishes._replace(
        huber_delta=spread if wishes.huber_delta is None else wishes.huber_delta,
        learning_rate=rate,
        regularization=reg,
        bias_learning_rate=BIAS_RATE * rate * spread if bias_rate is None else bias_rate,
        bias_regularization=BIAS_REG / pull if bias_reg is None else bias_reg,
        adapts=wishes.regularization is None and wishes.loss == "squared",
    )


def _choose_als(wishes: Settings, ratings: Ratings) -> Settings:
    """Fill in what alternating least squares leave open; λ per row is λ per rating of an average row."""
    # what is all the same has no noise, but equations need some λ
    spread = ratings.std or 0.01 * abs(ratings.mean) or 1.0
    reg, bias_reg = min(0.13, 0.105 * _thinness(ratings)) * spread, BIAS_REG
    if wishes.implicit:
        reg = IMPLICIT_REG
    if not wishes.weighted:
        total = ratings.nnz if ratings.weights is None else float(ratings.weights.sum())
        average = total / math.sqrt(math.prod(ratings.shape))
        if wishes.implicit:
            average += wishes.unobserved_weight * math.sqrt(math.prod(ratings.shape))
        reg, bias_reg = reg * average, bias_reg * average
    return wishes._replace(
        regularization=wishes.regularization or (reg, reg),
        bias_regularization=bias_reg if wishes.bias_regularization is None else wishes.bias_regularization,
        adapts=wishes.regularization is None and not wishes.implicit,
    )


def default_learning_rate(ratings: Ratings, wishes: Settings) -> float:
    """Choose a first step size: 0.02 to 0.08 over the size of a typical residual, 0.1 if steps are adaptive.

    It is smaller where there are more ratings a row or column: while the factors grow out of the noise, each
    of a row's ratings in an epoch lengthens them, and beyond measure if steps are large. So it is in small
    tables of which much is known. Without biases it is smaller for a few ratings a row, too, whose noise
    large steps would learn by heart.

    A step moves the prediction by γe(‖p‖² + ‖q‖²), and without biases the factors carry the mean as well as
    what varies: ‖p‖² is at least about |mean|, so that a mean far from zero asks for smaller steps. So do
    outliers, and so do ratings of a weight beyond the average.
    """
    values = ratings.values
    farthest = max(float(values.max()) - ratings.mean, ratings.mean - float(values.min()))
    heaviest = 1.0 if ratings.weights is None else float(ratings.weights.max())
    thinness = _thinness(ratings)
    if wishes.decay == "adaptive":
        first = 0.1
    elif wishes.biases:
        unbounded = wishes.loss in ("squared", "huber")  # the pull of a rating, which lengthens factors
        first = min(0.04 if unbounded and long_epochs(ratings) else 0.08, 0.06 * thinness)
    else:
        first = min(0.06, 0.04 * math.sqrt(thinness), 0.006 * 30 / thinness**2)
    carried = 0.0 if wishes.biases else abs(ratings.mean) / 3
    return first / (max(ratings.std, carried, farthest / 10) or 1.0) / max(1.0, heaviest / 10)


def default_regularization(ratings: Ratings, wishes: Settings) -> float:
    """Choose λ: 0.07 standard deviations up to 30 ratings a row or column, with biases 0.08; less for more.

    λ is per rating, so that a row of n ratings is held by nλ; the more it has, the less of that it needs.
    This suits ratings with as much noise as people's; where the residuals fall below half a standard
    deviation, there is less noise, and λ falls with them.
    """
    most = 0.08 if wishes.biases else 0.07
    return most * ratings.std * min(1.0, _thinness(ratings))


def _thinness(ratings: Ratings) -> float:
    """Return √(30/d) of d ratings a row or column."""
    return math.sqrt(30 * sum(ratings.shape) / ratings.nnz)


def default_epochs(ratings: Ratings, wishes: Settings) -> int:
    """Choose the passes: 25, fewer on thin ratings, more where the mean makes the steps small.

    With a few ratings a row, each further pass learns them by heart.
    """
    if wishes.method != "sgd":
        return 15
    passes = 2.5 + 1.5 * ratings.nnz / sum(ratings.shape)
    if wishes.biases:
        return round(min(20.0, passes))
    passes = min(25.0, passes)
    smaller_steps = abs(ratings.mean) / (3 * ratings.std) if ratings.std > 0 else 1.0
    return round(passes * min(40.0, max(1.0, smaller_steps)))


def long_epochs(ratings: Ratings) -> int:
    """Return how many passes would fit a small table of which much is known; 0 if it is large or thin.

    Whether to fit it so closely depends on its noise, which only a trial shows.
    """
    m, n = ratings.shape
    much_is_known = ratings.nnz >= m * n / 10
    return min(1000, 300_000 // ratings.nnz) if much_is_known and ratings.nnz < 10_000 else 0


def start_factors(
    ratings: Ratings, k: int, dtype: np.dtype[Any], wishes: Settings, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Start where every prediction is about the mean: constant rows plus noise that breaks the symmetry.

    With biases, the mean is theirs, and the rows are noise alone. An ℓ₁ penalty draws to zero, at a rate that
    does not fall with them, whatever is too small to grow faster: so rows start farther from it.

    Returns
    -------
    tuple
        P (m, k) and Q (n, k), rows padded and aligned.
    """
    center = 0.0 if wishes.biases or wishes.implicit else link(ratings.mean, wishes.loss)
    level = math.sqrt(abs(center) / k)
    spread = 1.0 if wishes.loss == "logistic" else ratings.std or abs(ratings.mean) or 1.0
    noise = (0.007 if wishes.biases else 0.015) * math.sqrt(32 / k) * math.sqrt(spread)
    if wishes.method != "sgd":
        noise = ALS_NOISE / math.sqrt(k) * (1.0 if wishes.implicit else math.sqrt(spread))
    noise = max(noise, min(40 * max(wishes.l1) / spread, math.sqrt(spread) / 2) - level)
    rows = []
    for n_rows, mean in ((ratings.n_users, level), (ratings.n_items, math.copysign(level, center))):
        X = aligned_rows(n_rows, k, dtype)
        for start in range(0, n_rows, CHUNK):
            part = X[start : start + CHUNK, :k]
            part[:] = rng.standard_normal(part.shape, dtype=dtype)
            part *= dtype.type(noise)
            part += dtype.type(mean)
            if wishes.nonnegative:
                np.abs(part, out=part)
        rows.append(X)
    return rows[0], rows[1]
