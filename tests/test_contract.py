"""The promises of every method: of each in the registry, and of one that a test adds."""

import os
import pickle
import signal
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse

import mfkernel as mf
from mfkernel.methods import METHODS, Method, trainer_for
from tests.helpers import bits
from tests.interrupts import AT_ONCE, answers
from tests.toy_method import UserMeans, UserMeansTrainer

# few epochs of few ratings may end there
pytestmark = pytest.mark.filterwarnings("ignore:.* of the mean and biases alone")

TOY = "user-means"
K = 5
R = mf.datasets.synthetic(60, 40, 900, rng=1)
MANY = mf.datasets.synthetic(3000, 2000, 60_000, rng=1)


class Promises(NamedTuple):
    """Promises that some methods do not make."""

    is_random: bool = True  # another seed gives another model
    takes_weights: bool = True
    folds_in: bool = True
    explains: bool = True
    solves_rows: bool = True  # new users are the minimum of the objective
    penalty_per: str = "rating"  # that a given λ counts for


PROMISES = {
    "sgd": Promises(),
    "als": Promises(penalty_per="row"),
    "implicit": Promises(takes_weights=False),
    "bayesian": Promises(solves_rows=False),
    TOY: Promises(is_random=False, takes_weights=False, folds_in=False, explains=False, solves_rows=False),
}


def methods(promise=None):
    """Return the methods that make a promise, the registry's and the added one."""
    return [name for name in [*METHODS, TOY] if promise is None or getattr(PROMISES[name], promise)]


@pytest.fixture(autouse=True)
def _with_toy(monkeypatch):
    monkeypatch.setitem(METHODS, TOY, Method(UserMeans, UserMeansTrainer))


def fit(method, ratings=R, **options):
    return mf.factorize(ratings, K, method, **{"epochs": 4, "rng": 0} | options)


def test_promises__are_of_all_methods():
    assert set(PROMISES) == set(METHODS)


# Determinism


@pytest.mark.parametrize("method", methods())
def test_fit__has_the_same_bits_on_any_number_of_threads(method):
    assert len({str(bits(fit(method, n_threads=n))) for n in (1, 2, 3, 7)}) == 1


@pytest.mark.parametrize("method", methods("is_random"))
def test_fit__depends_on_rng_alone(method):
    np.random.seed(1)
    one = fit(method)
    np.random.seed(2)
    assert bits(fit(method)) == bits(one)
    assert bits(fit(method, rng=np.random.default_rng(0))) == bits(one)
    assert bits(fit(method, rng=1)) != bits(one)


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("form", ["dense", "csc", "coo", "triplets", "ratings"])
def test_fit__has_the_same_bits_for_any_form_of_the_ratings(method, form):
    order = np.random.default_rng(0).permutation(R.nnz)
    forms = {
        "dense": lambda: R.to_scipy().toarray(),
        "csc": lambda: R.to_scipy().tocsc(),
        "coo": lambda: sparse.coo_matrix(R.to_scipy()),
        "triplets": lambda: (R.users[order], R.items[order], R.values[order], R.shape),
        "ratings": lambda: R,
    }
    assert bits(fit(method, forms[form]())) == bits(fit(method, R.to_scipy()))


@pytest.mark.parametrize("method", methods())
def test_fit__leaves_the_ratings_as_they_were(method):
    given = R.to_scipy()
    before = [x.tobytes() for x in (given.indptr, given.indices, given.data)]
    fit(method, given, validation=0.1)
    assert [x.tobytes() for x in (given.indptr, given.indices, given.data)] == before


# The end of training


@pytest.mark.parametrize("method", methods())
def test_callback__gets_each_epoch_and_may_end_training(method):
    seen = []
    model = fit(method, callback=lambda epoch: seen.append(epoch) or epoch.epoch == 2)
    assert list(model.history) == seen
    assert [epoch.epoch for epoch in seen] == [1, 2]
    assert model.stop_reason == "callback"
    assert fit(method).stop_reason == "epochs"


