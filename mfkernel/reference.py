"""The algorithms in plain Python and NumPy, to be read beside the formulas and compared with the kernels.

Nothing here is fast. A function is named after the kernel that it stands for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def textbook_program(R: Array, P: Array, Q: Array, alpha: float, passes: int) -> tuple[Array, Array]:
    r"""Run the textbook's loop over every known cell and coordinate; zero is unknown.

    .. math::
        e = r_{ij} - p_i \cdot q_j, \qquad
        p_{if} \leftarrow p_{if} + 2 \alpha e q_{fj}, \qquad
        q_{fj} \leftarrow q_{fj} + 2 \alpha e p_{if}

    Parameters
    ----------
    R, P, Q
        (m, n), (m, k) and (k, n); P and Q are start values, which are copied.

    Returns
    -------
    tuple
        P and Q after ``passes`` passes.
    """
    P, Q = P.copy(), Q.copy()
    m, n = R.shape
    k = P.shape[1]
    for _ in range(passes):
        for i in range(m):
            for j in range(n):
                if R[i, j] > 0:
                    e = R[i, j] - np.dot(P[i, :], Q[:, j])
                    for f in range(k):
                        P[i, f] += alpha * 2 * e * Q[f, j]
                        Q[f, j] += alpha * 2 * e * P[i, f]
    return P, Q


def loss_of(r: float, z: float, loss: str, delta: float = 1.0) -> float:
    """Return the loss of predicting the score z for the rating r; r is 0 or 1 under the logistic loss."""
    e = abs(r - z)
    return {
        "squared": lambda: 0.5 * e**2,
        "absolute": lambda: e,
        "huber": lambda: 0.5 * e**2 if e <= delta else delta * (e - delta / 2),
        "logistic": lambda: float(np.logaddexp(0, z)) - r * z,
    }[loss]()


def residual(r: float, z: float, loss: str) -> float:
    """Return r less what is predicted: z, or under the logistic loss the probability of a 1."""
    return float(r - (1 / (1 + np.exp(-z)) if loss == "logistic" else z))


def negative_gradient(e: float, loss: str, delta: float = 1.0) -> float:
    """Return minus the derivative of the loss by the score."""
    return {"absolute": float(np.sign(e)), "huber": min(max(e, -delta), delta)}.get(loss, e)


def general_update(
    r: float,
    p: Array,
    q: Array,
    b: Array,
    mean: float,
    settings: Any,
    weight: float = 1.0,
) -> float:
    r"""Step p, q and b = (b_u, b_i), in place, down the gradient of one rating under any settings.

    Each is a step down the gradient of :math:`w [\ell(r, \mu + b_u + b_i + p \cdot q) + \ldots]`, with its
    own γ and λ, and for p and q then the proximal step of λ₁ and of what must not be negative. Without
    biases, neither μ nor b counts. ``settings`` is an ``mf.SGD`` of which nothing is None.
    """
    z = float(p @ q + (mean + b.sum() if settings.biases else 0.0))
    e = residual(r, z, settings.loss)
    g = negative_gradient(e, settings.loss, settings.huber_delta)
    if settings.biases:
        b += weight * settings.bias_learning_rate * (g - settings.bias_regularization * b)
    lr = weight * settings.learning_rate
    for x, y, reg, l1 in zip((p, q), (q, p), settings.regularization, settings.l1, strict=True):
        x += lr * (g * y - reg * x)
        x[:] = np.sign(x) * np.maximum(np.abs(x) - lr * l1, 0)
        if settings.nonnegative:
            np.maximum(x, 0, out=x)
    return e


def squared_errors(users: Array, items: Array, values: Array, P: Array, Q: Array) -> float:
    """Return Σ (r - p·q)² over the ratings ``values``."""
    return float(np.sum((values - np.sum(P[users] * Q[items], axis=1)) ** 2))


def sgd_update(r: float, p: Array, q: Array, lr: float, reg: float) -> float:
    r"""Step p and q, (k,), down the gradient of one rating, in place; return the residual met before.

    .. math::
        e = r - p \cdot q, \qquad
        p \leftarrow p + \gamma (e q - \lambda p), \qquad
        q \leftarrow q + \gamma (e p - \lambda q)

    The second step uses the new p. Each is a step of γ down the gradient of
    :math:`\tfrac12 (r - p \cdot q)^2 + \tfrac{\lambda}{2} (\|p\|^2 + \|q\|^2)`, with the residual held.
    """
    e = r - np.dot(p, q)
    p += lr * (e * q - reg * p)
    q += lr * (e * p - reg * q)
    return float(e)


def sgd_span(
    order: Sequence[int] | Array,
    starts: Array,
    stops: Array,
    indices: Array,
    values: Array,
    P: Array,
    Q: Array,
    lr: float,
    reg: float,
) -> float:
    """Visit the rows ``order``, of each the entries ``starts[u]:stops[u]``; return the sum of e².

    P is (n_users, k), Q (n_items, k); both are updated in place.
    """
    loss = 0.0
    for u in order:
        for n in range(starts[u], stops[u]):
            loss += sgd_update(values[n], P[u], Q[indices[n]], lr, reg) ** 2
    return loss


def als_row(
    Y: Array, items: Array, values: Array, weights: Array, base: Array, reg: float, bias_reg: float | None
) -> Array:
    r"""Solve the normal equations of one row, given the other side; the bias, if ``bias_reg`` is given, last.

    .. math::
        \Big(\sum w y y^T + \lambda I\Big) x = \sum w y (r - \text{base})

    is where the gradient of :math:`\sum w (r - \text{base} - x \cdot y)^2 + \lambda \|x\|^2` is zero; with a
    bias, y has a 1 as its last coordinate, whose penalty is λ_b.
    """
    y, penalty = Y[items], np.full(Y.shape[1], reg)
    if bias_reg is not None:
        y, penalty = np.column_stack([y, np.ones(len(y))]), np.append(penalty, bias_reg)
    A = (y.T * weights) @ y + np.diag(penalty)
    return np.asarray(np.linalg.solve(A, y.T @ (weights * (values - base[items]))))


def implicit_row(
    Y: Array, items: Array, strengths: Array, alpha: float, unobserved: float, reg: float
) -> Array:
    r"""Solve one row of implicit feedback by the textbook's formula, over all items.

    .. math::
        x = (Y^T C Y + \lambda I)^{-1} Y^T C t

    with targets t of 1, or 0 where r < 0, and weights C of 1 + α|r| for the ``items``, and 0 and w₀ for all
    others.

    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, equation 4.
    """
    weights, targets = np.full(len(Y), float(unobserved)), np.zeros(len(Y))
    weights[items], targets[items] = 1 + alpha * np.abs(strengths), strengths >= 0
    return np.asarray(
        np.linalg.solve((Y.T * weights) @ Y + reg * np.eye(Y.shape[1]), Y.T @ (weights * targets))
    )


def implicit_loss(R: Array, P: Array, Q: Array, alpha: float, unobserved: float) -> float:
    """Return Σ c (x - p·q)² over all cells of R (m, n), where nan is no feedback; Q is (n, k)."""
    known = ~np.isnan(R)
    weights = np.where(known, 1 + alpha * np.abs(np.where(known, R, 0)), unobserved)
    return float(np.sum(weights * ((R >= 0) - P @ Q.T) ** 2))


def adaptive_update(r: float, p: Array, q: Array, G: Array, lr: float, reg: float, scale: float) -> float:
    r"""Step p and q by :math:`\gamma / \sqrt{G}`, where ``G[0]`` and ``G[1]`` grow by the squared gradients.

    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    """
    e = r - p @ q
    gradient = reg * p - e * q
    p -= lr / np.sqrt(G[0]) * gradient
    G[0] += scale * gradient @ gradient
    gradient = reg * q - e * p
    q -= lr / np.sqrt(G[1]) * gradient
    G[1] += scale * gradient @ gradient
    return float(e)


def sgd_tiles(tiles: Any, P: Array, Q: Array, lr: float, reg: float) -> float:
    """Update P and Q tile by tile; return the sum of the squared residuals before each update."""
    loss = 0.0
    for t in range(tiles.first_users.size):
        for n in range(tiles.starts[t], tiles.starts[t + 1]):
            p, q = P[tiles.first_users[t] + tiles.users[n]], Q[tiles.first_items[t] + tiles.items[n]]
            loss += sgd_update(tiles.values[n], p, q, lr, reg) ** 2
    return loss


def gibbs_row(
    Y: Array, base: Array, r: Array, weights: Array, prior: tuple[Array, Array], sigma: float, normals: Array
) -> tuple[Array, Array]:
    r"""Draw the factors and the bias of one row, given its ratings and the other side.

    .. math::
        A = \\Lambda + \\frac{1}{\\sigma^2} \\sum_n w_n z_n z_n^T, \\qquad
        c = \\Lambda \\mu + \\frac{1}{\\sigma^2} \\sum_n w_n (r_n - \\text{base}_n) z_n, \\qquad
        x \\sim N(A^{-1} c, A^{-1})

    with z_n = (y_n, 1), so that the last coordinate of x is the bias.

    Parameters
    ----------
    Y, base, r, weights
        (n, k) factors of the rated items, (n,) their scores without the row, (n,) ratings and their weights.
    prior
        (k + 1,) mean and (k + 1, k + 1) precision.
    sigma
        Standard deviation of a rating of weight 1.
    normals
        (k + 1,) standard normals.

    Returns
    -------
    tuple
        The draw and its mean, (k + 1,).
    """
    mean, precision = prior
    Z = np.column_stack([Y, np.ones(len(Y))])
    A = precision + (Z.T * weights) @ Z / sigma**2
    c = precision @ mean + Z.T @ (weights * (r - base)) / sigma**2
    expected = np.linalg.solve(A, c)
    return expected + np.linalg.solve(np.linalg.cholesky(A).T, normals), expected


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Return the four numbers of 32 bits of Philox4x32-10 for a counter of four and a key of two numbers."""
    a, b, c, d = counter
    key0, key1 = key
    for _ in range(10):
        ab, cd = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = cd >> 32 ^ b ^ key0, cd % 2**32, ab >> 32 ^ d ^ key1, ab % 2**32
        key0, key1 = (key0 + 0x9E3779B9) % 2**32, (key1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def random_below(bound: int, seed: int, counter: int) -> int:
    """Return a number below ``bound``: the upper half of SplitMix64's output, times ``bound`` over 2³²."""
    x = (seed + counter * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    x ^= x >> 31
    return (x >> 32) * bound >> 32


def group(keys: Array, columns: Array, values: Array, n_rows: int) -> tuple[Array, Array, Array]:
    """Bring entries of one key together; return the first position of each row, columns and values."""
    order = np.argsort(keys, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=n_rows))])
    return indptr, columns[order], values[order]


def transpose(indptr: Array, indices: Array, values: Array, n_columns: int) -> tuple[Array, Array, Array]:
    """Transpose a CSR matrix: its columns become rows."""
    return group(indices, np.repeat(np.arange(indptr.size - 1), np.diff(indptr)), values, n_columns)


def band_bounds(indptr: Array, indices: Array, cuts: Array) -> Array:
    """Find, for each cut, where the columns ``cut`` and later begin in every row: (n_cuts, n_rows)."""
    bounds = [
        [indptr[u] + np.searchsorted(indices[indptr[u] : indptr[u + 1]], cut) for u in range(indptr.size - 1)]
        for cut in cuts
    ]
    return np.array(bounds, np.int64)
