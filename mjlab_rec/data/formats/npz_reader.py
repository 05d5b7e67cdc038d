"""Read episodes from NumPy archives."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.files import META, parts
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.checks import check_size, damage, open_file, read_file
from mjlab_rec.data.formats.episode_reader import EpisodeReader, row_bytes
from mjlab_rec.data.formats.npz_archive import Archive
from mjlab_rec.data.schema import DataError, RunInfo

TABLE = "episodes.jsonl"
FILE = re.compile(r"episode_(\d{6,12})\.npz", re.ASCII)

_MOST_LINE = 1 << 16  # bytes
_MOST_DAMAGES = 1000  # lines after which a table is none


def NpzReader(path: str | Path, check: bool = True) -> Reader:
    """A reader of a folder of episodes or of a single file with its parts."""
    path = Path(path)
    return FolderReader(path, check) if path.is_dir() else _OneFileReader(path, check)


class FolderReader(EpisodeReader):
    """Reads a folder of episodes. Files that were removed from it are left out."""

    def __init__(self, path: Path, check: bool = True) -> None:
        self._path = path
        self.check = check
        text = read_file(path / META, episode_table.MOST_TEXT)
        self.info, self._about = episode_table.load_info(text, path / META, check=check)
        self.info.attachments, self._damages = episode_table.read_attached(
            self._about.get("attached"), self._attached, path, check=check
        )
        table = path / TABLE
        self.lines, damages = _read_lines(table, check)
        self._damages += damages
        for row in self.lines:
            if not FILE.fullmatch(str(row.get("file"))):
                raise DataError(f"'{table}' is damaged: it does not name an episode's file.")
            row["model"] = episode_table.model_kinds(row.get("model"), table)
        with damage(f"'{path}'"), os.scandir(path) as entries:
            sizes = {e.name: e.stat(follow_symlinks=False).st_size for e in entries}
        rows = []
        each = row_bytes(self.info)
        for row in episode_table.ordered(self.lines, table):
            file = row["file"]
            if file not in sizes:
                self._damages.append(f"'{path / file}' is missing.")
                continue
            model = sum(dtype.itemsize * np.prod(shape) for dtype, shape in row["model"].values())
            size = int(row["rows"] * each + model)
            check_size(size, sizes[file], f"'{file}'")
            rows.append(row)
        lines = self._about.get("lines")
        if self.finished and len(self.lines) + len(damages) != lines:
            self._damages.append(
                f"'{table}' has {len(self.lines) + len(damages)} whole lines, but {lines}"
                " were written."
            )
        self._take(rows, path)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        row = self._rows[index]
        with self._episode(row), Archive(self._path / row["file"], check=self.check) as archive:
            return {
                name: archive.array(f"{name}.npy", dtype, (row["rows"], *shape))
                for name, (dtype, shape) in ((name, self._kinds[name]) for name in channels)
            }

    def model(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        if not row["model"]:
            return {}
        with self._episode(row), Archive(self._path / row["file"], check=self.check) as archive:
            return {
                name: archive.array(f"model_fields/{name}.npy", dtype, shape)
                for name, (dtype, shape) in row["model"].items()
            }

    @property
    def finished(self) -> bool:
        return self._about.get("finished") is True

    @property
    def gaps(self) -> int:
        return self._about["gaps"]

    def close(self) -> None:
        pass

    def _attached(self, name: str, size: int) -> bytes:
        file = self._path / "attachments" / name
        with damage(f"'{file}'"):
            if os.path.realpath(file) != os.path.join(
                os.path.realpath(self._path), "attachments", *name.split("/")
            ):
                raise DataError(f"'{file}' is a link to another file. Links are not followed.")
        return read_file(file, size)


class _OneFileReader(EpisodeReader):
    """Reads a file in which episodes follow each other. Channels stay in memory once read."""

    def __init__(self, path: Path, check: bool = True) -> None:
        self.check = check
        self._damages = []
        self._parts: list[_Part] = []
        self._arrays: dict[tuple[int, str], np.ndarray] = {}
        files = parts(path)
        if not files:
            raise DataError(f"There is no recording at '{path}'.")
        for file in files:
            try:
                part = _Part(file, check)
                if self._parts:
                    episode_table.check_same_run(self._parts[0].info, part.info, file)
                self._parts.append(part)
                self._damages += part.damages
            except DataError as error:
                if len(files) == 1:
                    raise
                self._damages.append(str(error))
        if not self._parts:
            raise DataError(f"Nothing in '{path}' can be read. {self._damages[0]}")
        self.info = self._parts[0].info
        numbers = [part.number for part in self._parts]
        if len(files) == len(numbers) and numbers != list(range(len(numbers))):
            self._damages.append(f"A part of '{path}' is missing: there are only {numbers}.")
        self._take(
            episode_table.ordered(
                [
                    {**row, "part": number}
                    for number, part in enumerate(self._parts)
                    for row in part.rows
                ]
            ),
            path,
        )

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        row = self._rows[index]
        part, rows = self._parts[row["part"]], slice(row["first"], row["first"] + row["rows"])
        found = {}
        with self._episode(row):
            for name in channels:
                dtype, shape = self._kinds[name]
                values = self._array(row["part"], f"{name}.npy", dtype, (part.count, *shape), True)
                found[name] = values[rows].copy()
                at = list(self._kinds).index(name)
                if self.check and zlib.crc32(found[name].data) != row["crc32"][at]:
                    raise DataError(
                        f"'{part.file}' is damaged in channel '{name}': wrong checksum of the rows"
                        f" {rows.start} to {rows.stop - 1}."
                    )
        return found

    def model(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        part = self._parts[row["part"]]
        if row["model"] < 0:
            return {}
        with self._episode(row):
            return {
                name: self._array(
                    row["part"], f"model_fields/{name}.npy", dtype, (part.models, *shape), False
                )[row["model"]].copy()
                for name, (dtype, shape) in part.kinds.items()
            }

    def _array(
        self, part: int, member: str, dtype: np.dtype, shape: tuple[int, ...], checked: bool
    ) -> np.ndarray:
        if (part, member) not in self._arrays:
            with Archive(self._parts[part].file, check=self.check, follow=True) as archive:
                values = archive.array(member, dtype, shape, checked=checked)
            self._arrays[part, member] = values
        return self._arrays[part, member]

    @property
    def finished(self) -> bool:
        return self._parts[-1].finished

    @property
    def gaps(self) -> int:
        return sum(part.gaps for part in self._parts)

    def close(self) -> None:
        self._arrays.clear()


class _Part:
    """What is known about one file without looking at a channel."""

    info: RunInfo

    def __init__(self, file: Path, check: bool) -> None:
        self.file = file
        with Archive(file, check=check, follow=True) as archive:
            if not archive.has(META):
                raise DataError(f"'{file}' was not recorded by mjlab_rec: it has no member {META}.")
            text = archive.content(META, episode_table.MOST_TEXT)
            self.info, about = episode_table.load_info(text, file, check=check)
            self.gaps: int = about["gaps"]
            self.finished = about.get("finished") is True
            self.number = _count(about, "part", file)
            self.models = _count(about, "models", file)
            self.kinds = episode_table.model_kinds(about.get("model"), file)
            self.info.attachments, self.damages = episode_table.read_attached(
                about.get("attached"),
                lambda name, size: archive.content(f"attachments/{name}", size),
                file,
                check=check,
            )
            columns: dict[str, Any] = {}
            count = None
            for name, dtype in TABLE_KINDS.items():
                columns[name] = archive.array(f"episodes/{name}.npy", dtype, (count,)).tolist()
                count = len(columns[name])
            assert count is not None
            shape = count, len(self.info.channels) + 1
            columns["crc32"] = archive.array("episodes/crc32.npy", np.dtype("u4"), shape).tolist()
            rows = [
                dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            ]
            episode_table.ordered(rows, file)
            self.rows = rows
            self.count = 0
            for row in rows:
                if not -1 <= row["model"] < self.models:
                    raise DataError(f"'{file}' is damaged: an episode's model is not there.")
                row["first"] = self.count
                self.count += row["rows"]
            check_size(self.count * row_bytes(self.info), archive.nbytes, f"'{file}'")


TABLE_KINDS = {
    name: values.dtype for name, values in episode_table.columns([]).items() if name != "cut"
} | {"model": np.dtype("int32")}


def _count(about: dict[str, Any], key: str, file: Path) -> int:
    value = about.get(key)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise DataError(f"'{file}' is damaged: '{key}' is no count.")
    return value


def whole_lines(content: bytes) -> int:
    """How much of a text is finished lines."""
    return content.rfind(b"\n") + 1


def _read_lines(path: Path, check: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a table, and a sentence for each damaged one.

    The last one is left out if it was not finished.
    """
    rows, damages = [], []
    with open_file(path) as stream, damage(f"'{path}'"):
        number = 0
        while line := stream.readline(_MOST_LINE):
            number += 1
            if not line.endswith(b"\n") and len(line) < _MOST_LINE:
                break
            try:
                rows.append(episode_table.load_json(line, check=check, sealed=True))
            except DataError as error:
                damages.append(f"Line {number} of '{path}' is damaged. {error}")
                if len(damages) > _MOST_DAMAGES:
                    raise DataError(f"'{path}' is not a table of episodes. {damages[0]}") from None
    return rows, damages
