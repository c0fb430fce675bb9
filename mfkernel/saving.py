"""Named arrays and a header in one ``.npz`` file, written whole or not at all, without pickle."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Path_ = str | os.PathLike[str]


def write(path: Path_, header: dict[str, Any], arrays: dict[str, NDArray[Any] | None]) -> None:
    """Write the arrays that are not None; an older file is replaced only when all is written."""
    target = Path(path)
    kept = {name: array for name, array in arrays.items() if array is not None}
    draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("xb") as file:
            # none is of objects, so that none is pickled
            np.savez(file, header=np.array(json.dumps(header)), **kept)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(target)) from error
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path_, formats: range) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays of a file whose header names one of the ``formats``.

    Raises
    ------
    ValueError
        If the file is no such file, or of another format.
    """
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        version = header["format"]
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)} is not a model saved by mfkernel") from error
    if version not in formats:
        raise ValueError(
            f"{os.fspath(path)} has format {version}; this version reads formats "
            f"{formats.start} to {formats[-1]}"
        )
    return header, arrays
