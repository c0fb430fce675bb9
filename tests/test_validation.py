"""Validation ratings, why training stops, and which epoch comes back."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.methods.baseline import bias_baseline
from mfkernel.methods.sgd import SGDTrainer
from tests.helpers import quick
from tests.samples import cells, drawn_ratings, random_ratings

SCHEDULES = ["blocks", "sequential", "hogwild"]
SEEDS = st.integers(0, 2**32 - 1)
WARNING = r"validation RMSE of .* is above the .* of the mean and biases alone"


@pytest.fixture(scope="module")
def split():
    """Ratings of rank 2 with noise, which few epochs fit and many overfit."""
    rng = np.random.default_rng(0)
    P, Q = rng.uniform(0.2, 1.8, (60, 2)), rng.uniform(0.2, 1.8, (2, 40))
    R = P @ Q + 0.5 + rng.normal(0, 0.3, (60, 40))
    R[rng.random(R.shape) < 0.5] = np.nan
    return mf.train_test_split(mf.Ratings(R, missing="nan", dtype=np.float32), 0.2, rng=0)


def overfit(train, test=None, **options):
    """Fit noise, so that the best epoch is an early one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the validation RMSE")
        return mf.factorize(
            train,
            **{
                "k": 20,
                "validation": test,
                "learning_rate": 0.05,
                "regularization": 0,
                "rng": 0,
                "epochs": 60,
            }
            | options,
        )


def reached(model):
    return [e.validation_rmse for e in model.history if e.rolled_back_to is None]


# what is held out


@given(
    ratings=drawn_ratings(most=8),
    seed=SEEDS,
    keep_rows=st.booleans(),
    share=st.floats(0, 1),
)
def test_hold_out__parts_the_ratings(ratings, seed, keep_rows, share):
    count = int(share * (ratings.nnz - 1))
    kept, held_out = ratings.hold_out(count, np.random.default_rng(seed), keep_rows=keep_rows)
    assert held_out.nnz == count
    assert kept.shape == held_out.shape == ratings.shape
    assert cells(kept) | cells(held_out) == cells(ratings)
    assert not cells(kept).keys() & cells(held_out).keys()


@given(ratings=drawn_ratings(most=8), seed=SEEDS, share=st.floats(0, 1))
def test_hold_out__empties_no_row_and_no_column_if_one_rating_each_remains(ratings, seed, share):
    """One rating for each user, and one for each item but the one that a user's rating is of anyway."""
    rated = ratings.user_counts() > 0, ratings.item_counts() > 0
    most = ratings.nnz - (rated[0].sum() + rated[1].sum() - 1)
    if most < 0:
        return
    kept, held_out = ratings.hold_out(round(share * most), np.random.default_rng(seed), keep_rows=True)
    np.testing.assert_array_equal(kept.user_counts() > 0, rated[0])
    np.testing.assert_array_equal(kept.item_counts() > 0, rated[1])
    assert held_out.nnz == round(share * most)


