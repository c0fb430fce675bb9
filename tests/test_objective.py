"""Losses, biases, penalties and weights: the reference against mathematics, the package against it.

Also run with the JIT off.
"""

import itertools
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel import reference
from mfkernel.kernels import losses, sgd
from mfkernel.kernels.vectors import rank_token
from mfkernel.linalg.rows import aligned_rows
from mfkernel.methods.objective import link
from mfkernel.options import SGD
from tests.helpers import NO_LIMIT, assert_same, gradient, quick
from tests.samples import random_ratings

pytestmark = pytest.mark.kernel

LOSSES = ["squared", "absolute", "huber", "logistic"]
KINDS = {"absolute": losses.ABSOLUTE, "huber": losses.HUBER, "logistic": losses.LOGISTIC}
PENALTIES = {"λ": {}, "l1": {"l1": (0.3, 0.1)}, "nonnegative": {"nonnegative": True}}
PENALTIES["both"] = PENALTIES["l1"] | PENALTIES["nonnegative"]
TOLERANCE = {np.float32: {"rtol": 1e-3, "atol": 1e-4}, np.float64: {"rtol": 1e-11, "atol": 1e-13}}
SETTINGS = SGD(
    huber_delta=0.4,
    learning_rate=0.05,
    decay="constant",
    regularization=(0.1, 0.3),
    bias_learning_rate=0.03,
    bias_regularization=0.2,
)


def values_of(loss, rng, size):
    return rng.integers(2, size=size).astype(float) if loss == "logistic" else rng.normal(0.5, 1, size)


def table(loss="squared", m=15, n=10, nnz=70, seed=0, dtype=np.float64):
    return random_ratings(m, n, nnz, seed, values=partial(values_of, loss), dtype=dtype)


def random_weights(ratings, seed=3):
    return np.random.default_rng(seed).uniform(0.2, 2, ratings.nnz)


# the reference against mathematics


