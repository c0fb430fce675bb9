"""Data frames become ratings with ids, and answers become data frames."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.data import frames
from tests.helpers import quick

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

COLUMNS = {
    "userId": [7, 3, 7, 9, 3],
    "title": ["Heat", "Alien", "Cube", "Heat", "Cube"],
    "stars": [5.0, 4.0, 3.0, 1.0, 2.0],
}
MAKERS = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "pyarrow": pa.table,
    "pyarrow chunks": lambda columns: pa.concat_tables(
        [pa.table(columns).slice(0, 2), pa.table(columns).slice(2)]
    ),
}
DENSE = [[4.0, 2.0, 0.0], [0.0, 3.0, 5.0], [0.0, 0.0, 1.0]]  # users 3, 7, 9 × Alien, Cube, Heat


def read(frame, **options):
    return mf.Ratings.from_frame(frame, **({"item": "title"} | options))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_from_frame__reads_frames_of_every_library(make):
    R = read(make(COLUMNS))
    assert R.user_ids.tolist() == [3, 7, 9]
    assert R.item_ids.tolist() == ["Alien", "Cube", "Heat"]
    np.testing.assert_array_equal(R.to_scipy().toarray(), DENSE)


@pytest.mark.parametrize(
    "title",
    [
        pd.Series(COLUMNS["title"], dtype="string"),
        pd.Series(COLUMNS["title"], dtype=object),
        pd.Series(COLUMNS["title"], dtype=pd.ArrowDtype(pa.string())),
        pd.Categorical(COLUMNS["title"]),
    ],
    ids=lambda x: str(x.dtype),
)
@pytest.mark.parametrize("number", ["int64", "Int32", "uint8", "category", "float64"])
def test_from_frame__reads_every_type_of_pandas(title, number):
    frame = pd.DataFrame(COLUMNS | {"title": title})
    frame = frame.astype({"userId": number, "stars": "Float32" if number == "Int32" else "float32"})
    R = read(frame)
    np.testing.assert_array_equal(R.to_scipy().toarray(), DENSE)
    assert R.user_ids.tolist() == [3, 7, 9]


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["Heat", "Cube", "never", "Alien"])], ids=str)
def test_from_frame__reads_categories_of_polars(kind):
    R = read(pl.DataFrame(COLUMNS).with_columns(pl.col("title").cast(kind)))
    assert (
        dict(zip(R.item_ids.tolist(), R.item_counts().tolist(), strict=True)).items() >= {"Heat": 2}.items()
    )
    if kind != pl.Categorical:
        assert R.item_ids.tolist() == ["Heat", "Cube", "never", "Alien"]


def test_from_frame__keeps_the_categories_that_nobody_rated():
    title = pd.Categorical(COLUMNS["title"], categories=["Cube", "never", "Alien", "Heat"])
    R = read(pd.DataFrame(COLUMNS | {"title": title}))
    assert R.item_ids.tolist() == ["Cube", "never", "Alien", "Heat"]
    assert R.item_counts().tolist() == [2, 0, 1, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ä", "a", "007", "7", "A"]), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=30,
        unique=True,
    ),
    st.sampled_from(list(MAKERS)),
)
def test_from_frame__loses_no_rating(cells, library):
    columns = {
        "who": [who for who, _ in cells],
        "what": [n for _, n in cells],
        "r": [n + 1.0 for n in range(len(cells))],
    }
    R = mf.Ratings.from_frame(MAKERS[library](columns), user="who", item="what", rating="r")
    read = {
        (R.user_ids[u], int(R.item_ids[i])): float(r)
        for u, i, r in zip(R.users, R.items, R.values, strict=True)
    }
    assert read == dict(zip(cells, columns["r"], strict=True))
    assert R.user_ids.tolist() == sorted(R.user_ids.tolist())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("column", list(COLUMNS))
def test_from_frame__refuses_missing_values_or_drops_them(make, column):
    columns = COLUMNS | {column: [*COLUMNS[column][:4], None]}
    kind = {"userId": "user", "title": "item", "stars": "rating"}[column]
    with pytest.raises(
        ValueError, match=rf"{kind} must have no missing values, got 1 in the column '{column}'.*row 4"
    ):
        read(make(columns))
    R = read(make(columns), nulls="drop")
    assert R.nnz == 4
    assert R.user_ids.tolist() == [3, 7, 9]


def test_from_frame__counts_events():
    events = {"userId": [1, 1, 1, 2], "song": ["a", "a", "b", "a"]}
    for make in MAKERS.values():
        R = mf.Ratings.from_frame(make(events), count=True)
        np.testing.assert_array_equal(R.to_scipy().toarray(), [[2, 1], [1, 0]])
        with pytest.raises(ValueError, match=r"duplicate ratings \(the first of user 1 for item a\)"):
            mf.Ratings.from_frame(make(events))
    model = mf.factorize(pd.DataFrame(events), 2, "implicit", count=True, rng=0)
    assert model.ratings.values.tolist() == [2, 1, 1]
    with pytest.raises(
        ValueError, match=r"rating must be the column of ratings, got none among 'userId', 'song'"
    ):
        mf.factorize(pd.DataFrame(events), 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"user": "nobody"},
            ValueError,
            "user must be a column of the frame, 'userId', 'title', 'stars', got 'nob",
        ),
        ({"item": None, "user": "userId"}, ValueError, "item must be a column .*got none; pass item="),
        ({"user": "title"}, ValueError, "user and item must be two columns, got 'title' for both"),
        ({"rating": "title", "item": "stars"}, TypeError, "rating must be a column of numbers, got 'title'"),
        ({"count": True, "rating": "stars"}, ValueError, "rating must be None with count=True"),
        ({"count": 1}, TypeError, "count must be True or False"),
        ({"nulls": "ignore"}, ValueError, "nulls must be one of 'raise', 'drop'"),
        ({"userCol": "userId"}, TypeError, r"has no argument userCol; pass user"),
    ],
    ids=str,
)
def test_from_frame__says_what_is_wrong(options, error, message):
    for make in MAKERS.values():
        with pytest.raises(error, match=message):
            read(make(COLUMNS), **options)


def test_from_frame__of_a_pivot_table_keeps_its_labels():
    pivot = pd.DataFrame(COLUMNS).pivot_table(index="userId", columns="title", values="stars")
    for R in (mf.Ratings(pivot), mf.Ratings(pivot.astype("Float64")), mf.Ratings(pivot.fillna(0))):
        assert R.user_ids.tolist() == [3, 7, 9]
        assert R.item_ids.tolist() == ["Alien", "Cube", "Heat"]
        np.testing.assert_array_equal(R.to_scipy().toarray(), DENSE)
    assert mf.Ratings(pd.DataFrame(DENSE)).user_ids is None
    R = mf.Ratings(pl.DataFrame({"Heat": [5, 0], "Cube": [1, 2]}))
    assert (R.user_ids, R.item_ids.tolist()) == (None, ["Heat", "Cube"])
    assert mf.Ratings(pl.DataFrame(np.ones((2, 2)))).item_ids is None
    with pytest.raises(TypeError, match=r"columns 'a', 'b' of dtype object; pass user=, item= and rating="):
        mf.Ratings(pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}))


def test_factorize__takes_the_names_of_columns():
    names = {"user": "userId", "item": "title", "rating": "stars"}
    for make in (pd.DataFrame, pl.DataFrame):
        frame = make(COLUMNS)
        model = mf.factorize(frame, 2, **names, rng=0, epochs=3)
        same = mf.factorize(read(pd.DataFrame(COLUMNS)), 2, rng=0, epochs=3)
        assert (model.P == same.P).all()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = mf.factorize(frame, 2, **names, rng=0, epochs=3, validation=frame)
        assert fitted.history[-1].validation_rmse is not None
    with pytest.raises(TypeError, match="user must be used with a data frame, got user='userId' and ndarray"):
        mf.factorize(np.ones((3, 3)), 2, **names)


@pytest.mark.parametrize("method", quick(["sgd", "als", "implicit"], "sgd"))
def test_models__learn_from_frames_and_speak_their_ids(method):
    frame = pd.DataFrame(COLUMNS).rename(columns={"title": "movie"})
    model = mf.factorize(frame, 2, method, rng=0, epochs=3)
    assert set(model.recommend(7, 5).items) == {"Alien"}
    folded = model.fold_in(pd.DataFrame({"user": ["new"], "movie": ["Cube"], "rating": [4.0]}))
    np.testing.assert_allclose(folded.P, model.fold_in({"Cube": 4.0}).P)
    assert folded.predict("new", "Heat").shape == ()
    new = {"user": ["new", "other"], "movie": ["Cube", "Heat"], "rating": [4.0, 5.0]}
    for make in MAKERS.values():  # recommendations for new users
        found = model.recommend(make(new), 2)
        assert found.asked.tolist() == ["new", "other"]
        assert found.items.tolist() == model.recommend(pd.DataFrame(new), 2).items.tolist()
    model.partial_fit(pd.DataFrame({"user": [11, 3], "movie": ["Heat", "Brazil"], "rating": [4.0, 5.0]}))
    assert model.user_ids.tolist() == [3, 7, 9, 11]
    assert model.item_ids.tolist() == ["Alien", "Cube", "Heat", "Brazil"]
    assert model.rmse(frame) >= 0
    assert 0 <= mf.metrics.recall_at_n(model, frame, 2, exclude_seen=False) <= 1


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_to_frame__has_a_row_per_item_found(library):
    model = mf.factorize(read(pd.DataFrame(COLUMNS)), 2, rng=0, epochs=3)
    found = model.recommend([7, 3, 9], 2)
    frame = found.to_frame(library)
    assert type(frame).__module__.partition(".")[0] == library
    rows = pd.DataFrame(frame.to_pydict() if library == "pyarrow" else dict(frame.to_dict()))
    assert list(rows.columns) == ["for", "place", "item", "score"]
    assert rows["for"].tolist() == [7, 3, 9, 9]
    assert rows["place"].tolist() == [1, 1, 1, 2]
    assert rows["item"].tolist() == found.items.compressed().tolist()
    assert rows["score"].tolist() == found.scores.compressed().tolist()
    one = model.similar_items("Heat", 2)
    assert len(one.to_frame(library)) == len(one.items) == 2
    explained = model.explain(7, "Alien")
    assert len(explained.to_frame(library)) == len(explained.items) == 2
    with pytest.raises(ValueError, match="library must be one of 'pandas', 'polars', 'pyarrow', got 'panda'"):
        found.to_frame("panda")


def test_frames__need_narwhals(monkeypatch):
    def missing(module, extra, what):
        raise ImportError(f"{what} needs {module}: pip install 'mfkernel[{extra}]'")

    monkeypatch.setattr(frames, "import_extra", missing)
    with pytest.raises(ImportError, match=r"a data frame needs .*mfkernel\[frame\]"):
        mf.Ratings(pl.DataFrame({"user": [1], "item": [1], "rating": [1.0]}))
    assert mf.Ratings(pd.DataFrame(DENSE)).shape == (3, 3)  # a table needs no help


def test_xarray__coordinates_are_ids():
    xarray = pytest.importorskip("xarray")
    table = np.array([[5.0, np.nan], [3.0, 4.0]])
    labelled = xarray.DataArray(table, dims=("who", "film"), coords={"who": ["ada", "bob"], "film": [7, 9]})
    model = mf.factorize(labelled, 1, epochs=1, rng=0)
    assert (model.user_ids.tolist(), model.item_ids.tolist()) == (["ada", "bob"], [7, 9])
    assert mf.Ratings(labelled).nnz == 3
    assert mf.Ratings(xarray.DataArray(table)).user_ids is None
    assert mf.Ratings(labelled.drop_vars("who")).item_ids.tolist() == [7, 9]
