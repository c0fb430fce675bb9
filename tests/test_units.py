"""A fit does not depend on the unit of the ratings, nor on their zero where the model has a mean."""

import itertools
import warnings

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.training.units import Units
from tests.helpers import quick

# all methods, solvers and losses, with biases and without
FITS = {
    "sgd": {},
    "sgd, biases": {"biases": True},
    "sequential": {"schedule": "sequential", "l1": 0.01},
    "adaptive": {"decay": "adaptive"},
    "absolute": {"loss": "absolute", "biases": True},
    "huber": {"loss": "huber", "biases": True},
    **{
        f"als, {solver}{', biases' if biases else ''}": {"method": "als", "solver": solver, "biases": biases}
        for solver, biases in itertools.product(("cholesky", "cg", "subspace"), (False, True))
    },
}
BIASED = [name for name, options in FITS.items() if options.get("biases")]
UNITS = [2.0**-100, 2.0**-1, 2.0**61, 1e-37, 1e-12, 1e-3, 1e3, 1e5, 1e8, 1e15, 1e30]


@pytest.fixture(scope="module")
def parts():
    full = mf.datasets.synthetic(150, 100, 4000, rng=2)
    train, test = mf.train_test_split(full, 0.2, rng=0)
    return train, test


def moved(R: mf.Ratings, scale: float = 1.0, shift: float = 0.0) -> mf.Ratings:
    return R.with_values(R.values.astype(np.float64) * scale + shift)


def scaled_options(options: dict, scale: float) -> dict:
    # λ₁ of e²/2 + λ₁‖p‖₁ has the unit of ratings to the power of 3/2
    return options | ({"l1": options["l1"] * scale**1.5} if "l1" in options else {})


@pytest.mark.parametrize("dtype", quick([np.float32, np.float64], np.float32))
@pytest.mark.parametrize("name", quick(list(FITS), "sgd", "absolute", "als, cg, biases"))
def test_scale__does_not_matter(name, dtype, parts):
    train, test = parts
    k = 40 if "cg" in name else 8
    settings = {"rng": 0, "dtype": dtype, "epochs": 8}
    expected = mf.factorize(train, k, **settings, **FITS[name])
    error = expected.rmse(test)
    for scale in UNITS:
        options = scaled_options(FITS[name], scale)
        model = mf.factorize(moved(train, scale), k, **settings, **options)
        # rounded ratings are other ratings: training amplifies the difference a little
        assert model.rmse(moved(test, scale)) / scale == pytest.approx(error, rel=2e-3), scale
        assert model.history[-1].rmse / scale == pytest.approx(expected.history[-1].rmse, rel=2e-3)
        found, wanted = (m.settings.regularization[0] for m in (model, expected))
        assert found / (1 if FITS[name].get("loss") == "absolute" else scale) == pytest.approx(
            wanted, rel=2e-3
        )


@pytest.mark.parametrize("power", [-40, -3, 1, 50])
@pytest.mark.parametrize(
    "name",
    quick(["sgd", "sgd, biases", "sequential", "adaptive", "huber", "als, cholesky, biases"], "sgd", "huber"),
)
def test_scale__by_a_power_of_4_changes_no_bit(name, power, parts):
    train, _ = parts
    scale = 4.0**power
    expected = mf.factorize(train, 8, rng=0, epochs=3, **FITS[name])
    model = mf.factorize(moved(train, scale), 8, rng=0, epochs=3, **scaled_options(FITS[name], scale))
    for found, wanted in zip(model, expected, strict=True):
        np.testing.assert_array_equal(found, wanted * np.float32(2.0**power))
    if expected.user_bias is not None:
        np.testing.assert_array_equal(model.user_bias, expected.user_bias * np.float32(scale))


