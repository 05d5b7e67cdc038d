"""Episodes as a folder of Parquet files, one row per step, for data frames and databases."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.checksum import array_crc32
from mjlab_rec.data.files import PathLock
from mjlab_rec.data.formats import episode_table, parquet_pictures
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.parquet_reader import (
    DESCRIPTION,
    EPISODES,
    INFO,
    ParquetReader,
    dump_model,
    part_files,
)
from mjlab_rec.data.formats.plain_files import cannot_write, removed, replacing, sync_to_disk
from mjlab_rec.data.formats.row_table import POLARS_ERRORS, not_interrupted, stored, times
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.pictures.encoding import PictureCoder
from mjlab_rec.data.schema import DataError, Episode, RunInfo
from mjlab_rec.data.worker import WRITER_NICENESS

__all__ = ["DESCRIPTION", "ParquetReader", "ParquetWriter"]

PART_ROWS = 1 << 16
PART_SECONDS = 60.0
clock = time.monotonic
_TABLE_BYTES = 16 << 20  # approximate size of the table of episodes in a part


class ParquetWriter(Writer):
    """Writes a folder that ``polars.read_parquet(folder)`` reads as one table.

    The columns are time, env, episode, step and one per channel: a number or a fixed-size array per
    row; float16 becomes float32. Pictures are a column of PNG or JPEG files. The rows of an episode
    are consecutive. A part is written when its episodes have PART_ROWS rows or `roll_over_bytes`,
    PART_SECONDS after the last part, and at the end. It is one row group, so row groups end with
    episodes. Episodes that are not yet written are lost if the process is killed. The metadata of a
    part contains the table of its episodes, with a checksum for each of their columns.

    Appended episodes continue the numbering from the highest number.
    """

    by_episode = True
    codecs = parquet_pictures.CODECS
    compressions = ("zstd", "snappy", "lz4", "gzip")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        episode_table.check_channels(info)
        self._offset = self._next = self._parts = 0
        self._old_gaps = self._description_bytes = self._nbytes = 0
        self._coders = {
            spec.name: PictureCoder(spec, "The Parquet writer")
            for spec in info.channels
            if parquet_pictures.has_files(spec)
        }
        self._crew = Crew("pictures", niceness=WRITER_NICENESS)
        self._waiting: list[_Waiting] = []
        self._rows = self._bytes = self._text = 0
        self._since = clock()
        self._power = options.durability == "power"
        self._path_lock = PathLock(options.path, options.if_exists, folder=True, mark=DESCRIPTION)
        self._path = self._path_lock.path
        try:
            self._remove_leftovers()
            if (self._path / DESCRIPTION).exists():
                self._append_to_existing()
            self._described = episode_table.dump_info(self.info, attachments=False)
            self._write_description(finished=False)
            if self._power:
                sync_to_disk(self._path.parent)
        except BaseException:
            self._path_lock.release()
            raise

    @property
    def files(self) -> list[Path]:
        return [self._path]

    @property
    def nbytes(self) -> int:
        return self._description_bytes + self._nbytes

    def write_episode(self, episode: Episode) -> None:
        row = episode_table.row_of(episode, self._offset)
        files = {
            name: parquet_pictures.encode(coder, episode.arrays[name], self._crew)
            for name, coder in self._coders.items()
        }
        arrays = {name: array for name, array in episode.arrays.items() if name not in files}
        self._waiting.append(_Waiting(row, dataclasses.replace(episode, arrays=arrays), files))
        self._rows += episode.rows
        self._bytes += sum(array.nbytes for array in arrays.values())
        self._bytes += sum(len(file) for some in files.values() for file in some)
        self._text += 600 + 8 * len(self.info.channels)
        self._text += sum(200 + 2 * value.nbytes for value in episode.model.values())
        full = self._rows >= PART_ROWS or self._bytes >= self.options.roll_over_bytes
        full |= self._text >= _TABLE_BYTES
        if full or clock() - self._since >= PART_SECONDS:
            self._write_part()

    def close(self) -> None:
        try:
            if self._waiting:
                self._write_part()
            self._write_description(finished=True)
        finally:
            self._crew.close()
            self._path_lock.release()

    def _write_description(self, finished: bool) -> None:
        text = episode_table.dump_info(
            self.info,
            attachments=True,
            gaps=self._old_gaps + self.gaps,
            finished=finished,
            parts=self._parts,
        )
        self._write(DESCRIPTION, [], {INFO: text})

    def _write_part(self) -> None:
        """Write the waiting episodes. If that fails they stay."""
        rows = []
        for each in self._waiting:
            arrays, files = each.episode.arrays, each.files
            crcs = [array_crc32(arrays["step"].astype(np.int32, copy=False))]
            for spec in self.info.channels:
                if spec.name in files:
                    crcs.append(parquet_pictures.checksum(files[spec.name]))
                else:
                    values = arrays[spec.name].astype(stored(spec.dtype), copy=False)
                    crcs.append(array_crc32(values))
            text = "".join(f"{crc:08x}" for crc in crcs)
            rows.append({**each.row, "model": dump_model(each.episode.model), "crc32": text})
        about = {
            INFO: self._described,
            EPISODES: episode_table.seal(json.dumps({"episodes": rows})),
        }
        self._write(f"part-{self._next:05d}.parquet", self._waiting, about)
        self._next += 1
        self._parts += 1
        self._waiting = []
        self._rows = self._bytes = self._text = 0
        self._since = clock()

    def _write(self, name: str, episodes: list[_Waiting], about: dict[str, str]) -> None:
        frame = self._frame(episodes)
        # Outside of the folder, because readers of the folder would take it for a part.
        hidden = self._path.with_name(f".{self._path.name}.{name}.tmp")
        try:
            with replacing(self._path / name, self._power, hidden):
                write = functools.partial(
                    frame.write_parquet,
                    hidden,
                    compression=self.options.compression or "uncompressed",  # type: ignore[arg-type]
                    row_group_size=max(1, len(frame)),
                    metadata=about,
                )
                while not not_interrupted(write):
                    pass
                size = hidden.stat().st_size
                if not (self._path / DESCRIPTION).exists() and name != DESCRIPTION:
                    raise removed(self._path)
        except (*POLARS_ERRORS, OSError) as error:
            raise cannot_write(self._path, error) from error
        if name == DESCRIPTION:
            self._description_bytes = size
        else:
            self._nbytes += size

    def _frame(self, episodes: list[_Waiting]) -> pl.DataFrame:
        counts = [each.row["rows"] for each in episodes]

        kinds = self.info.kinds

        def concatenated(name: str) -> np.ndarray | pl.Series:
            if name in self._coders:
                files = [file for each in episodes for file in each.files[name]]
                return parquet_pictures.column(name, files)
            dtype, shape = kinds[name]
            arrays = [np.empty((0, *shape), dtype), *(e.episode.arrays[name] for e in episodes)]
            return np.concatenate(arrays).astype(stored(dtype), copy=False)

        def repeated(name: str) -> np.ndarray:
            return np.repeat(np.array([each.row[name] for each in episodes], "i4"), counts)

        step = concatenated("step")
        assert isinstance(step, np.ndarray)
        columns = {
            "time": times(step, self.info.step_dt),
            "env": repeated("env"),
            "episode": repeated("number"),
            "step": step,
            **{spec.name: concatenated(spec.name) for spec in self.info.channels},
        }
        return pl.DataFrame([pl.Series(name, values) for name, values in columns.items()])

    def _remove_leftovers(self) -> None:
        """Remove files of a process that was killed while it wrote a part."""
        for name in os.listdir(self._path.parent):
            if name.startswith(f".{self._path.name}.") and name.endswith(".parquet.tmp"):
                self._path.with_name(name).unlink(missing_ok=True)

    def _append_to_existing(self) -> None:
        old = ParquetReader(self._path)
        self.info = episode_table.merged_info(old.info, self.info, self._path)
        if old.damages:
            raise DataError(
                f"Cannot append to '{self._path}': it is damaged, so the number of the next episode"
                f" is unknown. {old.damages[0]} Move damaged parts elsewhere, choose another"
                " path, or if_exists='number'."
            )
        self._old_gaps = old.gaps
        self._offset = 1 + max(old.episodes["number"].to_list(), default=-1)
        numbers = part_files(self._path)
        self._next, self._parts = 1 + max(numbers, default=-1), len(numbers)


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """An episode that is not yet written."""

    row: dict[str, Any]  # of the table of episodes
    episode: Episode  # without the channels in `files`
    files: dict[str, list[bytes]]  # pictures
