"""How objects look in a notebook, and what dir and help show."""

import inspect
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from tests.helpers import examples
from tests.samples import drawn_ratings


class Table(HTMLParser):
    """The rows of a table as lists of text; tags must be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open, self.tags = [], [], set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


ALLOWED_TAGS = {"table", "caption", "b", "thead", "tbody", "tfoot", "tr", "th", "td"}


def table(shown):
    html = shown._repr_html_()
    found = Table(html)
    assert found.tags <= ALLOWED_TAGS, "no scripts and no styles of the page"
    assert "color" not in html
    assert "background" not in html
    return found


def facts(shown):
    return dict(table(shown).rows)


def test_ratings__show_size_density_and_ids(ratings):
    found = facts(ratings)
    assert found["users × items"] == "300 × 200"
    assert found["ratings"] == "6,000, 10 % of the cells"
    assert found["mean ± spread"] == f"{ratings.mean:.4g} ± {ratings.std:.4g}"
    assert (found["ids"], found["weights"], found["dtype"]) == ("no", "no", "float32")
    named = mf.Ratings([[1.0, 2.0]], user_ids=["a"], sample_weight=[[1, 2]])
    assert (facts(named)["ids"], facts(named)["weights"]) == ("yes, of users", "yes")


@examples(30)
@given(drawn_ratings())
def test_ratings__of_any_shape_are_shown(R):
    found = facts(R)
    assert found["ratings"].startswith(f"{R.nnz:,}, ")
    assert "%" in found["ratings"]


def test_ratings__without_ratings_are_shown():
    assert facts(mf.Ratings(np.zeros((0, 3))))["ratings"] == "0, no cells"
    assert facts(mf.Ratings(np.zeros((2, 3))))["mean ± spread"] == "no ratings"


def test_model__shows_method_settings_epochs_and_errors(ratings):
    ids = np.array([f"i{n}" for n in range(200)])
    R = mf.Ratings(ratings, item_ids=ids)
    model = mf.factorize(R, 2, "als", biases=True, rng=0, epochs=3, validation=ratings)
    found = facts(model)
    best = min(model.history, key=lambda e: e.validation_rmse)
    assert found["users × items"] == "300 × 200"
    assert found["factors"] == "2 and biases, float32"
    assert found["ids"] == "yes, of items"
    assert found["method"] == "als"
    assert "epochs=3, " in found["settings"]
    assert "biases=True" in found["settings"]
    assert found["epochs"] == "3"
    assert found["training RMSE"] == f"{model.history[-1].rmse:.4g}"
    assert found["validation RMSE"] == f"{best.validation_rmse:.4g}, best epoch {best.epoch}"
    assert found["ended by"] == "epochs"


def test_model__shows_the_ndcg_of_implicit_feedback(ratings):
    model = mf.factorize(ratings, 2, "implicit", epochs=2, rng=0, validation=0.2)
    best = max(e.validation_ndcg for e in model.history)
    assert facts(model)["validation NDCG"].startswith(f"{best:.4g}, best epoch")


def test_model__counts_epochs_that_were_undone(ratings):
    with pytest.warns(UserWarning, match="diverged"):
        model = mf.factorize(ratings, 4, learning_rate=7, decay="cosine", biases=True, rng=0)
    undone = sum(e.rolled_back_to is not None for e in model.history)
    assert facts(model)["epochs"] == f"{model.history[-1].epoch}, {undone} more were undone"


def test_model__without_history_is_shown():
    found = facts(mf.Factors([[1.0]], [[2.0, 3.0]]))
    assert found["epochs"] == "no record of the training"
    assert found["training ratings"] == "none"


def test_recommendations__are_one_row_each(ratings):
    model = mf.factorize(ratings, 4, rng=0, epochs=2)
    answer = model.recommend([3, 5], 4)
    head, *rows = table(answer).rows
    assert head == ["for", "place", "item", "score"]
    assert [row[:3] for row in rows] == [
        [str(user), str(place + 1), str(answer.items[n, place])]
        for n, user in enumerate((3, 5))
        for place in range(4)
    ]
    assert table(model.recommend(3, 2)).rows[1][0] == "3"
    assert table(model.recommend(np.arange(30), 10)).rows[-1] == ["and 250 more; to_frame returns all"]


@examples(30)
@given(st.lists(st.text("<>&\"'ab/script ", min_size=1), min_size=2, max_size=2, unique=True))
def test_tables__escape_ids(names):
    model = mf.Factors([[1.0]], [[2.0, 3.0]], user_ids=["<script>alert(1)</script>"], item_ids=names)
    rows = table(model.recommend("<script>alert(1)</script>", 2, exclude_seen=False)).rows[1:]
    assert rows[0][0] == "<script>alert(1)</script>"
    assert {row[2] for row in rows} == set(names)


# dir and help


def test_dir__lists_what_is_public():
    assert set(dir(mf)) == {*mf.__all__, "__version__", "sklearn"}
    assert all(hasattr(mf, name) for name in mf.__all__)


def test_sklearn__is_imported_when_it_is_asked_for(monkeypatch):
    pytest.importorskip("sklearn")
    assert mf.sklearn.MatrixImputer.__module__ == "mfkernel.sklearn"
    monkeypatch.delattr(mf, "sklearn")
    monkeypatch.setitem(sys.modules, "mfkernel.sklearn", None)
    assert not hasattr(mf, "sklearn")
    with pytest.raises(AttributeError, match="no attribute 'factorise'"):
        mf.factorise  # noqa: B018


def public_callables():
    for name in mf.__all__:
        found = getattr(mf, name)
        if inspect.isclass(found) and not issubclass(found, BaseException):
            yield name, found
        if inspect.isfunction(found):
            yield name, found
        if inspect.ismodule(found) or inspect.isclass(found):
            for inner, value in inspect.getmembers(found):
                is_function = inspect.isfunction(value) or inspect.ismethod(value)
                if is_function and inner[0] != "_" and value.__module__.startswith("mfkernel."):
                    yield f"{name}.{inner}", value


def test_signatures__fit_in_a_few_lines():
    found = {name: str(inspect.signature(value)) for name, value in public_callables()}
    assert {"factorize", "Factors", "Factors.recommend", "Ratings.take_rows", "plots.item_map"} <= set(found)
    assert {name: len(text) for name, text in found.items() if len(text) > 900} == {}
    internal = ("Buffer", "_SupportsArray", "_dtype_like", "_array_like", "numpy._typing")
    assert [name for name, text in found.items() if any(word in text for word in internal)] == []
