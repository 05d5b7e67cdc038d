"""Plain-text tables, such as those that managers and environments log at start-up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format rows under a title; numbers are aligned right, everything else left."""
    cells = [[_text(value) for value in row] for row in rows]
    numeric = [
        bool(cells) and all(_is_number(row[column]) for row in cells)
        for column in range(len(header))
    ]
    widths = [
        max(len(text) for text in column) for column in zip(list(header), *cells, strict=True)
    ]

    def line(row: Sequence[str]) -> str:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        return "  " + "  ".join(parts).rstrip()

    rule = "  " + "  ".join("-" * width for width in widths)
    return "\n".join([title, line(list(header)), rule, *(line(row) for row in cells)])


def size_text(nbytes: int) -> str:
    """A number of bytes for people: 1.2 MB."""
    size, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
