"""Import datasets of LeRobot in version 3.0 of its format: Parquet files, and JSON about them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.export.lerobot import INFO, VERSION
from mjlab_rec.data.export.lerobot_files import COUNTERS
from mjlab_rec.data.export.record import FILE, Record
from mjlab_rec.data.formats import episode_table, plain_files
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.row_table import POLARS_ERRORS
from mjlab_rec.data.importing.base import Foreign
from mjlab_rec.data.importing.guessed import Guessed
from mjlab_rec.data.importing.recorded import Recorded, read_record, usable
from mjlab_rec.data.schema import DataError
from mjlab_rec.data.values import check_shape

_MOST_BYTES = 4 << 30  # of a file
_NAMES = {"action": "action", "next.reward": "reward", "next.done": "done"}
_NAMES |= {f"next.{name}": name for name in ("terminated", "truncated", "success")}


def open_lerobot(path: Path, step_dt: float, use_record: bool) -> Foreign:
    """Open a dataset, given its folder."""
    with damage(f"'{path / INFO}'", path):
        about = episode_table.load_json(plain_files.read(path / INFO, most=64 << 20))
    version = about.get("codebase_version")
    if version != VERSION:
        raise DataError(
            f"'{path}' has the version {version!r} of LeRobot's format, but only {VERSION!r} can be"
            " imported. Convert it with LeRobot."
        )
    frames, notes = _Frames(path, about), []
    record = read_record(path / FILE) if use_record else None
    if record := usable(record, frames, notes):
        found: Foreign = Recorded(frames, _stored(record, frames, notes), "model_fields")
    else:
        rate: Any = about.get("fps")
        seconds = 1.0 / rate if type(rate) in (int, float) and rate > 0 else step_dt
        more = {"task": frames.task, "lerobot": {"robot_type": about.get("robot_type")}}
        found = Guessed(frames, _channel, seconds, more)
        if frames.videos:
            notes.append(f"Left out, because they are videos: {', '.join(frames.videos)}.")
    found.notes[:0] = notes
    return found


def _stored(record: Record, frames: _Frames, notes: list[str]) -> Record:
    """The record without the channels that the export does not have, or not as they were."""
    there = {name for name in record.paths if record.paths[name] not in frames.videos}
    kept = tuple(spec for spec in record.info.channels if spec.name in there)
    lost = [spec.name for spec in record.info.channels if spec.name not in there]
    if lost:
        notes.append(f"Left out, because LeRobot's format has not all of it: {', '.join(lost)}.")
    info = replace(record.info, channels=tuple(replace(spec, next_of="") for spec in kept))
    frames.expect({record.paths[name]: kind for name, kind in info.kinds.items()})
    return replace(record, info=info)


def _channel(path: str) -> str | None:
    """The channel for a feature."""
    if path in (*COUNTERS, "timestamp"):
        return None
    if path.startswith("observation."):
        return "obs/" + path.removeprefix("observation.").replace(".", "/")
    return _NAMES.get(path, path.replace(".", "/"))


class _Frames:
    """The rows of each episode, read like groups of an HDF5 file.

    Args:
        path: The folder.
        about: What ``info.json`` says.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        features = about.get("features")
        self._features: dict[str, Any] = features if isinstance(features, dict) else {}
        self.videos = [name for name, each in self._features.items() if _is_video(each)]
        self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        tables = [
            _table(file, ["episode_index", "length", *_PLACE])
            for file in sorted((path / "meta/episodes").glob("*/*.parquet"))
        ]
        if not tables:
            raise DataError(f"'{path}' has no table of episodes.")
        with damage(f"The table of episodes of '{path}'", path):
            table = pl.concat(tables).sort("episode_index")
            rows = table.select(pl.all().cast(pl.Int64, strict=True)).rows()
            if table.null_count().sum_horizontal().item():
                raise DataError("It has empty cells.")
        self._episodes = {str(number): (length, *place) for number, length, *place in rows}
        self.names: Sequence[str] = list(self._episodes)
        self.task = self._task()
        # The file that was read last: its rows, and their episodes.
        self._file, self._table, self._of = Path(), pl.DataFrame(), np.zeros(0, np.int64)

    def close(self) -> None:
        """Forget what was read."""
        self._file, self._table = Path(), pl.DataFrame()

    def expect(self, kinds: dict[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
        """Set the types and shapes that features had before they were exported."""
        self._kinds = kinds

    def rows(self, name: str) -> int:
        """The number of steps of an episode."""
        return self._episodes[name][0]

    def has(self, name: str, path: str) -> bool:
        """Whether there is a feature."""
        return path in self._frame(name).columns

    def read(self, name: str, path: str) -> np.ndarray:
        """The values of a feature in an episode."""
        what = f"'{path}' of episode {name} in '{self.path}'"
        with damage(what, self.path):
            frame = self._frame(name)
            if path not in frame.columns:
                raise DataError(f"There is no {what}.")
            try:
                column = frame[path]
                length = self._width(path)
                if isinstance(column.dtype, pl.List) and length:
                    column = column.list.to_array(length)
                values = column.to_numpy()
            except POLARS_ERRORS as error:
                raise DataError(f"{what} cannot be read: {error}.") from None
        if path in self._kinds:
            dtype, shape = self._kinds[path]
            if values.size == len(values) * int(np.prod(shape, dtype=int)):
                return values.reshape(len(values), *shape).astype(dtype)
        return values

    def datasets(self, name: str) -> tuple[dict[str, tuple[np.dtype, tuple[int, ...]]], list[str]]:
        """The features of an episode: types and shapes of numbers, names of the others."""
        numbers, others = {}, []
        for path in self._frame(name).columns:
            values = self.read(name, path)
            if values.dtype.kind in "biuf":
                check_shape(values.shape[1:], values.dtype, f"'{path}'")
                numbers[path] = values.dtype, values.shape
            else:
                others.append(path)
        return numbers, others

    def _frame(self, name: str) -> pl.DataFrame:
        """The rows of an episode."""
        length, chunk, number = self._episodes[name]
        file = self.path / "data" / f"chunk-{chunk:03d}" / f"file-{number:03d}.parquet"
        if self._file != file:
            self._file = Path()  # until all of this one is known
            with damage(f"'{file}'", file):
                self._table = _table(file).sort("episode_index", "frame_index")
                self._of = self._table["episode_index"].cast(pl.Int64).to_numpy()
            self._file = file
        first, last = np.searchsorted(self._of, [int(name), int(name) + 1]).tolist()
        if last - first != length:
            raise DataError(
                f"'{file}' has {last - first} rows of episode {name}, but there should be {length}."
            )
        return self._table[first:last]

    def _width(self, path: str) -> int:
        """The number of values of a feature in a row; 0 if it is unknown."""
        feature = self._features.get(path)
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int:
            return 0
        return max(0, shape[0])

    def _task(self) -> str:
        """The first task, in words."""
        file = self.path / "meta/tasks.parquet"
        table = _table(file) if file.is_file() else pl.DataFrame()
        texts = [column for column in table.get_columns() if column.dtype == pl.String]
        return str(texts[0][0]) if texts and len(texts[0]) else ""


_PLACE = ("data/chunk_index", "data/file_index")


def _table(file: Path, columns: list[str] | None = None) -> pl.DataFrame:
    with damage(f"'{file}'", file):
        try:
            content = plain_files.read(file, most=_MOST_BYTES, follow=False)
            return pl.read_parquet(io.BytesIO(content), columns=columns)
        except POLARS_ERRORS as error:
            raise DataError(f"'{file}' cannot be read: {error}.") from None


def _is_video(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("dtype") == "video"
