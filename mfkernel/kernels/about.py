"""Facts about the compiler and its cache, for reports."""

import os
import platform
import tempfile
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numba

from mfkernel.kernels import csr

FEATURES = ("avx", "avx2", "fma", "avx512f", "neon", "sve")


def about() -> dict[str, str]:
    """Return names and values of facts about the compiler, the processor and the cache."""
    known = llvm.get_host_cpu_features()
    features = [name for name in FEATURES if known.get(name)]
    folder = getattr(getattr(csr.count, "_cache", None), "cache_path", None)
    return {
        "Numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "processor": f"{llvm.get_host_cpu_name()} ({platform.machine()}; {', '.join(features) or 'no SIMD'})",
        "kernel cache": "none: each process compiles its kernels again" if folder is None else folder,
        "cache writable": "no" if folder is None or not _is_writable(Path(folder)) else "yes",
    }


def _is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, or in the nearest one that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return os.access(folder, os.W_OK)
    except OSError:
        return False
