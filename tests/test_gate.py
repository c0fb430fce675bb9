"""The gate: shut by a slower, larger or less accurate tree, and not by a machine that is busy."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks import cases, gate, results
from tests.forms import ROOT

NO_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
FAST = "kernel: tiles, 64, float32"
RMSE = "error: blocks, ml-100k-like, 32"
RUNS_UNDER_LOAD = int(os.environ.get("MFKERNEL_GATE_RUNS", "1"))


def git(folder, *arguments):
    name = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def tree(tmp_path):
    """A repository of its own with one commit of this package."""
    for part in ("mfkernel", "benchmarks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "As it was")
    return tmp_path


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} has changed: plant the fault elsewhere"
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(tree, base, *patterns):
    """Run the gate; return its exit status, what it printed, and its verdicts."""
    only = [word for pattern in patterns for word in ("--only", pattern)]
    command = [sys.executable, "-m", "benchmarks.gate", base, *only, "--json", str(tree / "gate.json")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=300)
    verdicts = {}
    if (tree / "gate.json").exists():
        records = json.loads((tree / "gate.json").read_text(encoding="utf-8"))["cases"]
        verdicts = {record["case"]: record for record in records}
    return done.returncode, done.stdout + done.stderr, verdicts


@NO_GIT
def test_gate__fails_on_needless_work_in_a_kernel(tree):
    update = "e = residual(loss, r, score(biases, u, i, pq))\n"
    slow = update + "    for _ in range(16):\n        e += e * (lr - lr)\n"
    replace(tree / "mfkernel" / "kernels" / "sgd.py", update, slow)
    status, printed, verdicts = run(tree, "HEAD", FAST, "bytes: blocks")
    assert status == 1, printed
    assert f"worse than HEAD: {FAST}\n" in printed
    assert verdicts[FAST]["verdict"] == "WORSE"
    assert verdicts[FAST]["low"] > 1.25
    assert verdicts["bytes: blocks"]["verdict"] == "same"


@NO_GIT
def test_gate__fails_on_a_loss_of_quality_unless_the_commit_accepts_it(tree):
    replace(tree / "mfkernel" / "defaults.py", "else 0.07\n", "else 0.02\n")
    status, printed, verdicts = run(tree, "HEAD", RMSE)
    assert status == 1, printed
    assert verdicts[RMSE]["verdict"] == "WORSE"
    assert 1.005 < verdicts[RMSE]["ratio"] < 1.1
    git(tree, "commit", "-q", "-a", "-m", f"Take less\n\nFor a reason.\n\nGate-Accepts: {RMSE}")
    status, printed, verdicts = run(tree, "HEAD~1", RMSE)
    assert status == 0, printed
    assert verdicts[RMSE]["verdict"] == "accepted"


@NO_GIT
def test_gate__fails_on_any_increase_of_a_count(tree):
    old = "self._shuffle, self._seed = shuffle, seed\n"
    replace(tree / "mfkernel" / "blocks.py", old, f"{old}        self.needless = np.zeros(1)\n")
    status, printed, verdicts = run(tree, "HEAD", "bytes: blocks")
    assert status == 1, printed
    assert verdicts["bytes: blocks"]["head"][0][0] == verdicts["bytes: blocks"]["base"][0][0] + 8


@NO_GIT
def test_gate__fails_on_a_case_that_does_not_run_any_more(tree):
    replace(tree / "mfkernel" / "factors.py", "    def reconstruct(", "    def rebuild(")
    status, printed, verdicts = run(tree, "HEAD", "prediction: reconstruct, ml-100k-like")
    assert status == 1, printed
    assert verdicts["prediction: reconstruct, ml-100k-like"]["verdict"] == "FAILS"
    assert "AttributeError" in printed


@NO_GIT
def test_gate__passes_a_case_that_the_base_does_not_know(tree):
    replace(tree / "mfkernel" / "factors.py", "    def reconstruct(", "    def rebuild(")
    git(tree, "commit", "-q", "-a", "-m", "Older")
    replace(tree / "mfkernel" / "factors.py", "    def rebuild(", "    def reconstruct(")
    name = "prediction: reconstruct, ml-100k-like"
    status, printed, verdicts = run(tree, "HEAD", name, "bytes: ratings")
    assert status == 0, printed
    assert "1 of 2 cases compared" in printed
    assert verdicts[name]["verdict"] == "new"
    assert run(tree, "HEAD", name)[0] == 2  # nothing at all is compared


@NO_GIT
def test_gate__fails_where_the_process_of_the_tree_dies(tree):
    old = "self._shuffle, self._seed = shuffle, seed\n"
    replace(tree / "mfkernel" / "blocks.py", old, "import os\n        os.abort()\n")
    status, printed, verdicts = run(tree, "HEAD", "packed FMA: 8", "bytes: ratings", "bytes: blocks")
    assert status == 1, printed
    words = [verdicts[name]["verdict"] for name in ("packed FMA: 8", "bytes: ratings", "bytes: blocks")]
    assert words == ["same", "FAILS", "FAILS"]  # every model is fitted by blocks
    assert "exit status" in printed


@contextmanager
def busy_cores():
    """Keep every core busy."""
    context = multiprocessing.get_context("spawn")
    burners = [context.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()


def burn():
    x = np.random.default_rng(0).random(1_000_000)
    while True:
        np.tanh(x, out=x)


@NO_GIT
def test_gate__passes_no_change_while_every_core_is_busy(tree, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tree)
    sides = tree / "sides" / "base", tree / "sides" / "head"
    (tree / "sides").mkdir()
    gate.lay_out(results.git("rev-parse", "HEAD"), *sides)
    names = [FAST, "epoch: blocks, 2 threads, ml-100k-like, 32", "prediction: pairs, ml-100k-like", RMSE]
    with busy_cores():
        for _ in range(RUNS_UNDER_LOAD):
            verdicts = gate.compare(sides, names, seconds=45)
            assert [v.case for v in verdicts if v.is_bad] == [], "\n".join(gate.table(verdicts))


@NO_GIT
@pytest.mark.parametrize(
    ("base", "reason"),
    [("HEAD~1", "the history does not reach back"), ("HEAD^", "the history does not reach back")],
)
def test_gate__passes_and_says_so_where_there_is_no_base(tree, base, reason):
    status, printed, _ = run(tree, base)
    assert (status, "nothing to compare with" in printed, reason in printed) == (0, True, True)


@NO_GIT
def test_gate__passes_and_says_so_in_a_shallow_clone(tree, tmp_path_factory):
    git(tree, "commit", "-q", "--allow-empty", "-m", "Newer")
    clone = tmp_path_factory.mktemp("clone") / "tree"
    git(tree, "clone", "-q", "--depth", "1", tree.as_uri(), str(clone))
    base = subprocess.check_output(["git", "rev-parse", "HEAD~1"], cwd=tree, text=True).strip()
    status, printed, _ = run(clone, base)
    assert status == 0
    assert "this clone is shallow" in printed


@NO_GIT
def test_gate__passes_and_says_so_without_a_repository(tree, tmp_path_factory):
    (tree / ".git").rename(tmp_path_factory.mktemp("away") / "git")
    status, printed, _ = run(tree, "HEAD")
    assert status == 0
    assert "no git repository" in printed


@NO_GIT
@pytest.mark.parametrize("arguments", [("mistyped",), ("HEAD2",), ("HEAD", "no such case"), ()])
def test_gate__refuses_what_it_does_not_know(tree, arguments):
    status, printed, _ = run(tree, *arguments) if arguments else run(tree, "--minutes=1")
    assert status == 2
    assert "error:" in printed


# The arithmetic


def test_ratio__is_that_of_the_minima_and_within_its_interval(rng):
    base = [list(1 + rng.exponential(0.3, 10)) for _ in range(3)]
    head = [list(1.5 + rng.exponential(0.3, 10)) for _ in range(3)]
    ratio, low, high = gate.ratio_of_minima(base, head)
    assert ratio == min(map(min, head)) / min(map(min, base))
    assert low <= ratio <= high
    assert 1.3 < low < high < 1.7


@pytest.mark.parametrize("jitter", [0.05, 0.3, 1.0])
def test_ratio__seldom_condemns_what_has_not_changed(rng, jitter):
    """Samples as a busy machine gives them: a floor, and delays that are now and then long."""
    lows = []
    for _ in range(200):
        base, head = ([list(1 + rng.exponential(jitter, 10)) for _ in range(3)] for _ in range(2))
        lows.append(gate.ratio_of_minima(base, head)[1])
    assert np.mean(np.array(lows) > 1.25) <= 0.01


def test_ratio__of_figures_that_are_better_if_larger():
    assert gate.ratio_of_minima([[23.0]], [[20.0]], more_is_better=True) == (1.15, 1.15, 1.15)


def test_ratio__of_zeros():
    assert gate.ratio_of_minima([[0.0]], [[0.0]]) == (1, 1, 1)
    assert gate.ratio_of_minima([[0.0]], [[3.0]])[0] == np.inf


def verdict(base, head, case=FAST):
    return gate.Verdict(case, base, head).word


def test_verdict__words():
    assert verdict([[1.0, 1.1]], [[1.0, 1.2]]) == "same"
    assert verdict(6 * [[1.0, 1.1]], 6 * [[2.0, 2.1]]) == "WORSE"
    assert verdict(3 * [[1.0, 1.1]], 3 * [[2.0, 2.1]]) == "doubtful"  # not confirmed yet
    assert verdict([[2.0, 2.1]], [[1.0, 1.1]]) == "better"
    assert verdict([[1.0], [1.0]], [[1.0], [2.0]]) == "doubtful"
    assert verdict([[23.0]], [[22.0]], "packed FMA: 8") == "WORSE"
    assert verdict([[23.0]], [[24.0]], "packed FMA: 8") == "better"
    assert verdict(3 * [[0.9]], 3 * [[0.904]], RMSE) == "same"
    assert verdict(3 * [[0.9]], 3 * [[0.905]], RMSE) == "WORSE"


def test_verdict__of_errors():
    error, skip = {"error": "no"}, {"error": "no", "skip": True}
    words = [gate.Verdict(FAST, errors=errors).word for errors in ((error, {}), ({}, error), ({}, skip))]
    assert words == ["new", "FAILS", "FAILS"]
    assert gate.Verdict(FAST, errors=(skip, skip)).word == "not here"


@NO_GIT
def test_gate__fails_on_a_figure_that_is_no_number(tree):
    wrong = "    def rmse(self, *_):\n        return np.nan\n\n    def old(self, R"
    replace(tree / "mfkernel" / "factors.py", "    def rmse(self, R", wrong)
    status, printed, verdicts = run(tree, "HEAD", RMSE)
    assert status == 1, printed
    assert verdicts[RMSE]["verdict"] == "FAILS"
    assert "the figure is nan" in printed


def test_short_suite__has_cases_for_every_pattern():
    for pattern in gate.SHORT:
        assert gate.select([pattern]), pattern
    assert len(gate.select(gate.SHORT)) < len(cases.CASES)
