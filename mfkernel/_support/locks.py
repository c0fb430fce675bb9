"""A lock that a fork cannot leave locked."""

import os
import threading


class ProcessLock:
    """A lock between the threads of a process; a forked child has a lock of its own.

    ``with lock.own():`` locks and unlocks in C, so Ctrl-C never leaves it locked.
    """

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def own(self) -> threading.Lock:
        """Return the lock of this process."""
        return self._locks.setdefault(os.getpid(), threading.Lock())  # atomic
