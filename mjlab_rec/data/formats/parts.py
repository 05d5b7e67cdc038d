"""Recordings of several files: damage to one must not cost the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mjlab_rec.data import files
from mjlab_rec.data.schema import DataError

Part = TypeVar("Part")

_LOG = logging.getLogger(__name__)
_MOST_TOLD = 10


def open_parts(
    path: Path, open_part: Callable[[Path, Sequence[Part]], Part], damages: list[str]
) -> list[Part]:
    """The parts of a recording that can be read; a sentence about each other one is added.

    Args:
        path: The first part.
        open_part: Opens a part, after those before it that could be opened; raises DataError.
        damages: Where to add sentences.
    """
    paths = files.parts(path)
    if not paths:
        raise DataError(f"There is no recording at '{path}'.")
    found: list[Part] = []
    for each in paths:
        try:
            found.append(open_part(each, found))
        except DataError as error:
            if len(paths) == 1:
                raise
            damages.append(f"{error} It is left out.")
    if not found:
        raise DataError(f"Nothing in '{path}' can be read. {damages[0]}")
    return found


def log_damages(path: Path, damages: Sequence[str]) -> None:
    """Warn of what is wrong with a recording."""
    for told in damages[:_MOST_TOLD]:
        _LOG.warning("%s", told)
    if len(damages) > _MOST_TOLD:
        _LOG.warning("'%s' has %d damages. verify() tells all.", path, len(damages))
