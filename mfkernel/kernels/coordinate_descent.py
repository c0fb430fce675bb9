"""Coordinate descent on the quadratic model of a row, with an L1 term or nonnegative coordinates."""

import math

import numpy as np

from mfkernel.kernels.jit import jit
from mfkernel.kernels.row_problem import Work

SWEEPS, DESCENDED = 1000, 1e-10  # the same of coordinate descent


@jit
def descend(work: Work, m: int, k: int, l1: float, nonnegative: bool) -> None:
    """Find the step that minimizes ½ sᵀG s - g·s + λ₁‖x + s‖₁, with x + s ≥ 0 if asked for; not for the bias.

    Coordinate descent, of all coordinates; ``work.side`` holds g - G s throughout.
    """
    G, x, step, g = work.G, work.x, work.step, work.side
    enough = max(DESCENDED, 4 * np.finfo(G.dtype).eps)
    for a in range(m):
        for b in range(a):
            G[a, b] = G[b, a]
    for c in range(m):
        step[c] = x[c]  # x + s, at first
    for _ in range(SWEEPS):
        largest, length = 0.0, 0.0
        for c in range(m):
            line, curvature = G[c], G[c, c]
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
                    g[t] -= change * line[t]
            largest, length = max(largest, abs(change)), max(length, abs(new))
        if largest <= enough * length:
            break
    for c in range(m):
        step[c] -= x[c]
