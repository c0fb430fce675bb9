"""The program ``mfkernel``."""

import argparse
import contextlib
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel._support import checks
from mfkernel.data.convert import DUPLICATES
from mfkernel.methods import METHODS
from mfkernel.methods.objective import targets
from mfkernel.model import archive
from mfkernel.options import Choice, Flag, Integer

EXAMPLE = {  # the textbook's settings
    **{"epochs": 5000, "learning_rate": 0.02, "regularization": 0.0},
    **{"schedule": "sequential", "shuffle": False},
}
INTERRUPTED, BROKEN_PIPE = 130, 141  # exit status, as a shell has it of a program that a signal has ended
TRACEBACK = "MFKERNEL_TRACEBACK"  # if this variable is set, errors show where they come from
EXPECTED = (  # errors whose message is enough; of others the name is shown as well
    *(OSError, ValueError, TypeError, ArithmeticError, MemoryError, KeyError, RuntimeError, ImportError),
)
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
MOST_NAMES = 5  # in a message
LEAST_WIDTH = 8  # characters of a column of numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; whatever goes wrong ends it with one line and an exit status, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every id
    try:
        try:
            options = _parser().parse_args(arguments)
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: _say(message)
                options.run(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # who reads has seen enough
        _close_output()
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        _close_output()
        if os.environ.get(TRACEBACK):
            raise
        sys.exit(f"mfkernel: {_message(error)}")


def _message(error: Exception) -> str:
    """Say in one line what went wrong."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.splitlines())
    if isinstance(error, MemoryError):
        return text or "there is not enough memory"
    if text and isinstance(error, EXPECTED):
        return text
    return f"{type(error).__name__}{text and ': '}{text}; {TRACEBACK}=1 shows where"


def _say(message: object) -> None:
    if sys.stderr is not None:
        print("mfkernel:", " ".join(str(message).splitlines()), file=sys.stderr)


def _close_output() -> None:
    """Where output can no longer be written, let Python not try again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfkernel",
        description="Predict ratings by matrix factorization.",
        epilog=f"If the environment variable {TRACEBACK} is set, errors show where they come from.",
    )
    parser.add_argument("--version", action="version", version=f"mfkernel {mf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "factorize",
        help="learn user and item factors from ratings",
        description="Learn user factors P and item factors Q, whose product predicts ratings, from FILE: "
        f"{FORMATS} Without FILE, factorize the textbook's example of 5 users and 3 items.",
    )
    command.set_defaults(run=_factorize)
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("-k", type=int, help="number of factors (default: 32; 2 for the example)")
    command.add_argument("-o", "--output", metavar="MODEL.npz", help="save the model here")
    command.add_argument(
        "--test", type=float, metavar="SHARE", help="hold out this share of the ratings to measure errors"
    )
    command.add_argument(
        "--validation",
        type=float,
        metavar="SHARE",
        help="hold out this share of the training ratings, and keep the epoch that predicts it best",
    )
    command.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop after N epochs that predict the validation ratings no better (default: 5)",
    )
    command.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="start no epoch after this many seconds"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    _add_fit_options(command, tuple(METHODS), "float32; float64 for the example")
    _add_file_options(command)

    command = commands.add_parser(
        "select-rank",
        help="find the number of factors that predicts held-out ratings best",
        description="Fit several numbers of factors k, each on several folds of the ratings in FILE, and "
        f"compare their errors. FILE: {FORMATS}",
    )
    command.set_defaults(run=_select_rank)
    command.add_argument("file", type=Path, metavar="FILE", help="the ratings")
    command.add_argument(
        "-k",
        type=int,
        nargs="+",
        default=[4, 8, 16, 32, 64, 128],
        help="numbers of factors to try (default: 4 8 16 32 64 128)",
    )
    command.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    # implicit feedback is judged by rankings, not by the errors that are compared here
    _add_fit_options(command, [name for name, method in METHODS.items() if not method.options.implicit])
    _add_file_options(command)

    command = commands.add_parser("recommend", help="list the items with the highest predictions for a user")
    command.set_defaults(run=_recommend)
    _add_model(command)
    command.add_argument(
        "users", nargs="*", metavar="USER", help="user ids; row numbers if the model has no ids"
    )
    command.add_argument(
        "--ratings", type=Path, metavar="FILE", help="recommend to new users, who rated what FILE says"
    )
    command.add_argument("-n", type=int, default=10, help="number of items (default: 10)")
    command.add_argument(
        "--include-seen", action="store_true", help="also list items that the user has rated"
    )
    _add_file_options(command)

    command = commands.add_parser("similar", help="list the items, or users, that are most similar to one")
    command.set_defaults(run=_similar)
    _add_model(command)
    command.add_argument(
        "ids", nargs="+", metavar="ID", help="item ids; column numbers if the model has no ids"
    )
    command.add_argument("-n", type=int, default=10, help="number of similar items (default: 10)")
    command.add_argument("--users", action="store_true", help="ID is a user; list similar users")

    command = commands.add_parser("explain", help="show which ratings a prediction comes from")
    command.set_defaults(run=_explain)
    _add_model(command)
    command.add_argument("user", metavar="USER", help="user id; row number if the model has no ids")
    command.add_argument("item", metavar="ITEM", help="item id; column number if the model has no ids")
    command.add_argument("-n", type=int, default=10, help="number of the user's ratings (default: 10)")

    command = commands.add_parser("update", help="learn new ratings, also of new users and items")
    command.set_defaults(run=_update)
    _add_model(command)
    command.add_argument("file", type=Path, metavar="FILE", help="the new ratings")
    command.add_argument("-o", "--output", metavar="MODEL.npz", help="save here (default: replace the model)")
    _add_file_options(command)
    return parser


