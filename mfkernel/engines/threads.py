"""Run tasks in one or several threads, which start and end with the training."""

import contextvars
import os
import threading
from bisect import insort
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from mfkernel._support import checks
from mfkernel.engines.resources import available_cores

Result = TypeVar("Result")

POLL_SECONDS = 0.05  # timeout of a wait: on Windows, Ctrl-C cannot interrupt a wait without one


class Task(NamedTuple):
    """A piece of work for one thread.

    Attributes
    ----------
    work
        Argument of the function that the engine runs.
    after
        Numbers of the earlier tasks that must end before this one begins.
    affinity
        Number of the memory region that the task uses. A thread prefers tasks of its last region, which is in
        its cache.
    """

    work: Any
    after: tuple[int, ...] = ()
    affinity: int = -1


class ThreadEngine:
    """An engine that runs tasks on ``n_threads`` threads, the calling one included; a context manager.

    Kernels release the GIL, so plain threads run them in parallel. No threading layer can conflict, and
    Python answers Ctrl-C between two kernel calls. A forked process starts helper threads of its own.

    The calling thread also works. When it slept and two helpers worked for 5 ms, the system sometimes put
    both on one core, and the run was no faster than one thread.

    Ctrl-C may arrive between any two bytecodes of the calling thread. It therefore shares only ``Lock`` and
    ``SimpleQueue`` with the helpers, which lock and unlock in C. ``Condition``, ``Event`` and ``Future`` are
    written in Python: an interrupt just after their lock is taken would leave it locked forever.
    """

    def __init__(self, n_threads: int) -> None:
        self._max_helpers, self._closed = n_threads - 1, False
        self._forget_helpers()

    @property
    def n_threads(self) -> int:
        """Number of threads, this one included."""
        return self._max_helpers + 1

    def _forget_helpers(self) -> None:
        self._process = os.getpid()
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._helpers: list[threading.Thread] = []

    def run(
        self, function: Callable[[Any, Callable[[], bool]], Result], tasks: Sequence[Task]
    ) -> list[Result]:
        """Return ``function(task.work, cancelled)`` for each task, in the order of the tasks.

        There is no barrier. A free thread takes a ready task of its last affinity, else the last ready task.
        The first ready task would complete one wave of blocks after the other, with another affinity each
        time. The last one leads through many waves of one affinity.

        Each call must check ``cancelled()`` every few milliseconds and return if it is True. If a call fails
        or Ctrl-C arrives, the engine cancels the other calls and waits for them before it raises.

        Raises
        ------
        RuntimeError
            If a thread cannot be started. No task has begun then.
        """
        n_helpers = min(self._max_helpers, len(tasks) - 1)
        queue = _Queue(tasks, n_helpers)
        ended: list[BaseException | None] = []  # not a queue, where Ctrl-C could lose an entry
        an_end: SimpleQueue[None] = SimpleQueue()

        def cancelled() -> bool:
            return queue.cancelled or self._closed

        def work() -> None:
            affinity = -1
            try:
                while (n := queue.take(affinity)) is not None:
                    queue.finish(n, function(tasks[n].work, cancelled))
                    affinity = tasks[n].affinity
            except BaseException:
                queue.cancel()
                raise

        def help_out() -> None:
            try:
                work()
                ended.append(None)
            except BaseException as error:
                ended.append(error)
            an_end.put(None)

        helping = 0
        try:
            n_helpers = self._ensure_helpers(n_helpers)
            while helping < n_helpers:
                self._jobs.put(help_out)
                helping += 1
            work()
            while len(ended) < helping:
                _poll(an_end)
        finally:
            queue.cancel()
            while len(ended) < helping:
                _poll(an_end)
        for error in ended:
            if error is not None:
                raise error
        return [queue.results[n] for n in range(len(tasks))]

    def _ensure_helpers(self, n_helpers: int) -> int:
        """Start helpers up to ``n_helpers``; return their number, fewer if the engine is closed."""
        if self._process != os.getpid():
            self._forget_helpers()
        # count only living helpers: run would wait forever for a job that no helper takes
        self._helpers = [helper for helper in self._helpers if helper.is_alive()]
        while len(self._helpers) < n_helpers and not self._closed:
            self._helpers.append(_start_thread(self._help))
        return min(n_helpers, len(self._helpers))

    def _help(self) -> None:
        jobs = self._jobs
        while not self._closed:
            for job in _poll(jobs):
                job()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        if self._process != os.getpid():
            return
        for _ in self._helpers:
            self._jobs.put(lambda: None)  # wakes it
        for helper in self._helpers:
            helper.join()


