"""How far a recorder has got, for progress bars and record buttons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What a recorder has written so far; 0 or nothing where it does not say."""

    state: str
    """recording, paused or stopped."""

    rows: int
    """How much was recorded."""

    unit: str
    """What is counted: "rows", "steps" (each a row of every environment) or "pictures"."""

    nbytes: int
    """Bytes written."""

    dropped: int
    """How much was lost because writing could not keep up."""

    files: tuple[Path, ...]
    """Files written, also those of recordings that were stopped."""

    page: str
    """Address of a web page that shows it."""

    @property
    def amounts(self) -> list[str]:
        """How much was recorded, written and lost, in words."""
        words = [f"{self.rows:,} {self.unit}", size(self.nbytes)]
        return [*words, f"{self.dropped:,} dropped!"] if self.dropped else words


def progress(recorder: Any) -> Progress:
    """Ask a recorder how far it has got.

    Every recorder may answer by the attributes rows, rows_unit, nbytes, dropped_rows, files and
    page, and need not.
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
    """A number of bytes as people write it."""
    amount, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
