"""Rounds of measuring, each with new processes: both sides in alternation within each case."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.gate.verdict import NOISE_FREE_UNITS, ROUNDS, Comparison
from benchmarks.gate.worker import Worker
from benchmarks.progress import show
from benchmarks.suites.base import MIB, SECONDS

REPEATS = 2  # of the doubtful cases, each of as many rounds
SECONDS_PER_SAMPLE = 0.005  # at least: many calls, if need be
SECONDS_PER_ROUND = 0.15  # of the samples of a case, on each side
MAX_SAMPLES = 10
EXTRA_PEAKS = 1  # further samples of memory per round


def compare(sides: Sequence[Path], names: list[str], seconds: float) -> list[Comparison]:
    """Measure cases on both sides, in rounds; then suspects again, and doubtful cases while there is time."""
    comparisons = [Comparison(name) for name in names]
    start = time.monotonic()
    for n in range(ROUNDS * (1 + REPEATS)):
        chosen = [c for c in comparisons if n == 0 or c.wants_more(n)]
        begun = time.monotonic()
        if n and begun + sum(c.seconds for c in chosen) > start + seconds:
            chosen = [c for c in chosen if c.needs_more(n)]
        if not chosen:
            break
        with ExitStack() as stack:
            workers = [Worker(side) for side in sides]
            for worker in workers:
                stack.callback(worker.stop)
            for number, comparison in enumerate(chosen, 1):
                before = time.monotonic()
                show(f"round {n + 1}: case {number} of {len(chosen)}, {before - start:.0f} s")
                measure(comparison, workers, head_first=bool(n % 2))
                comparison.seconds = time.monotonic() - before
        verdicts = [c.verdict for c in comparisons]
        show(
            f"round {n + 1}: {len(chosen)} cases, {time.monotonic() - begun:.0f} s; "
            f"{verdicts.count('suspect')} suspect, {verdicts.count('doubtful')} doubtful",
            keep=True,
        )
    return comparisons


def measure(comparison: Comparison, workers: Sequence[Worker], head_first: bool) -> None:
    """Add a round of samples to a comparison, both sides in alternation."""
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
            if head or not comparison.base:  # earlier samples of the base remain valid
                comparison.errors = base, head
            return None
        return [answer.get("figure", 0.0) for answer in answers]

    if ask({"build": comparison.case}, at_once=True) is None:
        return
    first = ask({"run": 1}, at_once=comparison.unit in NOISE_FREE_UNITS)
    if first is None:
        return
    samples, loops, count = [first], 1, EXTRA_PEAKS if comparison.unit == MIB else 0
    if comparison.unit == SECONDS:
        once = max(min(first), 1e-9)
        loops = max(1, min(round(SECONDS_PER_SAMPLE / once), round(SECONDS_PER_ROUND / max(first))))
        count = min(MAX_SAMPLES, round(2 * SECONDS_PER_ROUND / (loops * sum(first))))
    for _ in range(count):
        sample = ask({"run": loops})
        if sample is None:
            return
        samples.append(sample)
    comparison.base.append([base for base, _ in samples])
    comparison.head.append([head for _, head in samples])
