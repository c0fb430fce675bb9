"""Each kernel against the function of the same name in the reference; also run with the JIT off."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import reference
from mfkernel.factors import aligned_rows
from mfkernel.kernels.csr import band_bounds, counting_argsort
from mfkernel.kernels.sgd import Rows, sgd_span
from tests.forms import reference_epoch

pytestmark = pytest.mark.kernel

TOLERANCE = {np.float32: {"rtol": 2e-4, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-13}}
NO_LIMIT = 2**62


def factors(n_users, n_items, k, dtype, seed=0):
    rng = np.random.default_rng(seed)
    P, Q = (aligned_rows(n, k, np.dtype(dtype)) for n in (n_users, n_items))
    P[:, :k], Q[:, :k] = rng.normal(0.3, 0.2, (n_users, k)), rng.normal(0.3, 0.2, (n_items, k))
    return P, Q


def small(dtype, seed=0):
    return mf.Ratings(mf.datasets.synthetic(20, 12, 90, rng=seed), dtype=dtype)


def run(ratings, order, P, Q, lr, reg, budget=NO_LIMIT):
    """Run the kernel over whole rows; return the loss and how many calls it took."""
    kind = P.dtype.type
    rows = Rows(ratings.indptr[:-1], ratings.indptr[1:], ratings.indices, ratings.values)
    cursor, loss, calls = np.zeros(2, np.int64), 0.0, 0
    while cursor[0] < order.size:
        loss += sgd_span(order, cursor, budget, rows, P, Q, kind(lr), kind(reg))
        calls += 1
        assert calls <= ratings.nnz + order.size + 1
    return loss, calls


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 33])
def test_sgd_span__matches_reference(k, dtype):
    ratings = small(dtype)
    order = np.random.default_rng(1).permutation(ratings.n_users)
    P, Q = factors(*ratings.shape, k, dtype)
    P_ref, Q_ref = P[:, :k].astype(np.float64), Q[:, :k].astype(np.float64)
    for _ in range(3):
        loss, _ = run(ratings, order, P, Q, 0.05, 0.1)
        ref_loss = reference_epoch(ratings, order, P_ref, Q_ref, 0.05, 0.1)
        np.testing.assert_allclose(loss, ref_loss, **TOLERANCE[dtype])
    np.testing.assert_allclose(P[:, :k], P_ref, **TOLERANCE[dtype])
    np.testing.assert_allclose(Q[:, :k], Q_ref, **TOLERANCE[dtype])


@pytest.mark.parametrize("k", [1, 3, 12])
def test_sgd_span__leaves_the_padding_zero(k):
    ratings = small(np.float32)
    P, Q = factors(*ratings.shape, k, np.float32)
    run(ratings, np.arange(ratings.n_users), P, Q, 0.05, 0.1)
    assert not P[:, k:].any()
    assert not Q[:, k:].any()


@given(budget=st.integers(1, 100), seed=st.integers(0, 5))
def test_sgd_span__gives_the_same_bits_however_it_is_interrupted(budget, seed):
    ratings = small(np.float32, seed)
    order = np.random.default_rng(seed).permutation(ratings.n_users)
    whole, pieces = (factors(*ratings.shape, 3, np.float32) for _ in range(2))
    _, one = run(ratings, order, *whole, 0.05, 0.1)
    _, calls = run(ratings, order, *pieces, 0.05, 0.1, budget)
    assert one == 1
    assert calls >= ratings.nnz // budget
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])


def test_sgd_span__visits_only_the_given_part_of_each_row():
    ratings = small(np.float64)
    P, Q = factors(*ratings.shape, 4, np.float64)
    P_ref, Q_ref = P.copy(), Q.copy()
    starts, stops = ratings.indptr[:-1] + 1, ratings.indptr[1:] - 1
    stops = np.maximum(starts, stops)
    order = np.array([3, 0, 7])
    rows = Rows(starts, stops, ratings.indices, ratings.values)
    sgd_span(order, np.zeros(2, np.int64), NO_LIMIT, rows, P, Q, 0.05, 0.1)
    reference.sgd_span(order, starts, stops, ratings.indices, ratings.values, P_ref, Q_ref, 0.05, 0.1)
    np.testing.assert_allclose(P, P_ref, **TOLERANCE[np.float64])
    np.testing.assert_allclose(Q, Q_ref, **TOLERANCE[np.float64])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sgd_span__does_not_hide_nan(bad):
    ratings = small(np.float32)
    P, Q = factors(*ratings.shape, 8, np.float32)
    P[ratings.users[0], 3] = bad
    with np.errstate(all="ignore"):
        loss, _ = run(ratings, np.arange(ratings.n_users), P, Q, 0.05, 0.1)
    assert not np.isfinite(loss)
    assert not np.isfinite(P).all()


def test_sgd_span__reaches_entries_past_2_to_the_31(tmp_path):
    """The last ratings of sparse files of 8 GiB, of which only the touched pages exist."""
    n, first = 2**31 + 100, 2**31 + 10
    try:
        indices = np.memmap(tmp_path / "indices", np.int32, "w+", shape=(n,))
        values = np.memmap(tmp_path / "values", np.float32, "w+", shape=(n,))
    except OSError as error:
        pytest.skip(f"no sparse files of this size here: {error}")
    indices[first : first + 3] = [0, 2, 1]
    values[first : first + 3] = [1, 2, 3]
    rows = Rows(np.array([first]), np.array([first + 3]), indices.view(np.ndarray), values.view(np.ndarray))
    P, Q = factors(1, 3, 8, np.float32)
    P_ref, Q_ref = P.astype(np.float64), Q.astype(np.float64)
    sgd_span(np.array([0]), np.zeros(2, np.int64), NO_LIMIT, rows, P, Q, np.float32(0.05), np.float32(0.1))
    reference.sgd_span(
        [0], np.array([0]), np.array([3]), np.array([0, 2, 1]), np.array([1, 2, 3]), P_ref, Q_ref, 0.05, 0.1
    )
    np.testing.assert_allclose(P, P_ref, **TOLERANCE[np.float32])
    np.testing.assert_allclose(Q, Q_ref, **TOLERANCE[np.float32])


@given(
    keys=st.lists(st.integers(0, 6), max_size=40), n_keys=st.integers(7, 9), seed=st.integers(0, 2**32 - 1)
)
def test_counting_argsort__matches_reference(keys, n_keys, seed):
    keys = np.array(keys, np.int32)
    order = np.random.default_rng(seed).permutation(keys.size)
    offsets, out = np.zeros(n_keys + 1, np.int64), np.empty(keys.size, np.int64)
    counting_argsort(keys, order, offsets, out)
    ref_offsets, ref_out = reference.counting_argsort(keys, order, n_keys)
    np.testing.assert_array_equal(offsets, ref_offsets)
    np.testing.assert_array_equal(out, ref_out)


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 12), max_size=5))
def test_band_bounds__matches_reference(seed, cuts):
    ratings = small(np.float32, seed)
    cuts = np.array([0, *sorted(cuts), 12])
    bounds = np.empty((cuts.size, ratings.n_users), np.int64)
    band_bounds(ratings.indptr, ratings.indices, cuts, bounds)
    np.testing.assert_array_equal(bounds, reference.band_bounds(ratings.indptr, ratings.indices, cuts))
    np.testing.assert_array_equal(bounds[0], ratings.indptr[:-1])
    np.testing.assert_array_equal(bounds[-1], ratings.indptr[1:])


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_kernels__compile_once_for_each_dtype():
    """Whether the user's arrays are read-only, strided or of another type must not reach the kernels."""
    R = np.where(np.random.default_rng(0).random((30, 20)) < 0.3, 3.0, 0.0)
    frozen = R.astype(np.float32)
    frozen.flags.writeable = False
    for given_R in (R, frozen, R[::2, ::2], R.astype(">f8"), np.asfortranarray(R), R.astype(np.int8)):
        for schedule in ("sequential", "hogwild"):
            mf.factorize(given_R, 3, schedule=schedule, n_threads=1, epochs=1)
    before = set(map(str, sgd_span.nopython_signatures))
    mf.factorize(frozen.copy(), 3, epochs=1)
    mf.factorize(frozen, 3, epochs=1, schedule="hogwild", n_threads=2)
    after = {s for s in map(str, sgd_span.nopython_signatures) if "readonly array(int64" in s}
    assert {s for s in after if s in before} == after
    assert len([s for s in after if "array(float32" in s]) == 1
