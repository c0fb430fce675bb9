"""Named arrays and a header in one ``.npz`` file, written whole or not at all, without pickle."""

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import secrets
import stat
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mfkernel.engines.resources import available_memory

if sys.platform != "win32":
    import fcntl

Path_ = str | os.PathLike[str]
Arrays = dict[str, NDArray[Any]]

DTYPE_KINDS = "biufU"  # of numpy's dtypes: what a model is made of
MAX_DRAFT_AGE = 86_400  # seconds; where files cannot be locked, a draft so old has no process any more
SPECIAL_FILES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class _NotAModelError(ValueError):
    """Why a file cannot be a model."""


def write(path: Path_, header: dict[str, Any], arrays: dict[str, NDArray[Any] | None]) -> None:
    """Write the arrays that are not None; an older file is replaced only when all is written.

    The new file has mode, owner and access list of the one that it replaces, as far as the system allows,
    and otherwise gives nobody more access than before. A symbolic link stays, and its target is replaced.
    Where the system can, the draft has no name until it is whole, so that it is gone with its process.

    Raises
    ------
    OSError
        If the file cannot be written; the error names it.
    ValueError
        If the path is a device, a pipe or a socket, or ends as a folder does.
    TypeError
        If an array holds Python objects, which would be pickled.
    """
    kept = {name: array for name, array in arrays.items() if array is not None}
    for name, array in kept.items():
        if array.dtype.hasobject:
            raise TypeError(f"{name} must be an array of numbers or text, got dtype {array.dtype}")
    with _naming(path):
        target = Path(os.path.realpath(path))
        old = _file_to_replace(path, target)
        _remove_abandoned_drafts(target)
        for nameless in (True, False):
            if _write(target, old, header, kept, nameless):
                break
        _sync_folder(target.parent)


def check(path: Path_) -> None:
    """Raise what :func:`write` would raise of the place, before the work that would be lost."""
    with _naming(path):
        target = Path(os.path.realpath(path))
        _file_to_replace(path, target)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def read(path: Path_, formats: range) -> tuple[dict[str, Any], Arrays]:
    """Return header and arrays of a file whose header names one of the ``formats``.

    Nothing is unpickled or decompressed, and no size that the file declares is believed: each array takes
    as many bytes of memory as it has in the file.

    Raises
    ------
    ValueError
        If the file is no such file, or of another format.
    MemoryError
        If it would not fit in the memory that is free.
    """
    name = os.fspath(path)
    _refuse_special(path, os.stat(path))  # noqa: PTH116 (path may be text)
    with Path(path).open("rb") as stream:
        try:
            arrays = _arrays(stream)
            header = json.loads(str(arrays.pop("header")))
            version = header["format"]
        except MemoryError as error:
            raise MemoryError(f"{name} does not fit in memory: {error}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a seek to nowhere
                raise
            reason = f": {error}" if isinstance(error, _NotAModelError) else ""
            raise ValueError(f"{name} is not a model saved by mfkernel{reason}") from error
    if version not in formats:
        raise ValueError(
            f"{name} has format {version}; this version reads formats {formats.start} to {formats[-1]}"
        )
    return header, arrays


def _refuse_special(path: Path_, status: os.stat_result) -> None:
    for is_special, kind in SPECIAL_FILES:
        if is_special(status.st_mode):
            raise ValueError(f"path must name a regular file, got {os.fspath(path)}, {kind}")


# writing


@contextlib.contextmanager
def _naming(path: Path_) -> Iterator[None]:
    """Let errors of the system name the path that the user knows, not a draft or a folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{os.fspath(path)} cannot be saved: {error}") from error
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _file_to_replace(path: Path_, target: Path) -> os.stat_result | None:
    """Return the status of the file that is to be replaced, None if there is none; refuse what is no file."""
    try:
        old: os.stat_result | None = target.stat()
    except FileNotFoundError:
        old = None
    # what realpath makes of a link to a pipe in /proc is no path
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _refuse_special(path, os.stat(path))  # noqa: PTH116 (path may be text)
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if os.path.basename(path) in ("", os.curdir, os.pardir):  # noqa: PTH119 (Path drops the separator)
        raise ValueError(f"path must name a file, got {os.fspath(path)}, a folder; add the name of the file")
    if old is None:
        return None
    # to replace a file takes no right to write it, but who took that right away meant it
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return old


def _write(
    target: Path, old: os.stat_result | None, header: dict[str, Any], arrays: Arrays, nameless: bool
) -> bool:
    """Write a draft and let it become the target; False if a draft without a name is not possible here."""
    mode = 0o666 if old is None else 0o600  # less the umask; what is kept of the old file comes later
    draft, file = _draft_prefix(target, secrets.token_hex(8)), None
    try:
        file = _open_nameless(target.parent, mode) if nameless else _open_named(draft, mode)
        if file is None:
            return False
        with file:
            if old is not None:
                _keep_access(file.fileno(), target, old)
            # none is of objects, so that none is pickled
            np.savez(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
            if nameless:
                if old is None and _link(file, target):
                    return True
                if not _link(file, draft):
                    return False
            if sys.platform == "win32":  # an open file cannot be renamed there
                file.close()
            draft.replace(target)  # while the file is locked: nobody takes it for abandoned
        return True
    finally:
        draft.unlink(missing_ok=True)


def _draft_prefix(target: Path, token: str = "") -> Path:
    """Return the name of a draft, short whatever the target's is: it names target and machine by digests."""
    of_target = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    of_machine = hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return target.with_name(f".mfkernel-{of_target}-{of_machine}-{token}")


def _open_nameless(folder: Path, mode: int) -> BinaryIO | None:
    """Return a locked file in a folder that has no name yet, or None where there are no such files."""
    if sys.platform != "linux":
        return None
    try:
        number = os.open(folder, os.O_TMPFILE | os.O_WRONLY, mode)
    except OSError:  # of the file system, or one that a file with a name also meets
        return None
    file = os.fdopen(number, "wb")
    if Path(f"/proc/self/fd/{number}").exists():
        _lock(number)
        return file
    file.close()
    return None


def _open_named(draft: Path, mode: int) -> BinaryIO:
    """Return a new file, locked as long as it is open."""
    while True:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(draft, flags, mode), "wb")
        _lock(file.fileno())
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # who looks for abandoned drafts was here before the lock