def objective(r, p, q, b, mean, settings, weight=1.0):
    z = p @ q + (mean + b.sum() if settings.biases else 0)
    reg_p, reg_q = settings.regularization
    penalty = reg_p * p @ p + reg_q * q @ q + settings.bias_regularization * b @ b * settings.biases
    return weight * (reference.loss_of(r, z, settings.loss, settings.huber_delta) + penalty / 2)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_general_update__tends_to_the_gradient_as_steps_shrink(loss, biases, rng):
    tiny, weight, mean = 1e-8, 1.7, 0.4
    settings = replace(SETTINGS, loss=loss, biases=biases, learning_rate=tiny, bias_learning_rate=3 * tiny)
    for r in (0.0, 1.0):
        p, q, b = rng.normal(size=4), rng.normal(size=4), rng.normal(size=2)
        new = [x.copy() for x in (p, q, b)]
        e = reference.general_update(r, *new, mean, settings, weight)
        z = p @ q + (mean + b.sum()) * biases
        assert e == pytest.approx(r - (1 / (1 + np.exp(-z)) if loss == "logistic" else z))
        for at, rate in ((0, tiny), (1, tiny), (2, 3 * tiny)):

            def varied(x, at=at, parts=(p, q, b), r=r):
                return objective(r, *parts[:at], x, *parts[at + 1 :], mean, settings, weight)

            step = (new[at] - (p, q, b)[at]) / rate
            np.testing.assert_allclose(step, -gradient(varied, (p, q, b)[at]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@given(r=st.integers(0, 1), z=st.floats(-20, 20))
def test_pull__is_minus_the_derivative_of_the_loss(loss, r, z):
    e = reference.residual(r, z, loss)
    if loss != "logistic" and min(abs(abs(e) - 0.4), abs(e)) < 1e-4:
        return  # a kink
    slope = gradient(lambda x: reference.loss_of(r, x[0], loss, 0.4), np.array([z]))
    assert reference.negative_gradient(e, loss, 0.4) == pytest.approx(-slope[0], abs=1e-6)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_general_update__makes_the_proximal_step(nonnegative, rng):
    """After the step, what minimizes ½‖x - y‖² + γ λ₁ ‖x‖₁, of the x that are allowed; by a fine grid."""
    l1, weight = (3.0, 8.0), 1.3
    settings, (p, q) = replace(SETTINGS, l1=l1, nonnegative=nonnegative), rng.normal(0, 0.5, (2, 6))
    p_ref, q_ref = p.copy(), q.copy()
    reference.general_update(0.3, p, q, np.zeros(2), 0.0, settings, weight)
    lr, e = weight * settings.learning_rate, 0.3 - p_ref @ q_ref
    grid = np.linspace(0 if nonnegative else -2, 2, 200_001 if nonnegative else 400_001)
    for x, before, other, reg, l1_x in ((p, p_ref, q_ref, 0.1, 3.0), (q, q_ref, p, 0.3, 8.0)):
        y = before + lr * (e * other - reg * before)
        best = [grid[np.argmin(0.5 * (grid - number) ** 2 + lr * l1_x * np.abs(grid))] for number in y]
        np.testing.assert_allclose(x, best, atol=1.1e-5)
        assert (x == 0).any()


def test_general_update__a_weight_of_two_is_nearly_the_rating_twice(rng):
    def moved(weight, times, lr):
        settings = replace(SETTINGS, learning_rate=lr, bias_learning_rate=lr, biases=True)
        p, q, b = start.copy(), start[::-1].copy(), np.zeros(2)
        for _ in range(times):
            reference.general_update(1.5, p, q, b, 0.2, settings, weight)
        return np.concatenate([p - start, q - start[::-1], b]) / lr

    start = rng.normal(size=3)
    gaps = [np.abs(moved(2.0, 1, lr) - moved(1.0, 2, lr)).max() for lr in (1e-3, 1e-4)]
    assert gaps[1] < 2e-2
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


# the kernels against the reference


def start_of(ratings, k, dtype, settings, seed=0):
    rng = np.random.default_rng(seed)
    P, Q = (aligned_rows(n, k, np.dtype(dtype)) for n in ratings.shape)
    P[:, :k], Q[:, :k] = (rng.normal(0.3, 0.2, (n, k)) for n in ratings.shape)
    b_u, b_i = (rng.normal(0, 0.3, n).astype(dtype) for n in ratings.shape)
    if settings.nonnegative:
        np.abs(P, out=P)
        np.abs(Q, out=Q)
    return P, Q, b_u, b_i


def arguments(settings, P, Q, b_u, b_i, mean, vectors=()):
    """Return the arguments that kernels take for settings."""
    number, (reg_p, reg_q), (l1_p, l1_q) = P.dtype.type, settings.regularization, settings.l1
    rates = number(settings.bias_learning_rate), number(settings.bias_regularization)
    penalized = any(settings.l1) or settings.nonnegative
    return (
        sgd.FactorRows(P, Q, vectors),
        sgd.Rates(number(settings.learning_rate), number(reg_p), number(reg_q)),
        None,
        sgd.Biases(number(mean), b_u, b_i, *rates) if settings.biases else None,
        losses.Loss(KINDS[settings.loss], number(settings.huber_delta)) if settings.loss in KINDS else None,
        sgd.Prox(number(l1_p), number(l1_q), settings.nonnegative) if penalized else None,
    )


def reference_visit(entries, P, Q, b_u, b_i, mean, settings):
    """Update by (user, item, rating, weight) one after another, in place; return the sum of e²."""
    total = 0.0
    for u, i, r, w in entries:
        b = np.array([b_u[u], b_i[i]])
        total += reference.general_update(float(r), P[u], Q[i], b, mean, settings, float(w)) ** 2
        b_u[u], b_i[i] = b
    return total


def in_float64(P, Q, b_u, b_i, k):
    return [np.array(x, np.float64) for x in (P[:, :k], Q[:, :k], b_u, b_i)]


def assert_close(state, expected, k, dtype):
    P, Q, b_u, b_i = state
    for x, x_ref in zip((P[:, :k], Q[:, :k], b_u, b_i), expected, strict=True):
        np.testing.assert_allclose(x, x_ref, **TOLERANCE[dtype])
    assert not P[:, k:].any()
    assert not Q[:, k:].any()


# each combination of types is compiled anew
@pytest.mark.parametrize(
    ("weighted", "dtype"),
    quick([(False, np.float64), (True, np.float64), (True, np.float32)], (True, np.float32)),
)
@pytest.mark.parametrize("penalty", quick(PENALTIES, "both"))
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_sgd_span__matches_the_general_update(loss, biases, penalty, weighted, dtype):
    settings = replace(SETTINGS, loss=loss, biases=biases, **PENALTIES[penalty])
    ratings, k, mean = table(loss, dtype=dtype), 5, 0.25
    state = start_of(ratings, k, dtype, settings)
    expected = in_float64(*state, k)
    weights = random_weights(ratings).astype(dtype) if weighted else None
    order = np.random.default_rng(1).permutation(ratings.n_users)
    rows = sgd.Rows(ratings.indptr[:-1], ratings.indptr[1:], ratings.indices, ratings.values)
    entries = [
        (u, ratings.indices[n], ratings.values[n], 1 if weights is None else weights[n])
        for u in order
        for n in range(ratings.indptr[u], ratings.indptr[u + 1])
    ]
    for _ in range(2):
        given = arguments(settings, *state, mean)
        total = sgd.sgd_span(order, np.zeros(2, np.int64), NO_LIMIT, rows, *given, weights)
        total_ref = reference_visit(entries, *expected, mean, settings)
        np.testing.assert_allclose(total, total_ref, **TOLERANCE[dtype])
    assert_close(state, expected, k, dtype)
    if penalty != "λ":
        assert (state[0][:, :k] == 0).any() or penalty == "nonnegative"
        np.testing.assert_array_equal(state[0][:, :k] == 0, expected[0] == 0)


@pytest.mark.parametrize(
    ("unrolled", "dtype"),
    quick([(False, np.float64), (True, np.float64), (True, np.float32)], (True, np.float32)),
)
@pytest.mark.parametrize(
    ("loss", "biases", "penalty", "weighted"),
    [
        ("squared", True, "λ", False),
        ("squared", False, "both", True),
        ("absolute", True, "l1", True),
        ("huber", False, "nonnegative", False),
        ("logistic", True, "both", True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("absolute", False, "λ", True),
                ("huber", True, "λ", True),
                ("logistic", True, "both", False),
                ("logistic", False, "λ", False),
            ]
        ),
    ],
)
def test_sgd_tiles__matches_the_general_update(loss, biases, penalty, weighted, unrolled, dtype):
    settings = replace(SETTINGS, loss=loss, biases=biases, **PENALTIES[penalty])
    k, mean, rng = 9, -0.5, np.random.default_rng(2)
    sizes = [0, 1, 65, 64, 0, 20]
    starts, nnz = np.concatenate([[0], np.cumsum(sizes)]), sum(sizes)
    first_users, first_items = rng.integers(10, size=6), rng.integers(5, size=6)
    users, items = rng.integers(5, size=(2, nnz)).astype(np.uint16)
    values, weights = values_of(loss, rng, nnz).astype(dtype), rng.uniform(0, 2, nnz).astype(dtype)
    tiles = sgd.Tiles(starts, first_users, first_items, users, items, values)
    state = start_of(SimpleNamespace(shape=(15, 10)), k, dtype, settings)
    expected = in_float64(*state, k)
    tile = np.repeat(np.arange(6), sizes)
    rows = first_users[tile] + users, first_items[tile] + items
    entries = list(zip(*rows, values, weights if weighted else np.ones(nnz), strict=True))
    given = arguments(settings, *state, mean, rank_token(16) if unrolled else ())
    total = sgd.sgd_tiles(np.zeros(1, np.int64), 6, NO_LIMIT, tiles, *given, weights if weighted else None)
    np.testing.assert_allclose(total, reference_visit(entries, *expected, mean, settings), **TOLERANCE[dtype])
    assert_close(state, expected, k, dtype)


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_squared_errors__matches_the_reference(loss, biases, dtype):
    settings, ratings = replace(SETTINGS, loss=loss, biases=biases), table(loss, dtype=dtype)
    state = start_of(ratings, 6, dtype, settings)
    P, Q, b_u, b_i = in_float64(*state, 6)
    users, items, mean = ratings.users, ratings.items, 0.7
    z = np.sum(P[users] * Q[items], axis=1) + (mean + b_u[users] + b_i[items]) * biases
    expected = sum(reference.residual(*pair, loss) ** 2 for pair in zip(ratings.values, z, strict=True))
    factors, _, _, with_biases, with_loss, _ = arguments(settings, *state, mean)
    total = sgd.squared_errors(users, items, ratings.values, factors, with_biases, with_loss)
    assert total == pytest.approx(expected, rel=1e-4 if dtype == np.float32 else 1e-12)
    if loss == "squared" and not biases:
        assert total == pytest.approx(reference.squared_errors(users, items, ratings.values, P, Q), rel=1e-4)


# factorize against the reference


def options_of(settings):
    names = ["loss", "biases", "learning_rate", "decay", "regularization", "l1", "nonnegative"]
    names += ["huber_delta", "bias_learning_rate", "bias_regularization"]
    return {name: getattr(settings, name) for name in names}


def start_pair(ratings, k=3, seed=5):
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(0.4, 0.2, (ratings.n_users, k))), np.abs(
        rng.normal(0.4, 0.2, (k, ratings.n_items))
    )


