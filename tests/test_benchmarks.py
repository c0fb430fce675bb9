"""Every case of the catalogue; plain runs execute each once, ``--benchmark-enable`` times them.

Of cases that differ in size only, plain runs execute the smaller.
"""

import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest

from benchmarks import asv_suites, cases, generated, probes, report, results

SLOW = ("epoch: naive loop", "epoch: numpy reference", "start: first call")
MOST_ROUNDS = 20
TIME = 0.5  # seconds that a case takes in all, about


TIMED = [name for name in cases.CASES if cases.unit(name) == cases.SECONDS]
FIGURES = [name for name in cases.CASES if name not in TIMED]


def small(names):
    """Return the names without those of a large set that are there with a small one, too."""
    large = {name.replace("ml-100k-like", "ml-1m-like") for name in names if "ml-100k-like" in name}
    return [name for name in names if name not in large]


def pytest_generate_tests(metafunc):
    if metafunc.function is test_time:
        timing = metafunc.config.getoption("benchmark_enable")
        metafunc.parametrize("name", TIMED if timing else small(TIMED))


def test_time(name, benchmark):
    suite, parameters = cases.CASES[name]
    benchmark.group = f"{suite}: {', '.join(parameters[1:])}"
    case = cases.build(name)
    if name.startswith(SLOW) or benchmark.disabled:
        benchmark.pedantic(case)
    else:
        rounds = int(TIME / max(probes.clock(case), 1e-9))
        benchmark.pedantic(case, rounds=min(MOST_ROUNDS, max(1, rounds)), warmup_rounds=1)


@pytest.mark.parametrize("name", small(FIGURES))
def test_figure(name):
    try:
        figure = cases.build(name)()
    except NotImplementedError as error:
        pytest.skip(str(error))
    assert 0 <= figure < float("inf")


@pytest.mark.parametrize("name", [name for name in cases.CASES if name.startswith("error: ")])
def test_error__is_far_below_that_of_the_mean(name):
    _, size, _ = cases.CASES[name][1]
    assert cases.build(name)() < 0.87 * generated.ratings(size).std


def test_sequential__is_hundreds_of_times_faster_than_the_naive_loop():
    R = generated.ratings("ml-100k-like").select(generated.ratings("ml-100k-like").users < 200)
    naive, sequential = (cases.ENGINES[name](R, 32) for name in ("naive loop", "sequential"))
    times = {naive: [], sequential: []}
    for _ in range(2):
        for epoch, repeats in ((naive, 1), (sequential, 20)):
            times[epoch] += [probes.clock(epoch) for _ in range(repeats)]
    assert statistics.median(times[naive]) / statistics.median(times[sequential]) >= 200


def test_names__are_strings_that_last():
    for suite in cases.SUITES.values():
        for values in suite.parameters.values():
            assert all(type(value) is str and "0x" not in value for value in values)
    assert len(set(cases.CASES)) == sum(len(suite.combinations()) for suite in cases.SUITES.values())


def test_asv__sees_every_suite_once():
    methods = []
    for name, found in vars(asv_suites).items():
        if hasattr(found, "param_names") and not name.startswith("_"):
            methods += [name for name in vars(found) if name.startswith(("time_", "track_", "peakmem_"))]
            assert type(found.version) is str  # or it would be a hash of the code
    names = sorted(name.partition("_")[2].replace("_", " ") for name in methods if "peakmem" not in name)
    assert names == sorted(name.lower() for name in cases.SUITES)
    assert "peakmem_fit" in methods


def test_readme__has_the_tables_that_the_stored_results_say():
    text = report.README.read_text(encoding="utf-8")
    assert report.with_tables(text) == text, "run python -m benchmarks.report"


@pytest.mark.parametrize("name", report.TABLES)
def test_readme__of_other_results_would_be_another(name, tmp_path, monkeypatch):
    text = report.README.read_text(encoding="utf-8")
    folder = shutil.copytree(results.FOLDER, tmp_path / "results")
    monkeypatch.setattr(results, "FOLDER", Path(folder))
    stored = results.load(report.STORED.get(name, name))
    results.store(report.STORED.get(name, name), stored | {"machine": "Another machine."})
    assert report.with_tables(text) != text


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts anew")
def test_peak__is_what_a_call_adds_whatever_others_have_left():
    left = np.ones(2**21)
    for size in (32, 8, 64):  # MiB, and a large page of two at both ends
        assert probes.peak_of(lambda size=size: np.ones(size * 2**17)) == pytest.approx(size, abs=4.5)
    assert left.all()
