"""The options of the methods: one declaration, from which keywords, flags, settings and headers are made."""

import dataclasses
import inspect
import json
import pydoc
import re
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfkernel as mf
from mfkernel import cli
from mfkernel import typing as types
from mfkernel.cli.parser import make_parser
from mfkernel.methods import METHODS, Method, make_settings, read_settings
from mfkernel.options import Choice, Flag, Integer, PerSide, Real
from tests.helpers import ROOT, assert_same
from tests.toy_method import UserMeans, UserMeansTrainer

R = mf.datasets.synthetic(40, 30, 500)
KEYWORDS = {
    "sgd": types.SGDKeywords,
    "als": types.ALSKeywords,
    "implicit": types.ImplicitALSKeywords,
    "bayesian": types.BayesianKeywords,
}
SCREEN = 56  # lines


def kinds():
    return [method.options for method in METHODS.values()]


# all spellings


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("sgd", mf.SGD, {}),
        ("sgd", mf.SGD, {"biases": True, "learning_rate": 0.02, "regularization": (0.1, 0.2)}),
        ("als", mf.ALS, {}),
        ("als", mf.ALS, {"solver": "cg", "biases": True}),
        ("implicit", mf.ImplicitALS, {"alpha": 2.0, "regularization_per": "row"}),
        ("bayesian", mf.Bayesian, {}),
        ("bayesian", mf.Bayesian, {"epochs": 9, "burn_in": 2, "samples": 3}),
    ],
)
def test_factorize__means_the_same_in_all_spellings(name, kind, options):
    models = [
        mf.factorize(R, 4, name, rng=0, **options),
        mf.factorize(R, 4, method=name, rng=0, **options),
        mf.factorize(R, 4, kind(**options), rng=0),
        mf.factorize(R, 4, method=kind(), rng=0, **options),
    ]
    if name == "sgd":
        models.append(mf.factorize(R, 4, rng=0, **options))
    for model in models[1:]:
        assert_same(models[0], model)
        assert model.settings == models[0].settings
    assert type(models[0].settings) is kind


def test_factorize__can_repeat_a_fit_by_its_settings():
    model = mf.factorize(R, 4, "als", rng=0, regularization=0.1, biases=True)
    assert_same(model, mf.factorize(R, 4, model.settings, rng=0))


def test_settings__have_what_training_used():
    for name in METHODS:
        settings = mf.factorize(R, 4, name, rng=0).settings
        assert None not in settings.values().values()
        assert settings.epochs == len(mf.factorize(R, 4, name, rng=0).history)


def test_settings__cannot_be_changed_nor_made_without_a_method():
    for kind in kinds():
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().epochs = 3
        assert hash(kind()) == hash(kind())
    with pytest.raises(TypeError, match=r"make mf\.SGD, mf\.ALS, mf\.ImplicitALS or"):
        mf.Settings(epochs=3)


@pytest.mark.parametrize("method", [mf.SGD, mf.SGD.__name__, None, 3, {"sgd": 1}])
def test_factorize__names_the_methods(method):
    with pytest.raises((TypeError, ValueError), match="method must be one of 'sgd', 'als', 'implicit'"):
        mf.factorize(R, 4, method)


def test_factorize__names_the_methods_that_have_an_option():
    message = r"alpha is an option of ImplicitALS \(method='implicit'\), but not of SGD \(method='sgd'\)"
    with pytest.raises(TypeError, match=f"{message}, which has bias_learning_rate, .*, shuffle$"):
        mf.factorize(R, 4, alpha=2)
    with pytest.raises(TypeError, match=r"no argument solvr; pass solver"):
        mf.factorize(R, 4, mf.ALS(), solvr="cg")


# declarations


