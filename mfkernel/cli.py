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
from mfkernel.api import METHODS, SCHEDULES
from mfkernel.convert import DUPLICATES
from mfkernel.methods import DECAYS
from mfkernel.objective import LOSSES, targets
from mfkernel.ridge import SOLVERS

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
        description=f"Find P and Q with R ≈ P·Q for the ratings of FILE: {FORMATS} "
        "Without FILE, for the textbook's 5 × 3 example.",
    )
    command.set_defaults(run=_factorize)
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("-k", type=int, help="number of factors (default: 32; 2 for the example)")
    command.add_argument("-o", "--output", type=Path, metavar="MODEL.npz", help="save the model here")
    command.add_argument("--test", type=float, metavar="SHARE", help="hold out this share of the ratings")
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="of the ratings to learn from, hold out this share and keep the epoch that predicts it best",
    )
    command.add_argument("--patience", type=int, metavar="N", help="stop after N epochs that do not (5)")
    command.add_argument("--time-limit", type=float, metavar="SECONDS", help="begin no epoch after these")
    command.add_argument("--schedule", choices=SCHEDULES, help="default: blocks; sequential for the example")
    command.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    _add_fit_options(command)
    _add_file_options(command)

    command = commands.add_parser(
        "select-rank",
        help="find the number of factors that predicts held-out ratings best",
        description=f"Fit the ratings of FILE with several k on several folds. FILE: {FORMATS}",
    )
    command.set_defaults(run=_select_rank)
    command.add_argument("file", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("-k", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], help="ranks to try")
    command.add_argument("--folds", type=int, default=5, metavar="N", help="default: 5")
    _add_fit_options(command)
    _add_file_options(command)

    command = commands.add_parser("recommend", help="find the items that a user would rate highest")
    command.set_defaults(run=_recommend)
    _add_model(command)
    command.add_argument("users", nargs="*", metavar="USER", help="ids as in the ratings, or row numbers")
    command.add_argument("--ratings", type=Path, metavar="FILE", help="of new users, to recommend to them")
    command.add_argument("-n", type=int, default=10, help="how many items (default: 10)")
    command.add_argument("--include-seen", action="store_true", help="items that the user has rated, too")
    _add_file_options(command)

    command = commands.add_parser("similar", help="find the items that are nearest to one")
    command.set_defaults(run=_similar)
    _add_model(command)
    command.add_argument("items", nargs="+", metavar="ITEM", help="ids as in the ratings, or column numbers")
    command.add_argument("-n", type=int, default=10, help="how many (default: 10)")
    command.add_argument("--users", action="store_true", help="find users that are nearest to a user")

    command = commands.add_parser("explain", help="say what a prediction is made of")
    command.set_defaults(run=_explain)
    _add_model(command)
    command.add_argument("user", metavar="USER")
    command.add_argument("item", metavar="ITEM")
    command.add_argument("-n", type=int, default=10, help="how many of the user's ratings (default: 10)")

    command = commands.add_parser("update", help="learn new ratings, also of new users and items")
    command.set_defaults(run=_update)
    _add_model(command)
    command.add_argument("file", type=Path, metavar="FILE", help="the new ratings")
    command.add_argument("-o", "--output", type=Path, metavar="MODEL.npz", help="default: the model's file")
    _add_file_options(command)
    return parser


FORMATS = (
    "MovieLens u.data, ratings.dat or ratings.csv, 'user item rating' text, MatrixMarket or scipy npz, "
    "gzipped or not."
)
FIT_OPTIONS = (
    *("method", "epochs", "learning_rate", "decay", "regularization", "biases", "loss", "l1", "nonnegative"),
    *("solver", "weighted", "alpha", "unobserved_weight", "dtype", "seed", "threads"),
)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL.npz", help="what factorize -o has saved")


def _add_fit_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threads", type=int, metavar="N", help="default: as many as the work is enough for"
    )
    command.add_argument("--method", choices=METHODS, default="sgd", help="default: sgd")
    command.add_argument("--epochs", type=int, metavar="N", help="passes over the ratings")
    command.add_argument("--learning-rate", type=float, metavar="RATE", help="step size of the first epoch")
    command.add_argument("--decay", choices=tuple(DECAYS), help="default: constant with --learning-rate")
    command.add_argument("--regularization", type=float, metavar="LAMBDA")
    command.add_argument("--biases", action="store_true", help="add the mean, and biases of users and items")
    command.add_argument("--loss", choices=LOSSES, default="squared", help="default: squared")
    command.add_argument("--l1", type=float, default=0.0, metavar="LAMBDA", help="sets coordinates to zero")
    command.add_argument("--nonnegative", action="store_true", help="keep P and Q from falling below zero")
    command.add_argument("--solver", choices=SOLVERS, help="of als and implicit; default: by k")
    command.add_argument(
        "--weighted",
        action="store_true",
        default=None,
        help="of als and implicit: λ for each rating of a row",
    )
    command.add_argument(
        "--alpha", type=float, default=1.0, help="of implicit: a strength r weighs 1 + ALPHA r (1)"
    )
    command.add_argument(
        "--unobserved-weight", type=float, default=1.0, metavar="WEIGHT", help="of implicit: of all else (1)"
    )
    command.add_argument(
        "--dtype", choices=("float32", "float64"), help="default: float32; float64 for the example"
    )
    command.add_argument("--seed", type=int, help="same seed, same result (but for hogwild)")


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--duplicates", choices=DUPLICATES, default="raise")
    command.add_argument(
        "--columns",
        nargs=3,
        metavar=("USER", "ITEM", "RATING"),
        help="names in FILE's header, or positions from 0",
    )


