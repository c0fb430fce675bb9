"""Text output of the program."""

import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel.methods.objective import encode_targets

TRACEBACK_VARIABLE = "MFKERNEL_TRACEBACK"  # environment variable: if it is set, errors show a traceback
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
MAX_NAMES = 5  # names in a message
MIN_COLUMN_WIDTH = 8  # characters per column of numbers


def say(message: object) -> None:
    """Write a message to stderr in one line."""
    if sys.stderr is not None:
        print("mfkernel:", " ".join(str(message).splitlines()), file=sys.stderr)


def printable(name: object) -> str:
    """Return an id or a path as one line that the terminal can show, without control codes."""
    text = UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(name))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def id_of_row(ids: Any, number: int) -> str:
    """Return the id of a row, or its number without ids."""
    return printable(number if ids is None else ids[number])


def join_names(names: Sequence[object]) -> str:
    """Join the first names, followed by the number of the others."""
    more = len(names) - MAX_NAMES
    return ", ".join(map(printable, names[:MAX_NAMES])) + (f" and {more:,} more" if more > 0 else "")


def quantity(number: int, noun: str) -> str:
    """Return a number with its noun, such as "2 ratings"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_number(number: float | None) -> str:
    """Format a number with at least four significant digits."""
    if number is None or number == 0:
        return "0" if number == 0 else ""
    return f"{number:.4f}" if 0.1 <= abs(number) < 10 else f"{float(number):#.5g}".removesuffix(".")


def format_share(number: float | None) -> str:
    """Format a number from 0 to 1."""
    return "0.0000" if number == 0 else format_number(number)


def print_table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """Print columns, right-aligned except those in ``left``."""
    widths = [
        max(0 if n in left else MIN_COLUMN_WIDTH, *map(len, column))
        for n, column in enumerate(zip(*rows, strict=True))
    ]
    for row in rows:
        cells = [
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def print_json(answer: Any) -> None:
    """Print an answer as JSON, in one line of ASCII."""
    print(json.dumps(answer, allow_nan=False))


def print_rankings(model: mf.Factors, test: mf.Ratings | None) -> None:
    """Print ranking metrics of held-out items; without a test set, the last objective."""
    if test is None:
        objective = f"{model.history[-1].loss:.6g}"
        print(f"objective {objective} after {len(model.history)} epochs; --test measures rankings")
        return
    figures = [mf.metrics.ranking(model, test, n) for n in (20, 100)]
    rows = [[name, *(format_share(metrics[name]) for metrics in figures)] for name in ("recall", "ndcg")]
    print_table([[f"{model.k} factors, of the best", "20", "100"], *rows])


def print_errors(model: mf.Factors, train: mf.Ratings, test: mf.Ratings | None) -> None:
    """Print the errors of the factors and those of predicting the mean."""
    ratings = [part for part in (train, test) if part is not None]
    parts = [encode_targets(part, model.settings) for part in ratings]
    mean = parts[0].mean
    of_mean = [math.hypot(part.std, part.mean - mean) for part in parts]
    name = f"{model.k} factors{' and biases' if model.settings.biases else ''}"
    print_table(
        [
            ["RMSE", *("train", "test")[: len(parts)]],
            ["predicting the mean", *map(format_number, of_mean)],
            [name, *(format_number(model.rmse(part)) for part in ratings)],
        ]
    )


def print_recommendations(kind: str, names: Sequence[str], found: mf.Recommendations, score: str) -> None:
    """Print one row per item or user found; missing ones are masked."""
    rows = [["for", score, kind]]
    for name, items, scores in zip(names, found.items, found.scores, strict=True):
        left = ~np.ma.getmaskarray(items)
        for item, value in zip(np.ma.getdata(items)[left], np.ma.getdata(scores)[left], strict=True):
            rows.append([name, format_number(value), printable(item)])
        if not left.any():
            say(f"no {kind} is left for {name}")
    print_table(rows, left=(0, 2))
