"""Draws from the posterior of a Bayesian model, which tell how sure its predictions are."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import immutable
from mfkernel.linalg.gibbs import Precisions, Prior, Rows

SIDES = ("user", "item")
PER_ROW = ("factors", "bias", "precision")  # parts of a side with one entry per row


class SideDraw(NamedTuple):
    """A draw of one side: its rows, their prior and the precisions of their ratings."""

    rows: Rows
    prior: Prior
    precisions: Precisions


@dataclass(frozen=True, eq=False, init=False)
class Posterior:
    """S draws of all that a Bayesian model has learned.

    In draw s, a rating is normal with the mean μ + b_u + b_i + p·q and the variance
    noise² / (user_precision · item_precision). Rows have a normal prior, whose last coordinate is the bias.
    The arrays are read-only.

    Parameters
    ----------
    **arrays
        All arrays, by name.

    Attributes
    ----------
    user_factors, item_factors
        (m, S, k) and (n, S, k).
    user_bias, item_bias
        (m, S) and (n, S).
    user_precision, item_precision
        (m, S) and (n, S) precisions of the ratings of each row, relative to all.
    noise
        (S,) standard deviation of a rating where both precisions are 1.
    user_prior_mean, item_prior_mean
        (S, k + 1) means of the priors.
    user_prior_precision, item_prior_precision
        (S, k + 1, k + 1) inverse covariances of the priors.
    user_degrees, item_degrees
        (S,) degrees of freedom of the priors of precisions, of which 2/ν is the variance.
    """

    user_factors: NDArray[Any]
    item_factors: NDArray[Any]
    user_bias: NDArray[Any]
    item_bias: NDArray[Any]
    user_precision: NDArray[Any]
    item_precision: NDArray[Any]
    noise: NDArray[np.float64]
    user_prior_mean: NDArray[np.float64]
    item_prior_mean: NDArray[np.float64]
    user_prior_precision: NDArray[np.float64]
    item_prior_precision: NDArray[np.float64]
    user_degrees: NDArray[np.float64]
    item_degrees: NDArray[np.float64]

    def __init__(self, **arrays: NDArray[Any]) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, arrays.pop(field.name))
        if arrays:
            raise TypeError(f"Posterior has no arrays {', '.join(arrays)}")

    @property
    def size(self) -> int:
        """Number of draws S."""
        return int(self.noise.size)

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.user_factors.shape[2])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


_PER_ROW = tuple(f"{side}_{part}" for side in SIDES for part in PER_ROW)


def empty_posterior(shape: tuple[int, int], k: int, size: int, dtype: np.dtype[Any]) -> Posterior:
    """Make arrays of ``size`` draws, to be filled."""
    arrays: dict[str, Any] = {"noise": np.zeros(size)}
    for side, n_rows in zip(SIDES, shape, strict=True):
        arrays |= {
            f"{side}_factors": np.zeros((n_rows, size, k), dtype),
            f"{side}_bias": np.zeros((n_rows, size), dtype),
            f"{side}_precision": np.zeros((n_rows, size), dtype),
            f"{side}_prior_mean": np.zeros((size, k + 1)),
            f"{side}_prior_precision": np.zeros((size, k + 1, k + 1)),
            f"{side}_degrees": np.zeros(size),
        }
    return Posterior(**arrays)


def fill_draw(posterior: Posterior, s: int, sides: tuple[SideDraw, SideDraw], sigma: float) -> None:
    """Write draw s of users and items, and of the noise."""
    posterior.noise[s] = sigma
    for name, (rows, prior, precisions) in zip(SIDES, sides, strict=True):
        mean, precision = np.append(prior.mean, prior.bias_mean), np.zeros((posterior.k + 1, posterior.k + 1))
        precision[:-1, :-1], precision[-1, -1] = prior.precision, prior.bias_precision
        values = {
            "factors": rows.X[:, : posterior.k],
            "bias": rows.bias,
            "precision": precisions.values,
        }
        for part, value in values.items():
            getattr(posterior, f"{name}_{part}")[:, s] = value
        once: dict[str, Any] = {
            "prior_mean": mean,
            "prior_precision": precision,
            "degrees": precisions.degrees,
        }
        for part, value in once.items():
            getattr(posterior, f"{name}_{part}")[s] = value


def first_draws(posterior: Posterior, count: int) -> Posterior:
    """Return the first draws, whose arrays may be views."""
    cut = {
        name: array[:, :count] if name in _PER_ROW else array[:count]
        for name, array in posterior.arrays().items()
    }
    return replace(posterior, **cut)


def scale_draws(posterior: Posterior, scale: float) -> Posterior:
    """Return the draws for ratings that are ``scale`` times as large, as read-only arrays."""
    root, arrays = np.sqrt(scale), posterior.arrays()
    units = np.append(np.full(posterior.k, root), scale)
    factors: dict[str, Any] = {"noise": scale}
    for side in SIDES:
        factors |= {f"{side}_factors": root, f"{side}_bias": scale, f"{side}_prior_mean": units}
        factors[f"{side}_prior_precision"] = 1 / np.outer(units, units)
    for name, array in arrays.items():
        if scale != 1 and name in factors:
            array = array * np.asarray(factors[name], array.dtype)
        arrays[name] = immutable(np.ascontiguousarray(array))
    return Posterior(**arrays)


def checked_posterior(posterior: Posterior, shape: tuple[int, int], dtype: np.dtype[Any]) -> Posterior:
    """Return the samples of a file as read-only arrays; refuse shapes and values that do not fit.

    Raises
    ------
    ValueError
        If an array has another shape or dtype, or numbers that are not finite.
    """
    expected = empty_posterior((0, 0), posterior.user_factors.shape[-1], posterior.noise.size, dtype)
    for name, array in expected.arrays().items():
        given = getattr(posterior, name)
        rows = {"user": shape[0], "item": shape[1]}[name[:4]] if name in _PER_ROW else len(array)
        wanted = (rows, *array.shape[1:])
        if given.shape != wanted or given.dtype != array.dtype or not np.isfinite(given).all():
            raise ValueError(
                f"posterior {name} must be finite, {array.dtype} and of the shape {wanted}, got "
                f"{given.dtype} of the shape {given.shape}"
            )
    if posterior.size == 0 or not (posterior.noise > 0).all():
        raise ValueError("posterior noise must be positive")
    return scale_draws(posterior, 1.0)


def prior_of(posterior: Posterior, side: int, s: int) -> Prior:
    """Return the prior of the users (side 0) or the items (side 1) in draw s."""
    mean = getattr(posterior, f"{SIDES[side]}_prior_mean")[s]
    precision = getattr(posterior, f"{SIDES[side]}_prior_precision")[s]
    return Prior(mean[:-1], precision[:-1, :-1], float(mean[-1]), float(precision[-1, -1]))
