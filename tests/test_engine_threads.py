"""Threads that cannot be started, and threads that a fork has taken away."""

import threading
import time

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.engines.threads import Task, ThreadEngine, interruptible
from tests.helpers import FORKING, POSIX
from tests.processes import output_of, run_in_child

MESSAGE = r"a thread could not be started \(.*\); pass a smaller n_threads, .*ulimit -u"


class Starts:
    """Counts threads as they are started, and lets one, or all from one on, fail."""

    def __init__(self, monkeypatch, first, last):
        self.count, self._range = 0, range(first, last)
        start = threading.Thread.start

        def counted(thread):
            self.count += 1
            if self.count - 1 in self._range:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", counted)


def ours():
    return [thread for thread in threading.enumerate() if thread.name == "mfkernel"]


def no_thread_is_left(but=frozenset()):
    """Return whether all of our threads have ended, except those of others."""
    deadline = time.monotonic() + 20
    while set(ours()) - but and time.monotonic() < deadline:
        time.sleep(0.01)
    return not set(ours()) - but


CALLS = {
    "blocks": lambda R: mf.factorize(R, 3, epochs=2, n_threads=3, rng=0),
    "hogwild": lambda R: mf.factorize(R, 3, epochs=2, schedule="hogwild", n_threads=3, rng=0),
    "als": lambda R: mf.factorize(R, 3, epochs=1, method="als", n_threads=3, rng=0),
    "recommend": lambda R: mf.Factors(np.ones((R.n_users, 2)), np.ones((2, R.n_items)), ratings=R).recommend(
        np.arange(R.n_users), 5, n_threads=3
    ),
    "search": lambda R: mf.grid_search(R, {"k": [2, 3]}, 2, epochs=1, n_threads=3, rng=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("later", ["works", "fails"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls__say_that_a_thread_cannot_be_started(call, later, ratings, monkeypatch):
    many = (
        mf.datasets.synthetic(2000, 500, 140_000)
        if call in (CALLS["blocks"], CALLS["recommend"])
        else ratings
    )
    before = set(ours())  # of other tests
    call(many)  # compiled
    with monkeypatch.context() as patch:
        starts = Starts(patch, 10**9, 10**9)
        call(many)
    assert starts.count > 0
    numbers = range(starts.count) if starts.count < 40 else {*range(12), *range(0, starts.count, 9)}
    for n in numbers:
        with monkeypatch.context() as patch:
            starts = Starts(patch, n, n + 1 if later == "works" else 10**9)
            begin = time.monotonic()
            with pytest.raises(RuntimeError, match=MESSAGE):
                call(many)
            assert time.monotonic() < begin + 30  # that is, it does not hang
            assert starts.count > n
        assert no_thread_is_left(before)
    call(many)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_thread_engine__remains_usable_where_a_thread_could_not_be_started(n, monkeypatch):
    squares = [t * t for t in range(10)]
    with ThreadEngine(4) as engine:
        for _ in range(2):
            with monkeypatch.context() as patch:
                Starts(patch, 0, 10**9) if engine._helpers else Starts(patch, n, 10**9)
                with pytest.raises(RuntimeError, match=MESSAGE):
                    engine.run(lambda work, cancelled: work * work, [Task(t) for t in range(10)])
                assert len(engine._helpers) == n  # each of them lives
                assert len(ours()) == n
                # as many threads as there are will do
                tasks = [Task(t) for t in range(n + 1)]
                assert engine.run(lambda work, cancelled: work * work, tasks) == squares[: n + 1]
        assert engine.run(lambda work, cancelled: work * work, [Task(t) for t in range(10)]) == squares
        assert len(ours()) == 3
    assert ours() == []


def test_interruptible__says_that_a_thread_cannot_be_started(monkeypatch):
    with monkeypatch.context() as patch:
        Starts(patch, 0, 1)
        with pytest.raises(RuntimeError, match=MESSAGE):
            interruptible(lambda: 42)
        assert interruptible(lambda: 42) == 42


@pytest.mark.slow
def test_factorize__says_that_the_system_has_no_thread_to_spare():
    code = (
        "import threading, mfkernel as mf\n"
        "R = mf.datasets.synthetic(50, 40, 600)\n"
        "threading.stack_size(2**46)\n"  # larger than any address space
        "try: mf.factorize(R, 2, epochs=1)\n"
        "except RuntimeError as error: print(error)"
    )
    assert "a thread could not be started" in output_of(code)


# fork


@POSIX
@FORKING
def test_thread_engine__works_in_a_forked_child():
    def squares(engine, count):
        return engine.run(lambda work, cancelled: work * work, [Task(t) for t in range(count)])

    with ThreadEngine(3) as engine:
        assert len(squares(engine, 5)) == 5
        for _ in range(3):

            def work():
                with engine:
                    result = squares(engine, 20)
                    names = sorted({thread.name for thread in threading.enumerate()} - {"MainThread"})
                return sum(result), names, len(ours())

            assert run_in_child("fork", work) == (2470, ["mfkernel"], 0)
        assert len(squares(engine, 5)) == 5  # the parent has kept its own


@POSIX
@FORKING
def test_thread_engine__works_in_a_child_forked_during_a_run():
    """Jobs that wait for the parent's threads are none of the child's."""
    engine, begun, end = ThreadEngine(3), threading.Barrier(4, timeout=20), threading.Event()

    def block(work, cancelled):
        begun.wait()
        end.wait(20)

    with engine:
        thread = threading.Thread(target=engine.run, args=(block, [Task(t) for t in range(3)]))
        thread.start()
        begun.wait()
        for _ in range(9):
            engine._jobs.put(end.wait)
        try:
            run = lambda: sum(engine.run(lambda work, cancelled: work, [Task(t) for t in range(20)]))  # noqa: E731
            assert run_in_child("fork", run) == 190
        finally:
            end.set()
            thread.join()


@POSIX
@FORKING
def test_interruptible__works_in_a_forked_child():
    end = threading.Event()
    thread = threading.Thread(target=lambda: interruptible(lambda: end.wait(20)))
    thread.start()
    try:
        assert run_in_child("fork", interruptible, lambda: 42) == 42
    finally:
        end.set()
        thread.join()
