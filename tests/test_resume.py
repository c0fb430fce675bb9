"""Checkpoints in files: a fit that was ended at any moment resumes with the same bits."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.cli import main
from mfkernel.methods import METHODS, Method
from mfkernel.model import archive
from mfkernel.training import resume
from tests.files import write_file
from tests.helpers import POSIX, ROOT, bits, examples
from tests.processes import make_environment
from tests.toy_method import UserMeans, UserMeansTrainer

# few epochs of few ratings may end there
pytestmark = pytest.mark.filterwarnings("ignore:.* of the mean and biases alone")

R = mf.datasets.synthetic(60, 40, 900, rng=1)
CLICKS = R.with_values(np.round(R.values - R.values.min()) + 1)
TABLE = mf.datasets.synthetic(20, 12, 120, rng=3)  # small and dense: epochs are chosen by a trial


class KilledError(Exception):
    """Ends a fit as a kill would, as far as its files are concerned."""


def killer(epoch):
    """Return a callback that ends the fit after an epoch, before its checkpoint."""

    def kill(record):
        if record.epoch == epoch:
            raise KilledError

    return kill


@pytest.fixture
def each_epoch(monkeypatch):
    """Write a checkpoint after each epoch."""
    monkeypatch.setattr(resume, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(resume, "MAX_SHARE", np.inf)


CASES = {
    "sgd": {},
    "biases": {"biases": True},
    "one of two threads": {"schedule": "hogwild"},
    "sequential": {"schedule": "sequential"},
    "no shuffle": {"schedule": "sequential", "shuffle": False, "decay": "linear"},
    "adaptive": {"decay": "adaptive", "biases": True},
    "inverse time": {"decay": "inverse-time", "loss": "huber"},
    "l1": {"l1": 0.01, "dtype": np.float64},
    "nonnegative": {"nonnegative": True, "biases": True},
    "small residuals": {"learning_rate": 0.05, "R": TABLE, "epochs": 40},
    "chosen epochs": {"R": TABLE, "epochs": None},
    "validation": {"validation": 0.2, "patience": 2, "epochs": 12, "learning_rate": 0.1},
    "patience": {
        **{"validation": 0.2, "patience": 1, "epochs": 30},
        **{"biases": True, "regularization": 0.0, "learning_rate": 0.1},
    },
    "tol": {"tol": 0.02, "epochs": 30},
    "als": {"method": "als"},
    "als biases": {"method": "als", "biases": True, "regularization_per": "row"},
    "als cg": {"method": "als", "solver": "cg", "validation": 0.1},
    "als noise-free": {"method": "als", "R": mf.Ratings(np.add.outer(np.arange(9.0), np.arange(7.0)) + 1)},
    "als far mean": {"method": "als", "R": R.with_values(R.values + 1e4), "dtype": np.float32},
    "als tol": {"method": "als", "tol": 1e-2, "epochs": 30},
    "implicit": {"method": "implicit", "R": CLICKS},
    "implicit validation": {"method": "implicit", "R": CLICKS, "validation": 0.2, "patience": 2, "epochs": 9},
    "implicit subspace": {"method": "implicit", "R": CLICKS, "solver": "subspace"},
    "bayesian": {"method": "bayesian", "samples": 3, "burn_in": 2},
    "bayesian validation": {"method": "bayesian", "validation": 0.2, "patience": 3, "epochs": 9},
    "bayesian scale": {"method": "bayesian", "R": R.with_values(R.values * 4.0**5 + 1e5)},
    "weights": {"sample_weight": np.linspace(0.5, 2, R.nnz)},
    "scale": {"R": R.with_values(R.values * 4.0**5 + 1e5), "biases": True},
    "generator": {"rng": np.random.SeedSequence(5)},
    "warm start": {"init": mf.factorize(R, 5, epochs=2, rng=3)},
    "start values": {"init": (np.ones((60, 5)), np.linspace(0, 1, 200).reshape(5, 40))},
    "ids": {"R": mf.Ratings(R, user_ids=[f"u{n}" for n in range(60)], item_ids=range(40))},
}


def fit(**options):
    return mf.factorize(options.pop("R", R), 5, **{"epochs": 7, "rng": 0, "n_threads": 1} | options)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_resume__gives_the_bits_of_a_fit_without_interruption(case, n_threads, tmp_path, each_epoch):
    if n_threads == 2 and case in ("one of two threads", "sequential", "no shuffle"):
        pytest.skip("this schedule gives the same bits on one thread only")
    options = CASES[case] | {"n_threads": n_threads}
    whole = fit(**options)
    path = tmp_path / "fit.ckpt"
    last = whole.history[-1].epoch
    for end in {1, 2, last // 2 + 1, last}:
        path.unlink(missing_ok=True)
        with pytest.raises(KilledError):
            fit(**options, checkpoint=path, callback=killer(end))
        seen = []
        resumed = fit(**options, checkpoint=path, resume=True, callback=lambda x, to=seen: to.append(x.epoch))
        assert bits(resumed) == bits(whole), end
        assert (resumed.stop_reason, resumed.settings) == (whole.stop_reason, whole.settings)
        assert (resumed.mean, resumed.known_users.tolist()) == (whole.mean, whole.known_users.tolist())
        assert seen == list(range(end, last + 1))
    again = fit(**options, checkpoint=path, resume=True, callback=killer(1))  # it is finished: no epoch
    assert bits(again) == bits(whole)
    assert whole.stop_reason == {"patience": "patience", "tol": "converged", "als tol": "converged"}.get(
        case, whole.stop_reason
    )
    assert again.stop_reason == whole.stop_reason
    assert os.listdir(tmp_path) == ["fit.ckpt"]  # noqa: PTH208 (hidden files too)


def test_resume__goes_through_a_chain_of_interruptions(tmp_path, each_epoch):
    for method in METHODS:
        path, ends = tmp_path / method, [2, 2, 3, 5, 6]
        options = {"method": method, "R": CLICKS, "validation": 0.2, "patience": 9}
        for end in ends:
            with pytest.raises(KilledError):
                fit(**options, checkpoint=path, resume=True, callback=killer(end))
        assert bits(fit(**options, checkpoint=path, resume=True)) == bits(fit(**options))


def test_resume__takes_any_method(tmp_path, each_epoch, monkeypatch):
    monkeypatch.setitem(METHODS, "user-means", Method(UserMeans, UserMeansTrainer))
    with pytest.raises(KilledError):
        fit(method=UserMeans(epochs=4), epochs=4, checkpoint=tmp_path / "fit", callback=killer(3))
    resumed = fit(method=UserMeans(epochs=4), epochs=4, checkpoint=tmp_path / "fit", resume=True)
    assert bits(resumed) == bits(fit(method=UserMeans(epochs=4), epochs=4))


def test_resume__starts_afresh_without_a_file_and_without_resume(tmp_path, each_epoch):
    path, whole = tmp_path / "fit.ckpt", fit()
    assert bits(fit(checkpoint=path, resume=True)) == bits(whole)
    seen = []
    fit(checkpoint=path, callback=lambda x: seen.append(x.epoch), regularization=0.5)  # replaces the file
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="checkpoint must be of the same fit"):
        fit(checkpoint=path, resume=True)


def test_resume__takes_the_seed_of_the_checkpoint(tmp_path, each_epoch):
    path = tmp_path / "fit.ckpt"
    options = {"rng": None, "validation": 0.2, "checkpoint": path, "resume": True}
    with pytest.raises(KilledError):
        fit(**options, callback=killer(2))
    first = fit(**options)
    assert [x.epoch for x in first.history] == list(range(1, len(first.history) + 1))
    assert len(first.history) > 3
    assert bits(fit(**options)) == bits(first)
    assert bits(fit(**options | {"checkpoint": None, "resume": False})) != bits(first)
    for kind in (np.random.MT19937, np.random.Philox, np.random.SFC64):
        path.unlink()
        whole = fit(**options | {"rng": kind(3)})
        assert bits(fit(**options)) == bits(whole)  # its kind and state are in the file


def test_resume__leaves_a_generator_where_the_fit_without_interruption_does(tmp_path, each_epoch):
    states = []
    for option in ({}, {"checkpoint": tmp_path / "one"}, {"checkpoint": tmp_path / "one", "resume": True}):
        rng = np.random.default_rng(4)
        fit(R=TABLE, epochs=None, validation=0.2, rng=rng, **option)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("reason", ["callback", "time limit"])
def test_resume__continues_a_fit_that_its_caller_has_ended(tmp_path, reason):
    options = {"callback": {"callback": lambda x: x.epoch == 3}, "time limit": {"time_limit": 1e-9}}[reason]
    path = tmp_path / "fit.ckpt"
    ended = fit(checkpoint=path, **options)
    assert ended.stop_reason == reason
    resumed = fit(checkpoint=path, resume=True)
    assert bits(resumed) == bits(fit())
    assert resumed.history[: len(ended.history)] == ended.history


def test_resume__after_ctrl_c_continues_from_the_last_checkpoint(tmp_path, each_epoch):
    def interrupt(record):
        if record.epoch == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(mf.Interrupted) as stopped:
        fit(checkpoint=tmp_path / "fit.ckpt", callback=interrupt)
    assert len(stopped.value.model.history) == 4
    assert bits(fit(checkpoint=tmp_path / "fit.ckpt", resume=True)) == bits(fit())


def test_resume__remembers_a_halved_learning_rate(tmp_path, each_epoch):
    options = {"learning_rate": 1.0, "epochs": 12, "biases": True}
    path, seen = tmp_path / "fit.ckpt", []
    message = "training diverged; it restored"
    with pytest.warns(UserWarning, match=message):
        whole = fit(**options)
    end = 1 + max(record.epoch for record in whole.history if record.rolled_back_to is not None)
    with pytest.raises(KilledError):
        fit(**options, checkpoint=path, callback=killer(end))
    with pytest.warns(UserWarning, match=message):
        resumed = fit(**options, checkpoint=path, resume=True, callback=seen.append)
    assert [record.epoch for record in seen] == list(range(end, 13))
    assert any(record.rolled_back_to is not None for record in resumed.history)
    assert seen[-1].learning_rate == whole.history[-1].learning_rate < 1.0
    with pytest.warns(UserWarning, match=message):
        assert bits(fit(**options, checkpoint=path, resume=True)) == bits(resumed)


# what is refused


DIFFERENT = {
    "R": {"R": R.with_values(np.where(np.arange(R.nnz) == 7, 3.5, R.values))},
    "regularization": {"regularization": 0.3},
    "epochs": {"epochs": 8},
    "rng": {"rng": 1},
    "dtype": {"dtype": np.float64},
    "method": {"method": "als"},
    "biases": {"biases": True},
    "validation": {"validation": 0.1},
    "tol": {"tol": 0.1},
    "init": {"init": (np.ones((60, 5)), np.ones((5, 40)))},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_resume__names_what_differs(tmp_path, name):
    path = tmp_path / "fit.ckpt"
    fit(checkpoint=path)
    before = path.read_bytes()
    message = rf"checkpoint must be of the same fit, got .*fit\.ckpt, where .*\b{name} is .*; pass the same"
    with pytest.raises(ValueError, match=message) as caught:
        fit(checkpoint=path, resume=True, **DIFFERENT[name])
    if name not in ("method", "dtype", "validation"):
        assert str(caught.value).count(" is ") == 1
    assert path.read_bytes() == before


def test_resume__names_another_k_and_ids(tmp_path):
    path = tmp_path / "fit.ckpt"
    mf.factorize(R, 3, epochs=1, rng=0, checkpoint=path)
    with pytest.raises(ValueError, match="where k is 3, not 4; pass"):
        mf.factorize(R, 4, epochs=1, rng=0, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="where R is another; pass"):
        mf.factorize(
            mf.Ratings(R, user_ids=np.arange(60) + 1), 3, epochs=1, rng=0, checkpoint=path, resume=True
        )


def test_checkpoint__arguments_are_checked(tmp_path):
    for options, error, message in (
        ({"resume": True}, ValueError, "resume must be False without a checkpoint, got True; pass"),
        ({"resume": "yes", "checkpoint": tmp_path / "x"}, TypeError, "resume must be True or False"),
        ({"checkpoint": 5}, TypeError, "checkpoint must be a path, got 5"),
        ({"checkpoint": tmp_path}, IsADirectoryError, tmp_path.name),
        ({"checkpoint": tmp_path / "no" / "x"}, FileNotFoundError, "no.x"),
    ):
        with pytest.raises(error, match=message):
            fit(**options)
    for name, value in (("checkpoint", tmp_path / "x"), ("resume", True)):
        with pytest.raises(ValueError, match=f"{name} must not be passed to several fits"):
            mf.cross_validate(R, 2, cv=2, **{name: value})
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_resume__refuses_other_files_and_load_refuses_checkpoints(tmp_path):
    model, path = fit(checkpoint=tmp_path / "fit.ckpt"), tmp_path / "model.npz"
    model.save(path)
    with pytest.raises(ValueError, match=r"model\.npz is not a checkpoint saved by mfkernel: it is a model"):
        fit(checkpoint=path, resume=True)
    with pytest.raises(ValueError, match=r"fit\.ckpt is not a model saved by mfkernel: it is a checkpoint"):
        mf.load(tmp_path / "fit.ckpt")
    write_file(tmp_path, "something else", "other")
    with pytest.raises(ValueError, match="other is not a checkpoint saved by mfkernel"):
        fit(checkpoint=tmp_path / "other", resume=True)


def rewritten(path, header=None, **arrays):
    """Write a checkpoint again with some parts changed, or left out if None."""
    with np.load(path) as content:
        parts = dict(content) | arrays
    found = json.loads(str(parts.pop("header"))) | (header or {})
    archive.write(path, {name: x for name, x in found.items() if x is not None}, parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {"identity": None}},
        {"header": {"identity": {"rng": {"bit_generator": "seed"}}}},
        {"header": {"epoch": None}},
        {"header": {"epoch": "x"}},
        {"header": {"trainer": {}}},
        {"header": {"progress": {}}},
        {"header": {"best": "x"}},
        {"P": None},
        {"P": np.ones((3, 3), np.float32)},
        {"Q": np.ones((40, 8))},
        {"history": np.ones(3)},
        {"history": None},
        {"trainer_user_steps": np.ones((1, 2), np.float32)},
        {"trainer_item_steps": None},
        {"trainer_item_steps": np.ones((40, 2))},
    ],
    ids=str,
)
def test_resume__refuses_a_checkpoint_with_wrong_parts(tmp_path, changes):
    path = tmp_path / "fit.ckpt"
    options = {"decay": "adaptive", "rng": None, "checkpoint": path}
    fit(**options, time_limit=1e-9)
    rewritten(path, **changes)
    with pytest.raises(ValueError, match=r"fit\.ckpt(, where| is not a whole checkpoint)"):
        fit(**options, resume=True)


@examples(200)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4
    ),
    end=st.just(1.0) | st.floats(0, 1),
)
def test_resume__of_a_damaged_file_gives_the_model_or_a_plain_error(tmp_path_factory, changes, end):
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    fit(checkpoint=path, time_limit=1e-9)
    data = bytearray(path.read_bytes())
    for share, length, new in changes:
        start = int(share * len(data))
        data[start : start + length] = new
    path.write_bytes(data[: int(end * len(data))])
    try:
        resumed = fit(checkpoint=path, resume=True)
    except (ValueError, OSError):
        return
    assert bits(resumed) == bits(WHOLE)


WHOLE = fit()


# where files cannot be written


def test_checkpoint__that_cannot_be_written_is_an_error_at_the_start(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(archive, "_write_arrays", full_disk)
    with pytest.raises(OSError, match=r"No space left.*fit\.ckpt") as caught:
        fit(checkpoint=tmp_path / "fit.ckpt", callback=begun.append)
    assert caught.value.errno == errno.ENOSPC
    assert begun == []
    if os.name == "posix":
        monkeypatch.setattr(os, "access", lambda path, mode, **_: False)
        with pytest.raises(PermissionError, match=r"fit\.ckpt"):
            fit(checkpoint=tmp_path / "fit.ckpt", callback=begun.append)


def full_disk(stream, arrays):
    stream.write(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_checkpoint__that_cannot_be_written_later_is_a_warning(tmp_path, each_epoch, monkeypatch):
    path = tmp_path / "fit.ckpt"

    def fill(record):
        if record.epoch == 3:
            monkeypatch.setattr(archive, "_write_arrays", full_disk)

    with pytest.warns(UserWarning, match="checkpoint of epoch [3-7] could not be written.*No space") as found:
        model = fit(checkpoint=path, callback=fill)
    assert bits(model) == bits(fit())
    assert {warning.filename for warning in found} == {__file__}
    monkeypatch.undo()
    assert bits(fit(checkpoint=path, resume=True)) == bits(model)  # from epoch 2


def test_checkpoint__is_written_seldom(tmp_path, monkeypatch):
    written = []
    write = archive.write
    monkeypatch.setattr(archive, "write", lambda path, header, arrays: written.append(header["epoch"]))
    fit(checkpoint=tmp_path / "fit.ckpt", epochs=50)
    assert written == [0, 50]
    monkeypatch.setattr(archive, "write", write)


def test_checkpoint__has_the_best_epoch_only_once(tmp_path, each_epoch):
    path = tmp_path / "fit.ckpt"
    model = fit(checkpoint=path, validation=0.2, epochs=3)
    best = int(np.argmin([x.validation_error for x in model.history])) + 1
    with zipfile.ZipFile(path) as file:
        assert ("best_P.npy" in file.namelist()) == (best != 3)


# killed processes

FIT = """
import sys, numpy as np, mfkernel as mf
from mfkernel.training import resume
resume.MIN_INTERVAL, resume.MAX_SHARE = 0.0, np.inf
R = mf.datasets.synthetic(300, 200, 6000, rng=1)
mf.factorize(R, 16, sys.argv[2], epochs=10**6, rng=0, n_threads=2, checkpoint=sys.argv[1], resume=True,
             callback=lambda record: print(record.epoch, flush=True), validation=0.1, patience=10**6)
