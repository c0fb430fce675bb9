"""Tables in HTML, as notebooks show them."""

from collections.abc import Iterable, Sequence
from html import escape

LEFT = "text-align: left"  # notebooks align cells to the right; colors are left to their themes


def facts_table(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return a table with one row per fact, a name and a value; all text is escaped."""
    rows = "".join(
        f'<tr><th scope="row" style="{LEFT}">{_text(name)}</th><td style="{LEFT}">{_text(value)}</td></tr>'
        for name, value in facts
    )
    return f'<table><caption style="{LEFT}"><b>{_text(title)}</b></caption><tbody>{rows}</tbody></table>'


def columns_table(title: str, names: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table with named columns, and a note below it; all text is escaped."""
    head = "".join(f'<th scope="col" style="{LEFT}">{_text(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f'<td style="{LEFT}">{_text(value)}</td>' for value in row) + "</tr>" for row in rows
    )
    foot = f'<tfoot><tr><td colspan="{len(names)}">{_text(note)}</td></tr></tfoot>' if note else ""
    caption = f'<caption style="{LEFT}"><b>{_text(title)}</b></caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>"


def _text(value: object) -> str:
    return escape(str(value))
