"""Timestamps: how they travel with ratings, and what uses them."""

import datetime
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel.data.merge import merge_ratings

DAY = 86_400.0


def timed(nnz=40, shape=(8, 9), seed=0):
    """Return ratings whose time is 10 × the value, with ids and weights."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(shape[0] * shape[1], nnz, replace=False)
    values = rng.permutation(nnz) + 1.0
    triplets = (*np.divmod(cells, shape[1]), values, shape)
    ids = {"user_ids": np.arange(shape[0]) + 50, "item_ids": [f"i{n}" for n in range(shape[1])]}
    return mf.Ratings(triplets, timestamps=values * 10, sample_weight=values / 4, **ids)


def assert_go_along(R):
    np.testing.assert_array_equal(R.timestamps, R.values * 10)
    np.testing.assert_array_equal(R.weights, R.values / 4)


def test_timestamps__stay_with_their_ratings():
    R = timed()
    keep = R.values % 3 > 0
    kept = [
        *(R, R.T, R.T.T, R.select(keep), R.take_rows([5, 1, 1]), R.reshaped((20, 10))),
        *(R.with_ids(None, None), mf.Ratings(R), pickle.loads(pickle.dumps(R))),
        *(*mf.train_test_split(R, 0.3, rng=0), *mf.leave_n_out(R, 1, rng=0)),
        *mf.strong_generalization_split(R, rng=0),
    ]
    for part in kept:
        assert_go_along(part)
    assert not R.timestamps.flags.writeable
    np.testing.assert_array_equal(R.with_values(R.values + 1).timestamps, R.timestamps)
    assert mf.Ratings([[5, 3]]).timestamps is None


def test_timestamps__come_with_any_form_that_has_an_order():
    R = timed()
    times, coo = R.values * 10, R.to_scipy().tocoo()
    for form in (coo, coo.tocsr(), coo.tocsc(), (R.users, R.items, R.values, R.shape)):
        own = (form.data if hasattr(form, "data") else form[2]) * 10
        np.testing.assert_array_equal(mf.Ratings(form, timestamps=own).timestamps, times)
    masked = np.ma.array([5.0, 3, 4], mask=[False, True, False])
    assert mf.Ratings(([0, 1, 1], [0, 0, 1], masked), timestamps=[7, 8, 9]).timestamps.tolist() == [7, 9]


@pytest.mark.parametrize(
    "dates",
    [
        ["1970-01-02", "1970-01-03"],
        [datetime.date(1970, 1, 2), datetime.date(1970, 1, 3)],
        [datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 3)],
        np.array(["1970-01-02", "1970-01-03"], "datetime64[D]"),
        np.array(["1970-01-02", "1970-01-03"], "datetime64[ns]"),
        [DAY, 2 * DAY],
        np.array([86400, 172800], np.int32),
    ],
)
def test_dates__become_seconds_since_1970(dates):
    assert mf.Ratings(([0, 1], [0, 0], [5, 3]), timestamps=dates).timestamps.tolist() == [DAY, 2 * DAY]


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ([1, np.nan], ValueError, r"timestamps must be finite times, got timestamps\[1\] = nan"),
        (["2020-01-01", "NaT"], ValueError, r"timestamps\[1\] = NaT"),
        ([1], ValueError, "one time per rating, 2, got 1"),
        (["2020-01-01", "yesterday"], TypeError, "timestamps must be times, got 'yesterday'"),
        ([True, False], TypeError, "timestamps must be times.*bool"),
    ],
)
def test_timestamps__that_are_wrong_are_named(times, error, message):
    with pytest.raises(error, match=message):
        mf.Ratings(([0, 1], [0, 0], [5, 3]), timestamps=times)
    with pytest.raises((TypeError, ValueError)):
        mf.Ratings(mf.Ratings(([0, 1], [0, 0], [5, 3])), timestamps=times)


def test_timestamps__of_a_dense_array_are_refused():
    with pytest.raises(TypeError, match="R must be triplets.*ndarray"):
        mf.Ratings(np.eye(2), timestamps=[1, 2])


def test_errors__name_the_place_in_the_order_given():
    with pytest.raises(ValueError, match=r"values\[2\].*nan"):
        mf.Ratings(([0, 1, 2], [0, 0, 0], [5, 3, np.nan]), timestamps=[3, 2, 1])


# duplicates


@pytest.mark.property
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=30))
def test_last__of_duplicates_is_the_latest(entries):
    users, items, times = (np.array(x) for x in zip(*entries, strict=True))
    values = np.arange(1.0, len(entries) + 1)
    R = mf.Ratings((users, items, values), timestamps=times, duplicates="last", sample_weight=values)
    expected = {}
    for n in np.argsort(times, kind="stable"):
        expected[users[n], items[n]] = values[n], times[n], values[n]
    rows = zip(R.values, R.timestamps, R.weights, strict=True)
    found = dict(zip(zip(R.users, R.items, strict=True), rows, strict=True))
    assert found == expected
    total = mf.Ratings((users, items, values), timestamps=times, duplicates="sum")
    assert total.timestamps.tolist() == R.timestamps.tolist()
    assert total.values.sum() == pytest.approx(values.sum())


def test_merge_ratings__keeps_the_later_rating():
    old = mf.Ratings(([0, 0], [0, 1], [5.0, 4]), timestamps=[10, 20])
    new = mf.Ratings(([0, 0], [0, 1], [1.0, 2]), timestamps=[15, 15])
    merged, *_ = merge_ratings(old, new)
    assert merged.values.tolist() == [1, 4]
    assert merged.timestamps.tolist() == [15, 20]
    merged, *_ = merge_ratings(old, mf.Ratings(([0], [1], [2.0])))
    assert merged.values.tolist() == [5, 2]
    assert merged.timestamps is None


# frames


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("kind", ["date", "datetime", "integer", "text"])
def test_frames__have_a_column_of_times(library, kind):
    pytest.importorskip("narwhals")
    pytest.importorskip(library)
    from mfkernel._support.frames import make_frame

    dates = np.array(["1970-01-03", "1970-01-02", "1970-01-04"], "datetime64[us]")
    columns = {"user": np.array([1, 1, 2]), "item": np.array(["b", "b", "a"]), "stars": np.array([5.0, 3, 4])}
    when = {"integer": (dates.astype(np.int64) / 1e6).astype(np.int64), "text": dates.astype(str)}
    frame = make_frame(columns | {"when": when.get(kind, dates)}, library)
    if kind == "date":
        import narwhals.stable.v2 as nw

        frame = nw.from_native(frame).with_columns(nw.col("when").cast(nw.Datetime("us"))).to_native()
    R = mf.Ratings.from_frame(frame, timestamp="when", duplicates="last")
    assert R.values.tolist() == [5, 4]
    assert R.timestamps.tolist() == [2 * DAY, 3 * DAY]
    model = mf.factorize(frame, 1, timestamp="when", duplicates="last", epochs=1, half_life=DAY, rng=0)
    assert model.ratings.timestamps.tolist() == [2 * DAY, 3 * DAY]
    assert model.ratings.weights.tolist() == [0.5, 1]
    with pytest.raises(ValueError, match="timestamp must be a column of the frame.*'no'"):
        mf.Ratings.from_frame(frame, timestamp="no")


def test_frames__without_a_time_are_refused_or_lose_the_row():
    pandas = pytest.importorskip("pandas")
    when = pandas.to_datetime(["2020-01-01", None])
    frame = pandas.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [5, 4], "when": when})
    with pytest.raises(ValueError, match="timestamp must have no missing values, got 1 in the column 'when'"):
        mf.Ratings.from_frame(frame, timestamp="when")
    assert mf.Ratings.from_frame(frame, timestamp="when", nulls="drop").nnz == 1


# splits


@pytest.mark.property
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_time_split__holds_out_the_latest(times, share):
    n = len(times)
    R = mf.Ratings((np.arange(n), np.zeros(n, int), np.arange(n)), timestamps=times)
    first = sorted(times)[n - min(max(1, round(share * n)), n)]
    if first == min(times):
        with pytest.raises(ValueError, match="test must leave ratings on both sides"):
            mf.time_split(R, share)
        return
    train, test = mf.time_split(R, share)
    assert train.timestamps.max() < test.timestamps.min()
    assert train.nnz + test.nnz == n
    assert test.nnz >= max(1, round(share * n))
    assert (test.timestamps > test.timestamps.min()).sum() < max(1, round(share * n))


def test_time_split__cuts_where_it_is_told():
    R = mf.Ratings(([0, 0, 1], [0, 1, 0], [5, 3, 4]), timestamps=["2024-01-01", "2024-03-01", "2024-02-01"])
    for cut in ("2024-02-01", datetime.date(2024, 2, 1), np.datetime64("2024-02-01"), R.timestamps[2]):
        train, test = mf.time_split(R, cut=cut)
        assert (train.values.tolist(), sorted(test.values)) == ([5], [3, 4])
        assert train.shape == test.shape == R.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda R: mf.time_split(R, 0.5, cut=3), "cut must be None with test=0.5, got 3"),
        (lambda R: mf.time_split(R, 1.5), "test must be between 0 and 1"),
        (lambda R: mf.time_split(R, cut=1e9), "cut must leave ratings on both sides, got none from"),
        (lambda R: mf.time_split(R, cut=-1), "cut must leave ratings on both sides, got none before"),
        (lambda R: mf.time_split(R, cut="soon"), "cut must be times, got 'soon'"),
        (lambda R: mf.time_split(mf.Ratings(R.to_scipy())), "R must have timestamps, got none; pass"),
        (lambda R: mf.leave_n_out(mf.Ratings(R.to_scipy()), last=True), "R must have timestamps"),
        (lambda R: mf.leave_n_out(R, last=1), "last must be"),
        (lambda R: mf.factorize(R.to_scipy(), 2, half_life=3), "half_life must be None for ratings without"),
        (lambda R: mf.factorize(R, 2, half_life=0), "half_life must be .*0"),
        (lambda R: mf.factorize(R, 2, half_life="day"), "half_life must be .*'day'"),
    ],
)
def test_doors__name_what_is_wrong(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(timed())


def test_leave_n_out__takes_the_last_ratings_of_each_user():
    R = timed(60)
    train, test = mf.leave_n_out(R, 2, last=True, rng=0)
    for u in range(R.n_users):
        times = np.sort(R.timestamps[R.users == u])
        count = 2 if times.size > 2 else 0
        assert np.sort(test.timestamps[test.users == u]).tolist() == times[times.size - count :].tolist()
    assert train.nnz + test.nnz == R.nnz


def test_leave_k_out__is_the_former_name():
    with pytest.warns(DeprecationWarning, match="mf.leave_k_out is now mf.leave_n_out"):
        old = mf.leave_k_out(timed(), 1, rng=0)
    assert old[1].values.tolist() == mf.leave_n_out(timed(), 1, rng=0)[1].values.tolist()


# weights of recency


@pytest.mark.parametrize("method", ["sgd", "als"])
def test_half_life__is_a_weight_of_a_half_per_half_life(method):
    R = timed()
    plain = R.with_values(R.values)  # without weights
    options = {"method": method, "epochs": 3, "rng": 0, "dtype": np.float64}
    recent = np.exp2((R.timestamps - R.timestamps.max()) / 100)
    found, expected = (
        mf.factorize(plain, 2, **options, **more) for more in ({"half_life": 100}, {"sample_weight": recent})
    )
    np.testing.assert_array_equal(found.P, expected.P)
    both = mf.factorize(R, 2, half_life=datetime.timedelta(seconds=100), **options)
    np.testing.assert_allclose(both.ratings.weights, recent * R.weights, rtol=1e-12)


def test_half_life__multiplies_the_strengths_of_implicit_feedback():
    R = timed().with_values(np.ones(40))
    model = mf.factorize(R, 2, method="implicit", epochs=2, rng=0, half_life=np.timedelta64(50, "s"))
    np.testing.assert_allclose(
        model.ratings.values, np.exp2((R.timestamps - R.timestamps.max()) / 50), rtol=1e-6
    )


def test_models__keep_the_times_of_their_ratings(tmp_path):
    R = timed()
    model = mf.factorize(R, 2, epochs=1, rng=0)
    model.save(tmp_path / "model")
    loaded = mf.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.ratings.timestamps, R.timestamps)
    new = mf.Ratings(([0], [0], [3.0]), user_ids=[50], item_ids=["i0"], timestamps=[1e6])
    assert loaded.partial_fit(new).ratings.timestamps.max() == 1e6


def test_sparse__matrices_with_times_may_repeat_cells():
    R = sparse.coo_array(([5.0, 3.0], ([0, 0], [1, 1])), shape=(1, 2))
    assert mf.Ratings(R, timestamps=[9, 4], duplicates="last").values.tolist() == [5]
