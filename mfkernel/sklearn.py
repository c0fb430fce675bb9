"""Estimators of scikit-learn: matrix factorization as a transformer, and an imputer (extra ``sklearn``).

Matrices are dense, with nan for missing values, or sparse, where all stored entries are known. Rows are
samples, which are users; columns are features, which are items.
"""

import inspect
from dataclasses import fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mfkernel.api import factorize
from mfkernel.data.ratings import Ratings
from mfkernel.model.factors import Factors
from mfkernel.options import ALS, SGD, Bayesian, ImplicitALS, Settings

try:
    from sklearn import base
    from sklearn.utils import validation
except ImportError as error:
    raise ImportError("mfkernel.sklearn needs scikit-learn: pip install 'mfkernel[sklearn]'") from error

HIDDEN_SHARE = 0.2  # share of a row's known values that score hides from the row's factors
FLOATS = (np.float64, np.float32)


class Factorization(base.ClassNamePrefixFeaturesOutMixin, base.TransformerMixin, base.BaseEstimator):  # type: ignore[misc]
    """The base class of the estimators; each has the options of its method.

    Attributes
    ----------
    model_
        The model, a :class:`~mfkernel.Factors`.
    components_
        (n_components, n_features) factors of the features, Q.
    n_iter_
        Number of epochs.
    """

    _options: type[Settings]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the factors of all rows and columns.

        Parameters
        ----------
        X
            (n_samples, n_features) values: dense with nan for missing ones, or sparse.
        y
            Ignored.

        Returns
        -------
        estimator
            This estimator.
        """
        X = self._checked(X, reset=True)
        names = self._options.names()
        options = {name: getattr(self, name) for name in names}
        self.model_: Factors = factorize(
            _known(X),
            self.n_components,
            self._options(**options),
            dtype=X.dtype,
            rng=_seed(self.random_state),
            n_threads=self.n_threads,
        )
        self.components_ = self.model_.Q
        self.n_iter_ = len(self.model_.history)
        self._n_features_out = self.n_components + (self.model_.user_bias is not None)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the factors of rows, also of new ones: the exact minimum, given the columns' factors.

        Parameters
        ----------
        X
            (n_samples, n_features) values, as for :meth:`fit`.

        Returns
        -------
        ndarray
            (n_samples, n_components) factors; with biases, one more column has the rows' biases.
        """
        validation.check_is_fitted(self)
        X = self._checked(X, reset=False)
        folded = self.model_.fold_in(_known(X), n_threads=self.n_threads)
        P = np.array(folded.P)
        return P if folded.user_bias is None else np.column_stack([P, folded.user_bias])

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[Any]:
        """Fit, and return the factors that :meth:`transform` gives.

        Parameters
        ----------
        X, y
            As for :meth:`fit`.

        Returns
        -------
        ndarray
            (n_samples, n_components) factors.
        """
        return self.fit(X).transform(X)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Return the values that factors stand for.

        Parameters
        ----------
        X
            (n_samples, n_components) factors, as from :meth:`transform`.

        Returns
        -------
        ndarray
            (n_samples, n_features) predictions.
        """
        validation.check_is_fitted(self)
        X = validation.check_array(X, dtype=FLOATS)
        if X.shape[1] != self._n_features_out:
            raise ValueError(f"X must have {self._n_features_out} columns, got {X.shape[1]}")
        if self.model_.item_bias is None:
            product: NDArray[Any] = X @ self.components_
            return product
        biased: NDArray[Any] = X[:, :-1] @ self.components_
        biased += self.model_.mean + X[:, -1:] + self.model_.item_bias
        return biased

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict all values of rows from their known values.

        Parameters
        ----------
        X
            (n_samples, n_features) values, as for :meth:`fit`.

        Returns
        -------
        ndarray
            (n_samples, n_features) predictions.
        """
        return self.inverse_transform(self.transform(X))

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the RMSE of known values that the rows' factors have not seen; higher is better.

        A fifth of the values is hidden, at random with a fixed seed; the others make the factors.

        Parameters
        ----------
        X
            (n_samples, n_features) values, as for :meth:`fit`.
        y
            Ignored.

        Returns
        -------
        float
            Minus the root mean square error.
        """
        validation.check_is_fitted(self)
        known = _known(self._checked(X, reset=False))
        count = max(1, round(HIDDEN_SHARE * known.nnz))
        shown, hidden = known.hold_out(min(count, known.nnz), np.random.default_rng(0), keep_rows=True)
        return -self.model_.fold_in(shown, n_threads=self.n_threads).rmse(hidden)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """Return X in float32 or float64, and compare its columns with those of fit."""
        X = validation.validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype=FLOATS, ensure_all_finite="allow-nan"
        )
        if self._options.implicit:
            validation.check_non_negative(X, type(self).__name__)
        return X

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = self._options.implicit
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _known(X: Any) -> Ratings:
    """Return the known values of a checked matrix."""
    return Ratings(X, missing="nan", duplicates="sum")


def _seed(random_state: Any) -> int:
    """Return a seed drawn as scikit-learn draws it."""
    return int(validation.check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _with_options(cls: type[Factorization]) -> type[Factorization]:
    """Give an estimator the options of its method as parameters."""
    options = fields(cls._options)  # type: ignore[arg-type]
    defaults = {"n_components": 8} | {x.name: x.default for x in options}
    defaults |= {"random_state": None, "n_threads": None}

    def __init__(self: Any, **given: Any) -> None:  # noqa: N807
        for name in given:
            if name not in defaults:
                raise TypeError(f"{cls.__name__}() has no argument {name}")
        for name, default in defaults.items():
            setattr(self, name, given.get(name, default))

    kinds = inspect.Parameter
    parameters = [kinds("self", kinds.POSITIONAL_OR_KEYWORD)]
    parameters += [kinds(name, kinds.KEYWORD_ONLY, default=value) for name, value in defaults.items()]
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[method-assign]
    texts = "".join(f"    {x.name}\n        {x.metadata['text']}\n" for x in options)
    cls.__doc__ = f"""{cls.__doc__}

    Parameters
    ----------
    n_components
        Number of factors. Default: 8.
{texts}    random_state
        Seed, or a ``RandomState``, as everywhere in scikit-learn.
    n_threads
        Number of threads. Default: one per core.
    """
    return cls


@_with_options
class ALSFactorization(Factorization):
    """Factorize the known values of a matrix by alternating least squares."""

    _options = ALS


@_with_options
class SGDFactorization(Factorization):
    """Factorize the known values of a matrix by stochastic gradient descent."""

    _options = SGD


@_with_options
class ImplicitALSFactorization(Factorization):
    """Factorize a matrix of counts, where missing values are weak zeros."""

    _options = ImplicitALS


@_with_options
class BayesianFactorization(Factorization):
    """Factorize the known values of a matrix by Gibbs sampling, with nothing to tune."""

    _options = Bayesian


class MatrixImputer(base.OneToOneFeatureMixin, base.TransformerMixin, base.BaseEstimator):  # type: ignore[misc]
    """Fill in the missing values of a table by matrix factorization with biases.

    Columns are scaled to zero mean and unit variance for the fit. New rows get factors from their known
    values. Known values stay as they are.

    Parameters
    ----------
    n_components
        Number of factors; at most the number of columns is used. Default: 8.
    regularization
        λ of the factors, per value. Default: chosen by ``ALS``.
    epochs
        Number of epochs. Default: 30.
    random_state
        Seed, or a ``RandomState``.
    n_threads
        Number of threads. Default: one per core.

    Attributes
    ----------
    model_
        The model of the scaled columns.
    """

    def __init__(
        self,
        n_components: int = 8,
        *,
        regularization: float | None = None,
        epochs: int = 30,
        random_state: Any = None,
        n_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.regularization = regularization
        self.epochs = epochs
        self.random_state = random_state
        self.n_threads = n_threads

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the factors of the columns.

        Parameters
        ----------
        X
            (n_samples, n_features) numbers, nan where missing.
        y
            Ignored.

        Returns
        -------
        MatrixImputer
            This imputer.
        """
        X = self._checked(X, reset=True)
        known = ~np.isnan(X)
        counts = known.sum(axis=0)
        self.mean_ = np.where(known, X, 0).sum(axis=0) / np.maximum(counts, 1)
        deviations = np.where(known, X - self.mean_, 0)
        variance = np.square(deviations).sum(axis=0) / np.maximum(counts, 1)
        self.scale_ = np.where(variance > 0, np.sqrt(variance), 1.0)
        if not known.any():
            raise ValueError("X must have a known value, got none")
        self.model_: Factors = factorize(
            self._scaled(X),
            min(self.n_components, X.shape[1]),
            ALS(epochs=self.epochs, regularization=self.regularization, biases=True),
            dtype=np.float64,
            rng=_seed(self.random_state),
            n_threads=self.n_threads,
        )
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return the table with its missing values filled in.

        Parameters
        ----------
        X
            (n_samples, n_features) numbers, nan where missing.

        Returns
        -------
        ndarray
            (n_samples, n_features) numbers.
        """
        validation.check_is_fitted(self)
        X = self._checked(X, reset=False)
        folded = self.model_.fold_in(self._scaled(X), n_threads=self.n_threads)
        filled = folded.reconstruct() * self.scale_ + self.mean_
        result: NDArray[Any] = np.where(np.isnan(X), filled, X).astype(X.dtype, copy=False)
        return result

    def _scaled(self, X: NDArray[Any]) -> Ratings:
        return Ratings((X - self.mean_) / self.scale_, missing="nan", dtype=np.float64)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        return validation.validate_data(self, X, reset=reset, dtype=FLOATS, ensure_all_finite="allow-nan")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
