"""The gate: shut by a slower, larger or less accurate tree, and not by a machine that is busy."""

import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import repository
from benchmarks.gate import __main__ as gate
from benchmarks.gate import rounds as gate_rounds
from benchmarks.gate import tree as gate_tree
from benchmarks.gate.verdict import Comparison, ratio_of_minima, table
from benchmarks.suites import catalogue
from tests.helpers import ROOT

NO_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
SGD, BLOCKS = "mfkernel/methods/sgd.py", "mfkernel/methods/schedules/blocks.py"
PREDICTOR = "mfkernel/model/predictor.py"
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


@pytest.mark.slow
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


@pytest.mark.slow
@NO_GIT
def test_gate__fails_on_a_loss_of_quality_unless_the_commit_accepts_it(tree):
    replace(tree / SGD, "_REGULARIZATION = 0.07, ", "_REGULARIZATION = 0.02, ")
    status, printed, verdicts = run(tree, "HEAD", RMSE)
    assert status == 1, printed
    assert verdicts[RMSE]["verdict"] == "WORSE"
    assert 1.005 < verdicts[RMSE]["ratio"] < 1.1
    git(tree, "commit", "-q", "-a", "-m", f"Take less\n\nFor a reason.\n\nGate-Accepts: {RMSE}")
    status, printed, verdicts = run(tree, "HEAD~1", RMSE)
    assert status == 0, printed
    assert verdicts[RMSE]["verdict"] == "accepted"


@pytest.mark.slow
@NO_GIT
def test_gate__fails_on_any_increase_of_a_count(tree):
    old = "self._shuffle, self._seed = shuffle, seed\n"
    replace(
        tree / BLOCKS,
        old,
        f"{old}        self.needless = np.zeros(1)\n",
    )
    status, printed, verdicts = run(tree, "HEAD", "bytes: blocks")
    assert status == 1, printed
    assert verdicts["bytes: blocks"]["head"][0][0] == verdicts["bytes: blocks"]["base"][0][0] + 8


@pytest.mark.slow
@NO_GIT
def test_gate__fails_on_a_case_that_does_not_run_any_more(tree):
    replace(tree / PREDICTOR, "    def reconstruct(", "    def rebuild(")
    status, printed, verdicts = run(tree, "HEAD", "prediction: reconstruct, ml-100k-like")
    assert status == 1, printed
    assert verdicts["prediction: reconstruct, ml-100k-like"]["verdict"] == "FAILS"
    assert "AttributeError" in printed


@pytest.mark.slow
@NO_GIT
def test_gate__passes_a_case_that_the_base_does_not_know(tree):
    replace(tree / PREDICTOR, "    def reconstruct(", "    def rebuild(")
    git(tree, "commit", "-q", "-a", "-m", "Older")
    replace(tree / PREDICTOR, "    def rebuild(", "    def reconstruct(")
    name = "prediction: reconstruct, ml-100k-like"
    status, printed, verdicts = run(tree, "HEAD", name, "bytes: ratings")
    assert status == 0, printed
    assert "1 of 2 cases compared" in printed
    assert verdicts[name]["verdict"] == "new"
    assert run(tree, "HEAD", name)[0] == 3  # nothing at all is compared


@pytest.mark.slow
@NO_GIT
def test_gate__fails_where_the_process_of_the_tree_dies(tree):
    old = "self._shuffle, self._seed = shuffle, seed\n"
    replace(tree / BLOCKS, old, "import os\n        os.abort()\n")
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


@pytest.mark.slow
@NO_GIT
def test_gate__passes_no_change_while_every_core_is_busy(tree, monkeypatch):
    monkeypatch.setattr(repository, "ROOT", tree)
    sides = tree / "sides" / "base", tree / "sides" / "head"
    (tree / "sides").mkdir()
    gate_tree.lay_out(repository.git("rev-parse", "HEAD"), *sides)
    names = [FAST, "epoch: blocks, 2 threads, ml-100k-like, 32", "prediction: pairs, ml-100k-like", RMSE]
    with busy_cores():
        for _ in range(RUNS_UNDER_LOAD):
            found = gate_rounds.compare(sides, names, seconds=45)
            assert [c.case for c in found if c.is_bad] == [], "\n".join(table(found))


# What there is to compare with


