"""The program: what it prints, where, what it saves, and how it ends."""

import argparse
import itertools
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import mfkernel as mf
from mfkernel.cli import main
from mfkernel.cli import output as outputs
from mfkernel.cli.ids import decodings
from mfkernel.cli.parser import make_parser
from tests.files import write_ratings
from tests.interrupts import AT_ONCE, interrupt
from tests.processes import make_environment, run_program, run_python

ORIGINAL = [[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]]
RECONSTRUCTED = [
    [5, 3, 5.27681818],
    [4, 2.62681228, 4.40062951],
    [1, 1, 1.37135176],
    [4.64876186, 2.90807902, 5],
    [3.52188973, 2.4715342, 4],
]


@pytest.fixture(scope="module")
def rating_file(tmp_path_factory: pytest.TempPathFactory, ratings: mf.Ratings) -> Path:
    """Ratings whose user ids are strings and whose item ids are far from 0."""
    path = tmp_path_factory.mktemp("cli") / "ratings.csv"
    return write_ratings(path, ratings, "u{},1{:012},{}\n", head="user,item,rating\n")


def output(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[str, str]:
    """Run the program and return what it wrote to stdout and stderr."""
    capsys.readouterr()
    main(["factorize", *map(str, arguments)])
    captured = capsys.readouterr()
    return captured.out, captured.err


def failure(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[str, str]:
    """Run the program, which must fail, and return what it wrote to stdout and what it ended with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["factorize", *map(str, arguments)])
    captured = capsys.readouterr()
    assert end.value.code not in (0, None)
    return captured.out, captured.err + (end.value.code if isinstance(end.value.code, str) else "")


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.\d*", text)]


def matrices(out: str) -> tuple[np.ndarray, np.ndarray]:
    first, second = re.split("reconstructed", out, flags=re.IGNORECASE)
    return np.reshape(numbers(first), (5, 3)), np.reshape(numbers(second), (5, 3))


def test_factorize__shows_the_example(capsys):
    out, err = output(capsys)
    original, reconstructed = matrices(out)
    np.testing.assert_array_equal(original, ORIGINAL)
    np.testing.assert_allclose(reconstructed, RECONSTRUCTED, rtol=0, atol=1e-8)
    assert err == ""


@pytest.mark.parametrize(
    "options", [["-k", 3], ["-k", 1], ["--seed", 5], ["--epochs", 10], ["--learning-rate", 0.001]]
)
def test_factorize__takes_options_for_the_example(capsys, tmp_path, options):
    out, _ = output(capsys, *options, "-o", tmp_path / "model.npz")
    original, reconstructed = matrices(out.replace("saved", ""))
    np.testing.assert_array_equal(original, ORIGINAL)
    np.testing.assert_allclose(reconstructed, mf.load(tmp_path / "model.npz").reconstruct(), atol=1e-7)
    assert np.abs(reconstructed - RECONSTRUCTED).max() > 1e-4


def test_python_m_mfkernel__is_the_program():
    run = run_program("factorize")
    np.testing.assert_allclose(matrices(run.stdout)[1], RECONSTRUCTED, rtol=0, atol=1e-8)
    assert run.stderr == ""


def test_python_m_mfkernel__ends_with_one_line_and_a_code(tmp_path):
    run = run_program("factorize", tmp_path / "missing.csv")
    assert run.returncode != 0
    assert re.fullmatch(r"mfkernel: .*missing\.csv.*\n", run.stderr)
    assert run.stdout == ""


def test_factorize__reports_saves_and_shows_progress(capsys, tmp_path, rating_file):
    path = tmp_path / "model.npz"
    out, err = output(capsys, rating_file, "-k", 32, "--test", 0.1, "--seed", 3, "--epochs", 4, "-o", path)

    ratings = mf.read_ratings(rating_file)
    train, test = mf.train_test_split(ratings, 0.1, rng=3)
    assert test.nnz == round(0.1 * ratings.nnz)
    model = mf.load(path)
    of_mean = [np.sqrt(np.mean((part.values - train.mean) ** 2)) for part in (train, test)]
    of_model = [
        np.sqrt(np.mean((part.values - model.by_position.predict(part.users, part.items)) ** 2))
        for part in (train, test)
    ]
    lines = [line for line in out.splitlines() if len(numbers(line)) == 2]
    assert len(lines) == 2
    np.testing.assert_allclose([numbers(line) for line in lines], [of_mean, of_model], rtol=0, atol=6e-5)
    assert re.search(r"\bmean\b", lines[0])
    assert "32" in lines[1]
    assert re.search(r"RMSE.*train.*test", out)
    assert str(path) in out

    assert err.count("\n") == 4
    assert all(f"{epoch}/4" in line for epoch, line in enumerate(err.splitlines(), 1))

    with np.load(path, allow_pickle=False) as saved:
        assert (saved["P"].shape, saved["Q"].shape) == ((train.n_users, 32), (32, train.n_items))
        np.testing.assert_array_equal(saved["user_ids"], ratings.user_ids)
        np.testing.assert_array_equal(saved["item_ids"], ratings.item_ids)
    assert model.user_ids.tolist() == sorted(
        {line.split(",")[0] for line in rating_file.read_text().splitlines()} - {"user"}
    )


def test_factorize__without_test_reports_training_only(capsys, rating_file):
    out, _ = output(capsys, rating_file, "--epochs", 1, "-k", 2)
    assert "test" not in out.replace(str(rating_file), "")
    assert len([line for line in out.splitlines() if len(numbers(line)) == 1]) == 2


def test_factorize__is_quiet_if_asked(capsys, rating_file):
    out, err = output(capsys, rating_file, "--epochs", 2, "-q")
    assert "RMSE" in out
    assert err == ""


def test_factorize__beats_the_mean_by_default(capsys, rating_file):
    out, _ = output(capsys, rating_file, "--test", 0.1, "--seed", 0, "-q")
    (_, mean), (train, test) = (numbers(line) for line in out.splitlines() if len(numbers(line)) == 2)
    assert train < test < mean


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ([], lambda m: m.k == 32 and m.P.dtype == np.float32),
        (["-k", 5], lambda m: m.k == 5),
        (["--epochs", 2], lambda m: len(m.history) == 2),
        (["--learning-rate", 0.01], lambda m: {record.learning_rate for record in m.history} == {0.01}),
        (["--dtype", "float64"], lambda m: m.P.dtype == m.Q.dtype == np.float64),
        (["--schedule", "hogwild", "--threads", 2], lambda m: m.history[-1].rmse < m.history[0].rmse),
        (["--columns", "item", "user", "rating"], lambda m: m.user_ids[0] == 10**12),
    ],
)
def test_factorize__follows_its_options(capsys, tmp_path, rating_file, options, holds):
    output(capsys, rating_file, "-q", *options, "-o", tmp_path / "model")
    assert holds(mf.load(tmp_path / "model"))


def test_factorize__regularizes_as_asked(capsys, tmp_path, rating_file):
    for value in (0, 1):
        output(capsys, rating_file, "-q", "--seed", 1, "--regularization", value, "-o", tmp_path / f"{value}")
    free, held = (np.linalg.norm(mf.load(tmp_path / name).P) for name in "01")
    assert held < 0.9 * free


def test_factorize__merges_duplicates_as_asked(capsys, tmp_path):
    path = tmp_path / "twice.txt"
    path.write_text("1 1 4\n1 2 1\n2 1 5\n1 1 2\n")
    _, message = failure(capsys, path)
    assert re.search(r"twice\.txt.*\b1 duplicate.*user 1.*item 1", message)
    for policy, mean in (("last", 8 / 3), ("mean", 3.0), ("sum", 4.0)):
        output(capsys, path, "-q", "-k", 1, "--duplicates", policy, "-o", tmp_path / "model.npz")
        assert mf.load(tmp_path / "model.npz").mean == pytest.approx(mean)


def test_factorize__repeats_itself_with_a_seed(capsys, tmp_path, rating_file):
    runs = {}
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        out, _ = output(capsys, rating_file, "-q", "--test", 0.2, "--seed", seed, "-o", tmp_path / name)
        runs[name] = out.replace(str(tmp_path / name), ""), mf.load(tmp_path / name).P.tobytes()
    assert runs["one"] == runs["two"]
    assert runs["one"][0] != runs["other"][0]
    assert runs["one"][1] != runs["other"][1]


BAD = {
    "k": (["-k", 0], "k must be at least 1.*0"),
    "test": (["--test", 1.5], "test.*1.5"),
    "test nan": (["--test", "nan"], "test.*nan"),
    "epochs": (["--epochs", 0], "epochs.*0"),
    "learning rate": (["--learning-rate", -1], "learning_rate.*-1"),
    "divergence": (["--learning-rate", 1e9], "diverged.*epoch 1.*learning rate 97656"),
    "regularization": (["--regularization", "inf"], "regularization.*inf"),
    "threads": (["--schedule", "hogwild", "--threads", 0], "threads.*0"),
    "seed": (["--seed", -1], "-1"),
    "memory": (["-k", 10**12], "GiB"),
    "columns": (["--columns", "a", "b", "c"], r"ratings\.csv.*line 1.*user,item,rating"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_factorize__says_in_one_line_what_is_wrong(capsys, tmp_path, rating_file, options, message):
    out, text = failure(capsys, rating_file, "-q", *options, "-o", tmp_path / "model.npz")
    assert re.fullmatch(rf"mfkernel: .*{message}.*", text)
    assert "RMSE" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no ratings"),
        (b"1 2 3\n4 5 x\n", "line 2.*4 5 x"),
        (b"1 2 3\n4 \xff 5\n", "line 2"),
        (b"1 2 3\n", "at least 2 ratings to split, got 1"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "damaged"),
    ],
)
def test_factorize__says_in_one_line_what_is_wrong_with_the_file(capsys, tmp_path, content, message):
    path = tmp_path / "stars.txt"
    path.write_bytes(content)
    _, text = failure(capsys, path, "--test", 0.5)
    assert re.fullmatch(rf"mfkernel: .*{message}.*", text)


@pytest.mark.parametrize(
    "options", [["-k", "many"], ["--schedule", "serial"], ["--stars"], ["--dtype", "float16"]]
)
def test_factorize__explains_options_that_it_does_not_know(capsys, rating_file, options):
    _, text = failure(capsys, rating_file, *options)
    assert text.startswith("usage: mfkernel")
    assert options[-1] in text.splitlines()[-1]


def test_factorize__needs_a_file_to_hold_out_from(capsys):
    _, text = failure(capsys, "--test", 0.1)
    assert re.fullmatch("mfkernel: .*--test.*FILE.*", text)


@pytest.mark.parametrize("target", ["missing/model.npz", "."])
@pytest.mark.parametrize("file", [True, False])
def test_factorize__finds_a_bad_output_before_it_works(capsys, tmp_path, rating_file, target, file):
    path = tmp_path / target
    out, text = failure(capsys, *[rating_file][:file], "-o", path)
    assert re.fullmatch(rf"mfkernel: .*{re.escape(str(path.parent))}.*", text)  # no lines of epochs
    assert "RMSE" not in out
    assert "econstructed" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["factorize", "--help"]])
def test_main__helps(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code
    assert "factorize" in capsys.readouterr().out


INTERRUPTED = """
import runpy, time
try:
    runpy.run_module("mfkernel", run_name="__main__", alter_sys=True)
finally:
    print(time.process_time())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process")
@pytest.mark.parametrize("schedule", ["blocks", "sequential", "hogwild"])
def test_factorize__ends_at_once_on_ctrl_c(tmp_path, schedule):
    matrix = mf.datasets.synthetic(3000, 2000, 600_000).to_scipy()
    sparse.save_npz(tmp_path / "large.npz", matrix, compressed=False)
    options = ["-k", "100", "--epochs", "100000", "-o", "model.npz", "--schedule", schedule]
    threads = [] if schedule == "sequential" else ["--threads", "2"]
    command = [sys.executable, "-c", INTERRUPTED, "factorize", "large.npz", *options, *threads]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=tmp_path, env=make_environment(), text=True, **pipes) as run:
        try:
            assert "epoch" in run.stderr.readline()
            sent = interrupt(run, 0.05)
            printed, rest = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert float(printed.splitlines()[-1]) - sent <= AT_ONCE
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "mfkernel: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["large.npz"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, rating_file: Path) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.npz"
    main(["factorize", str(rating_file), "-q", "-k", "4", "--biases", "--seed", "0", "-o", str(path)])
    return path


def asked(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[list[str]]:
    """Run a command; return the words of each line."""
    capsys.readouterr()
    main(list(map(str, arguments)))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_recommend__prints_what_the_model_says(capsys, saved):
    model = mf.load(saved)
    _, *lines = asked(capsys, "recommend", saved, "u3", "u0", "-n", 4)
    expected = model.recommend(["u3", "u0"], 4).items.ravel()
    assert [line[0] for line in lines] == ["u3"] * 4 + ["u0"] * 4
    assert [int(line[2]) for line in lines] == expected.tolist()


@pytest.mark.slow
def test_recommend__serves_new_users(capsys, saved, tmp_path):
    model, file = mf.load(saved), tmp_path / "new.csv"
    file.write_text(f"user,item,rating\nstranger,{model.item_ids[2]},5\n")
    _, *lines = asked(capsys, "recommend", saved, "--ratings", file, "-n", 3)
    expected = model.recommend({model.item_ids[2]: 5.0}, 3).items
    assert [int(line[2]) for line in lines] == expected.tolist()


def test_similar_and_explain__print_what_the_model_says(capsys, saved):
    model = mf.load(saved)
    _, *lines = asked(capsys, "similar", saved, model.item_ids[1], "-n", 3)
    assert [int(line[2]) for line in lines] == model.similar_items(model.item_ids[1], 3).items.tolist()
    lines = asked(capsys, "explain", saved, model.user_ids[0], model.item_ids[1], "-n", 2)
    assert float(lines[0][0]) == pytest.approx(float(model.by_position.predict(0, 1)), abs=1e-3)
    assert sum(float(line[0]) for line in lines[1:]) == pytest.approx(float(lines[0][0]), abs=1e-3)


@pytest.mark.slow
def test_update__learns_new_users(capsys, saved, tmp_path):
    model, file, updated = mf.load(saved), tmp_path / "new.csv", tmp_path / "updated.npz"
    file.write_text(f"user,item,rating\nnewcomer,{model.item_ids[2]},5\n")
    asked(capsys, "update", saved, file, "-o", updated)
    assert mf.load(updated).shape == (model.shape[0] + 1, model.shape[1])
    assert mf.load(updated).user_rows("newcomer") == model.shape[0]
    assert mf.load(saved).shape == model.shape


def test_select_rank__prints_a_line_for_each_k(capsys, rating_file):
    _, *lines, last = asked(capsys, "select-rank", rating_file, "-k", 2, 4, "--folds", 3, "--seed", 0)
    found = mf.select_rank(mf.read_ratings(rating_file), [2, 4], 3, rng=0)
    assert [int(line[0]) for line in lines] == [2, 4]
    np.testing.assert_allclose([float(line[2]) for line in lines], found.mean, atol=1e-4)
    assert last[2] == f"{found.k},"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("recommend", "nobody"), "nobody"), (("recommend",), "users"), (("explain", "u0", "x"), "integers")],
)
def test_questions__end_with_a_line_if_they_cannot_be_answered(capsys, saved, arguments, message):
    command, *rest = arguments
    with pytest.raises(SystemExit, match=f"mfkernel: .*{message}"):
        main([command, str(saved), *rest])


