"""Episodes as NumPy archives: a folder with a file for each episode, or one file at the end."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mjlab_rec.data.files import META, Claim
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.npz_reader import TABLE, FolderReader, NpzReader, whole_lines
from mjlab_rec.data.schema import DataError, Episode, RunInfo

__all__ = ["NpzReader", "NpzWriter"]

_RESERVED = ("model/", "episodes/")
_FLAGS = ("terminated", "truncated", "cut", "success", "partial")


class NpzWriter(Writer):
    """Writes ``.npz`` files that ``numpy.load`` opens, a member for each channel, and "step".

    A path that ends in .npz becomes one file, in which the episodes follow each other; until it is
    closed, or until `roll_over_bytes` have gathered for another part, everything is held in memory,
    and would be lost if the process were killed. Any other path becomes a folder with a file for
    each episode, which is there as soon as the episode is written.

    Appended episodes are numbered on from the highest number that is there.
    """

    by_episode = True
    compressions = ("deflate",)

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        """Rows that were lost on the way here; kept with the file."""
        _check_channels(info)
        deflate = options.compression == "deflate"
        one = options.path.endswith(".npz")
        self._sink = (_OneFile if one else _Folder)(info, options, deflate)

    @property
    def files(self) -> list[Path]:
        return self._sink.files

    @property
    def nbytes(self) -> int:
        return self._sink.nbytes

    def write_episode(self, episode: Episode) -> None:
        self._sink.write(episode)

    def close(self) -> None:
        self._sink.close(self.gaps)


class _Folder:
    """Writes a file for each episode."""

    def __init__(self, info: RunInfo, options: WriterOptions, deflate: bool) -> None:
        for name in info.attachments:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise DataError(
                    f"An attached file cannot be called '{name}': it leaves the folder."
                )
        self.info = info
        self.nbytes = 0
        self._deflate = deflate
        self._claim = Claim(options.path, options.if_exists, folder=True)
        self._path = self._claim.path
        self._next = self._offset = self._gaps = 0
        try:
            if (self._path / META).exists():
                self._go_on()
            else:
                self._describe(0)
        except BaseException:
            self._claim.release()
            raise

    @property
    def files(self) -> list[Path]:
        return [self._path]

    def write(self, episode: Episode) -> None:
        file = f"episode_{self._next:06d}.npz"
        row = {"file": file, **episode_table.table_row(self.info, episode, self._offset)}
        self._next += 1
        members: dict[str, Any] = {f"{name}.npy": a for name, a in episode.arrays.items()}
        members |= {f"model/{name}.npy": a for name, a in episode.model.items()}
        # The line comes first: a line without a file says nothing, a file without a line would be
        # an episode of which nobody knows how it ended.
        line = (json.dumps(row) + "\n").encode()
        with open(self._path / TABLE, "ab", buffering=0) as stream:
            stream.write(line)
        self.nbytes += len(line) + _write_zip(self._path / file, members, self._deflate)

    def close(self, gaps: int) -> None:
        try:
            if gaps:
                self._describe(self._gaps + gaps)
        finally:
            self._claim.release()

    def _describe(self, gaps: int) -> None:
        for name, content in self.info.attachments.items():
            file = self._path / "attachments" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            _replace(file, content)
            self.nbytes += len(content)
        text = episode_table.dump_info(self.info, attachments=False, gaps=gaps).encode()
        _replace(self._path / META, text)
        self.nbytes += len(text)

    def _go_on(self) -> None:
        there = FolderReader(self._path)
        episode_table.check_same_run(there.info, self.info, self._path)
        self.info = there.info
        self._gaps = there.gaps
        self._offset = 1 + max((row["number"] for row in there.lines), default=-1)
        used = [row["file"] for row in there.lines] + [f.name for f in self._path.iterdir()]
        numbers = [re.fullmatch(r"episode_(\d+)\.npz", name) for name in used]
        self._next = 1 + max((int(found[1]) for found in numbers if found), default=-1)
        table = self._path / TABLE
        if table.exists() and (whole := whole_lines(table.read_bytes())) != table.stat().st_size:
            os.truncate(table, whole)


class _OneFile:
    """Gathers episodes for one file."""

    def __init__(self, info: RunInfo, options: WriterOptions, deflate: bool) -> None:
        if options.if_exists == "append":
            raise DataError(
                f"A single .npz file such as '{options.path}' cannot be appended to. Leave out .npz"
                " to get a folder of episodes, or choose if_exists='number'."
            )
        self.info = info
        self.nbytes = 0
        self.files: list[Path] = []
        self._options = options
        self._deflate = deflate
        self._claim = Claim(options.path, options.if_exists)
        self._empty()

    def write(self, episode: Episode) -> None:
        self._table.append(episode_table.table_row(self.info, episode))
        self._model_row.append(len(self._models) if episode.model else -1)
        if episode.model:
            self._models.append(episode.model)
        self._episodes.append(episode.arrays)
        self._held += sum(array.nbytes for array in episode.arrays.values())
        if self._held >= self._options.roll_over_bytes:
            self._write_part(0)

    def close(self, gaps: int) -> None:
        try:
            if self._table or gaps or not self.files:
                self._write_part(gaps)
        finally:
            self._claim.release()

    def _empty(self) -> None:
        self._held = 0
        self._table: list[dict[str, Any]] = []
        self._model_row: list[int] = []
        self._models: list[dict[str, np.ndarray]] = []
        self._episodes: list[dict[str, np.ndarray]] = []

    def _write_part(self, gaps: int) -> None:
        members: dict[str, Any] = {
            META: episode_table.dump_info(self.info, attachments=False, gaps=gaps).encode()
        }
        if not self.files:
            files = self.info.attachments.items()
            members |= {f"attachments/{name}": content for name, content in files}
        step = np.dtype("int32"), ()
        kinds = {spec.name: (spec.dtype, spec.shape) for spec in self.info.channels}
        for name, (dtype, shape) in (kinds | {"step": step}).items():
            pieces = [np.empty((0, *shape), dtype), *(arrays[name] for arrays in self._episodes)]
            members[f"{name}.npy"] = np.concatenate(pieces)
        for name, values in episode_table.table(self._table).to_dict(as_series=False).items():
            members[f"episodes/{name}.npy"] = _column(name, values)
        members["episodes/model.npy"] = np.array(self._model_row, np.int32)
        for name in self._models[0] if self._models else ():
            members[f"model/{name}.npy"] = np.stack([fields[name] for fields in self._models])
        path = self._claim.next_part()
        self.nbytes += _write_zip(path, members, self._deflate)
        self.files.append(path)
        self._empty()


def _check_channels(info: RunInfo) -> None:
    for spec in info.channels:
        if spec.name == "step" or spec.name.startswith(_RESERVED):
            raise DataError(
                f"A channel in an npz file cannot be called '{spec.name}': 'step' and names that"
                f" begin with {' or '.join(_RESERVED)} mean something else there. Rename it."
            )


def _write_zip(path: Path, members: Mapping[str, Any], deflate: bool) -> int:
    """Write a whole archive under a temporary name, then give it its own; returns its size."""
    hidden = path.with_name(f".{path.name}.tmp")
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    try:
        with zipfile.ZipFile(hidden, "w") as archive:
            for name, value in members.items():
                # numpy.savez takes names as keyword arguments, of which it keeps some to itself.
                member = zipfile.ZipInfo(name)
                member.compress_type = kind
                with archive.open(member, "w", force_zip64=True) as stream:
                    if isinstance(value, bytes):
                        stream.write(value)
                    else:
                        array = np.asarray(value, order="C")
                        np.lib.format.write_array(stream, array, allow_pickle=False)
        size = hidden.stat().st_size
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    return size


def _column(name: str, values: list[Any]) -> np.ndarray:
    """A column of the table of episodes as an array: what nobody said becomes -1 or NaN."""
    if name == "success":
        return np.array([-1 if value is None else value for value in values], np.int8)
    if name in _FLAGS:
        return np.array(values, bool)
    if name.endswith("return"):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(values, np.int64)


def _replace(path: Path, content: bytes) -> None:
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_bytes(content)
    os.replace(hidden, path)