def _read(options: argparse.Namespace, path: Path) -> mf.Ratings:
    columns = options.columns and [int(c) if c.isdecimal() else c for c in options.columns]
    return mf.read_ratings(path, columns=columns, duplicates=options.duplicates)


def _fit_settings(options: argparse.Namespace) -> dict[str, Any]:
    for name, least in (("epochs", 1), ("threads", 1), ("seed", 0)):
        if (value := getattr(options, name)) is not None:
            _checks.integer(f"--{name}", value, least)
    settings = {name: getattr(options, name) for name in FIT_OPTIONS}
    settings |= {"rng": settings.pop("seed"), "n_threads": settings.pop("threads")}
    return settings


def _factorize(options: argparse.Namespace) -> None:
    """Read, factorize, report and save."""
    _check_output(options.output)
    if options.k is not None:
        _checks.integer("-k", options.k, 1)
    if options.test is not None and not 0 < options.test < 1:
        raise ValueError(f"--test must be between 0 and 1, got {options.test}")
    textbook = options.file is None and options.method == "sgd"
    settings = _fit_settings(options) | {
        "schedule": options.schedule or ("sequential" if textbook else "blocks"),
        "validation": options.validation,
        "patience": options.patience,
        "time_limit": options.time_limit,
    }
    if options.file is None:
        _example(options, settings)
        return
    settings["dtype"] = settings["dtype"] or "float32"
    ratings = _read(options, options.file)
    print(f"{options.file}: {ratings}")
    train, test = ratings, None
    if options.test is not None:
        train, test = mf.train_test_split(ratings, options.test, rng=options.seed)
    k = 32 if options.k is None else options.k
    model = mf.factorize(train, k, progress=not options.quiet, **settings)
    if options.output is not None:
        model.save(options.output)
    if options.validation is not None:
        errors = [math.inf if x.validation_error is None else x.validation_error for x in model.history]
        best = model.history[errors.index(min(errors))]
        ranked = model.settings.implicit
        name, figure = ("NDCG ", best.validation_ndcg) if ranked else ("", best.validation_rmse)
        print(f"stopped: {model.stop_reason}; best epoch {best.epoch}, validation {name}{figure:.4f}")
    if model.settings.implicit:
        _print_rankings(model, test)
    else:
        _print_errors(model, train, test)
    if options.output is not None:
        print(f"saved {options.output}")


def _print_rankings(model: mf.Factors, test: mf.Ratings | None) -> None:
    """Print how well held-out items are ranked, or without such how far the objective fell."""
    if test is None:
        print(f"objective {model.history[-1].loss:.6g} after {len(model.history)} epochs; --test ranks")
        return
    print(f"{f'{model.k} factors, of the best':<26}{'20':>8}{'100':>8}")
    figures = [mf.metrics.ranking(model, test, n) for n in (20, 100)]
    for name in ("recall", "ndcg"):
        print(f"{name:<26}{''.join(f'{figure[name]:>8.4f}' for figure in figures)}")


def _print_errors(model: mf.Factors, train: mf.Ratings, test: mf.Ratings | None) -> None:
    """Print the errors of the factors beside those of the mean."""
    print(f"{'RMSE':<22}{'train':>10}{'test' if test else '':>10}")
    parts = [targets(part, model.settings) for part in (train, test) if part is not None]
    mean = parts[0].mean
    for name, figures in (
        ("predicting the mean", [math.hypot(part.std, part.mean - mean) for part in parts]),
        (
            f"{model.k} factors{' and biases' if model.settings.biases else ''}",
            [model.rmse(part) for part in parts],
        ),
    ):
        print(f"{name:<22}{''.join(f'{rmse:>10.4f}' for rmse in figures)}")