def exact(ratings, **options):
    """Fit so that the reference can follow: row by row, in float64, from given start values."""
    fixed = {"schedule": "sequential", "shuffle": False, "dtype": np.float64, "epochs": 2}
    if "init" not in options:
        options["init"] = start_pair(ratings)
    return mf.factorize(ratings, 3, **fixed | options)


@pytest.mark.parametrize("weighted", quick([False, True], False))
@pytest.mark.parametrize("penalty", quick(["λ", "both"], "λ"))
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_factorize__matches_the_reference_under_any_settings(loss, biases, penalty, weighted):
    settings = replace(SETTINGS, loss=loss, biases=biases, **PENALTIES[penalty])
    ratings = table(loss).with_values(np.abs(table(loss).values))
    weights = random_weights(ratings) if weighted else np.ones(ratings.nnz)
    model = exact(ratings, sample_weight=weights if weighted else None, **options_of(settings))
    mean = link(np.average(ratings.values, weights=weights), loss)
    P, Q = start_pair(ratings)
    state = P, Q.T.copy(), np.zeros(ratings.n_users), np.zeros(ratings.n_items)
    entries = list(zip(ratings.users, ratings.items, ratings.values, weights / weights.mean(), strict=True))
    totals = [reference_visit(entries, *state, mean, settings) for _ in range(2)]
    assert_close((model.P, model.Q.T, *state[2:]), state, 3, np.float64)
    np.testing.assert_allclose([e.rmse for e in model.history], np.sqrt(np.divide(totals, ratings.nnz)))
    assert model.mean == pytest.approx(mean)
    if biases:
        assert_close((model.P, model.Q.T, model.user_bias, model.item_bias), state, 3, np.float64)
        assert model.user_bias.any()
    else:
        assert model.user_bias is None
        assert model.item_bias is None


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_factorize__ends_where_the_weighted_gradient_is_zero(loss):
    ratings = table(loss, 4, 3, 9, seed=1)
    weights = random_weights(ratings)
    model = exact(
        ratings,
        loss=loss,
        sample_weight=weights,
        learning_rate=0.3,
        decay="linear",
        epochs=2500,
        regularization=(0.1, 0.2),
    )

    def slope(weights, P, Q):
        settings, b = replace(SETTINGS, loss=loss, regularization=(0.1, 0.2)), np.zeros(2)
        entries = list(zip(ratings.users, ratings.items, ratings.values, weights, strict=True))

        def total(x):
            P, Q = x[:12].reshape(4, 3), x[12:].reshape(3, 3)
            return sum(objective(r, P[u], Q[:, i], b, 0.0, settings, w) for u, i, r, w in entries)

        return np.abs(gradient(total, np.concatenate([P.ravel(), Q.ravel()]))).max()

    assert slope(weights, *model) < 0.02 * slope(weights, *start_pair(ratings))
    assert slope(weights, *model) < 0.1 * slope(np.ones(ratings.nnz), *model)


