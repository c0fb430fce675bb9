"""Plots: the values that they draw, the labels beside them, and what they refuse."""

import itertools
import re
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from benchmarks import gallery
from tests.helpers import ROOT, examples
from tests.processes import output_of

pyplot = pytest.importorskip("matplotlib.pyplot")
Text = pytest.importorskip("matplotlib.text").Text


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def parts(ratings):
    return mf.train_test_split(ratings, 0.3, rng=0)


@pytest.fixture(scope="module")
def model(parts):
    with warnings.catch_warnings(action="ignore"):  # few ratings: the biases alone predict as well
        return mf.factorize(parts[0], 4, biases=True, rng=0, epochs=8, validation=parts[1], patience=8)


@pytest.fixture
def ax():
    """Axes of a figure 390 pixels wide, as on a telephone."""
    return pyplot.subplots(figsize=(3.9, 3), dpi=100, layout="constrained")[1]


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found.get_xydata()


def records(*epochs):
    """Return a history from (epoch, rmse, validation RMSE, rolled back to)."""
    return [mf.Epoch(n, rmse, 0.1, 0.1, error, back) for n, rmse, error, back in epochs]


def with_history(*epochs, **options):
    return mf.Factors([[1.0, 2.0]], [[3.0], [4.0]], history=records(*epochs), **options)


# learning curve


def test_learning_curve__draws_the_history(model, ax):
    assert mf.plots.learning_curve(model, ax) is ax
    history = model.history
    np.testing.assert_array_equal(line(ax, "training"), [(e.epoch, e.rmse) for e in history])
    np.testing.assert_array_equal(line(ax, "validation"), [(e.epoch, e.validation_rmse) for e in history])
    best = min(history, key=lambda e: e.validation_rmse)
    np.testing.assert_array_equal(line(ax, "best"), [(best.epoch, best.validation_rmse)])
    assert f"best epoch, {best.epoch}" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "RMSE (unit of the ratings)")


def test_learning_curve__leaves_out_epochs_that_were_undone():
    model = with_history((1, 1.0, 2.0, None), (2, 0.9, 1.0, None), (3, np.inf, None, 1), (2, 0.8, 1.5, None))
    ax = mf.plots.learning_curve(model)
    assert line(ax, "training").tolist() == [[1, 1.0], [2, 0.8]]
    assert line(ax, "best").tolist() == [[2, 1.5]]
    assert line(ax, "diverged, undone")[:, 0].tolist() == [3]


def test_learning_curve__without_validation_has_one_line(parts):
    ax = mf.plots.learning_curve(mf.factorize(parts[0], 2, epochs=2, rng=0))
    assert [line.get_label() for line in ax.lines] == ["training"]


def test_learning_curve__of_implicit_feedback_has_an_axis_for_ndcg(parts):
    model = mf.factorize(parts[0], 4, "implicit", epochs=4, rng=0, validation=0.2)
    ax = mf.plots.learning_curve(model)
    left, right = ax.figure.axes
    assert left is ax
    np.testing.assert_allclose(line(right, "validation")[:, 1], [e.validation_ndcg for e in model.history])
    assert line(right, "best")[0, 1] == max(e.validation_ndcg for e in model.history)
    assert "NDCG" in right.get_ylabel()
    assert len(ax.get_legend().get_texts()) == 3


def test_learning_curve__of_the_logistic_loss_names_its_unit(parts):
    R = parts[0].with_values(np.where(parts[0].values > 3, 1.0, 0.0))
    ax = mf.plots.learning_curve(mf.factorize(R, 2, loss="logistic", epochs=2, rng=0))
    assert ax.get_ylabel() == "RMSE (probability)"


# rank curve


