"""Implicit feedback: what is trained on the stored cells, against all cells of a dense matrix."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel import metrics, reference
from mfkernel.cli import main
from tests.files import write_ratings
from tests.helpers import assert_never_rises, assert_same, bits, losses, quick
from tests.samples import random_ratings

RANKS = (1, 3, 7, 9, 17, 33)
SOLVERS = ("cholesky", "cg", "subspace")
F64 = {"dtype": np.float64}


def fit(R, k=3, **options):
    return mf.factorize(R, k, **{"method": "implicit", "epochs": 3, "rng": 0} | F64 | options)


def feedback(m=8, n=7, share=0.4, seed=0, heavy=1.0):
    """Return strengths for some cells, one at least; some are zero, and rows and columns may be empty."""

    def strengths(rng, nnz):
        return rng.exponential(heavy, nnz) * (rng.random(nnz) < 0.8)

    return random_ratings(m, n, share, seed, values=strengths)


def clusters(m=300, n=200, groups=6, a_user=15, seed=0):
    """Return clicks of users who choose among the popular items, nine of ten times within their group."""
    rng = np.random.default_rng(seed)
    popularity = rng.lognormal(0, 1, n)
    cells = []
    for u in range(m):
        p = popularity * np.where(np.arange(n) % groups == u % groups, 9.0 * (groups - 1), 1.0)
        chosen = rng.choice(n, a_user, replace=False, p=p / p.sum())
        cells += [(u, i, rng.integers(1, 4)) for i in chosen]
    users, items, strengths = np.array(cells).T
    return mf.Ratings((users, items, strengths.astype(float), (m, n)), **F64)


def cells_of(model, R=None):
    """Return c and x of all cells."""
    R, s = model.ratings if R is None else R, model.settings
    C, X = np.full(R.shape, s.unobserved_weight), np.zeros(R.shape)
    C[R.users, R.items], X[R.users, R.items] = 1 + s.alpha * R.values.astype(np.float64), 1
    return C, X


def penalties_of(model):
    """Return λ times the scale of each row of P and of each column of Q."""
    (_, X), s = cells_of(model), model.settings
    counts = X.sum(axis=1), X.sum(axis=0)
    return [
        reg * (count + s.unobserved_weight * size if s.is_per_rating else np.ones(count.size))
        for reg, count, size in zip(s.regularization, counts, X.shape[::-1], strict=True)
    ]


def objective(model):
    """Return what is minimized, over all cells."""
    C, X = cells_of(model)
    P, Q = (factors.astype(np.float64) for factors in model)
    of_users, of_items = penalties_of(model)
    return (C * (X - P @ Q) ** 2).sum() + of_users @ (P**2).sum(axis=1) + of_items @ (Q**2).sum(axis=0)


def assert_items_solved(model, tolerance=1e-11, columns=slice(None)):
    """Assert that each column of Q has no gradient, relative to the parts of it."""
    C, X = cells_of(model)
    P, Q = (factors.astype(np.float64) for factors in model)
    penalty = penalties_of(model)[1] * Q
    pull = P.T @ (C * (X - P @ Q)) - penalty
    size = abs(P).T @ (C * (X + abs(P) @ abs(Q))) + abs(penalty)
    assert np.isfinite(size).all()
    assert (abs(pull) <= tolerance * size)[:, columns].all(), (abs(pull) / np.maximum(size, 1e-300)).max()


# what is right


@pytest.mark.kernel
@pytest.mark.parametrize("unobserved", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("per", ["row", "rating"])
def test_factors__are_those_of_the_textbook(per, unobserved, rng):
    """Epoch by epoch, with the dense formula of Hu, Koren and Volinsky for each row."""
    R = feedback()
    m, n = R.shape
    init = rng.normal(size=(m, 3)), rng.normal(size=(3, n))
    reg, alpha = (0.4, 0.7), 2.5
    options = {
        "regularization_per": per,
        "regularization": reg,
        "alpha": alpha,
        "unobserved_weight": unobserved,
    }
    model = fit(R, 3, init=init, **options)
    P, Q = np.zeros((m, 3)), init[1].T.copy()
    for _ in range(3):
        for X, Y, rows, columns, penalty in (
            (P, Q, R.users, R.items, reg[0]),
            (Q, P, R.items, R.users, reg[1]),
        ):
            for u in range(len(X)):
                at = rows == u
                c = at.sum() + unobserved * len(Y) if per == "rating" else 1.0
                X[u] = 0
                if at.any():
                    X[u] = reference.implicit_row(
                        Y, columns[at], R.values[at], alpha, unobserved, penalty * c
                    )
    np.testing.assert_allclose(model.P, P, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.Q, Q.T, rtol=1e-8, atol=1e-10)
    assert (model.settings.alpha, model.settings.unobserved_weight) == (alpha, unobserved)


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    k=st.sampled_from(RANKS),
    per=st.sampled_from(["row", "rating"]),
    reg=st.sampled_from([0.01, 0.3, 20.0]),
    ratio=st.sampled_from([0.1, 1.0]),
    alpha=st.sampled_from([0.0, 1.0, 40.0]),
    unobserved=st.sampled_from([0.0, 0.01, 1.0]),
    heavy=st.sampled_from([1e-3, 1.0, 100.0]),
    seed=st.integers(0, 999),
)
def test_items__solve_their_normal_equations(m, n, share, k, per, reg, ratio, alpha, unobserved, heavy, seed):
    model = fit(
        feedback(m, n, share, seed, heavy), k, regularization_per=per, regularization=(reg, ratio * reg),
        alpha=alpha, unobserved_weight=unobserved, solver="cholesky", epochs=2, rng=seed,
    )  # fmt: skip
    assert (model.P.shape, model.Q.shape) == ((m, k), (k, n))
    assert_items_solved(model)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert_never_rises(model, 1e-12)


@pytest.mark.slow
def test_items__solve_their_normal_equations_in_float32(ratings):
    for k in (5, 40):
        model = fit(ratings, k, dtype=np.float32, solver="cholesky")
        assert model.P.dtype == np.float32
        assert_items_solved(model, 2e-5)


def test_transpose__is_the_other_half(rng):
    R, init, options = feedback(), (rng.normal(size=(8, 9)), rng.normal(size=(9, 7))), {"epochs": 1}
    model = fit(R, 9, init=init, regularization=(0.25, 0.75), solver="cholesky", **options)
    swapped = fit(
        R.T, 9, init=(init[1].T, model.P.T), regularization=(0.75, 0.25), solver="cholesky", **options
    )
    np.testing.assert_array_equal(swapped.P, model.Q.T)


def test_no_weight_of_the_unobserved__leaves_least_squares_of_the_stored():
    ones = feedback(share=0.6)
    ones = ones.with_values(np.ones(ones.nnz))
    one = fit(ones, 3, regularization=0.5, alpha=3, unobserved_weight=0, epochs=200)
    other = mf.factorize(ones, 3, method="als", regularization=0.5 / 4, epochs=200, rng=0, **F64)
    assert losses(one)[-1] == pytest.approx(losses(other)[-1] * 4, rel=1e-6)
    np.testing.assert_allclose(
        one.predict(ones.users, ones.items), other.predict(ones.users, ones.items), rtol=1e-4
    )


def test_regularization_per__is_lambda_per_cell():
    R = feedback(6, 4, 1.0)
    options = {"unobserved_weight": 0.5}
    one = fit(R, 3, regularization=0.1, regularization_per="rating", **options)
    other = fit(R, 3, regularization=(0.1 * (4 + 0.5 * 4), 0.1 * (6 + 0.5 * 6)), **options)
    assert (one.settings.is_per_rating, other.settings.is_per_rating) == (True, False)
    np.testing.assert_allclose(one.P, other.P, rtol=1e-12)


@pytest.mark.kernel
@pytest.mark.parametrize("k", [1, 9])
def test_nonnegative__meets_the_conditions_of_a_minimum(k):
    assert_conditions(fit(feedback(), k, nonnegative=True, regularization=0.1))


def test_nonnegative__holds_for_any_rank_by_default(ratings):
    assert_conditions(fit(ratings, 72, nonnegative=True, epochs=2))


def assert_conditions(model):
    C, X = cells_of(model)
    P, Q = model
    assert (P >= 0).all()
    assert (Q >= 0).all()
    penalty = penalties_of(model)[1] * Q
    pull, size = P.T @ (C * (X - P @ Q)) - penalty, P.T @ (C * (X + P @ Q)) + penalty
    assert (abs(pull) <= 1e-8 * size)[Q > 0].all()
    assert (pull <= 1e-8 * size)[Q == 0].all()


@pytest.mark.kernel
@pytest.mark.parametrize("solver", quick(SOLVERS, "cholesky", "subspace"))
def test_result__is_the_same_on_any_number_of_threads(solver, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.MULTIPLY_ADDS_PER_TASK", 3000)
    monkeypatch.setattr("mfkernel.linalg.normal.GRAM_ROWS_PER_TASK", 4)
    monkeypatch.setattr("mfkernel.linalg.normal.SUBSPACE_COORDINATES", 8)
    R = feedback(11, 9)
    one = fit(R, 9, solver=solver, n_threads=1, epochs=2)
    for n in (2, 3, 7):
        assert bits(fit(R, 9, solver=solver, n_threads=n, epochs=2)) == bits(one)


# the objective


@pytest.mark.kernel
@pytest.mark.parametrize("per", ["row", "rating"])
@pytest.mark.parametrize("solver", quick(SOLVERS, "cholesky", "subspace"))
def test_loss__is_the_objective_over_all_cells(solver, per, monkeypatch):
    monkeypatch.setattr("mfkernel.linalg.normal.SUBSPACE_COORDINATES", 8)
    model = fit(
        feedback(),
        9,
        solver=solver,
        regularization_per=per,
        regularization=0.2,
        unobserved_weight=0.5,
        epochs=4,
    )
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert_never_rises(model, 1e-12)
    C, X = cells_of(model)
    rmse = math.sqrt((C * (X - model.P @ model.Q) ** 2).sum() / C.sum())
    assert model.history[-1].rmse == pytest.approx(rmse, rel=1e-9)
    assert {record.learning_rate for record in model.history} == {None}
    assert (model.mean, model.stop_reason) == (0, "epochs")


@pytest.mark.slow
@pytest.mark.parametrize("k", [7, 33])
def test_loss__is_the_objective_in_float32(k, ratings):
    for solver in ("cholesky", "subspace"):
        model = fit(ratings, k, solver=solver, dtype=np.float32, epochs=12)
        assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-5)
        assert_never_rises(model, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("reg", "tolerance"), [(1.0, 1e-5), (0.01, 1e-4)])
def test_loss__is_the_objective_where_all_is_fitted_in_float32(reg, tolerance):
    """What the stored cells take back from the sum over all of them is nearly all of it."""
    R = np.kron(np.eye(4), np.ones((20, 15)))
    model = fit(R, 4, regularization=reg, dtype=np.float32, epochs=20)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=tolerance)


@pytest.mark.slow
@pytest.mark.kernel
def test_conjugate_gradients__are_exact_of_as_many_coordinates_as_steps():
    options = {"regularization": 0.3, "alpha": 2.0, "unobserved_weight": 0.5, "epochs": 2}
    exact, found = (fit(feedback(share=0.6), 3, solver=solver, **options) for solver in ("cholesky", "cg"))
    np.testing.assert_allclose(found.P, exact.P, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("k", [16, 48, 80])
def test_solvers__are_near_cholesky_in_half_as_many_epochs_more(k):
    R = clusters()
    exact = losses(fit(R, k, epochs=10, solver="cholesky"))[-1]
    for solver in ("cg", "subspace"):
        found = losses(fit(R, k, epochs=15, solver=solver))
        assert found[-1] < 1.001 * exact
        assert found[0] > 1.001 * exact


@pytest.mark.parametrize("strength", [0.0, 1e-7])
def test_training__does_not_take_strengths_for_the_scale_of_residuals(strength):
    """The RMSE of all cells is nearly 1 however small the strengths, and may rise while the penalty falls."""
    R = feedback()
    R = R.with_values(np.full(R.nnz, strength))
    first = fit(R, 3, regularization=0.01)
    model = fit(R, 3, regularization=2.0, init=first, epochs=5)
    assert len(model.history) == 5
    assert_never_rises(model, 1e-12)
    held = fit(R, 3, regularization=1e4, epochs=3)
    assert abs(held.reconstruct()).max() < 1e-3


@pytest.mark.slow
def test_solver__is_chosen_by_k():
    R = feedback(40, 35)
    for k, name, other in ((32, "cholesky", "cg"), (33, "cg", "cholesky")):
        chosen = fit(R, k, epochs=1)
        assert_same(chosen, fit(R, k, epochs=1, solver=name))
        assert abs(chosen.P - fit(R, k, epochs=1, solver=other).P).max() > 1e-6


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1)])
def test_one_row__is_enough(shape):
    model = fit(feedback(*shape, 1.0), 3)
    assert_items_solved(model)
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)


def test_empty_rows__are_predicted_as_zero():
    R = feedback(share=0.5)
    R = R.select((R.users != 2) & (R.items != 5))
    model = fit(R)
    assert not model.P[2].any()
    assert not model.Q[:, 5].any()
    assert model.predict(2, [0, 1]).tolist() == [0, 0]
    assert (model.known_users[2], model.known_items[5]) == (False, False)


def test_empty_rows__are_solved_like_any_other():
    """All their cells are known to be empty: whatever they start with, zero is their minimum."""
    R, rng = feedback(share=0.5), np.random.default_rng(0)
    R = R.select(R.users != 2)
    init = rng.normal(size=(8, 3)), rng.normal(size=(3, 7))
    model = fit(R, 3, init=init, regularization=0.5, epochs=2)
    assert not model.P[2].any()
    assert losses(model)[-1] == pytest.approx(objective(model), rel=1e-10)
    assert_items_solved(model)


def test_no_penalty__is_refused_where_too_few_users_speak():
    R = feedback(2, 9, 0.9)
    with pytest.raises(np.linalg.LinAlgError, match=r"item \d .*ratings, k = 3.*larger regularization"):
        fit(R, 3, regularization=0, solver="cholesky")


# what may come in


def test_strengths__of_zero_are_feedback():
    R = sparse.csr_array((np.array([0.0, 2, 1]), np.array([1, 0, 1]), np.array([0, 1, 3])), shape=(2, 2))
    model = fit(R, 2, regularization=1e-3, epochs=30)
    assert model.ratings.nnz == 3
    np.testing.assert_allclose(model.predict([0, 1, 1, 0], [1, 0, 1, 0]), [1, 1, 1, 0], atol=0.01)


def test_strengths__only_weigh(ratings):
    plain = ratings.with_values(np.ones_like(ratings.values))
    one, other = fit(ratings, alpha=0), fit(plain, alpha=0)
    assert_same(one, other)
    assert_same(fit(plain, alpha=3.0), fit(ratings.with_values(3 * plain.values), alpha=1.0))
    assert abs(fit(ratings, alpha=1).P - one.P).max() > 1e-3
    assert fit(ratings, alpha=20).rmse(ratings) < one.rmse(ratings)


@pytest.mark.parametrize("form", ["dense", "triplets", "csr"])
# dislikes and weights


def with_dislikes(every=3):
    R = feedback()
    values = R.values.copy()
    values[::every] *= -1
    return R.with_values(values)


@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
def test_dislikes__are_zeros_of_the_weight_of_their_strength(solver):
    """At the end of many epochs, each row is the textbook's minimum, with the target 0 for a dislike."""
    R = with_dislikes()
    model = fit(R, 2, solver=solver, epochs=200, regularization=0.5, regularization_per="row", alpha=2.0)
    for u in range(R.n_users):
        at = R.users == u
        row = reference.implicit_row(model.Q.T, R.items[at], R.values[at], 2.0, 1.0, 0.5)
        np.testing.assert_allclose(model.P[u], row, rtol=1e-5, atol=1e-6)
    dense = np.full(R.shape, np.nan)
    dense[R.users, R.items] = R.values
    penalty = 0.5 * (np.sum(model.P**2) + np.sum(model.Q**2))
    loss = reference.implicit_loss(dense, model.P, model.Q.T, 2.0, 1.0) + penalty
    np.testing.assert_allclose(model.history[-1].loss, loss, rtol=1e-9)


