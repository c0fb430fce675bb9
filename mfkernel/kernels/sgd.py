"""Stochastic gradient descent: the update for one rating, and two loops over ratings.

``sgd_span`` visits the rows of a CSR matrix, ``sgd_tiles`` the tiles of a grid of blocks.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels import ROW_MULTIPLE
from mfkernel.kernels.jit import inlined, jit
from mfkernel.kernels.losses import Loss, negative_gradient, residual, weight
from mfkernel.kernels.vectors import RankToken, dot, prefetch, step

RATINGS_PER_SUM = 64  # ratings whose e² are summed in the dtype of the factors before the float64 total
PREFETCH_DISTANCE = 8  # ratings between the prefetch of a row and its use
MIN_PREFETCH_RANK = 64  # coordinates: shorter rows of a tile stay in the cache, and are not prefetched


class Adaptive(NamedTuple):
    """The state of adaptive step sizes.

    Attributes
    ----------
    users, items
        (n_rows, 2) arrays, updated in place. Column 0 is ‖p‖², column 1 the sum G of squared gradients.
    scale
        factor of ‖gradient‖² in G.
    """

    users: NDArray[Any]
    items: NDArray[Any]
    scale: Any


class FactorRows(NamedTuple):
    """The factors, one row per user and per item.

    Attributes
    ----------
    P, Q
        (n_users, k), (n_items, k), C-contiguous, k a multiple of 8; updated in place.
    token
        ``rank_token(k)``, or () for loops.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    token: RankToken


class Rates(NamedTuple):
    """The learning rate γ, and the penalties λ of P and Q.

    All are scalars of P's dtype: a Python float would turn all arithmetic into float64.
    """

    lr: Any
    reg_p: Any
    reg_q: Any


class Biases(NamedTuple):
    """The mean μ and the biases b_u and b_i, with a step size and a λ of their own.

    The score of a rating is μ + b_u + b_i + p·q. ``users`` is (n_users,), ``items`` (n_items,); both are
    updated in place. Biases beside P and Q take a load and a store of one number each. As two more
    coordinates, they would lengthen each row by a whole vector.
    """

    mean: Any
    users: NDArray[Any]
    items: NDArray[Any]
    lr: Any
    reg: Any


class Prox(NamedTuple):
    """The proximal step: λ₁ of each side, and whether coordinates stay ≥ 0."""

    l1_p: Any
    l1_q: Any
    nonnegative: bool


# The arguments of an update; the compiler drops the branches of those that are None.
Update = tuple[FactorRows, Rates, Adaptive | None, Biases | None, Loss | None, Prox | None]