# numbers


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e7, 1e12])
def test_program__shows_significant_digits_whatever_the_unit(capsys, tmp_path, ratings, scale):
    path, saved_here = tmp_path / "ratings.csv", tmp_path / "model.npz"
    write_ratings(path, ratings.with_values(ratings.values.astype(float) * scale), "{},{},{!r}\n")
    options = ["-k", 2, "--biases", "--seed", 0, "--test", 0.2, "--dtype", "float64", "--epochs", 5]
    lines = asked(capsys, "factorize", path, *options, "-q", "-o", saved_here)
    train, test = mf.train_test_split(mf.read_ratings(path), 0.2, rng=0)
    model, values = mf.load(saved_here), train.values.astype(np.float64)
    of_mean = [
        np.sqrt(np.mean((part.values.astype(np.float64) - values.mean()) ** 2)) for part in (train, test)
    ]
    of_model = [model.rmse(part) for part in (train, test)]
    shown = [[float(x) for x in line[-2:]] for line in lines[2:4]]
    np.testing.assert_allclose(shown, [of_mean, of_model], rtol=5e-4)

    _, *lines = asked(capsys, "recommend", saved_here, 1, "-n", 3)
    row = model.user_rows(np.array([1]))[0]
    np.testing.assert_allclose([float(line[1]) for line in lines], model.recommend(row, 3).scores, rtol=5e-4)

    lines = asked(capsys, "explain", saved_here, 1, ratings.items[0], "-n", 3)
    parts = model.explain(int(row), int(model.item_columns(np.array([int(ratings.items[0])]))[0]), 3)
    expected = [parts.score, parts.mean, parts.user_bias, parts.item_bias, *parts.contributions, parts.rest]
    np.testing.assert_allclose([float(line[0]) for line in lines], expected, rtol=5e-4, atol=1e-12 * scale)

    head, *lines, _ = asked(capsys, "select-rank", path, "-k", 2, 3, "--folds", 2, "--epochs", 2, "--seed", 0)
    assert head == ["k", "train", "test", "std", "error", "seconds"]
    found = mf.select_rank(mf.read_ratings(path), [2, 3], 2, rng=0, epochs=2, dtype="float32")
    expected = np.array([found.train_rmse.mean(axis=1), found.mean, found.standard_error]).T
    np.testing.assert_allclose(np.array(lines, float)[:, 1:4], expected, rtol=5e-4)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *(
            (0, "0"),
            (-0.0, "0"),
            (1, "1.0000"),
            (0.5, "0.5000"),
            (0.05, "0.050000"),
            (12345, "12345"),
            (-123456, "-1.2346e+05"),
        ),
        *((1e-7, "1.0000e-07"), (99999.6, "1.0000e+05"), (np.nan, "nan"), (np.inf, "inf")),
        *((np.float32(3.3), "3.3000"), (1e300, "1.0000e+300")),
    ],
)
def test_figure__has_four_significant_digits_or_more(number, text):
    assert outputs.format_number(number) == text


