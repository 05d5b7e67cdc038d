"""Recordings of several files: if one is damaged, the others stay readable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mjlab_rec.data import files
from mjlab_rec.data.schema import DataError

Part = TypeVar("Part")

_LOG = logging.getLogger(__name__)
_MOST_LOGGED = 10


def _nothing(*_: object) -> tuple[None, int]:
    return None, 0


def open_parts(
    path: Path,
    open_part: Callable[[Path, Sequence[Part]], Part],
    damages: list[str],
    known: Callable[[Sequence[str], int, Sequence[Part]], tuple[Part | None, int]] = _nothing,
) -> list[Part]:
    """Open the parts of a recording that can be read, and describe the others.

    Args:
        path: The first part.
        open_part: Opens a part, given those before it; raises DataError.
        damages: A sentence is added to it for each part that cannot be read.
        known: Returns what stands for some consecutive parts, so that they need not be opened, and
            their number; given all names, the place of the first one, and the parts before it.
    """
    names = files.part_names(path)
    if not names:
        raise DataError(f"There is no recording at '{path}'.")
    found: list[Part] = []
    at = 0
    while at < len(names):
        part, count = known(names, at, found)
        if part is not None:
            found.append(part)
            at += count
            continue
        try:
            found.append(open_part(path.with_name(names[at]), found))
        except DataError as error:
            if len(names) == 1:
                raise
            damages.append(f"{error} It is skipped.")
        at += 1
    if not found:
        raise DataError(f"Nothing in '{path}' can be read. {damages[0]}")
    return found


def log_damages(path: Path, damages: Sequence[str]) -> None:
    """Log warnings about damage to a recording."""
    for sentence in damages[:_MOST_LOGGED]:
        _LOG.warning("%s", sentence)
    if len(damages) > _MOST_LOGGED:
        _LOG.warning("'%s' has %d damages. verify() lists all of them.", path, len(damages))
