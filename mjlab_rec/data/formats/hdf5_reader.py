"""Read recordings in HDF5, finished or not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.formats.blocks import END_DTYPE, BlockRun, BlocksReader, Index
from mjlab_rec.data.formats.paths import dataset_paths
from mjlab_rec.data.schema import DataError, RunInfo

_LOG = logging.getLogger(__name__)


class Hdf5Reader(BlocksReader):
    """Reads all parts of a run, and all runs that were appended to it."""

    def __init__(self, path: Path, check: bool = True) -> None:
        path = Path(path)
        self.check = check
        paths = files.parts(path)
        if not paths:
            raise DataError(f"There is no recording at '{path}'.")
        self._files: list[h5py.File] = []
        runs: dict[str, list[_Part]] = {}
        try:
            for each in paths:
                part = self._open(each)
                if part is not None:
                    runs.setdefault(part.run, []).append(part)
            if not runs:
                raise DataError(f"Nothing of the recording '{path}' can be read.")
            super().__init__([_Run(parts) for parts in runs.values()])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:  # noqa: D102
        for file in self._files:
            file.close()
        self._files.clear()

    def _open(self, path: Path) -> _Part | None:
        """A part of a run; None if it is damaged, which must not cost the other parts."""
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:
            _LOG.warning(
                "'%s' is no HDF5 file that can be read, so it is left out: %s", path, error
            )
            return None
        self._files.append(file)
        if file.attrs.get("format") != "mjlab_rec":
            raise DataError(f"'{path}' was not recorded by mjlab_rec: it does not describe itself.")
        return _Part(file)


class _Part:
    """A file of a run: what it holds in whole blocks."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.run = str(file.attrs["run"])
        self.packed = bool(file.attrs["packed"])
        self.data = dict(json.loads(_value(file["info"])))
        self.channels: dict[str, _Rows] = {}
        self.blocks = 0
        if "index" not in file:  # nothing was ever written to it
            return
        # Only what the index counts is looked at: in a file that is being written, or whose process
        # died, the rest may be there in part, or in a place that isn't in the file yet.
        index = _read(file, "index/blocks")
        self.blocks = blocks = int(np.argmin(np.append(index["done"], 0)))
        if not blocks:
            return
        self.rows, self.gap = index["rows"][:blocks], index["gap"][:blocks]
        self.step, self.first_episode, self.first_step, self.total, self.recorded = (
            _read(file, f"index/{name}", blocks)
            for name in ("step", "first_episode", "first_step", "total", "recorded")
        )
        last = index[blocks - 1]
        self.ends = _read(file, "ends", last["ends"])
        paths = dataset_paths(spec["name"] for spec in self.data["channels"])
        self.channels = _named(file["blocks"], paths, _Rows)
        self.tails = _named(_group(file, "tail"), paths, _Rows)
        self.finals = _named(_group(file, "final"), paths)
        values = _named(
            _group(file, "values"), dataset_paths(json.loads(_value(file["index/values"])))
        )
        self.values = {name: dataset[: last["ends"]] for name, dataset in values.items()}
        self.model: dict[str, tuple[np.ndarray, h5py.Dataset]] = {}
        for number, name in enumerate(json.loads(_value(file["index/model_fields"]))):
            group = _group(file, f"model_fields/{name}")
            self.model[name] = _read(group, "where", last["model"][number]), group["value"]


