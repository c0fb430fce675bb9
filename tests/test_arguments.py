"""Arguments of ``factorize`` besides R, allowed and refused: rank, keywords, start values, randomness."""

import re
from itertools import product

import numpy as np
import pytest

import mfkernel as mf
from mfkernel.typing import FitKeywords
from tests.helpers import DENSE, assert_same, fit, snapshot


def test_arguments__k_may_be_a_numpy_integer():
    assert_same(fit(DENSE, np.uint8(3)), fit(DENSE, 3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(["k", "epochs", "n_threads"], [0, -1, 2.0, 1.5, True, np.True_, "2", [2]]),
        ("k", None),
        ("k", np.nan),
        *product(["learning_rate"], [0, -0.1, np.nan, np.inf, "fast", 1j]),
        *product(["regularization"], [-0.1, np.nan, np.inf, "strong", [1, 2, 3], (1, -2)]),
        *product(["dtype"], [np.float16, int, "f2", ">f4", complex, "nonsense", np.longdouble]),
        *product(["init"], [5, "PQ", ([[1.0]],), ([[1.0]], [[1.0]], [[1.0]])]),
        *product(["rng"], [1.5, "seed", -1, object()]),
        *product(["method", "schedule", "missing", "duplicates"], [None, 0, "", "something else"]),
        ("callback", 5),
    ],
)
def test_arguments__wrong_values_are_refused_by_name(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        fit(DENSE, **{"k": 2, "schedule": "hogwild"} | {name: value})


@pytest.mark.parametrize(
    ("name", "wrong", "near", "others"),
    [
        ("method", "sdg", "sgd", []),
        ("schedule", "sequental", "sequential", ["hogwild", "blocks"]),
        ("schedule", "hogwyld", "hogwild", ["sequential", "blocks"]),
        ("schedule", "HOGWILD", "hogwild", ["sequential", "blocks"]),
        ("schedule", "block", "blocks", ["sequential", "hogwild"]),
        ("decay", "exponential", "constant", ["inverse-time", "linear", "cosine", "adaptive"]),
        ("decay", "cosin", "cosine", ["linear"]),
        ("missing", "zeros", "zero", ["nan"]),
        ("missing", "NaN", "nan", ["zero"]),
        ("duplicates", "rise", "raise", ["sum", "mean", "last"]),
        ("duplicates", "summ", "sum", ["raise", "mean", "last"]),
        ("duplicates", "means", "mean", ["raise", "sum", "last"]),
        ("duplicates", "latest", "last", ["raise", "sum", "mean"]),
    ],
)
def test_arguments__unknown_words_get_the_nearest_known_one(name, wrong, near, others):
    with pytest.raises(ValueError, match=rf"{name}.*{wrong}") as raised:
        fit(DENSE, **{name: wrong})
    message = str(raised.value).replace(repr(wrong), "")
    assert message.count(repr(near)) > max([message.count(repr(other)) for other in others], default=0)


@pytest.mark.parametrize(("P0", "Q0"), [((4, 3), (2, 3)), ((2, 4), (2, 3)), ((4, 2), (3, 2)), ((8,), (6,))])
def test_arguments__init_of_wrong_shape(P0, Q0):
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(2, 3\).*" + re.escape(f"{P0} and {Q0}")):
        fit(DENSE, init=(np.ones(P0), np.ones(Q0)))


@pytest.mark.parametrize("dtype", [bool, complex, str, object])
def test_arguments__init_of_no_real_numbers(dtype):
    with pytest.raises(TypeError, match=r"init|P0"):
        fit(DENSE, init=(np.ones((4, 2)).astype(dtype), np.ones((2, 3))))


@pytest.mark.parametrize(("which", "place"), [(0, (3, 1)), (1, (1, 2))])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_arguments__init_must_be_finite(which, place, value):
    init = np.ones((4, 2)), np.ones((2, 3))
    init[which][place] = value
    with pytest.raises(ValueError, match=re.escape(f"{'PQ'[which]}0[{place[0]}, {place[1]}]")):
        fit(DENSE, init=init)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8", np.float16, np.int8])
def test_arguments__init_is_copied(order, dtype, rng):
    init = tuple(rng.integers(1, 4, shape).astype(dtype, order=order) for shape in [(4, 2), (2, 3)])
    for X in init:
        X.flags.writeable = order == "C"
    before = snapshot(init)
    model = fit(DENSE, init=init)
    assert snapshot(init) == before
    assert not any(np.shares_memory(X, Y) for X, Y in product(init, model))
    assert_same(model, fit(DENSE, init=[X.tolist() for X in init]))
    assert not np.allclose(model.P, init[0])


# randomness

SEEDED = {
    "int": lambda: 7,
    "numpy int": lambda: np.int64(7),
    "seed sequence": lambda: np.random.SeedSequence(7),
    "bit generator": lambda: np.random.PCG64(7),
    "generator": lambda: np.random.default_rng(7),
}


@pytest.mark.parametrize("name", SEEDED)
def test_rng__every_kind_means_what_numpy_means(name):
    assert_same(fit(DENSE, rng=SEEDED[name]()), fit(DENSE, rng=np.random.default_rng(7)))


@pytest.mark.parametrize("make", [lambda: [1, 2, 3], lambda: np.random.MT19937(5), lambda: np.arange(4)])
def test_rng__same_seed_same_bits(make):
    assert_same(fit(DENSE, rng=make()), fit(DENSE, rng=make()))
    assert not np.array_equal(fit(DENSE, rng=make()).P, fit(DENSE, rng=8).P)


def test_rng__a_generator_moves_on(rng):
    assert not np.array_equal(fit(DENSE, rng=rng).P, fit(DENSE, rng=rng).P)


def test_rng__none_is_new_each_time_and_global_state_stays():
    models = []
    for _ in range(2):
        np.random.seed(3)
        before = np.random.get_state()
        models.append(fit(DENSE, rng=None))
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])
        assert np.random.get_state()[2] == before[2]
    assert not np.array_equal(models[0].P, models[1].P)


