"""The reference against mathematics, and the package against the reference."""

import numpy as np
import pytest

import mfkernel as mf
from mfkernel import reference
from tests.helpers import gradient, reference_epoch

KNOWN_PRODUCT = [
    [5, 3, 5.27681818],
    [4, 2.62681228, 4.40062951],
    [1, 1, 1.37135176],
    [4.64876186, 2.90807902, 5],
    [3.52188973, 2.4715342, 4],
]


def objective(r, p, q, reg):
    return 0.5 * (r - p @ q) ** 2 + 0.5 * reg * (p @ p + q @ q)


def test_sgd_update__steps_down_the_gradient(rng):
    p, q, r, lr, reg = rng.normal(size=4), rng.normal(size=4), 3.0, 1e-2, 0.3
    p_new, q_new = p.copy(), q.copy()
    e = reference.sgd_update(r, p_new, q_new, lr, reg)
    assert e == pytest.approx(r - p @ q)
    np.testing.assert_allclose(p_new - p, -lr * gradient(lambda x: objective(r, x, q, reg), p), rtol=1e-6)
    # the second step: the gradient of the linear model whose residual is e and whose p is new
    held = gradient(lambda x: -e * (p_new @ x) + 0.5 * reg * (x @ x), q)
    np.testing.assert_allclose(q_new - q, -lr * held, rtol=1e-6)


def test_sgd_update__tends_to_the_joint_gradient_as_steps_shrink(rng):
    p, q, r, reg = rng.normal(size=3), rng.normal(size=3), -1.5, 0.1
    p_new, q_new = p.copy(), q.copy()
    reference.sgd_update(r, p_new, q_new, 1e-7, reg)
    np.testing.assert_allclose(
        (q - q_new) / 1e-7, gradient(lambda x: objective(r, p, x, reg), q), rtol=1e-4, atol=1e-5
    )


def test_textbook_program__gives_the_known_product():
    R, P0, Q0 = mf.datasets.textbook()
    P, Q = reference.textbook_program(R, P0, Q0, alpha=0.01, passes=5000)
    np.testing.assert_allclose(P @ Q, KNOWN_PRODUCT, atol=1e-8)


def test_factorize__is_the_textbook_program():
    R, P0, Q0 = mf.datasets.textbook()
    settings = {"learning_rate": 0.02, "regularization": 0, "epochs": 5000, "shuffle": False}
    P, Q = mf.factorize(R, 2, init=(P0, Q0), dtype=np.float64, **settings)
    np.testing.assert_allclose(P @ Q, KNOWN_PRODUCT, atol=1e-8)
    P_ref, Q_ref = reference.textbook_program(R, P0, Q0, alpha=0.01, passes=5000)
    np.testing.assert_allclose(P, P_ref, atol=1e-9)
    np.testing.assert_allclose(Q, Q_ref, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reg", [0.0, 0.07])
def test_factorize__matches_the_reference_epoch_by_epoch(dtype, reg, ratings, rng):
    k, lr = 5, 0.02
    P0, Q0 = rng.normal(0.5, 0.1, (ratings.n_users, k)), rng.normal(0.5, 0.1, (k, ratings.n_items))
    P_ref, Q_ref, losses = P0.copy(), Q0.T.copy(), []
    for _ in range(3):
        loss = reference_epoch(ratings, np.arange(ratings.n_users), P_ref, Q_ref, lr, reg)
        losses.append(np.sqrt(loss / ratings.nnz))
    model = mf.factorize(
        ratings,
        k,
        init=(P0, Q0),
        epochs=3,
        learning_rate=lr,
        regularization=reg,
        shuffle=False,
        dtype=dtype,
    )
    tolerance = 1e-12 if dtype is np.float64 else 5e-5
    np.testing.assert_allclose(model.P, P_ref, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(model.Q, Q_ref.T, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose([e.rmse for e in model.history], losses, rtol=tolerance)


@pytest.mark.parametrize("biased", [False, True])
def test_als_row__is_where_the_gradient_is_zero(rng, biased):
    Y, base, items = rng.normal(size=(9, 4)), rng.normal(size=9), np.array([7, 2, 0, 5, 3])
    values, weights = rng.normal(size=5), rng.uniform(0.5, 2, 5)
    x = reference.als_row(Y, items, values, weights, base, 0.3, 0.2 if biased else None)

    def loss(x):
        z = base[items] + Y[items] @ x[:4] + (x[4] if biased else 0)
        bias = 0.2 * x[4] ** 2 if biased else 0
        return weights @ (values - z) ** 2 + 0.3 * x[:4] @ x[:4] + bias

    np.testing.assert_allclose(gradient(loss, x), 0, atol=1e-7)


def test_implicit_row__is_where_the_gradient_of_all_cells_is_zero(rng):
    Y, items, strengths = rng.normal(size=(9, 4)), np.array([7, 2]), np.array([3.0, 0.0])
    x = reference.implicit_row(Y, items, strengths, 2.0, 0.5, 0.3)
    row = np.full((1, 9), np.nan)
    row[0, items] = strengths

    def loss(x):
        return reference.implicit_loss(row, x[None], Y, 2.0, 0.5) + 0.3 * x @ x

    np.testing.assert_allclose(gradient(loss, x), 0, atol=1e-7)
    np.testing.assert_allclose(loss(np.zeros(4)), 7 + 1)  # both stored entries are missed, nothing else
