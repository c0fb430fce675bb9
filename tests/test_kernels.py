"""Each kernel against the function of the same name in the reference; also run with the JIT off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import reference
from mfkernel.data import grouping
from mfkernel.engines.threads import ThreadEngine
from mfkernel.kernels.csr import band_bounds, count, is_canonical, is_sorted, scatter, scatter_rows
from mfkernel.kernels.sgd import Adaptive, FactorRows, Rates, Rows, Tiles, sgd_span, sgd_tiles
from mfkernel.kernels.tiling import count_tiles, fill_tiles, random_below
from mfkernel.kernels.vectors import rank_token
from mfkernel.linalg.rows import aligned_rows
from tests.helpers import COMPILED, NO_LIMIT, quick, reference_epoch

pytestmark = pytest.mark.kernel

TOLERANCE = {np.float32: {"rtol": 2e-4, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-13}}


def factors(n_users, n_items, k, dtype, seed=0):
    rng = np.random.default_rng(seed)
    P, Q = (aligned_rows(n, k, np.dtype(dtype)) for n in (n_users, n_items))
    P[:, :k], Q[:, :k] = rng.normal(0.3, 0.2, (n_users, k)), rng.normal(0.3, 0.2, (n_items, k))
    return P, Q


def small(dtype, seed=0):
    return mf.Ratings(mf.datasets.synthetic(20, 12, 90, rng=seed), dtype=dtype)


def update_of(P, Q, lr, reg, vectors=()):
    number = P.dtype.type
    return FactorRows(P, Q, vectors), Rates(number(lr), number(reg), number(reg))


def run(ratings, order, P, Q, lr, reg, budget=NO_LIMIT, adaptive=None):
    """Run the kernel over whole rows; return the loss and how many calls it took."""
    rows = Rows(ratings.indptr[:-1], ratings.indptr[1:], ratings.indices, ratings.values)
    cursor, loss, calls = np.zeros(2, np.int64), 0.0, 0
    while cursor[0] < order.size:
        loss += sgd_span(order, cursor, budget, rows, *update_of(P, Q, lr, reg), adaptive)
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
    sgd_span(order, np.zeros(2, np.int64), NO_LIMIT, rows, *update_of(P, Q, 0.05, 0.1), None)
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
    sgd_span(np.array([0]), np.zeros(2, np.int64), NO_LIMIT, rows, *update_of(P, Q, 0.05, 0.1), None)
    reference.sgd_span(
        [0], np.array([0]), np.array([3]), np.array([0, 2, 1]), np.array([1, 2, 3]), P_ref, Q_ref, 0.05, 0.1
    )
    np.testing.assert_allclose(P, P_ref, **TOLERANCE[np.float32])
    np.testing.assert_allclose(Q, Q_ref, **TOLERANCE[np.float32])


def some_tiles(dtype, n_users, n_items, seed=0):
    """Return tiles of 0 to 200 ratings, of which two may share rows, and the ratings in one list."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, 200, 63, 64, 65, 0]
    nnz = sum(sizes)
    first_users, first_items = rng.integers(n_users - 5, size=7), rng.integers(n_items - 5, size=7)
    users, items = rng.integers(5, size=(2, nnz)).astype(np.uint16)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Tiles(starts, first_users, first_items, users, items, rng.normal(3, 1, nnz).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unrolled", [True, False])
@pytest.mark.parametrize("k", quick([1, 8, 9, 16, 24, 33, 64, 128, 190, 200], 9, 200))
def test_sgd_tiles__matches_reference(k, unrolled, dtype):
    tiles = some_tiles(dtype, 20, 12)
    P, Q = factors(20, 12, k, dtype)
    P_ref, Q_ref = P[:, :k].astype(np.float64), Q[:, :k].astype(np.float64)
    vectors = rank_token(P.shape[1]) if unrolled else ()
    assert bool(vectors) == (unrolled and k <= 192)
    cursor = np.zeros(1, np.int64)
    loss = sgd_tiles(cursor, 7, NO_LIMIT, tiles, *update_of(P, Q, 0.02, 0.1, vectors), None)
    ref_loss = reference.sgd_tiles(tiles, P_ref, Q_ref, 0.02, 0.1)
    assert cursor[0] == 7
    np.testing.assert_allclose(loss, ref_loss, **TOLERANCE[dtype])
    np.testing.assert_allclose(P[:, :k], P_ref, **TOLERANCE[dtype])
    np.testing.assert_allclose(Q[:, :k], Q_ref, **TOLERANCE[dtype])
    assert not P[:, k:].any()
    assert not Q[:, k:].any()


@given(budget=st.integers(1, 300))
def test_sgd_tiles__gives_the_same_bits_however_it_is_interrupted(budget):
    tiles = some_tiles(np.float32, 20, 12)
    whole, pieces = (factors(20, 12, 9, np.float32) for _ in range(2))
    sgd_tiles(np.zeros(1, np.int64), 7, NO_LIMIT, tiles, *update_of(*whole, 0.05, 0.1), None)
    cursor, calls = np.zeros(1, np.int64), 0
    while cursor[0] < 7:
        sgd_tiles(cursor, 7, budget, tiles, *update_of(*pieces, 0.05, 0.1), None)
        calls += 1
    assert calls >= min(4, 393 // (200 + budget))
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", quick([1, 8, 30, 70, 200], 30))
def test_adaptive_steps__match_the_gradients_of_the_reference(k, dtype):
    """The kernel has the norms of all gradients from ‖p‖², ‖q‖² and p·q; the reference computes gradients."""
    tiles = some_tiles(dtype, 20, 12)
    P, Q = factors(20, 12, k, dtype)
    P_ref, Q_ref = P[:, :k].astype(np.float64), Q[:, :k].astype(np.float64)
    states = [np.stack([np.square(X).sum(axis=1), np.ones(len(X))], axis=1).astype(dtype) for X in (P, Q)]
    adaptive = Adaptive(*states, dtype(1 / k))
    update = update_of(P, Q, 0.05, 0.1, rank_token(P.shape[1]))
    sgd_tiles(np.zeros(1, np.int64), 7, NO_LIMIT, tiles, *update, adaptive)
    sums = np.ones(20), np.ones(12)
    for t in range(7):
        for n in range(tiles.starts[t], tiles.starts[t + 1]):
            u, i = int(tiles.first_users[t] + tiles.users[n]), int(tiles.first_items[t] + tiles.items[n])
            G = np.array([sums[0][u], sums[1][i]])
            reference.adaptive_update(tiles.values[n], P_ref[u], Q_ref[i], G, 0.05, 0.1, 1 / k)
            sums[0][u], sums[1][i] = G
    tolerance = TOLERANCE[dtype] if dtype == np.float64 else {"rtol": 2e-3, "atol": 2e-4}
    for X, X_ref, state, G in ((P, P_ref, states[0], sums[0]), (Q, Q_ref, states[1], sums[1])):
        np.testing.assert_allclose(X[:, :k], X_ref, **tolerance)
        np.testing.assert_allclose(state[:, 0], np.square(X_ref).sum(axis=1), **tolerance)
        np.testing.assert_allclose(state[:, 1], G, **tolerance)
        assert (G > 1).any()


def test_sgd_span__takes_adaptive_steps_too():
    ratings = small(np.float64)
    order = np.arange(ratings.n_users)
    P, Q = factors(*ratings.shape, 5, np.float64)
    P_ref, Q_ref = P[:, :5].copy(), Q[:, :5].copy()
    states = [np.stack([np.square(X).sum(axis=1), np.ones(len(X))], axis=1) for X in (P, Q)]
    run(ratings, order, P, Q, 0.05, 0.1, adaptive=Adaptive(*states, 0.2))
    sums = np.ones(ratings.n_users), np.ones(ratings.n_items)
    for u, i, r in zip(ratings.users, ratings.items, ratings.values, strict=True):
        G = np.array([sums[0][u], sums[1][i]])
        reference.adaptive_update(r, P_ref[u], Q_ref[i], G, 0.05, 0.1, 0.2)
        sums[0][u], sums[1][i] = G
    np.testing.assert_allclose(P[:, :5], P_ref, **TOLERANCE[np.float64])
    np.testing.assert_allclose(Q[:, :5], Q_ref, **TOLERANCE[np.float64])


@given(bound=st.integers(1, 2**32), seed=st.integers(0, 2**63 - 1), counter=st.integers(0, 2**40))
def test_random_below__matches_reference(bound, seed, counter):
    with np.errstate(over="ignore"):
        assert random_below(bound, seed, counter) == reference.random_below(bound, seed, counter) < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    cells=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=40),
    n_rows=st.integers(7, 9),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_grouped_and_transposed__match_reference(dtype, cells, n_rows, n_threads, seed):
    rows, columns = np.array(cells, np.int32).reshape(-1, 2).T.copy()
    values = np.random.default_rng(seed).normal(size=rows.size).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "ENTRIES_PER_PART", 1)
        patch.setattr(grouping, "default_engine", lambda _: ThreadEngine(n_threads))
        out = grouping.grouped(rows, columns, values, n_rows)
        back = grouping.transposed(*out, 5, np.int32)
    for array, expected in zip(out, reference.group(rows, columns, values, n_rows), strict=True):
        np.testing.assert_array_equal(array, expected)
    for array, expected in zip(back, reference.transpose(*out, 5), strict=True):
        np.testing.assert_array_equal(array, expected)
    counts = np.zeros(n_rows, np.int64)
    count(rows, counts)
    np.testing.assert_array_equal(counts, np.diff(out[0]))
    assert is_sorted(rows) == (np.diff(rows) >= 0).all()
    in_rows = [columns[out[0][u] : out[0][u + 1]] for u in range(n_rows) for columns in [out[1]]]
    assert is_canonical(*out[:2]) == all((np.diff(x) > 0).all() for x in in_rows)


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 12), max_size=5))
def test_band_bounds__matches_reference(seed, cuts):
    ratings = small(np.float32, seed)
    cuts = np.array([0, *sorted(cuts), 12])
    bounds = np.empty((cuts.size, ratings.n_users), np.int64)
    band_bounds(ratings.indptr, ratings.indices, cuts, bounds)
    np.testing.assert_array_equal(bounds, reference.band_bounds(ratings.indptr, ratings.indices, cuts))
    np.testing.assert_array_equal(bounds[0], ratings.indptr[:-1])
    np.testing.assert_array_equal(bounds[-1], ratings.indptr[1:])


