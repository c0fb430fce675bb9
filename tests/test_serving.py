"""Lists with denials, JSON, counts that add up, forgetting, and metrics per user."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from tests.helpers import quick

USERS, ITEMS = ["ada", "bob", "eve", "zoë"], [10, 20, 30, 40, 50]
DENSE = np.array([[5, 3, 0, 1, 0], [4, 0, 0, 1, 2], [1, 1, 0, 5, 0], [0, 1, 5, 4, 0]], float)


def fit(method="als", **options):
    ids = {"user_ids": USERS, "item_ids": ITEMS} if options.pop("ids", True) else {}
    return mf.factorize(mf.Ratings(DENSE, **ids), 2, method, rng=0, epochs=5, dtype=np.float64, **options)


def everything(model):
    state = model.state
    arrays = [state.P, state.Q, state.known_users, state.known_items, model.ratings.to_scipy().toarray()]
    return [x.tobytes() for x in arrays]


# lists


def test_recommend__leaves_out_items_of_all_users_or_of_each():
    model, users = fit(), ["ada", "eve"]
    full = model.recommend(users, 5, exclude_seen=False)
    for exclude in ([20, 999], (20,), 20):
        found = model.recommend(users, 5, exclude_seen=False, exclude=exclude)
        for row in range(2):
            assert found.items[row].compressed().tolist() == [x for x in full.items[row] if x != 20]
    found = model.recommend(users, 5, exclude_seen=False, exclude=[[10, 50], []])
    assert found.items[0].compressed().tolist() == [x for x in full.items[0] if x not in (10, 50)]
    assert found.items[1].compressed().tolist() == full.items[1].tolist()
    assert model.recommend("ada", 5, exclude=[30]).items.tolist() == [50]  # besides those seen
    assert model.recommend({10: 5.0}, 5, exclude=[20, 30]).items.size == 2
    assert fit(ids=False).recommend(0, 5, exclude=[2]).items.tolist() == [4]
    with pytest.raises(ValueError, match="exclude must be one list of items, or one per user, 2, got 3"):
        model.recommend(users, exclude=[[10], [20], [30]])


@given(st.lists(st.lists(st.sampled_from(ITEMS)), min_size=4, max_size=4))
def test_recommend__never_returns_what_is_left_out(denied):
    found = DENIED.recommend(USERS, 5, exclude=denied)
    for row, user in enumerate(USERS):
        expected = {i for n, i in enumerate(ITEMS) if DENSE[row, n] == 0} - set(denied[row])
        assert set(found.items[row].compressed().tolist()) == expected, user


DENIED = fit()


def test_recommend__leaves_out_rare_items():
    model = fit()
    assert set(model.recommend("zoë", 5, exclude_seen=False, min_count=2).items) == {10, 20, 40}
    assert model.recommend("zoë", 5, exclude_seen=False, min_count=2, items=[10, 30]).items.tolist() == [10]
    with pytest.raises(ValueError, match="min_count must be at least 0, got -1"):
        model.recommend("zoë", min_count=-1)
    bare = mf.Factors(np.ones((1, 1)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="min_count must be 0 if the model has no training ratings, got 1"):
        bare.recommend(0, exclude_seen=False, min_count=1)


def test_to_list__is_ready_for_json():
    model = fit()
    one, several = model.recommend("ada", 3), model.recommend(["ada", "bob"], 3)
    assert json.loads(json.dumps(one.to_list())) == [
        {"item": item, "score": score}
        for item, score in zip(one.items.tolist(), one.scores.tolist(), strict=True)
    ]
    answers = json.loads(json.dumps(several.to_list(), allow_nan=False))
    assert [answer["for"] for answer in answers] == ["ada", "bob"]
    assert [[x["item"] for x in answer["items"]] for answer in answers] == [
        row.compressed().tolist() for row in several.items
    ]
    assert json.dumps(model.similar_items(10, 2).to_list(), allow_nan=False)


@pytest.mark.parametrize("biases", [False, True])
def test_predict__clips_to_the_scale(biases):
    model = fit("sgd", biases=biases)
    plain = model.predict(np.array(USERS)[:, None], ITEMS)
    for clip, (least, most) in ((True, (1, 5)), ((2, 3.5), (2, 3.5)), ([0, 9], (0, 9))):
        found = model.predict(np.array(USERS)[:, None], ITEMS, clip=clip)
        np.testing.assert_array_equal(found, np.clip(plain, least, most))
        assert found.dtype == plain.dtype
    assert model.predict("ada", 10, clip=(2.0, 2.0)) == 2


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ((5, 1), ValueError, r"clip must be True, False or a pair \(least, most\), got \(5, 1\)"),
        ((1, np.nan), ValueError, "clip must be True, False or a pair"),
        ((1, 2, 3), ValueError, "clip must be True, False or a pair"),
        (("a", "b"), ValueError, "clip must be True, False or a pair"),
        (5, TypeError, "clip must be True or False, got 5"),
    ],
    ids=str,
)
def test_predict__says_what_is_wrong_with_a_scale(clip, error, message):
    with pytest.raises(error, match=message):
        fit().predict("ada", 10, clip=clip)


def test_predict__has_no_scale_without_ratings():
    with pytest.raises(ValueError, match=r"clip must be a pair \(least, most\) if the ratings have no scale"):
        fit("implicit").predict("ada", 10, clip=True)
    with pytest.raises(ValueError, match="if the model has no training ratings, got True"):
        mf.Factors([[1.0]], [[1.0]]).predict(0, 0, clip=True)


# counts


@pytest.mark.parametrize("method", quick(["als", "implicit", "sgd"], "implicit"))
def test_partial_fit__adds_to_what_is_there(method):
    model, replaced = fit(method), fit(method)
    new = (["ada", "ada", "max"], [20, 30, 20], [1.0, 2.0, 7.0])
    model.partial_fit(new, add=True)
    replaced.partial_fit((new[0], new[1], [4.0, 2.0, 7.0]))
    assert everything(model) == everything(replaced)
    model.partial_fit((["max"], [20], [1.0]), add=True)
    assert model.ratings.to_scipy()[4, 1] == 8


def test_partial_fit__does_not_add_where_sums_have_no_meaning():
    model = mf.factorize((DENSE > 0) - 2.0 * (DENSE > 3), 1, loss="logistic", rng=0)
    with pytest.raises(ValueError, match="add must be False with loss='logistic'"):
        model.partial_fit(([0], [0], [1.0]), add=True)
    weighted = mf.factorize(DENSE, 2, "als", rng=0, sample_weight=DENSE)
    with pytest.raises(ValueError, match="add must be False if ratings have weights"):
        weighted.partial_fit(([0], [0], [1.0]), add=True)
    with pytest.raises(TypeError, match="add must be True or False, got 1"):
        weighted.partial_fit(([0], [0], [1.0]), add=1)


# forgetting


@pytest.mark.parametrize("method", quick(["als", "implicit", "sgd"], "als"))
@pytest.mark.parametrize("biases", [False, True])
def test_forget__removes_ids_factors_and_ratings(method, biases, tmp_path):
    if method == "implicit" and biases:
        pytest.skip("implicit feedback has no biases")
    model = fit(method, **({"biases": True} if biases else {}))
    before = model.predict(["ada", "zoë"], [20, 40])
    assert model.forget(users=["bob", "eve"], items=10) is model
    assert model.user_ids.tolist() == ["ada", "zoë"]
    assert model.item_ids.tolist() == [20, 30, 40, 50]
    np.testing.assert_array_equal(model.ratings.to_scipy().toarray(), DENSE[[0, 3], 1:])
    np.testing.assert_array_equal(model.predict(["ada", "zoë"], [20, 40]), before)
    with pytest.raises(KeyError, match="user id 'bob' is not in the model"):
        model.recommend("bob")
    model.save(tmp_path / "model.npz")
    assert b"bob" not in (tmp_path / "model.npz").read_bytes()
    assert mf.load(tmp_path / "model.npz").shape == (2, 4)
    model.partial_fit((["bob"], [10], [3.0]))
    assert model.user_ids.tolist() == ["ada", "zoë", "bob"]


def test_forget__without_ids_keeps_the_numbers_of_others():
    model, before = fit(ids=False), fit(ids=False)
    model.forget(users=[1], items=[0, 3])
    assert model.shape == before.shape
    np.testing.assert_array_equal(model.known_users, [True, False, True, True])
    np.testing.assert_array_equal(model.known_items[[0, 3]], [False, False])
    assert not model.P[1].any()
    assert not model.ratings.to_scipy().toarray()[1].any()
    assert model.predict(1, 2) == pytest.approx(model.mean)
    assert model.predict(0, 1) == before.predict(0, 1)


def test_forget__changes_nothing_if_an_id_is_unknown():
    model = fit()
    before = everything(model)
    with pytest.raises(KeyError, match="user id 'adda' is not in the model; the nearest is 'ada'"):
        model.forget(users=["ada", "adda"])
    assert everything(model) == before
    assert everything(model.forget()) == before


# metrics


def test_metrics__per_user_have_the_means_of_the_metrics():
    R = mf.datasets.synthetic(80, 50, 1500)
    ids = {"user_ids": [f"u{n}" for n in range(80)], "item_ids": np.arange(50) * 3}
    train, test = mf.train_test_split(mf.Ratings(R, **ids), 0.3, rng=0)
    model = mf.factorize(train, 4, "implicit", rng=0)
    table, means = mf.metrics.per_user(model, test, 5), mf.metrics.ranking(model, test, 5)
    assert set(table) - {"user"} == set(means)
    for name, mean in means.items():
        assert np.nanmean(table[name]) == pytest.approx(mean)
    found = model.recommend(table["user"], 5)
    held = test.to_scipy().toarray() > 0
    rows = model.user_rows(table["user"])
    for n, row in enumerate(rows):
        hits = held[row][model.item_columns(found.items[n].compressed())]
        assert table["hit_rate"][n] == float(hits.any())
        assert table["mrr"][n] == (1 / (1 + hits.argmax()) if hits.any() else 0)
        assert table["recall"][n] == pytest.approx(hits.sum() / held[row].sum())
    assert mf.metrics.mrr_at_n(model, test, 5) == means["mrr"]
    assert mf.metrics.hit_rate_at_n(model, test, 5) == means["hit_rate"]


def test_coverage__is_the_share_of_items_that_anybody_gets(monkeypatch):
    model = mf.factorize(mf.datasets.synthetic(80, 50, 1500), 4, "implicit", rng=0)
    shown = {int(i) for row in model.recommend(np.arange(80), 3).items for i in row.compressed()}
    for step in (7, 1000):
        monkeypatch.setattr("mfkernel.metrics.USERS_PER_CALL", step)
        assert mf.metrics.coverage_at_n(model, 3) == len(shown) / 50
    assert mf.metrics.coverage_at_n(model, 50, exclude_seen=False) == 1
