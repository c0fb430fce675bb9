"""One fit, from checked arguments to a model."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ids import union_ids
from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_memory
from mfkernel.engines.threads import ThreadEngine, interruptible
from mfkernel.linalg.rows import aligned_rows
from mfkernel.methods import trainer_for
from mfkernel.methods.base import ROWS_PER_CHUNK, Parameters, Problem, Trainer, predict_mean_for_unrated
from mfkernel.methods.objective import link
from mfkernel.methods.posterior import scale_draws
from mfkernel.methods.schedules.rows import RowMap
from mfkernel.model.factors import Factors
from mfkernel.model.history import Epoch
from mfkernel.model.state import State
from mfkernel.options import Settings, both
from mfkernel.training.checkpoints import Checkpoints
from mfkernel.training.loop import Callback, Interrupted, Stopping, train
from mfkernel.training.report import Report
from mfkernel.training.resume import FitFile
from mfkernel.training.units import Units
from mfkernel.training.validation import ErrorValidation, RankingValidation, Validation
from mfkernel.typing import Missing

L1_START = 40.0  # size of start values in units of λ₁ / σ: coordinates then grow before λ₁ makes them zero


class Plan(NamedTuple):
    """All arguments of a fit but the ratings.

    Attributes
    ----------
    options
        Options of the method, in ``units``. None stands for a value to be chosen from the ratings.
    init
        A checked pair (P0, Q0ᵀ) or a model, in the units of the ratings; or None.
    units
        Units of training.
    file
        File of the fit's checkpoint.
    """

    k: int
    options: Settings
    n_threads: int
    init: Any
    dtype: np.dtype[Any]
    stopping: Stopping
    callbacks: list[Callback]
    progress: bool
    missing: Missing
    units: Units = Units()
    file: FitFile | None = None

    @property
    def trainer(self) -> type[Trainer[Any]]:
        """The trainer of the method."""
        return trainer_for(self.options)


def fit(
    plan: Plan, ratings: Ratings, train_ratings: Ratings, held_out: Ratings | None, rng: np.random.Generator
) -> Factors:
    """Fit ``train_ratings``; if ``held_out`` is given, return the epoch that predicts it best.

    The model keeps ``ratings``, which contain both if ``held_out`` is a part of them. Rows and columns of
    ``held_out`` beyond those of ``train_ratings`` are new users and items.
    """
    units = Units.of(train_ratings, plan.options)
    plan = plan._replace(units=units, options=units.settings_in(plan.options))
    fitted = plan.trainer.normalize_weights(interruptible(lambda: units.ratings_in(train_ratings)))
    _check_memory(plan.trainer.bytes_needed(fitted, plan.k, plan.dtype, plan.options, plan.n_threads))
    with ThreadEngine(plan.n_threads) as engine:
        epochs = plan.options.epochs or _choose_epochs(plan, fitted, engine, rng)
        about = f"{train_ratings!r}, k={plan.k}, method={plan.options.method!r}"
        history: list[Epoch] = []
        trainer = interruptible(lambda: _make_trainer(plan, fitted, epochs, engine, rng))
        checkpoints = Checkpoints(trainer)
        validation: Validation | None = None
        if held_out is not None and plan.options.implicit:
            validation = RankingValidation(held_out, fitted)
        elif held_out is not None:
            validation = ErrorValidation(units.ratings_in(held_out), fitted, trainer)

        def finish(records: list[Epoch], reason: str) -> Factors:
            return _finish(plan, trainer, records, reason, ratings)

        try:
            with Report(about, epochs, progress=plan.progress) as report:
                reason = train(
                    trainer,
                    checkpoints,
                    epochs,
                    engine,
                    history,
                    plan.callbacks,
                    validation,
                    plan.stopping,
                    units.record_out,
                    report.show,
                    plan.file,
                )
                report.end(reason)
            return interruptible(lambda: finish(history, reason))
        except KeyboardInterrupt:
            done = checkpoints.restore_whole_epoch(best=validation is not None)
            if done == 0:
                raise
            ends = [
                n
                for n, record in enumerate(history)
                if record.epoch == done and record.rolled_back_to is None
            ]
            message = (
                f"interrupted after epoch {history[-1].epoch}; the exception's .model is of epoch {done}"
            )
            part = history[: ends[-1] + 1]
            raise Interrupted(message, lambda: finish(part, "interrupted")) from None


def _make_trainer(
    plan: Plan, ratings: Ratings, epochs: int, engine: ThreadEngine, rng: np.random.Generator
) -> Trainer[Any]:
    """Resolve the options, and make the trainer with its start values."""
    seed, start_seed = (int(number) for number in rng.integers(2**63, size=2))
    settings = plan.trainer.resolve(plan.options, ratings, warm_start=isinstance(plan.init, Factors))
    problem = Problem(
        ratings=ratings,
        k=plan.k,
        dtype=plan.dtype,
        settings=settings.changed(epochs=epochs),
        adaptive_regularization=plan.options.regularization is None,
        start=lambda users, items: _start(plan, ratings, users, items, np.random.default_rng(start_seed)),
        seed=seed,
        n_threads=plan.n_threads,
    )
    return plan.trainer.create(problem, engine)


def _start(
    plan: Plan, ratings: Ratings, row_of_user: RowMap, row_of_item: RowMap, rng: np.random.Generator
) -> Parameters:
    """Return start values, in the trainer's rows of users and items."""
    (m, n), k = ratings.shape, plan.k
    biases = plan.options.biases
    user_bias, item_bias = (np.zeros(size if biases else 0, plan.dtype) for size in (m, n))
    users, items = (np.arange(size)[rows] for size, rows in ((m, row_of_user), (n, row_of_item)))
    root, scale = plan.units.root, plan.units.scale
    if isinstance(plan.init, tuple):
        P, Q = aligned_rows(m, k, plan.dtype), aligned_rows(n, k, plan.dtype)
        P[users, :k], Q[items, :k] = (X.astype(plan.dtype) / plan.dtype.type(root) for X in plan.init)
        return Parameters(P, Q, user_bias, item_bias)
    P, Q = _start_factors(plan, ratings, rng)
    if biases or plan.trainer.zeros_unrated:
        P[users[ratings.user_counts() == 0]] = 0
        Q[items[ratings.item_counts() == 0]] = 0
    if plan.init is not None:
        model, (user_rows, item_rows) = plan.init, init_rows(plan.init, ratings)
        P[users[user_rows.in_ratings], :k] = model.P[user_rows.in_model] / model.P.dtype.type(root)
        Q[items[item_rows.in_ratings], :k] = model.Q.T[item_rows.in_model] / model.Q.dtype.type(root)
        if model.user_bias is not None and model.item_bias is not None:
            loss = plan.options.loss
            mean = model.mean if loss == "logistic" else (model.mean - plan.units.center) / scale
            shift = mean - link(ratings.mean, loss)
            user_bias[users[user_rows.in_ratings]] = model.user_bias[user_rows.in_model] / scale + shift
            item_bias[items[item_rows.in_ratings]] = model.item_bias[item_rows.in_model] / scale
    return Parameters(P, Q, user_bias, item_bias)


