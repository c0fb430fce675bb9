"""A whole method in one file: predicts a rating by the user's mean alone."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mfkernel.methods.base import EpochResult, Problem, Trainer
from mfkernel.options import Flag, Integer, Real, Settings, documented, option


@documented
@dataclass(frozen=True, kw_only=True)
class UserMeans(Settings):
    """Means of users, damped."""

    method: ClassVar[str] = "user-means"

    epochs: int | None = option(None, Integer(1), "Passes over the ratings.", "1")
    damping: float = option(5.0, Real(), "Ratings of the mean that each user gets.")
    rounded: bool = option(False, Flag(), "Round the means.")


class UserMeansTrainer(Trainer[UserMeans]):
    @classmethod
    def create(cls, problem, engine):
        return cls(problem)

    @classmethod
    def resolve(cls, options, ratings, *, warm_start=False):
        return options

    @classmethod
    def bytes_needed(cls, ratings, k, dtype, options, n_threads):
        return {"factors": sum(ratings.shape) * k * dtype.itemsize}

    @classmethod
    def epoch_choices(cls, ratings, options):
        return (1,)

    @classmethod
    def start_noise(cls, k, spread, options):
        return 0.0

    @classmethod
    def threads(cls, options, asked, nnz):
        return asked or 1

    def run_epoch(self, epoch, engine):
        R, damping = self.ratings, self.settings.damping
        sums = np.bincount(R.users, R.values, R.n_users) + damping * R.mean
        means = sums / (R.user_counts() + damping)
        P, Q, _, _ = self.parameters
        P[:], Q[:] = 0, 0
        P[:, 0], Q[:, 0] = np.rint(means) if self.settings.rounded else means, 1
        return EpochResult(float(np.sqrt(np.mean((R.values - P[R.users, 0]) ** 2))))

    @property
    def scorer_arguments(self):
        from mfkernel.kernels.sgd import FactorRows

        P, Q, _, _ = self.parameters
        return FactorRows(P, Q, ()), None, None


__all__ = ["Problem", "UserMeans", "UserMeansTrainer"]
