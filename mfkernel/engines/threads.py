"""Run tasks in this thread, or in several that start and end with the training."""

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

POLL_SECONDS = 0.05  # seconds; on Windows a wait without a timeout cannot be interrupted


class Task(NamedTuple):
    """A piece of work for one thread.

    Attributes
    ----------
    work
        what to do.
    after
        numbers of the tasks before this one that must be done when it begins.
    place
        where in memory it works; a thread prefers tasks of the place where it has just been.
    """

    work: Any
    after: tuple[int, ...] = ()
    affinity: int = -1


class ThreadEngine:
    """Runs tasks on ``n_threads`` threads, of which this is one; a context manager.

    The kernels hold no lock of Python's, so that plain threads run them side by side: no threading layer to
    clash with, and Ctrl-C is answered between two calls of a kernel. A process that is forked has no helpers
    of its parent's, and starts its own.

    This thread works too. When it slept and woke two others for 5 ms, the system at times put both on one
    core, and some runs were no faster than one thread. As Ctrl-C may then strike between any two bytecodes,
    all that it shares with the helpers is ``Lock`` and ``SimpleQueue``, which take and release in C. A
    ``Condition``, and so an ``Event`` or a ``Future``, is written in Python: interrupted just when it has
    taken its lock, it keeps it for ever, and the helpers wait as long.
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
        """Return ``function(task.work, cancelled)`` of each task, in their order.

        There is no barrier: a free thread takes a task that may begin at the place where it was, or else the
        last of all that may. (The first of all would finish one wave of blocks before the next and change
        place each time; the last goes through many waves at one place.)

        Each call must look at ``cancelled()`` every few milliseconds and return if it is True. If one fails,
        or Ctrl-C arrives, the others are cancelled and waited for before the exception is raised.

        Raises
        ------
        RuntimeError
            If a thread cannot be started; then no task has begun.
        """
        n_helpers = min(self._max_helpers, len(tasks) - 1)
        queue = _Queue(tasks, n_helpers)
        ended: list[BaseException | None] = []  # not in a queue: what Ctrl-C makes us lose would be missed
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
        """See to it that so many helpers wait for jobs; return how many do, fewer if this is closed."""
        if self._process != os.getpid():
            self._forget_helpers()
        # only those that live are counted: a job that nobody takes would be waited for for ever
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
    """Tasks that wait for others, those that may begin, and the results of those that are done."""

    def __init__(self, tasks: Sequence[Task], n_helpers: int) -> None:
        self.results: dict[int, Any] = {}
        self.cancelled = False
        self._tasks, self._n_helpers = tasks, n_helpers
        self._lock = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()  # for each entry, a thread that waits looks again
        self._waits_for = [len(task.after) for task in tasks]
        self._followers: list[list[int]] = [[] for _ in tasks]
        for n, task in enumerate(tasks):
            for before in task.after:
                self._followers[before].append(n)
        self._ready = [n for n, task in enumerate(tasks) if not task.after]  # always sorted
        self._begun = 0

    def take(self, affinity: int) -> int | None:
        """Wait for a task that may begin, best at ``affinity``; None if there will be no more."""
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
        """Keep the result of task n, and let those begin that waited for it last."""
        with self._lock:
            self.results[n] = result
            freed = 0
            for follower in self._followers[n]:
                self._waits_for[follower] -= 1
                if self._waits_for[follower] == 0:
                    insort(self._ready, follower)
                    freed += 1
            # this thread takes one of those itself; the last task begun, all are to see that there is no more
            wanted = self._n_helpers if self._begun == len(self._tasks) else freed - 1
        for _ in range(wanted):
            self._wake.put(None)

    def cancel(self) -> None:
        """Let no further task begin."""
        self.cancelled = True
        for _ in range(self._n_helpers + 1):
            self._wake.put(None)


def _start_thread(work: Callable[[], Any]) -> threading.Thread:
    """Return a thread that does some work, or say what to do where the system has none to spare."""
    thread = threading.Thread(target=work, name="mfkernel", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if "start" not in str(error):  # Ctrl-C in the midst of it may leave another
            raise
        raise RuntimeError(
            f"a thread could not be started ({error}); pass a smaller n_threads, or raise the limit on "
            "processes and threads (ulimit -u, or that of the container)"
        ) from error
    return thread


def _poll(queue: SimpleQueue[Result]) -> list[Result]:
    """Return what comes next, or nothing if nothing comes for a while, open to Ctrl-C on every platform."""
    try:
        return [queue.get(timeout=POLL_SECONDS)]
    except Empty:
        return []


def default_engine(n_threads: int | None) -> ThreadEngine:
    """Return an engine of so many threads, by default one per core that this process may use."""
    if n_threads is None:
        return ThreadEngine(available_cores())
    return ThreadEngine(checks.integer("n_threads", n_threads, 1))


def interruptible(function: Callable[[], Result]) -> Result:
    """Return ``function()``, computed in a thread of its own, so that Ctrl-C need not wait for its end.

    For long calls of NumPy or of a kernel; if interrupted, they end unheeded in the background. If no thread
    can be started, that is a ``RuntimeError``.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    context = contextvars.copy_context()  # np.errstate, for one
    _start_thread(partial(context.run, work))
    while not (answer := _poll(answers)):
        pass
    ((result, error),) = answer
    if error is not None:
        raise error
    return cast(Result, result)
