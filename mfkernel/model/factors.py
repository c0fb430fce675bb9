"""``Factors``, the fitted model. Each method delegates to a function of the model's state."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfkernel._support import checks
from mfkernel.data.convert import MISSING
from mfkernel.data.merge import are_rows, is_one_user, with_ids_of
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import default_engine
from mfkernel.linalg.top_n import pack_items
from mfkernel.methods.objective import encode_targets
from mfkernel.model import files
from mfkernel.model.answers import Recommendations
from mfkernel.model.construct import checked_state
from mfkernel.model.explain import Explanation, explain
from mfkernel.model.foldin import new_users, update_state
from mfkernel.model.history import Epoch
from mfkernel.model.predictor import Predictor
from mfkernel.model.recommend import recommend, similar
from mfkernel.options import SGD, Settings
from mfkernel.typing import Duplicates, Missing, RatingsLike, UnknownItems


class Factors(Predictor):
    """Factors P (m, k) and Q (k, n) with R ≈ P·Q, and biases if there are any; unpacks as ``P, Q``.

    Arrays are read-only copies. Only :meth:`partial_fit` changes a model, in one step, so threads may share
    it: readers see the old model or the new one, and writers wait for one another.

    Parameters
    ----------
    P, Q
        (m, k) user factors and (k, n) item factors, finite, float32 or float64; integers become float64.
    mean
        Mean rating μ. Without biases, it is the prediction for rows and columns without ratings. For the
        logistic loss, it is the log-odds of a 1.
    user_bias, item_bias
        (m,), (n,) b_u and b_i of the prediction μ + b_u + b_i + p·q. Default: the prediction is p·q.
    known_users, known_items
        (m,), (n,) True where there were ratings to learn from. Default: everywhere.
    history
        One record per epoch.
    stop_reason
        Why training ended: "epochs", "converged", "patience", "time limit", "callback" or "interrupted".
    settings
        The method and its options.
    missing
        How a dense table of ratings is read: ``"zero"`` and nan, or only ``"nan"``, are missing.
    ratings
        The training ratings, which :meth:`recommend` excludes and :meth:`partial_fit` extends.
    user_ids, item_ids
        (m,), (n,) ids of the rows and columns: distinct integers or text. Default: those of ``ratings``.

    Attributes
    ----------
    state
        All parts of the model at one moment, as an object that never changes.

    Examples
    --------
    >>> model = Factors([[1.0], [2.0]], [[3.0, 4.0]], mean=5.0)
    >>> float(model.predict(1, 0))
    6.0
    >>> P, Q = model
    >>> (P @ Q).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """

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
        settings: Settings = SGD(),
        missing: Missing = "zero",
        ratings: Ratings | None = None,
        user_ids: Any = None,
        item_ids: Any = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "P", "Q")}
        if "state" in self.__dict__:
            raise AttributeError(f"Factors cannot be made a second time: {self._remedy}")
        self._become(checked_state(P, Q, **given))

    @checks.explains_names
    def recommend(
        self,
        users: Any,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        items: ArrayLike | None = None,
        unknown: UnknownItems = "raise",
        missing: Missing | None = None,
        n_threads: int | None = None,
    ) -> Recommendations:
        """Find the n items with the highest predictions for each user.

        Parameters
        ----------
        users
            Id of a user, or row number without ids, or a list or 1-D array of them; or ratings of new
            users, as for :meth:`fold_in`.
        n
            Number of items per user.
        exclude_seen
            Leave out the items that the user has rated.
        items
            Ids or column numbers of the items to choose from. Default: all.
        unknown
            Whether ``items`` that the model does not have ``"raise"`` an error, or are left out with a
            warning that counts them, ``"ignore"``. Default: ``"raise"``.
        missing
            How a dense table of new users' ratings is read. Default: as in training.
        n_threads
            Number of threads. Default: one per core.

        Returns
        -------
        Recommendations
            ``items``, by id if the model has item ids, and ``scores``, best first; equal scores are ordered
            by column number. One user gets n entries, or fewer if fewer items are left. For s users, both are
            masked arrays (s, n), or (s, n_items) if n is larger. Without biases, users without ratings get
            the most rated items.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range; if seen items are to be excluded, or a user has no
            ratings, and the model has no ``ratings``.

        Examples
        --------
        >>> model = Factors([[1.0], [2.0]], [[3.0, 5.0, 4.0]])
        >>> model.recommend(0, 2, exclude_seen=False).items
        array([1, 2], dtype=int32)
        """
        n, state = checks.integer("n", n, 1), self.state
        if missing is not None:
            checks.one_of("missing", missing, MISSING)
        if are_rows(users):
            rows = state.rows(users)
            asked, one, rows = state, rows.ndim == 0, rows.reshape(-1)
        else:
            asked, one = new_users(state, users, n_threads, missing=missing), is_one_user(users)
            rows = np.arange(asked.shape[0])
        return recommend(
            *(state, asked, rows, n, n_threads, pack_items),
            exclude_seen=exclude_seen,
            items=items,
            unknown=unknown,
            one=one,
        )

    def similar_items(self, items: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n items whose factors have the greatest cosine to those of an item, or of several.

        Parameters
        ----------
        items
            Id of an item, or column number without ids, or a 1-D array of them.
        n
            Number of similar items, at least 1. Default: 10.

        Returns
        -------
        Recommendations
            ``items`` and ``scores``, the cosines, best first, in the forms of :meth:`recommend`. The item
            itself and items without ratings are left out. Items without ratings have no similar items.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range.
        """
        state = self.state
        rows = state.columns(items)
        return similar(rows, "items", state.items, n, state.Q.T, state.known_items, pack_items)

    def similar_users(self, users: ArrayLike, n: int = 10) -> Recommendations:
        """Find the n users whose factors have the greatest cosine to those of a user, or of several.

        Parameters
        ----------
        users
            Id of a user, or row number without ids, or a 1-D array of them.
        n
            Number of similar users, at least 1. Default: 10.

        Returns
        -------
        Recommendations
            ``items``, which are users here, and ``scores``, as for :meth:`similar_items`.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If a number is no integer or out of range.
        """
        state = self.state
        rows = state.rows(users)
        return similar(rows, "users", state.users, n, state.P, state.known_users, pack_items)

    def explain(self, user: Any, item: Any, n: int = 10) -> Explanation:
        r"""Explain a prediction as a sum of contributions of the user's ratings.

        For the squared loss, the user's factors are a sum over their ratings j, given the items' factors. The
        contribution of a rating is :math:`w_j \, q_i^T A^{-1} q_j (r_j - \mu - b_u - b_j)` with
        :math:`A = \sum w_j q_j q_j^T + \lambda c I`; for implicit feedback,
        :math:`q_i^T A^{-1} q_j (1 + \alpha r_j)` with
        :math:`A = \sum (1 + \alpha r_j - w_0) q_j q_j^T + w_0 Q Q^T + \lambda c I`. For other losses, it is
        the amount by which the score would fall without the rating: exact for few or influential ratings and
        for the absolute loss, else to first order.

        Parameters
        ----------
        user, item
            Ids, or row and column number without ids.
        n
            Number of ratings to list.

        Returns
        -------
        Explanation
            ``score = mean + user_bias + item_bias + Σ contributions + rest``; the n largest contributions and
            their items are listed.

        Raises
        ------
        ValueError
            If the model does not have its ratings.

        References
        ----------
        Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
        Koh and Liang, "Understanding black-box predictions via influence functions", ICML 2017.
        """
        n, state = checks.integer("n", n, 1), self.state
        return explain(state, state.row("user", user), state.column("item", item), n)

    @checks.explains_names
    def fold_in(
        self,
        ratings: Any,
        *,
        regularization: float | None = None,
        bias_regularization: float | None = None,
        missing: Missing | None = None,
        duplicates: Duplicates = "raise",
        n_threads: int | None = None,
    ) -> "Factors":
        """Compute factors for new users, item factors fixed.

        Each row is the exact minimum of the model's objective over the factors and bias of this user.

        Parameters
        ----------
        ratings
            For one user, ``{item: rating}`` or a pair ``(items, ratings)``. For several, anything that
            :class:`Ratings` takes, with one row per user. Items are ids if the model has item ids; columns
            of arrays and sparse matrices, and triplets with a shape, are column numbers.
        regularization, bias_regularization
            λ and the biases' λ, in the unit of training. Default: the model's own.
        missing, duplicates
            As for :class:`Ratings`. Default of ``missing``: as in training.
        n_threads
            Number of threads. Default: one per core.

        Returns
        -------
        Factors
            A model of the new users with the same items. Users without ratings get the default prediction.

        Raises
        ------
        KeyError
            If the model does not have a rated item's id.

        Examples
        --------
        >>> model = Factors([[1.0]], [[3.0, 5.0, 4.0]])
        >>> model.fold_in({0: 1.5, 2: 2.0}, regularization=0).P
        array([[0.5]])
        """
        given: dict[str, Any] = {"missing": missing, "duplicates": duplicates}
        given |= {"regularization": regularization, "bias_regularization": bias_regularization}
        return Factors.of_state(new_users(self.state, ratings, n_threads, **given))

    @checks.explains_names
    def partial_fit(
        self,
        R: RatingsLike,
        *,
        missing: Missing | None = None,
        duplicates: Duplicates = "raise",
        n_threads: int | None = None,
    ) -> "Factors":
        """Learn new ratings, also of new users and items; change this model and return it.

        A new rating replaces an old one of the same cell. Rows and columns with new ratings, and only these,
        are solved again from all their ratings, users and items in alternation. The model changes in one
        step at the end; if anything fails, it stays as it was.

        Parameters
        ----------
        R
            New ratings, as for :class:`Ratings`. Users and items are matched by id, or by number if the model
            has no ids; other ids or numbers are new users and items.
        missing, duplicates
            As for :class:`Ratings`. Default of ``missing``: as in training.
        n_threads
            Number of threads. Default: one per core.

        Returns
        -------
        Factors
            This model.

        Raises
        ------
        TypeError, ValueError
            If R cannot be read, or the model does not have its training ratings.
        FloatingPointError
            If the new factors are not finite.
        """
        settings, dtype = self.state.settings, self.state.P.dtype
        missing = self.missing if missing is None else missing
        with default_engine(n_threads) as engine:
            R = with_ids_of(R, self.state.users, self.state.items)
            new = encode_targets(Ratings(R, missing=missing, duplicates=duplicates, dtype=dtype), settings)
            with self._writing.own():
                state = self.state
                if state.ratings is None:
                    raise ValueError(
                        "the model must have its training ratings for partial_fit, got none; "
                        "save it with ratings=True"
                    )
                self._become(update_state(state, state.ratings, new, engine))
        return self

    def save(self, path: str | os.PathLike[str], *, ratings: bool = True) -> None:
        """Write the model to one ``.npz`` file, without pickle; replace an older file in one step.

        The file has the arrays ``P``, ``Q``, ``user_bias``, ``item_bias``, ``user_ids`` and ``item_ids``.

        Parameters
        ----------
        path
            Path of the file.
        ratings
            Whether to save the training ratings. Without them, the file is smaller and discloses no ratings,
            but the loaded model cannot exclude seen items, explain or learn new ratings. Default: True.

        Raises
        ------
        OSError, ValueError
            If the file cannot be written.
        """
        files.write_state(path, self.state, ratings=ratings)
