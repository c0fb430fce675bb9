"""Ratings after the fit: of new users, new ones, and fits and files that go on from a model."""

import dataclasses
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel.linalg.normal import gram
from mfkernel.model import foldin
from mfkernel.options import SGD
from tests.helpers import DENSE, assert_same, fit, quick, state_of
from tests.samples import triplets_of

pytestmark = pytest.mark.kernel

M, N, K = 5, 6, 2
REG = SGD(regularization=(0.1, 0.2), bias_regularization=0.05)
USER_IDS, ITEM_IDS = ["eve", "bob", "Ann", "zoë", "max"], [30, 10, 60, 20, 50, 40]
OLD = {
    (0, 0): 5.0, (0, 2): 3.0, (0, 5): 1.0, (1, 1): 4.0, (1, 2): 2.0, (2, 0): 1.0, (2, 3): 5.0,
    (3, 1): 2.0, (3, 4): 4.0, (4, 3): 3.0, (4, 4): 1.0, (4, 5): 5.0,
}  # fmt: skip
NEW = {(0, 1): 4.0, (1, 2): 5.0, (5, 0): 2.0, (5, 6): 4.0, (3, 6): 1.0, (7, 3): 5.0}
ITEMS, VALUES = np.array([4, 0, 2]), np.array([5.0, 1.0, 3.5])
BOTH = pytest.mark.parametrize("biases", [False, True], ids=["plain", "biased"])


def make_ratings(cells, users, items, **options):
    R = triplets_of(cells, (len(users), len(items)))
    return mf.Ratings(R, user_ids=users, item_ids=items, **options)


def make_model(biases=False, ids=False, dtype=np.float64, seed=0, **options):
    """Return a model of random numbers, which holds OLD."""
    rng = np.random.default_rng(seed)
    P, Q, b, c = (rng.normal(size=size).astype(dtype) for size in ((M, K), (K, N), M, N))
    names = {"user_ids": USER_IDS, "item_ids": ITEM_IDS} if ids else {}
    settings = {"mean": 3.0, "settings": REG, "ratings": mf.Ratings(triplets_of(OLD), dtype=dtype, **names)}
    if biases:
        settings |= {"user_bias": b, "item_bias": c}
    return mf.Factors(P, Q, **settings | names | options)


def ridge(Y, base, r, reg, bias_reg, w=None):
    """Return the best factors and bias of one row; base is None if there are no biases."""
    Y, r, w = Y.astype(np.float64), np.asarray(r, np.float64), np.ones(len(r)) if w is None else w
    reg = np.full(Y.shape[1], reg)
    if base is not None:
        Y, r, reg = np.column_stack([Y, np.ones(r.size)]), r - base, np.append(reg, bias_reg)
    if r.size == 0:
        return np.zeros(K), 0.0
    x = np.linalg.solve((Y.T * w) @ Y + w.sum() * np.diag(reg), Y.T @ (w * r))
    return (x, 0.0) if base is None else (x[:-1], x[-1])


def assert_row(folded, row, model, items, values, reg=REG.regularization[0], bias_reg=0.05, w=None):
    items = np.asarray(items, np.int64)
    base = None if model.item_bias is None else model.mean + model.item_bias[items]
    x, b = ridge(model.Q.T[items], base, values, reg, bias_reg, w)
    np.testing.assert_allclose(folded.P[row], x, rtol=1e-5, atol=1e-5)
    if base is not None:
        np.testing.assert_allclose(folded.user_bias[row], b, rtol=1e-5, atol=1e-5)


def alternated(model, new):
    """Return P, Q, b_u and b_i after partial_fit, by NumPy: users and items by turns, twice."""
    cells = OLD | new
    m, n = (max(size, *(cell[side] + 1 for cell in new)) for side, size in ((0, M), (1, N)))
    rows, biases, known = [], [], [np.arange(m) < M, np.arange(n) < N]
    for X, b, size in ((model.P, model.user_bias, m), (model.Q.T, model.item_bias, n)):
        rows.append(np.zeros((size, K)))
        rows[-1][: len(X)] = X
        biases.append(np.zeros(size))
        biases[-1][: len(X)] = 0 if b is None else b
    for side in (0, 1) * 2:
        other = 1 - side
        for row in {cell[side] for cell in new}:
            seen = [cell for cell in cells if cell[side] == row]
            if model.user_bias is None:
                seen = [cell for cell in seen if known[other][cell[other]]]
            at = np.array([cell[other] for cell in seen], np.int64)
            base = None if model.user_bias is None else model.mean + biases[other][at]
            r = [cells[cell] for cell in seen]
            rows[side][row], biases[side][row] = ridge(
                rows[other][at], base, r, REG.regularization[side], REG.bias_regularization
            )
        known[side][list({cell[side] for cell in new})] = True
    return rows[0], rows[1].T, *biases


# fold_in


def strangers_in(form):
    dense = np.zeros((1, N))
    dense[0, ITEMS] = VALUES
    return {
        "dict": dict(zip(ITEMS.tolist(), VALUES.tolist(), strict=True)),
        "pair": (ITEMS, VALUES),
        "pair of lists": (ITEMS.tolist(), VALUES.tolist()),
        "dense": dense,
        "csr": sparse.csr_array(dense),
        "csr matrix": sparse.csr_matrix(dense),
        "coo": sparse.coo_array(dense),
        "triplets": (np.zeros(3, int), ITEMS, VALUES),
        "triplets with shape": (np.zeros(3, int), ITEMS, VALUES, (1, N)),
        "Ratings": mf.Ratings(dense),
    }[form]


