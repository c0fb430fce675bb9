"""Is this working tree slower, larger or less accurate than a commit? ``python -m benchmarks.gate [BASE]``.

Both are copied into folders of their own, with the benchmarks of the working tree, and each gets a process.
These alternate, A B A B, within each case, so that whatever else the machine does hits both alike (errors,
scores and counts, which nothing hits, they find at once); and there are several rounds of new processes, as
where code and data happen to lie in memory also differs between processes. The ratio of the minima is
compared, with a bootstrap interval over rounds and samples, and the tolerance decides:

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
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from benchmarks import cases, probes, results
from benchmarks.progress import show

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
RULE = """\
WORSE: the whole interval lies above the tolerance, also after as many rounds again; the gate fails.
doubtful: a part of the interval lies above it; the case passes. A quieter machine, or more --minutes, tells.\
"""
NO_BASE = 3  # exit status
BACK = 10  # commits from HEAD to the default base: so far that small losses add up
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


class NoBaseError(Exception):
    """There is no commit to compare with; the message names the remedy."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "base",
        metavar="BASE",
        nargs="?",
        help=f"the commit to compare with (default: {BACK} commits back, or the first if there are fewer)",
    )
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="cases, for those of the short suite"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=6,
        help="measure doubtful cases again as long as that may end in time (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, default=results.ROOT / ".asv" / "gate.json", help="default %(default)s"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return
    names = select(options.only or SHORT)
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
    asked = options.base or f"{base[:8]} ({BACK} commits back, or the first)"
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
    doubtful = [verdict.case for verdict in verdicts if verdict.word == "doubtful"]
    result: dict[str, Any] = {
        "base": base,
        "machine": probes.machine(),
        "rule": RULE.splitlines(),
        "bad": bad,
    }
    result |= {"doubtful": doubtful, "cases": [verdict.record() for verdict in verdicts]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{RULE}\n{probes.machine()} All samples are in {options.json}.")
    compared = [verdict for verdict in verdicts if verdict.base and verdict.head]
    print(f"{len(compared)} of {len(verdicts)} cases compared with {asked}; {len(doubtful)} doubtful.")
    if bad:
        sys.exit(f"worse than {asked}: {'; '.join(bad)}")
    if not compared and any(verdict.word == "new" for verdict in verdicts):
        fail(f"nothing could be compared: no case runs on {asked}; name a later commit, or other cases")


def fail(message: str) -> NoReturn:
    """End because nothing could be compared."""
    print(f"python -m benchmarks.gate: {message}", file=sys.stderr)
    sys.exit(NO_BASE)


# The two sides


def find_base(name: str | None) -> str | None:
    """Return the commit of a name, or the default one; None if HEAD is the first commit, which has none.

    Raises
    ------
    NoBaseError
        If there is a reason why the commit is not there.
    ValueError
        If the name is none of a commit.
    """
    git = results.git
    if not (results.ROOT / ".git").exists():
        raise NoBaseError(f"{results.ROOT} is no git repository; clone the project with git")
    if shutil.which("git") is None or not git("rev-parse", "--git-dir"):
        raise NoBaseError("git is not installed, or refuses this repository: see what git status says")
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        raise NoBaseError("there is no commit yet; make one")
    is_shallow = git("rev-parse", "--is-shallow-repository") == "true"
    is_first = not is_shallow and not git("rev-parse", "--verify", "--quiet", "HEAD^")
    history = git("rev-list", "--first-parent", f"--max-count={BACK + 1}", "HEAD").split()
    if name is None:
        if is_first:
            return None
        commit = history[-1] if len(history) > BACK or not is_shallow else ""
    else:
        commit = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if commit:
        if not git("ls-tree", commit, "mfkernel"):
            raise NoBaseError(f"{commit[:8]} has no package mfkernel; name a commit that has")
        return commit
    if is_shallow:
        remedy = "run git fetch --unshallow, or give actions/checkout fetch-depth: 0 in a workflow"
        raise NoBaseError(f"this clone is shallow; {remedy}")
    assert name is not None
    stem = re.sub(r"([~^]\d*)+$", "", name)
    if stem != name and git("rev-parse", "--verify", "--quiet", f"{stem}^{{commit}}"):
        if is_first:
            return None
        raise NoBaseError(f"the history does not reach back so far; the first commit is {history[-1][:8]}")
    if re.fullmatch(r"[0-9a-f]{7,64}", name):
        raise NoBaseError(f"this repository does not hold that commit; run git fetch origin {name}")
    raise ValueError(f"{name!r} names no commit")


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
    """Samples of a case, and the verdict."""

    case: str
    base: Samples = field(default_factory=list)
    head: Samples = field(default_factory=list)
    errors: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # of base and head
    accepted: bool = False
    took: float = 0.0  # seconds, in the last round

    @property
    def unit(self) -> str:
        """Unit of the samples."""
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
        if low > self.tolerance:
            return "suspect" if not self.is_confirmed else "accepted" if self.accepted else "WORSE"
        if high > self.tolerance:
            return "doubtful"
        return "better" if high < 1 / self.tolerance else "same"

    @property
    def is_bad(self) -> bool:
        """Whether it shuts the gate."""
        return self.word in ("WORSE", "suspect", "FAILS")

    @property
    def is_confirmed(self) -> bool:
        """Whether the regular rounds are done and, if there is any jitter, as many again."""
        jitters = any(len({x for part in side for x in part}) > 1 for side in (self.base, self.head))
        return self.unit not in TOLERANCES or len(self.base) >= (2 if jitters else 1) * ROUNDS

    def wants_more(self, n_rounds: int) -> bool:
        """Whether another round might change the judgement."""
        return self.needs_more(n_rounds) or (not any(self.errors) and self.word == "doubtful")

    def needs_more(self, n_rounds: int) -> bool:
        """Whether the rule asks for another round, however long that takes."""
        if any(self.errors) or self.unit not in TOLERANCES:
            return False
        return n_rounds < ROUNDS or self.word == "suspect"

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
    """Measure cases on both sides, in rounds; then suspects again, and doubtful cases while there is time."""
    verdicts = [Verdict(name) for name in names]
    start = time.monotonic()
    for n in range(ROUNDS * (1 + REPEATS)):
        chosen = [v for v in verdicts if n == 0 or v.wants_more(n)]
        begun = time.monotonic()
        if n and begun + sum(v.took for v in chosen) > start + seconds:
            chosen = [v for v in chosen if v.needs_more(n)]
        if not chosen:
            break
        with ExitStack() as stack:
            workers = [Worker(side) for side in sides]
            for worker in workers:
                stack.callback(worker.stop)
            for place, verdict in enumerate(chosen, 1):
                before = time.monotonic()
                show(f"round {n + 1}: case {place} of {len(chosen)}, {before - start:.0f} s")
                measure(verdict, workers, head_first=bool(n % 2))
                verdict.took = time.monotonic() - before
        words = [v.word for v in verdicts]
        show(
            f"round {n + 1}: {len(chosen)} cases, {time.monotonic() - begun:.0f} s; "
            f"{words.count('suspect')} suspect, {words.count('doubtful')} doubtful",
            keep=True,
        )
    return verdicts


def measure(verdict: Verdict, workers: Sequence[Worker], head_first: bool) -> None:
    """Add a round of samples to a verdict, both sides in alternation."""
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