def test_dislikes__lower_the_score_of_their_item_and_of_similar_ones():
    R = feedback()
    user, item = int(R.users[0]), int(R.items[0])
    liked, disliked = (R.with_values(np.where(np.arange(R.nnz) == 0, v, R.values)) for v in (5.0, -5.0))
    scores = [float(fit(x, 3, epochs=20).predict(user, item)) for x in (liked, disliked)]
    assert scores[0] > 0.6 > 0.3 > scores[1]
    new = fit(liked, 3, epochs=20)
    assert new.fold_in({item: -5.0}).predict(0, item) < 0.05 < new.fold_in({item: 5.0}).predict(0, item)
    explained = fit(disliked, 3, epochs=20).explain(user, item, 10)
    assert explained.contributions[explained.items.tolist().index(item)] == 0


def test_dislikes__are_not_relevant_and_stay_out_of_lists():
    R = with_dislikes()
    model = fit(R, 3, epochs=10)
    likes = R.select(R.values >= 0)
    for name, value in mf.metrics.ranking(model, likes, 3).items():
        assert value == pytest.approx(mf.metrics.ranking(model, R, 3)[name]), name
    assert not set(np.ma.compressed(model.recommend(0, 7).items)) & set(R.items[R.users == 0])
    with pytest.raises(ValueError, match="validation.*only dislikes"):
        fit(R, validation=([0], [1], [-2.0], R.shape))


