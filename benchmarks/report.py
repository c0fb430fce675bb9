"""Generate the tables of README and the documentation, and the pictures: ``python -m benchmarks.report``.

``compare``, ``roofline`` and ``peers`` store what they measure with ``--store``. With ``--history``, what asv
measured on this machine is stored first, for the picture of speed and error over the commits.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import als, cases, compare, peers, results, roofline

README, DOCS = results.ROOT / "README.md", results.ROOT / "docs"
PAGE, TEXTBOOK = DOCS / "benchmarks.md", DOCS / "textbook.md"
TABLES = {  # of docs/benchmarks.md; README has the summary
    "speed": compare.speed_table,
    "limit": roofline.table,
    "als": als.table,
    "accuracy": compare.accuracy_table,
    "rankings": compare.rankings_table,
    "peers": peers.table,
}
SUMMARY = {"summary": lambda stored: peers.summary(stored)}
STEPS = {"steps": compare.steps_table}
COLORS = ("tab:blue", "tab:green", "tab:purple", "tab:brown", "tab:gray")  # of other libraries
STORED = {"limit": "roofline", "summary": "peers", "steps": "speed"}  # where the results have another name
SIZE, K = "ml-1m-like", "32"  # of the history
ENGINES = ("sequential", "blocks", "blocks, 2 threads")
ASV = results.ROOT / ".asv" / "results"
QUICK_COMMAND = f"""asv run --quick --bench "{SIZE}', '{K}'" 'HEAD^!'"""  # measures what the history shows
QUICK = f"This measures the figures of the picture: {QUICK_COMMAND}"


def main() -> None:
    """Write the pages and the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("--history", action="store_true", help="first store what asv measured here")
    parser.add_argument("--machine", help="asv's name of it; by default the one that asv has results of")
    parser.add_argument("--pictures", type=Path, default=DOCS, help="default %(default)s")
    options = parser.parse_args()
    if options.history:
        results.store("history", history(folder_of(options.machine)))
    for path, tables in ((PAGE, TABLES), (README, SUMMARY), (TEXTBOOK, STEPS)):
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name, draw in {"history": draw_history, "peers": draw_peers}.items():
        figure = draw(results.load(name))
        for kind in ("png", "svg"):
            path = options.pictures / f"{name}.{kind}"
            # without the date of drawing, a picture changes only if what it shows does
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else None, dpi=120)
            print(path)


def with_tables(text: str, tables: Mapping[str, Callable[[results.Stored], str]]) -> str:
    """Return a text with each table, between its two marks, generated from stored results."""
    for name, table in tables.items():
        start, stop = f"<!-- {name}: python -m benchmarks.report -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        _, after = rest.split(stop)
        text = f"{before}{start}{table(results.load(STORED.get(name, name)))}\n{stop}{after}"
    return text


# The history


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


def history(folder: Path) -> results.Stored:
    """Gather what asv measured of speed, error and limit, commit by commit in order.

    Parameters
    ----------
    folder
        asv's results of one machine.
    """
    rows: dict[str, dict[str, Any]] = {}
    others, elsewhere = set(), set()
    order = results.git("rev-list", "--reverse", "HEAD").split()
    for path in folder.glob("*-*.json"):
        measured = json.loads(path.read_text(encoding="utf-8"))
        commit, figures = measured["commit_hash"], dict(asv_figures(measured))
        drawn = {
            "M ratings/s": {e: figures.get(("speed", (e, SIZE, K))) for e in ENGINES},
            "% of the limit": {e: figures.get(("share of limit", (e, SIZE, K))) for e in ENGINES},
            "RMSE": {s: figures.get(("error", (s, SIZE, K))) for s in ("sequential", "blocks")},
        }
        if commit not in order:
            elsewhere.add(commit[:8])
        elif all(figure is None for by_name in drawn.values() for figure in by_name.values()):
            others.add(commit[:8])
        else:
            subject = results.git("log", "-1", "--format=%s", commit)
            date = measured["date"] // 1000
            rows[commit] = {"commit": commit[:8], "date": date, "subject": subject} | drawn
    if not rows:
        reasons = [f"those of {', '.join(sorted(others))} are of other cases than the picture shows"] * bool(
            others
        )
        reasons += [f"HEAD does not come after {', '.join(sorted(elsewhere))}"] * bool(elsewhere)
        sys.exit(f"nothing to draw among asv's results in {folder}: {'; '.join(reasons)}. {QUICK}")
    command = f"{QUICK_COMMAND} && python -m benchmarks.report --history"
    return results.described(
        command, [rows[commit] for commit in order if commit in rows], size=SIZE, k=int(K)
    )


