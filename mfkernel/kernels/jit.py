"""The one place where kernels are given their compile options, and their cache."""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# Lets LLVM vectorise sums and use FMA. `fastmath=True` would add nnan and ninf, under which
# isnan(nan) is False in a kernel and divergence goes unseen.
FASTMATH = {"reassoc", "contract", "nsz", "arcp", "afn"}
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": FASTMATH,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # for C, which calls no kernel: a tenth of the time of compilation
}
# for what is called once a rating: a call that LLVM does not inline costs more than the work
INLINED: dict[str, Any] = {**OPTIONS, "forceinline": True}

SETTINGS = (  # of Numba, that change machine code
    *("BOUNDSCHECK", "OPT", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE"),
    *("DISABLE_INTEL_SVML", "USE_RVSDG_FRONTEND", "LLVM_PASS_TIMINGS"),
)

LOG = logging.getLogger("mfkernel")


def jit(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call: without the GIL, cached on disk where that is possible.

    Numba finds a cached kernel by its name, its file's content, its types and the processor. What else the
    machine code is made of, other files and options, becomes part of the name (:func:`stamp`).
    """
    function.__qualname__ += f".{stamp()}"
    try:
        kernel = numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError as error:  # neither the package's folder nor the user's cache is writable
        _say_uncached(str(error))
        return cast(Kernel, numba.njit(**OPTIONS)(function))
    _survive(getattr(kernel, "_cache", None))
    return cast(Kernel, kernel)


def inlined(function: Kernel) -> Kernel:
    """Compile ``function`` as a part of each kernel that calls it."""
    return cast(Kernel, numba.njit(**INLINED)(function))


@functools.cache
def stamp() -> str:
    """Return a name for all that machine code is made of and Numba does not look at.

    The sources of all kernels, this file with its options among them, the version of llvmlite, and the
    settings of Numba that change the code. So kernels may call one another across files.
    """
    digest = hashlib.sha256(llvmlite.__version__.encode())
    digest.update(repr([getattr(numba.config, name, None) for name in SETTINGS]).encode())
    try:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    except OSError:  # in a zip, or without sources, where Numba keeps nothing
        return "unknown"
    return digest.hexdigest()[:12]


def _survive(cache: Any) -> None:
    """Let a damaged or unwritable cache cost the time of compilation, and nothing else."""
    if not hasattr(cache, "load_overload"):  # without the JIT there is none
        return
    load, save = cache.load_overload, cache.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except Exception as error:  # a file that is cut off fails in any way that pickle can
            LOG.info("a damaged kernel in Numba's cache is compiled anew: %r", error)
            try:
                cache.flush()  # so that the next process finds a whole one
            except OSError as problem:
                _say_uncached(str(problem))
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except Exception as error:
            _say_uncached(str(error))

    cache.load_overload, cache.save_overload = load_overload, save_overload


@functools.cache
def _say_uncached_once() -> None:
    LOG.warning(
        "kernels cannot be kept in Numba's cache, so that each process compiles them again, which takes "
        "seconds; NUMBA_CACHE_DIR may name a folder that can be written"
    )


def _say_uncached(reason: str) -> None:
    """Say once in a process that kernels are not kept."""
    LOG.info("no cache: %s", reason)
    _say_uncached_once()
