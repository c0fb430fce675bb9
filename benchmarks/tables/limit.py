"""The limit of this machine, and how near it an epoch is.

Two probes, run beside the configurations, measure how much a core does in a second: multiply-adds in
registers, and a copy within the nearest cache. The limit is the smaller of the two. Copies of the size of a
tile and of all of P and Q show the cost of rows that come from farther away. ``probes`` counts the work of an
update.
"""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import data, private, probes, store
from benchmarks.progress import show
from benchmarks.suites import sgd
from benchmarks.suites.base import SIZES
from benchmarks.tables import markdown

RANKS = (8, 16, 32, 64, 128, 256)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    parser.add_argument("--size", choices=SIZES, default="ml-1m-like")
    parser.add_argument("--repeats", type=int, default=7, help="default: %(default)s")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the throughput of each configuration, and the limits, for each rank."""
    R = data.generated(options.size)
    rows = []
    for k in RANKS:
        show(f"k = {k} of {', '.join(map(str, RANKS))}")
        copied = {
            "nearest": probes.NEAREST,
            "tile": 4 * private.TILE_COORDINATES,
            "P and Q": sum(R.shape) * k * 4,
        }
        measured = probes.limit_probes(*copied.values())
        runs: dict[str, Callable[[], object]] = {
            configuration: sgd.CONFIGURATIONS[configuration](R, k) for configuration in sgd.COMPILED
        }
        probing = {name: run for name, (run, _) in measured.items()}
        seconds = probes.median_seconds(runs | probing, options.repeats)
        rates = {name: work / seconds[name] for name, (_, work) in measured.items()}
        rows.append(
            {
                "k": k,
                "limit": probes.update_limit(k, rates),
                "ratings/s": {configuration: R.nnz / seconds[configuration] for configuration in runs},
                "copies": {
                    name: rates[f"copy {size}"] / probes.update_bytes(k) for name, size in copied.items()
                },
            }
        )
    show("")
    return {"rows": rows, "size": options.size, "repeats": options.repeats}


def render(results: store.Results) -> str:
    """Return the table of speeds and their share of the limit, and its caption."""
    configurations = list(results["rows"][0]["ratings/s"])
    rows = []
    for row in results["rows"]:
        cells = [str(row["k"]), f"{row['limit'] / 1e6:.0f}"]
        for configuration, rate in row["ratings/s"].items():
            threads = 2 if "2 threads" in configuration else 1
            cells.append(f"{rate / 1e6:.0f}, {rate / (threads * row['limit']):.0%}")
        rows.append([*cells, ", ".join(f"{bound / 1e6:.0f}" for bound in row["copies"].values())])
    head = [
        *("k", "limit of a core", *configurations),
        f"copies: {', '.join(results['rows'][0]['copies'])}",
    ]
    return (
        f"{markdown.table(head, rows)}\n\nMillion ratings per second, {results['size']}, float32, and the "
        "share of what the cores at work could do if their arithmetic and nearest cache never waited; "
        "copies: what a core could do if it only moved the rows, to and from that far. Medians of "
        f"{results['repeats']} rounds in which configurations and probes alternate. {results['machine']}"
    )
