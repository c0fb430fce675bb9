"""Data frames of any library, made through narwhals."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.lazy import import_extra

LIBRARIES = ("pandas", "polars", "pyarrow")

Answer = TypeVar("Answer", bound="Framed")


class Framed:
    """An answer that can become a data frame, by default of the library that its ratings came from."""

    _library: str | None = None

    def _frame_columns(self) -> Mapping[str, NDArray[Any]]:
        """Return the columns of the frame."""
        raise NotImplementedError

    def to_frame(self, library: str | None = None) -> Any:
        """Return the answer as a data frame (extra ``frame``).

        Parameters
        ----------
        library
            Library of the frame: ``"pandas"``, ``"polars"`` or ``"pyarrow"``. Default: that of the frame that
            the ratings came from; for other ratings and loaded models the first of these that is installed.

        Returns
        -------
        DataFrame or Table
            One row per part of the answer; its class lists the columns.

        Raises
        ------
        ImportError
            If narwhals, or the library, is not installed.
        """
        if library is None:
            wanted = LIBRARIES if self._library is None else (self._library, *LIBRARIES)
            library = next((name for name in wanted if find_spec(name) is not None), LIBRARIES[0])
        return make_frame(self._frame_columns(), library)


def in_library(library: str | None, answer: Answer) -> Answer:
    """Let an answer become a frame of this library by default, None for an installed one; return it."""
    answer._library = library
    return answer


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
