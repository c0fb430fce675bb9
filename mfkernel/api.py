"""``factorize``: from ratings to factors."""

import numbers
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfkernel import _checks, fitting
from mfkernel._machine import available_cores
from mfkernel.baseline import bias_baseline
from mfkernel.factors import Factors
from mfkernel.objective import DECAYS, LOSSES, METHODS, SOLVERS, Settings, targets
from mfkernel.online import matched, within
from mfkernel.ratings import Ratings
from mfkernel.training import Callback, Stopping

# arguments that belong to some methods alone, and their defaults
BELONGS: dict[str, tuple[tuple[str, ...], Any]] = {
    "schedule": (("sgd",), "blocks"),
    "learning_rate": (("sgd",), None),
    "decay": (("sgd",), None),
    "bias_learning_rate": (("sgd",), None),
    "loss": (("sgd",), "squared"),
    "huber_delta": (("sgd",), None),
    "l1": (("sgd",), 0.0),
    "shuffle": (("sgd",), True),
    "biases": (("sgd", "als"), False),
    "bias_regularization": (("sgd", "als"), None),
    "sample_weight": (("sgd", "als"), None),
    "weighted": (("als", "implicit"), None),
    "solver": (("als", "implicit"), None),
    "alpha": (("implicit",), 1.0),
    "unobserved_weight": (("implicit",), 1.0),
}
SCHEDULES = ("blocks", "hogwild", "sequential")
PATIENCE = 5  # epochs without a better validation RMSE
RATINGS_A_THREAD = 300_000  # with fewer, an epoch takes less than handing its blocks out


