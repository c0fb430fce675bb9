"""Tables with a row per rating are not taken for matrices, and matrices not for such tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel.data import tables

pd = pytest.importorskip("pandas")


def triplets(m=200, n=100, nnz=3000, values=None, first=0, time=False):
    S = mf.datasets.synthetic(m, n, nnz)
    columns = [S.users + first, S.items + first, S.values if values is None else values(S.nnz)]
    if time:
        columns.append(np.random.default_rng(0).integers(874_724_710, 893_286_638, S.nnz))
    return np.column_stack(columns)


TABLES = {
    "stars": triplets(),
    "numbers from 1": triplets(first=1),
    "with times, as u.data": triplets(first=1, time=True),
    "half stars": triplets(values=lambda n: np.random.default_rng(0).integers(1, 11, n) / 2),
    "plays": triplets(values=lambda n: np.random.default_rng(0).geometric(0.001, n).astype(float)),
    "few": triplets(30, 20, 12),
    "real ids": np.add(triplets(), [100_000, 5_000_000, 0]),
    "integers": triplets().astype(int),
    "a few twice": np.vstack([triplets(), triplets()[:100]]),
    "list": triplets(60, 30, 300).tolist(),
    "labels": triplets(values=lambda n: (np.arange(n) % 3 == 0).astype(float)),
    "one rating missing": np.where(np.arange(9000).reshape(3000, 3) == 5, np.nan, triplets()),
    "numbered rows": np.column_stack([np.arange(3000), triplets()]),
    "plays again and again": np.vstack([triplets(), triplets()[:1500]]),
}


@pytest.mark.parametrize("name", TABLES)
def test_arrays_of_triplets__are_refused_with_the_call_to_make(name):
    for make in (mf.Ratings, lambda R: mf.factorize(R, 2), lambda R: mf.train_test_split(R)):
        with pytest.raises(
            ValueError, match=r"look like user, item, rating; pass triplets: .*np\.unique.*mf\.Ratings"
        ):
            make(TABLES[name])


def test_lists_of_three_columns__are_refused():
    with pytest.raises(
        ValueError, match=r"got a list of user, item and rating; pass them as triplets, tuple\(R\)"
    ):
        mf.factorize(list(triplets().T), 2)


def test_text_in_a_table__is_told_the_way_of_triplets():
    table = np.array([["u1", "i1", "5"], ["u2", "i1", "3"]])
    with pytest.raises(TypeError, match=r"R must hold real numbers, got dtype <U2; .*pass triplets"):
        mf.factorize(table, 2)


def test_the_call_to_make__is_right():
    R = TABLES["real ids"]
    user_ids, users = np.unique(R[:, 0], return_inverse=True)
    item_ids, items = np.unique(R[:, 1], return_inverse=True)
    found = mf.Ratings((users, items, R[:, 2]), user_ids=user_ids, item_ids=item_ids)
    assert found.nnz == 3000
    model = mf.factorize(found, 2, rng=0, epochs=1)
    row, column = model.user_rows(R[17, 0]), model.item_columns(R[17, 1])
    assert found.to_scipy()[int(row), int(column)] == R[17, 2]
    assert mf.Ratings(sparse.csr_array(R)).shape == (3000, 3)  # as a matrix after all


NAMES = [
    ("user", "item", "rating"),
    ("userId", "movieId", "rating", "timestamp"),
    ("User-ID", "ISBN", "Book-Rating"),
    ("user_id", "item_id"),
    ("item", "stars", "user"),
    ("uid", "iid", "clicks"),
    ("user_id:token", "item_id:token", "rating:float"),
    ("user_id", "track_id", "plays"),
    ("visitor", "song", "liked"),
]


@pytest.mark.parametrize("names", NAMES)
def test_structured_arrays_with_such_names__are_refused(names):
    table = np.ones(3, [(name, float) for name in names])
    with pytest.raises(ValueError, match=r"got the columns .*pass triplets: .*np\.unique\(R\['"):
        mf.factorize(table, 2)


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("text", [False, True])
def test_frames_with_such_names__are_read_by_them(names, text):
    frame = pd.DataFrame({name: [n + 1, n + 2, n + 3] for n, name in enumerate(names)})
    at = tables.find_names(names, tables.FRAME_COLUMN_NAMES)
    user, item, *rating = (names[n] for n in at if n >= 0)
    if text:
        frame[[user, item]] = frame[[user, item]].astype(str)
    R = mf.Ratings(frame)
    assert R.user_ids.tolist() == frame[user].tolist()
    assert R.item_ids.tolist() == frame[item].tolist()
    assert R.values.tolist() == (frame[rating[0]].tolist() if rating else [1.0] * 3)


def test_matrices__of_three_columns_are_taken():
    rng = np.random.default_rng(0)
    for R in (
        mf.datasets.textbook()[0],
        rng.integers(0, 6, (500, 3)),
        rng.integers(1, 6, (12, 3)),
        rng.integers(1, 11, (300, 3)),
        rng.integers(0, 101, (1000, 3)),
        rng.normal(3, 1, (100, 3)),
        rng.integers(1, 6, (200, 3)) / 2,
        np.where(rng.random((300, 3)) < 0.5, np.nan, rng.integers(1, 101, (300, 3))),
        rng.integers(0, 6, (500, 4)),
        pd.DataFrame(rng.integers(0, 6, (20, 3)), columns=["Heat", "Alien", "Brazil"]),
        np.zeros((0, 3)),
    ):
        assert mf.Ratings(R).shape == R.shape


@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 3, 4, 5])] * 3), min_size=1, max_size=60))
def test_star_ratings_of_three_items__are_taken(rows):
    assert mf.Ratings(rows, missing="zero").shape == (len(rows), 3)


# how a table is read


def test_missing__is_remembered_and_may_be_said():
    """A zero is a rating here, and unknown there."""
    rng = np.random.default_rng(0)
    R = np.where(rng.random((60, 12)) < 0.6, rng.integers(0, 4, (60, 12)), np.nan).astype(float)
    new = np.array([[0.0, 3.0, 0.0, *[np.nan] * 9]])
    with_zeros, without = {0: 0.0, 1: 3.0, 2: 0.0}, {1: 3.0}
    model = mf.factorize(R, 2, missing="nan", biases=True, rng=0)
    other = mf.factorize(R, 2, biases=True, rng=0)
    for asked, how, meant in (
        (model, {}, with_zeros),
        (other, {}, without),
        (other, {"missing": "nan"}, with_zeros),
    ):
        np.testing.assert_array_equal(asked.fold_in(new, **how).P, asked.fold_in(meant).P)
        found = asked.recommend(new, 12, **how).items[0].compressed()
        np.testing.assert_array_equal(found, asked.recommend(meant, 12).items)
    known = ~np.isnan(R)
    assert model.rmse(R) == pytest.approx(np.sqrt(np.mean((model.reconstruct() - R)[known] ** 2)))
    assert mf.metrics.mae(model, R) == pytest.approx(np.abs(model.reconstruct() - R)[known].mean())
    assert model.rmse(R, missing="zero") != model.rmse(R)
    nnz = model.ratings.nnz
    learned = model.partial_fit(np.vstack([R, [0.0, *[np.nan] * 11]]))
    assert learned.ratings.nnz == nnz + 1


def test_missing__is_saved(tmp_path):
    model = mf.factorize([[0.0, 1.0], [2.0, np.nan]], 1, missing="nan", rng=0)
    model.save(tmp_path / "m.npz")
    assert mf.load(tmp_path / "m.npz").missing == "nan"


# masks


@pytest.mark.parametrize("which", [0, 1, 2])
def test_masked_triplets__are_not_read(which):
    parts = [np.array([0, 1, 2]), np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0])]
    hidden = [*parts]
    hidden[which] = np.ma.array(np.where([0, 1, 0], 10**6, parts[which]), mask=[0, 1, 0])
    R = mf.Ratings((*hidden, (3, 2)), sample_weight=[1.0, 9.0, 2.0])
    assert R.to_scipy().toarray().tolist() == [[1, 0], [0, 0], [3, 0]]
    assert R.weights.tolist() == [1, 2]


def test_masked_users_and_items__are_refused():
    model = mf.factorize(mf.datasets.synthetic(50, 30, 500), 2, rng=0, epochs=1)
    masked = np.ma.array([0, 1], mask=[0, 1])
    for ask in (
        model.recommend,
        model.similar_items,
        model.similar_users,
        lambda x: model.predict(x, 0),
        lambda x: model.predict(0, x),
        lambda x: model.recommend(0, items=x),
        lambda x: model.explain(x[1], 0),
        model.ratings.take_rows,
    ):
        with pytest.raises((TypeError, ValueError), match="is masked|masked"):
            ask(masked)
