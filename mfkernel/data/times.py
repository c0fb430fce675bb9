"""The times of ratings: numbers in any unit, or dates as seconds since 1970."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data import convert
from mfkernel.data.entries import Entries

SECOND = np.timedelta64(1, "s")
REMEDY = "pass numbers, datetime64, or dates such as '2005-09-06'"


def as_times(name: str, given: Any) -> NDArray[np.float64]:
    """Return times as float64, of the same shape; dates become seconds since 1970 (UTC).

    Raises
    ------
    TypeError, ValueError
        If they are neither numbers nor dates, or some are missing or not finite.
    """
    checks.unmasked(name, given)
    times = np.asarray(given)
    if times.dtype.kind in "OUSM":
        try:
            times = times.astype("datetime64[us]")
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be times, got {_first_wrong(times)!r}; {REMEDY}") from error
        missing, result = np.isnat(times), (times - np.datetime64(0, "us")) / SECOND
    elif times.dtype.kind in "iuf":
        result = times.astype(np.float64)
        missing = ~np.isfinite(result)
    else:
        raise TypeError(f"{name} must be times, got dtype {times.dtype}; {REMEDY}")
    if missing.any():
        n = int(missing.argmax())
        raise ValueError(f"{name} must be finite times, got {name}[{n}] = {times.ravel()[n]}")
    return np.asarray(result, np.float64)


def as_time(name: str, given: Any) -> float:
    """Return one time, as :func:`as_times` does."""
    times = as_times(name, given)
    if times.ndim:
        raise TypeError(f"{name} must be one time, got the shape {times.shape}")
    return float(times)


def as_duration(name: str, given: Any) -> float:
    """Return a positive duration in the unit of the times; one of ``timedelta`` in seconds."""
    duration = given.total_seconds() if hasattr(given, "total_seconds") else given
    if isinstance(duration, np.timedelta64):
        duration = float(duration / SECOND)
    return checks.real(name, duration, positive=True)


def triplets_of(R: Any) -> Any:
    """Return a matrix whose ``data`` has an order as triplets in this order; triplets and ratings stay."""
    if isinstance(R, tuple | Entries):
        return R
    if getattr(R, "format", None) not in ("csr", "csc", "coo"):
        raise TypeError(
            f"R must be triplets, a CSR, CSC or COO matrix, or mf.Ratings with timestamps, got "
            f"{type(R).__name__}"
        )
    coo = R.tocoo()
    return coo.row, coo.col, coo.data, R.shape


def align_times(times: NDArray[np.float64], R: Any, csr: convert.Csr) -> NDArray[np.float64]:
    """Return the time of each entry of ``csr``, which R became; duplicates have their latest time."""
    if isinstance(R, tuple):
        return convert.of_triplets(times, R, csr, "last", times)
    if times.shape != csr.values.shape:
        raise ValueError(f"timestamps must have one time per rating, {csr.values.size}, got {times.size}")
    return times


def _first_wrong(times: NDArray[Any]) -> Any:
    for time in times.ravel().tolist():
        try:
            np.datetime64(time, "us")
        except (TypeError, ValueError):
            return time
    return times.dtype
