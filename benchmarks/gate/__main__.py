"""Is this working tree slower, larger or less accurate than a commit? ``python -m benchmarks.gate [BASE]``.

Both are copied into folders of their own, with the benchmarks of the working tree, and each gets a process.
These alternate, A B A B, within each case, so that whatever else the machine does hits both alike (errors,
scores and counts, which nothing hits, they find at once). There are several rounds of new processes, as the
place of code and data in memory also differs between processes. The ratio of the minima is compared, with a
bootstrap interval over rounds and samples, and the tolerance decides:

=========  ============================================================================================
WORSE      the whole interval lies above it, also after as many rounds again: the gate fails
suspect    the whole interval lies above it, but the base failed before that was confirmed: the gate fails
doubtful   a part of the interval lies above it: measured again while ``--minutes`` allow, then it passes
same       no part of it does; better, if all of it lies below 1 / tolerance
=========  ============================================================================================

The regular rounds, and those that confirm, take place whatever ``--minutes`` says.

A change that is worth its price names the case in its commit's message: ``Gate-Accepts: signatures``.

Exit status: 0 if nothing is worse, or HEAD is the first commit; 1 if something is worse; 2 if an argument is
wrong; 3 if there was nothing to compare with: the clone is shallow, the history too short, there is no
repository, or no case runs on BASE.
"""

import argparse
import fnmatch
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import probes, repository
from benchmarks.gate.rounds import compare
from benchmarks.gate.tree import COMMITS_BACK, NoBaseError, find_base, lay_out
from benchmarks.gate.verdict import Comparison, table
from benchmarks.suites import catalogue

DEFAULT_PATTERNS = """
    epoch: sequential, ml-1m-like, *
    epoch: hogwild*, ml-1m-like, 32
    als epoch: explicit, c*, ml-1m-like, 32
    als epoch: implicit, c*, ml-1m-like, 32
    epoch: blocks*, ml-1m-like, *
    kernel: *, 64, float32
    kernel: tiles, 16, *
    kernel: rows, 512, float64
    preparation: *, ml-1m-like
    prediction: *, ml-100k-like
    file: *
    start: *
    fit: blocks, *
    fit memory: *, ml-1m-like
    fit with: biases*, ml-1m-like
    error with: *, ml-100k-like, 32
    error with: biases, ml-1m-like, *
    question: *, ml-1m-like
    memory: *, ml-1m-like
    ranking score: *, ml-100k-like
    search: select rank
    error: *, ml-100k-like, 32
    error: blocks, *
    error after epochs: 5, *
    signatures
    packed FMA: *
    conversions: *
    allocations: *
    bytes: *
""".strip().splitlines()
RULE = """\
WORSE: the whole interval lies above the tolerance, also after as many rounds again; the gate fails.
doubtful: a part of the interval lies above it; the case passes. A quieter machine, or more --minutes, tells.\
"""
NO_BASE = 3  # exit status
ACCEPTED = "--format=%(trailers:key=Gate-Accepts,valueonly)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table and write a JSON file."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    names = select(options.only or DEFAULT_PATTERNS)
    if not names:
        parser.error(f"no case matches {', '.join(options.only)}")
    try:
        base = find_base(options.base)
    except ValueError as error:
        parser.error(str(error))
    except NoBaseError as error:
        fail(f"cannot compare with {options.base or 'an earlier commit'}: {error}")
    if base is None:
        print("nothing to compare with: this is the first commit")
        return
    accepted = repository.git("log", ACCEPTED, f"{base}..HEAD").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        sides = Path(folder, "base"), Path(folder, "head")
        lay_out(base, *sides)
        comparisons = compare(sides, names, options.minutes * 60)
    for comparison in comparisons:
        comparison.accepted = matches(comparison.case, accepted)
    print("\n".join(table(comparisons)))
    write(options.json, base, comparisons)
    print(f"\n{RULE}\n{probes.machine()} All samples are in {options.json}.")
    judge(comparisons, options.base or f"{base[:8]} ({COMMITS_BACK} commits back, or the first)")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=description)
    parser.add_argument(
        "base",
        metavar="BASE",
        nargs="?",
        help=f"the commit to compare with (default: {COMMITS_BACK} commits back, or the first if there are "
        "fewer)",
    )
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="cases, in place of those of the default suite"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=6,
        help="measure doubtful cases again as long as that may end in time (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, default=repository.ROOT / ".asv" / "gate.json", help="default %(default)s"
    )
    return parser


def write(path: Path, base: str, comparisons: list[Comparison]) -> None:
    """Write the samples and the verdicts into a JSON file."""
    result: dict[str, Any] = {
        "base": base,
        "machine": probes.machine(),
        "rule": RULE.splitlines(),
        "bad": [c.case for c in comparisons if c.is_bad],
        "doubtful": [c.case for c in comparisons if c.verdict == "doubtful"],
        "cases": [c.record() for c in comparisons],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def judge(comparisons: list[Comparison], base_name: str) -> None:
    """Print how many cases are compared and doubtful; end with a status unless the gate is open."""
    compared = [c for c in comparisons if c.base and c.head]
    doubtful = sum(c.verdict == "doubtful" for c in comparisons)
    print(f"{len(compared)} of {len(comparisons)} cases compared with {base_name}; {doubtful} doubtful.")
    if bad := [c.case for c in comparisons if c.is_bad]:
        sys.exit(f"worse than {base_name}: {'; '.join(bad)}")
    if not compared and any(c.verdict == "new" for c in comparisons):
        fail(f"nothing could be compared: no case runs on {base_name}; name a later commit, or other cases")


def fail(message: str) -> NoReturn:
    """End because nothing could be compared."""
    print(f"python -m benchmarks.gate: {message}", file=sys.stderr)
    sys.exit(NO_BASE)


def select(patterns: Sequence[str]) -> list[str]:
    """Return the cases that a pattern names."""
    return [name for name in catalogue.CASES if matches(name, patterns)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names a case."""
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns)


if __name__ == "__main__":
    main()