def test_tables__have_columns_that_stay_apart(capsys):
    outputs.print_table([["a", "b", "c"], ["name", "-1.2346e+305", "1"]], left=(0,))
    assert capsys.readouterr().out == "a                b         c\nname  -1.2346e+305         1\n"


# how it ends


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("user id 'x' is not in the model"), "user id 'x' is not in the model"),
        (RuntimeError("a thread could not be started"), "a thread could not be started"),
        (ImportError("to_frame needs pandas"), "to_frame needs pandas"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), "'utf-8' codec can't decode.*"),
        (RecursionError("too deep"), "too deep"),
        (OSError(2, "No such file", "x.csv"), r"\[Errno 2\] No such file: 'x.csv'"),
        (ValueError("one line\nand\r\nanother"), "one line and another"),
        (MemoryError(), "there is not enough memory"),
        (MemoryError("training needs 9 GiB"), "training needs 9 GiB"),
        (AssertionError(), "AssertionError; MFKERNEL_TRACEBACK=1 shows where"),
        (AttributeError("no such thing"), "AttributeError: no such thing; MFKERNEL_TRACEBACK=1 shows where"),
        (Exception("strange"), "Exception: strange; MFKERNEL_TRACEBACK=1 shows where"),
    ],
)
def test_program__ends_with_one_line_whatever_goes_wrong(monkeypatch, tmp_path, error, message):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(mf, "load", fail)
    with pytest.raises(SystemExit, match=rf"^mfkernel: {message}$"):
        main(["recommend", str(tmp_path / "model.npz"), "1"])
    monkeypatch.setenv("MFKERNEL_TRACEBACK", "1")
    with pytest.raises(type(error)) as caught:
        main(["recommend", str(tmp_path / "model.npz"), "1"])
    assert caught.value is error


