"""The layers of the package, and that what the documents show is true."""

import ast
import doctest
import importlib
import pkgutil
import re
import tomllib

import pytest

import mfkernel as mf
from mfkernel.cli import main
from tests.helpers import ROOT, quick
from tests.processes import run_python

MODULES = [name for _, name, _ in pkgutil.walk_packages(mf.__path__, "mfkernel.") if "__main__" not in name]


FORMER = {"mfkernel.factors", "mfkernel.ratings"}  # names that pickles of earlier versions know


def test_imports__go_downwards():
    """The contract is in pyproject.toml, under [tool.importlinter]."""
    done = run_python("from importlinter.cli import lint_imports; raise SystemExit(lint_imports())")
    assert done.returncode == 0, done.stdout


def test_imports__every_module_has_its_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = (
        set(re.findall(r"mfkernel\.\w+", " ".join(contracts[0]["layers"]))) | {"mfkernel.reference"} | FORMER
    )
    assert {".".join(name.split(".")[:2]) for name in MODULES} <= layered


@pytest.mark.parametrize(
    "name", quick(MODULES, *(name for name in MODULES if name != "mfkernel.evaluation.splits"))
)
def test_docstrings__examples_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_public_names__are_documented():
    assert all(getattr(mf, name).__doc__ for name in mf.__all__)


PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


OTHER_LIBRARIES = ("faiss", "fastapi", "hnswlib", "torch")  # of examples, and no dependencies of the tests