FORMS = ["dict", "pair", "pair of lists", "dense", "csr", "csr matrix", "coo", "triplets",
         "triplets with shape", "Ratings"]  # fmt: skip


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float64))
@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_fold_in__solves_the_normal_equations_for_every_form(form, biases, dtype):
    model = make_model(biases, dtype=dtype)
    before = state_of(model)
    folded = model.fold_in(strangers_in(form))
    assert folded.shape == (1, N)
    assert folded.P.dtype == dtype
    assert (folded.user_bias is None) == (not biases)
    assert_row(folded, 0, model, ITEMS, VALUES)
    assert state_of(model) == before


@BOTH
def test_fold_in__solves_each_row_of_several(biases):
    model = make_model(biases)
    R = np.array([[5.0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0], [1, 2, 3, 4, 5, 1]])
    folded = model.fold_in(R)
    for row, r in enumerate(R):
        assert_row(folded, row, model, np.flatnonzero(r), r[r > 0])
    np.testing.assert_array_equal(folded.known_users, [True, False, True, True])
    np.testing.assert_array_equal(folded.Q, model.Q)
    assert not folded.P[1].any()


@BOTH
def test_fold_in__serves_a_trained_model(biases):
    model = fit(DENSE, biases=biases, dtype=np.float64)
    folded = model.fold_in({0: 5, 2: 1})
    reg, bias_reg = model.settings.regularization[0], model.settings.bias_regularization
    assert_row(folded, 0, model, [0, 2], [5, 1], reg, bias_reg)


@BOTH
def test_fold_in__finds_items_by_id(biases):
    model = make_model(biases, ids=True)
    cells = {(0, 0): 5.0, (0, 1): 1.0, (1, 2): 3.0}
    folded = model.fold_in(make_ratings(cells, ["new", "bob"], [50, 30, 60]))
    assert_row(folded, 0, model, [4, 0], [5, 1])
    assert_row(folded, 1, model, [2], [3])
    assert folded.user_rows("bob") == 1
    assert folded.item_columns(50) == 4
    assert sorted(folded.ratings.indices[:2]) == [0, 4]


@pytest.mark.slow
def test_fold_in__takes_weights_along_with_ids():
    model, w = make_model(True, ids=True), np.array([2.0, 0.5, 1.0])
    R = mf.Ratings((np.zeros(3, int), [0, 1, 2], VALUES), item_ids=[50, 30, 60], sample_weight=w)
    folded = model.fold_in(R)
    assert_row(folded, 0, model, [4, 0, 2], VALUES, w=w)
    assert dict(zip(folded.ratings.indices, folded.ratings.weights, strict=True)) == {4: 2, 0: 0.5, 2: 1}


@pytest.mark.parametrize("form", ["dict", "dense", "triplets"])
def test_fold_in__predicts_a_stranger_without_ratings_by_the_mean(form):
    R = {"dict": {}, "dense": np.zeros((1, N)), "triplets": ([], [], [], (1, N))}[form]
    plain, biased = make_model(), make_model(True)
    assert (plain.fold_in(R).predict(0, np.arange(N)) == plain.mean).all()
    expected = biased.mean + biased.item_bias
    np.testing.assert_allclose(biased.fold_in(R).predict(0, np.arange(N)), expected)


@pytest.mark.parametrize("why", quick(["unknown item", "no weight"], "unknown item"))
def test_fold_in__predicts_by_the_mean_who_says_nothing(why):
    model = make_model(known_items=np.arange(N) != 3)
    R = np.zeros((2, N))
    R[0, 3 if why == "unknown item" else 0], R[1, 2] = 5, 4
    new_users = mf.Ratings(R, sample_weight=None if why == "unknown item" else (R != 5).astype(float))
    folded = model.fold_in(new_users)
    assert (folded.predict(0, np.arange(N)) == model.mean).all()


@BOTH
def test_fold_in__takes_another_regularization(biases):
    model = make_model(biases)
    folded = model.fold_in((ITEMS, VALUES), regularization=2.0, bias_regularization=1.0)
    assert_row(folded, 0, model, ITEMS, VALUES, 2.0, 1.0)
    folded = model.fold_in((ITEMS, VALUES), regularization=0, bias_regularization=3.0)
    assert_row(folded, 0, model, ITEMS, VALUES, 0.0, 3.0)


@BOTH
def test_fold_in__gives_a_model_that_predicts_and_recommends(biases):
    model = make_model(biases)
    folded = model.fold_in((ITEMS, VALUES))
    b = folded.user_bias[0] + model.mean + model.item_bias if biases else 0
    scores = folded.P[0] @ model.Q + b
    np.testing.assert_allclose(folded.predict(0, np.arange(N)), scores)
    left = np.array([1, 3, 5])
    found = folded.recommend(0, 5)
    np.testing.assert_array_equal(found.items, left[np.argsort(-scores[left])])
    np.testing.assert_array_equal(folded.recommend(0, N, exclude_seen=False).items, np.argsort(-scores))
    for form in ("dict", "pair"):
        np.testing.assert_array_equal(model.recommend(strangers_in(form), 5).items, found.items)
    assert model.recommend(strangers_in("csr"), 5).items[0].compressed().tolist() == found.items.tolist()


