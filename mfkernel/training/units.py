"""Training works in units of the ratings' spread, so that neither their scale nor a far-off mean matters.

In float32, ratings of 1e19 overflow in a square and ratings of 1e-37 vanish in a product; and beside a mean
of 1e6, a spread of 1 is rounding. So a fit sees (r - center) / scale. The scale is a power of 4: ratings,
factors, whose unit is its root, and settings are then changed exactly, and a fit gives the same bits in any
scale that differs by one.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from mfkernel.data.entries import RATINGS_PER_COPY
from mfkernel.data.ratings import Ratings
from mfkernel.options import Settings

MIN_SPREAD, MAX_RATING = 1e-140, 1e140  # of ratings, whose squares must neither vanish nor overflow
MIN_CENTER = 8.0  # standard deviations between zero and a mean that is subtracted, where the model has a mean


class Units(NamedTuple):
    """The ratings that training sees as 1 and 0.

    Attributes
    ----------
    scale
        A power of 4.
    center
        A rating, or 0.
    loss
        Its name; what it is measured in follows from it.
    """

    scale: float = 1.0
    center: float = 0.0
    loss: str = "squared"

    @classmethod
    def of(cls, ratings: Ratings, settings: Settings) -> "Units":
        """Choose units for ratings: about their standard deviation, and their mean if it is far off."""
        if settings.loss == "logistic" or settings.implicit:
            return cls(loss=settings.loss)
        spread = ratings.std or abs(ratings.mean) or 1.0
        most = ratings.largest
        if not (spread > MIN_SPREAD and most < min(MAX_RATING, float(np.finfo(ratings.dtype).max) / 100)):
            wider = "; pass dtype=np.float64, or rescale" if ratings.dtype == np.float32 else "; rescale"
            raise ValueError(
                f"ratings must be of a size that {ratings.dtype} can multiply, got a standard deviation of "
                f"{spread:.3g} and an absolute value of {most:.3g}{wider}"
            )
        center = ratings.mean if settings.biases and abs(ratings.mean) > MIN_CENTER * spread else 0.0
        return cls(4.0 ** round(math.log(spread, 4)), center, settings.loss)

    @property
    def root(self) -> float:
        """The unit of factors."""
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
        """Return settings that say in these units what the given ones say of the ratings."""
        return self._converted(settings, 1.0)

    def settings_out(self, settings: Settings) -> Settings:
        """Return what settings in these units say of the ratings."""
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
        """Return the record of an epoch, measured in these units, in ratings."""
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
