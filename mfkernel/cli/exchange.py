"""The commands that show a model, or write a model or ratings in another form."""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mfkernel as mf
from mfkernel.cli.inputs import read_file
from mfkernel.cli.output import format_number, print_json, print_table, printable
from mfkernel.model.libmf import read_libmf, write_libmf

SIDES = ("users", "items")
RATINGS_FORMATS = (".csv", ".tsv", ".txt", ".npz", ".parquet")
LINES_PER_WRITE = 2**16


def info(options: argparse.Namespace) -> None:
    """Print the sizes, the settings and the errors of a model."""
    model = mf.load(options.model)
    last = model.history[-1] if model.history else None
    facts: dict[str, Any] = {
        "users": model.shape[0],
        "items": model.shape[1],
        "k": model.k,
        "dtype": str(model.P.dtype),
        "user_ids": None if model.user_ids is None else model.user_ids.dtype.name,
        "item_ids": None if model.item_ids is None else model.item_ids.dtype.name,
        "ratings": None if model.ratings is None else model.ratings.nnz,
        "mean": model.mean,
        "method": model.settings.method,
        **model.settings.values(),
        "epochs run": len(model.history),
        "stop_reason": model.stop_reason,
        "rmse": None if last is None else last.rmse,
        "validation_rmse": None if last is None else last.validation_rmse,
        "validation_ndcg": None if last is None else last.validation_ndcg,
    }
    if options.json:
        print_json({name.replace(" ", "_"): value for name, value in facts.items()})
        return
    shown = ((name, fact) for name, fact in facts.items() if fact is not None)
    print_table([[name, format_number(x) if isinstance(x, float) else str(x)] for name, x in shown], (0, 1))


def export(options: argparse.Namespace) -> None:
    """Write factors as a table, or a whole model for LIBMF."""
    model = mf.load(options.model)
    if options.side is None:
        write_libmf(model, options.file)
        print(f"saved {printable(options.file)}")
        return
    users = options.side == "users"
    rows, biases = (model.P, model.user_bias) if users else (model.Q.T, model.item_bias)
    ids = model.user_ids if users else model.item_ids
    with Path(options.file).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ["id", *([] if biases is None else ["bias"]), *(f"f{n}" for n in range(model.k))]
        writer.writerow(names)
        for n, row in enumerate(rows):
            bias = [] if biases is None else [biases[n]]
            writer.writerow([n if ids is None else ids[n], *bias, *row])
    print(f"saved {printable(options.file)}")


def convert(options: argparse.Namespace) -> None:
    """Write ratings in the form that the name of the new file asks for; or a model of LIBMF as ours."""
    target = Path(options.output)
    if options.libmf:
        read_libmf(options.file).save(target)
    else:
        if target.suffix not in RATINGS_FORMATS:
            raise ValueError(f"OUTPUT must end in {', '.join(RATINGS_FORMATS)}, got {options.output}")
        _write_ratings(read_file(options, options.file), target)
    print(f"saved {printable(target)}")


def _write_ratings(R: mf.Ratings, target: Path) -> None:
    """Write ratings with their ids; ``.txt`` and ``.npz`` have row and column numbers."""
    if target.suffix == ".npz":
        from scipy import sparse

        sparse.save_npz(target, R.to_scipy())
    elif target.suffix == ".txt":
        _write_lines(R, target, " ", header=False, ids=False)
    elif target.suffix == ".parquet":
        from mfkernel._support.lazy import import_extra

        pa = import_extra("pyarrow", "files", "a Parquet file")
        parquet = import_extra("pyarrow.parquet", "files", "a Parquet file")
        parquet.write_table(pa.table({name: pa.array(x) for name, x in _columns(R, True).items()}), target)
    else:
        _write_lines(R, target, "\t" if target.suffix == ".tsv" else ",", header=True, ids=True)


def _columns(R: mf.Ratings, ids: bool) -> dict[str, Any]:
    users, items = (
        numbers if known is None or not ids else known[numbers]
        for numbers, known in ((R.users, R.user_ids), (R.items, R.item_ids))
    )
    columns = {"user": users, "item": items, "rating": R.values}
    if R.timestamps is not None and ids:
        columns["timestamp"] = R.timestamps
    return {name: x.tolist() if x.dtype.kind in "UOT" else x for name, x in columns.items()}


def _write_lines(R: mf.Ratings, target: Path, separator: str, *, header: bool, ids: bool) -> None:
    columns = _columns(R, ids)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        if header:
            writer.writerow(columns)
        for start in range(0, R.nnz, LINES_PER_WRITE):
            parts = [_plain(column[start : start + LINES_PER_WRITE]) for column in columns.values()]
            writer.writerows(zip(*parts, strict=True))


def _plain(column: Any) -> Iterator[Any]:
    """Return Python's values, and whole numbers without a decimal point."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    return (int(x) if isinstance(x, float) and x.is_integer() else x for x in values)
