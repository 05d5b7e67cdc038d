"""Read recordings in HDF5, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.formats.blocks import BlockRun, BlocksReader
from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_layout import ENV_DTYPE, FINISHED, MODEL_DTYPE, Layout
from mjlab_rec.data.formats.hdf5_stored import Kept
from mjlab_rec.data.formats.parts import log_damages, open_parts
from mjlab_rec.data.formats.segments import END_DTYPE, Index
from mjlab_rec.data.schema import DataError, RunInfo

_MOST_OPEN = 32  # files that stay open; the others are opened for each access


class Hdf5Reader(BlocksReader):
    """Reads all parts of a run, and all runs that were appended to it.

    Damage costs what is damaged: reading it raises an error that says what it is, and so does
    reading an episode that has rows in a block that cannot be found.

    Args:
        path: The first part.
        check: Compare what is read with its checksums.
    """

    def __init__(self, path: Path, check: bool = True) -> None:
        path, kept = Path(path), Kept()
        self._last = path
        self._left_out: list[str] = []

        def open_part(each: Path, before: Sequence[StoredPart]) -> StoredPart:
            self._last = each
            return StoredPart(each, check, len(before) < _MOST_OPEN, kept)

        self._parts = open_parts(path, open_part, self._left_out)
        try:
            self._drop_strangers()
            last = self._parts[-1]
            self.finished = last.path == self._last and last.state == FINISHED
            told = [*self._left_out, *(part.missing for part in self._parts if part.missing)]
            told += [why for part in self._parts for why in part.holes.values()]
            if told and not any(part.blocks for part in self._parts):
                raise DataError(f"No block of the recording '{path}' can be read. {told[0]}")
            told += [problem for part in self._parts for problem in part.problems]
            log_damages(path, list(dict.fromkeys(told)))
            super().__init__(self._runs(), check)
        except BaseException:
            self.close()
            raise

    def verify(self) -> list[str]:
        found = list(self._left_out)
        for part in self._parts:
            found += part.verify()
        for run in self._stored:
            found += run.lost_parts
        return found

    def close(self) -> None:
        for part in self._parts:
            part.file.close()

    def _drop_strangers(self) -> None:
        """Leave out parts that do not belong to those before them."""
        known: dict[str, StoredPart] = {}
        for part in list(self._parts):
            before = known.setdefault(part.run, part)
            same = before.info.to_json() == part.info.to_json()
            if before is not part and (part.number <= before.number or not same):
                self._parts.remove(part)
                part.file.close()
                self._left_out.append(
                    f"'{part.path}' says that it is part {part.number} of the run, after part"
                    f" {before.number}, or that it has other channels. It is left out."
                )
            else:
                known[part.run] = part

    def _runs(self) -> list[BlockRun]:
        runs: dict[str, list[StoredPart]] = {}
        for part in self._parts:
            runs.setdefault(part.run, []).append(part)
        self._stored = [_Run(parts) for parts in runs.values()]
        return list(self._stored)


def last_info(paths: Sequence[Path]) -> RunInfo | None:
    """What the last part that can be read says about its run; None if there is none."""
    for path in reversed(paths):
        try:
            part = StoredPart(path, check=False, keep=False, kept=Kept())
        except DataError:
            continue
        part.file.close()
        return part.info
    return None


class _Run(BlockRun):
    """All parts of a run, in order, as if they were one file without the blocks left out."""

    def __init__(self, parts: list[StoredPart]) -> None:
        self.info = parts[0].info
        self.info.attachments = parts[0].attachments
        self.lost_parts: list[str] = []
        holes = self._holes(parts)
        parts = [part for part in parts if part.blocks]
        layouts = [part.layout for part in parts if part.layout is not None]
        packed = any(layout.packed for layout in layouts)
        num_envs = 1 if packed else len(self.info.envs)
        self._parts = parts
        self._at = [(part, block) for part in parts for block in part.blocks]
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
            holes=holes,
        )
        self._changes = self._model_changes(layouts)

    def has(self, name: str) -> bool:
        return name in self._stored

    def rows(self, name: str, block: int, env_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part, block = self._at[block]
        return part.columns[f"blocks/{self._paths[name]}"].items(block, env_indices)

    def tails(self, name: str, block: int, env_indices: np.ndarray) -> np.ndarray:
        part, block = self._at[block]
        values, at = part.columns[f"tail/{self._paths[name]}"].items(block, env_indices)
        return values[at]

    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        part, block = self._at[self._end_block[ends[0]]]
        values, at = part.columns[f"final/{self._paths[name]}"].items(block, self._end_at[ends])
        return values[at]

    def model(self, env_index: int, key: int) -> dict[str, np.ndarray]:
        found = {}
        for name, (where, block, at) in self._changes.items():
            mine = where["env_index"] == env_index
            mine &= where["episode"] == key if self.index.packed else where["episode"] <= key
            rows = np.flatnonzero(mine)
            last = int(rows[-1]) if len(rows) else -1
            self._refuse_hole(int(block[last]) if last >= 0 else -1, env_index, key)
            if last >= 0:
                part, number = self._at[block[last]]
                column = part.columns[f"model_fields/{name}/value"]
                values, place = column.items(number, at[last : last + 1])
                found[name] = values[place[0]].copy()
        return found

    def _refuse_hole(self, block: int, env_index: int, key: int) -> None:
        """Raise if a block is lost that may have said more about an episode than that block."""
        for hole, why in self.index.holes.items():
            known = -1 if hole == 0 else self.index.first_episode[hole - 1, env_index]
            if block < hole and key > known and not self.index.packed:
                raise DataError(f"What the model was like in the episode is not known: {why}")

    def _holes(self, parts: list[StoredPart]) -> dict[int, str]:
        """Which blocks are followed by one that was lost, by how many blocks come before it."""
        holes: dict[int, str] = {}
        count, number = 0, 0
        for part in parts:
            if part.number != number:
                lost = f"Before '{part.path}', part {number} of the run is missing."
                self.lost_parts.append(lost)
                holes.setdefault(count, lost)
            number = part.number + 1
            for block in sorted((*part.blocks, *part.holes)):
                if block in part.holes:
                    holes.setdefault(count, part.holes[block])
                else:
                    count += 1
            if part.missing and part is not parts[-1]:
                holes.setdefault(count, part.missing)
        return holes

    def _values(self, name: str) -> Iterator[np.ndarray]:
        """What recorders added to ends, not a number where they added nothing."""
        yield np.zeros(0)
        for part in self._parts:
            path = "" if part.layout is None else part.layout.value_paths.get(name, "")
            for number, ends in enumerate(part.read["ends"]):
                yield part.read[f"values/{path}"][number] if path else np.full(len(ends), np.nan)

    def _model_changes(
        self, layouts: list[Layout]
    ) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each model field: whose it is, in which block it is stored, and at which place."""
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
