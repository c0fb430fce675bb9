"""Data frames become ratings with ids, and answers become data frames."""

import pickle
import re
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel._support import frames as support
from mfkernel.data import frames
from mfkernel.model import archive, files
from tests.helpers import quick

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

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


# later frames and answers, like the frame of training

ODD = {"wer": [7, 3, 7, 9, 3, 9], "was": list("habhha"), "wie": [5.0, 4.0, 3.0, 1.0, 2.0, 4.0]}
NAMES = {"user": "wer", "item": "was", "rating": "wie"}
MORE = {"wer": [3, 11], "was": ["h", "c"], "wie": [1.0, 5.0]}
LIBRARY = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "polars lazy": pl.LazyFrame, "pyarrow": pa.table}


def odd_model(make=pd.DataFrame, method="sgd", **options):
    return mf.factorize(make(ODD), 2, method, **NAMES, **({"rng": 0, "epochs": 2} | options))


def library_of(frame):
    return type(frame).__module__.partition(".")[0]


@pytest.mark.parametrize("library", LIBRARY)
def test_to_frame__is_of_the_library_of_the_ratings(library):
    make, expected = LIBRARY[library], library.partition(" ")[0]
    model = odd_model(make)
    others = pickle.loads(pickle.dumps(model)), model.fold_in({"a": 4.0}), mf.factorize(model.ratings.T.T, 1)
    for each in (model, *others):
        for answer in (each.history, each.by_position.recommend(0, 1)):
            assert library_of(answer.to_frame()) == expected
    for answer in (model.similar_items("a"), model.similar_users(3), model.explain(3, "h")):
        assert library_of(answer.to_frame()) == expected
        assert library_of(pickle.loads(pickle.dumps(answer)).to_frame()) == expected
        assert library_of(answer.to_frame("pyarrow")) == "pyarrow"
    train = mf.train_test_split(mf.Ratings.from_frame(make(ODD), **NAMES), 0.3, rng=0)[0]
    assert library_of(mf.factorize(train, 1, epochs=1, rng=0).history.to_frame()) == expected
    model.partial_fit(pd.DataFrame(MORE)).forget(users=[7])
    assert library_of(model.recommend(3).to_frame()) == expected
    table = make({"a": [5.0, 1.0], "b": [0.0, 2.0]})  # with a column per item
    assert library_of(mf.factorize(table, 1, epochs=1, rng=0).history.to_frame()) == expected


@pytest.mark.parametrize("make", LIBRARY.values(), ids=LIBRARY)
def test_searches__take_the_names_of_columns_and_answer_in_their_library(make):
    frame, common = make(ODD), NAMES | {"rng": 0, "epochs": 1, "n_threads": 1}
    same = {"rng": 0, "epochs": 1, "n_threads": 1}
    R = mf.Ratings.from_frame(frame, **NAMES)
    found = [
        (mf.grid_search(frame, {"k": [1, 2]}, 2, **common), mf.grid_search(R, {"k": [1, 2]}, 2, **same)),
        (mf.select_rank(frame, [1, 2], 2, **common), mf.select_rank(R, [1, 2], 2, **same)),
        (mf.cross_validate(frame, 1, 2, **common), mf.cross_validate(R, 1, 2, **same)),
        (
            mf.cross_validate(frame, 1, [(frame, make(MORE))], **common),
            mf.cross_validate(R, 1, [(R, mf.Ratings.from_frame(make(MORE), **NAMES))], **same),
        ),
    ]
    for search, expected in found:
        np.testing.assert_array_equal(search.test_rmse, expected.test_rmse)
        assert library_of(search.to_frame()) == library_of(expected.to_frame())
        assert library_of(search.to_frame()) == library_of(frame)
    with pytest.raises(
        ValueError, match="user must be a column of the frame, 'wer', 'was', 'wie', got 'who'"
    ):
        mf.select_rank(frame, [1], 2, user="who")
    with pytest.raises(ValueError, match=r"must be the same for all fits, got several"):
        mf.grid_search(frame, {"k": [1], "rating": ["wie", "wer"]}, 2, user="wer", item="was")


