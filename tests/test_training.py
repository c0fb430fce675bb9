"""The training loop as the user of ``factorize`` sees it."""

import itertools
import warnings

import numpy as np
import pytest

import mfkernel as mf

SCHEDULES = ["blocks", "sequential", "hogwild"]
DECAYS = {
    "constant": lambda t, T: 1.0,
    "inverse-time": lambda t, T: 1 / (1 + t / 5),
    "linear": lambda t, T: 1 - t / T,
    "cosine": lambda t, T: (1 + np.cos(np.pi * t / T)) / 2,
    "adaptive": lambda t, T: 1.0,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_factorize__records_one_epoch_after_another(schedule, ratings):
    model = mf.factorize(ratings, 4, epochs=5, schedule=schedule, rng=0)
    assert [e.epoch for e in model.history] == [1, 2, 3, 4, 5]
    assert all(e.seconds > 0 for e in model.history)
    assert model.history[-1].rmse < model.history[0].rmse
    rates = [e.learning_rate for e in model.history]
    np.testing.assert_allclose(rates, [rates[0] * DECAYS["cosine"](t, 5) for t in range(5)])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_factorize__the_step_size_falls_as_asked(decay, schedule, ratings):
    model = mf.factorize(ratings, 4, epochs=7, learning_rate=0.02, decay=decay, schedule=schedule, rng=0)
    rates = [e.learning_rate for e in model.history]
    np.testing.assert_allclose(rates, [0.02 * DECAYS[decay](t, 7) for t in range(7)])
    assert model.history[-1].rmse < model.history[0].rmse


@pytest.mark.slow
@pytest.mark.parametrize("decay", DECAYS)
def test_factorize__every_decay_predicts_better_than_the_mean(decay):
    train, test = mf.train_test_split(mf.datasets.synthetic(), 0.1, rng=0)
    rmse = mf.factorize(train, 8, decay=decay, rng=0).rmse(test)
    assert rmse < 0.97 * np.sqrt(np.mean((test.values - train.mean) ** 2))


def test_factorize__adaptive_steps_are_right_for_ratings_of_any_scale(ratings):
    """G counts squared gradients, which grow with the third power of the ratings' scale."""
    R = mf.Ratings((ratings.users, ratings.items, ratings.values * 1e4, ratings.shape))
    settings = {"decay": "adaptive", "rng": 0, "epochs": 10, "dtype": np.float64}
    plain, scaled = (mf.factorize(x, 6, **settings).reconstruct() for x in (ratings, R))
    np.testing.assert_allclose(scaled, plain * 1e4, rtol=1e-6)


def test_factorize__keeps_a_given_learning_rate_constant(ratings):
    model = mf.factorize(ratings, 4, epochs=3, learning_rate=0.01)
    assert [e.learning_rate for e in model.history] == [0.01] * 3


def test_factorize__reports_the_residuals_met(ratings):
    model = mf.factorize(ratings, 4, epochs=30, rng=0)
    assert model.rmse(ratings) == pytest.approx(model.history[-1].rmse, rel=0.02)


def test_factorize__one_hogwild_thread_gives_the_sequential_bits(ratings):
    one = mf.factorize(ratings, 6, rng=3, epochs=4, schedule="sequential")
    two = mf.factorize(ratings, 6, rng=3, epochs=4, schedule="hogwild", n_threads=1)
    np.testing.assert_array_equal(one.P, two.P)
    np.testing.assert_array_equal(one.Q, two.Q)
    assert [e.rmse for e in one.history] == [e.rmse for e in two.history]


def test_factorize__depends_on_rng_alone(ratings):
    one, two, other = (mf.factorize(ratings, 6, rng=seed, epochs=2).P for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_factorize__shuffle_changes_the_order(schedule, ratings):
    one, two = (
        mf.factorize(ratings, 6, rng=1, epochs=2, schedule=schedule, shuffle=s).P for s in (True, False)
    )
    assert (one != two).any()


def test_factorize__a_single_block_unshuffled_is_the_sequential_schedule(ratings):
    settings = {"rng": 1, "epochs": 2, "dtype": np.float64, "shuffle": False}
    one, two = (mf.factorize(ratings, 6, schedule=s, **settings).P for s in ("blocks", "sequential"))
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("n_threads", [2, 3, 16])
def test_factorize__hogwild_fits_as_well_as_sequential(n_threads):
    train, test = mf.train_test_split(mf.datasets.synthetic(), 0.1, rng=0)
    sequential = mf.factorize(train, 16, rng=0, schedule="sequential").rmse(test)
    hogwild = mf.factorize(train, 16, rng=0, schedule="hogwild", n_threads=n_threads).rmse(test)
    assert hogwild == pytest.approx(sequential, rel=0.005)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factorize__divergence_names_epoch_and_learning_rate(schedule, dtype, ratings):
    with pytest.raises(mf.DivergenceError, match=r"epoch \d+ .*learning rate 976562"):
        mf.factorize(ratings, 4, learning_rate=1e9, schedule=schedule, dtype=dtype, n_threads=None)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("biases", [True, False])
def test_factorize__goes_back_from_divergence_with_half_the_step_size(schedule, biases, ratings):
    settings = {"schedule": schedule, "biases": biases, "rng": 0, "decay": "cosine"}
    with pytest.warns(UserWarning, match="diverged.*0.*times the learning rate"):
        model = mf.factorize(ratings, 4, learning_rate=7, **settings)
    undone = [record for record in model.history if record.rolled_back_to is not None]
    kept = [record for record in model.history if record.rolled_back_to is None]
    assert undone
    assert all(0 <= record.rolled_back_to < record.epoch for record in undone)
    for before, after in itertools.pairwise(model.history):
        assert after.epoch == (before.epoch if before.rolled_back_to is None else before.rolled_back_to) + 1
    share = (1 + np.cos(np.pi * (kept[-1].epoch - 1) / kept[-1].epoch)) / 2
    assert kept[-1].learning_rate == pytest.approx(7 * share / 2 ** len(undone))
    assert model.rmse(ratings) < ratings.std


def test_factorize__divergence_names_a_regularization_that_is_to_blame(ratings):
    with pytest.raises(mf.DivergenceError, match=r"epoch 1 .*or regularization \(their product"):
        mf.factorize(ratings, 4, regularization=1e7)


def test_factorize__slow_divergence_is_seen_before_the_numbers_overflow():
    rates = np.geomspace(0.05, 5, 12)
    diverged = 0
    ratings = mf.datasets.synthetic(100, 50, 1500)
    for rate in rates:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = mf.factorize(ratings, 2, learning_rate=rate, epochs=20, dtype=np.float64, rng=0)
        diverged += bool(caught)
        assert any(record.rolled_back_to is not None for record in model.history) == bool(caught)
        assert np.abs(model.reconstruct()).max() < 1e5
    assert 0 < diverged < rates.size


def test_factorize__callback_sees_each_epoch_and_can_stop(ratings):
    seen = []

    def callback(record):
        seen.append(record)
        return record.epoch == 3

    model = mf.factorize(ratings, 4, epochs=10, callback=callback)
    assert seen == model.history
    assert len(seen) == 3


@pytest.mark.parametrize(("answer", "epochs"), [(True, 1), (np.True_, 1), (1, 4), (None, 4), (False, 4)])
def test_factorize__only_true_stops(answer, epochs, ratings):
    assert len(mf.factorize(ratings, 4, epochs=4, callback=lambda record: answer).history) == epochs


def test_factorize__an_error_in_the_callback_comes_through(ratings):
    def callback(record):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mf.factorize(ratings, 4, epochs=10, callback=callback)


def test_factorize__progress_writes_a_line_an_epoch_to_stderr(ratings, capsys):
    mf.factorize(ratings, 4, epochs=3, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert "3/3" in err.splitlines()[-1]


def test_factorize__progress_of_many_epochs_is_short(capsys):
    mf.factorize([[5, 3, 0], [4, 0, 1]], 2, epochs=3000, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert " 1/3000" in lines[0]
    assert "3000/3000" in lines[-1]
    assert len(lines) < 30


def test_factorize__sequential_says_that_threads_are_not_used(ratings):
    with pytest.warns(UserWarning, match="n_threads must be 1 .*got 4, which is not used.*blocks"):
        mf.factorize(ratings, 4, epochs=1, n_threads=4, schedule="sequential")


def test_factorize__goes_on_from_given_factors(ratings):
    first = mf.factorize(ratings, 4, epochs=10, rng=0)
    second = mf.factorize(ratings, 4, epochs=1, learning_rate=1e-4, init=tuple(first), rng=0)
    assert second.history[0].rmse == pytest.approx(first.rmse(ratings), rel=1e-3)


def test_factorize__refuses_factors_that_cannot_fit(ratings, monkeypatch):
    monkeypatch.setattr("mfkernel.training.fit.available_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match="factors.*GiB"):
        mf.factorize(ratings, 64)
