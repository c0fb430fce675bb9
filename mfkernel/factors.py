"""Redirect to :mod:`mfkernel.model.factors` for pickles of earlier versions."""

import sys

from mfkernel.model import factors

sys.modules[__name__] = factors