def test_factorize__takes_weights_in_any_form(rng):
    ratings = table()
    m, n = ratings.shape
    W = np.zeros((m, n))
    W[ratings.users, ratings.items] = random_weights(ratings)
    coo = ratings.to_scipy().tocoo()
    shuffled = rng.permutation(ratings.nnz)
    users, items, values = (x[shuffled] for x in (ratings.users, ratings.items, ratings.values))
    mixed = sparse.coo_array((values, (users, items)), shape=(m, n))
    csr, csc = ratings.to_scipy(), ratings.to_scipy().tocsc()
    dense = np.full((m, n), np.nan)
    dense[ratings.users, ratings.items] = ratings.values
    by_column = W[csc.indices, np.repeat(np.arange(n), np.diff(csc.indptr))]
    options = {"init": start_pair(ratings), "biases": True}
    expected = exact(ratings, sample_weight=W, **options)
    forms = [
        (ratings, W.tolist()),
        (ratings, sparse.csr_array(W)),
        (ratings, sparse.coo_matrix(W)),
        (ratings, random_weights(ratings)),
        (ratings, random_weights(ratings).tolist()),
        (csr, W),
        (csr, random_weights(ratings)),
        (csc, by_column),
        (csc, sparse.csc_array(W)),
        (coo, W[coo.row, coo.col]),
        (mixed, W[users, items]),
        ((users, items, values, (m, n)), W[users, items]),
        ((users, items, values, (m, n)), W),
        (dense, W),
        (dense, sparse.csr_array(W)),
        (mf.Ratings(dense, sample_weight=W), None),
        (mf.Ratings(mixed, sample_weight=W[users, items]), None),
    ]
    for R, weights in forms:
        assert_same(exact(R, sample_weight=weights, **options), expected)
    assert (exact(ratings, **options).P != expected.P).any()


