"""Splits by user: what is in which part, how it is drawn, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import sparse, stats

import mfkernel as mf
from tests.helpers import DENSE, snapshot
from tests.samples import cells

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = pytest.mark.parametrize("split", [mf.leave_n_out, mf.strong_generalization_split])
NO_PAIR = mf.Ratings(np.eye(3))  # three users with one rating each


@st.composite
def rated(draw, most=7):
    """Return ratings of users of whom some have none or one, with ids and weights or without.

    The n-th rating is n + 1 and counts (n + 1) / 4 times, so that it can be told from the others.
    """
    counts = np.array(draw(st.lists(st.integers(0, most), min_size=1, max_size=9)))
    n_items, n = draw(st.integers(most, most + 3)), counts.sum()
    rng = np.random.default_rng(draw(SEEDS))
    items = [np.sort(rng.choice(n_items, count, replace=False)) for count in counts]
    values = np.arange(1.0, n + 1)
    R = np.repeat(np.arange(counts.size), counts), np.concatenate(items), values, (counts.size, n_items)
    user_ids = [f"user {u}" for u in range(counts.size)] if draw(st.booleans()) else None
    item_ids = np.arange(n_items) * 10 if draw(st.booleans()) else None
    weights = values / 4 if draw(st.booleans()) else None
    return mf.Ratings(R, user_ids=user_ids, item_ids=item_ids, sample_weight=weights)


def rows(*parts):
    """Return all ratings (user, item, rating) of parts that come with their users' numbers, sorted."""
    columns = [np.stack([users[x.users], x.items, x.values], axis=1) for x, users in parts]
    table = np.concatenate(columns)
    return table[np.lexsort(table.T[::-1])]


def assert_same_ids(found, expected):
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)


def assert_weighted_as(ratings, parts):
    for part in parts:
        if ratings.weights is None:
            assert part.weights is None
        else:
            np.testing.assert_array_equal(part.weights, part.values / 4)


def cells_per_part(parts):
    return [cells(part) for part in parts]


def new_users_of(ratings, split):
    """Return the numbers of the users in training and of the new users, told by their ratings.

    Users without ratings are in training; the first rating of a new user tells who it is.
    """
    new_users = ratings.users[split.support.values[split.support.indptr[:-1]].astype(int) - 1]
    return np.setdiff1d(np.arange(ratings.n_users), new_users), new_users


@given(rated(), st.integers(1, 6), SEEDS)
def test_leave_n_out__holds_out_k_ratings_of_each_user_who_has_more(ratings, k, seed):
    counts = ratings.user_counts()
    assume((counts > k).any())
    train, test = parts = mf.leave_n_out(ratings, k, rng=seed)
    assert train.shape == test.shape == ratings.shape
    assert train.dtype == test.dtype == ratings.dtype
    assert test.user_counts().tolist() == [k if count > k else 0 for count in counts]
    everybody = np.arange(ratings.n_users)
    np.testing.assert_array_equal(rows((train, everybody), (test, everybody)), rows((ratings, everybody)))
    assert (train.user_counts() > 0).tolist() == (counts > 0).tolist()
    for part in parts:
        assert_same_ids(part.user_ids, ratings.user_ids)
        assert_same_ids(part.item_ids, ratings.item_ids)
    assert_weighted_as(ratings, parts)


@given(rated(), st.integers(1, 9) | st.floats(0.01, 0.99), st.floats(0.01, 0.99), SEEDS)
def test_strong_generalization_split__parts_users_and_then_the_ratings_of_strangers(
    ratings, test_users, holdout, seed
):
    counts = ratings.user_counts()
    able, n_rated = (counts >= 2).sum(), (counts > 0).sum()
    most = min(able, n_rated - 1)  # one with ratings stays in training
    assume(most >= 1 and test_users <= most)
    split = mf.strong_generalization_split(ratings, test_users, holdout, rng=seed)
    number = test_users if isinstance(test_users, int) else min(max(1, round(test_users * able)), most)
    others, new_users = new_users_of(ratings, split)
    assert split.train.shape == (ratings.n_users - number, ratings.n_items)
    assert split.support.shape == split.held_out.shape == (number, ratings.n_items)
    assert (np.diff(new_users) > 0).all()
    assert split.train.nnz > 0
    for n, held_out, known in zip(
        counts[new_users], split.held_out.user_counts(), split.support.user_counts(), strict=True
    ):
        assert held_out == min(max(1, round(holdout * n)), n - 1)
        assert known == n - held_out
    owners = (split.train, others), (split.support, new_users), (split.held_out, new_users)
    np.testing.assert_array_equal(rows(*owners), rows((ratings, np.arange(ratings.n_users))))
    for part, users in owners:
        assert part.dtype == ratings.dtype
        assert_same_ids(part.user_ids, None if ratings.user_ids is None else ratings.user_ids[users])
        assert_same_ids(part.item_ids, ratings.item_ids)
    assert_weighted_as(ratings, split)


