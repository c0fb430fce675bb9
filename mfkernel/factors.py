"""The former place of :mod:`mfkernel.model.factors`, which pickles of earlier versions name."""

import sys

from mfkernel.model import factors

sys.modules[__name__] = factors
