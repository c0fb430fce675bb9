"""Provide ratings for experiments: the textbook's 5 × 3 example and synthetic data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support import checks
from mfkernel.data.ratings import Ratings


def textbook() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the textbook's 5 × 3 ratings and its start values for k = 2.

    A zero means that the rating is unknown.

    Returns
    -------
    R, P0, Q0
        Ratings (5, 3), user factors (5, 2) and item factors (2, 3).
    """
    R = np.array([[5, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5], [0, 0, 4]], np.float64)
    random = np.random.RandomState(42)
    P0 = random.rand(5, 2)
    return R, P0, random.rand(2, 3)


@checks.explains_names
def synthetic(n_users: int = 943, n_items: int = 1682, nnz: int = 100_000, *, rng: Any = 0) -> Ratings:
    """Generate star ratings with long tails like those of real ratings.

    A few users rate many items and a few items are rated often. Activity and popularity are lognormal; the
    busiest tenth has the same share as in ML-100K and ML-1M.

    A rating is the sum of a mean, a user bias, an item bias, eight factors and noise, rounded to 1, …, 5
    stars. The standard deviation is 1.1 for the ratings and 0.8 for the noise.

    Parameters
    ----------
    n_users, n_items, nnz
        Number of users, items and ratings. At most half of the cells can be rated. Default: as in ML-100K.
    rng
        Seed or generator, as for ``np.random.default_rng``. The same seed gives the same ratings. Default: 0.

    Returns
    -------
    Ratings
        float32 ratings without duplicates. Some users and items may have no rating.

    Examples
    --------
    >>> synthetic(200, 100, 3000)
    Ratings(200 users × 100 items, 3,000 ratings, float32)
    """
    n_users, n_items, nnz = (
        checks.integer(name, value, 1)
        for name, value in (("n_users", n_users), ("n_items", n_items), ("nnz", nnz))
    )
    if nnz > n_users * n_items // 2:
        raise ValueError(f"nnz must be at most half of the {n_users} × {n_items} cells, got {nnz}")
    random = np.random.default_rng(rng)
    activity = random.lognormal(0.0, 1.15, n_users)
    popularity = random.lognormal(0.0, 1.4, n_items)
    users, items = np.divmod(_distinct_cells(activity, popularity, nnz, random), n_items)
    k = 8
    P = random.normal(0.0, 1.0, (n_users, k))
    Q = random.normal(0.0, 0.55 / np.sqrt(k), (n_items, k))
    values = 3.55 + random.normal(0.0, 0.4, n_users)[users] + random.normal(0.0, 0.45, n_items)[items]
    step = 2**20
    for start in range(0, nnz, step):
        part = slice(start, start + step)
        values[part] += np.einsum("nk,nk->n", P[users[part]], Q[items[part]])
    values += random.normal(0.0, 0.8, nnz)
    stars = np.clip(np.rint(values), 1, 5).astype(np.float32)
    return Ratings((users, items, stars, (n_users, n_items)))


def _distinct_cells(
    row_weights: NDArray[np.float64],
    column_weights: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw distinct cells with about the given weights; return their numbers, sorted.

    Cells are numbered row by row.
    """
    n_columns = column_weights.size
    rows, columns = (np.cumsum(w) / w.sum() for w in (row_weights, column_weights))
    cells, share = np.empty(0, np.int64), 0.05
    while cells.size < count:
        # where rows and columns are nearly full, most draws repeat; uniform draws keep the loop short
        draws = int(1.2 * (count - cells.size)) + 16
        u = np.searchsorted(rows, rng.random(draws)).clip(max=row_weights.size - 1)
        i = np.searchsorted(columns, rng.random(draws)).clip(max=n_columns - 1)
        uniform = rng.random(draws) < share
        u[uniform] = rng.integers(row_weights.size, size=int(uniform.sum()))
        i[uniform] = rng.integers(n_columns, size=int(uniform.sum()))
        cells = np.union1d(cells, u.astype(np.int64) * n_columns + i)
        share = min(1.0, 2 * share)
    return np.sort(rng.choice(cells, count, replace=False, shuffle=False))
