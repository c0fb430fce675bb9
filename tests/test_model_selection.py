"""Cross-validation, grids and the choice of the rank, against fits made one by one."""

import numpy as np
import pytest

import mfkernel as mf
from tests.processes import output_of


def test_cross_validate__is_a_fit_on_each_fold(ratings):
    folds = [mf.train_test_split(ratings, 0.3, rng=seed) for seed in range(3)]
    found = mf.cross_validate(ratings, 3, folds, rng=0, epochs=2, schedule="sequential", shuffle=False)
    assert found.test_rmse.shape == found.train_rmse.shape == found.seconds.shape == (3,)
    again = mf.cross_validate(ratings, 3, folds, rng=0, epochs=2, schedule="sequential", shuffle=False)
    np.testing.assert_array_equal(found.test_rmse, again.test_rmse)
    assert (found.seconds > 0).all()


def test_searches__share_the_folds_and_the_seeds(ratings):
    alone = [mf.cross_validate(ratings, k, 4, rng=1, biases=True) for k in (2, 5)]
    search = mf.grid_search(ratings, {"k": [2, 5]}, 4, rng=1, biases=True)
    ranks = mf.select_rank(ratings, [5, 2], 4, rng=1, biases=True, n_threads=1)
    for c, one in enumerate(alone):
        for both in (search, ranks):
            np.testing.assert_array_equal(both.test_rmse[c], one.test_rmse)
            np.testing.assert_array_equal(both.train_rmse[c], one.train_rmse)
    assert ranks.ks.tolist() == [2, 5]
    assert search.best == {"k": [2, 5][int(search.mean.argmin())]}


def test_folds__hold_each_rating_out_once(ratings):
    from mfkernel.evaluation.runs import _folds

    folds = _folds(ratings, 7, np.random.default_rng(0))
    held = sum((test.to_scipy() != 0).astype(int).toarray() for _, test in folds)
    assert (held[ratings.users, ratings.items] == 1).all()
    assert held.sum() == ratings.nnz
    assert all(train.nnz + test.nnz == ratings.nnz for train, test in folds)


def test_grid_search__tries_every_combination(ratings):
    grid = {"k": [2, 3], "regularization": [0.01, 0.1, 1.0]}
    search = mf.grid_search(ratings, grid, 2, rng=0, epochs=3)
    assert search.settings == [{"k": k, "regularization": r} for k in (2, 3) for r in (0.01, 0.1, 1.0)]
    assert search.test_rmse.shape == (6, 2)
    assert search.mean[search.settings.index(search.best)] == search.mean.min()


@pytest.mark.parametrize(("spread", "k"), [(0.0, 8), (0.2, 2)])
def test_select_rank__takes_the_smallest_within_a_standard_error(spread, k):
    test = np.array([[1.05, 1.05, 1.05], [1.02, 1.02, 1.02], [1.0, 1.0, 1.0]]) + spread * np.array([-1, 0, 1])
    found = mf.RankSelection([{"k": 2}, {"k": 4}, {"k": 8}], np.stack([test] * 3))
    assert found.k == k
    assert found.best == {"k": 8}


