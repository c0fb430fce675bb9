"""The options of each training method, with their defaults, checks and texts.

A method's options are a frozen dataclass. Its fields are the only declaration: keywords of ``factorize``,
command-line flags, ``model.settings`` and the header of a saved model are made from them.
"""

import inspect
import textwrap
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar, get_args

from mfkernel._support import checks
from mfkernel.typing import (
    DecayName,
    LossName,
    MethodName,
    Pair,
    PenaltyUnit,
    ScheduleName,
    SolverName,
)

T = TypeVar("T", bound="type[Settings]")


# Kinds of values of an option


@dataclass(frozen=True)
class Integer:
    """An integer, at least ``least``."""

    least: int

    def check(self, name: str, value: object) -> int:
        """Return the value, or raise an error that names it."""
        return checks.integer(name, value, self.least)


@dataclass(frozen=True)
class Real:
    """A finite number, above zero if ``positive``, else not below it; and not above ``most``."""

    positive: bool = False
    most: float | None = None

    def check(self, name: str, value: object) -> float:
        """Return the value, or raise an error that names it."""
        number = checks.real(name, value, positive=self.positive)
        if self.most is not None and number > self.most:
            raise ValueError(f"{name} must be at most {self.most:g}, got {number:g}")
        return number


@dataclass(frozen=True)
class PerSide:
    """A number for P and one for Q, neither below zero; one number stands for both."""

    def check(self, name: str, value: object) -> Pair:
        """Return the pair, or raise an error that names it."""
        return checks.pair(name, value)


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def check(self, name: str, value: object) -> bool:
        """Return the value, or raise an error that names it."""
        return checks.boolean(name, value)


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def check(self, name: str, value: object) -> str:
        """Return the value, or raise an error that names it and the nearest choice."""
        checks.one_of(name, value, self.names)
        return str(value)


def option(default: Any, kind: Any, text: str, otherwise: str = "") -> Any:
    """Declare a field: its default, the values it may have and its text.

    ``otherwise`` says what the default None stands for. None is no value of an option with another default.
    """
    return field(default=default, metadata={"kind": kind, "text": text, "otherwise": otherwise})


def documented(cls: T) -> T:
    """Add the texts of the fields to the docstring of a dataclass."""
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Parameters", "----------"]
    for x in fields(cls):  # type: ignore[arg-type]
        default = x.metadata["otherwise"] or f"{x.default!r}"
        lines += [x.name, textwrap.fill(f"{x.metadata['text']} Default: {default}.", 100)]
        lines[-1] = textwrap.indent(lines[-1], "    ")
    cls.__doc__ = "\n".join(lines)
    return cls


# The methods


class Settings:
    """Options of a training method: the base class of ``SGD``, ``ALS``, ``ImplicitALS`` and ``Bayesian``.

    None leaves a value to mfkernel, which chooses it from the ratings. ``model.settings`` has the values that
    training has used. A method without one of the options below has the value given here.

    Parameters
    ----------
    **options
        Not allowed: make an object of a subclass.
    """

    method: ClassVar[MethodName]
    implicit: ClassVar[bool] = False  # whether missing cells count as zeros of small weight

    epochs: int | None = None
    learning_rate: float | None = None
    regularization: float | Pair | None = None
    regularization_per: PenaltyUnit | None = "rating"
    biases: bool = False
    bias_learning_rate: float | None = None
    bias_regularization: float | None = None
    loss: LossName = "squared"
    huber_delta: float | None = None
    l1: float | Pair = (0.0, 0.0)
    nonnegative: bool = False
    alpha: float = 0.0
    unobserved_weight: float = 0.0

    def __init__(self, **options: Any) -> None:
        raise TypeError(
            "mf.Settings has no options of its own; make mf.SGD, mf.ALS, mf.ImplicitALS or mf.Bayesian"
        )

    def __post_init__(self) -> None:
        for x in fields(self):  # type: ignore[arg-type]
            value = getattr(self, x.name)
            if not (value is None and x.default is None):
                object.__setattr__(self, x.name, x.metadata["kind"].check(x.name, value))
        self._check_together()

    def _check_together(self) -> None:
        """Refuse options that exclude each other."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(x.name for x in fields(cls))  # type: ignore[arg-type]

    def values(self) -> dict[str, Any]:
        """Return the options by name."""
        return {name: getattr(self, name) for name in self.names()}

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values, which are not checked.

        Parameters
        ----------
        **values
            New values of options, by name.
        """
        copy: Self = object.__new__(type(self))
        for name, value in (self.values() | values).items():
            object.__setattr__(copy, name, value)
        return copy

    @property
    def is_per_rating(self) -> bool:
        """Whether λ counts once per rating of a row, rather than once per row."""
        if self.regularization_per is None:
            return self.regularization is None
        return self.regularization_per == "rating"