"""
KILL_METHODS = ("sgd", "als", "implicit")


@POSIX
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kill__leaves_a_whole_checkpoint_at_any_moment(tmp_path, kills):
    rng, path = np.random.default_rng(kills), tmp_path / "fit.ckpt"
    last = 0
    for n in range(kills):
        if n % 10 == 0:
            path.unlink(missing_ok=True)
            method, last = KILL_METHODS[n // 10 % 3], 0
        command = [sys.executable, "-c", FIT, str(path), method]
        with subprocess.Popen(command, cwd=ROOT, env=make_environment(), stdout=subprocess.PIPE) as process:
            first = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
        assert first <= last + 1 if last else first == 1
        last = archive.read(path, resume.FORMATS, "checkpoint")[0]["epoch"]
        assert last >= first - 1
        copy = shutil.copy(path, tmp_path / "copy")
        resumed, whole = (
            some_epochs(method, last + 2, checkpoint=copy, resume=True),
            some_epochs(method, last + 2),
        )
        assert bits(resumed)[1] == bits(whole)[1]
        assert bits(resumed)[0] == bits(whole)[0]
    assert len(os.listdir(tmp_path)) <= 3  # noqa: PTH208 (a draft may be left where it needs a name)


def some_epochs(method, end, **options):
    """Fit as the killed processes do, up to an epoch."""
    options |= {"epochs": 10**6, "rng": 0, "validation": 0.1, "patience": 10**6}
    ratings = mf.datasets.synthetic(300, 200, 6000, rng=1)
    return mf.factorize(ratings, 16, method, **options, callback=lambda x: x.epoch == end)


# the program


def test_program__resumes(tmp_path, capsys, monkeypatch):
    lines = "".join(f"{u},{i},{r}\n" for u, i, r in zip(R.users, R.items, R.values, strict=True))
    write_file(tmp_path, "user,item,rating\n" + lines, "ratings.csv")
    monkeypatch.chdir(tmp_path)
    words = ["factorize", "ratings.csv", "-k", "4", "--epochs", "5", "--checkpoint", "fit.ckpt", "--resume"]
    main([*words, "-o", "one.npz"])
    assert "epoch 5/5" in capsys.readouterr().err
    main([*words, "-o", "two.npz"])
    assert "epoch" not in capsys.readouterr().err  # the fit is finished
    assert bits(mf.load("one.npz")) == bits(mf.load("two.npz"))
    for extra, message in (
        ("-o fit.ckpt", "--checkpoint and --output must name two files"),
        ("--test 0.1", "--seed must be used with --checkpoint and --test"),
        ("--biases", "checkpoint must be of the same fit, got fit.ckpt, where biases is False, not True"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*words, *extra.split()])
    with pytest.raises(SystemExit, match="--resume must be used with --checkpoint FILE"):
        main(["factorize", "ratings.csv", "--resume"])
