"""What a factorization yields: P, Q, biases and how they came about, and all that they can be asked."""

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel import _checks, saving
from mfkernel._arrays import Immutable
from mfkernel._ids import Vocabulary, packed, unpacked
from mfkernel._locks import ProcessLock
from mfkernel._machine import available_cores, available_memory
from mfkernel.convert import MISSING
from mfkernel.engine import ThreadEngine
from mfkernel.explaining import Explanation, explain
from mfkernel.folding import fold_in, updated
from mfkernel.linalg.top_n import Recommendations, top_n
from mfkernel.linalg.top_n import pack_items as panels_of
from mfkernel.objective import Settings, check_settings, prediction, responses, targets
from mfkernel.online import is_one_stranger, matched, of_strangers
from mfkernel.ratings import Ratings
from mfkernel.state import State

FORMATS = range(1, 5)  # that can be read; the last is written
PAIRS_AT_ONCE = 2**20  # times k, that predictions are made of
NO_ITEM = np.iinfo(np.int32).max  # stands under a mask: whatever it indexes is an error


class Epoch(NamedTuple):
    """One pass over the ratings.

    Attributes
    ----------
    epoch
        1 for the first.
    rmse
        Root mean square of the residuals. Of stochastic gradient descent each as it was met, just before its
        own update; after the last epoch ``model.rmse(R)`` is a little lower. Of implicit feedback that of all
        cells, by their weights.
    seconds
        Wall time of this pass.
    learning_rate
        Step size of this pass; None if the method has none.
    validation_rmse
        Root mean square error for the validation ratings after this pass; None without such.
    back_to
        None; of a pass that diverged, the epoch to which training went back, 0 being the start values. The
        next record is of the epoch after that one, with half the step size.
    loss
        Of alternating least squares, the whole objective after this pass; else None.
    validation_ndcg
        Of implicit feedback, the NDCG of the 100 best for the validation entries, of at most 1000 users;
        else None.
    """

    epoch: int
    rmse: float
    seconds: float
    learning_rate: float | None
    validation_rmse: float | None = None
    back_to: int | None = None
    loss: float | None = None
    validation_ndcg: float | None = None

    @property
    def validation_error(self) -> float | None:
        """What the best epoch has least of: the RMSE, or 1 less the NDCG, for what was held out."""
        return self.validation_rmse if self.validation_ndcg is None else 1 - self.validation_ndcg


