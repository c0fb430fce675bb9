"""Who runs the tasks: this thread, or several that start and end with the training."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

POLL = 0.05  # seconds; on Windows a wait without a timeout cannot be interrupted


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

    def run(
        self, function: Callable[[Any, Callable[[], bool]], Result], tasks: Sequence[Any]
    ) -> list[Result]:
        """Return ``function(task, cancelled)`` of each task, in their order.

        Each call must look at ``cancelled()`` every few milliseconds and return if it is True. If one fails,
        or Ctrl-C arrives, the others are cancelled and waited for before the exception goes on.
        """
        cancel = threading.Event()
        waiting = deque(enumerate(tasks))
        results: dict[int, Result] = {}

        def work() -> None:
            try:
                while waiting and not cancel.is_set():
                    try:
                        n, task = waiting.popleft()
                    except IndexError:  # another thread was quicker
                        return
                    results[n] = function(task, cancel.is_set)
            except BaseException:
                cancel.set()
                raise

        helpers = [self._pool.submit(work) for _ in range(min(self._helpers, len(tasks) - 1))]
        try:
            work()
            _wait(helpers)
        finally:
            cancel.set()
            wait(helpers)
        return [results[n] for n in range(len(tasks))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()


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
