"""Read matrices that ``scipy.sparse.save_npz`` wrote, without trust in the file."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.files.streams import Archive, check_shape, damage

PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_matrix(archive: Archive) -> bool:
    """Return whether NumPy or SciPy wrote an archive."""
    return any(name.endswith(".npy") for name in archive.members)


def read_matrix(path: Path, archive: Archive) -> Any:
    """Return the sparse matrix.

    Raises
    ------
    ValueError
        If the archive has no matrix, or if it is damaged.
    """
    from scipy import sparse

    message = f"{path} must be a matrix saved by scipy.sparse.save_npz, got other"
    with damage(message):
        kind = _array(archive, "format").astype(str).item()
        if kind not in PARTS:
            raise ValueError(f"the format {kind!r}")
        shape, data, *places = [_array(archive, name) for name in ("shape", *PARTS[kind])]
        if any(x.dtype.kind not in "iu" for x in (shape, *places)):
            raise ValueError("places that are not integers")
        m, n = shape.tolist()
    check_shape(path, (m, n), max(x.size for x in (data, *places)))
    with damage(message):
        stored = (data, tuple(places)) if kind == "coo" else (data, *places)
        return getattr(sparse, f"{kind}_array")(stored, shape=(m, n))


def _array(archive: Archive, name: str) -> NDArray[Any]:
    """Read an array whose header must state its true size."""
    if f"{name}.npy" not in archive.members:
        raise ValueError(f"no {name}.npy")
    with archive.open(f"{name}.npy") as file:
        shape, by_columns, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "biufcSU" or size != archive.members[f"{name}.npy"].file_size - file.tell():
            raise ValueError(f"{name}.npy has a wrong header")
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name}.npy ends early")
    array: NDArray[Any] = np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
