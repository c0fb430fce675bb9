"""Bayesian matrix factorization: the mean of many draws of the factors, by Gibbs sampling."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mfkernel._support.arrays import readonly
from mfkernel.data.ratings import Ratings
from mfkernel.engines.resources import available_cores
from mfkernel.engines.threads import ThreadEngine
from mfkernel.linalg.gibbs import (
    Precisions,
    Prior,
    Rows,
    compile_sampler,
    draw_precisions,
    draw_prior,
    draw_rows,
    draw_sigma,
    rescale,
    start_precisions,
)
from mfkernel.linalg.means import Product, compile_means, mean_product
from mfkernel.linalg.rows import padded_rank
from mfkernel.methods.base import EpochResult, Problem, Trainer
from mfkernel.methods.baseline import bias_baseline
from mfkernel.methods.posterior import SIDES, Posterior, SideDraw, empty_posterior, fill_draw, first_draws
from mfkernel.options import Bayesian

if TYPE_CHECKING:
    from mfkernel.kernels.gibbs import Noise, Stream
    from mfkernel.kernels.losses import Loss
    from mfkernel.kernels.row_problem import RowProblem
    from mfkernel.kernels.sgd import Biases, FactorRows

SWEEPS = 200
BURN_IN_SHARE = 0.1  # share of the sweeps that are left out
START_NOISE = 0.1  # root of standard deviations of the ratings: size of a start factor
USERS, ITEMS, SIGMA = 0, 1, 2  # parts of a sweep, each with random numbers of its own


class BayesianTrainer(Trainer[Bayesian]):
    r"""Gibbs sampling of factors, biases, their priors and the noise.

    A rating is normal with the mean :math:`\mu + b_u + b_i + p_u \cdot q_i` and the variance
    :math:`\sigma^2 / (w \tau_u \tau_i)`: some users rate more consistently than others, and some items divide
    opinions. The rows of both sides are normal around a mean, with a precision; both have a Normal-Wishart
    prior. Precisions of rows, τ, have a gamma prior. A sweep draws for users and then for items the prior,
    the rows, their size, and τ; and at last σ, each given the rest. ``parameters`` is the mean of the scores
    since the burn-in, as a product of rank k.

    References
    ----------
    Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo", ICML
    2008. Lakshminarayanan, Bouchard and Archambeau, "Robust Bayesian matrix factorisation", AISTATS 2011.
    Rendle, Zhang and Koren, "On the difficulty of evaluating baselines", 2019.
    """

    zeros_unrated = False
    patience = None  # the mean of more sweeps is better, if not at each of them

    def __init__(self, problem: Problem[Bayesian]) -> None:
        super().__init__(problem)
        ratings, parameters = self.ratings, self.parameters
        if not (parameters.user_bias.any() or parameters.item_bias.any()):
            # from zeros, biases and factors of sparse ratings would be found slowly
            baseline = bias_baseline(ratings)
            parameters.user_bias[:], parameters.item_bias[:] = baseline.users, baseline.items
        self._sides, self._seed = (ratings, ratings.T), problem.seed
        self._counts = tuple(side.user_counts() for side in self._sides)
        # (nnz,) weights of ratings in a sweep, in the order of each side
        self._weights = tuple(np.empty(ratings.nnz, problem.dtype) for _ in self._sides)
        total = float(ratings.nnz if ratings.weights is None else ratings.weights.sum())
        self._total_weight, self._spread = total, ratings.std or abs(ratings.mean) or 1.0
        self._mean = ratings.mean
        P, Q, user_bias, item_bias = (X.copy() for X in parameters)
        self._rows = Rows(P, user_bias), Rows(Q, item_bias)  # the draw of the last sweep
        self._expected_items = Rows(Q.copy(), item_bias.copy())  # given the users of that draw
        self._precisions = [start_precisions(size, problem.dtype) for size in ratings.shape]
        self._sigma, self._arithmetic = self._spread, ratings.dtype
        self._priors: tuple[Prior, Prior] | None = None  # of the last sweep
        self._samples = empty_posterior(ratings.shape, self._k, self.settings.samples, problem.dtype)
        self._n_samples = 0

    @classmethod
    def create(cls, problem: Problem[Bayesian], engine: ThreadEngine) -> "BayesianTrainer":
        """Transpose the ratings and make the trainer."""
        return cls(problem)

    @classmethod
    def resolve(cls, options: Bayesian, ratings: Ratings, *, warm_start: bool = False) -> Bayesian:
        """Choose the burn-in, a share of the sweeps."""
        epochs = options.epochs or SWEEPS
        if options.burn_in is None:
            return options.changed(burn_in=int(BURN_IN_SHARE * epochs))
        if options.burn_in >= epochs:
            raise ValueError(f"burn_in must be below the number of epochs, {epochs}, got {options.burn_in}")
        return options

    @classmethod
    def bytes_needed(
        cls, ratings: Ratings, k: int, dtype: np.dtype[Any], options: Bayesian, n_threads: int
    ) -> dict[str, int]:
        """Return the memory of training beside the ratings, in bytes."""
        rows = sum(ratings.shape)
        factors = rows * padded_rank(k) * dtype.itemsize
        return {
            "a draw, the mean and a copy": 3 * factors,
            "the sum of two draws": 2 * factors,
            f"{options.samples} samples and a copy": 2
            * options.samples
            * (rows * (k + 2) * dtype.itemsize + 16 * k**2),
            "transposed ratings and weights": ratings.nnz * (4 + 3 * dtype.itemsize),
        }

    @classmethod
    def epoch_choices(cls, ratings: Ratings, options: Bayesian) -> tuple[int, ...]:
        """Return the default number of sweeps."""
        return (SWEEPS,)

    @classmethod
    def start_noise(cls, k: int, spread: float, options: Bayesian) -> float:
        """Return the standard deviation of the start values."""
        return START_NOISE * math.sqrt(spread)

    @classmethod
    def threads(cls, options: Bayesian, requested: int | None, nnz: int) -> int:
        """Return the number of threads, by default one per core."""
        return available_cores() if requested is None else requested

    def compile(self) -> None:
        """Compile the kernels of a sweep by draws of no rows."""
        for side in (USERS, ITEMS):
            arguments = self._noise(side), self._stream(0, side), self._rows[side]
            compile_sampler(self._problem(side), self._k, *arguments)
        compile_means(self.parameters.P.shape[1], self.parameters.P.dtype)

    def state(self) -> dict[str, Any]:
        """Return what later sweeps depend on: the draw of the last sweep, and the samples."""
        state = super().state() | {"sigma": self._sigma, "arithmetic": self._arithmetic.name}
        for side, rows, precisions in zip(SIDES, self._rows, self._precisions, strict=True):
            state |= {f"{side}_rows": rows.X, f"{side}_rows_bias": rows.bias}
            state |= {f"{side}_precisions": precisions.values, f"{side}_degrees": precisions.degrees}
        samples = {f"sample_{name}": X for name, X in self._samples.arrays().items()}
        return state | samples | {"n_samples": self._n_samples}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` has returned."""
        super().restore(state)
        self._sigma, self._n_samples = float(state["sigma"]), int(state["n_samples"])
        self._arithmetic = np.dtype(state["arithmetic"])
        for n, (side, rows, precisions) in enumerate(zip(SIDES, self._rows, self._precisions, strict=True)):
            rows.X[:], rows.bias[:] = state[f"{side}_rows"], state[f"{side}_rows_bias"]
            precisions.values[:] = state[f"{side}_precisions"]
            self._precisions[n] = Precisions(precisions.values, float(state[f"{side}_degrees"]))
        for name, X in self._samples.arrays().items():
            X[:] = state[f"sample_{name}"]

    def run_epoch(self, epoch: int, engine: ThreadEngine) -> EpochResult:
        """Draw everything once, and add the draw to the mean."""
        users, _, _ = self._draw_side(USERS, epoch, engine)
        items, squares, loss = self._draw_side(ITEMS, epoch, engine)
        self._sigma = draw_sigma(squares, self.ratings.nnz, self._spread, self._generator(epoch, SIGMA))
        self._priors = users, items
        self._average(epoch, self._priors, engine)
        return EpochResult(math.sqrt(loss / self._total_weight))

    @property
    def scorer_arguments(self) -> "tuple[FactorRows, Biases | None, Loss | None]":
        """Arguments of a kernel that predicts ratings with the mean."""
        from mfkernel.kernels.sgd import Biases, FactorRows
        from mfkernel.kernels.vectors import rank_token

        P, Q, user_bias, item_bias = self.parameters
        number = P.dtype.type
        biases = Biases(number(self.ratings.mean), user_bias, item_bias, number(0), number(0))
        return FactorRows(P, Q, rank_token(P.shape[1])), biases, None

    def posterior(self) -> Posterior:
        """Return the samples; during the burn-in, the draw of the last sweep."""
        if self._n_samples == 0 and self._priors is not None:
            only = empty_posterior(self.ratings.shape, self._k, 1, self.parameters.P.dtype)
            fill_draw(only, 0, self._draw(self._priors), self._sigma)
            return only
        return first_draws(self._samples, self._n_samples)

    def _draw(self, priors: tuple[Prior, Prior]) -> tuple[SideDraw, SideDraw]:
        """Return the draw of the last sweep."""
        users, items = map(SideDraw, self._rows, priors, self._precisions)
        return users, items

    def _generator(self, epoch: int, part: int) -> np.random.Generator:
        """Return the generator of a part of a sweep, which depends on nothing but the seed."""
        return np.random.Generator(np.random.Philox(key=self._seed, counter=[0, 0, part, epoch]))

    def _stream(self, epoch: int, side: int) -> "Stream":
        """Return the random numbers of the rows of one side in a sweep."""
        from mfkernel.kernels.gibbs import Stream

        return Stream(self._seed & 0xFFFFFFFF, self._seed >> 32, epoch, side)

    def _draw_side(self, side: int, epoch: int, engine: ThreadEngine) -> tuple[Prior, float, float]:
        """Draw the prior, the rows, their size and their precisions of one side.

        Returns
        -------
        tuple
            The prior, and Σ w e² with the new precisions and, before the draw of the size, without any.
        """
        rows, stream, rng = self._rows[side], self._stream(epoch, side), self._generator(epoch, side)
        prior = draw_prior(rows, self._k, self._spread, engine, rng)
        while True:
            failed, products, loss = draw_rows(
                *(self._problem(side), self._k, self._noise(side), prior, stream, rows, engine),
                expected=self._expected_items if side == ITEMS else None,
            )
            if not failed.any():
                break
            if self._arithmetic == np.float64:
                raise np.linalg.LinAlgError(
                    f"the equations of {SIDES[side]} {int(failed.argmax())} must be positive definite, got "
                    "others in float64; the ratings have too little noise, pass method='als'"
                )
            self._arithmetic = np.dtype(np.float64)  # from now on; rows are drawn from the same numbers
        prior, products = rescale(rows, self._k, prior, products, self._sigma, self._spread, rng)
        old = self._precisions[side]
        new = draw_precisions(old, products.ee, self._counts[side], self._sigma, rng)
        self._precisions[side] = new
        return prior, float(products.ee @ (new.values.astype(np.float64) / old.values)), loss

    def _noise(self, side: int) -> "Noise":
        """Return the noise of the ratings of one side."""
        from mfkernel.kernels.gibbs import Noise

        precisions = readonly(self._precisions[side].values), readonly(self._precisions[1 - side].values)
        return Noise(self._sigma, self._sides[side].weights, *precisions)

    def _problem(self, side: int) -> "RowProblem":
        """Return the equations of the users (side 0) or the items (side 1), without a prior."""
        from mfkernel.kernels.row_problem import RowProblem

        rows, (Y, bias) = self._sides[side], self._rows[1 - side]
        scale = np.ones(rows.n_users, self._arithmetic)
        base = (self._mean + bias).astype(self._arithmetic)
        return RowProblem(
            *(rows.indptr, rows.indices, rows.values, self._weights[side]),
            *(readonly(Y), readonly(base), readonly(scale), None),
        )

    def _average(self, epoch: int, priors: tuple[Prior, Prior], engine: ThreadEngine) -> None:
        """Add the scores of a sweep to the mean, and its draw to the samples if it is its turn.

        The scores of the expected items, given the users of the draw, have less noise than those of the draw
        and the same mean (Rao and Blackwell).
        """
        settings, mean = self.settings, self.parameters
        burn_in, epochs = settings.burn_in or 0, settings.epochs or SWEEPS
        self.has_settled = epoch > burn_in
        count, users, items = epoch - burn_in, self._expected_users(priors[USERS]), self._expected_items
        if count > 1:
            products = Product(*mean[:2]), Product(users.X, items.X)
            weights = [counts + 1.0 for counts in self._counts]
            mean_product(*products, 1 / count, weights, self._k, engine)
        else:
            mean.P[:], mean.Q[:] = users.X, items.X
        for bias, new in ((mean.user_bias, users.bias), (mean.item_bias, items.bias)):
            bias[:] = new if count <= 1 else bias + (new - bias) / count
        step = max(1, (epochs - burn_in) // settings.samples)
        if count > 0 and count % step == 0 and self._n_samples < settings.samples:
            fill_draw(self._samples, self._n_samples, self._draw(priors), self._sigma)
            self._n_samples += 1

    def _expected_users(self, prior: Prior) -> Rows:
        """Return the users of the draw, where those without ratings are the mean of their prior."""
        unrated, (X, bias) = self._counts[USERS] == 0, self._rows[USERS]
        if not unrated.any():
            return Rows(X, bias)
        X, bias = X.copy(), bias.copy()
        X[unrated, : self._k], bias[unrated] = prior.mean, prior.bias_mean
        return Rows(X, bias)
