"""Arrays and objects that cannot be changed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view, so that kernels get one type of array."""
    view = array.view()
    view.flags.writeable = False
    return view


class _Memory:
    """Read-only memory of an array, which an array made from it cannot reach."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, array: NDArray[Any]) -> None:
        self._owner = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, True)}


def immutable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that shares the memory of ``array`` and cannot be made writable.

    Neither its flags nor its ``base`` give access to ``array``, which the caller must not keep. For an array
    of objects, the result is a read-only view, since their memory cannot be shared in this way.
    """
    if array.size == 0 or array.dtype.hasobject:
        return readonly(array)
    if not array.flags.c_contiguous and array.flags.f_contiguous:
        return immutable(array.T).T
    return np.asarray(_Memory(np.ascontiguousarray(array)))


class Immutable:
    """An object whose attributes are set only once, when it is made."""

    _remedy = "make a new one"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: {self._remedy}")

    def _set_once(self, **values: Any) -> None:
        if self.__dict__:
            raise AttributeError(f"{type(self).__name__} cannot be made a second time: {self._remedy}")
        self.__dict__.update(values)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: {self._remedy}")
