"""Read a folder of Parquet files, of which nothing is believed."""

from __future__ import annotations

import base64
import logging
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.selectors import by_name

from mjlab_rec.data.formats import episode_table, plain_files
from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

_log = logging.getLogger(__name__)

# Has no rows, only the description of the run: the folder holds nothing but Parquet files of one
# schema, or polars.read_parquet(folder) and others would refuse it.
HEAD = "mjlab_rec.parquet"
INFO = "mjlab_rec"  # what the run says about itself
EPISODES = "episodes"  # the table of the episodes in a part
CACHE_BYTES = 1 << 29
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

# Rows without any content still differ in their steps or episodes, so that no compression gets a
# row of an honest file below this.
_ROWS_PER_BYTE = 64
_TOLD = 10  # missing parts that are named
_MAYBE = {"return", "recorded_return", "success"}


class ParquetReader(Reader):
    """Reads a folder of Parquet files, of which it keeps some in memory once they are decoded.

    What was not decoded before cannot be read in a forked process.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        self._path, self.check, self._pid = Path(path), check, os.getpid()
        self.damage: list[str] = []
        """A sentence for each damage that was found."""
        self.info, self._about = self._load_description()
        self._specs = {spec.name: spec for spec in self.info.channels}
        self._order = {name: n for n, name in enumerate(["step", *self._specs])}
        self._rows: list[dict[str, Any]] = []
        numbers = part_files(self._path)
        for file in numbers.values():
            try:
                self._rows += self._load_episodes(file)
            except DataError as error:
                self.damage.append(str(error))
        written = self._about.get("parts")
        count = max(max(numbers, default=-1) + 1, written if isinstance(written, int) else 0)
        missing = islice((number for number in range(count) if number not in numbers), _TOLD)
        self.damage += [f"Part {number} of '{self._path}' is missing." for number in missing]
        if numbers and self.damage and not self._rows:
            raise DataError(f"Nothing can be read. {self.damage[0]}")
        for sentence in self.damage:
            _log.warning("%s", sentence)
        self._rows = episode_table.ordered(self._rows)
        self.episodes = episode_table.table(self._rows)
        self._decoded: dict[tuple[Path, str], np.ndarray] = {}
        self._decoded_bytes = 0

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        episode_table.check_names(channels, self._specs)
        row = self._rows[index]
        arrays = {}
        for name, values in self._decoded_part(row, channels).items():
            if self.check:
                self._compare(row, name, values)
            dtype = self._specs[name].dtype if name in self._specs else np.int32
            arrays[name] = values.astype(dtype)
        return arrays

    def model(self, index: int) -> dict[str, np.ndarray]:
        return {name: value.copy() for name, value in self._rows[index]["model"].items()}

    def verify(self) -> list[str]:
        try:
            again = ParquetReader(self._path)
        except DataError as error:
            return [str(error)]
        damage = list(again.damage)
        for index in range(len(again.episodes)):
            try:
                again.read(index, ["step", *again._specs])
            except DataError as error:
                damage.append(str(error))
        return list(dict.fromkeys(damage))

    @property
    def finished(self) -> bool:
        return self._about.get("finished") is True

    @property
    def gaps(self) -> int:
        return self._about["gaps"]

    def close(self) -> None:
        self._decoded.clear()
        self._decoded_bytes = 0

    def _load_description(self) -> tuple[RunInfo, dict[str, Any]]:
        """What the run says about itself; each part says it too, but for attached files."""
        head = self._path / HEAD
        try:
            return self._described(head)
        except DataError as error:
            for file in part_files(self._path).values():
                try:
                    found = self._described(file)
                except DataError:
                    continue
                self.damage.append(f"{error} Attached files, if there were any, are lost.")
                return found
            raise

    def _described(self, file: Path) -> tuple[RunInfo, dict[str, Any]]:
        about = _metadata(file)
        if INFO not in about:
            raise DataError(f"'{file}' was not recorded by mjlab_rec. Move it elsewhere.")
        info, about = episode_table.load_info(about[INFO], file, check=self.check)
        episode_table.check_channels(info)
        return info, about

    def _load_episodes(self, file: Path) -> list[dict[str, Any]]:
        """The episodes in a part, if it has the rows and columns that it should have."""
        about = _metadata(file)
        if EPISODES not in about:
            raise DataError(f"'{file}' was not recorded by mjlab_rec. Move it elsewhere.")
        try:
            data = episode_table.load_json(about[EPISODES], check=self.check, sealed=True)
            rows = _load_rows(data.get("episodes"), self.info)
        except DataError as error:
            raise DataError(f"The table of episodes in '{file}' is damaged. {error}") from None
        first = 0
        for row in rows:
            row.update(file=file, first=first)
            first += row["rows"]
        for row in rows:
            row["part_rows"] = first
        count, kinds = _shape(file)
        if count != first or count > _ROWS_PER_BYTE * file.stat().st_size:
            raise DataError(f"'{file}' is damaged: it says {count} rows, but has not so many.")
        for spec in self.info.channels:
            if kinds.get(spec.name) != _stored_kind(spec):
                raise DataError(
                    f"'{file}' is damaged: its column '{spec.name}' is"
                    f" {kinds.get(spec.name, 'missing')}, not {_stored_kind(spec)}."
                )
        if kinds.get("step") != pl.Int32:
            raise DataError(f"'{file}' is damaged: its column 'step' is not of 32-bit integers.")
        return rows

    def _decoded_part(self, row: dict[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of an episode: from memory, or decoded, with the whole part if there is room."""
        file, rows = row["file"], slice(row["first"], row["first"] + row["rows"])
        missing = [name for name in names if (file, name) not in self._decoded]
        if missing and os.getpid() != self._pid:
            raise DataError(
                f"'{file}' cannot be decoded in a process that was forked from the one that opened"
                " the recording. Give the DataLoader multiprocessing_context='spawn', or set"
                " num_workers=0."
            )
        size = row["part_rows"] * sum(self._nbytes(name) for name in missing)
        if missing and self._decoded_bytes + size > CACHE_BYTES:
            found = self._columns(file, missing, rows.start, row["rows"])
        else:
            found = {}
            for name, values in self._columns(file, missing, 0, row["part_rows"]).items():
                self._decoded[file, name] = values
                self._decoded_bytes += values.nbytes
        return {n: found[n] if n in found else self._decoded[file, n][rows] for n in names}

    def _columns(
        self, file: Path, names: Sequence[str], first: int, count: int
    ) -> dict[str, np.ndarray]:
        if not names:
            return {}
        try:
            frame = _scan(file).select(by_name(*names)).slice(first, count).collect()
        except (*POLARS_ERRORS, OSError) as error:
            told = (
                f"{_damaged(file, error)} It was asked for rows {first} to {first + count - 1} of"
            )
            raise DataError(f"{told} {', '.join(names)}.") from None
        found = {}
        for name in names:
            column = frame[name]
            values = column.to_numpy() if not column.null_count() else np.empty(0)
            shape = self._specs[name].shape if name in self._specs else ()
            if values.shape != (count, *shape) or values.dtype != self._dtype(name):
                raise DataError(
                    f"'{file}' is damaged: values in rows {first} to {first + count - 1} of column"
                    f" '{name}' are missing."
                )
            found[name] = values
        return found

    def _dtype(self, name: str) -> np.dtype:
        return stored_dtype(self._specs[name]) if name in self._specs else np.dtype(np.int32)

    def _nbytes(self, name: str) -> int:
        size = self._specs[name].size if name in self._specs else 1
        return size * self._dtype(name).itemsize

    def _compare(self, row: dict[str, Any], name: str, values: np.ndarray) -> None:
        """Raise if values of an episode are not those that were written."""
        at = 8 * self._order[name]
        if zlib.crc32(np.ascontiguousarray(values).data) != int(row["crc32"][at : at + 8], 16):
            first = row["first"]
            raise DataError(
                f"'{row['file']}' is damaged: in rows {first} to {first + row['rows'] - 1}, which"
                f" are episode {row['number']} of environment {row['env']}, column '{name}' does"
                " not match its checksum. Other episodes, and other columns, can be read."
            )


