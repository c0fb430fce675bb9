"""The function ``factorize``, which fits factors to ratings."""

from __future__ import annotations

import numbers
import os
import warnings
from datetime import timedelta
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfkernel._support import checks
from mfkernel.data.merge import keep_within, match_ratings
from mfkernel.data.ratings import Ratings
from mfkernel.data.reading import read_by_id, read_training
from mfkernel.data.times import as_duration
from mfkernel.methods import make_settings, trainer_for
from mfkernel.methods.baseline import bias_baseline
from mfkernel.methods.objective import encode_targets
from mfkernel.model.factors import Factors
from mfkernel.options import Settings
from mfkernel.training.fit import Plan, fit, init_rows
from mfkernel.training.loop import Stopping
from mfkernel.training.resume import FitFile
from mfkernel.typing import (
    ALSKeywords,
    BayesianKeywords,
    Callback,
    Duplicates,
    FitKeywords,
    ImplicitALSKeywords,
    InitLike,
    MethodName,
    Missing,
    Nulls,
    RatingsLike,
    RngLike,
    SGDKeywords,
)


@overload
def factorize(
    R: RatingsLike, k: int, method: Literal["sgd"] = "sgd", **keywords: Unpack[SGDKeywords]
) -> Factors: ...
@overload
def factorize(R: RatingsLike, k: int, method: Literal["als"], **keywords: Unpack[ALSKeywords]) -> Factors: ...
@overload
def factorize(
    R: RatingsLike, k: int, method: Literal["implicit"], **keywords: Unpack[ImplicitALSKeywords]
) -> Factors: ...
@overload
def factorize(
    R: RatingsLike, k: int, method: Literal["bayesian"], **keywords: Unpack[BayesianKeywords]
) -> Factors: ...
@overload
def factorize(R: RatingsLike, k: int, method: Settings, **keywords: Unpack[FitKeywords]) -> Factors: ...


