"""Ctrl-C in child processes: when it comes, and how soon it is answered, in CPU seconds of the child.

Other processes on the machine change these seconds little. The signal comes from outside, as a thread of the
child could not send it while the main thread holds the GIL.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.helpers import ROOT
from tests.processes import LIMIT

AT_ONCE = 0.2  # CPU seconds of all threads between a Ctrl-C and its answer; a call of a kernel takes 2 ms


def interrupt_after(last):
    """Return a callback that ends training by a KeyboardInterrupt after epoch ``last``."""

    def callback(epoch):
        if epoch.epoch == last:
            raise KeyboardInterrupt

    return callback


def cpu_seconds(pid):
    """Return the CPU seconds that all threads of a process have taken."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        ticks = stat.read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    minutes = subprocess.check_output(["ps", "-o", "time=", "-p", str(pid)], text=True).strip()
    return sum(float(part) * 60**place for place, part in enumerate(reversed(minutes.split(":"))))


def interrupt(process, after):
    """Send SIGINT once a process has computed for ``after`` more seconds; return its CPU seconds then."""
    start = now = cpu_seconds(process.pid)
    while now < start + after:
        assert process.poll() is None, "the process has ended before it was interrupted"
        time.sleep(0.002)
        now = cpu_seconds(process.pid)
    process.send_signal(signal.SIGINT)
    return now


def answers(code, moments):
    """Run code that is interrupted; return how many CPU seconds each answer took, and what it says.

    For each of the moments, the code prints ``ready``, has to be interrupted so many CPU seconds later, and
    answers with a line: ``time.process_time()`` and something more.
    """
    command, found = [sys.executable, "-c", code], []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LIMIT, process.kill)
        watchdog.start()
        try:
            for moment in moments:
                assert process.stdout.readline() == "ready\n"
                sent = interrupt(process, moment)
                answered, _, says = process.stdout.readline().partition(" ")
                found.append((float(answered) - sent, says.strip()))
        finally:
            watchdog.cancel()
            process.kill()
    return found
