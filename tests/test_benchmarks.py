"""Every case of the catalogue; plain test runs execute each once, ``--benchmark-enable`` times them."""

import statistics
import time

import pytest

from benchmarks import cases


@pytest.mark.parametrize("name", cases.EPOCHS)
def test_epoch(name, benchmark):
    slow = cases.EPOCHS[name][0] in cases.SLOW_ENGINES
    benchmark.group = name.partition(", ml")[2]
    benchmark.extra_info["ratings"] = cases.ratings(cases.EPOCHS[name][1]).nnz
    benchmark.pedantic(cases.epoch(name), rounds=1 if slow else 20, warmup_rounds=0 if slow else 2)


@pytest.mark.parametrize("schedule", ["blocks", "sequential", "hogwild"])
@pytest.mark.parametrize("size", cases.SIZES)
def test_quality(size, schedule, benchmark):
    R = cases.ratings(size)
    rmse = benchmark.pedantic(lambda: cases.held_out_rmse(R, 32, schedule), rounds=1)
    benchmark.extra_info["rmse"] = rmse
    assert rmse < 0.87 * R.std


def test_sequential__is_hundreds_of_times_faster_than_the_naive_loop():
    R = cases.ratings("ml-100k-like").select(cases.ratings("ml-100k-like").users < 200)
    naive, sequential = (cases.ENGINES[name](R, 32) for name in ("naive loop", "sequential"))
    times = {naive: [], sequential: []}
    for _ in range(2):
        for epoch, repeats in ((naive, 1), (sequential, 20)):
            for _ in range(repeats):
                start = time.perf_counter()
                epoch()
                times[epoch].append(time.perf_counter() - start)
    assert statistics.median(times[naive]) / statistics.median(times[sequential]) >= 200
