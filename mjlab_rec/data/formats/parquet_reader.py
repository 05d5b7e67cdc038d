"""Read a folder of Parquet files."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.selectors import by_name

from mjlab_rec.data.formats import episode_table, parquet_pictures, plain_files, row_table
from mjlab_rec.data.formats.checks import damage
from mjlab_rec.data.formats.episode_reader import EpisodeReader
from mjlab_rec.data.formats.row_table import POLARS_ERRORS
from mjlab_rec.data.pictures.crew import Crew
from mjlab_rec.data.schema import DataError, RunInfo, bytes_of

# A file with the description of the recording and no rows. It is a Parquet file too, because
# polars.read_parquet(folder) and others need a folder of Parquet files with one schema.
DESCRIPTION = "mjlab_rec.parquet"
INFO = "mjlab_rec"  # metadata key: the description of the recording
EPISODES = "episodes"  # metadata key: the table of the episodes in a part
CACHE_BYTES = 1 << 29

# Rows differ at least in their step or episode, so a valid file has at most this many rows per
# byte, however well it is compressed.
_ROWS_PER_BYTE = 64
_MOST_LISTED = 10  # missing parts that are named


class ParquetReader(EpisodeReader):
    """Reads a folder of Parquet files, and keeps some decoded columns in memory.

    A forked process can only read columns that were decoded before.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        super().__init__(path, check)
        self._pid = os.getpid()
        self.info, about = self._load_description()
        self.finished, self.gaps = about.get("finished") is True, about["gaps"]
        self._order = ["step", *(spec.name for spec in self.info.channels)]  # of checksums
        self._specs = {spec.name: spec for spec in self.info.channels}
        self._crew = Crew("pictures")
        rows: list[dict[str, Any]] = []
        numbers = part_files(self.path)
        for file in numbers.values():
            try:
                rows += self._load_episodes(file)
            except DataError as error:
                self.damages.append(str(error))
        written = about.get("parts")
        count = max(max(numbers, default=-1) + 1, written if isinstance(written, int) else 0)
        missing = islice((number for number in range(count) if number not in numbers), _MOST_LISTED)
        self.damages += [f"Part {number} of '{self.path}' is missing." for number in missing]
        self._set_rows(rows)
        self._decoded: dict[tuple[Path, str], np.ndarray] = {}  # Files of pictures stay encoded.
        self._decoded_bytes = 0

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        row = self._rows[index]
        arrays = {}
        with self._episode(row):
            for name, values in self._decoded_part(row, channels).items():
                at = 8 * self._order.index(name)
                crc = int(row["crc32"][at : at + 8], 16)
                if values.dtype == object:
                    arrays[name] = self._pictures(values.tolist(), crc, name, row)
                    continue
                self._compare(values, crc, name, row["file"], row["first"])
                arrays[name] = values.astype(self._kinds[name][0])
        return arrays

    def _pictures(self, files: list[bytes], crc: int, name: str, row: dict[str, Any]) -> np.ndarray:
        if self.check and parquet_pictures.checksum(files) != crc:
            raise self._wrong(name, row["file"], row["first"], len(files))
        try:
            return parquet_pictures.decode(files, self._specs[name], self._crew)
        except ValueError as error:
            raise DataError(
                f"'{row['file']}' is damaged in channel '{name}': a picture of the rows"
                f" {row['first']} to {row['first'] + len(files) - 1} cannot be read: {error}."
            ) from None

    def model(self, index: int) -> dict[str, np.ndarray]:
        return {name: value.copy() for name, value in self._rows[index]["model"].items()}

    def close(self) -> None:
        self._crew.close()
        self._decoded.clear()
        self._decoded_bytes = 0

    def _load_description(self) -> tuple[RunInfo, dict[str, Any]]:
        """The description of the recording; each part has it too, without attached files."""
        try:
            return self._described(self.path / DESCRIPTION)
        except DataError as error:
            for file in part_files(self.path).values():
                with contextlib.suppress(DataError):
                    found = self._described(file)
                    self.damages.append(f"{error} Attached files, if any, are lost.")
                    return found
            raise

    def _described(self, file: Path) -> tuple[RunInfo, dict[str, Any]]:
        info, about = episode_table.load_info(_metadata(file, INFO), file, check=self.check)
        episode_table.check_channels(info)
        return info, about

    def _load_episodes(self, file: Path) -> list[dict[str, Any]]:
        """The table of episodes of a part; raises unless its rows and columns match."""
        text = _metadata(file, EPISODES)
        envs = set(self.info.envs)
        with damage(f"The table of episodes in '{file}'", file):
            data = episode_table.load_json(text, check=self.check, sealed=True)
            rows = episode_table.checked(data.get("episodes"), file)
            checksums = re.compile(f"[0-9a-f]{{{8 * len(self.info.kinds)}}}")
            for row in rows:
                if row["rows"] < 1 or row["env"] not in envs:
                    raise ValueError(
                        f"environment {row['env']} cannot have an episode of {row['rows']} rows"
                    )
                if not checksums.fullmatch(row["crc32"]):
                    raise ValueError("an episode has no checksums")
                row["model"] = _load_model(row["model"], file)
        count = episode_table.set_first_rows(rows)
        found, kinds = _shape(file)
        encoded = {name for name, kind in kinds.items() if kind == parquet_pictures.KIND}
        for row in rows:
            row.update(file=file, part_rows=count, encoded=encoded)
        if found != count:
            raise DataError(f"'{file}' is damaged: it has {found} rows instead of {count}.")
        if count > _ROWS_PER_BYTE * file.stat().st_size:
            raise DataError(f"'{file}' is damaged: it is too small for {count} rows.")
        for spec in self.info.channels:
            kind = row_table.polars_kind(spec.dtype, spec.shape)
            found_kind = kinds.get(spec.name)
            # Older files have arrays, whatever the codec.
            if parquet_pictures.has_files(spec) and found_kind == parquet_pictures.KIND:
                continue
            if found_kind != kind:
                raise DataError(
                    f"'{file}' is damaged: its column '{spec.name}' is"
                    f" {found_kind or 'missing'}, not {kind}."
                )
        if kinds.get("step") != pl.Int32:
            raise DataError(f"'{file}' is damaged: its column 'step' is not Int32.")
        return rows

    def _decoded_part(self, row: dict[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of an episode, from memory or decoded; a whole part is decoded if it fits."""
        file, rows = row["file"], slice(row["first"], row["first"] + row["rows"])
        missing = [name for name in names if (file, name) not in self._decoded]
        if missing and os.getpid() != self._pid:
            raise DataError(
                f"'{file}' cannot be decoded in a process that was forked from the one that opened"
                " the recording. Give the DataLoader multiprocessing_context='spawn', or set"
                " num_workers=0."
            )
        plain = [name for name in missing if name not in row["encoded"]]
        size = row["part_rows"] * bytes_of(self._kinds[name] for name in plain)
        if len(plain) < len(missing):
            size += file.stat().st_size
        if missing and self._decoded_bytes + size > CACHE_BYTES:
            found = self._columns(file, missing, rows.start, row["rows"])
        else:
            found = {}
            for name, values in self._columns(file, missing, 0, row["part_rows"]).items():
                self._decoded[file, name] = values
            self._decoded_bytes += size
        return {n: found[n] if n in found else self._decoded[file, n][rows] for n in names}

    def _columns(
        self, file: Path, names: Sequence[str], first: int, count: int
    ) -> dict[str, np.ndarray]:
        if not names:
            return {}
        try:
            frame = _scan(file).select(by_name(*names)).slice(first, count).collect()
        except (*POLARS_ERRORS, OSError) as error:
            raise _damaged(file, error) from None
        found = {}
        for name in names:
            column = frame[name]
            dtype, shape = self._kinds[name]
            if column.dtype == parquet_pictures.KIND:
                column, dtype, shape = column.struct.field("bytes"), np.dtype(object), ()
            values = column.to_numpy() if not column.null_count() else np.empty(0)
            if values.shape != (count, *shape) or values.dtype != row_table.stored(dtype):
                raise DataError(
                    f"'{file}' is damaged: values in rows {first} to {first + count - 1} of column"
                    f" '{name}' are missing."
                )
            found[name] = values
        return found


def part_files(folder: Path) -> dict[int, Path]:
    """The parts in a folder, by their numbers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise plain_files.cannot_read(folder, error) from error
    found = {name: re.fullmatch(r"part-(\d{1,9})\.parquet", name) for name in names}
    numbered = [(int(match[1]), folder / name) for name, match in found.items() if match]
    return dict(sorted(numbered))


def dump_model(fields: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Model fields of an episode as plain data."""
    return {
        name: {
            "dtype": value.dtype.str,
            "shape": value.shape,
            "base64": base64.b64encode(value.tobytes()).decode(),
        }
        for name, value in fields.items()
    }


def _load_model(data: Any, file: Path) -> dict[str, np.ndarray]:
    kinds = {name: [field["dtype"], field["shape"]] for name, field in data.items()}
    fields = {}
    for name, (dtype, shape) in episode_table.model_kinds(kinds, file).items():
        content = base64.b64decode(data[name]["base64"], validate=True)
        fields[name] = np.frombuffer(content, dtype).reshape(shape)
    return fields


def _scan(file: Path) -> pl.LazyFrame:
    # Names may contain brackets, or look like key=value.
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _metadata(file: Path, key: str) -> str:
    try:
        os.close(plain_files.opened(file))  # raises for a pipe
        about = pl.read_parquet_metadata(file)
    except (*POLARS_ERRORS, OSError) as error:
        raise _damaged(file, error) from None
    if key not in about:
        raise DataError(f"'{file}' was not recorded by mjlab_rec. Move it elsewhere.")
    return about[key]


def _shape(file: Path) -> tuple[int, Mapping[str, pl.DataType]]:
    """The number of rows of a file, and the types of its columns."""
    try:
        lazy = _scan(file)
        return int(lazy.select(pl.len()).collect().item()), dict(lazy.collect_schema())
    except (*POLARS_ERRORS, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: BaseException) -> DataError:
    return DataError(f"'{file}' is damaged or incomplete: {plain_files.reason(error)}.")
