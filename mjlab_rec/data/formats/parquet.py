"""Episodes as a folder of Parquet files, one row per step, for data frames and databases."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.files import Claim
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.parquet_reader import (
    EPISODES,
    HEAD,
    INFO,
    POLARS_ERRORS,
    ParquetReader,
    dump_checksums,
    dump_model,
    part_files,
    stored_dtype,
)
from mjlab_rec.data.formats.plain_files import sync_folder
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, RunInfo

__all__ = ["HEAD", "ParquetReader", "ParquetWriter"]

PART_ROWS = 1 << 16
PART_SECONDS = 60.0
clock = time.monotonic
_TABLE_BYTES = 16 << 20  # of the table of episodes in a part, about


class ParquetWriter(Writer):
    """Writes a folder that ``polars.read_parquet(folder)`` reads as one table.

    Columns are time, env, episode and step, and one per channel, with a fixed-size array in each
    row where a channel has several elements; float16 becomes float32. Rows of an episode follow
    each other. A part is written as a whole once PART_ROWS rows or `roll_over_bytes` have gathered,
    once PART_SECONDS have passed since the last one, and at the end; it is one row group, so that
    row groups end with episodes. Episodes that wait for their part are lost if the process is
    killed. The description of a part holds the table of its episodes, with a checksum of each of
    their columns.

    Appended episodes are numbered on from the highest number that is there.
    """

    by_episode = True
    compressions = ("zstd", "snappy", "lz4", "gzip")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        episode_table.check_channels(info)
        self._offset = self._next = self._old_gaps = self._head_bytes = self._nbytes = (
            self._parts
        ) = 0
        self._waiting: list[tuple[dict[str, Any], Episode]] = []
        self._rows = self._bytes = self._text = 0
        self._since = clock()
        self._claim = Claim(options.path, options.if_exists, folder=True, mark=HEAD)
        self._path = self._claim.path
        try:
            self._remove_leftovers()
            if (self._path / HEAD).exists():
                self._go_on()
            self._described = episode_table.dump_info(self.info, attachments=False)
            self._write_head(finished=False)
            if options.durability == "power":
                sync_folder(self._path.parent)
        except BaseException:
            self._claim.release()
            raise

    @property
    def files(self) -> list[Path]:
        return [self._path]

    @property
    def nbytes(self) -> int:
        return self._head_bytes + self._nbytes

    def write_episode(self, episode: Episode) -> None:
        row = episode_table.table_row(self.info, episode, self._offset)
        self._waiting.append((row, episode))
        self._rows += episode.rows
        self._bytes += sum(array.nbytes for array in episode.arrays.values())
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
            self._write_head(finished=True)
        finally:
            self._claim.release()

    def _write_head(self, finished: bool) -> None:
        text = episode_table.dump_info(
            self.info,
            attachments=True,
            gaps=self._old_gaps + self.gaps,
            finished=finished,
            parts=self._parts,
        )
        self._write(HEAD, [], {INFO: text})

    def _write_part(self) -> None:
        """Write the episodes that wait; if that fails they go on waiting."""
        rows = []
        for row, episode in self._waiting:
            arrays = [episode.arrays["step"].astype(np.int32, copy=False)]
            for spec in self.info.channels:
                arrays.append(episode.arrays[spec.name].astype(stored_dtype(spec), copy=False))
            rows.append(
                {**row, "model": dump_model(episode.model), "crc32": dump_checksums(arrays)}
            )
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

    def _write(
        self, name: str, episodes: list[tuple[dict[str, Any], Episode]], about: dict[str, str]
    ) -> None:
        frame = self._frame(episodes)
        # Beside the folder, where nobody who reads it takes it for a part.
        hidden = self._path.with_name(f".{self._path.name}.{name}.tmp")
        try:
            self._write_file(frame, hidden, about)
            if self.options.durability == "power":
                with open(hidden, "rb") as stream:
                    os.fsync(stream.fileno())
            size = hidden.stat().st_size
            if not (self._path / HEAD).exists() and name != HEAD:
                raise DataError(
                    f"The folder '{self._path}' was removed or emptied while it was being written."
                    " What was to be written now has no place. Start a new recording."
                )
            os.replace(hidden, self._path / name)
            if self.options.durability == "power":
                sync_folder(self._path)
        except OSError as error:
            raise DataError(
                f"Cannot write to '{self._path}': {error.strerror or error}. What was written"
                " before is whole."
            ) from error
        except POLARS_ERRORS as error:
            raise DataError(f"Cannot write to '{self._path}': {error}.") from error
        finally:
            hidden.unlink(missing_ok=True)
        if name == HEAD:
            self._head_bytes = size
        else:
            self._nbytes += size

    def _write_file(self, frame: pl.DataFrame, path: Path, about: dict[str, str]) -> None:
        while True:
            try:
                frame.write_parquet(
                    path,
                    compression=self.options.compression or "uncompressed",  # type: ignore[arg-type]
                    row_group_size=max(1, len(frame)),
                    metadata=about,
                )
                return
            except KeyboardInterrupt:
                # Polars ends whatever it does in any thread. Only the main thread was meant.
                if threading.current_thread() is threading.main_thread():
                    raise

    def _frame(self, episodes: list[tuple[dict[str, Any], Episode]]) -> pl.DataFrame:
        counts = [row["rows"] for row, _ in episodes]

        def gathered(name: str, spec: ChannelSpec | None = None) -> np.ndarray:
            shape, dtype = (spec.shape, spec.dtype) if spec else ((), np.dtype("int32"))
            nothing = np.empty((0, *shape), dtype)
            return np.concatenate([nothing, *(e.arrays[name] for _, e in episodes)])

        step = gathered("step")
        env = np.repeat(np.array([row["env"] for row, _ in episodes], "i4"), counts)
        number = np.repeat(np.array([row["number"] for row, _ in episodes], "i4"), counts)
        columns = [
            pl.Series("time", np.round(step * self.info.step_dt, 9)),
            pl.Series("env", env),
            pl.Series("episode", number),
            pl.Series("step", step),
        ]
        for spec in self.info.channels:
            values = gathered(spec.name, spec).astype(stored_dtype(spec), copy=False)
            columns.append(pl.Series(spec.name, values))
        return pl.DataFrame(columns)

    def _remove_leftovers(self) -> None:
        """Remove what a process left that was killed while it wrote a part."""
        for name in os.listdir(self._path.parent):
            if name.startswith(f".{self._path.name}.") and name.endswith(".parquet.tmp"):
                self._path.with_name(name).unlink(missing_ok=True)

    def _go_on(self) -> None:
        there = ParquetReader(self._path)
        episode_table.check_same_run(there.info, self.info, self._path)
        if there.damage:
            raise DataError(
                f"Cannot append to '{self._path}': it is damaged, so that the next free number of"
                f" an episode is not known. {there.damage[0]} Move damaged parts elsewhere, or"
                " choose another path, or if_exists='number'."
            )
        envs = tuple(sorted({*there.info.envs, *self.info.envs}))
        self.info = replace(there.info, envs=envs)
        self._old_gaps = there.gaps
        self._offset = 1 + max(there.episodes["number"].to_list(), default=-1)
        numbers = part_files(self._path)
        self._next, self._parts = 1 + max(numbers, default=-1), len(numbers)
