"""Samples of a case on both sides, the ratio of their minima, and the verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.suites import catalogue
from benchmarks.suites.base import (
    COUNT,
    EPOCHS,
    LIMIT_SHARE,
    MIB,
    MORE_IS_BETTER,
    PACKED_FMA,
    RMSE,
    SCORE,
    SECONDS,
    SPEED,
)

TOLERANCES = {  # times worse; none for counts
    SECONDS: 1.25,
    MIB: 1.10,
    RMSE: 1.005,
    SCORE: 1.02,
    SPEED: 1.25,
    LIMIT_SHARE: 1.25,
    EPOCHS: 1.25,
}
NOISE_FREE_UNITS = {RMSE, SCORE, COUNT, PACKED_FMA}  # not disturbed by another process on the machine
ROUNDS = 3
CONFIDENCE = 0.99
RESAMPLES = 2000

Samples = list[list[float]]  # round by round


@dataclass
class Comparison:
    """Samples of a case on both sides, and the verdict."""

    case: str
    base: Samples = field(default_factory=list)
    head: Samples = field(default_factory=list)
    errors: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # of base and head
    accepted: bool = False
    seconds: float = 0.0  # that the last round took

    @property
    def unit(self) -> str:
        """Unit of the samples."""
        return catalogue.unit(self.case)

    @property
    def tolerance(self) -> float:
        """How many times worse the case may be."""
        return TOLERANCES.get(self.unit, 1.0)

    @property
    def interval(self) -> tuple[float, float, float]:
        """How many times worse the working tree is, and the bounds of that ratio."""
        return ratio_of_minima(self.base, self.head, self.unit in MORE_IS_BETTER)

    @property
    def verdict(self) -> str:
        """The judgement, one word or two."""
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
        """Whether the case shuts the gate."""
        return self.verdict in ("WORSE", "suspect", "FAILS")

    @property
    def is_confirmed(self) -> bool:
        """Whether the regular rounds are done and, if there is any jitter, as many again."""
        jitters = any(len({x for part in side for x in part}) > 1 for side in (self.base, self.head))
        return self.unit not in TOLERANCES or len(self.base) >= (2 if jitters else 1) * ROUNDS

    def wants_more(self, n_rounds: int) -> bool:
        """Whether another round might change the judgement."""
        return self.needs_more(n_rounds) or (not any(self.errors) and self.verdict == "doubtful")

    def needs_more(self, n_rounds: int) -> bool:
        """Whether the rule asks for another round, however long that takes."""
        if any(self.errors) or self.unit not in TOLERANCES:
            return False
        return n_rounds < ROUNDS or self.verdict == "suspect"

    def best(self, side: Samples) -> float:
        """Return the best sample of a side."""
        return (max if self.unit in MORE_IS_BETTER else min)(x for part in side for x in part)

    def record(self) -> dict[str, Any]:
        """Return the entry of the JSON file."""
        figures: dict[str, Any] = {"case": self.case, "unit": self.unit, "verdict": self.verdict}
        if any(self.errors):
            return figures | {"errors": self.errors}
        ratio, low, high = self.interval
        samples = {"base": self.base, "head": self.head}
        return figures | {"ratio": ratio, "low": low, "high": high, "tolerance": self.tolerance} | samples


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


def table(comparisons: list[Comparison]) -> list[str]:
    """Return the lines of the table, those first that shut the gate."""
    rows: list[tuple[str, ...]] = [
        ("case", "unit", "base", "this tree", "times worse", "interval", "tolerance", "verdict")
    ]
    for c in sorted(comparisons, key=lambda c: not c.is_bad):
        cells: tuple[str, ...] = ("", "", "", "", "")
        if any(c.errors):
            cells = ("", "", (c.errors[1] or c.errors[0])["error"].split("\n")[0][:50], "", "")
        else:
            ratio, low, high = c.interval
            form = ".4g" if c.unit in TOLERANCES else ",.0f"
            figures = (format(c.best(side), form) for side in (c.base, c.head))
            cells = (*figures, f"{ratio:.3f}", f"{low:.3f} … {high:.3f}", f"{c.tolerance:g}")
        rows.append((c.case, c.unit, *cells, c.verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
