"""Bayesian matrix factorization: its predictions, how sure they are, and its doors."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel.methods.baseline import bias_baseline
from tests.helpers import bits

pytestmark = pytest.mark.filterwarnings("ignore:.* of the mean and biases alone")

RATINGS = mf.Ratings(mf.datasets.synthetic(120, 80, 2500, rng=3), dtype=np.float32)
TRAIN, TEST = mf.train_test_split(RATINGS, rng=0)


def fit(ratings=TRAIN, k=4, **options):
    return mf.factorize(ratings, k, "bayesian", **{"rng": 0, "epochs": 40} | options)


@pytest.fixture(scope="module")
def model():
    return fit()


def planted(m, n, nnz, rank, noise, seed=0, *, uneven=False):
    """Return ratings of a planted model; with ``uneven``, rows differ in their noise."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(m * n, nnz, replace=False)
    u, i = cells // n, cells % n
    P, Q = rng.normal(size=(m, rank)), rng.normal(size=(n, rank))
    z = 3 + 0.4 * rng.normal(size=m)[u] + 0.4 * rng.normal(size=n)[i]
    z += np.einsum("nk,nk->n", P[u], Q[i]) / max(1, np.sqrt(rank))
    spread = noise * (rng.gamma(4, 1 / 4, m)[u] ** -0.5 if uneven else 1.0)
    return mf.Ratings((u, i, z + spread * rng.normal(size=nnz), (m, n)), dtype=np.float32)


# Accuracy


@pytest.mark.parametrize("k", [2, 8])
def test_predictions__are_better_than_biases_and_than_gradient_descent(k):
    train, test = mf.train_test_split(planted(300, 200, 9000, 2, 0.5), rng=0)
    error = fit(train, k, epochs=100).rmse(test)
    assert error < 0.56  # the noise alone is 0.5
    assert error < bias_baseline(train).rmse(test)
    assert error < mf.factorize(train, k, biases=True, rng=0).rmse(test)


@pytest.mark.parametrize("nnz", [500, 2000, 8000])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("k", [2, 16])
def test_sparse_ratings__are_predicted_no_worse_than_by_biases(nnz, rank, k):
    splits = [mf.train_test_split(planted(400, 300, nnz, rank, 0.8, seed), 0.3, rng=0) for seed in (1, 2, 3)]
    ratios = [fit(train, k, epochs=60).rmse(test) / bias_baseline(train).rmse(test) for train, test in splits]
    assert np.mean(ratios) < 1.01


def test_more_factors__do_no_harm():
    train, test = mf.train_test_split(planted(300, 200, 9000, 2, 0.5), rng=0)
    errors = [fit(train, k, epochs=100).rmse(test) for k in (2, 8, 32)]
    assert max(errors) < 1.02 * min(errors)


def test_mean__is_that_of_the_sampled_scores_and_not_of_the_factors(model):
    samples, state = fit(samples=36), model.state
    posterior = samples.state.posterior
    assert posterior.size == 36
    scores = np.einsum("usk,isk->uis", posterior.user_factors, posterior.item_factors)
    scores += posterior.user_bias[:, None, :] + posterior.item_bias[None, :, :] + state.mean
    mean = scores.mean(axis=2)
    predicted = samples.reconstruct()
    noise = scores.std(axis=2) / np.sqrt(36)
    assert np.sqrt(np.mean((predicted - mean) ** 2)) < 1.5 * np.sqrt(np.mean(noise**2))
    factors = posterior.user_factors.mean(axis=1) @ posterior.item_factors.mean(axis=1).T
    biases = posterior.user_bias.mean(axis=1)[:, None] + posterior.item_bias.mean(axis=1) + state.mean
    assert np.corrcoef((predicted - biases).ravel(), factors.ravel())[0, 1] < 0.999


def test_model__has_the_rank_that_was_asked_for(model):
    P, Q = model
    assert P.shape == (120, 4)
    assert Q.shape == (4, 80)
    assert model.k == 4


# Units


