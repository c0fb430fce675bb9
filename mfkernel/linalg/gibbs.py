"""Gibbs sampling of factors: priors, noise and rows, each given the rest."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.engines.threads import Task, ThreadEngine
from mfkernel.linalg.normal import Penalty, balanced_spans, gram, make_objective, make_solver, multiply_adds
from mfkernel.linalg.rows import row_tasks

if TYPE_CHECKING:
    from mfkernel.kernels.gibbs import Noise, Stream
    from mfkernel.kernels.gibbs_sparse import White
    from mfkernel.kernels.row_problem import Objective, RowProblem

Vector = NDArray[np.float64]

# The Normal-Wishart prior of Salakhutdinov and Mnih (2008), in the units of the ratings' standard deviation
PRIOR_MEAN_COUNT = 2.0  # β₀: rows of mean zero that the prior counts as seen
NOISE_COUNT = 1.0  # residuals of one standard deviation that the priors of noise and biases count as seen
MIN_NOISE = 1e-5  # standard deviations of the ratings: less noise is beyond the precision of float32
MIN_SPARSE_RANK = 16  # rank from which rows with few ratings are drawn by themselves
ROWS_PER_TASK = 2**10  # rows with few ratings per task
MIN_PRECISION = 1e-4  # of a row, relative to all: less would make its ratings worthless
START_DEGREES = 8.0  # degrees of freedom: precisions vary by a half
BIAS_SHARE = 0.1  # share of the variance of the ratings: what the prior expects of the biases
MIN_DEGREES = 2.0  # degrees of freedom, below which a new row has no finite variance
# of the logarithm of what is drawn: width of a slice, steps per draw, bounds of a step
SLICE_WIDTH, SLICE_STEPS, MIN_STEP, MAX_STEP = 0.1, 3, 1e-9, 3.0


class Rows(NamedTuple):
    """The factors (n_rows, K), padded, and the biases (n_rows,) of one side."""

    X: NDArray[Any]
    bias: NDArray[Any]


class Prior(NamedTuple):
    """The normal prior of the rows of one side.

    Attributes
    ----------
    mean, precision
        (k,) and (k, k), of the factors.
    bias_mean, bias_precision
        of the bias, which is independent of the factors.
    """

    mean: Vector
    precision: Vector
    bias_mean: float
    bias_precision: float


def draw_prior(rows: Rows, k: int, spread: float, engine: ThreadEngine, rng: np.random.Generator) -> Prior:
    r"""Draw the prior of some rows, given their factors and biases.

    The factors have a Normal-Wishart prior: the precision has the Wishart distribution with k degrees of
    freedom and mean :math:`k I / s`, for ratings of the standard deviation s; the mean has the precision
    :math:`2 \Lambda`. Mean and precision of the bias have the corresponding priors of one dimension. Products
    of factors then have the size of the ratings, whatever their unit.

    Parameters
    ----------
    k
        rank without padding.
    spread
        s, positive.
    engine
        adds up the Gram matrix.
    rng
        generator of the draw; its use depends on the shapes only.
    """
    X, bias = rows
    n_rows = len(X)
    count = PRIOR_MEAN_COUNT + n_rows
    center = X.sum(axis=0, dtype=np.float64)[:k] / count
    # W₀⁻¹ + Σ (x - x̄)(x - x̄)ᵀ + β₀ N / (β₀ + N) x̄ x̄ᵀ
    scatter = gram(X, engine, np.dtype(np.float64))[:k, :k] - count * np.outer(center, center)
    precision = draw_wishart(scatter + spread * np.eye(k), k + n_rows, rng)
    mean = center + _solve_noise(count * precision, rng.standard_normal(k))
    biases = bias.astype(np.float64)
    bias_center = biases.sum() / (NOISE_COUNT + n_rows)
    squares = float(np.square(biases).sum()) - (NOISE_COUNT + n_rows) * bias_center**2
    rate = (NOISE_COUNT * BIAS_SHARE * spread**2 + max(squares, 0.0)) / 2
    bias_precision = rng.gamma((NOISE_COUNT + n_rows) / 2) / rate
    bias_mean = bias_center + rng.standard_normal() / math.sqrt((NOISE_COUNT + n_rows) * bias_precision)
    return Prior(mean, precision, bias_mean, bias_precision)


def draw_wishart(inverse_scale: Vector, degrees: float, rng: np.random.Generator) -> Vector:
    """Draw a precision (k, k) from the Wishart distribution with mean ``degrees`` · ``inverse_scale``⁻¹.

    Bartlett's decomposition; see Smith and Hocking, "Algorithm AS 53: Wishart variate generator", 1972.
    """
    k = len(inverse_scale)
    B = np.tril(rng.standard_normal((k, k)), -1)
    B[np.diag_indices(k)] = np.sqrt(2 * rng.standard_gamma((degrees - np.arange(k)) / 2))
    # inverse_scale = L Lᵀ, so L⁻ᵀ B Bᵀ L⁻¹ has the scale (L Lᵀ)⁻¹
    root = np.linalg.solve(np.linalg.cholesky(inverse_scale).T, B)
    return np.asarray(root @ root.T)


def _solve_noise(precision: Vector, normals: Vector) -> Vector:
    """Return noise with this precision, from standard normals."""
    return np.asarray(np.linalg.solve(np.linalg.cholesky(precision).T, normals))


class Products(NamedTuple):
    """Sums of products over the ratings of each row, each times its weight, (n_rows,).

    e is the residual, f the part of the score that deviations of the factors from their prior mean add, and d
    the deviation of the bias.
    """

    ee: Vector
    ef: Vector
    ed: Vector
    ff: Vector
    fd: Vector
    dd: Vector

    def scaled(self, factors: float, bias: float) -> "Products":
        """Return the sums if the deviations of factors and bias are multiplied by these numbers."""
        a, b = factors - 1, bias - 1  # e becomes e - a f - b d
        ef = self.ef - a * self.ff - b * self.fd
        ed = self.ed - a * self.fd - b * self.dd
        ee = np.maximum(self.ee - a * (self.ef + ef) - b * (self.ed + ed), 0.0)
        return Products(
            ee, factors * ef, bias * ed, factors**2 * self.ff, factors * bias * self.fd, bias**2 * self.dd
        )


def rescale(
    rows: Rows,
    k: int,
    prior: Prior,
    products: Products,
    sigma: float,
    spread: float,
    rng: np.random.Generator,
) -> tuple[Prior, Products]:
    r"""Draw how far all rows lie from their prior mean, and scale them in place, together with the prior.

    Rows with few ratings lie where their prior puts them, and the prior follows the rows: drawn alternately,
    both would keep their size for many sweeps. So the size s of all deviations is drawn with
    :math:`\Lambda^{1/2} (x - \mu)` fixed, first of the factors and then of the biases. Its density is that of
    the model along the scaling, times its Jacobian (Liu and Sabatti, "Generalised Gibbs sampler and multigrid
    Monte Carlo for Bayesian computation", Biometrika 2000).

    Returns
    -------
    tuple
        The scaled prior, and the sums at the scaled rows.
    """
    mean, precision, bias_mean, bias_precision = prior
    pull = spread * np.trace(precision) + PRIOR_MEAN_COUNT * mean @ precision @ mean
    scale = _draw_scale(products.ef, products.ff, sigma, k * (k + 1), float(pull), rng)
    products = products.scaled(scale, 1.0)
    pull = NOISE_COUNT * bias_precision * (BIAS_SHARE * spread**2 + bias_mean**2)
    bias_scale = _draw_scale(products.ed, products.dd, sigma, 1 + NOISE_COUNT, pull, rng)
    X, bias = rows
    center = np.zeros(X.shape[1])
    center[:k] = mean
    X *= X.dtype.type(scale)
    X += ((1 - scale) * center).astype(X.dtype)
    bias *= bias.dtype.type(bias_scale)
    bias += bias.dtype.type((1 - bias_scale) * bias_mean)
    prior = Prior(mean, precision / scale**2, bias_mean, bias_precision / bias_scale**2)
    return prior, products.scaled(1.0, bias_scale)


def _draw_scale(
    product: Vector, square: Vector, sigma: float, power: float, pull: float, rng: np.random.Generator
) -> float:
    r"""Draw s from the density :math:`s^{-a-1} \exp(-c / 2s^2 - (h s^2 - 2 (h + g) s) / 2\sigma^2)`.

    g is Σ w e f, h is Σ w f², a is ``power`` and c is ``pull``.
    """
    g, h = float(product.sum()) / sigma**2, float(square.sum()) / sigma**2

    def log_density(t: float) -> float:
        s = math.exp(t)
        return -power * t + (2 * (h + g) * s - h * s**2 - pull / s**2) / 2

    return math.exp(draw_by_slices(log_density, 0.0, rng))


def draw_sigma(loss: float, n_ratings: int, spread: float, rng: np.random.Generator) -> float:
    """Draw the standard deviation of the noise, given the weighted sum of squared residuals."""
    rate = (NOISE_COUNT * spread**2 + loss) / 2
    precision = rng.gamma((NOISE_COUNT + n_ratings) / 2) / rate
    return max(1 / math.sqrt(precision), MIN_NOISE * spread)


class Precisions(NamedTuple):
    """The precisions of the ratings of each row, relative to all: (n_rows,), with gamma priors of mean 1.

    Attributes
    ----------
    values
        (n_rows,) precision of each row.
    degrees
        Degrees of freedom ν of the prior, whose variance is 2/ν: few if rows differ.
    """

    values: NDArray[Any]
    degrees: float


def start_precisions(n_rows: int, dtype: np.dtype[Any]) -> Precisions:
    """Return equal precisions."""
    return Precisions(np.ones(n_rows, dtype), START_DEGREES)


def draw_precisions(
    precisions: Precisions,
    squares: Vector,
    counts: NDArray[Any],
    sigma: float,
    rng: np.random.Generator,
    *,
    draws_degrees: bool = True,
) -> Precisions:
    """Draw the precisions of some rows, given their residuals, and then the degrees of freedom.

    Parameters
    ----------
    squares
        (n_rows,) Σ w e², where the weights contain the present precisions.
    counts
        (n_rows,) number of ratings.
    """
    old, degrees = precisions.values.astype(np.float64), precisions.degrees
    shape, rate = (degrees + counts) / 2, (degrees + squares / (old * sigma**2)) / 2
    values = np.maximum(rng.standard_gamma(shape) / rate, MIN_PRECISION)
    if draws_degrees and values.size:
        logs, total, n_rows = float(np.log(values).sum()), float(values.sum()), values.size

        def log_density(t: float) -> float:
            half = math.exp(t) / 2
            if half < MIN_DEGREES / 2:
                return -math.inf
            prior = t - math.log1p((2 * half / START_DEGREES) ** 2)  # half-Cauchy
            return prior + n_rows * (half * math.log(half) - math.lgamma(half)) + half * (logs - total)

        degrees = math.exp(draw_by_slices(log_density, math.log(degrees), rng))
    return Precisions(values.astype(precisions.values.dtype), degrees)


def draw_by_slices(log_density: Callable[[float], float], point: float, rng: np.random.Generator) -> float:
    """Draw from a density of one peak, by a few steps from a point (Neal, "Slice sampling", 2003)."""
    for _ in range(SLICE_STEPS):
        level = log_density(point) - rng.exponential()
        low = point - SLICE_WIDTH * rng.random()
        high, start = low + SLICE_WIDTH, point
        while low > start - MAX_STEP and log_density(low) > level:
            low -= SLICE_WIDTH
        while high < start + MAX_STEP and log_density(high) > level:
            high += SLICE_WIDTH
        while high - low > MIN_STEP:
            point = low + (high - low) * rng.random()
            if log_density(point) > level:
                break
            low, high, point = (point, high, start) if point < start else (low, point, start)
    return point


def draw_rows(
    problem: "RowProblem",
    k: int,
    noise: "Noise",
    prior: Prior,
    stream: "Stream",
    rows: Rows,
    engine: ThreadEngine,
    *,
    expected: Rows | None = None,
) -> tuple[NDArray[np.bool_], Products, float]:
    """Draw all rows of one side in place, given the other side.

    The result is the same, bit by bit, on any number of threads.

    Parameters
    ----------
    problem
        ratings and factors of the other side; ``base`` is the score of an item without any row, ``weights``
        are overwritten, and ``gram`` is None.
    k
        rank without padding.
    noise
        noise of each rating.
    stream
        random numbers of this half of a sweep.
    rows
        overwritten with the draws.
    expected
        overwritten with the means of the draws. Default: they are not computed.

    Returns
    -------
    failed, products, loss
        (n_rows,) rows whose equations were singular in this arithmetic; sums over the ratings at the draws,
        with all precisions; and Σ w e² without those of rows.
    """
    from mfkernel.kernels.gibbs import sample_span

    full, objective, mean = _with_prior(problem, k, noise.sigma, prior)
    failed, products = np.zeros(len(rows.X), np.bool_), np.zeros((len(rows.X), 7))
    targets = *rows, *(expected or Rows(np.zeros((0, 0), rows.X.dtype), rows.bias[:0])), failed, products
    sparse = find_sparse_rows(problem.indptr, problem.Y.shape)
    most = problem.Y.shape[1] // 2 if sparse.size else -1

    def draw(span: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        sample_span(*span, full, objective, noise, mean, stream, *targets, most)

    work = multiply_adds(make_solver("cholesky", k), k + 1, True)
    engine.run(draw, [Task(span) for span in balanced_spans(problem.indptr, *work, 1)])
    if sparse.size:
        from mfkernel.kernels.gibbs_sparse import sample_sparse_rows

        white = _whiten(problem.Y, k, prior, engine)

        def draw_sparse(span: tuple[int, int], cancelled: Callable[[], bool]) -> None:
            sample_sparse_rows(*span, sparse, most, full, objective, noise, mean, white, stream, *targets)

        engine.run(draw_sparse, row_tasks(sparse.size, ROWS_PER_TASK))
    return failed, Products(*products[:, :6].T), float(products[:, 6].sum())


def find_sparse_rows(indptr: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the rows of at most K/2 ratings, if :mod:`mfkernel.kernels.gibbs_sparse` draws them sooner.

    ``shape`` is that of the other side, (n_items, K), all of whose rows would be mapped.
    """
    n_items, K = shape
    counts = np.diff(indptr)
    rows = np.flatnonzero(counts <= K // 2)
    n = counts[rows].astype(np.float64)
    # multiply-adds per row: factors of the equations, against factors of S and two maps
    saved = K**3 / 6 + n * K**2 / 2 - n**2 * K / 2 - n**3 / 6 - 2 * K**2
    return rows if K >= MIN_SPARSE_RANK and saved.sum() > n_items * K**2 else rows[:0]


def _whiten(Y: NDArray[Any], k: int, prior: Prior, engine: ThreadEngine) -> "White":
    """Return the prior as a map from standard normals, and the items in their coordinates."""
    from mfkernel.kernels.gibbs_sparse import White, map_rows

    K = Y.shape[1]
    M = np.zeros((K, K), Y.dtype)
    M[:k, :k] = np.linalg.inv(np.linalg.cholesky(prior.precision))
    T, V, given = readonly(np.ascontiguousarray(M.T)), np.zeros_like(Y), readonly(Y)

    def map_span(span: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        map_rows(*span, given, T, V)

    engine.run(map_span, row_tasks(len(Y), ROWS_PER_TASK))
    return White(readonly(M), readonly(V), 1 / math.sqrt(prior.bias_precision))


def compile_sampler(problem: "RowProblem", k: int, noise: "Noise", stream: "Stream", rows: Rows) -> None:
    """Compile the kernel of :func:`draw_rows` by a call for no rows."""
    from mfkernel.kernels.gibbs import sample_span

    prior = Prior(np.zeros(k), np.eye(k), 0.0, 1.0)
    full, objective, mean = _with_prior(problem, k, noise.sigma, prior)
    results = *rows, *rows, np.zeros(0, np.bool_), np.zeros((0, 7))
    sample_span(0, 0, full, objective, noise, mean, stream, *results, -1)
    sparse = find_sparse_rows(problem.indptr, problem.Y.shape)
    if sparse.size:
        from mfkernel.kernels.gibbs_sparse import sample_sparse_rows

        with ThreadEngine(1) as engine:
            white = _whiten(problem.Y[:0], k, prior, engine)
        sample_sparse_rows(0, 0, sparse, 0, full, objective, noise, mean, white, stream, *results)


def _with_prior(
    problem: "RowProblem", k: int, sigma: float, prior: Prior
) -> "tuple[RowProblem, Objective, NDArray[Any]]":
    """Return the kernel's arguments: problem and objective with the prior's precision, and its mean."""
    K, dtype = problem.Y.shape[1], problem.scale.dtype
    mean = np.zeros(K + 1, dtype)
    mean[:k], mean[K] = prior.mean, prior.bias_mean
    precision = np.zeros((K, K), dtype)
    precision[:k, :k] = sigma**2 * prior.precision
    base = problem.base + np.einsum("nk,k->n", problem.Y, mean[:K]) + mean[K]  # not by BLAS
    problem = problem._replace(base=readonly(base.astype(dtype)), gram=readonly(precision))
    objective = make_objective(k, Penalty(0.0, sigma**2 * prior.bias_precision), biased=True)
    return problem, objective, readonly(mean)