def test_sample_weight__multiplies_the_strengths_and_zero_leaves_out():
    R = feedback()
    weights = np.linspace(0, 2, R.nnz)
    weighted = fit(R, sample_weight=weights)
    assert_same(weighted, fit(R.with_values(R.values * weights).select(weights > 0)))
    assert weighted.ratings.weights is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"biases": True}, TypeError, "^biases .*'als'.*'implicit'"),
        ({"bias_regularization": 0.1}, TypeError, "^bias_regularization .*'als'.*'implicit'"),
        ({"alpha": -1}, ValueError, "alpha.*-1"),
        ({"alpha": math.inf}, ValueError, "alpha.*inf"),
        ({"alpha": "much"}, TypeError, "alpha.*'much'"),
        ({"unobserved_weight": 1.5}, ValueError, "unobserved_weight.*at most 1.*1.5"),
        ({"unobserved_weight": -0.1}, ValueError, "unobserved_weight.*-0.1"),
        ({"solver": "qr"}, ValueError, "solver.*'cholesky', 'cg', 'subspace'.*'qr'"),
        ({"solver": "cg", "nonnegative": True}, ValueError, "nonnegative.*'cg'"),
    ],
)
def test_arguments__are_checked(options, error, message):
    with pytest.raises(error, match=message):
        mf.factorize([[1.0, 2], [0, 3]], 1, method="implicit", **options)