@pytest.mark.parametrize(
    ("R", "error", "message"),
    [
        ({N: 1.0}, ValueError, r"items.*= 6.*n_items = 6"),
        ({0: 1.0, -1: 1.0}, ValueError, r"items\[1\] = -1.*negative"),
        ({0.5: 1.0}, TypeError, "items must be integers"),
        ({"x": 1.0}, TypeError, "items must be integers"),
        ({0: np.nan}, ValueError, "nan.*finite"),
        (([0, 1], [1.0, np.inf]), ValueError, "inf.*finite"),
        (([0, 1], [1.0]), ValueError, "2.*1"),
        (([1, 1], [1.0, 2.0]), ValueError, "duplicate"),
        (([0], ["good"]), TypeError, "dtype"),
        (np.ones((1, N + 1)), ValueError, r"6 items.*\(1, 7\)"),
        (np.ones((2, N - 1)), ValueError, r"6 items.*\(2, 5\)"),
        (sparse.csr_array(np.ones((1, N + 1))), ValueError, r"6 items.*\(1, 7\)"),
        (([0], [N], [1.0]), ValueError, r"6 items.*\(1, 7\)"),
        (mf.Ratings([[1.0]], item_ids=[70]), KeyError, "item id 70 is not in the model"),
        (
            mf.Ratings([[1.0]], item_ids=["Heat"]),
            ValueError,
            "item ids are integers in the model and text in ratings",
        ),
    ],
    ids=str,
)
def test_fold_in__names_what_is_wrong(R, error, message):
    model = make_model(ids=isinstance(R, mf.Ratings))
    before = state_of(model)
    with pytest.raises(error, match=message):
        model.fold_in(R)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"regularization": -1.0}, ValueError, "regularization.*-1"),
        ({"bias_regularization": np.nan}, ValueError, "bias_regularization.*nan"),
        ({"regularization": "x"}, TypeError, "regularization.*'x'"),
        ({"n_threads": 0}, ValueError, "n_threads.*0"),
    ],
    ids=str,
)
def test_fold_in__names_a_wrong_option(options, error, message):
    with pytest.raises(error, match=message):
        make_model().fold_in({0: 1.0}, **options)


@pytest.mark.slow
@BOTH
def test_fold_in__takes_both_kinds_of_logistic_ratings(biases):
    known = mf.Ratings((*triplets_of(OLD)[:2], np.tile([0.0, 1], 6)))
    model = make_model(biases, settings=replace(REG, loss="logistic"), ratings=known)
    zeros, ones = (model.fold_in(([0, 2, 3], [low, 1.0, low])) for low in (0.0, -1.0))
    assert_same(zeros, ones)
    y, r = model.Q.T[[0, 2, 3]], np.array([0.0, 1, 0])
    errors = zeros.predict(0, [0, 2, 3]) - r
    np.testing.assert_allclose(y.T @ errors + 3 * 0.1 * zeros.P[0], 0, atol=1e-6)
    if biases:
        np.testing.assert_allclose(errors.sum() + 3 * 0.05 * zeros.user_bias[0], 0, atol=1e-6)
    with pytest.raises(ValueError, match="logistic.*= 5"):
        model.fold_in({0: 5.0})


def test_fold_in__asks_for_the_regularization_if_the_model_has_none():
    model = make_model(settings=SGD())
    with pytest.raises(ValueError, match="regularization="):
        model.fold_in({0: 1.0})
    assert_row(model.fold_in((ITEMS, VALUES), regularization=0.3), 0, model, ITEMS, VALUES, 0.3)


@pytest.mark.slow
@BOTH
def test_fold_in__gives_the_same_bits_on_any_number_of_threads(biases, rng, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 300)
    model, R = make_model(biases, dtype=np.float32), rng.integers(0, 6, (20, N))
    one, three = (model.fold_in(R, n_threads=n) for n in (1, 3))
    assert state_of(one) == state_of(three)