def asv_figures(measured: dict[str, Any]) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
    """Yield suite and parameters, and figure, of each case in a file of asv's."""
    names = {f"track_{cases.asv_name(name)}": name for name in cases.SUITES}
    for benchmark, values in measured["results"].items():
        result = dict(zip(measured["result_columns"], values, strict=False))
        name = names.get(benchmark.rpartition(".")[2])
        if name is None or not result.get("result"):
            continue
        combinations = itertools.product(*((p.strip("'") for p in part) for part in result["params"]))
        for parameters, figure in zip(combinations, result["result"], strict=False):
            if figure is not None and figure == figure:
                yield (name, parameters), figure


def draw_history(stored: results.Stored) -> Any:
    """Draw speed and error by commit, the speed beside the limit of the machine."""
    figure, axes = _pyplot().subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    days = (datetime.fromtimestamp(row["date"], UTC) for row in stored["rows"])
    commits = [f"{day:%Y-%m-%d} {row['commit'][:7]}" for day, row in zip(days, stored["rows"], strict=True)]
    for engine in ENGINES:
        speeds = [_number(row["M ratings/s"][engine]) for row in stored["rows"]]
        axes[0].plot(commits, speeds, "o-", label=engine)
    shares = [
        (row["M ratings/s"]["blocks"], row["% of the limit"]["blocks"])
        for row in stored["rows"]
        if row["% of the limit"]["blocks"] and row["M ratings/s"]["blocks"]
    ]
    if shares:
        speed, share = shares[-1]
        for cores, style in ((1, "--"), (2, ":")):
            label = f"limit of {cores} core{'s' * (cores - 1)}"
            axes[0].axhline(cores * speed / share * 100, color="grey", linestyle=style, label=label)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("million ratings per second")
    for schedule in ("sequential", "blocks"):
        errors = [_number(row["RMSE"][schedule]) for row in stored["rows"]]
        axes[1].plot(commits, errors, "o-", label=schedule)
    axes[1].set_ylabel("held-out RMSE of the plain call")
    axes[1].tick_params(axis="x", rotation=60)
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend()
    title = f"generated {stored['size']}, k = {stored['k']}; RMSE of a tenth held out\n{stored['machine']}"
    axes[0].set_title(title, size=9)
    return figure


def draw_peers(stored: results.Stored) -> Any:
    """Draw the seconds of a fit and its error, a point per method; a library has one colour, ours red."""
    row = stored["rows"][0]
    figure, ax = _pyplot().subplots(figsize=(9, 5), layout="constrained")
    found = [(peer, fits) for peer in row["peers"] if (fits := peers.measured(peer))]
    others = sorted({peer["library"] for peer, _ in found if not peers.is_ours(peer)})
    for peer, fits in found:
        ours = peers.is_ours(peer)
        color = "tab:red" if ours else COLORS[others.index(peer["library"]) % len(COLORS)]
        seconds = statistics.median(fit["seconds"] for fit in fits)
        rmse = statistics.mean(fit["rmse"] for fit in fits)
        ax.plot(seconds, rmse, "*" if ours else "o", markersize=16 if ours else 9, color=color)
        if label := peers.LABELS.get((peer["library"].split()[0], peer["method"], peer["settings"])):
            text, offset, align = label
            near = {"textcoords": "offset points", "ha": align}
            ax.annotate(text, (seconds, rmse), offset, **near, size=13, color=color)
    ax.set_xscale("log")
    ax.set_xticks(ticks := [0.1, 0.2, 0.5, 1, 2, 5, 10], [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize=12)
    ax.set_xlabel("seconds of the fit, one thread", size=13)
    ax.set_ylabel("test RMSE", size=13)
    ax.margins(0.15)
    ax.grid(alpha=0.3)
    split = f"{row['train']:,} training ratings"
    title = f"{row['set']}, {split}, k = {stored['k']}, settings as in docs/benchmarks.md"
    ax.set_title(f"{title}\n{stored['machine']}", size=9)
    return figure


def _number(figure: float | None) -> float:
    return float("nan") if figure is None else figure


def _pyplot() -> Any:
    try:
        matplotlib: Any = import_module("matplotlib")
        matplotlib.use("agg")
        matplotlib.rcParams["svg.hashsalt"] = "mfkernel"  # the same picture, the same file
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        sys.exit(f"pictures need the extra 'bench': pip install '.[bench]' ({error})")


if __name__ == "__main__":
    main()
