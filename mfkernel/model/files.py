"""Models saved to files, and read from them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ids import pack_ids, unpack_ids
from mfkernel.data.origin import Origin
from mfkernel.data.ratings import Ratings
from mfkernel.methods import read_settings
from mfkernel.methods.posterior import Posterior
from mfkernel.model import archive
from mfkernel.model.archive import File
from mfkernel.model.history import Epoch
from mfkernel.model.state import State

FORMATS = range(1, 6)  # formats that can be read; the last one is written
ARRAYS = ("P", "Q", "user_bias", "item_bias", "known_users", "known_items")
RATINGS_ARRAYS = ("indptr", "indices", "values", "weights", "timestamps")
# kernels trust row and column numbers, which are therefore copied
MAPPED_ARRAYS = (
    *("P", "Q", "user_bias", "item_bias", "known_users", "known_items", "ratings_values"),
    *("posterior_user_factors", "posterior_item_factors", "posterior_user_bias", "posterior_item_bias"),
    *("posterior_user_precision", "posterior_item_precision"),
)


def write_state(file: File, state: State, *, ratings: bool) -> None:
    """Write a state to one file, with or without its ratings."""
    header = {
        "format": FORMATS[-1],
        "mean": state.mean,
        "stop_reason": state.stop_reason,
        "settings": {"method": state.settings.method, **state.settings.values()},
        "missing": state.missing,
        "columns": state.origin.to_header(),
    }
    arrays = {name: getattr(state, name) for name in ARRAYS} | {"history": pack_history(state.history)}
    arrays |= pack_ids("user_ids", state.user_ids) | pack_ids("item_ids", state.item_ids)
    if ratings and state.ratings is not None:
        parts = {name: getattr(state.ratings, name) for name in RATINGS_ARRAYS}
        arrays |= {f"ratings_{name}": array for name, array in parts.items()}
    if state.posterior is not None:
        arrays |= {f"posterior_{name}": array for name, array in state.posterior.arrays().items()}
    archive.write(file, header, arrays)


def read_arguments(file: File, *, mmap: bool = False) -> dict[str, Any]:
    """Read the arguments of :class:`Factors` from a file of any version."""
    header, arrays = archive.read(file, FORMATS, mapped=MAPPED_ARRAYS if mmap else ())
    try:
        history = unpack_history(arrays.pop("history"))
        parts: dict[str, Any] = {name: arrays.pop(f"ratings_{name}", None) for name in RATINGS_ARRAYS}
        ids = {name: unpack_ids(name, arrays) for name in ("user_ids", "item_ids")}
        samples = {name: arrays.pop(name) for name in list(arrays) if name.startswith("posterior_")}
        if samples:
            ids["posterior"] = Posterior(
                **{name.removeprefix("posterior_"): array for name, array in samples.items()}
            )
        if parts["indptr"] is not None:
            shape = arrays["P"].shape[0], arrays["Q"].shape[1]
            ids["ratings"] = Ratings.of_csr(**parts, shape=shape)
        return {
            **arrays,
            **ids,
            **read_settings(header),
            "origin": Origin.of_header(header.get("columns", {})),
            "mean": header["mean"],
            "history": history,
            "stop_reason": str(header.get("stop_reason", "")),
        }
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise not_whole(file, error) from error


def not_whole(file: File, error: Exception) -> ValueError:
    """Return the error for a file with inconsistent parts."""
    return ValueError(f"{archive.name_of(file)} is not a whole model ({error})")


def pack_history(history: Sequence[Epoch]) -> NDArray[np.float64]:
    """Return records as rows of numbers; None becomes nan."""
    return np.array(history, np.float64).reshape(-1, len(Epoch._fields))


def unpack_history(rows: NDArray[Any]) -> list[Epoch]:
    """Return the records of :func:`pack_history`, perhaps of a version with fewer fields."""
    return [_record(*row) for row in rows.astype(np.float64).tolist()]


def _record(epoch: float, *rest: float) -> Epoch:
    numbers = [None if math.isnan(x) else x for x in rest]
    record = Epoch(int(epoch), *numbers)  # type: ignore[arg-type]
    back_to = record.rolled_back_to
    return record if back_to is None else record._replace(rolled_back_to=int(back_to))