def test_keywords__are_the_fields():
    for name, keywords in KEYWORDS.items():
        hints, kind = typing.get_type_hints(keywords), METHODS[name].options
        own = set(hints) - set(types.FitKeywords.__annotations__)
        assert own == set(kind.names())
        fields = typing.get_type_hints(kind)
        assert {option: hints[option] for option in own} == {option: fields[option] for option in own}
    assert set(KEYWORDS) == set(METHODS) == set(typing.get_args(types.MethodName))


def test_keywords__of_all_methods_are_those_of_the_signature():
    parameters = inspect.signature(mf.factorize).parameters
    keyword_only = {name for name, x in parameters.items() if x.kind is x.KEYWORD_ONLY}
    assert keyword_only == set(types.FitKeywords.__annotations__)


def test_choices__are_those_of_the_types():
    for kind in kinds():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if isinstance(field.metadata["kind"], Choice):
                allowed = [x for x in typing.get_args(hints[field.name]) if x is not type(None)]
                names = [name for x in allowed for name in (typing.get_args(x) or (x,))]
                assert tuple(names) == field.metadata["kind"].names


def test_help__fits_a_screen():
    for thing in (mf.factorize, *kinds()):
        assert inspect.getdoc(thing).count("\n") < SCREEN, thing
    for kind in kinds():
        text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
        for field in dataclasses.fields(kind):
            assert re.search(rf"^ \|  {field.name}\n \|      \w", text, re.MULTILINE), field.name


def test_flags__are_made_of_the_fields():
    commands = make_parser()._subparsers._group_actions[0].choices
    for command in ("factorize", "select-rank"):
        flags = {action.dest for action in commands[command]._actions}
        for kind in kinds():
            assert (command == "select-rank" and kind.implicit) or set(kind.names()) <= flags


# values

WRONG = {
    Integer: [-1, 0, 1.5, True, "3"],
    Real: [-1, np.inf, np.nan, "much", True],
    PerSide: [-1, (1,), (1, 2, 3), (0, np.nan), "much"],
    Flag: [1, "yes", None],
    Choice: ["nothing", 3, ""],
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in kinds() for field in dataclasses.fields(kind)],
    ids=lambda x: getattr(x, "name", None) or x.__name__,
)
def test_options__refuse_what_they_may_not_be_by_name(kind, field):
    for value in WRONG[type(field.metadata["kind"])]:
        if value == getattr(field.metadata["kind"], "least", None):
            continue
        with pytest.raises((TypeError, ValueError), match=f"^{field.name}"):
            kind(**{field.name: value})
        with pytest.raises((TypeError, ValueError), match=f"^{field.name}"):
            mf.factorize(R, 4, kind.method, **{field.name: value})


def values_of(field):
    kind = field.metadata["kind"]
    strategies = {
        Integer: lambda: st.integers(kind.least, 10**6),
        Real: lambda: st.floats(1e-9, 1.0),
        PerSide: lambda: st.floats(0, 1e9) | st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
        Flag: st.booleans,
        Choice: lambda: st.sampled_from(kind.names),
    }
    values = strategies[type(kind)]()
    return st.none() | values if field.default is None else values


@st.composite
def settings(draw):
    kind = draw(st.sampled_from(kinds()))
    options = {field.name: draw(values_of(field)) for field in dataclasses.fields(kind)}
    try:
        return kind(**options)
    except ValueError:  # options that exclude one another
        return kind(epochs=options["epochs"])


@given(given_settings=settings())
def test_header__keeps_all(given_settings):
    header = {"settings": {"method": given_settings.method, **given_settings.values()}, "missing": "nan"}
    assert read_settings(json.loads(json.dumps(header))) == {"settings": given_settings, "missing": "nan"}


