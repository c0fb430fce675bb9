"""The promises of ``schedule="blocks"``, seen from outside: the same bits, Ctrl-C, odd shapes, starts."""

import hashlib
import math
import os
import signal
import sys
import threading
import time
import warnings
from functools import cache, partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.typing import ScheduleName
from tests.helpers import FORKING, POSIX, assert_same, bits, examples, quick
from tests.interrupts import AT_ONCE, answers, interrupt_after
from tests.processes import TracedMemory, output_of, repeating, run_in_child, run_in_threads, run_within
from tests.samples import random_ratings, stars

DECAYS = ("constant", "inverse-time", "linear", "cosine", "adaptive")
THREADS = (2, 3, 7, None)
SHAPES = ("square", "tall", "wide", "heavy item", "one user")
SOME_SHAPES = (("tall", "cosine"), ("heavy item", "cosine"))
uniform = partial(random_ratings, values=stars, dtype=np.float32)


@cache
def table(shape):
    """Return a set of 300,000 ratings or more, so that the grid has several blocks."""
    match shape:
        case "square":
            return mf.datasets.synthetic(1500, 1400, 330_000, rng=1)
        case "tall":
            return mf.datasets.synthetic(30_000, 70, 310_000, rng=2)
        case "wide":
            return table("tall").T
        case "heavy item":
            some = mf.datasets.synthetic(20_000, 300, 300_000, rng=4)
            users = np.concatenate([some.users, np.arange(20_000)])
            items = np.concatenate([some.items, np.full(20_000, 7)])
            values = np.concatenate([some.values, np.full(20_000, 4.0, np.float32)])
            return mf.Ratings((users, items, values, some.shape), duplicates="last")
        case "one user":
            n = 300_000
            stars = np.random.default_rng(5).integers(1, 6, n).astype(np.float32)
            return mf.Ratings((np.full(n, 17), np.arange(n), stars, (40, n)))
        case "many blocks":
            return uniform(5000, 4000, 3_000_000, 6)
    raise KeyError(shape)


def fit(R, k=8, **options):
    return mf.factorize(R, k, **{"schedule": "blocks", "epochs": 3, "rng": 0} | options)


def stopped_after(last, R, **options):
    return fit(R, **options, callback=lambda record: record.epoch == last)


# the same bits


