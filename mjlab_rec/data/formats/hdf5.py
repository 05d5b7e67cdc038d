"""Recordings in HDF5: one dataset per channel, a chunk per block, safe against a kill at any time.

``blocks/<channel>`` is shaped (block, environment, row in block, ...); a channel below another one,
such as ``obs/actor/joints`` below ``obs/actor``, lies beside it: ``obs/actor.joints``. ``tail`` and
``final`` hold what came after a block's last row and where episodes ended; ``index`` numbers the
rows, ``ends`` lists the episodes that ended, and ``info`` is a JSON text with the names of
everything.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from mjlab_rec.data import files
from mjlab_rec.data.formats.base import Writer, WriterOptions
from mjlab_rec.data.formats.blocks import column, end_rows
from mjlab_rec.data.formats.hdf5_file import Disk, content, place, reason
from mjlab_rec.data.formats.hdf5_layout import MODEL_DTYPE, Layout, Plan, Storage, write_header
from mjlab_rec.data.formats.hdf5_part import Part
from mjlab_rec.data.formats.hdf5_reader import Hdf5Reader
from mjlab_rec.data.schema import Block, DataError, Ends, Episode, RunInfo

__all__ = ["Hdf5Reader", "Hdf5Writer"]

_LOG = logging.getLogger(__name__)
_PACKED_ROWS = 64  # fewest rows per block where episodes are written one after another


class Hdf5Writer(Writer):
    """Writes HDF5 files that plain h5py can open at any time, also after a kill."""

    compressions = ("gzip", "lzf")

    most_chunks = 1024
    """Chunks of a dataset at which a file is finished."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self._run = uuid.uuid4().hex
        self._files: list[Path] = []
        self._failed = False
        self._serial = 0  # of the next episode, where whole episodes are written
        self._rows = 0  # written, of all environments together
        self._scratch = np.empty(0, np.uint8)
        self._storage = Storage(
            compression=options.compression,
            roll_over_bytes=options.roll_over_bytes,
            most_chunks=self.most_chunks,
        )
        self._claim = files.Claim(options.path, options.if_exists)
        try:
            self._files.append(self._claim.next_part())
            self._part = self._open(self._files[0], 0, None)
        except OSError as error:
            self._claim.release()
            raise DataError(f"Cannot record to '{options.path}': {reason(error)}.") from error
        except BaseException:
            self._claim.release()
            raise

    @property
    def files(self) -> list[Path]:  # noqa: D102
        return list(self._files)

    @property
    def nbytes(self) -> int:  # noqa: D102
        return sum(file.stat().st_size for file in self._files)

    def write(self, block: Block) -> None:  # noqa: D102
        rows = self.options.block_rows
        if block.rows > rows:
            raise DataError(
                f"A block of {block.rows} rows was to be written, but WriterOptions.block_rows is"
                f" {rows}."
            )
        needs = {"ends": len(block.ends)}
        model = {} if block.model is None else block.model.fields
        needs |= {f"model_fields/{name}": len(values) for name, values in model.items()}
        items = {name: _item(values) for name, values in model.items()}
        part, layout = self._part_for(1, needs, False, _dtypes(block.ends.values), items)
        with self._filling(part):
            for spec in layout.specs:
                path = f"blocks/{layout.paths[spec.name]}"
                lanes = part.extend(path)
                for lane, tile in self._tiles(block.arrays[spec.name], spec.dtype, rows, lanes):
                    part.put(path, lane, tile)
            for spec in layout.chained:
                path = layout.paths[spec.name]
                part.append(f"tail/{path}", block.tail[spec.name][None])
                part.append(f"final/{path}", block.ends.final[spec.name])
            step = np.zeros((1, rows), np.int64)
            step[0, : block.rows] = block.step[: block.rows]
            part.append("index/step", step)
            for name in ("first_episode", "first_step", "total", "recorded"):
                part.append(f"index/{name}", getattr(block, name)[None])
            part.append("ends", end_rows(block.ends, part.blocks, self.info))
            for name, dtype in layout.values.items():
                values = _cast(column(block.ends, name), dtype)
                part.append(f"values/{layout.value_paths[name]}", values)
            if block.model is not None:
                where = _where(block.model.lane, block.model.episode)
                self._put_model(part, where, model)
            part.commit(np.array([block.rows]), np.array([block.gap]))
        self._rows += block.rows * block.lanes

    def write_episode(self, episode: Episode) -> None:  # noqa: D102
        if not episode.rows:
            return
        rows = self._packed_rows
        blocks = -(-episode.rows // rows)
        model = {name: np.asarray(value)[None] for name, value in episode.model.items()}
        needs = {"ends": 1, **{f"model_fields/{name}": 1 for name in model}}
        step = episode.arrays["step"].astype(np.int64)
        # Steps of the environment, as where its rows are written with those of all others.
        at = _padded(step - step[0] + episode.start, blocks, rows)
        used = np.full(blocks, rows)
        used[-1] = episode.rows - (blocks - 1) * rows
        items = {name: _item(values) for name, values in model.items()}
        done = 0
        while done < blocks:
            part, layout = self._part_for(blocks - done, needs, True, {}, items)
            assert part.plan is not None
            piece = slice(done, min(blocks, done + part.plan.capacity - part.blocks))
            done = piece.stop
            with self._filling(part):
                for spec in layout.specs:
                    values = _padded(episode.arrays[spec.name], blocks, rows)[piece]
                    part.append(f"blocks/{layout.paths[spec.name]}", values[:, None])
                part.append("index/step", at[piece])
                part.append("index/first_step", (at[piece, 0] - at[0, 0] + step[0])[:, None])
                part.append("index/first_episode", np.full((len(at[piece]), 1), self._serial))
                part.append("index/total", np.full((len(at[piece]), 1), episode.total))
                part.append("index/recorded", np.full((len(at[piece]), 1), episode.recorded))
                if done == blocks:  # readers take an episode once they see its end
                    last = part.blocks + len(at[piece]) - 1
                    part.append("ends", _end_row(episode, last, self._serial, int(used[-1]) - 1))
                    where = _where(np.zeros(1), np.full(1, self._serial))
                    self._put_model(part, where, model)
                part.commit(used[piece], np.zeros(len(at[piece])))
        self._serial += 1
        self._rows += episode.rows

    def close(self) -> None:  # noqa: D102
        try:
            if self._part.file:
                self._part.close()
        except (OSError, RuntimeError) as error:
            # What failed before is known already, and that is why closing fails.
            if not self._failed:
                raise self._failure(error) from error
            _LOG.warning("Could not finish '%s': %s.", self._files[-1], reason(error))
        finally:
            self._claim.release()

    @property
    def _packed_rows(self) -> int:
        return max(self.options.block_rows, _PACKED_ROWS)

    def _part_for(
        self,
        blocks: int,
        needs: Mapping[str, int],
        packed: bool,
        values: Mapping[str, np.dtype],
        model: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> tuple[Part, Layout]:
        """The part that takes the next blocks, with room for them on the disk, and its layout."""
        if not self._part.file:
            raise DataError(f"'{self._files[-1]}' was closed when writing it failed.")
        old = self._part.plan
        if old is not None and old.layout.packed != packed:
            raise DataError("A run is written by blocks or by episodes, never by both.")
        try:
            plan = self._plan(old, needs, packed, values, model)
            if plan is not old:
                self._next_part(plan)
            self._part.reserve(min(blocks, plan.capacity - self._part.blocks), needs)
        except OSError as error:
            raise self._failure(error) from error
        return self._part, plan.layout

    def _plan(
        self,
        old: Plan | None,
        needs: Mapping[str, int],
        packed: bool,
        values: Mapping[str, np.dtype],
        model: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> Plan:
        """That of the present part, or of a new one if it is full.

        No dataset can be added to a file, so a quantity that appears late takes a new one as well.
        """
        if old is not None:
            layout, part = old.layout, self._part
            full = part.blocks and part.nbytes >= self.options.roll_over_bytes
            known = values.keys() <= layout.values.keys() and model.items() <= layout.model.items()
            if known and part.fits(needs) and not full:
                return old
            values, model = {**values, **layout.values}, {**layout.model, **model}
        number = len(self._files) - 1 + bool(self._part.blocks)
        return Plan(self._layout(packed, values, model), self._storage, number, needs)

    def _next_part(self, plan: Plan) -> None:
        """Go on in a new file, unless nothing is in the present one."""
        self._part.close()
        if self._part.blocks:
            path = self._claim.next_part()
            self._part = self._open(path, len(self._files), plan)
            self._files.append(path)
        else:
            self._part = self._open(self._files[-1], len(self._files) - 1, plan)

    def _layout(
        self,
        packed: bool,
        values: Mapping[str, np.dtype],
        model: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> Layout:
        info = self.info
        if packed:
            rows, specs = self._packed_rows, info.channels
            return Layout(info=info, lanes=1, rows=rows, specs=specs, model=model, packed=True)
        return Layout(
            info=info,
            lanes=len(info.envs),
            rows=self.options.block_rows,
            specs=info.stored,
            chained=[spec for spec in info.stored if spec.name in info.chained],
            values=values,
            model=model,
        )

    def _open(self, path: Path, number: int, plan: Plan | None) -> Part:
        """Begin a file."""

        def fill(file: h5py.File) -> None:
            packed = plan is not None and plan.layout.packed
            write_header(file, self.info, run=self._run, part=number, packed=packed)
            if plan is not None:
                plan.make(file)

        chunks = plan.chunks if plan is not None else 0
        return Part(*self._place(path, content(chunks, fill)), plan)

    def _place(self, path: Path, content: bytes) -> tuple[h5py.File, Disk]:
        """A new file and its disk. Tests put a file object in its place."""
        file = place(path, content)
        return file, Disk(file)

    @contextmanager
    def _filling(self, part: Part) -> Iterator[None]:
        """Leave a file as it is if a block cannot be written to it."""
        try:
            yield
        except BaseException as error:
            self._failed = True
            part.leave()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise

    def _tiles(
        self, values: np.ndarray, dtype: np.dtype, rows: int, lanes: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """A channel of a block in the order of the file, (lanes, K, *shape), some lanes at a time.

        All are in the same piece of memory, which fits into a processor's cache.
        """
        filled, total, *shape = values.shape
        size = rows * math.prod(shape) * dtype.itemsize
        if self._scratch.nbytes < min(lanes, total) * size:
            self._scratch = np.empty(min(lanes, total) * size, np.uint8)
        source = values.swapaxes(0, 1)
        whole = shape and values.size and values.dtype == dtype and values.flags.c_contiguous
        if whole:
            # Each row of an environment is moved as one item: up to six times as fast.
            item = _one_item(size // rows)
            source = values.reshape(filled, total, -1).view(item)[..., 0].T
        for lane in range(0, total, lanes):
            some = source[lane : lane + lanes]
            tile = self._scratch[: len(some) * size].view(dtype).reshape(len(some), rows, *shape)
            tile[:, filled:] = 0
            target = tile.reshape(len(some), rows, -1).view(item)[..., 0] if whole else tile
            np.copyto(target[:, :filled], some, casting="unsafe")
            yield lane, tile

    def _put_model(self, part: Part, where: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        for name, values in fields.items():
            part.append(f"model_fields/{name}/value", values)
            part.append(f"model_fields/{name}/where", where)

    def _failure(self, error: Exception) -> DataError:
        self._failed = True
        return DataError(
            f"Writing '{self._files[-1]}' failed: {reason(error)}. The {self._rows} rows written"
            " before can be read."
        )


def _dtypes(values: Mapping[str, np.ndarray]) -> dict[str, np.dtype]:
    return {name: value.dtype for name, value in values.items()}


def _item(values: np.ndarray) -> tuple[np.dtype, tuple[int, ...]]:
    return values.dtype, values.shape[1:]


def _one_item(nbytes: int) -> np.dtype:
    return np.dtype(f"u{nbytes}") if nbytes in (1, 2, 4, 8) else np.dtype((np.void, nbytes))


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if values.dtype != dtype and dtype.kind in "iub":
        values = np.nan_to_num(values)
    return values.astype(dtype)


def _where(lane: np.ndarray, episode: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(lane), MODEL_DTYPE)
    rows["lane"], rows["episode"] = lane, episode
    return rows


def _padded(values: np.ndarray, blocks: int, rows: int) -> np.ndarray:
    """Rows as whole blocks, the last one filled up with zeros: (blocks, rows, ...)."""
    out = np.zeros((blocks * rows, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out.reshape(blocks, rows, *values.shape[1:])


def _end_row(episode: Episode, block: int, serial: int, row: int) -> np.ndarray:
    success = -1 if episode.success is None else int(episode.success)
    step = episode.arrays["step"]
    ends = Ends(
        lane=np.zeros(1, np.int32),
        row=np.full(1, row),
        episode=np.full(1, episode.number),
        at=np.full(1, episode.start - int(step[0]) + episode.length),
        length=np.full(1, episode.length),
        total=np.full(1, episode.total),
        rows=np.full(1, episode.rows),
        recorded=np.full(1, episode.recorded),
        terminated=np.full(1, episode.terminated),
        truncated=np.full(1, episode.truncated),
        success=np.full(1, success),
    )
    rows = end_rows(ends, block, RunInfo(channels=(), envs=(episode.env,), step_dt=0.0))
    rows["key"] = serial
    return rows