FORMATS = (
    "MovieLens u.data, ratings.dat or ratings.csv, text with a user, an item and a rating per line, "
    "MatrixMarket, or scipy npz; gzipped or not."
)
FILE_OPTIONS = ("columns", "duplicates", "encoding")


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL.npz", help="a model that factorize -o saved")


def _add_fit_options(
    command: argparse.ArgumentParser, methods: Sequence[str], dtype: str = "float32"
) -> None:
    """Add a flag for each option of the methods, made from its field; and those that all fits share."""
    add = command.add_argument
    add("--method", choices=methods, default="sgd", help="training method (default: sgd)")
    declared: dict[str, list[tuple[str, Field[Any]]]] = {}
    for method in methods:
        for field in fields(METHODS[method].options):  # type: ignore[arg-type]
            declared.setdefault(field.name, []).append((method, field))
    for name, found in declared.items():
        names, field = [method for method, _ in found], found[0][1]
        whose = "" if len(names) == len(methods) else f"{', '.join(names)}: "
        brief = re.split(r"[:.] |[:.]$", field.metadata["text"])[0]
        defaults = {x.metadata["otherwise"] or str(x.default) for _, x in found}
        default = defaults.pop() if len(defaults) == 1 else "chosen by the method"
        text = f"{whose}{brief[:1].lower()}{brief[1:]} (default: {default})".replace("%", "%%")
        flag, form = _flag(name, field)
        add(flag, dest=name, default=None, help=text, **form)
    add("--threads", type=int, metavar="N", help="number of threads (default: from the data size)")
    add("--dtype", choices=("float32", "float64"), help=f"of the factors (default: {dtype})")
    add("--seed", type=int, help="the same seed gives the same result, except with schedule hogwild")


