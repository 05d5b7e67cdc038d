"""What readers of formats of whole episodes share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.schema import DataError, RunInfo

STEP = np.dtype("int32")

_LOG = logging.getLogger(__name__)
_TOLD = 10  # damages that are logged


class EpisodeReader(Reader):
    """A reader that keeps the rows of the table, and knows what was damaged when it was opened."""

    _rows: list[dict[str, Any]]
    _damages: list[str]

    def _take(self, rows: Sequence[dict[str, Any]], path: Path) -> None:
        """Take over the rows of the table, and tell of damages."""
        if self._damages and not rows:
            raise DataError(f"Nothing in '{path}' can be read. {self._damages[0]}")
        for told in self._damages[:_TOLD]:
            _LOG.warning("%s", told)
        if len(self._damages) > _TOLD:
            _LOG.warning("'%s' has %d damages. verify() tells all.", path, len(self._damages))
        self._rows = list(rows)
        self._kinds = {spec.name: (spec.dtype, spec.shape) for spec in self.info.channels}
        self._kinds["step"] = STEP, ()
        self.episodes = episode_table.table(rows)

    def verify(self) -> list[str]:
        """Read everything and compare checksums; a sentence for each damage that is found."""
        found = list(self._damages)
        for index in range(len(self._rows)):
            try:
                self.read(index, list(self._kinds))
            except DataError as error:
                told = [told for name in self._kinds if (told := self._damage(index, name))]
                found += told or [str(error)]
            if told := self._damage(index, None):
                found.append(told)
        return found

    def _damage(self, index: int, channel: str | None) -> str:
        """What is wrong with a channel of an episode, or with its model fields."""
        try:
            self.model(index) if channel is None else self.read(index, [channel])
        except DataError as error:
            return str(error)
        return ""

    @contextmanager
    def _episode(self, row: dict[str, Any]) -> Iterator[None]:
        """Say in errors which episode is concerned."""
        try:
            yield
        except DataError as error:
            raise DataError(
                f"Episode {row['number']} of environment {row['env']}, with {row['rows']} rows,"
                f" cannot be read whole. {error}"
            ) from error


def row_bytes(info: RunInfo) -> int:
    """Bytes of a row of all channels and "step"."""
    return STEP.itemsize + sum(spec.nbytes for spec in info.channels)
