"""What readers of formats of whole episodes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import array_crc32
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.parts import log_damages
from mjlab_rec.data.schema import DataError


class EpisodeReader(Reader):
    """A reader that keeps the rows of the table, and knows what was damaged when it was opened.

    A subclass finds out ``info`` and the rows, and calls ``_take``.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        self.path, self.check = Path(path), check
        self.damages: list[str] = []
        """A sentence for each damage that was found when it was opened."""
        self._rows: list[dict[str, Any]] = []

    def _take(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take over the rows of the table, which were checked before, and tell of damages."""
        if self.damages and not rows:
            raise DataError(f"Nothing in '{self.path}' can be read. {self.damages[0]}")
        log_damages(self.path, self.damages)
        self._rows = episode_table.ordered(rows)
        self._kinds = self.info.kinds
        self.episodes = episode_table.table(self._rows)

    def verify(self) -> list[str]:
        """Read everything and compare checksums; a sentence for each damage that is found."""
        try:
            again = type(self)(self.path)  # it compares, and remembers nothing
        except DataError as error:
            return [str(error)]
        try:
            return again._all_damages()
        finally:
            again.close()

    def _all_damages(self) -> list[str]:
        found = list(self.damages)
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

    def _compare(self, values: np.ndarray, crc: int, channel: str, file: Path, first: int) -> None:
        """Raise if rows of a channel are not those that were written."""
        if self.check and array_crc32(values) != crc:
            raise DataError(
                f"'{file}' is damaged in channel '{channel}': wrong checksum of the rows {first} to"
                f" {first + len(values) - 1}. All else can be read."
            )

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
