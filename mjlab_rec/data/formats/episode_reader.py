"""The base of readers of formats with whole episodes."""

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
    """A reader that knows the rows of the table, and the damage found when it was opened.

    A subclass sets ``info`` and calls ``_set_rows``.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        self.path, self.check = Path(path), check
        self.damages: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def _set_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Set the rows of the table, which were checked before, and log damages."""
        if self.damages and not rows:
            raise DataError(f"Nothing in '{self.path}' can be read. {self.damages[0]}")
        log_damages(self.path, self.damages)
        self._rows = episode_table.ordered(rows)
        self._kinds = self.info.kinds
        self.episodes = episode_table.table(self._rows)

    def verify(self) -> list[str]:
        """Read everything and compare checksums; returns a sentence per damage."""
        try:
            again = type(self)(self.path)  # with check=True, and nothing cached
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
                of_channels = [self._damage(index, name) for name in self._kinds]
                found += list(filter(None, of_channels)) or [str(error)]
            if of_model := self._damage(index, None):
                found.append(of_model)
        return found

    def _damage(self, index: int, channel: str | None) -> str:
        """A sentence about damage to a channel of an episode, or to its model fields; or ""."""
        try:
            self.model(index) if channel is None else self.read(index, [channel])
        except DataError as error:
            return str(error)
        return ""

    def _compare(self, values: np.ndarray, crc: int, channel: str, file: Path, first: int) -> None:
        """Raise if rows of a channel do not match their checksum."""
        if self.check and array_crc32(values) != crc:
            raise self._wrong(channel, file, first, len(values))

    def _wrong(self, channel: str, file: Path, first: int, rows: int) -> DataError:
        """The error for rows of a channel that do not match their checksum."""
        return DataError(
            f"'{file}' is damaged in channel '{channel}': wrong checksum of the rows {first} to"
            f" {first + rows - 1}. Everything else can be read."
        )

    @contextmanager
    def _episode(self, row: dict[str, Any]) -> Iterator[None]:
        """Name the episode in errors."""
        try:
            yield
        except DataError as error:
            raise DataError(
                f"Episode {row['number']} of environment {row['env']}, with {row['rows']} rows,"
                f" cannot be read completely. {error}"
            ) from error
