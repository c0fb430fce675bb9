"""Progress of a long run, on stderr."""

import sys
import time

PERIOD = 20  # seconds between two lines where stderr is no terminal
_last = [-float(PERIOD)]


def show(text: str, keep: bool = False) -> None:
    """Show a line in place of the last one; where stderr is no terminal, print one now and then.

    An empty one clears the place.

    Parameters
    ----------
    text
        The line.
    keep
        Whether it is to stay, on a terminal or not.
    """
    now = time.monotonic()
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
    elif text and (keep or now - _last[0] >= PERIOD):
        print(text, file=sys.stderr, flush=True)
        _last[0] = now
