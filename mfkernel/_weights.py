"""Weights of ratings, brought into the order of the ratings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel import _checks, convert


def aligned(sample_weight: Any, R: Any, csr: convert.Csr, duplicates: str) -> NDArray[Any]:
    """Return the weight of each entry of ``csr``, which R became; of the dtype of its values.

    Parameters
    ----------
    sample_weight
        (m, n), dense or sparse, for R of any form; or 1-D, one for each triplet, each entry of ``R.data``, or
        each rating of a ``Ratings`` or CSR matrix.
    """
    if duplicates in ("sum", "mean"):
        raise ValueError(f"sample_weight goes with duplicates='raise' or 'last', got {duplicates!r}")
    if len(np.shape(sample_weight)) == 2:
        weights = _of_cells(sample_weight, csr)
    else:
        weights = _of_entries(_checked(np.asarray(sample_weight)), R, csr, duplicates)
    if weights.size and not weights.any():
        raise ValueError("sample_weight must not be zero for all ratings")
    largest = weights.max(initial=0)
    if not 1e-30 < largest < 1e30:  # only ratios matter, and these fit in float32
        weights = weights / (largest or 1)
    return convert.frozen(np.ascontiguousarray(weights, csr.values.dtype))


def _of_cells(sample_weight: Any, csr: convert.Csr) -> NDArray[Any]:
    """Pick the cells of ``csr`` from an (m, n) matrix."""
    if np.shape(sample_weight) != csr.shape:
        raise ValueError(f"sample_weight must have R's shape {csr.shape}, got {np.shape(sample_weight)}")
    users = convert.row_numbers(csr.indptr)
    if hasattr(sample_weight, "tocsr"):
        cells = np.asarray(sample_weight.tocsr()[users, csr.indices]).ravel()
    else:
        cells = np.asarray(sample_weight)[users, csr.indices]
    return _checked(cells, lambda n: f"sample_weight[{users[n]}, {csr.indices[n]}]")


def _of_entries(weights: NDArray[Any], R: Any, csr: convert.Csr, duplicates: str) -> NDArray[Any]:
    """Convert R once more, with weights in place of the ratings."""
    if isinstance(R, tuple):
        values = R[2]
        _check_size(weights, np.size(values), "triplets")
        masked = np.ma.getmask(values)
        given = weights if masked is np.ma.nomask else np.ma.array(weights, mask=masked)
        return convert.to_csr((*R[:2], given, csr.shape), "zero", duplicates, weights.dtype, True).values
    if getattr(R, "format", None) in ("csr", "csc", "coo"):
        _check_size(weights, R.data.size, "entries in R.data")
        twin = R.copy()
        twin.data = weights
        return convert.to_csr(twin, "zero", duplicates, weights.dtype, True).values
    if hasattr(R, "nnz") and not hasattr(R, "format"):  # a Ratings
        _check_size(weights, R.nnz, "ratings")
        return weights
    raise ValueError(f"sample_weight must have R's shape {csr.shape}, got {weights.shape}")


def _check_size(weights: NDArray[Any], size: int, what: str) -> None:
    if weights.shape != (size,):
        raise ValueError(
            f"sample_weight must have one number for each of the {size} {what}, got {weights.shape}"
        )


def _checked(weights: NDArray[Any], place: Any = "sample_weight[{}]".format) -> NDArray[Any]:
    _checks.numeric("sample_weight", weights)
    weights = weights.astype(np.float64, copy=False)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        n = int(bad.ravel().argmax())
        raise ValueError(f"{place(n)} is {weights.ravel()[n]}; weights must be finite and not negative")
    return weights