@SPLITS
def test_splits__follow_from_the_seed(split, ratings):
    one, two, other = (split(ratings, rng=seed) for seed in (1, 1, 2))
    assert cells_per_part(one) == cells_per_part(two)
    assert cells_per_part(one) != cells_per_part(other)
    assert cells_per_part(one) == cells_per_part(split(ratings, rng=np.random.default_rng(1)))
    generator = np.random.default_rng(1)
    assert cells_per_part(one) == cells_per_part(split(ratings, rng=generator))
    assert cells_per_part(one) != cells_per_part(split(ratings, rng=generator))
    assert cells_per_part(split(ratings)) != cells_per_part(split(ratings))


def assert_uniform(counts):
    """Check that counts of outcomes that are equally likely differ as chance makes them."""
    expected = np.sum(counts) / np.size(counts)
    assert np.sum((np.asarray(counts) - expected) ** 2) / expected < stats.chi2.ppf(
        0.999, np.size(counts) - 1
    )


@pytest.mark.parametrize("split", ["leave_n_out", "strong_generalization_split"])
def test_splits__hold_out_each_pair_of_four_ratings_as_often(split):
    ratings = mf.Ratings(np.ones((12_000, 4)))
    if split == "leave_n_out":
        _, held_out = mf.leave_n_out(ratings, 2, rng=0)
    else:
        _, _, held_out = mf.strong_generalization_split(ratings, 0.999, 0.5, rng=0)
    pairs = held_out.indices.reshape(-1, 2).tolist()
    assert_uniform([pairs.count(list(pair)) for pair in itertools.combinations(range(4), 2)])


def test_leave_n_out__draws_for_each_user_anew():
    """Of two users who are neighbours, each pair of held-out items comes as often."""
    _, held_out = mf.leave_n_out(np.ones((9000, 3)), 1, rng=0)
    pairs = np.zeros((3, 3), int)
    np.add.at(pairs, tuple(held_out.indices.reshape(-1, 2).T), 1)
    assert_uniform(pairs)


@pytest.mark.slow
def test_strong_generalization_split__makes_each_who_can_be_a_stranger_as_often():
    R = np.triu(np.ones((5, 5))) * [1, 2, 3, 4, 5]  # users with 5, 4, 3, 2 and 1 ratings
    chosen = np.zeros(5, int)
    for seed in range(1200):
        split = mf.strong_generalization_split(R, 1, rng=seed)
        chosen[5 - split.support.nnz - split.held_out.nnz] += 1
    assert chosen[4] == 0
    assert_uniform(chosen[:4])


def test_strong_generalization_split__former_names_warn():
    split = mf.strong_generalization_split([[5, 3, 0], [4, 0, 2], [0, 0, 1]], 1, rng=0)
    for old, new in (("training", "train"), ("known", "support")):
        with pytest.warns(
            DeprecationWarning, match=f"UserSplit.{old} is now UserSplit.{new}; .* version 0.2"
        ):
            assert getattr(split, old) is getattr(split, new)


def test_strong_generalization_split__may_leave_training_a_user_with_one_rating():
    R = [[5, 3, 0], [4, 0, 2], [0, 0, 1]]
    split = mf.strong_generalization_split(R, 2)
    assert split.train.to_scipy().toarray().tolist() == [[0, 0, 1]]
    np.testing.assert_array_equal((split.support.to_scipy() + split.held_out.to_scipy()).toarray(), R[:2])
    one, two = (mf.strong_generalization_split(R, users, rng=3) for users in (0.99, np.int8(2)))
    assert cells_per_part(one) == cells_per_part(two)


FORMS = {
    "list": DENSE.tolist(),
    "dense": DENSE,
    "fortran": np.asfortranarray(DENSE),
    **{name: sparse.csr_array(DENSE).asformat(name) for name in ("csr", "csc", "coo", "lil")},
    "triplets": (*np.nonzero(DENSE), DENSE[DENSE != 0], DENSE.shape),
    "ratings": mf.Ratings(DENSE),
}


@SPLITS
@pytest.mark.parametrize("R", FORMS.values(), ids=list(FORMS))
def test_splits__take_ratings_in_any_form(split, R):
    assert cells_per_part(split(R, rng=5)) == cells_per_part(split(DENSE, rng=5))


@SPLITS
@pytest.mark.parametrize("form", ["dense", "csr", "csc", "coo", "triplets"])
def test_splits__leave_what_they_are_given_and_do_not_share_it(split, form):
    R = FORMS[form]
    R = tuple(np.array(part) for part in R) if form == "triplets" else R.copy()
    before = snapshot(R)
    parts = split(R, rng=5)
    assert snapshot(R) == before
    (R[2] if form == "triplets" else R if form == "dense" else R.data)[...] = 7
    assert cells_per_part(parts) == cells_per_part(split(DENSE, rng=5))


