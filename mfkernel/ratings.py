"""The former place of :class:`mfkernel.Ratings`, which pickles of earlier versions name."""

from mfkernel.data.ratings import Ratings

__all__ = ["Ratings"]