def test_header__of_earlier_versions_is_read():
    common = {
        "biases": False, "loss": "squared", "huber_delta": None, "learning_rate": None, "decay": "cosine",
        "regularization": [0.1, 0.2], "bias_learning_rate": None, "bias_regularization": 0.02,
        "l1": [0.0, 0.0], "nonnegative": False, "adapts": True, "weighted": False, "solver": None,
        "alpha": 1.0, "unobserved_weight": 1.0, "missing": "nan",
    }  # fmt: skip
    expected = {
        "sgd": mf.SGD(regularization=(0.1, 0.2), decay="cosine", bias_regularization=0.02),
        "als": mf.ALS(regularization=(0.1, 0.2), bias_regularization=0.02, regularization_per="row"),
        "implicit": mf.ImplicitALS(regularization=(0.1, 0.2), regularization_per="row"),
    }
    for name, known in expected.items():
        found = read_settings({"settings": common | {"method": name}})
        assert found == {"settings": known, "missing": "nan"}
    weighted = read_settings({"settings": common | {"method": "als", "weighted": True, "solver": "cg"}})
    assert weighted["settings"].regularization_per == "rating"
    assert weighted["settings"].solver == "cg"
    assert read_settings({}) == {"settings": mf.SGD(), "missing": "zero"}
    with pytest.raises(ValueError, match=r"settings of ALS \(method='als'\) must not have loss"):
        read_settings({"settings": common | {"method": "als", "loss": "huber"}})


def test_grid_search__takes_options_and_methods():
    grid = {"learning_rate": [0.01, 0.02], "method": [mf.SGD(), mf.SGD(biases=True)]}
    found = mf.grid_search(R, grid, 2, rng=0, k=2, epochs=2)
    assert len(found.settings) == 4
    assert not np.isnan(found.test_rmse).any()
    mixed = mf.grid_search(R, {"method": [mf.SGD(biases=True), mf.ALS(), "als"]}, 2, rng=0, k=2)
    np.testing.assert_array_equal(mixed.test_rmse[1], mixed.test_rmse[2])
    with pytest.raises(ValueError, match="method must be for known ratings, or for"):
        mf.grid_search(R, {"method": [mf.ALS(), mf.ImplicitALS()]}, 2, k=2)


# a method more


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setitem(METHODS, "user-means", Method(UserMeans, UserMeansTrainer))


@pytest.mark.usefixtures("with_toy")
def test_method__is_added_by_one_file_and_one_line(tmp_path, capsys):
    with pytest.warns(UserWarning, match="above .* of the mean and biases alone; try fewer factors"):
        model = mf.factorize(R, 2, "user-means", damping=2.0, validation=0.1, rng=0)
    assert model.settings == UserMeans(damping=2.0, epochs=1)
    assert model.history[-1].validation_rmse < R.std
    model.save(tmp_path / "toy.npz")
    assert mf.load(tmp_path / "toy.npz").settings == model.settings
    assert mf.grid_search(R, {"damping": [1, 1e6]}, 2, rng=0, k=1, method="user-means").best == {"damping": 1}
    with pytest.raises(TypeError, match=r"option of UserMeans \(method='user-means'\), but not of SGD"):
        mf.factorize(R, 2, damping=1)
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating\na,x,5\na,y,3\nb,x,1\nb,y,2\n", encoding="utf-8")
    cli.main(["factorize", str(path), "-k", "2", "-q", "--method", "user-means", "--damping", "0"])
    assert "RMSE" in capsys.readouterr().out
    assert make_settings(UserMeans(), {"rounded": True}) == UserMeans(rounded=True)


def test_sources__do_not_ask_which_method_it_is():
    """Whoever adds a method adds a file; nobody has to look for places that compare names or classes."""
    names, classes = "|".join(METHODS), "|".join(kind.__name__ for kind in kinds())
    asks = re.compile(
        rf"""[=!]=\s*["']({names})["']|["']({names})["']\s*[=!]=|["']({names})["'] (not )?in\b"""
        rf"""|\.method\b\s*([=!]=|in\b|not\b)|isinstance\([^)]*\b({classes})\b"""
    )
    for path in (ROOT / "mfkernel").rglob("*.py"):
        if path.parent.name != "methods" and path.name != "options.py":
            assert not asks.search(path.read_text(encoding="utf-8")), path
