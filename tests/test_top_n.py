"""The n greatest products of rows, and what a model is asked: against sorting all predictions."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.top_n import pack_items, rank_held_out, top_n
from tests.processes import TracedMemory

pytestmark = pytest.mark.kernel


def search(X, Y, n, n_threads=1, **options):
    with ThreadEngine(n_threads) as engine:
        return top_n(X, pack_items(Y), n, engine, **options)


def csr_of(mask):
    return np.concatenate([[0], np.cumsum(mask.sum(axis=1))]), np.nonzero(mask)[1].astype(np.int32)


def brute_force(scores, n):
    """Sort each row: the highest first, of equal ones the lower number; nan and -inf are not found."""
    items, best = np.full((len(scores), n), -1), np.full((len(scores), n), np.nan)
    for u, row in enumerate(scores):
        found = [i for i in np.lexsort((np.arange(row.size), -row)) if row[i] > -np.inf][:n]
        items[u, : len(found)], best[u, : len(found)] = found, row[found]
    return items, best


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    seed=st.integers(0, 2**32 - 1),
    s=st.integers(0, 9),
    n_items=st.integers(0, 20) | st.integers(120, 140),
    d=st.integers(1, 6),
    n=st.integers(1, 30),
    bad=st.sampled_from([None, np.nan, -np.inf]),
)
def test_top_n__is_what_sorting_gives(dtype, seed, s, n_items, d, n, bad):
    rng = np.random.default_rng(seed)
    X, Y = (rng.integers(-2, 3, (rows, d)).astype(dtype) for rows in (s, n_items))  # exact, with ties
    mask, allowed = rng.random((s, n_items)) < 0.3, rng.random(n_items) < 0.8
    if bad is not None and n_items:
        X[:, 0], Y[rng.integers(n_items), 0] = 1, bad
    with np.errstate(invalid="ignore"):  # inf times 0: in Python, and in BLAS that multiply padding
        found = search(X, Y, n, excluded=csr_of(mask), allowed=allowed)
        products = X @ Y.T
    items, best = brute_force(np.where(mask | ~allowed, -np.inf, products), min(n, n_items))
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_array_equal(found.scores, best)


def test_top_n__does_not_depend_on_threads_nor_on_other_rows(rng):
    X, Y = (rng.standard_normal((rows, 7), dtype=np.float32) for rows in (150, 200))
    whole = search(X, Y, 5)
    for n_threads in (2, 3):
        other = search(X, Y, 5, n_threads)
        np.testing.assert_array_equal(other.items, whole.items)
        np.testing.assert_array_equal(other.scores, whole.scores)
    for u in (0, 3, 64, 149):
        np.testing.assert_array_equal(search(X[u : u + 1], Y, 5).scores[0], whole.scores[u])


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="takes minutes")
def test_top_n__makes_no_table_of_all_products(rng):
    X, Y = (rng.standard_normal((rows, 16), dtype=np.float32) for rows in (4_000, 20_000))
    search(X[:1], Y, 10)
    with TracedMemory() as memory:
        search(X, Y, 10, 2)
    assert memory.peak < 2**24 < X.shape[0] * Y.shape[0]


@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 15) | st.integers(126, 131))
def test_ranks__count_what_stands_above_and_below(seed, n_items):
    rng = np.random.default_rng(seed)
    X, Y = (rng.integers(-2, 3, (rows, 3)).astype(np.float32) for rows in (6, n_items))
    held, mask = rng.random((6, n_items)) < 0.3, rng.random((6, n_items)) < 0.4
    with ThreadEngine(2) as engine:
        found = rank_held_out(X, pack_items(Y), csr_of(held), engine, excluded=csr_of(mask))
    scores, numbers = X @ Y.T, np.arange(n_items)
    candidates = held | ~mask
    np.testing.assert_array_equal(found.candidates, candidates.sum(axis=1))
    for n, (u, i) in enumerate(np.argwhere(held)):
        row, own = scores[u][candidates[u]], scores[u, i]
        before = (row == own) & (numbers[candidates[u]] < i)
        assert found.ranks[n] == ((row > own) | before).sum()
        assert found.below[n] == (row < own).sum()
        assert found.equal[n] == (row == own).sum() - 1


def models(rng):
    """Return models of every kind, with their ratings."""
    R = mf.Ratings(mf.datasets.synthetic(12, 9, 50, rng=3), dtype=np.float64)
    P, Q = rng.normal(size=(12, 3)), rng.normal(size=(3, 9))
    biases = {"user_bias": rng.normal(size=12), "item_bias": rng.normal(size=9)}
    known = {"known_users": np.arange(12) != 4, "known_items": np.arange(9) % 4 != 2}
    logistic = mf.SGD(biases=True, loss="logistic", regularization=(0.1, 0.1))
    squared = replace(logistic, loss="squared")
    labels = R.with_values((R.values > 3).astype(float))
    return {
        "plain": mf.Factors(P, Q, ratings=R, settings=squared),
        "gaps": mf.Factors(P, Q, mean=0.3, **known, ratings=R, settings=squared),
        "biases": mf.Factors(P, Q, mean=3.0, **biases, ratings=R, settings=squared),
        "logistic": mf.Factors(P, Q, mean=-0.5, **biases, ratings=labels, settings=logistic),
    }


KINDS = ("plain", "gaps", "biases", "logistic")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommend__sorts_the_predictions(kind, exclude_seen, rng):
    model = models(rng)[kind]
    found = model.recommend(np.arange(12), 6, exclude_seen=exclude_seen)
    predictions = model.predict(np.arange(12)[:, None], np.arange(9))
    seen = model.ratings.to_scipy().toarray() != 0
    seen[model.ratings.users, model.ratings.items] = exclude_seen
    seen &= exclude_seen
    for u in range(12):
        left = np.flatnonzero(~seen[u])
        # of a user without ratings, all predictions are the mean: what is rated most comes first
        order = predictions[u] if model.known_users[u] else model.ratings.item_counts()
        best = left[np.lexsort((left, -order[left].round(12)))][:6]
        np.testing.assert_array_equal(found.items[u].compressed(), best)
        np.testing.assert_allclose(found.scores[u].compressed(), predictions[u, best])
        np.testing.assert_array_equal(found.items.mask[u], np.arange(6) >= best.size)
        np.testing.assert_array_equal(model.recommend(u, 6, exclude_seen=exclude_seen).items, best)
        with pytest.raises(IndexError):  # what is masked indexes nothing, not the last item
            np.arange(9)[found.items.data[u][best.size - 6 :] if best.size < 6 else [9]]


@pytest.mark.parametrize("kind", KINDS)
def test_augmented__has_every_prediction_as_a_product(kind, rng):
    model = models(rng)[kind]
    P, Q = model.augmented()
    assert P.shape == (12, 5)
    assert Q.shape == (5, 9)
    scores = P @ Q
    if kind == "logistic":
        scores = 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(scores, model.predict(np.arange(12)[:, None], np.arange(9)))


def test_recommend__takes_a_user_users_and_strangers(rng):
    model = models(rng)["biases"]
    many = model.recommend([2, 5], 4)
    for one in (model.recommend(2, 4), model.recommend(np.int64(2), 4)):
        np.testing.assert_array_equal(one.items, many.items[0])
        np.testing.assert_array_equal(one.scores, many.scores[0])
    forms = [{1: 5.0, 4: 2.0}, ([1, 4], [5.0, 2.0])]
    matrix = sparse.csr_array(([5.0, 2.0], ([0, 0], [1, 4])), shape=(1, 9))
    folded = model.fold_in(matrix).recommend([0], 9)
    np.testing.assert_array_equal(model.recommend(matrix, 9).items, folded.items)
    for form in forms:
        found = model.recommend(form, 9)
        np.testing.assert_array_equal(found.items, folded.items[0].compressed())
        assert sorted(found.items) == [0, 2, 3, 5, 6, 7, 8]


def test_recommend__chooses_among_given_items(rng):
    found = models(rng)["plain"].recommend([0, 1], 5, items=[3, 8], exclude_seen=False)
    assert [sorted(row.compressed()) for row in found.items] == [[3, 8], [3, 8]]
    assert found.items.tolist()[0][2:] == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((12,), {}, "users.*12.*n_users = 12"),
        (([0, -1],), {}, r"users\[1\] = -1"),
        ((1.5,), {}, "users must be integers"),
        ((0, 0), {}, "n must be at least 1, got 0"),
        ((0,), {"items": [9]}, r"items\[0\] = 9"),
        (({9: 1.0},), {}, r"items\[0\] = 9"),
        (({0: np.nan},), {}, "nan"),
    ],
)
def test_recommend__names_what_is_wrong(arguments, options, message, rng):
    with pytest.raises((TypeError, ValueError), match=message):
        models(rng)["biases"].recommend(*arguments, **options)


def test_recommend__says_that_it_does_not_know_what_was_seen(rng):
    model = mf.Factors(rng.normal(size=(3, 2)), rng.normal(size=(2, 4)))
    with pytest.raises(ValueError, match="exclude_seen=False"):
        model.recommend(0)
    assert model.recommend(0, 4, exclude_seen=False).items.size == 4


@pytest.mark.parametrize("side", ["items", "users"])
def test_similar__is_the_greatest_cosine(side, rng):
    model = models(rng)["gaps"]
    X, known = (model.Q.T, model.known_items) if side == "items" else (model.P, model.known_users)
    ask = model.similar_items if side == "items" else model.similar_users
    cosines = X @ X.T / np.outer(*[np.linalg.norm(X, axis=1)] * 2)
    for a in range(len(X)):
        others = [b for b in np.argsort(-cosines[a]) if b != a and known[b]][:4] if known[a] else []
        found = ask(a, 4)
        np.testing.assert_array_equal(found.items, others)
        np.testing.assert_allclose(found.scores, cosines[a, others])
    np.testing.assert_array_equal(ask([1, 0], 4).items[1], ask(0, 4).items)
    nothing = int(np.flatnonzero(~known)[0])
    assert ask([nothing, 0], 4).items.mask.tolist() == [[True] * 4, [False] * 4]
    with pytest.raises(ValueError, match=f"{side}.*99"):
        ask(99)


@pytest.mark.parametrize("kind", KINDS)
def test_explain__adds_up_to_the_prediction(kind, rng):
    model = models(rng)[kind]
    parts = model.explain(3, 5, 2)
    total = parts.mean + parts.user_bias + parts.item_bias + parts.contributions.sum() + parts.rest
    assert total == pytest.approx(parts.score)
    prediction = 1 / (1 + np.exp(-parts.score)) if kind == "logistic" else parts.score
    assert prediction == pytest.approx(float(model.predict(3, 5)))
    assert set(parts.items) <= set(model.ratings.items[model.ratings.users == 3])
    assert (np.diff(np.abs(parts.contributions)) <= 0).all()


@pytest.mark.parametrize("kind", ["plain", "biases"])
def test_explain__of_a_folded_user_is_all_contributions(kind, rng):
    """Of the exact solution nothing is left over but for the joint solution of the bias."""
    folded = models(rng)[kind].fold_in({0: 4.0, 3: 2.0, 7: 5.0})
    assert folded.explain(0, 5).rest == pytest.approx(0, abs=1e-9)
