"""Read HDF5 recordings, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.formats.blocks import BlockRun, BlocksReader
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_layout import ENV_DTYPE, FINISHED, MODEL_DTYPE, Layout
from mjlab_rec.data.formats.hdf5_pictures import PictureReader
from mjlab_rec.data.formats.hdf5_stored import Cache, OpenFiles
from mjlab_rec.data.formats.parts import log_damages, open_parts
from mjlab_rec.data.formats.segments import END_DTYPE, Index
from mjlab_rec.data.schema import ChannelSpec, DataError, RunInfo

_MOST_OPEN = 32  # files that stay open; the others are opened when they are read


class Hdf5Reader(BlocksReader):
    """Reads all parts of a recording, and all runs that were appended to it.

    Reading damaged data raises an error that names it, and so does reading an episode with rows in
    a lost block. Everything else stays readable.

    Args:
        path: The first part.
        check: Whether to compare checksums.
    """

    def __init__(self, path: Path, check: bool = True) -> None:
        path = self._last = Path(path)
        self._cache, self._files = Cache(), OpenFiles(_MOST_OPEN)
        self._skipped: list[str] = []

        def open_part(each: Path, before: Sequence[StoredPart]) -> StoredPart:
            self._last = each
            return StoredPart(each, check, self._files, self._cache)

        self._pictures = PictureReader()
        self._parts = open_parts(path, open_part, self._skipped)
        try:
            self._skip_unrelated()
            last = self._parts[-1]
            self.finished = last.path == self._last and last.state == FINISHED
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

    def verify(self) -> list[str]:
        found = list(self._skipped)
        for part in self._parts:
            found += part.verify()
        for run in self._stored:
            found += run.lost_parts
        return found

    def share(self, other: Hdf5Reader) -> None:
        """Use the open files, the cache and the decoders of another reader."""
        self._pictures = other._pictures
        for run in self._stored:
            run.pictures = other._pictures
        for part in self._parts:
            if part.file.files is not other._files:
                part.file.files.drop(part.file)
            part.file.files, part.cache = other._files, other._cache
        self._files, self._cache = other._files, other._cache

    def close(self) -> None:
        self._pictures.close()
        for part in self._parts:
            part.file.close()

    @property
    def parts(self) -> list[StoredPart]:
        """The files that can be read."""
        return list(self._parts)

    @property
    def runs(self) -> list[_Run]:
        """The runs, each appended to those before it."""
        return list(self._stored)

    def place(self, part: StoredPart, block: int) -> tuple[int, int]:
        """The run of a part's block, and its number in that run."""
        for number, run in enumerate(self._stored):
            if (part, block) in run.places:
                return number, run.places[part, block]
        raise KeyError(f"'{part.path}' has no block {block}.")

    def _skip_unrelated(self) -> None:
        """Skip parts that do not belong to those before them."""
        known: dict[str, StoredPart] = {}
        for part in list(self._parts):
            before = known.setdefault(part.run, part)
            same = before.info == part.info
            if before is not part and (part.number <= before.number or not same):
                self._parts.remove(part)
                part.file.close()
                self._skipped.append(
                    f"'{part.path}' does not belong to the recording: it is part {part.number}"
                    f" after part {before.number}, or has different channels. It is skipped."
                )
            else:
                known[part.run] = part

    def _runs(self) -> list[BlockRun]:
        runs: dict[str, list[StoredPart]] = {}
        for part in self._parts:
            runs.setdefault(part.run, []).append(part)
        self._stored = [_Run(parts, self._pictures) for parts in runs.values()]
        return list(self._stored)


def last_info(paths: Sequence[Path]) -> RunInfo | None:
    """The description in the last part that can be read; None if there is none."""
    for path in reversed(paths):
        try:
            part = StoredPart(path, check=False)
        except DataError:
            continue
        part.file.close()
        return part.info
    return None


