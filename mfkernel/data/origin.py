"""The data frame that ratings came from, as far as later frames and answers need it."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Self, get_args

from mfkernel._support import checks
from mfkernel.typing import Nulls

COLUMN_KINDS = ("user", "item", "rating", "timestamp")


class Origin(NamedTuple):
    """The frame that ratings came from; all fields have their default for ratings of another form.

    Attributes
    ----------
    library
        Library of the frame: ``"pandas"``, ``"polars"`` or ``"pyarrow"``; None for others.
    user, item, rating, timestamp
        Names of the columns that were read; None where there was no column, or one column per item.
    counted
        Whether each row was a 1, and those of a user and an item were added up.
    nulls
        Whether rows with missing values were an error, ``"raise"``, or left out, ``"drop"``.
    """

    library: str | None = None
    user: Any = None
    item: Any = None
    rating: Any = None
    timestamp: Any = None
    counted: bool = False
    nulls: str = "raise"

    @property
    def has_columns(self) -> bool:
        """Whether the frame had a row per rating, and so columns that later frames also have."""
        return self.user is not None

    @property
    def transposed(self) -> Self:
        """The origin of the ratings of items by users."""
        return self._replace(user=self.item, item=self.user)

    def columns_in(self, names: Collection[Any]) -> dict[str, Any]:
        """Return the columns of each kind that a later frame has under the same name, else None."""
        columns = {kind: getattr(self, kind) for kind in COLUMN_KINDS}
        return {kind: name if name in names else None for kind, name in columns.items()}

    def to_header(self) -> dict[str, Any]:
        """Return what a file keeps: the names and the reading of columns, if the names are plain."""
        fields = self._asdict()
        del fields["library"]  # of the program that reads the file
        plain = all(isinstance(fields[kind], str | int | None) for kind in COLUMN_KINDS)
        return fields if self.has_columns and plain else {}

    @classmethod
    def of_header(cls, fields: Mapping[str, Any]) -> Self:
        """Return the origin that :meth:`to_header` described.

        Raises
        ------
        TypeError, ValueError
            If a field is unknown or has a wrong value.
        """
        origin = cls(None, **fields)
        for kind in COLUMN_KINDS:
            if not isinstance(getattr(origin, kind), str | int | None):
                raise TypeError(f"{kind} must be the name of a column, got {getattr(origin, kind)!r}")
        checks.boolean("counted", origin.counted)
        checks.one_of("nulls", origin.nulls, get_args(Nulls))
        return origin


NO_FRAME = Origin()
