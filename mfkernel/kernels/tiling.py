"""Sorting ratings into tiles: a counting sort that shuffles each tile on the way."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.sgd import Tiles


class Grid(NamedTuple):
    """The tile of each rating.

    Attributes
    ----------
    user_order
        (n_used_users,) users, in the order of the tile rows.
    user_starts
        (n_user_tiles + 1,) tile row a has the users ``user_order[user_starts[a]:user_starts[a + 1]]``.
    item_tiles, item_offsets
        (n_items,) tile column of each item, and its offset in that column.
    tile_numbers
        (n_user_tiles, n_item_tiles) number of each tile in storage order.
    """

    user_order: NDArray[np.int64]
    user_starts: NDArray[np.int64]
    item_tiles: NDArray[np.int32]
    item_offsets: NDArray[np.uint16]
    tile_numbers: NDArray[np.int64]


@jit
def count_tiles(
    first: int,
    last: int,
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    grid: Grid,
    counts: NDArray[np.int64],
) -> None:
    """Count the ratings of each tile in the tile rows ``first:last``.

    ``counts``, (n_tiles,) zeros, is overwritten.
    """
    for a in range(first, last):
        for u in grid.user_order[grid.user_starts[a] : grid.user_starts[a + 1]]:
            for n in range(indptr[u], indptr[u + 1]):
                counts[grid.tile_numbers[a, grid.item_tiles[indices[n]]]] += 1


@jit
def fill_tiles(
    first: int,
    last: int,
    shuffle: bool,
    seed: int,
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    values: NDArray[Any],
    grid: Grid,
    filled: NDArray[np.int64],
    tiles: Tiles,
) -> None:
    """Write the ratings of the tile rows ``first:last`` to their tiles.

    They are in row order, or in random order if ``shuffle``.

    The shuffle is the "inside-out" Fisher-Yates shuffle: each rating takes the position of a random rating of
    its tile, which moves to the end. All orders are equally likely. They depend on ``seed`` and the positions
    of ratings only. In row order, each update waits for the last update of the same
    row. At k = 16, a random order is nearly twice as fast.

    Parameters
    ----------
    filled
        (n_tiles,) zeros; overwritten with the number of ratings in each tile.
    tiles
        ``starts`` are the cumulated counts; ``users``, ``items`` and ``values`` are overwritten.
    """
    for a in range(first, last):
        for position in range(grid.user_starts[a], grid.user_starts[a + 1]):
            u = grid.user_order[position]
            for n in range(indptr[u], indptr[u + 1]):
                i = indices[n]
                tile = grid.tile_numbers[a, grid.item_tiles[i]]
                count = filled[tile]
                filled[tile] = count + 1
                end = tiles.starts[tile] + count
                here = tiles.starts[tile] + random_below(count + 1, seed, end) if shuffle else end
                tiles.users[end] = tiles.users[here]
                tiles.items[end] = tiles.items[here]
                tiles.values[end] = tiles.values[here]
                tiles.users[here] = position - grid.user_starts[a]
                tiles.items[here] = grid.item_offsets[i]
                tiles.values[here] = values[n]


@inlined
def random_below(bound: int, seed: int, counter: int) -> int:
    """Return a random number below ``bound``, at most 2³², for seed and counter.

    The finalizer of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014.
    """
    x = np.uint64(seed) + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.int64(((x >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))  # type: ignore[return-value]