class Factors(Immutable):
    """Factors P (m, k) and Q (k, n) with R ≈ P·Q, perhaps with biases; unpacks as ``P, Q = factors``.

    Its arrays are read-only copies. Only :meth:`partial_fit` changes it, in one step, so that threads may
    share it: those that ask meanwhile get the answer of the old model or of the new, and those that learn
    wait for one another.

    Parameters
    ----------
    P, Q
        (m, k) user factors and (k, n) item factors, finite, float32 or float64; integers become float64.
    mean
        Mean rating μ; without biases, the prediction for rows and columns without ratings. Under the logistic
        loss the log-odds of a 1, as all scores are.
    user_bias, item_bias
        (m,), (n,) b_u and b_i of the prediction μ + b_u + b_i + p·q; None, both, if it is p·q.
    known_users, known_items
        (m,), (n,) True where there were ratings to learn from; by default everywhere.
    history
        One record an epoch.
    stop_reason
        Why training ended: "epochs" (all done), "converged", "patience", "time limit", "callback" or
        "interrupted".
    settings
        What was minimized and by which steps.
    ratings
        What was learned from, which :meth:`recommend` leaves out and :meth:`partial_fit` goes on from.
    user_ids, item_ids
        (m,), (n,) what the rows and columns are called outside: integers or text, none missing and each once;
        by default those of ``ratings``.

    Attributes
    ----------
    state
        All of this at one moment, as an object that never changes.

    Examples
    --------
    >>> model = Factors([[1.0], [2.0]], [[3.0, 4.0]], mean=5.0)
    >>> float(model.predict(1, 0))
    6.0
    >>> P, Q = model
    >>> (P @ Q).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

    state: State
    _writing: ProcessLock

    _remedy = "a model is changed by partial_fit alone; Factors(P, Q, …) makes a new one"

    def __init__(
        self,
        P: ArrayLike,
        Q: ArrayLike,
        *,
        mean: float = 0.0,
        user_bias: ArrayLike | None = None,
        item_bias: ArrayLike | None = None,
        known_users: ArrayLike | None = None,
        known_items: ArrayLike | None = None,
        history: Sequence[Epoch] = (),
        stop_reason: str = "",
        settings: Settings = Settings(),  # noqa: B008 (immutable)
        ratings: Ratings | None = None,
        user_ids: Any = None,
        item_ids: Any = None,
    ) -> None:
        if "state" in self.__dict__:
            raise AttributeError(f"Factors cannot be made anew: {self._remedy}")
        P, Q = _own("P", P), _own("Q", Q)
        if not (P.ndim == Q.ndim == 2 and P.shape[1] == Q.shape[0] > 0):
            raise ValueError(f"P must be (m, k) and Q (k, n), got {P.shape} and {Q.shape}")
        dtype, (m, n) = np.result_type(P, Q), (P.shape[0], Q.shape[1])
        for name, thing, kind in (("ratings", ratings, Ratings), ("settings", settings, Settings)):
            if not (isinstance(thing, kind) or (thing is None and kind is Ratings)):
                raise TypeError(f"{name} must be mf.{kind.__name__}, got {type(thing).__name__}")
        if not all(isinstance(record, Epoch) for record in history):
            raise TypeError("history must be of mf.Epoch records")
        if (user_bias is None) != (item_bias is None):
            raise ValueError("user_bias and item_bias go together; one of them is None")
        settings = check_settings(settings._replace(biases=user_bias is not None))
        if settings.nonnegative and ((P < 0).any() or (Q < 0).any()):
            raise ValueError("P and Q must not be negative with settings.nonnegative")
        vectors: dict[str, NDArray[Any] | None] = {"user_bias": None, "item_bias": None}
        if user_bias is not None and item_bias is not None:
            for name, bias in (("user_bias", user_bias), ("item_bias", item_bias)):
                vectors[name] = _own(name, bias, dtype)
        for name, known, size in (("known_users", known_users, m), ("known_items", known_items, n)):
            vectors[name] = _mask(name, np.ones(size, np.bool_) if known is None else known)
        for name, vector in vectors.items():
            size = m if "user" in name else n
            if vector is not None and vector.shape != (size,):
                raise ValueError(f"{name} must have the shape ({size},), got {vector.shape}")
        if ratings is not None:
            if ratings.shape != (m, n):
                raise ValueError(f"ratings must have the model's shape {(m, n)}, got {ratings.shape}")
            targets(ratings, settings)  # of the kind that the loss takes
            user_ids = ratings.users_by_id if user_ids is None else user_ids
            item_ids = ratings.items_by_id if item_ids is None else item_ids
        users, items = Vocabulary.of("user_ids", user_ids, m), Vocabulary.of("item_ids", item_ids, n)
        if ratings is not None and not (ratings.users_by_id is users and ratings.items_by_id is items):
            ratings = Ratings._of(ratings._csr(), users, items, ratings.weights)
        self._become(
            State(
                P=P.astype(dtype, copy=False),
                Q=Q.astype(dtype, copy=False),
                mean=_number("mean", mean, dtype),
                history=tuple(history),
                stop_reason=str(stop_reason),
                settings=settings,
                ratings=ratings,
                users=users,
                items=items,
                **vectors,  # type: ignore[arg-type]
            )
        )

    @classmethod
    def of_state(cls, state: State) -> "Factors":
        """Make a model of a state."""
        model = cls.__new__(cls)
        model._become(state)
        return model

    def _become(self, state: State) -> None:
        self.__dict__.setdefault("_writing", ProcessLock())
        self.__dict__["state"] = state

    def __reduce__(self) -> tuple[Any, ...]:
        return Factors.of_state, (self.state,)  # the lock stays here

    @property
    def P(self) -> NDArray[Any]:  # noqa: N802 (the field's name)
        """(m, k) user factors."""
        return self.state.P

    @property
    def Q(self) -> NDArray[Any]:  # noqa: N802 (the field's name)
        """(k, n) item factors."""
        return self.state.Q

    @property
    def mean(self) -> float:
        """Mean rating μ."""
        return self.state.mean

    @property
    def user_bias(self) -> NDArray[Any] | None:
        """(m,) b_u, or None."""
        return self.state.user_bias

    @property
    def item_bias(self) -> NDArray[Any] | None:
        """(n,) b_i, or None."""
        return self.state.item_bias

    @property
    def known_users(self) -> NDArray[np.bool_]:
        """(m,) True where there were ratings to learn from."""
        return self.state.known_users

    @property
    def known_items(self) -> NDArray[np.bool_]:
        """(n,) True where there were ratings to learn from."""
        return self.state.known_items

    @property
    def history(self) -> list[Epoch]:
        """One record per epoch."""
        return list(self.state.history)

    @property
    def stop_reason(self) -> str:
        """Why training ended."""
        return self.state.stop_reason

    @property
    def settings(self) -> Settings:
        """What was minimized and by which steps."""
        return self.state.settings

    @property
    def ratings(self) -> Ratings | None:
        """What was learned from, if the model holds it."""
        return self.state.ratings

    @property
    def user_ids(self) -> NDArray[Any] | None:
        """(m,) what the rows are called outside, or None."""
        return self.state.user_ids

    @property
    def item_ids(self) -> NDArray[Any] | None:
        """(n,) what the columns are called outside, or None."""
        return self.state.item_ids

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of R."""
        return self.state.shape

    @property
    def k(self) -> int:
        """Number of factors."""
        return self.state.k

    def __iter__(self) -> Iterator[NDArray[Any]]:
        state = self.state
        return iter((state.P, state.Q))

    def __repr__(self) -> str:
        state = self.state
        (m, n), rmse = state.shape, f", rmse {state.history[-1].rmse:.4g}" if state.history else ""
        biases = "" if state.user_bias is None else ", biases"
        return f"Factors(P {m:,} × {state.k}, Q {state.k} × {n:,}{biases}, {state.P.dtype}{rmse})"

    def predict(self, users: ArrayLike, items: ArrayLike) -> NDArray[Any]:
        """Predict the rating of each user for each item.

        Parameters
        ----------
        users, items
            Row and column numbers, of any shapes that broadcast: ``predict(3, [0, 7])``,
            ``predict(users[:, None], items)``.

        Returns
        -------
        ndarray
            μ + b_u + b_i + p·q with biases; without, p·q where both have ratings, else the mean rating. Of
            the broadcast shape and P's dtype. Under the logistic loss, the probability of a 1.

        Raises
        ------
        TypeError, ValueError
            If a number is no integer, negative, or beyond the last row or column.
        """
        state = self.state
        rows, columns = np.broadcast_arrays(state.rows(users), state.columns(items))
        result = np.empty(rows.shape, state.P.dtype)
        flat, start = result.reshape(-1), 0
        # some pairs at a time: the gathered factors stay in cache, and broadcast numbers are not copied whole
        pairs = np.nditer(
            [rows, columns],
            ["external_loop", "buffered", "zerosize_ok"],
            [["readonly"], ["readonly"]],
            order="C",
            buffersize=max(1, PAIRS_AT_ONCE // state.k),
        )
        for u, i in pairs:
            flat[start : start + u.size] = prediction(state.scores(u, i), state.settings.loss)
            start += u.size
        return result[()] if result.ndim == 0 else result

    def expected(self, R: Ratings, name: str = "R") -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the ratings R as the loss knows them, and what is predicted for each, (nnz,) both.

        Where R and the model have ids, ratings are found by these, whatever their order and R's shape; a user
        or an item that the model does not know gets the default prediction: the mean, or with biases the mean
        and the bias of the other one. Without ids, R has the model's shape.
        """
        state = self.state
        ratings = targets(matched(R, (state.users, state.items), state.shape, name), state.settings)
        if ratings.nnz == 0:
            raise ValueError(f"{name} has no ratings to compare with")
        if ratings.users.min() >= state.shape[0] or ratings.items.min() >= state.shape[1]:
            warnings.warn(f"the model knows no user, or no item, of {name}", stacklevel=3)
        predicted = np.empty(ratings.nnz, state.P.dtype)
        step = max(1, PAIRS_AT_ONCE // state.k)
        for start in range(0, ratings.nnz, step):
            part = slice(start, start + step)
            scores = state.scores(ratings.users[part], ratings.items[part])
            predicted[part] = prediction(scores, state.settings.loss)
        return responses(ratings, state.settings), predicted

    def augmented(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return P (m, k + 2) and Q (k + 2, n) whose product is every prediction, biases and mean included.

        For vector indices and other programs that know only products. The two last coordinates are
        μ + b_u and 1, times 1 and b_i. Without biases they give the mean where there are no ratings, and are
        zero if there are ratings everywhere. Under the logistic loss, the product is of log-odds.
        """
        state = self.state
        gaps = state.has_gaps
        return state.user_vectors(slice(None), gaps), state.item_vectors(slice(None), gaps).T

    def reconstruct(self) -> NDArray[Any]:
        """Return all m × n predictions: P @ Q, or what biases and the loss make of it.

        Without biases, rows and columns without ratings come as near to the mean as k factors can
        (``predict`` gives the mean itself).

        Raises
        ------
        MemoryError
            If the product would not fit in the memory that is free; the message says its size.
        """
        state = self.state
        (m, n), dtype = state.shape, state.P.dtype
        size, free = m * n * dtype.itemsize, available_memory()
        if free is not None and size > free:
            raise MemoryError(
                f"P @ Q is {m:,} × {n:,} {dtype}, {size / 2**30:,.1f} GiB, but only "
                f"{free / 2**30:,.1f} GiB is free; predict(users, items) gives the cells that you need"
            )
        scores = np.asarray(state.P @ state.Q)
        if state.user_bias is not None and state.item_bias is not None:
            scores += (state.mean + state.user_bias).astype(dtype)[:, None]
            scores += state.item_bias
        return prediction(scores, state.settings.loss)

    def rmse(self, R: Any, *, missing: str | None = None, duplicates: str = "raise") -> float:
        """Root mean square error of the predictions for the ratings R.

        ``R``, ``missing`` and ``duplicates`` are as for :class:`Ratings`; a dense table is read as
        ``factorize`` was told, unless ``missing`` is given. Where R and the model have ids, ratings are found
        by these, and unknown users and items get the default prediction; else R has the model's shape. Under
        the logistic loss, R is of -1 and 1, or 0 and 1, and what is compared with are probabilities.
        """
        missing = self.settings.missing if missing is None else missing
        values, predicted = self.expected(Ratings(R, missing=missing, duplicates=duplicates, copy=False))
        return float(np.sqrt(np.mean(np.square(values - predicted, dtype=np.float64))))

    @_checks.explains_names
    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        items: ArrayLike | None = None,
        missing: str | None = None,
        n_threads: int | None = None,
    ) -> Recommendations:
        """Find the n items with the highest predictions for each user.

        Parameters
        ----------
        users
            Row number of a user, or a list or 1-D array of such; or ratings of new users, in the forms of
            :meth:`fold_in`, for whom factors are found first.
        n
            How many items.
        exclude_seen
            Leave out what the user has rated.
        items
            Column numbers to choose from; by default all.
        missing
            What is unknown in a dense table of new users' ratings; by default as ``factorize`` was told.
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, best first; of equal scores, the lower column number first. Scores are
            as ``predict`` gives them. For one user they have n entries, or fewer where fewer items are left;
            for s users they are masked arrays (s, n), or (s, n_items) if n is more, masked where nothing is
            left.
            Users without ratings, of whom a model without biases knows nothing, get the items that have been
            rated most often.

        Raises
        ------
        TypeError, ValueError
            If a number is no integer or out of range; if seen items shall be left out, or a user has no
            ratings, and the model has no ``ratings``.

        Examples
        --------
        >>> model = Factors([[1.0], [2.0]], [[3.0, 5.0, 4.0]])
        >>> model.recommend(0, 2, exclude_seen=False).items
        array([1, 2], dtype=int32)
        """
        n, state = _checks.integer("n", n, 1), self.state
        if missing is not None:
            _checks.one_of("missing", missing, MISSING)
        if _are_numbers(users):
            rows = state.rows(users)
            one, asked, rows = rows.ndim == 0, state, rows.reshape(-1)
            seen = state.seen(rows) if exclude_seen else None
        else:
            new = _folded(state, users, missing, "raise", (None, None), n_threads)
            one, asked, rows = is_one_stranger(users), new, np.arange(new.shape[0])
            seen = new.ratings if exclude_seen else None
        X, only = state.queries(asked, rows)
        allowed = None
        if items is not None:
            allowed = np.zeros(state.shape[1], np.bool_)
            allowed[state.columns(items)] = True
        excluded = None if seen is None else (seen.indptr, seen.indices)
        with _engine(n_threads) as engine:
            found = top_n(X, state.item_panels(panels_of), n, engine, excluded=excluded, allowed=allowed)
        scores = np.where(np.isnan(only)[:, None], found.scores, only[:, None])
        return _answer(found.items, prediction(scores, state.settings.loss), one)

    def similar_items(self, items: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n items whose factors have the greatest cosine with those of an item, or of several.

        Parameters
        ----------
        items
            Column number, or a 1-D array of such.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, the cosines, best first, in the forms of :meth:`recommend`. Neither the
            item itself nor one without ratings is among them, and an item without ratings is similar to
            nothing.
        """
        state = self.state
        return _similar(state.columns(items), "items", n, state.Q.T, state.known_items)

    def similar_users(self, users: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n users whose factors have the greatest cosine with those of a user, or of several.

        As :meth:`similar_items`; ``items`` of the answer are row numbers of users.
        """
        state = self.state
        return _similar(state.rows(users), "users", n, state.P, state.known_users)

    def explain(self, user: int, item: int, n: int = 10) -> Explanation:
        r"""Take the prediction for a user and an item apart.

        Given the items' factors, the least squares factors of a user are a sum over what he has rated: so
        the factors' part is a sum of :math:`w_j \, q_i^T A^{-1} q_j (r_j - \mu - b_u - b_j)` over his ratings
        j, with :math:`A = \sum w_j q_j q_j^T + \lambda c I`, and of what the trained factors add to that. Of
        implicit feedback it is one of :math:`q_i^T A^{-1} q_j (1 + \alpha r_j)`, with
        :math:`A = \sum (1 + \alpha r_j - w_0) q_j q_j^T + w_0 Q Q^T + \lambda c I`.

        Under other losses than the squared one there is no such sum. There the contribution of a rating is by
        how much the score would fall without it, if the user's factors and bias were found again: exactly
        under the absolute loss, and where it is one of few or has a say of its own; else to first order, by
        influence functions.

        Returns
        -------
        Explanation
            ``score = mean + user_bias + item_bias + Σ contributions + rest``, of which the n largest
            contributions and their items are listed, and ``rest`` has the others.

        Raises
        ------
        ValueError
            If the model does not hold its ratings.

        References
        ----------
        Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
        Koh and Liang, "Understanding black-box predictions via influence functions", ICML 2017.
        """
        n, state = _checks.integer("n", n, 1), self.state
        return explain(state, _single(state.rows, "user", user), _single(state.columns, "item", item), n)

    @_checks.explains_names
    def fold_in(
        self,
        ratings: Any,
        *,
        regularization: float | None = None,
        bias_regularization: float | None = None,
        missing: str | None = None,
        duplicates: str = "raise",
        n_threads: int | None = None,
    ) -> "Factors":
        r"""Find factors for users who were not there in training, given the items' factors as they are.

        Each row is the exact minimum of the model's objective over this user's factors and bias: of the
        squared loss, a ridge regression, with :math:`n_u \lambda` where λ is per rating; of implicit
        feedback, over all items.

        Parameters
        ----------
        ratings
            Of one stranger ``{item: rating}`` or a pair ``(items, ratings)``, items by column number; of
            several anything that :class:`Ratings` takes, a row each and a column for each item of the model.
            A ``Ratings`` with item ids is read by these.
        regularization, bias_regularization
            λ and the biases' λ, per rating or per row as in training; by default the model's own.
        missing, duplicates
            As for :class:`Ratings`; a dense table is by default read as ``factorize`` was told.
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Factors
            A model of the new users: ``P`` (s, k), ``user_bias`` (s,), the items as they are, and their
            ratings. Who has none is predicted as any user without ratings.

        Raises
        ------
        KeyError
            If a rating is of an item id that the model does not know.

        Examples
        --------
        >>> model = Factors([[1.0]], [[3.0, 5.0, 4.0]])
        >>> model.fold_in({0: 1.5, 2: 2.0}, regularization=0).P
        array([[0.5]])
        """
        penalties = regularization, bias_regularization
        return Factors.of_state(_folded(self.state, ratings, missing, duplicates, penalties, n_threads))

    @_checks.explains_names
    def partial_fit(
        self,
        R: Any,
        *,
        missing: str | None = None,
        duplicates: str = "raise",
        n_threads: int | None = None,
    ) -> "Factors":
        """Learn new ratings, also of new users and items, without training anew; change this model.

        A new rating replaces an old one of the same cell. Rows and columns with new ratings, and only these,
        are solved again for all their ratings, by turns: users given the items, items given the users.
        P and Q become new arrays, with rows and columns for new users and items, in one step at the end: if
        anything fails, the model stays as it was. Several threads may learn at the same time; each waits for
        the one before.

        Parameters
        ----------
        R
            New ratings, as for :class:`Ratings`. Users and items are those of the model with the same id, or
            number if it has no ids; numbers beyond the last, and new ids, are new users and items.
        missing, duplicates
            As for :class:`Ratings`; a dense table is by default read as ``factorize`` was told.
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Factors
            This model.
        """
        settings, dtype = self.state.settings, self.state.P.dtype
        missing = settings.missing if missing is None else missing
        with _engine(n_threads) as engine:
            new = targets(Ratings(R, missing=missing, duplicates=duplicates, dtype=dtype), settings)
            with self._writing.own():
                state = self.state
                if state.ratings is None:
                    raise ValueError(
                        "this model does not hold the ratings that it was made of; new ones need them"
                    )
                self._become(updated(state, state.ratings, new, engine))
        return self

    def user_rows(self, ids: Any) -> NDArray[np.intp]:
        """Translate user ids, of any shape, to row numbers, for ``predict``.

        Raises
        ------
        KeyError
            For the first that the model does not have.
        """
        return _positions("user", self.state.users, ids)

    def item_columns(self, ids: Any) -> NDArray[np.intp]:
        """Translate item ids, of any shape, to column numbers, for ``predict``.

        Raises
        ------
        KeyError
            For the first that the model does not have.
        """
        return _positions("item", self.state.items, ids)

    def save(self, path: str | os.PathLike[str], *, ratings: bool = True) -> None:
        """Write the model to one ``.npz`` file, without pickle.

        An older file is replaced only when all is written. P, Q, biases and ids are the arrays ``P``, ``Q``,
        ``user_bias``, ``item_bias``, ``user_ids`` and ``item_ids`` of that file. With ``ratings=False`` it
        does not hold what was learned from: smaller, and nobody's ratings are passed on, but what is read
        again cannot leave out what a user has rated, nor go on learning.
        """
        state = self.state
        header = {
            "format": FORMATS[-1],
            "mean": state.mean,
            "stop_reason": state.stop_reason,
            "settings": state.settings._asdict(),
        }
        history = np.array(state.history, np.float64).reshape(-1, len(Epoch._fields))  # None becomes nan
        names = ("P", "Q", "user_bias", "item_bias", "known_users", "known_items")
        arrays = {name: getattr(state, name) for name in names} | {"history": history}
        arrays |= packed("user_ids", state.user_ids) | packed("item_ids", state.item_ids)
        if ratings and state.ratings is not None:
            parts = {name: getattr(state.ratings, name) for name in RATINGS_ARRAYS}
            arrays |= {f"ratings_{name}": array for name, array in parts.items()}
        saving.write(path, header, arrays)


def _folded(
    state: State,
    ratings: Any,
    missing: str | None,
    duplicates: str,
    penalties: tuple[float | None, float | None],
    n_threads: int | None,
) -> State:
    """Return a state of new users with these ratings."""
    form = {"missing": state.settings.missing if missing is None else missing, "duplicates": duplicates}
    new = of_strangers(ratings, state.shape[1], state.items, state.P.dtype, **form)
    with _engine(n_threads) as engine:
        return fold_in(state, targets(new, state.settings), engine, *penalties)


def _answer(items: NDArray[np.int32], scores: NDArray[Any], one: bool) -> Recommendations:
    """Leave out what was not found: cut the answer for one row, mask it for several."""
    missing = items < 0
    if one:
        return Recommendations(items[0][~missing[0]], scores[0][~missing[0]])
    items = np.where(missing, NO_ITEM, items)
    return Recommendations(
        np.ma.array(items, mask=missing, fill_value=NO_ITEM),
        np.ma.array(scores, mask=missing, fill_value=np.nan),
    )


def _similar(
    rows: NDArray[Any], name: str, n: int, X: NDArray[Any], known: NDArray[np.bool_]
) -> Recommendations:
    n = _checks.integer("n", n, 1)
    if rows.ndim > 1:
        raise ValueError(f"{name} must be a number or a 1-D array, got the shape {rows.shape}")
    largest = np.abs(X).max(axis=1, keepdims=True, initial=0)
    Y = X / np.where(largest > 0, largest, 1)  # whose squares neither overflow nor vanish
    lengths = np.linalg.norm(Y, axis=1, keepdims=True)
    Y = np.ascontiguousarray(Y / np.where(lengths > 0, lengths, 1))
    known = known & (lengths[:, 0] > 0)
    asked = rows.reshape(-1)
    itself = np.arange(asked.size + 1), asked.astype(np.int32)
    with _engine(None) as engine:
        found = top_n(Y[asked], panels_of(Y), n, engine, excluded=itself, allowed=known)
    return _answer(np.where(known[asked, None], found.items, -1), found.scores, rows.ndim == 0)


def _positions(kind: str, vocabulary: Vocabulary | None, ids: Any) -> NDArray[np.intp]:
    if vocabulary is None:
        raise ValueError(f"this model has no {kind} ids: its ratings were given by row and column number")
    return vocabulary.positions(kind, ids)


def _single(check: Any, name: str, number: Any) -> int:
    """Return one row or column number."""
    array = check(number, name)
    if array.ndim:
        raise TypeError(f"{name} must be one number, got the shape {array.shape}")
    return int(array)


def _are_numbers(users: Any) -> bool:
    """Whether these are row numbers, rather than ratings of strangers."""
    if isinstance(users, tuple):
        return all(np.ndim(u) == 0 for u in users)
    if isinstance(users, Ratings | Mapping) or hasattr(users, "tocsr"):
        return False
    return np.ndim(users) < 2


def _engine(n_threads: int | None) -> ThreadEngine:
    if n_threads is not None:
        n_threads = _checks.integer("n_threads", n_threads, 1)
    return ThreadEngine(n_threads or available_cores())


RATINGS_ARRAYS = ("indptr", "indices", "values", "weights")


def load(path: str | os.PathLike[str]) -> Factors:
    """Read a model that ``Factors.save`` wrote, also one of an earlier version.

    Raises
    ------
    ValueError
        If the file is no such model, or of a newer version.
    """
    header, arrays = saving.read(path, FORMATS)
    try:
        records = arrays.pop("history").astype(np.float64).tolist()
        parts: dict[str, Any] = {name: arrays.pop(f"ratings_{name}", None) for name in RATINGS_ARRAYS}
        ids = {name: unpacked(name, arrays) for name in ("user_ids", "item_ids")}
        ratings = None
        if parts["indptr"] is not None:
            ratings = Ratings.of_csr(**parts, shape=(arrays["P"].shape[0], arrays["Q"].shape[1]))
        return Factors(
            **arrays,
            **ids,
            mean=header["mean"],
            history=[_record(*record) for record in records],
            stop_reason=str(header.get("stop_reason", "")),
            settings=_settings(header.get("settings", {})),
            ratings=ratings,
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not a whole model ({error})") from error


def _record(epoch: float, *rest: float) -> Epoch:
    numbers = [None if math.isnan(x) else x for x in rest]
    record = Epoch(int(epoch), *numbers)  # type: ignore[arg-type]
    return record if record.back_to is None else record._replace(back_to=int(record.back_to))


def _settings(names: dict[str, Any]) -> Settings:
    values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in names.items()}
    return Settings(**values)


def _own(name: str, factors: ArrayLike, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Return a copy of factors or biases, which must be finite; integers become float64."""
    _checks.unmasked(name, factors)
    array = np.array(factors)
    _checks.numeric(name, array)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(
            f"{name} must be float32 or float64 in native byte order, got {array.dtype.str}; pass "
            f"{name}.astype(np.float64)"
        )
    with np.errstate(over="ignore"):
        result = array if dtype is None else array.astype(dtype, copy=False)
    known = np.isfinite(result)
    if not known.all():
        raise ValueError(f"{name} must be finite in {result.dtype}, got {_checks.first(name, array, ~known)}")
    return result


def _number(name: str, number: Any, dtype: np.dtype[Any]) -> float:
    """Return a number that is finite in ``dtype``."""
    try:
        result = float(number)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {number!r}") from None
    with np.errstate(over="ignore"):
        if not np.isfinite(dtype.type(result)):
            raise ValueError(f"{name} must be finite in {dtype}, got {number!r}")
    return result


def _mask(name: str, known: ArrayLike) -> NDArray[np.bool_]:
    """Return a copy of a mask of True and False."""
    array = np.array(known)
    if array.dtype != np.bool_ and array.size:
        raise TypeError(f"{name} must be True or False for each row or column, got dtype {array.dtype}")
    return array.astype(np.bool_)
