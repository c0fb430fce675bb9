"""``factorize``: from ratings to factors."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfkernel import _checks, methods
from mfkernel._machine import available_cores, available_memory
from mfkernel.blocks import BlockSchedule
from mfkernel.engine import ThreadEngine, interruptible
from mfkernel.factors import Epoch, Factors, aligned_rows, padded_rank
from mfkernel.ratings import Ratings
from mfkernel.schedule import RowSchedule, Schedule
from mfkernel.training import Callback, Interrupted, show_progress, train

METHODS = ("sgd",)
SCHEDULES = ("blocks", "hogwild", "sequential")
FEW_RATINGS = 50  # of which a tenth would show nothing
RATINGS_A_THREAD = 300_000  # with fewer, an epoch takes less than handing its blocks out


def factorize(
    R: Any,
    k: int,
    *,
    method: str = "sgd",
    schedule: str = "blocks",
    epochs: int | None = None,
    learning_rate: float | None = None,
    decay: str | None = None,
    regularization: float | None = None,
    shuffle: bool = True,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    dtype: DTypeLike = np.float32,
    missing: str = "zero",
    duplicates: str = "raise",
    rng: Any = None,
    n_threads: int | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Factors:
    r"""Find P (m, k) and Q (k, n) with R ≈ P·Q from the known ratings of R.

    Minimizes, over the known ratings, :math:`\sum (r - p \cdot q)^2 + \lambda (\|p\|^2 + \|q\|^2)` by
    stochastic gradient descent; each rating makes the steps

    .. math::
        p \leftarrow p + \gamma (e q - \lambda p), \qquad q \leftarrow q + \gamma (e p - \lambda q),

    the second with the p that the first has just made. A textbook's step ``alpha * 2 * e * q`` is
    ``learning_rate = 2 * alpha`` here.

    Parameters
    ----------
    R
        Ratings, a row a user and a column an item: a dense array in which zero and nan are unknown, any
        ``scipy.sparse`` matrix or array (stored entries are ratings), a tuple of triplets ``(users, items,
        values)`` or ``(users, items, values, shape)``, or a :class:`Ratings`. Never modified.
    k
        Number of factors. More fit more detail, and need more ratings.
    method
        ``"sgd"``.
    schedule
        ``"blocks"``: the ratings in a grid of blocks, cut to fit in the cache, of which threads visit only
        such at a time as share no row and no column; the same ``rng`` gives the same bits on any number of
        threads.
        ``"sequential"``: one thread, row by row; the same ``rng`` gives the same bits. ``"hogwild"``: several
        threads without locks, each going through its rows one band of columns after another; results differ a
        little from run to run (one thread gives the sequential bits).
    epochs
        Passes over the ratings. By default 25, fewer where there are less than 15 ratings a row or column,
        more where the mean is beyond three standard deviations, and more on tables of less than 10,000
        ratings, a tenth of their cells or more, if all cells are known or a trial with held-out ratings
        speaks for it.
    learning_rate
        Step size γ of the first epoch. By default chosen by the scale of the ratings.
    decay
        How the step size goes on when t of T epochs are done: ``"constant"``; ``"inverse-time"``,
        γ / (1 + t/5); ``"linear"``, γ (1 - t/T); ``"cosine"``, γ (1 + cos πt/T) / 2; or ``"adaptive"``,
        γ / √G for each row of P and Q, where G is 1 plus the mean squares of the gradients that the row has
        met (Chin et al.). By default constant if ``learning_rate`` is given, else cosine.
    regularization
        λ, per rating, in units of R. By default 0.07 standard deviations of the ratings, less where there are
        more than 30 a row or column, and falling with the residuals once these are below half a standard
        deviation.
    shuffle
        Visit the blocks, or the rows, in a new random order each epoch, and the ratings of a block in random
        order. Without it, the ratings are visited as they stand in R, row by row; in several blocks if there
        are more than 150,000.
    init
        Start values ``(P0, Q0)``, (m, k) and (k, n); copied. By default noise around the point where every
        prediction is the mean.
    dtype
        ``np.float32`` or ``np.float64``, of P, Q and the arithmetic.
    missing
        ``"zero"``: zero and nan are unknown in a dense R. ``"nan"``: only nan is.
    duplicates
        What becomes of several ratings for one cell: ``"raise"``, ``"sum"``, ``"mean"`` or ``"last"``.
    rng
        None, an int, SeedSequence, BitGenerator or Generator, as for ``np.random.default_rng`` (SPEC 7).
    n_threads
        Threads for ``"blocks"`` and ``"hogwild"``; by default the cores that this process may use, and fewer
        for blocks of less than 300,000 ratings a thread.
    callback
        Called with the :class:`Epoch` record after each epoch; training stops if it returns True.
    progress
        Write a line an epoch to stderr.

    Returns
    -------
    Factors
        Unpacks as ``P, Q``. Rows and columns without ratings are predicted by the mean, unless ``init`` gave
        them values.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names the value and its place.
    DivergenceError
        If the learning rate is too large.
    MemoryError
        If what training takes would not fit in the memory that is free; the message says what takes how much.
    Interrupted
        On Ctrl-C after the first epoch: a ``KeyboardInterrupt`` with the ``model`` of the last whole epoch.

    Warns
    -----
    UserWarning
        If ``n_threads`` is given but the schedule uses one.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic
    gradient descent", KDD 2011.
    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    Niu et al., "Hogwild: a lock-free approach to parallelizing stochastic gradient descent", NIPS 2011.

    Examples
    --------
    >>> import numpy as np
    >>> R = np.array([[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]])
    >>> P, Q = factorize(R, 2, rng=0)
    >>> P.shape, Q.shape
    ((5, 2), (2, 3))
    """
    k = _checks.integer("k", k, 1)
    _checks.one_of("method", method, METHODS)
    _checks.one_of("schedule", schedule, SCHEDULES)
    float_type = _checks.float_dtype(dtype)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    shuffle, progress = _checks.boolean("shuffle", shuffle), _checks.boolean("progress", progress)
    generator = _generator(rng)
    if epochs is not None:
        epochs = _checks.integer("epochs", epochs, 1)
    if learning_rate is not None:
        learning_rate = _checks.real("learning_rate", learning_rate, positive=True)
    if decay is None:
        decay = "cosine" if learning_rate is None else "constant"
    _checks.one_of("decay", decay, tuple(methods.DECAYS))
    if regularization is not None:
        regularization = _checks.real("regularization", regularization, positive=False)
    if n_threads is not None:
        n_threads = _checks.integer("n_threads", n_threads, 1)

    ratings = Ratings(R, missing=missing, duplicates=duplicates, dtype=float_type, copy=False)
    if ratings.nnz == 0:
        raise ValueError(f"R has no known ratings (shape {ratings.shape})")
    threads = _threads(schedule, n_threads, ratings.nnz)
    _check_memory(methods.training_bytes(ratings.shape, ratings.nnz, k, float_type, schedule, threads))

    def prepare(part: Ratings, engine: ThreadEngine, rng: np.random.Generator) -> methods.Sgd:
        seed = int(rng.integers(2**63))
        order: Schedule
        if schedule == "blocks":
            order = BlockSchedule(part, padded_rank(k), shuffle, seed, engine)
        else:
            order = RowSchedule(part, threads, shuffle, seed)
        if init is None:
            P, Q = methods.default_start(part, k, float_type, rng)
        else:
            P, Q = _given_start(init, order, part.shape, k, float_type)
        return methods.Sgd(part, order, P, Q, k, learning_rate, decay, regularization)

    def finish(sgd: methods.Sgd, history: list[Epoch]) -> Factors:
        P, Q = sgd.factors()
        if init is None:
            methods.predict_mean_for_unknown(ratings, P, Q)
        return Factors(
            P,
            Q.T,
            mean=ratings.mean,
            known_users=ratings.user_counts() > 0 if init is None else None,
            known_items=ratings.item_counts() > 0 if init is None else None,
            history=history,
            user_ids=ratings.user_ids,
            item_ids=ratings.item_ids,
        )

    with ThreadEngine(threads) as engine:

        def try_out(part: Ratings, epochs: int, rng: np.random.Generator) -> methods.Sgd:
            sgd = prepare(part, engine, rng)
            train(sgd, epochs, engine, [])
            return sgd

        if epochs is None:
            epochs = _choose_epochs(ratings, generator, try_out)
        callbacks = [show_progress(epochs)] if progress else []
        history: list[Epoch] = []
        sgd = interruptible(lambda: prepare(ratings, engine, generator))
        try:
            train(sgd, epochs, engine, history, callbacks if callback is None else [*callbacks, callback])
            return interruptible(lambda: finish(sgd, history))
        except KeyboardInterrupt:
            done = sgd.whole_epoch()
            if done == 0:
                raise
            message = f"interrupted after epoch {len(history)}; the exception's .model is of epoch {done}"
            raise Interrupted(message, lambda: finish(sgd, history[:done])) from None


def _choose_epochs(
    ratings: Ratings,
    rng: np.random.Generator,
    try_out: Callable[[Ratings, int, np.random.Generator], methods.Sgd],
) -> int:
    """Return the default passes; for a small table, more if that predicts a held-out tenth better."""
    epochs, longer = methods.default_epochs(ratings), methods.long_epochs(ratings)
    nothing_to_predict = ratings.nnz == ratings.n_users * ratings.n_items
    if longer <= epochs or ratings.nnz < FEW_RATINGS or nothing_to_predict:
        return max(epochs, longer)
    trial_rng = np.random.default_rng(rng.integers(2**63))
    kept, test = ratings.hold_out(ratings.nnz // 10, trial_rng)

    def error(passes: int) -> float:
        P, Q = try_out(kept, passes, trial_rng).factors()
        return Factors(P, Q.T).rmse(test)

    return min(epochs, longer, key=error)


def _generator(rng: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng must be None, an integer, SeedSequence, BitGenerator or Generator, got {rng!r} ({error})"
        ) from None


def _threads(schedule: str, n_threads: int | None, nnz: int) -> int:
    """Choose how many threads there are, where the user has not."""
    if schedule == "sequential":
        if n_threads is not None and n_threads > 1:
            warnings.warn(
                f"n_threads={n_threads} is not used: schedule='sequential' runs on one thread, "
                "schedule='blocks' and 'hogwild' on several",
                stacklevel=3,
            )
        return 1
    if n_threads is not None:
        return n_threads
    return (
        available_cores()
        if schedule == "hogwild"
        else max(1, min(available_cores(), nnz // RATINGS_A_THREAD))
    )


def _given_start(
    init: Any, order: Schedule, shape: tuple[int, int], k: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Check and copy ``init`` into padded, aligned rows, at the places that the schedule has for them."""
    try:
        P0, Q0 = (np.asarray(X) for X in init)
    except (TypeError, ValueError):
        raise TypeError("init must be a pair of arrays (P0, Q0)") from None
    m, n = shape
    if P0.shape != (m, k) or Q0.shape != (k, n):
        raise ValueError(
            f"init must be P0 of shape {(m, k)} and Q0 of shape {(k, n)}, got {P0.shape} and {Q0.shape}"
        )
    rows = []
    for name, X0, places in (("P0", P0, order.user_places), ("Q0", Q0.T, order.item_places)):
        _checks.numeric(name, X0)
        X = aligned_rows(X0.shape[0], k, dtype)
        with np.errstate(over="ignore"):
            X[places, :k] = X0
        if not np.isfinite(X).all():
            row, column = np.argwhere(~np.isfinite(X[places]))[0]
            place = f"{row}, {column}" if name == "P0" else f"{column}, {row}"
            raise ValueError(f"init must be finite, but {name}[{place}] is {X0[row, column]} in {dtype}")
        rows.append(X)
    return rows[0], rows[1]


def _check_memory(needs: dict[str, int]) -> None:
    """Refuse what cannot fit: a clear error beats a killed process."""
    free = available_memory()
    if free is not None and sum(needs.values()) > free:
        parts = ", ".join(f"{name} {size / 2**30:,.1f} GiB" for name, size in needs.items())
        raise MemoryError(f"training needs {parts}, but only {free / 2**30:,.1f} GiB is free")
