"""Redirect to :class:`mfkernel.Ratings` for pickles of earlier versions."""

from mfkernel.data.ratings import Ratings

__all__ = ["Ratings"]
