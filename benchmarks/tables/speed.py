"""Speed: seconds of an epoch by each configuration.

Within a repetition, all configurations run one after the other, so that a change of the machine's speed hits
all alike; the figure is the median over the repetitions.
"""

import argparse
import statistics
from typing import Any

import mfkernel as mf
from benchmarks import data, probes, store
from benchmarks.progress import show
from benchmarks.suites import sgd
from benchmarks.suites.base import RANKS, SIZES
from benchmarks.tables import markdown

REAL = ("ML-100K", "ML-1M")
MAX_SLOW_REPEATS = 3
CALLS = 5  # of a compiled configuration per repetition
STEPS = {  # of docs/textbook.md, by the configuration that runs them
    "naive loop": "the program, over every cell",
    "numpy reference": "steps 1 and 2: ratings only, one vector operation per rating",
    "sequential": "step 3: compiled",
    "hogwild, 2 threads": "step 4: two threads without locks",
    "blocks": "step 5: blocks, one thread",
    "blocks, 2 threads": "step 5: blocks, two threads",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    data.add_option(parser)
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the median seconds of an epoch by each configuration."""
    if options.store and options.data is None:
        raise data.MissingDataError("--store needs --data: docs/benchmarks.md also shows real ratings")
    names = (*SIZES, *(REAL if options.data else ()))
    data.require(options.data, names)
    rows = []
    for name in names:
        R = data.load(name, options.data)
        for k in map(int, RANKS):
            seconds = seconds_per_epoch(name, R, k, options.repeats)
            rows.append({"ratings": name, "nnz": R.nnz, "k": k, "seconds": seconds})
    return {"rows": rows, "repeats": options.repeats}


def seconds_per_epoch(name: str, R: mf.Ratings, k: int, repeats: int) -> dict[str, float]:
    """Return the median time of an epoch by each configuration that is fast enough."""
    epochs = {
        configuration: build(R, k)
        for configuration, build in sgd.CONFIGURATIONS.items()
        if sgd.is_fast_enough(configuration, R.nnz)
    }
    seconds: dict[str, list[float]] = {configuration: [] for configuration in epochs}
    for repeat in range(repeats):
        for configuration, epoch in epochs.items():
            show(f"speed: {name}, k = {k}, round {repeat + 1} of {repeats}: {configuration}")
            if configuration not in sgd.INTERPRETED:
                seconds[configuration] += [probes.clock(epoch) for _ in range(CALLS)]
            elif repeat < MAX_SLOW_REPEATS:
                seconds[configuration].append(probes.clock(epoch))
    show("")
    return {configuration: statistics.median(times) for configuration, times in seconds.items()}


def render(results: store.Results) -> str:
    """Return the table of seconds per epoch, and its caption."""
    rows = []
    for row in results["rows"]:
        s = row["seconds"]
        naive, blocks, two = s.get("naive loop"), s["blocks"], s["blocks, 2 threads"]
        rows.append(
            [
                *(row["ratings"], str(row["k"])),
                *(_seconds(s.get(configuration)) for configuration in sgd.CONFIGURATIONS),
                f"{row['nnz'] / blocks / 1e6:.0f}",
                f"{naive / blocks:,.0f} ×" if naive else "",
                f"{blocks / two:.2f} ×",
                f"{s['hogwild, 2 threads'] / two:.2f} ×",
            ]
        )
    head = ["ratings", "k", *sgd.CONFIGURATIONS, "M ratings/s", "of naive", "2 threads", "of hogwild"]
    return (
        f"{markdown.table(head, rows)}\n\nSeconds per epoch, the median of {results['repeats']} rounds in "
        f"which configurations alternate (the interpreted ones in float64, {MAX_SLOW_REPEATS} rounds). The "
        "last four columns describe blocks: throughput on one thread, speed-up over the naive loop, and "
        f"speed-up of two threads over one thread and over hogwild. {results['machine']}"
    )


def render_steps(results: store.Results) -> str:
    """Return the table of what each step from the textbook's loop gains, and its caption."""
    size, k = "ml-100k-like", 32
    (row,) = (x for x in results["rows"] if (x["ratings"], x["k"]) == (size, k))
    seconds = row["seconds"]
    first = seconds["naive loop"]
    rows = [
        [text, _seconds(seconds[configuration]), f"{first / seconds[configuration]:,.0f} ×"]
        for configuration, text in STEPS.items()
    ]
    return (
        f"{markdown.table(['step', 'seconds per epoch', 'speed-up'], rows)}\n\n{row['nnz']:,} generated "
        f"ratings ({size}), k = {k}, the median of {results['repeats']} rounds in which all alternate (the "
        f"first two in float64, {MAX_SLOW_REPEATS} rounds). {results['machine']}"
    )


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"
