"""A process that runs the cases with the package of one side: ``python -m benchmarks.gate.worker`` there."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.suites import catalogue
from benchmarks.suites.base import SECONDS

MAX_SECONDS = 120  # of an answer


class Worker:
    """The process of one side; a new one if it has died."""

    def __init__(self, side: Path) -> None:
        self._side = side
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[str]":
        environment = os.environ | {"NUMBA_CACHE_DIR": str(self._side / "cache")}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-m", "benchmarks.gate.worker"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self._side, env=environment, stdin=pipe, stdout=pipe, encoding="utf-8"
        )

    def send(self, request: dict[str, Any]) -> None:
        """Send a request."""
        if "build" in request and self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        assert self._process.stdin is not None
        with suppress(OSError):  # the missing answer says it
            print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self._process.stdout is not None
        alarm = threading.Timer(MAX_SECONDS, self._process.kill)
        alarm.start()
        line = self._process.stdout.readline()
        alarm.cancel()
        if not line:
            status = self._process.wait()
            reason = f"the process ended with exit status {status}, or gave no answer in {MAX_SECONDS} s"
            return {"error": reason}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(OSError), self._process:  # unsent requests are lost
            pass


def serve() -> None:
    """Answer requests, one per line: build a case; run it, and return its seconds per call or its figure."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the output of a case is no answer
    case: Callable[[], Any] = int
    timed = False
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "build" in request:
                case = int  # lets go of the last one
                case = catalogue.build(request["build"])
                timed = catalogue.unit(request["build"]) == SECONDS
                answer = {}
            elif timed:
                start = time.perf_counter()
                for _ in range(request["run"]):
                    case()
                answer = {"figure": (time.perf_counter() - start) / request["run"]}
            else:
                answer = {"figure": float(case())}
                if not math.isfinite(answer["figure"]):
                    raise FloatingPointError(f"the figure is {answer['figure']}")
        except NotImplementedError as error:
            answer = {"error": str(error), "skip": True}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
