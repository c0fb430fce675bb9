"""Files of named arrays and a header (``.npz``), without pickle; the arrays can be mapped into memory."""

import contextlib
import errno
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mfkernel.engines.resources import available_memory
from mfkernel.model.atomic import Path_, refuse_special, replace_file

File = Path_ | IO[bytes]
Arrays = dict[str, NDArray[Any]]

DTYPE_KINDS = "biufU"  # kinds of NumPy dtypes that a model may have
ALIGNMENT = 64  # bytes: arrays begin at multiples of a cache line, so that mapped ones suit the kernels
PADDING_FIELD = 0xD935  # kind of extra field of a zip member that aligns its content
LOCAL_HEADER, ZIP64_FIELD = 30, 20  # bytes before the content of a member, besides its name and padding
BYTES_PER_READ = 2**20  # bytes of a stream or a checksum at a time


class _NotAModelError(ValueError):
    """The reason why a file is not a model."""


class _NotMappableError(ValueError):
    """The reason why the arrays of a file cannot be mapped."""


def write(file: File, header: dict[str, Any], arrays: dict[str, NDArray[Any] | None]) -> None:
    """Write the arrays that are not None; a file with a path is replaced as a whole.

    Raises
    ------
    OSError, ValueError
        If the file cannot be written; see :func:`replace_file`.
    TypeError
        If an array holds Python objects, which would need pickle; or if ``file`` is neither a path nor a
        binary file object.
    """
    parts = {"header": np.array(json.dumps(header))}
    parts |= {name: array for name, array in arrays.items() if array is not None}
    for name, array in parts.items():
        if array.dtype.hasobject:
            raise TypeError(f"{name} must be an array of numbers or text, got dtype {array.dtype}")
    if _is_open(file, "write"):
        _write_arrays(_Sink(file), parts)
    else:
        replace_file(cast(Path_, file), lambda stream: _write_arrays(stream, parts))


def read(
    file: File, formats: range, kind: str = "model", mapped: Collection[str] = ()
) -> tuple[dict[str, Any], Arrays]:
    """Return header and arrays of a file in one of the ``formats``.

    Nothing is unpickled or decompressed, and declared sizes are not trusted. Each array takes as many bytes
    of memory as in the file; ``mapped`` ones take none of their own.

    Parameters
    ----------
    file
        Path or binary file object. An object that cannot seek is read to its end first.
    formats
        Numbers of the formats that can be read.
    kind
        Content of the file: "model" or "checkpoint".
    mapped
        Names of the arrays to map into memory, read-only; for a path only.

    Raises
    ------
    ValueError
        If the file has another content or format, or if its arrays cannot be mapped.
    MemoryError
        If the file does not fit in the free memory.
    """
    name = name_of(file)
    with _opened(file, bool(mapped)) as stream:
        try:
            arrays = _read_arrays(stream, mapped)
            header = json.loads(str(arrays.pop("header")))
            version, content = header["format"], header.get("kind", "model")
        except MemoryError as error:
            raise MemoryError(f"{name} does not fit in memory: {error}") from error
        except _NotMappableError as error:
            raise ValueError(f"mmap must be False for {name}: {error}") from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL is a seek beyond the file
                raise
            reason = f": {error}" if isinstance(error, _NotAModelError) else ""
            raise ValueError(f"{name} is not a {kind} saved by mfkernel{reason}") from error
    if content != kind:
        raise ValueError(f"{name} is not a {kind} saved by mfkernel: it is a {content}")
    if version not in formats:
        raise ValueError(
            f"{name} has format {version}; this version reads formats {formats.start} to {formats[-1]}"
        )
    return header, arrays


def name_of(file: File) -> str:
    """Return the path of a file, or the name of a file object, for messages."""
    if _is_open(file, "read"):
        name = getattr(file, "name", None)
        return name if isinstance(name, str) and name else "the file"
    return str(os.fspath(cast(Path_, file)))


# file objects


def _is_open(file: Any, method: str) -> bool:
    """Return whether ``file`` is an open file with ``read`` or ``write``, and not a path."""
    if isinstance(file, io.TextIOBase):
        raise TypeError("path must be a path or a file opened in binary mode, got one opened as text")
    if hasattr(file, method):
        return True
    if not isinstance(file, str | bytes | os.PathLike):
        raise TypeError(f"path must be a path or a binary file object with {method}, got {file!r}")
    return False