@COMPILED
def test_kernels__compile_once_for_each_dtype():
    """Whether the user's arrays are read-only, strided or of another type must not reach the kernels."""
    R = np.where(np.random.default_rng(0).random((30, 20)) < 0.3, 3.0, 0.0)
    frozen = R.astype(np.float32)
    frozen.flags.writeable = False
    for given_R in (R, frozen, R[::2, ::2], R.astype(">f8"), np.asfortranarray(R), R.astype(np.int8)):
        for schedule in ("sequential", "hogwild", "blocks"):
            mf.factorize(given_R, 3, schedule=schedule, n_threads=1, epochs=1)
    triplets, transposed = ([0, 2], [1, 0], [3.0, 4.0]), mf.Ratings(frozen).T
    mf.factorize(triplets, 3, epochs=1)
    kernels = sgd_span, sgd_tiles, count_tiles, fill_tiles, scatter_rows, scatter
    before = {kernel: len(kernel.nopython_signatures) for kernel in kernels}
    for other_R in (frozen.copy(), [[5, 3, 0], [4, 0, 1]], triplets, transposed, mf.Ratings(frozen).T):
        mf.factorize(other_R, 3, epochs=1, schedule="sequential")
        mf.factorize(other_R, 3, epochs=1, schedule="hogwild", n_threads=2)
        mf.factorize(other_R, 3, epochs=1, n_threads=2)
    mf.factorize(frozen, 8, epochs=1)
    assert {kernel: len(kernel.nopython_signatures) for kernel in kernels} == before
