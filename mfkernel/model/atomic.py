"""Replace a file in one step: readers see the old content or the new one, never a part."""

import contextlib
import errno
import hashlib
import os
import platform
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

Path_ = str | os.PathLike[str]

MAX_DRAFT_AGE = 86_400  # seconds: where files cannot be locked, older drafts are abandoned
SPECIAL_FILES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def replace_file(path: Path_, write: Callable[[BinaryIO], None]) -> None:
    """Write a file; replace an older one only when all data is written.

    The new file gets the mode, owner and access list of the replaced file if the system allows it. It never
    gives anybody more access than before. A symbolic link stays, and its target is replaced. If the system
    supports it, the draft has no name until it is complete, so it disappears with its process.

    Parameters
    ----------
    path
        Path of the file.
    write
        Function that writes the content to an open file. If it fails, the old file stays. It may be called
        twice, each time for an empty file.

    Raises
    ------
    OSError
        If the file cannot be written. The error names the file.
    ValueError
        If the path is a device, a pipe or a socket, or has the form of a folder.
    """
    with _naming(path):
        target = Path(os.path.realpath(path))
        old = _file_to_replace(path, target)
        _remove_abandoned_drafts(target)
        for nameless in (True, False):
            if _write(target, old, write, nameless):
                break
        _sync_folder(target.parent)


def check(path: Path_) -> None:
    """Raise the errors of :func:`replace_file` about the path, before any work is done."""
    with _naming(path):
        target = Path(os.path.realpath(path))
        _file_to_replace(path, target)
        target.parent.stat()  # raises the error of a missing folder
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse_special(path: Path_, status: os.stat_result) -> None:
    """Refuse pipes, sockets and devices."""
    for is_special, kind in SPECIAL_FILES:
        if is_special(status.st_mode):
            raise ValueError(f"path must name a regular file, got {os.fspath(path)}, {kind}")


@contextlib.contextmanager
def _naming(path: Path_) -> Iterator[None]:
    """Make errors of the system name the user's path, not a draft or a folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{os.fspath(path)} cannot be saved: {error}") from error
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _file_to_replace(path: Path_, target: Path) -> os.stat_result | None:
    """Return the status of the file to replace, or None; refuse paths that are not files."""
    try:
        old: os.stat_result | None = target.stat()
    except FileNotFoundError:
        old = None
    # realpath of a link to a pipe in /proc is not a path
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        refuse_special(path, os.stat(path))  # noqa: PTH116 (path may be text)
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if os.path.basename(path) in ("", os.curdir, os.pardir):  # noqa: PTH119 (Path drops the separator)
        raise ValueError(f"path must name a file, got {os.fspath(path)}, a folder; add the name of the file")
    if old is None:
        return None
    # replacing a file needs no write permission, but a missing one is meant as protection
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return old


def _write(
    target: Path, old: os.stat_result | None, write: Callable[[BinaryIO], None], nameless: bool
) -> bool:
    """Write a draft and move it to the target; return False if nameless drafts fail here."""
    mode = 0o666 if old is None else 0o600  # minus the umask; attributes of the old file follow below
    draft, file = _draft_prefix(target, secrets.token_hex(8)), None
    try:
        file = _open_nameless(target.parent, mode) if nameless else _open_named(draft, mode)
        if file is None:
            return False
        with file:
            if old is not None:
                _keep_access(file.fileno(), target, old)
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if nameless:
                if old is None and _link(file, target):
                    return True
                if not _link(file, draft):
                    return False
            if sys.platform == "win32":  # an open file cannot be renamed there
                file.close()
            draft.replace(target)  # while the file is locked, so that no process considers it abandoned
        return True
    finally:
        draft.unlink(missing_ok=True)


def _draft_prefix(target: Path, token: str = "") -> Path:
    """Return the name of a draft: short, with digests of the target and of the machine."""
    of_target = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    of_machine = hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return target.with_name(f".mfkernel-{of_target}-{of_machine}-{token}")


def _open_nameless(folder: Path, mode: int) -> BinaryIO | None:
    """Return a locked file without a name in a folder, or None if that is not supported."""
    if sys.platform != "linux":
        return None
    try:
        number = os.open(folder, os.O_TMPFILE | os.O_WRONLY, mode)
    except OSError:  # not supported, or an error that a file with a name also has
        return None
    file = os.fdopen(number, "wb")
    if Path(f"/proc/self/fd/{number}").exists():
        _lock(number)
        return file
    file.close()
    return None


def _open_named(draft: Path, mode: int) -> BinaryIO:
    """Return a new file that is locked while it is open."""
    while True:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(draft, flags, mode), "wb")
        _lock(file.fileno())
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # a process that removes abandoned drafts came before the lock


def _lock(number: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # not every file system supports locks
            fcntl.flock(number, fcntl.LOCK_EX)


def _link(file: BinaryIO, name: Path) -> bool:
    """Give a name to a file without one; return False if that fails or the name exists."""
    if sys.platform != "linux":
        return False
    folder = os.open(name.parent, os.O_PATH)
    try:
        # os.link follows the link in /proc only with a folder descriptor
        os.link(f"/proc/self/fd/{file.fileno()}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _keep_access(number: int, target: Path, old: os.stat_result) -> None:
    """Copy owner, access list and mode of the old file to a draft."""
    if sys.platform == "win32":
        return
    own, mode = os.fstat(number), stat.S_IMODE(old.st_mode)
    kept = _give_to(number, own, old) and _copy_attributes(number, target)
    if not kept:  # group or others may have changed: both get the lesser rights of the two
        least = mode & mode >> 3 & 0o7
        mode = mode & 0o700 | least << 3 | least
    if mode != stat.S_IMODE(os.fstat(number).st_mode):
        with contextlib.suppress(OSError):
            os.fchmod(number, mode)


def _give_to(number: int, own: os.stat_result, old: os.stat_result) -> bool:
    """Keep owner and group, or at least the group; only root may change owners."""
    if sys.platform == "win32" or (own.st_uid, own.st_gid) == (old.st_uid, old.st_gid):
        return True
    for owner in (old.st_uid, -1):
        with contextlib.suppress(OSError):
            os.fchown(number, owner, old.st_gid)
            return True
    return False


def _copy_attributes(number: int, target: Path) -> bool:
    """Copy extended attributes; return whether the access list is among them, if it exists."""
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
    """Remove drafts of this target that killed processes of this machine have left."""
    prefix = _draft_prefix(target).name
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(draft: Path) -> None:
    if sys.platform == "win32":
        if time.time() > draft.stat().st_mtime + MAX_DRAFT_AGE:
            draft.unlink()  # this fails while the file is open
        return
    number = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the draft is being written
        if os.path.samestat(os.fstat(number), draft.stat(follow_symlinks=False)):
            draft.unlink()
    finally:
        os.close(number)


def _sync_folder(folder: Path) -> None:
    """Write a folder to disk if possible, so that a new name survives a power failure."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