@given(
    counts=st.lists(st.integers(0, N), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    reg=st.sampled_from([0.01, 0.1, 10.0]),
    biases=st.booleans(),
    form=st.sampled_from(["triplets", "csr", "Ratings", "rows"]),
)
def test_fold_in__equals_ridge_regression(counts, seed, scale, reg, biases, form):
    rng, model = np.random.default_rng(seed), make_model(biases, seed=seed)
    rows = [(rng.permutation(N)[:count], scale * rng.normal(size=count)) for count in counts]
    users = np.repeat(np.arange(len(rows)), counts)
    R = users, *(np.concatenate(part) for part in zip(*rows, strict=True)), (len(rows), N)
    if form == "rows":
        found = [model.fold_in(row, regularization=reg) for row in rows]
        pairs = [(folded, 0) for folded in found]
    else:
        R = {"triplets": R, "csr": mf.Ratings(R).to_scipy(), "Ratings": mf.Ratings(R)}[form]
        folded = model.fold_in(R, regularization=reg)
        pairs = [(folded, row) for row in range(len(rows))]
    for (folded, row), (items, values) in zip(pairs, rows, strict=True):
        assert_row(folded, row, model, items, values, reg)


@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_fold_in__computes_the_gram_matrix_of_the_items_once(k, n_threads, monkeypatch):
    R = mf.datasets.synthetic(60, 90, 900, rng=1)
    model = mf.factorize(R.with_values(np.ones(R.nnz)), k, "implicit", rng=0, epochs=2)
    twin, later = (mf.Factors.of_state(dataclasses.replace(model.state)) for _ in range(2))
    calls = []
    monkeypatch.setattr("mfkernel.model.state.gram", lambda *given: calls.append(1) or gram(*given))
    new = [{0: 1.0, 5: 2.0, 7: 1.0}, {3: 1.0}, {}]
    found = [model.fold_in(ratings, n_threads=n_threads) for ratings in new * 2]
    model.recommend({4: 1.0}, 3)
    model.explain(0, int(R.indices[0]))
    assert len(calls) == 1
    monkeypatch.undo()
    for ratings, folded in zip(new * 2, found, strict=True):
        assert folded.P.tobytes() == twin.fold_in(ratings, n_threads=1).P.tobytes()
    everyone = later.fold_in(R, n_threads=2).P  # many ratings use all rows of Y
    one = [later.fold_in((R.indices[a:b], R.values[a:b])).P[0] for a, b in pairwise(R.indptr)]
    np.testing.assert_array_equal(everyone, one)
    model.partial_fit(([0], [90], [3.0]))
    fresh = mf.Factors.of_state(dataclasses.replace(model.state))
    assert model.fold_in({90: 1.0}).P.tobytes() == fresh.fold_in({90: 1.0}).P.tobytes()


# partial_fit


@BOTH
def test_partial_fit__solves_users_and_items_by_turns(biases):
    model = make_model(biases)
    expected = alternated(model, NEW)
    assert model.partial_fit(triplets_of(NEW)) is model
    assert model.shape == model.ratings.shape == (8, 7)
    for found, wanted in zip((model.P, model.Q, model.user_bias, model.item_bias), expected, strict=True):
        if found is not None:
            np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(model.known_users, np.arange(8) != 6)
    assert model.known_items.all()


@BOTH
def test_partial_fit__lets_new_ratings_replace_old(biases):
    model = make_model(biases).partial_fit(triplets_of(NEW))
    users, items = model.ratings.users.tolist(), model.ratings.items.tolist()
    found = dict(zip(zip(users, items, strict=True), model.ratings.values.tolist(), strict=True))
    assert found == OLD | NEW
    assert found[1, 2] == 5


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float64))
@BOTH
def test_partial_fit__leaves_other_rows_alone(biases, dtype):
    model, before = make_model(biases, dtype=dtype), make_model(biases, dtype=dtype)
    model.partial_fit(triplets_of(NEW))
    users, items = [2, 4], [4, 5]
    np.testing.assert_array_equal(model.P[users], before.P[users])
    np.testing.assert_array_equal(model.Q[:, items], before.Q[:, items])
    if biases:
        np.testing.assert_array_equal(model.user_bias[users], before.user_bias[users])
        np.testing.assert_array_equal(model.item_bias[items], before.item_bias[items])
    assert (model.P[[0, 1, 3]] != before.P[[0, 1, 3]]).any(axis=1).all()
    assert (model.Q[:, :4] != before.Q[:, :4]).any(axis=0).all()
    assert (model.mean, model.settings, model.P.dtype) == (before.mean, before.settings, dtype)


def test_partial_fit__leaves_the_old_arrays_alone():
    model, before = make_model(), make_model()
    P, Q = model
    model.partial_fit(triplets_of(NEW))
    np.testing.assert_array_equal(P, before.P)
    np.testing.assert_array_equal(Q, before.Q)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("ids", [False, True], ids=["numbers", "ids"])
def test_partial_fit__predicts_the_new_ratings_better(biases, ids):
    R = mf.datasets.synthetic(30, 20, 250, rng=2)
    names = {"user_ids": np.arange(30) * 3, "item_ids": np.arange(20)[::-1]} if ids else {}
    model = mf.factorize(mf.Ratings(R, **names), 3, biases=biases, epochs=5, rng=0)
    new = mf.Ratings((R.users[::5], R.items[::5], 6 - R.values[::5], R.shape), **names)
    before = model.rmse(new)
    assert model.partial_fit(new).rmse(new) < before
    assert model.shape == R.shape


def test_partial_fit__knows_users_without_ratings_by_the_mean():
    model = make_model().partial_fit(([0], [0], [4.0], (M + 1, N + 2)))
    assert model.shape == (M + 1, N + 2)
    assert (model.predict(M, np.arange(N + 2)) == model.mean).all()
    assert (model.predict(np.arange(M), N) == model.mean).all()


@BOTH
def test_partial_fit__does_not_harm_a_new_user_of_a_new_item(biases):
    model = make_model(biases).partial_fit(([M], [N], [4.0]))
    assert abs(model.predict(M, N) - 4.0) <= abs(model.mean - 4.0)


