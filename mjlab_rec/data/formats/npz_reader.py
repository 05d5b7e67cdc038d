"""Read episodes from NumPy archives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.files import META, parts
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import EPISODE_COLUMNS, Reader
from mjlab_rec.data.schema import DataError

TABLE = "episodes.jsonl"


def NpzReader(path: str | Path, check: bool = True) -> Reader:
    """A reader of a folder of episodes or of a single file with its parts."""
    path = Path(path)
    reader = FolderReader(path) if path.is_dir() else _OneFileReader(path)
    reader.check = check
    return reader


class FolderReader(Reader):
    """Reads a folder of episodes. Files that were removed from it are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = (path / META).read_bytes()
        self.info, about = episode_table.load_info(text, path / META)
        self._gaps = about["gaps"]
        attached = path / "attachments"
        if attached.is_dir():
            self.info.attachments = {
                file.relative_to(attached).as_posix(): file.read_bytes()
                for file in sorted(attached.rglob("*"))
                if file.is_file()
            }
        self.lines = _read_lines(path / TABLE)
        there = {file.name for file in path.iterdir()}
        rows = episode_table.ordered([row for row in self.lines if row["file"] in there])
        self._files = [path / row["file"] for row in rows]
        self.episodes = episode_table.table(rows)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        with _opened(self._files[index]) as archive:
            return {name: _read_array(archive, f"{name}.npy") for name in channels}

    def model(self, index: int) -> dict[str, np.ndarray]:
        with _opened(self._files[index]) as archive:
            members = [name for name in archive.namelist() if name.startswith("model/")]
            return {_field(member): _read_array(archive, member) for member in members}

    @property
    def gaps(self) -> int:
        return self._gaps

    def close(self) -> None:
        pass


class _OneFileReader(Reader):
    """Reads a file in which episodes follow each other. Channels stay in memory once read."""

    def __init__(self, path: Path) -> None:
        self._files = parts(path)
        self._gaps = 0
        self._arrays: dict[tuple[int, str], np.ndarray] = {}
        rows = []
        for number, file in enumerate(self._files):
            with _opened(file) as archive:
                if META not in archive.namelist():
                    raise DataError(
                        f"'{file}' was not recorded by mjlab_rec: it has no member {META}."
                    )
                info, about = episode_table.load_info(archive.read(META), file)
                self._gaps += about["gaps"]
                if number == 0:
                    self.info = info
                    info.attachments = {
                        name.removeprefix("attachments/"): archive.read(name)
                        for name in archive.namelist()
                        if name.startswith("attachments/")
                    }
                names = [*EPISODE_COLUMNS, "model"]
                columns = [_values(n, _read_array(archive, f"episodes/{n}.npy")) for n in names]
            first = 0
            for values in zip(*columns, strict=True):
                row = dict(zip(names, values, strict=True))
                rows.append({**row, "part": number, "first": first})
                first += row["rows"]
        self._rows = episode_table.ordered(rows)
        self.episodes = episode_table.table(self._rows)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        episode_table.check_names(channels, [spec.name for spec in self.info.channels])
        row = self._rows[index]
        at = slice(row["first"], row["first"] + row["rows"])
        return {name: self._array(row["part"], f"{name}.npy")[at].copy() for name in channels}

    def model(self, index: int) -> dict[str, np.ndarray]:
        part, at = self._rows[index]["part"], self._rows[index]["model"]
        if at < 0:
            return {}
        with _opened(self._files[part]) as archive:
            members = [name for name in archive.namelist() if name.startswith("model/")]
        return {_field(member): self._array(part, member)[at].copy() for member in members}

    def _array(self, part: int, member: str) -> np.ndarray:
        if (part, member) not in self._arrays:
            with _opened(self._files[part]) as archive:
                self._arrays[part, member] = _read_array(archive, member)
        return self._arrays[part, member]

    @property
    def gaps(self) -> int:
        return self._gaps

    def close(self) -> None:
        self._arrays.clear()


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"'{path}' is not a NumPy archive, or it is damaged: {error}.") from error


def _read_array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _field(member: str) -> str:
    return member.removeprefix("model/").removesuffix(".npy")


def _values(name: str, column: np.ndarray) -> list[Any]:
    """A column of the table of episodes: -1 and NaN are what nobody said."""
    values = column.tolist()
    if name == "success":
        return [None if value < 0 else value == 1 for value in values]
    if name.endswith("return"):
        return [None if np.isnan(value) else value for value in values]
    return values


def whole_lines(content: bytes) -> int:
    """How much of a text is finished lines."""
    return content.rfind(b"\n") + 1


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a table; the last one is left out if it was not finished."""
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        return [json.loads(line) for line in content[: whole_lines(content)].splitlines()]
    except ValueError as error:
        raise DataError(f"'{path}' is damaged: {error}.") from error
