"""Reports of a running fit: the bar, the lines, and the records of logging."""

import logging
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.training import report
from tests.files import write_ratings
from tests.helpers import POSIX
from tests.interrupts import interrupt_after
from tests.processes import LIMIT, make_environment, output_of, run_python


@pytest.fixture
def bars(monkeypatch):
    """Pretend to be in a notebook; return a list to which each bar is added."""
    found, tqdm = [], pytest.importorskip("tqdm.auto")

    class Bar(tqdm.tqdm):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.places, self.closed, self.texts = [], False, []
            found.append(self)

        def update(self, n=1):
            answer = super().update(n)
            self.places.append(self.n)
            self.texts.append(self.postfix)
            return answer

        def refresh(self, *arguments, **named):
            if hasattr(self, "places"):
                self.places.append(self.n)
            return super().refresh(*arguments, **named)

        def close(self):
            self.closed = True
            super().close()

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(report, "_in_notebook", lambda: True)
    return found


def test_bar__shows_epoch_error_and_validation(bars, ratings, capsys):
    model = mf.factorize(ratings, 2, "als", epochs=3, validation=ratings, biases=True, progress=True)
    (bar,) = bars
    assert (bar.total, bar.places[-1], bar.closed) == (3, 3, True)
    last = model.history[-1]
    assert (
        f"rmse {last.rmse:.6g}  loss {last.loss:.8g}  validation {last.validation_rmse:.6g}" in bar.texts[-1]
    )
    err = capsys.readouterr().err
    assert re.search(r"epoch: 100%\|.*\| 3/3 \[.*rmse 0?\.?\d", err)
    assert "epoch 1/3" not in err


ENDS = {
    "callback": {"callback": lambda record: record.epoch == 2},
    "time limit": {"time_limit": 1e-9},
    "converged": {"tol": 0.9},
}


@pytest.mark.parametrize("reason", ENDS)
def test_bar__is_closed_where_training_stops(reason, bars, ratings):
    model = mf.factorize(ratings, 4, epochs=9, rng=0, progress=True, **ENDS[reason])
    (bar,) = bars
    assert model.stop_reason == reason
    assert (bar.n, bar.closed) == (model.history[-1].epoch, True)
    assert bar.n < 9


def test_bar__is_closed_by_early_stopping(bars, ratings):
    with pytest.warns(UserWarning, match="above"):
        model = mf.factorize(ratings, 16, epochs=90, rng=0, progress=True, validation=0.2, patience=2)
    (bar,) = bars
    assert model.stop_reason == "patience"
    assert (bar.n, bar.closed) == (model.history[-1].epoch, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_bar__is_closed_by_an_error_or_ctrl_c(error, bars, ratings):
    def callback(record):
        raise error

    with pytest.raises(error):
        mf.factorize(ratings, 4, epochs=9, rng=0, progress=True, callback=callback)
    assert bars[0].closed


def test_bar__is_closed_before_an_interrupted_model_is_given(bars, ratings):
    with pytest.raises(mf.Interrupted) as caught:
        mf.factorize(ratings, 4, epochs=9, progress=True, callback=interrupt_after(4))
    assert (bars[0].n, bars[0].closed) == (4, True)
    assert caught.value.model.history


def test_bar__goes_back_with_an_epoch_that_diverged(bars, ratings):
    with pytest.warns(UserWarning, match="diverged"):
        model = mf.factorize(ratings, 4, learning_rate=7, decay="cosine", biases=True, rng=0, progress=True)
    back = [e.rolled_back_to if e.rolled_back_to is not None else e.epoch for e in model.history]
    places = iter(bars[0].places)
    assert all(place in places for place in back), "each in this order"
    assert bars[0].closed
    assert bars[0].n == model.history[-1].epoch


def test_bar__is_closed_if_training_diverges_for_good(bars, ratings):
    with pytest.raises(mf.DivergenceError):
        mf.factorize(ratings, 4, learning_rate=1e9, epochs=9, progress=True)
    assert bars[0].closed


def test_bar__is_drawn_a_few_times_for_many_epochs(bars, capsys):
    mf.factorize([[5, 3, 0], [4, 0, 1]], 2, epochs=3000, progress=True, n_threads=1)
    assert bars[0].n == 3000
    assert capsys.readouterr().err.count("\r") < 60


def test_progress__is_lines_on_a_terminal_without_tqdm(ratings, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    mf.factorize(ratings, 4, epochs=3, progress=True)
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == [f"epoch {n}/3" for n in (1, 2, 3)]


def test_progress__without_a_terminal_does_not_import_tqdm():
    code = (
        "import sys, mfkernel as mf; mf.factorize([[5, 3], [4, 0]], 1, epochs=2, progress=True);"
        "print('tqdm' in sys.modules)"
    )
    done = run_python(code)
    assert done.stdout == "False\n"
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize("stream", [None, types.SimpleNamespace(write=lambda text: None, flush=lambda: None)])
def test_progress__needs_no_ordinary_stderr(stream, ratings, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream)
    mf.factorize(ratings, 4, epochs=2, progress=True)
    assert capsys.readouterr().out == ""


def test_bar__is_for_terminals_and_notebooks(monkeypatch):
    pytest.importorskip("tqdm")
    shell = types.SimpleNamespace(config={})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    found = []
    for is_terminal, config in ((False, {}), (True, {}), (False, {"IPKernelApp": {}})):
        shell.config = config
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        with report.Report("", 3, progress=True) as running:
            found.append(running._bar is not None)
    assert found == [False, True, True]


def read_all(terminal):
    """Return the text that waits in a terminal whose other end is closed."""
    parts = []
    try:
        while part := os.read(terminal, 2**16):
            parts.append(part)
    except OSError:  # Linux has no end of file here
        pass
    os.close(terminal)
    return b"".join(parts).decode()


@POSIX
@pytest.mark.slow
def test_program__shows_a_bar_on_a_terminal(tmp_path, ratings):
    pytest.importorskip("tqdm")
    import pty
    import termios

    path = write_ratings(tmp_path / "ratings.csv", ratings, "{},{},{}\n", head="user,item,rating\n")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "mfkernel", "factorize", str(path), "-k", "4", "--epochs", "3"]
    environment = make_environment(TERM="xterm", COLUMNS="100")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=theirs, timeout=LIMIT)
    os.close(theirs)
    shown = read_all(ours)
    assert done.returncode == 0
    assert re.search(r"100%\|.*\| 3/3 \[.*rmse", shown)
    assert "\r" in shown