@settings(max_examples=8, deadline=None)
@given(power=st.integers(-20, 20), shift=st.floats(-5, 5))
def test_scale_and_shift_of_the_ratings__are_those_of_the_answers(power, shift):
    scale = 2.0**power
    moved = fit(
        TRAIN.with_values(((TRAIN.values + shift) * scale).astype(np.float64)), epochs=4, dtype=np.float64
    )
    exact = fit(TRAIN.with_values(TRAIN.values.astype(np.float64)), epochs=4, dtype=np.float64)
    one = exact.predict(TEST.users, TEST.items, return_std=True)
    other = moved.predict(TEST.users, TEST.items, return_std=True)
    np.testing.assert_allclose(other.mean, (one.mean + shift) * scale, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(other.std, one.std * scale, rtol=1e-5)
    np.testing.assert_allclose(other.noise, one.noise * scale, rtol=1e-5)


@pytest.mark.parametrize("scale", [4.0**40, 4.0**-40])
def test_any_size_of_ratings__is_folded_in(scale):
    small, large = fit(epochs=12), fit(TRAIN.with_values(TRAIN.values * np.float32(scale)), epochs=12)
    np.testing.assert_allclose(large.P / np.sqrt(scale), small.P, rtol=1e-6, atol=1e-7)
    new = small.fold_in({1: 4.0, 2: 1.0}), large.fold_in({1: 4.0 * scale, 2: 1.0 * scale})
    np.testing.assert_allclose(new[1].predict(0, [3, 4]) / scale, new[0].predict(0, [3, 4]), rtol=1e-3)


def test_negative_ratings__are_predicted_as_well():
    opposite = fit(TRAIN.with_values(-TRAIN.values), epochs=100).rmse(TEST.with_values(-TEST.values))
    assert abs(opposite / fit(epochs=100).rmse(TEST) - 1) < 0.02


def test_ratings_without_noise__are_found():
    train, test = mf.train_test_split(planted(200, 150, 9000, 2, 0.0), rng=0)
    assert fit(train, 3, epochs=150).rmse(test) < 0.03


@pytest.mark.parametrize("values", [np.full(30, 3.0), np.zeros(30)])
def test_equal_ratings__are_predicted(values):
    cells = np.random.default_rng(0).choice(100, 30, replace=False)
    model = fit((cells // 10, cells % 10, values, (10, 10)))
    np.testing.assert_allclose(model.predict(cells // 10, cells % 10), values, atol=0.5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_ratings__give_finite_answers(data):
    m, n, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    cells = data.draw(st.lists(st.integers(0, m * n - 1), min_size=1, max_size=m * n, unique=True))
    unit = 10.0 ** data.draw(st.integers(-12, 12))
    tenths = data.draw(st.lists(st.integers(-50, 50), min_size=len(cells), max_size=len(cells)))
    values = np.array(tenths) / 10
    users, items = np.divmod(np.array(cells), n)
    model = fit((users, items, values * unit, (m, n)), k, epochs=6, samples=2)
    found = model.predict(np.arange(m)[:, None], np.arange(n), return_std=True)
    assert all(np.isfinite(part).all() for part in found)
    assert (found.std >= 0).all()
    assert (found.noise > 0).all()
    new = model.fold_in({int(items[0]): float(values[0] * unit)}).predict(0, np.arange(n), return_std=True)
    assert all(np.isfinite(part).all() for part in new)
    model.partial_fit(([m], [0], [float(values[0] * unit)]))
    assert np.isfinite(model.predict(m, 0))


# Uncertainty


@pytest.mark.parametrize("uneven", [False, True])
def test_intervals__hold_as_many_ratings_as_they_say(uneven):
    ratings = planted(400, 300, 30_000, 3, 0.6, uneven=uneven)
    train, test = mf.train_test_split(ratings, 0.3, rng=0)
    model = fit(train, 8, epochs=120)
    for share in (0.5, 0.9):
        found = model.predict(test.users, test.items, interval=share)
        inside = np.mean((found.lower <= test.values) & (test.values <= found.upper))
        assert abs(inside - share) < (0.02 if not uneven else 0.04)


def test_std__is_the_spread_of_the_samples_and_noise_is_apart(model):
    posterior = model.state.posterior
    found = model.predict(3, 5, return_std=True)
    scores = (posterior.user_factors[3] * posterior.item_factors[5]).sum(axis=1)
    scores += posterior.user_bias[3] + posterior.item_bias[5]
    np.testing.assert_allclose(found.std, scores.std(ddof=1), rtol=1e-4)
    variances = posterior.noise**2 / (posterior.user_precision[3] * posterior.item_precision[5])
    np.testing.assert_allclose(found.noise, np.sqrt(variances.mean()), rtol=1e-4)
    assert found.mean == model.predict(3, 5)
    assert found.lower < found.mean < found.upper


def test_noise__is_found_per_user():
    rng = np.random.default_rng(0)
    u, i = np.divmod(np.arange(200 * 60), 60)
    spread = np.where(np.arange(200) < 100, 0.3, 1.2)
    values = 3 + rng.normal(size=60)[i] + spread[u] * rng.normal(size=u.size)
    model = fit((u, i, values), 2)
    noise = model.predict(np.arange(200)[:, None], np.arange(60), return_std=True).noise.mean(axis=1)
    assert np.abs(noise[:100].mean() / 0.3 - 1) < 0.15
    assert np.abs(noise[100:].mean() / 1.2 - 1) < 0.15


def test_std__falls_with_the_number_of_ratings():
    counts = TRAIN.user_counts()
    std = fit(samples=30).predict(np.arange(120)[:, None], np.arange(80), return_std=True).std.mean(axis=1)
    assert np.corrcoef(np.log(counts + 1), std)[0, 1] < -0.5


def test_uncertainty__has_the_shape_of_the_predictions(model):
    one = model.predict(0, 1, return_std=True)
    assert all(np.ndim(x) == 0 for x in one)
    table = model.predict(np.arange(3)[:, None], [1, 2], return_std=True)
    assert all(x.shape == (3, 2) and x.dtype == np.float32 for x in table)
    none = model.predict([], [], return_std=True)
    assert all(x.shape == (0,) for x in none)
    wide = model.predict(0, 1, interval=0.99)
    assert wide.upper - wide.lower > one.upper - one.lower
    clipped = model.predict([0, 1], [1, 2], interval=0.999, clip=(1, 5))
    assert clipped.lower.min() >= 1
    assert clipped.upper.max() <= 5


def test_new_users_and_items__are_as_uncertain_as_the_prior(model):
    new = model.predict([0, 10**6, 0, 10**6], [0, 0, 10**6, 10**6], unknown="default", return_std=True)
    assert np.isfinite(new.std).all()
    assert new.std[0] < new.std[1]
    assert new.std[0] < new.std[2]
    assert new.mean[3] == pytest.approx(model.mean, abs=1e-5)


def test_uncertainty__is_refused_by_other_methods_and_odd_shares(model):
    plain = mf.factorize(TRAIN, 2, rng=0)
    with pytest.raises(ValueError, match=r"return_std must be left out .* method='bayesian'"):
        plain.predict(0, 0, return_std=True)
    with pytest.raises(ValueError, match=r"explore must be left out .* method='bayesian'"):
        plain.recommend(0, explore=1.0)
    for share in (0, 1, 1.5, np.nan):
        with pytest.raises(ValueError, match="interval must be"):
            model.predict(0, 0, interval=share)
    for wrong in ("ucb", np.inf, True, [1]):
        with pytest.raises((TypeError, ValueError), match="explore must be 'thompson' or a finite number"):
            model.recommend(0, explore=wrong)


# Recommendations


def test_explore__adds_standard_deviations(model):
    users, items = np.arange(5), np.arange(80)
    found = model.predict(users[:, None], items, return_std=True)
    for explore in (-1.0, 0.0, 2.0):
        scores = found.mean + explore * found.std
        best = model.recommend(users, 4, explore=explore, exclude_seen=False)
        np.testing.assert_allclose(best.scores, np.sort(scores, axis=1)[:, :-5:-1], rtol=1e-4)
        assert (best.items == np.argsort(-scores, axis=1, kind="stable")[:, :4]).all()
    assert (model.recommend(users, explore=0).items == model.recommend(users).items).all()


def test_thompson__follows_its_seed_and_leaves_out_what_is_seen(model):
    users = np.arange(30)
    one, again, other = (model.recommend(users, 5, explore="thompson", rng=seed) for seed in (0, 0, 1))
    assert (one.items == again.items).all()
    assert (one.items != other.items).any()
    for user, items in zip(users, one.items, strict=True):
        assert not set(items.compressed()) & set(TRAIN.indices[slice(*TRAIN.indptr[user : user + 2])])
    assert (
        model.recommend(3, 5, explore="thompson", rng=0, items=[1, 2, 7], exclude_seen=False).items < 8
    ).all()
    assert model.recommend(3, 500, explore=1.0).items.size == 80 - TRAIN.user_counts()[3]
    assert not set(model.recommend(3, 5, explore=1.0, exclude=[0, 1, 2]).items) & {0, 1, 2}


# New ratings


def test_fold_in__gives_known_users_their_rows(model):
    rows = TRAIN.take_rows(np.arange(40))
    found = model.fold_in(rows).reconstruct()
    known = model.reconstruct()[:40]
    assert np.sqrt(np.mean((found - known) ** 2)) < 0.3 * known.std()


def test_fold_in__of_nothing_is_the_prior(model):
    new = model.fold_in(([], [], [], (2, 80)))
    assert new.P.shape == (2, 4)
    np.testing.assert_allclose(new.predict(0, np.arange(80)), model.mean + model.item_bias, atol=0.4)
    nobody, known = (
        new.predict(0, np.arange(80), return_std=True),
        model.predict(0, np.arange(80), return_std=True),
    )
    assert nobody.std.mean() > known.std.mean()
    more = model.fold_in({1: 5.0, 2: 5.0, 3: 5.0, 4: 5.0})
    assert more.predict(0, 10) > new.predict(0, 10)
    assert more.recommend(0, 3, explore=1.0).items.size == 3


def test_fold_in__refuses_penalties(model):
    with pytest.raises(ValueError, match="regularization must be None for a Bayesian model"):
        model.fold_in({1: 5.0}, regularization=0.1)
    with pytest.raises(ValueError, match="bias_regularization must be None for a Bayesian model"):
        model.fold_in({1: 5.0}, bias_regularization=0.1)


def test_partial_fit__learns_and_keeps_the_rest():
    model, before = fit(), fit()
    model.partial_fit(([3, 3, 3, 3], [10, 11, 12, 13], [5.0, 5.0, 5.0, 5.0]))
    assert model.predict(3, [10, 11, 12, 13]).mean() > before.predict(3, [10, 11, 12, 13]).mean()
    others = np.setdiff1d(np.arange(120), [3])
    assert (model.P[others] == before.P[others]).all()
    model.partial_fit(([120] * 3, [80, 1, 2], [1.0, 1.0, 1.0]))
    assert model.shape == (121, 81)
    assert np.isfinite(model.predict(120, 80, return_std=True)).all()
    assert model.predict(120, 3) < before.predict([0, 1, 2], 3).mean() + 1


def test_forget__makes_a_user_new():
    model = fit().forget(users=[4])
    assert not model.known_users[4]
    assert model.predict(4, 0, return_std=True).std > 0.5 * model.predict(5, 0, return_std=True).std
    named = fit(mf.Ratings(TRAIN, user_ids=np.arange(120) + 1000)).forget(users=[1004], items=[])
    assert named.shape == (119, 80)
    assert named.predict(1005, 0, return_std=True) == fit().predict(5, 0, return_std=True)


def test_explain__adds_up(model):
    found = model.explain(0, 7, n=100)
    total = found.mean + found.user_bias + found.item_bias + found.contributions.sum() + found.rest
    np.testing.assert_allclose(total, model.predict(0, 7), rtol=1e-5)
    assert np.abs(found.contributions).sum() > 0


# Training


def test_samples__bound_the_memory_and_are_counted():
    for samples, epochs, kept in ((1, 9, 1), (5, 40, 5), (50, 30, 27)):
        assert fit(samples=samples, epochs=epochs).state.posterior.size == kept
    stopped = fit(callback=lambda epoch: epoch.epoch == 2)  # within the burn-in
    assert stopped.state.posterior.size == 1
    with pytest.raises(ValueError, match="burn_in must be below the number of epochs, 5, got 5"):
        fit(epochs=5, burn_in=5)
    with pytest.raises(MemoryError, match=r"1000000000 samples and a copy [\d,.]+ GiB"):
        fit(samples=10**9)


def test_memory__is_stated_before_it_is_taken():
    with pytest.raises(MemoryError, match="free memory, got a draw, the mean and a copy"):
        fit(samples=10**9)


def test_validation__measures_the_mean_and_stops_late():
    model = fit(validation=0.2, epochs=30)
    errors = [epoch.validation_rmse for epoch in model.history]
    assert len(errors) == 30
    assert min(errors[3:]) < errors[0]
    assert model.rmse(TEST) < 1.05 * fit(epochs=30).rmse(TEST)
    early = fit(validation=TEST, epochs=300, patience=4)
    assert early.stop_reason == "patience"
    assert len(early.history) > 30  # not within the burn-in
    best = min(epoch.validation_rmse for epoch in early.history[30:])
    np.testing.assert_allclose(early.rmse(TEST), best, rtol=1e-3)


def test_time_limit__leaves_a_model_of_the_sweeps_so_far():
    model = fit(time_limit=0.05, epochs=10**6)
    assert model.stop_reason == "time limit"
    assert np.isfinite(model.predict(0, 0, return_std=True)).all()


def test_two_chains__agree():
    train, test = mf.train_test_split(planted(300, 200, 9000, 2, 0.5), rng=0)
    one, two = (fit(train, 4, epochs=150, rng=seed) for seed in (0, 1))
    difference = one.predict(test.users, test.items) - two.predict(test.users, test.items)
    assert difference.std() < 0.1
    first, second = (x.predict(test.users, test.items, return_std=True) for x in (one, two))
    assert abs(first.std.mean() / second.std.mean() - 1) < 0.2
    assert abs(first.noise.mean() / second.noise.mean() - 1) < 0.05


def test_warm_start__goes_on_with_other_random_numbers(model):
    again = fit(init=model, epochs=10, burn_in=0)
    assert bits(again) != bits(model)
    cold = fit(epochs=10, burn_in=0)
    assert again.history[0].rmse < cold.history[0].rmse


def test_users_and_items__have_priors_of_their_own():
    rng = np.random.default_rng(0)
    u, i = np.divmod(np.arange(300 * 40), 40)
    values = 3 + 0.2 * rng.normal(size=300)[u] + 2.0 * rng.normal(size=40)[i] + 0.3 * rng.normal(size=u.size)
    posterior = fit((u, i, values), 2).state.posterior
    of_users, of_items = (
        x[:, -1, -1].mean() ** -0.5 for x in (posterior.user_prior_precision, posterior.item_prior_precision)
    )
    assert abs(of_users / 0.2 - 1) < 0.2
    assert abs(of_items / 2.0 - 1) < 0.3


def test_float32_and_float64__give_similar_models():
    one, two = (fit(dtype=dtype, epochs=4) for dtype in (np.float32, np.float64))
    np.testing.assert_allclose(one.predict(0, [1, 2]), two.predict(0, [1, 2]), atol=0.05)
    assert two.P.dtype == np.float64


# Files


@pytest.mark.parametrize("mmap", [False, True])
def test_files__keep_the_samples(model, tmp_path, mmap):
    model.save(tmp_path / "model.npz")
    read = mf.load(tmp_path / "model.npz", mmap=mmap)
    for ask in (
        lambda x: x.predict([0, 1], [2, 3], return_std=True),
        lambda x: x.fold_in({1: 4.0}).predict(0, [1, 2], return_std=True),
    ):
        assert all((a == b).all() for a, b in zip(ask(read), ask(model), strict=True))
    assert (read.recommend(0, explore=1.0).items == model.recommend(0, explore=1.0).items).all()
    assert read.settings == model.settings


def test_pickles__keep_the_samples(model):
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict(0, 1, return_std=True) == model.predict(0, 1, return_std=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("noise", lambda x: -x),
        ("noise", lambda x: x[:-1]),
        ("user_factors", lambda x: x[1:]),
        ("item_factors", lambda x: x * np.nan),
        ("item_bias", lambda x: x.astype(np.float16)),
        ("user_prior_precision", lambda x: x[:, :2]),
        ("user_degrees", None),
    ],
)
def test_damaged_samples__are_refused(model, name, change):
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    arrays = dict(np.load(file))
    if change is None:
        del arrays[f"posterior_{name}"]
    else:
        arrays[f"posterior_{name}"] = change(arrays[f"posterior_{name}"])
    damaged = io.BytesIO()
    np.savez(damaged, **arrays)
    damaged.seek(0)
    with pytest.raises(ValueError, match="not a whole model"):
        mf.load(damaged)


def test_samples__cannot_be_changed(model):
    for array in model.state.posterior.arrays().values():
        assert not array.flags.writeable
