"""Minari's datasets in Arrow or Parquet: a folder with a table for each episode."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.formats import plain_files
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.row_table import POLARS_ERRORS
from mjlab_rec.data.importing.base import rows_of_actions
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.values import check_name, check_shape

FORMATS = ("arrow", "parquet")

_MOST_BYTES = 4 << 30  # of an episode
# Columns without a value after the last step, where the table has a row for the last observation.
_OF_STEPS = ("actions", "rewards", "terminations", "truncations")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class EpisodeTables:
    """The tables of all episodes, in numeric order, read like groups of an HDF5 file.

    Args:
        path: The folder with a folder for each episode.
        kind: One of ``FORMATS``.
        spaces: The spaces of "observations" and "actions", as Minari describes them.
    """

    def __init__(self, path: Path, kind: str, spaces: Mapping[str, Any]) -> None:
        self.path, self._kind, self._spaces = path, kind, spaces
        with damage(f"'{path}'", path):
            found = [each.name for each in path.iterdir() if _NUMBER.fullmatch(each.name)]
        self.names: Sequence[str] = sorted(found, key=int)
        self._read: tuple[str, dict[str, Any]] = ("", {})

    def close(self) -> None:
        """Forget what was read."""
        self._read = ("", {})

    def rows(self, name: str) -> int:
        """The number of steps of an episode."""
        return rows_of_actions(self, name)

    def has(self, name: str, path: str) -> bool:
        """Whether an episode has a column."""
        return path in self._columns(name)

    def read(self, name: str, path: str) -> np.ndarray:
        """A column of an episode."""
        values = self._columns(name).get(path)
        if not isinstance(values, np.ndarray):
            raise DataError(f"'{path}' of '{name}' in '{self.path}' is no column of numbers.")
        return values

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """The columns of an episode: types and shapes of those of numbers, names of the others."""
        columns = self._columns(name)
        numbers = {
            path: (values.dtype, values.shape)
            for path, values in columns.items()
            if isinstance(values, np.ndarray)
        }
        return numbers, [path for path in columns if path not in numbers]

    def _columns(self, name: str) -> dict[str, np.ndarray | None]:
        """The columns of an episode; None if they are no numbers."""
        if self._read[0] != name:
            what = f"'{name}' in '{self.path}'"
            with damage(what, self.path):
                try:
                    frame = pl.concat([self._table(file) for file in self._files(name)])
                    found: dict[str, np.ndarray | None] = {}
                    for column in frame.get_columns():
                        for path, values in _flat(column, self._spaces.get(column.name)):
                            check_name(path, "column")
                            short = path.split("/")[0] in _OF_STEPS and values is not None
                            found[path] = values[:-1] if short and values is not None else values
                except POLARS_ERRORS as error:
                    raise DataError(f"{what} cannot be read: {error}.") from None
            self._read = name, found
        return self._read[1]

    def _files(self, name: str) -> list[Path]:
        folder = self.path / name
        found = sorted(each for each in folder.iterdir() if each.suffix == f".{self._kind}")
        if not found:
            raise DataError(f"'{folder}' has no .{self._kind} file.")
        return found

    def _table(self, file: Path) -> pl.DataFrame:
        content = io.BytesIO(plain_files.read(file, most=_MOST_BYTES, follow=False))
        return pl.read_ipc(content) if self._kind == "arrow" else pl.read_parquet(content)


def spaces_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The spaces of "observations" and "actions" in the metadata of a dataset."""
    found = {}
    for key, name in (("observation_space", "observations"), ("action_space", "actions")):
        try:
            found[name] = json.loads(metadata[key])
        except (KeyError, TypeError, ValueError, RecursionError):
            found[name] = None  # Then all axes of a value are one.
    return found


def _flat(column: pl.Series, space: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of a column that may be nested, and their values, None for other than numbers."""
    path = path or column.name
    if isinstance(column.dtype, pl.Struct):
        for field in column.dtype.fields:
            below = _below(space, field.name)
            yield from _flat(column.struct.field(field.name), below, f"{path}/{field.name}")
        return
    kind = column.dtype.inner if isinstance(column.dtype, pl.Array) else column.dtype
    if column.null_count() or not (kind.is_numeric() or kind == pl.Boolean):
        yield path, None
        return
    values = column.to_numpy()
    shape = space.get("shape") if isinstance(space, dict) else None
    if space is None and values[:1].size == 1:
        shape = []  # Minari stores numbers in infos as vectors of one.
    if isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape):
        check_shape(shape, values.dtype, f"'{path}'")
        if math.prod(shape) == values[:1].size:
            values = values.reshape(len(values), *shape)
    yield path, values if values.dtype.kind in "biuf" else None


def _below(space: Any, name: str) -> Any:
    """The part of a space that has a name, or a number in a tuple."""
    parts = space.get("subspaces") if isinstance(space, dict) else None
    if isinstance(parts, dict):
        return parts.get(name)
    if isinstance(parts, list) and _NUMBER.fullmatch(name) and int(name) < len(parts):
        return parts[int(name)]
    return None