class _Sink:
    """A file object that only needs ``write``, which may take a part of the bytes."""

    def __init__(self, file: Any) -> None:
        self._file, self._position = file, 0

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._position

    def write(self, data: Any) -> int:
        """Write all bytes."""
        left = memoryview(data).cast("B")
        while left:
            written = self._file.write(left)
            if written is None and isinstance(self._file, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "the file does not take all bytes now")
            left = left[len(left) if written is None else written :]
        self._position += memoryview(data).nbytes
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Flush the file, if it can be flushed."""
        if hasattr(self._file, "flush"):
            self._file.flush()


@contextlib.contextmanager
def _opened(file: File, mapped: bool) -> Iterator[BinaryIO]:
    """Open a path, or yield a file object that can seek."""
    if _is_open(file, "read"):
        if mapped:
            raise ValueError(
                f"mmap must be False with a file object, got {type(file).__name__}; pass the path of a file"
            )
        yield _seekable(file)
        return
    path = cast(Path_, file)
    refuse_special(path, os.stat(path))  # noqa: PTH116 (path may be text)
    with Path(path).open("rb") as stream:
        yield stream


def _seekable(file: Any) -> BinaryIO:
    """Return a file object, or its content in memory if it cannot seek."""
    if hasattr(file, "seekable") and file.seekable():
        return cast(BinaryIO, file)
    content, free = io.BytesIO(), available_memory()
    while part := file.read(BYTES_PER_READ):
        content.write(part)
        if free is not None and 2 * content.tell() > free:
            raise MemoryError(f"{name_of(file)} does not fit in memory: {free / 2**30:,.1f} GiB is free")
    return content


# writing


def _write_arrays(stream: Any, arrays: Arrays) -> None:
    """Write a zip archive of arrays, each at a multiple of ``ALIGNMENT`` bytes, as np.savez names them."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            end = stream.tell() + LOCAL_HEADER + len(member.filename.encode()) + ZIP64_FIELD + 6
            size = 2 + -end % ALIGNMENT
            member.extra = struct.pack("<HHH", PADDING_FIELD, size, ALIGNMENT) + bytes(size - 2)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


# reading


def _read_arrays(stream: BinaryIO, mapped: Collection[str]) -> Arrays:
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise _NotAModelError(
                    f"{member.filename} is compressed, but save does not compress; unzip it and pack it "
                    "without compression"
                )
        if sum(member.file_size for member in members) > size:
            raise _NotAModelError("its parts are larger than the file")
        if len({member.filename for member in members}) < len(members):
            raise _NotAModelError("two of its parts have the same name")
        pairs = list(zip(names, members, strict=True))
        needed, free = (
            sum(member.file_size for name, member in pairs if name not in mapped),
            available_memory(),
        )
        if free is not None and needed > free:
            raise MemoryError(f"it has {needed / 2**30:,.1f} GiB, but only {free / 2**30:,.1f} GiB is free")
        return {name: _array(archive, member, size, stream, name in mapped) for name, member in pairs}


def _array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int, stream: BinaryIO, is_mapped: bool
) -> NDArray[Any]:
    """Read or map an array whose declared size equals that in the file."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in headers:
            raise _NotAModelError(f"{member.filename} is an array of version {version}")
        shape, is_fortran, dtype = headers[version](file)
        start = file.tell()
        rest = member.file_size - start
    if dtype.kind not in DTYPE_KINDS or dtype.itemsize == 0:
        raise _NotAModelError(f"{member.filename} has dtype {dtype}")
    if math.prod(shape) * dtype.itemsize != rest or not all(0 <= length <= size for length in shape):
        raise _NotAModelError(f"{member.filename} has the shape {shape}, but {rest} bytes")
    if is_mapped and rest:
        content = _map(archive, member, size, stream, start)
        return np.ndarray(shape, dtype, content, order="F" if is_fortran else "C")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _map(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int, stream: BinaryIO, start: int
) -> memoryview:
    """Map the bytes of a member from ``start`` on, and compare them with the checksum."""
    with archive.open(member) as file:
        checksum = zlib.crc32(file.read(start))
    stream.seek(member.header_offset)
    lengths = struct.unpack("<HH", stream.read(LOCAL_HEADER)[26:])
    offset = member.header_offset + LOCAL_HEADER + sum(lengths) + start
    if offset % ALIGNMENT:
        raise _NotMappableError(
            f"{member.filename} is not aligned, as in earlier versions; load it without mmap and save it"
        )
    length = member.file_size - start
    if offset + length > size:
        raise _NotAModelError(f"{member.filename} ends after the file")
    content = memoryview(np.memmap(stream, np.uint8, "r", offset, (length,)))  # type: ignore[arg-type]
    for first in range(0, length, BYTES_PER_READ):
        checksum = zlib.crc32(content[first : first + BYTES_PER_READ], checksum)
    if checksum != member.CRC:
        raise _NotAModelError(f"{member.filename} is damaged")
    return content
