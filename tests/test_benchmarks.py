"""Every case of the catalogue, once; ``--benchmark-enable`` times them.

Of cases that differ in size only, the smaller is executed; plain runs, which leave out what is slow, execute
one case of each suite.
"""

import gzip
import importlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mfkernel as mf
from benchmarks import asv_suites, data, private, probes, progress, repository, store, tune
from benchmarks.suites import catalogue, sgd
from benchmarks.suites.base import SECONDS
from benchmarks.tables import __main__ as tables
from benchmarks.tables import als, history, pages
from tests.helpers import ROOT, quick

SLOW = ("epoch: naive loop", "epoch: numpy reference", "start: first call")
LONG = ("als ", "memory", "fit memory", "start", "search", "signatures", "share of limit", "question")
MOST_ROUNDS = 20
TIME = 0.5  # seconds that a case takes in all, about


TIMED = [name for name in catalogue.CASES if catalogue.unit(name) == SECONDS]
ERRORS = [name for name in catalogue.CASES if name.startswith("error: ")]
FIGURES = [name for name in catalogue.CASES if name not in TIMED]


def small(names):
    """Return the names without those of a large set that are there with a small one, too."""
    large = {name.replace("ml-100k-like", "ml-1m-like") for name in names if "ml-100k-like" in name}
    return [name for name in names if name not in large]


def one_of_each(names):
    """Return the names; of each suite, all but the first are slow, and of those that take long, all."""
    chosen = {catalogue.CASES[name][0]: name for name in reversed(names) if not name.startswith(SLOW + LONG)}
    return quick(names, *chosen.values())


def pytest_generate_tests(metafunc):
    if metafunc.function is test_time:
        timing = metafunc.config.getoption("benchmark_enable")
        metafunc.parametrize("name", TIMED if timing else one_of_each(small(TIMED)))


def test_time(name, benchmark):
    suite, parameters = catalogue.CASES[name]
    benchmark.group = f"{suite}: {', '.join(parameters[1:])}"
    case = catalogue.build(name)
    if name.startswith(SLOW) or benchmark.disabled:
        benchmark.pedantic(case)
    else:
        rounds = int(TIME / max(probes.clock(case), 1e-9))
        benchmark.pedantic(case, rounds=min(MOST_ROUNDS, max(1, rounds)), warmup_rounds=1)


@pytest.mark.parametrize("name", one_of_each(small(FIGURES)))
def test_figure(name):
    try:
        figure = catalogue.build(name)()
    except NotImplementedError as error:
        pytest.skip(str(error))
    assert 0 <= figure < float("inf")


@pytest.mark.parametrize(
    "name", quick(ERRORS, "error: blocks, ml-100k-like, 32", "error: blocks, ml-100k-like, 8")
)
def test_error__is_far_below_that_of_the_mean(name):
    _, size, _ = catalogue.CASES[name][1]
    assert catalogue.build(name)() < 0.87 * data.generated(size).std


@pytest.mark.slow
def test_sequential__is_hundreds_of_times_faster_than_the_naive_loop():
    R = data.generated("ml-100k-like").select(data.generated("ml-100k-like").users < 200)
    naive, sequential = (sgd.CONFIGURATIONS[name](R, 32) for name in ("naive loop", "sequential"))
    times = {naive: [], sequential: []}
    for _ in range(2):
        for epoch, repeats in ((naive, 1), (sequential, 20)):
            times[epoch] += [probes.clock(epoch) for _ in range(repeats)]
    assert statistics.median(times[naive]) / statistics.median(times[sequential]) >= 200


@pytest.mark.parametrize("name", private.WHERE)
def test_private_names__are_found_where_they_are_now(name):
    module, _, attribute = private.WHERE[name][0].rpartition(".")
    assert getattr(private, name) is getattr(importlib.import_module(f"mfkernel.{module}"), attribute)


def test_private_names__are_found_where_they_were(monkeypatch):
    monkeypatch.setitem(private.WHERE, "jit", ("no.such.jit", "engine.jit", *private.WHERE["jit"]))
    assert callable(private.jit)
    monkeypatch.setitem(private.WHERE, "jit", ("no.such.jit", "engine.jit"))
    with pytest.raises(ImportError, match=r"none of no\.such\.jit, engine\.jit"):
        _ = private.jit
    with pytest.raises(AttributeError, match="no attribute 'tij'"):
        _ = private.tij


def test_private_names__of_fields_may_be_earlier_ones():
    assert private.field(private.Problem, "no_such_field", "seed") == "seed"
    assert private.field(private.Problem, "k", "seed") == "k"


