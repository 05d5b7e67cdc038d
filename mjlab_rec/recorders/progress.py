"""How much a recorder has recorded, for progress bars and record buttons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What a recorder has written so far; 0 or empty where it reports nothing."""

    state: str
    """"recording", "paused" or "stopped"."""

    rows: int
    """Amount recorded."""

    unit: str
    """What is counted: "rows", "steps" (each a row of every environment) or "frames"."""

    nbytes: int
    """Bytes written."""

    dropped: int
    """Amount lost because writing could not keep up."""

    files: tuple[Path, ...]
    """Files written, those of stopped recordings included."""

    page: str
    """Address of a web page that shows it."""

    @property
    def amounts(self) -> list[str]:
        """What was recorded, written and lost, as text."""
        words = [f"{self.rows:,} {self.unit}", size(self.nbytes)]
        return [*words, f"{self.dropped:,} dropped!"] if self.dropped else words


def progress(recorder: Any) -> Progress:
    """Return the progress of a recorder.

    It is read from the attributes rows, rows_unit, nbytes, dropped_rows, files and page, which are
    all optional.
    """

    def number(name: str) -> int:
        value = getattr(recorder, name, 0)
        return value if isinstance(value, int) else 0

    page = getattr(recorder, "page", "")
    files = getattr(recorder, "files", ())
    if not isinstance(files, Sequence) or isinstance(files, str):
        files = ()
    return Progress(
        state=recorder.state,
        rows=number("rows"),
        unit=str(getattr(recorder, "rows_unit", "rows")),
        nbytes=number("nbytes"),
        dropped=number("dropped_rows"),
        files=tuple(file for file in files if isinstance(file, Path)),
        page=page if isinstance(page, str) else "",
    )


def size(nbytes: int) -> str:
    """Format a number of bytes for people to read."""
    amount, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
