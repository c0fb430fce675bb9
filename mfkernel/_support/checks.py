"""Argument checks, whose errors name the rule, the value and the remedy."""

import difflib
import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")

VALUES_PER_BLOCK = 2**16  # values copied and checked at a time, which bounds temporary arrays
MAX_SILENT_ROUNDING = 1e-3  # rounding in units of the ratings' range; more gives a warning
# names of values and of arguments in other libraries
VALUE_SYNONYMS = {
    **dict.fromkeys(("l1", "mae", "lad"), "absolute"),
    **dict.fromkeys(("l2", "mse", "rmse", "quadratic", "frobenius"), "squared"),
    **dict.fromkeys(("log", "bce", "sigmoid", "cross-entropy", "binary"), "logistic"),
    **dict.fromkeys(("ials", "wals", "wrmf", "clicks"), "implicit"),
    **dict.fromkeys(("svd", "funk", "mf"), "sgd"),
}
ARGUMENT_SYNONYMS = {
    **dict.fromkeys(("no_components", "embedding_dim", "latent_dim", "num_components", "n_latent"), "k"),
    **dict.fromkeys(("max_iterations", "num_iterations", "n_iterations", "passes"), "epochs"),
    **dict.fromkeys(("weight_decay", "lam", "lmbda", "reg_pu", "reg_qi"), "regularization"),
    **dict.fromkeys(("bias_reg", "reg_bu", "reg_bi", "lambda_b"), "bias_regularization"),
    **dict.fromkeys(("bias_lr", "lr_bu", "lr_bi"), "bias_learning_rate"),
    **dict.fromkeys(("lr_pu", "lr_qi"), "learning_rate"),
    **dict.fromkeys(("implicit", "model"), "method"),
    **dict.fromkeys(("test_size", "test_ratio", "test_fraction", "share"), "test"),
    **dict.fromkeys(("N", "top_n", "topk", "limit"), "n"),
    **dict.fromkeys(("filter_already_liked_items", "filter_viewed", "remove_seen"), "exclude_seen"),
    **dict.fromkeys(("usecols", "names"), "columns"),
    **dict.fromkeys(("data_home", "data_dir", "cache_dir", "root"), "cache"),
    **dict.fromkeys(("user_col", "userCol", "user_column", "users_col"), "user"),
    **dict.fromkeys(("item_col", "itemCol", "item_column", "items_col"), "item"),
    **dict.fromkeys(("rating_col", "ratingCol", "rating_column", "value_col"), "rating"),
    **dict.fromkeys(
        ("n_factors", "factors", "rank", "n_components", "num_factors", "dim", "embedding_size"), "k"
    ),
    **dict.fromkeys(
        ("n_epochs", "iterations", "n_iter", "niter", "max_iter", "num_iters", "nr_iters"), "epochs"
    ),
    **dict.fromkeys(("lr", "lr_all", "step_size", "eta", "gamma"), "learning_rate"),
    **dict.fromkeys(
        ("reg", "reg_all", "lambda_", "lambda_reg", "l2", "l2_reg", "reg_param"), "regularization"
    ),
    **dict.fromkeys(("seed", "random_state", "random_seed"), "rng"),
    **dict.fromkeys(("num_threads", "nthreads", "n_jobs", "num_workers"), "n_threads"),
    **dict.fromkeys(("biased", "use_bias", "bias", "user_bias"), "biases"),
    **dict.fromkeys(("l1_reg", "l1_ratio"), "l1"),
    **dict.fromkeys(("nonneg", "non_negative", "positive"), "nonnegative"),
    **dict.fromkeys(("algorithm", "algo"), "method"),
    **dict.fromkeys(("verbose", "show_progress"), "progress"),
    **dict.fromkeys(("weights", "weight", "sample_weights", "confidence"), "sample_weight"),
    **dict.fromkeys(("weighted", "per_rating"), "regularization_per"),
    **dict.fromkeys(("early_stopping", "early_stopping_rounds"), "patience"),
}

RANGE_REMEDY = "pass dtype=np.float64 or rescale"


def explains_names(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function suggest its own argument if it gets one of another library."""
    known = inspect.signature(function).parameters
    takes_more = any(x.kind is x.VAR_KEYWORD for x in known.values())

    @functools.wraps(function)
    def wrapper(*arguments: P.args, **named: P.kwargs) -> T:
        for name in named:
            if name not in known and (not takes_more or ARGUMENT_SYNONYMS.get(name) in known):
                raise unknown_argument(function.__qualname__.removesuffix(".__init__"), name, known)
        return function(*arguments, **named)

    return wrapper


def unknown_argument(function: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for an unknown argument, with the nearest known one as remedy."""
    own = tuple(known)
    close = difflib.get_close_matches(name.lower(), own, n=1, cutoff=0.75)
    near = ARGUMENT_SYNONYMS.get(name) or ARGUMENT_SYNONYMS.get(name.lower()) or next(iter(close), "")
    return TypeError(f"{function}() has no argument {name}" + (f"; pass {near}" if near in own else ""))


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a value that is not in ``known``; the error suggests the nearest one."""
    if isinstance(value, str) and value in known:
        return
    hint = ""
    if isinstance(value, str):
        near = [VALUE_SYNONYMS[value.lower()]] if VALUE_SYNONYMS.get(value.lower()) in known else None
        near = near or difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?"
    raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{hint}")


def integer(name: str, value: object, least: int) -> int:
    """Return ``value`` as an int of at least ``least``; refuse bools and floats."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real(name: str, value: object, *, positive: bool) -> float:
    """Return ``value`` as a finite float, above zero if ``positive``, else at least zero."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        kind = "positive" if positive else "zero or positive"
        raise ValueError(f"{name} must be finite and {kind}, got {number}")
    return number


def optional(name: str, value: object, *, positive: bool) -> float | None:
    """Return ``value`` as :func:`real` does, or None."""
    return None if value is None else real(name, value, positive=positive)


def pair(name: str, value: Any) -> tuple[float, float]:
    """Return ``value`` as a pair of numbers of at least zero; one number counts for both."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be a number or a pair for P and Q, got {value!r}")
        return real(f"{name}[0]", value[0], positive=False), real(f"{name}[1]", value[1], positive=False)
    number = real(name, value, positive=False)
    return number, number


