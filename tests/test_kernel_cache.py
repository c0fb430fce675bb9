"""Compiled kernels are kept on disk, never run after what they are made of has changed, and never missed."""

import logging
import re
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.kernels import jit
from tests.helpers import COMPILED, quick
from tests.processes import run_command

pytestmark = COMPILED

PACKAGE = Path(mf.__file__).parent
COUNT = (
    "import logging, numpy as np; logging.basicConfig(level='WARNING')\n"
    "from mfkernel.kernels.csr import count\n"
    "out = np.zeros(3, np.int64); count(np.array([0, 2, 2], np.int32), out); print(out.tolist())"
)
ERROR = (
    "import numpy as np\n"
    "from mfkernel.kernels.sgd import FactorRows, squared_errors\n"
    "from mfkernel.kernels.vectors import rank_token\n"
    "P = np.ones((1, 8), np.float32); i = np.zeros(1, np.int32)\n"
    "print(squared_errors(i, i, np.zeros(1, np.float32), FactorRows(P, P, rank_token(8)), None, None))"
)


def run(code: str, cache: Path, root: Path = PACKAGE.parent, before: str = "") -> CompletedProcess[str]:
    """Run code with this folder as its cache, after a command of the shell."""
    command = ["bash", "-c", f'{before} exec "$0" -c "$1"', sys.executable, code]
    environment = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    return run_command(*command, environment=environment, cwd=root if root.is_dir() else root.parent)


def files(cache: Path, suffix: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob(f"*{suffix}")}