def _select_rank(options: argparse.Namespace) -> None:
    """Print the errors of each rank, and which to take."""
    settings = _fit_settings(options)
    settings["dtype"] = settings["dtype"] or "float32"
    found = mf.select_rank(_read(options, options.file), options.k, options.folds, **settings)
    print(f"{'k':>6}{'train':>10}{'test':>10}{'±':>9}{'seconds':>9}")
    columns = (found.train_rmse.mean(axis=1), found.mean, found.standard_error, found.seconds.sum(axis=1))
    for k, train, test, error, seconds in zip(found.ks, *columns, strict=True):
        print(f"{k:>6}{train:>10.4f}{test:>10.4f}{error:>9.4f}{seconds:>9.2f}")
    print(f"k = {found.k}, the smallest within a standard error of the best, k = {found.best['k']}")


def _recommend(options: argparse.Namespace) -> None:
    """Print a line for each user and item."""
    model = mf.load(options.model)
    if bool(options.users) == (options.ratings is not None):
        raise ValueError("pass users, or new users' ratings with --ratings, one of both")
    n = _checks.integer("-n", options.n, 1)
    if options.ratings is not None:
        strangers = _read(options, options.ratings)
        names: Sequence[Any] = range(strangers.n_users)
        if strangers.user_ids is not None:
            names = strangers.user_ids.tolist()
        found = model.recommend(strangers, n, exclude_seen=not options.include_seen)
    else:
        names = options.users
        rows = _numbers("user", model.user_ids, model.user_rows, names)
        found = model.recommend(rows, n, exclude_seen=not options.include_seen)
    _print_found("item", names, found, model.item_ids, "score")


def _similar(options: argparse.Namespace) -> None:
    """Print a line for each neighbour."""
    model, n = mf.load(options.model), _checks.integer("-n", options.n, 1)
    if options.users:
        rows = _numbers("user", model.user_ids, model.user_rows, options.items)
        _print_found("user", options.items, model.similar_users(rows, n), model.user_ids, "cosine")
    else:
        columns = _numbers("item", model.item_ids, model.item_columns, options.items)
        _print_found("item", options.items, model.similar_items(columns, n), model.item_ids, "cosine")


def _explain(options: argparse.Namespace) -> None:
    """Print the parts of a prediction."""
    model, n = mf.load(options.model), _checks.integer("-n", options.n, 1)
    user = _numbers("user", model.user_ids, model.user_rows, [options.user])[0]
    item = _numbers("item", model.item_ids, model.item_columns, [options.item])[0]
    parts = model.explain(user, item, n)
    print(f"{parts.score:>9.4f}  the prediction")
    for name, part in (
        ("mean", parts.mean),
        ("user's bias", parts.user_bias),
        ("item's bias", parts.item_bias),
    ):
        print(f"{part:>9.4f}  {name}")
    for column, part in zip(parts.items, parts.contributions, strict=True):
        print(f"{part:>9.4f}  rating of {_name(model.item_ids, column)}")
    print(f"{parts.rest:>9.4f}  other ratings and the rest")


def _update(options: argparse.Namespace) -> None:
    """Learn new ratings and save the model again."""
    target = options.output or options.model
    _check_output(target)
    model = mf.load(options.model)
    new, before = _read(options, options.file), model.shape
    model.partial_fit(new).save(target)
    users, items = (after - old for after, old in zip(model.shape, before, strict=True))
    print(f"{new.nnz:,} ratings, {users:,} new users and {items:,} new items")
    print(f"saved {target}")


def _numbers(kind: str, ids: Any, translate: Any, wanted: Sequence[str]) -> Any:
    """Return row or column numbers of ids as they stand on the command line."""
    try:
        if ids is None:
            return [int(x) for x in wanted]
        return translate(np.array(wanted, ids.dtype if ids.dtype.kind in "iu" else None))
    except (KeyError, OverflowError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) else f"{kind}s must be integers: {error}"
        raise ValueError(message) from None


def _name(ids: Any, number: int) -> Any:
    return number if ids is None else ids[number]


def _print_found(kind: str, names: Sequence[Any], found: mf.Recommendations, ids: Any, score: str) -> None:
    width = max(6, *(len(str(name)) for name in names)) + 2
    print(f"{'for':<{width}}{score:>8}  {kind}")
    for name, numbers, scores in zip(names, found.items, found.scores, strict=True):
        for number, value in zip(numbers, scores, strict=True):
            if number >= 0:
                print(f"{name!s:<{width}}{value:>8.4f}  {_name(ids, number)}")


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
    if k == 2 and options.seed is None and options.method == "sgd":
        settings |= {"init": (P0, Q0), "shuffle": False}
        settings |= {name: value for name, value in EXAMPLE.items() if settings[name] is None}
    model = mf.factorize(R, k, **(settings | {"dtype": settings["dtype"] or "float64"}))
    with np.printoptions(precision=8, suppress=True):
        print(f"Original matrix (0 is unknown):\n{R}")
        print(f"\nReconstructed matrix, P·Q with k = {k}:\n{model.reconstruct()}")
    if options.output is not None:
        model.save(options.output)
        print(f"\nsaved {options.output}")
