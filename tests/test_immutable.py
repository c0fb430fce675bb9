"""Ratings and models cannot be changed from outside, however it is tried, and may be shared by threads."""

import copy
import dataclasses
import itertools
import json
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from mfkernel.methods import METHODS
from mfkernel.model import foldin, recommender
from tests.helpers import FORKING, MODEL_ARRAYS, POSIX, RATINGS_ARRAYS, quick
from tests.processes import repeating, run_in_child, run_in_threads

IDS = {"user_ids": [f"u{n}" for n in range(30)], "item_ids": list(range(100, 120))}


def some_ratings() -> mf.Ratings:
    R = mf.datasets.synthetic(30, 20, 200, rng=1)
    return mf.Ratings(R, **IDS, sample_weight=np.linspace(0.5, 2, R.nnz), timestamps=np.arange(R.nnz))


def some_model() -> mf.Factors:
    return mf.factorize(some_ratings(), 4, biases=True, epochs=3, rng=0)


def public(thing) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


def answers(model: mf.Factors) -> list:
    """Ask a model everything."""
    P, Q = model
    users, items = model.user_ids, model.item_ids
    explained = model.explain(users[0], items[3])
    recommended = [model.recommend(u, n) for u, n in ((users[0], 5), (users[1:3], 3), ({items[3]: 4.0}, 4))]
    similar = [model.similar_items(items[2], 3), model.similar_users(users[[0, 4]], 3)]
    folded = model.fold_in((items[[1, 5]], [3.0, 4.0]))
    return [
        *(P, Q, *model.augmented(), model.reconstruct(), model.predict(users[:2], items[2:4, None])),
        *(part for found in recommended + similar for part in found),
        *(explained.items, explained.contributions, folded.P, folded.user_bias),
        *(model.rmse(model.ratings), mf.metrics.ranking(model, model.ratings, 3, relevant=4)["ndcg"]),
        *(model.user_rows("u7"), model.item_columns([103]), model.mean, model.shape, repr(model)),
    ]


def questions(R: mf.Ratings) -> list:
    """Ask ratings everything."""
    kept, held = R.hold_out(20, np.random.default_rng(0))
    return [
        *(R.T.to_scipy().toarray(), R.to_scipy().toarray(), R.user_counts(), R.item_counts(), R.mean, R.std),
        *(R.take_rows([3, 1]).values, R.select(R.values > 2).indices, R.reshaped((40, 25)).indptr),
        *(R.with_values(R.values + 1).values, kept.nnz, held.nnz, R.shape, R.nnz, R.dtype, repr(R)),
    ]


def assert_equal(one: list, other: list) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value", [None, 0, "x", np.zeros((2, 2)), (1, 1), [[1.0]]], ids=repr)
@pytest.mark.parametrize(("make", "ask"), [(some_ratings, questions), (some_model, answers)])
def test_attributes__are_set_by_nobody(make, ask, value):
    thing = make()
    before = ask(thing)
    for name in public(thing):
        with pytest.raises(AttributeError, match=f"{name} cannot be set: .*make"):
            setattr(thing, name, value)
        with pytest.raises(AttributeError, match=f"{name} cannot be deleted"):
            delattr(thing, name)
    assert_equal(ask(thing), before)


def bases(array):
    """Return the array and all that it is a view of."""
    while isinstance(array, np.ndarray):
        yield array
        array = array.base


