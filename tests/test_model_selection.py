"""Cross-validation, grids and the choice of the rank, against fits made one by one."""

import numpy as np
import pytest

import mfkernel as mf


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
    from mfkernel.model_selection import _folds

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
        (lambda R: mf.cross_validate(R, 2, 10**6), "too few for 1000000 folds"),
        (lambda R: mf.select_rank(R, []), "ks is empty"),
        (lambda R: mf.select_rank(R, [2, 0]), r"ks\[1\] must be at least 1, got 0"),
        (lambda R: mf.grid_search(R, {"k": []}), "grid.*k.*empty"),
        (lambda R: mf.grid_search(R, {"epochs": [1]}), "k is missing"),
        (lambda R: mf.cross_validate(R, 2, progress=True), "progress goes with a single fit"),
        (lambda R: mf.cross_validate(R, 2, [(R, R)]), "cv has 1 folds"),
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
    assert found.plot().get_xlabel() == "k"
