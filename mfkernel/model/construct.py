"""Checks of the arguments that make a model's state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel._support import checks
from mfkernel.data.convert import MISSING
from mfkernel.data.ids import Vocabulary
from mfkernel.data.origin import NO_FRAME, Origin
from mfkernel.data.ratings import Ratings
from mfkernel.methods.objective import encode_targets
from mfkernel.methods.posterior import Posterior, checked_posterior
from mfkernel.model.history import Epoch
from mfkernel.model.state import State
from mfkernel.options import Settings
from mfkernel.typing import Missing


def checked_state(
    P: ArrayLike,
    Q: ArrayLike,
    *,
    mean: float,
    settings: Settings,
    missing: Missing,
    history: Sequence[Epoch],
    stop_reason: str,
    user_bias: ArrayLike | None = None,
    item_bias: ArrayLike | None = None,
    known_users: ArrayLike | None = None,
    known_items: ArrayLike | None = None,
    ratings: Ratings | None = None,
    user_ids: Any = None,
    item_ids: Any = None,
    posterior: Posterior | None = None,
    origin: Origin | None = None,
    copy: bool = True,
) -> State:
    """Copy and check the arguments of :class:`Factors`, and return them as a state.

    With ``copy=False``, arrays are not copied; the caller must not keep them.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid. The message names the value.
    """
    P, Q = _own("P", P, copy), _own("Q", Q, copy)
    if not (P.ndim == Q.ndim == 2 and P.shape[1] == Q.shape[0] > 0):
        raise ValueError(f"P must be (m, k) and Q (k, n), got {P.shape} and {Q.shape}")
    dtype, (m, n) = np.result_type(P, Q), (P.shape[0], Q.shape[1])
    for name, thing, kind in (("ratings", ratings, Ratings), ("settings", settings, Settings)):
        if not (isinstance(thing, kind) or (thing is None and kind is Ratings)):
            raise TypeError(f"{name} must be mf.{kind.__name__}, got {type(thing).__name__}")
    if not all(isinstance(record, Epoch) for record in history):
        raise TypeError("history must hold mf.Epoch records only")
    if (user_bias is None) != (item_bias is None):
        raise ValueError("user_bias and item_bias must both be arrays or both None, got one of each")
    checks.one_of("missing", missing, MISSING)
    if "biases" in settings.names():
        settings = replace(settings, biases=user_bias is not None)  # type: ignore[type-var]
    elif (user_bias is not None) != settings.biases:
        rule = "given" if settings.biases else "None"
        raise ValueError(f"user_bias must be {rule} with settings of {type(settings).__name__}")
    if settings.nonnegative and not (_all(P, _is_nonnegative) and _all(Q, _is_nonnegative)):
        raise ValueError("P and Q must not be negative with settings.nonnegative")
    vectors: dict[str, NDArray[Any] | None] = {"user_bias": None, "item_bias": None}
    if user_bias is not None and item_bias is not None:
        for name, bias in (("user_bias", user_bias), ("item_bias", item_bias)):
            vectors[name] = _own(name, bias, copy, dtype)
    for name, known, size in (("known_users", known_users, m), ("known_items", known_items, n)):
        vectors[name] = _mask(name, np.ones(size, np.bool_) if known is None else known, copy)
    for name, vector in vectors.items():
        size = m if "user" in name else n
        if vector is not None and vector.shape != (size,):
            raise ValueError(f"{name} must have the shape ({size},), got {vector.shape}")
    if ratings is not None:
        if ratings.shape != (m, n):
            raise ValueError(f"ratings must have the model's shape {(m, n)}, got {ratings.shape}")
        encode_targets(ratings, settings)  # refuses ratings that the loss cannot use
        user_ids = ratings.users_by_id if user_ids is None else user_ids
        item_ids = ratings.items_by_id if item_ids is None else item_ids
    users, items = Vocabulary.of("user_ids", user_ids, m), Vocabulary.of("item_ids", item_ids, n)
    if ratings is not None and not (ratings.users_by_id is users and ratings.items_by_id is items):
        ratings = ratings.with_ids(users, items)
    if posterior is not None:
        posterior = checked_posterior(posterior, (m, n), dtype)
    return State(
        P=P.astype(dtype, copy=False),
        Q=Q.astype(dtype, copy=False),
        mean=_number("mean", mean, dtype),
        history=tuple(history),
        stop_reason=str(stop_reason),
        settings=settings,
        missing=missing,
        ratings=ratings,
        users=users,
        items=items,
        posterior=posterior,
        origin=origin or (NO_FRAME if ratings is None else ratings.origin),
        **vectors,  # type: ignore[arg-type]
    )


def _own(name: str, factors: ArrayLike, copy: bool, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Copy finite factors or biases, unless ``copy`` is False; integers become float64."""
    checks.unmasked(name, factors)
    array = np.array(factors) if copy else np.asarray(factors)
    checks.numeric(name, array)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(
            f"{name} must be float32 or float64 in native byte order, got {array.dtype.str}; pass "
            f"{name}.astype(np.float64)"
        )
    with np.errstate(over="ignore"):
        result = array if dtype is None else array.astype(dtype, copy=False)
    if not _all(result, np.isfinite):
        wrong = checks.first(name, array, ~np.isfinite(result))
        raise ValueError(f"{name} must be finite in {result.dtype}, got {wrong}")
    return result


def _all(array: NDArray[Any], is_right: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> bool:
    """Return whether all numbers are right; a few rows are checked at a time, to use little memory."""
    rows = array.T if array.flags.f_contiguous else array
    step = max(1, checks.VALUES_PER_BLOCK // max(1, math.prod(rows.shape[1:])))
    return all(
        bool(is_right(rows[n : n + step]).all()) for n in range(0, len(rows) if rows.ndim else 0, step)
    )


def _is_nonnegative(array: NDArray[Any]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = array >= 0
    return result


def _number(name: str, number: Any, dtype: np.dtype[Any]) -> float:
    """Return ``number`` as a float that is finite in ``dtype``."""
    try:
        result = float(number)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {number!r}") from None
    with np.errstate(over="ignore"):
        if not np.isfinite(dtype.type(result)):
            raise ValueError(f"{name} must be finite in {dtype}, got {number!r}")
    return result


def _mask(name: str, known: ArrayLike, copy: bool) -> NDArray[np.bool_]:
    """Copy a mask of True and False, unless ``copy`` is False."""
    array = np.array(known) if copy else np.asarray(known)
    if array.dtype != np.bool_ and array.size:
        raise TypeError(f"{name} must be True or False per row or column, got dtype {array.dtype}")
    return array.astype(np.bool_, copy=False)
