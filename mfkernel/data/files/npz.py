"""Read matrices that ``scipy.sparse.save_npz`` wrote, without trust in the file."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.files.streams import Archive, check_shape, report_damage

ARRAYS_OF_FORMAT = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_matrix(archive: Archive) -> bool:
    """Return whether NumPy or SciPy wrote an archive."""
    return any(name.endswith(".npy") for name in archive.members)


def read_matrix(path: str, archive: Archive) -> Any:
    """Return the sparse matrix.

    Raises
    ------
    ValueError
        If the archive has no matrix, or if it is damaged.
    """
    from scipy import sparse

    message = f"{path} must be a matrix saved by scipy.sparse.save_npz, got other"
    with report_damage(message):
        kind = _array(archive, "format").astype(str).item()
        if kind not in ARRAYS_OF_FORMAT:
            raise ValueError(f"the format {kind!r}")
        shape, data, *index_arrays = [_array(archive, name) for name in ("shape", *ARRAYS_OF_FORMAT[kind])]
        if any(x.dtype.kind not in "iu" for x in (shape, *index_arrays)):
            raise ValueError("places that are not integers")
        m, n = shape.tolist()
    check_shape(path, (m, n), max(x.size for x in (data, *index_arrays)))
    with report_damage(message):
        stored = (data, tuple(index_arrays)) if kind == "coo" else (data, *index_arrays)
        return getattr(sparse, f"{kind}_array")(stored, shape=(m, n))


def _array(archive: Archive, name: str) -> NDArray[Any]:
    """Read an array whose header must state its true size."""
    if f"{name}.npy" not in archive.members:
        raise ValueError(f"no {name}.npy")
    with archive.open(f"{name}.npy") as file:
        shape, by_columns, dtype = HEADER_READERS[np.lib.format.read_magic(file)](file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "biufcSU" or size != archive.members[f"{name}.npy"].file_size - file.tell():
            raise ValueError(f"{name}.npy has a wrong header")
        content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name}.npy ends early")
    array: NDArray[Any] = np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
