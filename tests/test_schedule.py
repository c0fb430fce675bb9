"""Laws of the schedules: each rating once, nothing shared that need not be."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.engines.threads import ThreadEngine
from mfkernel.methods.schedules.blocks import RATINGS_PER_TILE, BlockSchedule
from mfkernel.methods.schedules.rows import MAX_COLUMN_BANDS, RowSchedule, balanced_cuts
from tests.samples import drawn_ratings


def entries(span):
    return [n for u in span.order for n in range(span.starts[u], span.stops[u])]


@given(ratings=drawn_ratings(), n_tasks=st.integers(1, 20), shuffle=st.booleans(), seed=st.integers(0, 99))
def test_row_schedule__visits_each_rating_once(ratings, n_tasks, shuffle, seed):
    schedule = RowSchedule(ratings, n_tasks, shuffle, seed)
    for epoch in (1, 2):
        visited = [n for task in schedule.tasks(epoch) for span in task.work for n in entries(span)]
        assert sorted(visited) == list(range(ratings.nnz))


@given(ratings=drawn_ratings(), n_tasks=st.integers(2, 20), seed=st.integers(0, 99))
def test_row_schedule__tasks_share_no_row_and_are_never_in_one_band_at_the_same_step(ratings, n_tasks, seed):
    tasks = [task.work for task in RowSchedule(ratings, n_tasks, True, seed).tasks(1)]
    rows = [set(spans[0].order.tolist()) for spans in tasks]
    assert sum(map(len, rows)) == len(set().union(*rows)) == np.count_nonzero(ratings.user_counts())
    if len(tasks[0]) < len(tasks):
        assert len(tasks[0]) == min(MAX_COLUMN_BANDS, 1 + ratings.nnz // len(set().union(*rows)))
        return
    for at_once in zip(*tasks, strict=True):
        items = [set(ratings.indices[entries(span)].tolist()) for span in at_once]
        assert sum(map(len, items)) == len(set().union(*items))


def test_row_schedule__one_task_walks_the_rows_in_csr_order():
    ratings = mf.datasets.synthetic(20, 15, 60)
    (task,) = RowSchedule(ratings, 1, False, 0).tasks(1)
    (span,) = task.work
    assert entries(span) == list(range(60))


def test_row_schedule__shuffles_anew_each_epoch_and_knows_each_by_its_number():
    schedule, other = (RowSchedule(mf.datasets.synthetic(50, 15, 300), 1, True, 7) for _ in range(2))
    orders = [schedule.tasks(epoch)[0].work[0].order for epoch in (1, 2, 3)]
    assert (orders[0] != orders[1]).any()
    assert (orders[1] != orders[2]).any()
    np.testing.assert_array_equal(other.tasks(3)[0].work[0].order, orders[2])


def test_row_schedule__balances_by_ratings_not_by_rows():
    counts = np.array([1000, *[1] * 1000])
    users = np.repeat(np.arange(1001), counts)
    items = np.concatenate([np.arange(1000), np.zeros(1000, int)])
    ratings = mf.Ratings((users, items, np.ones(2000)))
    tasks = RowSchedule(ratings, 2, False, 0).tasks(1)
    assert [sum(len(entries(span)) for span in task.work) for task in tasks] == [1000, 1000]


def block_schedule(ratings, monkeypatch, n_bands, *, k=8, coordinates=64, seed=3, n_threads=1):
    """Build a schedule with ``n_bands`` bands, if there are rows and columns enough, and small tiles."""
    monkeypatch.setattr("mfkernel.methods.schedules.blocks.RATINGS_PER_BLOCK", ratings.nnz / n_bands**2)
    monkeypatch.setattr("mfkernel.methods.schedules.blocks.TILE_COORDINATES", coordinates)
    monkeypatch.setattr("mfkernel.methods.schedules.blocks.RATINGS_PER_TILE", 1)
    with ThreadEngine(n_threads) as engine:
        return BlockSchedule(ratings, k, True, seed, engine)


def ratings_per_tile(schedule, block):
    """Return the (user place, item place, rating) of each rating of a block, tile by tile."""
    tiles = schedule._tiles
    return [
        [
            (
                tiles.first_users[t] + int(tiles.users[n]),
                tiles.first_items[t] + int(tiles.items[n]),
                tiles.values[n],
            )
            for n in range(tiles.starts[t], tiles.starts[t + 1])
        ]
        for t in range(*block)
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratings=drawn_ratings(), n_bands=st.integers(1, 9), seed=st.integers(0, 99))
def test_block_schedule__visits_each_rating_once_in_waves_that_share_nothing(
    ratings, n_bands, seed, monkeypatch
):
    schedule = block_schedule(ratings, monkeypatch, n_bands, seed=seed)
    B = schedule.n_bands
    used = [np.count_nonzero(counts) for counts in (ratings.user_counts(), ratings.item_counts())]
    assert min(n_bands, *used) == B
    for places in (schedule.row_of_user, schedule.row_of_item):
        assert sorted(places) == list(range(len(places)))
    expected = sorted(
        zip(
            schedule.row_of_user[ratings.users].tolist(),
            schedule.row_of_item[ratings.items].tolist(),
            ratings.values.tolist(),
            strict=True,
        )
    )
    for epoch in (1, 2):
        tasks = schedule.tasks(epoch)
        assert len(tasks) == B * B
        blocks = [[cell for tile in ratings_per_tile(schedule, task.work) for cell in tile] for task in tasks]
        assert sorted(cell for block in blocks for cell in block) == expected
        for wave in range(B):
            for side in (0, 1):
                rows = [{cell[side] for cell in block} for block in blocks[wave * B : (wave + 1) * B]]
                assert sum(map(len, rows)) == len(set().union(*rows))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratings=drawn_ratings(), n_bands=st.integers(1, 9), seed=st.integers(0, 99))
def test_block_schedule__blocks_that_share_rows_wait_for_each_other(ratings, n_bands, seed, monkeypatch):
    """Whatever order the waits allow, blocks with common rows or columns run in the order of the tasks."""
    tasks = block_schedule(ratings, monkeypatch, n_bands, seed=seed).tasks(1)
    schedule = block_schedule(ratings, monkeypatch, n_bands, seed=seed)
    waited = []
    for task in tasks:
        waited.append(set(task.after).union(*(waited[n] for n in task.after)))
    rows = [
        tuple(
            {cell[side] for tile in ratings_per_tile(schedule, task.work) for cell in tile} for side in (0, 1)
        )
        for task in tasks
    ]
    for later in range(len(tasks)):
        for earlier in range(later):
            if any(rows[later][side] & rows[earlier][side] for side in (0, 1)):
                assert earlier in waited[later]


def test_block_schedule__tiles_stay_within_the_cache(monkeypatch):
    ratings = mf.datasets.synthetic(300, 200, 6000)
    schedule = block_schedule(ratings, monkeypatch, 3, k=16, coordinates=512)
    for task in schedule.tasks(1):
        for tile in ratings_per_tile(schedule, task.work):
            for side in (0, 1):
                assert len({cell[side] for cell in tile}) <= 512 / 2 / 16
    n_tiles = schedule._tiles.first_users.size
    assert n_tiles > 9
    wide = block_schedule(ratings, monkeypatch, 3, k=16, coordinates=2**18)
    assert wide._tiles.first_users.size == 9


def test_block_schedule__does_not_cut_thin_ratings_into_empty_tiles():
    rng = np.random.default_rng(0)
    users, items = rng.permutation(50_000)[:20_000], rng.permutation(50_000)[:20_000]
    ratings = mf.Ratings((users, items, np.ones(20_000)))
    with ThreadEngine(1) as engine:
        schedule = BlockSchedule(ratings, 512, True, 0, engine)
    assert schedule._tiles.first_users.size <= 2 * 20_000 / RATINGS_PER_TILE


def test_block_schedule__blocks_hold_about_equally_many_ratings(monkeypatch):
    schedule = block_schedule(mf.datasets.synthetic(3000, 2000, 200_000), monkeypatch, 8, coordinates=2**14)
    sizes = [
        schedule._tiles.starts[last] - schedule._tiles.starts[first]
        for (first, last), *_ in schedule.tasks(1)
    ]
    assert max(sizes) < 1.25 * np.mean(sizes)


def test_block_schedule__one_heavy_item_leaves_the_other_bands_equal(monkeypatch):
    rng = np.random.default_rng(0)
    users = np.concatenate([np.arange(2000), rng.integers(2000, size=3000)])
    items = np.concatenate([np.zeros(2000, int), rng.integers(1, 500, size=3000)])
    ratings = mf.Ratings((users, items, np.ones(5000)), duplicates="last")
    schedule = block_schedule(ratings, monkeypatch, 6)
    starts = schedule._tiles.first_items
    bands = {}
    for task in schedule.tasks(1):
        key = starts[task.work[0]]
        bands[key] = (
            bands.get(key, 0) + schedule._tiles.starts[task.work[1]] - schedule._tiles.starts[task.work[0]]
        )
    sizes = sorted(bands.values())
    assert len(sizes) == 6
    assert sizes[-1] >= 2000
    assert sizes[-2] < 1.3 * sizes[0]


def test_block_schedule__is_the_same_whoever_lays_it_out(monkeypatch):
    ratings = mf.datasets.synthetic(300, 200, 6000)
    one, three = (block_schedule(ratings, monkeypatch, 5, n_threads=n) for n in (1, 3))
    for name, array in one._tiles._asdict().items():
        np.testing.assert_array_equal(array, getattr(three._tiles, name))
    assert one.tasks(4) == three.tasks(4)
    other = block_schedule(ratings, monkeypatch, 5, seed=4)
    assert (one.row_of_user != other.row_of_user).any()


@pytest.mark.slow
def test_block_schedule__every_order_within_a_tile_is_equally_likely(monkeypatch):
    ratings = mf.Ratings(([0, 0, 0, 0], [0, 1, 2, 3], [1.0, 2, 3, 4]))
    counts = {}
    for seed in range(2400):
        order = tuple(
            block_schedule(ratings, monkeypatch, 1, coordinates=2**14, seed=seed)._tiles.values.tolist()
        )
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    chi_square = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_square < 56  # 23 degrees of freedom: one time in ten thousand


def test_block_schedule__shuffle_changes_the_order_of_the_blocks_only(monkeypatch):
    ratings = mf.datasets.synthetic(300, 200, 6000)
    schedule = block_schedule(ratings, monkeypatch, 6)
    assert [t.work for t in schedule.tasks(1)] != [t.work for t in schedule.tasks(2)]
    schedule._shuffle = False
    assert schedule.tasks(1) == schedule.tasks(2)


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
