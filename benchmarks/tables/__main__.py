"""Measure a table, or make the pages: ``python -m benchmarks.tables [NAME] [--store]``.

With a name, the table is measured and printed; ``--store`` keeps its results. Without a name, all tables of
README and the documentation and the pictures are made again from stored results.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks import data, store
from benchmarks.tables import (
    accuracy,
    als,
    history,
    imputation,
    libraries,
    limit,
    pages,
    pictures,
    pipeline,
    rankings,
    speed,
)


class Table(Protocol):
    """A module that measures a table and renders it in Markdown."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the table to those of the command."""

    def measure(self, options: argparse.Namespace) -> dict[str, Any]:
        """Return the rows and the settings to be stored."""

    def render(self, results: store.Results) -> str:
        """Return the table and its caption."""


TABLES: dict[str, Table] = {
    "speed": speed,
    "limit": limit,
    "als": als,
    "accuracy": accuracy,
    "rankings": rankings,
    "libraries": libraries,
    "history": history,
    "imputation": imputation,
    "pipeline": pipeline,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--pictures", type=Path, help=f"folder of the pictures (default: {pages.DOCS})")
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    parsers = {}
    for name, table in TABLES.items():
        description = table.__doc__ or ""
        parsers[name] = commands.add_parser(name, help=description.split("\n")[0], description=description)
        parsers[name].add_argument("--store", action="store_true", help="keep the results, for the pages")
        table.add_options(parsers[name])
    options = parser.parse_args(arguments)
    if options.name is None:
        pages.write()
        pictures.write(options.pictures or pages.DOCS)
        return
    if options.pictures:
        parser.error("--pictures must be given without a NAME")
    try:
        measured = TABLES[options.name].measure(options)
    except data.MissingDataError as error:
        parsers[options.name].error(str(error))
    results = store.with_provenance(command_line(arguments, getattr(options, "data", None)), **measured)
    print(TABLES[options.name].render(results))
    if options.store:
        store.save(options.name, results)


def command_line(arguments: Sequence[str], folder: Path | None) -> str:
    """Return the command as it is stored, without the place of the data."""
    text = shlex.join(["python", "-m", "benchmarks.tables", *arguments])
    return text.replace(shlex.quote(str(folder)), "FOLDER") if folder else text


if __name__ == "__main__":
    main()