def test_weights__of_new_ratings_multiply_their_strengths():
    for name, shape in (("partial_fit", (8, 7)), ("fold_in", (1, 7))):
        weighted = mf.Ratings(([0], [1], [1.5], shape), sample_weight=[3.0])
        found = getattr(fit(feedback()), name)(weighted)
        assert_same(found, getattr(fit(feedback()), name)(([0], [1], [4.5], shape)))


# what hangs on a model


def test_validation__brings_the_epoch_of_the_best_ranking_back():
    train, held_out = mf.train_test_split(clusters(80, 60, 4, 12), 0.25, rng=0)
    options = {"validation": held_out, "regularization": 0.01, "epochs": 50, "alpha": 0.0}
    model = fit(train, 20, patience=4, **options)
    found = [record.validation_ndcg for record in model.history]
    best = int(np.argmax(found))
    assert best > 0
    assert model.stop_reason == "patience"
    assert len(found) == best + 1 + 4
    assert metrics.ndcg_at_n(model, held_out, 100) == pytest.approx(found[best], rel=1e-9)
    assert metrics.ndcg_at_n(model, held_out, 100) > found[-1]
    assert objective(model) == pytest.approx(model.history[best].loss, rel=1e-9)
    assert {record.validation_rmse for record in model.history} == {None}
    assert model.history[0].validation_error == 1 - found[0]


