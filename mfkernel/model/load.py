"""The function ``load``, which reads a model from a file."""

from __future__ import annotations

from mfkernel._support import checks
from mfkernel.model import files
from mfkernel.model.archive import File
from mfkernel.model.construct import checked_state
from mfkernel.model.factors import Factors


def load(path: File, *, mmap: bool = False) -> Factors:
    """Read a model that ``Factors.save`` of this or an earlier version wrote.

    Parameters
    ----------
    path
        Path of the file, or a binary file object. An object that cannot seek is read to its end.
    mmap
        Map the factors, biases and values of the ratings from the file, read-only, so that processes share
        their memory. Ids and the row and column numbers of ratings are copied. The file must not be changed
        in place meanwhile; ``save`` replaces it, which is safe. Default: False.

    Returns
    -------
    Factors
        The model.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not a whole model, or ``mmap`` is True for a file object or for a file that an earlier
        version wrote, whose arrays are not aligned.
    MemoryError
        If the model does not fit in the free memory.
    """
    arguments = files.read_arguments(path, mmap=checks.boolean("mmap", mmap))
    try:
        return Factors.of_state(checked_state(**arguments, copy=False))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise files.not_whole(path, error) from error
