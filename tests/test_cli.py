"""The program: what it prints, where, what it saves, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import mfkernel as mf
from mfkernel.cli import main

ORIGINAL = [[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]]
RECONSTRUCTED = [
    [5, 3, 5.27681818],
    [4, 2.62681228, 4.40062951],
    [1, 1, 1.37135176],
    [4.64876186, 2.90807902, 5],
    [3.52188973, 2.4715342, 4],
]
PROGRAM = [sys.executable, "-m", "mfkernel", "factorize"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(mf.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="module")
def rating_file(tmp_path_factory: pytest.TempPathFactory, ratings: mf.Ratings) -> Path:
    """Ratings whose user ids are strings and whose item ids are far from 0."""
    rated = zip(ratings.users.tolist(), ratings.items.tolist(), ratings.values.tolist(), strict=True)
    path = tmp_path_factory.mktemp("cli") / "ratings.csv"
    path.write_text("user,item,rating\n" + "".join(f"u{u},{i + 10**12},{r}\n" for u, i, r in rated))
    return path


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
    run = subprocess.run(PROGRAM, env=ENVIRONMENT, capture_output=True, encoding="utf-8", check=True)
    np.testing.assert_allclose(matrices(run.stdout)[1], RECONSTRUCTED, rtol=0, atol=1e-8)
    assert run.stderr == ""


def test_python_m_mfkernel__ends_with_one_line_and_a_code(tmp_path):
    command = [*PROGRAM, str(tmp_path / "missing.csv")]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", check=False)
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
        np.sqrt(np.mean((part.values - model.predict(part.users, part.items)) ** 2)) for part in (train, test)
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
        (b"1 2 3\n", "1 ratings"),
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


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process")
@pytest.mark.parametrize("schedule", [["blocks"], ["sequential"], ["hogwild", "--threads", "3"]])
def test_factorize__ends_at_once_on_ctrl_c(tmp_path, schedule):
    matrix = mf.datasets.synthetic(3000, 2000, 600_000).to_scipy()
    sparse.save_npz(tmp_path / "large.npz", matrix, compressed=False)
    options = ["-k", "100", "--epochs", "100000", "-o", "model.npz", "--schedule", *schedule]
    command = [*PROGRAM, "large.npz", *options]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        try:
            assert "epoch" in run.stderr.readline()
            time.sleep(0.05)
            start = time.perf_counter()
            run.send_signal(signal.SIGINT)
            rest = run.stderr.read()
            code = run.wait(10)
            seconds = time.perf_counter() - start
        finally:
            run.kill()
    assert code != 0
    assert seconds < 1
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
    rows = model.user_rows(["u3", "u0"])
    expected = model.item_ids[model.recommend(rows, 4).items].ravel()
    assert [line[0] for line in lines] == ["u3"] * 4 + ["u0"] * 4
    assert [int(line[2]) for line in lines] == expected.tolist()


def test_recommend__serves_new_users(capsys, saved, tmp_path):
    model, file = mf.load(saved), tmp_path / "new.csv"
    file.write_text(f"user,item,rating\nstranger,{model.item_ids[2]},5\n")
    _, *lines = asked(capsys, "recommend", saved, "--ratings", file, "-n", 3)
    expected = model.item_ids[model.recommend({2: 5.0}, 3).items]
    assert [int(line[2]) for line in lines] == expected.tolist()


def test_similar_and_explain__print_what_the_model_says(capsys, saved):
    model = mf.load(saved)
    _, *lines = asked(capsys, "similar", saved, model.item_ids[1], "-n", 3)
    assert [int(line[2]) for line in lines] == model.item_ids[model.similar_items(1, 3).items].tolist()
    lines = asked(capsys, "explain", saved, model.user_ids[0], model.item_ids[1], "-n", 2)
    assert float(lines[0][0]) == pytest.approx(float(model.predict(0, 1)), abs=1e-3)
    assert sum(float(line[0]) for line in lines[1:]) == pytest.approx(float(lines[0][0]), abs=1e-3)


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
