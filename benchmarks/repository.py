"""The repository that the benchmarks belong to."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def git(*arguments: str) -> str:
    """Return the output of git for this repository, or "" if the command fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