def test_select_rank__sees_the_rank_of_what_was_generated(rng):
    P, Q = rng.normal(size=(150, 3)), rng.normal(size=(3, 100))
    R = np.where(rng.random((150, 100)) < 0.5, P @ Q + 0.3 * rng.normal(size=(150, 100)), np.nan)
    found = mf.select_rank(R, [1, 3, 12], cv=3, rng=0, missing="nan", biases=True)
    assert found.k in (3, 12)
    assert found.mean[1] < 0.7 * found.mean[0]
    assert (np.diff(found.train_rmse.mean(axis=1)) < 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda R: mf.cross_validate(R, 2, 1), "cv must be at least 2, got 1"),
        (lambda R: mf.cross_validate(R, 2, 10**6), "for 1000000 folds"),
        (lambda R: mf.select_rank(R, []), "ks must have a rank"),
        (lambda R: mf.select_rank(R, [2, 0]), r"ks\[1\] must be at least 1, got 0"),
        (lambda R: mf.grid_search(R, {"k": []}), "grid.*k.*must have a value"),
        (lambda R: mf.grid_search(R, {"epochs": [1]}), "k must be given"),
        (lambda R: mf.grid_search(R, {"k": [4, "x"]}), "k must be .*'x'"),
        (lambda R: mf.grid_search(R, {"k": [4, 2.5]}), r"k must be .*2\.5"),
        (lambda R: mf.grid_search(R, {"k": [4, None]}), "k must be .*None"),
        (lambda R: mf.grid_search(R, {"k": [4, 0]}), "k must be .*0"),
        (lambda R: mf.cross_validate(R, "x"), "k must be .*'x'"),
        (lambda R: mf.grid_search(R, {"epochs": [1]}, k="x"), "k must be .*'x'"),
        (lambda R: mf.grid_search(R, {"k": 4}), r"grid\['k'\] must be a list.*4; pass \[4\]"),
        (lambda R: mf.grid_search(R, {"k": [4], "loss": "huber"}), r"grid\['loss'\].*pass \['huber'\]"),
        (lambda R: mf.grid_search(R, [("k", [4])]), "grid must be a dict.*list"),
        (
            lambda R: mf.cross_validate(R, 2, progress=True),
            "progress must not be passed to several fits",
        ),
        (lambda R: mf.cross_validate(R, 2, []), "cv must have at least 1 pair"),
        (lambda R: mf.cross_validate(R, 2, (R, R)), r"pass cv=\[\(train, test\)\]"),
        (lambda R: mf.grid_search(R, {"k": [2], "method": ["als", "implicit"]}), "method.*got both"),
        (lambda R: mf.grid_search(R, {"k": [2], "missing": ["zero", "nan"]}), "missing.*same for all"),
    ],
)
def test_searches__name_what_is_wrong(call, message, ratings):
    with pytest.raises((TypeError, ValueError), match=message):
        call(ratings)


def test_to_frame__names_the_extra_or_has_a_row_a_fit(ratings):
    search = mf.grid_search(ratings, {"k": [2, 3]}, 2, rng=0, epochs=1)
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"mfkernel\[frame\]"):
            search.to_frame()
        return
    frame = search.to_frame()
    assert list(frame.columns) == ["k", "fold", "train_rmse", "test_rmse", "seconds"]
    assert len(frame) == 4


def test_plot__names_the_extra_or_draws(ratings):
    found = mf.select_rank(ratings, [2, 3], 2, rng=0, epochs=1)
    try:
        import matplotlib as mpl
    except ImportError:
        with pytest.raises(ImportError, match=r"mfkernel\[plot\]"):
            found.plot()
        return
    mpl.use("agg")
    assert found.plot().get_xlabel() == "number of factors k"


# candidates that fail

FAILS = {"learning_rate": 1e9}


def test_grid_search__goes_on_when_a_candidate_fails(ratings):
    with pytest.warns(UserWarning, match="failed") as caught:
        search = mf.grid_search(ratings, {"learning_rate": [1e9, 0.02], "k": [2]}, 3, rng=0, epochs=2)
    (warning,) = caught
    assert "learning_rate=1000000000.0, k=2 failed on folds 0, 1, 2 and has nan there" in str(warning.message)
    assert "DivergenceError: training diverged" in str(warning.message)
    assert warning.filename == __file__
    for figures in (search.train_rmse, search.test_rmse, search.seconds):
        assert np.isnan(figures[0]).all()
        assert np.isfinite(figures[1]).all()
    alone = mf.cross_validate(ratings, 2, 3, rng=0, epochs=2, learning_rate=0.02)
    np.testing.assert_array_equal(search.test_rmse[1], alone.test_rmse)
    assert search.best == {"learning_rate": 0.02, "k": 2}
    np.testing.assert_array_equal(search.mean, [np.nan, alone.test_rmse.mean()])
    assert np.isnan(search.standard_error).tolist() == [True, False]
    assert repr(search).startswith("Search(2 × 3 fits, 3 of them failed, best learning_rate=0.02, k=2: test ")


def test_select_rank__leaves_out_ranks_whose_equations_have_no_solution(ratings):
    with pytest.warns(UserWarning, match=r"k=30 failed on folds 0, 1 .*LinAlgError: .*not positive definite"):
        found = mf.select_rank(ratings, [1, 30], 2, rng=0, method="als", regularization=0.0, epochs=1)
    assert found.k == 1
    assert found.best == {"k": 1}


def test_select_rank__leaves_out_ranks_for_which_there_is_no_memory(ratings):
    with pytest.warns(UserWarning, match="k=10000000000 failed.*MemoryError: .*GiB"):
        found = mf.select_rank(ratings, [2, 10**10], 2, rng=0, epochs=1)
    assert found.k == 2


