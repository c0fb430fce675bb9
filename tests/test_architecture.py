"""The layers of the package, and that what the documents show is true."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import mfkernel as mf
from tests.forms import ROOT

MODULES = [name for _, name, _ in pkgutil.walk_packages(mf.__path__, "mfkernel.") if "__main__" not in name]


def test_imports__go_downwards():
    """The contract is in pyproject.toml, under [tool.importlinter]."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_imports__every_module_has_its_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = set(re.findall(r"mfkernel\.\w+", " ".join(contracts[0]["layers"]))) | {"mfkernel.reference"}
    assert {".".join(name.split(".")[:2]) for name in MODULES} <= layered


@pytest.mark.parametrize("name", MODULES)
def test_docstrings__examples_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_public_names__are_sorted_and_documented():
    assert sorted(mf.__all__) == mf.__all__
    assert all(getattr(mf, name).__doc__ for name in mf.__all__)


def test_readme__python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_sources__compile_options_live_in_one_place():
    """`fastmath=True` would hide nan; a second place for options would break the cache."""
    for path in (ROOT / "mfkernel").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name not in ("_jit.py", "_simd.py", "_tile.py"):
            assert not re.search(r"\b(njit|prange|fastmath|import numba|from numba)\b", text), path


def test_workflows__call_steps_that_there_are():
    steps = set(re.findall(r"^    (\w+)\)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    called = []
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        called += re.findall(r"\.ci/run ([\w ]+)", workflow.read_text(encoding="utf-8"))
    assert steps == {step for line in called for step in line.split()}


def test_oldest_versions__are_those_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^(\w+)==([\d.]+)\.\*", oldest, re.MULTILINE)) == sorted(
        tuple(dependency.split(">=")) for dependency in package["dependencies"]
    )
