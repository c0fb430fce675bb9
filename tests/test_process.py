"""Tests that need a process of their own: imports, the disk cache, Ctrl-C, threads and fork."""

import logging

import numpy as np
import pytest

import mfkernel as mf
from tests.helpers import FORKING, POSIX
from tests.interrupts import AT_ONCE, answers
from tests.processes import output_of, repeating, run_in_child, run_in_threads


def test_import__loads_neither_numba_nor_scipy():
    code = "import sys, mfkernel; print([m for m in ('numba', 'scipy', 'llvmlite') if m in sys.modules])"
    assert output_of(code) == "[]"


def test_import__is_quick():
    """In CPU seconds, on which other processes have little influence."""
    code = "import time, numpy; t = time.process_time(); import mfkernel; print(time.process_time() - t)"
    assert any(float(output_of(code)) <= 0.3 for _ in range(3))


@pytest.mark.slow
def test_first_call__is_quick_with_a_warm_cache():
    code = (
        "import time; start = time.process_time(); import mfkernel as mf, numpy as np;"
        "R = np.array([[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]]);"
        "mf.factorize(R, 2); print(time.process_time() - start)"
    )
    output_of(code)
    assert any(float(output_of(code)) <= 1.5 for _ in range(3))


@pytest.mark.slow
def test_factorize__runs_where_no_cache_can_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"  # as where neither package nor home is writable
        "import mfkernel as mf; print(mf.factorize([[5, 3], [4, 1]], 1, epochs=1).k)"
    )
    assert output_of(code) == "1"


@pytest.mark.slow
def test_factorize__gives_the_same_bits_in_a_new_process():
    code = (
        "import mfkernel as mf, hashlib;"
        "P, Q = mf.factorize(mf.datasets.synthetic(200, 100, 3000), 8, rng=5);"
        "print(hashlib.sha256(P.tobytes() + Q.tobytes()).hexdigest())"
    )
    assert output_of(code) == output_of(code)


@pytest.mark.slow
def test_factorize__asserts_nothing_that_optimised_python_would_drop():
    code = (
        "import mfkernel as mf\n"
        "try: mf.factorize(([0, 9], [0, 0], [1, 2], (2, 2)), 1)\n"
        "except ValueError as error: print(error)"
    )
    assert "users[1] = 9" in output_of(code, PYTHONOPTIMIZE="2")


INTERRUPTED = """
import time
import numpy as np
import mfkernel as mf
{setup}
for call in {calls}:
    code = compile(call, call, "exec")
    for moment in {moments}:
        try:
            print("ready", flush=True)
            exec(code)
        except KeyboardInterrupt:
            print(time.process_time(), call, flush=True)
"""
MOMENTS = (0.3, 0.8)  # CPU seconds after the beginning
# both kernels are compiled: LLVM calls back into Python, where Numba turns a Ctrl-C into another error
LARGE_RUN = (
    "R = mf.datasets.synthetic(6040, 3706, 1_000_000); mf.factorize(R, 32, epochs=1)",
    "mf.factorize(R, 32, epochs=10**6, n_threads=2)",
)
OTHER_SCHEDULES = (
    "R = mf.datasets.synthetic(6040, 3706, 1_000_000);mf.factorize(R, 2048, epochs=1, schedule='sequential')",
    "mf.factorize(R, 32, epochs=10**6, n_threads=1)",
    "mf.factorize(R, 2048, epochs=10**6, schedule='sequential')",
    "mf.factorize(R, 2048, epochs=10**6, schedule='hogwild', n_threads=2)",
)
ONE_LONG_ROW = (
    "R = np.full((1, 3_000_000), 3.0, np.float32); mf.factorize(R[:, :9], 64, epochs=1)",
    "mf.factorize(R, 64, epochs=10**6, regularization=1, n_threads=2)",
)
MANY_TRIPLETS = (
    "n = 20_000_000; users, items = np.divmod(np.random.default_rng(0).permutation(n), 5000);"
    "R = users, items, np.ones(n, np.float32); mf.factorize(tuple(x[:9] for x in R), 8, epochs=1)",
    "[mf.factorize(R, 8, epochs=1, n_threads=2) for _ in range(99)]",
)
MANY_ROWS = (
    "users = np.arange(6_000_000); values = np.ones(users.size, np.float32);"
    "R = mf.Ratings((users, users % 50, values));"
    "[mf.factorize(R, 4, epochs=1, schedule=schedule) for schedule in ('blocks', 'sequential')]",
    "mf.factorize(R, 4, epochs=10**6, n_threads=2)",
    "mf.factorize(R, 4, epochs=10**6, schedule='sequential')",
    "mf.factorize(R, 4, epochs=10**6, schedule='hogwild', n_threads=2)",
    "[mf.factorize(R, 4, epochs=1, n_threads=2) for _ in range(99)]",
)