@pytest.mark.parametrize("method", methods())
def test_ctrl_c__leaves_the_model_of_the_last_epoch(method):
    def interrupt(epoch):
        if epoch.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(mf.Interrupted) as stopped:
        fit(method, callback=interrupt)
    model = stopped.value.model
    assert model.stop_reason == "interrupted"
    assert [epoch.epoch for epoch in model.history] == [1, 2]
    ended = fit(method, callback=lambda epoch: epoch.epoch == 2)
    assert bits(model) == bits(ended)
    assert (model.predict(0, [0, 1]) == ended.predict(0, [0, 1])).all()


INTERRUPTED = """
import time, numpy as np, mfkernel as mf
R = mf.datasets.synthetic(1000, 800, 100_000)
fit = lambda epochs, **more: mf.factorize(R, 32, {method!r}, rng=0, n_threads=2, epochs=epochs, **more)
fit(1)
for moment in {moments}:
    try:
        print("ready", flush=True)
        fit(10**6)
    except mf.Interrupted as error:
        answered, model = time.process_time(), error.model
        stop = lambda epoch: epoch.epoch == len(model.history)
        same = (fit(10**6, callback=stop).P == model.P).all() and np.isfinite(model.predict(0, [0, 1])).all()
        print(answered, same, flush=True)
"""
MOMENTS = (1.0, 1.2)  # CPU seconds after the beginning; the first epoch ends before


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("method", list(METHODS))
def test_ctrl_c__is_answered_at_once_with_a_whole_epoch(method):
    for seconds, same in answers(INTERRUPTED.format(method=method, moments=MOMENTS), MOMENTS):
        assert seconds <= AT_ONCE
        assert same == "True"


@pytest.mark.parametrize("method", methods())
def test_validation__brings_the_best_epoch_back(method):
    train, held_out = mf.train_test_split(R, 0.2, rng=0)
    model = fit(method, train, epochs=8, validation=held_out, patience=8)
    errors = [epoch.validation_error for epoch in model.history]
    best = int(np.argmin(errors)) + 1
    assert len(errors) == 8
    ended = fit(method, train, epochs=8, callback=lambda epoch: epoch.epoch == best)
    assert bits(model)[0] == bits(ended)[0]


# Saving and warm starts


@pytest.mark.parametrize("method", methods())
def test_save_and_load__keep_all(method, tmp_path):
    model = fit(method, mf.Ratings(R, user_ids=np.arange(60) + 7, item_ids=[f"i{n}" for n in range(40)]))
    model.save(tmp_path / "model.npz")
    for other in (mf.load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(model))):
        assert bits(other) == bits(model)
        assert other.settings == model.settings
        assert other.history == model.history
        assert (other.mean, other.stop_reason, other.missing) == (
            model.mean,
            model.stop_reason,
            model.missing,
        )
        assert other.user_ids.tolist() == model.user_ids.tolist()
        assert other.item_ids.tolist() == model.item_ids.tolist()
        assert (other.recommend(10, 5).items == model.recommend(10, 5).items).all()


@pytest.mark.parametrize("method", methods("folds_in"))
def test_load__gives_a_model_that_learns_as_the_saved_one(method, tmp_path):
    model = fit(method)
    model.save(tmp_path / "model.npz")
    loaded = mf.load(tmp_path / "model.npz")
    new = {0: 5.0, 3: 1.0}
    assert bits(loaded.fold_in(new)) == bits(model.fold_in(new))
    assert bits(loaded.partial_fit(([0], [1], [2.0]))) == bits(model.partial_fit(([0], [1], [2.0])))


@pytest.mark.parametrize("method", methods())
def test_settings__repeat_the_fit(method):
    model = fit(method)
    assert None not in (model.settings.epochs,)
    assert bits(mf.factorize(R, K, model.settings, rng=0)) == bits(model)


@pytest.mark.parametrize("method", methods("is_random"))
def test_warm_start__leaves_the_model_alone_and_begins_with_it(method):
    model = fit(method)
    before = bits(model)
    later = fit(method, init=model, epochs=3, rng=1)
    assert bits(model) == before
    assert bits(later) != before
    assert later.history[0].rmse < 1.05 * model.history[-1].rmse