@pytest.mark.slow
def test_program__has_the_usual_exit_status(monkeypatch, capsys, saved):
    assert run_program("recommend", saved, "nobody").returncode == 1
    assert run_program("recommend").returncode == 2
    assert run_program("recommend", saved, "u3").returncode == 0

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mf, "load", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["recommend", str(saved), "u3"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "mfkernel: interrupted\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a pipe breaks in another way there")
@pytest.mark.parametrize(
    ("arguments", "status"),
    # argparse makes nothing of help that nobody reads
    [(["recommend", "MODEL", "u3"], (141,)), (["factorize"], (141,)), (["--help"], (0, 141))],
)
def test_program__is_quiet_if_nobody_reads_on(saved, arguments, status):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:  # noqa: PTH123 (a number)
        run = run_program(*(saved if x == "MODEL" else x for x in arguments), stdout=pipe)
    assert run.stderr == ""
    assert run.returncode in status


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.slow
def test_program__says_that_its_output_cannot_be_written(saved):
    with Path("/dev/full").open("w") as full:
        run = run_program("recommend", saved, "u3", stdout=full)
    assert re.fullmatch(r"mfkernel: .*No space left on device\n", run.stderr)
    assert run.returncode == 1


# ids


@pytest.fixture(scope="module")
def worldly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of users whose names are of the world, and of items some of which are numbers."""
    users = ["José", "日本", "\x1b[31mred", "a b", "7", "-7"]
    items = ["7", "0042", "B00X", "Ångström", "9"]
    path = tmp_path_factory.mktemp("worldly") / "model.npz"
    rows, columns = np.divmod(np.arange(30), 5)
    R = mf.Ratings((rows, columns, 1.0 + (rows * columns) % 5), user_ids=users, item_ids=items)
    mf.factorize(R, 1, rng=0, epochs=2).save(path)
    return path


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="arguments are text there")
@pytest.mark.parametrize("name", ["José", "日本"])
@pytest.mark.parametrize("environment", [{}, ASCII], ids=["utf-8", "ascii"])
def test_program__reads_ids_in_any_locale(worldly, name, environment):
    run = run_program("recommend", worldly, name, "-n", 1, "--include-seen", environment=environment)
    assert run.stderr == ""
    shown = name.encode("ascii", "backslashreplace").decode() if environment else name
    assert run.stdout.splitlines()[1].split()[0] == shown
    assert "?" not in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="arguments are text there")
def test_program__reads_ids_of_a_latin_1_terminal(worldly):
    for name, shown in ((b"Jos\xe9", "José"), ("José".encode(), "José")):
        run = run_program("recommend", worldly, name, "--include-seen")
        assert run.stdout.splitlines()[1].split()[0] == shown, run.stderr


def test_readings__prefer_what_the_locale_reads(monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1", "surrogateescape"))
    assert decodings("plain") == ["plain"]
    assert decodings("José") == ["José"]
    assert decodings("JosÃ©") == ["JosÃ©", "José"]  # UTF-8, which Latin-1 reads as anything
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert decodings("Jos\udcc3\udca9") == ["José", "JosÃ©", "Jos\udcc3\udca9"]
    assert decodings("Jos\udce9") == ["José", "Jos\udce9"]


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", r"\u65e5\u672c"), ("utf-8", "日本")])
def test_program__never_shows_a_question_mark_for_what_a_terminal_cannot(worldly, encoding, shown):
    arguments = "recommend", worldly, "日本", "José", "--include-seen"
    run = run_program(*arguments, environment={"PYTHONIOENCODING": encoding}, encoding=encoding)
    _, *lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [shown] * 5 + ["José"] * 5
    assert "Ångström" in {line.split()[2] for line in lines}
    assert len({line.index(line.split()[1]) for line in lines}) == 1  # aligned


def test_program__shows_no_character_that_a_terminal_obeys(capsys, worldly):
    lines = asked(capsys, "recommend", worldly, "\x1b[31mred", "-n", 1, "--include-seen")
    assert lines[1][0] == r"\x1b[31mred"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "u3", "nobody", "u1"], "user id 'nobody' is not in the model"),
        (["recommend", "x", "u3", "y"], "user ids 'x', 'y' are not in the model"),
        (["recommend", *"abcdefg"], "user ids 'a', 'b', 'c', 'd', 'e' and 2 more are not in the model"),
        (["similar", "12"], "item id '12' is not in the model"),
        (["similar", str(2**70)], f"item id '{2**70}' is not in the model"),
        (["similar", "012"], "item ids must be integers, as in the model, got '012'"),
        (["similar", "1_0"], "item ids must be integers, as in the model, got '1_0'"),
        (["explain", "u0", "١"], "item ids must be integers, as in the model, got '١'"),
        (["similar", "--users", "u"], "user id 'u' is not in the model"),
    ],
)
def test_questions__name_the_ids_that_are_unknown(saved, arguments, message):
    command, *rest = arguments
    with pytest.raises(SystemExit, match=f"^mfkernel: {re.escape(message)}$"):
        main([command, str(saved), *rest])


def test_questions__take_numbers_where_there_are_no_ids(capsys, tmp_path):
    path = tmp_path / "model.npz"
    mf.factorize([[5, 3, 0], [4, 0, 1], [1, 1, 5]], 1, rng=0, epochs=2).save(path)
    assert [line[2] for line in asked(capsys, "recommend", path, "0")[1:]] == ["2"]
    for user, message in (
        ("x", "must be numbers.*got 'x'"),
        ("9", "9.*n_users = 3"),
        ("-1", "-1"),
    ):
        with pytest.raises(SystemExit, match=f"^mfkernel: .*{message}"):
            main(["recommend", str(path), user])


def test_recommend__says_for_whom_nothing_is_left(capsys, tmp_path):
    path = tmp_path / "model.npz"
    R = mf.Ratings(([0, 0, 1], [0, 1, 0], [1.0, 2.0, 3.0]), user_ids=["all", "one"])
    mf.factorize(R, 1, rng=0, epochs=2).save(path)
    main(["recommend", str(path), "all", "one"])
    out, err = capsys.readouterr()
    assert [line.split()[::2] for line in out.splitlines()[1:]] == [["one", "1"]]
    assert err == "mfkernel: no item is left for all\n"


def test_recommend__leaves_out_ratings_of_unknown_items_and_says_so(capsys, saved, tmp_path):
    model, file = mf.load(saved), tmp_path / "new.csv"
    known = model.item_ids.tolist()
    file.write_text(
        f"user,item,rating\nann,{known[4]},5\nann,12345,4\nbob,999,1\nbob,12345,2\ncid,{known[2]},3\n"
    )
    main(["recommend", str(saved), "--ratings", str(file), "-n", "3"])
    out, err = capsys.readouterr()
    assert err == (
        "mfkernel: left out 3 ratings of 2 items not in the model: 999, 12345\n"
        "mfkernel: left out 1 user who rated no other items: bob\n"
    )
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["ann"] * 3 + ["cid"] * 3
    expected = [i for rated in ({known[4]: 5.0}, {known[2]: 3.0}) for i in model.recommend(rated, 3).items]
    assert [int(line[2]) for line in lines] == expected

    file.write_text("user,item,rating\nann,12345,4\n")
    with pytest.raises(SystemExit, match="new.csv must have an item that is in the model, got 12345"):
        main(["recommend", str(saved), "--ratings", str(file)])


def test_recommend__knows_ids_that_only_look_like_numbers(capsys, worldly, tmp_path):
    model, file = mf.load(worldly), tmp_path / "new.csv"
    file.write_text("user,item,rating\n1,7,5\n1,9,2\n")  # all integers here, but not in the model
    main(["recommend", str(worldly), "--ratings", str(file), "-n", "2"])
    out, err = capsys.readouterr()
    assert err == ""
    expected = model.recommend({"7": 5.0, "9": 2.0}, 2).items
    assert [line.split()[2] for line in out.splitlines()[1:]] == expected.tolist()

    updated = tmp_path / "updated.npz"
    asked(capsys, "update", worldly, file, "-o", updated)
    assert mf.load(updated).shape == (7, 5)
    assert mf.load(updated).user_ids.tolist()[-1] == "1"


def test_recommend__knows_numbers_beside_words(capsys, saved, tmp_path):
    model, file = mf.load(saved), tmp_path / "new.csv"
    file.write_text(f"user,item,rating\nann,{model.item_ids[4]},5\nann,word,4\n")
    main(["recommend", str(saved), "--ratings", str(file), "-n", "3"])
    out, err = capsys.readouterr()
    assert err == "mfkernel: left out 1 rating of 1 item not in the model: word\n"
    expected = model.recommend({model.item_ids[4]: 5.0}, 3).items.tolist()
    assert [int(line.split()[2]) for line in out.splitlines()[1:]] == expected
    with pytest.raises(SystemExit, match=r"new\.csv: item ids must be integers as in the model, got 'word'"):
        main(["update", str(saved), str(file)])


NUMBERED = "%%MatrixMarket matrix coordinate real general\n3 3 4\n1 1 5\n2 2 4\n3 3 3\n1 2 2\n"


@pytest.mark.parametrize("command", ["update MODEL FILE", "recommend MODEL --ratings FILE"])
@pytest.mark.parametrize(
    ("learned", "given", "words"),
    [
        (NUMBERED, "user,item,rating\n0,1,4\n", "MatrixMarket or scipy npz.*has no (user|item) ids"),
        ("a,x,1\nb,y,2\n", NUMBERED, "text with.*has (user|item) ids"),
    ],
)
def test_main__says_how_a_file_must_name_users_and_items(tmp_path, command, learned, given, words):
    learn, file, path = tmp_path / "learn", tmp_path / "new.txt", tmp_path / "model.npz"
    learn.write_text(learned)
    file.write_text(given)
    main(["factorize", str(learn), "-q", "-k", "1", "--epochs", "1", "-o", str(path)])
    before = path.read_bytes()
    names = {"MODEL": str(path), "FILE": str(file)}
    with pytest.raises(SystemExit, match=rf"^mfkernel: .*new\.txt must be .*{words}$"):
        main([names.get(word, word) for word in command.split()])
    assert path.read_bytes() == before


def test_update__takes_numbers_for_a_model_without_ids(tmp_path, capsys):
    """What the error names is taken."""
    path, file = tmp_path / "model.npz", tmp_path / "new.mtx"
    file.write_text(NUMBERED)
    main(["factorize", str(file), "-q", "-k", "1", "--epochs", "1", "-o", str(path)])
    file.write_text(NUMBERED.replace("3 3 4\n", "4 3 4\n").replace("3 3 3\n", "4 3 3\n"))
    capsys.readouterr()
    main(["update", str(path), str(file)])
    assert capsys.readouterr().out.startswith("4 ratings, 1 new users and 0 new items\n")
    assert mf.load(path).shape == (4, 3)


@pytest.mark.parametrize("exists", [True, False])
def test_factorize__saves_nothing_to_a_path_that_ends_as_a_folder(tmp_path, capsys, exists):
    if exists:
        (tmp_path / "new").mkdir()
    out, text = failure(capsys, "-o", f"{tmp_path}/new/")
    assert re.fullmatch(r"mfkernel: .*must name a file.*", text)
    assert out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["new"] * exists


# options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["factorize", "--columns", "a", "b", "c"], "--columns must be used with a FILE"),
        (["factorize", "--duplicates", "sum"], "--duplicates must be used with a FILE"),
        (["factorize", "--encoding", "latin-1"], "--encoding must be used with a FILE"),
        (["factorize", "FILE", "--patience", "3"], "--patience must be used with --validation"),
        (
            ["recommend", "MODEL", "u3", "--duplicates", "sum"],
            "--duplicates must be used with --ratings FILE",
        ),
        (["recommend", "MODEL", "u3", "--encoding", "utf-8"], "--encoding must be used with --ratings FILE"),
        (["recommend", "MODEL", "u3", "--ratings", "FILE"], "must be given, not both"),
    ],
)
def test_options__are_not_left_unheeded(rating_file, saved, arguments, message):
    named = {"FILE": str(rating_file), "MODEL": str(saved)}
    with pytest.raises(SystemExit, match=f"^mfkernel: .*{message}"):
        main([named.get(x, x) for x in arguments])


SGD = "factorize FILE -q -k 2 --epochs 1 --seed 1"
ALS = "factorize FILE -q -k 2 --epochs 1 --method als"
RANK = "select-rank FILE -k 2 --folds 2 --epochs 1"
FILE_LINES = (
    *(
        "factorize FILE -q -k 2 --epochs 1",
        "select-rank FILE -k 2 --epochs 1 --folds 2",
        "evaluate MODEL FILE",
    ),
    *("recommend MODEL --ratings FILE", "update MODEL FILE -o NEW", "convert FILE OUT"),
)
TIMED = "--timestamp time --separator ,"
LINES = [
    f"{SGD} --method sgd --threads 1 --learning-rate 0.01 --decay constant --biases --time-limit 9",
    f"{SGD} --biases --bias-learning-rate 0.01 --bias-regularization 0.1 --huber-delta 0.5 --no-shuffle",
    f"{SGD} --regularization 0.1 --loss squared --schedule blocks --dtype float32 -o NEW",
    f"{SGD} --decay inverse-time --loss huber --schedule sequential --duplicates mean",
    f"{SGD} --decay linear --loss absolute --l1 0.1 --schedule hogwild --duplicates last",
    f"{SGD} --decay cosine --nonnegative --columns user item rating --duplicates sum",
    f"{SGD} --decay adaptive --test 0.1 --duplicates raise",
    "factorize --quiet --validation 0.2 --patience 2 --dtype float64",
    "factorize BINARY -q -k 2 --epochs 1 --loss logistic",
    f"{ALS} --checkpoint CHECKPOINT --resume",
    f"{ALS} --solver cholesky --regularization-per rating",
    f"{ALS} --solver subspace --regularization-per row",
    "factorize FILE -q -k 2 --epochs 1 --method implicit --solver cg --alpha 2 --unobserved-weight 0.5",
    f"{RANK} --seed 1 --method sgd --threads 1 --learning-rate 0.01 --decay constant --biases",
    f"{RANK} --biases --bias-learning-rate 0.01 --bias-regularization 0.1 --huber-delta 0.5 --no-shuffle",
    *(f"{RANK} --schedule {name}" for name in ("blocks", "sequential", "hogwild")),
    f"{RANK} --decay inverse-time --loss huber --duplicates mean",
    f"{RANK} --decay linear --loss absolute --l1 0.1 --duplicates last",
    f"{RANK} --decay cosine --nonnegative --columns user item rating",
    f"{RANK} --decay adaptive --loss squared --dtype float64 --duplicates sum",
    "select-rank BINARY -k 2 --folds 2 --epochs 1 --loss logistic --dtype float32 --duplicates raise",
    f"{RANK} --method als --solver cholesky --regularization-per rating --regularization 0.1",
    f"{RANK} --method als --solver cg --regularization-per row",
    f"{RANK} --method als --solver subspace",
    f"{RANK} --method bayesian --burn-in 0 --samples 2",
    "recommend MODEL u3 -n 2 --include-seen",
    "recommend MODEL --ratings FILE --columns user item rating --duplicates sum",
    *(f"recommend MODEL --ratings FILE --duplicates {name}" for name in ("raise", "mean", "last")),
    "recommend MODEL u3 --json",
    "factorize FILE -q -k 2 --epochs 3 --method bayesian --burn-in 1 --samples 2 -o BAYESIAN",
    *(f"recommend BAYESIAN u3 --explore {how} --seed 1" for how in ("1.5", "-1", "thompson")),
    "predict BAYESIAN u3 ITEM --interval 0.5 --json",
    "predict MODEL u3 ITEM",
    "predict MODEL u3 ITEM --json",
    *(f"evaluate MODEL FILE --duplicates {name}" for name in ("raise", "sum", "mean", "last")),
    "evaluate MODEL FILE --columns user item rating",
    "similar MODEL ITEM -n 2",
    "similar MODEL ITEM --json",
    "similar MODEL u3 --users",
    "explain MODEL u3 ITEM -n 2",
    "update MODEL FILE -o NEW --columns user item rating --duplicates last",
    "factorize FILE -q -k 2 --epochs 1 --timestamp --test 0.2 --latest --half-life 5",
    "factorize FILE -q -k 2 --epochs 1 --test FILE --validation FILE",
    "select-rank FILE -k 2 --epochs 1 --test FILE --method implicit --alpha 2 --unobserved-weight 0.5",
    "recommend MODEL u3 --items IDS",
    "info MODEL --json",
    *("export MODEL OUT --side users", "export MODEL OUT --side items", "export MODEL LIBMF"),
    "convert LIBMF NEW --libmf",
    *(f"convert FILE OUT --duplicates {name}" for name in ("raise", "sum", "mean", "last")),
    "convert FILE OUT --columns user item rating",
    *(f"{line} {TIMED} --nulls {nulls}" for line in FILE_LINES for nulls in ("drop", "raise")),
    *(f"completion {shell}" for shell in ("bash", "zsh", "fish")),
    *(f"update MODEL FILE --output NEW --duplicates {name}" for name in ("raise", "sum", "mean")),
]


def offered() -> dict[str, set[str]]:
    """Return all that each command offers: options, by all of their names, and the values of some."""
    (commands,) = (x for x in make_parser()._actions if isinstance(x, argparse._SubParsersAction))
    return {
        name: {
            word
            for action in parser._actions
            if action.option_strings and action.dest not in ("help", "encoding", "decimal")
            for word in ([action.option_strings[-1]] if not action.choices else [])
            + [f"{action.option_strings[-1]} {value}" for value in action.choices or ()]
        }
        for name, parser in commands.choices.items()
    }


RUN_LINES = """
import json, sys
from mfkernel.cli import main
for line in json.loads(sys.argv[1]):
    print(*line, flush=True)
    main(line)