@given(seed=SEEDS)
def test_hold_out__is_random_where_there_is_room(seed):
    ratings = mf.Ratings(np.arange(1.0, 101).reshape(10, 10))
    one, two, other = (
        ratings.hold_out(10, np.random.default_rng(s), keep_rows=True)[1] for s in (seed, seed, seed + 1)
    )
    assert cells(one) == cells(two) != cells(other)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_factorize__holds_out_a_share_by_rng(schedule, split):
    options = {"validation": 0.1, "epochs": 3, "schedule": schedule, "n_threads": 1}
    one, two, other = (overfit(split[0], **options, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.P, two.P)
    assert reached(one) == reached(two)
    assert reached(one) != reached(other)
    assert one.ratings.nnz == split[0].nnz


def test_factorize__a_held_out_share_leaves_no_user_and_no_item_unknown():
    rng = np.random.default_rng(0)
    for seed in range(10):
        R = np.where(rng.random((30, 20)) < 0.15, 3 + rng.normal(size=(30, 20)), 0)
        model = overfit(R, 0.2, k=2, epochs=1, rng=seed)
        np.testing.assert_array_equal(model.known_users, R.any(axis=1))
        np.testing.assert_array_equal(model.known_items, R.any(axis=0))


def test_factorize__keeps_a_rating_that_counts_of_each_user():
    """A rating of weight zero is not one to learn from."""
    rng = np.random.default_rng(0)
    R = 3 + rng.normal(size=(20, 10))
    weights = np.zeros((20, 10))
    weights[np.arange(20), np.arange(20) % 10] = 1
    weights[::2] = 1
    for seed in range(5):
        model = overfit(R, 0.1, k=2, epochs=1, rng=seed, sample_weight=weights)
        assert model.known_users.all()


def test_factorize__never_holds_out_all_ratings_that_count():
    weights = np.zeros((4, 5))
    weights[0, 0] = weights[2, 3] = 1
    for seed in range(10):
        model = overfit(np.ones((4, 5)), 0.5, k=1, epochs=1, rng=seed, sample_weight=weights)
        assert model.known_users[0] or model.known_users[2]


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.5, 0.999999])
def test_factorize__holds_out_at_least_one_and_not_all(share):
    model = overfit([[5, 3, 0], [4, 0, 1]], share, k=1, epochs=2, learning_rate=0.01)
    assert len(reached(model)) == 2
    assert np.isfinite(reached(model)).all()


# what is recorded, and what comes back


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("biases", [False, True])
def test_factorize__the_factors_of_the_best_epoch_come_back(biases, schedule, dtype, split):
    options = {"schedule": schedule, "biases": biases, "dtype": dtype, "n_threads": 1}
    model = overfit(*split, **options)
    best = int(np.argmin(reached(model)))
    assert 0 < best < len(model.history) - 1
    assert model.rmse(split[1]) == pytest.approx(reached(model)[best], rel=1e-4)
    assert model.stop_reason == "patience"
    # constant steps: fewer epochs are the same epochs
    short = overfit(*split, **options, epochs=best + 1)
    np.testing.assert_array_equal(short.P, model.P)
    np.testing.assert_array_equal(short.Q, model.Q)
    if biases:
        np.testing.assert_array_equal(short.user_bias, model.user_bias)


@pytest.mark.parametrize(
    "options",
    quick(
        [
            {"loss": "absolute"},
            {"loss": "huber", "biases": True},
            {"nonnegative": True},
            {"l1": 0.01},
            {"decay": "adaptive"},
            {"sample_weight": True},
        ],
        {"loss": "huber", "biases": True},
        {"decay": "adaptive"},
    ),
    ids=lambda options: "-".join(options),
)
def test_factorize__the_best_epoch_comes_back_under_any_settings(options, split):
    train, test = split
    if "sample_weight" in options:
        options = {"sample_weight": np.random.default_rng(0).uniform(0.1, 2, train.nnz)}
    if "nonnegative" in options:
        train, test = (x.with_values(np.abs(x.values)) for x in split)
    model = overfit(train, test, **options, epochs=12)
    assert model.rmse(test) == pytest.approx(min(reached(model)), rel=1e-4)


@pytest.mark.parametrize("biases", [False, True])
def test_factorize__validates_probabilities_under_the_logistic_loss(biases, split):
    train, test = (x.with_values(np.sign(x.values - 3)) for x in split)
    model = overfit(train, test, loss="logistic", biases=biases)
    assert model.rmse(test) == pytest.approx(min(reached(model)), rel=1e-4)
    zero_one = overfit(
        train, test.with_values((test.values > 0).astype(np.float32)), loss="logistic", biases=biases
    )
    assert reached(zero_one) == reached(model)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("biases", [False, True])
def test_factorize__validates_with_users_and_items_that_are_unknown(biases, schedule, split):
    train, test = split
    train = train.select((train.users > 5) & (train.items > 3))
    model = overfit(train, test, biases=biases, schedule=schedule, n_threads=1)
    assert not model.known_users[:6].any()
    assert model.rmse(test) == pytest.approx(min(reached(model)), rel=1e-4)
    new_users = test.select(test.users <= 5)
    alone = overfit(train, new_users, biases=biases, schedule=schedule, n_threads=1, epochs=3)
    assert alone.rmse(new_users) == pytest.approx(min(reached(alone)), rel=1e-4)
    if not biases:
        expected = np.sqrt(np.mean((new_users.values - train.mean) ** 2))
        np.testing.assert_allclose(reached(alone), expected, rtol=1e-5)


