"""What a factorization yields: P, Q, biases and how they came about, and all that they can be asked."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel import _checks, saving
from mfkernel._ids import positions
from mfkernel._lazy import lazy
from mfkernel._machine import available_memory
from mfkernel.objective import Settings, prediction, targets
from mfkernel.ratings import Ratings, check_ids

FORMATS = range(1, 3)  # that can be read; the last is written
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
PADDING = 8  # coordinates: a row is a whole number of 32-byte vectors in float32


class Epoch(NamedTuple):
    """One pass over the ratings.

    Attributes
    ----------
    epoch
        1 for the first.
    rmse
        Root mean square of the residuals, each as it was met, just before its own update; after the last
        epoch ``model.rmse(R)`` is a little lower.
    seconds
        Wall time of this pass.
    learning_rate
        Step size of this pass.
    validation_rmse
        Root mean square error for the validation ratings after this pass; None without such.
    back_to
        None; of a pass that diverged, the epoch to which training went back, 0 being the start values. The
        next record is of the epoch after that one, with half the step size.
    """

    epoch: int
    rmse: float
    seconds: float
    learning_rate: float
    validation_rmse: float | None = None
    back_to: int | None = None


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
        return self._user_scoring(slice(None)), self._item_scoring.T

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

    @lazy
    def _item_scoring(self) -> NDArray[Any]:
        """Make the rows of the augmented Qᵀ, (n, k + 2)."""
        Y = np.empty((self.shape[1], self.k + 2), self.P.dtype)
        Y[:, :-2] = self.Q.T
        if self.item_bias is not None:
            Y[:, -2], Y[:, -1] = 1, self.item_bias
        elif self._has_gaps:
            Y[:, :-2] *= self.known_items[:, None]
            Y[:, -2], Y[:, -1] = 1, -self.mean * self.known_items
        else:
            Y[:, -2:] = 0
        return Y

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
        ratings = targets(Ratings(R, missing=missing, duplicates=duplicates, copy=False), self.settings.loss)
        if ratings.shape != self.shape:
            raise ValueError(
                f"R must have the model's shape {self.shape}, got {ratings.shape} (triplets may name a shape)"
            )
        if ratings.nnz == 0:
            raise ValueError("R has no ratings to compare with")
        residuals = ratings.values - self.predict(ratings.users, ratings.items)
        return float(np.sqrt(np.mean(np.square(residuals, dtype=np.float64))))

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


def padded_rank(k: int) -> int:
    """Round k up to whole vectors."""
    return -(-k // PADDING) * PADDING


def aligned_rows(n_rows: int, k: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make zeros (n_rows, padded k) that start on a cache line; NumPy promises only 16 bytes."""
    spare = ALIGNMENT // dtype.itemsize
    size = n_rows * padded_rank(k)
    buffer = np.zeros(size + spare, dtype)
    offset = -buffer.ctypes.data % ALIGNMENT // dtype.itemsize
    return buffer[offset : offset + size].reshape(n_rows, padded_rank(k))


def _real(name: str, factors: ArrayLike) -> NDArray[Any]:
    """Return factors as they are, integers as float64."""
    array = np.asarray(factors)
    _checks.numeric(name, array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
