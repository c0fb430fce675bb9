"""Means of products of factors, as products of the same rank."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import gram
from mfkernel.linalg.rows import padded_rank, row_tasks

MIN_RIDGE = 1e-9  # relative to the mean square of a factor
ROWS_PER_TASK = 2**12  # rows of a product per task


class Product(NamedTuple):
    """A product P Qᵀ of padded rows (m, K) and (n, K)."""

    P: NDArray[Any]
    Q: NDArray[Any]


def mean_product(
    mean: Product,
    draw: Product,
    share: float,
    weights: Sequence[NDArray[Any]],
    k: int,
    engine: ThreadEngine,
) -> None:
    """Replace ``mean`` by a rank-k product near to (1 - share) · mean + share · draw.

    Least squares finds the left factor given the right one, and then the right factor given the new left
    one. Repeated, this tends to the nearest product of rank k. One step per draw is enough: a mean of many
    draws is nearly of their rank, as they agree in few directions and differ by noise in all others, and it
    changes less with each draw.

    Parameters
    ----------
    mean, draw
        products of rank k; the draw is not changed.
    share
        weight of the draw, between 0 and 1.
    weights
        (m,) and (n,) weights of rows and columns; a cell counts by their product.
    """
    K = padded_rank(k)
    parts = np.r_[:k], np.r_[K : K + k]  # coordinates of the mean and of the draw
    left = _gram_of_both(mean.P, draw.P, weights[0], engine)
    right = _gram_of_both(mean.Q, draw.Q, weights[1], engine)
    change = np.zeros((2 * K, K))
    # left: (1 - s) A + s P (Qᵀ B) (Bᵀ B)⁻¹
    change[:k, :k] = (1 - share) * np.eye(k)
    change[K : K + k, :k] = share * _divide(right[np.ix_(parts[1], parts[0])], right[:k, :k])
    products = left @ change[:, :k]  # [A, P]ᵀ A'
    _multiply(mean.P, draw.P, change, engine)
    # right: [(1 - s) B Aᵀ + s Q Pᵀ] A' (A'ᵀ A')⁻¹
    squares = change[:, :k].T @ products
    change[:k, :k] = (1 - share) * _divide(products[parts[0]], squares)
    change[K : K + k, :k] = share * _divide(products[parts[1]], squares)
    _multiply(mean.Q, draw.Q, change, engine)


def _gram_of_both(
    A: NDArray[Any], B: NDArray[Any], weights: NDArray[Any], engine: ThreadEngine
) -> NDArray[np.float64]:
    """Return [A, B]ᵀ diag(weights) [A, B]."""
    K = A.shape[1]
    both, root = np.empty((len(A), 2 * K), A.dtype), np.sqrt(weights).astype(A.dtype)[:, None]
    np.multiply(A, root, out=both[:, :K])
    np.multiply(B, root, out=both[:, K:])
    return gram(both, engine, np.dtype(np.float64))


def _divide(X: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return X ``squares``⁻¹; directions that no factor has count as none."""
    ridge = MIN_RIDGE * np.trace(squares) / len(squares) + np.finfo(np.float64).tiny
    result: NDArray[np.float64] = np.linalg.solve(squares + ridge * np.eye(len(squares)), X.T).T
    return result


def _multiply(A: NDArray[Any], B: NDArray[Any], T: NDArray[Any], engine: ThreadEngine) -> None:
    """Replace A (n, K) by [A, B] T."""
    from mfkernel.kernels.gibbs import multiply_span

    T, B = readonly(T.astype(A.dtype)), readonly(B)

    def multiply(rows: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        multiply_span(*rows, A, B, T)

    engine.run(multiply, row_tasks(len(A), ROWS_PER_TASK))


def compile_means(K: int, dtype: np.dtype[Any]) -> None:
    """Compile the kernels of :func:`mean_product`."""
    from mfkernel.kernels.gibbs import multiply_span

    nothing, change = np.zeros((0, K), dtype), np.zeros((2 * K, K), dtype)
    multiply_span(0, 0, nothing, readonly(nothing), readonly(change))
    with ThreadEngine(1) as engine:
        gram(readonly(change[:1]), engine, np.dtype(np.float64))
