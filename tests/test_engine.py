"""Threads, cancellation, and what the process may use."""

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfkernel.engines.resources import available_cores, available_memory
from mfkernel.engines.threads import Task, ThreadEngine, interruptible


def tasks(work):
    return [Task(x) for x in work]


@st.composite
def some_tasks(draw):
    """Tasks that wait for any of those before them."""
    before = [
        draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        for n in range(draw(st.integers(1, 30)))
    ]
    return [Task(n, tuple(sorted(after)), draw(st.integers(0, 3))) for n, after in enumerate(before)]


@given(tasks=some_tasks(), n_threads=st.integers(1, 4))
def test_thread_engine__no_task_begins_before_those_it_waits_for_are_done(tasks, n_threads):
    done = []

    def function(n, cancelled):
        assert set(tasks[n].after) <= set(done)
        done.append(n)
        return n

    with ThreadEngine(n_threads) as engine:
        for _ in range(2):
            done.clear()
            assert engine.run(function, tasks) == list(range(len(tasks)))
            assert sorted(done) == list(range(len(tasks)))


def test_thread_engine__one_thread_stays_where_it_was():
    places = [0, 1, 0, 1, 2, 2, 1]
    seen = []
    with ThreadEngine(1) as engine:
        engine.run(
            lambda n, cancelled: seen.append(places[n]), [Task(n, (), p) for n, p in enumerate(places)]
        )
    assert sum(a != b for a, b in itertools.pairwise(seen)) == 2


def test_thread_engine__closing_cancels_what_another_thread_still_runs():
    engine, started, seen = ThreadEngine(2), threading.Event(), []

    def work(n, cancelled):
        started.set()
        deadline = time.monotonic() + 20
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(cancelled())

    thread = threading.Thread(target=lambda: engine.run(work, tasks([0, 1])))
    thread.start()
    assert started.wait(20)
    with engine:
        pass
    thread.join(20)
    assert not thread.is_alive()
    assert seen
    assert all(seen)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_thread_engine__returns_results_in_the_order_of_the_tasks(n_threads):
    with ThreadEngine(n_threads) as engine:
        for _ in range(3):
            assert engine.run(lambda work, cancelled: work * work, tasks(range(10))) == [
                t * t for t in range(10)
            ]


def test_thread_engine__runs_tasks_side_by_side():
    barrier = threading.Barrier(3, timeout=20)
    with ThreadEngine(3) as engine:
        assert engine.run(lambda work, cancelled: barrier.wait() >= 0, tasks([0, 1, 2])) == [True] * 3


def test_thread_engine__cancels_the_others_when_one_fails():
    seen, started = [], threading.Event()

    def work(task, cancelled):
        if task == 0:
            assert started.wait(20)
            raise ZeroDivisionError
        started.set()
        deadline = time.monotonic() + 20
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(cancelled())

    with ThreadEngine(2) as engine:
        for order in ([0, 1], [1, 0]):  # this thread takes the last, most likely
            started.clear()
            with pytest.raises(ZeroDivisionError):
                engine.run(work, tasks(order))
    assert seen == [True, True]


def test_thread_engine__shares_out_more_tasks_than_threads():
    with ThreadEngine(2) as engine:
        names = engine.run(
            lambda work, cancelled: (time.sleep(0.01), threading.get_ident())[1], tasks(range(20))
        )
    assert len(set(names)) == 2


def test_interruptible__passes_on_results_and_errors():
    assert interruptible(lambda: 42) == 42
    with pytest.raises(KeyError, match="lost"):
        interruptible(lambda: {}["lost"])


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "1000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_available_cores__is_the_affinity_cut_by_the_cgroup_quota(files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, files)
    assert available_cores(tmp_path) == expected


def test_available_cores__respects_the_affinity_mask(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3}, raising=False)
    assert available_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 2048 kB\n"}, 2 * 2**20),
        (
            {
                "proc/meminfo": "MemAvailable: 2048 kB\n",
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "300\n",
            },
            700,
        ),
        (  # pages of files that were read count as used, but are given back
            {
                "proc/meminfo": "MemAvailable: 2048 kB\n",
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "900\n",
                "sys/fs/cgroup/a/memory.stat": "anon 100\ninactive_file 600\n",
            },
            700,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 2048 kB\n",
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.current": "300\n",
            },
            2 * 2**20,
        ),
    ],
)
def test_available_memory__is_what_is_free_cut_by_the_cgroup_limit(files, expected, tmp_path):
    write(tmp_path, files)
    assert available_memory(tmp_path) == expected
