"""The pictures, drawn from stored results: speed and error over the commits, and beside other libraries."""

import statistics
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.tables import libraries
from benchmarks.tables.history import CONFIGURATIONS, SCHEDULES

COLORS = ("tab:blue", "tab:green", "tab:purple", "tab:brown", "tab:gray")  # of other libraries


def write(folder: Path) -> None:
    """Draw the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "history": draw_history(store.load("history")),
        "peers": draw_libraries(store.load("libraries")),
    }.items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            # without the date of drawing, a picture changes only if its figures do
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else None, dpi=120)
            print(path)


def draw_history(results: store.Results) -> Any:
    """Draw speed and error by commit, the speed beside the limit of the machine."""
    figure, axes = _pyplot().subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    days = (datetime.fromtimestamp(row["date"], UTC) for row in results["rows"])
    commits = [f"{day:%Y-%m-%d} {row['commit'][:7]}" for day, row in zip(days, results["rows"], strict=True)]
    for configuration in CONFIGURATIONS:
        speeds = [_number(row["M ratings/s"][configuration]) for row in results["rows"]]
        axes[0].plot(commits, speeds, "o-", label=configuration)
    shares = [
        (row["M ratings/s"]["blocks"], row["% of the limit"]["blocks"])
        for row in results["rows"]
        if row["% of the limit"]["blocks"] and row["M ratings/s"]["blocks"]
    ]
    if shares:
        speed, share = shares[-1]
        for cores, style in ((1, "--"), (2, ":")):
            label = f"limit of {cores} core{'s' * (cores - 1)}"
            axes[0].axhline(cores * speed / share * 100, color="grey", linestyle=style, label=label)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("million ratings per second")
    for schedule in SCHEDULES:
        errors = [_number(row["RMSE"][schedule]) for row in results["rows"]]
        axes[1].plot(commits, errors, "o-", label=schedule)
    axes[1].set_ylabel("held-out RMSE of the plain call")
    axes[1].tick_params(axis="x", rotation=60)
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend()
    title = f"generated {results['size']}, k = {results['k']}; RMSE of a tenth held out\n{results['machine']}"
    axes[0].set_title(title, size=9)
    return figure


def draw_libraries(results: store.Results) -> Any:
    """Draw the seconds of a fit and its error, a point per method; a library has one color, ours red."""
    row = results["rows"][0]
    figure, ax = _pyplot().subplots(figsize=(9, 5), layout="constrained")
    found = [(peer, fits) for peer in row["peers"] if (fits := libraries.measured(peer))]
    others = sorted({peer["library"] for peer, _ in found if not libraries.is_ours(peer)})
    for peer, fits in found:
        ours = libraries.is_ours(peer)
        color = "tab:red" if ours else COLORS[others.index(peer["library"]) % len(COLORS)]
        seconds = statistics.median(fit["seconds"] for fit in fits)
        rmse = statistics.mean(fit["rmse"] for fit in fits)
        ax.plot(seconds, rmse, "*" if ours else "o", markersize=16 if ours else 9, color=color)
        if label := libraries.LABELS.get((peer["library"].split()[0], peer["method"], peer["settings"])):
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
    title = f"{row['set']}, {split}, k = {results['k']}, settings as in docs/benchmarks.md"
    ax.set_title(f"{title}\n{results['machine']}", size=9)
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
