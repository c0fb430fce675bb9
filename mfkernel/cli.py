"""The program ``mfkernel``."""

import argparse
import io
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel import _checks
from mfkernel.api import SCHEDULES
from mfkernel.convert import DUPLICATES
from mfkernel.methods import DECAYS

EXAMPLE = {"epochs": 5000, "learning_rate": 0.02, "regularization": 0.0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; errors that the user can mend end it with a line, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without × and · must not end the run
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"mfkernel: {message}", file=sys.stderr)
            options.run(options)
    except KeyboardInterrupt:
        sys.exit("mfkernel: interrupted")
    except (OSError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        sys.exit(f"mfkernel: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mfkernel", description="Matrix factorization of known ratings.")
    parser.add_argument("--version", action="version", version=f"mfkernel {mf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "factorize",
        help="find P and Q with R ≈ P·Q",
        description="Find P and Q with R ≈ P·Q for the ratings of FILE: MovieLens u.data, ratings.dat or "
        "ratings.csv, 'user item rating' text, MatrixMarket or scipy npz, gzipped or not. "
        "Without FILE, for the textbook's 5 × 3 example.",
    )
    command.set_defaults(run=_factorize)
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("-k", type=int, help="number of factors (default: 32; 2 for the example)")
    command.add_argument("-o", "--output", type=Path, metavar="MODEL.npz", help="save P, Q and the ids here")
    command.add_argument("--test", type=float, metavar="SHARE", help="hold out this share of the ratings")
    command.add_argument("--schedule", choices=SCHEDULES, help="default: blocks; sequential for the example")
    command.add_argument(
        "--threads", type=int, metavar="N", help="default: as many as the work is enough for"
    )
    command.add_argument("--epochs", type=int, metavar="N", help="passes over the ratings")
    command.add_argument("--learning-rate", type=float, metavar="RATE", help="step size of the first epoch")
    command.add_argument("--decay", choices=tuple(DECAYS), help="default: constant with --learning-rate")
    command.add_argument("--regularization", type=float, metavar="LAMBDA")
    command.add_argument(
        "--dtype", choices=("float32", "float64"), help="default: float32; float64 for the example"
    )
    command.add_argument("--seed", type=int, help="same seed, same result (but for hogwild)")
    command.add_argument("--duplicates", choices=DUPLICATES, default="raise")
    command.add_argument(
        "--columns",
        nargs=3,
        metavar=("USER", "ITEM", "RATING"),
        help="names in FILE's header, or positions from 0",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return parser


def _factorize(options: argparse.Namespace) -> None:
    """Read, factorize, report and save."""
    settings: dict[str, Any] = {
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "regularization": options.regularization,
        "decay": options.decay,
        "schedule": options.schedule or ("sequential" if options.file is None else "blocks"),
        "n_threads": options.threads,
        "rng": options.seed,
    }
    _check_output(options.output)
    for name, least in (("k", 1), ("epochs", 1), ("threads", 1), ("seed", 0)):
        if (value := getattr(options, name)) is not None:
            _checks.integer(f"-{name}" if name == "k" else f"--{name}", value, least)
    if options.test is not None and not 0 < options.test < 1:
        raise ValueError(f"--test must be between 0 and 1, got {options.test}")
    if options.file is None:
        _example(options, settings)
        return
    columns = options.columns and [int(c) if c.isdecimal() else c for c in options.columns]
    ratings = mf.read_ratings(options.file, columns=columns, duplicates=options.duplicates)
    print(f"{options.file}: {ratings}")
    train, test = ratings, None
    if options.test is not None:
        train, test = mf.train_test_split(ratings, options.test, rng=options.seed)
    k = 32 if options.k is None else options.k
    model = mf.factorize(train, k, dtype=options.dtype or "float32", progress=not options.quiet, **settings)
    if options.output is not None:
        model.save(options.output)
    print(f"{'RMSE':<22}{'train':>10}{'test' if test else '':>10}")
    parts = [part for part in (train, test) if part is not None]
    for name, figures in (
        ("predicting the mean", [math.hypot(part.std, part.mean - train.mean) for part in parts]),
        (f"{k} factors", [model.rmse(part) for part in parts]),
    ):
        print(f"{name:<22}{''.join(f'{rmse:>10.4f}' for rmse in figures)}")
    if options.output is not None:
        print(f"saved {options.output}")


def _check_output(path: Path | None) -> None:
    """Refuse a place where the model could not be saved, before the work that would be lost."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"{path} must name a file in a folder that exists, here {path.parent}")


def _example(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Factorize the textbook's example, by its own settings where none are given."""
    if options.test is not None:
        raise ValueError("--test needs a FILE: the example has 7 ratings")
    R, P0, Q0 = mf.datasets.textbook()
    k = 2 if options.k is None else options.k
    if k == 2 and options.seed is None:
        settings |= {"init": (P0, Q0), "shuffle": False}
        settings |= {name: value for name, value in EXAMPLE.items() if settings[name] is None}
    model = mf.factorize(R, k, dtype=options.dtype or "float64", **settings)
    with np.printoptions(precision=8, suppress=True):
        print(f"Original matrix (0 is unknown):\n{R}")
        print(f"\nReconstructed matrix, P·Q with k = {k}:\n{model.reconstruct()}")
    if options.output is not None:
        model.save(options.output)
        print(f"\nsaved {options.output}")