def test_cross_validate__has_nan_for_a_fold_that_fails(ratings):
    good = mf.train_test_split(ratings, 0.2, rng=0)
    one = mf.Ratings(([0], [0], [1.0], ratings.shape))
    other = mf.Ratings(([1], [1], [1.0], ratings.shape))
    with pytest.warns(
        UserWarning, match="k=2 failed on fold 1 and has nan there: ValueError: .*hold one out"
    ):
        found = mf.cross_validate(
            ratings, 2, [good, (one, other)], rng=0, epochs=3, validation=0.1, loss="absolute"
        )
    for figures in found[:3]:
        assert np.isnan(figures).tolist() == [False, True]


def test_searches__raise_the_first_error_where_all_fits_fail(ratings):
    with pytest.raises(FloatingPointError, match="diverged"):
        mf.cross_validate(ratings, 2, 2, rng=0, **FAILS)
    with pytest.raises(ValueError, match="method must be one of.*'lsa'"):
        mf.grid_search(ratings, {"method": ["lsa", "sdg"], "k": [2]}, 2)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        mf.select_rank(ratings, [2, 3], 2, epochs=0)


@pytest.mark.parametrize("wrong", [{"stars": 5}, {"k": "many"}, {"biases": 1}, {"epochs": 1.5}])
def test_searches__raise_what_no_fit_takes_at_once(wrong, ratings, monkeypatch):
    fitted = []
    monkeypatch.setattr(mf.Factors, "rmse", lambda *_: fitted.append(1) or 1.0)
    grid = {"k": [2], "learning_rate": [0.01, 0.02]} | {name: [value] for name, value in wrong.items()}
    with pytest.raises(TypeError, match=f"{next(iter(wrong))}"):
        mf.grid_search(ratings, grid, 2, n_threads=1)
    assert fitted == []


