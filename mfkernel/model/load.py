"""The function ``load``, which reads a model from a file."""

from __future__ import annotations

import os

from mfkernel.model import files
from mfkernel.model.factors import Factors


def load(path: str | os.PathLike[str]) -> Factors:
    """Read a model that ``Factors.save`` of this or an earlier version wrote.

    Parameters
    ----------
    path
        Path of the file.

    Returns
    -------
    Factors
        The model.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not a whole model.
    MemoryError
        If the model does not fit in the free memory.
    """
    arguments = files.read_arguments(path)
    try:
        return Factors(**arguments)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise files.not_whole(path, error) from error