@pytest.mark.parametrize("make", LIBRARY.values(), ids=LIBRARY)
def test_models__find_the_columns_of_training_in_later_frames(make, tmp_path):
    model, frame, more = odd_model(make), make(ODD), make(MORE)
    plain = mf.Ratings.from_frame(frame, **NAMES)
    assert model.rmse(frame) == mf.metrics.rmse(model, frame) == model.rmse(plain)
    assert mf.metrics.mae(model, frame) == mf.metrics.mae(model, plain)
    metrics = [mf.metrics.ranking(model, R, 1, exclude_seen=False) for R in (frame, plain)]
    assert metrics[0] == metrics[1]
    np.testing.assert_array_equal(model.fold_in(frame).P, model.fold_in(plain).P)
    np.testing.assert_array_equal(
        model.fold_in(make({"was": ["a"], "wie": [3.0], "wer": [0]})).P, model.fold_in({"a": 3.0}).P
    )
    fitted = [odd_model(make, validation=x, loss="absolute").history for x in (frame, plain)]
    assert [record.validation_rmse for record in fitted[0]] == [
        record.validation_rmse for record in fitted[1]
    ]
    model.save(tmp_path / "model.npz")
    loaded = mf.load(tmp_path / "model.npz")
    for each in (model, loaded):
        each.partial_fit(more)
        assert each.user_ids.tolist() == [3, 7, 9, 11]
        assert each.item_ids.tolist() == ["a", "b", "h", "c"]
    assert (loaded.P == model.P).all()
    assert library_of(loaded.recommend(3).to_frame()) == "pandas"  # a file does not keep the library


def test_models__count_the_rows_of_later_events_and_keep_their_times():
    events = {"wer": [1, 1, 1, 2, None], "was": ["a", "a", "b", "a", "a"], "wann": [1.0, 2.0, 3.0, 4.0, 5.0]}
    how = {"user": "wer", "item": "was", "timestamp": "wann", "count": True, "nulls": "drop"}
    model = mf.factorize(pd.DataFrame(events), 1, "implicit", **how, rng=0, epochs=1)
    pivot = pd.DataFrame({"a": [1.0], "b": [3.0]})  # not counted, as a row is no event
    np.testing.assert_array_equal(model.fold_in(pivot).P, model.fold_in({"a": 1.0, "b": 3.0}).P)
    later = {"wer": [2, 2, 2, None], "was": ["b", "b", "b", "b"], "wann": [6.0, 7.0, 8.0, 9.0]}
    model.partial_fit(pd.DataFrame(later))
    assert model.ratings.to_scipy().toarray().tolist() == [[2, 1], [1, 3]]
    assert model.ratings.timestamps.max() == 8
    plays = mf.factorize(mf.Ratings.from_frame(pd.DataFrame(events), **how), 1, rng=0, epochs=1)
    assert plays.rmse(pd.DataFrame(events)) == plays.rmse(plays.ratings)
    transposed = mf.factorize(mf.Ratings.from_frame(pd.DataFrame(events), **how).T, 1, "implicit", rng=0)
    assert transposed.partial_fit(pd.DataFrame(later)).ratings.to_scipy().toarray().tolist() == [
        [2, 1],
        [1, 3],
    ]


LATER = {
    "without users": (
        {"was": ["a"], "wie": [3.0]},
        "user must be the column 'wer', as in training, or have a usual name, got ",
    ),
    "without ratings": (
        {"wer": [3], "was": ["a"]},
        "rating must be the column of ratings, got none among 'wer', 'was'; pass rating=",
    ),
    "of other columns": (
        {"x": [3], "y": [4], "z": [3.0]},
        "frame must have the columns 'wer' and 'was', as in training, or a column per item, ",
    ),
    "of other columns, text": (
        {"x": ["u"], "y": ["a"], "z": [3.0]},
        "frame must have the columns 'wer' and 'was', as in training",
    ),
}


