"""The search that the defaults of stochastic gradient descent rest on: ``python -m benchmarks.tune``.

Random settings of learning rate, λ and epochs are fitted to a family of generated sets with planted rank and
noise, from 3 to 300 ratings per row or column. The second half of them is drawn near the best of the first.
The error of a setting is the mean RMSE of a held-out tenth over the splits. A refit of the constants of the
defaults minimizes the mean loss against the best random settings, as quadratic response surfaces predict it.
The tables compare the errors of defaults, best setting and refit on each set, and the constants. Real sets
are a check only; no constant is fitted to them.
"""

import argparse
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

import mfkernel as mf
from benchmarks import data, probes
from benchmarks.progress import show
from benchmarks.tables import markdown


class Planted(NamedTuple):
    """A generated set: its size, the rank of its structure, and the share of noise in the spread."""

    n_users: int
    n_items: int
    nnz: int
    rank: int
    noise: float


FAMILY = {  # by ratings per row or column; at least 10,000 ratings, as smaller tables have other rules
    "3 per row": Planted(6000, 4000, 30_000, 2, 0.7),
    "7 per row": Planted(4000, 2500, 45_000, 4, 0.75),
    "15 per row": Planted(3000, 2000, 75_000, 4, 0.7),
    "40 per row": Planted(1000, 1500, 100_000, 8, 0.75),
    "40 per row, less noise": Planted(1500, 1000, 100_000, 16, 0.6),
    "100 per row": Planted(1500, 1000, 250_000, 8, 0.75),
    "100 per row, rank 32": Planted(2000, 1000, 300_000, 32, 0.7),
    "300 per row": Planted(1400, 1100, 750_000, 8, 0.75),
}
MEAN, SPREAD = 3.5, 1.1  # of planted ratings, as of stars
BIAS_SHARE = 0.55  # of the variance that is not noise, as in mf.datasets.synthetic
RANGES = {  # of the random settings, each log-uniform, in the units of ``Setting``
    "rate": (0.005, 0.15),
    "reg": (0.01, 0.2),
    "epochs": (2, 40),  # further ones cost more time than they gain
}
NEIGHBORHOOD = 2.0  # factor of the best setting so far, within which the second half of the settings is drawn
NEAR = 0.02  # loss at which a setting counts 1 / e in a response surface: its shape near the best matters


# The formulas, as functions of their constants


class Setting(NamedTuple):
    """A setting without units.

    Attributes
    ----------
    rate
        learning rate times the size of a typical residual.
    reg
        λ in standard deviations of the ratings.
    """

    rate: float
    reg: float
    epochs: float


# the constants of mfkernel/methods/sgd.py; a test compares these formulas with the choices of the package
PLAIN = {
    "max_rate": 0.06,
    "rate": 0.04,
    "rate_per_rating": 0.006,
    "reg": 0.07,
    "max_epochs": 25.0,
    "epochs": 2.5,
    "epochs_per_rating": 1.5,
}
BIASED = {
    "max_rate": 0.08,
    "rate": 0.06,
    "reg": 0.08,
    "max_epochs": 20.0,
    "epochs": 2.5,
    "epochs_per_rating": 1.5,
}


class Scale(NamedTuple):
    """The properties of ratings that the formulas use.

    Attributes
    ----------
    density
        ratings per row or column.
    spread
        standard deviation of the ratings.
    residual
        size of a typical residual in the first steps.
    more_epochs
        factor of the epochs where a mean far from zero makes steps small.
    """

    density: float
    spread: float
    residual: float
    more_epochs: float

    @classmethod
    def of(cls, R: mf.Ratings, biases: bool) -> "Scale":
        """Return the properties of ratings, for a model with biases or without."""
        carried = 0.0 if biases else abs(R.mean) / 3
        farthest = float(np.abs(R.values - R.mean).max())
        more_epochs = 1.0 if biases else min(40.0, max(1.0, carried / R.std))
        return cls(R.nnz / sum(R.shape), R.std, max(R.std, carried, farthest / 10), more_epochs)


def formula(constants: dict[str, float], scale: Scale) -> Setting:
    """Return the setting that the defaults choose with these constants."""
    d = scale.density
    sparsity = math.sqrt(30 / d)
    if "rate_per_rating" in constants:  # without biases
        rate = min(constants["rate"] * math.sqrt(sparsity), constants["rate_per_rating"] * d)
    else:
        rate = constants["rate"] * sparsity
    epochs = min(constants["max_epochs"], constants["epochs"] + constants["epochs_per_rating"] * d)
    return Setting(
        min(constants["max_rate"], rate),
        constants["reg"] * min(1.0, sparsity),
        epochs * scale.more_epochs,
    )


