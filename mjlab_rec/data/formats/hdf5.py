"""Recordings in HDF5: one dataset per channel, a chunk per block, safe against a kill at any time.

``blocks/<channel>`` is shaped (block, env_index, row in block, ...); a channel below another one,
such as ``obs/actor/joints`` below ``obs/actor``, is stored next to it: ``obs/actor.joints``.
``tail`` holds the values after a block's last row, ``final`` those where episodes ended. ``index``
numbers the rows, ``ends`` lists the episodes that ended, and ``info`` is a JSON text with the names
of everything. The attribute ``how_to_read`` explains it to readers who have only h5py. Unused rows
of a block are NaN, or 0 where the type has no NaN. Encoded pictures are in ``encoded/<channel>``;
instead of values there are then entries, which say where.

Everything has checksums, and our reader does not use the HDF5 library, so that damage to a file
affects only the damaged data. A copy that another program wrote, such as h5repack, can be read with
h5py only.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.formats.base import WriterOptions
from mjlab_rec.data.formats.episode_table import check_same_run
from mjlab_rec.data.formats.hdf5_create import new_file
from mjlab_rec.data.formats.hdf5_file import Hdf5FilesWriter, RawFile, place
from mjlab_rec.data.formats.hdf5_index import add_part, join_records
from mjlab_rec.data.formats.hdf5_layout import (
    CONTINUED,
    ENV_DTYPE,
    FINISHED,
    MODEL_DTYPE,
    Column,
    Layout,
    Plan,
    Storage,
    make_plan,
)
from mjlab_rec.data.formats.hdf5_packed import PackedEpisodes, groups
from mjlab_rec.data.formats.hdf5_part import Part, Pieces
from mjlab_rec.data.formats.hdf5_pictures import PictureWriter
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader, last_info
from mjlab_rec.data.formats.segments import column, end_rows
from mjlab_rec.data.pictures.codec import CODECS
from mjlab_rec.data.schema import Block, DataError, Episode, RunInfo

__all__ = ["Hdf5Reader", "Hdf5Writer"]

_LOG = logging.getLogger(__name__)

_PACKED_ROWS = 64  # minimum number of rows per block if whole episodes are written
_TILE = 4 << 20  # bytes that are reordered at a time: the size of a processor's cache


class Hdf5Writer(Hdf5FilesWriter):
    """Writes HDF5 files that plain h5py can open at any time, also after a kill.

    With durability "kill", a loss of power loses what the system had not yet written to the disk,
    usually the blocks of the last half minute. In the worst case HDF5's metadata is inconsistent,
    and only mjlab_rec can read the file and report the damaged blocks. With "power" each block
    waits for the disk twice, and only the running block is lost.

    If a block cannot be written, because the disk is full or the file was deleted, its rows are
    marked as lost. The next block is tried again, if needed in a new part.
    """

    codecs = CODECS
    encodes_floats = True
    most_chunks = 1024
    """Maximum number of chunks of a dataset; then the next part begins."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        self._pictures = PictureWriter(info)
        self._nbytes = {spec.name: spec.nbytes for spec in info.channels}
        super().__init__(info, options)
        self._run = uuid.uuid4().hex
        self._lost: list[tuple[int, int]] = []  # blocks that were not written: first step, rows
        self._serial = 0  # number of the next episode, if whole episodes are written
        self._scratch = np.empty(0, np.uint8)
        self._storage = Storage(
            compression=options.compression,
            roll_over_bytes=options.roll_over_bytes,
            most_chunks=self.most_chunks,
            blocks=options.blocks,
        )
        with self._beginning():
            if (old := last_info(files.parts(self._path_lock.path))) is not None:
                check_same_run(old, info, self._path_lock.path)
            self._part = self._open(None)

    def write(self, block: Block) -> None:
        if block.rows > self.options.block_rows:
            raise DataError(
                f"The block has {block.rows} rows, but WriterOptions.block_rows is"
                f" {self.options.block_rows}."
            )
        first = int(block.step[0]) if block.rows else -1
        try:
            self._write(block, sum(rows for at, rows in self._lost if at < first))
        except BaseException:
            # Its rows are lost, unless it is written again.
            if (first, block.rows + block.gap) not in self._lost:
                self._lost.append((first, block.rows + block.gap))
            raise
        self._lost = [(at, rows) for at, rows in self._lost if at > first >= 0 or first < 0]

    def _write(self, block: Block, lost: int) -> None:
        values, rows = block.ends.values, self.options.block_rows
        model = {} if block.model is None else block.model.fields
        size = block.num_envs * rows
        progress = _Progress(size * sum(spec.nbytes for spec in self.info.stored), block.pace)
        pictures = self._pictures.block(
            block,
            rows,
            lambda name, done: progress.encoded(name, done * size * self._nbytes[name]),
        )
        layout = Layout(info=self.info, rows=rows, values=_types(values), model=_kinds(model))
        needs = {"ends": len(block.ends)}
        needs |= {f"model_fields/{name}": len(changes) for name, changes in model.items()}
        needs |= {layout.streams[name]: found.nbytes for name, found in pictures.items()}
        part, plan = self._room(needs, layout)
        adds = {table: np.array([count]) for table, count in needs.items()}
        self._reserve(part, 1, adds)
        layout = plan.layout
        step = np.full(rows, -1)
        step[: block.rows] = block.step[: block.rows]
        envs = np.empty(block.num_envs, ENV_DTYPE)
        for name in ENV_DTYPE.names or ():
            envs[name] = getattr(block, name)
        columns: dict[str, Pieces] = {
            "index/step": [step],
            "index/envs": [envs],
            "ends": [end_rows(block.ends, part.blocks, self.info)],
        }
        for spec in layout.chained:
            if spec.codec:
                continue
            path = layout.paths[spec.name]
            columns[f"tail/{path}"] = [block.tail[spec.name]]
            columns[f"final/{path}"] = [block.ends.final[spec.name]]
        for name, found in pictures.items():
            stream = layout.streams[name]
            columns[stream] = found.content()
            for kind, entries in found.moved(part.lengths[stream]).items():
                columns[f"{kind}/{layout.paths[name]}"] = [entries]
        for name, dtype in layout.values.items():
            cast = _cast(column(block.ends, name), dtype)
            columns[f"values/{layout.value_paths[name]}"] = [cast]
        if block.model is not None:
            columns |= _changes(model, block.model.env_index, block.model.episode)
        for each in plan.columns:
            if each.path.startswith("blocks/"):
                assert each.spec is not None
                if each.spec.codec:
                    continue
                tiles = self._tiles(block.arrays[each.spec.name], each)
                columns[each.path] = progress.through(tiles)
        with self._filling(part.abandon):
            part.write(columns, adds, np.array([block.rows]), np.array([block.gap + lost]))

    def write_episode(self, episode: Episode) -> None:
        self.write_episodes([episode])

    def write_episodes(self, episodes: Iterable[Episode]) -> None:
        for group in groups(episodes, self.info):
            while group:
                group = group[self._write_packed(group) :]

    def _write_packed(self, episodes: Sequence[Episode]) -> int:
        """Write as many of these episodes as fit into a file, at least one; returns how many."""
        rows = self.options.block_rows
        if not self.options.blocks:
            rows = max(rows, _PACKED_ROWS)
        model = {name: np.asarray(value)[None] for name, value in episodes[0].model.items()}
        pictures = self._pictures.episode(episodes[0])  # Those with pictures come one by one.
        layout = Layout(info=self.info, rows=rows, packed=True, model=_kinds(model))
        needs = {"ends": 1, **{f"model_fields/{name}": 1 for name in model}}
        needs |= {layout.streams[name]: found.nbytes for name, found in pictures.items()}
        part, plan = self._room(needs, layout)
        free = np.cumsum([-(-episode.rows // rows) for episode in episodes])
        count = int((free <= plan.capacity - part.blocks).sum())
        count = max(1, min(count, part.room(needs)))
        packed = PackedEpisodes(episodes[:count], rows, self._serial)
        # If this fails, the numbers are not used again, so blocks already written belong to no
        # episode.
        self._serial += count
        values: dict[str, np.ndarray] = packed.index()
        for spec in plan.layout.specs:
            if not spec.codec:
                path = f"blocks/{plan.layout.paths[spec.name]}"
                values[path] = packed.channel(spec.name, spec.dtype, _unused(spec.dtype))
        done = 0
        while done < packed.blocks:
            part, plan = self._room(needs, layout)
            piece = slice(done, min(packed.blocks, done + plan.capacity - part.blocks))
            columns, adds = packed.ends(piece, part.blocks)
            for path, items in values.items():
                some = items[piece]
                whole = path == "index/envs" or path.startswith("blocks/")
                columns[path] = [some] if whole else [some.reshape(-1)]
            for name, found in pictures.items():
                some = found.rows(slice(piece.start * rows, piece.stop * rows))
                stream = plan.layout.streams[name]
                columns[stream] = some.content()
                adds[stream] = np.zeros(piece.stop - piece.start, np.int64)
                adds[stream][-1] = some.nbytes
                for other, entries in some.moved(part.lengths[stream]).items():
                    padded = np.zeros((piece.stop - piece.start) * rows, entries.dtype)
                    padded[: len(entries)] = entries
                    path = f"blocks/{plan.layout.paths[other]}"
                    columns[path] = [padded.reshape(-1, rows)]
            self._reserve(part, piece.stop - piece.start, adds)
            with self._filling(part.abandon):
                used = packed.used[piece]
                part.write(columns, adds, used, np.zeros(len(used)))
            done = piece.stop
        return count

    def _finish(self) -> None:
        self._pictures.close()
        if self._part.file:
            self._part.close(FINISHED)
            if len(self._files) > 1:
                self._note_part(last=True)

    def _note_part(self, last: bool = False) -> None:
        """Add the last file to the index, which only makes opening faster."""
        try:
            add_part(self._path_lock.path, self._files[-1])
            if last:
                join_records(self._path_lock.path)
        except (DataError, OSError) as error:
            _LOG.debug("The index of '%s' is not complete: %s", self._path_lock.path, error)

    def _room(self, needs: Mapping[str, int], layout: Layout) -> tuple[Part, Plan]:
        """A part with room for the next block, and its plan.

        Datasets cannot be added to a file, so a quantity that appears later needs a new part.
        """
        part, plan = self._part, self._part.plan
        if plan is not None and plan.layout.packed != layout.packed:
            raise DataError("A recording has blocks or episodes, but this one was given both.")
        try:
            if part.file and part.raw.deleted:
                part.abandon()
                raise DataError(
                    f"'{self._files[-1]}' was deleted while it was being written, and its data"
                    " is lost. New data goes to the next part."
                )
            if plan is None or not part.file or not self._fits(part, plan, needs, layout):
                layout = layout if plan is None else plan.layout.joined(layout)
                number = len(self._files) - 1 + bool(part.blocks)
                plan = make_plan(layout, self._storage, number, needs)
                if part.file:
                    part.close(CONTINUED)
                    if part.blocks:
                        self._note_part()
                self._part = part = self._open(plan)
        except OSError as error:
            raise self._failure(error) from error
        return part, plan

    def _reserve(self, part: Part, blocks: int, adds: Mapping[str, np.ndarray]) -> None:
        """Make sure that the disk has room for blocks."""
        try:
            part.reserve(blocks, adds)
        except OSError as error:
            raise self._failure(error) from error

    def _fits(self, part: Part, plan: Plan, needs: Mapping[str, int], layout: Layout) -> bool:
        full = part.blocks and part.nbytes >= self.options.roll_over_bytes
        return not full and plan.layout.covers(layout) and part.fits(needs)

    def _open(self, plan: Plan | None) -> Part:
        """Open a new file; it replaces the current one if that is empty."""
        fresh = not self._files or bool(self._part.blocks) or not self._files[-1].exists()
        path = self._path_lock.next_part() if fresh else self._files[-1]
        number = len(self._files) - (not fresh)
        content = new_file(self.info, self._run, number, plan)
        part = Part(*self._place(path, content), plan, self._power, self.options.safe)
        if fresh:
            self._files.append(path)
        return part

    def _place(self, path: Path, content: bytes) -> tuple[h5py.File, RawFile]:
        """Open a new file. Tests replace it by a file object."""
        file = place(path, content, self._power)
        return file, RawFile(file)

    def _tiles(self, values: np.ndarray, column: Column) -> Iterator[np.ndarray]:
        """A block's values of a channel (n, rows, *shape), n environments at a time.

        All use the same memory, which fits into a processor's cache.
        """
        filled, total, *shape = values.shape
        rows, dtype, size = column.shape[0], column.dtype, column.nbytes
        count = column.chunk if column.compression else max(1, _TILE // size)
        count = max(1, count // column.unit) * column.unit
        if self._scratch.nbytes < min(count, total) * size:
            self._scratch = np.empty(min(count, total) * size, np.uint8)
        source = values.swapaxes(0, 1)
        whole = shape and values.size and values.dtype == dtype and values.flags.c_contiguous
        if whole:
            # Copying each row of an environment as one item is up to six times as fast.
            item = _one_item(size // rows)
            source = values.reshape(filled, total, -1).view(item)[..., 0].T
        for start in range(0, total, count):
            some = source[start : start + count]
            tile = self._scratch[: len(some) * size].view(dtype).reshape(len(some), rows, *shape)
            tile[:, filled:] = _unused(dtype)
            target = tile.reshape(len(some), rows, -1).view(item)[..., 0] if whole else tile
            np.copyto(target[:, :filled], some, casting="unsafe")
            yield tile


class _Progress:
    """Reports how much of a block is encoded or written."""

    def __init__(self, total: int, report: Callable[[float], None]) -> None:
        self._total, self._report = max(1, total), report
        self._done = 0
        self._encoded: dict[str, float] = {}

    def encoded(self, name: str, nbytes: float) -> None:
        """Of the pictures of a channel, this many bytes are encoded."""
        self._encoded[name] = nbytes
        self._show()

    def through(self, tiles: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for tile in tiles:
            yield tile
            self._done += tile.nbytes
            self._show()

    def _show(self) -> None:
        self._report((self._done + sum(self._encoded.values())) / self._total)


def _types(values: Mapping[str, np.ndarray]) -> dict[str, np.dtype]:
    return {name: value.dtype for name, value in values.items()}


def _kinds(model: Mapping[str, np.ndarray]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    return {name: (values.dtype, values.shape[1:]) for name, values in model.items()}


def _unused(dtype: np.dtype) -> Any:
    """The value of unused rows in a block."""
    return np.nan if dtype.kind in "fc" else 0


def _one_item(nbytes: int) -> np.dtype:
    return np.dtype(f"u{nbytes}") if nbytes in (1, 2, 4, 8) else np.dtype((np.void, nbytes))


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype != dtype and dtype.kind in "iub":
        values = np.nan_to_num(values)
    return values.astype(dtype)


def _changes(
    fields: Mapping[str, np.ndarray], env_index: np.ndarray, episode: np.ndarray
) -> dict[str, Pieces]:
    """Rows for the tables of model fields."""
    where = np.zeros(len(env_index), MODEL_DTYPE)
    where["env_index"], where["episode"] = env_index, episode
    found: dict[str, Pieces] = {}
    for name, values in fields.items():
        found[f"model_fields/{name}/value"] = [values]
        found[f"model_fields/{name}/where"] = [where]
    return found
