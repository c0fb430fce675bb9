"""An explanation's contribution of a rating is the amount that the score loses without it."""

import numpy as np
import pytest

import mfkernel as mf
from tests.helpers import quick


def score(model: mf.Factors, item: int) -> float:
    P, Q = model.augmented()
    return float(P[0].astype(float) @ Q[:, item])


def groups(labels=(0.0, 1.0)):
    """Two groups of users rate half of 40 items each; one group likes the items 0 to 7, nobody any other."""
    rng = np.random.default_rng(0)
    group, R = rng.integers(0, 2, 200), np.full((200, 40), np.nan)
    for u in range(200):
        for i in rng.choice(40, 20, replace=False):
            R[u, i] = labels[int(i < 8 and group[u] == 0)]
    return R, group


def left_out_effects(model, row, item, **options):
    """Fold a user in again without each of the ratings."""
    whole = score(model.fold_in(row, **options), item)
    without = [model.fold_in(row.select(np.arange(row.nnz) != n), **options) for n in range(row.nnz)]
    return whole - np.array([score(m, item) for m in without])


@pytest.mark.parametrize("biases", quick([True, False], True))
@pytest.mark.parametrize("labels", [(0.0, 1.0), (-1.0, 1.0)])
def test_logistic__contributions_are_what_leaving_out_takes(biases, labels):
    R, group = groups(labels)
    model = mf.factorize(R, 3, loss="logistic", biases=biases, missing="nan", rng=0, dtype=np.float64)
    for u in (int(np.flatnonzero(group == g)[0]) for g in (0, 1)):
        row = model.ratings.take_rows([u])
        parts = model.fold_in(row).explain(0, 3, 99)
        effects = dict(zip(row.indices.tolist(), left_out_effects(model, row, 3), strict=True))
        expected = np.array([effects[i] for i in parts.items.tolist()])
        # to first order: where an effect is noticeable, it is met within a few per cent, and its sign at all
        np.testing.assert_allclose(
            parts.contributions, expected, rtol=0.1, atol=0.05 * np.abs(expected).max()
        )
        liked = parts.items < 8
        assert (np.sign(parts.contributions[liked]) == (1 if group[u] == 0 else -1)).all()
        total = parts.mean + parts.user_bias + parts.item_bias + parts.contributions.sum() + parts.rest
        assert total == pytest.approx(parts.score)


@pytest.mark.parametrize(
    "options",
    quick([{"biases": True}, {}, {"biases": True, "l1": 0.05}, {"nonnegative": True}], {"biases": True}),
)
def test_huber__contributions_are_what_leaving_out_takes(options):
    R = mf.datasets.synthetic(200, 60, 3000, rng=1)
    model = mf.factorize(R, 3, loss="huber", huber_delta=0.7, rng=0, dtype=np.float64, **options)
    u = int(np.argsort(R.user_counts())[-30])
    row = model.ratings.take_rows([u])
    parts = model.fold_in(row).explain(0, 5, 99)
    expected = dict(zip(row.indices.tolist(), left_out_effects(model, row, 5), strict=True))
    wanted = np.array([expected[i] for i in parts.items.tolist()])
    # residuals that cross δ meanwhile, and coordinates that leave zero, are of second order
    assert np.corrcoef(parts.contributions, wanted)[0, 1] > 0.95
    assert np.linalg.norm(parts.contributions - wanted) < 0.3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("biases", quick([True, False], True))
def test_absolute__contributions_are_what_leaving_out_takes(biases):
    """Medians: most ratings have hardly a say, and some have a large one."""
    R = mf.datasets.synthetic(200, 60, 3000, rng=1)
    model = mf.factorize(R, 3, loss="absolute", biases=biases, rng=0, dtype=np.float64)
    u = int(np.argsort(R.user_counts())[-30])
    row = model.ratings.take_rows([u])
    parts = model.fold_in(row).explain(0, 5, 99)
    effects = dict(zip(row.indices.tolist(), left_out_effects(model, row, 5), strict=True))
    wanted = np.array([effects[i] for i in parts.items.tolist()])
    np.testing.assert_allclose(parts.contributions, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", quick(["huber", "logistic", "absolute"], "logistic"))
@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("biases", quick([True, False], True))
def test_contributions__of_few_ratings_are_exact(loss, count, biases):
    R = mf.datasets.synthetic(100, 40, 1500, rng=2)
    R = R.with_values((R.values > 3).astype(float)) if loss == "logistic" else R
    model = mf.factorize(R, 3, rng=0, loss=loss, biases=biases, dtype=np.float64, epochs=5)
    row = mf.Ratings(
        (np.zeros(count, int), np.arange(count) * 5, np.arange(count) % 2 + (loss != "logistic"), (1, 40))
    )
    row = row.with_values(row.values.astype(float))
    parts = model.fold_in(row).explain(0, 7)
    effects = dict(zip(row.indices.tolist(), left_out_effects(model, row, 7), strict=True))
    for i, part in zip(parts.items.tolist(), parts.contributions, strict=True):
        assert part == pytest.approx(effects[i], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("scale", [4.0**-10, 4.0**5, 4.0**15])
@pytest.mark.parametrize("loss", quick(["huber", "absolute"], "huber"))
def test_contributions__have_the_unit_of_the_ratings(scale, loss):
    S = mf.datasets.synthetic(200, 100, 3000)
    parts = [
        mf.factorize(
            S.with_values(S.values.astype(float) * s), 4, biases=True, loss=loss, rng=0, dtype=np.float64
        ).explain(0, 5, 3)
        for s in (1.0, scale)
    ]
    np.testing.assert_array_equal(parts[1].items, parts[0].items)
    np.testing.assert_allclose(parts[1].contributions / scale, parts[0].contributions, rtol=1e-3)


def test_explain__of_an_item_that_nobody_rated_is_nothing():
    T = mf.datasets.synthetic(100, 40, 1500, rng=2)
    for loss in ("squared", "huber"):
        model = mf.factorize(
            mf.Ratings((T.users, T.items, T.values, (100, 42))), 3, rng=0, loss=loss, epochs=3
        )
        parts = model.explain(0, 41)
        assert parts.score == pytest.approx(model.mean)
        assert not parts.contributions.any()


@pytest.mark.parametrize(
    "options",
    quick(
        [{"l1": 0.05}, {"method": "als", "nonnegative": True}, {"nonnegative": True, "biases": True}],
        {"l1": 0.05},
    ),
)
def test_squared__of_a_folded_user_is_all_contributions_where_coordinates_are_held(options):
    R = mf.datasets.synthetic(100, 40, 1500, rng=2)
    model = mf.factorize(R, 4, rng=0, dtype=np.float64, **options)
    parts = model.fold_in(model.ratings.take_rows([3])).explain(0, 7, 99)
    held = 0.0 if "l1" not in options else 0.2  # what ℓ₁ takes off is no rating's
    assert abs(parts.rest) <= 1e-8 + held * abs(parts.score)


@pytest.mark.parametrize("bad", [[0, 1], [[0]], 1.5, "a", None, True])
def test_explain__takes_one_user_and_one_item(bad):
    model = mf.factorize(mf.datasets.synthetic(50, 30, 500), 2, rng=0, epochs=1)
    with pytest.raises(TypeError, match="user"):
        model.explain(bad, 1)
    with pytest.raises(TypeError, match="item"):
        model.explain(1, bad)
