"""Values that are computed, and modules that are imported, on first use."""

import importlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import what only an extra of the package brings; without it, say which."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"{what} needs {name}: pip install 'mfkernel[{extra}]'") from error


class lazy(Generic[T]):  # noqa: N801 (used as a decorator, like property)
    """A property whose value is kept.

    ``functools.cached_property`` does the same, but in Python 3.11 under a lock, which a process forked
    meanwhile would find taken for ever.
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
