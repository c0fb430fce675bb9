"""Make README's tables and the pictures anew, from stored results: ``python -m benchmarks.report``.

``compare``, ``roofline`` and ``peers`` store what they measure with ``--store``. With ``--history``, what asv
measured on this machine is stored first, for the picture of speed and error over the commits.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import als, cases, compare, peers, results, roofline

README = results.ROOT / "README.md"
TABLES = {
    "speed": compare.speed_table,
    "limit": roofline.table,
    "als": als.table,
    "accuracy": compare.accuracy_table,
    "rankings": compare.rankings_table,
    "peers": peers.table,
}
STORED = {"limit": "roofline"}  # where the results have another name
SIZE, K = "ml-1m-like", "32"  # of the history
ENGINES = ("sequential", "blocks", "blocks, 2 threads")
ASV = results.ROOT / ".asv" / "results"
QUICK_COMMAND = f"""asv run --quick --bench "{SIZE}', '{K}'" 'HEAD^!'"""  # measures what the history shows
QUICK = f"What the picture shows is measured by: {QUICK_COMMAND}"


def main() -> None:
    """Write README.md and the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("--history", action="store_true", help="first store what asv measured here")
    parser.add_argument("--machine", help="asv's name of it; by default the one that asv has results of")
    parser.add_argument("--pictures", type=Path, default=results.ROOT / "docs", help="default %(default)s")
    options = parser.parse_args()
    if options.history:
        results.store("history", history(folder_of(options.machine)))
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name, draw in {"history": draw_history, "peers": draw_peers}.items():
        figure = draw(results.load(name))
        for kind in ("png", "svg"):
            path = options.pictures / f"{name}.{kind}"
            # without the date of drawing, a picture changes only if what it shows does
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else None, dpi=120)
            print(path)


def with_tables(text: str) -> str:
    """Return a text with what stands between the two marks of each table made anew."""
    for name, table in TABLES.items():
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
            f"it has results of {', '.join(names)}: say --machine" if names else "run asv as README.md says"
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
    commits = [row["commit"] for row in stored["rows"]]
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
        axes[0].axhline(speed / share * 100, color="grey", linestyle="--", label="limit of a core")
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("million ratings a second")
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
    """Draw the seconds of a fit and its error, a point for each library."""
    row = stored["rows"][0]
    figure, ax = _pyplot().subplots(figsize=(9, 5), layout="constrained")
    for n, peer in enumerate(row["peers"]):
        fits = peer["fits"]["1"]
        if any("rmse" not in fit for fit in fits) or not fits:
            continue
        seconds = statistics.median(fit["seconds"] for fit in fits)
        rmse = statistics.mean(fit["rmse"] for fit in fits)
        schedule = peer["settings"].partition("schedule=")[2].strip("'")
        if "ALS" in peer["method"]:
            schedule = "ALS"
        ours = peer["library"].startswith("mfkernel")
        ax.plot(seconds, rmse, "*" if ours else "o", markersize=12 if ours else 7)
        biases = " with biases" if "with biases" in peer["method"] else ""
        label = f"{peer['library']} {schedule}{biases}"
        offset = ((-10, 10), (8, -4), (-10, -16))[n % 3]  # neighbours in turn above, beside and below
        ax.annotate(label, (seconds, rmse), offset, textcoords="offset points", size=8)
    ax.set_xscale("log")
    ax.set_xticks(ticks := [0.1, 0.2, 0.5, 1, 2, 5, 10], [f"{tick:g}" for tick in ticks])
    ax.set_xlabel("seconds of the fit, one thread")
    ax.set_ylabel("test RMSE")
    ax.margins(0.2)
    ax.grid(alpha=0.3)
    split = f"{row['train']:,} ratings to learn from"
    title = f"{row['set']}, {split}, k = {stored['k']}, settings as in README.md"
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
