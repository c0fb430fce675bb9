"""Download a file of a zip archive and keep it in a cache; the only user of pooch."""

import os
import sys
import tempfile
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from mfkernel._support.lazy import import_extra
from mfkernel.data.files.streams import BYTES_PER_READ, Archive, Stream, summarize

VARIABLE = "MFKERNEL_DATA"  # names the folder of local copies
TIMEOUT = 30  # seconds without an answer of the server
DIGITS = 8  # of a checksum in the name of a folder


class Source(NamedTuple):
    """A file in a zip archive on the web, and its places in a folder of local copies.

    Attributes
    ----------
    title
        Name of the data set, for messages.
    url
        Address of the archive.
    sha256
        Checksum of the archive.
    member
        Name of the file in the archive.
    folders, files
        Names of the data set's folder and of its file in a folder of local copies, the preferred ones first.
    conditions
        Conditions of use and citation.
    """

    title: str
    url: str
    sha256: str
    member: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    conditions: str


def locate(source: Source, cache: str | os.PathLike[str] | None) -> Path:
    """Return the path of a local copy, else of the file in the cache, else download it.

    Raises
    ------
    ImportError
        If there is no local copy and pooch is missing.
    OSError
        If the archive cannot be downloaded, or the file not be written.
    ValueError
        If the archive is not the expected one.
    """
    if cache is not None and not isinstance(cache, str | os.PathLike):
        raise TypeError(f"cache must be the path of a folder, got {cache!r}")
    return _find_local_copy(source) or _find_cached(source, cache)


def _find_local_copy(source: Source) -> Path | None:
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    names = [name + ending for name in source.files for ending in ("", ".gz")]
    places = (Path(root, folder, name) for folder in source.folders for name in names)
    return next((place for place in places if place.is_file()), None)


def _find_cached(source: Source, cache: str | os.PathLike[str] | None) -> Path:
    """Return the file in the cache; if it is missing, download it.

    Everything happens in a temporary folder of the cache, and the complete file is moved to its place. So a
    failure leaves nothing behind, and several processes do not disturb one another.
    """
    pooch = import_extra("pooch", "datasets", f"a data set without a local copy in ${VARIABLE}")
    root = (pooch.os_cache("mfkernel") if cache is None else Path(cache)).expanduser()
    # the checksum is part of the name: another edition of the data set gets another folder
    target = root / f"{source.folders[0]}-{source.sha256[:DIGITS]}" / source.files[0]
    if not target.is_file():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=root) as folder:
            archive, unpacked = Path(folder, "archive"), Path(folder, "unpacked")
            _download(pooch, source, archive)
            _unpack(source, archive, unpacked)
            target.parent.mkdir(exist_ok=True)
            _move(unpacked, target)
    return target


def _download(pooch: Any, source: Source, path: Path) -> None:
    """Download the archive, and check that it is the expected one."""
    requests = import_extra("requests", "datasets", "a download")  # pooch depends on it
    print(f"Downloading {source.title}: {source.url}\n{source.conditions}", file=sys.stderr, flush=True)
    responses: list[Any] = []
    hooks = {"response": lambda response, **_: responses.append(response)}
    download = pooch.HTTPDownloader(chunk_size=BYTES_PER_READ, timeout=TIMEOUT, hooks=hooks)
    try:
        download(source.url, str(path), None)
    except requests.RequestException as error:
        raise ConnectionError(
            f"cannot download {source.url}: {summarize(error)}; {_remedy(source)}"
        ) from error
    finally:
        for response in responses:  # pooch leaves a broken one open
            response.close()
    found = pooch.file_hash(str(path), "sha256")
    if found != source.sha256:
        raise ValueError(
            f"{source.url} must have the SHA-256 {source.sha256}, got {found} of {path.stat().st_size:,} "
            f"bytes, so it arrived damaged or has changed; {_remedy(source)}"
        )


def _unpack(source: Source, path: Path, target: Path) -> None:
    """Write the file of the archive to ``target``, whatever its name in the archive is."""
    name = Path(source.url.rpartition("/")[2])
    with path.open("rb") as file, Archive(str(name), file, Stream(file.read)) as archive:
        unsafe = [member for member in archive.members if _leads_outside(member)]
        if unsafe:
            raise ValueError(f"{name} must only have files below its own folder, got {unsafe[0]!r}")
        if source.member not in archive.members:
            raise ValueError(f"{name} must have the file {source.member}, got {len(archive.members)} others")
        data = archive.stream(source.member)
        with target.open("wb") as unpacked:
            while chunk := data.read(BYTES_PER_READ):
                unpacked.write(chunk)
            unpacked.flush()
            os.fsync(unpacked.fileno())


def _leads_outside(name: str) -> bool:
    """Return whether a name in an archive is absolute or has ``..``, on any system."""
    path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    return bool(path.anchor) or ".." in path.parts


def _move(path: Path, target: Path) -> None:
    try:
        path.replace(target)
    except PermissionError:  # Windows: another process was first and reads the same file
        if not target.is_file():
            raise


def _remedy(source: Source) -> str:
    place = Path(source.folders[0], source.files[0])
    return f"try again, or save its {source.member} as {place} in the folder that {VARIABLE} names"
