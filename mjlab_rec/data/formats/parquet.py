"""Episodes as a folder of Parquet files, one row per step, for data frames and databases."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mjlab_rec.data.files import Claim
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader, Writer, WriterOptions
from mjlab_rec.data.schema import ROW_COLUMNS, ChannelSpec, DataError, Episode, RunInfo

# Has no rows, only the description of the run: the folder holds nothing but Parquet files of one
# schema, or polars.read_parquet(folder) and others would refuse it.
HEAD = "mjlab_rec.parquet"
PART_ROWS = 1 << 16
CACHE_BYTES = 1 << 29


class ParquetWriter(Writer):
    """Writes a folder that ``polars.read_parquet(folder)`` reads as one table.

    Columns are time, env, episode and step, and one per channel, with a fixed-size array in each
    row where a channel has several elements; float16 becomes float32. Rows of an episode follow
    each other. A part is written as a whole once PART_ROWS rows or `roll_over_bytes` have
    gathered, and at the end; it is one row group, so that row groups end with episodes. Episodes
    that wait for their part are lost if the process is killed.

    Appended episodes are numbered on from the highest number that is there.
    """

    by_episode = True
    compressions = ("zstd", "snappy", "lz4", "gzip")

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        """Rows that were lost on the way here; kept with the file."""
        for spec in info.channels:
            if spec.name in ROW_COLUMNS:
                raise DataError(
                    f"A channel in a Parquet file cannot be called '{spec.name}': every table has a"
                    " column of this name. Rename it."
                )
        self._offset = self._next = self._old_gaps = self._nbytes = 0
        self._waiting: list[tuple[dict[str, Any], Episode]] = []
        self._rows = self._bytes = 0
        self._claim = Claim(options.path, options.if_exists, folder=True, mark=HEAD)
        self._path = self._claim.path
        try:
            if (self._path / HEAD).exists():
                self._go_on()
            else:
                self._write_head()
        except BaseException:
            self._claim.release()
            raise

    @property
    def files(self) -> list[Path]:
        return [self._path]

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def write_episode(self, episode: Episode) -> None:
        row = episode_table.table_row(self.info, episode, self._offset)
        self._waiting.append((row, episode))
        self._rows += episode.rows
        self._bytes += sum(array.nbytes for array in episode.arrays.values())
        if self._rows >= PART_ROWS or self._bytes >= self.options.roll_over_bytes:
            self._write_part()

    def close(self) -> None:
        try:
            if self._waiting:
                self._write_part()
            if self.gaps:
                self._write_head()
        finally:
            self._claim.release()

    def _write_head(self) -> None:
        gaps = self._old_gaps + self.gaps
        text = episode_table.dump_info(self.info, attachments=True, gaps=gaps)
        self._write(HEAD, [], {"mjlab_rec": text})

    def _write_part(self) -> None:
        rows = []
        for row, episode in self._waiting:
            model = {name: _to_json(value) for name, value in episode.model.items()}
            rows.append({**row, "model": model})
        self._write(f"part-{self._next:05d}.parquet", self._waiting, {"episodes": json.dumps(rows)})
        self._next += 1
        self._waiting = []
        self._rows = self._bytes = 0

    def _write(
        self, name: str, episodes: Sequence[tuple[dict[str, Any], Episode]], about: dict[str, str]
    ) -> None:
        frame = self._frame(episodes)
        # Beside the folder, where nobody who reads it takes it for a part.
        hidden = self._path.with_name(f".{self._path.name}.{name}.tmp")
        try:
            frame.write_parquet(
                hidden,
                compression=self.options.compression or "uncompressed",  # type: ignore[arg-type]
                row_group_size=max(1, len(frame)),
                metadata=about,
            )
            self._nbytes += hidden.stat().st_size
            os.replace(hidden, self._path / name)
        finally:
            hidden.unlink(missing_ok=True)

    def _frame(self, episodes: Sequence[tuple[dict[str, Any], Episode]]) -> pl.DataFrame:
        counts = [row["rows"] for row, _ in episodes]

        def gathered(name: str, spec: ChannelSpec | None = None) -> np.ndarray:
            shape, dtype = (spec.shape, spec.dtype) if spec else ((), np.dtype("int32"))
            nothing = np.empty((0, *shape), dtype)
            return np.concatenate([nothing, *(e.arrays[name] for _, e in episodes)])

        step = gathered("step")
        columns = [
            pl.Series("time", np.round(step * self.info.step_dt, 9)),
            pl.Series("env", np.repeat(np.array([r["env"] for r, _ in episodes], "i4"), counts)),
            pl.Series(
                "episode", np.repeat(np.array([r["number"] for r, _ in episodes], "i4"), counts)
            ),
            pl.Series("step", step),
        ]
        for spec in self.info.channels:
            values = gathered(spec.name, spec)
            if spec.dtype == np.float16:
                values = values.astype(np.float32)
            columns.append(pl.Series(spec.name, values))
        return pl.DataFrame(columns)

    def _go_on(self) -> None:
        there = ParquetReader(self._path)
        episode_table.check_same_run(there.info, self.info, self._path)
        self.info = there.info
        self._old_gaps = there.gaps
        numbers = there.episodes["number"].to_list()
        self._offset = 1 + max(numbers, default=-1)
        found = [re.fullmatch(r"part-(\d+)\.parquet", f.name) for f in self._path.iterdir()]
        self._next = 1 + max((int(match[1]) for match in found if match), default=-1)


class ParquetReader(Reader):
    """Reads a folder of Parquet files, of which it keeps some in memory once they are decoded."""

    def __init__(self, path: str | Path, check: bool = True) -> None:
        path = Path(path)
        self.check = check
        text = pl.read_parquet_metadata(path / HEAD)["mjlab_rec"]
        self.info, about = episode_table.load_info(text, path / HEAD)
        self._gaps = about["gaps"]
        rows = []
        for file in sorted(path.glob("part-*.parquet")):
            about = pl.read_parquet_metadata(file)
            if "episodes" not in about:
                raise DataError(f"'{file}' was not recorded by mjlab_rec. Move it elsewhere.")
            first = 0
            for row in json.loads(about["episodes"]):
                rows.append({**row, "file": file, "first": first})
                first += row["rows"]
        self._rows = episode_table.ordered(rows)
        self.episodes = episode_table.table(self._rows)
        self._decoded: dict[tuple[Path, tuple[str, ...]], pl.DataFrame] = {}
        self._decoded_bytes = 0

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        kinds = {spec.name: spec.dtype for spec in self.info.channels} | {"step": np.dtype("i4")}
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        row = self._rows[index]
        part = self._part(row["file"], tuple(channels))
        rows = part.slice(row["first"], row["rows"]).collect()
        return {name: rows[name].to_numpy().astype(kinds[name]) for name in channels}

    def _part(self, file: Path, channels: tuple[str, ...]) -> pl.LazyFrame:
        """Columns of a part: decoded once and kept while there is room, else from the file."""
        lazy = pl.scan_parquet(file).select(channels)
        if (file, channels) not in self._decoded:
            if self._decoded_bytes >= CACHE_BYTES:
                return lazy
            frame = lazy.collect()
            self._decoded[file, channels] = frame
            self._decoded_bytes += int(frame.estimated_size())
        return self._decoded[file, channels].lazy()

    def model(self, index: int) -> dict[str, np.ndarray]:
        return {name: _from_json(value) for name, value in self._rows[index]["model"].items()}

    @property
    def gaps(self) -> int:
        return self._gaps

    def close(self) -> None:
        self._decoded.clear()


def _to_json(value: np.ndarray) -> dict[str, Any]:
    return {"dtype": value.dtype.str, "shape": value.shape, "values": value.ravel().tolist()}


def _from_json(data: dict[str, Any]) -> np.ndarray:
    return np.array(data["values"], data["dtype"]).reshape(data["shape"])