def _flag(name: str, field: "Field[Any]") -> tuple[str, dict[str, Any]]:
    """Return the flag of an option, and how its value is read."""
    kind, flag = field.metadata["kind"], name.replace("_", "-")
    if isinstance(kind, Flag):
        return (
            (f"--no-{flag}", {"action": "store_false"})
            if field.default
            else (
                f"--{flag}",
                {"action": "store_true"},
            )
        )
    if isinstance(kind, Choice):
        return f"--{flag}", {"choices": kind.names}
    return f"--{flag}", {"type": int if isinstance(kind, Integer) else float, "metavar": "NUMBER"}


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        help="what to make of several ratings of one item by one user (default: raise, an error)",
    )
    command.add_argument(
        "--columns",
        nargs=3,
        metavar=("USER", "ITEM", "RATING"),
        help="names in FILE's header, or positions from 0",
    )
    command.add_argument("--encoding", help="of a text FILE, such as latin-1 or utf-16 (default: utf-8)")


def _read(options: argparse.Namespace, path: Path) -> mf.Ratings:
    columns = options.columns and [int(c) if c.isdecimal() else _readings(c)[0] for c in options.columns]
    encoding = {} if options.encoding is None else {"encoding": options.encoding}
    return mf.read_ratings(path, columns=columns, duplicates=options.duplicates or "raise", **encoding)


def _check_file_options(options: argparse.Namespace, remedy: str) -> None:
    """Refuse options of a file where there is none, rather than leave them unheeded."""
    for name in FILE_OPTIONS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} needs {remedy}")


def _fit_settings(options: argparse.Namespace) -> dict[str, Any]:
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


def _check_output(path: str | None) -> None:
    """Refuse a place where the model could not be saved, before the work that would be lost."""
    if path is None:
        return
    folder = Path(path).parent
    if Path(path).is_dir() or not folder.is_dir():
        raise ValueError(f"{path} must name a file in a folder that exists, here {folder}")
    archive.check(path)


# commands


def _factorize(options: argparse.Namespace) -> None:
    """Read, factorize, report and save."""
    _check_output(options.output)
    if options.k is not None:
        checks.integer("-k", options.k, 1)
    if options.test is not None and not 0 < options.test < 1:
        raise ValueError(f"--test must be between 0 and 1, got {options.test}")
    if options.patience is not None and options.validation is None:
        raise ValueError("--patience needs --validation SHARE")
    settings = _fit_settings(options) | {
        "validation": options.validation,
        "patience": options.patience,
        "time_limit": options.time_limit,
    }
    if options.file is None:
        _example(options, settings)
        return
    settings["dtype"] = settings["dtype"] or "float32"
    ratings = _read(options, options.file)
    print(
        f"{_shown(options.file)}: {ratings.n_users:,} users, {ratings.n_items:,} items, "
        f"{ratings.nnz:,} ratings"
    )
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
        if model.settings.implicit:
            figure = f"NDCG {_share(best.validation_ndcg)}"
        else:
            figure = _figure(best.validation_rmse)
        print(f"stopped: {model.stop_reason}; best epoch {best.epoch}, validation {figure}")
    if model.settings.implicit:
        _print_rankings(model, test)
    else:
        _print_errors(model, train, test)
    if options.output is not None:
        print(f"saved {_shown(options.output)}")


