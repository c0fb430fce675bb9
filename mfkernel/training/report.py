"""Reports of a fit while it runs: a bar or lines on stderr, and records for ``logging``."""

import importlib
import logging
import math
import sys
import time
from types import TracebackType
from typing import Any, Self

from mfkernel.model.history import Epoch

LOGGER = logging.getLogger("mfkernel")
MAX_LINES = 50  # lines: for more epochs, one line per second is written


class Report:
    """A context manager for one fit, whose method :meth:`show` is called with the record of each epoch.

    Parameters
    ----------
    about
        Description of the fit, for the log.
    epochs
        Number of epochs planned.
    progress
        Whether to show progress on stderr: a bar on a terminal and in a notebook if tqdm is installed, else
        lines.
    """

    def __init__(self, about: str, epochs: int, *, progress: bool) -> None:
        self._about, self._epochs, self._progress = about, epochs, progress and sys.stderr is not None
        self._bar: Any = None
        self._last_line = -math.inf
        self._reason = ""
        self._n_records = 0

    def __enter__(self) -> Self:
        LOGGER.info("fit started: %s, %d epochs", self._about, self._epochs)
        self._begun = time.perf_counter()
        if self._progress:
            self._bar = _make_bar(self._epochs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        reason = self._reason if kind is None else kind.__name__
        seconds = time.perf_counter() - self._begun
        LOGGER.info("fit ended: %s, %d epochs run, %.3g s", reason, self._n_records, seconds)

    def end(self, reason: str) -> None:
        """Note why training ended, for the log."""
        self._reason = reason

    def show(self, record: Epoch) -> None:
        """Report an epoch, also one that diverged and was undone."""
        self._n_records += 1
        undone = record.rolled_back_to is not None
        if undone:
            LOGGER.warning(
                "epoch %d diverged (rmse %g); restored epoch %d, continued with half the learning rate",
                *(record.epoch, record.rmse, record.rolled_back_to),
            )
        elif LOGGER.isEnabledFor(logging.DEBUG):
            LOGGER.debug("epoch %d/%d: %s", record.epoch, self._epochs, _figures(record))
        if self._bar is not None:
            self._move_bar(record)
        elif self._progress and not undone:
            self._write_line(record)

    def _move_bar(self, record: Epoch) -> None:
        reached = record.epoch if record.rolled_back_to is None else record.rolled_back_to
        if record.rolled_back_to is None:
            self._bar.set_postfix_str(_figures(record), refresh=False)
            self._bar.update(reached - self._bar.n)
        else:
            self._bar.set_postfix_str("diverged, half the learning rate", refresh=False)
            self._bar.n = reached
            self._bar.refresh()

    def _write_line(self, record: Epoch) -> None:
        now, ends = time.monotonic(), (1, self._epochs)
        if self._epochs > MAX_LINES and record.epoch not in ends and now < self._last_line + 1:
            return
        self._last_line = now
        number = f"{record.epoch:>{len(str(self._epochs))}}/{self._epochs}"
        print(f"epoch {number}  {_figures(record)}  {record.seconds:.3g} s", file=sys.stderr)


def _figures(record: Epoch) -> str:
    """Return the errors and the learning rate of an epoch as text."""
    figures = (
        ("rmse", "6g", record.rmse),
        ("loss", "8g", record.loss),
        ("validation", "6g", record.validation_rmse),
        ("validation ndcg", "6g", record.validation_ndcg),
        ("rate", "3g", record.learning_rate),
    )
    return "  ".join(f"{name} {figure:.{form}}" for name, form, figure in figures if figure is not None)


def _make_bar(epochs: int) -> Any:
    """Return a progress bar; None without tqdm, or where stderr is neither a terminal nor a notebook."""
    is_terminal = getattr(sys.stderr, "isatty", bool)
    if not (is_terminal() or _in_notebook()):
        return None
    try:
        tqdm = importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None
    shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
    return tqdm(total=epochs, desc="epoch", bar_format=shape, dynamic_ncols=True, file=sys.stderr)


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_shell is None else get_shell()
    return "IPKernelApp" in getattr(shell, "config", ())
