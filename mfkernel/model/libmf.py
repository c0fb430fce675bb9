"""Models in the text format of LIBMF: a head of five lines, then one line per row of P and of Q.

A row without ratings has the mark F instead of T; the prediction is then the mean b of the head.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.files.streams import report_damage
from mfkernel.model.factors import Factors
from mfkernel.options import SGD, ImplicitALS, Settings

HEAD = ("f", "m", "n", "k", "b")
KINDS: dict[int, Settings] = {0: SGD(), 1: SGD(loss="absolute"), 5: SGD(loss="logistic"), 12: ImplicitALS()}


def read_libmf(path: str | os.PathLike[str]) -> Factors:
    """Read a model that LIBMF's ``mf-train`` or :func:`write_libmf` wrote.

    Parameters
    ----------
    path
        File of text.

    Returns
    -------
    Factors
        The model, float32, without ids and ratings.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is no such model; the message names the line.
    """
    name = os.fspath(path)
    with report_damage(f"{name} must be a model of LIBMF, got other"), Path(path).open() as file:
        head = [next(file, "").split() for _ in HEAD]
        if [line[:1] for line in head] != [[x] for x in HEAD] or any(len(line) != 2 for line in head):
            raise ValueError(f"a head without {', '.join(HEAD)}")
        kind, m, n, k = (int(line[1]) for line in head[:4])
        mean = float(head[4][1])
        if kind not in KINDS:
            raise ValueError(f"the loss {kind}, but {', '.join(map(str, KINDS))} can be read")
        if min(m, n, k) < 0 or k == 0 or (m + n) * k > Path(path).stat().st_size:
            raise ValueError(f"{m} and {n} rows of {k} numbers in a shorter file")
        rows, known = np.zeros((m + n, k), np.float32), np.zeros(m + n, np.bool_)
        for row in range(m + n):
            _read_row(next(file, ""), row, m, rows, known)
    return Factors(
        rows[:m], rows[m:].T, mean=mean, known_users=known[:m], known_items=known[m:], settings=KINDS[kind]
    )


def _read_row(line: str, row: int, m: int, rows: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
    label = f"p{row}" if row < m else f"q{row - m}"
    fields = line.split()
    if fields[:1] != [label] or len(fields) != rows.shape[1] + 2 or fields[1] not in ("T", "F"):
        raise ValueError(
            f"line {len(HEAD) + row + 1}: {line[:60].strip()!r} instead of {label}, T or F, and "
            f"{rows.shape[1]} numbers"
        )
    if fields[1] == "T":
        rows[row], known[row] = fields[2:], True


def write_libmf(model: Factors, path: str | os.PathLike[str]) -> None:
    """Write a model for LIBMF's ``mf-predict``; biases become two more factors.

    Parameters
    ----------
    model
        The model. Its ids are not written, as LIBMF has only row and column numbers.
    path
        File to write.

    Raises
    ------
    ValueError
        If LIBMF has no model of this loss.
    """
    settings, state = model.settings, model.state
    key = settings.loss if not settings.implicit else "implicit"
    kinds = {"squared": 0, "absolute": 1, "logistic": 5, "implicit": 12}
    if key not in kinds:
        raise ValueError(f"model must have a loss that LIBMF knows, {', '.join(kinds)}, got {key!r}")
    P, Q = (model.P, model.Q) if state.user_bias is None else model.augmented()
    all_known = state.user_bias is not None
    with Path(path).open("w") as file:
        head = (kinds[key], *state.shape, P.shape[1], np.float32(model.mean))
        file.writelines(f"{name} {value}\n" for name, value in zip(HEAD, head, strict=True))
        for letter, rows, known in (("p", P, state.known_users), ("q", Q.T, state.known_items)):
            for n, row in enumerate(rows.astype(np.float32)):
                mark = "T" if all_known or known[n] else "F"
                file.write(f"{letter}{n} {mark} {' '.join(map(str, row))} \n")