def test_rank_curve__draws_means_and_the_selected_k(ax):
    test, train = np.array([[3.0, 3.2], [1.0, 1.2], [1.0, 1.1]]), np.array([[2.0, 4.0], [1, 1], [0, 1]])
    found = mf.RankSelection([{"k": k} for k in (1, 4, 16)], np.stack([train, test, test]))
    assert found.plot(ax) is ax
    np.testing.assert_array_equal(line(ax, "training"), [(1, 3), (4, 1), (16, 0.5)])
    (bars,) = ax.containers
    data, _, (errors,) = bars
    np.testing.assert_array_equal(data.get_xydata(), np.stack([found.ks, found.mean], axis=1))
    spans = np.array([segment[:, 1] for segment in errors.get_segments()])
    np.testing.assert_allclose((spans[:, 1] - spans[:, 0]) / 2, found.standard_error)
    assert line(ax, f"selected k, {found.k}")[0, 0] == found.k == 4
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "4", "16"]


# predictions and calibration


def test_predicted_against_actual__points_are_ratings_and_predictions(model, parts, ax):
    few = parts[1].select(np.arange(parts[1].nnz) < 500)
    mf.plots.predicted_against_actual(model, few, ax)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.transpose(model.expected(few)))
    assert ax.get_title() == f"RMSE {model.rmse(few):#.4g} of 500 ratings"
    diagonal = line(ax, "prediction = rating")
    assert (diagonal[:, 0] == diagonal[:, 1]).all()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_predicted_against_actual__cells_count_all_ratings(noise, model, ratings, ax):
    more = ratings.with_values(ratings.values + noise * np.random.default_rng(0).normal(size=ratings.nnz))
    mf.plots.predicted_against_actual(model, more, ax)
    (cells,) = ax.collections
    counts = cells.get_array()
    assert counts.sum() == more.nnz
    assert counts.shape[1] == (5 if noise == 0 else 40)
    if noise == 0:
        assert cells.get_coordinates()[0, :, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
        np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(more.values.astype(int))[1:])


def test_predicted_against_actual__of_many_equal_ratings_draws(model, ratings):
    equal = ratings.with_values(np.full(ratings.nnz, 3.0))
    mf.plots.predicted_against_actual(model, equal).figure.canvas.draw()


def test_calibration__bins_have_equal_counts_means_and_standard_errors(model, parts, ax):
    mf.plots.calibration(model, parts[1], bins=6, ax=ax)
    values, predicted = (x.astype(float) for x in model.expected(parts[1]))
    order = np.argsort(predicted)
    groups = np.array_split(order, 6)
    (bars,) = ax.containers
    data, _, (errors,) = bars
    np.testing.assert_allclose(data.get_xdata(), [predicted[g].mean() for g in groups], rtol=1e-12)
    np.testing.assert_allclose(data.get_ydata(), [values[g].mean() for g in groups], rtol=1e-12)
    spans = np.array([segment[:, 1] for segment in errors.get_segments()])
    expected = [values[g].std(ddof=1) / np.sqrt(g.size) for g in groups]
    np.testing.assert_allclose((spans[:, 1] - spans[:, 0]) / 2, expected, rtol=1e-9)


@examples(50)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(1, 15))
def test_calibration__each_rating_is_in_one_bin(predictions, bins):
    """Also with equal predictions, and more bins than ratings."""
    model = mf.Factors([[1.0]], [predictions])
    R = mf.Ratings([np.arange(len(predictions)) + 1.0])
    ax = mf.plots.calibration(model, R, bins)
    found = ax.containers[0][0].get_xydata()
    assert (np.diff(found[:, 0]) > 0).all()
    assert 1 <= len(found) <= min(bins, len(set(predictions)))
    assert min(predictions) <= found[0, 0] <= found[-1, 0] <= max(predictions)
    pyplot.close("all")


# map of items


def test_item_map__has_the_principal_axes_of_the_unit_factors(model, ax):
    chosen = np.arange(0, 60, 3)
    mf.plots.item_map(model, chosen, ax=ax)
    Q = model.Q.T[chosen].astype(float)
    unit = Q / np.linalg.norm(Q, axis=1, keepdims=True)
    variances, axes = np.linalg.eigh(np.cov(unit.T))
    shares = variances[::-1] / variances.sum()
    shown = ax.lines[0].get_xydata()
    for n in (0, 1):
        axis = axes[:, -1 - n] * np.sign(axes[np.abs(axes[:, -1 - n]).argmax(), -1 - n])
        np.testing.assert_allclose(shown[:, n], (unit - unit.mean(axis=0)) @ axis, atol=1e-6)
    assert ax.get_xlabel() == f"axis 1 ({shares[0]:.0%} of the variance)"
    assert ax.get_ylabel() == f"axis 2 ({shares[1]:.0%} of the variance)"


