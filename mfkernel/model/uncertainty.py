"""Standard deviations and intervals of predictions, from the samples of a Bayesian model."""

import statistics
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.methods.posterior import Posterior
from mfkernel.model.predict import NUMBERS_PER_BLOCK, predict
from mfkernel.model.state import State
from mfkernel.typing import Unknown

INTERVAL = 0.9  # default probability of an interval


class Prediction(NamedTuple):
    """Predictions and how sure they are; all arrays have the same shape.

    Attributes
    ----------
    mean
        The predictions, as without standard deviations.
    std
        Standard deviation of the expected rating: how little the ratings tell about it.
    noise
        Standard deviation of a rating around the expected one: how far a rating may lie even so.
    lower, upper
        Bounds between which a rating lies with the probability of the interval.
    """

    mean: NDArray[Any]
    std: NDArray[Any]
    noise: NDArray[Any]
    lower: NDArray[Any]
    upper: NDArray[Any]


def samples_of(state: State, name: str, value: object) -> Posterior:
    """Return the samples of a model; ``name`` and ``value`` are the argument that needs them."""
    if state.posterior is None:
        raise ValueError(
            f"{name} must be left out if the model has no samples, got {name}={value!r}; fit with "
            "method='bayesian'"
        )
    return state.posterior


def predict_with_uncertainty(
    state: State, users: Any, items: Any, unknown: Unknown, interval: float | None, limits: Any
) -> Prediction:
    """Predict ratings, with their uncertainty; see :meth:`Factors.predict`."""
    share = INTERVAL if interval is None else checks.real("interval", interval, positive=True)
    if share >= 1:
        raise ValueError(f"interval must be a probability below 1, got {share:g}")
    mean = np.asarray(predict(state, users, items, unknown))
    rows, columns = np.broadcast_arrays(
        state.rows(users, unknown=unknown), state.columns(items, unknown=unknown)
    )
    posterior = samples_of(state, "return_std", True)
    variances = rating_variances(posterior, rows.ravel(), columns.ravel())
    std, noise = (np.sqrt(x).reshape(mean.shape).astype(mean.dtype) for x in variances)
    half = statistics.NormalDist().inv_cdf((1 + share) / 2) * np.hypot(std, noise)
    bounds = mean, mean - half, mean + half
    if limits is not None:
        bounds = tuple(np.clip(x, *limits) for x in bounds)
    return Prediction(bounds[0][()], std[()], noise[()], bounds[1][()], bounds[2][()])


def rating_variances(
    posterior: Posterior, users: NDArray[Any], items: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variance of the scores of pairs of rows and columns, and that of ratings around them.

    Numbers beyond the last row or column are new users or items, which are as uncertain as their prior.
    """
    variance, noise = np.empty(users.size), np.empty(users.size)
    step = max(1, NUMBERS_PER_BLOCK // (posterior.size * posterior.k))
    m, n = len(posterior.user_bias), len(posterior.item_bias)
    has_new = users.size > 0 and (users.max() >= m or items.max() >= n)
    priors = _covariances(posterior) if has_new else None  # only new rows need the means and inverses of all
    precisions = posterior.user_precision, posterior.item_precision
    usual = [_mean_inverse(x) if has_new else None for x in precisions]
    for start in range(0, users.size, step):
        part = slice(start, start + step)
        variance[part] = _variance(posterior, users[part], items[part], priors)
        of_user = _inverse_precisions(precisions[0], users[part], usual[0])
        of_item = _inverse_precisions(precisions[1], items[part], usual[1])
        noise[part] = np.mean(posterior.noise**2 * of_user * of_item, axis=1)
    return variance, noise


def _mean_inverse(precision: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean inverse precision of all rows in each sample, (S,)."""
    inverse = 1 / precision.astype(np.float64)
    return np.asarray(inverse.mean(axis=0)) if len(inverse) else np.ones(precision.shape[1])


def _inverse_precisions(
    precision: NDArray[Any], rows: NDArray[Any], usual: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the inverse precisions of some rows, (n, S); new rows have the ``usual`` ones."""
    if usual is None:
        return np.asarray(1 / precision[rows].astype(np.float64))
    new = rows >= len(precision)
    result = np.empty((rows.size, precision.shape[1]))
    result[~new], result[new] = 1 / precision[rows[~new]].astype(np.float64), usual
    return result


Covariances = tuple[NDArray[Any], NDArray[Any]]


def _covariances(posterior: Posterior) -> Covariances:
    """Return the covariances of a new user and of a new item in each sample, (S, k + 1, k + 1)."""
    return np.linalg.inv(posterior.user_prior_precision), np.linalg.inv(posterior.item_prior_precision)


def _variance(
    posterior: Posterior, users: NDArray[Any], items: NDArray[Any], priors: Covariances | None
) -> NDArray[np.float64]:
    P, user_bias, new_user = _rows(
        posterior.user_factors, posterior.user_bias, posterior.user_prior_mean, users
    )
    Q, item_bias, new_item = _rows(
        posterior.item_factors, posterior.item_bias, posterior.item_prior_mean, items
    )
    scores = np.einsum("nsk,nsk->ns", P, Q, dtype=np.float64) + user_bias + item_bias
    variance = scores.var(axis=1, ddof=min(1, posterior.size - 1))
    if priors is None:
        return np.asarray(variance)
    # a new row adds the variance of its prior to each sample
    for new, other, covariance in ((new_user, Q, priors[0]), (new_item, P, priors[1])):
        if new.any():
            factors, bias = covariance[:, :-1, :-1], covariance[:, -1, -1]
            Y = other[new].astype(np.float64)
            within = np.einsum("nsk,skl,nsl->ns", Y, factors, Y) + bias
            variance[new] += within.mean(axis=1)
    both = new_user & new_item
    variance[both] += np.einsum("skl,slk->s", priors[0][:, :-1, :-1], priors[1][:, :-1, :-1]).mean()
    return np.asarray(variance)


def _rows(
    factors: NDArray[Any], bias: NDArray[Any], prior_mean: NDArray[np.float64], rows: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_]]:
    """Return factors (n, S, k) and biases (n, S) of some rows, and which rows are new."""
    new = rows >= len(factors)
    if len(factors):
        known = np.where(new, 0, rows)
        X, b = factors[known], bias[known].astype(np.float64)
    else:
        X, b = np.zeros((rows.size, *factors.shape[1:]), factors.dtype), np.zeros((rows.size, bias.shape[1]))
    if new.any():
        X[new], b[new] = prior_mean[:, :-1], prior_mean[:, -1]
    return X, b, new
