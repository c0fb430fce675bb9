"""Bring the weights of ratings into the order of the ratings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel._support.arrays import immutable
from mfkernel.data import convert


def align_weights(
    sample_weight: Any, R: Any, csr: convert.Csr, duplicates: str, times: NDArray[np.float64] | None = None
) -> NDArray[Any]:
    """Return the weight of each entry of ``csr``, with the dtype of its values.

    Parameters
    ----------
    sample_weight
        (m, n), dense or sparse, for R of any form. Or 1-D, with one weight per triplet, per entry of
        ``R.data``, or per rating of a ``Ratings`` or CSR matrix.
    R
        The ratings as the user passed them.
    csr
        R after conversion.
    duplicates
        How duplicates of R were merged.
    times
        Times of the triplets, if R has any.
    """
    if duplicates in ("sum", "mean"):
        raise ValueError(f"duplicates must be 'raise' or 'last' with sample_weight, got {duplicates!r}")
    if len(np.shape(sample_weight)) == 2:
        weights = _of_cells(sample_weight, csr)
    else:
        weights = _of_entries(_check_values(sample_weight), R, csr, duplicates, times)
    if weights.size and not weights.any():
        raise ValueError("sample_weight must not be zero for all ratings")
    largest = weights.max(initial=0)
    if not 1e-30 < largest < 1e30:  # only ratios matter; after scaling, they fit in float32
        weights = weights / (largest or 1)
    return immutable(np.ascontiguousarray(weights, csr.values.dtype))


def copy_input(R: Any) -> Any:
    """Copy triplets or a sparse matrix, so that no other thread can change them."""
    if isinstance(R, tuple):
        return tuple(x.copy() if np.ma.isMaskedArray(x) else np.array(x) for x in R[:3]) + R[3:]
    return R.copy() if getattr(R, "format", None) in ("csr", "csc", "coo") else R


def _of_cells(sample_weight: Any, csr: convert.Csr) -> NDArray[Any]:
    """Pick the cells of ``csr`` from an (m, n) matrix; cells not stored are zero."""
    if np.shape(sample_weight) != csr.shape:
        raise ValueError(f"sample_weight must have R's shape {csr.shape}, got {np.shape(sample_weight)}")
    users = convert.row_numbers(csr.indptr)
    if not hasattr(sample_weight, "tocsr"):
        checks.unmasked("sample_weight", sample_weight)
        cells = np.asarray(sample_weight)[users, csr.indices]
        return _check_values(cells, lambda n: f"sample_weight[{users[n]}, {csr.indices[n]}]")
    try:
        given = convert.to_csr(sample_weight, "zero", "raise", np.dtype(np.float64), True)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"sample_weight: {error}") from None
    n = max(1, csr.shape[1])
    stored, wanted = (
        rows.astype(np.int64) * n + columns
        for rows, columns in ((convert.row_numbers(given.indptr), given.indices), (users, csr.indices))
    )
    at = np.searchsorted(stored, wanted).clip(max=max(0, stored.size - 1))
    cells = np.zeros(wanted.size)
    if stored.size:
        there = stored[at] == wanted
        cells[there] = given.values[at[there]]
    return _check_values(cells, lambda n: f"sample_weight[{users[n]}, {csr.indices[n]}]")


def _of_entries(
    weights: NDArray[Any], R: Any, csr: convert.Csr, duplicates: str, times: NDArray[np.float64] | None
) -> NDArray[Any]:
    """Convert R a second time, with weights in place of the ratings."""
    if isinstance(R, tuple):
        values = R[2]
        _check_size(weights, np.size(values), "triplets")
        return convert.of_triplets(weights, R, csr, duplicates, times)
    if getattr(R, "format", None) in ("csr", "csc", "coo"):
        _check_size(weights, R.data.size, "entries in R.data")
        twin = R.copy()
        twin.data = weights
        return convert.to_csr(twin, "zero", duplicates, weights.dtype, True).values
    if hasattr(R, "nnz") and not hasattr(R, "format"):  # a Ratings
        _check_size(weights, R.nnz, "ratings")
        return weights
    raise ValueError(f"sample_weight must have R's shape {csr.shape}, got {weights.shape}")


def check_weights(given: Any, size: int, what: str) -> NDArray[Any]:
    """Check weights and return them as float64, (size,); errors name them ``what``."""
    weights = _check_values(given)
    _check_size(weights, size, what)
    return weights


def _check_size(weights: NDArray[Any], size: int, what: str) -> None:
    if weights.shape != (size,):
        raise ValueError(
            f"sample_weight must have one number for each of the {size} {what}, got {weights.shape}"
        )


def _check_values(given: Any, label: Any = "sample_weight[{}]".format) -> NDArray[Any]:
    checks.unmasked("sample_weight", given)
    weights = np.array(given)
    checks.numeric("sample_weight", weights)
    weights = weights.astype(np.float64, copy=False)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        n = int(bad.ravel().argmax())
        raise ValueError(f"{label(n)} is {weights.ravel()[n]}; weights must be finite and not negative")
    return weights
