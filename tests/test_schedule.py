"""Laws of the schedules: each rating once, nothing shared that need not be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.schedule import MAX_BANDS, RowSchedule, balanced_cuts


def entries(span):
    return [n for u in span.order for n in range(span.starts[u], span.stops[u])]


@st.composite
def some_ratings(draw):
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    cells = draw(st.sets(st.integers(0, m * n - 1), min_size=1))
    users, items = np.divmod(np.array(sorted(cells)), n)
    return mf.Ratings((users, items, np.ones(users.size), (m, n)))


@given(ratings=some_ratings(), n_tasks=st.integers(1, 20), shuffle=st.booleans(), seed=st.integers(0, 99))
def test_row_schedule__visits_each_rating_once(ratings, n_tasks, shuffle, seed):
    schedule = RowSchedule(ratings, n_tasks, shuffle)
    rng = np.random.default_rng(seed)
    for epoch in (1, 2):
        visited = [
            n for wave in schedule.waves(epoch, rng) for task in wave for span in task for n in entries(span)
        ]
        assert sorted(visited) == list(range(ratings.nnz))


@given(ratings=some_ratings(), n_tasks=st.integers(2, 20), seed=st.integers(0, 99))
def test_row_schedule__tasks_share_no_row_and_are_never_in_one_band_at_the_same_step(ratings, n_tasks, seed):
    (wave,) = RowSchedule(ratings, n_tasks, True).waves(1, np.random.default_rng(seed))
    rows = [set(task[0].order.tolist()) for task in wave]
    assert sum(map(len, rows)) == len(set().union(*rows)) == np.count_nonzero(ratings.user_counts())
    if len(wave[0]) < len(wave):
        assert len(wave[0]) == min(MAX_BANDS, 1 + ratings.nnz // len(set().union(*rows)))
        return
    for at_once in zip(*wave, strict=True):
        items = [set(ratings.indices[entries(span)].tolist()) for span in at_once]
        assert sum(map(len, items)) == len(set().union(*items))


def test_row_schedule__one_task_walks_the_rows_in_csr_order():
    ratings = mf.datasets.synthetic(20, 15, 60)
    (wave,) = RowSchedule(ratings, 1, False).waves(1, np.random.default_rng(0))
    ((span,),) = wave
    assert entries(span) == list(range(60))


def test_row_schedule__shuffles_anew_each_epoch():
    schedule = RowSchedule(mf.datasets.synthetic(50, 15, 300), 1, True)
    rng = np.random.default_rng(0)
    orders = [schedule.waves(epoch, rng)[0][0][0].order for epoch in (1, 2, 3)]
    assert (orders[0] != orders[1]).any()
    assert (orders[1] != orders[2]).any()


def test_row_schedule__balances_by_ratings_not_by_rows():
    counts = np.array([1000, *[1] * 1000])
    users = np.repeat(np.arange(1001), counts)
    items = np.concatenate([np.arange(1000), np.zeros(1000, int)])
    ratings = mf.Ratings((users, items, np.ones(2000)))
    (wave,) = RowSchedule(ratings, 2, False).waves(1, np.random.default_rng(0))
    assert [sum(len(entries(span)) for span in task) for task in wave] == [1000, 1000]


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=40), n_parts=st.integers(1, 50))
def test_balanced_cuts__are_ordered_and_near_the_equal_shares(counts, n_parts):
    counts = np.array(counts)
    cuts = balanced_cuts(counts, n_parts)
    assert cuts[0] == 0
    assert cuts[-1] == counts.size
    assert (np.diff(cuts) >= 0).all()
    before = np.concatenate([[0], np.cumsum(counts)])[cuts]
    shares = counts.sum() * np.arange(n_parts + 1) / n_parts
    assert (np.abs(before - shares) <= counts.max() / 2 + 1e-9).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_balanced_cuts__do_not_overflow_beyond_2_to_the_31_ratings(dtype):
    counts = np.full(6, 2**30, dtype)
    np.testing.assert_array_equal(balanced_cuts(counts, 3), [0, 2, 4, 6])