@pytest.mark.parametrize(
    ("shape", "decay"),
    quick([*((shape, "cosine") for shape in SHAPES), ("many blocks", "adaptive")], *SOME_SHAPES),
)
@pytest.mark.slow
def test_blocks__bits_do_not_depend_on_the_threads_for_any_shape(shape, decay):
    expected = bits(fit(table(shape), decay=decay, n_threads=1))
    assert {n: bits(fit(table(shape), decay=decay, n_threads=n)) for n in THREADS} == dict.fromkeys(
        THREADS, expected
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", quick([1, 8, 20, 64, 200], 20))
@pytest.mark.slow
def test_blocks__bits_do_not_depend_on_the_threads_for_any_rank(k, dtype):
    expected = fit(table("square"), k, dtype=dtype, epochs=2, n_threads=1)
    assert expected.P.dtype == expected.Q.dtype == dtype
    for n in (2, 3, 7):
        assert bits(fit(table("square"), k, dtype=dtype, epochs=2, n_threads=n)) == bits(expected)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("decay", quick(DECAYS, "adaptive"))
def test_blocks__bits_do_not_depend_on_the_threads_for_any_decay(decay, shuffle):
    options = {"decay": decay, "shuffle": shuffle, "epochs": 4}
    expected = bits(fit(table("square"), 20, n_threads=1, **options))
    for n in (2, 3, 7):
        assert bits(fit(table("square"), 20, n_threads=n, **options)) == expected


@pytest.mark.slow
@examples(12)
@given(
    st.sampled_from([(700, 900), (100_000, 40), (40, 100_000), (2000, 2000)]),
    st.sampled_from([1, 8, 20]),
    st.sampled_from(DECAYS),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
    st.integers(2, 9),
    st.integers(0, 2**32),
)
def test_blocks__bits_do_not_depend_on_the_threads(shape, k, decay, dtype, shuffle, n_threads, seed):
    R = uniform(*shape, 310_000, seed)
    options = {"decay": decay, "dtype": dtype, "shuffle": shuffle, "rng": seed, "epochs": 2}
    assert bits(fit(R, k, n_threads=n_threads, **options)) == bits(fit(R, k, n_threads=1, **options))


@pytest.mark.slow
def test_blocks__bits_do_not_depend_on_the_run():
    expected = bits(fit(table("many blocks"), n_threads=1, epochs=2))
    for _ in range(5):
        assert bits(fit(table("many blocks"), n_threads=7, epochs=2)) == expected


def test_blocks__bits_do_not_depend_on_the_threads_where_start_values_are_given(rng):
    R = table("square")
    init = rng.random((R.n_users, 5)), rng.random((5, R.n_items))
    expected = bits(fit(R, 5, init=init, n_threads=1))
    assert [bits(fit(R, 5, init=init, n_threads=n)) for n in THREADS] == [expected] * len(THREADS)


def test_blocks__another_rng_gives_other_bits():
    one, two = fit(table("square"), rng=1), fit(table("square"), rng=2)
    assert (one.P != two.P).any()
    assert (one.Q != two.Q).any()


def test_blocks__rng_alone_orders_the_blocks(rng):
    R = table("square")
    init = rng.random((R.n_users, 5)), rng.random((5, R.n_items))
    one, two, again = (fit(R, 5, init=init, rng=seed) for seed in (1, 2, 1))
    assert_same(one, again)
    assert (one.P != two.P).any()


@pytest.mark.parametrize("shape", quick(["square", "many blocks"], "square"))
def test_blocks__shuffle_changes_the_result(shape):
    fits = [
        [fit(table(shape), rng=seed, shuffle=shuffle) for shuffle in (True, False)]
        for seed in range(3 if shape == "many blocks" else 6)
    ]
    changed = [(one.P != two.P).any() for one, two in fits]
    assert all(changed) if shape == "many blocks" else any(changed)  # of two waves, the old order may come up
    for one, two in fits:
        assert one.history[-1].rmse == pytest.approx(two.history[-1].rmse, rel=0.01)


def test_blocks__is_the_default():
    assert_same(mf.factorize(table("square"), 8, epochs=3, rng=0), fit(table("square")))


# the same bits whatever else goes on


def hash_of(model):
    return hashlib.sha256(repr(bits(model)).encode()).hexdigest()


PRINT_HASHES = """
import os
{setup}
from tests import test_blocks
R = test_blocks.table("square")
print(*(test_blocks.hash_of(test_blocks.fit(R, 20, n_threads=n, decay=decay))
        for n in (None, 1, 2, 7) for decay in ("cosine", "adaptive")))
"""


@pytest.mark.parametrize(
    ("setup", "environment"),
    [
        (
            "",
            {"PYTHONHASHSEED": "2", "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        ),
        pytest.param(
            "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])",
            {},
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity"),
            ],
        ),
    ],
    ids=["other environment", "one core"],
)
@pytest.mark.slow
def test_blocks__same_bits_in_a_new_process(setup, environment):
    printed = output_of(PRINT_HASHES.format(setup=setup), **environment)
    expected = [fit(table("square"), 20, n_threads=1, decay=decay) for decay in ("cosine", "adaptive")]
    assert printed.split() == [hash_of(model) for model in expected] * 4


def fit_square(n_threads):
    return bits(fit(table("square"), n_threads=n_threads))


@POSIX
@FORKING
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.slow
def test_blocks__same_bits_in_a_child_process(method):
    expected = fit_square(2)  # leaves whatever threads leave behind
    for n_threads in (1, 2, 7) if method == "fork" else (2,):
        assert run_in_child(method, fit_square, n_threads) == expected
    assert fit_square(3) == expected  # in the parent again


@POSIX
@FORKING
@pytest.mark.slow
def test_blocks__a_child_forked_during_a_fit_gives_the_same_bits():
    expected = fit_square(1)
    with repeating(lambda: fit(table("square"), n_threads=2, epochs=20)):
        for _ in range(8):
            assert run_in_child("fork", fit_square, 2) == expected


def spin():
    sum(range(1000))


def train_without_locks():
    mf.factorize(table("heavy item"), 8, epochs=2, schedule="hogwild", n_threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("load", quick([spin, train_without_locks], train_without_locks))
def test_blocks__same_bits_under_load(load):
    table("heavy item")
    expected = bits(fit(table("square"), 20, n_threads=1))
    with repeating(load, load):
        for n in (1, 2, 7):
            assert bits(fit(table("square"), 20, n_threads=n)) == expected


@pytest.mark.parametrize("n_threads", quick([1, 2, 3], 2))
def test_blocks__same_bits_if_two_fits_run_at_once(n_threads):
    cases = [("square", "cosine", 0), ("square", "adaptive", 1), ("tall", "linear", 2)]

    def run(case, n_threads=n_threads):
        shape, decay, seed = case
        return bits(fit(table(shape), decay=decay, rng=seed, epochs=5, n_threads=n_threads))

    expected = [run(case, n_threads=1) for case in cases]
    for _ in range(3):
        assert run_in_threads(run, cases) == expected


# Ctrl-C

INTERRUPTED = """
import time
import numpy as np
import mfkernel as mf
from tests.test_blocks import bits, uniform
R, options = {R}, {options}
def fit(callback):
    return mf.factorize(R, epochs=10**5, rng=3, callback=callback, **options)
for moment in {moments}:
    try:
        fit(lambda record: record.epoch == 1 and print("ready", flush=True))
    except KeyboardInterrupt as error:
        answered = time.process_time()
        if not isinstance(error, mf.Interrupted):
            print(answered, "no model", flush=True)
            continue
        model = error.model
        last = len(model.history)
        finite = np.isfinite(model.P).all() and np.isfinite(model.Q).all()
        same = bits(model) == bits(fit(lambda record: record.epoch == last))
        print(answered, "finite" if finite else "infinite", "same" if same else "different", flush=True)
"""
# CPU seconds after the first epoch; it may take a quarter of a second until that is kept
MOMENTS = (0.8, 0.02)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    ("R", "options"),
    [
        ("uniform(6000, 4000, 1_000_000)", {"k": 32, "n_threads": 2}),
        ("uniform(1, 300_000, 200_000)", {"k": 64, "n_threads": 2, "regularization": 1}),
        ("uniform(200_000, 50, 1_000_000)", {"k": 4, "n_threads": 7, "decay": "adaptive"}),
    ],
    ids=["million", "one user", "many users"],
)
def test_blocks__ctrl_c_is_answered_at_once_with_the_model_of_a_whole_epoch(R, options):
    (late, model), (early, perhaps) = answers(
        INTERRUPTED.format(R=R, options=options, moments=MOMENTS), MOMENTS
    )
    assert model == "finite same"
    assert perhaps in ("finite same", "no model")
    assert max(early, late) <= AT_ONCE


@POSIX
@pytest.mark.slow
def test_blocks__ctrl_c_is_answered_at_once_while_large_factors_are_kept():
    """A copy of the factors is made where a quarter of a second has gone by since the last one."""
    options = {"k": 64, "n_threads": 2, "learning_rate": 1e-3, "regularization": 0}
    R, moments = "uniform(1, 800_000, 300_000)", (0.5, 0.8)
    for seconds, model in answers(INTERRUPTED.format(R=R, options=options, moments=moments), moments):
        assert seconds <= AT_ONCE
        assert model == "finite same"


def ctrl_c_in_a_fit(R, last, after, **options):
    """Send SIGINT some seconds after epoch ``last``; return what is raised, and CPU seconds until then."""
    sent = []

    def send():
        sent.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    try:
        fit(R, **options, callback=lambda record: record.epoch == last and timer.start())
        timer.join()
        time.sleep(0.5)
    except KeyboardInterrupt as error:
        return error, time.process_time() - sent[0]
    pytest.fail("no interrupt")


@pytest.mark.slow
@POSIX
def test_blocks__ctrl_c_after_the_last_epoch_keeps_the_model():
    R = few_in_a_huge_shape()
    error, seconds = ctrl_c_in_a_fit(R, 3, 0.02, k=8, epochs=3)  # while the factors are made ready to return
    assert isinstance(error, mf.Interrupted)
    assert seconds <= AT_ONCE
    assert [e.epoch for e in error.model.history] == [1, 2, 3]
    assert_same(error.model, fit(R, 8, epochs=3))


@pytest.mark.parametrize(
    ("last", "decay", "n_threads"),
    [*((3, decay, 3) for decay in (None, *DECAYS)), (3, "adaptive", 1), (1, "cosine", 1), (5, "cosine", 3)],
)
def test_blocks__an_interrupt_in_the_callback_leaves_the_model_of_that_epoch(last, decay, n_threads):
    options = {"decay": decay, "n_threads": n_threads, "epochs": 5}
    with pytest.raises(KeyboardInterrupt) as raised:
        fit(table("square"), callback=interrupt_after(last), **options)
    assert isinstance(raised.value, mf.Interrupted)
    model = raised.value.model
    assert isinstance(model, mf.Factors)
    assert [e.epoch for e in model.history] == list(range(1, last + 1))
    expected = stopped_after(last, table("square"), **options)
    assert bits(model) == bits(expected)
    assert model.predict(3, 5) == expected.predict(3, 5)
    assert raised.value.model is model


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
def test_interrupted__model_knows_what_a_stopped_one_knows(schedule):
    R = mf.Ratings(([0, 0, 2, 4], [0, 1, 1, 3], [5.0, 3, 4, 1], (6, 5)))
    with pytest.raises(mf.Interrupted) as raised:
        fit(R, 2, schedule=schedule, n_threads=1, callback=interrupt_after(1))
    model = raised.value.model
    expected = fit(R, 2, schedule=schedule, n_threads=1, callback=lambda record: True)
    assert_same(model, expected)
    assert model.mean == expected.mean
    np.testing.assert_array_equal(model.known_users, expected.known_users)
    np.testing.assert_array_equal(model.known_items, expected.known_items)
    np.testing.assert_array_equal(model.predict([1, 0], [0, 2]), [R.mean] * 2)


@pytest.mark.parametrize("schedule", get_args(ScheduleName))
def test_interrupted__model_is_none_the_worse_for_what_happens_later(schedule):
    R = mf.datasets.synthetic(100, 80, 2000)
    with pytest.raises(mf.Interrupted) as raised:
        fit(R, schedule=schedule, n_threads=1, callback=interrupt_after(2))
    fit(R, schedule=schedule, n_threads=1, rng=1)
    assert bits(raised.value.model) == bits(stopped_after(2, R, schedule=schedule, n_threads=1))


def interrupted_at(line, R, **options):
    """Send SIGINT where the main thread is about to run the given line of the package, counted from 0."""
    names = ("api", "training/loop", "training/checkpoints", "methods/base", "methods/sgd")
    names += ("methods/schedules/blocks", "methods/schedules/rows", "engines/threads")
    files, seen = {str(Path(mf.__file__).parent / f"{name}.py") for name in names}, 0

    def trace(frame, event, arg):
        nonlocal seen
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen += 1
            if seen == line + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return fit(R, **options), seen
    except KeyboardInterrupt as error:
        return error, seen
    finally:
        sys.settrace(before)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("keep_after", quick([0, 1000], 0), ids=["kept each epoch", "kept never"])
def test_blocks__ctrl_c_on_any_line_leaves_a_whole_epoch(keep_after, n_threads, monkeypatch):
    monkeypatch.setattr("mfkernel.training.checkpoints.CHECKPOINT_INTERVAL", keep_after)
    R, options = mf.datasets.synthetic(60, 50, 900), {"n_threads": n_threads, "epochs": 3, "k": 4}
    expected = [None, *(bits(stopped_after(epoch, R, **options)) for epoch in (1, 2, 3))]
    whole, lines = interrupted_at(math.inf, R, **options)
    assert bits(whole) == expected[3]
    wrong, answers = [], 0
    for line in range(0, lines, 3):
        answer, _ = interrupted_at(line, R, **options)
        if isinstance(answer, mf.Interrupted):
            answers += 1
            epochs = len(answer.model.history)
            if epochs == 0 or bits(answer.model) != expected[epochs]:
                wrong.append((line, str(answer), epochs))
    assert answers
    assert not wrong
    assert bits(fit(R, **options)) == expected[3]


# as accurate as other ways


@pytest.fixture(scope="module")
def split():
    return mf.train_test_split(table("square"), 0.1, rng=0)


@pytest.mark.parametrize("decay", quick(["cosine", "adaptive"], "cosine"))
def test_blocks__float32_is_as_accurate_as_float64(decay, split, rng):
    train, test = split
    m, n = train.shape
    init = 0.5 + 0.1 * rng.standard_normal((m, 16)), 0.4 + 0.1 * rng.standard_normal((16, n))
    one, two = (
        fit(train, 16, epochs=10, decay=decay, init=init, dtype=dtype).rmse(test) for dtype in ("f4", "f8")
    )
    assert one < test.std
    assert one == pytest.approx(two, abs=1e-3)


@pytest.mark.parametrize("k", quick([4, 16, 64], 16))
def test_blocks__is_as_accurate_as_sequential(k, split):
    train, test = split
    blocks, sequential = (
        fit(train, k, epochs=None, schedule=schedule).rmse(test) for schedule in ("blocks", "sequential")
    )
    assert blocks == pytest.approx(sequential, rel=0.005)
    assert blocks < test.std


@pytest.mark.slow
def test_blocks__is_as_accurate_as_sequential_on_a_small_set():
    train, test = mf.train_test_split(mf.datasets.synthetic(), 0.1, rng=0)
    blocks, sequential = (
        np.mean([fit(train, 16, epochs=None, schedule=schedule, rng=seed).rmse(test) for seed in range(5)])
        for schedule in ("blocks", "sequential")
    )
    assert blocks == pytest.approx(sequential, rel=0.005)


@pytest.mark.parametrize("shape", quick(SHAPES, "tall", "heavy item"))
@pytest.mark.parametrize("decay", ["linear", "adaptive"])
def test_blocks__learns_the_training_ratings_of_any_shape(shape, decay):
    R = table(shape)
    # by default, steps are smaller for users of one rating, so as not to learn it by heart
    rate = None if decay == "adaptive" else 0.04 / R.std
    model = fit(R, epochs=10, decay=decay, learning_rate=rate)
    assert model.history[-1].rmse < 0.9 * R.std
    assert model.rmse(R) < 1.01 * model.history[-1].rmse


@pytest.mark.slow
def test_blocks__learns_a_transposed_matrix_as_well():
    R = table("tall")
    for n in THREADS:
        assert bits(fit(R.T, n_threads=n)) == bits(fit(R.T, n_threads=1))
    # small steps: with large ones, it shows whose ratings, a user's or an item's, are visited in a row
    one, two = (fit(ratings, epochs=10, learning_rate=0.01) for ratings in (R, R.T))
    assert two.shape == R.shape[::-1]
    assert two.rmse(R.T) == pytest.approx(one.rmse(R), rel=0.02)
    assert_same(fit(R.to_scipy().T), fit(R.T))


# every rating once an epoch, in the row and the column where it belongs


@pytest.mark.parametrize("shape", quick([*SHAPES, "many blocks"], "wide", "heavy item"))
@pytest.mark.parametrize(("n_threads", "shuffle"), [(1, True), (3, True), (3, False)])
def test_blocks__each_rating_moves_its_row_and_its_column_once_an_epoch(shape, n_threads, shuffle):
    """With tiny steps from p = 0 and q = 1, p is the sum of its ratings times the step, and the other way."""
    R, rate, epochs = table(shape), 1e-12, 2
    options = {"learning_rate": rate, "regularization": 0, "dtype": np.float64, "decay": "constant"}
    options |= {"epochs": epochs, "shuffle": shuffle, "n_threads": n_threads}
    start = np.zeros((R.n_users, 1)), np.ones((1, R.n_items))
    sums = np.bincount(R.users, R.values, R.n_users)
    moved = fit(R, 1, init=start, **options).P[:, 0]
    np.testing.assert_allclose(moved / (rate * epochs), sums, rtol=1e-5)
    start = np.ones((R.n_users, 1)), np.zeros((1, R.n_items))
    sums = np.bincount(R.items, R.values, R.n_items)
    moved = fit(R, 1, init=start, **options).Q[0]
    np.testing.assert_allclose(moved / (rate * epochs), sums, rtol=1e-5)


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
@pytest.mark.parametrize("shape", quick(SHAPES, "square", "one user"))
@pytest.mark.parametrize("decay", ["cosine", "adaptive"])
def test_blocks__steps_too_small_to_matter_leave_the_start(shape, decay, dtype, rng):
    R, k = table(shape), 5
    P0 = rng.uniform(0.1, 1, (R.n_users, k)).astype(dtype)
    Q0 = rng.uniform(0.1, 1, (k, R.n_items)).astype(dtype)
    copies = P0.copy(), Q0.copy()
    model = fit(R, k, init=(P0, Q0), dtype=dtype, learning_rate=1e-30, decay=decay, epochs=2)
    np.testing.assert_array_equal(model.P, P0)
    np.testing.assert_array_equal(model.Q, Q0)
    np.testing.assert_array_equal(P0, copies[0])
    np.testing.assert_array_equal(Q0, copies[1])
    residuals = R.values - np.einsum("uk,ku->u", P0[R.users].astype(np.float64), Q0[:, R.items])
    rmse = np.sqrt(np.mean(residuals**2))
    np.testing.assert_allclose([e.rmse for e in model.history], [rmse, rmse], rtol=1e-5)


def test_blocks__starts_from_given_values_row_by_row(rng):
    R, k = table("tall"), 6
    init = rng.random((R.n_users, k)), rng.random((k, R.n_items))
    model = fit(R, k, init=init, learning_rate=1e-6, epochs=1, dtype=np.float64)
    np.testing.assert_allclose(model.P, init[0], atol=0.02)
    np.testing.assert_allclose(model.Q, init[1], atol=0.2)
    assert (init[0] != model.P).any(axis=1)[R.user_counts() > 0].all()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("decay", ["constant", "adaptive"])
@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
def test_blocks__rows_without_ratings_keep_their_start_values(dtype, decay, n_threads, rng):
    users, items = rng.permutation(9000)[:2000], rng.permutation(6000)[:1500]
    some = uniform(2000, 1500, 320_000)
    R = mf.Ratings((users[some.users], items[some.items], some.values, (9000, 6000)))
    init = rng.random((9000, 3)).astype(dtype), rng.random((3, 6000)).astype(dtype)
    model = fit(R, 3, init=init, dtype=dtype, decay=decay, n_threads=n_threads)
    for known, factors, start in (
        (R.user_counts() > 0, model.P, init[0]),
        (R.item_counts() > 0, model.Q.T, init[1].T),
    ):
        assert 0 < known.sum() < known.size
        np.testing.assert_array_equal(factors[~known], start[~known])
        assert (factors[known] != start[known]).any(axis=1).all()


# odd shapes


def few_in_a_huge_shape():
    places = np.array([0, 1, 999, 10**6 - 2, 10**6 - 1])
    return mf.Ratings((places, places[::-1], np.array([1.0, 2, 3, 4, 5], np.float32), (10**6, 10**6)))


ODD = {
    "1 × 1": lambda: mf.Ratings(([0], [0], [3.0])),
    "1 × 2": lambda: mf.Ratings(([0, 0], [0, 1], [3.0, 4.0])),
    "1 × n": lambda: uniform(1, 400_000, 300_000),
    "n × 1": lambda: uniform(400_000, 1, 300_000),
    "2 × n": lambda: uniform(2, 200_000, 300_000),
    "n × 2": lambda: uniform(200_000, 2, 300_000),
    "one user": lambda: table("one user"),
    "one item": lambda: table("one user").T,
    "heavy item": lambda: table("heavy item"),
    "every cell": lambda: uniform(600, 600, 360_000),
    "3 × 4": lambda: uniform(3, 4, 9),
    "few in a huge shape": few_in_a_huge_shape,
    "diagonal": lambda: mf.Ratings((np.arange(300_000), np.arange(300_000), np.arange(300_000.0) % 7)),
}


@pytest.mark.parametrize("name", quick(ODD, "1 × 1", "1 × n", "n × 2", "3 × 4", "every cell", "diagonal"))
@pytest.mark.slow
def test_blocks__odd_shapes_are_fitted_without_a_hang(name):
    R = ODD[name]()
    for decay in ("cosine", "adaptive"):
        expected = run_within(60, fit, R, 2, decay=decay, n_threads=1, epochs=2)
        assert expected.shape == R.shape
        assert np.isfinite(expected.P).all()
        assert np.isfinite(expected.Q).all()
        assert bits(run_within(60, fit, R, 2, decay=decay, n_threads=50, epochs=2)) == bits(expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 4), (40, 50)])
