"""Stochastic gradient descent: one update of a rating, and two orders in which ratings are visited.

``sgd_span`` walks the rows of a CSR matrix, ``sgd_tiles`` the tiles of a block grid.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.vectors import Vectors, dot, prefetch, step

CHUNK = 64  # ratings whose e² are added up in the factors' dtype, before the sum goes into a float64
AHEAD = 8  # ratings between asking for a row and using it
LONG_ROW = 64  # coordinates from which a row is asked for ahead even in a tile, which stays in the cache


class Adaptive(NamedTuple):
    """What the adaptive step size of each row rests on; (n_rows, 2) arrays, brought up to date.

    Column 0 is ‖p‖², column 1 the sum G of squared gradients; ``scale`` turns ‖gradient‖² into what is added.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    scale: Any


class Model(NamedTuple):
    """What the ratings change, and by which steps.

    Attributes
    ----------
    P, Q
        (n_users, k), (n_items, k), C-contiguous, k a multiple of 8; overwritten in place.
    lr, reg_p, reg_q
        γ and the two λ, scalars of P's dtype: a Python float would turn all arithmetic into float64.
    vectors
        ``vectors_of(k)``.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    lr: Any
    reg_p: Any
    reg_q: Any
    vectors: Vectors


class Biases(NamedTuple):
    """μ, b_u and b_i, of which μ + b_u + b_i is added to p·q; with a step size and a λ of their own.

    ``users`` is (n_users,), ``items`` (n_items,); both are overwritten in place. Vectors beside P and Q
    take a load and a store of a number each; two more coordinates would make rows longer by a whole vector.
    """

    mean: Any
    users: NDArray[Any]
    items: NDArray[Any]
    lr: Any
    reg: Any


class Loss(NamedTuple):
    """Another loss than the squared one: its ``kind``, and the |e| where ``HUBER``'s becomes linear."""

    kind: int
    delta: Any


class Prox(NamedTuple):
    """What holds the coordinates down: λ₁ of λ₁(‖p‖₁ + ‖q‖₁) for each side, and whether they stay ≥ 0."""

    l1_p: Any
    l1_q: Any
    nonnegative: bool


ABSOLUTE, HUBER, LOGISTIC = 1, 2, 3  # kinds of Loss

# what each rating changes and how; the options that are None are dropped by the compiler
Update = tuple[Model, Adaptive | None, Biases | None, Loss | None, Prox | None]