"""


@pytest.mark.slow
def test_options__none_is_always_refused(tmp_path):
    ratings = mf.datasets.synthetic(12, 10, 60)
    names = ("FILE", "BINARY", "MODEL", "BAYESIAN", "NEW", "IDS", "LIBMF", "CHECKPOINT")
    named = {name: str(tmp_path / name) for name in names} | {"ITEM": "3", "OUT": str(tmp_path / "out.csv")}
    (tmp_path / "IDS").write_text("3\n")
    for name, R in (("FILE", ratings), ("BINARY", ratings.with_values((ratings.values > 3).astype(float)))):
        write_ratings(tmp_path / name, R, "u{0},{1},{2},{2}\n", head="user,item,rating,time\n")
    lines = [f"{SGD} -o MODEL", *LINES]
    words = [[named.get(x, x) for x in line.split()] for line in lines]
    # without compilation, which would take longer than all of them
    run = run_python(RUN_LINES, json.dumps(words), environment={"NUMBA_DISABLE_JIT": "1"})
    assert run.returncode == 0, run.stdout[-300:] + run.stderr[-300:]
    left = offered()
    del left["warm-up"]  # its test compiles
    for line in lines:
        command, *rest = ({"-q": "--quiet", "-o": "--output"}.get(x, x) for x in line.split())
        left[command] -= {*rest, *map(" ".join, itertools.pairwise(rest))}
    assert left == {command: set() for command in left}


# answers for programs, and the machine


def test_predict_and_lists__are_printed_as_json(capsys, saved):
    model = mf.load(saved)
    items = [str(x) for x in model.item_ids[:2]]
    _, *lines = asked(capsys, "predict", saved, "u3", *items)
    predicted = model.predict("u3", model.item_ids[:2])
    np.testing.assert_allclose([float(line[0]) for line in lines], predicted, atol=1e-4)
    assert [line[1] for line in lines] == items

    def answer(*arguments):
        main([str(x) for x in arguments])
        return json.loads(capsys.readouterr().out)

    assert [x["item"] for x in answer("predict", saved, "u3", *items, "--json")] == model.item_ids[
        :2
    ].tolist()
    assert (
        answer("recommend", saved, "u3", "u0", "-n", 2, "--json")
        == model.recommend(["u3", "u0"], 2).to_list()
    )
    assert answer("similar", saved, items[0], "--json") == model.similar_items([model.item_ids[0]]).to_list()
    with pytest.raises(
        SystemExit, match="item id 12345 is not in the model|item id '12345' is not in the model"
    ):
        main(["predict", str(saved), "u3", "12345"])


def test_uncertainty__is_printed(capsys, tmp_path, rating_file):
    path = tmp_path / "bayesian.npz"
    main(
        [
            "factorize",
            str(rating_file),
            "-k",
            "2",
            "-q",
            "--method",
            "bayesian",
            "--epochs",
            "8",
            "-o",
            str(path),
        ]
    )
    capsys.readouterr()
    model = mf.load(path)
    items = model.item_ids[:3]
    head, *lines = asked(capsys, "predict", path, "u3", *items, "--interval", 0.5)
    assert head == ["prediction", "std", "noise", "lower", "upper", "item"]
    found = model.predict("u3", items, interval=0.5)
    np.testing.assert_allclose(
        [[float(x) for x in line[:5]] for line in lines], np.transpose(found), atol=1e-4
    )
    _, *lines = asked(capsys, "recommend", path, "u3", "-n", 3, "--explore", 1)
    assert [line[-1] for line in lines] == list(map(str, model.recommend("u3", 3, explore=1.0).items))
    for seed in (1, 2):
        _, *lines = asked(capsys, "recommend", path, "u3", "-n", 3, "--explore", "thompson", "--seed", seed)
        expected = model.recommend("u3", 3, explore="thompson", rng=seed)
        assert [line[-1] for line in lines] == list(map(str, expected.items))
    with pytest.raises(SystemExit, match="explore must be 'thompson' or a finite number"):
        main(["recommend", str(path), "u3", "--explore", "ucb"])


def test_evaluate__prints_the_errors_of_a_file(capsys, saved, rating_file):
    lines = asked(capsys, "evaluate", saved, rating_file)
    model, R = mf.load(saved), mf.read_ratings(rating_file)
    assert [line[0] for line in lines] == ["rmse", "mae", "r2"]
    for name, figure in lines:
        assert float(figure) == pytest.approx(getattr(mf.metrics, name)(model, R), abs=1e-4)


def test_doctor__reports_the_machine(capsys, monkeypatch):
    monkeypatch.setattr("mfkernel.cli.machine.SHARED", (60, 40, 900))
    main(["doctor"])
    out = capsys.readouterr().out
    for name in (
        "mfkernel",
        "Python",
        "NumPy",
        "Numba",
        "processor",
        "kernel cache",
        "cache writable",
        "cores",
    ):
        assert re.search(rf"^{name}  +\S", out, re.MULTILINE), name
    assert re.search(r"^1 thread: first fit .* million ratings per second at k = 32$", out, re.MULTILINE)


def test_warm_up__compiles_all_that_a_model_is_asked(capsys, monkeypatch):
    monkeypatch.setattr("mfkernel.cli.machine.SHARED", (60, 40, 900))
    main(["warm-up", "als", "-k", "4"])
    assert re.fullmatch(r"als: [0-9.]+ s\n", capsys.readouterr().out)
    with pytest.raises(
        SystemExit, match="METHOD must be one of 'sgd', 'als', 'implicit', 'bayesian', got 'svd'"
    ):
        main(["warm-up", "svd"])

    def warn(method, k):
        logging.getLogger("mfkernel").warning("Numba's cache cannot be written")

    monkeypatch.setattr("mfkernel.cli.machine._use", warn)
    with pytest.raises(SystemExit, match="cache cannot be written"):
        main(["warm-up", "als"])


@pytest.mark.slow
def test_warm_up__leaves_nothing_to_compile(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "mfkernel", "warm-up", "sgd", "-k", "8"], check=True, env=environment
    )
    cached = sorted(path.name for path in tmp_path.rglob("*.nbc"))
    assert cached
    code = (
        "import mfkernel as mf\n"
        "model = mf.factorize(mf.datasets.synthetic(300, 200, 9000), 8, biases=True, rng=0)\n"
        "model.recommend([0, 1]); model.recommend({1: 4.0}); model.similar_items(3); model.explain(1, 2)\n"
        "model.partial_fit(([0], [1], [2.0]))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert sorted(path.name for path in tmp_path.rglob("*.nbc")) == cached
