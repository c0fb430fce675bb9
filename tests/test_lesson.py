"""The lesson: a valid notebook without outputs, whose cells run one after the other."""

import json
import re
import warnings

import numpy as np
import pytest

from tests.helpers import ROOT
from tests.test_words import hits, without_fences

PATH = ROOT / "docs" / "lesson.ipynb"
LESSON = json.loads(PATH.read_text(encoding="utf-8"))
TEXT, CODE = (
    ["".join(cell["source"]) for cell in LESSON["cells"] if cell["cell_type"] == kind]
    for kind in ("markdown", "code")
)


def test_lesson__is_a_notebook_of_format_4():
    assert set(LESSON) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (LESSON["nbformat"], LESSON["nbformat_minor"]) == (4, 5)
    assert LESSON["metadata"]["kernelspec"]["name"] == "python3"
    common = {"cell_type", "id", "metadata", "source"}
    for cell in LESSON["cells"]:
        more = {"markdown": set(), "code": {"execution_count", "outputs"}}[cell["cell_type"]]
        assert set(cell) == common | more
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") and line.count("\n") == 1 for line in cell["source"][:-1])
        assert re.fullmatch(r"[\w-]{1,64}", cell["id"])
    assert len({cell["id"] for cell in LESSON["cells"]}) == len(LESSON["cells"])


def test_lesson__is_valid_for_nbformat():
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.reads(PATH.read_text(encoding="utf-8"), as_version=4))


def test_lesson__has_no_outputs():
    cells = [cell for cell in LESSON["cells"] if cell["cell_type"] == "code"]
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in cells)


def test_lesson__has_a_solution_per_exercise():
    exercises = re.findall(r"\*\*Exercise (\d)\.\*\*", "".join(TEXT))
    assert exercises == re.findall(r"^# Exercise (\d)$", "\n".join(CODE), re.MULTILINE)
    assert len(exercises) == 5


def test_lesson__avoids_the_words_of_the_ratchet():
    assert [found for text in TEXT for found in hits(1, without_fences(text))] == []


def test_lesson__links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", "".join(TEXT)):
        assert (ROOT / "docs" / target).exists(), target


def test_lesson__cells_run_in_order_and_say_what_is_true(capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    names = {}
    with warnings.catch_warnings(action="error"):
        for number, code in enumerate(CODE):
            exec(compile(code, f"cell {number} of {PATH.name}", "exec"), names)
    pyplot.close("all")
    out = capsys.readouterr().out
    assert "callback after epoch" in out
    free, penalized = (names[name].history for name in ("free", "penalized"))
    assert min(e.validation_rmse for e in penalized) < min(e.validation_rmse for e in free)
    assert free[-1].validation_rmse > min(e.validation_rmse for e in free), "it overfits"
    similar = set(names["liked"].similar_items("Alien", 5).items)
    assert similar == set(names["films"][1:6])
    np.testing.assert_allclose(names["model"].P, names["P"], rtol=1e-9)
