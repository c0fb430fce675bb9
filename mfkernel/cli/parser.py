"""The command-line options; those of methods are made from the options' fields."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import mfkernel as mf
from mfkernel.cli.ask import evaluate, explain, predict, recommend, similar, update
from mfkernel.cli.completion import SHELLS, completion
from mfkernel.cli.exchange import RATINGS_FORMATS, SIDES, convert, export, info
from mfkernel.cli.fit import factorize, select_rank
from mfkernel.cli.inputs import share_or_file
from mfkernel.cli.machine import doctor, warm_up
from mfkernel.cli.output import TRACEBACK_VARIABLE
from mfkernel.data.convert import DUPLICATES
from mfkernel.methods import METHODS
from mfkernel.options import Choice, Flag, Integer
from mfkernel.typing import Nulls

FILE_FORMATS = (
    "MovieLens u.data, ratings.dat or ratings.csv, text with a user, an item and a rating per line, "
    "JSON Lines, Parquet, MatrixMarket, or scipy npz; packed or not; - is standard input."
)


Commands = Any  # type of add_subparsers' result, which is not public


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mfkernel",
        description="Predict ratings by matrix factorization.",
        epilog=f"If the environment variable {TRACEBACK_VARIABLE} is set, errors show a traceback.",
    )
    parser.add_argument("--version", action="version", version=f"mfkernel {mf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_factorize, _add_select_rank, _add_recommend, _add_predict, _add_similar, _add_explain):
        add(commands)
    for add in (_add_evaluate, _add_update, _add_info, _add_export, _add_convert, _add_doctor, _add_warm_up):
        add(commands)
    _add_completion(commands)
    return parser


def _add_factorize(commands: Commands) -> None:
    command = commands.add_parser(
        "factorize",
        help="learn user and item factors from ratings",
        description="Learn user factors P and item factors Q, whose product predicts ratings, from FILE: "
        f"{FILE_FORMATS} Without FILE, factorize the textbook's example of 5 users and 3 items.",
    )
    command.set_defaults(run=factorize)
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("-k", type=int, help="number of factors (default: 32; 2 for the example)")
    command.add_argument("-o", "--output", metavar="MODEL.npz", help="save the model here")
    command.add_argument(
        "--test",
        type=share_or_file,
        metavar="SHARE",
        help="hold out this share of the ratings to measure errors; or a FILE with test ratings",
    )
    command.add_argument(
        "--latest", action="store_true", help="let the test have the latest ratings; needs --timestamp"
    )
    command.add_argument(
        "--half-life",
        type=float,
        metavar="SECONDS",
        help="time in which the weight of a rating halves; needs --timestamp",
    )
    command.add_argument(
        "--validation",
        type=share_or_file,
        metavar="SHARE",
        help="hold out this share of the training ratings, and keep the epoch that predicts it best; or FILE",
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
    command.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="write the state of training here, every 10 seconds or less often",
    )
    command.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint, if that file exists"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    _add_fit_options(command, tuple(METHODS), "float32; float64 for the example")
    _add_file_options(command)


def _add_select_rank(commands: Commands) -> None:
    command = commands.add_parser(
        "select-rank",
        help="find the number of factors that predicts held-out ratings best",
        description="Fit several numbers of factors k, each on several folds of the ratings in FILE, and "
        f"compare their errors. FILE: {FILE_FORMATS}",
    )
    command.set_defaults(run=select_rank)
    command.add_argument("file", type=Path, metavar="FILE", help="the ratings")
    command.add_argument(
        "-k",
        type=int,
        nargs="+",
        default=[4, 8, 16, 32, 64, 128],
        help="numbers of factors to try (default: 4 8 16 32 64 128)",
    )
    command.add_argument("--folds", type=int, metavar="N", help="number of folds (default: 5)")
    command.add_argument(
        "--test", type=Path, metavar="FILE", help="test on the ratings in FILE, without folds"
    )
    _add_fit_options(command, tuple(METHODS))
    _add_file_options(command)


def _add_recommend(commands: Commands) -> None:
    command = commands.add_parser("recommend", help="list the items with the highest predictions for a user")
    command.set_defaults(run=recommend)
    _add_model(command)
    command.add_argument(
        "users", nargs="*", metavar="USER", help="user ids; row numbers if the model has no ids"
    )
    command.add_argument(
        "--ratings", type=Path, metavar="FILE", help="recommend to new users, whose ratings are in FILE"
    )
    command.add_argument("-n", type=int, default=10, help="number of items (default: 10)")
    command.add_argument(
        "--items", type=Path, metavar="FILE", help="recommend only these items; FILE has one id per line"
    )
    command.add_argument(
        "--include-seen", action="store_true", help="also list items that the user has rated"
    )
    command.add_argument(
        "--explore",
        metavar="C",
        help="of a Bayesian model, rank by mean + C · standard deviation, or by a random sample: thompson",
    )
    command.add_argument("--seed", type=int, metavar="N", help="seed of the random samples")
    _add_json(command)
    _add_file_options(command)


def _add_similar(commands: Commands) -> None:
    command = commands.add_parser("similar", help="list the items, or users, that are most similar to one")
    command.set_defaults(run=similar)
    _add_model(command)
    command.add_argument(
        "ids", nargs="+", metavar="ID", help="item ids; column numbers if the model has no ids"
    )
    command.add_argument("-n", type=int, default=10, help="number of similar items (default: 10)")
    command.add_argument("--users", action="store_true", help="ID is a user; list similar users")
    _add_json(command)


def _add_explain(commands: Commands) -> None:
    command = commands.add_parser("explain", help="show which ratings a prediction comes from")
    command.set_defaults(run=explain)
    _add_model(command)
    command.add_argument("user", metavar="USER", help="user id; row number if the model has no ids")
    command.add_argument("item", metavar="ITEM", help="item id; column number if the model has no ids")
    command.add_argument("-n", type=int, default=10, help="number of the user's ratings (default: 10)")


def _add_update(commands: Commands) -> None:
    command = commands.add_parser("update", help="learn new ratings, also of new users and items")
    command.set_defaults(run=update)
    _add_model(command)
    command.add_argument("file", type=Path, metavar="FILE", help="the new ratings")
    command.add_argument("-o", "--output", metavar="MODEL.npz", help="save here (default: replace the model)")
    _add_file_options(command)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="predict a user's ratings of items")
    command.set_defaults(run=predict)
    _add_model(command)
    command.add_argument("user", metavar="USER", help="user id; row number if the model has no ids")
    command.add_argument(
        "items", nargs="+", metavar="ITEM", help="item ids; column numbers if the model has no ids"
    )
    command.add_argument(
        "--interval",
        type=float,
        metavar="P",
        help="of a Bayesian model, also print standard deviations and bounds of probability P",
    )
    _add_json(command)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure a model on held-out ratings")
    command.set_defaults(run=evaluate)
    _add_model(command)
    command.add_argument("file", type=Path, metavar="FILE", help="the held-out ratings")
    _add_file_options(command)


def _add_info(commands: Commands) -> None:
    command = commands.add_parser("info", help="show the size, settings and errors of a model")
    command.set_defaults(run=info)
    _add_model(command)
    _add_json(command)


def _add_export(commands: Commands) -> None:
    command = commands.add_parser(
        "export",
        help="write the factors of users or items as csv, or a model for LIBMF",
        description="Write a model as LIBMF's text; with --side ids, biases and factors of one side as csv.",
    )
    command.set_defaults(run=export)
    _add_model(command)
    command.add_argument("file", metavar="OUTPUT", help="file to write")
    command.add_argument("--side", choices=SIDES, help="write this side as csv")


def _add_convert(commands: Commands) -> None:
    command = commands.add_parser(
        "convert",
        help="write ratings as csv, tsv, LIBMF's text, scipy npz or Parquet",
        description=f"Write the ratings in FILE as OUTPUT ends: {', '.join(RATINGS_FORMATS)}. "
        f"FILE: {FILE_FORMATS}",
    )
    command.set_defaults(run=convert)
    command.add_argument("file", type=Path, metavar="FILE", help="the ratings")
    command.add_argument("output", metavar="OUTPUT", help="file to write")
    command.add_argument(
        "--libmf", action="store_true", help="FILE is a model of LIBMF; write it as a model of mfkernel"
    )
    _add_file_options(command)


def _add_completion(commands: Commands) -> None:
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description='For bash: eval "$(mfkernel completion bash)".',
    )
    command.set_defaults(run=completion, commands=commands.choices)
    command.add_argument("shell", choices=SHELLS, help="the shell")


def _add_doctor(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="show versions, cores, the cache and the speed of a fit")
    command.set_defaults(run=doctor)


def _add_warm_up(commands: Commands) -> None:
    command = commands.add_parser("warm-up", help="compile all kernels, such as while an image is built")
    command.set_defaults(run=warm_up)
    command.add_argument(
        "methods",
        nargs="*",
        metavar="METHOD",
        help=f"methods to compile (default: {' '.join(METHODS)})",
    )
    command.add_argument("-k", type=int, default=32, help="number of factors (default: 32)")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the answer as JSON")


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL.npz", help="a model that factorize -o saved")


def _add_fit_options(
    command: argparse.ArgumentParser, methods: Sequence[str], dtype: str = "float32"
) -> None:
    """Add a flag per option of the methods, and the flags that all fits share."""
    add = command.add_argument
    add("--method", choices=methods, default="sgd", help="training method (default: sgd)")
    declared: dict[str, list[tuple[str, Field[Any]]]] = {}
    for method in methods:
        for field in fields(METHODS[method].options):  # type: ignore[arg-type]
            declared.setdefault(field.name, []).append((method, field))
    for name, found in declared.items():
        names = [method for method, _ in found]
        whose = "" if len(names) == len(methods) else f"{', '.join(names)}: "
        _add_option(command, name, whose, [field for _, field in found])
    add("--threads", type=int, metavar="N", help="number of threads (default: from the data size)")
    add("--dtype", choices=("float32", "float64"), help=f"type of the factors (default: {dtype})")
    add("--seed", type=int, help="seed; the same one gives the same result, except with schedule hogwild")


def _add_option(
    command: argparse.ArgumentParser, name: str, whose: str, declarations: "list[Field[Any]]"
) -> None:
    """Add the flag of an option; its help is the first sentence of its text and the default."""
    field, flag = declarations[0], name.replace("_", "-")
    kind, add = field.metadata["kind"], partial(command.add_argument, dest=name, default=None)
    brief = re.split(r"[:.] |[:.]$", field.metadata["text"])[0].replace("%", "%%")
    text = brief[:1].lower() + brief[1:]
    if isinstance(kind, Flag) and field.default:
        add(f"--no-{flag}", action="store_false", help=f"{whose}do not {text}")
        return
    if isinstance(kind, Flag):
        add(f"--{flag}", action="store_true", help=f"{whose}{text}")
        return
    defaults = {x.metadata["otherwise"] or str(x.default) for x in declarations}
    default = defaults.pop() if len(defaults) == 1 else "chosen by the method"
    text = f"{whose}{text} (default: {default})"
    if isinstance(kind, Choice):
        add(f"--{flag}", choices=kind.names, help=text)
    elif isinstance(kind, Integer):
        add(f"--{flag}", type=int, metavar="N", help=text)
    else:
        add(f"--{flag}", type=float, metavar="NUMBER", help=text)


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        help="how to merge several ratings of one user for one item (default: raise, an error)",
    )
    command.add_argument(
        "--columns",
        nargs=3,
        metavar=("USER", "ITEM", "RATING"),
        help="columns of a text FILE: names in its header, or positions from 0",
    )
    command.add_argument(
        "--timestamp",
        nargs="?",
        const=True,
        default=None,
        metavar="COLUMN",
        help="keep the times in this column; without COLUMN, in that with a usual name",
    )
    command.add_argument(
        "--separator", metavar="MARK", help="mark between the fields of a text (default: found)"
    )
    command.add_argument("--decimal", choices=(".", ","), help="mark before decimals (default: .)")
    command.add_argument(
        "--nulls", choices=get_args(Nulls), help="what to do with missing ratings (default: raise, an error)"
    )
    command.add_argument(
        "--encoding", help="encoding of a text FILE, such as latin-1 or utf-16 (default: utf-8)"
    )
