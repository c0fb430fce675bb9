"""Alternating least squares: solve all users given the items, then all items."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mfkernel._support.arrays import readonly
from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.normal import (
    Implicit,
    Penalty,
    compile_solver,
    gram,
    make_objective,
    make_solver,
    solve_all_rows,
)
from mfkernel.linalg.rows import padded_rank
from mfkernel.methods.base import EpochResult, Problem, Trainer, sparsity
from mfkernel.methods.objective import penalty_scale
from mfkernel.options import ALS, ImplicitALS, both

if TYPE_CHECKING:
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.row_problem import Objective, RowProblem, Solver
    from mfkernel.kernels.sgd import Biases, FactorRows

Options = ALS | ImplicitALS
RowProblems = tuple["RowProblem", "Objective", "Solver", NDArray[Any], NDArray[Any] | None]

ALS_EPOCHS = 15
# λ in standard deviations, per rating; times √(30/d) for d ratings per row or column
ALS_REGULARIZATION, MAX_ALS_REGULARIZATION = 0.105, 0.13
CONSTANT_SPREAD = 0.01  # |mean|: spread of equal ratings, which have no noise, but equations need some λ
IMPLICIT_REGULARIZATION = 0.01  # per rating
BIAS_REGULARIZATION = 0.02  # per rating
ALS_START_NOISE = 0.3  # standard deviations of the ratings: size of the products of start values
MAX_FLOAT32_MEAN = 1e3  # standard deviations: next to a larger mean, float32 loses the variation
SMALL_NOISE = 0.5  # standard deviations: below it, λ falls; residuals of real ratings have more noise
MIN_REGULARIZATION_SHARE = 1e-5  # share of λ that remains, since equations of few ratings need some
MIN_NOISE_SHARE = 0.05  # least share of noise in residuals
MAX_CHOLESKY_RANK = 32  # rank: for larger ones, conjugate gradients reach the same objective sooner


class ALSTrainer(Trainer[Options]):
    r"""Alternating least squares on the squared error of every known rating, or of all cells.

    Each half of an epoch minimizes over one side

    .. math::
        \sum w (r - p \cdot q)^2 + \lambda_P \sum c_u \|p_u\|^2 + \lambda_Q \sum c_i \|q_i\|^2

    where c is 1, or the row's number of ratings if λ is per rating. For implicit feedback, the first sum runs
    over all cells. The second half is the first one with the two sides swapped.

    References
    ----------
    Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the Netflix prize",
    AAIM 2008. Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.
    Rendle, Krichene, Zhang and Koren, "Revisiting the performance of iALS on item recommendation benchmarks",
    2021. Takács, Pilászy and Tikk, "Applications of the conjugate gradient method for implicit feedback
    collaborative filtering", RecSys 2011. Rendle, Krichene, Zhang and Koren, "iALS++: speeding up matrix
    factorization with subspace optimization", 2021.
    """

    def __init__(self, problem: Problem[Options]) -> None:
        super().__init__(problem)
        ratings, settings = self.ratings, self.settings
        self.regularization = both(settings.regularization)
        self._sides = ratings, ratings.T
        # next to a large mean, float32 would round the variation away, so the equations need float64
        far = abs(ratings.mean) > MAX_FLOAT32_MEAN * ratings.std and not (
            settings.biases or settings.implicit
        )
        dtype = np.dtype(np.float64) if far else ratings.dtype
        self._scales = tuple(readonly(penalty_scale(settings, side).astype(dtype)) for side in self._sides)
        self._implicit = None
        self._total_weight = float(ratings.nnz if ratings.weights is None else ratings.weights.sum())
        self._unit = 1.0  # unit of the implicit objective, whose sums of weights must fit in float32
        if settings.implicit:
            values = ratings.values if ratings.values.min() >= 0 else np.abs(ratings.values)
            strength = ratings.nnz + settings.alpha * float(values.sum(dtype=np.float64))
            others = math.prod(ratings.shape) - ratings.nnz
            self._total_weight = strength + settings.unobserved_weight * others
            self._unit = 4.0 ** round(math.log(strength / ratings.nnz, 4))
            weights = settings.alpha / self._unit, settings.unobserved_weight / self._unit
            self._implicit = Implicit(*weights, 1 / self._unit)
        exact = settings.nonnegative or problem.k <= MAX_CHOLESKY_RANK
        name = settings.solver or ("cholesky" if exact else "cg")
        self.settings = settings.changed(solver=name)
        self._solver = make_solver(name, problem.k)
        self._noise_scale = 1.0  # factor of λ, below 1 if there is little noise

    @classmethod
    def create(cls, problem: Problem[Options], engine: ThreadEngine) -> "ALSTrainer":
        """Transpose the ratings and make the trainer."""
        return cls(problem)

    @classmethod
    def resolve(cls, options: Options, ratings: Ratings, *, warm_start: bool = False) -> Options:
        """Choose open options from the ratings; λ per row is λ per rating of an average row."""
        spread = ratings.std or CONSTANT_SPREAD * abs(ratings.mean) or 1.0
        reg = min(MAX_ALS_REGULARIZATION, ALS_REGULARIZATION * sparsity(ratings)) * spread
        bias_reg = BIAS_REGULARIZATION
        if options.implicit:
            reg = IMPLICIT_REGULARIZATION
        if not options.is_per_rating:
            total = ratings.nnz if ratings.weights is None else float(ratings.weights.sum())
            average = total / math.sqrt(math.prod(ratings.shape))
            if options.implicit:
                average += options.unobserved_weight * math.sqrt(math.prod(ratings.shape))
            reg, bias_reg = reg * average, bias_reg * average
        changes: dict[str, Any] = {
            "regularization": (reg, reg) if options.regularization is None else options.regularization,
            "regularization_per": "rating" if options.is_per_rating else "row",
        }
        if isinstance(options, ALS) and options.bias_regularization is None:
            changes["bias_regularization"] = bias_reg
        return options.changed(**changes)

    @classmethod
    def bytes_needed(
        cls, ratings: Ratings, k: int, dtype: np.dtype[Any], options: Options, n_threads: int
    ) -> dict[str, int]:
        """Return the memory of training beside the ratings, in bytes."""
        factors = sum(ratings.shape) * padded_rank(k) * dtype.itemsize
        transposed = ratings.nnz * (4 + dtype.itemsize)
        return {"factors": factors, "a copy of them": factors, "transposed ratings": transposed}

    @classmethod
    def epoch_choices(cls, ratings: Ratings, options: Options) -> tuple[int, ...]:
        """Return the default number of epochs."""
        return (ALS_EPOCHS,)

    @classmethod
    def start_noise(cls, k: int, spread: float, options: Options) -> float:
        """Return the standard deviation of the start values."""
        return ALS_START_NOISE / math.sqrt(k) * (1.0 if options.implicit else math.sqrt(spread))

    @classmethod
    def threads(cls, options: Options, requested: int | None, nnz: int) -> int:
        """Return the number of threads, by default one per core."""
        return available_cores() if requested is None else requested

    def compile(self) -> None:
        """Compile the kernel of the solver for these options."""
        for side, measure in ((0, False), (1, True)):
            with ThreadEngine(1) as engine:
                compile_solver(*self._problem(side, engine), measure)

    def state(self) -> dict[str, Any]:
        """Return what later epochs depend on: also the noise, and whether equations need float64."""
        return super().state() | {"noise_scale": self._noise_scale, "scales": self._scales[0].dtype.name}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned."""
        super().restore(state)
        self._noise_scale = float(state["noise_scale"])
        if state["scales"] == "float64":
            self._scales = tuple(readonly(scale.astype(np.float64)) for scale in self._scales)

    def begin_epoch(self, epoch: int, epochs: int, rmse: float) -> None:
        """Reduce a default λ if the residuals, with root mean square ``rmse``, show little noise."""
        given, little = both(self.settings.regularization), SMALL_NOISE * (self.ratings.std or 1.0)
        if self._adaptive_regularization and not self.settings.implicit and rmse < little:
            noise = rmse / math.sqrt(self._free_share())
            self._noise_scale = max(MIN_REGULARIZATION_SHARE, min(self._noise_scale, (noise / little) ** 2))
        self.regularization = given[0] * self._noise_scale, given[1] * self._noise_scale

    def _free_share(self) -> float:
        """Estimate the share of the noise that is left in the residuals, since the fit takes up the rest.

        A side that is solved for random signs instead of ratings leaves the same share of the signs. This is
        Hutchinson's estimator of the trace of a smoother (Communications in Statistics, 1990).
        """
        share, random = 1.0, np.random.default_rng(0)
        with ThreadEngine(1) as engine:
            for side, rows in enumerate(self._sides):
                problem, objective, _, X, bias = self._problem(side, engine)
                signs = (2 * random.integers(0, 2, rows.nnz) - 1).astype(rows.dtype)
                problem = problem._replace(values=readonly(signs), base=None)
                solution = np.zeros_like(X), None if bias is None else np.zeros_like(bias)
                solver = make_solver("cholesky", self._k)
                _, left = solve_all_rows(problem, objective, solver, *solution, engine, True)
                share -= 1 - left / self._total_weight
        return max(share, MIN_NOISE_SHARE)

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> EpochResult:
        """Solve all users, and then all items."""
        self._solve(0, engine, measure=False)
        loss = self._solve(1, engine, measure=True)
        P, Q = self.parameters.P, self.parameters.Q
        if self._implicit is not None:
            squares = [gram(X, engine, np.dtype(np.float64)) for X in (P, Q)]
            loss = self._unit * (loss + self._implicit.unobserved_weight * _dot(*squares))
        rmse = math.sqrt(max(loss, 0.0) / self._total_weight)
        for X, bias, scale, reg in zip((P, Q), self._biases, self._scales, self.regularization, strict=True):
            lengths = np.einsum("uk,uk->u", X, X, dtype=np.float64)
            if bias is not None:
                loss += self._bias_reg * _dot(scale, np.square(bias, dtype=np.float64))
            loss += reg * _dot(scale, lengths)
        return EpochResult(rmse, loss)

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings with the current parameters."""
        from mfkernel.kernels.sgd import Biases, FactorRows
        from mfkernel.kernels.vectors import rank_token

        P, Q, user_bias, item_bias = self.parameters
        number = P.dtype.type
        factors = FactorRows(P, Q, rank_token(P.shape[1]))
        if not self.settings.biases:
            return factors, None, None
        return factors, Biases(number(self.ratings.mean), user_bias, item_bias, number(0), number(0)), None

    @property
    def _biases(self) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        return (
            (self.parameters.user_bias, self.parameters.item_bias) if self.settings.biases else (None, None)
        )

    @property
    def _bias_reg(self) -> float:
        return float(self.settings.bias_regularization or 0)

    def _solve(self, side: int, engine: ThreadEngine, measure: bool) -> float:
        """Solve the users (side 0) or the items (side 1); if ``measure``, return the loss."""
        reg = self.regularization[side]
        self._check_counts(side, reg)
        if self._implicit is not None:  # zero is the minimum for rows without feedback
            self.parameters[side][self._sides[side].user_counts() == 0] = 0
        problem, objective, solver, X, bias = self._problem(side, engine)
        failed, loss = solve_all_rows(problem, objective, solver, X, bias, engine, measure)
        if failed.any():
            if problem.scale.dtype == np.float64:
                less = ", or a smaller alpha" if self._implicit is not None else ""
                raise self._singular(side, int(failed.argmax()), f"pass a larger regularization{less}")
            self._scales = tuple(readonly(scale.astype(np.float64)) for scale in self._scales)
            X[failed] = 0
            return self._solve(side, engine, measure)  # in float64 from now on
        return loss

    def _problem(self, side: int, engine: ThreadEngine) -> "RowProblems":
        """Return the kernel's arguments to solve the users (side 0) or the items (side 1)."""
        from mfkernel.kernels.row_problem import RowProblem

        rows, settings, scale = self._sides[side], self.settings, self._scales[side]
        X, Y = (self.parameters.P, self.parameters.Q)[:: -1 if side else 1]
        bias, other = self._biases[:: -1 if side else 1]
        squares = None
        if self._implicit is not None:
            squares = self._implicit.unobserved_weight * gram(Y, engine, Y.dtype)
        problem = RowProblem(
            rows.indptr,
            rows.indices,
            rows.values,
            rows.weights,
            readonly(Y),
            None if other is None else readonly((self.ratings.mean + other).astype(Y.dtype)),
            scale,
            None if squares is None else readonly(squares.astype(scale.dtype)),
        )
        reg = self.regularization[side] / self._unit
        penalty = Penalty(reg, self._bias_reg, nonnegative=settings.nonnegative)
        objective = make_objective(
            self._k,
            penalty,
            settings.biases,
            implicit=self._implicit,
            bias_unit=math.sqrt(self.ratings.std or 1.0),
        )
        return problem, objective, self._solver, X, bias

    def _check_counts(self, side: int, reg: float) -> None:
        """Refuse rows with fewer ratings than coordinates if there is no penalty."""
        if reg > 0 or (self._implicit is not None and self._implicit.unobserved_weight > 0):
            return
        counts = self._sides[side].user_counts()
        free = self._k + (self.settings.biases and self._bias_reg == 0)
        few = (counts > 0) & (counts < free)
        if few.any():
            raise self._singular(side, int(few.argmax()), "pass a larger regularization")

    def _singular(self, side: int, row: int, remedy: str) -> np.linalg.LinAlgError:
        """Return the error for a row whose equations have several solutions."""
        kind, rows = ("user", "item")[side], self._sides[side]
        return np.linalg.LinAlgError(
            f"the equations of {kind} {row} ({rows.user_counts()[row]} ratings, k = {self._k}) are not "
            f"positive definite with regularization {self.regularization[side]:g}; {remedy}"
        )


def _dot(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return Σ x y without BLAS, whose threads stay busy for milliseconds after a long sum."""
    return float(np.sum(x * y, dtype=np.float64))
