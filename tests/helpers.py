"""Helpers that several test files share."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from scipy import sparse

import mfkernel as mf
from mfkernel import reference

ROOT = Path(__file__).parent.parent
NO_LIMIT = 2**62  # ratings per call of a kernel
DENSE = np.array([[5.0, 3, 0], [4, 0, 0], [1, 1, 0], [0, 0, 5]])
RATINGS_ARRAYS = (
    "indptr",
    "indices",
    "values",
    "weights",
    "timestamps",
    "users",
    "items",
    "user_ids",
    "item_ids",
)
MODEL_ARRAYS = ("P", "Q", "user_bias", "item_bias", "known_users", "known_items", "user_ids", "item_ids")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals, modes and fork of POSIX")
FORKING = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
COMPILED = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


def quick(values, *chosen):
    """Return parameters of which those that are not chosen are slow: what plain runs leave out."""
    values = list(values)
    assert all(value in values for value in chosen)
    return [
        value if value in chosen else pytest.param(*_parts(value), marks=pytest.mark.slow) for value in values
    ]


def _parts(value):
    return value if isinstance(value, tuple) else (value,)


def examples(count):
    """Return settings for so many examples with the profile "thorough", and a few without it."""
    is_thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    return hypothesis.settings(max_examples=count if is_thorough else min(10, count))


def fit(R, k=2, **options):
    return mf.factorize(R, k, **{"epochs": 3, "rng": 0} | options)


def assert_same(model, expected):
    """Check that two models have the same factors and biases."""
    for name in ("P", "Q", "user_bias", "item_bias"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), err_msg=name)


def gradient(function, x, h=1e-6):
    """Return central finite differences."""
    return np.array([(function(x + h * d) - function(x - h * d)) / (2 * h) for d in np.eye(x.size)])


def bits(model):
    """Return all that training has found, as bytes, and the errors of each epoch."""
    arrays = model.P, model.Q, model.user_bias, model.item_bias
    records = tuple((e.epoch, e.rmse, e.loss, e.learning_rate, e.validation_error) for e in model.history)
    return tuple(None if X is None else X.tobytes() for X in arrays), records


def state_of(model):
    """Return all that a model holds, bit by bit."""
    arrays = [getattr(model, name) for name in MODEL_ARRAYS]
    if model.ratings is not None:
        arrays += [getattr(model.ratings, name) for name in RATINGS_ARRAYS]
    found = [None if a is None else (a.dtype, a.shape, a.tobytes()) for a in arrays]
    return found, model.mean, model.history, model.stop_reason, model.settings


def losses(model):
    """Return the objective after each epoch."""
    return np.array([record.loss for record in model.history])


def assert_never_rises(model, tolerance):
    found = losses(model)
    assert (np.diff(found) <= tolerance * found[:-1]).all(), found


def arrays_of(R):
    """Return every array inside R, also those of Python objects."""
    if isinstance(R, tuple):
        return [np.asarray(part) for part in R]
    if not sparse.issparse(R):
        return [R]
    if R.format == "dok":
        return [np.array(list(R.keys())), np.array(list(R.values()))]
    names = {"dia": ("data", "offsets"), "coo": ("row", "col", "data"), "lil": ("rows", "data")}
    parts = [getattr(R, name) for name in names.get(R.format, ("indptr", "indices", "data"))]
    return [np.array([x for row in part for x in row]) if part.dtype == object else part for part in parts]


def snapshot(R):
    return [(a.dtype, a.shape, a.strides, a.flags.writeable, a.tobytes()) for a in arrays_of(R)]


def reference_epoch(ratings, order, P, Q, lr, reg):
    """Run the reference over whole rows; return the sum of squared residuals."""
    starts, stops = ratings.indptr[:-1], ratings.indptr[1:]
    return reference.sgd_span(order, starts, stops, ratings.indices, ratings.values, P, Q, lr, reg)
