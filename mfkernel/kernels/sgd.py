"""Stochastic gradient descent: one update of a rating, and two orders in which ratings are visited.

``sgd_span`` walks the rows of a CSR matrix, ``sgd_tiles`` the tiles of a block grid.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._jit import inlined, jit
from mfkernel._simd import Vectors, dot, prefetch, step

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
    lr, reg
        γ and λ, scalars of P's dtype: a Python float would turn all arithmetic into float64.
    vectors
        ``vectors_of(k)``.
    """

    P: NDArray[Any]
    Q: NDArray[Any]
    lr: Any
    reg: Any
    vectors: Vectors


Update = tuple[Model, Adaptive | None]


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
def sgd_update(model: Model, adaptive: Adaptive | None, u: int, i: int, r: Any) -> Any:
    r"""Step p = P[u] and q = Q[i] down the gradient of one rating; return its residual before the step.

    .. math::
        e = r - p \cdot q, \qquad
        p \leftarrow p + \gamma (e q - \lambda p), \qquad
        q \leftarrow q + \gamma (e p - \lambda q)

    where the second step uses the p that the first has just made.

    Adaptive steps are :math:`\gamma / \sqrt{G}`, G being 1 plus the mean squares of all gradients that the
    row has met. As each step is a combination of p and q, the norms of gradient and result follow from
    ‖p‖², ‖q‖² and p·q alone, without another pass over the coordinates.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    Chin, Zhuang, Juan and Lin, "A learning-rate schedule for stochastic gradient methods to matrix
    factorization", PAKDD 2015.
    """
    P, Q, lr, reg = model.P, model.Q, model.lr, model.reg
    pq = dot(P, u, Q, i, model.vectors)
    e = r - pq
    if adaptive is None:  # known to the compiler, which drops the other branch
        decay, move = P.dtype.type(1) - lr * reg, lr * e
        step(P, u, Q, i, decay, move, decay, move, model.vectors)
    else:
        adaptive_step(model, adaptive, u, i, e, pq)
    return e


@inlined
def adaptive_step(model: Model, adaptive: Adaptive, u: int, i: int, e: Any, pq: Any) -> None:
    """Make the two steps with a step size for each row, and bring their norms and G up to date."""
    lr, reg = model.lr, model.reg
    one, two = model.P.dtype.type(1), model.P.dtype.type(2)
    users, items, scale = adaptive.users, adaptive.items, adaptive.scale
    pp, qq = users[u, 0], items[i, 0]
    lr_p, lr_q = lr / np.sqrt(users[u, 1]), lr / np.sqrt(items[i, 1])
    # p ← a p + b q, and then q ← c q + d p; the gradients are λp - eq and λq - ep
    a, b, c, d = one - lr_p * reg, lr_p * e, one - lr_q * reg, lr_q * e
    step(model.P, u, model.Q, i, a, b, c, d, model.vectors)
    users[u, 1] += scale * (reg * reg * pp - two * reg * e * pq + e * e * qq)
    pp, pq = a * a * pp + two * a * b * pq + b * b * qq, a * pq + b * qq
    items[i, 1] += scale * (reg * reg * qq - two * reg * e * pq + e * e * pp)
    users[u, 0] = pp
    items[i, 0] = c * c * qq + two * c * d * pq + d * d * pp


@jit
def sgd_span(
    order: NDArray[np.int64],
    cursor: NDArray[np.int64],
    budget: int,
    rows: Rows,
    model: Model,
    adaptive: Adaptive | None,
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
    adaptive
        None where γ is the same for all rows.

    Returns
    -------
    float
        sum of e² over the ratings visited, each before its own step.
    """
    loss = 0.0
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
                e = sgd_update(model, adaptive, u, rows.indices[at], rows.values[at])
                part += e * e
            loss += np.float64(part)
        if stop < rows.stops[u]:
            cursor[0] = t
            cursor[1] = stop - rows.starts[u]
            return loss
        done = 0
        budget -= 1 + stop - start
        if budget <= 0:
            cursor[0] = t + 1
            cursor[1] = 0
            return loss
    cursor[0] = order.size
    cursor[1] = 0
    return loss


@jit
def sgd_tiles(
    cursor: NDArray[np.int64], last: int, budget: int, tiles: Tiles, model: Model, adaptive: Adaptive | None
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

    Returns
    -------
    float
        sum of e² over the ratings visited, each before its own step.
    """
    loss = 0.0
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
                e = sgd_update(
                    model, adaptive, user + tiles.users[at], item + tiles.items[at], tiles.values[at]
                )
                part += e * e
            loss += np.float64(part)
        tile += 1
    cursor[0] = tile
    return loss