def setting_of(settings: mf.SGD, scale: Scale) -> Setting:
    """Return the setting that a fit has used."""
    rate, epochs, reg = settings.learning_rate, settings.epochs, settings.regularization
    assert rate is not None
    assert epochs is not None
    assert isinstance(reg, tuple)
    return Setting(rate * scale.residual, reg[0] / scale.spread, epochs)


# The search


@dataclass
class Search:
    """The errors of the defaults and of random settings on one set.

    Attributes
    ----------
    splits
        training and test ratings.
    k, biases
        the model that is fitted.
    scale
        properties of the ratings that the formulas use.
    default, error
        the setting that the defaults have chosen, and its error.
    settings, errors
        the random ones, and theirs.
    """

    name: str
    splits: Sequence[data.Split]
    k: int
    biases: bool
    scale: Scale
    default: Setting
    error: float
    settings: list[Setting] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    @property
    def is_real(self) -> bool:
        """Whether the set is a check only."""
        return self.name not in FAMILY

    @property
    def best(self) -> float:
        """Least error of a random setting."""
        return min(self.errors)

    @property
    def best_setting(self) -> Setting:
        """The random setting with the least error."""
        return self.settings[self.errors.index(self.best)]

    def loss(self, error: float) -> float:
        """Return the excess of an error over the best, as a share."""
        return error / self.best - 1

    def measure(self, setting: Setting) -> float:
        """Return the error of a setting."""
        options: dict[str, Any] = {
            "learning_rate": setting.rate / self.scale.residual,
            "regularization": setting.reg * self.scale.spread,
            "epochs": round(setting.epochs),
            "decay": "cosine",
        }
        return held_out_rmse(self.splits, self.k, biases=self.biases, **options)

    def response(self) -> NDArray[np.float64]:
        """Return the coefficients of log error as a quadratic function of the logs of a setting."""
        excess = np.log(np.array(self.errors) / self.best)
        weights = np.exp(-excess / NEAR)
        X = np.array([_terms(setting) for setting in self.settings])
        coefficients, *_ = np.linalg.lstsq(X * weights[:, None], excess * weights, rcond=None)
        return np.asarray(coefficients)


def _terms(setting: Setting) -> NDArray[np.float64]:
    x = np.log(np.array(setting))
    products = [x[a] * x[b] for a in range(3) for b in range(a, 3)]
    return np.array([1.0, *x, *products])


def planted(name: str) -> mf.Ratings:
    """Generate the ratings of one of ``FAMILY``, with the long tails of real ones."""
    n_users, n_items, nnz, rank, noise = FAMILY[name]
    cells = mf.datasets.synthetic(n_users, n_items, nnz)
    rng = np.random.default_rng(1)
    P, Q = rng.normal(size=(n_users, rank)), rng.normal(size=(n_items, rank))
    strength = 1 / np.arange(1, rank + 1)  # variances of the factors, which fall as in real ratings
    bias = rng.normal(size=n_users)[cells.users] + rng.normal(size=n_items)[cells.items]
    structure = SPREAD**2 * (1 - noise**2)
    values = MEAN + math.sqrt(structure * BIAS_SHARE / 2) * bias
    scale = np.sqrt(structure * (1 - BIAS_SHARE) * strength / strength.sum())
    values += np.einsum("nk,nk->n", P[cells.users] * scale, Q[cells.items])
    values += noise * SPREAD * rng.normal(size=nnz)
    return mf.Ratings((cells.users, cells.items, values, (n_users, n_items)), dtype=np.float32)


def search(name: str, R: mf.Ratings, biases: bool, k: int, n_settings: int, n_splits: int) -> Search:
    """Measure the defaults and random settings on a set."""
    splits = [data.hold_out_tenth(R, seed) for seed in range(n_splits)]
    scale = Scale.of(splits[0][0], biases)
    model = mf.factorize(splits[0][0], k, biases=biases, rng=0)
    assert isinstance(model.settings, mf.SGD)
    default = setting_of(model.settings, scale)
    found = Search(name, splits, k, biases, scale, default, held_out_rmse(splits, k, biases=biases))
    rng = np.random.default_rng(0)
    for n in range(n_settings):
        show(f"{name}, {'with' if biases else 'without'} biases: setting {n + 1} of {n_settings}")
        setting = draw(rng, found.best_setting if n > n_settings / 2 else None)
        found.settings.append(setting)
        found.errors.append(found.measure(setting))
    show("")
    return found


