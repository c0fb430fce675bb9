"""Stored results, from which tables and pictures are generated; each says how it was measured."""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import probes

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "stored"

Stored = dict[str, Any]  # "command", "date", "machine", settings, and "rows"


def described(command: str, rows: list[dict[str, Any]], **settings: Any) -> Stored:
    """Add to figures what they were measured by, when and on what."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command, "date": today, "machine": probes.machine(), **settings, "rows": rows}


def store(name: str, results: Stored) -> None:
    """Keep results, instead of those of that name."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(_rounded(results), indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def load(name: str) -> Stored:
    """Return the results of a name."""
    stored: Stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return stored


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def git(*arguments: str) -> str:
    """Return what git says of this repository, "" if it has nothing to say."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _rounded(value: Any) -> Any:
    """Return figures to six digits, which is more than any is good for."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