@SPLITS
def test_splits__read_dense_arrays_and_duplicates_as_they_are_told(split):
    gaps = np.where(DENSE == 0, np.nan, DENSE - 1)  # a rating is 0
    assert sum(part.nnz for part in split(gaps, missing="nan")) == 6
    twice = [0, 0, 0, 1], [0, 1, 1, 1], [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="duplicate"):
        split(twice)
    parts = split(twice, duplicates="last")
    assert sorted(np.concatenate([part.values for part in parts])) == [1, 3, 4]


@pytest.mark.parametrize(
    ("R", "k", "error", "message"),
    [
        (DENSE, 0, ValueError, "n must be at least 1, got 0"),
        (DENSE, 1.0, TypeError, "n must be an integer, got 1.0"),
        (DENSE, True, TypeError, "n must be an integer, got True"),
        (DENSE, 2, ValueError, "n must be at most 1, one below the most ratings of a user, got 2"),
        (DENSE, 10**30, ValueError, "n must be at most 1, .*, got 10000"),
        (NO_PAIR, 1, ValueError, "R must have a user with two or more ratings, got at most 1 per user"),
        (np.zeros((0, 3)), 1, ValueError, "two or more ratings, got at most 0 per user"),
    ],
)
def test_leave_n_out__names_what_is_wrong(R, k, error, message):
    with pytest.raises(error, match=message):
        mf.leave_n_out(R, k)


@pytest.mark.parametrize(
    ("R", "options", "error", "message"),
    [
        (DENSE, {"test_users": 0}, ValueError, "test_users must be at least 1, got 0"),
        (DENSE, {"test_users": 0.0}, ValueError, "test_users must be finite and positive, got 0.0"),
        (DENSE, {"test_users": -0.5}, ValueError, "test_users must be finite and positive, got -0.5"),
        (DENSE, {"test_users": 1.0}, ValueError, "between 0 and 1, got 1.0; a number.*must be an integer"),
        (DENSE, {"test_users": np.nan}, ValueError, "test_users must be finite and positive, got nan"),
        (DENSE, {"test_users": True}, TypeError, "test_users must be an integer, got True"),
        (DENSE, {"test_users": "all"}, TypeError, "test_users must be a number, got 'all'"),
        (
            DENSE,
            {"test_users": 3},
            ValueError,
            "at most 2, got 3: 2 of 4 users have two or more ratings",
        ),
        (
            np.ones((3, 2)),
            {"test_users": 3},
            ValueError,
            "at most 2, got 3: .* must stay in training",
        ),
        (DENSE, {"holdout": 0}, ValueError, "holdout must be finite and positive, got 0.0"),
        (DENSE, {"holdout": 1}, ValueError, "holdout must be between 0 and 1, got 1.0$"),
        (DENSE, {"holdout": None}, TypeError, "holdout must be a number, got None"),
        (NO_PAIR, {}, ValueError, "got 3 users with ratings, 0 of them with two or more"),
        ([[5, 3], [0, 0]], {}, ValueError, "another user with one, got 1 users with ratings, 1 of them"),
        (np.zeros((0, 3)), {}, ValueError, "0 users with ratings, 0 of them with two or more"),
    ],
)
def test_strong_generalization_split__names_what_is_wrong(R, options, error, message):
    with pytest.raises(error, match=message):
        mf.strong_generalization_split(R, **options)


@pytest.mark.slow
@pytest.mark.kernel
def test_strong_generalization_split__tests_what_is_folded_in(rng):
    """Users of two camps like one half of the items each: who folds in a stranger must tell his camp."""
    camps, halves = rng.integers(2, size=80), np.arange(30) % 2
    R = np.where(camps[:, None] == halves, 5.0, 1.0) * (rng.random((80, 30)) < 0.5)
    ids = [f"user {u}" for u in range(80)]
    split = mf.strong_generalization_split(mf.Ratings(R, user_ids=ids), 0.25, 0.3, rng=0)
    model = mf.factorize(split.train, 2, biases=True, rng=0, epochs=40)
    new_users = model.fold_in(split.support)
    assert new_users.user_ids.tolist() == split.held_out.user_ids.tolist()
    assert new_users.rmse(split.held_out) < 0.5 * split.held_out.std
    found = mf.metrics.ranking(new_users, split.held_out, 5, relevant=4)
    factors = rng.normal(size=(20, 2)), rng.normal(size=(2, 30))
    chance = mf.metrics.ranking(mf.Factors(*factors, ratings=split.support), split.held_out, 5, relevant=4)
    assert found["auc"] > chance["auc"] + 0.15
    assert found["recall"] > chance["recall"] + 0.1
    # what is known is left out of the lists, what is held out is not
    listed = new_users.by_position.recommend(np.arange(20), 30).items
    for u in range(20):
        known, held_out = (set(x.items[x.users == u]) for x in (split.support, split.held_out))
        assert not known & set(listed[u].compressed())
        assert held_out <= set(listed[u].compressed())
