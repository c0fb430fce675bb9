"""Options and files of several commands."""

import argparse
from pathlib import Path
from typing import Any

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.cli.ids import decodings
from mfkernel.methods import METHODS
from mfkernel.model import atomic

FILE_OPTIONS = ("columns", "duplicates", "encoding")


def read_file(options: argparse.Namespace, path: Path) -> mf.Ratings:
    """Read ratings from a file with its options."""
    columns = options.columns and [int(c) if c.isdecimal() else decodings(c)[0] for c in options.columns]
    encoding = {} if options.encoding is None else {"encoding": options.encoding}
    return mf.read_ratings(path, columns=columns, duplicates=options.duplicates or "raise", **encoding)


def check_file_options(options: argparse.Namespace, remedy: str) -> None:
    """Refuse options of a file if no file is given."""
    for name in FILE_OPTIONS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} must be used with {remedy}")


def fit_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``factorize`` among the options; omit unset options of the method."""
    for name, least in (("epochs", 1), ("threads", 1), ("seed", 0)):
        if (value := getattr(options, name)) is not None:
            checks.integer(f"--{name}", value, least)
    names = {name for method in METHODS.values() for name in method.options.names()}
    given = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None} | {
        "method": options.method,
        "dtype": options.dtype,
        "rng": options.seed,
        "n_threads": options.threads,
    }


def check_output(path: str | None) -> None:
    """Refuse a path where the model cannot be saved, before the fit."""
    if path is None:
        return
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir():
        raise ValueError(f"--output must name a file in a folder that exists, got {path}")
    atomic.check(path)