@pytest.mark.parametrize("columns", LATER)
@pytest.mark.parametrize("make", LIBRARY.values(), ids=LIBRARY)
def test_models__say_which_columns_they_looked_for(make, columns):
    content, message = LATER[columns]
    model, frame = odd_model(make), make(content)
    for door in (model.rmse, model.partial_fit, model.fold_in, model.recommend):
        with pytest.raises(ValueError, match=re.escape(message)):
            door(frame)
    with pytest.raises(ValueError, match=re.escape(message)):
        odd_model(make, validation=frame)
    with pytest.raises(ValueError, match=re.escape(message)):
        mf.cross_validate(make(ODD), 1, [(make(ODD), frame)], **NAMES, epochs=1)
    assert model.user_ids.tolist() == [3, 7, 9]


def test_models__read_other_later_frames_as_before():
    model = odd_model()
    usual = pd.DataFrame({"userId": [3], "item": ["a"], "stars": [1.0]})
    assert model.rmse(usual) == model.rmse(
        usual.rename(columns={"userId": "wer", "item": "was", "stars": "wie"})
    )
    pivot = pd.DataFrame({"a": [5.0], "h": [2.0]})
    np.testing.assert_array_equal(model.fold_in(pivot).P, model.fold_in({"a": 5.0, "h": 2.0}).P)
    seen = mf.metrics.recall_at_n(model, pd.DataFrame({"wer": [3], "was": ["h"]}), 1)  # needs no ratings
    assert 0 <= seen <= 1


COLUMN = st.one_of(st.text(max_size=4), st.integers(-3, 3))


@given(names=st.lists(COLUMN, min_size=3, max_size=3, unique=True), data=st.data())
def test_models__find_columns_of_any_name_in_any_order(names, data, tmp_path_factory):
    first = pd.DataFrame(dict(zip(names, ODD.values(), strict=True)))
    chosen = dict(zip(NAMES, names, strict=True))
    model = mf.factorize(first, 1, **chosen, rng=0, epochs=1)
    path = tmp_path_factory.getbasetemp() / "named.npz"
    model.save(path)
    order = data.draw(st.permutations(names))
    for each in (model, mf.load(path)):
        assert each.rmse(first[order]) == each.rmse(mf.Ratings.from_frame(first, **chosen))


@pytest.mark.parametrize(
    "columns",
    [{"user": ["a"]}, {"user": "a", "nulls": "no"}, {"user": "a", "counted": 1}, {"x": 1}, [1], 3],
    ids=str,
)
def test_load__refuses_wrong_columns(columns, tmp_path):
    odd_model().save(tmp_path / "model.npz")
    header, arrays = archive.read(tmp_path / "model.npz", files.FORMATS)
    archive.write(tmp_path / "model.npz", header | {"columns": columns}, arrays)
    with pytest.raises(ValueError, match=r"model.npz is not a whole model"):
        mf.load(tmp_path / "model.npz")


def test_to_frame__is_of_an_installed_library_by_default(monkeypatch, tmp_path):
    found = mf.Factors([[1.0]], [[1.0]]).recommend(0, exclude_seen=False)
    assert library_of(found.to_frame()) == "pandas"
    parquet.write_table(pa.table({"user": [1], "item": [1], "rating": [1.0]}), tmp_path / "ratings.parquet")
    assert mf.read_ratings(tmp_path / "ratings.parquet").origin.library is None  # pyarrow only read the file
    monkeypatch.setattr(support, "find_spec", lambda name: None if name == "pandas" else True)
    assert library_of(found.to_frame()) == "polars"
    monkeypatch.setattr(support, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"to_frame\('pandas'\) needs pandas: pip install 'mfkernel\[frame\]'"
    ):
        found.to_frame()
