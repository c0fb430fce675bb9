"""Coordinate descent on the quadratic model of a row, with an L1 term or nonnegative coordinates."""

import math

import numpy as np

from mfkernel.kernels.jit import jit
from mfkernel.kernels.row_problem import Workspace

MAX_CD_SWEEPS = 1000  # sweeps over all coordinates
CD_TOLERANCE = 1e-10  # largest change of a coordinate in the last sweep, relative to the largest coordinate


@jit
def coordinate_descent(work: Workspace, m: int, k: int, l1: float, nonnegative: bool) -> None:
    """Find the step s that minimizes ½ sᵀG s - g·s + λ₁‖x + s‖₁.

    If ``nonnegative``, x + s ≥ 0. The bias, coordinate k if there is one, is free of λ₁ and of the
    constraint. ``work.rhs`` holds g - G s throughout.
    """
    G, x, step, g = work.G, work.x, work.step, work.rhs
    tolerance = max(CD_TOLERANCE, 4 * np.finfo(G.dtype).eps)
    for a in range(m):
        for b in range(a):
            G[a, b] = G[b, a]
    for c in range(m):
        step[c] = x[c]  # x + s, until the end
    for _ in range(MAX_CD_SWEEPS):
        max_change, max_value = 0.0, 0.0
        for c in range(m):
            row, curvature = G[c], G[c, c]
            if curvature <= 0:
                continue
            new = step[c] + g[c] / curvature
            if c < k:
                new = math.copysign(max(abs(new) - l1 / curvature, 0.0), new)
                if nonnegative:
                    new = max(new, 0.0)
            change = g.dtype.type(new - step[c])
            if change != 0:
                step[c] = new
                for t in range(m):
                    g[t] -= change * row[t]
            max_change, max_value = max(max_change, abs(change)), max(max_value, abs(new))
        if max_change <= tolerance * max_value:
            break
    for c in range(m):
        step[c] -= x[c]