def test_item_map__shows_the_most_rated_items_by_id(ratings):
    names = np.array([f"film {n}" for n in range(ratings.n_items)])
    model = mf.factorize(mf.Ratings(ratings, item_ids=names), 3, rng=0, epochs=3)
    ax = mf.plots.item_map(model, labels={"film 3": "Solaris $5"})
    most = np.argsort(-ratings.item_counts(), kind="stable")[:40]
    assert len(ax.lines[0].get_xydata()) == 40
    expected = {"Solaris $5" if n == 3 else f"film {n}" for n in most}
    assert {text.get_text() for text in ax.texts} <= expected
    assert len(ax.texts) > 30


@pytest.mark.parametrize("width", [3.9, 6.4])
def test_item_map__labels_are_inside_and_apart(width, model):
    figure, ax = pyplot.subplots(figsize=(width, 3), dpi=100, layout="constrained")
    mf.plots.item_map(model, labels={n: f"item number {n}" for n in range(model.shape[1])}, ax=ax)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
    assert len(boxes) >= 8
    for n, box in enumerate(boxes):
        assert all(min(b.x1, box.x1) - max(b.x0, box.x0) < 1 or not b.overlaps(box) for b in boxes[:n])
        assert ax.bbox.x0 - 1 <= box.x0 <= box.x1 <= ax.bbox.x1 + 1
        assert ax.bbox.y0 - 1 <= box.y0 <= box.y1 <= ax.bbox.y1 + 1


def test_item_map__shortens_long_labels_and_is_the_same_each_time(model):
    labels = ["a title of many words that never ends", "b", "c"]
    one, two = (mf.plots.item_map(model, [4, 5, 9], labels) for _ in range(2))
    assert [text.get_text() for text in one.texts] == ["a title of many words t…", "b", "c"]
    np.testing.assert_array_equal(one.lines[0].get_xydata(), two.lines[0].get_xydata())


def test_interval_coverage__counts_the_ratings_within_each_interval(parts, ax):
    model = mf.factorize(parts[0], 4, "bayesian", epochs=20, rng=0)
    mf.plots.interval_coverage(model, parts[1], ax=ax)
    probabilities, shares = ax.lines[1].get_data()
    for probability, share in zip(probabilities, shares, strict=True):
        found = model.predict(parts[1].users, parts[1].items, interval=probability)
        inside = (found.lower <= parts[1].values) & (parts[1].values <= found.upper)
        assert share == pytest.approx(inside.mean(), abs=2 / parts[1].nnz)


# all plots


def draw_all(model, R, ax):
    selection = mf.RankSelection([{"k": 100}, {"k": 2000}], np.ones((3, 2, 2)))
    yield mf.plots.learning_curve(model, ax())
    yield mf.plots.rank_curve(selection, ax())
    yield mf.plots.predicted_against_actual(model, R, ax())
    yield mf.plots.calibration(model, R, ax=ax())
    yield mf.plots.interval_coverage(mf.factorize(R, 2, "bayesian", epochs=4, rng=0), R, ax=ax())
    yield mf.plots.item_map(model, ax=ax())


@pytest.mark.parametrize("width", [3.9, 6.4])
def test_plots__no_text_is_cut_off(width, model, parts):
    def new():
        return pyplot.subplots(figsize=(width, 3), dpi=100, layout="constrained")[1]

    for ax in draw_all(model, parts[1], new):
        figure = ax.figure
        figure.canvas.draw()
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, ax.get_legend()):
            box = None if text is None else text.get_window_extent()
            assert box is None or (box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1), text
        ticks = [x.get_window_extent() for x in ax.get_xticklabels() if x.get_visible()]
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(ticks))