@pytest.mark.parametrize("k", quick([1, 9, 200], 9))
def test_blocks__small_tables_are_fitted_with_the_defaults(shape, k):
    R = uniform(*shape, math.ceil(shape[0] * shape[1] / 3))
    expected = run_within(60, fit, R, k, epochs=None, n_threads=1)
    assert (expected.P.shape, expected.Q.shape) == ((shape[0], k), (k, shape[1]))
    assert np.isfinite(expected.reconstruct()).all()
    assert bits(run_within(60, fit, R, k, epochs=None, n_threads=50)) == bits(expected)


@given(st.data())
def test_blocks__any_small_table_is_fitted(data):
    m, n = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    nnz = data.draw(st.integers(1, m * n))
    options = {"decay": data.draw(st.sampled_from(DECAYS)), "shuffle": data.draw(st.booleans())}
    k, n_threads, R = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 6)), uniform(m, n, nnz, nnz)
    expected = fit(R, k, n_threads=1, **options)
    assert expected.shape == (m, n)
    assert np.isfinite(expected.reconstruct()).all()
    assert bits(fit(R, k, n_threads=n_threads, **options)) == bits(expected)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_blocks__rows_and_columns_without_ratings_are_predicted_by_the_mean(n_threads, rng):
    users, items = rng.permutation(5000)[:1000], rng.permutation(4000)[:900]
    some = uniform(1000, 900, 310_000)
    R = mf.Ratings((users[some.users], items[some.items], some.values, (5000, 4000)))
    model = fit(R, 8, n_threads=n_threads)
    np.testing.assert_array_equal(model.known_users, R.user_counts() > 0)
    np.testing.assert_array_equal(model.known_items, R.item_counts() > 0)
    new_users, new_items = np.flatnonzero(R.user_counts() == 0), np.flatnonzero(R.item_counts() == 0)
    assert new_users.size == 4000
    assert new_items.size == 3100
    predicted = model.predict(new_users[:100, None], items[:100]), model.predict(users[:100, None], new_items)
    for prediction in (*predicted, model.predict(new_users[:100, None], new_items)):
        np.testing.assert_allclose(prediction, R.mean, rtol=1e-6)


