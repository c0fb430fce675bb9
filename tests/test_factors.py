"""Results of a factorization: predictions, errors, ids, and files that come back whole or not at all."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from tests.helpers import examples, state_of
from tests.samples import random_cells

P = np.arange(6.0).reshape(3, 2) - 1.5
Q = np.arange(8.0).reshape(2, 4) / 4
HISTORY = [mf.Epoch(1, 0.75, 0.125, 0.1), mf.Epoch(2, 0.5, 0.25, 0.05)]
STRINGS = {"user_ids": np.array(["bob", "Ann", "zoë"]), "item_ids": np.array(["x", "b", "longer name", "a"])}
INTEGERS = {"user_ids": np.array([7, -1, 5]), "item_ids": np.array([3, 2**60 + 1, 2**60, 0])}
DTYPES = [np.float32, np.float64]


def factors(**settings: Any) -> mf.Factors:
    return mf.Factors(P.copy(), Q.copy(), **settings)


def gaps(dtype: type = np.float64) -> mf.Factors:
    """Return factors with one user and one item that had no ratings."""
    known = {"known_users": [True, False, True], "known_items": [True, True, True, False]}
    return mf.Factors(P.astype(dtype), Q.astype(dtype), mean=3.3, **known)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("users", "items"),
    [
        (1, 2),
        (np.uint8(2), np.int64(0)),
        ([0, 1, 2], 3),
        (0, [[0], [1]]),
        ([[0], [1], [2]], [0, 1, 2, 3]),
        (np.zeros((2, 1, 3), int), np.array([[1], [3]])),
        (np.arange(3)[::-1], np.arange(3, dtype=np.uint64)),
        ([], []),
        ([], 3),
        (np.empty((0, 2), int), [1, 2]),
        (np.array([2, 0, 1, 2] * 500), np.array([3, 3, 0, 1] * 500)),
    ],
)
def test_predict__equals_the_product_cell_by_cell(dtype, users, items):
    model = mf.Factors(P.astype(dtype), Q.astype(dtype))
    rows, columns = np.asarray(users, int), np.asarray(items, int)
    expected = (P @ Q)[rows, columns]
    result = model.predict(users, items)
    assert np.shape(result) == expected.shape
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_predict__is_right_across_many_chunks(rng):
    model = mf.Factors(rng.normal(size=(40, 700)), rng.normal(size=(700, 150)))
    np.testing.assert_allclose(model.predict(np.arange(40)[:, None], np.arange(150)), model.P @ model.Q)


@pytest.mark.parametrize("dtype", DTYPES)
def test_predict__gives_the_mean_without_ratings(dtype):
    model = gaps(dtype)
    predicted = model.predict(np.arange(3)[:, None], np.arange(4))
    assert (predicted[1] == dtype(3.3)).all()
    assert (predicted[:, 3] == dtype(3.3)).all()
    np.testing.assert_allclose(predicted[[0, 2], :3], (P @ Q)[[0, 2], :3], rtol=1e-6)
    assert model.predict(1, 0) == dtype(3.3)


def test_predict__does_not_round_the_mean_to_an_integer():
    model = mf.Factors([[1], [2]], [[3, 4]], mean=2.5, known_users=[True, False])
    assert model.predict([0, 1], 0).tolist() == [3.0, 2.5]


def test_predict__gives_the_mean_after_training():
    R = np.array([[5, 0, 3], [0, 0, 0], [4, 0, 2]])
    model = mf.factorize(R, 2, rng=0, epochs=3)
    predicted = model.predict(np.arange(3)[:, None], np.arange(3))
    assert (predicted[1] == 3.5).all()
    assert (predicted[:, 1] == 3.5).all()
    assert not (predicted[[0, 0, 2, 2], [0, 2, 0, 2]] == 3.5).any()


@pytest.mark.parametrize(
    ("users", "items", "error", "message"),
    [
        (3, 0, ValueError, r"users.*3.*n_users = 3"),
        ([0, 2, 9, 8], 0, ValueError, r"users\[2\] = 9.*n_users = 3"),
        ([0, 1], [[0, 1], [4, 2]], ValueError, r"items\[1, 0\] = 4.*n_items = 4"),
        (0, -1, ValueError, r"items.*-1.*negative"),
        ([0, -2, -3], 0, ValueError, r"users\[1\] = -2.*negative"),
        (2**63, 0, ValueError, r"users.*9223372036854775808"),
        (1.0, 0, TypeError, "users.*integer.*float64"),
        (0, [True], TypeError, "items.*integer.*bool"),
        ("ann", 0, TypeError, "users.*integer"),
        ([0, 1], [0, 1, 2], ValueError, r"\(2,\).*\(3,\)"),
    ],
)
def test_predict__names_what_is_wrong(users, items, error, message):
    with pytest.raises(error, match=message):
        factors().predict(users, items)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reconstruct__is_the_product(dtype):
    product = mf.Factors(P.astype(dtype), Q.astype(dtype)).reconstruct()
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, P.astype(dtype) @ Q.astype(dtype))


def test_reconstruct__refuses_what_cannot_fit(monkeypatch):
    model = mf.Factors(np.zeros((2**15, 1), np.float32), np.zeros((1, 2**14), np.float32))
    monkeypatch.setattr("mfkernel.model.predict.available_memory", lambda: 2**30)
    with pytest.raises(
        MemoryError, match=r"fit in 1\.0 GiB of free memory, got 32,768 × 16,384 float32, 2\.0 GiB"
    ):
        model.reconstruct()
    monkeypatch.setattr("mfkernel.model.predict.available_memory", lambda: None)
    assert factors().reconstruct().shape == (3, 4)


def test_reconstruct__does_not_overflow_when_it_counts(monkeypatch):
    column = np.zeros((2**17, 1), np.float32)
    monkeypatch.setattr("mfkernel.model.predict.available_memory", lambda: 2**20)  # 2³⁴ cells take 2³⁶ bytes
    with pytest.raises(MemoryError, match=r"64\.0 GiB"):
        mf.Factors(column, column.T).reconstruct()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rmse__is_that_of_numpy(rng, dtype):
    users, items = random_cells(3, 4, 8, rng)
    values = rng.normal(size=8)
    model = gaps(dtype)
    expected = np.sqrt(np.mean((values - model.predict(users, items)) ** 2))
    for R in ((users, items, values, (3, 4)), mf.Ratings((users, items, values, (3, 4)), dtype=dtype)):
        assert model.rmse(R) == pytest.approx(expected, rel=1e-6)
    assert model.rmse(sparse.coo_array((values, (users, items)), shape=(3, 4))) == pytest.approx(expected)


def test_rmse__refuses_other_shapes_and_no_ratings():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 2\)"):
        factors().rmse([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="R must have ratings to compare with, got none"):
        factors().rmse(np.zeros((3, 4)))


def test_factors__unpack_as_p_and_q():
    first, second = model = factors()
    assert first is model.P
    assert second is model.Q
    assert (model.shape, model.k) == ((3, 4), 2)


def test_factors__show_their_size():
    shown = repr(mf.Factors(np.zeros((12, 2), np.float32), np.zeros((2, 34), np.float32), history=HISTORY))
    assert shown.startswith("Factors(")
    for part in ("12", "34", "2", "float32", "0.5"):
        assert part in shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"P": np.ones(3)}, r"\(3,\)"),
        ({"P": np.ones((3, 5))}, r"\(3, 5\).*\(2, 4\)"),
        ({"known_users": [True]}, r"known_users.*\(3,\).*\(1,\)"),
        ({"user_ids": np.arange(4)}, r"user_ids.*\(3,\).*\(4,\)"),
        ({"item_ids": np.arange(3)}, r"item_ids.*\(4,\).*\(3,\)"),
    ],
)
def test_factors__refuse_shapes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        mf.Factors(**{"P": P, "Q": Q, **changes})


@pytest.mark.parametrize("ids", [STRINGS, INTEGERS], ids=["strings", "integers"])
def test_user_rows__translates_ids_of_any_shape(ids):
    model = factors(**ids)
    for translate, names in ((model.user_rows, ids["user_ids"]), (model.item_columns, ids["item_ids"])):
        np.testing.assert_array_equal(translate(names), np.arange(names.size))
        np.testing.assert_array_equal(translate(names[[[2, 0], [1, 1]]].tolist()), [[2, 0], [1, 1]])
        assert translate(names[1]) == 1
        assert translate([]).shape == (0,)
    cell = model.predict(ids["user_ids"][2], ids["item_ids"][1])
    assert cell == pytest.approx((P @ Q)[2, 1])


@pytest.mark.parametrize(
    ("ids", "wanted", "named"),
    [
        (STRINGS, ["bob", "zoe", "max"], "zoe"),
        (STRINGS, "zzz", "zzz"),
        (STRINGS, "bob and a long tail", "bob and a long tail"),
        (STRINGS, [3], "3"),
        (INTEGERS, [7, 6], "6"),
        (INTEGERS, 2**60 + 2, str(2**60 + 2)),
        (INTEGERS, 2**70, str(2**70)),
        (INTEGERS, [5.5], "5.5"),
        (INTEGERS, ["x"], "x"),
    ],
)
def test_user_rows__names_an_unknown_id(ids, wanted, named):
    model = factors(**ids)
    with pytest.raises(KeyError, match="user") as error:
        model.user_rows(wanted)
    assert named in str(error.value)
    with pytest.raises(KeyError, match="item"):
        model.item_columns(wanted)


def test_user_rows__shows_an_unknown_id_as_it_is_written():
    with pytest.raises(KeyError, match="user id 'zoe' is"):
        factors(**STRINGS).user_rows(["bob", "zoe"])
    with pytest.raises(KeyError, match="item id 6 is"):
        factors(**INTEGERS).item_columns([3, 6])


def test_user_rows__knows_no_id_in_an_empty_vocabulary():
    model = mf.Factors(np.empty((0, 2)), Q, user_ids=np.array([], np.int64))
    with pytest.raises(KeyError, match="1"):
        model.user_rows([1])


def test_user_rows__says_that_there_are_no_ids():
    with pytest.raises(ValueError, match="must have user ids to look up, got none"):
        factors().user_rows([1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ids", [STRINGS, INTEGERS, {}], ids=["strings", "integers", "none"])
@pytest.mark.parametrize("history", [[], HISTORY])
def test_save__is_undone_by_load(tmp_path, dtype, ids, history):
    known = {"known_users": [True, False, True], "known_items": [False, True, True, True]}
    model = mf.Factors(P.astype(dtype), Q.astype(dtype), mean=0.1, history=history, **known, **ids)
    path = tmp_path / "model.bin"  # the name is taken as it is
    model.save(path)
    model.save(str(path))  # again, over the first
    assert state_of(mf.load(path)) == state_of(model)
    assert state_of(mf.load(str(path))) == state_of(model)
    assert [file.name for file in tmp_path.iterdir()] == ["model.bin"]
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["P"], model.P)
        np.testing.assert_array_equal(arrays["Q"], model.Q)
        for name, expected in ids.items():
            np.testing.assert_array_equal(arrays[name], expected)


def test_save__keeps_a_trained_model(tmp_path, ratings):
    model = mf.factorize(ratings, 5, rng=0, epochs=2)
    model.save(tmp_path / "model.npz")
    loaded = mf.load(tmp_path / "model.npz")
    assert state_of(loaded) == state_of(model)
    assert loaded.rmse(ratings) == model.rmse(ratings)
    assert isinstance(loaded.history[0], mf.Epoch)
    assert isinstance(loaded.history[0].epoch, int)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_save__leaves_the_old_file_if_it_fails(tmp_path, monkeypatch, error):
    path = tmp_path / "model.npz"
    factors().save(path)
    before = path.read_bytes()

    def fail(file: Any, arrays: Any) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr("mfkernel.model.archive._write_arrays", fail)
    with pytest.raises(type(error)):
        factors(mean=9.0).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.npz"]  # noqa: PTH208 (hidden files too)


def test_save__names_the_file_that_it_cannot_write(tmp_path):
    with pytest.raises(OSError, match=r"missing.model\.npz"):
        factors().save(tmp_path / "missing" / "model.npz")


def damaged(folder: Path, **changes: Any) -> Path:
    """Write a model of which some arrays are others, or left out if None."""
    path = folder / "hurt.npz"
    factors(history=HISTORY, **STRINGS).save(path)
    with np.load(path) as arrays:
        kept = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    np.savez(path, allow_pickle=True, **kept)
    return path


@pytest.mark.parametrize("value", [0, 6, 99, "1", None])
def test_load__names_the_format_that_it_cannot_read(tmp_path, value):
    path = damaged(tmp_path, header=np.array(json.dumps({"format": value, "more": [1]})))
    with pytest.raises(ValueError, match=rf"hurt\.npz.*format.*{value}"):
        mf.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("header", "P", "Q", "history")),
        {"header": np.array("{")},
        {"header": np.array("[]")},
        {"header": np.array('{"format": 1}')},
        {"header": np.array('{"format": 1, "mean": "x"}')},
        {"header": np.array('{"format": 1, "mean": 1' + "0" * 400 + "}")},
        {"P": np.array([[{}, 1]] * 3, object)},
        {"P": np.array([["a", "b"]] * 3)},
        {"P": P.astype(complex)},
        {"P": P[:, :1]},
        {"Q": np.ones(3)},
        {"history": np.array([[np.inf, 1, 1, 1]])},
        {"history": np.array([[np.nan, 1, 1, 1]])},
        {"history": np.array([["1", "2", "3", "x"]])},
        {"history": np.ones((2, 3))},
        {"history": np.array(1.0)},
        {"known_users": np.ones(4, bool)},
        {"user_ids": np.array(["a"])},
        {"item_ids": np.ones((4, 1))},
        {"stranger": np.ones(1)},
    ],
    ids=lambda changes: "-".join(f"{name} {value!s:.20}" for name, value in changes.items()),
)
def test_load__names_a_file_that_is_no_whole_model(tmp_path, changes):
    with pytest.raises(ValueError, match=r"hurt\.npz"):
        mf.load(damaged(tmp_path, **changes))


def test_load__names_a_foreign_file(tmp_path):
    np.save(tmp_path / "array.npy", P)
    np.savez(tmp_path / "other.npz", P=P, Q=Q)
    sparse.save_npz(tmp_path / "sparse.npz", sparse.eye_array(3))
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("1 2 3\n")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps([P, Q]))
    factors().save(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-100])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=rf"{path.name}.*mfkernel") as error:
            mf.load(path)
        assert "allow_pickle" not in str(error.value)


def test_load__leaves_errors_of_the_system_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        mf.load(tmp_path / "missing.npz")
    with pytest.raises(OSError, match=tmp_path.name):
        mf.load(tmp_path)


@examples(300)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4
    ),
    end=st.just(1.0) | st.floats(0, 1),
)
def test_load__yields_factors_or_a_plain_error(tmp_path_factory, changes, end):
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    factors(history=HISTORY, **STRINGS).save(path)
    data = bytearray(path.read_bytes())
    for share, length, new in changes:
        start = int(share * len(data))
        data[start : start + length] = new
    path.write_bytes(data[: int(end * len(data))])
    try:
        model = mf.load(path)
    except (ValueError, OSError):
        return
    assert state_of(model) == state_of(factors(history=HISTORY, **STRINGS))  # a checksum guards every array


DUPLICATORS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("duplicate", DUPLICATORS.values(), ids=DUPLICATORS)
def test_factors__can_be_copied(duplicate):
    model = factors(mean=2.5, history=HISTORY, **STRINGS)
    twin = duplicate(model)
    assert state_of(twin) == state_of(model)
    assert twin.user_rows("zoë") == 2


@pytest.mark.parametrize("duplicate", DUPLICATORS.values(), ids=DUPLICATORS)
def test_ratings__can_be_copied_and_stay_closed(duplicate):
    original = mf.Ratings([[5, 3, 0], [4, 0, 1]], user_ids=["a", "b"])
    assert original.users.size == 4  # made on first use, and kept
    twin = duplicate(original)
    for name in ("indptr", "indices", "values", "users", "user_ids"):
        np.testing.assert_array_equal(getattr(twin, name), getattr(original, name))
        assert not getattr(twin, name).flags.writeable
    assert twin.shape == (2, 3)
    assert twin.mean == original.mean
