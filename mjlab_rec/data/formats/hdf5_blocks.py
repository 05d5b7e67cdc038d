"""The blocks of one HDF5 file of a recording, read without the HDF5 library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import hdf5_header
from mjlab_rec.data.formats.hdf5_header import Header
from mjlab_rec.data.formats.hdf5_layout import (
    CHUNK_DTYPE,
    OPEN,
    STATE_DTYPE,
    Column,
    Layout,
    Plan,
    own_check,
    state_check,
)
from mjlab_rec.data.formats.hdf5_stored import (
    Cache,
    OpenFiles,
    StoredColumn,
    StoredColumns,
    StoredFile,
)
from mjlab_rec.data.schema import DataError

_MOST_STEPS = 1 << 53


class StoredPart:
    """A file of a recording, and the blocks in it that can be read, by number.

    A block is skipped if its row of the index is damaged, or the data that it refers to.

    Args:
        path: The file.
        check: Whether to compare checksums.
        files: Where it stays open for a while.
        cache: Values that were read and checked.
        first: The first block whose index is read.
        attached: Whether attached files are read.
        like: The header of another part of the recording.
    """

    def __init__(
        self,
        path: Path,
        check: bool = True,
        files: OpenFiles | None = None,
        cache: Cache | None = None,
        first: int = 0,
        attached: bool = True,
        like: Header | None = None,
    ) -> None:
        self.path = path
        self.file = StoredFile(path, files or OpenFiles(1))
        self.cache = cache or Cache()
        self.blocks: list[int] = []
        self.lost: dict[int, str] = {}  # blocks that are skipped, and why
        self.missing = ""  # a sentence about blocks missing at the end
        self.columns: Mapping[str, StoredColumn] = {}
        self.problems: list[str] = []  # damage without loss of a block
        self.check = check
        self._most_items: dict[str, int] = {}
        try:
            self.header = header = hdf5_header.load(self.file.read, self.file.size, path, like)
            self.problems += header.problems
            self.info, self.run, self.number = header.info, header.run, header.part
            self.layout = None if header.plan is None else header.plan.layout
            self.attachments = self._attachments() if attached else {}
            self.state, self._written = self._read_state()
            if header.plan is not None:
                self._find_blocks(header.plan)
                self._read_index(header.plan, first)
        except BaseException:
            self.file.close()
            raise

    @property
    def files(self) -> OpenFiles:
        """The files that stay open for a while."""
        return self.file.files

    @files.setter
    def files(self, files: OpenFiles) -> None:
        if self.file.files is not files:
            self.file.files.drop(self.file)
        self.file.files = files

    def close(self) -> None:
        """Close the file. May be called twice."""
        self.file.close()

    @property
    def damages(self) -> list[str]:
        """A sentence per damage that was found when it was opened."""
        return [*self.problems, *self.lost.values(), *([self.missing] if self.missing else [])]

    # -- for columns -------------------------------------------------------------------------------

    def span(self, column: Column, block: int) -> tuple[int, int]:
        """Index of a block's first item, and number of its items."""
        if column.items:
            return block * column.items, column.items
        first, count = self._spans[column.table]
        return int(first[block]), int(count[block])

    def expected(self, column: Column, block: int) -> np.ndarray | None:
        """Checksums of a block's units; None if they are not compared."""
        if not self.check or column.table == "checks":
            return None
        plan = self._plan
        _, ahead = plan.ahead[column.path]
        if not column.items:
            for other in plan.tables:
                if other is column:
                    break
                ahead += other.checks(self.span(other, block)[1])
        return self._checksums(block)[ahead:]

    def chunks(self, column: Column, copy: int) -> np.ndarray:
        """The entries of a column's chunks in a copy of the list, 0 or 1."""
        used = -(-self._most(column) // column.chunk)
        if column.compression:
            used = len(self.index) * column.tiles
        first, size = self._plan.ahead[column.path][0], CHUNK_DTYPE.itemsize
        at = self.header.chunks + (first + copy * self._plan.slots) * size
        return np.frombuffer(self.file.read(at, min(used, column.slots) * size), CHUNK_DTYPE)

    def most_items(self, column: Column) -> int:
        """The number of rows of a table."""
        if column.table not in self._most_items:
            self._most_items[column.table] = self._most(column)
        return self._most_items[column.table]

    def _most(self, column: Column) -> int:
        if column.items:
            return column.items * (1 + max(self.blocks, default=-1))
        first, count = self._spans[column.table]
        return int((first + count)[self.blocks].max(initial=0))

    def where(self, block: int) -> str:
        """The file and a block, for a message."""
        return f"'{self.path}', block {block}{self._rows(block)}"

    def damage(self, column: Column, block: int, first: int, count: int) -> str:
        """A sentence about damaged items of a block."""
        envs, whose = self.info.envs, ""
        if column.items == len(envs) and column.path != "index/step":
            whose = f" of environments {envs[first]} to {envs[first + count - 1]}"
        return (
            f"{self.where(block)}: '{column.path}'{whose} is damaged:"
            " wrong checksum. Everything else can be read; with check=False this, too."
        )

    def _rows(self, block: int) -> str:
        steps = self.index["rows"][block]
        if block not in self._known:
            return f" ({steps} rows)"
        step = self.columns["index/step"].block(block)
        return f" ({steps} rows, control steps {step[0]} to {step[max(0, steps - 1)]})"

    def _checksums(self, block: int) -> np.ndarray:
        checks = self.cache.get((self, block))
        if checks is None:
            checks = self.columns["index/checks"].block(block)
            if crc32(checks.tobytes()) != self.index["check"][block]:
                raise DataError(
                    f"{self.where(block)}: its checksums are damaged."
                    " Everything else can be read; with check=False this block, too."
                )
            self.cache.put((self, block), checks)
        return checks

    # -- opening -----------------------------------------------------------------------------------

    def _attachments(self) -> dict[str, bytes]:
        found = {}
        for name in self.header.attachments:
            try:
                found[name] = read_attached(self.file, self.header, name, self.check)
            except DataError as error:
                self.problems.append(str(error))
        return found

    def _read_state(self) -> tuple[int, int]:
        """The state of the file: whether it was closed, and its number of blocks."""
        content = self.file.read(self.header.state, STATE_DTYPE.itemsize)
        state = np.frombuffer(content, STATE_DTYPE)[0]
        if any(content) and state_check(content) != state["check"]:
            self.problems.append(f"'{self.path}': the mark of a finished recording is damaged.")
            return OPEN, 0
        return int(state["state"]), int(state["blocks"])

    def _find_blocks(self, plan: Plan) -> None:
        """Find the blocks."""
        dtype = plan.index_dtype
        # Only blocks in the index are read: others may be incomplete, if the file is being written
        # or its process was killed.
        content = self.file.read(self.header.index, plan.capacity * dtype.itemsize)
        self.file.update_size()
        size = dtype.itemsize
        rows = [content[at : at + size] for at in range(0, len(content.rstrip(b"\0")), size)]
        self.index: Any = np.frombuffer(content, dtype)
        own, self._known = self.index["own"].tolist(), set[int]()
        valid = [own_check(row, dtype, n) == own[n] for n, row in enumerate(rows)]
        count = max((n + 1 for n, right in enumerate(valid) if right), default=0)
        if self.state != OPEN:
            count = min(self._written, plan.capacity)
        elif count < len(rows) and any(rows[count]):
            # Damage and an incomplete write look the same.
            self.missing = (
                f"'{self.path}': block {count} is incomplete: the process ended while it was being"
                " written, or it is damaged."
            )
        self.index = self.index[:count].copy()  # The list has room for many more blocks.
        valid += [False] * (count - len(valid))
        wrong = [block for block in range(count) if not valid[block]]
        if wrong:
            which = f"{wrong[0]} to {wrong[-1]}" if len(wrong) > 1 else str(wrong[0])
            why = (
                f"'{self.path}': {len(wrong)} of the blocks {which} cannot be found, because the"
                " index is damaged."
            )
            self.lost = dict.fromkeys(wrong, why)
        for block in range(count):
            if block not in self.lost and not self._possible(plan, block):
                self.lost[block] = self._describe(
                    block, "the numbers in its row of the index are impossible"
                )
        self._list_readable()
        self._place(plan)

    def _possible(self, plan: Plan, block: int) -> bool:
        row, tables = self.index[block], {"ends": int(self.index["ends"][block])}
        firsts = [int(row["first_end"]), int(row["first_check"])]
        for number, name in enumerate(plan.layout.model):
            tables[f"model_fields/{name}"] = int(row["models"][number])
            firsts.append(int(row["first_model"][number]))
        for number, table in enumerate(plan.layout.streams.values()):
            tables[table] = int(row["encoded"][number])
            firsts.append(int(row["first_encoded"][number]))
        numbers = [*firsts, *tables.values(), int(row["gap"])]
        return (
            0 <= row["rows"] <= plan.layout.rows
            and all(0 <= number < _MOST_STEPS for number in numbers)
            and plan.checks(tables) == row["checks"]
        )

    def _place(self, plan: Plan) -> None:
        """Find the columns, and the rows of each block in tables."""
        index = self.index
        self._spans = {
            "ends": (index["first_end"], index["ends"]),
            "checks": (index["first_check"], index["checks"]),
        }
        for number, name in enumerate(plan.layout.model):
            span = index["first_model"][:, number], index["models"][:, number]
            self._spans[f"model_fields/{name}"] = span
        for number, table in enumerate(plan.layout.streams.values()):
            self._spans[table] = index["first_encoded"][:, number], index["encoded"][:, number]
        self._plan, self.columns = plan, StoredColumns(self, plan)
        size = 2 * plan.slots * CHUNK_DTYPE.itemsize
        chunks = np.frombuffer(self.file.read(self.header.chunks, size), CHUNK_DTYPE)
        if int((chunks["at"] + chunks["size"]).max(initial=0)) > self.file.size:
            self._find_cut_off(plan)

    def _find_cut_off(self, plan: Plan) -> None:
        """Skip blocks after the end of the file."""
        index, valid = self.index, np.zeros(len(self.index), bool)
        valid[self.blocks] = True
        end = np.zeros(len(index), np.int64)
        for column in plan.columns:
            items = (np.arange(len(index)) * column.items, np.full(len(index), column.items))
            start, count = items if column.items else self._spans[column.table]
            ends = self.columns[column.path].ends(start[valid], count[valid])
            end[valid] = np.maximum(end[valid], ends)
        lost = np.flatnonzero(end > self.file.size).tolist()
        if not lost:
            return
        kept = 1 + max((b for b in range(len(index)) if valid[b] and b not in lost), default=-1)
        self.missing = (
            f"'{self.path}' was cut off at byte {self.file.size}: {len(lost)} of {len(index)}"
            f" blocks are missing, from block {lost[0]} on."
        )
        self.index = index[:kept]
        self.lost = {block: why for block, why in self.lost.items() if block < kept}
        self.lost |= {block: self.missing for block in lost if block < kept}
        self._list_readable()

    def _read_index(self, plan: Plan, first: int) -> None:
        """Read the index of the blocks, without any channel."""
        names = ["index/step", "index/envs", *(c.path for c in plan.tables if _is_index(c))]
        read: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for block in [block for block in self.blocks if block >= first]:
            try:
                values = [self.columns[name].block(block) for name in names]
                self._check_numbers(plan.layout, block, *values[:3])
            except DataError as error:
                message, name = str(error), f"block {block}"
                known = name in message
                self.lost[block] = message if known else f"{message} So {name} is lost."
                continue
            self._known.add(block)
            for name, value in zip(names, values, strict=True):
                read[name].append(value)
        self._list_readable()
        self.read = read

    def _list_readable(self) -> None:
        self.blocks = [block for block in range(len(self.index)) if block not in self.lost]

    def _check_numbers(
        self, layout: Layout, block: int, step: np.ndarray, per_env: np.ndarray, ends: np.ndarray
    ) -> None:
        """Raise if numbers of a block are impossible, even if their checksums are right."""
        rows = int(self.index["rows"][block])
        step = step[:rows]
        envs = np.asarray(self.info.envs, np.int64)
        right = (
            (np.diff(step) > 0).all() and ((step >= 0) & (step < _MOST_STEPS)).all(),
            (per_env["first_episode"] >= 0).all() and (per_env["first_step"] >= -1).all(),
            ((ends["env_index"] >= 0) & (ends["env_index"] < layout.num_envs)).all(),
            ((ends["row"] >= -1) & (ends["row"] < max(rows, 1))).all(),
            ((ends["key"] >= 0) & (ends["number"] >= 0) & (ends["block"] == block)).all(),
            np.isin(ends["env"], envs).all(),
            (abs(ends["at"]) < _MOST_STEPS).all(),
        )
        if not all(right):
            raise DataError(
                self._describe(block, "its numbers of steps or episodes are impossible")
            )

    def _describe(self, block: int, why: str) -> str:
        return f"{self.where(block)}: {why}. Everything else can be read."


def read_attached(file: StoredFile, header: Header, name: str, check: bool) -> bytes:
    """An attached file of a recording; raises if it is damaged."""
    at, size, expected = header.attachments[name]
    content = file.read(at, size)
    if check and crc32(content) != expected:
        raise DataError(f"'{file.path}': the attached file '{name}' is damaged.")
    return content


def _is_index(column: Column) -> bool:
    """Whether a table is read when the file is opened."""
    return (
        column.path == "ends"
        or column.path.startswith("values/")
        or (column.path.startswith("model_fields/") and column.path.endswith("/where"))
    )
