"""Read bytes of plain and packed files, up to a bound on their size."""

import bz2
import copy
import errno
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from mfkernel._support.lazy import import_extra
from mfkernel.engines.resources import available_memory

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
GZIP_SIGNATURE, BZIP2_SIGNATURE, XZ_SIGNATURE = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # what follows the signature and a digit
ZSTD_SIGNATURE = b"\x28\xb5\x2f\xfd"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second one begins an archive without members
BYTES_PER_READ = 2**20  # bytes per read
MAX_REASON = 300  # characters of another library's error in a message

FREE_BYTES = 2**24  # unpacked bytes that any packed file may have
MAX_EXPANSION = 100  # further unpacked bytes per packed byte: long constant columns of text reach 90
BOUNDED_BY_ZIPFILE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which zipfile unpacks as far as asked
ZIP_PACKINGS = (*BOUNDED_BY_ZIPFILE, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MIN_DICTIONARY = 2**12  # bytes: the least dictionary of LZMA
MAX_SPOOLED_BYTES = 2**30  # largest zip archive in bytes that is gzipped or comes from a pipe

BYTES_PER_ENTRY = 100  # bytes needed per rating to convert what was read to Ratings

FREE_ROWS_AND_COLUMNS = 10**7  # rows plus columns that any file may name
ROWS_AND_COLUMNS_PER_ENTRY = 100  # further rows plus columns per entry

# first bytes of files that are not text
BINARY_SIGNATURES = {
    GZIP_SIGNATURE: "gzip within a packed file",
    BZIP2_SIGNATURE: "bzip2 within a packed file",
    XZ_SIGNATURE: "xz within a packed file",
    ZSTD_SIGNATURE: "zstd within a packed file",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a": "RAR",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"SQLite format 3\x00": "SQLite",
    b"\x93NUMPY": "NumPy .npy",
}


class Stream:
    """Bytes that are read once and in order; the next ones can be inspected first.

    Attributes
    ----------
    count
        Number of bytes read.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._ahead = b""
        self.count = 0

    closed = False  # what pyarrow asks of a file

    def start(self, size: int) -> bytes:
        """Return the next bytes without consuming them; fewer than ``size`` at the end."""
        while len(self._ahead) < size and (more := self._read(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Consume and return at most ``size`` bytes; none at the end."""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        data = data or self._read(size)
        self.count += len(data)
        return data


@contextmanager
def report_damage(message: str) -> Iterator[None]:
    """Turn errors of a parser into a ``ValueError``, except those of the system."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # EINVAL: a wrong number in the file points before its start
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{message}: {summarize(error)}") from error


def summarize(error: Exception) -> str:
    """Return the text of an error in one line of at most ``MAX_REASON`` characters."""
    reason = " ".join(str(error).split())
    return reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "…"


def open_file(path: Path) -> BinaryIO:
    """Open a file, a pipe or a terminal.

    Raises
    ------
    ValueError
        If the path is a device, which may never end.
    """
    mode = path.stat().st_mode
    if not stat.S_ISBLK(mode):
        file = path.open("rb")
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or file.isatty():
            return file
        file.close()
    raise ValueError(f"{path} must be a file or a pipe, got a device")


@contextmanager
def open_source(source: Any) -> Iterator[tuple[str, BinaryIO]]:
    """Open a path or a URL, or use an open file; yield its name in errors and the file.

    Raises
    ------
    ImportError
        If fsspec, which opens URLs, is not installed.
    TypeError
        If an open file has text instead of bytes.
    """
    if hasattr(source, "read"):
        name = str(getattr(source, "name", type(source).__name__))
        if isinstance(source, io.TextIOBase):
            raise TypeError(f"path must be a file opened in binary mode, 'rb', got {name} as text")
        yield name, source
    elif isinstance(source, str) and URL.match(source):
        with import_extra("fsspec", "files", "a URL").open(source, "rb") as file:
            yield source, file
    else:
        with open_file(Path(source)) as file:
            yield str(source), file


def unpack(path: str, packed: Stream) -> Stream | None:
    """Return a stream of the unpacked bytes of gzip, bzip2, xz or zstd, or None for other data."""
    start = packed.start(10)
    file = cast(BinaryIO, packed)
    if start.startswith(GZIP_SIGNATURE):
        return _unpacked(path, packed, gzip.GzipFile(fileobj=file, mode="rb"))
    if start.startswith(BZIP2_SIGNATURE) and start[4:10] in BZIP2_BLOCKS:
        return _unpacked(path, packed, bz2.BZ2File(file))
    if start.startswith(XZ_SIGNATURE):
        return _unpacked(path, packed, lzma.LZMAFile(file))
    if start.startswith(ZSTD_SIGNATURE):
        pa = import_extra("pyarrow", "files", "a zstd file")
        return _unpacked(path, packed, pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd"))
    return None


def _unpacked(path: str, packed: Stream, unpacked: Any) -> Stream:
    total = 0

    def read(size: int) -> bytes:
        nonlocal total
        with report_damage(f"{path} is damaged"):
            data: bytes = unpacked.read(size)
        total += len(data)
        _check_expansion(path, total, packed.count)
        return data

    return Stream(read)


def refuse_binary(path: str, data: Stream) -> None:
    """Refuse files of known binary formats.

    Raises
    ------
    ValueError
        If the file has such a format. The message names the format.
    """
    start = data.start(16)
    kind = next((name for magic, name in BINARY_SIGNATURES.items() if start.startswith(magic)), None)
    if kind == "bzip2" and start[4:10] not in BZIP2_BLOCKS:
        kind = None
    if kind is not None:
        raise ValueError(
            f"{path} must be text, JSON Lines, Parquet, Arrow, MatrixMarket or a sparse matrix in .npz, "
            f"plain or packed once, got {kind}; unpack or export it as text first"
        )


class _Member(io.RawIOBase):
    """A member of a zip archive, packed by bzip2 or LZMA, unpacked only as far as it is read.

    ``zipfile`` unpacks all that it has read of such a member, which may be a million times as large.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._left, self._checksum, self._expected = info.file_size, 0, info.CRC
        packed = copy.copy(info)
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
        del packed.CRC  # which is that of the unpacked bytes
        self._packed = cast(BinaryIO, archive.open(packed))
        self._size, self._unpacked = info.file_size, self._unpack(info)

    def _unpack(self, info: zipfile.ZipInfo) -> Any:
        if info.compress_type == zipfile.ZIP_BZIP2:
            return bz2.BZ2File(self._packed)
        _, size, coder, dictionary = struct.unpack("<HHBI", self._packed.read(9))
        if size != 5:
            raise ValueError(f"its LZMA header must have 5 bytes, got {size}")
        (pb, lp), lc = divmod(coder // 9, 5), coder % 9
        dictionary = max(MIN_DICTIONARY, min(dictionary, info.file_size))  # whatever the header asks for
        filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": dictionary}]
        return lzma.LZMAFile(self._packed, format=lzma.FORMAT_RAW, filters=filters)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size - self._left

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._unpacked.read(min(len(buffer), self._left))
        self._left -= len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        if self._left and not data:
            raise zipfile.BadZipFile(f"it ends {self._left:,} bytes early")
        if not self._left and self._checksum != self._expected:
            raise zipfile.BadZipFile("its checksum is another")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._packed.close()
        super().close()


class Archive:
    """A zip archive in a file, or in a copy if the file is not seekable.

    Raises
    ------
    ValueError
        If the archive is damaged or declares far more content than its size allows.
    """

    def __init__(self, path: str, file: BinaryIO | None, data: Stream) -> None:
        self._path = path
        with ExitStack() as stack:
            source = file or stack.enter_context(self._spooled(data))
            self._size = source.seek(0, os.SEEK_END)
            message = f"{path} begins as a zip archive but is damaged; unzip it first, or get it again"
            with report_damage(message):
                self._zip = stack.enter_context(zipfile.ZipFile(source))
                infos = [x for x in self._zip.infolist() if not x.is_dir()]  # fails for an empty name
            self.members = {x.filename: x for x in infos if not x.filename.startswith("__MACOSX/")}
            _check_expansion(path, sum(x.file_size for x in infos), self._size)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def _spooled(self, data: Stream) -> Iterator[BinaryIO]:
        """Copy a stream that is not seekable to a temporary file."""
        with tempfile.TemporaryFile() as file:
            while chunk := data.read(BYTES_PER_READ):
                file.write(chunk)
                if file.tell() > MAX_SPOOLED_BYTES:
                    raise ValueError(
                        f"{self._path} must be at most {MAX_SPOOLED_BYTES >> 30} GiB, as a zip archive "
                        "in gzip or from a pipe; save it as a plain file first"
                    )
            yield cast(BinaryIO, file)

    def open(self, name: str) -> BinaryIO:
        """Open a member, which ends at its declared size at the latest."""
        info = self.members[name]
        if info.compress_type not in ZIP_PACKINGS or info.flag_bits & 1:
            raise ValueError(
                f"{self._path} must be stored, deflated, or packed by bzip2 or LZMA, and not encrypted, got "
                f"{name!r} otherwise; unzip it first"
            )
        with report_damage(f"{self._path} is damaged at {name!r}"):
            if info.compress_type not in BOUNDED_BY_ZIPFILE:
                return io.BufferedReader(_Member(self._zip, info))
            return cast(BinaryIO, self._zip.open(info))

    def stream(self, name: str) -> Stream:
        """Open a member for reading from start to end."""
        member = self.open(name)

        def read(size: int) -> bytes:
            with report_damage(f"{self._path} is damaged at {name!r}"):
                return member.read(size)

        return Stream(read)

    def only_member(self) -> str:
        """Return the name of the only file in the archive.

        Raises
        ------
        ValueError
            If the archive does not have exactly one file.
        """
        names = list(self.members)
        if len(names) != 1:
            if "[Content_Types].xml" in names:
                raise ValueError(f"{self._path} must be text, got an Office document; save the sheet as CSV")
            listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            raise ValueError(
                f"{self._path} must be a zip archive of one file, or of scipy.sparse.save_npz, got "
                f"{len(names)} files ({listed}); unzip it first, and read one of them"
            )
        return names[0]


def check_shape(path: str, shape: tuple[int, int], entries: int) -> None:
    """Refuse far more rows and columns than entries; empty ones also take memory.

    Raises
    ------
    ValueError
        If rows plus columns exceed ``FREE_ROWS_AND_COLUMNS + ROWS_AND_COLUMNS_PER_ENTRY * entries``.
    """
    most = FREE_ROWS_AND_COLUMNS + ROWS_AND_COLUMNS_PER_ENTRY * entries
    if sum(shape) > most:
        raise ValueError(
            f"{path} must have at most {most:,} rows and columns for {entries:,} entries, got "
            f"{shape[0]:,} × {shape[1]:,}; as text 'user item rating', only those with ratings count"
        )


def check_memory(path: str, entries: int) -> None:
    """Refuse to read more if the entries so far hardly fit in memory as ratings.

    A pipe may never end.

    Raises
    ------
    MemoryError
        Before memory runs out, which would kill the process.
    """
    free = available_memory()
    if free is not None and BYTES_PER_ENTRY * entries > free:
        raise MemoryError(
            f"{path} must hold fewer ratings: the {entries:,} read so far take "
            f"{BYTES_PER_ENTRY * entries / 2**30:,.1f} GiB more, but only {free / 2**30:,.1f} GiB is free"
        )


def _check_expansion(path: str, unpacked: int, packed: int) -> None:
    if unpacked > FREE_BYTES + MAX_EXPANSION * packed:
        raise ValueError(
            f"{path} must unpack to at most {FREE_BYTES >> 20} MiB plus {MAX_EXPANSION} times its size, got "
            f"{unpacked:,} bytes from {packed:,}; unpack it first"
        )