# logging


def test_logging__records_start_epochs_and_end(ratings, caplog):
    caplog.set_level(logging.DEBUG, "mfkernel")
    mf.factorize(ratings, 4, epochs=2, rng=0)
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    start, *epochs, end = found
    assert start == ("INFO", f"fit started: {ratings!r}, k=4, method='sgd', 2 epochs")
    assert [level for level, _ in epochs] == ["DEBUG"] * 2
    assert re.match(r"epoch 2/2: rmse \d\.\d+  rate \d", epochs[1][1])
    assert end[0] == "INFO"
    assert re.fullmatch(r"fit ended: epochs, 2 epochs run, [\d.e-]+ s", end[1])


def test_logging__warns_of_each_epoch_that_was_undone(ratings, caplog):
    with pytest.warns(UserWarning, match="diverged"):
        model = mf.factorize(ratings, 4, learning_rate=7, decay="cosine", biases=True, rng=0)
    undone = [record for record in model.history if record.rolled_back_to is not None]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [re.match(r"epoch (\d+) diverged", text)[1] for text in warned] == [str(e.epoch) for e in undone]


def test_logging__names_the_error_that_ended_a_fit(ratings, caplog):
    with pytest.raises(mf.Interrupted):
        mf.factorize(ratings, 4, epochs=9, callback=interrupt_after(4))
    assert caplog.records[-1].getMessage().startswith("fit ended: KeyboardInterrupt, 4 epochs run")


def test_logging__prints_nothing_unless_asked():
    code = (
        "import warnings; warnings.simplefilter('ignore'); import mfkernel as mf;"
        "R = mf.datasets.synthetic(300, 200, 6000, rng=1);"
        "m = mf.factorize(R, 4, learning_rate=7, decay='cosine', biases=True, rng=0);"
        "assert any(e.rolled_back_to is not None for e in m.history)"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert output_of("import logging, mfkernel; print(logging.getLogger('mfkernel').handlers)").startswith(
        "[<NullH"
    )


def test_report__costs_microseconds_per_epoch():
    import timeit

    with report.Report("", 10**6, progress=False) as running:
        record = mf.Epoch(1, np.inf, 0.1, 0.1)
        seconds = min(timeit.repeat(lambda: running.show(record), number=1000, repeat=5)) / 1000
    assert seconds < 20e-6
