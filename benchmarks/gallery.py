"""Draw the pictures of docs/plots.md: ``python -m benchmarks.gallery [FOLDER]``.

Each Python block of the page leaves Axes named ``ax``. The link to an image that follows it names the file.
"""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import repository

DOCS = repository.ROOT / "docs"
PAGE = DOCS / "plots.md"
SIZE = (6.4, 4.2)  # inches
BLOCK = re.compile(r"^```python\n(.*?)^```\n+!\[[^]]*\]\((plots/[\w-]+\.svg)\)", re.MULTILINE | re.DOTALL)


def figures() -> Iterator[tuple[str, Any]]:
    """Run the blocks of the page; yield the path and the figure of each picture."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("agg")
    for code, path in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        names: dict[str, Any] = {}
        # without the salt, the same picture would not give the same file
        with matplotlib.rc_context({"svg.hashsalt": "mfkernel", "figure.figsize": SIZE}):
            exec(compile(code, str(PAGE), "exec"), names)
            yield path, names["ax"].figure


def main() -> None:
    """Write the pictures into the folder of the documentation, or another one."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for path, figure in figures():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / path, metadata={"Date": None})
        print(folder / path)


if __name__ == "__main__":
    main()
