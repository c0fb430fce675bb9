"""Models of LIBMF, and the commands that take files of test ratings, show models and convert files."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.cli import main
from mfkernel.cli.completion import SHELLS

TRAINED = """f 0
m 3
n 2
k 2
b 2.5
p0 T 1 0.5
p1 F 0 0
p2 T 0.25 -2
q0 T 2 1
q1 T 0 4
"""


@pytest.fixture
def files(tmp_path):
    """Write training and test ratings with times; return their folder."""
    R = mf.datasets.synthetic(40, 30, 600, rng=3)
    times = np.random.default_rng(0).permutation(R.nnz) + 1e9
    train, test = mf.train_test_split(mf.Ratings(R, timestamps=times), 0.2, rng=0)
    for name, part in (("train.csv", train), ("test.csv", test)):
        lines = zip(part.users, part.items, part.values, part.timestamps, strict=True)
        text = "".join(f"u{u},{i + 100},{r},{t}\n" for u, i, r, t in lines)
        (tmp_path / name).write_text("user,item,rating,timestamp\n" + text)
    return tmp_path


def run(capsys, *words):
    capsys.readouterr()
    main([str(word) for word in words])
    return capsys.readouterr().out


# LIBMF


def test_read_libmf__predicts_as_libmf(tmp_path):
    path = tmp_path / "model.txt"
    path.write_text(TRAINED)
    model = mf.read_libmf(path)
    assert model.reconstruct()[[0, 2]].tolist() == [[2.5, 2], [-1.5, -8]]
    assert model.predict([0, 1, 2], [1, 0, 0]).tolist() == [2, 2.5, -1.5]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("q1 T 0 4\n", "", "line 10: '' instead of q1, T or F, and 2 numbers"),
        ("p1 F 0 0", "p1 F 0", "line 7: 'p1 F 0' instead of p1"),
        ("p2 T", "p3 T", "line 8: .* instead of p2"),
        ("p2 T", "p2 X", "line 8"),
        ("1 0.5", "1 x", "could not convert"),
        ("f 0", "f 2", "the loss 2, but 0, 1, 5, 12 can be read"),
        ("m 3", "m 1000000000", "in a shorter file"),
        ("m 3", "m -3", "in a shorter file"),
        ("k 2\n", "", "a head without f, m, n, k, b"),
        ("0.25", "nan", "finite"),
    ],
)
def test_read_libmf__names_what_is_wrong(old, new, message, tmp_path):
    path = tmp_path / "model.txt"
    path.write_text(TRAINED.replace(old, new))
    with pytest.raises(ValueError, match=message):
        mf.read_libmf(path)


@pytest.mark.property
@given(seed=st.integers(0, 99), biases=st.booleans(), gaps=st.booleans())
def test_write_libmf__is_read_back(tmp_path_factory, seed, biases, gaps):
    R = mf.datasets.synthetic(12, 9, 40, rng=seed)
    model = mf.factorize(R, 3, biases=biases, epochs=2, rng=seed)
    path = tmp_path_factory.mktemp("libmf") / "m"
    mf.write_libmf(model, path)
    again, users, items = mf.read_libmf(path), np.arange(12)[:, None], np.arange(9)
    np.testing.assert_allclose(again.predict(users, items), model.predict(users, items), rtol=1e-5, atol=1e-5)
    if not biases:
        np.testing.assert_array_equal(again.P[again.known_users], model.P[model.known_users])
        np.testing.assert_array_equal(again.known_items, model.known_items)


def test_write_libmf__keeps_the_kind_of_the_loss(tmp_path):
    R = mf.datasets.synthetic(12, 9, 40, rng=0)
    clicks = mf.factorize(R, 2, "implicit", epochs=1, rng=0)
    mf.write_libmf(clicks, tmp_path / "m")
    assert mf.read_libmf(tmp_path / "m").settings.implicit
    with pytest.raises(ValueError, match="model must have a loss that LIBMF knows.*'huber'"):
        mf.write_libmf(mf.factorize(R, 2, loss="huber", epochs=1, rng=0), tmp_path / "m")


# test ratings in files


def test_factorize__measures_on_a_file_and_validates_with_one(capsys, files):
    train, test = files / "train.csv", files / "test.csv"
    options = ("-q", "-k", 2, "--seed", 0, "--biases", "--threads", 1)
    found = run(capsys, "factorize", train, "--test", test, "--validation", test, *options)
    R, held_out = mf.read_ratings(train), mf.read_ratings(test)
    model = mf.factorize(R, 2, biases=True, rng=0, n_threads=1, validation=held_out)
    assert f"{model.rmse(held_out):.4f}" in found
    assert f"stopped: {model.stop_reason}" in found
    with pytest.raises(SystemExit, match=r"none\.csv"):
        run(capsys, "factorize", train, "--test", files / "none.csv", *options)


def test_factorize__holds_out_the_latest(capsys, files):
    train = files / "train.csv"
    options = ("-q", "-k", 2, "--seed", 0, "--epochs", 3, "--threads", 1)
    found = run(
        capsys, "factorize", train, "--timestamp", "--test", 0.2, "--latest", "--half-life", 300, *options
    )
    R = mf.read_ratings(train, timestamp=True)
    first, latest = mf.time_split(R, 0.2)
    model = mf.factorize(first, 2, rng=0, epochs=3, n_threads=1, half_life=300)
    assert f"{model.rmse(latest):.4f}" in found
    with pytest.raises(SystemExit, match="--latest must be used with --test"):
        run(capsys, "factorize", train, "--latest", *options)
    with pytest.raises(SystemExit, match="R must have timestamps"):
        run(capsys, "factorize", train, "--test", 0.2, "--latest", *options)


def test_select_rank__tests_on_a_file_and_by_ndcg(capsys, files):
    options = ("-k", 2, 4, "--epochs", 2, "--seed", 0)
    found = run(capsys, "select-rank", files / "train.csv", "--test", files / "test.csv", *options)
    pair = [(mf.read_ratings(files / "train.csv"), mf.read_ratings(files / "test.csv"))]
    expected = mf.select_rank(pair[0][0], [2, 4], pair, rng=0, epochs=2)
    assert f"k = {expected.k}," in found
    assert "test ndcg" in run(capsys, "select-rank", files / "train.csv", "--method", "implicit", *options)
    with pytest.raises(SystemExit, match="--folds must be left out"):
        run(capsys, "select-rank", files / "train.csv", "--test", files / "test.csv", "--folds", 2, *options)


def test_files__may_come_from_standard_input(capsys, files, monkeypatch):
    content = (files / "train.csv").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = run(capsys, "factorize", "-", "-q", "-k", 2, "--epochs", 1)
    assert found.startswith("-: 40 users, 30 items")


def test_recommend__takes_a_file_of_items(capsys, files):
    model = files / "m.npz"
    run(capsys, "factorize", files / "train.csv", "-q", "-k", 2, "--epochs", 2, "-o", model)
    (files / "stock.txt").write_text("105\n\n117\n999\n")
    capsys.readouterr()
    main(["recommend", str(model), "u1", "--include-seen", "--items", str(files / "stock.txt")])
    captured = capsys.readouterr()
    assert {line.split()[2] for line in captured.out.splitlines()[1:]} == {"105", "117"}
    assert "1 item not in the model left out" in captured.err
    (files / "stock.txt").write_text("999\n")
    with pytest.raises(SystemExit, match="item id '999' is not in the model"):
        main(["recommend", str(model), "u1", "--items", str(files / "stock.txt")])


# what a model is, and other forms


def test_info__shows_sizes_and_settings(capsys, files):
    model = files / "m.npz"
    run(
        capsys, "factorize", files / "train.csv", "-q", "-k", 3, "--method", "als", "--epochs", 2, "-o", model
    )
    found = json.loads(run(capsys, "info", model, "--json"))
    expected = {"users": 40, "items": 30, "k": 3, "method": "als", "epochs_run": 2, "item_ids": "int64"}
    assert expected.items() <= found.items()
    assert ["method", "als"] in [line.split() for line in run(capsys, "info", model).splitlines()]


def test_export__writes_factors_with_ids_and_models_for_libmf(capsys, files):
    saved, table = files / "m.npz", files / "items.csv"
    run(capsys, "factorize", files / "train.csv", "-q", "-k", 2, "--epochs", 1, "--biases", "-o", saved)
    run(capsys, "export", saved, table, "--side", "items")
    model, rows = mf.load(saved), [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0] == ["id", "bias", "f0", "f1"]
    assert [int(row[0]) for row in rows[1:]] == model.item_ids.tolist()
    np.testing.assert_array_equal(np.array([row[2:] for row in rows[1:]], np.float32), model.Q.T)
    run(capsys, "export", saved, files / "m.txt")
    run(capsys, "convert", files / "m.txt", files / "again.npz", "--libmf")
    again, at = mf.load(files / "again.npz"), (np.arange(40)[:, None], np.arange(30))
    np.testing.assert_allclose(again.predict(*at), model.by_position.predict(*at), rtol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "npz", "parquet"])
def test_convert__writes_ratings_that_are_read_back(capsys, files, ending):
    pytest.importorskip("pyarrow")
    target = files / f"new.{ending}"
    run(capsys, "convert", files / "train.csv", target, "--timestamp")
    R, with_ids = mf.read_ratings(files / "train.csv", timestamp=True), ending in ("csv", "tsv", "parquet")
    again = mf.read_ratings(target, timestamp=with_ids)
    np.testing.assert_array_equal(again.values, R.values)
    if with_ids:
        np.testing.assert_array_equal(again.user_ids, R.user_ids)
        np.testing.assert_array_equal(again.timestamps, R.timestamps)
    with pytest.raises(SystemExit, match=r"OUTPUT must end in \.csv.*got .*new\.xlsx"):
        run(capsys, "convert", files / "train.csv", files / "new.xlsx")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion__is_a_script_of_the_shell(capsys, shell):
    text = run(capsys, "completion", shell)
    assert "recommend" in text
    assert "include-seen" in text
    if shutil.which(shell) and shell != "zsh":
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion__completes_in_bash(capsys):
    text = run(capsys, "completion", "bash")
    ask = 'COMP_WORDS=(mfkernel {}); COMP_CWORD={}; _mfkernel; echo "${{COMPREPLY[@]}}"'
    for words, at, expected in (("reco", 1, "recommend"), ("recommend --incl", 2, "--include-seen")):
        script = text + ask.format(words, at)
        found = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=True).stdout
        assert found.split() == [expected]


def test_output__may_be_cut_off(files):
    command = f"{sys.executable} -m mfkernel completion bash | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