def _example(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Factorize the textbook's example, by its own settings where none are given."""
    if options.test is not None:
        raise ValueError("--test needs a FILE: the example has 7 ratings")
    _check_file_options(options, "a FILE")
    R, P0, Q0 = mf.datasets.textbook()
    k = 2 if options.k is None else options.k
    if k == 2 and options.seed is None and "learning_rate" in METHODS[options.method].options.names():
        settings = EXAMPLE | {"init": (P0, Q0)} | settings
    model = mf.factorize(R, k, **(settings | {"dtype": settings["dtype"] or "float64"}))
    with np.printoptions(precision=8, suppress=True):
        print(f"Original matrix (0 is unknown):\n{R}")
        print(f"\nReconstructed matrix, the product of P and Q with k = {k}:\n{model.reconstruct()}")
    if options.output is not None:
        model.save(options.output)
        print(f"\nsaved {_shown(options.output)}")


def _select_rank(options: argparse.Namespace) -> None:
    """Print the errors of each rank, and which to take."""
    settings = _fit_settings(options)
    settings["dtype"] = settings["dtype"] or "float32"
    found = mf.select_rank(_read(options, options.file), options.k, options.folds, **settings)
    columns = (found.train_rmse.mean(axis=1), found.mean, found.standard_error)
    seconds = [f"{x:.2f}" for x in found.seconds.sum(axis=1)]
    figures = zip(*(map(_figure, column) for column in columns), seconds, strict=True)
    rows = [[str(k), *row] for k, row in zip(found.ks, figures, strict=True)]
    _print_table([["k", "train", "test", "std error", "seconds"], *rows], left=())
    print(f"k = {found.k}, the smallest within a standard error of the best, k = {found.best['k']}")


def _recommend(options: argparse.Namespace) -> None:
    """Print a line for each user and item."""
    if bool(options.users) == (options.ratings is not None):
        raise ValueError("pass users, or new users' ratings with --ratings, one of both")
    n = checks.integer("-n", options.n, 1)
    if options.ratings is not None:
        model = mf.load(options.model)
        asked: Any = _of_known_items(model, _read(options, options.ratings), options.ratings)
        names = [_name(asked.user_ids, row) for row in range(asked.n_users)]
    else:
        _check_file_options(options, "--ratings FILE")
        model = mf.load(options.model)
        asked = _rows("user", model.user_ids, model.user_rows, options.users)
        names = [_name(model.user_ids, row) for row in asked]
    found = model.recommend(asked, n, exclude_seen=not options.include_seen)
    _print_found("item", names, found, model.item_ids, "score")


def _similar(options: argparse.Namespace) -> None:
    """Print a line for each neighbour."""
    n = checks.integer("-n", options.n, 1)
    model = mf.load(options.model)
    search: Any = model.similar_users if options.users else model.similar_items
    kind, ids, translate = (
        ("user", model.user_ids, model.user_rows)
        if options.users
        else ("item", model.item_ids, model.item_columns)
    )
    rows = _rows(kind, ids, translate, options.ids)
    _print_found(kind, [_name(ids, row) for row in rows], search(rows, n), ids, "cosine")


def _explain(options: argparse.Namespace) -> None:
    """Print the parts of a prediction."""
    n = checks.integer("-n", options.n, 1)
    model = mf.load(options.model)
    (user,) = _rows("user", model.user_ids, model.user_rows, [options.user])
    (item,) = _rows("item", model.item_ids, model.item_columns, [options.item])
    parts = model.explain(user, item, n)
    scale = " (as log-odds)" if model.settings.loss == "logistic" else ""
    rows = [
        (parts.score, f"the prediction{scale}"),
        (parts.mean, "mean"),
        (parts.user_bias, "user's bias"),
        (parts.item_bias, "item's bias"),
        *(
            (part, f"rating of {_name(model.item_ids, column)}")
            for column, part in zip(parts.items, parts.contributions, strict=True)
        ),
        (parts.rest, "other ratings and the rest"),
    ]
    _print_table([[_figure(part), name] for part, name in rows], left=(1,))


def _update(options: argparse.Namespace) -> None:
    """Learn new ratings and save the model again."""
    target = str(options.model) if options.output is None else options.output
    _check_output(target)
    model = mf.load(options.model)
    new, before = _read(options, options.file), model.shape
    ids: dict[str, Any] = {}
    for kind in ("user", "item"):
        theirs, own = getattr(new, f"{kind}_ids"), getattr(model, f"{kind}_ids")
        _check_either_has_ids(kind, theirs, own, options.file)
        if theirs is not None and own is not None:
            ids[f"{kind}_ids"] = names = _alike(theirs, own)
            words = [x for x in names if isinstance(x, str)]
            if words and own.dtype.kind in "iu":
                raise ValueError(
                    f"{options.file}: {kind} ids must be integers as in the model, got {words[0]!r}"
                )
    model.partial_fit(mf.Ratings(new, **ids)).save(target)
    users, items = (after - old for after, old in zip(model.shape, before, strict=True))
    print(f"{new.nnz:,} ratings, {users:,} new users and {items:,} new items")
    print(f"saved {_shown(target)}")


# ids


def _readings(text: str) -> list[str]:
    """Return what an argument may say: as the locale reads it, or its bytes as UTF-8 or Latin-1.

    What the locale cannot read comes last.
    """
    readings = [text]
    if not text.isascii():
        with contextlib.suppress(UnicodeError):
            content = os.fsencode(text)
            unread = any("\ud800" <= x <= "\udfff" for x in text)
            for encoding in ("utf-8", "latin-1") if unread else ("utf-8",):
                with contextlib.suppress(UnicodeError):
                    readings.insert(len(readings) - unread, content.decode(encoding))
    return readings


def _rows(kind: str, ids: Any, translate: Any, wanted: Sequence[str]) -> list[int]:
    """Return row or column numbers of ids as they are written on the command line."""
    rows, unknown = [], []
    for text in wanted:
        if ids is None and not INTEGER.fullmatch(text):
            raise ValueError(f"this model has no {kind} ids, so that {kind}s must be integers, got {text!r}")
        if ids is None:
            rows.append(int(text))
        elif (row := _row(kind, ids, translate, text)) is None:
            unknown.append(text)
        else:
            rows.append(row)
    if unknown:
        names = _listed(list(map(repr, unknown)))
        raise ValueError(
            f"{kind} id{'s' if len(unknown) > 1 else ''} {names} {'are' if len(unknown) > 1 else 'is'} "
            "not in the model"
        )
    return rows


def _row(kind: str, ids: Any, translate: Any, text: str) -> int | None:
    """Return the row or column number of an id; None if the model has no such id."""
    integers = ids.dtype.kind in "iu"
    if integers and not INTEGER.fullmatch(text):
        raise ValueError(f"{kind} ids of this model are integers, got {text!r}")
    for reading in [text] if integers else _readings(text):
        with contextlib.suppress(KeyError, OverflowError):
            wanted = np.array([int(text)], ids.dtype) if integers else [reading]
            return int(translate(wanted)[0])
    return None


def _alike(ids: Any, model_ids: Any) -> list[Any]:
    """Return ids of a file as the model would have them: it may be the only one with ids that are words."""
    names: list[Any] = ids.tolist()
    if model_ids.dtype.kind not in "iu":
        return list(map(str, names))
    return [int(x) if INTEGER.fullmatch(str(x)) else x for x in names]


def _check_either_has_ids(kind: str, theirs: Any, own: Any, path: Path) -> None:
    """Refuse a file with ids for a model without, and the other way round."""
    if theirs is not None and own is None:
        raise ValueError(
            f"{path} must be MatrixMarket or scipy npz, whose rows and columns keep their numbers, got text, "
            f"whose {kind}s are ids; this model has no {kind} ids"
        )
    if theirs is None and own is not None:
        raise ValueError(
            f"{path} must be text with the {kind} ids of the model, got a matrix, whose {kind}s are numbers; "
            f"this model has {kind} ids"
        )


def _of_known_items(model: mf.Factors, ratings: mf.Ratings, path: Path) -> mf.Ratings:
    """Leave out ratings of items that the model does not know, and say so."""
    _check_either_has_ids("item", ratings.item_ids, model.item_ids, path)
    if ratings.item_ids is None or model.item_ids is None:
        return ratings
    ids, vocabulary = _alike(ratings.item_ids, model.item_ids), set(model.item_ids.tolist())
    known = np.array([x in vocabulary for x in ids], np.bool_)
    unknown = _listed([x for x in ids if x not in vocabulary])
    if not known.any():
        raise ValueError(f"{path}: none of its items is in the model: {unknown}")
    kept = known[ratings.items]
    has_any = np.bincount(ratings.users[kept], minlength=ratings.n_users) > 0
    if not known.all():
        _say(
            f"left out {_count(ratings.nnz - int(kept.sum()), 'rating')} of "
            f"{_count(int((~known).sum()), 'item')} that the model does not know: {unknown}"
        )
    names = np.arange(ratings.n_users) if ratings.user_ids is None else ratings.user_ids
    if not has_any.all():
        without = names[~has_any].tolist()
        _say(f"left out {_count(len(without), 'user')} who rated no other items: {_listed(without)}")
    rows, columns = np.cumsum(has_any) - 1, np.cumsum(known) - 1
    return mf.Ratings(
        (
            rows[ratings.users[kept]],
            columns[ratings.items[kept]],
            ratings.values[kept],
            (int(has_any.sum()), int(known.sum())),
        ),
        dtype=ratings.dtype,
        user_ids=names[has_any],
        item_ids=[x for x in ids if x in vocabulary],
    )


# output


def _shown(name: object) -> str:
    """Return an id or a path as one line of characters that the terminal can show, and would not obey."""
    text = UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(name))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _name(ids: Any, number: int) -> str:
    return _shown(number if ids is None else ids[number])