def _start_factors(
    plan: Plan, ratings: Ratings, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return start factors whose predictions are near the mean: constant rows plus noise.

    The noise breaks the symmetry. With biases, the rows are noise alone, because the biases carry the mean.
    An L1 penalty moves coordinates to zero at a constant rate, before small ones can grow; with it, rows
    start farther from zero.

    Returns
    -------
    tuple
        P (m, k) and Q (n, k), with padded and aligned rows.
    """
    options, k = plan.options, plan.k
    center = 0.0 if options.biases or options.implicit else link(ratings.mean, options.loss)
    level = math.sqrt(abs(center) / k)
    spread = 1.0 if options.loss == "logistic" else ratings.std or abs(ratings.mean) or 1.0
    noise = plan.trainer.start_noise(k, spread, options)
    l1_level = min(L1_START * max(both(options.l1)) / spread, math.sqrt(spread) / 2)
    noise = max(noise, l1_level - level)
    rows = []
    for n_rows, mean in ((ratings.n_users, level), (ratings.n_items, math.copysign(level, center))):
        X = aligned_rows(n_rows, k, plan.dtype)
        for start in range(0, n_rows, ROWS_PER_CHUNK):
            part = X[start : start + ROWS_PER_CHUNK, :k]
            part[:] = rng.standard_normal(part.shape, dtype=plan.dtype)
            part *= plan.dtype.type(noise)
            part += plan.dtype.type(mean)
            if options.nonnegative:
                np.abs(part, out=part)
        rows.append(X)
    return rows[0], rows[1]


class CommonRows(NamedTuple):
    """The rows that a model and ratings have in common: their positions in each."""

    in_model: NDArray[np.intp]
    in_ratings: NDArray[np.intp]


def init_rows(model: Factors, ratings: Ratings) -> tuple[CommonRows, CommonRows]:
    """Match the users and items of a model and of ratings, by id or else by number.

    Users and items of the model whose ids are not in the ratings are left out.

    Raises
    ------
    ValueError
        If the model has more rows than the ratings and one side has no ids, or if ids are integers on one
        side and text on the other.
    """
    rows, state = [], model.state
    for kind, ids, model_ids, size, model_size in (
        ("user", ratings.users_by_id, state.users, ratings.n_users, state.shape[0]),
        ("item", ratings.items_by_id, state.items, ratings.n_items, state.shape[1]),
    ):
        if ids is None or model_ids is None:
            if model_size > size:
                raise ValueError(
                    f"init must have at most R's {size} {kind}s, got {model_size}; add rows or columns to R, "
                    "or give both ids"
                )
            in_model = in_ratings = np.arange(model_size)
        else:
            _, positions = union_ids(kind, ids, model_ids, size, model_size, ("R", "init"))
            in_model = np.flatnonzero(positions < size)
            in_ratings = positions[in_model]
        if model_size and not in_model.size:
            raise ValueError(
                f"init must have a {kind} in common with R, got none; are the ids of the same kind?"
            )
        rows.append(CommonRows(in_model, in_ratings))
    return rows[0], rows[1]


def _finish(
    plan: Plan, trainer: Trainer[Any], history: list[Epoch], reason: str, ratings: Ratings
) -> Factors:
    """Return a model with the current parameters and these ratings."""
    P, Q, user_bias, item_bias = trainer.results()
    fitted, biases, units = trainer.ratings, plan.options.biases, plan.units
    # the score of cells whose user or item has no ratings
    mean = 0.0 if plan.options.implicit else link(fitted.mean, plan.options.loss)
    known_users, known_items = fitted.user_counts() > 0, fitted.item_counts() > 0
    if isinstance(plan.init, Factors):
        user_rows, item_rows = init_rows(plan.init, fitted)
        known_users[user_rows.in_ratings] |= plan.init.known_users[user_rows.in_model]
        known_items[item_rows.in_ratings] |= plan.init.known_items[item_rows.in_model]
    elif plan.init is None and not biases:
        predict_mean_for_unrated(fitted, P, Q, mean)
    if isinstance(plan.init, tuple):
        known_users[:], known_items[:] = True, True
    posterior, settings = trainer.posterior(), trainer.settings
    if "regularization" in settings.names():
        settings = settings.changed(regularization=trainer.regularization)
    for X, unit in ((P, units.root), (Q, units.root), (user_bias, units.scale), (item_bias, units.scale)):
        if unit != 1:
            X *= X.dtype.type(unit)
    return Factors.of_state(
        State(
            P=P,
            Q=Q.T,
            mean=units.center + units.scale * mean,
            user_bias=user_bias if biases else None,
            item_bias=item_bias if biases else None,
            known_users=known_users,
            known_items=known_items,
            history=tuple(history),
            stop_reason=reason,
            settings=units.settings_out(settings),
            missing=plan.missing,
            ratings=ratings,
            users=ratings.users_by_id,
            items=ratings.items_by_id,
            origin=ratings.origin,
            posterior=None if posterior is None else scale_draws(posterior, units.scale),
        )
    )


def _choose_epochs(plan: Plan, ratings: Ratings, engine: ThreadEngine, rng: np.random.Generator) -> int:
    """Return the default epochs; of several choices, the one that predicts a held-out tenth best."""
    choices = plan.trainer.epoch_choices(ratings, plan.options)
    if len(choices) == 1:
        return choices[0]
    trial_rng = np.random.default_rng(rng.integers(2**63))
    if plan.file is not None and plan.file.epochs is not None:
        return plan.file.epochs  # chosen by the same trial before
    kept, test = ratings.hold_out(ratings.nnz // 10, trial_rng)
    trial = plan._replace(
        callbacks=[], init=None, stopping=Stopping(), units=Units()
    )  # the ratings already are in plan's units

    def error(epochs: int) -> float:
        trainer = _make_trainer(trial, kept, epochs, engine, trial_rng)
        train(trainer, Checkpoints(trainer), epochs, engine, [])
        return _finish(trial, trainer, [], "", kept).rmse(test)

    return min(choices, key=error)


def _check_memory(needs: dict[str, int]) -> None:
    """Refuse a fit that exceeds the free memory: a clear error beats a killed process."""
    free = available_memory()
    if free is not None and sum(needs.values()) > free:
        parts = ", ".join(f"{name} {size / 2**30:,.1f} GiB" for name, size in needs.items())
        raise MemoryError(f"training must fit in {free / 2**30:,.1f} GiB of free memory, got {parts}")
