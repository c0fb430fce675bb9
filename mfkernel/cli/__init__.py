"""The program ``mfkernel``."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from mfkernel.cli.output import TRACEBACK_VARIABLE, say
from mfkernel.cli.parser import make_parser

INTERRUPTED, BROKEN_PIPE = 130, 141  # exit status, as a shell has it of a program that a signal has ended
SELF_EXPLANATORY_ERRORS = (  # errors whose message is enough; of others the name is shown as well
    *(OSError, ValueError, TypeError, ArithmeticError, MemoryError, KeyError, RuntimeError, ImportError),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; whatever goes wrong ends it with one line and an exit status, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every id
    try:
        try:
            options = make_parser().parse_args(arguments)
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: say(message)
                options.run(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # who reads has seen enough
        _close_output()
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        _close_output()
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        sys.exit(f"mfkernel: {_message(error)}")


def _message(error: Exception) -> str:
    """Say in one line what went wrong."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.splitlines())
    if isinstance(error, MemoryError):
        return text or "there is not enough memory"
    if text and isinstance(error, SELF_EXPLANATORY_ERRORS):
        return text
    return f"{type(error).__name__}{text and ': '}{text}; {TRACEBACK_VARIABLE}=1 shows where"


def _close_output() -> None:
    """Where output can no longer be written, let Python not try again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
