"""The container: what it holds and in which order, what derives from it, and what it refuses."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from tests.samples import cells, drawn_triplets

DENSE = np.array([[5.0, 3, 0, 1], [0, 0, 0, 0], [0, 2, 4, 0]])


def assert_canonical(r):
    """Check what every container promises: CSR, sorted, no duplicates, in range, read-only, native."""
    m, n = r.shape
    assert (r.n_users, r.n_items, r.nnz) == (m, n, len(cells(r)))
    assert r.indptr.shape == (m + 1,)
    assert r.indptr[0] == 0
    assert r.indptr[-1] == r.nnz == r.indices.size == r.values.size
    assert r.indptr.dtype == np.int64
    assert r.indices.dtype in (np.int32, np.int64)
    assert r.dtype == r.values.dtype
    assert r.dtype in (np.float32, np.float64)
    for start, stop in zip(r.indptr[:-1], r.indptr[1:], strict=True):
        assert start <= stop
        assert (np.diff(r.indices[start:stop].astype(np.int64)) > 0).all()
    if r.nnz:
        assert 0 <= r.indices.min() <= r.indices.max() < n
    assert np.isfinite(r.values).all()
    for array in (r.indptr, r.indices, r.values, r.users, r.items):
        assert array.flags.c_contiguous
        assert array.dtype.isnative
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_ratings__holds_csr_arrays():
    r = mf.Ratings(DENSE)
    assert r.indptr.tolist() == [0, 3, 3, 5]
    assert r.indices.tolist() == [0, 1, 3, 1, 2]
    assert r.values.tolist() == [5, 3, 1, 2, 4]
    assert r.users.tolist() == [0, 0, 0, 2, 2]
    assert r.items.tolist() == r.indices.tolist()
    assert r.shape == (3, 4)
    assert (r.n_users, r.n_items, r.nnz) == (3, 4, 5)
    assert r.user_counts().tolist() == [3, 0, 2]
    assert r.item_counts().tolist() == [1, 2, 1, 1]
    assert r.mean == pytest.approx(3)
    assert r.std == pytest.approx(np.std([5, 3, 1, 2, 4]))
    assert r.user_ids is None
    assert r.item_ids is None
    assert_canonical(r)


@given(drawn_triplets())
def test_ratings__equals_a_dictionary(R):
    users, items, values, shape = R
    r = mf.Ratings(R)
    expected = dict(zip(zip(users.tolist(), items.tolist(), strict=True), values.tolist(), strict=True))
    assert cells(r) == expected
    assert r.shape == shape
    assert_canonical(r)
    assert r.user_counts().tolist() == np.bincount(users, minlength=shape[0]).tolist()
    assert r.item_counts().tolist() == np.bincount(items, minlength=shape[1]).tolist()
    assert r.mean == pytest.approx(values.mean(dtype=np.float64) if values.size else 0)
    assert r.std == pytest.approx(values.std() if values.size else 0, abs=1e-5)


@given(drawn_triplets())
def test_ratings__transposes(R):
    r = mf.Ratings(R)
    t = r.T
    assert t.shape == r.shape[::-1]
    assert cells(t) == {(i, u): value for (u, i), value in cells(r).items()}
    assert t.dtype == r.dtype
    assert_canonical(t)
    for name in ("indptr", "indices", "values"):
        np.testing.assert_array_equal(getattr(t.T, name), getattr(r, name))


@given(
    drawn_triplets(unique=False),
    st.sampled_from(["sum", "mean", "last"]),
    st.sampled_from(["triplets", "coo", "csr", "csc"]),
)
def test_ratings__merges_duplicates(R, duplicates, form):
    users, items, values, shape = R
    groups: dict[tuple[int, int], list[float]] = {}
    for u, i, value in zip(users.tolist(), items.tolist(), values.tolist(), strict=True):
        groups.setdefault((u, i), []).append(value)
    if form == "coo":
        R = sparse.coo_array((values, (users, items)), shape=shape)
    elif form in ("csr", "csc"):  # neither sorted nor summed, as a program may have filled it
        major, minor = (users, items) if form == "csr" else (items, users)
        order = np.argsort(major, kind="stable")
        n_major = shape[0] if form == "csr" else shape[1]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=n_major))])
        kind = sparse.csr_array if form == "csr" else sparse.csc_array
        R = kind((values[order], minor[order], indptr), shape=shape)
    merge = {"sum": sum, "mean": np.mean, "last": lambda group: group[-1]}[duplicates]
    if len(groups) < users.size:
        with pytest.raises(ValueError, match=rf"\b{users.size - len(groups)} duplicate"):
            mf.Ratings(R)
    r = mf.Ratings(R, duplicates=duplicates)
    expected = {place: merge(group) for place, group in groups.items()}
    assert cells(r) == pytest.approx(expected, abs=1e-5, rel=1e-6)
    assert_canonical(r)


def test_ratings__counts_duplicates_it_refuses():
    R = [1, 1, 1, 1, 0], [2, 3, 2, 3, 0], [1.0, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"\b2 duplicate.*user 1\b.*item 2\b.*'last'"):
        mf.Ratings(R)


def test_ratings__refuses_a_sum_that_overflows():
    R = np.array([0, 0]), np.array([1, 1]), np.array([3e38, 3e38], np.float32), (1, 2)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        mf.Ratings(R, duplicates="sum")


@given(drawn_triplets(), st.data())
def test_ratings__selects_by_mask(R, data):
    r = mf.Ratings(R)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=r.nnz, max_size=r.nnz)), np.bool_)
    chosen = r.select(mask)
    assert chosen.shape == r.shape
    assert chosen.dtype == r.dtype
    assert cells(chosen) == {
        place: value for (place, value), m in zip(cells(r).items(), mask, strict=True) if m
    }
    assert_canonical(chosen)


@pytest.mark.parametrize(
    "mask",
    [
        np.full(5, 2),
        np.array([0, 4]),
        np.ones(4, np.bool_),
        np.ones(6, np.bool_),
        np.ones((5, 1), np.bool_),
        np.bool_(True),
    ],
    ids=["counts", "positions", "short", "long", "2-d", "scalar"],
)
def test_ratings__selects_by_nothing_but_a_mask(mask):
    with pytest.raises((TypeError, ValueError, IndexError)):
        mf.Ratings(DENSE).select(mask)


def test_ratings__gives_scipy_a_copy():
    r = mf.Ratings(DENSE)
    matrix = r.to_scipy()
    assert isinstance(matrix, sparse.csr_array)
    np.testing.assert_array_equal(matrix.toarray(), DENSE)
    matrix.data[:] = 7
    matrix.indices[:] = 0
    matrix.indptr[:] = 0
    np.testing.assert_array_equal(r.to_scipy().toarray(), DENSE)


def test_ratings__round_trips_explicit_zeros():
    r = mf.Ratings(([0, 1], [1, 0], [0.0, 5.0]))
    assert r.nnz == 2
    assert cells(mf.Ratings(r.to_scipy())) == {(0, 1): 0, (1, 0): 5}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, "float32", "f8", float])
def test_ratings__casts_to_the_dtype_asked_for(dtype):
    for R in (DENSE, sparse.coo_array(DENSE), ([0], [1], [2]), mf.Ratings(DENSE)):
        r = mf.Ratings(R, dtype=dtype)
        assert r.dtype == np.dtype(dtype)
        assert_canonical(r)


@pytest.mark.parametrize("dtype", [np.float16, int, bool, complex, "f2", "nonsense", np.longdouble])
def test_ratings__refuses_other_dtypes(dtype):
    with pytest.raises((TypeError, ValueError), match="float32"):
        mf.Ratings(DENSE, dtype=dtype)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int32, np.int64]
)
def test_ratings__keeps_values_exactly(dtype):
    value = np.finfo(dtype).max if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 2**53)
    R = np.array([[0, value]], dtype)
    assert mf.Ratings(R).values.tolist() == [value]


@pytest.mark.parametrize("R", [np.array([[1, 1e300]]), ([0, 0], [0, 1], [1, 1e300])])
def test_ratings__refuses_values_beyond_the_dtype(R):
    with pytest.raises(ValueError, match=r"\[(0, )?1\].*1e\+300"):
        mf.Ratings(R, dtype=np.float32)
    with pytest.raises(ValueError, match=r"1e\+300"):
        mf.Ratings(mf.Ratings(R), dtype=np.float32)


def test_ratings__keeps_ids():
    users, items = ["ann", "bob", "cy"], [10, 20, 30, 40]
    r = mf.Ratings(DENSE, user_ids=users, item_ids=items)
    for same in (r, mf.Ratings(r), mf.Ratings(r, dtype=np.float32), r.select(r.values > 2)):
        assert same.user_ids.tolist() == users
        assert same.item_ids.tolist() == items
    assert r.T.user_ids.tolist() == items
    assert r.T.item_ids.tolist() == users
    assert mf.Ratings(r, user_ids=["x", "y", "z"]).user_ids.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize(("name", "size"), [("user_ids", 3), ("item_ids", 4)])
@pytest.mark.parametrize("wrong", [-1, 1])
def test_ratings__refuses_ids_of_another_length(name, size, wrong):
    with pytest.raises(ValueError, match=rf"{name}.*{size}.*{size + wrong}"):
        mf.Ratings(DENSE, **{name: np.arange(size + wrong)})


def test_ratings__keeps_ids_apart_from_the_list_they_came_in():
    users = np.array([7, 8, 9])
    r = mf.Ratings(DENSE, user_ids=users)
    assert not r.user_ids.flags.writeable
    assert users.flags.writeable


@pytest.mark.parametrize("R", [np.zeros((2, 3)), np.zeros((0, 3)), ([], [], []), ([], [], [], (4, 5))])
def test_ratings__may_be_empty(R):
    r = mf.Ratings(R)
    assert (r.nnz, r.mean, r.std) == (0, 0, 0)
    assert r.user_counts().tolist() == [0] * r.n_users
    assert r.item_counts().tolist() == [0] * r.n_items
    assert_canonical(r)
    assert_canonical(r.T)


def test_ratings__says_its_size(ratings):
    assert "300" in repr(ratings)
    assert "200" in repr(ratings)
    assert "6,000" in repr(ratings)


def test_ratings__survives_pickle(ratings):
    copy = pickle.loads(pickle.dumps(ratings))
    assert cells(copy) == cells(ratings)
    assert_canonical(copy)


@pytest.mark.parametrize(("n_items", "dtype"), [(2**31 - 1, np.int32), (2**31 + 5, np.int64)])
def test_ratings__widens_indices_as_needed(n_items, dtype, monkeypatch):
    monkeypatch.setattr("mfkernel.data.convert.available_memory", lambda: None)
    R = sparse.csr_array((np.array([2.0]), np.array([n_items - 1]), np.array([0, 1])), shape=(1, n_items))
    r = mf.Ratings(R)
    assert r.indices.dtype == dtype
    assert r.indices.tolist() == [n_items - 1]


def test_ratings__takes_int64_indices_and_narrows_them():
    users, items = np.array([1, 0], np.int64), np.array([2, 1], np.uint64)
    assert mf.Ratings((users, items, [1.0, 2.0])).indices.dtype == np.int32


@pytest.mark.parametrize(
    ("R", "message"),
    [
        (([0, 1, 2, 12], [0, 0, 0, 0], [1.0] * 4, (10, 1)), r"users\[3\] = 12.*10"),
        (([0, 0, 0], [0, 4, 5], [1.0] * 3, (1, 4)), r"items\[1\] = 4.*4"),
        (([0, -1, -2], [0, 0, 0], [1.0] * 3), r"users\[1\] = -1"),
        (([0, 1], [0, -7], [1.0] * 2, (2, 2)), r"items\[1\] = -7"),
        (([0, 1], [0], [1.0, 2.0]), r"\(2,\).*\(1,\)"),
        (([[0]], [[0]], [[1.0]]), "1-D"),
        (([0.0], [0], [1.0]), "users.*float64"),
        (([True], [0], [1.0]), "users.*bool"),
        (([0], [0], ["five"]), "values"),
        (([0], [0]), r"users, items, values"),
        (([0], [0], [1.0], (1, 1), 5), r"users, items, values"),
        (([0], [0], [1.0], (1, 1, 1)), "shape"),
        (([0], [0], [1.0], 3), "shape"),
        (([0], [0], [1.0], (1.0, 1)), "n_users.*1.0"),
        (([0], [0], [1.0], (1, -1)), "n_items.*-1"),
    ],
)
def test_ratings__refuses_wrong_triplets(R, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mf.Ratings(R)


@pytest.mark.parametrize(
    "R", [None, 5, "text", [1.0, 2.0], np.ones((2, 2, 2)), {}, sparse.coo_array([1.0, 2.0])]
)
def test_ratings__refuses_what_is_no_matrix(R):
    with pytest.raises((TypeError, ValueError), match=r"2-D|2 dimensions|dtype"):
        mf.Ratings(R)


def test_ratings__are_their_own_unless_asked():
    R = sparse.csr_array(np.array([[5.0, 0, 3], [0, 4, 0]]))
    own, shared = mf.Ratings(R), mf.Ratings(R, copy=False)
    R.data[:] = 1
    assert own.values.tolist() == [5, 3, 4]
    assert shared.values.tolist() == [1, 1, 1]


@given(st.sets(st.integers(0, 34)))
def test_ratings__transpose_is_that_of_scipy(chosen):
    users, items = np.divmod(np.array(sorted(chosen), int), 5)
    R = mf.Ratings((users, items, np.arange(1.0, users.size + 1), (7, 5)))
    other = R.to_scipy().T.tocsr()
    other.sort_indices()
    for name, array in (("indptr", other.indptr), ("indices", other.indices), ("values", other.data)):
        np.testing.assert_array_equal(getattr(R.T, name), array)
    np.testing.assert_array_equal(R.T.T.indices, R.indices)


@pytest.mark.parametrize(("values", "largest"), [([3, -5, 2], 5), ([3, 2], 3), ([-1.5], 1.5), ([], 0)])
def test_largest__is_that_of_the_absolute_ratings(values, largest):
    numbers = np.arange(len(values))
    assert mf.Ratings((numbers, numbers, values)).largest == largest
