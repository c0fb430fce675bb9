"""Options and files of several commands."""

import argparse
import sys
from pathlib import Path
from typing import Any

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.cli.ids import decodings
from mfkernel.methods import METHODS
from mfkernel.model import atomic

FILE_OPTIONS = ("columns", "timestamp", "separator", "decimal", "nulls", "duplicates", "encoding")


def read_file(options: argparse.Namespace, path: Path) -> mf.Ratings:
    """Read ratings from a file with its options."""
    given = {name: getattr(options, name) for name in FILE_OPTIONS if getattr(options, name) is not None}
    if "columns" in given:
        given["columns"] = list(map(_column, given["columns"]))
    if isinstance(given.get("timestamp"), str):
        given["timestamp"] = _column(given["timestamp"])
    return mf.read_ratings(sys.stdin.buffer if str(path) == "-" else path, **given)


def _column(text: str) -> str | int:
    """Return the name or the position of a column."""
    return int(text) if text.isdecimal() else decodings(text)[0]


def share_or_file(text: str) -> float | Path:
    """Return a share of the ratings, or the path of a file."""
    try:
        return float(text)
    except ValueError:
        return Path(text)


def read_words(path: Path) -> list[str]:
    """Return the lines of a file that are not blank: ids, one per line."""
    content = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    return [line.strip() for line in content.splitlines() if line.strip()]


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
