"""Fixtures and settings of all tests."""

import os
import signal
from pathlib import Path

# a shell that runs the tests in the background has them ignore Ctrl-C, and so their child processes
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("MPLBACKEND", "agg")  # plots without windows

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import mfkernel as mf  # noqa: E402

# the first example may have to wait for a kernel to be compiled
hypothesis.settings.register_profile("fast", deadline=None, max_examples=10)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of Hypothesis, so that they can be run once more with the profile "thorough"."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real ratings; tests that need it are skipped where there is none."""
    folder = os.environ.get("MFKERNEL_DATA")
    if not folder:
        pytest.skip("MFKERNEL_DATA names no folder of real ratings")
    return Path(folder)


@pytest.fixture(scope="session")
def ratings() -> mf.Ratings:
    """A generated set with long tails: 300 users, 200 items, 6,000 ratings."""
    return mf.datasets.synthetic(300, 200, 6000, rng=1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
