"""The predictions of a model, as methods that delegate to functions of its state."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.ratings import Ratings
from mfkernel.model.predict import checked_limits, expected, predict, reconstruct
from mfkernel.model.uncertainty import Prediction, predict_with_uncertainty
from mfkernel.model.view import StateView
from mfkernel.typing import Duplicates, Missing, RatingsLike, Unknown


class Predictor(StateView):
    """A model that predicts ratings, and translates ids to rows and columns."""

    @overload
    def predict(
        self,
        users: Any,
        items: Any,
        *,
        unknown: Unknown = "raise",
        clip: bool | tuple[float, float] = False,
        return_std: Literal[False] = False,
        interval: None = None,
    ) -> NDArray[Any]: ...
    @overload
    def predict(
        self,
        users: Any,
        items: Any,
        *,
        unknown: Unknown = "raise",
        clip: bool | tuple[float, float] = False,
        return_std: bool = False,
        interval: float | None = None,
    ) -> Prediction: ...
    def predict(
        self,
        users: Any,
        items: Any,
        *,
        unknown: Unknown = "raise",
        clip: bool | tuple[float, float] = False,
        return_std: bool = False,
        interval: float | None = None,
    ) -> NDArray[Any] | Prediction:
        """Predict the rating of each user for each item.

        Parameters
        ----------
        users, items
            Ids, or row and column numbers without ids, of any shapes that broadcast: ``predict(3, [0, 7])``,
            ``predict(users[:, None], items)``.
        unknown
            Whether unknown users and items ``"raise"`` an error or get the ``"default"`` prediction: the
            mean, plus the other side's bias with biases. Default: ``"raise"``.
        clip
            Range of the answers, ``(least, most)``; True for that of the training ratings. Default: any.
        return_std
            Whether to return a :class:`Prediction`, which says how sure the answers of a Bayesian model are.
        interval
            Probability of the interval of the :class:`Prediction`. Default: 0.9, if there is one.

        Returns
        -------
        ndarray or Prediction
            The predictions, of the broadcast shape and P's dtype: μ + b_u + b_i + p·q with biases; without,
            p·q where both have ratings, else the mean. For the logistic loss, the probability of a 1. With
            ``return_std`` or ``interval``, ``mean``, ``std``, ``noise``, ``lower`` and ``upper`` of that
            shape.

        Raises
        ------
        KeyError
            If an id is not in the model; the message names the nearest known one.
        TypeError, ValueError
            If there are no ids, and a number is no integer, negative, or beyond the last row or column; or
            if ``clip`` is True and the model has no ratings on a scale; or if uncertainty is asked of a model
            that was not fitted with ``method="bayesian"``.
        """
        state = self.state
        limits = checked_limits(state, clip)
        if checks.boolean("return_std", return_std) or interval is not None:
            return predict_with_uncertainty(state, users, items, unknown, interval, limits)
        predicted = predict(state, users, items, unknown)
        return predicted if limits is None else np.clip(predicted, *limits)

    def expected(self, R: Ratings, name: str = "R") -> tuple[NDArray[Any], NDArray[Any]]:
        """Return ratings in the encoding of the loss, and their predictions.

        Ratings are matched by id if R and the model have ids. Unknown users and items get the default
        prediction: the mean, plus the other side's bias with biases.

        Parameters
        ----------
        R
            Ratings, of the model's shape unless both sides have ids.
        name
            Name of the ratings in errors. Default: ``"R"``.

        Returns
        -------
        values, predictions
            (nnz,) and (nnz,). Values are 0 or 1 for the logistic loss, and 1 for implicit feedback.

        Raises
        ------
        ValueError
            If R has no ratings or another shape.
        """
        return expected(self.state, R, name)

    def augmented(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return P and Q with two more coordinates, whose product has all biases and the mean.

        Vector indices and other programs that only compute products can use them. The last two coordinates
        are μ + b_u and 1, times 1 and b_i. Without biases, they give the mean to rows and columns without
        ratings.

        Returns
        -------
        P, Q
            (m, k + 2) and (k + 2, n). For the logistic loss, the product has the log-odds.
        """
        state = self.state
        gaps = state.has_gaps
        return state.user_vectors(slice(None), gaps), state.item_vectors(slice(None), gaps).T

    def reconstruct(self) -> NDArray[Any]:
        """Return all predictions.

        Without biases, rows and columns without ratings are as near to the mean as k factors allow, while
        :meth:`predict` returns the mean itself.

        Returns
        -------
        ndarray
            (m, n) predictions of P's dtype.

        Raises
        ------
        MemoryError
            If the predictions do not fit in the free memory.
        """
        return reconstruct(self.state)

    def rmse(
        self, R: RatingsLike, *, missing: Missing | None = None, duplicates: Duplicates = "raise"
    ) -> float:
        """Return the root mean square error of the predictions for the ratings R.

        For the logistic loss, the predictions are probabilities.

        Parameters
        ----------
        R
            Ratings in any form that :class:`Ratings` takes, matched as by :meth:`expected`.
        missing
            Meaning of a zero in a dense R, as for :class:`Ratings`. Default: as in training.
        duplicates
            How to merge several ratings of one cell, as for :class:`Ratings`. Default: ``"raise"``.

        Returns
        -------
        float
            The error, in the unit of the ratings.

        Raises
        ------
        TypeError, ValueError
            If R has no ratings or another shape, or cannot be read.
        """
        ratings = self.state.read(R, missing=missing, duplicates=duplicates, copy=False)
        values, predicted = self.expected(ratings)
        return float(np.sqrt(np.mean(np.square(values - predicted, dtype=np.float64))))

    def user_rows(self, ids: Any) -> NDArray[np.intp]:
        """Translate user ids to row numbers.

        Parameters
        ----------
        ids
            Ids, as an array of any shape.

        Returns
        -------
        ndarray
            Row numbers, of the same shape.

        Raises
        ------
        KeyError
            If an id is not in the model.
        ValueError
            If the model has no user ids.
        """
        return self.state.positions("user", ids)

    def item_columns(self, ids: Any) -> NDArray[np.intp]:
        """Translate item ids to column numbers.

        Parameters
        ----------
        ids
            Ids, as an array of any shape.

        Returns
        -------
        ndarray
            Column numbers, of the same shape.

        Raises
        ------
        KeyError
            If an id is not in the model.
        ValueError
            If the model has no item ids.
        """
        return self.state.positions("item", ids)