@pytest.fixture
def history(tmp_path):
    """A small repository of three commits, in which the package is one empty file."""
    folder = tmp_path / "history"
    (folder / "mfkernel").mkdir(parents=True)
    (folder / "mfkernel" / "__init__.py").touch()
    git(folder, "init", "-q")
    git(folder, "add", ".")
    for subject in ("First", "Second", "Third"):
        git(folder, "commit", "-q", "--allow-empty", "-m", subject)
    return folder


def commits_of(folder):
    return subprocess.check_output(["git", "rev-list", "HEAD"], cwd=folder, text=True).split()


def gate_of(folder, monkeypatch, capsys, *arguments):
    """Run the gate on a folder without measuring; return its exit status and what it printed."""
    monkeypatch.setattr(repository, "ROOT", folder)
    monkeypatch.setattr(gate, "lay_out", lambda *_: None)
    monkeypatch.setattr(gate, "compare", lambda *_: [])
    try:
        gate.main([*arguments, "--json", str(folder / "gate.json")])
        status = 0
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@NO_GIT
def test_base__is_found_by_any_name(history, monkeypatch):
    monkeypatch.setattr(repository, "ROOT", history)
    third, second, first = commits_of(history)
    names = {"HEAD": third, "HEAD~1": second, "HEAD^^": first, second: second, first[:9]: first}
    assert {name: gate_tree.find_base(name) for name in names} == names


@NO_GIT
def test_base__is_ten_commits_back_by_default_or_the_first(history, monkeypatch):
    monkeypatch.setattr(repository, "ROOT", history)
    assert gate_tree.find_base(None) == commits_of(history)[-1]
    for n in range(12):
        git(history, "commit", "-q", "--allow-empty", "-m", f"More {n}")
    assert gate_tree.find_base(None) == commits_of(history)[10]


@NO_GIT
@pytest.mark.parametrize("base", [(), ("HEAD~1",), ("HEAD^",), ("HEAD~10",)])
def test_gate__passes_the_first_commit(base, history, monkeypatch, capsys):
    git(history, "checkout", "-q", commits_of(history)[-1])
    status, printed = gate_of(history, monkeypatch, capsys, *base)
    assert status == 0
    assert "nothing to compare with: this is the first commit" in printed


def fails(status, printed, *words):
    assert status == gate.NO_BASE == 3, printed
    for word in ("cannot compare with", *words):
        assert word in printed


@NO_GIT
@pytest.mark.parametrize("base", ["HEAD~3", "HEAD~10", "HEAD^^^"])
def test_gate__fails_where_the_history_is_too_short(base, history, monkeypatch, capsys):
    answer = gate_of(history, monkeypatch, capsys, base)
    fails(*answer, base, "does not reach back so far", f"the first commit is {commits_of(history)[-1][:8]}")


@NO_GIT
@pytest.mark.parametrize("base", [(), ("HEAD~1",), ("HEAD~10",), ("mistyped",)])
@pytest.mark.parametrize("depth", [1, 2])
def test_gate__fails_in_a_shallow_clone(base, depth, history, tmp_path, monkeypatch, capsys):
    clone = tmp_path / "clone"
    git(history, "clone", "-q", f"--depth={depth}", history.as_uri(), str(clone))
    if depth == 2 and base == ("HEAD~1",):
        assert gate_of(clone, monkeypatch, capsys, *base)[0] == 0
        base = (commits_of(history)[-1],)
    answer = gate_of(clone, monkeypatch, capsys, *base)
    fails(*answer, "this clone is shallow", "git fetch --unshallow", "fetch-depth: 0")


@NO_GIT
def test_gate__of_a_clone_of_a_shallow_clone_fails(history, tmp_path, monkeypatch, capsys):
    """As ``.ci/run`` makes one of what the checkout action leaves."""
    clone, copy = tmp_path / "clone", tmp_path / "copy"
    git(history, "clone", "-q", "--depth=1", history.as_uri(), str(clone))
    git(clone, "clone", "-q", str(clone), str(copy))
    fails(*gate_of(copy, monkeypatch, capsys), "this clone is shallow")


@NO_GIT
def test_gate__fails_without_a_repository(history, tmp_path, monkeypatch, capsys):
    (history / ".git").rename(tmp_path / "git")
    fails(*gate_of(history, monkeypatch, capsys, "HEAD"), "no git repository")