def test_plots__make_a_figure_without_axes(model, parts):
    axes = list(draw_all(model, parts[1], lambda: None))
    assert len({ax.figure.number for ax in axes}) == len(axes) == 6


def refused(model, R):
    plain, implicit = mf.Factors([[1.0]], [[2.0, 3.0]]), mf.factorize(R, 2, "implicit", epochs=1, rng=0)
    no_factors = mf.Factors([[1.0, 1.0]], [[0.0, 1.0], [0.0, 2.0]])
    plots = mf.plots
    return [
        (lambda: plots.learning_curve(3), TypeError, "model must be mf.Factors, got int"),
        (lambda: plots.learning_curve(plain), ValueError, "model must have a history"),
        (lambda: plots.learning_curve(model, 3), TypeError, "ax must be matplotlib Axes, got int"),
        (lambda: plots.rank_curve(model), TypeError, "selection must be a result of mf.select_rank"),
        (lambda: plots.predicted_against_actual(implicit, R), ValueError, "one of implicit feedback"),
        (lambda: plots.predicted_against_actual(model, [[1.0]]), ValueError, "shape"),
        (lambda: plots.calibration(implicit, R), ValueError, "one of implicit feedback"),
        (lambda: plots.calibration(model, R, 0), ValueError, "bins must be at least 1, got 0"),
        (lambda: plots.calibration(model, R, 2.5), TypeError, "bins must be an integer, got 2.5"),
        (lambda: plots.interval_coverage(model, R), ValueError, "model must have samples, got none"),
        (lambda: plots.item_map(plain, [0, 1]), ValueError, "at least 2 factors for a map, got 1"),
        (lambda: plots.item_map(no_factors), ValueError, "items must be given"),
        (lambda: plots.item_map(no_factors, [0, 1]), ValueError, "got zeros for 0; leave it out"),
        (lambda: plots.item_map(model, [1]), ValueError, "items must be at least 2, got 1"),
        (lambda: plots.item_map(model, [[1, 2]]), ValueError, r"got the shape \(1, 2\)"),
        (lambda: plots.item_map(model, [1, 10**6]), ValueError, "items"),
        (lambda: plots.item_map(model, [1, 2], ["a"]), ValueError, "one text per item, 2 of them, got 1"),
        (lambda: plots.item_map(model, [1, 2], "ab"), ValueError, "one text per item, 2 of them, got 'ab'"),
        (lambda: plots.item_map(model, labels=["a"]), TypeError, "labels must be a dict"),
    ]


@pytest.mark.parametrize("case", range(19))
def test_plots__refuse(case, model, parts):
    call, error, message = refused(model, parts[0])[case]
    with pytest.raises(error, match=message):
        call()


def test_plots__matplotlib_is_imported_by_the_first_plot():
    code = "import sys, mfkernel as mf; print(mf.plots.__name__, 'matplotlib' in sys.modules)"
    assert output_of(code) == "mfkernel.plots False"


def test_plots__name_the_extra_without_matplotlib(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"mfkernel.plots needs matplotlib: pip install 'mfkernel\[plot\]'"):
        mf.plots.learning_curve(model)


def test_gallery__has_a_picture_per_plot():
    blocks = gallery.BLOCK.findall(gallery.PAGE.read_text(encoding="utf-8"))
    drawn = {name for code, _ in blocks for name in re.findall(r"mf\.plots\.(\w+)", code)}
    source = (ROOT / "mfkernel" / "plots.py").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"^def ([a-z]\w+)", source, re.MULTILINE))
    assert all((ROOT / "docs" / path).stat().st_size > 1000 for _, path in blocks)


def test_item_map__draws_in_a_part_of_a_figure(model):
    left, _ = pyplot.figure().subfigures(1, 2)
    assert len(mf.plots.item_map(model, ax=left.subplots()).texts) > 5


def test_rank_curve__shows_the_ndcg_of_implicit_feedback():
    figures = np.stack([[[0.2, 0.3], [0.5, 0.6]]] * 3)
    ax = mf.plots.rank_curve(mf.RankSelection([{"k": 2}, {"k": 4}], figures, "ndcg"))
    assert "NDCG" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1].startswith("test")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0.55])
