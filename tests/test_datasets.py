"""The embedded ratings and how they are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf


def test_textbook__has_the_known_start():
    R, P0, Q0 = mf.datasets.textbook()
    assert np.count_nonzero(R) == 7
    state = np.random.RandomState(42)
    np.testing.assert_array_equal(P0, state.rand(5, 2))
    np.testing.assert_array_equal(Q0, state.rand(2, 3))


@pytest.mark.parametrize(
    "size", [(943, 1682, 100_000), (50, 30, 750), (10, 1000, 2000), (2, 2, 2), (2, 1, 1)]
)
def test_synthetic__has_the_size_asked_for(size):
    ratings = mf.datasets.synthetic(*size)
    assert (ratings.n_users, ratings.n_items, ratings.nnz) == size
    assert set(np.unique(ratings.values)) <= {1, 2, 3, 4, 5}


def test_synthetic__looks_like_real_ratings():
    ratings = mf.datasets.synthetic()
    assert 3.3 < ratings.mean < 3.8
    assert 1.0 < ratings.std < 1.2
    # the busiest tenth holds 32 % of the users' and 43 % of the items' ratings in ML-100K
    for counts, low in ((ratings.user_counts(), 0.28), (ratings.item_counts(), 0.37)):
        top = np.sort(counts)[::-1][: counts.size // 10].sum() / ratings.nnz
        assert low < top < low + 0.1


def test_synthetic__is_seeded():
    one, two, other = (mf.datasets.synthetic(100, 80, 900, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.values, two.values)
    assert (one.indices != other.indices).any()


def test_synthetic__refuses_more_than_half_of_the_cells():
    with pytest.raises(ValueError, match="half of the 10 × 10 cells, got 51"):
        mf.datasets.synthetic(10, 10, 51)


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_train_test_split__parts_the_ratings(share, seed):
    ratings = mf.datasets.synthetic(30, 20, 200)
    train, test = mf.train_test_split(ratings, share, rng=seed)
    assert train.shape == test.shape == ratings.shape
    assert test.nnz == min(max(round(share * 200), 1), 199)
    together = np.concatenate([np.stack([x.users, x.items, x.values], axis=1) for x in (train, test)])
    whole = np.stack([ratings.users, ratings.items, ratings.values], axis=1)
    np.testing.assert_array_equal(together[np.lexsort(together.T[::-1])], whole)


def test_train_test_split__keeps_ids_and_is_seeded(ratings):
    named = mf.Ratings(ratings, user_ids=[f"u{n}" for n in range(ratings.n_users)])
    one, two = (mf.train_test_split(named, 0.2, rng=3) for _ in range(2))
    np.testing.assert_array_equal(one[1].indices, two[1].indices)
    np.testing.assert_array_equal(one[0].user_ids, named.user_ids)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, np.nan, "a"])
def test_train_test_split__refuses_shares_that_are_none(share, ratings):
    with pytest.raises((TypeError, ValueError), match="test must be"):
        mf.train_test_split(ratings, share)


def test_train_test_split__needs_two_ratings():
    with pytest.raises(ValueError, match="at least 2 ratings to split, got 1"):
        mf.train_test_split([[5, 0]], 0.5)