def test_validation__takes_a_share():
    model = fit(clusters(80, 60, 4, 12), 4, validation=0.2, epochs=4)
    assert all(0 < record.validation_ndcg <= 1 for record in model.history)


def test_stopping__by_tolerance_callback_and_time():
    R = clusters(80, 60, 4, 12)
    model = fit(R, 4, tol=0.01, epochs=50)
    assert model.stop_reason == "converged"
    assert 2 < len(model.history) < 40
    seen = []
    model = fit(R, 4, epochs=9, callback=lambda e: seen.append(e) or e.epoch == 2)
    assert (model.stop_reason, seen) == ("callback", model.history)
    assert fit(R, 4, epochs=9, time_limit=1e-9).stop_reason == "time limit"


@pytest.mark.kernel
@pytest.mark.parametrize("per", ["row", "rating"])
def test_fold_in__solves_the_equations_of_all_cells(per):
    options = {
        "regularization": (0.3, 0.9),
        "alpha": 2.0,
        "unobserved_weight": 0.5,
        "regularization_per": per,
    }
    model, new_users = fit(feedback(share=0.6), **options), feedback(4, 7, 0.5, seed=1)
    assert model.known_items.all()
    folded = model.fold_in(new_users)
    for u in range(4):
        at = new_users.users == u
        c = at.sum() + 0.5 * 7 if per == "rating" else 1
        x = (
            reference.implicit_row(model.Q.T, new_users.items[at], new_users.values[at], 2.0, 0.5, 0.3 * c)
            * at.any()
        )
        np.testing.assert_allclose(folded.P[u], x, rtol=1e-9, atol=1e-12)