def _listed(names: Sequence[object]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(map(_shown, names[:MOST_NAMES])) + (f" and {more:,} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _figure(number: float | None) -> str:
    """Return a number of any size with at least four significant digits."""
    if number is None or number == 0:
        return "0" if number == 0 else ""
    return f"{number:.4f}" if 0.1 <= abs(number) < 10 else f"{float(number):#.5g}".removesuffix(".")


def _share(number: float | None) -> str:
    """Return a number from 0 to 1."""
    return "0.0000" if number == 0 else _figure(number)


def _print_table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """Print columns, aligned on the right but for those in ``left``, that never run into each other."""
    widths = [
        max(0 if n in left else LEAST_WIDTH, *map(len, column))
        for n, column in enumerate(zip(*rows, strict=True))
    ]
    for row in rows:
        cells = [
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _print_rankings(model: mf.Factors, test: mf.Ratings | None) -> None:
    """Print how well held-out items are ranked, or without such how far the objective fell."""
    if test is None:
        print(f"objective {model.history[-1].loss:.6g} after {len(model.history)} epochs; --test ranks")
        return
    figures = [mf.metrics.ranking(model, test, n) for n in (20, 100)]
    rows = [[name, *(_share(figure[name]) for figure in figures)] for name in ("recall", "ndcg")]
    _print_table([[f"{model.k} factors, of the best", "20", "100"], *rows])


def _print_errors(model: mf.Factors, train: mf.Ratings, test: mf.Ratings | None) -> None:
    """Print the errors of the factors beside those of the mean."""
    ratings = [part for part in (train, test) if part is not None]
    parts = [targets(part, model.settings) for part in ratings]
    mean = parts[0].mean
    of_mean = [math.hypot(part.std, part.mean - mean) for part in parts]
    name = f"{model.k} factors{' and biases' if model.settings.biases else ''}"
    _print_table(
        [
            ["RMSE", *("train", "test")[: len(parts)]],
            ["predicting the mean", *map(_figure, of_mean)],
            [name, *(_figure(model.rmse(part)) for part in ratings)],
        ]
    )


def _print_found(kind: str, names: Sequence[str], found: mf.Recommendations, ids: Any, score: str) -> None:
    """Print a row for each that was found; where nothing is left, numbers are masked, or -1."""
    rows = [["for", score, kind]]
    for name, items, scores in zip(names, found.items, found.scores, strict=True):
        left = ~np.ma.getmaskarray(items) & (np.ma.getdata(items) >= 0)
        for number, value in zip(np.ma.getdata(items)[left], np.ma.getdata(scores)[left], strict=True):
            rows.append([name, _figure(value), _name(ids, number)])
        if not left.any():
            _say(f"there is no {kind} left for {name}")
    _print_table(rows, left=(0, 2))