def test_searches__end_on_ctrl_c(ratings, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mfkernel.evaluation.runs._compile", lambda *_: None)
    monkeypatch.setattr("mfkernel.evaluation.runs.factorize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mf.cross_validate(ratings, 2, 2)


NAN = np.nan


@pytest.mark.parametrize(
    ("test", "k"),
    [
        ([[NAN, 0.1, 0.1], [1.0, 1.0, 1.0], [0.9, 0.9, 0.9]], 8),
        ([[1.0, 1.0, 1.0], [NAN, NAN, NAN], [1.0, 1.0, 1.0]], 2),
        ([[1.2, 1.2, 1.2], [1.0, 1.0, 1.0], [0.1, 0.1, NAN]], 4),
    ],
)
def test_select_rank__a_rank_with_a_failed_fold_is_never_the_best(test, k):
    found = mf.RankSelection([{"k": 2}, {"k": 4}, {"k": 8}], np.stack([np.array(test)] * 3))
    assert found.k == k
    assert found.best == {"k": k}
    assert f"best k={k}:" in repr(found)


def test_select_rank__says_if_no_rank_was_fitted_on_all_folds():
    test = np.array([[NAN, 0.1], [0.1, NAN]])
    found = mf.RankSelection([{"k": 2}, {"k": 4}], np.stack([test] * 3))
    for question in (lambda: found.k, lambda: found.best):
        with pytest.raises(ValueError, match="a candidate must be fitted on all folds"):
            question()
    assert repr(found) == "RankSelection(2 × 2 fits, 2 of them failed, none best)"


def test_plot_and_to_frame__show_nan(ratings):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    test = np.array([[NAN, NAN], [0.1, 0.2], [0.1, NAN]])
    found = mf.RankSelection([{"k": 2}, {"k": 4}, {"k": 8}], np.stack([test] * 3))
    assert np.isnan(found.to_frame()["test_rmse"]).tolist() == [True, True, False, False, False, True]
    assert len(found.plot().lines) > 0
    none = mf.RankSelection([{"k": 2}], np.full((3, 1, 2), NAN))
    none.plot().figure.canvas.draw()


# seconds

COMPILED = """
import warnings
import numba.core.event as event
import mfkernel as mf
from mfkernel.evaluation import runs
S = mf.datasets.synthetic(60, 40, 900)
compiled, factorize = [], runs.factorize
def watched(*arguments, **settings):
    with event.install_recorder("numba:compile") as recorder:
        model = factorize(*arguments, **settings)
    compiled.extend(record.data["dispatcher"].__name__ for _, record in recorder.buffer)
    return model
runs.factorize = watched
warnings.simplefilter("ignore")  # held-out ratings of so few are predicted badly
for R, grid in {searches}:
    with event.install_recorder("numba:compile") as recorder:
        search = mf.grid_search(R, grid, 2, rng=0, n_threads=2)
    assert search.train_rmse.min() > 0
    assert len(recorder.buffer) > 10
print(*compiled)
"""
SEARCHES = """\
[
    (S, {"k": [2], "loss": ["squared", "huber"], "validation": [0.2]}),
    (
        mf.Ratings(S, dtype="float64", sample_weight=[1.5] * 900),
        {"k": [3], "biases": [True], "l1": [0.0, 0.1], "schedule": ["sequential"], "decay": ["linear"]},
    ),
    (S, {"method": ["als"], "k": [40], "regularization": [0.01]}),
]
"""


@pytest.mark.slow
def test_searches__their_seconds_leave_compilation_out(tmp_path):
    assert output_of(COMPILED.replace("{searches}", SEARCHES.strip()), NUMBA_CACHE_DIR=str(tmp_path)) == ""


# one given split, and implicit feedback


def test_searches__take_one_split_whose_ids_they_match(ratings):
    train, test = mf.train_test_split(ratings.with_ids(None, None), 0.2, rng=0)
    named = mf.Ratings(train, user_ids=np.arange(train.n_users) + 100, item_ids=np.arange(train.n_items))
    order = np.random.default_rng(0).permutation(train.n_users)
    other = mf.Ratings(test.take_rows(order), user_ids=order + 100, item_ids=np.arange(train.n_items))
    found = mf.select_rank(named, [2, 4], cv=[(named, other)], rng=0, epochs=3)
    plain = mf.select_rank(train, [2, 4], cv=[(train, test)], rng=0, epochs=3)
    np.testing.assert_allclose(found.test_rmse, plain.test_rmse, rtol=1e-6)
    assert found.test_rmse.shape == (2, 1)
    assert found.k == found.best["k"]
    np.testing.assert_array_equal(found.standard_error, 0)


def test_searches__judge_implicit_feedback_by_ndcg(ratings):
    clicks = ratings.with_values(np.ones(ratings.nnz))
    given = {"method": "implicit", "epochs": 2, "rng": 0}
    found = mf.grid_search(clicks, {"k": [2, 8], "alpha": [1.0, 4.0]}, 3, **given)
    assert (found.metric, found.test_rmse) == ("ndcg", None)
    assert found.best == found.settings[int(found.test_ndcg.mean(axis=1).argmax())]
    assert "test NDCG" in repr(found)
    assert "test_ndcg" in found.to_frame().columns
    one = mf.cross_validate(clicks, 2, 3, alpha=4.0, **given)
    np.testing.assert_array_equal(one.test_ndcg, found.test_ndcg[1])
    assert one.test_rmse is None
    train, test = mf.train_test_split(clicks, 0.2, rng=1)
    alone = mf.cross_validate(train, 2, [(train, test)], **given | {"rng": 3})
    seed = int(np.random.default_rng(3).integers(2**63, size=1)[0])
    model = mf.factorize(train, 2, **given | {"rng": seed, "n_threads": 1})
    np.testing.assert_array_equal(alone.test_ndcg, [mf.metrics.ndcg_at_n(model, test)])


def test_select_rank__takes_the_smallest_rank_of_high_ndcg():
    figures = np.stack([[[0.2, 0.3], [0.5, 0.6], [0.52, 0.6]]] * 3)
    found = mf.RankSelection([{"k": 2}, {"k": 4}, {"k": 8}], figures, "ndcg")
    assert (found.best, found.k) == ({"k": 8}, 4)


def test_results__become_frames_of_each_library(ratings):
    polars = pytest.importorskip("polars")
    found = mf.grid_search(ratings, {"k": [2], "regularization": [None, 0.1, (0.1, 0.2)]}, 2, rng=0, epochs=1)
    frame = found.to_frame("pandas")
    assert frame["regularization"].tolist() == [None, None, 0.1, 0.1, (0.1, 0.2), (0.1, 0.2)]
    one = mf.grid_search(ratings, {"k": [2], "biases": [False, True]}, 2, rng=0, epochs=1).to_frame("polars")
    assert isinstance(one, polars.DataFrame)
    assert one["fold"].to_list() == [0, 1, 0, 1]
    history = mf.factorize(ratings, 2, epochs=3, rng=0).history.to_frame("polars")
    assert history.columns == ["epoch", "rmse", "seconds", "learning_rate"]
    assert history["epoch"].to_list() == [1, 2, 3]