def test_factorize__validation_changes_no_step(split):
    plain = mf.factorize(split[0], 4, rng=0, epochs=4, learning_rate=0.01, biases=True)
    model = overfit(*split, k=4, rng=0, epochs=4, learning_rate=0.01, biases=True, regularization=None)
    assert [e.rmse for e in plain.history] == [e.rmse for e in model.history]
    assert [e.validation_rmse for e in plain.history] == [None] * 4


@pytest.mark.parametrize("form", ["dense", "csr", "triplets", "float64"])
def test_factorize__takes_validation_ratings_in_any_form(form, split):
    train, test = split
    forms = {
        "dense": test.to_scipy().toarray(),
        "csr": test.to_scipy(),
        "triplets": (test.users, test.items, test.values, test.shape),
        "float64": mf.Ratings(test, dtype=np.float64),
    }
    one, two = (overfit(train, x, epochs=3) for x in (test, forms[form]))
    np.testing.assert_allclose(reached(one), reached(two), rtol=1e-6)


def test_factorize__zero_is_a_validation_rating_too_if_only_nan_is_missing(rng):
    R = rng.integers(2, size=(20, 15)).astype(float)
    held_out = rng.random(R.shape) < 0.2
    train, test = np.where(held_out, np.nan, R), np.where(held_out, R, np.nan)
    options = {"k": 2, "epochs": 3, "missing": "nan", "learning_rate": 0.01}
    one, two = (overfit(train, x, **options) for x in (mf.Ratings(test, missing="nan"), test))
    assert reached(one) == reached(two)


# why training stops


@pytest.mark.parametrize("patience", [1, 2, None])
def test_factorize__stops_when_patience_is_at_its_end(patience, split):
    model = overfit(*split, patience=patience)
    best = int(np.argmin(reached(model)))
    assert model.stop_reason == "patience"
    assert len(model.history) == best + 1 + (patience or 5)


@pytest.mark.parametrize("validated", [False, True])
def test_factorize__stops_when_tol_is_reached(validated, split):
    options = {"tol": 0.03, "learning_rate": 0.005, "epochs": 200}
    model = overfit(split[0], split[1] if validated else None, **options)
    curve = reached(model) if validated else [e.rmse for e in model.history]
    gains = [1 - after / before for before, after in itertools.pairwise(curve)]
    assert model.stop_reason == "converged"
    assert 0 <= gains[-1] <= 0.03
    assert all(gain > 0.03 or gain < 0 for gain in gains[:-1])
    assert len(gains) > 1


def test_factorize__stops_after_its_epochs(split):
    model = overfit(*split, epochs=2)
    assert model.stop_reason == "epochs"
    assert len(model.history) == 2
    assert mf.factorize(split[0], 2, epochs=2, tol=0).stop_reason == "epochs"


@pytest.mark.parametrize("validated", [False, True])
def test_factorize__stops_at_the_time_limit(validated, split):
    model = overfit(split[0], split[1] if validated else None, time_limit=1e-9)
    assert model.stop_reason == "time limit"
    assert len(model.history) == 1
    assert overfit(split[0], None, epochs=3, time_limit=600).stop_reason == "epochs"


def test_factorize__the_callback_stops_and_sees_validation(split):
    seen = []

    def callback(record):
        seen.append(record)
        return record.epoch == 3

    model = overfit(*split, callback=callback, learning_rate=0.01)
    assert model.stop_reason == "callback"
    assert seen == model.history
    assert [e.epoch for e in seen] == [1, 2, 3]
    assert all(e.validation_rmse > 0 for e in seen)


