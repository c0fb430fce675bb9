"""The docstrings of the public names, checked by numpydoc: a ratchet that may only be tightened.

Each name must have exactly as many faults of a kind as ``ALLOWED`` says. A better docstring therefore lowers
a number, by ``python -m tests.test_docstrings --update``. Without ``--update``, the command lists all faults.
"""

import inspect
import re

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import mfkernel as mf
from tests.test_words import compare, main

CODES = {
    "GL08",  # no docstring
    "SS01",  # no summary
    "SS03",  # the summary does not end with a full stop
    "SS06",  # the summary has more than one line
    "PR01",  # a parameter is not documented
    "PR02",  # a documented parameter does not exist
    "PR03",  # the parameters are documented in another order
    "PR07",  # a parameter has no description
    "RT01",  # what is returned is not documented
    "RT03",  # what is returned has no description
}

ALLOWED: dict[str, int] = {}


def members(kind):
    """Return the members of a class and of its bases in mfkernel."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith("mfkernel.")]
    return {name: value for base in reversed(bases) for name, value in vars(base).items()}


def public_names():
    """Yield the public functions and classes, with methods, properties and the functions of modules."""
    for name in mf.__all__:
        found = getattr(mf, name)
        if inspect.ismodule(found):
            for inner, value in vars(found).items():
                if inspect.isfunction(value) and value.__module__ == found.__name__ and inner[0] != "_":
                    yield f"mfkernel.{name}.{inner}"
        else:
            yield f"mfkernel.{name}"
            if inspect.isclass(found):
                for inner, value in members(found).items():
                    if inner[0] != "_" and (
                        callable(value) or isinstance(value, property | classmethod | staticmethod)
                    ):
                        yield f"mfkernel.{name}.{inner}"


def faults(name):
    """Yield code and text of each fault in the docstring of a name, one fault per parameter."""
    result = validate(name)
    documented = NumpyDocString(result["docstring"] or "")
    fields = {field for parameter in documented["Attributes"] for field in re.findall(r"\w+", parameter.name)}
    for code, text in result["errors"]:
        if code not in CODES:
            continue
        if code == "RT01" and documented["Summary"][0].startswith("Return "):
            continue  # the summary says it
        if code in ("PR01", "PR02"):
            for parameter in sorted(set(re.findall(r"'\**(\w+)'", text)) - fields):
                yield code, f"{name}: {code} {parameter}"
        else:
            yield code, f"{name}: {code} {text}"


def faults_per_name():
    """Return the faults of each name and kind that has some."""
    found = {}
    for name in public_names():
        for code, text in faults(name):
            found.setdefault(f"{name} {code}", []).append(text)
    return found


def test_docstrings__document_parameters_and_results():
    compare(faults_per_name(), ALLOWED, "python -m tests.test_docstrings")


def sample(first, second=None):
    """Say something.

    Parameters
    ----------
    first
        One.
    third
        Three.
    """
    return first, second


def silent(first): ...


@pytest.mark.parametrize(("name", "codes"), [("sample", ["PR01", "PR02", "RT01"]), ("silent", ["GL08"])])
def test_docstrings__faults_are_found(name, codes):
    assert sorted(code for code, _ in faults(f"tests.test_docstrings.{name}")) == codes


def test_docstrings__public_names_are_found():
    names = set(public_names())
    assert {
        "mfkernel.factorize",
        "mfkernel.Factors",
        "mfkernel.Factors.predict",
        "mfkernel.metrics.rmse",
    } <= names
    assert len(names) > 50


if __name__ == "__main__":
    main(__file__, faults_per_name())
