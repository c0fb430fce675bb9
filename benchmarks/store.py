"""Stored results, from which tables and pictures are generated; each says how it was measured."""

import datetime
import json
from typing import Any

from benchmarks import probes, repository

FOLDER = repository.ROOT / "benchmarks" / "results"

Results = dict[str, Any]  # "command", "date", "machine", settings, and "rows"


def with_provenance(command: str, rows: list[dict[str, Any]], **settings: Any) -> Results:
    """Add to figures the command that measured them, the date and the machine."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command, "date": today, "machine": probes.machine(), **settings, "rows": rows}


def save(name: str, results: Results) -> None:
    """Store results in place of those of that name."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(_rounded(results), indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def load(name: str) -> Results:
    """Return the stored results of a name."""
    results: Results = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return results


def _rounded(value: Any) -> Any:
    """Return figures to six digits, beyond which none is exact."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
