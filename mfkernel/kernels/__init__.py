"""Compiled loops over flat arrays; no checks, no errors. All of Numba is in this folder.

Names outside are words; names in kernels are the symbols of the literature:

===========  ================================  =========================================
kernels      meaning                           outside
===========  ================================  =========================================
u, i, r      user row, item column, rating     ``users``, ``items``, ``values``
P, Q         factors, one row of k per user    ``model.P``, ``model.Q.T``
             or item
p, q         the row of one user, one item     ``P[u]``, ``Q[i]``
k            columns of P and Q, a multiple    ``k``
             of 8 (the padding is zero); in
             ``Objective`` without padding
K            k rounded up to a multiple of 8
x, y         the row to be solved for, and     ``P[u]`` and ``Q[i]``, or
             a row of the other side           the other way round
X, Y         their matrices
b            bias of a row                     ``user_bias``, ``item_bias``
w            weight of a rating                ``sample_weight``
z            score of a rating: p·q, plus      ``predict``
             mean and biases
e            residual r - z
g, h         -∂ℓ/∂z, the negative gradient of
             the loss, and its curvature
lr           learning rate γ                   ``learning_rate``
reg          λ of λ(‖p‖² + ‖q‖²), per rating   ``regularization``
===========  ================================  =========================================

Functions named ``*_update`` and ``*_step`` handle one rating. Those named ``*_row`` handle one row. Those
named ``*_span`` handle a contiguous range of rows, and are run by one thread.

Glossary
--------
band
    contiguous range of rows or columns, in the order of the schedule
block
    ratings of one band of rows and one band of columns; one task of one thread
tile
    part of a block whose rows of P and Q fit in the cache; in ``gram_tiles``, part of a matrix that fits in
    registers
wave
    blocks that share no row and no column, so that threads may visit them at the same time
panel
    items whose factors are stored coordinate by coordinate, so that a row is multiplied by all at once
span
    rows ``first:last``
budget
    ratings per call of a kernel, after which the caller looks for interrupts
cursor
    position where the next call continues
rank token
    tuple whose length tells the compiler the rank; see ``vectors``
stored entry, cell
    rating in the sparse matrix; any position of the matrix, stored or not
"""

ROW_MULTIPLE = 8  # coordinates: rows are padded to whole vectors of 32 bytes in float32
