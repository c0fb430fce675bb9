"""Real ratings, in the folder that ``--data`` or ``MFKERNEL_DATA`` names."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import mfkernel as mf

FILES = {
    "ML-100K": "ml-100k/u.data",
    "ML-1M": "ml-1m/ratings.csv.gz",
    "ml-latest-small": "ml-latest-small/ratings.csv",
}
FOLDS = tuple(f"ml-100k/u{n}.{part}" for n in range(1, 6) for part in ("base", "test"))


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--data`` to a parser."""
    parser.add_argument(
        "--data",
        type=_folder,
        metavar="FOLDER",
        default=os.environ.get("MFKERNEL_DATA") or None,
        help="holds real ratings (default: $MFKERNEL_DATA)",
    )


def check(parser: argparse.ArgumentParser, data: Path | None, names: Iterable[str], *files: str) -> None:
    """End with an error of the parser unless the folder holds the sets of these names, and the files."""
    needed = [FILES[name] for name in names if name in FILES]
    if needed and data is None:
        parser.error(f"{' and '.join(name for name in names if name in FILES)} need --data FOLDER")
    for file in (*needed, *files):
        if data is not None and not (data / file).is_file():
            parser.error(
                f"--data must hold {file}, {data} does not; docs/benchmarks.md says which files it takes"
            )


def read(name: str, data: Path) -> mf.Ratings:
    """Read a set of ``FILES``."""
    if name == "ML-100K":
        return read_ml_100k(data)
    try:
        return mf.read_ratings(data / FILES[name])
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {data / FILES[name]}: {error}")


def read_ml_100k(data: Path, name: str = "u.data") -> mf.Ratings:
    """Read a file of ML-100K, with row and column numbers that all its files share."""
    path = data / "ml-100k" / name
    try:
        users, items, values, _ = np.loadtxt(path, np.int64, unpack=True)
        return mf.Ratings((users - 1, items - 1, values, (943, 1682)), dtype=np.float32)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {path}: {error}")


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)
