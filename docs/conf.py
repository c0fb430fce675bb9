"""Configuration of the documentation; build it with ``python -m sphinx -W --keep-going docs .site``."""

import argparse
import os
from collections.abc import Iterator

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import mfkernel
from mfkernel.cli.parser import make_parser

project = "mfkernel"
author = "The mfkernel developers"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = mfkernel.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_static"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_typehints = "none"  # docstrings say in words what the annotations say in types
autodoc_preserve_defaults = True
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"mfkernel {version}"
html_static_path = ["_static"]
html_css_files = ["mfkernel.css"]
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/mfkernel/mfkernel",
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_nav_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _visit_math(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write mathematics as MathML, which browsers show without scripts from elsewhere."""
    block = isinstance(node, nodes.math_block)
    try:
        text = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        raise ValueError(f"cannot convert {node.astext()!r}: {error}") from error
    self.body.append(f'<div class="formula">{text}</div>' if block else text)
    raise nodes.SkipNode


def _add_usage(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the help of each command into the page about them."""
    if page == "api/command-line":
        source[0] = source[0].replace("<!-- usage -->", "\n\n".join(_usage()))


def _usage() -> Iterator[str]:
    os.environ["COLUMNS"] = "84"  # of which argparse makes lines
    parser = make_parser()
    yield f"```text\n{parser.format_help()}```"
    (commands,) = (x for x in parser._actions if isinstance(x, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield f"## {name}\n\n```text\n{command.format_help()}```"


def setup(app: Sphinx) -> None:
    """Register the renderer of mathematics and what is generated."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
    app.connect("source-read", _add_usage)
