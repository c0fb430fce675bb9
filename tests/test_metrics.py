"""Each metric against its definition in plain NumPy, and against scikit-learn where that has it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import metrics

pytestmark = pytest.mark.kernel


def case(seed, integers=False):
    """Return a model with ratings, and held-out ratings of other cells."""
    rng = np.random.default_rng(seed)
    m, n = 7, 11
    P, Q = (rng.integers(-1, 2, s) if integers else rng.normal(size=s) for s in ((m, 2), (2, n)))
    cells = rng.permutation(m * n)
    seen, held = cells[:20], cells[20:40]
    seen, held = (mf.Ratings((x // n, x % n, rng.integers(1, 6, 20), (m, n))) for x in (seen, held))
    biases = {"user_bias": rng.normal(size=m), "item_bias": rng.normal(size=n)} if not integers else {}
    return mf.Factors(P.astype(float), Q.astype(float), mean=2.0, ratings=seen, **biases), held


def rows(model, held, relevant, exclude_seen):
    """Yield, for each user with relevant items, scores and relevance of the candidates in item order."""
    scores = model.predict(np.arange(7)[:, None], np.arange(11))
    for u in range(7):
        mine = {i: r for v, i, r in zip(held.users, held.items, held.values, strict=True) if v == u}
        seen = set(model.ratings.items[model.ratings.users == u]) if exclude_seen else set()
        good = {i for i, r in mine.items() if relevant is None or r >= relevant}
        candidates = [i for i in range(11) if i not in seen or i in good]
        if good:
            yield scores[u, candidates], np.array([i in good for i in candidates])


def by_definition(model, held, n, relevant, exclude_seen):
    figures = {name: [] for name in ("precision", "recall", "ndcg", "map", "mrr", "hit_rate", "auc")}
    for scores, good in rows(model, held, relevant, exclude_seen):
        order = np.lexsort((np.arange(scores.size), -scores))
        hits = good[order][:n]
        figures["precision"].append(hits.sum() / n)
        figures["recall"].append(hits.sum() / good.sum())
        gains = 1 / np.log2(np.arange(2, n + 2))
        figures["ndcg"].append((hits * gains[: hits.size]).sum() / gains[: min(n, good.sum())].sum())
        precisions = np.cumsum(hits) / np.arange(1, hits.size + 1)
        figures["map"].append((precisions * hits).sum() / min(n, good.sum()))
        figures["mrr"].append(next((1 / place for place, hit in enumerate(hits, 1) if hit), 0))
        figures["hit_rate"].append(hits.any())
        if not good.all():
            pairs = scores[good][:, None] - scores[~good]
            figures["auc"].append(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    return {name: np.mean(x) for name, x in figures.items()}


@given(
    seed=st.integers(0, 2**32 - 1),
    integers=st.booleans(),
    n=st.integers(1, 15),
    relevant=st.sampled_from([None, 2, 4.5]),
    exclude_seen=st.booleans(),
)
def test_ranking__is_as_defined(seed, integers, n, relevant, exclude_seen):
    model, held = case(seed, integers)
    options = {"relevant": relevant, "exclude_seen": exclude_seen}
    if relevant is not None and not (held.values >= relevant).any():
        return
    expected = by_definition(model, held, n, relevant, exclude_seen)
    found = metrics.ranking(model, held, n, **options)
    assert found == pytest.approx(expected, nan_ok=True)
    assert metrics.precision_at_n(model, held, n, **options) == found["precision"]
    assert metrics.recall_at_n(model, held, n, **options) == found["recall"]
    assert metrics.ndcg_at_n(model, held, n, **options) == found["ndcg"]
    assert metrics.map_at_n(model, held, n, **options) == found["map"]
    assert metrics.mrr_at_n(model, held, n, **options) == found["mrr"]
    assert metrics.hit_rate_at_n(model, held, n, **options) == found["hit_rate"]
    np.testing.assert_equal(metrics.auc(model, held, **options), found["auc"])


@pytest.mark.parametrize("seed", range(5))
def test_ranking__agrees_with_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    model, held = case(seed)
    ndcg, auc = [], []
    for scores, good in rows(model, held, None, True):
        ndcg.append(sklearn.ndcg_score([good], [scores], k=4))
        auc.append(sklearn.roc_auc_score(good, scores))
    assert metrics.ndcg_at_n(model, held, 4) == pytest.approx(np.mean(ndcg))
    assert metrics.auc(model, held) == pytest.approx(np.mean(auc))


@pytest.mark.parametrize("seed", range(3))
def test_errors__are_as_defined(seed):
    model, held = case(seed)
    predictions = model.predict(held.users, held.items)
    e = held.values - predictions
    assert metrics.rmse(model, held) == pytest.approx(np.sqrt((e**2).mean()))
    assert metrics.rmse(model, held) == pytest.approx(model.rmse(held))
    assert metrics.mae(model, held) == pytest.approx(np.abs(e).mean())
    spread = ((held.values - held.values.mean()) ** 2).sum()
    assert metrics.r2(model, held) == pytest.approx(1 - (e**2).sum() / spread)


def test_errors__agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    model, held = case(0)
    pair = held.values, model.predict(held.users, held.items)
    assert metrics.rmse(model, held) ** 2 == pytest.approx(sklearn.mean_squared_error(*pair))
    assert metrics.mae(model, held) == pytest.approx(sklearn.mean_absolute_error(*pair))
    assert metrics.r2(model, held) == pytest.approx(sklearn.r2_score(*pair))


def test_r2__of_ratings_that_are_all_the_same():
    model = mf.Factors([[1.0]], [[2.0, 2.0]])
    assert metrics.r2(model, [[2.0, 2.0]]) == 1
    assert metrics.r2(model, [[3.0, 3.0]]) == 0


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.mae, metrics.r2, metrics.ranking, metrics.auc])
def test_metrics__name_what_cannot_be_compared(metric):
    model, _ = case(0)
    with pytest.raises(ValueError, match=r"shape \(7, 11\), got \(2, 2\)"):
        metric(model, [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="R must have (ratings to compare with|a relevant rating), got none"):
        metric(model, np.zeros((7, 11)))


def test_ranking__says_that_nothing_is_relevant():
    model, held = case(0)
    with pytest.raises(ValueError, match="rating of at least 6, got none"):
        metrics.ranking(model, held, relevant=6)
