"""Read HDF5 recordings, finished or not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.formats import hdf5_header
from mjlab_rec.data.formats.blocks import BlockRun, BlocksReader
from mjlab_rec.data.formats.hdf5_blocks import StoredPart, read_attached
from mjlab_rec.data.formats.hdf5_chunks import Chunk, chunk_of, joined, none
from mjlab_rec.data.formats.hdf5_header import Header
from mjlab_rec.data.formats.hdf5_index import (
    IndexedPart,
    IndexedParts,
    Record,
    layout_check,
    read_index,
)
from mjlab_rec.data.formats.hdf5_layout import FINISHED
from mjlab_rec.data.formats.hdf5_pictures import PictureReader
from mjlab_rec.data.formats.hdf5_scan import bad_items
from mjlab_rec.data.formats.hdf5_stored import Cache, OpenFiles, StoredFile
from mjlab_rec.data.formats.parts import log_damages, open_parts
from mjlab_rec.data.formats.pieces import ranges
from mjlab_rec.data.formats.segments import Index
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

_MOST_OPEN = 32  # files that stay open; the others are opened when they are read


AnyPart = StoredPart | IndexedPart
AnyParts = StoredPart | IndexedParts


class Hdf5Reader(BlocksReader):
    """Reads all parts of a recording, and all runs that were appended to it.

    Reading damaged data raises an error that names it, and so does reading an episode with rows in
    a lost block. Everything else stays readable.

    Args:
        path: The first part.
        check: Whether to compare checksums.
        quick: Whether to take from the index next to it what is known of its parts. Then damage is
            found when they are read.
    """

    def __init__(self, path: Path, check: bool = True, quick: bool = False) -> None:
        path = self._path = self._last = Path(path)
        self._cache, self._files = Cache(), OpenFiles(_MOST_OPEN)
        self._skipped: list[str] = []

        self._quick = quick
        records: dict[str, Record] | None = None if quick else {}

        def open_part(each: Path, before: Sequence[AnyParts]) -> AnyParts:
            self._last = each
            like = before[-1].header if before else None
            return StoredPart(each, check, self._files, self._cache, attached=not quick, like=like)

        def known(
            names: Sequence[str], at: int, before: Sequence[AnyParts]
        ) -> tuple[AnyParts | None, int]:
            nonlocal records
            if records is None:
                records = read_index(path)
            record = records.get(names[at])
            if record is None or record.names != names[at : at + len(record.names)]:
                return None, 0
            header = _header_of(path.with_name(names[at]), record, before)
            if header is None:
                return None, 0
            self._last = path.with_name(record.names[-1])
            some = IndexedParts(path.parent, record, header, check, self._files, self._cache)
            return some, len(record.names)

        self._pictures = PictureReader()
        self._parts = open_parts(path, open_part, self._skipped, known)
        try:
            self._skip_unrelated()
            last = self._parts[-1]
            self.finished = self.last_path == self._last and last.state == FINISHED
            damages = [*self._skipped, *(part.missing for part in self._parts if part.missing)]
            damages += [why for part in self._parts for why in part.lost.values()]
            if damages and not any(part.blocks for part in self._parts):
                raise DataError(f"No block of the recording '{path}' can be read. {damages[0]}")
            damages += [problem for part in self._parts for problem in part.problems]
            self.damages = list(dict.fromkeys(damages))
            log_damages(path, self.damages)
            super().__init__(self._runs(), check)
            self.damages += [why for run in self._stored for why in run.lost_parts]
        except BaseException:
            self.close()
            raise

    @property
    def attached(self) -> dict[str, tuple[int, int]]:
        """Size and checksum of the attached files, which a quick reader does not read."""
        files = self._parts[0].header.attachments
        return {name: (size, check) for name, (_, size, check) in files.items()}

    def attachment(self, name: str) -> bytes:
        """An attached file; raises if it is damaged."""
        first = self._parts[0]
        file = StoredFile(first.path, OpenFiles(0))
        return read_attached(file, first.header, name, self.check)

    def verify(self) -> list[str]:
        if self._quick or not self.check:
            again = Hdf5Reader(self._path)
            try:
                return again.verify()
            finally:
                again.close()
        found = [*self._skipped, *(why for part in self.parts for why in part.damages)]
        found += [bad.why for bad in bad_items(self.parts)]
        found += [why for run in self._stored for why in run.lost_parts]
        return list(dict.fromkeys(found))

    def share(self, other: Hdf5Reader) -> None:
        """Use the open files, the cache and the decoders of another reader."""
        self._pictures = other._pictures
        for run in self._stored:
            run.pictures = other._pictures
        for each in self._parts:
            each.files, each.cache = other._files, other._cache
        self._files, self._cache = other._files, other._cache

    def close(self) -> None:
        self._pictures.close()
        for part in self._parts:
            part.close()

    @property
    def parts(self) -> list[Any]:
        """The files that can be read: each a StoredPart, or an IndexedPart that becomes one."""
        return _each(self._parts)

    @property
    def last_path(self) -> Path:
        """The last file that can be read."""
        last = self._parts[-1]
        return last.path if isinstance(last, StoredPart) else last.folder / last.record.names[-1]

    @property
    def runs(self) -> list[_Run]:
        """The runs, each appended to those before it."""
        return list(self._stored)

    def place(self, part: AnyPart, block: int) -> tuple[int, int]:
        """The run of a part's block, and its number in that run."""
        for number, run in enumerate(self._stored):
            if (at := run.place(part, block)) is not None:
                return number, at
        raise KeyError(f"'{part.path}' has no block {block}.")

    def _skip_unrelated(self) -> None:
        """Skip parts that do not belong to those before them."""
        known: dict[str, AnyParts] = {}
        for part in list(self._parts):
            before = known.setdefault(part.run, part)
            same = before.info is part.info or before.info == part.info
            number = _following(before) - 1
            if before is not part and (part.number <= number or not same):
                self._parts.remove(part)
                part.close()
                self._skipped += [
                    f"'{path}' does not belong to the recording: it is part {part.number + at}"
                    f" after part {number}, or has different channels. It is skipped."
                    for at, path in enumerate(_paths(part))
                ]
            else:
                known[part.run] = part

    def _runs(self) -> list[BlockRun]:
        runs: dict[str, list[AnyParts]] = {}
        for part in self._parts:
            runs.setdefault(part.run, []).append(part)
        self._stored = [_Run(parts, self._pictures) for parts in runs.values()]
        return list(self._stored)


