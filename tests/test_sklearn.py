"""The estimators of scikit-learn keep its rules, and fill in what is missing."""

import numpy as np
import pytest
from scipy import sparse

import mfkernel as mf

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.impute import KNNImputer  # noqa: E402
from sklearn.model_selection import GridSearchCV, KFold  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from mfkernel.sklearn import (  # noqa: E402
    ALSFactorization,
    ImplicitALSFactorization,
    MatrixImputer,
    SGDFactorization,
)

ESTIMATORS = [
    ALSFactorization(n_components=2, random_state=0),
    SGDFactorization(n_components=2, epochs=5, random_state=0),
    ImplicitALSFactorization(n_components=2, random_state=0),
    MatrixImputer(n_components=2, random_state=0),
]


def expected_failures(estimator):
    """Return the checks that an estimator fails, each with the reason."""
    if isinstance(estimator, MatrixImputer):
        return {}
    reason = "predict returns all cells of each row, where a regressor returns one number per row"
    return dict.fromkeys(("check_estimator_sparse_array", "check_estimator_sparse_matrix"), reason)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_estimators__keep_the_rules(estimator, check):
    check(estimator)


def low_rank(rng, m=200, n=12, k=3, missing=0.2):
    """Return a table of rank k with noise, and the same with holes."""
    X = rng.normal(size=(m, k)) @ rng.normal(size=(k, n)) + rng.normal(size=n) * 10
    X += 0.01 * rng.normal(size=X.shape)
    holes = X.copy()
    holes[rng.random(X.shape) < missing] = np.nan
    return X, holes


def error(filled, X, holes):
    where = np.isnan(holes)
    return np.sqrt(np.mean((filled[where] - X[where]) ** 2))


def test_imputer__fills_in_better_than_neighbours(rng):
    X, holes = low_rank(rng)
    imputer = MatrixImputer(n_components=3, random_state=0)
    filled = imputer.fit_transform(holes)
    known = ~np.isnan(holes)
    np.testing.assert_array_equal(filled[known], holes[known])
    assert np.isfinite(filled).all()
    assert error(filled, X, holes) < 0.5 * error(KNNImputer().fit_transform(holes), X, holes)


def test_imputer__fills_in_new_rows(rng):
    X, holes = low_rank(rng, m=300)
    imputer = MatrixImputer(n_components=3, random_state=0).fit(holes[:200])
    assert error(imputer.transform(holes[200:]), X[200:], holes[200:]) < 0.5 * np.nanstd(X - X.mean(axis=0))
    empty = np.full((1, 12), np.nan)
    np.testing.assert_allclose(imputer.transform(empty), imputer.mean_[None], atol=1.0)


def test_imputer__keeps_names_and_takes_empty_columns(rng):
    pd = pytest.importorskip("pandas")
    _, holes = low_rank(rng)
    holes[:, 4] = np.nan
    frame = pd.DataFrame(holes, columns=[f"c{n}" for n in range(12)])
    filled = MatrixImputer(random_state=0).set_output(transform="pandas").fit_transform(frame)
    assert list(filled.columns) == list(frame.columns)
    assert filled.notna().all(axis=None)
    with pytest.raises(ValueError, match="X must have a known value, got none"):
        MatrixImputer().fit(np.full((3, 2), np.nan))


@pytest.mark.parametrize("estimator", ESTIMATORS[:3], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("form", [sparse.csr_array, sparse.coo_matrix, sparse.csc_matrix])
def test_factorizations__take_sparse_matrices_and_nan_alike(estimator, form):
    R = mf.datasets.synthetic(80, 40, 1200).to_scipy()
    dense = R.toarray()
    dense[dense == 0] = np.nan
    one, other = clone(estimator).fit(form(R)), clone(estimator).fit(dense)
    np.testing.assert_array_equal(one.components_, other.components_)
    np.testing.assert_array_equal(one.transform(form(R)), other.transform(dense))
    assert one.components_.shape == (2, 40)
    assert one.predict(form(R)).shape == (80, 40)
    np.testing.assert_allclose(one.score(form(R)), other.score(dense))


@pytest.mark.parametrize("biases", [False, True])
def test_factorizations__go_back_to_the_values(biases, rng):
    X, holes = low_rank(rng)
    estimator = ALSFactorization(n_components=4, biases=biases, random_state=0, regularization=1e-4)
    factors = estimator.fit_transform(holes)
    assert factors.shape == (200, 4 + biases)
    assert len(estimator.get_feature_names_out()) == factors.shape[1]
    np.testing.assert_allclose(estimator.inverse_transform(factors), estimator.predict(holes))
    assert error(estimator.predict(holes), X, holes) < 1.0
    with pytest.raises(ValueError, match=rf"X must have {4 + biases} columns, got 2"):
        estimator.inverse_transform(factors[:, :2])


def test_grid_search__finds_the_rank(rng):
    _, holes = low_rank(rng, m=300, n=20)
    search = GridSearchCV(
        ALSFactorization(biases=True, random_state=0, regularization=1e-3),
        {"n_components": [1, 3, 8]},
        cv=KFold(3, shuffle=True, random_state=0),
        n_jobs=2,
    )
    search.fit(holes)
    assert search.best_params_ == {"n_components": 3}
    assert search.best_score_ < 0


def test_pipeline__ends_with_an_estimator(rng):
    X, _ = low_rank(rng)
    pipeline = make_pipeline(StandardScaler(), ALSFactorization(n_components=3, random_state=0))
    assert pipeline.fit_transform(X).shape == (200, 3)
    with pytest.raises(TypeError, match=r"ALSFactorization\(\) has no argument n_factors"):
        ALSFactorization(n_factors=3)
