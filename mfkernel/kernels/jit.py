"""The compile options of kernels, and their cache on disk."""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# These flags let LLVM vectorize sums and use FMA. `fastmath=True` would add nnan and ninf: isnan(nan) would
# be False in a kernel, and divergence would go unseen.
FASTMATH = {"reassoc", "contract", "nsz", "arcp", "afn"}
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": FASTMATH,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # the wrapper is for callers in C: 10 % of compilation time
}
# for functions called per rating or per row: a call that LLVM does not inline costs more than their work
INLINED: dict[str, Any] = {**OPTIONS, "forceinline": True}

NUMBA_SETTINGS = (  # that change machine code
    *("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE"),
    *("DISABLE_INTEL_SVML", "USE_RVSDG_FRONTEND", "LLVM_PASS_TIMINGS"),
)

LOG = logging.getLogger("mfkernel")


def jit(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call, and cache it on disk if possible.

    It runs without the GIL. Numba finds a cached kernel by its name, its file's content, its types and the
    processor. The machine code also depends on other files and on options; :func:`stamp` makes these part of
    the name.
    """
    function.__qualname__ += f".{stamp()}"
    try:
        kernel = numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError as error:  # neither the package folder nor the user's cache is writable
        _warn_uncached(str(error))
        return cast(Kernel, numba.njit(**OPTIONS)(function))
    _tolerate_faults(getattr(kernel, "_cache", None))
    return cast(Kernel, kernel)


def inlined(function: Kernel) -> Kernel:
    """Compile ``function`` into each kernel that calls it."""
    return cast(Kernel, numba.njit(**INLINED)(function))


@functools.cache
def stamp() -> str:
    """Return a hash of what Numba's cache does not check but machine code depends on.

    It covers the sources of all kernels, and so the options in this file. It also covers the version of
    llvmlite and the settings of Numba that change machine code. Kernels may therefore call one another across
    files.
    """
    digest = hashlib.sha256(llvmlite.__version__.encode())
    digest.update(repr([getattr(numba.config, name, None) for name in NUMBA_SETTINGS]).encode())
    try:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    except OSError:  # in a zip file or without sources, where Numba caches nothing
        return "unknown"
    return digest.hexdigest()[:12]


def _tolerate_faults(cache: Any) -> None:
    """Make reads and writes of a damaged or unwritable cache fall back to compilation."""
    if not hasattr(cache, "load_overload"):  # the JIT is off
        return
    load, save = cache.load_overload, cache.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception as error:  # a truncated pickle may raise anything
            LOG.info("a damaged kernel in Numba's cache is compiled again: %r", error)
            try:
                cache.flush()  # so that the next process finds a sound file
            except OSError as problem:
                _warn_uncached(str(problem))
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except Exception as error:
            _warn_uncached(str(error))

    cache.load_overload, cache.save_overload = load_overload, save_overload


@functools.cache
def _warn_uncached_once() -> None:
    LOG.warning(
        "Numba's cache cannot be written, so each process compiles its kernels again, which takes seconds; "
        "set NUMBA_CACHE_DIR to a writable folder"
    )


def _warn_uncached(reason: str) -> None:
    """Warn once per process that kernels are not cached."""
    LOG.info("no cache: %s", reason)
    _warn_uncached_once()
