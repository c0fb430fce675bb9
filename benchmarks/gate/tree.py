"""The two trees that are compared: the base, which a name of a commit says, and the working tree."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks import repository
from benchmarks.repository import git

COMMITS_BACK = 10  # from HEAD to the default base: so far that small losses add up


class NoBaseError(Exception):
    """There is no commit to compare with; the message names the remedy."""


def find_base(name: str | None) -> str | None:
    """Return the commit of a name, or the default one; None if HEAD is the first commit, which has none.

    Raises
    ------
    NoBaseError
        If there is a reason why the commit is missing.
    ValueError
        If the name is none of a commit.
    """
    _check_repository()
    is_shallow = git("rev-parse", "--is-shallow-repository") == "true"
    is_first = not is_shallow and not git("rev-parse", "--verify", "--quiet", "HEAD^")
    history = git("rev-list", "--first-parent", f"--max-count={COMMITS_BACK + 1}", "HEAD").split()
    if name is None:
        if is_first:
            return None
        commit = history[-1] if len(history) > COMMITS_BACK or not is_shallow else ""
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


def _check_repository() -> None:
    root = repository.ROOT
    if not (root / ".git").exists():
        raise NoBaseError(f"{root} is no git repository; clone the project with git")
    if shutil.which("git") is None or not git("rev-parse", "--git-dir"):
        raise NoBaseError("git is not installed, or refuses this repository: see what git status says")
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        raise NoBaseError("there is no commit yet; make one")


def lay_out(base: str, base_side: Path, head_side: Path) -> None:
    """Copy the package as it was and as it is, each beside the benchmarks of the working tree."""
    command = ["git", "archive", "--format=tar", "-o", f"{base_side}.tar", base, "mfkernel"]
    subprocess.run(command, cwd=repository.ROOT, check=True)
    with tarfile.open(f"{base_side}.tar") as tar:
        tar.extractall(base_side, filter="data")
    ignored = shutil.ignore_patterns("__pycache__", "results")
    shutil.copytree(repository.ROOT / "mfkernel", head_side / "mfkernel", ignore=ignored)
    for side in (base_side, head_side):
        shutil.copytree(repository.ROOT / "benchmarks", side / "benchmarks", ignore=ignored)