def boolean(name: str, value: object) -> bool:
    """Return ``value`` as a bool; refuse anything but True and False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float32 or float64 in native byte order."""
    try:
        for known in () if dtype is None else (np.dtype(np.float32), np.dtype(np.float64)):
            if np.dtype(dtype) == known:
                return known
    except TypeError:
        pass
    raise ValueError(f"dtype must be np.float32 or np.float64, got {dtype!r}")


def numeric(name: str, array: Any) -> None:
    """Refuse dtypes other than integers and floats, also bool, which holds no ratings."""
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}; try {name}.astype(float)")


def copy_indices(name: str, numbers: Any, count: int, count_name: str) -> NDArray[Any]:
    """Copy ``numbers`` and check that they are integers in ``range(count)``.

    A scalar becomes a 0-dimensional array.
    """
    unmasked(name, numbers)
    array = np.array(numbers)  # a copy, which no other thread can change after the check
    if array.dtype.kind not in "iu":
        if array.size:
            raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
        array = array.astype(np.int32)
    if array.size == 0:
        return array
    if int(array.min()) < 0:
        raise ValueError(f"{first(name, array, array < 0)}; numbers must not be negative")
    if int(array.max()) >= count:
        raise ValueError(f"{first(name, array, array >= count)} but {count_name} = {count}")
    return array


def listed(names: Sequence[object], most: int) -> str:
    """Return the first names for a message, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def unmasked(name: str, array: Any) -> None:
    """Refuse masked entries, whose numbers must not be read."""
    if np.ma.isMaskedArray(array) and np.ma.getmaskarray(array).any():
        masked = first(name, array, np.ma.getmaskarray(array), "masked")
        raise ValueError(f"{masked}; pass {name} without masked entries")


def finite(array: NDArray[Any], label: Callable[[int], str]) -> None:
    """Refuse nan and inf; ``label(n)`` names the n-th value, such as ``values[17]``."""
    known = np.isfinite(array)
    if not known.all():
        n = int(known.argmin())
        raise ValueError(f"{label(n)} is {array[n]}; ratings must be finite")


def copy_ratings(array: NDArray[Any], dtype: np.dtype[Any], label: Callable[[int], str]) -> NDArray[Any]:
    """Copy ratings to a native, contiguous array of ``dtype``, and check the copy.

    Raises
    ------
    ValueError
        If a rating is not finite, or too large or too small for ``dtype``.

    Warns
    -----
    UserWarning
        If ``dtype`` rounds the ratings by more than ``MAX_SILENT_ROUNDING`` of their range.
    """
    result = np.empty(array.shape, dtype)
    rounded, vanished = 0.0, -1
    least, most = math.inf, -math.inf
    if array.dtype.kind in "iu":  # NumPy considers int64 safe in float64
        narrower = np.iinfo(array.dtype).max > 2 ** (np.finfo(dtype).nmant + 1)
    else:
        narrower = dtype.itemsize < array.dtype.itemsize
    for start in range(0, array.size, VALUES_PER_BLOCK):
        kept = result[start : start + VALUES_PER_BLOCK]
        part = kept if array.dtype == dtype else np.empty(kept.shape, array.dtype)
        part[:] = array[start : start + VALUES_PER_BLOCK]  # another thread may change the caller's array
        finite(part, lambda n, start=start: label(start + n))  # type: ignore[misc]
        if part is not kept:
            with np.errstate(over="ignore", under="ignore"):
                kept[:] = part
        if narrower:
            fits = np.isfinite(kept)
            if not fits.all():
                n = int(fits.argmin())
                raise ValueError(f"{label(start + n)} = {part[n]} does not fit in {dtype}; {RANGE_REMEDY}")
            least, most = min(least, part.min().item()), max(most, part.max().item())  # integers stay exact
            # an int64 has more digits than a float64
            lost = kept.astype(np.longdouble) - part if part.dtype.kind in "iu" else kept - part
            rounded = max(rounded, float(np.abs(lost).max()))
            if vanished < 0 and part.any():
                vanished = start + int((part != 0).argmax())
    if vanished >= 0 and not result.any():  # some tiny values may become zero, but not all
        raise ValueError(f"{label(vanished)} = {array[vanished]} does not fit in {dtype}; {RANGE_REMEDY}")
    if rounded > MAX_SILENT_ROUNDING * (most - least) and most > least:
        warnings.warn(
            f"{dtype} rounds the ratings, from {least:.12g} to {most:.12g}, by up to {rounded:.3g}; "
            f"{'pass dtype=np.float64, or ' if dtype == np.float32 else ''}subtract their mean first",
            stacklevel=2,
        )
    return result


def first(name: str, array: NDArray[Any], where: NDArray[np.bool_], value: Any = None) -> str:
    """Describe the first value in ``where``, such as ``users[3] = 12``, or with ``value``."""
    position = np.unravel_index(int(where.argmax()), where.shape)
    index = f"[{', '.join(map(str, position))}]" if position else ""
    return f"{name}{index} = {array[position]}" if value is None else f"{name}{index} is {value}"
