"""One fit: the parts put together, from checked arguments to a model."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel import als, methods
from mfkernel._ids import united
from mfkernel._machine import available_memory
from mfkernel.blocks import BlockSchedule
from mfkernel.defaults import choose, default_epochs, long_epochs, start_factors
from mfkernel.engine import ThreadEngine, interruptible
from mfkernel.factors import Epoch, Factors
from mfkernel.linalg.rows import aligned_rows, padded_rank
from mfkernel.objective import Settings, link
from mfkernel.ratings import Ratings
from mfkernel.schedule import Places, RowSchedule, Schedule
from mfkernel.state import State
from mfkernel.training import Callback, Interrupted, Stopping, show_progress, train
from mfkernel.units import Units
from mfkernel.validation import ErrorValidation, RankingValidation, Validation

FEW_RATINGS = 50  # of which a tenth would show nothing


class Plan(NamedTuple):
    """How to fit: everything but the ratings.

    Attributes
    ----------
    wishes
        what is minimized and by which steps.
    schedule, n_threads, shuffle
        the order, and who runs it.
    init
        None, a checked pair (P0, Q0), or a model; in ratings.
    units
        what training measures in; those of ``wishes``.
    """

    k: int
    wishes: Settings
    schedule: str
    n_threads: int
    shuffle: bool
    epochs: int | None
    init: Any
    dtype: np.dtype[Any]
    stopping: Stopping
    callbacks: list[Callback]
    progress: bool
    units: Units = Units()


def fit(
    plan: Plan, known: Ratings, training: Ratings, held_out: Ratings | None, rng: np.random.Generator
) -> Factors:
    """Find factors for ``training``, the best for ``held_out`` if there are such; ``known`` is of both.

    Rows and columns of ``held_out`` beyond those of ``training`` are of new users and items.
    """
    units = Units.of(training, plan.wishes)
    plan = plan._replace(units=units, wishes=units.settings_in(plan.wishes))
    ratings = interruptible(lambda: units.ratings_in(training))
    if plan.wishes.method == "sgd":
        ratings = _normalized(ratings)
    size = ratings.shape, ratings.nnz, plan.k, plan.dtype
    if plan.wishes.method == "sgd":
        _check_memory(methods.training_bytes(*size, plan.schedule, plan.n_threads))
    else:
        _check_memory(als.training_bytes(*size))
    with ThreadEngine(plan.n_threads) as engine:
        epochs = plan.epochs or _choose_epochs(plan, ratings, engine, rng)
        callbacks = [show_progress(epochs), *plan.callbacks] if plan.progress else plan.callbacks
        history: list[Epoch] = []
        method = interruptible(lambda: _prepare(plan, ratings, engine, rng))
        validation: Validation | None = None
        if held_out is not None and plan.wishes.implicit:
            validation = RankingValidation(held_out, ratings)
        elif held_out is not None:
            validation = ErrorValidation(units.ratings_in(held_out), ratings, method)

        def finish(records: list[Epoch], reason: str) -> Factors:
            return _finish(plan, ratings, method, records, reason, known)

        try:
            reason = train(
                method, epochs, engine, history, callbacks, validation, plan.stopping, units.record_out
            )
            return interruptible(lambda: finish(history, reason))
        except KeyboardInterrupt:
            done = method.rescue(best=validation is not None)
            if done == 0:
                raise
            ends = [n for n, record in enumerate(history) if record.epoch == done and record.back_to is None]
            message = (
                f"interrupted after epoch {history[-1].epoch}; the exception's .model is of epoch {done}"
            )
            part = history[: ends[-1] + 1]
            raise Interrupted(message, lambda: finish(part, "interrupted")) from None


def _normalized(ratings: Ratings) -> Ratings:
    """Bring weights to a mean of one, so that they do not change the size of the steps."""
    if ratings.weights is None:
        return ratings
    return ratings.with_values(ratings.values, ratings.weights / ratings.weights.mean(dtype=np.float64))


def _prepare(plan: Plan, ratings: Ratings, engine: ThreadEngine, rng: np.random.Generator) -> methods.Method:
    """Lay the ratings out, and say how to start."""
    seed, start_seed = (int(number) for number in rng.integers(2**63, size=2))
    settings = choose(plan.wishes, ratings, goes_on=isinstance(plan.init, Factors))
    if settings.method != "sgd":
        return als.Als(
            ratings,
            lambda: _start(plan, ratings, slice(None), slice(None), np.random.default_rng(start_seed)),
            plan.k,
            settings,
        )
    order: Schedule
    if plan.schedule == "blocks":
        order = BlockSchedule(ratings, padded_rank(plan.k), plan.shuffle, seed, engine)
    else:
        order = RowSchedule(ratings, plan.n_threads, plan.shuffle, seed)

    def start() -> methods.State:
        places = order.user_places, order.item_places
        return _start(plan, ratings, *places, np.random.default_rng(start_seed))  # the same each time

    return methods.Sgd(ratings, order, start, plan.k, settings)


def _start(
    plan: Plan, ratings: Ratings, user_places: Places, item_places: Places, rng: np.random.Generator
) -> methods.State:
    """Make start values, at the places that the method has for them."""
    (m, n), k = ratings.shape, plan.k
    user_bias, item_bias = (np.zeros(size if plan.wishes.biases else 0, plan.dtype) for size in (m, n))
    users, items = (np.arange(size)[places] for size, places in ((m, user_places), (n, item_places)))
    root, scale = plan.units.root, plan.units.scale
    if isinstance(plan.init, tuple):
        P, Q = aligned_rows(m, k, plan.dtype), aligned_rows(n, k, plan.dtype)
        P[users, :k], Q[items, :k] = (X.astype(plan.dtype) / plan.dtype.type(root) for X in plan.init)
        return methods.State(P, Q, user_bias, item_bias)
    P, Q = start_factors(ratings, k, plan.dtype, plan.wishes, rng)
    if plan.wishes.biases or plan.wishes.method != "sgd":  # what has no ratings is not learned
        P[users[ratings.user_counts() == 0]] = 0
        Q[items[ratings.item_counts() == 0]] = 0
    if plan.init is not None:
        model, (user_rows, item_rows) = plan.init, init_rows(plan.init, ratings)
        P[users[user_rows.there], :k] = model.P[user_rows.here] / model.P.dtype.type(root)
        Q[items[item_rows.there], :k] = model.Q.T[item_rows.here] / model.Q.dtype.type(root)
        if model.user_bias is not None and model.item_bias is not None:
            mean = model.mean if plan.wishes.loss == "logistic" else (model.mean - plan.units.center) / scale
            shift = mean - link(ratings.mean, plan.wishes.loss)
            user_bias[users[user_rows.there]] = model.user_bias[user_rows.here] / scale + shift
            item_bias[items[item_rows.there]] = model.item_bias[item_rows.here] / scale
    return methods.State(P, Q, user_bias, item_bias)


class Rows(NamedTuple):
    """Where some rows of a model stand: ``here`` in the model, and ``there`` in the ratings."""

    here: NDArray[np.intp]
    there: NDArray[np.intp]


def init_rows(model: Factors, ratings: Ratings) -> tuple[Rows, Rows]:
    """Return which users and items of the ratings those of the model are: by their ids, or by number.

    Users and items of the model whose ids the ratings do not have are left out.

    Raises
    ------
    ValueError
        If without ids the model has more of them than the ratings, or ids are integers here and text there.
    """
    rows, state = [], model.state
    for kind, ids, own, size, known in (
        ("user", ratings.users_by_id, state.users, ratings.n_users, state.shape[0]),
        ("item", ratings.items_by_id, state.items, ratings.n_items, state.shape[1]),
    ):
        if ids is None or own is None:
            if known > size:
                raise ValueError(
                    f"init has {known} {kind}s, of which R, with {size}, lacks number {size}; R must have a "
                    "row or column for each where there are no ids"
                )
            here = there = np.arange(known)
        else:
            _, places = united(kind, ids, own, size, known, ("R", "init"))
            here = np.flatnonzero(places < size)
            there = places[here]
        if known and not here.size:
            raise ValueError(f"init has no {kind} in common with R; are the ids of the same kind?")
        rows.append(Rows(here, there))
    return rows[0], rows[1]


def _finish(
    plan: Plan, ratings: Ratings, method: methods.Method, history: list[Epoch], reason: str, known: Ratings
) -> Factors:
    """Make the model of what training has left."""
    P, Q, user_bias, item_bias = method.results()
    biases, mean, units = plan.wishes.biases, link(ratings.mean, plan.wishes.loss), plan.units
    if plan.wishes.implicit:
        mean = 0.0  # what is predicted where nothing is known
    known_users, known_items = ratings.user_counts() > 0, ratings.item_counts() > 0
    if isinstance(plan.init, Factors):
        user_rows, item_rows = init_rows(plan.init, ratings)
        known_users[user_rows.there] |= plan.init.known_users[user_rows.here]
        known_items[item_rows.there] |= plan.init.known_items[item_rows.here]
    elif plan.init is None and not biases:
        methods.predict_mean_for_unknown(ratings, P, Q, mean)
    if isinstance(plan.init, tuple):
        known_users[:], known_items[:] = True, True
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
            settings=units.settings_out(method.settings._replace(regularization=method.regularization)),
            ratings=known,
            users=known.users_by_id,
            items=known.items_by_id,
        )
    )


def _choose_epochs(plan: Plan, ratings: Ratings, engine: ThreadEngine, rng: np.random.Generator) -> int:
    """Return the default passes; for a small table, more if that predicts a held-out tenth better."""
    epochs, longer = default_epochs(ratings, plan.wishes), long_epochs(ratings)
    if plan.wishes.method != "sgd":
        return epochs
    nothing_to_predict = ratings.nnz == ratings.n_users * ratings.n_items
    if longer <= epochs or ratings.nnz < FEW_RATINGS or nothing_to_predict:
        return max(epochs, longer)
    trial_rng = np.random.default_rng(rng.integers(2**63))
    kept, test = ratings.hold_out(ratings.nnz // 10, trial_rng)
    trial = plan._replace(callbacks=[], init=None, stopping=Stopping(), units=Units())  # all in plan's units

    def error(passes: int) -> float:
        method = _prepare(trial, kept, engine, trial_rng)
        train(method, passes, engine, [])
        return _finish(trial, kept, method, [], "", kept).rmse(test)

    return min(epochs, longer, key=error)


def _check_memory(needs: dict[str, int]) -> None:
    """Refuse what cannot fit: a clear error beats a killed process."""
    free = available_memory()
    if free is not None and sum(needs.values()) > free:
        parts = ", ".join(f"{name} {size / 2**30:,.1f} GiB" for name, size in needs.items())
        raise MemoryError(f"training needs {parts}, but only {free / 2**30:,.1f} GiB is free")