# Memory


@pytest.mark.parametrize("method", methods())
@pytest.mark.slow
def test_memory__is_about_what_the_method_says(method):
    """Arrays at the peak of a fit, beside those of the ratings."""
    from benchmarks.probes import peak_of

    fit(method, MANY, epochs=1, n_threads=1)
    settings = fit(method, MANY, epochs=1, n_threads=1).settings
    said = sum(trainer_for(settings).bytes_needed(MANY, 64, np.dtype(np.float32), settings, 1).values())
    peak = peak_of(lambda: mf.factorize(MANY, 64, method, epochs=1, rng=0, n_threads=1))
    copies = 5000 * 64 * 4 * 3 + 3 * MANY.nnz * 12  # of the result and a checkpoint, and of the ratings
    assert said / 2 < peak * 2**20 < 1.5 * said + copies


@pytest.mark.parametrize("method", methods())
def test_memory__that_is_not_there_is_refused_before_it_is_taken(method, monkeypatch):
    monkeypatch.setattr("mfkernel.training.fit.available_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match=r"GiB|MiB"):
        fit(method, MANY)


# Questions


@pytest.mark.parametrize("method", methods())
def test_recommend__ranks_by_the_product_of_the_augmented_factors(method):
    model = fit(method)
    A, B = model.augmented()
    scores = np.array(A @ B, np.float64)
    scores[R.users, R.items] = -np.inf
    known = np.flatnonzero(model.known_users)[:5]
    for user in known:
        found = model.recommend(int(user), 5)
        np.testing.assert_allclose(found.scores, np.sort(scores[user])[::-1][:5], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.predict(user, found.items), found.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", methods("solves_rows"))
def test_fold_in__is_half_an_epoch_of_least_squares(method):
    """New users with the ratings of the old: their rows are those that ALS finds, the items being fixed."""
    model = fit(method, dtype=np.float64, regularization=(0.3, 0.1))
    if METHODS[method].options.implicit:
        least_squares = model.settings
    else:
        least_squares = mf.ALS(regularization=(0.3, 0.1), regularization_per=PROMISES[method].penalty_per)
    least_squares = least_squares.changed(solver="cholesky", epochs=1)
    half = mf.factorize(R, K, least_squares, init=(model.P, model.Q), dtype=np.float64)
    rated = R.user_counts() > 0
    np.testing.assert_allclose(model.fold_in(R).P[rated], half.P[rated], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", methods("folds_in"))
def test_partial_fit__learns_and_has_the_same_bits_on_any_number_of_threads(method):
    new = ([0, 1, 60], [5, 40, 3], [5.0, 1.0, 4.0])  # also of a new user and a new item
    models = [fit(method).partial_fit(new, n_threads=n) for n in (1, 3)]
    assert models[0].shape == (61, 41)
    assert bits(models[0]) == bits(models[1])
    assert models[0].ratings.nnz in (R.nnz + 2, R.nnz + 3)
    untouched = np.setdiff1d(np.arange(60), [0, 1])
    assert (models[0].P[untouched] == fit(method).P[untouched]).all()


@pytest.mark.parametrize("method", methods("explains"))
def test_explain__adds_up_to_the_prediction(method):
    model = fit(method)
    user = int(np.argmax(R.user_counts()))
    found = model.explain(user, 3, n=40)
    biases = (found.user_bias or 0) + (found.item_bias or 0)
    total = found.mean + biases + found.contributions.sum() + found.rest
    np.testing.assert_allclose(total, model.predict(user, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", methods("takes_weights"))
def test_weights__of_zero_leave_a_rating_out(method):
    weights = np.where(np.arange(R.nnz) % 7 == 0, 0.0, 1.0)
    weighted = fit(method, sample_weight=weights)
    assert bits(weighted) == bits(fit(method, R.select(weights > 0), sample_weight=weights[weights > 0]))
