"""Who runs the tasks: this thread, or several that start and end with the training."""

import contextvars
import threading
from bisect import insort
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

Result = TypeVar("Result")

POLL = 0.05  # seconds; on Windows a wait without a timeout cannot be interrupted


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
    place: int = -1


class ThreadEngine:
    """Runs tasks on ``n_threads`` threads, of which this is one; a context manager.

    The kernels hold no lock of Python's, so that plain threads run them side by side: no threading layer to
    clash with, nothing that survives a fork, and Ctrl-C is answered between two calls of a kernel.

    This thread works too. When it slept and woke two others for 5 ms, the system at times put both on one
    core, and some runs were no faster than one thread.
    """

    def __init__(self, n_threads: int) -> None:
        self._helpers = n_threads - 1
        self._pool = ThreadPoolExecutor(max(1, self._helpers), thread_name_prefix="mfkernel")
        self._closed = False

    def run(
        self, function: Callable[[Any, Callable[[], bool]], Result], tasks: Sequence[Task]
    ) -> list[Result]:
        """Return ``function(task.work, cancelled)`` of each task, in their order.

        There is no barrier: a free thread takes a task that may begin at the place where it was, or else the
        last of all that may. (The first of all would finish one wave of blocks before the next and change
        place each time; the last goes through many waves at one place.)

        Each call must look at ``cancelled()`` every few milliseconds and return if it is True. If one fails,
        or Ctrl-C arrives, the others are cancelled and waited for before the exception goes on.
        """
        queue = _Queue(tasks)

        def cancelled() -> bool:
            return queue.cancelled or self._closed

        def work() -> None:
            place = -1
            try:
                while (n := queue.take(place)) is not None:
                    queue.finish(n, function(tasks[n].work, cancelled))
                    place = tasks[n].place
            except BaseException:
                queue.cancel()
                raise

        helpers = [self._pool.submit(work) for _ in range(min(self._helpers, len(tasks) - 1))]
        try:
            work()
            _wait(helpers)
        finally:
            queue.cancel()
            wait(helpers)
        return [queue.results[n] for n in range(len(tasks))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._pool.shutdown()


class _Queue:
    """Tasks that wait for others, those that may begin, and the results of those that are done."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.results: dict[int, Any] = {}
        self.cancelled = False
        self._tasks = tasks
        self._changed = threading.Condition()
        self._waits_for = [len(task.after) for task in tasks]
        self._followers: list[list[int]] = [[] for _ in tasks]
        for n, task in enumerate(tasks):
            for before in task.after:
                self._followers[before].append(n)
        self._ready = [n for n, task in enumerate(tasks) if not task.after]  # always sorted
        self._begun = 0

    def take(self, place: int) -> int | None:
        """Wait for a task that may begin, best at ``place``; None if there will be no more."""
        with self._changed:
            while not self._ready and self._begun < len(self._tasks) and not self.cancelled:
                self._changed.wait(POLL)
            if self.cancelled or self._begun == len(self._tasks):
                return None
            self._begun += 1
            near = (at for at, n in enumerate(self._ready) if self._tasks[n].place == place)
            return self._ready.pop(next(near, -1))

    def finish(self, n: int, result: Any) -> None:
        """Keep the result of task n, and let those begin that waited for it last."""
        with self._changed:
            self.results[n] = result
            freed = 0
            for follower in self._followers[n]:
                self._waits_for[follower] -= 1
                if self._waits_for[follower] == 0:
                    insort(self._ready, follower)
                    freed += 1
            if freed > 1 or self._begun == len(self._tasks):
                self._changed.notify_all()  # this thread takes one of them itself

    def cancel(self) -> None:
        """Let no further task begin."""
        with self._changed:
            self.cancelled = True
            self._changed.notify_all()


def interruptible(function: Callable[[], Result]) -> Result:
    """Return ``function()``, computed in a thread of its own, so that Ctrl-C need not wait for its end.

    For long calls of NumPy or of a kernel; if interrupted, they end unheeded in the background.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    context = contextvars.copy_context()  # np.errstate, for one
    threading.Thread(target=context.run, args=(work,), name="mfkernel", daemon=True).start()
    _wait([future])
    return future.result()


def _wait(futures: Sequence[Future[Any]]) -> None:
    """Wait until all are done or one has failed, open to Ctrl-C on every platform."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=POLL, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
