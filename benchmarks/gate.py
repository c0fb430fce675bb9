"""Is this working tree slower, larger or less accurate than a commit? ``python -m benchmarks.gate BASE``.

Both are copied into folders of their own, with the benchmarks of the working tree, and each gets a process.
These take turns, A B A B, within each case, so that whatever else the machine does hits both alike (errors,
scores and counts, which nothing hits, they find at once); and there are several rounds of new processes, as
where code and data happen to lie in memory differs between processes, too. The ratio of the minima is
compared, with a bootstrap interval over rounds and samples. A case fails only if its whole interval lies
above the tolerance, and still does after being repeated.

A change that is worth its price names the case in its commit's message: ``Gate-Accepts: signatures``.

Exit status: 0 if nothing is worse, or there is no BASE to compare with; 1 if something is; 2 if BASE is not
known, or no case runs on it.
"""

import argparse
import fnmatch
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import cases, probes, results

# patterns of the cases of the short suite
SHORT = """
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
TOLERANCES = {cases.SECONDS: 1.25, cases.MIB: 1.10, cases.RMSE: 1.005}  # of counts, none
TOLERANCES |= {cases.SCORE: 1.02, "M ratings/s": 1.25, "% of the limit": 1.25, "epochs": 1.25}
UNDISTURBED = {cases.RMSE, cases.SCORE, cases.COUNT, "packed FMA"}  # by another process on the same machine
ROUNDS = 3
REPEATS = 2  # of the doubtful cases, each of as many rounds
SAMPLE = 0.005  # seconds that a sample takes at least: many calls, if need be
SHARE = 0.15  # seconds that the samples of a case take in a round, on each side
MOST_SAMPLES = 10
PEAKS = 1  # of memory, measured once more in a round
CONFIDENCE = 0.99
RESAMPLES = 2000
LONGEST = 120  # seconds that an answer may take

Samples = list[list[float]]  # round by round


def main() -> None:
    """Measure, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("base", metavar="BASE", nargs="?", help="the commit to compare with")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="cases, for those of the short suite"
    )
    parser.add_argument("--minutes", type=float, default=6, help="begin no round that may not end in time")
    parser.add_argument(
        "--json", type=Path, default=results.ROOT / ".asv" / "gate.json", help="default %(default)s"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    if options.base is None:
        parser.error("the following arguments are required: BASE")
    base, reason = find_base(options.base)
    if base is None:
        print(f"nothing to compare with: {reason}")
        return
    if not base:
        parser.error(reason)
    names = select(options.only or SHORT)
    if not names:
        parser.error(f"no case matches {', '.join(options.only)}")
    trailers = "--format=%(trailers:key=Gate-Accepts,valueonly)"
    accepted = results.git("log", trailers, f"{base}..HEAD").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        sides = Path(folder, "base"), Path(folder, "head")
        lay_out(base, *sides)
        verdicts = compare(sides, names, options.minutes * 60)
    for verdict in verdicts:
        verdict.accepted = matches(verdict.case, accepted)
    print("\n".join(table(verdicts)))
    bad = [verdict.case for verdict in verdicts if verdict.is_bad]
    result = {"base": base, "machine": probes.machine(), "bad": bad, "cases": [v.record() for v in verdicts]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{probes.machine()} All samples are in {options.json}.")
    compared = [verdict for verdict in verdicts if verdict.base and verdict.head]
    print(f"{len(compared)} of {len(verdicts)} cases compared with {options.base}.")
    if bad:
        sys.exit(f"worse than {options.base}: {'; '.join(bad)}")
    if not compared and any(verdict.word == "new" for verdict in verdicts):
        print("nothing could be compared", file=sys.stderr)
        sys.exit(2)


# The two sides


def find_base(name: str) -> tuple[str | None, str]:
    """Return the commit of a name; None, with the reason, if there can be none, or "" if it is unknown."""
    if not (results.ROOT / ".git").exists():
        return None, f"{results.ROOT} is no git repository"
    if not results.git("rev-parse", "--git-dir"):
        return "", "git is not installed, or refuses this repository"
    if commit := results.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"):
        if results.git("ls-tree", commit, "mfkernel"):
            return commit, ""
        return None, f"{name} has no package mfkernel"
    if results.git("rev-parse", "--is-shallow-repository") == "true":
        return None, f"this clone is shallow and does not hold {name}"
    if not results.git("rev-parse", "--verify", "--quiet", "HEAD"):
        return None, "there is no commit yet"
    stem = re.sub(r"([~^]\d*)+$", "", name)
    if stem != name and results.git("rev-parse", "--verify", "--quiet", stem):
        return None, f"the history does not reach back to {name}"
    return "", f"{name!r} names no commit"


def lay_out(base: str, base_side: Path, head_side: Path) -> None:
    """Copy the package as it was and as it is, each beside these benchmarks."""
    command = ["git", "archive", "--format=tar", "-o", f"{base_side}.tar", base, "mfkernel"]
    subprocess.run(command, cwd=results.ROOT, check=True)
    with tarfile.open(f"{base_side}.tar") as tar:
        tar.extractall(base_side, filter="data")
    caches, stored = shutil.ignore_patterns("__pycache__"), shutil.ignore_patterns("__pycache__", "stored")
    shutil.copytree(results.ROOT / "mfkernel", head_side / "mfkernel", ignore=caches)
    for side in (base_side, head_side):
        shutil.copytree(results.ROOT / "benchmarks", side / "benchmarks", ignore=stored)


class Worker:
    """A process that runs the cases with the package of one side; a new one if it has died."""

    def __init__(self, side: Path) -> None:
        self._side = side
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        environment = os.environ | {"NUMBA_CACHE_DIR": str(self._side / "cache")}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-m", "benchmarks.gate", "--serve"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self._side, env=environment, stdin=pipe, stdout=pipe, encoding="utf-8"
        )

    def send(self, request: dict[str, Any]) -> None:
        """Ask for something."""
        if "build" in request and self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        assert self._process.stdin is not None
        with suppress(OSError):  # the missing answer says it
            print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self._process.stdout is not None
        alarm = threading.Timer(LONGEST, self._process.kill)
        alarm.start()
        line = self._process.stdout.readline()
        alarm.cancel()
        if not line:
            status = self._process.wait()
            return {"error": f"the process ended with exit status {status}, or gave no answer in {LONGEST} s"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(OSError), self._process:  # what was not sent is lost
            pass


def serve() -> None:
    """Answer requests, a line each: build a case; run it, and say what a call took or returned."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a case prints is no answer
    case: Callable[[], Any] = int
    timed = False
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                case = int  # lets go of the last one
                case = cases.build(request["build"])
                timed = cases.unit(request["build"]) == cases.SECONDS
                answer = {}
            elif timed:
                start = time.perf_counter()
                for _ in range(request["run"]):
                    case()
                answer = {"figure": (time.perf_counter() - start) / request["run"]}
            else:
                answer = {"figure": float(case())}
                if not math.isfinite(answer["figure"]):
                    raise FloatingPointError(f"the figure is {answer['figure']}")
        except NotImplementedError as error:
            answer = {"error": str(error), "skip": True}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


# Measuring


@dataclass
class Verdict:
    """What was found out about a case."""

    case: str
    base: Samples = field(default_factory=list)
    head: Samples = field(default_factory=list)
    errors: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # of base and head
    accepted: bool = False
    took: float = 0.0  # seconds, in the last round

    @property
    def unit(self) -> str:
        """What the samples count."""
        return cases.unit(self.case)

    @property
    def tolerance(self) -> float:
        """How many times worse it may be."""
        return TOLERANCES.get(self.unit, 1.0)

    @property
    def interval(self) -> tuple[float, float, float]:
        """How many times worse the working tree is, and the bounds of that."""
        return ratio_of_minima(self.base, self.head, self.unit in cases.MORE_IS_BETTER)

    @property
    def word(self) -> str:
        """The judgement."""
        base_error, head_error = self.errors
        if "skip" in base_error and "skip" in head_error:
            return "not here"
        if head_error:
            return "FAILS"
        if base_error:
            return "new"
        _, low, high = self.interval
        if low > self.tolerance and self.is_confirmed:
            return "accepted" if self.accepted else "WORSE"
        if high > self.tolerance:
            return "doubtful"
        return "better" if high < 1 / self.tolerance else "same"

    @property
    def is_bad(self) -> bool:
        """Whether it shuts the gate."""
        return self.word in ("WORSE", "FAILS")

    @property
    def is_confirmed(self) -> bool:
        """Whether the regular rounds are done and, if there is any jitter, as many again."""
        jitters = any(len({x for part in side for x in part}) > 1 for side in (self.base, self.head))
        return self.unit not in TOLERANCES or len(self.base) >= (2 if jitters else 1) * ROUNDS

    def wants_more(self, n_rounds: int) -> bool:
        """Whether another round might change the judgement."""
        if any(self.errors) or self.unit not in TOLERANCES:
            return False
        return n_rounds < ROUNDS or self.word == "doubtful"

    def best(self, side: Samples) -> float:
        """Return the best sample of a side."""
        return (max if self.unit in cases.MORE_IS_BETTER else min)(x for part in side for x in part)

    def record(self) -> dict[str, Any]:
        """Return what goes into the JSON file."""
        figures: dict[str, Any] = {"case": self.case, "unit": self.unit, "verdict": self.word}
        if any(self.errors):
            return figures | {"errors": self.errors}
        ratio, low, high = self.interval
        samples = {"base": self.base, "head": self.head}
        return figures | {"ratio": ratio, "low": low, "high": high, "tolerance": self.tolerance} | samples


def compare(sides: Sequence[Path], names: list[str], seconds: float) -> list[Verdict]:
    """Measure cases on both sides, in rounds; then the doubtful ones again, as long as there is time."""
    verdicts = [Verdict(name) for name in names]
    start = time.monotonic()
    for n in range(ROUNDS * (1 + REPEATS)):
        chosen = [v for v in verdicts if n == 0 or v.wants_more(n)]
        begun = time.monotonic()
        if not chosen or (n and begun + sum(v.took for v in chosen) > start + seconds):
            break
        with ExitStack() as stack:
            workers = [Worker(side) for side in sides]
            for worker in workers:
                stack.callback(worker.stop)
            for verdict in chosen:
                before = time.monotonic()
                measure(verdict, workers, head_first=bool(n % 2))
                verdict.took = time.monotonic() - before
        print(f"round {n + 1}: {len(chosen)} cases, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return verdicts


def measure(verdict: Verdict, workers: Sequence[Worker], head_first: bool) -> None:
    """Add a round of samples to a verdict, both sides taking turns."""
    order = (1, 0) if head_first else (0, 1)

    def ask(request: dict[str, Any], at_once: bool = False) -> list[float] | None:
        answers: list[dict[str, Any]] = [{}, {}]
        for side in order:
            workers[side].send(request)
            if not at_once:
                answers[side] = workers[side].answer()
        if at_once:
            answers = [worker.answer() for worker in workers]
        if any("error" in answer for answer in answers):
            base, head = (answer if "error" in answer else {} for answer in answers)
            if head or not verdict.base:  # what the base has shown, it has shown
                verdict.errors = base, head
            return None
        return [answer.get("figure", 0.0) for answer in answers]

    if ask({"build": verdict.case}, at_once=True) is None:
        return
    first = ask({"run": 1}, at_once=verdict.unit in UNDISTURBED)
    if first is None:
        return
    samples, loops, count = [first], 1, PEAKS if verdict.unit == cases.MIB else 0
    if verdict.unit == cases.SECONDS:
        once = max(min(first), 1e-9)
        loops = max(1, min(round(SAMPLE / once), round(SHARE / max(first))))
        count = min(MOST_SAMPLES, round(2 * SHARE / (loops * sum(first))))
    for _ in range(count):
        sample = ask({"run": loops})
        if sample is None:
            return
        samples.append(sample)
    verdict.base.append([base for base, _ in samples])
    verdict.head.append([head for _, head in samples])


def ratio_of_minima(base: Samples, head: Samples, more_is_better: bool = False) -> tuple[float, float, float]:
    """Return how many times worse the best of ``head`` is than that of ``base``, and its bootstrap interval.

    Rounds are resampled in pairs, and samples within each round.
    """
    rng = np.random.default_rng(0)
    rounds = rng.integers(len(base), size=(RESAMPLES, len(base)))
    best: Callable[..., Any] = np.max if more_is_better else np.min
    bests = []
    for side in (base, head):
        parts = (np.array(part) for part in side)
        resampled = [
            best(part[rng.integers(part.size, size=(RESAMPLES, part.size))], axis=1) for part in parts
        ]
        of_rounds = np.take_along_axis(np.column_stack(resampled), rounds, axis=1)
        whole = best([best(part) for part in side])
        bests.append(np.append(best(of_rounds, axis=1), whole))
    ratios = _ratio(*bests) if more_is_better else _ratio(*reversed(bests))
    low, high = np.quantile(ratios[:-1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return float(ratios[-1]), float(low), float(high)


def _ratio(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x / y, which of two zeros is 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == y, 1.0, x / y)


# Words


def table(verdicts: list[Verdict]) -> list[str]:
    """Return the lines of the table, those first that shut the gate."""
    rows: list[tuple[str, ...]] = [
        ("case", "unit", "base", "this tree", "times worse", "interval", "tolerance", "verdict")
    ]
    for v in sorted(verdicts, key=lambda v: not v.is_bad):
        cells: tuple[str, ...] = ("", "", "", "", "")
        if any(v.errors):
            cells = ("", "", (v.errors[1] or v.errors[0])["error"].split("\n")[0][:50], "", "")
        else:
            ratio, low, high = v.interval
            form = ".4g" if v.unit in TOLERANCES else ",.0f"
            figures = (format(v.best(side), form) for side in (v.base, v.head))
            cells = (*figures, f"{ratio:.3f}", f"{low:.3f} … {high:.3f}", f"{v.tolerance:g}")
        rows.append((v.case, v.unit, *cells, v.word))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def select(patterns: Sequence[str]) -> list[str]:
    """Return the cases that a pattern names."""
    return [name for name in cases.CASES if matches(name, patterns)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names a case."""
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns)


if __name__ == "__main__":
    main()
