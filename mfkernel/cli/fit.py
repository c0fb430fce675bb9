"""The commands that fit models: factorize and select-rank."""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.cli.inputs import check_file_options, check_output, fit_arguments, read_file
from mfkernel.cli.output import (
    format_number,
    format_share,
    print_errors,
    print_rankings,
    print_table,
    printable,
)
from mfkernel.methods import METHODS

EXAMPLE_ARGUMENTS = {  # the textbook's settings of its example
    **{"epochs": 5000, "learning_rate": 0.02, "regularization": 0.0},
    **{"schedule": "sequential", "shuffle": False},
}


def factorize(options: argparse.Namespace) -> None:
    """Read ratings, factorize them, print the errors and save the model."""
    check_output(options.output)
    if options.k is not None:
        checks.integer("-k", options.k, 1)
    if isinstance(options.test, float) and not 0 < options.test < 1:
        raise ValueError(f"--test must be between 0 and 1, or a FILE, got {options.test:g}")
    if options.latest and not isinstance(options.test, float):
        raise ValueError("--latest must be used with --test; pass --test SHARE")
    if options.patience is not None and options.validation is None:
        raise ValueError("--patience must be used with --validation; pass --validation SHARE")
    _check_checkpoint(options)
    settings = fit_arguments(options) | {
        "checkpoint": options.checkpoint,
        "resume": options.resume,
        "validation": options.validation,
        "patience": options.patience,
        "time_limit": options.time_limit,
        "half_life": options.half_life,
    }
    if options.file is None:
        _example(options, settings)
        return
    settings["dtype"] = settings["dtype"] or "float32"
    ratings = read_file(options, options.file)
    print(
        f"{printable(options.file)}: {ratings.n_users:,} users, {ratings.n_items:,} items, "
        f"{ratings.nnz:,} ratings"
    )
    train, test = ratings, None
    if isinstance(options.test, float):
        if options.latest:
            train, test = mf.time_split(ratings, options.test)
        else:
            train, test = mf.train_test_split(ratings, options.test, rng=options.seed)
    elif options.test is not None:
        test = read_file(options, options.test)
    if isinstance(options.validation, Path):
        settings["validation"] = read_file(options, options.validation)
    k = 32 if options.k is None else options.k
    model = mf.factorize(train, k, progress=not options.quiet, **settings)
    if options.output is not None:
        model.save(options.output)
    if options.validation is not None:
        errors = [math.inf if x.validation_error is None else x.validation_error for x in model.history]
        best = model.history[errors.index(min(errors))]
        if model.settings.implicit:
            measured = f"NDCG {format_share(best.validation_ndcg)}"
        else:
            measured = format_number(best.validation_rmse)
        print(f"stopped: {model.stop_reason}; best epoch {best.epoch}, validation {measured}")
    if model.settings.implicit:
        print_rankings(model, test)
    else:
        print_errors(model, train, test)
    if options.output is not None:
        print(f"saved {printable(options.output)}")


def _check_checkpoint(options: argparse.Namespace) -> None:
    if options.checkpoint is None:
        if options.resume:
            raise ValueError("--resume must be used with --checkpoint FILE")
        return
    if options.output is not None and Path(options.output).absolute() == Path(options.checkpoint).absolute():
        raise ValueError("--checkpoint and --output must name two files, got the same one")
    if options.test is not None and options.seed is None:
        raise ValueError(
            "--seed must be used with --checkpoint and --test, so that the same ratings are held out again"
        )


def _example(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Factorize the textbook's example, by default with its settings."""
    if options.test is not None:
        raise ValueError("--test must be used with a FILE; the example has only 7 ratings")
    check_file_options(options, "a FILE")
    R, P0, Q0 = mf.datasets.textbook()
    k = 2 if options.k is None else options.k
    if k == 2 and options.seed is None and "learning_rate" in METHODS[options.method].options.names():
        settings = EXAMPLE_ARGUMENTS | {"init": (P0, Q0)} | settings
    model = mf.factorize(R, k, **(settings | {"dtype": settings["dtype"] or "float64"}))
    with np.printoptions(precision=8, suppress=True):
        print(f"Original matrix (0 is unknown):\n{R}")
        print(f"\nReconstructed matrix, the product of P and Q with k = {k}:\n{model.reconstruct()}")
    if options.output is not None:
        model.save(options.output)
        print(f"\nsaved {printable(options.output)}")


def select_rank(options: argparse.Namespace) -> None:
    """Print the errors of each rank, and the selected rank."""
    settings = fit_arguments(options)
    settings["dtype"] = settings["dtype"] or "float32"
    ratings, folds = read_file(options, options.file), 5 if options.folds is None else options.folds
    if options.test is not None:
        if options.folds is not None:
            raise ValueError(f"--folds must be left out with --test FILE, got {options.folds}")
        folds = [(ratings, read_file(options, options.test))]
    found = mf.select_rank(ratings, options.k, folds, **settings)
    columns = (found.train_rmse.mean(axis=1), found.mean, found.standard_error)
    seconds = [f"{x:.2f}" for x in found.seconds.sum(axis=1)]
    figures = zip(*(map(format_number, column) for column in columns), seconds, strict=True)
    rows = [[str(k), *row] for k, row in zip(found.ks, figures, strict=True)]
    test = "test" if found.metric == "rmse" else "test ndcg"
    print_table([["k", "train", test, "std error", "seconds"], *rows], left=())
    print(f"k = {found.k}, the smallest within one standard error of the best, k = {found.best['k']}")
