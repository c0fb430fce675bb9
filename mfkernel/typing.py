"""Types of public arguments."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

if TYPE_CHECKING:
    from scipy import sparse

    from mfkernel.data.ratings import Ratings
    from mfkernel.model.factors import Factors
    from mfkernel.model.history import Epoch

MethodName = Literal["sgd", "als", "implicit", "bayesian"]
ScheduleName = Literal["blocks", "hogwild", "sequential"]
DecayName = Literal["constant", "inverse-time", "linear", "cosine", "adaptive"]
LossName = Literal["squared", "absolute", "huber", "logistic"]
SolverName = Literal["cholesky", "cg", "subspace"]
PenaltyUnit = Literal["rating", "row"]
Missing = Literal["zero", "nan"]
Duplicates = Literal["raise", "sum", "mean", "last"]
Unknown = Literal["raise", "default"]
Nulls = Literal["raise", "drop"]
UnknownItems = Literal["raise", "ignore"]

Pair: TypeAlias = tuple[float, float]
"""A number for P and one for Q."""

RngLike: TypeAlias = (
    int | np.integer[Any] | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator
    | np.random.Generator | None
)  # fmt: skip
"""Anything that ``np.random.default_rng`` takes (SPEC 7)."""

if TYPE_CHECKING:
    Triplets: TypeAlias = (
        tuple[ArrayLike, ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike, tuple[int, int]]
    )
    RatingsLike: TypeAlias = Ratings | sparse.sparray | sparse.spmatrix | Triplets | ArrayLike
    InitLike: TypeAlias = tuple[ArrayLike, ArrayLike] | Factors
    Callback: TypeAlias = Callable[[Epoch], object]
else:
    Triplets = RatingsLike = InitLike = Callback = Any


class FitKeywords(TypedDict, total=False):
    """The keywords of :func:`mfkernel.factorize` that all methods share."""

    user: str | None
    item: str | None
    rating: str | None
    timestamp: str | None
    count: bool
    nulls: Nulls
    validation: float | RatingsLike | None
    patience: int | None
    tol: float | None
    time_limit: float | None
    init: InitLike | None
    user_ids: Any
    item_ids: Any
    sample_weight: RatingsLike | None
    half_life: float | timedelta | None
    dtype: DTypeLike
    missing: Missing
    duplicates: Duplicates
    rng: RngLike
    n_threads: int | None
    callback: Callback | None
    progress: bool
    checkpoint: str | os.PathLike[str] | None
    resume: bool


class SGDKeywords(FitKeywords, total=False):
    """The keywords of :func:`mfkernel.factorize` for stochastic gradient descent."""

    epochs: int | None
    learning_rate: float | None
    decay: DecayName | None
    regularization: float | Pair | None
    biases: bool
    bias_learning_rate: float | None
    bias_regularization: float | None
    loss: LossName
    huber_delta: float | None
    l1: float | Pair
    nonnegative: bool
    schedule: ScheduleName
    shuffle: bool


class ALSKeywords(FitKeywords, total=False):
    """The keywords of :func:`mfkernel.factorize` for alternating least squares."""

    epochs: int | None
    regularization: float | Pair | None
    regularization_per: PenaltyUnit | None
    biases: bool
    bias_regularization: float | None
    nonnegative: bool
    solver: SolverName | None


class ImplicitALSKeywords(FitKeywords, total=False):
    """The keywords of :func:`mfkernel.factorize` for implicit feedback."""

    epochs: int | None
    regularization: float | Pair | None
    regularization_per: PenaltyUnit | None
    alpha: float
    unobserved_weight: float
    nonnegative: bool
    solver: SolverName | None


class BayesianKeywords(FitKeywords, total=False):
    """The keywords of :func:`mfkernel.factorize` for Bayesian matrix factorization."""

    epochs: int | None
    burn_in: int | None
    samples: int