@pytest.mark.parametrize(
    ("make", "ask", "names"), [(some_ratings, questions, RATINGS_ARRAYS), (some_model, answers, MODEL_ARRAYS)]
)
@pytest.mark.parametrize(
    "copied", [lambda x: x, copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_arrays__are_written_by_nobody(make, ask, names, copied):
    thing = copied(make())
    before = ask(thing)
    for name in names:
        for array in bases(getattr(thing, name)):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
            with pytest.raises(ValueError, match="read-only"):
                array[...] = array[::-1].copy() if array.ndim else 0
            with pytest.raises(ValueError, match="read-only"):
                array.sort()
    assert_equal(ask(thing), before)


def test_long_ids__are_written_by_nobody():
    R = mf.Ratings(np.ones((200, 1)), user_ids=[*map(str, range(199)), "x" * 5000])
    assert R.user_ids.dtype == object  # an array as wide as the longest would take 4 MB
    with pytest.raises(ValueError, match="read-only"):
        R.user_ids[0] = "1"


def test_history_and_settings__are_not_changed_either():
    model = some_model()
    model.history.clear()  # a list of its own each time
    assert len(model.history) == 3
    for thing, name in ((model.settings, "loss"), (model.state, "P"), (model.history[0], "rmse")):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)


@pytest.mark.parametrize("wrong", [-1, 0.5, 30, 2**40, "a", [[0]], True])
def test_take_rows__refuses_what_are_no_rows(wrong):
    with pytest.raises((TypeError, ValueError), match="rows"):
        some_ratings().take_rows(wrong if isinstance(wrong, list) else [wrong])


@pytest.mark.parametrize("shape", [(29, 20), (30, 19), (0, 0), (-1, 20), (30.5, 20), 30, (30, 20, 1), None])
def test_reshaped__never_loses_ratings(shape):
    with pytest.raises((TypeError, ValueError), match="shape|integer"):
        some_ratings().reshaped(shape)


@pytest.mark.parametrize(
    "values",
    [[1.0], np.ones(201), np.ones((200, 1)), np.full(200, np.nan), np.full(200, np.inf), ["a"] * 200, None],
)
def test_with_values__takes_as_many_finite_ones(values):
    with pytest.raises((TypeError, ValueError), match="values"):
        some_ratings().with_values(values)
    if values is not None:
        with pytest.raises((TypeError, ValueError), match="sample_weight"):
            some_ratings().with_values(np.ones(200), values)


@pytest.mark.parametrize("count", [-1, 201, 0.5, None])
def test_hold_out__takes_as_many_as_there_are(count):
    with pytest.raises((TypeError, ValueError), match="count"):
        some_ratings().hold_out(count, np.random.default_rng(0))


# what is given may change later

FORMS = {
    "triplets": lambda u, i, v: ((u, i, v, (50, 40)), (u, i, v)),
    "csr": lambda u, i, v: (lambda R: (R, (R.indptr, R.indices, R.data)))(
        sparse.csr_array((v, (u, i)), shape=(50, 40))
    ),
    "csc": lambda u, i, v: (lambda R: (R, (R.indptr, R.indices, R.data)))(
        sparse.csc_array((v, (u, i)), shape=(50, 40))
    ),
    "coo": lambda u, i, v: (lambda R: (R, (*R.coords, R.data)))(
        sparse.coo_array((v, (u, i)), shape=(50, 40))
    ),
}


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("form", FORMS)
def test_ratings__keep_nothing_of_what_they_were_made_of(form, index, rng):
    cells = rng.choice(2000, 300, replace=False)
    given, arrays = FORMS[form]((cells // 40).astype(index), (cells % 40).astype(index), rng.random(300))
    R = mf.Ratings(given)
    before = R.to_scipy().toarray()
    for array in arrays:
        array[...] = 0
    np.testing.assert_array_equal(R.to_scipy().toarray(), before)


def test_copy_false__shares_the_values_alone():
    C = mf.datasets.synthetic(30, 20, 200, rng=1).to_scipy()
    R = mf.Ratings(C, copy=False)
    assert np.shares_memory(R.values, C.data)
    assert not np.shares_memory(R.indices, C.indices)
    assert not np.shares_memory(R.indptr, C.indptr)


def test_factors__keep_nothing_of_what_they_were_made_of(rng):
    P, Q, b, c = rng.normal(size=(5, 2)), rng.normal(size=(2, 4)), rng.normal(size=5), rng.normal(size=4)
    ids, known = np.arange(5), np.ones(5, bool)
    model = mf.Factors(P, Q, user_bias=b, item_bias=c, user_ids=ids, known_users=known)
    before = model.reconstruct()
    for array in (P, Q, b, c, ids, known):
        array[...] = 0
    np.testing.assert_array_equal(model.reconstruct(), before)
    assert model.user_rows(3) == 3
    assert model.known_users.all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_ratings__survive_a_thread_that_changes_what_they_are_made_of(form):
    """In range all the time, but never the same: counts of one pass do not hold in the next."""
    rng = np.random.default_rng(0)
    cells = rng.choice(2000, 1500, replace=False)
    given, arrays = FORMS[form]((cells // 40).astype(np.int32), (cells % 40).astype(np.int32), np.ones(1500))

    def change() -> None:
        for number in (0, 39):
            arrays[1][...] = number

    with repeating(change):
        for _ in range(150):
            R = mf.Ratings(given, duplicates="last")
            assert R.nnz <= 1500
            assert (np.diff(R.indptr) >= 0).all()
            assert R.indices.size == 0 or 0 <= R.indices.min() <= R.indices.max() < 40


# threads

N_THREADS, N_EACH = 4, 25


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.slow
def test_partial_fit__from_threads_loses_nothing(ids):
    R = mf.datasets.synthetic(120, 60, 1500, rng=1)
    if ids:
        R = mf.Ratings(R, user_ids=[f"u{n}" for n in range(120)], item_ids=np.arange(60) * 7)
    model = mf.factorize(R, 4, epochs=2, rng=0)

    def learn(j: int) -> None:
        for i in range(N_EACH):
            new = ([0], [0], [10.0 + j])
            if ids:
                model.partial_fit(mf.Ratings(new, user_ids=[f"new {j}"], item_ids=[i * 7]))
            else:
                model.partial_fit(([N_EACH * j + i], [i], [10.0 + j]))

    run_in_threads(learn, range(N_THREADS))
    X = model.ratings.to_scipy()
    for j in range(N_THREADS):
        for i in range(N_EACH):
            row = model.user_rows(f"new {j}") if ids else N_EACH * j + i
            assert X[int(row), i] == 10 + j
    assert model.shape == ((120 + N_THREADS) if ids else 120, 60)
    # each row is what its ratings give by themselves
    rows = np.arange(model.shape[0])
    alone = model.fold_in(
        mf.Ratings((model.ratings.users, model.ratings.items, model.ratings.values, model.shape))
    )
    assert np.isfinite(alone.by_position.predict(rows[:, None], np.arange(60))).all()


def test_recommend__beside_partial_fit_is_of_the_old_model_or_the_new(monkeypatch):
    """A reader who is still laying out the old items must not leave them behind for the readers after him."""
    model = mf.factorize(mf.datasets.synthetic(60, 40, 600, rng=1), 4, biases=True, rng=0)
    lay_out = recommender.pack_items
    begun, go_on = threading.Event(), threading.Event()

    def slowly(Y):
        panels = lay_out(Y)
        begun.set()
        go_on.wait(30)
        return panels

    monkeypatch.setattr("mfkernel.model.recommender.pack_items", slowly)
    old = []
    reader = threading.Thread(target=lambda: old.append(model.recommend(0, 40)))
    reader.start()
    assert begun.wait(30)
    monkeypatch.setattr("mfkernel.model.recommender.pack_items", lay_out)
    model.partial_fit((np.arange(50), np.full(50, 40), np.full(50, 50.0)))  # a new item that all love
    go_on.set()
    reader.join()
    assert old[0].items.max() < 40
    assert model.recommend(59, 1).items.tolist() == [int(np.argmax(model.predict(59, np.arange(41))))] == [40]


def test_answers__are_of_one_state_while_others_learn():
    model = some_model()
    numbers = itertools.count(1)

    def learn() -> None:
        n = next(numbers)
        model.partial_fit(mf.Ratings([[float(n % 5)]], user_ids=[f"new {n % 40}"], item_ids=[100 + n % 40]))

    with repeating(learn):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            P, Q = model
            assert P.shape[1] == Q.shape[0]
            n = model.shape[1]
            found = model.recommend(model.user_ids[:30], n + 5)
            assert found.items.shape[0] == 30
            mf.metrics.rmse(model, mf.Ratings([[3.0]], user_ids=["u1"], item_ids=[119]))
            model.explain("u3", 102)
            assert pickle.loads(pickle.dumps(model)).ratings.shape[1] >= n


def all_answers(model: mf.Factors) -> tuple[bytes, ...]:
    """Answers of every kind, as bytes."""
    users, items, new = np.arange(30), np.arange(20), {3: 5.0, 7: 1.0}
    folded = model.fold_in(new, n_threads=1)
    found = [model.recommend(users, 6, n_threads=1), model.recommend(new, 6, n_threads=1)]
    parts = [model.predict(users[:, None], items), folded.P, folded.predict(0, items)]
    return tuple(part.tobytes() for part in (*parts, *(np.ma.filled(x, 0) for pair in found for x in pair)))


@pytest.mark.parametrize("method", quick(METHODS, "implicit"))
def test_answers__of_eight_threads_are_those_of_one_state(method):
    """One thread alternates between two sets of ratings, and a service swaps the model for another."""
    R = mf.datasets.synthetic(30, 20, 200, rng=1)
    R = R.with_values(np.abs(R.values) + 1)
    models = [mf.factorize(R, 4, method, epochs=2, rng=seed) for seed in (0, 1)]
    new = [(R.users[:9], R.items[:9], np.full(9, value)) for value in (1.0, 5.0)]
    kinds = ("predict", "fold_in", "recommend", "all")
    wanted = {kind: set() for kind in kinds}

    def ask(model: mf.Factors, kind: str) -> bytes:
        return {
            "predict": lambda: model.predict(np.arange(30)[:, None], np.arange(20)).tobytes(),
            "fold_in": lambda: model.fold_in({3: 5.0, 7: 1.0}, n_threads=1).P.tobytes(),
            "recommend": lambda: b"".join(
                x.tobytes() for x in model.recommend({3: 5.0, 7: 1.0}, 6, n_threads=1)
            ),
            "all": lambda: b"".join(all_answers(mf.Factors.of_state(model.state))),
        }[kind]()

    twins = [pickle.loads(pickle.dumps(model)) for model in models]
    steps = 15
    for twin in twins:  # every state that there can be
        for step in range(steps):
            for kind in kinds:
                wanted[kind].add(ask(mf.Factors.of_state(twin.state), kind))
            twin.partial_fit(new[step % 2])
        for kind in kinds:
            wanted[kind].add(ask(twin, kind))
    service, ended = {"model": models[0]}, threading.Event()
    answers_seen: list[tuple[str, bytes]] = []

    def work(number: int) -> int:
        count = 0
        if number < 8:
            while not ended.is_set() or count < 3:
                kind = kinds[number % 4]
                answers_seen.append((kind, ask(service["model"], kind)))
                count += 1
            return count
        try:
            for step in range(steps):
                for model in models:
                    model.partial_fit(new[step % 2], n_threads=1)
                service["model"] = models[(step + 1) % 2]
        finally:
            ended.set()
        return steps

    counts = run_in_threads(work, range(9))
    assert min(counts) >= 3
    assert {kind for kind, _ in answers_seen} == set(kinds)
    assert all(answer in wanted[kind] for kind, answer in answers_seen)
    for kind in kinds:
        assert len({answer for k, answer in answers_seen if k == kind}) > 1


@POSIX
@FORKING
def test_partial_fit__works_in_a_child_that_is_forked_meanwhile():
    model, new = some_model(), mf.Ratings([[2.0]], user_ids=["u1"], item_ids=[101])
    with model._writing.own():  # as another thread would at the moment of the fork
        assert run_in_child("fork", lambda: model.partial_fit(new).shape) == (30, 20)


# what models are made of


@pytest.mark.parametrize("dtype", ["f2", "g", ">f8", ">f4", "c8", "?", "U3", "O"])
@pytest.mark.parametrize("which", ["P", "Q", "user_bias", "item_bias"])
def test_factors__are_float32_or_float64(which, dtype):
    parts = {"P": np.ones((3, 2)), "Q": np.ones((2, 4)), "user_bias": np.ones(3), "item_bias": np.ones(4)}
    with pytest.raises(TypeError, match=rf"{which} .*astype"):
        mf.Factors(**parts | {which: parts[which].astype(dtype)})


@given(value=st.sampled_from([np.nan, np.inf, -np.inf]), place=st.integers(0, 5))
def test_factors__are_finite(value, place):
    P = np.ones(6)
    P[place] = value
    with pytest.raises(
        ValueError, match=rf"P must be finite in float64, got P\[{place // 2}, {place % 2}\] = {value}"
    ):
        mf.Factors(P.reshape(3, 2), np.ones((2, 4)))
    with pytest.raises(ValueError, match=rf"user_bias must be finite in float64, got user_bias\[{place}\]"):
        mf.Factors(np.ones((6, 2)), np.ones((2, 4)), user_bias=P, item_bias=np.ones(4))
    with pytest.raises(ValueError, match="mean must be finite"):
        mf.Factors(np.ones((6, 2)), np.ones((2, 4)), mean=value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "l1"},
        {"decay": "slow"},
        {"method": "als", "solver": "lu"},
        {"regularization": (-1.0, 0.1)},
        {"regularization": (np.nan, 0.1)},
        {"regularization": (0.1, 0.1, 0.1)},
        {"l1": (0.0, np.inf)},
        {"l1": None},
        {"learning_rate": 0.0},
        {"huber_delta": -1.0},
        {"bias_regularization": np.nan},
        {"nonnegative": "yes"},
        {"method": "implicit", "alpha": -1.0},
        {"method": "implicit", "alpha": None},
        {"method": "implicit", "unobserved_weight": 2.0},
        {"method": "als", "loss": "logistic"},
    ],
    ids=repr,
)
def test_settings__that_no_fit_has_are_refused(wrong, tmp_path):
    options = dict(wrong)
    kind = METHODS[options.pop("method", "sgd")].options
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        kind(**options)
    model = mf.Factors(np.ones((3, 2)), np.ones((2, 4)))
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["settings"] |= wrong
    np.savez(tmp_path / "m.npz", **arrays | {"header": np.array(json.dumps(header))})
    with pytest.raises(ValueError, match=r"m\.npz is not a whole model .*settings"):
        mf.load(tmp_path / "m.npz")


def test_immutable_arrays__have_no_base_that_leads_to_their_memory():
    for thing, names in ((some_ratings(), RATINGS_ARRAYS), (some_model(), MODEL_ARRAYS)):
        for name in names:
            *_, last = bases(getattr(thing, name))
            owner = last.base
            assert not hasattr(owner, "obj")  # as a memoryview has
            with pytest.raises((TypeError, ValueError, BufferError)):
                memoryview(owner)[:] = 0


def test_init__is_run_once():
    for thing, arguments in ((some_ratings(), ([[1.0, 2.0]],)), (some_model(), ([[1.0]], [[2.0]]))):
        with pytest.raises(AttributeError, match="cannot be made a second time"):
            thing.__init__(*arguments)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("damage", ["indptr", "indices"])
def test_sample_weight__of_a_damaged_matrix_is_refused(form, damage):
    """SciPy takes arrays that point outside, and reads there."""
    S = mf.datasets.synthetic(60, 300, 2000, rng=1)
    W = S.to_scipy().asformat(form)
    array = W.coords[int(damage == "indptr")] if form == "coo" else getattr(W, damage)
    array[1:] = 10**8
    with pytest.raises(ValueError, match="sample_weight: "):
        mf.Ratings(S, sample_weight=W)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia", "dense"])
def test_sample_weight__of_cells_is_found_in_every_form(form, rng):
    S = mf.datasets.synthetic(20, 15, 100, rng=1)
    W = rng.random((20, 15))
    expected = W[S.users, S.items]
    given = W if form == "dense" else sparse.csr_array(W).asformat(form)
    np.testing.assert_allclose(mf.Ratings(S, sample_weight=given).weights, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["triplets", "csr", "csc", "coo"])
def test_weights__belong_to_their_ratings_while_a_thread_changes_the_arrays(form):
    rng = np.random.default_rng(0)
    cells = rng.choice(2000, 800, replace=False)
    given, arrays = FORMS[form]((cells // 40).astype(np.int32), (cells % 40).astype(np.int32), cells + 1.0)
    weights, good = np.array(arrays[-1]), arrays[1].copy()

    def change() -> None:
        for numbers in (0, good):
            arrays[1][...] = numbers

    with repeating(change):
        for _ in range(100):
            R = mf.Ratings(given, duplicates="last", sample_weight=weights)
            np.testing.assert_array_equal(R.values, R.weights)  # each rating has its value for a weight


@pytest.mark.parametrize("which", range(6))
def test_masks__are_heeded_at_every_door(which):
    S = mf.datasets.synthetic(10, 8, 30, rng=1)
    hidden = np.ma.array(np.ones(30), mask=np.arange(30) == 3)
    factors = np.ma.array(np.ones((10, 2)), mask=False)
    factors[3, 1] = np.ma.masked
    doors = [
        lambda: mf.Factors(factors, np.ones((2, 8))),
        lambda: mf.Factors(np.ones((10, 2)), np.ones((2, 8)), user_bias=factors[:, 1], item_bias=np.ones(8)),
        lambda: mf.Ratings(S, sample_weight=hidden),
        lambda: S.with_values(hidden),
        lambda: S.select(np.ma.array(np.ones(30, bool), mask=np.arange(30) == 3)),
        lambda: mf.factorize(S, 2, init=(factors, np.ones((2, 8)))),
    ]
    with pytest.raises(ValueError, match="is masked; pass"):
        doors[which]()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_partial_fit__is_not_locked_for_ever_by_interrupts(monkeypatch):
    """Ctrl-C at any moment leaves the lock open."""
    model = some_model()

    class StopError(Exception):  # not a KeyboardInterrupt, by which pytest ends
        pass

    def interrupt(*_):
        raise StopError

    # the work itself takes no time, so that most interrupts come around the lock
    monkeypatch.setattr("mfkernel.model.factors.update_state", lambda state, *_, **__: state)
    monkeypatch.setattr("mfkernel.model.factors.Ratings", lambda R, **_: R)
    monkeypatch.setattr("mfkernel.model.factors.encode_targets", lambda R, _: R)
    before, interrupted = signal.signal(signal.SIGALRM, interrupt), 0
    try:
        for n in range(600):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + n % 40))
                while True:
                    model.partial_fit(model.ratings, n_threads=1)
            except StopError:
                interrupted += 1
            lock = model._writing.own()
            assert not lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 600


def test_recommend__of_new_users_is_of_one_state(monkeypatch):
    """The model learns between the solving of the new user and the search: both are of the old one."""
    model = mf.factorize(mf.datasets.synthetic(60, 40, 600, rng=1), 4, biases=True, rng=0)
    before = model.recommend({3: 5.0, 7: 1.0}, 5)
    solve = foldin.fold_in

    def learn_first(*arguments):
        model.partial_fit((np.arange(50), np.full(50, 5), np.full(50, 50.0)))
        return solve(*arguments)

    monkeypatch.setattr("mfkernel.model.foldin.fold_in", learn_first)
    after = model.recommend({3: 5.0, 7: 1.0}, 5)
    np.testing.assert_array_equal(after.items, before.items)
    np.testing.assert_array_equal(after.scores, before.scores)


def test_factorize__goes_on_from_the_model_as_it_was():
    R = mf.datasets.synthetic(60, 40, 600, rng=1)
    first, twin = (mf.factorize(R, 2, rng=0, epochs=1) for _ in range(2))
    model = mf.factorize(
        R, 2, rng=1, epochs=3, init=first, callback=lambda _: first.partial_fit(([60], [40], [4.0])) and None
    )
    expected = mf.factorize(R, 2, rng=1, epochs=3, init=twin)
    np.testing.assert_array_equal(model.P, expected.P)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"ratings": np.ones((3, 4))}, TypeError, "ratings must be mf.Ratings, got ndarray"),
        ({"settings": {"loss": "squared"}}, TypeError, "settings must be mf.Settings, got dict"),
        ({"settings": None}, TypeError, "settings must be mf.Settings"),
        ({"history": [1, 2]}, TypeError, "history must hold mf.Epoch"),
        ({"mean": "3"}, None, ""),
        ({"mean": "three"}, TypeError, "mean must be a number, got 'three'"),
        (
            {"mean": 1e300, "P": np.ones((3, 2), "f4"), "Q": np.ones((2, 4), "f4")},
            ValueError,
            "mean must be finite in float32",
        ),
        ({"known_users": [0, 1, 2]}, TypeError, "known_users must be True or False"),
        ({"known_users": ["a", "b", "c"]}, TypeError, "known_users must be True or False"),
        ({"P": -np.ones((3, 2)), "settings": mf.SGD(nonnegative=True)}, ValueError, "negative"),
        (
            {"ratings": mf.Ratings(np.full((3, 4), 5.0)), "settings": mf.SGD(loss="logistic")},
            ValueError,
            "logistic",
        ),
        ({"missing": "zeros"}, ValueError, "missing must be one of 'zero', 'nan', got 'zeros'"),
        (
            {"settings": mf.ImplicitALS(), "user_bias": np.ones(3), "item_bias": np.ones(4)},
            ValueError,
            "user_bias must be None with settings of ImplicitALS",
        ),
        (
            {"user_ids": mf.Ratings(np.ones((5, 1)), user_ids=range(5)).users_by_id},
            ValueError,
            r"shape \(3,\)",
        ),
    ],
)
def test_factors__take_only_what_a_fit_could_have_made(parts, error, message):
    whole = {"P": np.ones((3, 2)), "Q": np.ones((2, 4))} | parts
    if error is None:
        assert mf.Factors(**whole).mean == 3
        return
    with pytest.raises(error, match=message):
        mf.Factors(**whole)


def test_state__of_parts_that_do_not_fit_is_refused():
    model = some_model()
    for changes in (
        {"Q": model.Q[:, :10]},
        {"P": model.P[:, :2]},
        {"user_bias": model.user_bias[:3]},
        {"ratings": model.ratings.T},
    ):
        with pytest.raises(ValueError, match="entries|shapes"):
            dataclasses.replace(model.state, **changes)


def test_partial_fit__beyond_the_dtype_changes_nothing(monkeypatch):
    model = some_model()
    before = answers(model)
    solve = foldin.solve_rows

    def overflow(*arguments, **options):
        X, bias = solve(*arguments, **options)
        return X * np.float32(np.inf), bias

    monkeypatch.setattr("mfkernel.model.foldin.solve_rows", overflow)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ArithmeticError, match="must be finite in float32.*the model has not changed"),
    ):
        model.partial_fit(mf.Ratings([[2.0]], user_ids=["u1"], item_ids=[101]))
    monkeypatch.undo()
    assert_equal(answers(model), before)