@pytest.mark.parametrize("name", quick(BIASED, "sgd, biases"))
@pytest.mark.parametrize("shift", [-3.5, 30.0, 1e3, 1e6, -1e5])
def test_shift__does_not_matter_where_the_model_has_a_mean(name, shift, parts):
    train, test = parts
    k = 40 if "cg" in name else 8
    settings = {"rng": 0, "dtype": np.float64, "epochs": 8} | FITS[name]
    expected = mf.factorize(train, k, **settings)
    model = mf.factorize(moved(train, shift=shift), k, **settings)
    assert model.rmse(moved(test, shift=shift)) == pytest.approx(expected.rmse(test), rel=1e-5)
    assert model.mean == pytest.approx(expected.mean + shift)
    np.testing.assert_allclose(model.P, expected.P, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", quick(BIASED, "absolute"))
def test_shift__costs_float32_nothing_but_what_it_rounds(name, parts):
    """At 1,000 the ratings themselves are exact; only predictions are rounded, to 6e-5."""
    train, test = parts
    settings = {"rng": 0, "epochs": 8} | FITS[name]
    expected = mf.factorize(train, 8, **settings).rmse(test)
    assert mf.factorize(moved(train, shift=1e3), 8, **settings).rmse(moved(test, shift=1e3)) == pytest.approx(
        expected, rel=1e-3
    )


@pytest.mark.parametrize("name", quick(["als, cholesky", "als, cg", "als, subspace"], "als, cholesky"))
def test_als__without_a_mean_stands_a_mean_far_off(name, parts):
    train, test = parts
    far = moved(train, shift=1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = mf.factorize(far, 4, rng=0, epochs=8, **FITS[name])
    # factors of float32 leave predictions rounded to a sixteenth, and more where four of them add up
    assert model.rmse(moved(test, shift=1e6)) < 3 * train.std


@pytest.mark.parametrize("solver", quick(["cholesky", "cg", "subspace"], "cholesky"))
@pytest.mark.slow
def test_implicit__takes_strengths_of_any_scale(solver, parts):
    train, _ = parts
    settings = {"method": "implicit", "solver": solver, "rng": 0, "epochs": 5}
    expected = mf.factorize(train, 8, **settings, alpha=2.0)
    for scale in (1e-20, 1e-5, 1e4, 1e10, 1e20):  # α r is what counts
        model = mf.factorize(moved(train, scale), 8, **settings, alpha=2.0 / scale)
        np.testing.assert_allclose(model.reconstruct(), expected.reconstruct(), atol=2e-3)
    model = mf.factorize(moved(train, 1e10), 8, **settings)
    # of such weight, all that is stored is predicted as a 1, as well as 8 factors can
    assert np.isfinite(model.reconstruct()).all()
    assert model.predict(train.users, train.items).mean() > 0.9
    if solver != "cg":  # beside a weight of 1e20, not even float64 holds a penalty of 0.01
        with pytest.raises(ValueError, match="larger regularization, or a smaller alpha"):
            mf.factorize(moved(train, 1e20), 8, **settings)


@pytest.mark.parametrize("name", quick(["sgd", "sgd, biases", "als, cholesky", "als, cg, biases"], "sgd"))
def test_order__of_users_and_items_does_not_matter(name, parts):
    """Other random numbers meet other rows, so that the errors agree and not the bits."""
    train, test = parts
    rng = np.random.default_rng(0)
    at, to = rng.permutation(150), rng.permutation(100)

    def permuted(R):
        return mf.Ratings((at[R.users], to[R.items], R.values, R.shape))

    errors = []
    for there in (lambda R: R, permuted, lambda R: R.T):
        model = mf.factorize(there(train), 8, rng=0, **FITS[name])
        errors.append(model.rmse(there(test)))
    assert max(errors) < 1.03 * min(errors)


@pytest.mark.parametrize("biases", quick([False, True], True))
@pytest.mark.parametrize("options", quick([{}, {"method": "als"}], {}))
def test_fold_in_and_partial_fit__do_not_depend_on_the_unit(options, biases, parts):
    train, _ = parts
    answers = []
    for scale in (1.0, 1e-20, 1e20):
        model = mf.factorize(
            moved(train, scale), 4, rng=0, biases=biases, dtype=np.float64, epochs=5, **options
        )
        new = model.fold_in({3: 5 * scale, 8: 1 * scale})
        learned = model.partial_fit(([0, 150], [1, 2], [2 * scale, 5 * scale]))
        found = [new.predict(0, np.arange(100)), learned.predict([0, 150], [[1], [2]]).ravel()]
        answers.append(np.concatenate(found) / scale)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(answers[2], answers[0], rtol=1e-6, atol=1e-8)


def test_similar__of_huge_and_of_tiny_factors():
    X = np.random.default_rng(0).normal(size=(20, 4))
    expected = mf.Factors(X, X.T).similar_items(3, 5)
    for scale in (1e-30, 1e30):
        found = mf.Factors((X * scale).astype(np.float32), (X.T * scale).astype(np.float32)).similar_items(
            3, 5
        )
        np.testing.assert_array_equal(found.items, expected.items)


# what float32 cannot hold


@pytest.mark.parametrize("form", ["triplets", "ratings", "dense"])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.uint32])
def test_rounding__is_said(form, dtype):
    R = mf.datasets.synthetic(120, 90, 3000, rng=1)
    values = R.values.astype(dtype) + dtype(1e8)
    given = {
        "triplets": lambda: (R.users, R.items, values, R.shape),
        "ratings": lambda: mf.Ratings((R.users, R.items, values, R.shape)),
        "dense": lambda: R.with_values(values).to_scipy().toarray(),
    }[form]()
    with pytest.warns(
        UserWarning, match=r"float32 rounds the ratings, from 100000001 to 100000005, by up to 4; "
    ):
        mf.factorize(given, 4, rng=0, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = mf.factorize(given, 4, rng=0, biases=True, dtype=np.float64)
    assert model.rmse(given) < R.std


@pytest.mark.parametrize(
    "values", [[1.1, 2.2, 5.5], [1e-30, 3e-30, 2e-30], [1e8 + 1, 1e8 + 1, 1e8 + 1], [0.1] * 3]
)
def test_rounding__that_nobody_notices_is_not_said(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mf.Ratings(([0, 1, 2], [0, 1, 0], np.array(values)), dtype=np.float32)


def test_rounding__of_integers_beyond_float64_is_said():
    values = 2**60 + np.arange(1, 5)
    with pytest.warns(UserWarning, match="float64 rounds the ratings, .*; subtract their mean first"):
        mf.Ratings(([0, 1, 2, 3], [0, 1, 0, 1], values))


@pytest.mark.parametrize("scale", [1e-200, 1e200, 1e-150, 1e150])
@pytest.mark.parametrize("options", [{}, {"biases": True}, {"method": "als"}])
def test_sizes__that_float64_cannot_square_are_refused(scale, options):
    R = mf.Ratings(np.array([[1.0, 3], [2, 5]]) * scale)
    assert R.std == pytest.approx(np.std([1, 3, 2, 5]) * scale)
    with pytest.raises(ValueError, match="ratings must be of a size that float64 can multiply.*rescale"):
        mf.factorize(R, 1, dtype=np.float64, **options)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_overflow__is_refused_with_the_remedy(value):
    with pytest.raises(ValueError, match=r"values\[1\].*does not fit in float32; pass dtype=np\.float64"):
        mf.factorize(([0, 1], [0, 1], [1.0, value]), 1)


# least squares find how much noise there is


@pytest.mark.parametrize("solver", quick(["cholesky", "cg", "subspace"], "cholesky"))
@pytest.mark.parametrize(
    ("m", "n", "k", "noise", "share"),
    [(100, 80, 3, 0.01, 0.5), (60, 50, 5, 0.01, 0.5), (300, 200, 4, 0.001, 0.3), (200, 150, 6, 0.1, 0.4)],
)
def test_als__fits_clean_data_by_its_own_penalty(m, n, k, noise, share, solver):
    """Hidden cells are found as well as a known noise allows: √(k (m + n) / nnz) noise, and a margin."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(m, k)) @ rng.normal(size=(k, n))
    users, items = np.nonzero(rng.random((m, n)) < share)
    hidden = np.ones((m, n), bool)
    hidden[users, items] = False
    values = X[users, items] + noise * rng.normal(size=users.size)
    model = mf.factorize((users, items, values, (m, n)), k, method="als", solver=solver, rng=0)
    error = np.sqrt(np.mean((model.reconstruct() - X)[hidden] ** 2))
    assert error < 1.6 * noise * np.sqrt(k * (m + n) / users.size)


@pytest.mark.parametrize("k", quick([8, 20, 32], 32))
@pytest.mark.parametrize("solver", quick(["cholesky", "cg"], "cholesky"))
def test_als__finds_little_noise_with_more_factors_than_there_are(k, solver):
    """Three factors made the data; with 32, there are half as many coordinates again as ratings."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 80))
    users, items = np.nonzero(rng.random((100, 80)) < 0.5)
    values = X[users, items] + 0.01 * rng.normal(size=users.size)
    model = mf.factorize((users, items, values, X.shape), k, method="als", solver=solver, rng=0)
    hidden = np.ones(X.shape, bool)
    hidden[users, items] = False
    assert np.sqrt(np.mean((model.reconstruct() - X)[hidden] ** 2)) < 0.02 * X.std()


@pytest.mark.parametrize("options", quick([{}, {"biases": True}], {}))
def test_als__keeps_its_penalty_where_there_is_noise(options, parts):
    train, test = parts
    own = mf.factorize(train, 8, method="als", rng=0, **options)
    fixed = mf.factorize(
        train,
        8,
        method="als",
        rng=0,
        **options,
        regularization=own.settings.regularization,
        regularization_per="rating",
    )
    np.testing.assert_array_equal(own.P, fixed.P)
    assert own.rmse(test) < 1.05 * train.std


def test_als__of_ratings_that_are_all_the_same():
    model = mf.factorize(np.full((30, 20), 3.0), 2, method="als", rng=0)
    np.testing.assert_allclose(model.reconstruct(), 3, rtol=1e-3)


# the units themselves


def test_units__come_back_exactly(parts):
    train, _ = parts
    for loss in ("squared", "absolute", "huber"):
        settings = mf.SGD(
            loss=loss, huber_delta=0.3, learning_rate=0.1, regularization=(0.2, 0.7), l1=(0.1, 0.3),
            bias_learning_rate=0.01, bias_regularization=0.02,
        )  # fmt: skip
        units = Units.of(moved(train, 1e7), settings)
        assert units.scale > 1e6
        assert units.settings_out(units.settings_in(settings)) == settings
        record = mf.Epoch(1, 0.5, 0.1, 0.2, 0.6, None, 7.0)
        assert units.record_out(record).rmse == 0.5 * units.scale


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
def test_units__change_no_gradient_step(loss):
    """One sequential step on one rating, by hand, with every setting given in ratings."""
    r, p, q, b, c = 6000.0, 50.0, 40.0, 30.0, -20.0
    lr, reg, lr_b, reg_b = (1e-6, 0.3, 1e-2, 0.05) if loss != "absolute" else (1e-2, 0.3, 5.0, 1e-4)
    model = mf.factorize(
        [[r]], 1, dtype=np.float64, epochs=1, schedule="sequential",
        loss=loss, huber_delta=100.0 if loss == "huber" else None, biases=True, learning_rate=lr,
        regularization=reg, bias_learning_rate=lr_b, bias_regularization=reg_b,
        init=mf.Factors([[p]], [[q]], mean=r, user_bias=[b], item_bias=[c]),
    )  # fmt: skip
    e = r - (r + b + c + p * q)
    g = {"squared": e, "absolute": np.sign(e), "huber": np.clip(e, -100, 100)}[loss]
    p_new = p + lr * (g * q - reg * p)
    expected = p_new, q + lr * (g * p_new - reg * q), b + lr_b * (g - reg_b * b), c + lr_b * (g - reg_b * c)
    found = model.P[0, 0], model.Q[0, 0], model.user_bias[0], model.item_bias[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
