"""Start: a new process that imports the package, or calls it for the first time."""

import tempfile

from benchmarks.suites.base import SECONDS, Case, Suite, run_in_new_process, run_once

STARTS = ("import", "first call, compiled before", "first call", "first call with biases, and question")
FIRST_CALL = "import mfkernel as mf; mf.factorize([[5, 3, 0], [4, 0, 1]], 2)"
FIRST_QUESTION = f"{FIRST_CALL[:-1]}, biases=True).recommend(0)"


def start(kind: str) -> Case:
    """Build a new process."""
    if kind == "import":
        return run_once(lambda: run_in_new_process("import mfkernel"))
    if kind == "first call, compiled before":
        return run_once(lambda: run_in_new_process(FIRST_CALL))

    code = FIRST_CALL if kind == "first call" else FIRST_QUESTION

    def cold() -> None:
        with tempfile.TemporaryDirectory() as empty:
            run_in_new_process(code, NUMBA_CACHE_DIR=empty)

    return cold


SUITES = {"start": Suite(SECONDS, {"what": STARTS}, start)}
