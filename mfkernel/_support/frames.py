"""Data frames of any library, made through narwhals."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.lazy import import_extra

LIBRARIES = ("pandas", "polars", "pyarrow")


def make_frame(columns: Mapping[str, NDArray[Any]], library: str) -> Any:
    """Return a data frame of this library with these columns.

    Raises
    ------
    ImportError
        If narwhals, or the library, is not installed.
    """
    checks.one_of("library", library, LIBRARIES)
    narwhals = import_extra("narwhals.stable.v2", "frame", "to_frame")
    import_extra(library, "frame", f"to_frame({library!r})")
    lists = {
        name: column.tolist() if column.dtype.kind in "UO" else column for name, column in columns.items()
    }
    return narwhals.from_dict(lists, backend=library).to_native()
