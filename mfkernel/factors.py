"""What a factorization yields: P, Q and how they came about."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfkernel import _checks
from mfkernel._lazy import lazy
from mfkernel._machine import available_memory
from mfkernel.ratings import Ratings, check_ids

FORMAT_VERSION = 1
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
    """

    epoch: int
    rmse: float
    seconds: float
    learning_rate: float


class Factors:
    """Factors P (m, k) and Q (k, n) with R ≈ P·Q; unpacks as ``P, Q = factors``.

    Parameters
    ----------
    P, Q
        (m, k) user factors and (k, n) item factors.
    mean
        Mean rating; the prediction for rows and columns without ratings.
    known_users, known_items
        (m,), (n,) True where there were ratings to learn from; by default everywhere.
    history
        One record an epoch.
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
        known_users: ArrayLike | None = None,
        known_items: ArrayLike | None = None,
        history: Sequence[Epoch] = (),
        user_ids: ArrayLike | None = None,
        item_ids: ArrayLike | None = None,
    ) -> None:
        self.P, self.Q = _real("P", P), _real("Q", Q)
        if not (self.P.ndim == self.Q.ndim == 2 and self.P.shape[1] == self.Q.shape[0] > 0):
            raise ValueError(f"P must be (m, k) and Q (k, n), got {self.P.shape} and {self.Q.shape}")
        m, n = self.shape
        self.mean = float(mean)
        self.known_users = np.ones(m, np.bool_) if known_users is None else np.asarray(known_users, np.bool_)
        self.known_items = np.ones(n, np.bool_) if known_items is None else np.asarray(known_items, np.bool_)
        self.history = list(history)
        self.user_ids = check_ids("user_ids", user_ids, m)
        self.item_ids = check_ids("item_ids", item_ids, n)
        for name, known, size in (("known_users", self.known_users, m), ("known_items", self.known_items, n)):
            if known.shape != (size,):
                raise ValueError(f"{name} must have the shape ({size},), got {known.shape}")

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
        return f"Factors(P {m:,} × {self.k}, Q {self.k} × {n:,}, {self.P.dtype}{rmse})"

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
            p·q where both have ratings, else the mean rating; of the broadcast shape and P's dtype.

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
            dots = np.einsum("nk,nk->n", self.P[u], item_rows[i])
            known = self.known_users[u] & self.known_items[i]
            flat[start : start + u.size] = np.where(known, dots, self.mean)
            start += u.size
        return result[()] if result.ndim == 0 else result

    def reconstruct(self) -> NDArray[Any]:
        """Return P @ Q, all m × n predictions.

        Rows and columns without ratings come as near to the mean as k factors can (``predict`` gives the
        mean itself).

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
        return np.asarray(self.P @ self.Q)

    def rmse(self, R: Any, *, missing: str = "zero", duplicates: str = "raise") -> float:
        """Root mean square error of the predictions for the ratings R.

        ``R``, ``missing`` and ``duplicates`` are as for :class:`Ratings`; R has the model's shape.
        """
        ratings = Ratings(R, missing=missing, duplicates=duplicates, copy=False)
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
        return _positions("user", ids, self.user_ids, self._user_order)

    def item_columns(self, ids: ArrayLike) -> NDArray[np.intp]:
        """Translate item ids to column numbers, for ``predict``."""
        return _positions("item", ids, self.item_ids, self._item_order)

    @lazy
    def _user_order(self) -> NDArray[np.intp]:
        return np.argsort(() if self.user_ids is None else self.user_ids)

    @lazy
    def _item_order(self) -> NDArray[np.intp]:
        return np.argsort(() if self.item_ids is None else self.item_ids)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one ``.npz`` file, without pickle.

        An older file is replaced only when all is written. P, Q and the ids are the arrays ``P``, ``Q``,
        ``user_ids`` and ``item_ids`` of that file.
        """
        target = Path(path)
        arrays: dict[str, Any] = {
            "header": np.array(json.dumps({"format": FORMAT_VERSION, "mean": self.mean})),
            "P": self.P,
            "Q": self.Q,
            "known_users": self.known_users,
            "known_items": self.known_items,
            "history": np.array(self.history, np.float64).reshape(-1, len(Epoch._fields)),
        }
        ids = {"user_ids": self.user_ids, "item_ids": self.item_ids}
        arrays |= {name: array for name, array in ids.items() if array is not None}
        draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with draft.open("xb") as file:
                np.savez(file, **arrays)  # none is of objects, so that none is pickled
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(target)) from error
        finally:
            draft.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Factors:
    """Read a model that ``Factors.save`` wrote.

    Raises
    ------
    ValueError
        If the file is no such model, or of a newer version.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        version = header["format"]
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)} is not a model saved by mfkernel") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)} has format {version}; this version reads format {FORMAT_VERSION}"
        )
    try:
        records = arrays.pop("history").astype(np.float64).tolist()
        history = [Epoch(int(epoch), *rest) for epoch, *rest in records]
        return Factors(**arrays, mean=header["mean"], history=history)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not a whole model ({error})") from error


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


def _positions(
    kind: str, ids: ArrayLike, vocabulary: NDArray[Any] | None, order: NDArray[np.intp]
) -> NDArray[np.intp]:
    wanted = np.asarray(ids)
    if vocabulary is None:
        raise ValueError(f"this model has no {kind} ids: its ratings were given by row and column number")
    if vocabulary.size == 0 or (vocabulary.dtype.kind == "U") != (wanted.dtype.kind == "U"):
        found, unknown = order[:0], np.ones(wanted.shape, np.bool_)
    else:
        places = np.searchsorted(vocabulary, wanted, sorter=order).clip(max=vocabulary.size - 1)
        found = order[places]
        unknown = np.asarray(vocabulary[found] != wanted)
    if unknown.any():
        raise KeyError(f"{kind} id {wanted[unknown].tolist()[0]!r} is not in the model")
    return np.asarray(found)


def _real(name: str, factors: ArrayLike) -> NDArray[Any]:
    """Return factors as they are, integers as float64."""
    array = np.asarray(factors)
    _checks.numeric(name, array)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