class Rows(NamedTuple):
    """Entries ``starts[u]:stops[u]`` of row u, as columns ``indices`` and ratings ``values``.

    With ``starts, stops = indptr[:-1], indptr[1:]`` these are the whole rows of a CSR matrix; with tighter
    bounds, the part of each row that falls in one band of columns.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]


class Tiles(NamedTuple):
    """Ratings ``starts[t]:starts[t + 1]`` of tile t, of rows ``first_users[t] + users`` of P; Q likewise."""

    starts: NDArray[np.int64]
    first_users: NDArray[np.int64]
    first_items: NDArray[np.int64]
    users: NDArray[np.uint16]
    items: NDArray[np.uint16]
    values: NDArray[Any]


@inlined
def sgd_update(
    model: Model,
    adaptive: Adaptive | None,
    biases: Biases | None,
    loss: Loss | None,
    prox: Prox | None,
    u: int,
    i: int,
    r: Any,
    w: Any,
) -> Any:
    r"""Step p = P[u] and q = Q[i] down the gradient of one rating; return its residual before the step.

    .. math::
        e = r - p \cdot q, \qquad
        p \leftarrow p + \gamma (e q - \lambda p), \qquad
        q \leftarrow q + \gamma (e p - \lambda q)

    where the second step uses the p that the first has just made. A weight w multiplies γ: the rating counts
    as w ratings.

    Adaptive steps are :math:`\gamma / \sqrt{G}`, G being 1 plus the mean squares of all gradients that the
    row has met. As each step is a combination of p and q, the norms of gradient and result follow from
    ‖p‖², ‖q‖² and p·q alone, without another pass over the coordinates.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    """
    P, Q, vectors = model.P, model.Q, model.vectors
    one, lr = P.dtype.type(1), w * model.lr
    pq = dot(P, u, Q, i, vectors)
    e = residual(loss, r, score(biases, u, i, pq))
    g = pull(loss, e)
    if biases is not None:  # each of these is known to the compiler, which drops the other branches
        bias_step(biases, adaptive, u, i, g, w)
    if adaptive is not None:
        adaptive_step(model, adaptive, lr, u, i, g, pq)
    elif prox is not None:
        prox_step(model, prox, lr, u, i, g)
    else:
        move = lr * g
        step(P, u, Q, i, one - lr * model.reg_p, move, one - lr * model.reg_q, move, vectors)
    return e


@inlined
def score(biases: Biases | None, u: int, i: int, pq: Any) -> Any:
    """Return the whole prediction: μ + b_u + b_i + p·q, or p·q alone."""
    if biases is None:
        return pq
    return biases.mean + biases.users[u] + biases.items[i] + pq


@inlined
def residual(loss: Loss | None, r: Any, z: Any) -> Any:
    """Return r - z; under the logistic loss, where r is 0 or 1, r less the probability of a 1."""
    if loss is not None and loss.kind == LOGISTIC:
        one = type(z)(1)
        z = one / (one + np.exp(-z))
    return r - z


@inlined
def pull(loss: Loss | None, e: Any) -> Any:
    r"""Return minus the derivative of the loss by the prediction, of a residual e.

    ============  =============================================  =====================
    squared       :math:`e^2 / 2`                                e
    absolute      :math:`|e|`                                    sign e
    Huber         :math:`e^2 / 2`, and beyond ±δ a line          e, at most ±δ
    logistic      :math:`-\log p(r)`                            e
    ============  =============================================  =====================
    """
    if loss is not None:
        if loss.kind == HUBER:
            return min(max(e, -loss.delta), loss.delta)
        if loss.kind == ABSOLUTE:
            return np.sign(e)
    return e


@inlined
def bias_step(biases: Biases, adaptive: Adaptive | None, u: int, i: int, g: Any, w: Any) -> None:
    """Make the steps of b_u and b_i, both down the gradient g of the rating."""
    lr_u = lr_i = w * biases.lr
    if adaptive is not None:
        lr_u, lr_i = lr_u / np.sqrt(adaptive.users[u, 1]), lr_i / np.sqrt(adaptive.items[i, 1])
    biases.users[u] += lr_u * (g - biases.reg * biases.users[u])
    biases.items[i] += lr_i * (g - biases.reg * biases.items[i])


@inlined
def adaptive_step(model: Model, adaptive: Adaptive, lr: Any, u: int, i: int, g: Any, pq: Any) -> None:
    """Make the two steps with a step size for each row, and bring their norms and G up to date."""
    reg_p, reg_q = model.reg_p, model.reg_q
    one, two = model.P.dtype.type(1), model.P.dtype.type(2)
    users, items, scale = adaptive.users, adaptive.items, adaptive.scale
    pp, qq = users[u, 0], items[i, 0]
    lr_p, lr_q = lr / np.sqrt(users[u, 1]), lr / np.sqrt(items[i, 1])
    # p ← a p + b q, and then q ← c q + d p; the gradients are λp - gq and λq - gp
    a, b, c, d = one - lr_p * reg_p, lr_p * g, one - lr_q * reg_q, lr_q * g
    step(model.P, u, model.Q, i, a, b, c, d, model.vectors)
    users[u, 1] += scale * (reg_p * reg_p * pp - two * reg_p * g * pq + g * g * qq)
    pp, pq = a * a * pp + two * a * b * pq + b * b * qq, a * pq + b * qq
    items[i, 1] += scale * (reg_q * reg_q * qq - two * reg_q * g * pq + g * g * pp)
    users[u, 0] = pp
    items[i, 0] = c * c * qq + two * c * d * pq + d * d * pp


@inlined
def prox_step(model: Model, prox: Prox, lr: Any, u: int, i: int, g: Any) -> None:
    """Make the two steps, and then the proximal ones: each coordinate γλ₁ nearer to zero, or zero.

    Duchi and Singer, "Efficient online and batch learning using forward backward splitting", JMLR 2009.
    """
    one, move = model.P.dtype.type(1), lr * g
    a, c = one - lr * model.reg_p, one - lr * model.reg_q
    most_p, most_q = lr * prox.l1_p, lr * prox.l1_q
    least_p, least_q = -most_p, -most_q
    if prox.nonnegative:  # x less anything below zero is zero
        least_p = least_q = model.P.dtype.type(-np.inf)
    k = model.P.shape[1] // 8 * 8  # see vectors.py
    p, q = model.P[u], model.Q[i]
    for f in range(k):
        x = a * p[f] + move * q[f]
        p[f] = x - max(least_p, min(x, most_p))
        y = c * q[f] + move * p[f]
        q[f] = y - max(least_q, min(y, most_q))


@inlined
def weight(weights: NDArray[Any] | None, at: Any, one: Any) -> Any:
    """Return the weight of a rating; one, which the compiler drops, where there are none."""
    return one if weights is None else weights[at]


@jit
def sgd_span(
    order: NDArray[np.int64],
    cursor: NDArray[np.int64],
    budget: int,
    rows: Rows,
    model: Model,
    adaptive: Adaptive | None = None,
    biases: Biases | None = None,
    loss: Loss | None = None,
    prox: Prox | None = None,
    weights: NDArray[Any] | None = None,
) -> float:
    """Visit the rows ``order``, rating by rating.

    Parameters
    ----------
    order
        (n,) row numbers, in the order in which they are visited.
    cursor
        (2,) how many of ``order``'s rows are done, and how many ratings of the next one; brought up to date.
    budget
        return after about this many ratings and rows, so that the caller can be interrupted.
    adaptive, biases, loss, prox
        None where γ is the same for all rows; where p·q is the whole prediction; for the squared loss; for
        λ alone.
    weights
        (nnz,) of the ratings, or None if each counts once.

    Returns
    -------
    float
        sum of e² over the ratings visited, each before its own step.
    """
    total, one = 0.0, model.P.dtype.type(1)
    done = cursor[1]
    for t in range(cursor[0], order.size):
        u = order[t]
        start = rows.starts[u] + done
        stop = min(rows.stops[u], start + budget)
        for first in range(start, stop, CHUNK):
            part = model.P.dtype.type(0)
            for n in range(first, min(first + CHUNK, stop)):
                if n + AHEAD < stop:
                    prefetch(model.Q, rows.indices[n + AHEAD], model.vectors)
                # of a signed number, Numba would ask each time whether it counts from the end
                at = np.uint64(n)
                i, r, w = rows.indices[at], rows.values[at], weight(weights, at, one)
                e = sgd_update(model, adaptive, biases, loss, prox, u, i, r, w)
                part += e * e
            total += np.float64(part)
        if stop < rows.stops[u]:
            cursor[0] = t
            cursor[1] = stop - rows.starts[u]
            return total
        done = 0
        budget -= 1 + stop - start
        if budget <= 0:
            cursor[0] = t + 1
            cursor[1] = 0
            return total
    cursor[0] = order.size
    cursor[1] = 0
    return total


@jit
def sgd_tiles(
    cursor: NDArray[np.int64],
    last: int,
    budget: int,
    tiles: Tiles,
    model: Model,
    adaptive: Adaptive | None = None,
    biases: Biases | None = None,
    loss: Loss | None = None,
    prox: Prox | None = None,
    weights: NDArray[Any] | None = None,
) -> float:
    """Visit the tiles from ``cursor[0]`` to ``last``, rating by rating.

    Parameters
    ----------
    cursor
        (1,) the first tile; becomes the one to go on with, ``last`` if all are done.
    last
        the tile before which to stop.
    budget
        return after the tile in which as many ratings are visited, so that the caller can be interrupted.
    adaptive, biases, loss, prox, weights
        As in :func:`sgd_span`.

    Returns
    -------
    float
        sum of e² over the ratings visited, each before its own step.
    """
    total, one = 0.0, model.P.dtype.type(1)
    tile = cursor[0]
    end = tiles.starts[tile] + budget
    while tile < last and tiles.starts[tile] < end:
        user, item = tiles.first_users[tile], tiles.first_items[tile]
        stop = tiles.starts[tile + 1]
        for first in range(tiles.starts[tile], stop, CHUNK):
            part = model.P.dtype.type(0)
            for n in range(first, min(first + CHUNK, stop)):
                if model.P.shape[1] >= LONG_ROW and n + AHEAD < stop:
                    prefetch(model.P, user + tiles.users[n + AHEAD], model.vectors)
                    prefetch(model.Q, item + tiles.items[n + AHEAD], model.vectors)
                at = np.uint64(n)  # see sgd_span
                u, i = user + tiles.users[at], item + tiles.items[at]
                r, w = tiles.values[at], weight(weights, at, one)
                e = sgd_update(model, adaptive, biases, loss, prox, u, i, r, w)
                part += e * e
            total += np.float64(part)
        tile += 1
    cursor[0] = tile
    return total


@jit
def squared_errors(
    users: NDArray[Any],
    items: NDArray[Any],
    values: NDArray[Any],
    model: Model,
    biases: Biases | None,
    loss: Loss | None,
) -> float:
    """Return the sum of e² over the ratings ``values`` of rows ``users`` of P and ``items`` of Q."""
    total = 0.0
    for n in range(values.size):
        if n + AHEAD < values.size:
            prefetch(model.P, users[n + AHEAD], model.vectors)
            prefetch(model.Q, items[n + AHEAD], model.vectors)
        u, i = users[n], items[n]
        e = residual(loss, values[n], score(biases, u, i, dot(model.P, u, model.Q, i, model.vectors)))
        total += np.float64(e) * np.float64(e)
    return total
