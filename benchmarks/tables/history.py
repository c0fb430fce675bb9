"""The history: what asv measured on a machine, commit by commit.

asv measures; this command gathers its speed, error and limit, for the picture of the history.
"""

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import repository, store
from benchmarks.suites import catalogue
from benchmarks.tables import markdown

SIZE, K = "ml-1m-like", "32"  # of the cases that are gathered
CONFIGURATIONS = ("sequential", "blocks", "blocks, 2 threads")
SCHEDULES = ("sequential", "blocks")  # whose error is gathered
ASV = repository.ROOT / ".asv" / "results"
QUICK_COMMAND = f"""asv run --quick --bench "{SIZE}', '{K}'" 'HEAD^!'"""
QUICK = f"This command measures the figures of the picture: {QUICK_COMMAND}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    parser.add_argument("--machine", help="asv's name of it (default: the one that asv has results of)")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Gather the figures that asv has stored."""
    return {"rows": gather(folder_of(options.machine)), "size": SIZE, "k": int(K)}


def render(results: store.Results) -> str:
    """Return the table of the commits."""
    rows = [
        [
            row["commit"],
            f"{datetime.fromtimestamp(row['date'], UTC):%Y-%m-%d}",
            *(_number(row["M ratings/s"][name]) for name in CONFIGURATIONS),
            *(_number(row["RMSE"][name]) for name in SCHEDULES),
        ]
        for row in results["rows"]
    ]
    head = ["commit", "date", *CONFIGURATIONS, *(f"RMSE, {name}" for name in SCHEDULES)]
    return (
        f"{markdown.table(head, rows)}\n\nMillion ratings per second and held-out RMSE, {results['size']}, "
        f"k = {results['k']}. {results['machine']}"
    )


def folder_of(machine: str | None) -> Path:
    """Return the folder of a machine's results; if none is named, of this one or of the only one."""
    names = sorted({path.parent.name for path in ASV.glob("*/*-*.json")})
    if machine is None:
        machine = platform.node() if platform.node() in names or len(names) != 1 else names[0]
    if machine not in names:
        others = (
            f"it has results of {', '.join(names)}: say --machine"
            if names
            else "run asv as docs/benchmarks.md says"
        )
        sys.exit(f"asv has no results of {machine} in {ASV}; {others}")
    return ASV / machine


def gather(folder: Path) -> list[dict[str, Any]]:
    """Return speed, error and limit of each commit, in the order of the history.

    Parameters
    ----------
    folder
        asv's results of one machine.
    """
    rows: dict[str, dict[str, Any]] = {}
    others, elsewhere = set(), set()
    order = repository.git("rev-list", "--reverse", "HEAD").split()
    for path in folder.glob("*-*.json"):
        measured = json.loads(path.read_text(encoding="utf-8"))
        commit, figures = measured["commit_hash"], dict(asv_figures(measured))
        drawn = {
            "M ratings/s": {c: figures.get(("speed", (c, SIZE, K))) for c in CONFIGURATIONS},
            "% of the limit": {c: figures.get(("share of limit", (c, SIZE, K))) for c in CONFIGURATIONS},
            "RMSE": {s: figures.get(("error", (s, SIZE, K))) for s in SCHEDULES},
        }
        if commit not in order:
            elsewhere.add(commit[:8])
        elif all(figure is None for by_name in drawn.values() for figure in by_name.values()):
            others.add(commit[:8])
        else:
            subject = repository.git("log", "-1", "--format=%s", commit)
            date = measured["date"] // 1000
            rows[commit] = {"commit": commit[:8], "date": date, "subject": subject} | drawn
    if not rows:
        reasons = [f"those of {', '.join(sorted(others))} are of other cases than the picture shows"] * bool(
            others
        )
        reasons += [f"HEAD does not come after {', '.join(sorted(elsewhere))}"] * bool(elsewhere)
        sys.exit(f"nothing to draw among asv's results in {folder}: {'; '.join(reasons)}. {QUICK}")
    return [rows[commit] for commit in order if commit in rows]


def asv_figures(measured: dict[str, Any]) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
    """Yield suite and parameters, and figure, of each case in a file of asv's."""
    names = {f"track_{catalogue.asv_name(name)}": name for name in catalogue.SUITES}
    for benchmark, values in measured["results"].items():
        result = dict(zip(measured["result_columns"], values, strict=False))
        name = names.get(benchmark.rpartition(".")[2])
        if name is None or not result.get("result"):
            continue
        combinations = itertools.product(*((p.strip("'") for p in part) for part in result["params"]))
        for parameters, figure in zip(combinations, result["result"], strict=False):
            if figure is not None and figure == figure:
                yield (name, parameters), figure


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"