@checks.explains_names
def factorize(
    R: RatingsLike,
    k: int,
    method: MethodName | Settings = "sgd",
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    count: bool = False,
    nulls: Nulls = "raise",
    missing: Missing = "zero",
    duplicates: Duplicates = "raise",
    user_ids: Any = None,
    item_ids: Any = None,
    validation: float | RatingsLike | None = None,
    patience: int | None = None,
    tol: float | None = None,
    time_limit: float | None = None,
    init: InitLike | None = None,
    sample_weight: RatingsLike | None = None,
    half_life: float | timedelta | None = None,
    dtype: DTypeLike = np.float32,
    rng: RngLike = None,
    n_threads: int | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> Factors:
    """Find P (m, k) and Q (k, n) with R ≈ P·Q from the known ratings of R.

    Parameters
    ----------
    R
        Ratings, one row per user and one column per item: a dense array, a ``scipy.sparse`` matrix, triplets
        ``(users, items, values)``, a data frame, or a :class:`Ratings`. If it has ids, the model speaks them.
    k
        Number of factors. More factors fit finer structure and need more ratings.
    method
        ``"sgd"``, ``"als"``, ``"implicit"`` or ``"bayesian"``, with its options as further keywords; or its
        options as an object: :class:`SGD`, :class:`ALS`, :class:`ImplicitALS` or :class:`Bayesian`.
    user, item, rating, timestamp, count, nulls, missing, duplicates, user_ids, item_ids
        How R, or a data frame, is read, as for :meth:`Ratings.from_frame` and :class:`Ratings`.
    validation
        Share of the ratings to hold out, or ratings of R's shape. Returns the epoch that predicts them best:
        with the lowest RMSE, for implicit feedback the highest NDCG of the best 100 items.
    patience
        Stop after this many epochs without a better validation metric. Default: 5; none for ``"bayesian"``.
    tol
        Least relative gain per epoch: of the validation metric, else the ALS objective, else the RMSE.
    time_limit
        Seconds after which no further epoch begins.
    init
        Start values ``(P0, Q0)``, or a model for a warm start. Default: noise around the mean.
    sample_weight
        Weight of each rating, at least 0, in the form of R or in the order of its values.
    half_life
        Time in which the weight of a rating halves, in the unit of the timestamps or a ``timedelta``.
    dtype
        ``np.float32`` or ``np.float64``, of P, Q and the arithmetic.
    rng
        Seed or generator, as for ``np.random.default_rng``.
    n_threads
        Number of threads. Default: one per core, fewer for few ratings.
    callback, progress
        Function of each :class:`Epoch`, which returns True to stop; whether to show epochs on stderr.
    checkpoint, resume
        File for the state of training, and whether to continue from it if it exists; see *Training*.
    **options
        Options of the method.

    Returns
    -------
    Factors
        The model, which unpacks as ``P, Q``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; the message names the value and its place.
    DivergenceError, numpy.linalg.LinAlgError, MemoryError, OSError
        If training diverges, a row's equations are singular, or memory or room for a checkpoint is missing.
    Interrupted
        On Ctrl-C after the first epoch; its ``model`` is that of the last whole epoch.
    """
    k = checks.integer("k", k, 1)
    settings = make_settings(method, options, tuple(FitKeywords.__annotations__))
    float_type = checks.float_dtype(dtype)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    if n_threads is not None:
        n_threads = checks.integer("n_threads", n_threads, 1)
    progress = checks.boolean("progress", progress)
    file = _fit_file(checkpoint, resume)
    generator = _generator(rng)
    if file is not None:
        generator = file.seed(generator, given=rng is not None)
    stopping = _stopping(validation, patience, tol, time_limit, trainer_for(settings).patience)
    columns: dict[str, Any] = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    form: dict[str, Any] = {"missing": missing, "duplicates": duplicates, "sample_weight": sample_weight}
    form |= {"user_ids": user_ids, "item_ids": item_ids, "dtype": float_type, "count": count, "nulls": nulls}
    ratings = read_training(R, needs_rating=not settings.implicit, **columns, **form)
    known = encode_targets(_of_recent_weight(ratings, half_life), settings)
    if known.nnz == 0:
        raise ValueError(f"R must have known ratings, got none (shape {known.shape})")
    if settings.nonnegative and not (settings.biases or settings.implicit) and (known.values < 0).any():
        n = int((known.values < 0).argmax())
        raise ValueError(
            f"R must not be negative with nonnegative=True and without biases, got R[{known.users[n]}, "
            f"{known.indices[n]}] = {known.values[n]:g}; pass biases=True or shift the ratings"
        )
    train, held_out = _parts(known, validation, generator, settings, missing=missing, duplicates=duplicates)
    plan = Plan(
        k=k,
        options=settings,
        n_threads=trainer_for(settings).threads(settings, n_threads, train.nnz),
        init=_checked_init(init, known, k, float_type, settings),
        dtype=float_type,
        stopping=stopping,
        callbacks=[] if callback is None else [callback],
        progress=progress,
        missing=missing,
        file=file,
    )
    if file is not None:
        given: Any = validation
        share = given if isinstance(given, numbers.Real) else held_out
        file.identify(R=known, validation=share, **_identity(plan))
    model = fit(plan, known, train, held_out, generator)
    if held_out is not None and settings.loss != "absolute" and not settings.implicit:
        _compare_with_biases(model, train, held_out)
    return model


def _fit_file(checkpoint: Any, resume: Any) -> FitFile | None:
    """Return the file of the fit's checkpoint, if the user wants one."""
    if checks.boolean("resume", resume) and checkpoint is None:
        raise ValueError("resume must be False without a checkpoint, got True; pass checkpoint=path")
    if not isinstance(checkpoint, str | os.PathLike | None):
        raise TypeError(f"checkpoint must be a path, got {checkpoint!r}")
    return None if checkpoint is None else FitFile(checkpoint, resume)


def _identity(plan: Plan) -> dict[str, Any]:
    """Return the arguments, besides ratings, that determine the model of a fit."""
    return {
        **{"k": plan.k, "dtype": plan.dtype.name, "init": plan.init, "missing": plan.missing},
        **{"patience": plan.stopping.patience, "tol": plan.stopping.tol},
        **{"method": plan.options.method, **plan.options.values()},
    }


def _of_recent_weight(ratings: Ratings, half_life: Any) -> Ratings:
    """Multiply the weights by a half for each half-life before the latest rating."""
    if half_life is None:
        return ratings
    duration, times = as_duration("half_life", half_life), ratings.timestamps
    if times is None:
        raise ValueError(
            f"half_life must be None for ratings without timestamps, got {half_life!r}; pass timestamp= with "
            "a data frame, or mf.Ratings(…, timestamps=…)"
        )
    if not ratings.nnz:
        return ratings
    recent = np.exp2((times - times.max()) / duration)
    return ratings.with_values(
        ratings.values, recent if ratings.weights is None else ratings.weights * recent
    )


def _stopping(
    validation: Any, patience: int | None, tol: float | None, time_limit: float | None, usual: int | None
) -> Stopping:
    if patience is not None:
        patience = checks.integer("patience", patience, 1)
        if validation is None:
            raise ValueError(f"patience must be None without validation, got {patience}; pass validation=0.1")
    elif validation is not None:
        patience = usual
    return Stopping(
        patience,
        checks.optional("tol", tol, positive=False),
        checks.optional("time_limit", time_limit, positive=True),
    )


def _parts(
    known: Ratings, validation: Any, rng: np.random.Generator, settings: Settings, **form: Any
) -> tuple[Ratings, Ratings | None]:
    """Return the training ratings of positive weight, and the validation ratings."""
    if known.weights is not None and not known.weights.all():
        known = known.select(known.weights > 0)
    if validation is None:
        return known, None
    if isinstance(validation, numbers.Real):
        share = checks.real("validation", validation, positive=True)
        if share >= 1:
            raise ValueError(f"validation must be a share between 0 and 1, or ratings, got {share:g}")
        if known.nnz < 2:
            raise ValueError(f"R must have at least 2 ratings to hold one out, got {known.nnz}")
        count = min(max(1, round(share * known.nnz)), known.nnz - 1)
        train, held_out = known.hold_out(count, rng, keep_rows=True)
        return train, _liked(held_out) if settings.implicit else held_out
    try:
        ids = known.users_by_id, known.items_by_id
        form |= {"dtype": known.dtype, "like": known.origin, "needs_rating": not settings.implicit}
        held_out = encode_targets(read_by_id(validation, *ids, copy=False, **form), settings)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation: {error}") from None
    if held_out.nnz == 0:
        raise ValueError("validation must have ratings, got none")
    held_out = match_ratings(held_out, (known.users_by_id, known.items_by_id), known.shape, "validation", "R")
    if not settings.implicit:
        return known, held_out
    held_out = _liked(held_out)
    inside = keep_within(held_out, known.shape)
    if inside.nnz == 0:
        raise ValueError("validation must have a rating of a user and an item in R, got none")
    if inside.nnz < held_out.nnz:
        warnings.warn(
            f"{held_out.nnz - inside.nnz:,} of {held_out.nnz:,} validation ratings are left out, as their "
            "users or items are not in R",
            stacklevel=4,
        )
    return known, inside


def _liked(held_out: Ratings) -> Ratings:
    """Leave out the dislikes of held-out implicit feedback."""
    liked = held_out.select(held_out.values >= 0)
    if liked.nnz == 0:
        raise ValueError("validation must have strengths of at least 0, got only dislikes")
    return liked


def _compare_with_biases(model: Factors, training: Ratings, held_out: Ratings) -> None:
    """Warn if the factors predict worse than the mean and biases alone."""
    baseline = bias_baseline(training).rmse(held_out)
    best = min(record.validation_rmse for record in model.history if record.validation_rmse is not None)
    can_have_biases = "biases" in model.settings.names() and not model.settings.biases
    if best > baseline:
        warnings.warn(
            f"the validation RMSE of {best:.4g} is above the {baseline:.4g} of the mean and biases alone; "
            + ("try biases=True" if can_have_biases else "try fewer factors or more regularization"),
            stacklevel=4,
        )


def _generator(rng: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng must be None, an integer, SeedSequence, BitGenerator or Generator, got {rng!r} ({error})"
        ) from None


def _checked_init(
    init: Any, R: Ratings, k: int, dtype: np.dtype[Any], settings: Settings
) -> Factors | tuple[NDArray[Any], NDArray[Any]] | None:
    """Check start values; return a model, or P0 and Q0 transposed."""
    if init is None:
        return None
    if isinstance(init, Factors):
        model = Factors.of_state(init.state)  # its current state, whatever it learns later
        if init.k != k:
            raise ValueError(f"k must be that of init, {init.k}, got k = {k}")
        if init.settings.biases != settings.biases:
            raise ValueError(f"biases must be {init.settings.biases} as in init, got {settings.biases}")
        init_rows(model, R)
        for name, X in (("P", model.P), ("Q", model.Q)):
            if settings.nonnegative and (X < 0).any():
                row, column = np.argwhere(X < 0)[0]
                raise ValueError(
                    f"init must be zero or positive, got {name}[{row}, {column}] = {X[row, column]}"
                )
        return model
    try:
        P0, Q0 = (np.array(X) for X in init)
    except (TypeError, ValueError):
        raise TypeError("init must be a pair of arrays (P0, Q0), or a model") from None
    for name, given in zip(("P0", "Q0"), init, strict=True):
        checks.unmasked(name, given)
    m, n = R.shape
    if P0.shape != (m, k) or Q0.shape != (k, n):
        raise ValueError(
            f"init must be P0 of shape {(m, k)} and Q0 of shape {(k, n)}, got {P0.shape} and {Q0.shape}"
        )
    for name, X in (("P0", P0), ("Q0", Q0)):
        checks.numeric(name, X)
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(X.astype(dtype, copy=False))
        rule = f"finite in {dtype}"
        if settings.nonnegative and not bad.any():
            bad, rule = X < 0, "zero or positive"
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(f"init must be {rule}, got {name}[{row}, {column}] = {X[row, column]}")
    return P0, Q0.T
