"""Commands, child processes and threads, all with a time limit; and the memory that a call takes."""

import multiprocessing
import os
import subprocess
import sys
import threading
import tracemalloc
from contextlib import contextmanager

from tests.helpers import ROOT

LIMIT = 120  # seconds, after which a test has failed


def make_environment(**changes):
    """Return the variables of child processes, which import this package and write UTF-8."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | changes


def run_command(*command, environment=None, **options):
    """Run a command in the root of the repository; return its status and its output as text.

    The other options are those of subprocess.run.
    """
    defaults = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    words = [word if isinstance(word, bytes) else str(word) for word in command]
    variables = make_environment(**environment or {})
    return subprocess.run(words, env=variables, check=False, timeout=LIMIT, **defaults | options)


def run_python(code, *arguments, **options):
    """Run code in a new interpreter; return its status and its output."""
    return run_command(sys.executable, "-c", code, *arguments, **options)


def run_program(*arguments, **options):
    """Run ``python -m mfkernel``; return its status and its output."""
    return run_command(sys.executable, "-m", "mfkernel", *arguments, **options)


def output_of(code, **environment):
    """Run code in a new interpreter, where it must succeed; return its output, stripped."""
    done = run_python(code, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_in_child(start, function, *arguments):
    """Return the result of a function in a child process, which is started by "fork" or "spawn"."""
    context = multiprocessing.get_context(start)
    results = context.Queue()
    child = context.Process(target=_answer, args=(results, function, arguments), daemon=True)
    child.start()
    try:
        result = results.get(timeout=60)
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        child.kill()
    return result


def _answer(results, function, arguments):
    results.put(function(*arguments))


def run_within(seconds, function, *arguments, **options):
    """Return the result of a function; fail if it takes longer."""
    answers = []

    def work():
        try:
            answers.append((function(*arguments, **options), None))
        except BaseException as error:
            answers.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=seconds)
    assert answers, f"no answer after {seconds} s"
    result, error = answers[0]
    if error is not None:
        raise error
    return result


def run_in_threads(function, arguments):
    """Call a function at the same time with each of the arguments; return the results in this order."""
    barrier, results, errors = threading.Barrier(len(arguments)), {}, []

    def work(place, argument):
        try:
            barrier.wait(LIMIT)
            results[place] = function(argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(arguments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(arguments))]


@contextmanager
def repeating(*functions):
    """Call functions again and again while the block runs, each in a thread of its own."""
    stop, errors = threading.Event(), []

    def work(function):
        try:
            while not stop.is_set():
                function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


class TracedMemory:
    """Bytes of Python and NumPy that are allocated within a block: the most at any moment, as ``peak``."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