@BOTH
def test_partial_fit__finds_ids_and_appends_new_ones(biases):
    numbered = make_model(biases).partial_fit(
        triplets_of({(3, 0): 1.0, (5, 2): 5.0, (5, 6): 2.0, (0, 6): 4.0})
    )
    new = {(2, 1): 1.0, (0, 2): 5.0, (0, 0): 2.0, (1, 0): 4.0}
    model = make_model(biases, ids=True)
    model.user_rows("bob")
    model.partial_fit(make_ratings(new, ["someone else", "eve", "zoë"], [5, 30, 60]))
    assert_same(model, numbered)
    assert model.user_ids.tolist() == [*USER_IDS, "someone else"]
    assert model.item_ids.tolist() == [*ITEM_IDS, 5]
    assert model.user_rows(["someone else", "eve"]).tolist() == [5, 0]
    assert model.item_columns([5, 30]).tolist() == [6, 0]


def test_partial_fit__does_not_change_what_ids_are_of():
    model = make_model(ids=True)
    model.partial_fit(make_ratings({(0, 0): 4.0}, ["max", "new"], np.array([10, 70], np.uint64)))
    assert model.item_ids.dtype.kind in "iu"
    assert model.item_ids.tolist() == [*ITEM_IDS, 70]


def damaged_triplets(kind):
    users, items, values = triplets_of(NEW)
    if kind in ("nan", "inf"):
        values[2] = float(kind)
    return {
        "nan": (users, items, values),
        "inf": (users, items, values),
        "duplicates": ([0, 0], [1, 1], [2.0, 3.0]),
        "negative user": ([-1], [0], [1.0]),
        "fractional item": ([0], [0.5], [1.0]),
        "lengths": ([0, 1], [0], [1.0]),
        "one dimension": np.ones(3),
        "text": "ratings.csv",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["nan", "inf", "duplicates", "negative user", "fractional item", "lengths", "one dimension", "text"],
)
@BOTH
def test_partial_fit__leaves_the_model_as_it_was_if_ratings_are_bad(biases, kind):
    model = make_model(biases)
    before = state_of(model)
    with pytest.raises((TypeError, ValueError)):
        model.partial_fit(damaged_triplets(kind))
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("model_ids", "names", "message"),
    [
        (True, {}, "new ratings must have user ids like the old ratings, got none"),
        (True, {"user_ids": ["eve"]}, "new ratings must have item ids like the old ratings, got none"),
        (False, {"user_ids": ["eve"]}, "old ratings must have user ids like the new ratings, got none"),
        (False, {"item_ids": [10]}, "old ratings must have item ids like the new ratings, got none"),
        (
            True,
            {"user_ids": ["eve"], "item_ids": ["x"]},
            "item ids are integers in the old ratings and text in the new",
        ),
        (
            True,
            {"user_ids": [1], "item_ids": [10]},
            "user ids are text in the old ratings and integers in the new",
        ),
    ],
)
def test_partial_fit__leaves_the_model_as_it_was_if_ids_do_not_fit(model_ids, names, message):
    model = make_model(ids=model_ids)
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(mf.Ratings([[4.0]], **names))
    assert state_of(model) == before


@pytest.mark.parametrize("call", range(4))
@BOTH
def test_partial_fit__leaves_the_model_as_it_was_if_it_is_cut_off(biases, call, monkeypatch):
    model, calls = make_model(biases), []
    before, solve = state_of(model), foldin.solve_rows

    def cut_off(*args, **options):
        calls.append(1)
        if len(calls) > call:
            raise KeyboardInterrupt
        return solve(*args, **options)

    monkeypatch.setattr("mfkernel.model.foldin.solve_rows", cut_off)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(triplets_of(NEW))
    assert state_of(model) == before


def test_partial_fit__says_what_it_lacks():
    with pytest.raises(ValueError, match="must have its training ratings for partial_fit"):
        make_model(ratings=None).partial_fit(triplets_of(NEW))
    model = make_model(settings=SGD())
    before = state_of(model)
    with pytest.raises(ValueError, match="regularization"):
        model.partial_fit(triplets_of(NEW))
    assert state_of(model) == before


def test_partial_fit__applies_missing_and_duplicates():
    expected = make_model().partial_fit(([0, 1], [0, 0], [2.0, 0.0]))
    assert_same(make_model().partial_fit(np.array([[2.0], [0]]), missing="nan"), expected)
    model = make_model().partial_fit(([0, 0, 1], [0, 0, 0], [4.0, 2, 0]), duplicates="last")
    assert_same(model, expected)


@BOTH
def test_partial_fit__goes_on_from_a_file(biases, tmp_path):
    model = fit(DENSE, biases=biases, dtype=np.float64)
    model.save(tmp_path / "model.npz")
    loaded = mf.load(tmp_path / "model.npz")
    for one in (model, loaded):
        one.partial_fit(triplets_of({(4, 0): 5.0, (4, 3): 1.0, (0, 0): 2.0}))
    assert model.shape == (5, 4)
    assert state_of(loaded) == state_of(model)


def test_partial_fit__goes_on_from_a_file_with_ids(tmp_path):
    model, new = make_model(ids=True), make_ratings({(0, 0): 4.0, (1, 1): 2.0}, ["bob", "new"], [5, 30])
    model.save(tmp_path / "model.npz")
    loaded = mf.load(tmp_path / "model.npz")
    for one in (model, loaded):
        one.partial_fit(new)
    assert state_of(loaded) == state_of(model)