def test_blocks__few_ratings_in_a_huge_shape_are_learnt():
    R = few_in_a_huge_shape()
    model = run_within(60, fit, R, 2, epochs=300, regularization=0, decay="constant", learning_rate=0.05)
    np.testing.assert_allclose(model.predict(R.users, R.items), R.values, atol=0.05)
    np.testing.assert_allclose(model.predict([5, 5, 0], [0, 5, 5]), R.mean)


# step sizes


@pytest.mark.parametrize("T", [1, 2, 8])
@pytest.mark.parametrize(
    ("decay", "share"),
    [
        ("constant", lambda t, T: 1),
        ("inverse-time", lambda t, T: 1 / (1 + t / 5)),
        ("linear", lambda t, T: 1 - t / T),
        ("cosine", lambda t, T: (1 + math.cos(math.pi * t / T)) / 2),
        ("adaptive", lambda t, T: 1),
    ],
)
def test_decay__sets_the_step_size_of_each_epoch(decay, share, T, ratings):
    expected = [share(t, T) for t in range(T)]
    rates = [e.learning_rate for e in fit(ratings, epochs=T, learning_rate=0.013, decay=decay).history]
    np.testing.assert_allclose(rates, 0.013 * np.array(expected), rtol=1e-12)
    rates = [e.learning_rate for e in fit(ratings, epochs=T, decay=decay).history]
    np.testing.assert_allclose(rates, rates[0] * np.array(expected), rtol=1e-12)


