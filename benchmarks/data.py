"""The data sets of all benchmarks, by name: generated ones, real ones in a folder, and their splits.

The option ``--data`` or the variable ``MFKERNEL_DATA`` names the folder of the real ones.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

import mfkernel as mf

Split = tuple[mf.Ratings, mf.Ratings]

GENERATED = {  # name -> users, items and ratings
    "ml-100k-like": (943, 1682, 100_000),
    "ml-1m-like": (6040, 3706, 1_000_209),
    "generated 100K": (943, 1682, 100_000),
    "generated 1M": (7000, 1000, 1_000_000),
    "generated 10M": (70_000, 10_000, 10_000_000),
}
FILES = {
    "ML-100K": "ml-100k/u.data",
    "ML-1M": "ml-1m/ratings.csv.gz",
    "ml-latest-small": "ml-latest-small/ratings.csv",
}
FOLDS = tuple(f"ml-100k/u{n}.{part}" for n in range(1, 6) for part in ("base", "test"))
SETS = (*GENERATED, *FILES)
ML_100K_SHAPE = (943, 1682)


class MissingDataError(ValueError):
    """Real ratings are not where they should be; the message names them."""


# Generated sets


@cache
def generated(name: str, dtype: str = "float32") -> mf.Ratings:
    """Generate the ratings of one of ``GENERATED``."""
    return mf.Ratings(mf.datasets.synthetic(*GENERATED[name]), dtype=dtype)


@cache
def generated_split(name: str) -> Split:
    """Generate ratings and hold a tenth out."""
    return hold_out_tenth(generated(name), 0)


# Real sets


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--data`` to a parser."""
    parser.add_argument(
        "--data",
        type=_folder,
        metavar="FOLDER",
        default=os.environ.get("MFKERNEL_DATA") or None,
        help="folder of real ratings (default: $MFKERNEL_DATA)",
    )


def require(folder: Path | None, names: Iterable[str], *files: str) -> None:
    """Check that the folder has the real sets among some names, and some files.

    Raises
    ------
    MissingDataError
        If one is missing.
    """
    real = [name for name in names if name in FILES]
    if real and folder is None:
        raise MissingDataError(f"{' and '.join(real)} need --data FOLDER")
    for file in (*(FILES[name] for name in real), *files):
        if folder is not None and not (folder / file).is_file():
            raise MissingDataError(
                f"--data must hold {file}, {folder} does not; docs/benchmarks.md lists the files"
            )


def load(name: str, folder: Path | None = None) -> mf.Ratings:
    """Return the ratings of any set; ``folder`` has the real ones."""
    if name in GENERATED:
        return generated(name)
    require(folder, [name])
    assert folder is not None
    if name == "ML-100K":
        return _read_ml_100k(folder, "u.data")
    try:
        return mf.read_ratings(folder / FILES[name])
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {folder / FILES[name]}: {error}")


def fold(folder: Path, n: int) -> Split:
    """Return one of the five folds of ML-100K, by its number from 0."""
    return _read_ml_100k(folder, f"u{n + 1}.base"), _read_ml_100k(folder, f"u{n + 1}.test")


def hold_out_tenth(R: mf.Ratings, seed: int) -> Split:
    """Hold a tenth of the ratings out."""
    return mf.train_test_split(R, 0.1, rng=seed)


def _read_ml_100k(folder: Path, file: str) -> mf.Ratings:
    """Read a file of ML-100K, with row and column numbers that all its files share."""
    path = folder / "ml-100k" / file
    try:
        users, items, values, _ = np.loadtxt(path, np.int64, unpack=True)
        return mf.Ratings((users - 1, items - 1, values, ML_100K_SHAPE), dtype=np.float32)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot read {path}: {error}")


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)
