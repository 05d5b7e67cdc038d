"""Read episodes from NumPy archives."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.files import META
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader
from mjlab_rec.data.formats.checks import check_size, damage, open_file
from mjlab_rec.data.formats.episode_reader import EpisodeReader
from mjlab_rec.data.formats.npz_archive import Archive
from mjlab_rec.data.formats.parts import open_parts
from mjlab_rec.data.formats.plain_files import read
from mjlab_rec.data.schema import DataError, RunInfo, bytes_of
from mjlab_rec.data.values import check_count

TABLE = "episodes.jsonl"
FILE = re.compile(r"episode_(\d{6,12})\.npz", re.ASCII)

_MOST_LINE = 1 << 16  # bytes
_MOST_DAMAGES = 1000  # damaged lines that a table may have


def NpzReader(path: str | Path, check: bool = True) -> Reader:
    """Open a folder of episodes, or a single file with its parts."""
    path = Path(path)
    return FolderReader(path, check) if path.is_dir() else _OneFileReader(path, check)


class FolderReader(EpisodeReader):
    """Reads a folder of episodes. Files that were removed are skipped."""

    concurrent = True  # Each episode is a file, and reading and checksums do not hold the GIL.

    def __init__(self, path: Path, check: bool = True) -> None:
        super().__init__(path, check)
        text = read(path / META, most=episode_table.MOST_TEXT, follow=False)
        self.info, about = episode_table.load_info(text, path / META, check=check)
        self.finished, self.gaps = about.get("finished") is True, about["gaps"]
        self.info.attachments = episode_table.read_attached(
            about.get("attached"), self._attached, path, self.damages, check=check
        )
        table = path / TABLE
        lines, damages = _read_lines(table, check)
        self.damages += damages
        self.lines = episode_table.checked(lines, table)
        with damage(f"'{path}'"), os.scandir(path) as entries:
            sizes = {e.name: e.stat(follow_symlinks=False).st_size for e in entries}
        rows = []
        each = bytes_of(self.info.kinds.values())
        for row in self.lines:
            file = str(row.get("file"))
            if not FILE.fullmatch(file):
                raise DataError(f"'{table}' is damaged: a line does not name an episode's file.")
            row["model"] = episode_table.model_kinds(row.get("model"), table)
            if file not in sizes:
                self.damages.append(f"'{path / file}' is missing.")
                continue
            size = row["rows"] * each + bytes_of(row["model"].values())
            check_size(size, sizes[file], f"'{file}'")
            rows.append(row)
        found, written = len(lines) + len(damages), about.get("lines")
        if self.finished and found != written:
            self.damages.append(
                f"'{table}' has {found} complete lines, but {written} were written."
            )
        self._set_rows(rows)

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        row = self._rows[index]
        with self._episode(row), Archive(self.path / row["file"], check=self.check) as archive:
            return {
                name: archive.array(f"{name}.npy", dtype, (row["rows"], *shape))
                for name, (dtype, shape) in ((name, self._kinds[name]) for name in channels)
            }

    def model(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        if not row["model"]:
            return {}
        with self._episode(row), Archive(self.path / row["file"], check=self.check) as archive:
            return {
                name: archive.array(f"model_fields/{name}.npy", dtype, shape)
                for name, (dtype, shape) in row["model"].items()
            }

    def _attached(self, name: str, size: int) -> bytes:
        file = self.path / "attachments" / name
        with damage(f"'{file}'"):
            if os.path.realpath(file) != os.path.join(
                os.path.realpath(self.path), "attachments", *name.split("/")
            ):
                raise DataError(f"'{file}' is a link to another file. Links are not followed.")
        return read(file, most=size, follow=False)


class _OneFileReader(EpisodeReader):
    """Reads a single file with all episodes. Channels stay in memory once read."""

    def __init__(self, path: Path, check: bool = True) -> None:
        super().__init__(path, check)
        self._arrays: dict[tuple[Path, str], np.ndarray] = {}
        parts = open_parts(path, self._open_part, self.damages)
        self.info, self.finished = parts[0].info, parts[-1].finished
        self.gaps = sum(part.gaps for part in parts)
        numbers = [part.number for part in parts]
        if not self.damages and numbers != list(range(len(numbers))):
            self.damages.append(f"A part of '{path}' is missing: the parts {numbers} were found.")
        self.damages += [damage for part in parts for damage in part.damages]
        self._set_rows([{**row, "part": part} for part in parts for row in part.rows])

    def _open_part(self, file: Path, before: Sequence[_Part]) -> _Part:
        part = _Part(file, self.check)
        if before:
            episode_table.check_same_run(before[0].info, part.info, file)
        return part

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        row = self._rows[index]
        part, first, found = row["part"], row["first"], {}
        with self._episode(row):
            for name in channels:
                dtype, shape = self._kinds[name]
                values = self._array(part, f"{name}.npy", dtype, (part.count, *shape), True)
                found[name] = values[first : first + row["rows"]].copy()
                crc = row["crc32"][list(self._kinds).index(name)]
                self._compare(found[name], crc, name, part.file, first)
        return found

    def model(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        part, at = row["part"], row["model"]
        if at < 0:
            return {}
        with self._episode(row):
            return {
                name: self._array(
                    part, f"model_fields/{name}.npy", dtype, (part.models, *shape), False
                )[at].copy()
                for name, (dtype, shape) in part.kinds.items()
            }

    def _array(
        self, part: _Part, member: str, dtype: np.dtype, shape: tuple[int, ...], checked: bool
    ) -> np.ndarray:
        key = part.file, member
        if key not in self._arrays:
            with Archive(part.file, check=self.check, follow=True) as archive:
                self._arrays[key] = archive.array(member, dtype, shape, checked=checked)
        return self._arrays[key]

    def close(self) -> None:
        self._arrays.clear()


class _Part:
    """The description and the table of episodes of one file."""

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
            self.number = check_count(about.get("part"), f"The number of the part '{file}'")
            self.models = check_count(about.get("models"), f"The number of models in '{file}'")
            self.kinds = episode_table.model_kinds(about.get("model"), file)
            self.damages: list[str] = []
            self.info.attachments = episode_table.read_attached(
                about.get("attached"),
                lambda name, size: archive.content(f"attachments/{name}", size),
                file,
                self.damages,
                check=check,
            )
            columns: dict[str, Any] = {}
            count = None
            for name, dtype in TABLE_KINDS.items():
                columns[name] = archive.array(f"episodes/{name}.npy", dtype, (count,)).tolist()
                count = len(columns[name])
            shape = len(columns["env"]), len(self.info.kinds)
            columns["crc32"] = archive.array("episodes/crc32.npy", np.dtype("u4"), shape).tolist()
            rows = [
                dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            ]
            self.rows = episode_table.checked(rows, file)
            self.count = episode_table.set_first_rows(self.rows)
            if not all(-1 <= row["model"] < self.models for row in rows):
                raise DataError(f"'{file}' is damaged: the model fields of an episode are missing.")
            size = self.count * bytes_of(self.info.kinds.values())
            check_size(size, archive.nbytes, f"'{file}'")


TABLE_KINDS = {
    name: values.dtype for name, values in episode_table.columns([]).items() if name != "cut"
} | {"model": np.dtype("int32")}


def _read_lines(path: Path, check: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a table, and a sentence for each damaged one.

    An incomplete last line is ignored.
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