def test_decay__is_cosine_by_default_and_constant_with_a_given_learning_rate():
    R = table("square")
    assert_same(fit(R), fit(R, decay="cosine"))
    assert_same(fit(R, learning_rate=0.01), fit(R, learning_rate=0.01, decay="constant"))


def test_decay__each_gives_other_bits():
    assert len({bits(fit(table("square"), learning_rate=0.01, decay=decay)) for decay in DECAYS}) == 5


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("cosin", "cosine"),
        ("Linear", "linear"),
        ("inverse time", "inverse-time"),
        ("adaptative", "adaptive"),
        ("const", "constant"),
    ],
)
def test_decay__unknown_words_get_the_nearest_known_one(wrong, near, ratings):
    with pytest.raises(ValueError, match=rf"decay must be one of .*got '{wrong}'.*did you mean '{near}'"):
        fit(ratings, decay=wrong)


# threads and memory


@pytest.mark.parametrize("n_threads", [1, 2, 50, np.int8(3)])
@pytest.mark.parametrize("R", ["ratings", "square"])
def test_blocks__takes_any_number_of_threads_without_a_warning(R, n_threads, request):
    R = table(R) if R == "square" else request.getfixturevalue(R)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(R, n_threads=n_threads)


def test_blocks__leaves_no_threads_behind():
    before = threading.active_count()
    for n_threads in (2, 7, 50):
        fit(table("square"), n_threads=n_threads)
        with pytest.raises(ZeroDivisionError):
            fit(table("square"), n_threads=n_threads, callback=lambda record: 1 / 0)
    assert threading.active_count() == before


