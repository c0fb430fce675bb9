"""Ids: which are taken, how they are found, and that held-out ratings are compared by them."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import mfkernel as mf
from tests.helpers import quick

pd = pytest.importorskip("pandas")

INTEGERS = [7, -3, 2**40, 0]
TEXTS = ["b", "", "zoë", "a much longer id"]

# every way in which a column of ids comes
FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": lambda ids: np.array(ids, object),
    "series": pd.Series,
    "index": pd.Index,
    "objects in a series": lambda ids: pd.Series(ids, dtype=object),
    "category": lambda ids: pd.Series(ids).astype("category"),
    "categorical": pd.Categorical,
}
INTEGER_FORMS = FORMS | {
    "numpy integers": lambda ids: [np.int64(x) for x in ids],
    "nullable": lambda ids: pd.Series(ids, dtype="Int64"),
    "floats": lambda ids: np.array(ids, float),
    "big endian": lambda ids: np.array(ids, ">i8"),
}
TEXT_FORMS = FORMS | {
    "numpy text": lambda ids: [np.str_(x) for x in ids],
    "strings": lambda ids: pd.Series(ids, dtype="string"),
    "any width": lambda ids: np.array(ids, np.dtypes.StringDType()),
    "bytes": lambda ids: np.array([x.encode() for x in ids]),
}


def model_of(ids) -> mf.Factors:
    n = len(ids)
    return mf.Factors(np.arange(2.0 * n).reshape(n, 2), np.ones((2, n)), user_ids=ids, item_ids=ids)


@pytest.mark.parametrize(
    ("ids", "form"),
    [(INTEGERS, form) for form in INTEGER_FORMS.values()] + [(TEXTS, form) for form in TEXT_FORMS.values()],
)
def test_ids__are_taken_and_found_in_every_form(ids, form):
    column = form(ids)
    R = mf.Ratings(np.ones((4, 4)), user_ids=column, item_ids=column)
    assert R.user_ids.tolist() == R.item_ids.tolist() == ids
    asked = form(ids[::-1])
    for model in (model_of(ids), model_of(column)):
        assert model.user_rows(asked).tolist() == model.item_columns(asked).tolist() == [3, 2, 1, 0]
        assert int(model.user_rows(ids[2])) == 2


def test_ids__are_found_in_polars_columns():
    pl = pytest.importorskip("polars")
    for ids in (INTEGERS, TEXTS):
        assert model_of(pl.Series(ids)).user_rows(pl.Series(ids[::-1])).tolist() == [3, 2, 1, 0]
    assert model_of(TEXTS).user_rows(pl.Series(TEXTS).cast(pl.Categorical)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
@pytest.mark.parametrize("known", [np.int8, np.uint64, np.int64])
def test_integers__of_any_width_are_found_among_those_of_another(dtype, known):
    model = model_of(np.array([5, 100, 3, 0], known))
    assert model.user_rows(np.array([3, 100], dtype)).tolist() == [2, 1]


def test_integers__of_64_bits_are_told_apart():
    """As floats, these would all be the same."""
    ids = np.array([2**63 + 1, 2**63, 2**64 - 1, 5], np.uint64)
    model = model_of(ids)
    assert model.user_rows([2**63, 5]).tolist() == [1, 3]
    for unknown in (2**63 - 1, -1, 2**53 + 1):
        with pytest.raises(KeyError, match=str(unknown)):
            model.user_rows([5, unknown])
    assert model_of([2**53, 2**53 + 1, 1, 2]).user_rows([2**53 + 1, 2**53]).tolist() == [1, 0]


def test_integers__beside_floats_keep_all_their_digits():
    assert model_of([2**53 + 1, 1.0, 2, 3]).user_ids.tolist() == [2**53 + 1, 1, 2, 3]
    assert model_of([2**53, 2**53 + 1, 3, 4]).user_rows([2**53 + 1, 3.0]).tolist() == [1, 2]
    with pytest.raises(KeyError, match="ids must be"):  # which of two integers that float is, nobody knows
        model_of([2**53, 2**53 + 1, 3, 4]).user_rows(np.array([2**53 + 1], float))
    assert model_of(np.array([1, 2, 3, 4], np.float16)).user_ids.tolist() == [1, 2, 3, 4]


def test_text__that_ends_with_nul_is_no_other_text():
    model = model_of(["a", "b", "c", "d"])
    for asked in ("a\0", ["a\0"], ("b", "a\0")):
        with pytest.raises(KeyError, match="NUL"):
            model.user_rows(asked)


def test_ids__of_nobody_in_common_are_said():
    R = mf.Ratings(np.ones((3, 3)), user_ids=[1, 2, 3])
    model = mf.factorize(R, 1, rng=0, epochs=1)
    others = mf.Ratings(np.ones((2, 3)), user_ids=[7, 8])
    with pytest.warns(UserWarning, match="some users or items of R are not in the model"):
        model.rmse(others)
    with pytest.raises(ValueError, match="must have a rating of a user and an item in the model"):
        mf.metrics.ranking(model, others)
    with pytest.raises(ValueError, match="init must have a user in common with R"):
        mf.factorize(others, 1, init=model)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a", "a", "b"], ValueError, r"unique.*user_ids\[0\] and user_ids\[1\] are both 'a'"),
        (["b", "a", "b"], ValueError, r"user_ids\[0\] and user_ids\[2\] are both 'b'"),
        ([7, 8, 7], ValueError, r"unique.*both 7"),
        ([1.0, 1, 2], ValueError, r"unique.*both 1"),
        (["a", None, None], ValueError, r"user_ids\[1\] is None.*missing"),
        ([1.0, np.nan, 2.0], ValueError, r"user_ids\[1\] is nan.*missing"),
        (np.array([1.0, np.nan, 2.0]), ValueError, r"user_ids\[1\] = nan.*missing"),
        (pd.Series([1, None, 2], dtype="Int64"), ValueError, r"user_ids\[1\] (is|=) (<NA>|nan).*missing"),
        (pd.Series(["a", None, "b"], dtype="string"), ValueError, r"user_ids\[1\] is .*missing"),
        (pd.Series(["a", None, "b"]).astype("category"), ValueError, r"user_ids\[1\] is nan.*missing"),
        (pd.to_datetime(pd.Series(["2020-01-01", None, "2020-01-02"])), TypeError, "datetime"),
        (np.ma.array([1, 2, 3], mask=[0, 0, 1]), ValueError, r"user_ids\[2\] is masked"),
        (np.array([7, "7", 8], object), TypeError, "integers or all text, got 7 and '7'"),
        ([7, "7", 8], TypeError, "integers or all text, got 7 and '7'"),
        (["a", "a\0", "b"], ValueError, r"user_ids\[1\] is 'a\\x00'.*NUL"),
        ([1.5, 2.0, 3.0], ValueError, r"user_ids\[0\] = 1\.5"),
        ([True, False, True], TypeError, "True"),
        (np.array([True, False, True]), TypeError, "bool"),
        ([(1, 2), (3, 4), (5, 6)], ValueError, r"shape \(3,\).*\(3, 2\)"),
        ([{}, 1, 2], TypeError, r"user_ids\[0\] is {}.*str"),
        ([2**70, 1, 2], ValueError, f"{2**70}"),
        (["a", "b"], ValueError, r"shape \(3,\), one for each.*\(2,\)"),
        ("abc", ValueError, "shape"),
    ],
)
def test_ids__that_are_none_are_refused_by_name(ids, error, message):
    with pytest.raises(error, match=message):
        mf.Ratings(np.ones((3, 2)), user_ids=ids)
    with pytest.raises(error, match=message):
        mf.Factors(np.ones((3, 1)), np.ones((1, 2)), user_ids=ids)


@given(st.lists(st.text() | st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=8), st.randoms())
def test_ids__come_back_as_they_were_or_are_refused(ids, random):
    kinds = {type(x) for x in ids}
    clean = len(kinds) == 1 and len(set(ids)) == len(ids) and not any(str(x).endswith("\0") for x in ids)
    clean = clean and (kinds == {str} or min(ids) >= 0 or max(ids) < 2**63)
    try:
        R = mf.Ratings(np.ones((len(ids), 1)), user_ids=ids)
    except (TypeError, ValueError):
        assert not clean
        return
    assert clean
    assert R.user_ids.tolist() == ids
    model = mf.Factors(np.ones((len(ids), 1)), [[1.0]], user_ids=ids)
    order = list(range(len(ids)))
    random.shuffle(order)
    assert model.user_rows([ids[n] for n in order]).tolist() == order


def test_ids__one_long_among_short_ones_costs_little():
    ids = [f"item {n}" for n in range(50_000)] + ["x" * 1000]
    R = mf.Ratings(sparse.csr_array((1, 50_001)), item_ids=ids)
    assert R.item_ids.nbytes < 2**20
    assert R.item_ids.tolist() == ids


@pytest.mark.parametrize(
    "ids", [TEXTS, INTEGERS, [*"abcdefghijklmnopqrst", "x" * 20_000], [2**64 - 1, 1, 2, 3]]
)
def test_ids__are_saved_and_loaded(ids, tmp_path):
    model_of(ids).save(tmp_path / "m.npz")
    loaded = mf.load(tmp_path / "m.npz")
    assert loaded.user_ids.tolist() == ids
    assert loaded.item_columns(ids).tolist() == list(range(len(ids)))


@pytest.mark.parametrize(
    "ends", [[1, 2], range(1, 22), [*range(20, 0, -1), 20_020], [-1, *range(2, 21), 20_020]]
)
def test_load__refuses_text_whose_ends_are_wrong(ends, tmp_path):
    model_of([*"abcdefghijklmnopqrst", "x" * 20_000]).save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file) | {"user_ids_ends": np.array([*ends])}
    np.savez(tmp_path / "hurt.npz", **arrays)
    with pytest.raises(ValueError, match=r"hurt\.npz is not a whole model .*user_ids"):
        mf.load(tmp_path / "hurt.npz")


def test_duplicates__are_named_by_id():
    with pytest.raises(ValueError, match=r"1 duplicate ratings \(the first of user bob for item 30\)"):
        mf.Ratings(([0, 1, 1], [0, 2, 2], [1.0, 2, 3]), user_ids=["ann", "bob"], item_ids=[10, 20, 30])


def test_lookups__are_named_where_positions_are_wrong():
    model = model_of([10, 20, 30, 40])
    for ask in (model.predict, lambda users, _: model.recommend(users), model.explain):
        with pytest.raises(
            KeyError,
            match=r"user id 3 is not in the model; the nearest is 10; model\.by_position takes row",
        ):
            ask(3, 10)
    with pytest.raises(TypeError, match=r"np\.unique\(ids, return_inverse=True\).*user_ids=user_ids"):
        mf.Ratings(([0.5, 1.5], [0, 1], [1.0, 2.0]))


# held-out ratings, and start values


def sides(rng):
    """Return training and test ratings with ids, the latter in another order, with more users and items."""
    full = mf.datasets.synthetic(60, 40, 1200)
    train, test = mf.train_test_split(full, 0.2, rng=0)
    users, items = np.array([f"u{n:02}" for n in range(60)]), np.arange(40) * 10
    at, to = rng.permutation(65)[:60], rng.permutation(43)[:40]
    more_users, more_items = np.array([f"new {n}" for n in range(65)]), np.arange(1000, 1043)
    more_users[at], more_items[to] = users, items
    known = mf.Ratings(train, user_ids=users, item_ids=items)
    same = mf.Ratings(test, user_ids=users, item_ids=items)
    shuffled = mf.Ratings(
        (at[test.users], to[test.items], test.values, (65, 43)), user_ids=more_users, item_ids=more_items
    )
    return known, same, shuffled


@pytest.mark.parametrize(
    "options",
    quick(
        [{}, {"biases": True}, {"method": "als"}, {"loss": "absolute"}, {"loss": "huber", "biases": True}],
        {"biases": True},
    ),
)
@pytest.mark.filterwarnings("ignore:the validation RMSE")
def test_errors__are_compared_by_id(options, rng):
    known, same, shuffled = sides(rng)
    model = mf.factorize(known, 4, rng=0, **options)
    residuals = same.values - model.by_position.predict(same.users, same.items)
    expected = np.sqrt(np.mean(residuals**2.0))
    assert model.rmse(shuffled) == pytest.approx(expected)
    assert mf.metrics.rmse(model, shuffled) == pytest.approx(expected)
    assert mf.metrics.mae(model, shuffled) == pytest.approx(np.abs(residuals).mean())
    assert mf.metrics.r2(model, shuffled) == pytest.approx(mf.metrics.r2(model, same))
    found = mf.factorize(known, 4, rng=0, **options, validation=shuffled, epochs=3)
    wanted = mf.factorize(known, 4, rng=0, **options, validation=same, epochs=3)
    for one, other in zip(found.history, wanted.history, strict=True):
        assert one.validation_rmse == pytest.approx(other.validation_rmse)


@pytest.mark.parametrize("options", quick([{"biases": True}, {"method": "implicit"}], {"biases": True}))
def test_rankings__are_compared_by_id(options, rng):
    known, same, shuffled = sides(rng)
    model = mf.factorize(known, 4, rng=0, **options)
    assert mf.metrics.ranking(model, shuffled) == mf.metrics.ranking(model, same)
    assert mf.metrics.auc(model, shuffled, relevant=4) == mf.metrics.auc(model, same, relevant=4)


@pytest.mark.slow
def test_implicit_validation__is_compared_by_id(rng):
    known, same, shuffled = sides(rng)
    found, wanted = (
        mf.factorize(known, 4, method="implicit", rng=0, epochs=3, validation=held)
        for held in (shuffled, same)
    )
    # users are asked in the order of their rows, which is that of the training ratings for both
    assert [x.validation_ndcg for x in found.history] == [x.validation_ndcg for x in wanted.history]


def test_one_rating__is_found_by_its_ids(rng):
    known, _, _ = sides(rng)
    model = mf.factorize(known, 4, biases=True, rng=0)
    few = mf.Ratings(([0], [0], [4.0]), user_ids=["u07"], item_ids=[30])
    assert model.rmse(few) == pytest.approx(abs(float(model.predict("u07", 30)) - 4))


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.filterwarnings("ignore:the validation RMSE")
def test_unknown_ids__get_the_default_prediction(biases, rng):
    known, _, _ = sides(rng)
    model = mf.factorize(known, 4, biases=biases, rng=0, epochs=3)
    held = mf.Ratings(
        ([0, 0, 1], [0, 1, 0], [4.0, 2.0, 5.0]), user_ids=["nobody", "u07"], item_ids=[30, 12345]
    )
    c = model.item_bias[3] if biases else 0.0
    # nobody and 30; nobody and 12345; u07 and 30
    predicted = np.array([model.mean + c, model.mean, model.predict("u07", 30)])
    expected = np.sqrt(np.mean((np.array([4.0, 2.0, 5.0]) - predicted) ** 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a default prediction is no loss
        assert model.rmse(held) == pytest.approx(expected)
    best = mf.factorize(known, 4, biases=biases, rng=0, epochs=3, validation=held, patience=9)
    at_end = [x.validation_rmse for x in best.history]
    assert min(at_end) == pytest.approx(best.rmse(held), rel=1e-5)


def test_unknown_ids__are_left_out_of_rankings_and_counted(rng):
    known, same, _ = sides(rng)
    model = mf.factorize(known, 4, biases=True, rng=0)
    users = np.append(same.user_ids, ["nobody", "no one"])
    more = mf.Ratings(
        (
            np.append(same.users, [60, 61, 60]),
            np.append(same.items, [0, 0, 1]),
            np.append(same.values, [5, 5, 5]),
        ),
        user_ids=users,
        item_ids=same.item_ids,
    )
    with pytest.warns(
        UserWarning, match=r"3 of 243 held-out ratings are left out, as 2 of their users and 0 of"
    ):
        found = mf.metrics.ranking(model, more)
    assert found == mf.metrics.ranking(model, same)


def test_ids_of_another_kind__are_an_error_not_all_unknown(rng):
    known, _, _ = sides(rng)
    model = mf.factorize(known, 4, rng=0, epochs=1)
    held = mf.Ratings([[4.0]], user_ids=[7], item_ids=[30])
    with pytest.raises(ValueError, match="user ids are text in the model and integers in R"):
        model.rmse(held)


def test_shapes__must_agree_where_one_side_has_no_ids(rng):
    known, same, _ = sides(rng)
    model = mf.factorize(known, 4, rng=0, epochs=1)
    plain = mf.Ratings((same.users, same.items, same.values, same.shape))
    assert model.rmse(plain) == model.rmse(same)
    with pytest.raises(ValueError, match=r"shape \(60, 40\), got \(1, 1\).*ids"):
        model.rmse([[1.0]])


def test_cv_pairs__are_compared_by_id(rng):
    known, same, shuffled = sides(rng)
    one, other = (
        mf.cross_validate(known, 4, cv=[(known, held), (known, held)], rng=0, epochs=2).test_rmse
        for held in (same, shuffled)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("options", quick([{"biases": True}, {"method": "als"}], {"biases": True}))
def test_init__is_matched_by_id_whatever_order_and_shape(options, rng):
    """A model whose rows stand in another order, some of them gone, starts at the same predictions."""
    known, _, shuffled = sides(rng)
    first = mf.factorize(shuffled, 4, rng=0, epochs=2, **options)
    rows, columns = first.user_rows(known.user_ids), first.item_columns(known.item_ids)
    parts = {"P": first.P[rows], "Q": first.Q[:, columns], "mean": first.mean}
    if first.user_bias is not None:
        parts |= {"user_bias": first.user_bias[rows], "item_bias": first.item_bias[columns]}
    by_hand = mf.Factors(
        **parts,
        known_users=first.known_users[rows],
        known_items=first.known_items[columns],
        settings=first.settings,
    )
    expected = mf.factorize(known, 4, rng=1, epochs=2, init=by_hand, **options)
    found = mf.factorize(known, 4, rng=1, epochs=2, init=first, **options)
    np.testing.assert_array_equal(found.P, expected.P)
    np.testing.assert_array_equal(found.Q, expected.Q)


def test_init__of_more_rows_needs_ids():
    first = mf.factorize([[1.0, 2], [3, 4], [5, 6]], 1, rng=0, epochs=1)
    with pytest.raises(ValueError, match="init must have at most R's 2 users, got 3"):
        mf.factorize([[1.0, 2], [3, 4]], 1, init=first)


def test_fold_in__ignores_unknown_items_that_nobody_rated():
    model = mf.factorize(mf.Ratings([[1.0, 2], [3, 4]], item_ids=["a", "b"]), 1, rng=0, epochs=2)
    R = sparse.csr_array(([5.0], ([0], [1])), shape=(1, 3))
    folded = model.fold_in(mf.Ratings(R, item_ids=["x", "b", "y"]))
    np.testing.assert_allclose(folded.P, model.fold_in({"b": 5.0}).P)
    with pytest.raises(KeyError, match="item id 'x'"):
        model.fold_in(mf.Ratings([[1.0, 2.0]], item_ids=["x", "b"]))


# ids in, ids out

TRIPLETS = (["bob", "ada", "bob", "eve"], [30, 10, 20, 10], [5.0, 3.0, 1.0, 4.0])


def test_triplets_of_text__make_a_model_that_speaks_ids():
    model = mf.factorize(TRIPLETS, 2, rng=0, epochs=3, biases=True)
    assert model.user_ids.tolist() == ["ada", "bob", "eve"]
    assert model.item_ids is None  # integers are positions
    model = mf.factorize(mf.Ratings((TRIPLETS[0], [str(x) for x in TRIPLETS[1]], TRIPLETS[2])), 2, rng=0)
    assert model.item_ids.tolist() == ["10", "20", "30"]


def test_integer_ids__are_ids_and_not_positions():
    R = mf.Ratings([[5.0, 3.0, 1.0], [0.0, 4.0, 2.0]], user_ids=[1, 0], item_ids=[2, 0, 1])
    model = mf.factorize(R, 2, rng=0, epochs=3, biases=True)
    plain = model.by_position
    assert (plain.user_ids, plain.item_ids, plain.ratings.user_ids) == (None, None, None)
    assert model.predict(1, 2) == plain.predict(0, 0)
    assert model.recommend(0, 5).items.tolist() == [2]
    assert plain.recommend(1, 5).items.tolist() == [0]
    assert model.explain(1, 2).items.tolist() == [[2, 0, 1][i] for i in plain.explain(0, 0).items]
    assert model.similar_items(2, 1).items.tolist() == [[2, 0, 1][i] for i in plain.similar_items(0, 1).items]
    assert model.similar_users(1, 1).items.tolist() == [0]
    several = model.recommend([1, 0], 3)
    assert several.items.mask.tolist() == [[True] * 3, [False, True, True]]
    assert several.asked.tolist() == [1, 0]
    np.testing.assert_array_equal(model.fold_in({0: 5.0}).P, plain.fold_in({1: 5.0}).P)
    np.testing.assert_array_equal(
        model.fold_in(([0, 0], [0, 2], [5.0, 1.0])).P, plain.fold_in({1: 5.0, 0: 1.0}).P
    )
    model.partial_fit(([7], [0], [2.0]))
    assert model.user_ids.tolist() == [1, 0, 7]
    assert plain.shape == (2, 3)


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=3, unique=True), st.permutations(range(3)))
def test_answers__by_id_are_those_by_position(ids, order):
    R = mf.Ratings(np.arange(1.0, 10).reshape(3, 3), user_ids=ids, item_ids=[ids[n] for n in order])
    model = mf.Factors(np.eye(3), np.arange(9.0).reshape(3, 3), ratings=R)
    users, items = model.user_ids, model.item_ids
    np.testing.assert_array_equal(model.predict(users[:, None], items), model.reconstruct())
    found, plain = (
        model.recommend(users, 3, exclude_seen=False),
        model.by_position.recommend(range(3), 3, exclude_seen=False),
    )
    np.testing.assert_array_equal(found.items, items[plain.items])
    np.testing.assert_array_equal(found.scores, plain.scores)


@pytest.mark.parametrize(
    ("ids", "asked", "message"),
    [
        (["ada", "bob"], "Ada ", "user id 'Ada ' is not in the model; the nearest is 'ada'"),
        (["ada", "bob"], ["x", "ada", "y"], "user ids 'x', 'y' are not in the model"),
        (["ada", "bob"], list("vwxyz"), "user ids 'v', 'w', 'x' and 2 more are not in the model"),
        (
            ["ada", "bob"],
            0,
            "user id 0 is not in the model, whose ids are text such as 'ada'; model.by_position",
        ),
        (["7", "08"], "007", "user id '007' is not in the model"),
        ([100, 7], "7", "user id '7' is not in the model, whose ids are integers such as 100"),
        ([100, 7], 98, "user id 98 is not in the model; the nearest is 100; model.by_position takes row"),
        ([100, 7], -9, "the nearest is 7"),
        ([100, 7], 5.5, "user ids = 5.5; ids must be integers or text"),
    ],
    ids=str,
)
def test_unknown_ids__are_named_with_the_nearest(ids, asked, message):
    model = mf.Factors(np.ones((2, 1)), np.ones((1, 2)), user_ids=ids)
    for ask in (lambda: model.predict(asked, 0), lambda: model.recommend(asked, exclude_seen=False)):
        with pytest.raises(KeyError) as caught:
            ask()
        assert message in caught.value.args[0]


@pytest.mark.parametrize("biases", [False, True])
def test_predict__gives_the_default_for_unknown_ids_if_asked(biases):
    R = mf.Ratings([[5.0, 3.0], [1.0, 2.0]], user_ids=["ada", "bob"], item_ids=[3, 4])
    model = mf.factorize(R, 1, biases=biases, rng=0, epochs=3)
    b, c = (model.user_bias[0], model.item_bias[1]) if biases else (0.0, 0.0)
    found = model.predict(["ada", "ada", "zoë", "zoë"], [4, 9, 4, 9], unknown="default")
    np.testing.assert_allclose(
        found, [model.predict("ada", 4), model.mean + b, model.mean + c, model.mean], rtol=1e-6
    )
    np.testing.assert_allclose(
        model.by_position.predict([0, 2], [5, 1], unknown="default"), found[1:3], rtol=1e-6
    )
    with pytest.raises(ValueError, match="negative"):
        model.by_position.predict(-1, 0, unknown="default")
    with pytest.raises(ValueError, match="unknown must be one of 'raise', 'default', got 'nan'"):
        model.predict("ada", 3, unknown="nan")


def test_recommend__leaves_out_unknown_items_of_a_list_if_asked():
    model = mf.Factors(np.ones((1, 1)), [[1.0, 3.0, 2.0]], item_ids=["a", "b", "c"])
    stock = ["c", "x", "a", "y"]
    with pytest.warns(UserWarning, match="2 of 4 items are left out, as they are not in the model"):
        found = model.recommend(0, items=stock, unknown="ignore", exclude_seen=False)
    assert found.items.tolist() == ["c", "a"]
    with pytest.raises(KeyError, match="item ids 'x', 'y' are not in the model"):
        model.recommend(0, items=stock, exclude_seen=False)
    with pytest.raises(ValueError, match="unknown must be one of 'raise', 'ignore', got 'default'"):
        model.recommend(0, items=stock, unknown="default")


def test_answers__survive_pickle_and_copy():
    found = mf.Factors(np.ones((2, 1)), [[1.0, 3.0]], user_ids=["a", "b"]).recommend(
        ["a", "b"], exclude_seen=False
    )
    for twin in (pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert twin.asked.tolist() == ["a", "b"]
        np.testing.assert_array_equal(twin.items, found.items)


MATRIX = np.array([[5, 3, 0], [4, 0, 1]])
MATRICES = {
    "array": np.array,
    "list": np.ndarray.tolist,
    "masked array": lambda R: np.ma.array(R, mask=R == 0),
    "csr_array": sparse.csr_array,
    "coo_matrix": sparse.coo_matrix,
    "triplets with a shape": lambda R: (*np.nonzero(R), R[R > 0], R.shape),
    "Ratings": mf.Ratings,
}
SOME_IDS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_characters="\0"), max_size=5)
)


@given(
    user_ids=st.one_of(*(st.lists(kind, min_size=2, max_size=2, unique=True) for kind in SOME_IDS.branches)),
    item_ids=st.one_of(*(st.lists(kind, min_size=3, max_size=3, unique=True) for kind in SOME_IDS.branches)),
    form=st.sampled_from(list(MATRICES)),
)
def test_factorize__takes_the_ids_of_a_matrix(user_ids, item_ids, form):
    R, fit = MATRICES[form](MATRIX), {"rng": 0, "epochs": 1}
    model = mf.factorize(R, 1, user_ids=user_ids, item_ids=item_ids, **fit)
    assert (model.user_ids.tolist(), model.item_ids.tolist()) == (user_ids, item_ids)
    assert model.recommend(user_ids[0]).items.tolist() == item_ids[2:]
    half = mf.factorize(R, 1, item_ids=item_ids, **fit)
    assert (half.user_ids, half.item_ids.tolist()) == (None, item_ids)
    with pytest.raises(
        ValueError, match=r"user_ids must be unique, but user_ids\[0\] and user_ids\[1\] are both"
    ):
        mf.factorize(R, 1, user_ids=user_ids[:1] * 2, **fit)
    with pytest.raises(ValueError, match=r"item_ids must have the shape \(3,\), .*got \(2,\)"):
        mf.factorize(R, 1, item_ids=item_ids[:2], **fit)


def test_searches__take_the_ids_of_a_matrix():
    given = {"user_ids": ["ada", "bob"], "item_ids": [7, 8, 9], "rng": 0, "epochs": 1}
    for R in (MATRIX, sparse.csr_array(MATRIX)):
        found = mf.cross_validate(R, 1, 2, **given)
        plain = mf.cross_validate(R, 1, 2, rng=0, epochs=1)
        np.testing.assert_array_equal(found.test_rmse, plain.test_rmse)
        assert mf.select_rank(R, [1], 2, **given).mean.tolist() == [found.test_rmse.mean()]
        with pytest.raises(ValueError, match="item_ids must be unique"):
            mf.grid_search(R, {"k": [1]}, 2, **given | {"item_ids": [7, 8, 7]})