class _Run(BlockRun):
    """All parts of a run in order, as if they were one file, without lost blocks."""

    def __init__(self, parts: list[StoredPart], pictures: PictureReader) -> None:
        self.pictures = pictures
        self.info = parts[0].info
        self.info.attachments = parts[0].attachments
        for part in parts[1:]:
            part.attachments = {}  # Each has a copy.
        self.lost_parts: list[str] = []
        lost = self._lost_blocks(parts)
        parts = [part for part in parts if part.blocks]
        layouts = [part.layout for part in parts if part.layout is not None]
        packed = any(layout.packed for layout in layouts)
        num_envs = 1 if packed else len(self.info.envs)
        self._parts = parts
        self._at = [(part, block) for part in parts for block in part.blocks]
        self.places = {place: number for number, place in enumerate(self._at)}
        self._paths = layouts[0].paths if layouts else {}
        self._stored = {spec.name for layout in layouts[:1] for spec in layout.specs}
        per_env = np.array(_read(parts, "index/envs"), ENV_DTYPE).reshape(-1, num_envs)
        step = np.full((len(self._at), max([1, *(each.rows for each in layouts)])), -1, np.int64)
        for into, steps in zip(step, _read(parts, "index/step"), strict=True):
            into[: len(steps)] = steps
        ends = _read(parts, "ends")
        counts = [len(some) for some in ends]
        self._end_block = np.repeat(np.arange(len(ends)), counts)
        self._end_at = np.concatenate([np.zeros(0, int), *map(np.arange, counts)])
        joined = np.concatenate([np.zeros(0, END_DTYPE), *ends])
        joined["block"] = self._end_block
        names = dict.fromkeys(name for layout in layouts for name in layout.values)
        self.index = Index(
            rows=np.array([part.index["rows"][block] for part, block in self._at], np.int64),
            gap=np.array([part.index["gap"][block] for part, block in self._at], np.int64),
            step=step,
            first_episode=per_env["first_episode"],
            first_step=per_env["first_step"],
            total=per_env["total"],
            recorded=per_env["recorded"],
            ends=joined,
            values={name: np.concatenate(list(self._values(name))) for name in names},
            packed=packed,
            lost_before=lost,
        )
        self._changes = self._model_changes(layouts)
        for part in parts:
            part.read = {}  # It is in the index of the run now.

    def has(self, name: str) -> bool:
        return name in self._stored

    def rows(self, name: str, block: int, env_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part, block = self._at[block]
        return part.columns[f"blocks/{self._paths[name]}"].items(block, env_indices)

    def strip(self, name: str, block: int, first: int, last: int) -> tuple[np.ndarray, int]:
        part, block = self._at[block]
        return part.columns[f"blocks/{self._paths[name]}"].span(block, first, last)

    def grain(self, names: Sequence[str]) -> int:
        wanted = [f"blocks/{self._paths[name]}" for name in names if name in self._stored]
        columns = [self._parts[0].columns[path].column for path in wanted] if self._parts else []
        if any(column.compression for column in columns):
            return max(column.unit for column in columns)
        return max(columns, key=lambda c: c.nbytes).unit if columns else 1

    def tails(self, name: str, block: int, env_indices: np.ndarray) -> np.ndarray:
        part, block = self._at[block]
        values, at = part.columns[f"tail/{self._paths[name]}"].items(block, env_indices)
        return values[at]

    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        part, block = self._at[self._end_block[ends[0]]]
        values, at = part.columns[f"final/{self._paths[name]}"].items(block, self._end_at[ends])
        return values[at]

    def decode(
        self, spec: ChannelSpec, entries: np.ndarray, blocks: np.ndarray, out: np.ndarray
    ) -> None:
        places = [self._at[block] for block in blocks]
        self.pictures.decode(spec, entries, places, out)

    def model(self, env_index: int, key: int) -> dict[str, np.ndarray]:
        found = {}
        for name, (where, block, at) in self._changes.items():
            mine = where["env_index"] == env_index
            mine &= where["episode"] == key if self.index.packed else where["episode"] <= key
            rows = np.flatnonzero(mine)
            last = int(rows[-1]) if len(rows) else -1
            self._check_not_lost(int(block[last]) if last >= 0 else -1, env_index, key)
            if last >= 0:
                part, number = self._at[block[last]]
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

    def _lost_blocks(self, parts: list[StoredPart]) -> dict[int, str]:
        """Sentences about lost blocks, by the number of readable blocks before them."""
        lost: dict[int, str] = {}
        count, number = 0, 0
        for part in parts:
            if part.number != number:
                why = f"Part {number} is missing before '{part.path}'."
                self.lost_parts.append(why)
                lost.setdefault(count, why)
            number = part.number + 1
            for block in sorted((*part.blocks, *part.lost)):
                if block in part.lost:
                    lost.setdefault(count, part.lost[block])
                else:
                    count += 1
            if part.missing and part is not parts[-1]:
                lost.setdefault(count, part.missing)
        return lost

    def _values(self, name: str) -> Iterator[np.ndarray]:
        """Values that recorders added to ends; NaN if they added none."""
        yield np.zeros(0)
        for part in self._parts:
            path = "" if part.layout is None else part.layout.value_paths.get(name, "")
            for number, ends in enumerate(part.read["ends"]):
                yield part.read[f"values/{path}"][number] if path else np.full(len(ends), np.nan)

    def _model_changes(
        self, layouts: list[Layout]
    ) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each model field: its environments and episodes, and its blocks and rows."""
        found = {}
        for name in dict.fromkeys(name for layout in layouts for name in layout.model):
            path = f"model_fields/{name}/where"
            where = [
                some
                for part in self._parts
                for some in part.read.get(path, [np.zeros(0, MODEL_DTYPE)] * len(part.blocks))
            ]
            counts = [len(some) for some in where]
            at = [np.arange(count) for count in counts]
            block = np.repeat(np.arange(len(where)), counts)
            found[name] = np.concatenate(where), block, np.concatenate(at)
        return found


def _read(parts: Sequence[StoredPart], path: str) -> list[np.ndarray]:
    return [values for part in parts for values in part.read[path]]