class _Queue:
    """The waiting and the ready tasks, and the results of those that are done."""

    def __init__(self, tasks: Sequence[Task], n_helpers: int) -> None:
        self.results: dict[int, Any] = {}
        self.cancelled = False
        self._tasks, self._n_helpers = tasks, n_helpers
        self._lock = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()  # each entry wakes one waiting thread
        self._waits_for = [len(task.after) for task in tasks]
        self._followers: list[list[int]] = [[] for _ in tasks]
        for n, task in enumerate(tasks):
            for before in task.after:
                self._followers[before].append(n)
        self._ready = [n for n, task in enumerate(tasks) if not task.after]  # always sorted
        self._begun = 0

    def take(self, affinity: int) -> int | None:
        """Wait for a ready task, preferably of ``affinity``; return None if none is left."""
        while True:
            with self._lock:
                if self.cancelled or self._begun == len(self._tasks):
                    return None
                if self._ready:
                    self._begun += 1
                    preferred = (
                        at for at, n in enumerate(self._ready) if self._tasks[n].affinity == affinity
                    )
                    return self._ready.pop(next(preferred, -1))
            _poll(self._wake)

    def finish(self, n: int, result: Any) -> None:
        """Store the result of task n, and release the tasks that only waited for it."""
        with self._lock:
            self.results[n] = result
            freed = 0
            for follower in self._followers[n]:
                self._waits_for[follower] -= 1
                if self._waits_for[follower] == 0:
                    insort(self._ready, follower)
                    freed += 1
            # this thread takes one of them itself; once the last task has begun, all threads must wake to end
            wanted = self._n_helpers if self._begun == len(self._tasks) else freed - 1
        for _ in range(wanted):
            self._wake.put(None)

    def cancel(self) -> None:
        """Stop further tasks from beginning."""
        self.cancelled = True
        for _ in range(self._n_helpers + 1):
            self._wake.put(None)


def _start_thread(work: Callable[[], Any]) -> threading.Thread:
    """Start a thread; if the system has none to spare, raise an error with the remedy."""
    thread = threading.Thread(target=work, name="mfkernel", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if "start" not in str(error):  # Ctrl-C inside start() may cause another error
            raise
        raise RuntimeError(
            f"a thread could not be started ({error}); pass a smaller n_threads, or raise the limit on "
            "processes and threads (ulimit -u, or that of the container)"
        ) from error
    return thread


def _poll(queue: SimpleQueue[Result]) -> list[Result]:
    """Return the next entry in a list, or an empty list after a timeout; Ctrl-C can interrupt."""
    try:
        return [queue.get(timeout=POLL_SECONDS)]
    except Empty:
        return []


def default_engine(n_threads: int | None) -> ThreadEngine:
    """Return an engine with ``n_threads`` threads, by default one per available core."""
    if n_threads is None:
        return ThreadEngine(available_cores())
    return ThreadEngine(checks.integer("n_threads", n_threads, 1))


def interruptible(function: Callable[[], Result]) -> Result:
    """Return ``function()``, computed in another thread so that Ctrl-C need not wait for it.

    It is meant for long calls of NumPy or of a kernel. After an interrupt, such a call ends in the
    background. If no thread can be started, the error is a ``RuntimeError``.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    context = contextvars.copy_context()  # for example np.errstate
    _start_thread(partial(context.run, work))
    while not (answer := _poll(answers)):
        pass
    ((result, error),) = answer
    if error is not None:
        raise error
    return cast(Result, result)