@pytest.mark.parametrize("schedule", ["sequential", "blocks", "hogwild"])
def test_factorize__only_ratios_of_weights_matter(schedule):
    ratings = table()
    weights = random_weights(ratings).astype(np.float32).astype(float)
    options = {"schedule": schedule, "n_threads": 1, "biases": True, "learning_rate": 0.02}
    one, two = (exact(ratings, sample_weight=w, **options) for w in (weights, 1024 * weights))
    assert_same(one, two)
    plain, equal = (exact(ratings, sample_weight=w, **options) for w in (None, np.full(ratings.nnz, 7.0)))
    np.testing.assert_allclose(equal.reconstruct(), plain.reconstruct(), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_factorize__weights_may_be_of_any_size(scale):
    """They are float64 when they are given; float32, in which these are inf or zero, is for training."""
    ratings = table(dtype=np.float32)
    options = {"init": start_pair(ratings), "epochs": 2, "shuffle": False, "learning_rate": 0.02}
    one, two = (
        mf.factorize(ratings, 3, sample_weight=w * random_weights(ratings), **options) for w in (1, scale)
    )
    np.testing.assert_allclose(one.P, two.P, rtol=1e-4, atol=1e-5)


def test_factorize__a_weight_of_zero_leaves_the_rating_out():
    ratings = table()
    kept = (random_weights(ratings) > 0.7) & (ratings.users != 3) & (ratings.items != 2)
    weights = np.where(kept, random_weights(ratings), 0)
    options = {"biases": True, "init": None, "rng": 0}
    one = exact(ratings, sample_weight=weights, **options)
    two = exact(ratings.select(kept), sample_weight=weights[kept], **options)
    assert_same(one, two)
    np.testing.assert_array_equal(one.known_users, two.known_users)
    np.testing.assert_array_equal(one.known_items, two.known_items)
    assert not one.known_users[3]
    assert not one.known_items[2]


@pytest.mark.parametrize("biases", [False, True])
def test_factorize__regularization_is_of_p_and_of_q(biases):
    ratings = table()
    one, two, less = (exact(ratings, biases=biases, regularization=x) for x in (0.3, (0.3, 0.3), (0.3, 0)))
    assert_same(one, two)
    assert np.linalg.norm(less.Q) > np.linalg.norm(one.Q)
    assert less.settings.regularization == (0.3, 0.0)


# what the settings are for


@pytest.fixture(scope="module")
def low_rank():
    """Ratings of rank 2 with little noise: to train with, and to test with."""
    rng = np.random.default_rng(0)
    P, Q = rng.uniform(0.5, 1.5, (50, 2)), rng.uniform(0.5, 1.5, (2, 30))
    R = P @ Q + rng.normal(0, 0.05, (50, 30))
    return mf.train_test_split(mf.Ratings(R), 0.2, rng=0)


def test_factorize__the_absolute_loss_is_robust_to_outliers(low_rank):
    train, test = low_rank
    wild = np.random.default_rng(1).random(train.nnz) < 0.05
    spoilt = train.with_values(np.where(wild, 20.0, train.values))
    squared, absolute, huber = (
        mf.factorize(spoilt, 2, loss=loss, epochs=15, rng=0, huber_delta=0.3)
        for loss in ("squared", "absolute", "huber")
    )
    for error in (mf.metrics.rmse, mf.metrics.mae):
        assert error(absolute, test) < 0.7 * error(squared, test)
        assert error(huber, test) < 0.7 * error(squared, test)


def test_factorize__a_huge_huber_delta_is_the_squared_loss(low_rank):
    options = {"rng": 0, "epochs": 3, "biases": True, "regularization": 0.01, "dtype": np.float64}
    one, two = (
        mf.factorize(low_rank[0], 2, **options, **x) for x in ({}, {"loss": "huber", "huber_delta": 1e9})
    )
    np.testing.assert_allclose(one.reconstruct(), two.reconstruct(), rtol=1e-10)
    small = mf.factorize(low_rank[0], 2, **options, loss="huber", huber_delta=0.01)
    assert np.abs(small.reconstruct() - one.reconstruct()).max() > 0.01


def clicks():
    rng = np.random.default_rng(0)
    score = 2 * rng.normal(size=(50, 2)) @ rng.normal(size=(2, 30)) + rng.normal(0.5, 1, 30)
    R = np.where(rng.random((50, 30)) < 1 / (1 + np.exp(-score)), 1.0, 0.0)
    return mf.train_test_split(mf.Ratings(R, missing="nan"), 0.2, rng=0)


def log_loss(chance, values):
    return -np.mean(np.log(np.where(values > 0, chance, 1 - chance)))


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
def test_factorize__the_logistic_loss_predicts_probabilities(dtype, biases):
    train, test = clicks()
    model = mf.factorize(train, 2, loss="logistic", biases=biases, epochs=15, rng=0, dtype=dtype)
    chance = model.predict(test.users, test.items)
    assert chance.dtype == dtype
    assert ((chance > 0) & (chance < 1)).all()
    assert log_loss(chance, test.values) < 0.95 * log_loss(train.mean, test.values)
    assert model.rmse(test) == pytest.approx(np.sqrt(np.mean((test.values - chance) ** 2)), rel=1e-5)
    np.testing.assert_allclose(model.reconstruct()[test.users, test.items], chance, rtol=1e-5)
    assert model.mean == pytest.approx(np.log(train.mean / (1 - train.mean)))


@pytest.mark.parametrize("biases", [False, True])
def test_factorize__minus_one_is_zero_to_the_logistic_loss(biases):
    train, test = clicks()
    signed, signed_test = (x.with_values(2 * x.values - 1) for x in (train, test))
    options = {
        "loss": "logistic",
        "biases": biases,
        "epochs": 3,
        "rng": 0,
        "sample_weight": random_weights(train),
    }
    one, two = (mf.factorize(R, 2, **options) for R in (train, signed))
    assert_same(one, two)
    assert one.rmse(test) == one.rmse(signed_test) == two.rmse(test)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_factorize__the_logistic_loss_takes_ratings_of_one_kind(value):
    R = mf.Ratings(np.full((6, 5), value), missing="nan")
    model = mf.factorize(R, 2, loss="logistic", epochs=5, rng=0, biases=True)
    np.testing.assert_allclose(model.reconstruct(), value, atol=0.05)


@pytest.mark.parametrize("schedule", ["sequential", "blocks"])
@pytest.mark.parametrize("options", quick([{}, {"biases": True}, {"loss": "absolute"}, {"l1": 0.05}], {}))
def test_factorize__nonnegative_factors_are_not_negative(options, schedule, low_rank):
    train, test = low_rank
    model = mf.factorize(train, 4, nonnegative=True, schedule=schedule, epochs=8, rng=0, **options)
    assert model.P.min() >= 0
    assert model.Q.min() >= 0
    assert model.rmse(test) < test.std


def test_factorize__nonnegative_goes_with_negative_ratings_and_biases():
    R = table().with_values(table().values - 3)
    model = mf.factorize(R, 3, nonnegative=True, biases=True, epochs=3, rng=0)
    assert min(model.P.min(), model.Q.min()) >= 0
    assert model.reconstruct().min() < 0


def test_factorize__l1_gives_exact_zeros(low_rank):
    options = {"biases": True, "epochs": 20, "rng": 0}
    plain, some, all_of_p = (mf.factorize(low_rank[0], 6, l1=x, **options) for x in (0, 0.02, (5.0, 0)))
    assert (plain.P != 0).all()
    assert 0.2 < np.mean(some.P == 0) <= 1
    assert not all_of_p.P.any()
    assert all_of_p.Q.any()
    assert np.isfinite(some.P).all()


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
def test_factorize__biases_are_a_part_of_what_is_predicted(loss):
    full = table(m=20, n=12, nnz=150)
    R = full.select((full.users != 3) & (full.items != 2))
    model = mf.factorize(R, 3, biases=True, loss=loss, epochs=5, rng=0, dtype=np.float64)
    assert model.mean == pytest.approx(R.mean)
    b = model.user_bias[:, None] + model.item_bias
    everybody, everything = np.arange(20)[:, None], np.arange(12)
    expected = model.mean + b + model.P @ model.Q
    np.testing.assert_allclose(model.predict(everybody, everything), expected)
    np.testing.assert_allclose(model.reconstruct(), expected)
    assert model.user_bias[3] == model.item_bias[2] == 0
    np.testing.assert_allclose(model.predict(3, everything), model.mean + model.item_bias)
    np.testing.assert_allclose(model.predict(everybody[:, 0], 2), model.mean + model.user_bias)
    assert model.predict(3, 2) == pytest.approx(model.mean)


@pytest.mark.parametrize(
    "options",
    [
        {"biases": True},
        {"biases": True, "sample_weight": True, "loss": "huber"},
        {"loss": "absolute", "sample_weight": True},
        {"loss": "logistic", "biases": True, "l1": 0.01},
        {"nonnegative": True, "biases": True, "sample_weight": True},
        {"biases": True, "decay": "adaptive", "sample_weight": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_factorize__blocks_give_the_same_bits_on_any_number_of_threads(options, monkeypatch):
    monkeypatch.setattr("mfkernel.methods.schedules.blocks.RATINGS_PER_BLOCK", 2**5)
    loss = options.get("loss", "squared")
    ratings = table(loss, 60, 50, 1000)
    weights = random_weights(ratings) if options.get("sample_weight") else None
    fits = [
        mf.factorize(ratings, 3, n_threads=n, epochs=2, rng=0, **options | {"sample_weight": weights})
        for n in (1, 2, 3)
    ]
    for one, two in itertools.pairwise(fits):
        assert_same(one, two)


# errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "hubber"}, ValueError, "loss must be one of .*did you mean 'huber'"),
        ({"loss": None}, ValueError, "loss must be one of"),
        ({"huber_delta": 0, "loss": "huber"}, ValueError, "huber_delta must be finite and positive, got 0"),
        ({"huber_delta": -1.0, "loss": "huber"}, ValueError, "huber_delta must be finite and positive"),
        ({"huber_delta": np.nan, "loss": "huber"}, ValueError, "huber_delta must be finite and positive"),
        ({"regularization": (1, 2, 3)}, ValueError, r"regularization must be a number or a pair"),
        ({"regularization": (1,)}, ValueError, r"regularization must be a number or a pair"),
        (
            {"regularization": (0.1, -1)},
            ValueError,
            r"regularization\[1\] must be finite and zero or positive",
        ),
        ({"l1": (1, 2, 3)}, ValueError, r"l1 must be a number or a pair"),
        ({"l1": (np.nan, 0)}, ValueError, r"l1\[0\] must be finite"),
        ({"l1": "much"}, TypeError, "l1 must be a number, got 'much'"),
        ({"l1": None}, TypeError, "l1 must be a number"),
        ({"l1": 0.1, "decay": "adaptive"}, ValueError, "decay must be other than 'adaptive'"),
        ({"nonnegative": True, "decay": "adaptive"}, ValueError, "decay must be other than 'adaptive'"),
        ({"nonnegative": 1}, TypeError, "nonnegative must be True or False"),
        ({"biases": "yes"}, TypeError, "biases must be True or False"),
        ({"bias_learning_rate": 0}, ValueError, "bias_learning_rate must be finite and positive"),
        ({"bias_regularization": -1}, ValueError, "bias_regularization must be finite and zero or positive"),
    ],
)
def test_factorize__refuses_settings_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        mf.factorize([[5, 3, 0], [4, 0, 1]], 2, epochs=1, **options)


@pytest.mark.parametrize(
    ("R", "place"),
    [
        ([[1, 1, 0], [-1, 3, 0]], r"R\[1, 1\] = 3"),
        ([[1, 0.5, 0], [1, 1, 0]], r"R\[0, 1\] = 0.5"),
        (sparse.csr_array([[0, 1, -1], [1, 2, 0]]), r"R\[1, 1\] = 2"),
        (([0, 0, 2], [0, 2, 1], [-1.0, 0.0, 1.0]), r"R\[0, 2\] = 0"),
    ],
)
def test_factorize__the_logistic_loss_names_other_ratings(R, place):
    with pytest.raises(ValueError, match=f"with loss='logistic', got {place}"):
        mf.factorize(R, 2, loss="logistic")


def test_factorize__nonnegative_names_what_is_negative():
    R = [[5, 3, 0], [4, 0, -2]]
    with pytest.raises(ValueError, match=r"got R\[1, 2\] = -2; pass biases=True"):
        mf.factorize(R, 2, nonnegative=True)
    P0, Q0 = np.ones((2, 2)), np.ones((2, 3))
    for name, X, place in (("P0", P0, (1, 0)), ("Q0", Q0, (0, 2))):
        X[place] = -0.5
        with pytest.raises(ValueError, match=rf"{name}\[{place[0]}, {place[1]}\] = -0.5"):
            mf.factorize(np.abs(R), 2, nonnegative=True, init=(P0, Q0))
        X[place] = 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1, 1, 1], [1, 1, -3]], r"sample_weight\[1, 2\] is -3.*not negative"),
        ([[1, np.nan, 1], [1, 1, 1]], r"sample_weight\[0, 1\] is nan"),
        ([[1, 1, 1], [np.inf, 1, 1]], r"sample_weight\[1, 0\] is inf"),
        ([[1, 1], [1, 1]], r"R's shape \(2, 3\), got \(2, 2\)"),
        ([1, 1, 1, 1], r"R's shape \(2, 3\), got \(4,\)"),
        (1.0, r"R's shape \(2, 3\), got \(\)"),
        (np.ones((2, 3, 1)), r"R's shape \(2, 3\), got \(2, 3, 1\)"),
        (np.zeros((2, 3)), "must not be zero for all"),
        (sparse.csr_array((2, 3)), "must not be zero for all"),
    ],
)
def test_factorize__names_weights_that_cannot_be(weights, message):
    with pytest.raises(ValueError, match=message):
        mf.factorize([[5, 3, 0], [4, 0, 1]], 2, sample_weight=weights)


@pytest.mark.parametrize("form", ["triplets", "csr", "ratings"])
def test_factorize__names_weights_in_a_row_that_cannot_be(form):
    triplets = [0, 0, 1], [0, 1, 1], [5.0, 3.0, 4.0]
    ratings = mf.Ratings(triplets)
    R = {"triplets": triplets, "csr": ratings.to_scipy(), "ratings": ratings}[form]
    for weights, message in (
        ([1, -2, 1], r"sample_weight\[1\] is -2"),
        ([1, 1, np.nan], r"sample_weight\[2\] is nan"),
        ([1, 1], r"one number for each of the 3 .*got \(2,\)"),
        ([0, 0, 0], "must not be zero for all"),
    ):
        with pytest.raises(ValueError, match=message):
            mf.factorize(R, 2, sample_weight=weights)
    with pytest.raises(TypeError, match="sample_weight must be real numbers, got dtype"):
        mf.factorize(R, 2, sample_weight=["a", "b", "c"])
    with pytest.raises(ValueError, match="must be 'raise' or 'last' with sample_weight, got 'mean'"):
        mf.factorize(R, 2, sample_weight=[1, 2, 3], duplicates="mean")