@POSIX
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(LARGE_RUN, id="large"),
        pytest.param(OTHER_SCHEDULES, id="other schedules", marks=pytest.mark.slow),
        pytest.param(ONE_LONG_ROW, id="one long row", marks=pytest.mark.slow),
        pytest.param(MANY_TRIPLETS, id="triplets"),
        pytest.param(
            (MANY_TRIPLETS[0], "[mf.Ratings(R) for _ in range(99)]"), id="Ratings", marks=pytest.mark.slow
        ),
        pytest.param(MANY_ROWS, id="many rows", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_factorize__ctrl_c_is_answered_at_once(case):
    setup, *calls = case
    code = INTERRUPTED.format(setup=setup, calls=calls, moments=MOMENTS)
    slow = [(seconds, call) for seconds, call in answers(code, MOMENTS * len(calls)) if seconds > AT_ONCE]
    assert not slow


def test_factorize__runs_in_several_threads_at_once(ratings):
    def work(seed):
        mf.factorize(ratings, 8, rng=seed, schedule="hogwild", n_threads=2)
        return mf.factorize(ratings, 8, rng=seed).P

    results = run_in_threads(work, range(4))
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, mf.factorize(ratings, 8, rng=seed).P)


def hogwild_rmse(ratings):
    return mf.factorize(ratings, 8, rng=0, schedule="hogwild", n_threads=2).rmse(ratings)


@POSIX
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_factorize__runs_in_a_child_process(method, ratings):
    mf.factorize(ratings, 8, schedule="hogwild", n_threads=2)  # leave whatever threads leave behind
    assert run_in_child(method, hogwild_rmse, ratings) < ratings.std


@pytest.mark.slow
@POSIX
@FORKING
def test_factorize__a_child_forked_during_a_fit_is_not_stuck(ratings, caplog):
    caplog.set_level(logging.WARNING, "mfkernel")  # a stream that logs may be locked when Python forks

    def train():
        mf.factorize(mf.Ratings(ratings), 8, epochs=2)

    mf.factorize(ratings, 8, schedule="hogwild", n_threads=2, epochs=1)
    with repeating(train, train):
        for _ in range(30):
            assert run_in_child("fork", hogwild_rmse, ratings) < ratings.std


MANY_INTERRUPTS = """
import os, random, signal, threading, time
import mfkernel as mf
R = mf.datasets.synthetic(3000, 2000, 300_000)
mf.factorize(R, 4, epochs=1, n_threads=7)
random.seed(0)
interrupts = 0
for _ in range(120):
    moment = random.uniform(0.001, 0.06)
    sender = threading.Thread(target=lambda: (time.sleep(moment), os.kill(os.getpid(), signal.SIGINT)))
    try:
        sender.start()
        mf.factorize(R, 4, epochs=10**6, n_threads=7)
    except KeyboardInterrupt:
        interrupts += 1
    sender.join()
end = time.monotonic() + 30
while threading.active_count() > 8 and time.monotonic() < end:
    time.sleep(0.01)
print(interrupts, threading.active_count())
"""


@pytest.mark.slow
@POSIX
def test_factorize__no_moment_of_an_interrupt_leaves_it_hanging():
    """Of locks that Python code takes, one time in some hundred one was never given back."""
    interrupts, threads = map(int, output_of(MANY_INTERRUPTS).split())
    assert interrupts > 100  # of 120
    assert threads <= 8
