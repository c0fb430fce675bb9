"""The one place where kernels are given their compile options."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

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


def jit(function: Kernel) -> Kernel:
    """Compile ``function`` on its first call: without the GIL, cached on disk where that is possible.

    Numba's disk cache knows neither compile options nor callees in other files: never decorate one
    function twice, and keep kernels that call one another in one file.
    """
    try:
        return cast(Kernel, numba.njit(**OPTIONS, cache=True)(function))
    except RuntimeError as error:  # neither the package's folder nor the user's cache is writable
        logging.getLogger("mfkernel").info("kernels are compiled anew in this process: %s", error)
        return cast(Kernel, numba.njit(**OPTIONS)(function))


def inlined(function: Kernel) -> Kernel:
    """Compile ``function`` as a part of each kernel that calls it."""
    return cast(Kernel, numba.njit(**INLINED)(function))
