"""``Factors``, the fitted model. Each method delegates to a function of the model's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from mfkernel._support import checks
from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import default_engine
from mfkernel.methods.objective import encode_targets
from mfkernel.model import files
from mfkernel.model.archive import File
from mfkernel.model.construct import checked_state
from mfkernel.model.foldin import new_users, update_state
from mfkernel.model.forget import forget
from mfkernel.model.history import Epoch
from mfkernel.model.recommender import Recommender
from mfkernel.options import SGD, Settings
from mfkernel.typing import Duplicates, Missing, RatingsLike


class Factors(Recommender):
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
    def fold_in(
        self,
        ratings: Any,
        *,
        regularization: float | None = None,
        bias_regularization: float | None = None,
        missing: Missing | None = None,
        duplicates: Duplicates = "raise",
        n_threads: int | None = None,
    ) -> Factors:
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
        add: bool = False,
        missing: Missing | None = None,
        duplicates: Duplicates = "raise",
        n_threads: int | None = None,
    ) -> Factors:
        """Learn new ratings, also of new users and items; change this model and return it.

        A new rating replaces an old one of the same cell, or is added to it. Rows and columns with new
        ratings, and only these, are solved again from all their ratings, users and items in alternation. The
        model changes in one step at the end; if anything fails, it stays as it was.

        Parameters
        ----------
        R
            New ratings, as for :class:`Ratings`; a data frame has the columns of training, or usual names.
            Users and items are matched by id, or by number if the model has no ids; other ids or numbers are
            new users and items.
        add
            Add to the old rating of a cell: 3 clicks and 1 more are 4. Default: replace it.
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
        settings, dtype, add = self.state.settings, self.state.P.dtype, checks.boolean("add", add)
        if add and settings.loss == "logistic":
            raise ValueError("add must be False with loss='logistic', whose ratings are 0 and 1, got True")
        with default_engine(n_threads) as engine:
            new = self.state.read(R, missing=missing, duplicates=duplicates, dtype=dtype)
            new = encode_targets(new, settings)
            with self._writing.own():
                state = self.state
                if state.ratings is None:
                    raise ValueError(
                        "the model must have its training ratings for partial_fit, got none; "
                        "save it with ratings=True"
                    )
                self._become(update_state(state, state.ratings, new, engine, add=add))
        return self

    def forget(self, *, users: Any = (), items: Any = ()) -> Factors:
        """Forget users and items: their ratings, factors and biases; change this model and return it.

        With ids, their rows and columns are removed, ids and all. Without ids, all others keep their numbers,
        and the forgotten rows and columns are like those without ratings. The factors of others keep what
        they have learned from the forgotten ratings; only a new fit loses it.

        Parameters
        ----------
        users, items
            Ids, or row and column numbers without ids, or 1-D arrays of them. Default: none.

        Returns
        -------
        Factors
            This model.

        Raises
        ------
        KeyError
            If an id is not in the model.
        TypeError, ValueError
            If there are no ids, and a number is no integer or out of range.
        """
        with self._writing.own():
            self._become(forget(self.state, users, items))
        return self

    def save(self, path: File, *, ratings: bool = True) -> None:
        """Write the model to one ``.npz`` file, without pickle; replace an older file in one step.

        The file has the arrays ``P``, ``Q``, ``user_bias``, ``item_bias``, ``user_ids`` and ``item_ids``.

        Parameters
        ----------
        path
            Path of the file, or a binary file object with ``write``, which is neither replaced nor closed.
        ratings
            Whether to save the training ratings. Without them, the file is smaller and discloses no ratings,
            but the loaded model cannot exclude seen items, explain or learn new ratings. Default: True.

        Raises
        ------
        OSError, ValueError
            If the file cannot be written.
        """
        files.write_state(path, self.state, ratings=ratings)