class Rows(NamedTuple):
    """The entries ``starts[u]:stops[u]`` of each row u.

    Their columns are ``indices``, their ratings ``values``. With ``starts, stops = indptr[:-1], indptr[1:]``
    they are the whole rows of a CSR matrix. Tighter bounds select the part of each row in one band of
    columns.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]


class Tiles(NamedTuple):
    """The ratings, tile by tile.

    Tile t has the ratings ``starts[t]:starts[t + 1]``. Their rows of P are ``first_users[t] + users``, and
    their rows of Q ``first_items[t] + items``.
    """

    starts: NDArray[np.int64]
    first_users: NDArray[np.int64]
    first_items: NDArray[np.int64]
    users: NDArray[np.uint16]
    items: NDArray[np.uint16]
    values: NDArray[Any]


@inlined
def sgd_update(
    factors: FactorRows,
    rates: Rates,
    adaptive: Adaptive | None,
    biases: Biases | None,
    loss: Loss | None,
    prox: Prox | None,
    u: int,
    i: int,
    r: Any,
    w: Any,
) -> Any:
    r"""Update p = P[u], q = Q[i] and the biases for one rating; return its residual.

    .. math::
        e = r - p \cdot q, \qquad
        p \leftarrow p + \gamma (e q - \lambda p), \qquad
        q \leftarrow q + \gamma (e p - \lambda q)

    where the second step uses the new p. The residual is that before the steps. For other losses, the
    negative gradient g stands for e. A weight w multiplies γ.

    Adaptive steps are :math:`\gamma / \sqrt{G}`, where G is 1 plus the scaled sum of the squared gradients of
    the row so far. Each step is a linear combination of p and q. So the norms of gradient and result follow
    from ‖p‖², ‖q‖² and p·q, without another pass over the coordinates.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    """
    P, Q, token = factors.P, factors.Q, factors.token
    one, lr = P.dtype.type(1), w * rates.lr
    pq = dot(P, u, Q, i, token)
    e = residual(loss, r, score(biases, u, i, pq))
    g = negative_gradient(loss, e)
    if biases is not None:  # the compiler knows each of these conditions, and drops the other branches
        bias_step(biases, adaptive, u, i, g, w)
    if adaptive is not None:
        adaptive_step(factors, rates, adaptive, lr, u, i, g, pq)
    elif prox is not None:
        prox_step(factors, rates, prox, lr, u, i, g)
    else:
        lr_g = lr * g
        step(P, u, Q, i, one - lr * rates.reg_p, lr_g, one - lr * rates.reg_q, lr_g, token)
    return e


@inlined
def score(biases: Biases | None, u: int, i: int, pq: Any) -> Any:
    """Return the score of a rating: μ + b_u + b_i + p·q, or p·q without biases."""
    if biases is None:
        return pq
    return biases.mean + biases.users[u] + biases.items[i] + pq


@inlined
def bias_step(biases: Biases, adaptive: Adaptive | None, u: int, i: int, g: Any, w: Any) -> None:
    """Update b_u and b_i for the negative gradient g of the rating."""
    lr_u = lr_i = w * biases.lr
    if adaptive is not None:
        lr_u, lr_i = lr_u / np.sqrt(adaptive.users[u, 1]), lr_i / np.sqrt(adaptive.items[i, 1])
    biases.users[u] += lr_u * (g - biases.reg * biases.users[u])
    biases.items[i] += lr_i * (g - biases.reg * biases.items[i])


@inlined
def adaptive_step(
    factors: FactorRows, rates: Rates, adaptive: Adaptive, lr: Any, u: int, i: int, g: Any, pq: Any
) -> None:
    """Update p and q with a step size per row; update their norms and G."""
    reg_p, reg_q = rates.reg_p, rates.reg_q
    one, two = factors.P.dtype.type(1), factors.P.dtype.type(2)
    users, items, scale = adaptive.users, adaptive.items, adaptive.scale
    pp, qq = users[u, 0], items[i, 0]
    lr_p, lr_q = lr / np.sqrt(users[u, 1]), lr / np.sqrt(items[i, 1])
    # The steps are p ← a p + b q and then q ← c q + d p; the gradients are λp - gq and λq - gp.
    a, b, c, d = one - lr_p * reg_p, lr_p * g, one - lr_q * reg_q, lr_q * g
    step(factors.P, u, factors.Q, i, a, b, c, d, factors.token)
    users[u, 1] += scale * (reg_p * reg_p * pp - two * reg_p * g * pq + g * g * qq)
    pp, pq = a * a * pp + two * a * b * pq + b * b * qq, a * pq + b * qq
    items[i, 1] += scale * (reg_q * reg_q * qq - two * reg_q * g * pq + g * g * pp)
    users[u, 0] = pp
    items[i, 0] = c * c * qq + two * c * d * pq + d * d * pp


@inlined
def prox_step(factors: FactorRows, rates: Rates, prox: Prox, lr: Any, u: int, i: int, g: Any) -> None:
    """Update p and q; then move each coordinate by γλ₁ towards zero, but not past it.

    Duchi and Singer, "Efficient online and batch learning using forward backward splitting", JMLR 2009.
    """
    one, lr_g = factors.P.dtype.type(1), lr * g
    a, c = one - lr * rates.reg_p, one - lr * rates.reg_q
    upper_p, upper_q = lr * prox.l1_p, lr * prox.l1_q  # bounds of what is subtracted from a coordinate
    lower_p, lower_q = -upper_p, -upper_q
    if prox.nonnegative:  # a negative x minus itself is zero
        lower_p = lower_q = factors.P.dtype.type(-np.inf)
    k = factors.P.shape[1] // ROW_MULTIPLE * ROW_MULTIPLE  # LLVM drops the remainder loop
    p, q = factors.P[u], factors.Q[i]
    for f in range(k):
        x = a * p[f] + lr_g * q[f]
        p[f] = x - max(lower_p, min(x, upper_p))
        y = c * q[f] + lr_g * p[f]
        q[f] = y - max(lower_q, min(y, upper_q))


@jit
def sgd_span(
    order: NDArray[np.int64],
    cursor: NDArray[np.int64],
    budget: int,
    rows: Rows,
    factors: FactorRows,
    rates: Rates,
    adaptive: Adaptive | None = None,
    biases: Biases | None = None,
    loss: Loss | None = None,
    prox: Prox | None = None,
    weights: NDArray[Any] | None = None,
) -> float:
    """Update the factors for each rating of the rows ``order``.

    Parameters
    ----------
    order
        (n,) rows, in the order of visits.
    cursor
        (2,) number of rows done, and of ratings done in the next row; updated.
    budget
        number of ratings and rows after which to return, so that the caller can be interrupted.
    adaptive
        state of adaptive step sizes. None: the step size is γ for all rows.
    biases
        None: the score is p·q.
    loss
        None: the squared loss.
    prox
        None: no proximal step.
    weights
        (nnz,) weights of the ratings. None: 1.

    Returns
    -------
    float
        Σ e² over the visited ratings, each before its own update.
    """
    total, one = 0.0, factors.P.dtype.type(1)
    done = cursor[1]
    for t in range(cursor[0], order.size):
        u = order[t]
        start = rows.starts[u] + done
        stop = min(rows.stops[u], start + budget)
        for first in range(start, stop, RATINGS_PER_SUM):
            part = factors.P.dtype.type(0)
            for n in range(first, min(first + RATINGS_PER_SUM, stop)):
                if n + PREFETCH_DISTANCE < stop:
                    prefetch(factors.Q, rows.indices[n + PREFETCH_DISTANCE], factors.token)
                # Numba would check whether a signed index counts from the end
                at = np.uint64(n)
                i, r, w = rows.indices[at], rows.values[at], weight(weights, at, one)
                e = sgd_update(factors, rates, adaptive, biases, loss, prox, u, i, r, w)
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
    factors: FactorRows,
    rates: Rates,
    adaptive: Adaptive | None = None,
    biases: Biases | None = None,
    loss: Loss | None = None,
    prox: Prox | None = None,
    weights: NDArray[Any] | None = None,
) -> float:
    """Update the factors for each rating of the tiles from ``cursor[0]`` to ``last``.

    Parameters
    ----------
    cursor
        (1,) the first tile; updated to the next tile, or ``last`` if all are done.
    last
        the tile to stop at, exclusive.
    budget
        number of ratings; the call returns after the tile that reaches it, so that the caller can be
        interrupted.
    adaptive, biases, loss, prox, weights
        As in :func:`sgd_span`.

    Returns
    -------
    float
        Σ e² over the visited ratings, each before its own update.
    """
    total, one = 0.0, factors.P.dtype.type(1)
    tile = cursor[0]
    end = tiles.starts[tile] + budget
    while tile < last and tiles.starts[tile] < end:
        user, item = tiles.first_users[tile], tiles.first_items[tile]
        stop = tiles.starts[tile + 1]
        for first in range(tiles.starts[tile], stop, RATINGS_PER_SUM):
            part = factors.P.dtype.type(0)
            for n in range(first, min(first + RATINGS_PER_SUM, stop)):
                if factors.P.shape[1] >= MIN_PREFETCH_RANK and n + PREFETCH_DISTANCE < stop:
                    prefetch(factors.P, user + tiles.users[n + PREFETCH_DISTANCE], factors.token)
                    prefetch(factors.Q, item + tiles.items[n + PREFETCH_DISTANCE], factors.token)
                at = np.uint64(n)  # see sgd_span
                u, i = user + tiles.users[at], item + tiles.items[at]
                r, w = tiles.values[at], weight(weights, at, one)
                e = sgd_update(factors, rates, adaptive, biases, loss, prox, u, i, r, w)
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
    factors: FactorRows,
    biases: Biases | None,
    loss: Loss | None,
) -> float:
    """Return Σ e² over the ratings ``values`` of ``users`` for ``items``."""
    total = 0.0
    for n in range(values.size):
        if n + PREFETCH_DISTANCE < values.size:
            prefetch(factors.P, users[n + PREFETCH_DISTANCE], factors.token)
            prefetch(factors.Q, items[n + PREFETCH_DISTANCE], factors.token)
        u, i = users[n], items[n]
        e = residual(loss, values[n], score(biases, u, i, dot(factors.P, u, factors.Q, i, factors.token)))
        total += np.float64(e) * np.float64(e)
    return total