def test_factorize__progress_shows_validation(split, capsys):
    model = overfit(*split, epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"validation {reached(model)[1]:.6g}" in lines[1]


# divergence and interruption


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("biases", [False, True])
def test_factorize__goes_back_to_the_best_epoch_from_divergence(biases, schedule, split):
    options = {"schedule": schedule, "biases": biases, "n_threads": 1, "learning_rate": 3, "k": 4}
    with pytest.warns(UserWarning, match=r"diverged; .* times the learning rate"):
        model = overfit(*split, **options)
    undone = [n for n, e in enumerate(model.history) if e.rolled_back_to is not None]
    assert undone
    for n in undone:
        record, before = model.history[n], [e for e in model.history[:n] if e.rolled_back_to is None]
        assert record.validation_rmse is None
        best = min(before, key=lambda e: e.validation_rmse).epoch if before else 0
        assert record.rolled_back_to == best
        assert model.history[n + 1].epoch == best + 1
        assert model.history[n + 1].learning_rate == pytest.approx(3 / 2 ** (undone.index(n) + 1))
    assert model.rmse(split[1]) == pytest.approx(min(reached(model)), rel=1e-4)


def plant_divergence(monkeypatch, at):
    """Make training diverge in an epoch, the first time that it is reached."""
    begin, left = SGDTrainer.begin_epoch, [at]

    def begin_epoch(sgd, epoch, epochs, rmse):
        if epoch in left:
            left.remove(epoch)
            sgd.parameters.P[:] = 1e30
        begin(sgd, epoch, epochs, rmse)

    monkeypatch.setattr("mfkernel.methods.sgd.SGDTrainer.begin_epoch", begin_epoch)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_factorize__a_late_divergence_is_undone_from_the_best_epoch(schedule, split, monkeypatch):
    options = {"schedule": schedule, "n_threads": 1, "biases": True, "learning_rate": 0.01}
    plain = overfit(*split, **options, epochs=4)
    assert int(np.argmin(reached(plain))) == 3
    plant_divergence(monkeypatch, at=5)
    with pytest.warns(UserWarning, match=r"diverged; it restored .* with 0.5 times"):
        model = overfit(*split, **options, epochs=6)
    assert [e.epoch for e in model.history] == [1, 2, 3, 4, 5, 5, 6]
    assert [e.rolled_back_to for e in model.history] == [None] * 4 + [4, None, None]
    assert reached(model)[:4] == reached(plain)
    assert [e.learning_rate for e in model.history] == [0.01] * 5 + [0.005] * 2
    assert model.rmse(split[1]) == pytest.approx(min(reached(model)), rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("validated", [False, True])
def test_factorize__ctrl_c_gives_the_model_so_far(validated, schedule, split):
    def callback(record):
        if record.epoch == 3:
            raise KeyboardInterrupt

    options = {"schedule": schedule, "n_threads": 1, "k": 2, "learning_rate": 0.01, "biases": True}
    test = split[1] if validated else None
    with pytest.raises(mf.Interrupted, match="interrupted after epoch 3.*of epoch 3") as caught:
        overfit(split[0], test, callback=callback, **options)
    model = caught.value.model
    assert isinstance(caught.value, KeyboardInterrupt)
    assert model.stop_reason == "interrupted"
    assert [e.epoch for e in model.history] == [1, 2, 3]
    whole = overfit(split[0], test, epochs=3, **options)
    np.testing.assert_array_equal(model.P, whole.P)
    np.testing.assert_array_equal(model.item_bias, whole.item_bias)


def test_factorize__ctrl_c_gives_the_best_epoch_of_validation(split):
    best = int(np.argmin(reached(overfit(*split)))) + 1

    def callback(record):
        if record.epoch == best + 2:
            raise KeyboardInterrupt

    with pytest.raises(mf.Interrupted, match=f"after epoch {best + 2}.*of epoch {best}") as caught:
        overfit(*split, callback=callback)
    model = caught.value.model
    assert len(model.history) == best
    assert model.rmse(split[1]) == pytest.approx(model.history[-1].validation_rmse, rel=1e-4)


# the warning


@pytest.mark.parametrize(("biases", "advice"), [(False, "try biases=True"), (True, "try fewer factors")])
def test_factorize__warns_if_means_predict_better(biases, advice):
    train, test = mf.train_test_split(random_ratings(40, 30, 600, dtype=np.float32), 0.2, rng=0)
    options = {"biases": biases, "regularization": 0, "learning_rate": 0.1, "epochs": 30, "rng": 0}
    options["bias_learning_rate"] = 0.2
    with pytest.warns(UserWarning, match=WARNING) as caught:
        model = mf.factorize(train, 25, validation=test, **options)
    text = str(caught[0].message)
    assert f"{min(reached(model)):.4g} is above the {bias_baseline(train).rmse(test):.4g}" in text
    assert advice in text
    assert caught[0].filename == __file__


def test_factorize__does_not_warn_if_factors_predict_better(split):
    for options in ({"validation": split[1]}, {"validation": 0.1}, {"validation": 0.1, "biases": True}):
        model = mf.factorize(split[0], 2, rng=0, epochs=60, **options)  # a warning would be an error
        assert min(reached(model)) < 1


def test_factorize__does_not_warn_without_validation():
    mf.factorize(
        random_ratings(40, 30, 600, dtype=np.float32),
        25,
        regularization=0,
        learning_rate=0.1,
        epochs=5,
        rng=0,
    )


# errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 0}, ValueError, "validation must be finite and positive, got 0"),
        ({"validation": -0.1}, ValueError, "validation must be finite and positive, got -0.1"),
        ({"validation": math.nan}, ValueError, "validation must be finite and positive"),
        ({"validation": 1}, ValueError, "a share between 0 and 1, or ratings, got 1"),
        ({"validation": 1.5}, ValueError, "a share between 0 and 1, or ratings, got 1.5"),
        ({"validation": True}, TypeError, "validation must be a number, got True"),
        ({"validation": np.ones((2, 2))}, ValueError, r"R's shape \(2, 3\), got \(2, 2\)"),
        ({"validation": np.zeros((2, 3))}, ValueError, "validation must have ratings, got none"),
        ({"validation": [[1, np.inf, 0], [0, 0, 0]]}, ValueError, r"validation: .*\[0, 1\].* is inf"),
        ({"validation": "tenth"}, (TypeError, ValueError), "validation"),
        ({"patience": 3}, ValueError, "patience must be None without validation, got 3; pass validation=0.1"),
        ({"patience": 0, "validation": 0.5}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 1.5, "validation": 0.5}, TypeError, "patience must be an integer"),
        ({"tol": -1e-3}, ValueError, "tol must be finite and zero or positive, got -0.001"),
        ({"tol": math.nan}, ValueError, "tol must be finite"),
        ({"tol": "small"}, TypeError, "tol must be a number"),
        ({"time_limit": 0}, ValueError, "time_limit must be finite and positive, got 0"),
        ({"time_limit": -1}, ValueError, "time_limit must be finite and positive"),
    ],
)
def test_factorize__refuses_what_cannot_be_validated(options, error, message):
    with pytest.raises(error, match=message):
        mf.factorize([[5, 3, 0], [4, 0, 1]], 2, epochs=1, **options)


def test_factorize__cannot_hold_out_the_only_rating():
    with pytest.raises(ValueError, match="R must have at least 2 ratings to hold one out, got 1"):
        mf.factorize([[5, 0], [0, 0]], 2, validation=0.1)


def test_factorize__names_validation_ratings_that_the_logistic_loss_cannot_take():
    with pytest.raises(
        ValueError, match=r"validation: R must hold .* with loss='logistic', got R\[1, 2\] = 4"
    ):
        mf.factorize([[1, -1, 0], [1, 0, 1]], 2, validation=[[0, 0, 1], [0, 0, 4]], loss="logistic")


@pytest.mark.parametrize("validation", [0.3, 0.9])
def test_factorize__validation_leaves_given_ratings_as_they_are(validation):
    R = np.round(5 * np.random.default_rng(0).random((8, 6)))
    before = R.copy()
    overfit(R, validation, k=2, epochs=2, learning_rate=0.01)
    np.testing.assert_array_equal(R, before)
