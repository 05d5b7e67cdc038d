"""Tables with a line for each quantity, which fit a narrow terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table


def sideways(title: str, corner: str, columns: Mapping[str, Mapping[str, object]]) -> Table:
    """Return a table from its columns; each maps the same quantities to values."""
    table = Table(title=title)
    table.add_column(corner, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for quantity in next(iter(columns.values()), {}):
        table.add_row(quantity, *(str(column[quantity]) for column in columns.values()))
    return table