def test_partial_fit__goes_on_from_strangers_with_ids():
    new_users = make_model(ids=True).fold_in(make_ratings({(0, 0): 5.0, (0, 1): 1.0}, ["new"], [50, 30]))
    new_users.partial_fit(make_ratings({(0, 0): 4.0, (1, 1): 2.0}, ["new", "newer"], [60, 50]))
    assert new_users.user_ids.tolist() == ["new", "newer"]
    assert new_users.item_ids.tolist() == ITEM_IDS
    assert sorted(new_users.ratings.items[:3]) == [0, 2, 4]


def test_partial_fit__does_not_lose_the_ids_of_a_model_from_a_file(tmp_path):
    make_model(ids=True).save(tmp_path / "model.npz")
    model = mf.load(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="user ids"):
        model.partial_fit(triplets_of(NEW))
    assert model.user_ids.tolist() == USER_IDS


@BOTH
def test_partial_fit__changes_what_is_recommended(biases):
    model = make_model(biases)
    model.recommend(0)  # what it keeps for this must not outlive the change
    model.partial_fit(triplets_of(NEW))
    scores = model.predict(0, np.arange(7))
    left = np.array([3, 4, 6])
    found = model.recommend(0, 7)
    np.testing.assert_array_equal(found.items, left[np.argsort(-scores[left])])
    np.testing.assert_allclose(found.scores[:3], np.sort(scores[left])[::-1])
    assert set(model.recommend(5, 7).items.tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.slow
def test_partial_fit__takes_logistic_ratings():
    logistic = replace(REG, loss="logistic")
    known = mf.Ratings((*triplets_of(OLD)[:2], np.tile([0.0, 1], 6)))
    zeros, ones = (make_model(True, settings=logistic, ratings=known) for _ in range(2))
    zeros.partial_fit(([0, 5, 5], [1, 0, 6], [0.0, 1, 0]))
    ones.partial_fit(([0, 5, 5], [1, 0, 6], [-1.0, 1, -1]))
    assert state_of(zeros) == state_of(ones)
    assert zeros.predict(5, 0) > 0.5 > zeros.predict(5, 6)


def test_partial_fit__keeps_what_it_solves_nonnegative():
    other = make_model(True)
    settings = replace(REG, nonnegative=True)
    model = mf.Factors.of_state(
        dataclasses.replace(other.state, P=np.abs(other.P), Q=np.abs(other.Q), settings=settings)
    ).partial_fit(triplets_of(NEW))
    assert (model.P[[0, 1, 3, 5, 7]] >= 0).all()
    assert (model.Q[:, [0, 1, 2, 3, 6]] >= 0).all()


def test_partial_fit__goes_by_the_ids_of_the_model():
    model, new = (
        make_model(ids=True, ratings=mf.Ratings(triplets_of(OLD))),
        make_ratings({(0, 0): 4.0}, ["max"], [30]),
    )
    assert_same(model.partial_fit(new), make_model(ids=True).partial_fit(new))
    assert model.item_ids.tolist() == ITEM_IDS


@pytest.mark.slow
def test_partial_fit__unites_weights():
    model = make_model(True, ratings=mf.Ratings(triplets_of(OLD), sample_weight=np.full(12, 2.0)))
    R = mf.Ratings(([0], [0], [1.0]), sample_weight=[3.0])
    weights = model.partial_fit(R).ratings.weights
    assert weights.tolist() == [3.0] + [2.0] * 11
    assert model.partial_fit(([0], [1], [1.0])).ratings.weights.tolist() == [3.0, 1.0] + [2.0] * 11


@BOTH
def test_partial_fit__gives_the_same_bits_on_any_number_of_threads(biases, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 300)
    one, three = (make_model(biases).partial_fit(triplets_of(NEW), n_threads=n) for n in (1, 3))
    assert state_of(one) == state_of(three)


@BOTH
def test_partial_fit__changes_nothing_without_ratings(biases):
    model, before = make_model(biases), make_model(biases)
    assert state_of(model.partial_fit(([], [], []))) == state_of(before)


cells = st.dictionaries(
    st.tuples(st.integers(0, M + 2), st.integers(0, N + 2)), st.integers(1, 5), min_size=1, max_size=8
)


@given(new=cells, order=st.randoms(use_true_random=False), biases=st.booleans(), seed=st.integers(0, 99))
def test_partial_fit__does_not_depend_on_the_order_of_the_ratings(new, order, biases, seed):
    shuffled = list(new)
    order.shuffle(shuffled)
    one = make_model(biases, seed=seed).partial_fit(triplets_of(new))
    other = make_model(biases, seed=seed).partial_fit(triplets_of({cell: new[cell] for cell in shuffled}))
    assert state_of(one) == state_of(other)


@given(new=cells, biases=st.booleans(), seed=st.integers(0, 99))
def test_partial_fit__equals_ridge_regressions_by_turns(new, biases, seed):
    new = {(u, i): r for (u, i), r in new.items() if u < M or i < N}  # each says something from the first
    assume(new)
    model = make_model(biases, seed=seed)
    expected = alternated(model, new)
    model.partial_fit(triplets_of(new))
    np.testing.assert_allclose(model.P, expected[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.Q, expected[1], rtol=1e-6, atol=1e-8)


@given(new=cells, biases=st.booleans(), at=st.integers(0, 7), bad=st.sampled_from(["nan", "user", "again"]))
def test_partial_fit__never_changes_the_model_if_it_fails(new, biases, at, bad):
    users, items, values = triplets_of(new)
    at %= users.size
    if bad == "nan":
        values[at] = np.nan
    elif bad == "user":
        users[at] = -1
    else:
        users, items, values = (np.append(x, x[at]) for x in (users, items, values))
    model = make_model(biases)
    before = state_of(model)
    with pytest.raises(ValueError, match="finite|negative|duplicate"):
        model.partial_fit((users, items, values))
    assert state_of(model) == before


# factorize from a model

STILL = {"epochs": 1, "learning_rate": 1e-9, "bias_learning_rate": 1e-9, "dtype": np.float64}


@BOTH
def test_factorize__goes_on_from_a_model(biases):
    R = mf.datasets.synthetic(30, 20, 250, rng=2)
    first = mf.factorize(R, 3, biases=biases, epochs=10, rng=0)
    again = mf.factorize(R, 3, biases=biases, epochs=4, rng=1, init=first)
    own = first.rmse(R)
    assert again.history[0].rmse == pytest.approx(own, rel=0.1)
    assert again.rmse(R) < own
    assert len(again.history) == 4


@BOTH
def test_factorize__starts_where_the_model_is(biases):
    first = fit(DENSE, biases=biases)
    before = state_of(first)
    more = np.zeros((6, 5))
    more[:4, :3], more[4, 4] = (
        DENSE,
        1,
    )  # and another mean; the last row and the last but one column are empty
    again = fit(more, biases=biases, init=first, **STILL)
    users, items = np.arange(4)[:, None], np.arange(3)
    np.testing.assert_allclose(again.predict(users, items), first.predict(users, items), atol=1e-5)
    assert again.shape == (6, 5)
    assert again.known_users.tolist() == [True] * 5 + [False]
    assert again.known_items.tolist() == [True] * 3 + [False, True]
    assert again.mean != first.mean
    assert state_of(first) == before


def test_factorize__starts_where_a_logistic_model_is():
    R, options = np.where(DENSE > 0, np.where(DENSE > 2, 1.0, -1.0), 0), {"loss": "logistic", "biases": True}
    first, fewer = fit(R, **options), R.copy()
    fewer[0, 1] = 0
    again = fit(fewer, init=first, **options, **STILL)
    np.testing.assert_allclose(again.reconstruct(), first.reconstruct(), atol=1e-5)


@BOTH
def test_factorize__finds_rows_of_the_model_by_id(biases):
    users, items = np.array(["a", "b", "c", "d"]), np.array([7, 5, 6])
    first = fit(mf.Ratings(DENSE, user_ids=users, item_ids=items), biases=biases)
    rows, columns = [3, 1, 0, 2], [2, 0, 1]
    moved = np.pad(DENSE[rows][:, columns], ((1, 0), (0, 1)), constant_values=3)
    names = {"user_ids": ["new", *users[rows]], "item_ids": [*items[columns], 1]}
    again = fit(mf.Ratings(moved, **names), biases=biases, init=first, **STILL)
    np.testing.assert_allclose(again.P[1:], first.P[rows], atol=1e-6)
    np.testing.assert_allclose(again.Q[:, :3], first.Q[:, columns], atol=1e-6)
    pairs = users[:, None], items
    np.testing.assert_allclose(again.predict(*pairs), first.predict(*pairs), atol=1e-5)


def test_factorize__keeps_what_only_the_model_has_known():
    first, fewer = fit(DENSE), DENSE.copy()
    fewer[3] = 0
    again = fit(fewer, init=first, **STILL)
    np.testing.assert_allclose(again.P[3], first.P[3], atol=1e-6)
    assert again.known_users.all()


@pytest.mark.parametrize(
    ("R", "options", "message"),
    [
        (DENSE, {"k": 3}, "k must be that of init, 2, got k = 3"),
        (DENSE, {"biases": True}, "biases must be False as in init, got True"),
        (DENSE[:3], {}, "init must have at most R's 3 users, got 4"),
        (DENSE[:, :2], {}, "init must have at most R's 2 items, got 3"),
    ],
)
def test_factorize__refuses_a_model_that_does_not_fit(R, options, message):
    with pytest.raises(ValueError, match=message):
        fit(R, init=fit(DENSE), **options)


def test_factorize__refuses_a_model_with_biases_if_none_are_wanted():
    with pytest.raises(ValueError, match="biases must be True as in init, got False"):
        fit(DENSE, init=fit(DENSE, biases=True))


def test_factorize__goes_on_without_those_whom_the_ratings_no_longer_have():
    first = fit(mf.Ratings(DENSE, user_ids=["a", "b", "c", "d"]))
    R = mf.Ratings(DENSE, user_ids=["a", "x", "c", "b"])
    model = fit(R, init=first, learning_rate=1e-9, regularization=0.0, epochs=1)
    np.testing.assert_allclose(model.P[[0, 3, 2]], first.P[:3], rtol=1e-5)  # the steps are that small
    assert not np.allclose(model.P[1], first.P[3], rtol=1e-2)


def test_factorize__keeps_nonnegative_factors_so_whatever_the_model():
    R = DENSE.copy()
    R[0] = 0  # a row that training does not touch
    first = mf.Factors(-np.ones((4, 2)), np.ones((2, 3)), mean=3.0)
    try:
        model = fit(R, init=first, nonnegative=True)
    except ValueError:
        return
    assert (model.P >= 0).all()


# save and load


def saved(model, path, **options):
    model.save(path, **options)
    return mf.load(path)


@pytest.mark.filterwarnings("ignore:the validation RMSE")
@BOTH
def test_save__keeps_all_of_a_trained_model(biases, tmp_path):
    R, held_out = mf.datasets.synthetic(30, 20, 250, rng=2).hold_out(50, np.random.default_rng(0))
    model = mf.factorize(
        R, 3, biases=biases, epochs=4, rng=0, validation=held_out, patience=4, decay="linear",
        regularization=(0.5, 0.25), sample_weight=np.linspace(0.5, 2, R.nnz), loss="huber", l1=(0.0, 0.01),
    )  # fmt: skip
    assert model.history[0].validation_rmse is not None
    history = [*model.history, mf.Epoch(5, 9.5, 0.25, 0.5, None, 3)]
    model = mf.Factors.of_state(dataclasses.replace(model.state, history=tuple(history)))
    loaded = saved(model, tmp_path / "model.npz")
    assert state_of(loaded) == state_of(model)
    assert isinstance(loaded.history[-1].rolled_back_to, int)
    assert loaded.ratings.shape == model.ratings.shape
    assert isinstance(loaded.settings.regularization, tuple)


@pytest.mark.slow
@BOTH
def test_save__keeps_a_model_that_has_gone_on(biases, tmp_path):
    model = make_model(biases, dtype=np.float32).partial_fit(triplets_of(NEW))
    assert state_of(saved(model, tmp_path / "model.npz")) == state_of(model)
    folded = model.fold_in((ITEMS, VALUES))
    assert state_of(saved(folded, tmp_path / "folded.npz")) == state_of(folded)
    nobody = model.fold_in({})
    assert state_of(saved(nobody, tmp_path / "nobody.npz")) == state_of(nobody)


def test_save__leaves_ratings_out_if_asked(tmp_path):
    model = make_model(True)
    loaded = saved(model, tmp_path / "model.npz", ratings=False)
    assert loaded.ratings is None
    assert state_of(loaded) == state_of(mf.Factors.of_state(dataclasses.replace(model.state, ratings=None)))
    with np.load(tmp_path / "model.npz") as arrays:
        assert not [name for name in arrays if "ratings" in name]
    with pytest.raises(ValueError, match="exclude_seen=False"):
        loaded.recommend(0)
    with pytest.raises(ValueError, match="must have its training ratings for partial_fit"):
        loaded.partial_fit(triplets_of(NEW))
    assert_same(loaded.fold_in((ITEMS, VALUES)), model.fold_in((ITEMS, VALUES)))


def test_load__reads_the_first_format(tmp_path):
    model = make_model(dtype=np.float32)
    arrays = {"P": model.P, "Q": model.Q, "known_users": np.arange(M) != 2, "known_items": np.ones(N, bool)}
    history = np.array([[1, 0.75, 0.125, 0.1], [2, 0.5, 0.25, 0.05]])
    header = np.array(json.dumps({"format": 1, "mean": 3.5}))
    np.savez(tmp_path / "old.npz", header=header, history=history, **arrays)
    loaded = mf.load(tmp_path / "old.npz")
    assert_same(loaded, model)
    assert (loaded.mean, loaded.stop_reason, loaded.settings) == (3.5, "", SGD())
    assert loaded.history == [mf.Epoch(1, 0.75, 0.125, 0.1), mf.Epoch(2, 0.5, 0.25, 0.05)]
    assert loaded.ratings is loaded.user_bias is loaded.user_ids is None
    assert loaded.predict(2, 0) == 3.5
    assert_row(loaded.fold_in((ITEMS, VALUES), regularization=0.1), 0, model, ITEMS, VALUES, 0.1)
    assert state_of(saved(loaded, tmp_path / "new.npz")) == state_of(loaded)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("indices", lambda x: np.full_like(x, N)),
        ("indices", lambda x: -1 - x),
        ("indices", lambda x: x[:-1]),
        ("indices", lambda x: np.zeros_like(x)),
        ("indices", lambda x: None),
        ("indptr", lambda x: x[:-1]),
        ("indptr", lambda x: x[::-1]),
        ("indptr", lambda x: x + 1),
        ("indptr", lambda x: x * 1000),
        ("values", lambda x: x[:-1]),
        ("values", lambda x: x * np.nan),
        ("values", lambda x: x.astype(str)),
        ("values", lambda x: None),
        ("weights", lambda x: x[:-1]),
        ("weights", lambda x: -x),
        ("weights", lambda x: x * np.inf),
    ],
)
def test_load__names_a_file_with_damaged_ratings(tmp_path, name, change):
    path = tmp_path / "hurt.npz"
    make_model(True, ratings=mf.Ratings(triplets_of(OLD), sample_weight=np.ones(12))).save(path)
    with np.load(path) as arrays:
        changed = dict(arrays)
    changed[f"ratings_{name}"] = change(changed[f"ratings_{name}"])
    np.savez(path, **{name: array for name, array in changed.items() if array is not None})
    with pytest.raises(ValueError, match=r"hurt\.npz"):
        mf.load(path)