# names from elsewhere


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *(("n_factors", "k"), ("factors", "k"), ("rank", "k"), ("n_components", "k")),
        *(("n_epochs", "epochs"), ("iterations", "epochs"), ("max_iter", "epochs"), ("epoch", "epochs")),
        *(("lr", "learning_rate"), ("lr_all", "learning_rate"), ("learning_rates", "learning_rate")),
        *(("reg", "regularization"), ("reg_all", "regularization"), ("lambda_", "regularization")),
        *(("seed", "rng"), ("random_state", "rng"), ("num_threads", "n_threads"), ("n_jobs", "n_threads")),
        *(("biased", "biases"), ("verbose", "progress"), ("regularisation", "regularization")),
    ],
)
def test_factorize__names_its_own_argument(theirs, ours):
    of_all_methods = ours in FitKeywords.__annotations__ or ours == "k"
    for arguments in ((DENSE,), (DENSE, 2)) if of_all_methods else ((DENSE, 2),):
        with pytest.raises(TypeError, match=rf"factorize\(\) has no argument {theirs}; pass {ours}$"):
            mf.factorize(*arguments, **{theirs: 1})


def test_factorize__knows_what_it_does_not_know():
    with pytest.raises(TypeError, match=r"factorize\(\) has no argument colour$"):
        mf.factorize(DENSE, 2, colour=1)
    with pytest.raises(TypeError, match="'k'"):
        mf.factorize(DENSE)


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        *(("loss", "l1", "absolute"), ("loss", "MAE", "absolute"), ("loss", "l2", "squared")),
        *(("loss", "mse", "squared"), ("loss", "bce", "logistic"), ("loss", "log", "logistic")),
        *(("method", "iALS", "implicit"), ("method", "wals", "implicit"), ("method", "SVD", "sgd")),
    ],
)
def test_choices__of_others_are_translated(name, theirs, ours):
    with pytest.raises(ValueError, match=f"{name} must be one of .*got '{theirs}'; did you mean '{ours}'\\?"):
        fit(DENSE, **{name: theirs})
