"""What a factorization yields: P, Q, biases and how they came about, and all that they can be asked."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel import _checks, saving
from mfkernel._ids import positions
from mfkernel._lazy import lazy
from mfkernel._machine import available_cores, available_memory
from mfkernel._rows import padded
from mfkernel.engine import ThreadEngine
from mfkernel.objective import Settings, penalty_scale, prediction, responses, targets
from mfkernel.online import grown, is_one_stranger, merged, of_strangers
from mfkernel.ranking import Panels, Recommendations, panels_of, top_n
from mfkernel.ratings import Ratings, check_ids
from mfkernel.ridge import Implicit, Penalty, gram, solve_rows

FORMATS = range(1, 4)  # that can be read; the last is written
SWEEPS = 2  # of solving users and items by turns, where both have new ratings


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


class Factors:
    """Factors P (m, k) and Q (k, n) with R ≈ P·Q, perhaps with biases; unpacks as ``P, Q = factors``.

    Parameters
    ----------
    P, Q
        (m, k) user factors and (k, n) item factors.
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
        (m,), (n,) what the rows and columns are called outside.

    Examples
    --------
    >>> model = Factors([[1.0], [2.0]], [[3.0, 4.0]], mean=5.0)
    >>> float(model.predict(1, 0))
    6.0
    >>> P, Q = model
    >>> (P @ Q).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

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
        user_ids: ArrayLike | None = None,
        item_ids: ArrayLike | None = None,
    ) -> None:
        self.P, self.Q = _real("P", P), _real("Q", Q)
        if not (self.P.ndim == self.Q.ndim == 2 and self.P.shape[1] == self.Q.shape[0] > 0):
            raise ValueError(f"P must be (m, k) and Q (k, n), got {self.P.shape} and {self.Q.shape}")
        m, n = self.shape
        self.mean = float(mean)
        if (user_bias is None) != (item_bias is None):
            raise ValueError("user_bias and item_bias go together; one of them is None")
        self.user_bias = None if user_bias is None else _real("user_bias", user_bias)
        self.item_bias = None if item_bias is None else _real("item_bias", item_bias)
        self.known_users = np.ones(m, np.bool_) if known_users is None else np.asarray(known_users, np.bool_)
        self.known_items = np.ones(n, np.bool_) if known_items is None else np.asarray(known_items, np.bool_)
        self.history, self.stop_reason = list(history), stop_reason
        self.settings = settings._replace(biases=self.user_bias is not None)
        self.ratings = ratings
        self.user_ids = check_ids("user_ids", user_ids, m)
        self.item_ids = check_ids("item_ids", item_ids, n)
        for name, size in (("known_users", m), ("known_items", n), ("user_bias", m), ("item_bias", n)):
            array = getattr(self, name)
            if array is not None and array.shape != (size,):
                raise ValueError(f"{name} must have the shape ({size},), got {array.shape}")
        if ratings is not None and ratings.shape != self.shape:
            raise ValueError(f"ratings must have the model's shape {self.shape}, got {ratings.shape}")
        if ratings is not None and not (ratings.user_ids is user_ids and ratings.item_ids is item_ids):
            self.ratings = Ratings(ratings, user_ids=self.user_ids, item_ids=self.item_ids)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of R."""
        return self.P.shape[0], self.Q.shape[1]

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.P.shape[1])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.P, self.Q))

    def __repr__(self) -> str:
        (m, n), rmse = self.shape, f", rmse {self.history[-1].rmse:.4g}" if self.history else ""
        biases = "" if self.user_bias is None else ", biases"
        return f"Factors(P {m:,} × {self.k}, Q {self.k} × {n:,}{biases}, {self.P.dtype}{rmse})"

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
        m, n = self.shape
        rows, columns = np.broadcast_arrays(
            _checks.bounded("users", users, m, "n_users"), _checks.bounded("items", items, n, "n_items")
        )
        result = np.empty(rows.shape, self.P.dtype)
        item_rows, flat, start = self.Q.T, result.reshape(-1), 0
        # some pairs at a time: the gathered factors stay in cache, and broadcast numbers are not copied whole
        pairs = np.nditer(
            [rows, columns],
            ["external_loop", "buffered", "zerosize_ok"],
            [["readonly"], ["readonly"]],
            order="C",
            buffersize=max(1, 2**20 // self.k),
        )
        for u, i in pairs:
            scores = np.einsum("nk,nk->n", self.P[u], item_rows[i])
            if self.user_bias is not None and self.item_bias is not None:
                scores += self.mean + self.user_bias[u] + self.item_bias[i]
            else:
                scores = np.where(self.known_users[u] & self.known_items[i], scores, self.mean)
            flat[start : start + u.size] = prediction(scores, self.settings.loss)
            start += u.size
        return result[()] if result.ndim == 0 else result

    def augmented(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return P (m, k + 2) and Q (k + 2, n) whose product is every prediction, biases and mean included.

        For vector indices and other programs that know only products. The two last coordinates are
        μ + b_u and 1, times 1 and b_i. Without biases they give the mean where there are no ratings, and are
        zero if there are ratings everywhere. Under the logistic loss, the product is of log-odds.
        """
        return self._user_scoring(slice(None)), self._item_scoring(slice(None)).T

    def _user_scoring(self, users: Any) -> NDArray[Any]:
        """Return the rows of the augmented P, (s, k + 2), of some users."""
        P, known = self.P[users], self.known_users[users]
        X = np.empty((len(P), self.k + 2), self.P.dtype)
        X[:, :-2] = P
        if self.user_bias is not None:
            X[:, -2], X[:, -1] = self.mean + self.user_bias[users], 1
        elif self._has_gaps:  # known_u known_i (p·q - μ) + μ
            X[:, :-2] *= known[:, None]
            X[:, -2], X[:, -1] = self.mean, known
        else:
            X[:, -2:] = 0
        return X

    def _item_scoring(self, items: Any) -> NDArray[Any]:
        """Return the rows of the augmented Qᵀ, (s, k + 2), of some items."""
        Q, known = self.Q.T[items], self.known_items[items]
        Y = np.empty((len(Q), self.k + 2), self.P.dtype)
        Y[:, :-2] = Q
        if self.item_bias is not None:
            Y[:, -2], Y[:, -1] = 1, self.item_bias[items]
        elif self._has_gaps:
            Y[:, :-2] *= known[:, None]
            Y[:, -2], Y[:, -1] = 1, -self.mean * known
        else:
            Y[:, -2:] = 0
        return Y

    @lazy
    def _item_panels(self) -> Panels:
        return panels_of(self._item_scoring(slice(None)))

    @lazy
    def _item_gram(self) -> NDArray[np.float64]:
        with _engine(1) as engine:
            return gram(padded(self.Q.T), engine, np.dtype(np.float64))[: self.k, : self.k]

    @property
    def _has_gaps(self) -> bool:
        return not (self.known_users.all() and self.known_items.all())

    def reconstruct(self) -> NDArray[Any]:
        """Return all m × n predictions: P @ Q, or what biases and the loss make of it.

        Without biases, rows and columns without ratings come as near to the mean as k factors can
        (``predict`` gives the mean itself).

        Raises
        ------
        MemoryError
            If the product would not fit in the memory that is free; the message says its size.
        """
        m, n = self.shape
        size, free = m * n * self.P.dtype.itemsize, available_memory()
        if free is not None and size > free:
            raise MemoryError(
                f"P @ Q is {m:,} × {n:,} {self.P.dtype}, {size / 2**30:,.1f} GiB, but only "
                f"{free / 2**30:,.1f} GiB is free; predict(users, items) gives the cells that you need"
            )
        scores = np.asarray(self.P @ self.Q)
        if self.user_bias is not None and self.item_bias is not None:
            scores += (self.mean + self.user_bias).astype(scores.dtype)[:, None]
            scores += self.item_bias.astype(scores.dtype, copy=False)
        return prediction(scores, self.settings.loss)

    def rmse(self, R: Any, *, missing: str = "zero", duplicates: str = "raise") -> float:
        """Root mean square error of the predictions for the ratings R.

        ``R``, ``missing`` and ``duplicates`` are as for :class:`Ratings`; R has the model's shape. Under the
        logistic loss, R is of -1 and 1, or 0 and 1, and what is compared with are probabilities.
        """
        ratings = targets(Ratings(R, missing=missing, duplicates=duplicates, copy=False), self.settings)
        if ratings.shape != self.shape:
            raise ValueError(
                f"R must have the model's shape {self.shape}, got {ratings.shape} (triplets may name a shape)"
            )
        if ratings.nnz == 0:
            raise ValueError("R has no ratings to compare with")
        residuals = responses(ratings, self.settings) - self.predict(ratings.users, ratings.items)
        return float(np.sqrt(np.mean(np.square(residuals, dtype=np.float64))))

    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        items: ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> Recommendations:
        """Find the n items with the highest predictions for each user.

        Parameters
        ----------
        users
            Row number of a user, or a list or 1-D array of such; or ratings of strangers, in the forms of
            :meth:`fold_in`, for whom factors are found first.
        n
            How many items.
        exclude_seen
            Leave out what the user has rated.
        items
            Column numbers to choose from; by default all.
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, (n,) for one user and (s, n) for several, best first; of equal scores,
            the lower column number first. Scores are as ``predict`` gives them. Where fewer than n items are
            left, items end with -1 and scores with nan.

        Raises
        ------
        TypeError, ValueError
            If a number is no integer or out of range; if seen items shall be left out, and the model has no
            ``ratings``.

        Examples
        --------
        >>> model = Factors([[1.0], [2.0]], [[3.0, 5.0, 4.0]])
        >>> model.recommend(0, 2, exclude_seen=False).items
        array([1, 2], dtype=int32)
        """
        n = _checks.integer("n", n, 1)
        if _are_numbers(users):
            rows = _checks.bounded("users", users, self.shape[0], "n_users")
            one, X, known = rows.ndim == 0, self._user_scoring(rows.reshape(-1)), self.ratings
            if exclude_seen and known is None:
                raise ValueError(
                    "this model does not hold the ratings that it was made of, so that it cannot leave out "
                    "what a user has rated; pass exclude_seen=False"
                )
            seen = known.take_rows(rows.reshape(-1)) if exclude_seen and known is not None else None
        else:
            strangers = self.fold_in(users, n_threads=n_threads)
            one, X = is_one_stranger(users), strangers._user_scoring(slice(None))
            seen = strangers.ratings if exclude_seen else None
        allowed = None
        if items is not None:
            allowed = np.zeros(self.shape[1], np.bool_)
            allowed[_checks.bounded("items", items, self.shape[1], "n_items")] = True
        excluded = None if seen is None else (seen.indptr, seen.indices)
        with _engine(n_threads) as engine:
            found = top_n(X, self._item_panels, n, engine, excluded=excluded, allowed=allowed)
        scores = prediction(found.scores, self.settings.loss)
        return Recommendations(found.items[0], scores[0]) if one else Recommendations(found.items, scores)

    def similar_items(self, items: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n items whose factors have the greatest cosine with those of an item, or of several.

        Parameters
        ----------
        items
            Column number, or a 1-D array of such.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, the cosines, (n,) or (s, n), best first. Neither the item itself nor
            one without ratings is among them; what is left is -1 and nan.
        """
        return self._similar("items", items, n, self.Q.T, self.known_items)

    def similar_users(self, users: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n users whose factors have the greatest cosine with those of a user, or of several.

        As :meth:`similar_items`; ``items`` of the answer are row numbers of users.
        """
        return self._similar("users", users, n, self.P, self.known_users)

    def _similar(
        self, name: str, numbers: ArrayLike, n: int, X: NDArray[Any], known: NDArray[np.bool_]
    ) -> Recommendations:
        n = _checks.integer("n", n, 1)
        rows = _checks.bounded(name, numbers, len(X), f"n_{name}")
        if rows.ndim > 1:
            raise ValueError(f"{name} must be a number or a 1-D array, got the shape {rows.shape}")
        lengths = np.linalg.norm(X, axis=1, keepdims=True)
        Y = np.ascontiguousarray(X / np.where(lengths > 0, lengths, 1))
        asked = rows.reshape(-1)
        itself = np.arange(asked.size + 1), asked.astype(np.int32)
        with _engine(None) as engine:
            found = top_n(
                Y[asked], panels_of(Y), n, engine, excluded=itself, allowed=known & (lengths[:, 0] > 0)
            )
        return Recommendations(found.items[0], found.scores[0]) if rows.ndim == 0 else found

    def explain(self, user: int, item: int, n: int = 10) -> "Explanation":
        r"""Take the prediction for a user and an item apart.

        Given the items' factors, the least squares factors of a user are a sum over what he has rated: so
        the factors' part is a sum of :math:`w_j \, q_i^T A^{-1} q_j (r_j - \mu - b_u - b_j)` over his ratings
        j, with :math:`A = \sum w_j q_j q_j^T + \lambda c I`, and of what the trained factors add to that. Of
        implicit feedback it is one of :math:`q_i^T A^{-1} q_j (1 + \alpha r_j)`, with
        :math:`A = \sum (1 + \alpha r_j - w_0) q_j q_j^T + w_0 Q Q^T + \lambda c I`.

        Returns
        -------
        Explanation
            ``score = mean + user_bias + item_bias + Σ contributions + rest``, of which the n largest
            contributions and their items are listed, and ``rest`` has the others.

        References
        ----------
        Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
        """
        if self.ratings is None:
            raise ValueError("this model does not hold the ratings that it was made of; none can explain it")
        n = _checks.integer("n", n, 1)
        u = int(_checks.bounded("user", user, self.shape[0], "n_users"))
        i = int(_checks.bounded("item", item, self.shape[1], "n_items"))
        score = float(self._user_scoring([u])[0].astype(np.float64) @ self._item_scoring([i])[0])
        mean = user_bias = item_bias = 0.0
        row = self.ratings.take_rows(np.array([u]))
        residuals = row.values.astype(np.float64)
        weights = np.ones(row.nnz) if row.weights is None else row.weights.astype(np.float64)
        A = self._penalty(0).reg * penalty_scale(self.settings, row)[0] * np.eye(self.k)
        if self._implicit is not None:
            confidence = 1 + self._implicit.alpha * residuals
            weights, pulls = confidence - self._implicit.unobserved, confidence
            A += self._implicit.unobserved * self._item_gram
        if self.user_bias is not None and self.item_bias is not None:
            mean, user_bias, item_bias = self.mean, float(self.user_bias[u]), float(self.item_bias[i])
            residuals -= mean + user_bias + self.item_bias[row.indices]
        Y = self.Q.T[row.indices].astype(np.float64)
        A += (Y.T * weights) @ Y
        q = np.linalg.lstsq(A, self.Q[:, i].astype(np.float64), rcond=None)[0]
        parts = (Y @ q) * (weights * residuals if self._implicit is None else pulls)
        largest = np.argsort(-np.abs(parts), kind="stable")[:n]
        rest = score - mean - user_bias - item_bias - float(parts[largest].sum())
        return Explanation(score, mean, user_bias, item_bias, row.indices[largest], parts[largest], rest)

    def fold_in(
        self,
        ratings: Any,
        *,
        regularization: float | None = None,
        bias_regularization: float | None = None,
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
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Factors
            A model of the strangers: ``P`` (s, k), ``user_bias`` (s,), the items as they are, and their
            ratings. Who has none is predicted as any user without ratings.

        Examples
        --------
        >>> model = Factors([[1.0]], [[3.0, 5.0, 4.0]])
        >>> model.fold_in({0: 1.5, 2: 2.0}, regularization=0).P
        array([[0.5]])
        """
        strangers = of_strangers(ratings, self.shape[1], self.item_ids, self.P.dtype)
        strangers = targets(strangers, self.settings)
        penalty = self._penalty(0, regularization, bias_regularization)
        rows = self._informative(strangers, self.known_items)
        with _engine(n_threads) as engine:
            P, bias = self._solve(rows, self.Q.T, self.item_bias, penalty, engine)
        return Factors(
            P,
            self.Q,
            mean=self.mean,
            user_bias=None if self.user_bias is None else bias,
            item_bias=self.item_bias,
            known_users=rows.user_counts() > 0,
            known_items=self.known_items,
            settings=self.settings,
            ratings=strangers,
            user_ids=strangers.user_ids,
            item_ids=self.item_ids,
        )

    def partial_fit(
        self, R: Any, *, missing: str = "zero", duplicates: str = "raise", n_threads: int | None = None
    ) -> "Factors":
        """Learn new ratings, also of new users and items, without training anew; change this model.

        A new rating replaces an old one of the same cell. Rows and columns with new ratings, and only these,
        are solved again for all their ratings, by turns: users given the items, items given the users.
        P and Q become new arrays, with rows and columns for new users and items; if anything fails, the
        model stays as it was.

        Parameters
        ----------
        R
            New ratings, as for :class:`Ratings`. Users and items are those of the model with the same id, or
            number if it has no ids; numbers beyond the last, and new ids, are new users and items.
        missing, duplicates
            As for :class:`Ratings`.
        n_threads
            By default the cores that this process may use.

        Returns
        -------
        Factors
            This model.
        """
        if self.ratings is None:
            raise ValueError("this model does not hold the ratings that it was made of; new ones need them")
        new = Ratings(R, missing=missing, duplicates=duplicates, dtype=self.P.dtype)
        new = targets(new, self.settings)
        known, user_places, item_places = merged(self.ratings, new)
        P, Y = grown(self.P, known.n_users), grown(self.Q.T, known.n_items)
        has_user, has_item = grown(self.known_users, len(P)), grown(self.known_items, len(Y))
        user_bias = item_bias = None
        if self.user_bias is not None and self.item_bias is not None:
            user_bias, item_bias = grown(self.user_bias, len(P)), grown(self.item_bias, len(Y))
        users, items = (np.unique(x) for x in (user_places[new.users], item_places[new.items]))
        by_user, by_item = known.take_rows(users), known.T.take_rows(items)
        penalties = self._penalty(0), self._penalty(1)
        with _engine(n_threads) as engine:
            for _ in range(SWEEPS):
                rows = self._informative(by_user, has_item)
                P[users], bias = self._solve(rows, Y, item_bias, penalties[0], engine)
                has_user[users] = rows.user_counts() > 0
                if user_bias is not None:
                    user_bias[users] = bias
                rows = self._informative(by_item, has_user)
                Y[items], bias = self._solve(rows, P, user_bias, penalties[1], engine)
                has_item[items] = rows.user_counts() > 0
                if item_bias is not None:
                    item_bias[items] = bias
        self.__init__(  # type: ignore[misc]
            P,
            Y.T,
            mean=self.mean,
            user_bias=user_bias,
            item_bias=item_bias,
            known_users=has_user,
            known_items=has_item,
            history=self.history,
            stop_reason=self.stop_reason,
            settings=self.settings,
            ratings=known,
            user_ids=known.user_ids,
            item_ids=known.item_ids,
        )
        for name in ("_item_panels", "_item_gram", "_user_order", "_item_order"):
            self.__dict__.pop(name, None)
        return self

    def _penalty(
        self, side: int, regularization: float | None = None, bias_regularization: float | None = None
    ) -> Penalty:
        """Return what holds the factors of the users, side 0, or of the items down."""
        settings = self.settings
        reg = _checks.optional("regularization", regularization, positive=False)
        bias_reg = _checks.optional("bias_regularization", bias_regularization, positive=False)
        if reg is None:
            if settings.regularization is None:
                raise ValueError("this model does not say its regularization; pass regularization=…")
            reg = settings.regularization[side]
        if bias_reg is None:
            bias_reg = settings.bias_regularization or 0.0
        return Penalty(reg, bias_reg, settings.l1[side], settings.nonnegative)

    def _informative(self, rows: Ratings, known: NDArray[np.bool_]) -> Ratings:
        """Return the ratings from which something follows: of some weight, and for what has factors."""
        informs = np.ones(rows.nnz, np.bool_) if rows.weights is None else rows.weights > 0
        if self.user_bias is None and not self.settings.implicit:
            informs &= known[rows.indices]
        return rows if informs.all() else rows.select(informs)

    def _solve(
        self,
        rows: Ratings,
        Y: NDArray[Any],
        bias: NDArray[Any] | None,
        penalty: Penalty,
        engine: ThreadEngine,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Solve rows given the other side's factors Y and biases."""
        return solve_rows(
            rows.indptr,
            rows.indices,
            rows.values,
            Y,
            None if bias is None else self.mean + bias.astype(np.float64),
            penalty_scale(self.settings, rows),
            penalty,
            engine,
            weights=rows.weights,
            biased=bias is not None,
            loss=self.settings.loss,
            huber_delta=self.settings.huber_delta or 1.0,
            implicit=self._implicit,
        )

    @property
    def _implicit(self) -> Implicit | None:
        settings = self.settings
        return Implicit(settings.alpha, settings.unobserved_weight) if settings.implicit else None

    def user_rows(self, ids: ArrayLike) -> NDArray[np.intp]:
        """Translate user ids to row numbers, for ``predict``."""
        return positions("user", ids, self.user_ids, self._user_order)

    def item_columns(self, ids: ArrayLike) -> NDArray[np.intp]:
        """Translate item ids to column numbers, for ``predict``."""
        return positions("item", ids, self.item_ids, self._item_order)

    @lazy
    def _user_order(self) -> NDArray[np.intp]:
        return np.argsort(() if self.user_ids is None else self.user_ids)

    @lazy
    def _item_order(self) -> NDArray[np.intp]:
        return np.argsort(() if self.item_ids is None else self.item_ids)

    def save(self, path: str | os.PathLike[str], *, ratings: bool = True) -> None:
        """Write the model to one ``.npz`` file, without pickle.

        An older file is replaced only when all is written. P, Q, biases and ids are the arrays ``P``, ``Q``,
        ``user_bias``, ``item_bias``, ``user_ids`` and ``item_ids`` of that file. With ``ratings=False`` it
        does not hold what was learned from: smaller, and nobody's ratings are passed on, but what is read
        again cannot leave out what a user has rated, nor go on learning.
        """
        header = {
            "format": FORMATS[-1],
            "mean": self.mean,
            "stop_reason": self.stop_reason,
            "settings": self.settings._asdict(),
        }
        history = np.array(self.history, np.float64).reshape(-1, len(Epoch._fields))  # None becomes nan
        names = ("P", "Q", "user_bias", "item_bias", "known_users", "known_items", "user_ids", "item_ids")
        arrays = {name: getattr(self, name) for name in names} | {"history": history}
        if ratings and self.ratings is not None:
            parts = {name: getattr(self.ratings, name) for name in RATINGS_ARRAYS}
            arrays |= {f"ratings_{name}": array for name, array in parts.items()}
        saving.write(path, header, arrays)


class Explanation(NamedTuple):
    """What a prediction is made of: score = mean + user_bias + item_bias + Σ contributions + rest.

    Attributes
    ----------
    score
        The prediction; under the logistic loss, its log-odds.
    items, contributions
        What the user has rated, by column number, and how much each of it adds, the largest first.
    rest
        What other ratings add, and what the trained factors have beyond all these.
    """

    score: float
    mean: float
    user_bias: float
    item_bias: float
    items: NDArray[Any]
    contributions: NDArray[np.float64]
    rest: float


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
        ratings = None
        if parts["indptr"] is not None:
            ratings = Ratings.of_csr(**parts, shape=(arrays["P"].shape[0], arrays["Q"].shape[1]))
        return Factors(
            **arrays,
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


def _real(name: str, factors: ArrayLike) -> NDArray[Any]:
    """Return factors as they are, integers as float64."""
    array = np.asarray(factors)
    _checks.numeric(name, array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
