"""How near the limit of this machine is it? ``python -m benchmarks.roofline [--size SIZE] [--store]``.

Two probes, run beside the engines, measure how much a core does in a second: multiply-adds in registers, and
a copy within the nearest cache. The limit is the smaller of the two; copies of the size of a tile and of all
of P and Q show what the rows cost that come from farther away. ``probes`` says what an update takes.
"""

import argparse
from collections.abc import Callable

from benchmarks import cases, generated, private, probes, results
from benchmarks.progress import show

RANKS = (8, 16, 32, 64, 128, 256)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("--size", choices=generated.SIZES, default="ml-1m-like")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--store", action="store_true", help="keep the results, for benchmarks.report")
    options = parser.parse_args()
    stored = measure(options.size, options.repeats)
    print(table(stored))
    if options.store:
        results.store("roofline", stored)


def measure(size: str, repeats: int) -> results.Stored:
    """Measure the throughput of each engine, and the limits, for each rank."""
    R = generated.ratings(size)
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
            engine: cases.ENGINES[engine](R, k) for engine in cases.COMPILED_ENGINES
        }
        probing = {name: run for name, (run, _) in measured.items()}
        seconds = probes.median_seconds(runs | probing, repeats)
        rates = {name: work / seconds[name] for name, (_, work) in measured.items()}
        rows.append(
            {
                "k": k,
                "limit": probes.update_limit(k, rates),
                "ratings/s": {engine: R.nnz / seconds[engine] for engine in runs},
                "copies": {
                    name: rates[f"copy {size}"] / probes.update_bytes(k) for name, size in copied.items()
                },
            }
        )
    show("")
    return results.described("python -m benchmarks.roofline --store", rows, size=size, repeats=repeats)


def table(stored: results.Stored) -> str:
    """Return the table of speeds and their share of the limit, and what it says."""
    engines = list(stored["rows"][0]["ratings/s"])
    rows = []
    for row in stored["rows"]:
        cells = [str(row["k"]), f"{row['limit'] / 1e6:.0f}"]
        for engine, rate in row["ratings/s"].items():
            threads = 2 if "2 threads" in engine else 1
            cells.append(f"{rate / 1e6:.0f}, {rate / (threads * row['limit']):.0%}")
        rows.append([*cells, ", ".join(f"{bound / 1e6:.0f}" for bound in row["copies"].values())])
    head = ["k", "limit of a core", *engines, f"copies: {', '.join(stored['rows'][0]['copies'])}"]
    return (
        f"{results.table(head, rows)}\n\nMillion ratings per second, {stored['size']}, float32, and the "
        "share of what the cores at work could do if their arithmetic and nearest cache never waited; "
        "copies: what a core could do if it only moved the rows, to and from that far. Medians of "
        f"{stored['repeats']} rounds in which engines and probes alternate. {stored['machine']}"
    )


if __name__ == "__main__":
    main()
