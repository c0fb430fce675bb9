"""The immutable arrays of a model, and the scores that follow from them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import immutable, readonly
from mfkernel._support.lazy import lazy
from mfkernel.data.ids import Ids, Vocabulary
from mfkernel.data.origin import NO_FRAME, Origin
from mfkernel.data.ratings import Ratings
from mfkernel.data.reading import read_by_id
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import Implicit, gram
from mfkernel.linalg.rows import pad_rows
from mfkernel.linalg.top_n import Panels
from mfkernel.methods.posterior import Posterior
from mfkernel.options import Settings
from mfkernel.typing import Missing, Unknown


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """The parts of a model at one moment; :class:`Factors` documents each field.

    All arrays are permanently read-only. Values computed from them and cached therefore stay valid, and
    threads may share a state. A changed model has another state.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    mean: float = 0.0
    user_bias: NDArray[Any] | None = None
    item_bias: NDArray[Any] | None = None
    known_users: NDArray[np.bool_]
    known_items: NDArray[np.bool_]
    history: tuple[Any, ...] = ()
    stop_reason: str = ""
    settings: Settings
    missing: Missing = "zero"
    ratings: Ratings | None = None
    users: Vocabulary | None = None
    items: Vocabulary | None = None
    posterior: Posterior | None = None
    origin: Origin = NO_FRAME

    def __post_init__(self) -> None:
        m, n = self.shape
        for name, size in (
            ("user_bias", m),
            ("known_users", m),
            ("users", m),
            ("item_bias", n),
            ("known_items", n),
            ("items", n),
        ):
            vector = getattr(self, name)
            if vector is not None and len(vector) != size:
                raise ValueError(f"{name} must have {size} entries, got {len(vector)}")
        if self.P.shape[1] != self.Q.shape[0] or (self.ratings is not None and self.ratings.shape != (m, n)):
            raise ValueError(
                f"P, Q and ratings must have matching shapes, got P {self.P.shape} and Q {self.Q.shape}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                self.__dict__[field.name] = immutable(value)

    def __reduce__(self) -> tuple[Any, ...]:
        # pickling loses the read-only flag
        return _restored, ({field.name: getattr(self, field.name) for field in fields(self)},)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.P.shape[0], self.Q.shape[1]

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.P.shape[1])

    @property
    def implicit(self) -> Implicit | None:
        """Weights of implicit feedback; None for explicit ratings."""
        settings = self.settings
        return Implicit(settings.alpha, settings.unobserved_weight) if settings.implicit else None

    def rows(self, users: Any, name: str = "users", *, unknown: Unknown = "raise") -> NDArray[Any]:
        """Return the rows of users, given by id if the model has user ids, else by row number.

        With ``unknown="default"``, unknown users get the row m.
        """
        return _find("user", self.users, self.shape[0], users, name, unknown)

    def columns(self, items: Any, name: str = "items", *, unknown: Unknown = "raise") -> NDArray[Any]:
        """Return the columns of items, as :meth:`rows` returns rows."""
        return _find("item", self.items, self.shape[1], items, name, unknown)

    def row(self, name: str, user: Any) -> int:
        """Return the row of one user."""
        return _single(name, self.rows(user, name))

    def column(self, name: str, item: Any) -> int:
        """Return the column of one item."""
        return _single(name, self.columns(item, name))

    def read(
        self, R: Any, *, missing: str | None = None, needs_rating: bool | None = None, **form: Any
    ) -> Ratings:
        """Read ratings to compare with or to learn from, with the ids of this model where it has any.

        Parameters
        ----------
        R
            Ratings in any form.
        missing
            How a dense table is read. Default: as in training.
        needs_rating
            Whether a frame must have a column of ratings. Default: unless feedback is implicit.
        **form
            Other arguments of :class:`Ratings`.
        """
        form["missing"] = self.missing if missing is None else missing
        needed = not self.settings.implicit if needs_rating is None else needs_rating
        return read_by_id(R, self.users, self.items, like=self.origin, needs_rating=needed, **form)

    @lazy
    def by_position(self) -> "State":
        """Return the same state without ids."""
        if self.users is None and self.items is None:
            return self
        ratings = None if self.ratings is None else self.ratings.with_ids(None, None)
        return replace(self, users=None, items=None, ratings=ratings)

    def positions(self, kind: str, ids: Any) -> NDArray[np.intp]:
        """Translate ids of users or items to row or column numbers."""
        vocabulary = self.users if kind == "user" else self.items
        if vocabulary is None:
            raise ValueError(
                f"the model must have {kind} ids to look up, got none; pass row and column numbers"
            )
        return vocabulary.positions(kind, ids)

    def scores(self, users: NDArray[Any], items: NDArray[Any]) -> NDArray[Any]:
        """Return the scores of pairs of row and column numbers, two flat arrays.

        Numbers beyond the last row or column are new users or items, which have no factors and no bias.
        """
        (m, n), new = self.shape, None
        if users.size and (users.max() >= m or items.max() >= n):
            new = users >= m, items >= n
            users, items = np.where(new[0], 0, users), np.where(new[1], 0, items)
        scores: NDArray[Any] = np.einsum("nk,nk->n", self.P[users], self.Q.T[items])
        if self.user_bias is not None and self.item_bias is not None:
            user_bias, item_bias = self.user_bias[users], self.item_bias[items]
            if new is not None:
                scores[new[0] | new[1]] = 0
                user_bias[new[0]], item_bias[new[1]] = 0, 0
            scores += self.mean + user_bias + item_bias
            return scores
        known = self.known_users[users] & self.known_items[items]
        if new is not None:
            known &= ~(new[0] | new[1])
        return np.where(known, scores, self.mean).astype(self.P.dtype, copy=False)

    @property
    def has_gaps(self) -> bool:
        """Whether some rows or columns have no ratings."""
        return not (self.known_users.all() and self.known_items.all())

    def user_vectors(self, users: Any, gaps: bool) -> NDArray[Any]:
        """Return the rows of the augmented P of some users, (s, k + 2).

        ``gaps`` says whether rows or columns without ratings get the mean.
        """
        P, known = self.P[users], self.known_users[users]
        X = np.zeros((len(P), self.k + 2), self.P.dtype)
        X[:, :-2] = P
        if self.user_bias is not None:
            X[:, -2], X[:, -1] = self.mean + self.user_bias[users], 1
        elif gaps:  # known_u known_i (p·q - μ) + μ
            X[:, :-2] *= known[:, None]
            X[:, -2], X[:, -1] = self.mean, known
        return X

    def item_vectors(self, items: Any, gaps: bool) -> NDArray[Any]:
        """Return the rows of the augmented Qᵀ of some items, (s, k + 2); see :meth:`user_vectors`."""
        Q, known = self.Q.T[items], self.known_items[items]
        Y = np.zeros((len(Q), self.k + 2), self.P.dtype)
        Y[:, :-2] = Q
        if self.item_bias is not None:
            Y[:, -2], Y[:, -1] = 1, self.item_bias[items]
        elif gaps:
            Y[:, :-2] *= known[:, None]
            Y[:, -2], Y[:, -1] = 1, -self.mean * known
        return Y

    def item_panels(self, lay_out: Callable[[NDArray[Any]], Panels]) -> Panels:
        """Return the vectors of all items in the layout of ``lay_out``; computed once.

        The last coordinate is the number of ratings of the item.
        """
        if "_panels" not in self.__dict__:
            Y = np.zeros((self.shape[1], self.k + 3), self.P.dtype)
            Y[:, :-1] = self.item_vectors(slice(None), self.has_gaps)
            if self.ratings is not None:
                Y[:, -1] = self.ratings.item_counts()
            self.__dict__["_panels"] = lay_out(Y)
        panels: Panels = self.__dict__["_panels"]
        return panels

    def queries(self, users: "State", rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the vectors of some users, from this model or folded in, to multiply with items.

        Returns
        -------
        tuple
            The vectors, (s, k + 3), and constant scores, (s,). The products of vectors and items are scores,
            and the constant score is nan. For a user without ratings, the products are numbers of ratings,
            and all items have the constant score.

        Raises
        ------
        ValueError
            If there are such users, and the model does not have its training ratings.
        """
        X = np.zeros((len(users.P[rows]), self.k + 3), self.P.dtype)
        X[:, :-1] = users.user_vectors(rows, self.has_gaps)
        only = np.full(len(X), np.nan, X.dtype)
        if self.user_bias is not None:
            return X, only
        known = users.known_users[rows]
        unknown = ~known
        if self.settings.implicit:  # a user whose items have no other users is like a new user
            unknown |= ~users.P[rows].any(axis=1)
        only[unknown] = np.where(known[unknown], 0, self.mean)
        if unknown.any() and self.ratings is None:
            raise ValueError(
                f"users must have ratings if the model has no training ratings, got none for user "
                f"{int(unknown.argmax())} of the list; save with ratings=True to recommend popular items"
            )
        X[unknown] = 0
        X[unknown, -1] = 1
        return X, only

    def seen(self, rows: NDArray[Any]) -> Ratings:
        """Return the training ratings of some users.

        Raises
        ------
        ValueError
            If the model does not have its training ratings.
        """
        if self.ratings is None:
            raise ValueError(
                "exclude_seen must be False if the model has no training ratings, got True; pass "
                "exclude_seen=False, or save the model with ratings=True"
            )
        return self.ratings.take_rows(rows)

    def item_gram(self, engine: ThreadEngine) -> NDArray[np.float64]:
        """Return QQᵀ with padding, (K, K); computed once."""
        if "_item_gram" not in self.__dict__:
            squares = gram(pad_rows(self.Q.T), engine, np.dtype(np.float64))
            self.__dict__["_item_gram"] = readonly(squares)
        kept: NDArray[np.float64] = self.__dict__["_item_gram"]
        return kept

    @lazy
    def rating_range(self) -> tuple[float, float]:
        """Return the least and the greatest training rating, of which there must be some."""
        assert self.ratings is not None
        return float(self.ratings.values.min()), float(self.ratings.values.max())

    @property
    def user_ids(self) -> Ids:
        """(m,) ids of the rows, or None."""
        return None if self.users is None else self.users.ids

    @property
    def item_ids(self) -> Ids:
        """(n,) ids of the columns, or None."""
        return None if self.items is None else self.items.ids


def _restored(values: dict[str, Any]) -> State:
    return State(**values)


def _single(name: str, array: NDArray[Any]) -> int:
    if array.ndim:
        raise TypeError(f"{name} must be one number, got the shape {array.shape}")
    return int(array)


def _find(
    kind: str, vocabulary: Vocabulary | None, count: int, given: Any, name: str, unknown: Unknown
) -> NDArray[Any]:
    """Return the positions of ids; without a vocabulary, check that the ids are positions."""
    if vocabulary is not None:
        return vocabulary.positions(kind, given, unknown)
    if unknown == "raise":
        return checks.copy_indices(name, given, count, f"n_{kind}s")
    numbers = checks.copy_indices(name, given, np.iinfo(np.int64).max, f"n_{kind}s")
    positions: NDArray[Any] = np.minimum(numbers.astype(np.int64), count)
    return positions