def draw(rng: np.random.Generator, center: Setting | None) -> Setting:
    """Draw a setting from the ranges, or from the neighborhood of another."""
    low, high = np.log(np.array(list(RANGES.values()))).T
    if center is not None:
        middle, step = np.log(center), math.log(NEIGHBORHOOD)
        low, high = np.maximum(low, middle - step), np.minimum(high, middle + step)
    rate, reg, epochs = (float(x) for x in np.exp(rng.uniform(low, high)))
    return Setting(rate, reg, round(epochs))


def held_out_rmse(splits: Sequence[data.Split], k: int, **options: Any) -> float:
    """Return the mean test RMSE over the splits; training that diverges restarts with smaller steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        errors = [
            mf.factorize(train, k, rng=seed, **options).rmse(test)
            for seed, (train, test) in enumerate(splits)
        ]
    return float(np.mean(errors))


# The refit


def refit(searches: Sequence[Search], constants: dict[str, float]) -> dict[str, float]:
    """Return the constants that minimize the mean loss that the response surfaces predict."""
    if not searches:
        return constants
    surfaces = [(s.scale, s.response()) for s in searches]
    start = np.log(list(constants.values()))

    def mean_loss(x: NDArray[np.float64]) -> float:
        tried = dict(zip(constants, np.exp(x), strict=True))
        return predicted_loss(surfaces, tried) + 1e-4 * float(np.mean((x - start) ** 2))  # if all are as good

    found = optimize.minimize(
        mean_loss, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-7}
    )
    return dict(zip(constants, (float(x) for x in np.exp(found.x)), strict=True))


def predicted_loss(
    surfaces: Sequence[tuple[Scale, NDArray[np.float64]]], constants: dict[str, float]
) -> float:
    """Return the mean loss over the sets; outside the ranges of the settings no surface is trusted."""
    low, high = np.array(list(RANGES.values())).T
    losses = [
        _terms(Setting(*np.clip(formula(constants, scale), low, high))) @ response
        for scale, response in surfaces
    ]
    return float(np.mean(losses))


# The tables


def error_table(searches: Sequence[Search], refitted: dict[str, float]) -> str:
    """Return the table of the sets."""
    rows = []
    for s in searches:
        settings = s.default, s.best_setting, formula(refitted, s.scale)
        errors = s.error, s.best, s.measure(settings[2])
        losses = s.loss(errors[0]), s.loss(errors[2])
        cells = [", ".join(f"{x:.3g}" for x in values) for values in zip(*settings, strict=True)]
        texts = *(f"{error:.4f}" for error in errors), *(f"{loss:+.2%}" for loss in losses)
        rows.append([s.name, f"{s.scale.density:.0f}", *texts, *cells])
    head = ["set", "density", "defaults", "best", "refit", "loss of defaults", "loss of refit"]
    return markdown.table([*head, "rate: defaults, best, refit", "λ", "epochs"], rows)


def constant_table(constants: dict[str, float], refitted: dict[str, float]) -> str:
    """Return the table of the constants."""
    rows = [[name, f"{value:g}", f"{refitted[name]:.3g}"] for name, value in constants.items()]
    return markdown.table(["constant", "today", "refit"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, for models without biases and with them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    data.add_option(parser)
    names = (*FAMILY, *data.FILES)
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"default: all of {', '.join(names)}, real ones if --data is given",
    )
    parser.add_argument(
        "--settings", type=int, default=100, help="random ones per set (default: %(default)s)"
    )
    parser.add_argument("--splits", type=int, default=2, help="per set (default: %(default)s)")
    parser.add_argument("--k", type=int, default=32, help="rank (default: %(default)s)")
    options = parser.parse_args(arguments)
    chosen = options.sets or [*FAMILY, *(data.FILES if options.data else ())]
    try:
        data.require(options.data, chosen)
    except data.MissingDataError as error:
        parser.error(str(error))
    sets = {name: planted(name) if name in FAMILY else data.load(name, options.data) for name in chosen}
    for biases, constants in ((False, PLAIN), (True, BIASED)):
        searches = [
            search(name, R, biases, options.k, options.settings, options.splits) for name, R in sets.items()
        ]
        refitted = refit([s for s in searches if not s.is_real], constants)
        print(f"\n{'With' if biases else 'Without'} biases, k = {options.k}:\n")
        print(f"{error_table(searches, refitted)}\n\n{constant_table(constants, refitted)}")
    print(f"\n{options.settings} settings per set, {options.splits} splits. {probes.machine()}")


if __name__ == "__main__":
    main()
