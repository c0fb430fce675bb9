"""The losses: their kinds, and the residual and gradient that SGD takes from them.

The curvatures that the solvers of rows need as well are in ``row_problem.loss_derivatives``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel.kernels.jit import inlined

SQUARED, ABSOLUTE, HUBER, LOGISTIC, IMPLICIT = 0, 1, 2, 3, 4  # kinds of loss


class Loss(NamedTuple):
    """A loss of SGD other than the squared one.

    Attributes
    ----------
    kind
        ``ABSOLUTE``, ``HUBER`` or ``LOGISTIC``.
    delta
        the |e| beyond which Huber's loss is linear.
    """

    kind: int
    delta: Any


@inlined
def residual(loss: Loss | None, r: Any, z: Any) -> Any:
    """Return e = r - z; for the logistic loss, where r is 0 or 1, e = r - σ(z)."""
    if loss is not None and loss.kind == LOGISTIC:
        one = type(z)(1)
        z = one / (one + np.exp(-z))
    return r - z


@inlined
def negative_gradient(loss: Loss | None, e: Any) -> Any:
    r"""Return g, minus the derivative of the loss by the score, for a residual e.

    ============  =============================================  =====================
    squared       :math:`e^2 / 2`                                e
    absolute      :math:`|e|`                                    sign e
    Huber         :math:`e^2 / 2`, linear beyond ±δ              e, clipped to ±δ
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
def weight(weights: NDArray[Any] | None, n: Any, one: Any) -> Any:
    """Return the weight of rating n, or ``one`` without weights."""
    return one if weights is None else weights[n]
