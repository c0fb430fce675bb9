"""Compiled loops over flat arrays; no checks, no allocation of results, no randomness, no errors.

Words outside, mathematics inside:

===========  ================================  =====================
kernels      meaning                           outside
===========  ================================  =====================
u, i, r      user row, item column, rating     ``users``, ``items``, ``values``
P, Q         factors, one row of k an entity   ``model.P``, ``model.Q.T``
p, q         the row of one user, one item     ``P[u]``, ``Q[i]``
k            columns of P and Q, a multiple    ``k``
             of 8 (the padding is zero)
x, y         the row that is solved for, and   ``P[u]`` and ``Q[i]``, or
             one of the other side             the other way round
z            score of a rating, p·q or more    ``predict``
e            residual r − p·q
g, h         minus the slope of the loss at z,
             and its curvature
lr           step size γ                       ``learning_rate``
reg          λ of λ(‖p‖² + ‖q‖²), per rating   ``regularization``
===========  ================================  =====================

``*_update`` is one rating, ``*_span`` a contiguous range, run by one thread.
"""
