"""Episodes as NumPy archives: a folder with a file per episode, or a single file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import array_crc32
from mjlab_rec.data.files import META, PathLock
from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.npz_archive import write_archive
from mjlab_rec.data.formats.npz_reader import FILE, TABLE, FolderReader, NpzReader
from mjlab_rec.data.formats.plain_files import (
    GrowingFile,
    cannot_write,
    cut,
    reason,
    replace,
    sync_to_disk,
)
from mjlab_rec.data.schema import DataError, Episode, RunInfo
from mjlab_rec.data.values import check_name

__all__ = ["NpzReader", "NpzWriter"]

_RESERVED = ("model_fields/", "episodes/", "attachments/")


class NpzWriter(Writer):
    """Writes ``.npz`` files for ``numpy.load``, with a member for each channel and "step".

    A path that ends in .npz becomes one file with the rows of all episodes. They are kept in memory
    until it is closed, or until `roll_over_bytes` fill a part, and are lost if the process is
    killed. Any other path becomes a folder with a file for each episode, which is written when the
    episode ends.

    Appended episodes continue the numbering from the highest number.
    """

    by_episode = True
    compressions = ("deflate",)

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        _check_names(info)
        one = options.path.endswith(".npz")
        self._sink = (_OneFile if one else _Folder)(info, options)

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
    """Writes a file for each episode, and then its line in the table.

    So every line has its file. A kill between the two leaves a file without a line.
    """

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        self.info = info
        self.nbytes = 0
        self._deflate = options.compression == "deflate"
        self._sync = options.durability == "power"
        self._path_lock = PathLock(options.path, options.if_exists, folder=True)
        self._path = self._path_lock.path
        self._next = self._offset = self._lines = self._gaps = 0
        self._table: GrowingFile | None = None
        try:
            exists = (self._path / META).exists()
            if exists:
                self._append_to_existing()
            self._description(finished=False)  # raises if it could not be read back
            self._table = GrowingFile(self._path / TABLE)
            if not exists:
                self._attach()
            self._describe(finished=False)
            if self._sync:
                sync_to_disk(self._path.parent)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise cannot_write(self._path, error) from error
            raise

    @property
    def files(self) -> list[Path]:
        return [self._path]

    def write(self, episode: Episode) -> None:
        file = self._path / f"episode_{self._next:06d}.npz"
        row = {
            "file": file.name,
            **episode_table.row_of(episode, self._offset),
            "model": episode_table.model_json(episode.model),
        }
        members: dict[str, Any] = {f"{name}.npy": a for name, a in episode.arrays.items()}
        members |= {f"model_fields/{name}.npy": a for name, a in episode.model.items()}
        line = (episode_table.seal(json.dumps(row)) + "\n").encode()
        assert self._table
        self._table.check_exists()
        try:
            size = write_archive(file, members, self._deflate, self._sync)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        try:
            self._table.append(line, self._sync)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self._next += 1
        self._lines += 1
        self.nbytes += len(line) + size

    def close(self, gaps: int) -> None:
        try:
            self._gaps += gaps
            self._describe(finished=True)
        finally:
            self._release()

    def _attach(self) -> None:
        for name, content in self.info.attachments.items():
            file = self._path / "attachments" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, content, self._sync)
            self.nbytes += len(content)

    def _describe(self, *, finished: bool) -> None:
        content = self._description(finished=finished)
        replace(self._path / META, content, self._sync)
        self.nbytes += len(content)

    def _description(self, *, finished: bool) -> bytes:
        return episode_table.dump_info(
            self.info,
            attachments=False,
            attached=episode_table.attached_json(self.info.attachments),
            gaps=self._gaps,
            finished=finished,
            lines=self._lines,
        ).encode()

    def _append_to_existing(self) -> None:
        old = FolderReader(self._path)
        episode_table.check_same_run(old.info, self.info, self._path)
        self.info = old.info
        self._gaps = old.gaps
        self._offset = 1 + max((row["number"] for row in old.lines), default=-1)
        used = [row["file"] for row in old.lines] + [f.name for f in self._path.iterdir()]
        numbers = [FILE.fullmatch(name) for name in used]
        self._next = 1 + max((int(found[1]) for found in numbers if found), default=-1)
        table = self._path / TABLE
        content = table.read_bytes()
        self._lines = content.count(b"\n")
        cut(table, content.rfind(b"\n") + 1)

    def _release(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None
        self._path_lock.release()


class _OneFile:
    """Collects episodes for one file."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        if options.if_exists == "append":
            raise DataError(
                f"A single .npz file such as '{options.path}' cannot be appended to. Omit .npz to"
                " get a folder of episodes, or choose if_exists='number'."
            )
        self.info = info
        self.nbytes = 0
        self.files: list[Path] = []
        self._options = options
        self._kinds = info.kinds
        self._part: Path | None = None
        self._empty()
        self._members(0, finished=False)  # raises if it could not be read back
        self._path_lock = PathLock(options.path, options.if_exists, can_append=False)

    def write(self, episode: Episode) -> None:
        crc = [array_crc32(episode.arrays[name]) for name in self._kinds]
        self._table.append(episode_table.row_of(episode))
        self._crc.append(crc)
        self._model_row.append(len(self._models) if episode.model else -1)
        if episode.model:
            self._models.append(episode.model)
        self._episodes.append(episode.arrays)
        self._waiting_bytes += sum(array.nbytes for array in episode.arrays.values())
        if self._waiting_bytes >= self._options.roll_over_bytes:
            self._write_part(0, finished=False)

    def close(self, gaps: int) -> None:
        try:
            self._write_part(gaps, finished=True)
        finally:
            self._path_lock.release()

    def _empty(self) -> None:
        self._waiting_bytes = 0
        self._table: list[dict[str, Any]] = []
        self._crc: list[list[int]] = []
        self._model_row: list[int] = []
        self._models: list[dict[str, np.ndarray]] = []
        self._episodes: list[dict[str, np.ndarray]] = []

    def _write_part(self, gaps: int, *, finished: bool) -> None:
        if self._part is None:
            self._part = self._path_lock.next_part()
        path = self._part
        try:
            options = self._options
            deflate, sync = options.compression == "deflate", options.durability == "power"
            self.nbytes += write_archive(path, self._members(gaps, finished), deflate, sync)
        except OSError as error:
            raise DataError(
                f"Cannot write to '{path}': {reason(error)}. Its episodes are still in memory, and"
                " will be written with the next ones."
            ) from error
        self.files.append(path)
        self._part = None
        self._empty()

    def _members(self, gaps: int, finished: bool) -> dict[str, Any]:
        """All members of a part."""
        attached = self.info.attachments if not self.files else {}
        model = self._models[0] if self._models else {}
        members: dict[str, Any] = {
            META: episode_table.dump_info(
                self.info,
                attachments=False,
                attached=episode_table.attached_json(attached),
                gaps=gaps,
                part=len(self.files),
                models=len(self._models),
                model=episode_table.model_json(model),
                finished=finished,
            ).encode()
        }
        members |= {f"attachments/{name}": content for name, content in attached.items()}
        for name, (dtype, shape) in self._kinds.items():
            pieces = [np.empty((0, *shape), dtype), *(arrays[name] for arrays in self._episodes)]
            members[f"{name}.npy"] = np.concatenate(pieces)
        for name, values in episode_table.columns(self._table).items():
            members[f"episodes/{name}.npy"] = values
        members["episodes/model.npy"] = np.array(self._model_row, np.int32)
        crc = np.array(self._crc, np.uint32).reshape(-1, len(self._kinds))
        members["episodes/crc32.npy"] = crc
        for name in model:
            members[f"model_fields/{name}.npy"] = np.stack(
                [fields[name] for fields in self._models]
            )
        return members


def _check_names(info: RunInfo) -> None:
    for spec in info.channels:
        if spec.name == "step" or spec.name.startswith(_RESERVED):
            raise DataError(
                f"A channel in an npz file cannot be called '{spec.name}': 'step' and names that"
                f" begin with {' or '.join(_RESERVED)} are reserved. Rename the channel."
            )
    for name in info.attachments:
        check_name(name, "attached file")
