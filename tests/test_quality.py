"""How good the plain call is: against the mean baseline, on any scale, on generated and real ratings."""

import numpy as np
import pytest

import mfkernel as mf
from benchmarks import data
from benchmarks.tables.accuracy import bias_predictions
from tests.samples import low_rank_ratings, random_ratings

SCALES = {
    "1 to 5": lambda r: r,
    "-10 to 10": lambda r: (r - 3) * 5,
    "0 to 100": lambda r: (r - 1) * 25,
    "millions": lambda r: r * 1e6,
    "millionths": lambda r: r * 1e-6,
    "negative": lambda r: -r,
    "centred": lambda r: r - 3.53,
    "far from zero": lambda r: r + 100,
}


def rescaled(ratings, function):
    values = function(ratings.values.astype(np.float64))
    return mf.Ratings((ratings.users, ratings.items, values, ratings.shape))


def bias_rmse(train, test):
    """Test RMSE of mean + user's bias + item's bias."""
    return np.sqrt(np.mean((test.values - bias_predictions(train, test)) ** 2))


@pytest.fixture(scope="module")
def split():
    return mf.train_test_split(mf.datasets.synthetic(), 0.1, rng=0)


@pytest.mark.parametrize("scale", SCALES)
def test_factorize__beats_the_means_on_any_scale(scale, split):
    train, test = (rescaled(part, SCALES[scale]) for part in split)
    ratio = mf.factorize(train, 32, rng=0).rmse(test) / bias_rmse(train, test)
    assert ratio < 0.98


def test_factorize__scaling_the_ratings_scales_the_predictions(split):
    train, test = split
    plain = mf.factorize(train, 8, rng=0, dtype=np.float64).predict(test.users, test.items)
    scaled = mf.factorize(rescaled(train, SCALES["millions"]), 8, rng=0, dtype=np.float64)
    np.testing.assert_allclose(scaled.predict(test.users, test.items), plain * 1e6, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 8, 128])
def test_factorize__beats_the_means_with_any_rank(k, split):
    train, test = split
    ratio = mf.factorize(train, k, rng=0).rmse(test) / bias_rmse(train, test)
    assert ratio < (1.07 if k == 1 else 0.99)  # one factor cannot hold both biases


@pytest.mark.parametrize("mean", [-20, 10, 50])
def test_factorize__finds_structure_far_from_zero(mean):
    R = low_rank_ratings(500, 300, 30_000, 4, mean=mean)
    train, test = mf.train_test_split(R, 0.1, rng=0)
    assert mf.factorize(train, 8, rng=0).rmse(test) < 0.4 * test.std


@pytest.mark.parametrize("size", [(100, 100, 1050), (100, 100, 1150), (50, 40, 500), (200, 100, 2400)])
def test_factorize__does_not_learn_a_small_noisy_table_by_heart(size):
    ratios = []
    for seed in range(5):
        train, test = mf.train_test_split(mf.datasets.synthetic(*size, rng=seed), 0.1, rng=seed)
        rmse_of_mean = np.sqrt(np.mean((test.values - train.mean) ** 2))
        ratios.append(mf.factorize(train, 8, rng=seed).rmse(test) / rmse_of_mean)
    assert np.mean(ratios) < 1


@pytest.mark.parametrize("size", [(3000, 3000, 9000), (10_000, 5000, 20_000), (2000, 1000, 15_000)])
def test_factorize__beats_the_mean_on_thin_ratings(size):
    train, test = mf.train_test_split(mf.datasets.synthetic(*size), 0.1, rng=0)
    assert mf.factorize(train, 32, rng=0).rmse(test) < 0.98 * np.sqrt(
        np.mean((test.values - train.mean) ** 2)
    )


@pytest.mark.slow
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("l1", [0.0003, 0.001, 0.003])
def test_factorize__a_small_l1_leaves_factors_that_tell_something(l1, biases, split):
    train, test = split
    model = mf.factorize(train, 32, l1=l1, biases=biases, rng=0)
    assert model.rmse(test) < 0.96 * bias_rmse(train, test)
    assert np.mean(model.P == 0) < 0.1


@pytest.mark.parametrize("shape", [(60, 40, 3), (200, 150, 5)])
def test_factorize__recovers_a_low_rank_matrix(shape, rng):
    m, n, k = shape
    truth = rng.normal(size=(m, k)) @ rng.normal(size=(k, n))
    R = np.where(rng.random((m, n)) < 0.5, truth, np.nan)
    model = mf.factorize(R, k, missing="nan", rng=0)
    hidden = np.isnan(R)
    error = np.sqrt(np.mean((model.reconstruct() - truth)[hidden] ** 2))
    assert error < 0.05 * truth.std()
    exact = mf.factorize(R, k, missing="nan", rng=0, regularization=0, epochs=300)
    assert np.sqrt(np.mean((exact.reconstruct() - truth)[hidden] ** 2)) < 0.01 * truth.std()


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(0, 2, 2000),
        np.random.default_rng(0).standard_cauchy(2000),
        np.append(np.ones(1999), 1e6),
        np.full(2000, 3.0),
        np.full(2000, 0.0),
    ],
    ids=["lognormal", "cauchy", "one outlier", "constant", "zero"],
)
def test_factorize__does_not_diverge_on_odd_distributions(values):
    ratings = random_ratings(100, 60, 2000, values=lambda *_: values)
    model = mf.factorize(ratings, 8, rng=0)
    assert model.rmse(ratings) <= max(values.std(), 0.1)


@pytest.mark.data
@pytest.mark.parametrize("fold", range(5))
def test_factorize__beats_the_means_on_ml_100k(fold, data_folder):
    train, test = data.fold(data_folder, fold)
    assert mf.factorize(train, 32, rng=0).rmse(test) < 0.98 * bias_rmse(train, test)
    assert mf.factorize(train, 32, biases=True, rng=0).rmse(test) < 0.97 * bias_rmse(train, test)


@pytest.mark.slow
@pytest.mark.data
def test_factorize__beats_the_means_on_ml_1m_and_all_schedules_are_as_good(data_folder):
    train, test = data.hold_out_tenth(data.load("ML-1M", data_folder), 1)
    blocks = mf.factorize(train, 32, rng=0).rmse(test)
    assert blocks < 0.94 * bias_rmse(train, test)
    sequential = mf.factorize(train, 32, rng=0, schedule="sequential").rmse(test)
    assert blocks == pytest.approx(sequential, rel=0.005)
    hogwild = mf.factorize(train, 32, rng=0, schedule="hogwild", n_threads=2).rmse(test)
    assert hogwild == pytest.approx(sequential, rel=0.005)


@pytest.mark.slow
@pytest.mark.data
def test_factorize__with_biases_is_as_accurate_on_ml_1m_as_the_best_peers_are_when_tuned(data_folder):
    ratings = data.load("ML-1M", data_folder)
    errors = []
    for seed in range(5):
        train, test = data.hold_out_tenth(ratings, seed)
        errors.append(mf.factorize(train, 128, biases=True, rng=seed).rmse(test))
    assert np.mean(errors) < 0.84