def both(value: float | Pair | None) -> Pair:
    """Return a number for P and one for Q; zeros for None."""
    if value is None:
        return 0.0, 0.0
    return value if isinstance(value, tuple) else (value, value)


_EPOCHS = "Passes over the ratings."
_REGULARIZATION = "Penalty λ on the squares of the factors. One number, or a pair for P and Q."
_NONNEGATIVE = "Keep P and Q at zero or above."
_SOLVER = (
    "How a row is solved: 'cholesky' exactly; 'cg' by three steps of conjugate gradients from its last "
    "value; 'subspace' by block coordinate descent, 64 coordinates at a time (iALS++)."
)
_SOLVER_DEFAULT = "'cholesky' up to k = 32 or with nonnegative, else 'cg'"
_PER_ROW = "'rating' if regularization is None, else 'row'"


@documented
@dataclass(frozen=True, kw_only=True)
class SGD(Settings):
    """Stochastic gradient descent on known ratings (Koren, Bell and Volinsky 2009).

    Minimizes Σ w [ℓ(r - z) + λ/2 (‖p‖² + ‖q‖²) + λ₁ (‖p‖₁ + ‖q‖₁)] over the known ratings, where
    z = p·q, or μ + b_u + b_i + p·q with biases. For the squared loss, each rating with the error e = r - z
    makes the steps p ← p + γ (e q - λ p) and q ← q + γ (e p - λ q).
    """

    method: ClassVar[MethodName] = "sgd"

    epochs: int | None = option(
        None,
        Integer(1),
        _EPOCHS,
        "25, fewer for sparse ratings, more for small dense tables and for a mean far from zero",
    )
    learning_rate: float | None = option(
        None,
        Real(positive=True),
        "Step size γ of the first epoch.",
        "from scale and density of the ratings, times 0.3 if init is a model",
    )
    decay: DecayName | None = option(
        None,
        Choice(get_args(DecayName)),
        "How the step size falls after t of T epochs: 'constant'; 'inverse-time', γ / (1 + t/5); 'linear', "
        "γ (1 - t/T); 'cosine', γ (1 + cos πt/T) / 2; 'adaptive', γ / √G per row, where G is 1 plus the mean "
        "squared gradients of the row.",
        "'cosine', or 'constant' if learning_rate is given",
    )
    regularization: float | Pair | None = option(
        None,
        PerSide(),
        f"{_REGULARIZATION} It counts once per rating.",
        "from spread and density of the ratings",
    )
    biases: bool = option(False, Flag(), "Add the mean and a bias per user and per item to predictions.")
    bias_learning_rate: float | None = option(
        None,
        Real(positive=True),
        "Step size of the biases, without a unit.",
        "in proportion to learning_rate",
    )
    bias_regularization: float | None = option(
        None, Real(), "Penalty λ on the squares of the biases.", "0.02 per rating"
    )
    loss: LossName = option(
        "squared",
        Choice(get_args(LossName)),
        "Error to minimize: 'squared', e²/2; 'absolute', ±e, which predicts medians; 'huber', squared up to "
        "huber_delta and linear beyond; 'logistic', for ratings of 0 and 1, or -1 and 1, whose predictions "
        "are probabilities of a 1.",
    )
    huber_delta: float | None = option(
        None,
        Real(positive=True),
        "Absolute error at which the Huber loss becomes linear.",
        "one standard deviation",
    )
    l1: float | Pair = option(
        0.0, PerSide(), "Penalty λ₁ per rating, which sets small coordinates to zero. One number, or a pair."
    )
    nonnegative: bool = option(False, Flag(), _NONNEGATIVE)
    schedule: ScheduleName = option(
        "blocks",
        Choice(get_args(ScheduleName)),
        "Order of the ratings: 'blocks', cache-sized blocks in parallel, with the same bits on any number of "
        "threads; 'sequential', row by row on one thread; 'hogwild', rows in parallel without locks, where "
        "results vary between runs.",
    )
    shuffle: bool = option(True, Flag(), "Visit blocks, rows and ratings in a new random order per epoch.")

    def _check_together(self) -> None:
        if self.decay == "adaptive" and (self.nonnegative or any(both(self.l1))):
            raise ValueError(
                "decay must be other than 'adaptive' with l1 or nonnegative; pass for example decay='cosine'"
            )


