"""The schedule "blocks": a grid of blocks, cut into tiles that fit in a processor's cache."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfkernel.data.ratings import Ratings
from mfkernel.engines.threads import Task, ThreadEngine
from mfkernel.methods.schedules.rows import RowMap, balanced_cuts, epoch_rng

if TYPE_CHECKING:
    from mfkernel.kernels.sgd import Tiles, Update

# coordinates of P and Q per tile: 128 KiB of float32, half of the smallest L2 cache in use
TILE_COORDINATES = 2**15
RATINGS_PER_BLOCK = 2**16  # ratings per block on average: a task of about a quarter of a millisecond
MAX_BANDS_PER_SIDE = 64
RATINGS_PER_TILE = 2**6  # least ratings per tile on average: smaller tiles would gain nothing
MAX_ROWS_PER_TILE = 2**16  # rows, and columns, per tile: they are numbered in 16 bits

Order = Callable[[NDArray[np.int64]], NDArray[np.int64]]


class BlockSchedule:
    """Ratings in a grid of B × B blocks, visited in B waves of B blocks that share no row and no column.

    Blocks of one wave use different rows of P and Q, so their order does not matter. The result is the same,
    bit by bit, on any number of threads. A block only waits for the two blocks of the wave before that share
    its rows or its columns. One thread may therefore process many waves of one band of rows, whose P is in
    its cache, before it begins the next band.

    Rows and columns are permuted at random, and cut so that blocks have about equal numbers of ratings. Each
    block is cut into tiles so small that their rows of P and Q stay in the cache. The ratings of a tile are
    in random order. None of this depends on the machine.

    Parameters
    ----------
    ratings
        Ratings to visit. Rows and columns without ratings are in no block.
    k
        Length of a row of P or Q, with padding.
    shuffle
        Whether to permute the rows and columns, the ratings of each tile, and the blocks of each epoch.
        Without it, each tile is visited row by row.
    seed
        Seed of all permutations.
    engine
        Engine on whose threads the tiles are built.

    Attributes
    ----------
    row_of_user, row_of_item
        (m,), (n,) row of each user and item in P and Q. Those without ratings come last.

    References
    ----------
    Gemulla, Nijkamp, Haas and Sismanis, "Large-scale matrix factorization with distributed stochastic
    gradient descent", KDD 2011.
    """

    uses_known_rank = True

    def __init__(self, ratings: Ratings, k: int, shuffle: bool, seed: int, engine: ThreadEngine) -> None:
        self._shuffle, self._seed = shuffle, seed
        counts = ratings.user_counts(), ratings.item_counts()
        used = min(int(np.count_nonzero(count)) for count in counts)
        bands = round(math.sqrt(ratings.nnz / RATINGS_PER_BLOCK))
        self.n_bands = max(1, min(bands, MAX_BANDS_PER_SIDE, used))
        order = epoch_rng(seed, 0).permutation if shuffle else np.asarray
        users, items = (_GridSide(count, self.n_bands, k, ratings.nnz, order) for count in counts)
        self.row_of_user: RowMap = users.positions
        self.row_of_item: RowMap = items.positions
        self._stay_in_rows = users.order.size >= items.order.size  # the larger matrix is loaded less often
        numbers, self._bounds = _tile_numbers(users.tiles_in_band, items.tiles_in_band)
        build_tiles = partial(_build_tiles, ratings, users, items, numbers, seed if shuffle else None, engine)
        self._tiles = build_tiles(ratings.values)
        self._weights = None if ratings.weights is None else build_tiles(ratings.weights).values

    def tasks(self, epoch: int) -> list[Task]:
        """Return the blocks of one epoch, wave after wave."""
        B = self.n_bands
        rows, columns = list(range(B)), list(range(B))
        if self._shuffle:
            rng = epoch_rng(self._seed, epoch)
            rows, columns = rng.permutation(B).tolist(), rng.permutation(B).tolist()
        tasks = []
        for wave, t in itertools.product(range(B), range(B)):
            row, column = rows[t], columns[(t + wave) % B]
            # in the wave before, task t had this row, and the next task this column
            after = {(wave - 1) * B + t, (wave - 1) * B + (t + 1) % B} if wave else ()
            bounds = self._bounds[row * B + column], self._bounds[row * B + column + 1]
            tasks.append(Task(bounds, tuple(after), row if self._stay_in_rows else column))
        return tasks

    def compile(self, update: "Update") -> None:
        """Compile the kernel by a call without tiles."""
        from mfkernel.kernels.sgd import sgd_tiles

        sgd_tiles(np.array([0]), 0, 1, self._tiles, *update, self._weights)

    def run_task(
        self, block: tuple[int, int], cancelled: Callable[[], bool], budget: int, update: "Update"
    ) -> float:
        """Update the factors for the ratings of a block; return the sum of squared residuals."""
        from mfkernel.kernels.sgd import sgd_tiles

        first, last = block
        cursor, loss = np.array([first]), 0.0
        while cursor[0] < last and not cancelled():
            loss += sgd_tiles(cursor, last, budget, self._tiles, *update, self._weights)
        return loss


def block_bytes(shape: tuple[int, int], nnz: int, dtype: np.dtype[Any]) -> int:
    """Return the memory of a ``BlockSchedule`` beside the ratings, in bytes."""
    per_rating, per_row = 2 + 2 + dtype.itemsize, 5 * 8
    return nnz * per_rating + sum(shape) * per_row


class _GridSide:
    """The rows or the columns of the grid in random order, cut into bands and tiles."""

    def __init__(self, counts: NDArray[np.int64], n_bands: int, k: int, nnz: int, order: Order) -> None:
        used = np.flatnonzero(counts)
        self.order = order(used)
        self.positions = np.empty(counts.size, np.int64)
        self.positions[self.order] = np.arange(used.size)
        self.positions[counts == 0] = np.arange(used.size, counts.size)
        bands = _capped_cuts(counts[self.order], n_bands)
        # with this many rows and columns, a tile has RATINGS_PER_TILE ratings if both sides are alike
        sparse_side = math.ceil(used.size / max(1, math.isqrt(nnz // RATINGS_PER_TILE)))
        side = min(MAX_ROWS_PER_TILE, max(TILE_COORDINATES // (2 * k), sparse_side, 1))
        sizes = np.diff(bands)
        self.tiles_in_band = -(-sizes // side)
        parts = [
            np.linspace(start, start + size, n + 1).astype(np.int64)[:-1]
            for start, size, n in zip(bands, sizes, self.tiles_in_band, strict=False)
        ]
        self.tile_starts = np.append(np.concatenate(parts), used.size)
        # the tile of each row or column, and its offset in the tile
        tile_of_position = np.repeat(np.arange(self.tile_starts.size - 1), np.diff(self.tile_starts))
        self.tiles = np.zeros(counts.size, np.int32)
        self.tiles[self.order] = tile_of_position
        self.offsets_in_tile = np.zeros(counts.size, np.uint16)
        self.offsets_in_tile[self.order] = np.arange(used.size) - self.tile_starts[tile_of_position]


def _capped_cuts(counts: NDArray[np.int64], n_bands: int) -> NDArray[np.int64]:
    """Cut into non-empty bands with about equal ratings, even if one row has most of them."""
    capped = counts
    for _ in range(n_bands):  # each cap reduces the total, and with it the share of a band
        cap = max(1, -(-int(capped.sum()) // n_bands))
        if capped.max() <= cap:
            break
        capped = np.minimum(counts, cap)
    cuts = balanced_cuts(capped, n_bands)
    least = np.arange(n_bands + 1)  # at least one row per band
    cuts = np.maximum.accumulate(np.maximum(cuts - least, 0)) + least
    return np.minimum(cuts, counts.size - least[::-1])


def _tile_numbers(
    heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Assign numbers to the tiles, block by block and within a block row by row.

    Parameters
    ----------
    heights, widths
        (B,) numbers of tile rows and of tile columns per band.

    Returns
    -------
    tuple
        The number of each tile, (n_tile_rows, n_tile_columns), and the first number of each block in order,
        followed by the number of tiles.
    """
    n_columns = int(widths.sum())
    above, left = np.cumsum(heights) - heights, np.cumsum(widths) - widths
    starts = (above * n_columns)[:, None] + heights[:, None] * left
    bands_of_rows, bands_of_columns = (np.repeat(np.arange(x.size), x) for x in (heights, widths))
    rows = np.arange(heights.sum()) - above[bands_of_rows]
    columns = np.arange(n_columns) - left[bands_of_columns]
    numbers = (
        starts[np.ix_(bands_of_rows, bands_of_columns)] + rows[:, None] * widths[bands_of_columns] + columns
    )
    return numbers, [*starts.ravel().tolist(), numbers.size]