@_checks.explains_names
def factorize(
    R: Any,
    k: int,
    *,
    method: str = "sgd",
    schedule: str = "blocks",
    epochs: int | None = None,
    learning_rate: float | None = None,
    decay: str | None = None,
    regularization: float | tuple[float, float] | None = None,
    biases: bool = False,
    bias_learning_rate: float | None = None,
    bias_regularization: float | None = None,
    loss: str = "squared",
    huber_delta: float | None = None,
    l1: float | tuple[float, float] = 0.0,
    nonnegative: bool = False,
    weighted: bool | None = None,
    solver: str | None = None,
    alpha: float = 1.0,
    unobserved_weight: float = 1.0,
    sample_weight: Any = None,
    validation: Any = None,
    patience: int | None = None,
    tol: float | None = None,
    time_limit: float | None = None,
    shuffle: bool = True,
    init: tuple[ArrayLike, ArrayLike] | Factors | None = None,
    dtype: DTypeLike = np.float32,
    missing: str = "zero",
    duplicates: str = "raise",
    rng: Any = None,
    n_threads: int | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Factors:
    r"""Find P (m, k) and Q (k, n) with R ≈ P·Q from the known ratings of R.

    Minimizes, over the known ratings,

    .. math::
        \sum w \left[\ell(r - p \cdot q) + \frac{\lambda}{2} (\|p\|^2 + \|q\|^2)
        + \lambda_1 (\|p\|_1 + \|q\|_1)\right]

    by stochastic gradient descent; or by alternating least squares, without λ₁ and without the halves,

    .. math::
        \sum w (r - p \cdot q)^2 + \lambda (\|P\|^2 + \|Q\|^2),

    where the first sum is over the known ratings, or of implicit feedback over all cells,
    :math:`\sum (1 + \alpha r)(1 - p \cdot q)^2 + w_0 \sum_{unknown} (p \cdot q)^2`.

    Of SGD and the squared loss, e²/2, each rating makes the steps

    .. math::
        p \leftarrow p + \gamma (e q - \lambda p), \qquad q \leftarrow q + \gamma (e p - \lambda q),

    the second with the p that the first has just made. A textbook's step ``alpha * 2 * e * q`` is
    ``learning_rate = 2 * alpha`` here. With biases, the prediction is :math:`\mu + b_u + b_i + p \cdot q`.

    Parameters
    ----------
    R
        Ratings, a row a user and a column an item: a dense array in which zero and nan are unknown, any
        ``scipy.sparse`` matrix or array (stored entries are ratings), a tuple of triplets ``(users, items,
        values)`` or ``(users, items, values, shape)``, or a :class:`Ratings`. Never modified.
    k
        Number of factors. More fit more detail, and need more ratings.
    method
        ``"sgd"``: stochastic gradient descent. ``"als"``: alternating least squares, each row solved exactly
        given the others: no learning rate, and the same bits on any number of threads. ``"implicit"``: the
        same for clicks, plays or purchases, of any strength from zero: what is stored is to be predicted as a
        1 with the weight 1 + αr, and every other cell as a 0 with the weight w₀.
    schedule
        ``"blocks"``: the ratings in a grid of blocks, cut to fit in the cache, of which threads visit only
        such at a time as share no row and no column; the same ``rng`` gives the same bits on any number of
        threads.
        ``"sequential"``: one thread, row by row; the same ``rng`` gives the same bits. ``"hogwild"``: several
        threads without locks, each going through its rows one band of columns after another; results differ a
        little from run to run (one thread gives the sequential bits).
    epochs
        Passes over the ratings. By default 15 of alternating least squares. Of SGD 25, fewer where there are
        less than 15 ratings a row or column, more where the mean is beyond three standard deviations, and
        more on tables of less than 10,000 ratings, a tenth of their cells or more, if all cells are known or
        a trial with held-out ratings speaks for it.
    learning_rate
        Step size γ of the first epoch. By default chosen by the scale and the density of the ratings, and
        smaller by 0.3 if ``init`` is a model.
    decay
        How the step size goes on when t of T epochs are done: ``"constant"``; ``"inverse-time"``,
        γ / (1 + t/5); ``"linear"``, γ (1 - t/T); ``"cosine"``, γ (1 + cos πt/T) / 2; or ``"adaptive"``,
        γ / √G for each row of P and Q, where G is 1 plus the mean squares of the gradients that the row has
        met (Chin et al.). By default constant if ``learning_rate`` is given, else cosine.
    regularization
        λ, in units of R: per rating, or per row under ``"als"`` and ``"implicit"`` unless ``weighted``; one
        number, or one for P and one for Q. By default in proportion to the spread of the ratings, and less
        where there are more of them a row.
    biases
        Predict μ + b_u + b_i + p·q: the mean, a bias of each user and of each item, and only the rest by
        factors. More accurate on people's ratings, and trained in fewer epochs.
    bias_learning_rate, bias_regularization
        γ and λ of the biases; no unit. By default in proportion to the factors' rate, and 0.02 per rating.
    loss
        ``"squared"``, e²/2, any real ratings. ``"absolute"``, |e|: predicts medians, so that outliers weigh
        no more than others. ``"huber"``: squared up to ``huber_delta``, by default a standard deviation, and
        linear beyond. ``"logistic"``: ratings of -1 and 1, or 0 and 1; ``predict`` gives the probability of
        a 1.
    l1
        λ₁, per rating; one number, or one for P and one for Q. Sets small coordinates to zero.
    nonnegative
        Keep P and Q ≥ 0, and start there. Without biases, ratings must not be negative.
    weighted
        Of ``"als"`` and ``"implicit"``: multiply λ by the number of ratings of the row (ALS-WR), as SGD does,
        and of implicit feedback by this and w₀ times the number of columns. By default only if
        ``regularization`` is not given.
    solver
        Of ``"als"`` and ``"implicit"``, how a row is solved: ``"cholesky"``, exactly; ``"cg"``, by three
        steps of conjugate gradients from where it was; ``"subspace"``, exactly for some coordinates after the
        other. By default ``"cholesky"`` up to a rank of 32, and ``"cg"`` beyond.
    alpha, unobserved_weight
        α and w₀ of implicit feedback.
    sample_weight
        How often each rating counts, at least zero: (m, n) like R, or in one dimension in the order of the
        triplets, of ``R.data``, or of the values of a ``Ratings``. Only ratios matter, unless λ of ``"als"``
        is per row.
    validation
        A share of the ratings to hold out, at random by ``rng``, where possible never all of a row or
        column; or ratings of R's shape. The factors of the epoch that predicts them best are what comes back:
        with the least RMSE, or of implicit feedback the highest NDCG of the 100 best.
    patience
        Stop after so many epochs that are no better at this; 5 if there are validation ratings.
    tol
        Stop when an epoch lowers the RMSE, or the objective of alternating least squares, by less than this
        share; if there are validation ratings, what is measured by these.
    time_limit
        Seconds after which no further epoch begins.
    shuffle
        Visit the blocks, or the rows, in a new random order each epoch, and the ratings of a block in random
        order. Without it, the ratings are visited as they stand in R, row by row; in several blocks if there
        are more than 150,000.
    init
        Start values ``(P0, Q0)``, (m, k) and (k, n), or a model, whose rows and columns are found by id, or
        by number without ids, and may be fewer than R's; copied. By default noise around the point where
        every prediction is the mean.
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
        Unpacks as ``P, Q``. Rows and columns without ratings are predicted by the mean, or the mean and the
        other one's bias, unless ``init`` gave them values. ``stop_reason`` says why training ended. An epoch
        that diverged is undone and repeated with half the step size, which ``history`` shows.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it should be; the message names the value and its place.
    numpy.linalg.LinAlgError
        If the equations of a row are not positive definite, as they are with a λ of zero and less than k
        ratings; the message names the row. A ``ValueError``.
    DivergenceError
        If training diverges even with a thousandth of the learning rate.
    MemoryError
        If what training takes would not fit in the memory that is free; the message says what takes how much.
    Interrupted
        On Ctrl-C after the first epoch: a ``KeyboardInterrupt`` with the ``model`` of the last whole epoch.

    Warns
    -----
    UserWarning
        If ``n_threads`` is given but the schedule uses one; if the validation RMSE is above that of the mean
        and biases alone.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic
    gradient descent", KDD 2011.
    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    Niu et al., "Hogwild: a lock-free approach to parallelizing stochastic gradient descent", NIPS 2011.
    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
    Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the Netflix prize",
    AAIM 2008.

    Examples
    --------
    >>> import numpy as np
    >>> R = np.array([[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]])
    >>> P, Q = factorize(R, 2, rng=0)
    >>> P.shape, Q.shape
    ((5, 2), (2, 3))
    """
    given = dict(locals())
    k = _checks.integer("k", k, 1)
    _checks.one_of("method", method, METHODS)
    _check_belonging(method, given)
    _checks.one_of("schedule", schedule, SCHEDULES)
    float_type = _checks.float_dtype(dtype)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    if epochs is not None:
        epochs = _checks.integer("epochs", epochs, 1)
    if n_threads is not None:
        n_threads = _checks.integer("n_threads", n_threads, 1)
    if decay is None:
        decay = "cosine" if learning_rate is None else "constant"
    _checks.one_of("decay", decay, DECAYS)
    _checks.one_of("loss", loss, LOSSES)
    if solver is not None:
        _checks.one_of("solver", solver, SOLVERS)
        if nonnegative and solver != "cholesky":
            raise ValueError(f"nonnegative=True takes solver='cholesky', got {solver!r}")
    wishes = Settings(
        method=method,
        biases=_checks.boolean("biases", biases),
        loss=loss,
        huber_delta=_checks.optional("huber_delta", huber_delta, positive=True),
        learning_rate=_checks.optional("learning_rate", learning_rate, positive=True),
        decay=decay,
        regularization=None if regularization is None else _checks.pair("regularization", regularization),
        bias_learning_rate=_checks.optional("bias_learning_rate", bias_learning_rate, positive=True),
        bias_regularization=_checks.optional("bias_regularization", bias_regularization, positive=False),
        l1=_checks.pair("l1", l1),
        nonnegative=_checks.boolean("nonnegative", nonnegative),
        weighted=regularization is None if weighted is None else _checks.boolean("weighted", weighted),
        solver=solver,
        alpha=_checks.real("alpha", alpha, positive=False),
        unobserved_weight=_checks.real("unobserved_weight", unobserved_weight, positive=False),
        missing=missing,
    )
    if wishes.unobserved_weight > 1:
        raise ValueError(
            f"unobserved_weight must be at most 1, the least weight of an entry, got {unobserved_weight:g}"
        )
    if decay == "adaptive" and (wishes.nonnegative or any(wishes.l1)):
        raise ValueError("decay='adaptive' goes with neither l1 nor nonnegative; take another decay")
    shuffle, progress = _checks.boolean("shuffle", shuffle), _checks.boolean("progress", progress)
    generator = _generator(rng)
    stopping = _stopping(validation, patience, tol, time_limit)

    known = targets(
        Ratings(R, missing=missing, duplicates=duplicates, dtype=float_type, sample_weight=sample_weight),
        wishes,
    )
    if known.nnz == 0:
        raise ValueError(f"R has no known ratings (shape {known.shape})")
    if wishes.nonnegative and not wishes.biases and (known.values < 0).any():
        n = int((known.values < 0).argmax())
        raise ValueError(
            f"nonnegative=True without biases cannot predict below zero, but R[{known.users[n]}, "
            f"{known.indices[n]}] is {known.values[n]:g}; pass biases=True or shift the ratings"
        )
    training, held_out = _parts(known, validation, generator, wishes, missing=missing, duplicates=duplicates)
    plan = fitting.Plan(
        k=k,
        wishes=wishes,
        schedule=schedule,
        n_threads=_threads(schedule if method == "sgd" else "", n_threads, training.nnz),
        shuffle=shuffle,
        epochs=epochs,
        init=_checked_init(init, known, k, float_type, wishes),
        dtype=float_type,
        stopping=stopping,
        callbacks=[] if callback is None else [callback],
        progress=progress,
    )
    model = fitting.fit(plan, known, training, held_out, generator)
    if held_out is not None and loss != "absolute" and method != "implicit":
        _compare_with_biases(model, training, held_out)
    return model


def _check_belonging(method: str, given: dict[str, Any]) -> None:
    """Refuse arguments that the method does not know, rather than leave them unheeded."""
    for name, (methods_, default) in BELONGS.items():
        value = given[name]
        if method not in methods_ and not (value is default or (np.ndim(value) == 0 and value == default)):
            wanted = " or ".join(f"method={known!r}" for known in methods_)
            raise ValueError(f"{name} goes with {wanted}, but the method is {method!r}")


def _stopping(validation: Any, patience: int | None, tol: float | None, time_limit: float | None) -> Stopping:
    if patience is not None:
        patience = _checks.integer("patience", patience, 1)
        if validation is None:
            raise ValueError(f"patience={patience} needs validation ratings; pass validation=0.1")
    elif validation is not None:
        patience = PATIENCE
    return Stopping(
        patience,
        _checks.optional("tol", tol, positive=False),
        _checks.optional("time_limit", time_limit, positive=True),
    )


def _parts(
    known: Ratings, validation: Any, rng: np.random.Generator, wishes: Settings, **form: str
) -> tuple[Ratings, Ratings | None]:
    """Return what to train with, of some weight, and what to validate with."""
    if known.weights is not None and not known.weights.all():
        known = known.select(known.weights > 0)
    if validation is None:
        return known, None
    if isinstance(validation, numbers.Real):
        share = _checks.real("validation", validation, positive=True)
        if share >= 1:
            raise ValueError(f"validation must be a share between 0 and 1, or ratings, got {share:g}")
        if known.nnz < 2:
            raise ValueError(f"R has {known.nnz} rating; to hold out one takes two")
        count = min(max(1, round(share * known.nnz)), known.nnz - 1)
        return known.hold_out(count, rng, keep_rows=True)
    try:
        held_out = targets(Ratings(validation, dtype=known.dtype, copy=False, **form), wishes)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation: {error}") from None
    if held_out.nnz == 0:
        raise ValueError("validation has no ratings")
    held_out = matched(held_out, (known.users_by_id, known.items_by_id), known.shape, "validation", "R")
    if not wishes.implicit:
        return known, held_out
    inside = within(held_out, known.shape)
    if inside.nnz == 0:
        raise ValueError("validation has no rating of a user and an item that R knows")
    if inside.nnz < held_out.nnz:
        warnings.warn(
            f"{held_out.nnz - inside.nnz:,} of {held_out.nnz:,} validation ratings are left out: they are of "
            "users or items that R does not know",
            stacklevel=4,
        )
    return known, inside


def _compare_with_biases(model: Factors, training: Ratings, held_out: Ratings) -> None:
    """Warn if the factors predict worse than means do."""
    baseline = bias_baseline(training).rmse(held_out)
    best = min(record.validation_rmse for record in model.history if record.validation_rmse is not None)
    if best > baseline:
        warnings.warn(
            f"the validation RMSE of {best:.4g} is above the {baseline:.4g} of the mean and biases alone; "
            + ("try fewer factors or more regularization" if model.settings.biases else "try biases=True"),
            stacklevel=4,
        )


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
                stacklevel=4,
            )
        return 1
    if n_threads is not None:
        return n_threads
    return (
        max(1, min(available_cores(), nnz // RATINGS_A_THREAD)) if schedule == "blocks" else available_cores()
    )


def _checked_init(
    init: Any, R: Ratings, k: int, dtype: np.dtype[Any], wishes: Settings
) -> Factors | tuple[NDArray[Any], NDArray[Any]] | None:
    """Return start values that fit: a model, or P0 and Q0 transposed."""
    if init is None:
        return None
    if isinstance(init, Factors):
        model = Factors.of_state(init.state)  # as it is now, whatever it learns meanwhile
        if init.k != k:
            raise ValueError(f"init has {init.k} factors, but k = {k}")
        if init.settings.biases != wishes.biases:
            has = "biases" if init.settings.biases else "no biases"
            raise ValueError(f"init has {has}, so that biases={init.settings.biases} must be passed")
        fitting.init_rows(model, R)
        for name, X in (("P", model.P), ("Q", model.Q)):
            if wishes.nonnegative and (X < 0).any():
                row, column = np.argwhere(X < 0)[0]
                raise ValueError(
                    f"init must be zero or positive, but its {name}[{row}, {column}] is {X[row, column]}"
                )
        return model
    try:
        P0, Q0 = (np.array(X) for X in init)
    except (TypeError, ValueError):
        raise TypeError("init must be a pair of arrays (P0, Q0), or a model") from None
    for name, given in zip(("P0", "Q0"), init, strict=True):
        _checks.unmasked(name, given)
    m, n = R.shape
    if P0.shape != (m, k) or Q0.shape != (k, n):
        raise ValueError(
            f"init must be P0 of shape {(m, k)} and Q0 of shape {(k, n)}, got {P0.shape} and {Q0.shape}"
        )
    for name, X in (("P0", P0), ("Q0", Q0)):
        _checks.numeric(name, X)
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(X.astype(dtype, copy=False))
        wanted = f"finite, but {{}} in {dtype}"
        if wishes.nonnegative and not bad.any():
            bad, wanted = X < 0, "zero or positive, but {}"
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(f"init must be {wanted.format(f'{name}[{row}, {column}] is {X[row, column]}')}")
    return P0, Q0.T