def _header_of(first: Path, record: Record, before: Sequence[AnyParts]) -> Header | None:
    """The header for parts of a record, by its first file; None if they do not belong together."""
    header = before[-1].header if before else None
    if not record.first:
        try:
            file = StoredFile(first, OpenFiles(0))
            header = hdf5_header.load(file.read, file.size, first, header)
        except DataError:
            return None  # It is told when the part is opened.
        if header.part or header.problems:
            return None
    if header is None or header.plan is None or header.run != record.run:
        return None
    return header if layout_check(header.plan.layout) == record.layout else None


def _each(parts: Sequence[AnyParts]) -> list[AnyPart]:
    """Every single part."""
    found: list[AnyPart] = []
    for some in parts:
        found += [some] if isinstance(some, StoredPart) else some.parts
    return found


def _paths(parts: AnyParts) -> list[Path]:
    """The files of consecutive parts."""
    if isinstance(parts, StoredPart):
        return [parts.path]
    return [parts.folder / name for name in parts.record.names]


def _following(parts: AnyParts) -> int:
    """The number of the part that would follow consecutive parts."""
    return parts.number + (1 if isinstance(parts, StoredPart) else len(parts.record.names))


def last_info(paths: Sequence[Path]) -> RunInfo | None:
    """The description in the last part that can be read; None if there is none."""
    for path in reversed(paths):
        try:
            part = StoredPart(path, check=False)
        except DataError:
            continue
        part.close()
        return part.info
    return None


