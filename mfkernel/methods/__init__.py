"""The registry of training methods, which are found by name, by options or from a saved model.

To add a method, write its options and its trainer, and add one line to ``METHODS``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mfkernel._support import checks
from mfkernel.methods.als import ALSTrainer
from mfkernel.methods.base import Trainer
from mfkernel.methods.bayesian import BayesianTrainer
from mfkernel.methods.sgd import SGDTrainer
from mfkernel.options import ALS, SGD, Bayesian, Choice, ImplicitALS, Settings


class Method(NamedTuple):
    """The options of a method, and its trainer."""

    options: type[Settings]
    trainer: type[Trainer[Any]]


METHODS: dict[str, Method] = {
    "sgd": Method(SGD, SGDTrainer),
    "als": Method(ALS, ALSTrainer),
    "implicit": Method(ImplicitALS, ALSTrainer),
    "bayesian": Method(Bayesian, BayesianTrainer),
}


def trainer_for(options: Settings) -> type[Trainer[Any]]:
    """Return the trainer for the options of a method."""
    return METHODS[options.method].trainer


def _options() -> list[type[Settings]]:
    return [method.options for method in METHODS.values()]


def make_settings(method: Any, options: Mapping[str, Any], others: tuple[str, ...] = ()) -> Settings:
    """Return the options of a method, given by name or as an object, with ``options`` replaced.

    Raises
    ------
    TypeError
        If the method does not have an option, or ``method`` is neither a name nor an options object. The
        message names the methods that have the option, or the nearest name among its options and ``others``.
    ValueError
        If the method is unknown, or an option has an invalid value.
    """
    if isinstance(method, Settings):
        kind = type(method)
    elif isinstance(method, str):
        checks.one_of("method", method, tuple(METHODS))
        kind = METHODS[method].options
    else:
        names = ", ".join(repr(name) for name in METHODS)
        objects = ", ".join(f"mf.{x.__name__}()" for x in _options())
        raise TypeError(f"method must be one of {names}, or one of {objects}, got {method!r}")
    for name in options:
        if name not in kind.names():
            having = [_called(x) for x in _options() if name in x.names()]
            if having:
                raise TypeError(
                    f"{name} is an option of {' and '.join(having)}, but not of {_called(kind)}, which has "
                    f"{', '.join(sorted(kind.names()))}"
                )
            raise checks.unknown_argument("factorize", name, (*kind.names(), *others))
    return replace(method, **options) if isinstance(method, Settings) else kind(**options)  # type: ignore[type-var]


def _called(kind: type[Settings]) -> str:
    return f"{kind.__name__} (method={kind.method!r})"


# Headers of saved models

# options that earlier versions stored for every method, with the value for methods without them
_EARLIER: dict[str, Any] = {
    "biases": False,
    "loss": "squared",
    "huber_delta": None,
    "learning_rate": None,
    "decay": None,
    "bias_learning_rate": None,
    "bias_regularization": None,
    "l1": (0.0, 0.0),
    "solver": None,
    "alpha": 1.0,
    "unobserved_weight": 1.0,
}


def read_settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` and ``missing`` from the header of a saved model of any version.

    Raises
    ------
    TypeError, ValueError
        If an option has an invalid value.
    """
    values = {name: tuple(x) if isinstance(x, list) else x for name, x in header.get("settings", {}).items()}
    missing = header.get("missing", values.pop("missing", "zero"))
    name = Choice(tuple(METHODS)).check("settings.method", values.pop("method", "sgd"))
    kind = METHODS[name].options
    if "weighted" in values:
        values["regularization_per"] = "rating" if values.pop("weighted") else "row"
    values.pop("adapts", None)
    if "regularization_per" not in kind.names():
        values.pop("regularization_per", None)
    for name in (set(values) - set(kind.names())) & set(_EARLIER):
        if name in ("decay", "bias_regularization") or values[name] in (_EARLIER[name], None):
            del values[name]
    if unknown := sorted(set(values) - set(kind.names())):
        raise ValueError(f"settings of {_called(kind)} must not have {', '.join(unknown)}")
    try:
        return {"settings": kind(**values), "missing": missing}
    except (TypeError, ValueError) as error:
        raise type(error)(f"settings.{error}") from None
