"""Units in which training is independent of the scale and the offset of the ratings.

In float32, ratings of 1e19 overflow in a square, and ratings of 1e-37 vanish in a product. Next to a mean of
1e6, a standard deviation of 1 is lost to rounding. A fit therefore sees (r - center) / scale.

The scale is a power of 4, and the unit of factors is its square root. The conversion is then exact, and
ratings that differ by a power of 4 give the same bits.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from mfkernel.data.entries import RATINGS_PER_COPY
from mfkernel.data.ratings import Ratings
from mfkernel.options import Settings

MIN_SPREAD, MAX_RATING = 1e-140, 1e140  # bounds of ratings whose squares neither vanish nor overflow
MIN_CENTER = 8.0  # standard deviations: a mean farther from zero is subtracted if the model has a mean


class Units(NamedTuple):
    """The units of training: it sees the rating r as (r - center) / scale.

    Attributes
    ----------
    scale
        A power of 4.
    center
        The mean rating, or 0.
    loss
        Name of the loss, which determines the unit of the objective.
    """

    scale: float = 1.0
    center: float = 0.0
    loss: str = "squared"

    @classmethod
    def of(cls, ratings: Ratings, settings: Settings) -> "Units":
        """Choose units for ratings: near their standard deviation, and their mean if it is large."""
        if settings.loss == "logistic" or settings.implicit:
            return cls(loss=settings.loss)
        spread = ratings.std or abs(ratings.mean) or 1.0
        most = ratings.largest
        if not (spread > MIN_SPREAD and most < min(MAX_RATING, float(np.finfo(ratings.dtype).max) / 100)):
            wider = "pass dtype=np.float64, or rescale" if ratings.dtype == np.float32 else "rescale"
            raise ValueError(
                f"ratings must be of a size that {ratings.dtype} can multiply, got a standard deviation of "
                f"{spread:.3g} and an absolute value of {most:.3g}; {wider} them"
            )
        center = ratings.mean if settings.biases and abs(ratings.mean) > MIN_CENTER * spread else 0.0
        return cls(4.0 ** round(math.log(spread, 4)), center, settings.loss)

    @property
    def root(self) -> float:
        """Unit of the factors."""
        return math.sqrt(self.scale)

    @property
    def _of_loss(self) -> float:
        return {"squared": self.scale**2, "huber": self.scale**2, "absolute": self.scale}.get(self.loss, 1.0)

    def ratings_in(self, ratings: Ratings) -> Ratings:
        """Return ratings in these units, of the same dtype."""
        if self.scale == 1 and self.center == 0:
            return ratings
        values = np.empty_like(ratings.values)
        for start in range(0, ratings.nnz, RATINGS_PER_COPY):
            part = slice(start, start + RATINGS_PER_COPY)
            values[part] = (ratings.values[part].astype(np.float64) - self.center) / self.scale
        return ratings.with_values(values, ratings.weights)

    def settings_in(self, settings: Settings) -> Settings:
        """Convert settings from the units of the ratings to these units."""
        return self._converted(settings, 1.0)

    def settings_out(self, settings: Settings) -> Settings:
        """Convert settings from these units to the units of the ratings."""
        return self._converted(settings, -1.0)

    def _converted(self, settings: Settings, power: float) -> Settings:
        s, unit = self.scale, self._of_loss
        factors = {
            "huber_delta": 1 / s,
            "learning_rate": unit / s,
            "regularization": s / unit,
            "bias_learning_rate": unit / s**2,
            "bias_regularization": s**2 / unit,
            "l1": self.root / unit,
        }
        changes = {
            name: _times(getattr(settings, name), factor**power)
            for name, factor in factors.items()
            if name in settings.names() and getattr(settings, name) is not None
        }
        return settings.changed(**changes)

    def record_out(self, record: Any) -> Any:
        """Convert the record of an epoch from these units to the units of the ratings."""
        s, unit = self.scale, self._of_loss
        changes = {
            name: getattr(record, name) * factor
            for name, factor in (
                ("rmse", s),
                ("validation_rmse", s),
                ("learning_rate", s / unit),
                ("loss", unit),
            )
            if getattr(record, name) is not None
        }
        return record._replace(**changes)


def _times(value: Any, factor: float) -> Any:
    return tuple(x * factor for x in value) if isinstance(value, tuple) else value * factor