@NO_GIT
def test_gate__fails_without_git(history, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fails(*gate_of(history, monkeypatch, capsys, "HEAD"), "git is not installed")


@NO_GIT
def test_gate__fails_before_there_is_a_commit(history, monkeypatch, capsys):
    git(history, "checkout", "-q", "--orphan", "new")
    fails(*gate_of(history, monkeypatch, capsys, "HEAD"), "there is no commit yet")


@NO_GIT
def test_gate__fails_where_the_base_has_no_package(history, monkeypatch, capsys):
    git(history, "mv", "mfkernel", "other")
    git(history, "commit", "-q", "-m", "Without")
    fails(*gate_of(history, monkeypatch, capsys, "HEAD"), "has no package mfkernel")


@NO_GIT
def test_gate__fails_where_the_commit_is_elsewhere(history, monkeypatch, capsys):
    fails(*gate_of(history, monkeypatch, capsys, 40 * "1"), "git fetch origin 1111")


@NO_GIT
@pytest.mark.parametrize("arguments", [("mistyped",), ("HEAD2",), ("HEAD", "--only", "no such case")])
def test_gate__refuses_what_it_does_not_know(arguments, history, monkeypatch, capsys):
    status, printed = gate_of(history, monkeypatch, capsys, *arguments)
    assert status == 2
    assert "error:" in printed


def test_gate__says_that_a_base_is_optional(capsys):
    with pytest.raises(SystemExit):
        gate.main(["--help"])
    printed = capsys.readouterr().out
    assert "[BASE]" in printed
    assert "default: 10 commits back" in printed


@NO_GIT
def test_gate__is_a_program_with_these_statuses(tree, tmp_path_factory):
    (tree / ".git").rename(tmp_path_factory.mktemp("away") / "git")
    status, printed, _ = run(tree, "HEAD")
    assert (status, "no git repository" in printed) == (3, True)


# What decides


def measured(monkeypatch, figures, seconds=0.0, fails_in=None):
    """Run the rounds with given figures instead of measurements; return the comparison and its rounds."""
    rounds = itertools.count()

    def measure(comparison, workers, head_first):
        n = next(rounds)
        if n == fails_in:
            return
        base, head = figures(n)
        comparison.base.append(base)
        comparison.head.append(head)

    monkeypatch.setattr(gate_rounds, "measure", measure)
    monkeypatch.setattr(gate_rounds, "Worker", lambda side: SimpleNamespace(stop=lambda: None))
    (comparison,) = gate_rounds.compare((Path("base"), Path("head")), [FAST], seconds)
    return comparison, next(rounds)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_rule__confirms_what_is_wholly_above_the_tolerance_whatever_the_time(seconds, monkeypatch):
    comparison, rounds = measured(monkeypatch, lambda n: ([1.0, 1.1], [2.0, 2.1]), seconds)
    assert (comparison.verdict, rounds) == ("WORSE", 6)


def test_rule__what_is_not_confirmed_is_doubtful(monkeypatch):
    comparison, rounds = measured(monkeypatch, lambda n: ([1.0, 1.1], [2.0, 2.1] if n < 3 else [1.0, 1.1]))
    assert (comparison.verdict, rounds) == ("doubtful", 4)
    assert not comparison.is_bad


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 3), (60.0, 9)])
def test_rule__doubtful_cases_are_measured_again_while_there_is_time(seconds, expected, monkeypatch):
    comparison, rounds = measured(monkeypatch, lambda n: ([1.0], [1.0 if n == 1 else 2.0]), seconds)
    assert (comparison.verdict, rounds, comparison.is_bad) == ("doubtful", expected, False)


@pytest.mark.parametrize(("time", "expected"), [(0.0, 3), (60.0, 3)])
def test_rule__the_regular_rounds_take_place_whatever_the_time(time, expected, monkeypatch):
    comparison, rounds = measured(monkeypatch, lambda n: ([1.0, 1.1], [1.0, 1.1]), time)
    assert (comparison.verdict, rounds) == ("same", expected)


def test_rule__a_suspect_that_cannot_be_confirmed_shuts_the_gate(monkeypatch):
    comparison, rounds = measured(monkeypatch, lambda n: ([1.0, 1.1], [2.0, 2.1]), fails_in=4)
    assert (comparison.verdict, rounds) == ("WORSE", 7)  # a round more
    comparison = Comparison(FAST, 3 * [[1.0, 1.1]], 3 * [[2.0, 2.1]])
    assert (comparison.verdict, comparison.is_bad) == ("suspect", True)