def test_fold_in__finds_the_users_of_the_converged_model():
    R = feedback(share=0.6)
    model = fit(R, 2, epochs=500, regularization=0.5)
    np.testing.assert_allclose(model.fold_in(R).P, model.P, atol=1e-7)


@pytest.mark.parametrize("per", ["row", "rating"])
def test_partial_fit__leaves_items_that_solve_their_equations(per):
    model = fit(feedback(share=0.6), regularization=(0.3, 0.9), regularization_per=per)
    before = model.Q.copy()
    users, items = np.array([0, 8, 8, 9, 3]), np.array([1, 1, 4, 7, 7])
    model.partial_fit((users, items, np.array([5.0, 1, 2, 0, 4])))
    assert model.shape == (10, 8)
    assert_items_solved(model, columns=np.unique(items))
    np.testing.assert_array_equal(model.Q[:, [0, 2]], before[:, [0, 2]])


@pytest.mark.parametrize(
    "options",
    quick(
        [{}, {"alpha": 3.0, "unobserved_weight": 0.1}, {"regularization_per": "row"}],
        {"regularization_per": "row"},
    ),
)
@pytest.mark.slow
def test_explain__adds_up_and_leaves_nothing_over(options):
    R = feedback(share=0.5)
    model = fit(R, 2, epochs=2000, **options)
    for u, i in ((0, 0), (3, 5), (7, 6)):
        parts = model.explain(u, i, 99)
        assert (parts.mean, parts.user_bias, parts.item_bias) == (0, 0, 0)
        assert parts.score == pytest.approx(parts.contributions.sum() + parts.rest, abs=1e-12)
        assert parts.score == pytest.approx(model.predict(u, i), abs=1e-12)
        assert sorted(parts.items) == R.indices[R.indptr[u] : R.indptr[u + 1]].tolist()
        assert parts.rest == pytest.approx(0, abs=1e-6)
    short = model.explain(3, 5, 1)
    assert short.contributions.size == 1
    assert short.contributions[0] + short.rest == pytest.approx(short.score, abs=1e-12)


