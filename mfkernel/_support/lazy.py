"""Values computed on first use, and modules of optional dependencies."""

import importlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module of an optional dependency; if it is missing, name the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"{what} needs {name}: pip install 'mfkernel[{extra}]'") from error


class lazy(Generic[T]):  # noqa: N801 (used as a decorator, like property)
    """A property that is computed once and kept.

    In Python 3.11, ``functools.cached_property`` takes a lock, which a process forked at that moment would
    find locked forever.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance.__dict__[self._name] = self._function(instance)
        return value