@NO_GIT
def test_gate__states_the_rule_and_counts_the_doubtful(history, monkeypatch, capsys):
    doubtful = Comparison(FAST, [[1.0], [1.0]], [[1.0], [2.0]])
    monkeypatch.setattr(repository, "ROOT", history)
    monkeypatch.setattr(gate, "lay_out", lambda *_: None)
    monkeypatch.setattr(gate, "compare", lambda *_: [doubtful])
    gate.main(["HEAD", "--json", str(history / "gate.json")])
    printed = capsys.readouterr().out
    assert gate.RULE in printed
    assert "1 of 1 cases compared with HEAD; 1 doubtful." in printed
    written = json.loads((history / "gate.json").read_text(encoding="utf-8"))
    assert written["doubtful"] == [FAST]
    assert written["rule"] == gate.RULE.splitlines()


# The arithmetic


def test_ratio__is_that_of_the_minima_and_within_its_interval(rng):
    base = [list(1 + rng.exponential(0.3, 10)) for _ in range(3)]
    head = [list(1.5 + rng.exponential(0.3, 10)) for _ in range(3)]
    ratio, low, high = ratio_of_minima(base, head)
    assert ratio == min(map(min, head)) / min(map(min, base))
    assert low <= ratio <= high
    assert 1.3 < low < high < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("jitter", [0.05, 0.3, 1.0])
def test_ratio__seldom_condemns_what_has_not_changed(rng, jitter):
    """Samples as a busy machine gives them: a floor, and delays that are now and then long."""
    lows = []
    for _ in range(200):
        base, head = ([list(1 + rng.exponential(jitter, 10)) for _ in range(3)] for _ in range(2))
        lows.append(ratio_of_minima(base, head)[1])
    assert np.mean(np.array(lows) > 1.25) <= 0.01


def test_ratio__of_figures_that_are_better_if_larger():
    assert ratio_of_minima([[23.0]], [[20.0]], more_is_better=True) == (1.15, 1.15, 1.15)


def test_ratio__of_zeros():
    assert ratio_of_minima([[0.0]], [[0.0]]) == (1, 1, 1)
    assert ratio_of_minima([[0.0]], [[3.0]])[0] == np.inf


def verdict(base, head, case=FAST):
    return Comparison(case, base, head).verdict


def test_verdict__words():
    assert verdict([[1.0, 1.1]], [[1.0, 1.2]]) == "same"
    assert verdict(6 * [[1.0, 1.1]], 6 * [[2.0, 2.1]]) == "WORSE"
    assert verdict(3 * [[1.0, 1.1]], 3 * [[2.0, 2.1]]) == "suspect"  # not confirmed yet
    assert verdict([[2.0, 2.1]], [[1.0, 1.1]]) == "better"
    assert verdict([[1.0], [1.0]], [[1.0], [2.0]]) == "doubtful"
    assert verdict([[23.0]], [[22.0]], "packed FMA: 8") == "WORSE"
    assert verdict([[23.0]], [[24.0]], "packed FMA: 8") == "better"
    assert verdict(3 * [[0.9]], 3 * [[0.904]], RMSE) == "same"
    assert verdict(3 * [[0.9]], 3 * [[0.905]], RMSE) == "WORSE"


def test_verdict__of_errors():
    error, skip = {"error": "no"}, {"error": "no", "skip": True}
    words = [Comparison(FAST, errors=errors).verdict for errors in ((error, {}), ({}, error), ({}, skip))]
    assert words == ["new", "FAILS", "FAILS"]
    assert Comparison(FAST, errors=(skip, skip)).verdict == "not here"


@pytest.mark.slow
@NO_GIT
def test_gate__fails_on_a_figure_that_is_no_number(tree):
    old = "    def rmse(\n        self, R"
    wrong = f"    def rmse(self, *_):\n        return np.nan\n\n{old.replace('rmse', 'old')}"
    replace(tree / PREDICTOR, old, wrong)
    status, printed, verdicts = run(tree, "HEAD", RMSE)
    assert status == 1, printed
    assert verdicts[RMSE]["verdict"] == "FAILS"
    assert "the figure is nan" in printed


def test_default_patterns__have_cases():
    for pattern in gate.DEFAULT_PATTERNS:
        assert gate.select([pattern]), pattern
    assert len(gate.select(gate.DEFAULT_PATTERNS)) < len(catalogue.CASES)