def test_explain__of_a_stranger_leaves_nothing_over():
    model = fit(feedback(share=0.6), alpha=2.0, unobserved_weight=0.5, epochs=2)
    parts = model.fold_in({0: 5.0, 3: 0.0, 6: 4.0}).explain(0, 2, 99)
    assert set(parts.items.tolist()) == {0, 3, 6}
    assert abs(parts.contributions).min() > 1e-4
    assert parts.rest == pytest.approx(0, abs=1e-10)


def test_questions__are_answered_by_scores():
    known = np.kron(np.eye(4), np.ones((10, 8))) * (np.random.default_rng(0).random((40, 32)) < 0.7)
    R = mf.Ratings(known, **F64)
    model = fit(R, 6, epochs=20)
    scores = model.reconstruct()
    scores[R.users, R.items] = -np.inf
    found = model.recommend([3, 17], 5)
    for row, u in enumerate((3, 17)):
        np.testing.assert_array_equal(found.items[row], np.argsort(-scores[u], kind="stable")[:5])
        others = 8 - int(known[u].sum())
        assert others > 0
        assert (found.items[row][:others] // 8 == u // 10).all()
    assert (model.similar_items(9, 7).items // 8 == 1).all()
    assert (model.similar_users(25, 9).items // 10 == 2).all()
    stranger = model.recommend({8: 1.0, 11: 1.0}, 6).items
    assert sorted(stranger) == [9, 10, 12, 13, 14, 15]
    of_known = 1 - model.predict(R.users, R.items)
    assert model.rmse(R) == pytest.approx(math.sqrt(np.mean(of_known**2)), rel=1e-9)


@pytest.mark.parametrize("solver", quick(SOLVERS, "cholesky", "subspace"))
def test_init__goes_on_from_a_model_as_if_it_had_not_ended(solver):
    R = feedback(14, 10, 0.12)
    assert 0 in R.user_counts()
    assert 0 in R.item_counts()
    whole, half = (fit(R, 9, solver=solver, epochs=epochs) for epochs in (5, 3))
    again = fit(R, 9, solver=solver, epochs=2, init=half, rng=9)
    assert_same(again, whole)
    assert losses(again).tolist() == losses(whole)[3:].tolist()


def test_ids__of_a_model_are_found():
    R = feedback(share=0.6)
    users, items = np.array(list("abcdefgh")), np.arange(7)
    first = fit(mf.Ratings(R, user_ids=users, item_ids=items), epochs=20)
    back = R.take_rows(np.arange(8)[::-1])
    again = fit(mf.Ratings(back, user_ids=users[::-1], item_ids=items), init=first, epochs=1)
    straight = fit(mf.Ratings(R, user_ids=users, item_ids=items), init=first, epochs=1)
    np.testing.assert_allclose(again.P[::-1], straight.P, rtol=1e-9)


# quality and the program


@pytest.mark.slow
def test_quality__is_above_that_of_popularity():
    train, test = mf.train_test_split(clusters(), 0.2, rng=0)
    model = mf.factorize(train, 16, method="implicit", rng=0)
    popular = mf.Factors(np.ones((300, 1)), train.item_counts()[None].astype(float), ratings=train)
    assert metrics.ndcg_at_n(model, test, 20) > 1.3 * metrics.ndcg_at_n(popular, test, 20)


def write_clicks(folder, R):
    return str(write_ratings(folder / "clicks.txt", R, "u{}\ti{}\t{:g}\n"))


def test_program__ranks_what_is_held_out(capsys, tmp_path):
    path = write_clicks(tmp_path, clusters(80, 60, 4, 12))
    options = ["--alpha", "2", "--unobserved-weight", "0.5", "--dtype", "float64", "--epochs", "4"]
    saved = str(tmp_path / "model.npz")
    options += ["-k", "4", "--test", "0.2", "--seed", "3", "-o", saved]
    main(["factorize", path, "--method", "implicit", *options])
    captured = capsys.readouterr()
    train, test = mf.train_test_split(mf.read_ratings(path), 0.2, rng=3)
    expected = fit(train, 4, alpha=2.0, unobserved_weight=0.5, rng=3, epochs=4)
    assert_same(mf.load(saved), expected)
    figures = [metrics.ranking(expected, test, n) for n in (20, 100)]
    lines = [line.split() for line in captured.out.splitlines()]
    for name in ("recall", "ndcg"):
        assert [name, *(f"{figure[name]:.4f}" for figure in figures)] in lines
    assert "RMSE" not in captured.out
    assert f"loss {expected.history[-1].loss:.8g} " in captured.err.splitlines()[-1]


@pytest.mark.slow
def test_program__without_test_says_the_objective(capsys, tmp_path):
    R = clusters(80, 60, 4, 12)
    path = write_clicks(tmp_path, R)
    main(["factorize", path, "--method", "implicit", "-k", "4", "--epochs", "2", "--seed", "0", "-q"])
    model = mf.factorize(mf.read_ratings(path), 4, method="implicit", epochs=2, rng=0)
    assert f"{model.history[-1].loss:.6g}" in capsys.readouterr().out


@pytest.mark.slow
def test_program__names_the_best_epoch_also_of_a_perfect_ranking(capsys, tmp_path):
    R = np.kron(np.eye(3), np.ones((8, 6)))
    path = write_clicks(tmp_path, mf.Ratings(R))
    saved = str(tmp_path / "model.npz")
    options = ["-k", "3", "--validation", "0.3", "--regularization", "0.1", "--seed", "3", "-q", "-o", saved]
    main(["factorize", path, "--method", "implicit", *options])
    found = [record.validation_ndcg for record in mf.load(saved).history]
    best = int(np.argmax(found))
    assert found[best] == 1
    assert found[0] < 1
    out = capsys.readouterr().out
    assert f"best epoch {best + 1}, validation NDCG 1.0000" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--biases"], "biases .*'als'.*'implicit'"),
        (["--learning-rate", "0.1"], "learning_rate .*'sgd'.*'implicit'"),
        (["--loss", "logistic"], "loss .*'sgd'.*'implicit'"),
        (["--l1", "1"], "l1 .*'sgd'.*'implicit'"),
        (["--schedule", "sequential"], "schedule .*'sgd'.*'implicit'"),
        (["--solver", "subspace", "--nonnegative"], "nonnegative.*'subspace'"),
        (["--alpha", "-1"], "alpha.*-1"),
        (["--unobserved-weight", "2"], "unobserved_weight.*2"),
        (["--test", "2"], "test.*2"),
    ],
)
def test_program__says_in_one_line_what_is_wrong(capsys, tmp_path, options, message):
    path = write_clicks(tmp_path, feedback())
    with pytest.raises(SystemExit, match=f"^mfkernel: .*{message}") as end:
        main(["factorize", path, "--method", "implicit", "-q", *options])
    assert "\n" not in str(end.value)


def test_program__goes_on_with_a_model(capsys, tmp_path):
    R = clusters(80, 60, 4, 12)
    path, saved = write_clicks(tmp_path, R), str(tmp_path / "model.npz")
    main(["factorize", path, "--method", "implicit", "-k", "4", "--dtype", "float64", "-q", "-o", saved])
    (tmp_path / "new.txt").write_text("u0\tnew\t2\nstranger\ti4\t1\n")
    main(["update", saved, str(tmp_path / "new.txt")])
    model = mf.load(saved)
    assert model.shape == (81, 61)
    assert model.settings.implicit
    capsys.readouterr()
    main(["recommend", saved, "stranger", "-n", "3"])
    items = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert items == model.recommend("stranger", 3).items.tolist()
    main(["explain", saved, "u3", "i7"])
    assert "rating of" in capsys.readouterr().out