@documented
@dataclass(frozen=True, kw_only=True)
class ALS(Settings):
    """Alternating least squares on known ratings (Zhou, Wilkinson, Schreiber and Pan 2008).

    Minimizes Σ w (r - z)² + λ (‖P‖² + ‖Q‖²) over the known ratings, where z = p·q, or μ + b_u + b_i + p·q
    with biases. Each epoch solves all users given the items, then all items given the users. There is no
    learning rate, and any number of threads gives the same bits.
    """

    method: ClassVar[MethodName] = "als"

    epochs: int | None = option(None, Integer(1), _EPOCHS, "15")
    regularization: float | Pair | None = option(
        None, PerSide(), _REGULARIZATION, "from spread and density of the ratings"
    )
    regularization_per: PenaltyUnit | None = option(
        None,
        Choice(get_args(PenaltyUnit)),
        "Whether λ counts once per 'rating' of a row (ALS-WR) or once per 'row'.",
        _PER_ROW,
    )
    biases: bool = option(False, Flag(), "Add the mean and a bias per user and per item to predictions.")
    bias_regularization: float | None = option(
        None, Real(), "Penalty λ on the squares of the biases.", "0.02 per rating"
    )
    nonnegative: bool = option(False, Flag(), _NONNEGATIVE)
    solver: SolverName | None = option(None, Choice(get_args(SolverName)), _SOLVER, _SOLVER_DEFAULT)

    def _check_together(self) -> None:
        _check_solver(self.solver, self.nonnegative)


@documented
@dataclass(frozen=True, kw_only=True)
class ImplicitALS(Settings):
    r"""Alternating least squares on implicit feedback (Hu, Koren and Volinsky 2008).

    Stored entries are strengths r of clicks, plays or purchases; a negative one is a dislike. Minimizes
    Σ (1 + α \|r\|) (t - p·q)² over them, where t is 1, or 0 for a dislike, w₀ Σ (p·q)² over the missing
    cells, and λ (‖P‖² + ‖Q‖²). Weights multiply strengths. Any number of threads gives the same bits.
    """

    method: ClassVar[MethodName] = "implicit"
    implicit: ClassVar[bool] = True

    epochs: int | None = option(None, Integer(1), _EPOCHS, "15")
    regularization: float | Pair | None = option(None, PerSide(), _REGULARIZATION, "0.01 per rating")
    regularization_per: PenaltyUnit | None = option(
        None,
        Choice(get_args(PenaltyUnit)),
        "Whether λ counts once per 'rating' of a row, and w₀ times per missing cell, or once per 'row'.",
        _PER_ROW,
    )
    alpha: float = option(1.0, Real(), "Weight α that a unit of strength adds to a stored entry.")
    unobserved_weight: float = option(1.0, Real(most=1.0), "Weight w₀ of a missing cell, at most 1.")
    nonnegative: bool = option(False, Flag(), _NONNEGATIVE)
    solver: SolverName | None = option(None, Choice(get_args(SolverName)), _SOLVER, _SOLVER_DEFAULT)

    def _check_together(self) -> None:
        _check_solver(self.solver, self.nonnegative)


@documented
@dataclass(frozen=True, kw_only=True)
class Bayesian(Settings):
    """Bayesian matrix factorization by Gibbs sampling (Salakhutdinov and Mnih 2008).

    Ratings are μ + b_u + b_i + p·q plus normal noise, rows have normal priors, and the priors and the noise
    are learned as well. Each sweep draws all of them; predictions are means over the sweeps. There is
    nothing to tune, more factors do no harm, and each prediction has a standard deviation. Any number of
    threads gives the same bits.
    """

    method: ClassVar[MethodName] = "bayesian"
    biases = True

    epochs: int | None = option(None, Integer(1), "Sweeps over the ratings.", "200")
    burn_in: int | None = option(
        None, Integer(0), "First sweeps, which are left out of the means.", "a tenth of the epochs"
    )
    samples: int = option(
        16,
        Integer(1),
        "Sweeps of which all factors are kept, for standard deviations, intervals and new users. Each takes "
        "the memory of a model.",
    )


def _check_solver(solver: str | None, nonnegative: bool) -> None:
    if nonnegative and solver not in (None, "cholesky"):
        raise ValueError(f"with nonnegative=True, solver must be 'cholesky', got {solver!r}")