def test_private_names__are_imported_in_one_place():
    for path in (ROOT / "benchmarks").rglob("*.py"):
        assert not re.search(
            r"^ *(from|import) mfkernel\.|from mfkernel import", path.read_text("utf-8"), re.M
        ), path


def test_names__are_strings_that_last():
    for suite in catalogue.SUITES.values():
        for values in suite.parameters.values():
            assert all(type(value) is str and "0x" not in value for value in values)
    assert len(set(catalogue.CASES)) == sum(len(suite.combinations()) for suite in catalogue.SUITES.values())


def test_asv__sees_every_suite_once():
    methods = []
    for name, found in vars(asv_suites).items():
        if hasattr(found, "param_names") and not name.startswith("_"):
            methods += [name for name in vars(found) if name.startswith(("time_", "track_", "peakmem_"))]
            assert type(found.version) is str  # or it would be a hash of the code
    names = sorted(name.partition("_")[2].replace("_", " ") for name in methods if "peakmem" not in name)
    assert names == sorted(name.lower() for name in catalogue.SUITES)
    assert "peakmem_fit" in methods


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.name)
def test_pages__have_the_tables_that_the_stored_results_say(path):
    text = path.read_text(encoding="utf-8")
    assert pages.with_tables(text, pages.PAGES[path]) == text, f"run {pages.COMMAND}"


@pytest.mark.parametrize(
    ("path", "mark"), [(path, mark) for path in pages.PAGES for mark in pages.PAGES[path]]
)
def test_pages__of_other_results_would_be_others(path, mark, tmp_path, monkeypatch):
    text, (name, _) = path.read_text(encoding="utf-8"), pages.PAGES[path][mark]
    folder = shutil.copytree(store.FOLDER, tmp_path / "results")
    monkeypatch.setattr(store, "FOLDER", Path(folder))
    store.save(name, store.load(name) | {"machine": "Another machine."})
    assert pages.with_tables(text, pages.PAGES[path]) != text


def test_tables__render_what_is_stored():
    for name, table in tables.TABLES.items():
        results = store.load(name)
        assert results["machine"] in table.render(results)


@pytest.mark.slow
def test_peak__is_what_a_call_adds_to_what_is_held():
    held = np.ones(2**21)
    for size in (32, 8, 64):  # MiB
        assert probes.peak_of(lambda size=size: np.ones(size * 2**17)) == pytest.approx(size, abs=0.1)
    assert held.all()


# the commands: what they say of wrong arguments, and that they say something meanwhile

TAKE_DATA = {
    "speed": [],
    "als": ["--set", "ML-100K"],
    "accuracy": [],
    "rankings": [],
    "libraries": ["--set", "ML-1M", "--set", "ML-100K"],
}


def ending(name, capsys, *arguments):
    """Run a command that ends at once; return its exit status and the last line on stderr."""
    with pytest.raises(SystemExit) as end:
        tables.main([name, *TAKE_DATA[name], *arguments])
    error = capsys.readouterr().err
    if isinstance(end.value.code, str):
        return 1, end.value.code
    return end.value.code, error.splitlines()[-1]