def examples_of_pages():
    """Yield a page and a block of Python for each block; its id is the page and the number of the block."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for n, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            yield pytest.param(page, block, id=f"{page}-{n}")


@pytest.mark.parametrize(("page", "block"), list(examples_of_pages()))
def test_pages__python_examples_run(page, block, tmp_path, monkeypatch):
    for name in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE):
        if name in OTHER_LIBRARIES:
            pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", [page for page in PAGES if "\nmfkernel " in (ROOT / page).read_text()])
def test_pages__commands_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    R = mf.datasets.synthetic(60, 40, 900)
    lines = (f"{u},{i},{r}\n" for u, i, r in zip(R.users, R.items, R.values, strict=True))
    (tmp_path / "ratings.csv").write_text("user,item,rating\n" + "".join(lines))
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
        for command in re.findall(r"^mfkernel (.*?)(?:  #.*)?$", block, re.MULTILINE):
            main(command.replace("USER", "1").split())
            assert capsys.readouterr().out, command


def test_pages__are_all_in_the_site():
    docs = ROOT / "docs"
    listed = {"docs/index.md"}
    for page in PAGES[1:]:
        for tree in re.findall(
            r"```\{toctree\}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL
        ):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {((ROOT / page).parent / f"{name}.md").relative_to(ROOT).as_posix() for name in names}
    assert listed == set(PAGES[1:])
    assert docs.joinpath("conf.py").exists()


def test_pages__name_all_that_is_public():
    pages = {
        page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("docs/api/")
    }
    estimators = set(re.findall(r"autoclass:: (\w+)", pages.pop("docs/api/sklearn.md")))
    source = (ROOT / "mfkernel/sklearn.py").read_text(encoding="utf-8")
    assert estimators | {"Factorization"} == set(re.findall(r"^class (\w+)", source, re.MULTILINE))
    named = set(re.findall(r"auto\w+:: (\w[\w.]*)", "".join(pages.values())))
    modules = {"datasets", "metrics", "plots"}
    assert named == (set(mf.__all__) - modules) | {f"mfkernel.{name}" for name in modules}


@pytest.mark.parametrize("page", PAGES)
def test_pages__links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", text):
        linked = (ROOT / page).parent / target if target else ROOT / page
        assert linked.exists(), f"{page} links {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {"#" + re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page} links {target}{anchor}"


def test_readme__fits_two_screens():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 120


def sources(*folders):
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_sources__compile_options_live_in_one_place():
    """`fastmath=True` would hide nan; a second place for options would break the cache."""
    for name, text in sources("mfkernel"):
        if name != "mfkernel/kernels/jit.py":
            assert not re.search(r"\b(njit|prange|fastmath=True)\b", text), name


def test_sources__numba_is_imported_by_kernels_only():
    for name, text in sources("mfkernel", "benchmarks"):
        if re.search(r"^ *(from|import) (numba|llvmlite)\b", text, re.MULTILINE):
            assert name.startswith("mfkernel/kernels/") or name == "benchmarks/probes.py", name


SOURCES = dict(sources("mfkernel", "benchmarks"))
MOST_LINES = 400  # of a file
MOST_CODE = 60  # lines of a function, without its docstring


def code_lines(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("name", SOURCES)
def test_sources__can_be_read_at_one_sitting(name):
    assert SOURCES[name].count("\n") <= MOST_LINES
    functions = [x for x in ast.walk(ast.parse(SOURCES[name])) if isinstance(x, ast.FunctionDef)]
    assert {x.name: code_lines(x) for x in functions if code_lines(x) > MOST_CODE} == {}


@pytest.mark.parametrize("name", SOURCES)
def test_sources__use_nothing_private_of_others(name):
    """A leading underscore is for the file alone; named tuples have public methods that begin with one."""
    text, tuples = SOURCES[name], {"_replace", "_asdict", "_fields"}
    own = set(re.findall(r"\b(?:def |class |self\.|cls\.)(_\w+)|^ *(_\w+)\s*[:=]", text, re.MULTILINE))
    known = tuples | {x for pair in own for x in pair}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            assert node.attr in known, f"{name}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("mfkernel", "benchmarks")):
            assert not [x.name for x in node.names if x.name.startswith("_") and x.name != "_support"]


WORKFLOWS = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
# what a job may change; none of these runs code of the project or of its dependencies
WRITERS = {
    ("page.yml", "keep"): {"contents"},
    ("page.yml", "deploy"): {"pages", "id-token"},
    ("release.yml", "publish"): {"id-token"},
}


def jobs():
    """Yield the name of the workflow, the name and the text of each job."""
    for workflow, text in WORKFLOWS.items():
        _, found = text.split("\njobs:\n")
        for job in re.split(r"^(?=  [\w-]+:\n)", found, flags=re.MULTILINE):
            if job.strip():
                yield workflow, job.split(":")[0].strip(), job


def test_workflows__call_steps_that_there_are():
    steps = set(re.findall(r"^    (\w+)\)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    called = re.findall(r"\.ci/run ([\w ]+)", "".join(WORKFLOWS.values()))
    assert steps == {step for line in called for step in line.split()}


def test_workflows__pin_each_action_to_a_commit():
    used = re.findall(r"uses: *(.*)", "".join(WORKFLOWS.values()))
    assert len(used) > 9
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line
    by_name = {line.split("@")[0]: line for line in used}
    assert set(used) == set(by_name.values()), "one version of each"


def test_workflows__leave_no_credentials_in_a_checkout():
    for workflow, name, job in jobs():
        checkouts = re.findall(r"uses: actions/checkout@.*\n(.*)", job)
        assert all(re.search(r"with: \{.*persist-credentials: false\}", line) for line in checkouts), (
            workflow,
            name,
        )


def test_workflows__give_each_job_the_least_permissions():
    assert len(list(jobs())) > 9
    for text in WORKFLOWS.values():
        assert re.findall(r"^permissions:.*", text, re.MULTILINE) == ["permissions: {}"]
    for workflow, name, job in jobs():
        (given,) = re.findall(r"^    permissions:\n((?:      [\w-]+: \w+\n)+)", job, re.MULTILINE)
        permissions = dict(line.strip().split(": ") for line in given.splitlines())
        writes = {what for what, how in permissions.items() if how != "read"}
        assert writes == WRITERS.get((workflow, name), set()), (workflow, name)
        assert set(permissions) - writes <= {"contents"}
        assert not writes or ".ci/" not in job
        assert re.search(r"^    timeout-minutes: \d+$", job, re.MULTILINE), (workflow, name)


def test_workflows__put_nothing_from_outside_into_a_script():
    for workflow, name, job in jobs():
        scripts = re.findall(r"- run: (\|\n(?:          .*\n)+|.*\n)", job)
        assert len(scripts) == job.count("run: ")
        assert "${{" not in "".join(scripts), (workflow, name)


def test_workflows__fetch_the_history_for_the_gate():
    (gate,) = (job for workflow, name, job in jobs() if name == "gate")
    assert "fetch-depth: 0" in gate
    assert "MFKERNEL_BASE:" in gate


def test_oldest_versions__are_those_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^(\w+)==([\d.]+)\.\*", oldest, re.MULTILINE)) == sorted(
        tuple(dependency.split(">=")) for dependency in package["dependencies"]
    )
