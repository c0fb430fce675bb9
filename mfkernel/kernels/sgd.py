"""Stochastic gradient descent over the rows of a CSR matrix."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._jit import jit


class Rows(NamedTuple):
    """Entries ``starts[u]:stops[u]`` of row u, as columns ``indices`` and ratings ``values``.

    With ``starts, stops = indptr[:-1], indptr[1:]`` these are the whole rows of a CSR matrix; with tighter
    bounds, the part of each row that falls in one band of columns.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]


@jit
def sgd_span(
    order: NDArray[np.int64],
    cursor: NDArray[np.int64],
    budget: int,
    rows: Rows,
    P: NDArray[Any],
    Q: NDArray[Any],
    lr: Any,
    reg: Any,
) -> float:
    r"""Visit the rows ``order``, rating by rating, and step P and Q down the gradient of each.

    .. math::
        e = r - p \cdot q, \qquad
        p \leftarrow p + \gamma (e q - \lambda p), \qquad
        q \leftarrow q + \gamma (e p - \lambda q)

    where the second step uses the p that the first has just made.

    Parameters
    ----------
    order
        (n,) row numbers, in the order in which they are visited.
    cursor
        (2,) how many of ``order``'s rows are done, and how many ratings of the next one; brought up to date.
    budget
        return after about this many ratings and rows, so that the caller can be interrupted.
    rows
        the ratings.
    P, Q
        (n_users, k), (n_items, k), C-contiguous, k a multiple of 8; overwritten in place.
    lr, reg
        γ and λ, scalars of P's dtype: a Python float would turn all arithmetic into float64.

    Returns
    -------
    float
        sum of e² over the ratings visited, each before its own step.

    References
    ----------
    Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
    """
    k = P.shape[1] // 8 * 8  # a count that LLVM knows to be a multiple of 8: no remainder loop
    zero = P.dtype.type(0)
    decay = P.dtype.type(1) - lr * reg
    loss = 0.0
    done = cursor[1]
    for t in range(cursor[0], order.size):
        u = order[t]
        p = P[u]
        start = rows.starts[u] + done
        stop = min(rows.stops[u], start + budget)
        for n in range(start, stop):
            q = Q[rows.indices[n]]
            dot = zero
            for f in range(k):
                dot += p[f] * q[f]
            e = rows.values[n] - dot
            loss += np.float64(e) * np.float64(e)
            step = lr * e
            for f in range(k):
                p[f] = decay * p[f] + step * q[f]
                q[f] = decay * q[f] + step * p[f]
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
