"""The error for several ratings of one user for one item."""

from typing import Any

from mfkernel.data.ids import as_ids


class DuplicateError(ValueError):
    """Duplicate ratings: ``count`` extra ratings, the first of them at (user, item)."""

    def __init__(self, count: int, user: Any, item: Any) -> None:
        self.count, self.user, self.item = count, user, item
        super().__init__(
            f"{count} duplicate ratings (the first of user {user} for item {item}); "
            "pass duplicates='sum', 'mean' or 'last'"
        )


def by_id(error: DuplicateError, user_ids: Any, item_ids: Any) -> DuplicateError:
    """Return an error that names ids instead of numbers."""
    names = []
    for name, ids, number in (("user_ids", user_ids, error.user), ("item_ids", item_ids, error.item)):
        known = None if ids is None else as_ids(name, ids).ravel()
        names.append(number if known is None or number >= known.size else known.tolist()[number])
    return DuplicateError(error.count, *names)
