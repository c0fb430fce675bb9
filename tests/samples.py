"""Ratings to test with, drawn at random or by Hypothesis, and their cells."""

import math

import numpy as np
from hypothesis import strategies as st

import mfkernel as mf

# random ratings


def random_cells(m, n, count, rng):
    """Return rows and columns of distinct cells: as many as ``count``, or that share of all."""
    nnz = max(1, round(count * m * n)) if isinstance(count, float) else count
    return np.divmod(rng.choice(m * n, nnz, replace=False, shuffle=False), n)


def random_ratings(m, n, count, seed=0, *, mean=3.0, values=None, dtype=np.float64):
    """Rate random cells by ``values(rng, nnz)``, by default normal numbers around the mean.

    ``count`` is the number of cells, or a share of all; rows and columns may be empty.
    """
    rng = np.random.default_rng(seed)
    users, items = random_cells(m, n, count, rng)
    rated = rng.normal(mean, 1, users.size) if values is None else values(rng, users.size)
    return mf.Ratings((users, items, rated, (m, n)), dtype=dtype)


def stars(rng, nnz):
    """Return whole numbers from 1 to 5."""
    return rng.integers(1, 6, nnz)


def low_rank_ratings(m, n, count, rank, seed=0, *, mean=3.0, noise=0.3, dtype=np.float64):
    """Rate random cells by a product of normal factors, of variance 1 around the mean, and noise."""
    rng = np.random.default_rng(seed)
    users, items = random_cells(m, n, count, rng)
    P, Q = rng.normal(size=(m, rank)), rng.normal(size=(n, rank)) / math.sqrt(rank)
    values = mean + np.sum(P[users] * Q[items], axis=1) + noise * rng.normal(size=users.size)
    return mf.Ratings((users, items, values, (m, n)), dtype=dtype)


# ratings drawn by Hypothesis

RATING = st.floats(-100, 100, width=32)


@st.composite
def drawn_triplets(draw, min_size=0, unique=True, rating=RATING):
    """Draw users, items, ratings of either dtype and a shape of at most 6 × 6."""
    m, n = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cell = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1))
    chosen = draw(st.lists(cell, min_size=min_size, max_size=25, unique=unique))
    values = draw(st.lists(rating, min_size=len(chosen), max_size=len(chosen)))
    users, items = np.array(chosen, np.int64).reshape(-1, 2).T
    return users, items, np.array(values, draw(st.sampled_from([np.float32, np.float64]))), (m, n)


@st.composite
def drawn_ratings(draw, most=12):
    """Draw ratings of at least one cell, all different, of at most ``most`` rows and columns."""
    m, n = draw(st.integers(1, most)), draw(st.integers(1, most))
    chosen = np.array(sorted(draw(st.sets(st.integers(0, m * n - 1), min_size=1))))
    return mf.Ratings((*np.divmod(chosen, n), np.arange(chosen.size) + 1.0, (m, n)))


# cells


def cells(R):
    """Return {(user, item): rating}, by ids where the ratings have some, else by numbers."""
    users = R.users if R.user_ids is None else R.user_ids[R.users]
    items = R.items if R.item_ids is None else R.item_ids[R.items]
    pairs = zip(users.tolist(), items.tolist(), strict=True)
    return dict(zip(pairs, R.values.tolist(), strict=True))


def triplets_of(cells, shape=None):
    """Return {(user, item): rating} as users, items, ratings and, if given, the shape."""
    users, items = np.array(list(cells), np.int64).reshape(-1, 2).T
    parts = users, items, np.array(list(cells.values()), np.float64)
    return parts if shape is None else (*parts, shape)
