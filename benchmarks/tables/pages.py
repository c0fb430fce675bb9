"""The pages that show tables, each table between two marks."""

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import repository, store
from benchmarks.tables import accuracy, als, imputation, libraries, limit, pipeline, rankings, speed

Render = Callable[[store.Results], str]

COMMAND = "python -m benchmarks.tables"
README, DOCS = repository.ROOT / "README.md", repository.ROOT / "docs"
PAGE, TEXTBOOK = DOCS / "benchmarks.md", DOCS / "textbook.md"
# page -> mark -> name of the stored results, and the text that they make
PAGES: dict[Path, dict[str, tuple[str, Render]]] = {
    PAGE: {
        "speed": ("speed", speed.render),
        "limit": ("limit", limit.render),
        "als": ("als", als.render),
        "accuracy": ("accuracy", accuracy.render),
        "rankings": ("rankings", rankings.render),
        "libraries": ("libraries", libraries.render),
    },
    README: {"summary": ("libraries", libraries.render_summary)},
    TEXTBOOK: {"steps": ("speed", speed.render_steps)},
    DOCS / "sklearn.md": {"imputation": ("imputation", imputation.render)},
    DOCS / "files.md": {"pipeline": ("pipeline", pipeline.render)},
}


def write() -> None:
    """Make the tables of all pages again."""
    for path, tables in PAGES.items():
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


def with_tables(text: str, tables: Mapping[str, tuple[str, Render]]) -> str:
    """Return a text with each table, between its two marks, made from stored results."""
    for mark, (name, render) in tables.items():
        start, stop = f"<!-- {mark}: {COMMAND} -->\n", f"<!-- end of {mark} -->"
        before, rest = text.split(start)
        _, after = rest.split(stop)
        text = f"{before}{start}{render(store.load(name))}\n{stop}{after}"
    return text
