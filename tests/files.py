"""Files to read: texts, arrays and archives, whole and broken."""

import gzip
import io
import zipfile

import numpy as np
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import mmwrite

MARKET = "%%MatrixMarket matrix coordinate real general\n"


def write_file(folder, content, name="ratings", zipped=False):
    """Write text or bytes into a folder; return the path."""
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def write_ratings(path, R, line="u{},i{},{}\n", head=""):
    """Write one line per rating, made of user, item and rating; return the path."""
    rated = zip(R.users.tolist(), R.items.tolist(), R.values.tolist(), strict=True)
    path.write_text(head + "".join(line.format(*rating) for rating in rated))
    return path


def npy(shape, dtype="<f8", data=b""):
    """Return the header of an array in a .npy file, followed by any data."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def npy_of(array, shape=None):
    """Return an array as numpy.save writes it, but perhaps with another shape in the header."""
    return npy(array.shape if shape is None else shape, array.dtype.str, array.tobytes())


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    """Return an archive of texts or bytes by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def matrix_file(kind, matrix, compressed=True):
    """Return a matrix as SciPy writes it: as MatrixMarket, or in one of its formats as .npz."""
    file = io.BytesIO()
    if kind == "MatrixMarket":
        mmwrite(file, matrix)
    else:
        sparse.save_npz(file, matrix.asformat(kind), compressed)
    return file.getvalue()


@st.composite
def mutated(draw, valid, longest=4):
    """Draw one of some valid files, with some bytes put in place of others, and perhaps cut."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=longest))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)
