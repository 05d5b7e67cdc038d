"""Exports of this package, which keep what the other program has no place for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mjlab_rec.data.export.record import FILE, Record, load
from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.importing.base import Foreign, Groups
from mjlab_rec.data.schema import DataError

_MOST = 1 << 30  # bytes of a record


class Recorded(Foreign):
    """Restores a recording from what it was exported to.

    Args:
        groups: The groups of the stretches.
        record: What was kept.
        model: The group of model fields in that of a stretch.
    """

    def __init__(self, groups: Groups, record: Record, model: str) -> None:
        self._groups, self._record, self._model = groups, record, model
        self.info = record.info
        self.notes = []
        self._stretches = record.episodes()
        self.rows = [record.rows[numbers[0]] for numbers in self._stretches]

    def read(self, number: int) -> dict[str, np.ndarray]:
        parts = [self._stretch(each) for each in self._stretches[number]]
        found = parts[0]
        if len(parts) > 1:
            found = {name: np.concatenate([part[name] for part in parts]) for name in found}
        step, length = found["step"], self.rows[number]["length"] or 0
        if not (
            len(step) and 0 <= step.min() and step.max() < length and (step[1:] > step[:-1]).all()
        ):
            raise DataError(
                f"Episode {number} in '{self._groups.path}' was changed after it was exported: its"
                f" steps are not ascending numbers from 0 to {length - 1}. Export it again."
            )
        return found

    def model(self, number: int) -> dict[str, np.ndarray]:
        name = self._groups.names[self._stretches[number][0]]
        if not self._groups.has(name, self._model):
            return {}
        numbers, _ = self._groups.datasets(name)
        prefix = f"{self._model}/"
        paths = [path for path in numbers if path.startswith(prefix)]
        return {path.removeprefix(prefix): self._groups.read(name, path) for path in paths}

    def close(self) -> None:
        self._groups.close()

    def _stretch(self, number: int) -> dict[str, np.ndarray]:
        name, count = self._groups.names[number], int(self._record.counts[number])
        read: dict[str, np.ndarray] = {}
        found = {}
        for channel, (dtype, shape) in self.info.kinds.items():
            path = self._record.paths.get(channel, channel)
            source = channel
            if not self._groups.has(name, path) and channel.startswith("next_"):
                source = channel.removeprefix("next_")
                path = self._record.paths.get(source, source)
            values = read[path] if path in read else self._groups.read(name, path)
            read[path] = values
            if len(values) == count + 1:  # with the value after the last step
                values = values[1:] if source != channel else values[:-1]
            if values.shape != (count, *shape) or values.dtype != dtype:
                raise DataError(
                    f"'{name}' in '{self._groups.path}' was changed after it was exported:"
                    f" '{path}' has the type {values.dtype} and the shape {values.shape}, instead"
                    f" of {dtype} and {(count, *shape)}. Import it with record=False."
                )
            found[channel] = values
        return found


def of_folder(path: Path, what: str, use_record: bool) -> Record:
    """The record in a folder; raises if there is none, or if it must not be used."""
    if not use_record:
        raise DataError(f"{what} can only be imported with what the export kept: record=True.")
    record = read_record(path / FILE)
    if record is None:
        raise DataError(
            f"'{path}' has no {FILE}, so it is no export of mjlab_rec. {what} can only be"
            " imported if they are."
        )
    return record


def usable(record: Record | None, groups: Groups, notes: list[str]) -> Record | None:
    """The record, if it is that of these episodes."""
    if record is None or len(record.rows) == len(groups.names):
        return record
    notes.append(
        f"'{groups.path}' was changed after it was exported: it has {len(groups.names)} episodes"
        f" instead of {len(record.rows)}. What only the recording had is not restored."
    )
    return None


def read_record(path: Path) -> Record | None:
    """The record in a file next to an export; None if there is none."""
    if not path.is_file():
        return None
    return load(plain_files.read(path, most=_MOST, follow=False), f"'{path}'")