def _build_tiles(
    ratings: Ratings,
    users: _GridSide,
    items: _GridSide,
    numbers: NDArray[np.int64],
    seed: int | None,
    engine: ThreadEngine,
    values: NDArray[Any],
) -> "Tiles":
    """Copy the ratings, or their weights, to tiles, in parallel over the bands of rows."""
    from mfkernel.kernels.sgd import Tiles
    from mfkernel.kernels.tiling import Grid, count_tiles, fill_tiles

    grid = Grid(users.order, users.tile_starts, items.tiles, items.offsets_in_tile, numbers)
    ends = np.cumsum(users.tiles_in_band).tolist()
    bands = [Task(band) for band in itertools.pairwise([0, *ends])]
    counts = np.zeros(numbers.size, np.int64)

    def tally(band: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        count_tiles(*band, ratings.indptr, ratings.indices, grid, counts)

    engine.run(tally, bands)
    first_users, first_items = np.empty_like(counts), np.empty_like(counts)
    first_users[numbers], first_items[numbers] = users.tile_starts[:-1, None], items.tile_starts[:-1]
    tiles = Tiles(
        np.concatenate([[0], np.cumsum(counts)]),
        first_users,
        first_items,
        np.empty(ratings.nnz, np.uint16),
        np.empty(ratings.nnz, np.uint16),
        np.empty(ratings.nnz, ratings.dtype),
    )
    counts[:] = 0

    def fill(band: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        with np.errstate(over="ignore"):  # without the JIT, NumPy warns about intended overflow
            matrix = ratings.indptr, ratings.indices, values
            fill_tiles(*band, seed is not None, seed or 0, *matrix, grid, counts, tiles)

    engine.run(fill, bands)
    return tiles
