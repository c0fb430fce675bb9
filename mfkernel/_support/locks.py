"""A lock that a fork cannot leave closed."""

import os
import threading


class ProcessLock:
    """A lock between the threads of a process; a child that is forked while it is held has another.

    ``with lock.own():`` takes and releases in C, so that Ctrl-C finds it either open or in the block.
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def own(self) -> threading.Lock:
        """Return the lock of this process."""
        return self._locks.setdefault(os.getpid(), threading.Lock())  # in one step, whoever else asks