def test_blocks__refuses_what_cannot_fit_before_memory_is_taken(monkeypatch):
    R = few_in_a_huge_shape()
    monkeypatch.setattr("mfkernel.training.fit.available_memory", lambda: 3 * 2**30)
    with TracedMemory() as memory, pytest.raises(MemoryError) as raised:
        fit(R, 1000)
    message = str(raised.value)
    assert "factors 7.5 GiB" in message  # two million rows of 1,000 float32
    assert "blocks 0." in message
    assert "must fit in 3.0 GiB of free memory" in message
    assert memory.peak < 2**27


@pytest.mark.parametrize("free", [0, 1000, 10**6])
def test_blocks__names_what_takes_memory(free, ratings, monkeypatch):
    monkeypatch.setattr("mfkernel.training.fit.available_memory", lambda: free)
    for n_threads in (1, 2, None):
        with pytest.raises(
            MemoryError, match=r"0\.0 GiB of free memory, got factors [\d.,]+ GiB.*blocks [\d.,]+ GiB"
        ):
            fit(table("square"), 64, n_threads=n_threads)


def memory_needed(R, k, monkeypatch, **options):
    """Return the least free memory with which training is not refused."""

    def stop(*arguments):
        raise ValueError("not refused")

    least, most = 0, 2**31
    monkeypatch.setattr("mfkernel.training.fit._make_trainer", stop)
    while most - least > 2**16:
        free = (least + most) // 2
        monkeypatch.setattr("mfkernel.training.fit.available_memory", lambda free=free: free)
        with pytest.raises((MemoryError, ValueError)) as raised:
            fit(R, k, **options)
        least, most = (free, most) if raised.type is MemoryError else (least, free)
    return most


@pytest.mark.parametrize(
    ("shape", "k", "dtype"),
    quick(
        [("many blocks", 8, np.float32), ("tall", 64, np.float64), ("one user", 16, np.float32)],
        ("tall", 64, np.float64),
    ),
)
def test_blocks__takes_about_as_much_memory_as_it_asks_for(shape, k, dtype, monkeypatch):
    R = table(shape)
    R = mf.Ratings((R.users, R.items, R.values, R.shape), dtype=dtype)
    needed = memory_needed(R, k, monkeypatch, dtype=dtype)
    monkeypatch.undo()
    fit(R, k, epochs=1, dtype=dtype)  # compiles, which takes memory, too
    with TracedMemory() as memory:
        fit(R, k, epochs=1, dtype=dtype)
    assert memory.peak < 1.1 * needed + 2**24