def part_files(folder: Path) -> dict[int, Path]:
    """The parts in a folder, by their numbers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"Cannot read '{folder}': {error.strerror or error}.") from error
    found = {name: re.fullmatch(r"part-(\d{1,9})\.parquet", name) for name in names}
    numbered = [(int(match[1]), folder / name) for name, match in found.items() if match]
    return dict(sorted(numbered))


def stored_dtype(spec: ChannelSpec) -> np.dtype:
    """The type that a channel has in a file."""
    return np.dtype(np.float32) if spec.dtype == np.float16 else spec.dtype


def dump_checksums(arrays: Iterable[np.ndarray]) -> str:
    """A checksum of eight letters for each array."""
    return "".join(f"{zlib.crc32(np.ascontiguousarray(array).data):08x}" for array in arrays)


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


def _load_model(data: Any) -> dict[str, np.ndarray]:
    fields = {}
    for name, value in data.items():
        spec = ChannelSpec.from_json(
            {**value, "name": name, "elements": [], "when": "after", "units": "", "next_of": ""}
        )
        content = base64.b64decode(value["base64"], validate=True)
        fields[name] = np.frombuffer(content, spec.dtype).reshape(spec.shape)
    return fields


def _load_rows(data: Any, info: RunInfo) -> list[dict[str, Any]]:
    """The table of episodes in a part; raises DataError for what is none."""
    try:
        rows, envs = [], set(info.envs)
        for row in data:
            row = {name: row[name] for name in (*EPISODE_COLUMNS, "crc32", "model")}
            for name, kind in EPISODE_COLUMNS.items():
                if not _is_kind(row[name], kind) and (row[name] is not None or name not in _MAYBE):
                    raise DataError(f"'{name}' of an episode is {row[name]!r}.")
            if not 0 < row["rows"] <= row["length"] or row["env"] not in envs:
                raise DataError(f"There can be no episode of {row['rows']} rows.")
            if not re.fullmatch(f"[0-9a-f]{{{8 + 8 * len(info.channels)}}}", row["crc32"]):
                raise DataError("An episode has no checksums.")
            rows.append({**row, "model": _load_model(row["model"])})
        return rows
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"It is no table: {error!r}.") from None


def _is_kind(value: Any, kind: str) -> bool:
    if kind == "Boolean":
        return isinstance(value, bool)
    if kind == "Float64":
        return isinstance(value, float)
    return type(value) is int and 0 <= value < 1 << (31 if kind == "Int32" else 63)


def _scan(file: Path) -> pl.LazyFrame:
    # Names are taken as they are: they may have brackets, or look like key=value.
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _metadata(file: Path) -> dict[str, str]:
    try:
        os.close(plain_files.opened(file))  # no pipe
        return pl.read_parquet_metadata(file)
    except (*POLARS_ERRORS, OSError) as error:
        raise _damaged(file, error) from None


def _shape(file: Path) -> tuple[int, Mapping[str, pl.DataType]]:
    """How many rows a file says it has, and the types of its columns."""
    try:
        lazy = _scan(file)
        return int(lazy.select(pl.len()).collect().item()), dict(lazy.collect_schema())
    except (*POLARS_ERRORS, OSError) as error:
        raise _damaged(file, error) from None


def _stored_kind(spec: ChannelSpec) -> pl.DataType:
    kind = pl.Series(np.zeros(0, stored_dtype(spec))).dtype
    return pl.Array(kind, spec.shape) if spec.shape else kind


def _damaged(file: Path, error: BaseException) -> DataError:
    reason = str(error).partition("\n")[0][:200].rstrip(".")
    return DataError(f"'{file}' is damaged or not complete: {reason}.")
