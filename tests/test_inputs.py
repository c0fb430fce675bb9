"""Forms of R that ``factorize`` accepts and refuses."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from tests.helpers import DENSE, arrays_of, assert_same, fit, quick, snapshot
from tests.samples import cells, drawn_triplets

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
KINDS = [f"{name}_{kind}" for name, kind in product(FORMATS, ("array", "matrix"))]
SMALL = drawn_triplets(min_size=1, rating=st.floats(-10, 10, width=16, allow_subnormal=False))
COMPRESSED = ["csr_array", "csr_matrix", "csc_array", "csc_matrix"]


def as_sparse(kind, triplets):
    """Store triplets in a scipy format, explicit zeros too where the format can."""
    users, items, values, shape = triplets
    name, family = kind.split("_")
    R = getattr(sparse, f"coo_{family}")((values, (users, items)), shape=shape)
    return R.tobsr(blocksize=(1, 1)) if name == "bsr" else R.asformat(name)


# dense arrays


@pytest.mark.parametrize(
    "R",
    [
        DENSE.tolist(),
        np.asfortranarray(DENSE),
        np.repeat(np.repeat(DENSE, 2, axis=0), 3, axis=1)[::2, ::3],
        DENSE[::-1][::-1],
        DENSE.astype(">f8"),
        DENSE.astype(">f4"),
        DENSE.astype(">i2"),
        DENSE.astype(np.float16),
        DENSE.astype(np.float32),
        DENSE.astype(np.longdouble),
        DENSE.astype(np.int8),
        DENSE.astype(np.uint64),
        np.where(DENSE == 0, np.nan, DENSE),
        np.ma.masked_equal(DENSE, 0),
        np.ma.masked_equal(np.where(DENSE == 0, 9, DENSE), 9),
    ],
    ids=lambda R: f"{type(R).__name__}-{np.asarray(R).dtype.str}",
)
def test_dense__is_taken_in_any_layout_and_number_type(R):
    assert_same(fit(R), fit(DENSE))
    assert_same(fit(R, dtype=np.float64), fit(DENSE, dtype=np.float64))


def test_dense__may_be_read_only(tmp_path):
    R = DENSE.copy()
    R.flags.writeable = False
    assert_same(fit(R), fit(DENSE))
    np.save(tmp_path / "R.npy", DENSE)
    assert_same(fit(np.load(tmp_path / "R.npy", mmap_mode="r")), fit(DENSE))


def test_dense__zero_is_a_rating_if_only_nan_is_missing():
    R = np.array([[0.0, np.nan, -0.0], [2.0, 3.0, np.nan]])
    assert cells(mf.Ratings(R)) == {(1, 0): 2, (1, 1): 3}
    assert cells(mf.Ratings(R, missing="nan")) == {(0, 0): 0, (0, 2): 0, (1, 0): 2, (1, 1): 3}
    assert_same(fit(R, missing="nan"), fit(([0, 0, 1, 1], [0, 2, 0, 1], [0.0, 0, 2, 3])))
    masked = np.ma.array(R, mask=[[1, 0, 0], [0, 1, 0]])
    assert cells(mf.Ratings(masked, missing="nan")) == {(0, 2): 0, (1, 0): 2}


@pytest.mark.parametrize("missing", ["zero", "nan"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_dense__refuses_infinity_with_its_first_place(value, missing):
    R = DENSE.copy()
    R[1, 2] = R[2, 0] = value
    with pytest.raises(ValueError, match=rf"\[1, ?2\].*{value}"):
        fit(R, missing=missing)


@pytest.mark.parametrize(
    "R",
    [
        DENSE > 0,
        DENSE.astype(object),
        DENSE.astype(complex),
        DENSE.astype(str),
        DENSE.astype("S3"),
        [[1, None]],
    ],
    ids=["bool", "object", "complex", "str", "bytes", "none"],
)
def test_dense__refuses_what_are_no_real_numbers(R):
    with pytest.raises(TypeError, match=re.escape(str(np.asarray(R).dtype))):
        fit(R)


@pytest.mark.parametrize("R", [[[1, 2], [3]], [1.0, 2.0], 5.0, None, "R", np.ones((2, 2, 2)), object()])
def test_dense__refuses_what_is_no_matrix(R):
    with pytest.raises((TypeError, ValueError)):
        fit(R)


# sparse matrices


@pytest.mark.parametrize("kind", KINDS)
def test_sparse__any_format_gives_the_same_factors(kind):
    users, items = np.nonzero(DENSE)
    R = as_sparse(kind, (users, items, DENSE[users, items], DENSE.shape))
    assert type(R) is getattr(sparse, kind)
    assert_same(fit(R), fit(DENSE))
    assert_same(fit(R.astype(np.float32)), fit(DENSE))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("dia")])
def test_sparse__explicit_zeros_are_ratings(kind):
    R = [0, 1, 1, 2], [1, 0, 2, 0], [0.0, 5.0, 0.0, 1.0], (3, 3)
    assert cells(mf.Ratings(as_sparse(kind, R))) == {(0, 1): 0, (1, 0): 5, (1, 2): 0, (2, 0): 1}
    assert_same(fit(as_sparse(kind, R)), fit(R))


@pytest.mark.parametrize("family", ["array", "matrix"])
def test_sparse__zeros_that_only_fill_up_are_unknown(family):
    R = np.kron(np.eye(2), [[1.0, 2], [0, 4]])
    expected = {(0, 0): 1, (0, 1): 2, (1, 1): 4, (2, 2): 1, (2, 3): 2, (3, 3): 4}
    for blocksize in [(2, 2), (1, 2), (4, 1), (4, 4)]:
        assert cells(mf.Ratings(getattr(sparse, f"bsr_{family}")(R, blocksize=blocksize))) == expected
    assert cells(mf.Ratings(getattr(sparse, f"dia_{family}")(R))) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_sparse__refuses_what_is_not_finite_with_its_place(kind, value):
    R = as_sparse(kind, ([0, 1, 2], [0, 2, 1], [1.0, value, 2.0], (3, 3)))
    with pytest.raises(ValueError, match=rf"\[1, ?2\].*{value}"):
        fit(R)


@pytest.mark.parametrize("dtype", [bool, complex])
def test_sparse__refuses_what_are_no_real_numbers(dtype):
    with pytest.raises(TypeError, match=r"bool|complex"):
        fit(sparse.csr_array(DENSE).astype(dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.longdouble, ">f8"])
@pytest.mark.parametrize("kind", ["csr_array", "csc_array", "coo_array"])
def test_sparse__takes_any_real_values(kind, dtype):
    R = getattr(sparse, kind)(DENSE)
    R.data = R.data.astype(dtype)
    assert_same(fit(R), fit(DENSE))


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.int16, ">i4"])
def test_sparse__takes_unsorted_rows_with_any_index_type(kind, dtype):
    R = getattr(sparse, kind)(DENSE)
    R.indices, R.indptr = R.indices.astype(dtype), R.indptr.astype(dtype)
    for start, stop in zip(R.indptr[:-1], R.indptr[1:], strict=True):
        R.indices[start:stop] = R.indices[start:stop][::-1].copy()
        R.data[start:stop] = R.data[start:stop][::-1].copy()
    assert (np.diff(mf.Ratings(R).indices[:2]) > 0).all()
    assert_same(fit(R), fit(DENSE))


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("indices", [0, 1, 3, 2], r"\[2\].*3.*3"),
        ("indices", [0, 1, 1, -1], r"\[3\].*-1"),
        ("indices", [0.0, 1.0, 1.0, 2.0], "integers"),
        ("indices", [0, 1, 1], "indptr"),
        ("data", [1.0, 2.0, 3.0], "indptr"),
        ("indptr", [0, 3, 1, 4], r"indptr\[2\].*1"),
        ("indptr", np.array([0, 3, 1, 4], np.uint32), r"indptr\[2\].*1"),
        ("indptr", [0, -2, 3, 4], r"indptr\[1\].*-2"),
        ("indptr", np.array([0, 2**31 - 1, -1, 4], np.int32), "indptr"),
        ("indptr", [1, 2, 3, 4], "indptr"),
        ("indptr", [0, 2, 3, 4, 4], "indptr"),
        ("indptr", [0, 2, 4], "indptr"),
        ("indptr", [0, 2, 3, 9], "indptr.*9"),
        ("indptr", [], "indptr"),
        ("indptr", [0.0, 2.0, 3.0, 4.0], "indptr"),
    ],
)
def test_sparse__refuses_arrays_that_point_astray(kind, name, array, message):
    R = getattr(sparse, kind)((np.arange(1.0, 5), [0, 1, 1, 2], [0, 2, 3, 4]), shape=(3, 3))
    setattr(R, name, np.asarray(array))
    with pytest.raises((TypeError, ValueError), match=message):
        fit(R)


def test_sparse__refuses_offsets_that_wrap_around():
    R = sparse.csr_array((np.ones(4), np.arange(4), np.arange(5)), shape=(4, 4))
    R.indptr = np.array([0, 2**31 - 1, -(2**31), -1, 4], np.int32)
    with pytest.raises(ValueError, match="indptr"):
        mf.Ratings(R)


@pytest.mark.parametrize("kind", [*COMPRESSED, "coo_array"])
def test_sparse__may_be_read_only(kind):
    R = getattr(sparse, kind)(DENSE)
    for array in arrays_of(R):
        array.flags.writeable = False
    assert_same(fit(R), fit(DENSE))
    if kind == "coo_array":
        assert_same(fit((R.row, R.col, R.data)), fit(DENSE))


INDICES = st.lists(st.integers(-2, 7), min_size=6, max_size=6)
RISING = st.lists(st.integers(0, 6), min_size=4, max_size=4).map(lambda x: [0, *sorted(x), 6])
INDEX_TYPES = st.sampled_from([np.int8, np.int32, np.int64])


@given(st.sampled_from([*COMPRESSED, "bsr_array"]), INDICES, INDICES | RISING, INDEX_TYPES)
def test_sparse__malformed_index_arrays_never_get_through(kind, indices, indptr, dtype):
    ones = np.ones((6, 1, 1) if kind == "bsr_array" else 6)
    R = getattr(sparse, kind)((ones, np.zeros(6, int), np.arange(6)), shape=(5, 5))
    R.data, R.indices, R.indptr = ones, np.array(indices, dtype), np.array(indptr, dtype)
    if indptr == [0, *sorted(indptr[1:-1]), 6] and all(0 <= i < 5 for i in indices):
        distinct = {(u, i) for u in range(5) for i in indices[indptr[u] : indptr[u + 1]]}
        assert mf.Ratings(R, duplicates="last").nnz == len(distinct)
    elif indptr != sorted(indptr) or indptr[0] or indptr[-1] > 6 or indptr[-1] == 6:
        with pytest.raises((TypeError, ValueError)):
            mf.Ratings(R, duplicates="last")


@pytest.mark.parametrize("kind", COMPRESSED)
def test_sparse__spare_room_behind_the_last_entry_is_unread(kind):
    R = getattr(sparse, kind)(DENSE)
    R.indices, R.data = np.append(R.indices, [98, 99]), np.append(R.data, [np.nan, 8.0])
    assert_same(fit(R), fit(DENSE))


@given(INDICES, INDICES, st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_triplets__out_of_range_indices_never_get_through(users, items, m, n, in_coo):
    values = np.ones(6)
    R = users, items, values, (m, n)
    if in_coo:
        R = sparse.coo_array((values, (np.zeros(6, int), np.zeros(6, int))), shape=(m + 9, n + 9))
        R.coords, R._shape = (np.array(users), np.array(items)), (m, n)
    if all(0 <= u < m for u in users) and all(0 <= i < n for i in items):
        assert mf.Ratings(R, duplicates="sum").values.sum() == 6
    else:
        with pytest.raises((TypeError, ValueError)):
            mf.Ratings(R, duplicates="sum")


# triplets and Ratings


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, ">i8"])
def test_triplets__take_any_integers(dtype):
    users, items = (x.astype(dtype) for x in np.nonzero(DENSE))
    values = DENSE[DENSE != 0]
    assert_same(fit((users, items, values)), fit(DENSE))
    assert_same(fit((users[::-1], items[::-1], values[::-1], DENSE.shape)), fit(DENSE))
    assert_same(fit((users.tolist(), items.tolist(), values.tolist())), fit(DENSE))


def test_triplets__reach_as_far_as_their_shape():
    assert fit(([0, 2], [1, 0], [3.0, 4.0])).shape == (3, 2)
    assert fit(([0, 2], [1, 0], [3.0, 4.0], (7, 5))).shape == (7, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_triplets__refuse_what_is_not_finite_with_its_first_place(value):
    values = np.arange(20.0)
    values[[17, 19]] = value
    with pytest.raises(ValueError, match=rf"values\[17\].*{value}"):
        fit((np.arange(20)[::-1], np.arange(20), values))


@pytest.mark.parametrize(("duplicates", "value"), [("sum", 12.0), ("mean", 4.0), ("last", 3.0)])
def test_duplicates__are_refused_or_merged(duplicates, value):
    R = [0, 1, 0, 0], [1, 0, 1, 1], [8.0, 2.0, 1.0, 3.0]
    expected = fit(([0, 1], [1, 0], [value, 2.0]))
    for form in (R, sparse.coo_array((R[2], R[:2])), sparse.coo_matrix((R[2], R[:2]))):
        assert_same(fit(form, duplicates=duplicates), expected)
        with pytest.raises(ValueError, match=r"\b2 duplicate"):
            fit(form)


def test_ratings__are_taken_as_they_are():
    assert_same(fit(mf.Ratings(DENSE)), fit(DENSE))
    assert_same(fit(mf.Ratings(DENSE, dtype=np.float32), dtype=np.float64), fit(DENSE, dtype=np.float64))
    assert_same(fit(mf.Ratings(DENSE).T), fit(DENSE.T))


# what holds for every form


@given(SMALL, st.integers(1, 9), st.sampled_from(["blocks", "sequential", "hogwild"]), st.data())
def test_factorize__gives_finite_factors_and_leaves_every_form_untouched(R, k, schedule, data):
    users, items, values, shape = R
    assume(values.any())
    dense = np.full(shape, np.nan, values.dtype)
    dense[users, items] = values
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    options = {"missing": "nan", "schedule": schedule, "n_threads": 1, "dtype": dtype}
    far = shape[0] - 1 in users and shape[1] - 1 in items
    forms = [dense, np.asfortranarray(dense), R, *(as_sparse(kind, R) for kind in KINDS)]
    for form in [*forms, R[:3]] if far else forms:
        before = snapshot(form)
        model = fit(form, k, **options)
        assert snapshot(form) == before
        assert model.P.shape == (shape[0], k)
        assert model.Q.shape == (k, shape[1])
        assert model.P.dtype == model.Q.dtype == dtype
        assert np.isfinite(model.P).all()
        assert np.isfinite(model.Q).all()


@given(SMALL, st.sampled_from(["csr_array", "csc_matrix", "coo_array"]), st.sampled_from(["sum", "last"]))
def test_factorize__leaves_unsorted_duplicates_untouched(R, kind, duplicates):
    users, items, values, shape = R
    R = as_sparse(kind, (users[::-1], items[::-1], values[::-1], shape))
    if kind != "coo_array":
        R.indices[:] = R.indices[::-1].copy()
        R.has_sorted_indices = R.has_canonical_format = False
    before = snapshot(R)
    fit(R, duplicates=duplicates)
    assert snapshot(R) == before


@pytest.mark.parametrize("schedule", ["blocks", "sequential", "hogwild"])
@pytest.mark.parametrize("k", quick([1, 2, 40], 1))
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_factorize__tiny_shapes(shape, k, schedule):
    R = np.linspace(1, 5, np.prod(shape)).reshape(shape)
    model = fit(R, k, schedule=schedule, n_threads=3 if schedule == "hogwild" else None, epochs=None)
    assert model.P.shape == (shape[0], k)
    assert model.Q.shape == (k, shape[1])
    assert model.rmse(R) < 0.6  # the mean alone: up to 1.7
    np.testing.assert_allclose(model.reconstruct(), model.P @ model.Q)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("offset", [0, -6])
def test_factorize__predicts_unknown_rows_and_columns_by_the_mean(ratings, k, offset):
    keep = (ratings.users % 9 > 0) & (ratings.items % 7 > 0)
    known = ratings.select(keep)
    R = known.users, known.items, known.values + offset, (300, 200)
    mean = R[2].mean()
    model = mf.factorize(R, k, rng=0)
    unknown_users, unknown_items = (
        np.flatnonzero(n == 0) for n in (known.user_counts(), known.item_counts())
    )
    assert unknown_users.size >= 34
    assert unknown_items.size >= 29
    assert model.predict(unknown_users[:, None], np.arange(200)) == pytest.approx(mean, rel=1e-5)
    assert model.predict(np.arange(300)[:, None], unknown_items) == pytest.approx(mean, rel=1e-5)
    P, Q = model
    assert P[unknown_users] @ Q == pytest.approx(mean, abs=2 * known.std)
    assert np.abs(P @ Q[:, unknown_items] - mean).mean() < 0.5 * known.std


@pytest.mark.parametrize(
    "R",
    [
        np.zeros((2, 3)),
        np.full((2, 2), np.nan),
        np.ones((0, 3)),
        np.ones((3, 0)),
        [[]],
        np.ma.masked_all((2, 2)),
        ([], [], []),
        ([], [], [], (4, 5)),
        sparse.coo_array((2, 3)),
        sparse.csr_matrix((0, 0)),
    ],
)
def test_factorize__refuses_no_ratings(R):
    with pytest.raises(ValueError, match="R must have known ratings, got none"):
        fit(R)