class _Run(BlockRun):
    """All parts of a run, in order, as if they were one file."""

    def __init__(self, parts: list[_Part]) -> None:
        self.info = RunInfo.from_json(parts[0].data)
        attached = _group(parts[0].file, "attachments")
        self.info.attachments = {
            name: _value(dataset).tobytes() for name, dataset in _datasets(attached).items()
        }
        self._parts = [part for part in parts if part.blocks] or parts[:0]
        self._first_block = np.cumsum([0, *(part.blocks for part in self._parts)])
        self._first_end = np.cumsum([0, *(len(part.ends) for part in self._parts)])
        parts = self._parts
        lanes = len(self.info.envs)
        width = max((part.step.shape[1] for part in parts), default=1)
        ends = [part.ends.copy() for part in parts]
        for rows, first in zip(ends, self._first_block, strict=False):
            rows["block"] += first
        names = dict.fromkeys(name for part in parts for name in part.values)
        self.index = Index(
            rows=_joined([part.rows.astype(np.int64) for part in parts], (0,)),
            gap=_joined([part.gap for part in parts], (0,)),
            step=_joined([part.step for part in parts], (0, width)),
            first_episode=_joined([part.first_episode for part in parts], (0, lanes)),
            first_step=_joined([part.first_step for part in parts], (0, lanes)),
            total=_joined([part.total for part in parts], (0, lanes)),
            recorded=_joined([part.recorded for part in parts], (0, lanes)),
            ends=np.concatenate([np.zeros(0, END_DTYPE), *ends]),
            values={
                name: np.concatenate(
                    [p.values.get(name, np.full(len(p.ends), np.nan)) for p in parts]
                )
                for name in names
            },
            packed=any(part.packed for part in parts),
        )

    def has(self, name: str) -> bool:
        return any(name in part.channels for part in self._parts)

    def fill(
        self, out: np.ndarray, name: str, block: int, lane: int, start: int, stop: int
    ) -> None:
        part, block = self._at(self._first_block, block)
        out[...] = part.channels[name].read(block, lane, slice(start, stop))

    def tail(self, name: str, block: int, lane: int) -> np.ndarray:
        part, block = self._at(self._first_block, block)
        return part.tails[name].read(block, lane)

    def final(self, name: str, end: int) -> np.ndarray:
        part, end = self._at(self._first_end, end)
        return part.finals[name][end]

    def model(self, lane: int, key: int) -> dict[str, np.ndarray]:
        found = {}
        for part in self._parts:
            for name, (where, values) in part.model.items():
                mine = where["lane"] == lane
                if self.index.packed:
                    mine &= where["episode"] == key
                else:
                    mine &= where["episode"] <= key
                at = np.flatnonzero(mine)
                if len(at):
                    found[name] = np.asarray(values[at[-1]])
        return found

    def _at(self, firsts: np.ndarray, number: int) -> tuple[_Part, int]:
        part = int(np.searchsorted(firsts, number, side="right")) - 1
        return self._parts[part], number - int(firsts[part])


class _Rows:
    """A dataset by block and lane. Plain chunks are read from the file itself, some hundred times
    as fast as h5py finds its way to a few rows.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self._plain = not dataset.id.get_create_plist().get_nfilters() and bool(dataset.size)
        self._shape: tuple[int, ...] = dataset.chunks or ()
        self._chunks: dict[tuple[int, int], np.ndarray] = {}
        self._bytes: np.ndarray | None = None

    def read(self, block: int, lane: int, rows: Any = ()) -> np.ndarray:
        """What a lane has in a block, or some rows of it: in memory that must not be kept."""
        if not self._plain:
            return self.dataset[(block, lane, rows) if rows != () else (block, lane)]
        blocks, lanes = self._shape[:2]
        at = block // blocks, lane // lanes
        if at not in self._chunks:
            self._chunks[at] = self._chunk(at[0] * blocks, at[1] * lanes)
        return self._chunks[at][block % blocks, lane % lanes][rows]

    def _chunk(self, block: int, lane: int) -> np.ndarray:
        """The chunk that begins at a block and lane, as a view of the file."""
        dataset = self.dataset
        if self._bytes is None:
            self._bytes = np.memmap(dataset.file.filename, np.uint8, "r")
        start = (block, lane, *(0,) * (dataset.ndim - 2))
        info = dataset.id.get_chunk_info_by_coord(start)
        content = self._bytes[info.byte_offset : info.byte_offset + info.size]
        return content.view(dataset.dtype).reshape(self._shape)


def _named(
    group: Any, paths: Mapping[str, str], make: Callable[[h5py.Dataset], Any] = lambda d: d
) -> dict[str, Any]:
    """Those datasets that there are in a group, by name."""
    return {name: make(group[path]) for name, path in paths.items() if path in group}


def _datasets(group: Any) -> dict[str, Any]:
    """All datasets below a group by their path."""
    found = {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            found |= {f"{name}/{rest}": value for rest, value in _datasets(item).items()}
        else:
            found[name] = item
    return found


def _group(file: h5py.File, name: str) -> Any:
    return file[name] if name in file else {}


def _read(group: Any, name: str, rows: Any = None) -> np.ndarray:
    return group[name][:rows]


def _value(dataset: Any) -> Any:
    return dataset[()]


def _joined(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(shape, np.int64)