@pytest.fixture
def folder(tmp_path):
    """A folder of the files that a command looks for, three ratings each."""
    for name in (*data.FILES.values(), *data.FOLDS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = "userId,movieId,rating\n1,1,5\n2,1,3\n2,2,4\n" if "csv" in name else "1\t1\t5\t0\n2\t1\t3\t0\n"
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return tmp_path


@pytest.mark.parametrize("name", TAKE_DATA)
def test_data__that_is_no_folder_is_one_line(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for place in ("nowhere", "file"):
        status, line = ending(name, capsys, "--data", str(tmp_path / place))
        assert (status, f"{tmp_path / place} is no folder" in line) == (2, True)
        monkeypatch.setenv("MFKERNEL_DATA", str(tmp_path / place))
        assert ending(name, capsys) == (2, line)


@pytest.mark.parametrize("name", TAKE_DATA)
def test_data__without_the_files_is_one_line(name, folder, capsys):
    (folder / "ml-100k" / "u.data").unlink()
    status, line = ending(name, capsys, "--data", str(folder))
    assert (status, f"--data must hold ml-100k/u.data, {folder} does not" in line) == (2, True)


@pytest.mark.parametrize("name", ["accuracy", "libraries"])
def test_data__without_the_folds_is_one_line(name, folder, capsys):
    (folder / "ml-100k" / "u4.test").unlink()
    status, line = ending(name, capsys, "--data", str(folder))
    assert (status, "--data must hold ml-100k/u4.test" in line) == (2, True)


@pytest.mark.parametrize("name", ["als", "accuracy", "rankings", "libraries"])
def test_data__is_asked_for_where_a_set_needs_it(name, monkeypatch, capsys):
    monkeypatch.delenv("MFKERNEL_DATA", raising=False)
    status, line = ending(name, capsys)
    assert (status, "need --data FOLDER" in line) == (2, True)


def test_speed__is_stored_with_real_ratings_only(monkeypatch, capsys):
    monkeypatch.delenv("MFKERNEL_DATA", raising=False)
    status, line = ending("speed", capsys, "--store")
    assert (status, "--store needs --data" in line) == (2, True)


@pytest.mark.parametrize(("name", "file"), [("als", "ml-100k/u.data"), ("libraries", "ml-1m/ratings.csv.gz")])
def test_data__that_cannot_be_read_is_one_line(name, file, folder, capsys):
    (folder / file).write_text("no ratings\n")
    status, line = ending(name, capsys, "--data", str(folder))
    assert (status, line.startswith(f"cannot read {folder / file}: ")) == (1, True)


@pytest.mark.parametrize("name", data.FILES)
def test_als__takes_every_set(name, folder, tmp_path, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(als, "seconds_of_epoch", lambda R, *_: measured.append(R.nnz) or 0.1)
    monkeypatch.setattr(als.probes, "arithmetic_probe", lambda: (int, 1))
    monkeypatch.setattr(store, "FOLDER", tmp_path / "results")
    tables.main(["als", "--data", str(folder), "--set", name, "--repeats", "1", "--store"])
    assert set(measured) == {3 if "100K" not in name else 2}
    assert f"| {name} | explicit |" in capsys.readouterr().out
    command = f"python -m benchmarks.tables als --data FOLDER --set {name} --repeats 1 --store"
    assert store.load("als")["command"] == command


def test_tables__refuse_options_of_another_command(capsys):
    with pytest.raises(SystemExit):
        tables.main(["--pictures", "folder", "limit"])
    assert "--pictures must be given without a NAME" in capsys.readouterr().err


def test_progress__is_a_line_now_and_then_where_stderr_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_last", [-100.0])
    for n in range(100):
        progress.show(f"step {n}")
    progress.show("")
    progress.show("the end", keep=True)
    assert capsys.readouterr().err.splitlines() == ["step 0", "the end"]


def test_progress__stays_on_one_line_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress.show("one")
    progress.show("two")
    progress.show("")
    assert capsys.readouterr().err == "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"


def test_page__says_how_long_each_benchmark_takes():
    """And runs what the picture of the history shows."""
    text = pages.PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^\.venv/bin/.*$", text, re.MULTILINE)
    assert len(commands) > 12
    for command in commands:
        assert re.search(r"  # .*\b(second|minute|hour)", command), command
    assert any(f".venv/bin/{history.QUICK_COMMAND}  #" in command for command in commands)


# the history


@pytest.fixture
def measured_commits(tmp_path, monkeypatch):
    """A repository of two commits, and a function that stores results as asv does."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    for arguments in (["init", "-q"], *(["commit", "-q", "--allow-empty", "-m", x] for x in ("One", "Two"))):
        subprocess.run([*git, *arguments], check=True)
    commits = subprocess.check_output([*git, "rev-list", "--reverse", "HEAD"], text=True).split()
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    monkeypatch.setattr(history, "ASV", tmp_path / ".asv" / "results")

    def save(machine, commit, **figures):
        folder = history.ASV / machine
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "machine.json").write_text("{}")
        found = {}
        for name, figure in figures.items():
            names = ["'blocks'", "'sequential'"], ["'ml-100k-like'", "'ml-1m-like'"], ["'8'", "'32'"]
            values = [None, None, None, figure, float("nan"), None, None, None]
            found[f"asv_suites.Suite.track_{name}"] = [values, [list(x) for x in names], "1"]
        measured = {"commit_hash": commit, "date": 1_700_000_000_000, "results": found}
        measured["result_columns"] = ["result", "params", "version", "started_at"]
        (folder / f"{commit[:8]}-virtualenv-py3.13.json").write_text(json.dumps(measured))

    return commits, save


@pytest.mark.parametrize(
    ("machine", "named"), [("here", None), ("my laptop", None), ("my laptop", "my laptop")]
)
def test_history__finds_the_results_of_the_machine(machine, named, measured_commits, monkeypatch):
    commits, save = measured_commits
    monkeypatch.setattr(history.platform, "node", lambda: "here")
    save(machine, commits[1], speed=90.0, error=0.86)
    save(machine, commits[0], error=0.87)
    one, two = history.gather(history.folder_of(named))
    assert (one["commit"], one["subject"]) == (commits[0][:8], "One")
    assert (one["M ratings/s"]["blocks"], one["RMSE"]) == (None, {"sequential": None, "blocks": 0.87})
    assert (two["subject"], two["M ratings/s"]["blocks"], two["RMSE"]["blocks"]) == ("Two", 90.0, 0.86)


def test_history__names_the_machines_where_it_cannot_choose(measured_commits, monkeypatch):
    commits, save = measured_commits
    monkeypatch.setattr(history.platform, "node", lambda: "here")
    with pytest.raises(SystemExit, match="no results of here.*run asv as docs/benchmarks.md"):
        history.folder_of(None)
    for machine in ("one", "two"):
        save(machine, commits[0], speed=9.0)
    for named in (None, "three"):
        with pytest.raises(SystemExit, match="has results of one, two: say --machine"):
            history.folder_of(named)


def test_history__says_why_there_is_nothing_to_draw(measured_commits):
    commits, save = measured_commits
    save("here", commits[0], als_objective=0.9)
    save("here", "f" * 40, speed=90.0)
    with pytest.raises(SystemExit) as end:
        history.gather(history.folder_of("here"))
    assert f"those of {commits[0][:8]} are of other cases" in end.value.code
    assert "HEAD does not come after ffffffff" in end.value.code
    assert history.QUICK_COMMAND in end.value.code


# the search for defaults

CONSTANTS = {False: tune.PLAIN, True: tune.BIASED}


@pytest.mark.parametrize("biases", CONSTANTS)
@pytest.mark.parametrize("name", quick(tune.FAMILY, "3 per row", "15 per row", "40 per row"))
def test_tune__knows_the_formulas_of_the_package(name, biases):
    R = tune.planted(name)
    scale = tune.Scale.of(R, biases)
    used = tune.setting_of(mf.factorize(R, 4, biases=biases, rng=0).settings, scale)
    known = tune.formula(CONSTANTS[biases], scale)
    assert used == pytest.approx(known._replace(epochs=round(known.epochs)), rel=1e-6)


def test_tune__plants_ratings_with_the_spread_of_stars():
    R = tune.planted("40 per row")
    assert (R.mean, R.std) == pytest.approx((tune.MEAN, tune.SPREAD), rel=0.05)


@pytest.mark.parametrize("biases", CONSTANTS)
def test_tune__refit_finds_the_best_constants(biases):
    """The errors grow with the distance from the settings that other constants choose."""
    constants = CONSTANTS[biases]
    others = {name: value * 1.3 for name, value in constants.items()}
    rng = np.random.default_rng(0)
    searches = []
    for density in (3, 10, 30, 100, 300):
        scale = tune.Scale(density, 1.0, 1.0, 1.0)
        best = np.log(tune.formula(others, scale))
        points = best + rng.uniform(-0.5, 0.5, (60, 3))
        settings = [tune.Setting(*point) for point in np.exp(points)]
        errors = list(np.exp(0.1 * np.sum((points - best) ** 2, axis=1)))
        default = tune.formula(constants, scale)
        searches.append(tune.Search("planted", [], 8, biases, scale, default, 1.0, settings, errors))
    found = tune.refit(searches, constants)
    for search in searches:
        expected = np.log(tune.formula(others, search.scale))
        np.testing.assert_allclose(np.log(tune.formula(found, search.scale)), expected, atol=0.05)


@pytest.mark.slow
def test_tune__compares_the_defaults_with_random_settings(capsys):
    tune.main(["--settings", "12", "--splits", "1", "--k", "8", "--sets", "3 per row"])
    lines = capsys.readouterr().out.splitlines()
    for row in (line.split(" | ") for line in lines if line.startswith("| 3 per row")):
        default, best, refitted = map(float, row[2:5])
        losses = [float(cell.rstrip("%")) / 100 for cell in row[5:7]]
        assert 0.7 * tune.SPREAD < best < 1.2 * tune.SPREAD  # not below the planted noise
        assert losses == pytest.approx([default / best - 1, refitted / best - 1], abs=2e-4)
    assert sum(line.startswith("| rate |") for line in lines) == 2
    assert lines[-1].startswith("12 settings per set, 1 splits.")


def test_tune__asks_for_real_ratings(monkeypatch, capsys):
    monkeypatch.delenv("MFKERNEL_DATA", raising=False)
    with pytest.raises(SystemExit):
        tune.main(["--sets", "ML-1M"])
    assert "ML-1M need --data FOLDER" in capsys.readouterr().err
