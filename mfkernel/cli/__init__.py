"""The program ``mfkernel``."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from mfkernel.cli.output import TRACEBACK_VARIABLE, say
from mfkernel.cli.parser import make_parser

INTERRUPTED, BROKEN_PIPE = 130, 141  # exit statuses: 128 plus the number of the signal, as in a shell
SELF_EXPLANATORY_ERRORS = (  # errors shown by their message only; other errors also show their name
    *(OSError, ValueError, TypeError, ArithmeticError, MemoryError, KeyError, RuntimeError, ImportError),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; an error ends it with one line and an exit status, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show every id
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
    except BrokenPipeError:  # the reader of the output has ended
        _close_output()
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        _close_output()
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        sys.exit(f"mfkernel: {_message(error)}")


def _message(error: Exception) -> str:
    """Return an error's description in one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.splitlines())
    if isinstance(error, MemoryError):
        return text or "there is not enough memory"
    if text and isinstance(error, SELF_EXPLANATORY_ERRORS):
        return text
    return f"{type(error).__name__}{text and ': '}{text}; {TRACEBACK_VARIABLE}=1 shows where"


def _close_output() -> None:
    """Discard output that cannot be written, so that Python does not retry at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
