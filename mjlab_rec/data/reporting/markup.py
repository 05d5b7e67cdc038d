"""Pieces of a web page. All text from a recording is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

_MOST = 200  # letters of a text


def text(value: Any, most: int = _MOST) -> str:
    """Any value as escaped text, cut off if it is long."""
    said = str(value)
    if len(said) > most:
        said = f"{said[:most]}..."
    said = "".join(each if each.isprintable() else "\ufffd" for each in said)
    return html.escape(said)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways on a narrow screen. Cells are HTML."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(
        f'<tr><td class="soft">{text(name)}</td><td class="text">{value}</td></tr>'
        for name, value in rows
    )
    return f'<div class="scroll facts"><table>{body}</table></div>'


def card(content: str, kind: str = "") -> str:
    """A box."""
    return f'<div class="card{" " + kind if kind else ""}">{content}</div>'


def figure(title: str, content: str, legend: Sequence[str] = ()) -> str:
    """A chart with its title and, if there are several lines, their names."""
    keys = "".join(
        f'<span><svg viewBox="0 0 14 8"><line class="line c{i}" x1="0" x2="14" y1="4" y2="4"/>'
        f"</svg>{text(name, 60)}</span>"
        for i, name in enumerate(legend)
    )
    keys = f'<div class="legend">{keys}</div>' if keys else ""
    return f'<figure class="card"><figcaption>{text(title)}</figcaption>{content}{keys}</figure>'


def share(part: float, whole: float) -> str:
    """A bar that shows a part of a whole."""
    percent = 100 * min(1.0, max(0.0, part / whole)) if whole else 0.0
    return f'<span class="share"><i style="width:{percent:.1f}%"></i></span>'


def _cell(content: str) -> str:
    return f"<td>{content}</td>"