@pytest.fixture
def copy(tmp_path):
    """Return the root of a copy of the package."""
    root = tmp_path / "root"
    shutil.copytree(PACKAGE, root / "mfkernel", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.slow
def test_upgrade__of_what_is_compiled_into_a_kernel_is_heeded(copy, tmp_path):
    """The dot product stands in another file than the kernel that it becomes a part of."""
    assert float(run(ERROR, tmp_path / "cache", copy).stdout) == 64  # (8 - 0)²
    first = files(tmp_path / "cache", ".nbc")
    assert float(run(ERROR, tmp_path / "cache", copy).stdout) == 64
    assert files(tmp_path / "cache", ".nbc") == first  # nothing was compiled
    source = copy / "mfkernel" / "kernels" / "vectors.py"
    text = source.read_text()
    changed = text.replace("total = ir.Constant(p.number, 0.0)", "total = ir.Constant(p.number, 2.0)")
    assert changed != text
    source.write_text(changed)
    assert float(run(ERROR, tmp_path / "cache", copy).stdout) == 100  # (10 - 0)²
    assert float(run(ERROR, tmp_path / "cache", copy).stdout) == 100


SOURCES = sorted((PACKAGE / "kernels").glob("*.py"))


@pytest.mark.slow
def test_stamp__is_another_for_each_source_and_setting(copy, tmp_path):
    code = "from mfkernel.kernels.jit import stamp; print(stamp())"
    stamps = [run(code, tmp_path, copy).stdout]
    assert run(code, tmp_path, copy).stdout == stamps[0]
    for path in SOURCES:
        with (copy / "mfkernel" / "kernels" / path.name).open("a") as file:
            file.write("\n# changed\n")
        stamps.append(run(code, tmp_path, copy).stdout)
    stamps.append(run(code, tmp_path, copy, "export NUMBA_BOUNDSCHECK=1;").stdout)
    stamps.append(run(code, tmp_path, copy, "export NUMBA_OPT=1;").stdout)
    assert "" not in stamps
    assert len(set(stamps)) == len(SOURCES) + 3


def test_sources__are_all_that_kernels_import():
    """A kernel that takes in another file would keep its old machine code when that file changes."""
    for path in SOURCES:
        imported = re.findall(r"^ *(?:from|import) (mfkernel[\w.]*)", path.read_text(), re.MULTILINE)
        assert all(name.startswith("mfkernel.kernels") for name in imported), path


DAMAGES = {
    "empty": lambda x: b"",
    "cut off": lambda x: x[: len(x) // 2],
    "garbage": lambda x: b"\x80\x05garbage",
    "reversed": lambda x: x[::-1],
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", quick([".nbi", ".nbc"], ".nbc"))
@pytest.mark.parametrize("damage", quick(list(DAMAGES), "empty", "cut off"))
def test_cache__that_is_damaged_costs_a_compilation(tmp_path, suffix, damage):
    assert run(COUNT, tmp_path).stdout == "[1, 0, 2]\n"
    damaged = list(tmp_path.rglob(f"*{suffix}"))
    assert damaged
    for path in damaged:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for _ in range(2):
        done = run(COUNT, tmp_path)
        assert (done.returncode, done.stdout) == (0, "[1, 0, 2]\n"), done.stderr
        kept = files(tmp_path, ".nbc")
    assert run(COUNT, tmp_path).returncode == 0
    assert files(tmp_path, ".nbc") == kept  # mended for good


@pytest.mark.slow
def test_cache__that_cannot_be_written_is_said_once(tmp_path):
    two = COUNT + "\nfrom mfkernel.kernels.csr import is_sorted; is_sorted(np.zeros(3, np.int64))"
    done = run(two, tmp_path, before="ulimit -f 1;")
    assert (done.returncode, done.stdout) == (0, "[1, 0, 2]\n"), done.stderr
    assert done.stderr.count("cannot be written") == 1
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert run(two, tmp_path / "fine").stderr == ""


def test_cache__errors_never_reach_the_caller(monkeypatch, caplog):
    """Whatever Numba's cache raises, when it reads and when it writes."""

    class Broken:
        def load_overload(self, *arguments):
            raise MemoryError

        save_overload = load_overload

        def flush(self):
            raise OSError("no room")

    broken = Broken()
    jit._tolerate_faults(broken)
    jit._warn_uncached_once.cache_clear()
    with caplog.at_level(logging.WARNING, "mfkernel"):
        for _ in range(3):
            assert broken.load_overload("signature", "target") is None
            assert broken.save_overload("signature", "result") is None
    assert len(caplog.records) == 1
    jit._tolerate_faults(None)  # without the JIT there is no cache


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    quick([{}, {"method": "als"}, {"method": "implicit", "solver": "cg"}, {"schedule": "hogwild"}], {}),
)
def test_history__leaves_compilation_out(options, tmp_path):
    """In a fresh process with an empty cache, where compiling takes seconds."""
    code = (
        "import time, mfkernel as mf\n"
        "R = mf.datasets.synthetic(300, 200, 6000)\n"
        "start = time.perf_counter()\n"
        f"model = mf.factorize(R, 8, rng=0, epochs=3, n_threads=1, validation=0.1, **{options!r})\n"
        "whole = time.perf_counter() - start\n"
        "print(whole, *[x.seconds for x in model.history])"
    )
    done = run(code, tmp_path)
    whole, *epochs = map(float, done.stdout.split())
    assert sum(epochs) < 0.1 * whole, done.stderr  # milliseconds, of seconds


@pytest.mark.slow
def test_package__works_from_a_zip(tmp_path):
    """Where Numba finds no file to keep kernels for."""
    shutil.make_archive(str(tmp_path / "package"), "zip", PACKAGE.parent, "mfkernel")
    done = run(COUNT, tmp_path / "cache", tmp_path / "package.zip")
    assert (done.returncode, done.stdout) == (0, "[1, 0, 2]\n"), done.stderr


@pytest.mark.slow
def test_results__are_the_same_from_the_cache_and_without(tmp_path):
    code = (
        "import numpy as np, mfkernel as mf\n"
        "model = mf.factorize(mf.datasets.synthetic(100, 80, 1500), 4, rng=0, epochs=2)\n"
        "print(float(np.abs(model.P).sum()))"
    )
    answers = [
        run(code, tmp_path).stdout,
        run(code, tmp_path).stdout,
        run(code, tmp_path, before="ulimit -f 1;").stdout,
    ]
    assert answers[0]
    assert len(set(answers)) == 1
    assert float(answers[0]) == pytest.approx(
        np.abs(mf.factorize(mf.datasets.synthetic(100, 80, 1500), 4, rng=0, epochs=2).P).sum()
    )