class _Run(BlockRun):
    """All parts of a run in order, as if they were one file, without lost blocks."""

    def __init__(self, parts: list[AnyParts], pictures: PictureReader) -> None:
        self.pictures = pictures
        self.info = parts[0].info
        opened = [part for part in parts if isinstance(part, StoredPart)]
        if opened:
            self.info.attachments = opened[0].attachments
        for part in opened[1:]:
            part.attachments = {}  # Each has a copy.
        self.lost_parts: list[str] = []
        lost = self._lost_blocks(parts)
        parts = [part for part in parts if part.blocks]
        layouts = list({id(p.layout): p.layout for p in parts if p.layout is not None}.values())
        packed = any(layout.packed for layout in layouts)
        chunk = self._known(parts) if parts else none(1 if packed else len(self.info.envs))
        self._together = parts
        self._part_of = np.repeat(np.arange(len(chunk.counts)), chunk.counts)
        self._block_of = chunk.block
        self._paths = layouts[0].paths if layouts else {}
        self._stored = {spec.name for layout in layouts[:1] for spec in layout.specs}
        self._end_block = np.repeat(np.arange(len(chunk.block)), chunk.ended)
        self._end_at = ranges(chunk.ended)
        ends = chunk.ends.copy()
        ends["block"] = self._end_block
        self.index = Index(
            rows=chunk.rows,
            gap=chunk.gap,
            step=chunk.step,
            first_episode=chunk.envs["first_episode"],
            first_step=chunk.envs["first_step"],
            total=chunk.envs["total"],
            recorded=chunk.envs["recorded"],
            ends=ends,
            values=chunk.values,
            packed=packed,
            lost_before=lost,
        )
        self._changes = _model_changes(chunk)
        self.has_models = bool(self._changes)

    @functools.cached_property
    def _parts(self) -> list[AnyPart]:
        """The parts with blocks, when something of them is read."""
        return _each(self._together)

    @staticmethod
    def _known(parts: list[AnyParts]) -> Chunk:
        """What is known of the blocks of all parts."""
        chunks: list[Chunk] = []
        for part in parts:
            if isinstance(part, StoredPart):
                chunks.append(chunk_of(part))
                part.read = {}  # It is in the index of the run from now on.
            else:
                chunks.append(part.record.chunk)
        return joined(chunks)

    def place(self, part: AnyPart, block: int) -> int | None:
        """The number of a part's block in the run; None if it is not in it."""
        here = [number for number, each in enumerate(self._parts) if each is part]
        at = np.flatnonzero(np.isin(self._part_of, here) & (self._block_of == block))
        return int(at[0]) if len(at) else None

    def _at(self, block: int) -> tuple[AnyPart, int]:
        """The part of a block, and its number there."""
        return self._parts[self._part_of[block]], int(self._block_of[block])

    def has(self, name: str) -> bool:
        return name in self._stored

    def rows(self, name: str, block: int, env_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part, block = self._at(block)
        return part.columns[f"blocks/{self._paths[name]}"].items(block, env_indices)

    def strip(self, name: str, block: int, first: int, last: int) -> tuple[np.ndarray, int]:
        part, block = self._at(block)
        return part.columns[f"blocks/{self._paths[name]}"].span(block, first, last)

    def grain(self, names: Sequence[str]) -> int:
        wanted = [f"blocks/{self._paths[name]}" for name in names if name in self._stored]
        plan = self._together[0].header.plan if self._together else None
        columns = [] if plan is None else [plan.by_path[path] for path in wanted]
        if any(column.compression for column in columns):
            return max(column.unit for column in columns)
        return max(columns, key=lambda c: c.nbytes).unit if columns else 1

    def tails(self, name: str, block: int, env_indices: np.ndarray) -> np.ndarray:
        part, block = self._at(block)
        values, at = part.columns[f"tail/{self._paths[name]}"].items(block, env_indices)
        return values[at]

    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        part, block = self._at(int(self._end_block[ends[0]]))
        values, at = part.columns[f"final/{self._paths[name]}"].items(block, self._end_at[ends])
        return values[at]

    def decode(
        self, spec: ChannelSpec, entries: np.ndarray, blocks: np.ndarray, out: np.ndarray
    ) -> None:
        places: Any = [self._at(block) for block in blocks]
        self.pictures.decode(spec, entries, places, out)

    def model(self, env_index: int, key: int) -> dict[str, np.ndarray]:
        found = {}
        wanted = (env_index << 32) + key
        for name, (keys, block, at) in self._changes.items():
            last = int(np.searchsorted(keys, wanted, side="right")) - 1
            # A change is valid until the next one of its environment.
            if last >= 0 and (self.index.packed or keys[last] >> 32 != env_index):
                last = last if keys[last] == wanted else -1
            self._check_not_lost(int(block[last]) if last >= 0 else -1, env_index, key)
            if last >= 0:
                part, number = self._at(block[last])
                column = part.columns[f"model_fields/{name}/value"]
                values, place = column.items(number, at[last : last + 1])
                found[name] = values[place[0]].copy()
        return found

    def _check_not_lost(self, block: int, env_index: int, key: int) -> None:
        """Raise if a lost block after `block` may contain model fields of an episode."""
        for lost, why in self.index.lost_before.items():
            known = -1 if lost == 0 else self.index.first_episode[lost - 1, env_index]
            if block < lost and key > known and not self.index.packed:
                raise DataError(f"The model fields of the episode are unknown: {why}")

    def _lost_blocks(self, parts: list[AnyParts]) -> dict[int, str]:
        """Sentences about lost blocks, by the number of readable blocks before them."""
        lost: dict[int, str] = {}
        count, number = 0, 0
        for part in parts:
            if part.number != number:
                why = f"Part {number} is missing before '{part.path}'."
                self.lost_parts.append(why)
                lost.setdefault(count, why)
            number = _following(part)
            if not part.lost:
                count += len(part.blocks)
            for block in sorted((*part.blocks, *part.lost)) if part.lost else ():
                if block in part.lost:
                    lost.setdefault(count, part.lost[block])
                else:
                    count += 1
            if part.missing and part is not parts[-1]:
                lost.setdefault(count, part.missing)
        return lost


def _model_changes(chunk: Chunk) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each model field: its environments and episodes as sorted keys, its blocks and rows."""
    found = {}
    for name, (where, counts) in chunk.changes.items():
        block = np.repeat(np.arange(len(counts)), counts)
        keys = (where["env_index"].astype(np.int64) << 32) + where["episode"]
        order = np.argsort(keys, kind="stable")  # later ones replace earlier ones
        found[name] = keys[order], block[order], ranges(counts)[order]
    return found