def _lock(number: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # not every file system can
            fcntl.flock(number, fcntl.LOCK_EX)


def _link(file: BinaryIO, name: Path) -> bool:
    """Give a file without a name one; False if that is not possible, or there is one of that name."""
    if sys.platform != "linux":
        return False
    folder = os.open(name.parent, os.O_PATH)
    try:
        # only with a folder does os.link follow the link in /proc
        os.link(f"/proc/self/fd/{file.fileno()}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _keep_access(number: int, target: Path, old: os.stat_result) -> None:
    """Give a draft owner, access list and mode of the file that it will replace."""
    if sys.platform == "win32":
        return
    own, mode = os.fstat(number), stat.S_IMODE(old.st_mode)
    kept = _give_to(number, own, old) and _copy_attributes(number, target)
    if not kept:  # people have changed places: each gets what both groups had
        least = mode & mode >> 3 & 0o7
        mode = mode & 0o700 | least << 3 | least
    if mode != stat.S_IMODE(os.fstat(number).st_mode):
        with contextlib.suppress(OSError):
            os.fchmod(number, mode)


def _give_to(number: int, own: os.stat_result, old: os.stat_result) -> bool:
    """Keep owner and group, or at least the group; only root may give files away."""
    if sys.platform == "win32" or (own.st_uid, own.st_gid) == (old.st_uid, old.st_gid):
        return True
    for owner in (old.st_uid, -1):
        with contextlib.suppress(OSError):
            os.fchown(number, owner, old.st_gid)
            return True
    return False


def _copy_attributes(number: int, target: Path) -> bool:
    """Copy extended attributes; say whether the access list, if there is one, is among them."""
    if sys.platform != "linux":
        return True
    try:
        names = os.listxattr(target)
    except OSError:
        return True
    kept = True
    for name in names:
        try:
            os.setxattr(number, name, os.getxattr(target, name))
        except OSError:
            kept &= name != "system.posix_acl_access"
    return kept


def _remove_abandoned_drafts(target: Path) -> None:
    """Remove drafts of this target that processes of this machine have left behind when they were killed."""
    prefix = _draft_prefix(target).name
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(draft: Path) -> None:
    if sys.platform == "win32":
        if time.time() > draft.stat().st_mtime + MAX_DRAFT_AGE:
            draft.unlink()  # which fails while it is open
        return
    number = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is written
        if os.path.samestat(os.fstat(number), draft.stat(follow_symlinks=False)):
            draft.unlink()
    finally:
        os.close(number)


def _sync_folder(folder: Path) -> None:
    """Let the new name outlive a power failure, where folders can be written to disk."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


# reading


def _arrays(stream: BinaryIO) -> Arrays:
    size = os.fstat(stream.fileno()).st_size
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise _NotAModelError(f"{member.filename} is compressed, which save does not do")
        if sum(member.file_size for member in members) > size:
            raise _NotAModelError("its parts are larger than the file")
        if len({member.filename for member in members}) < len(members):
            raise _NotAModelError("two of its parts have the same name")
        free = available_memory()
        if free is not None and size > free:
            raise MemoryError(f"it takes {size / 2**30:,.1f} GiB, but only {free / 2**30:,.1f} GiB is free")
        return {member.filename.removesuffix(".npy"): _array(archive, member, size) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> NDArray[Any]:
    """Read an array after its declared size has been compared with the bytes in the file."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in headers:
            raise _NotAModelError(f"{member.filename} is an array of version {version}")
        shape, _, dtype = headers[version](file)
        rest = member.file_size - file.tell()
    if dtype.kind not in DTYPE_KINDS or dtype.itemsize == 0:
        raise _NotAModelError(f"{member.filename} has dtype {dtype}")
    if math.prod(shape) * dtype.itemsize != rest or not all(0 <= length <= size for length in shape):
        raise _NotAModelError(f"{member.filename} has the shape {shape}, but {rest} bytes")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
