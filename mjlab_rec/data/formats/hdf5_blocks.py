"""What one HDF5 file of a run holds in whole blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mjlab_rec.data.checksum import crc32
from mjlab_rec.data.formats import hdf5_head
from mjlab_rec.data.formats.hdf5_layout import (
    CHUNK_DTYPE,
    OPEN,
    STATE_DTYPE,
    Column,
    Layout,
    Plan,
    index_dtype,
    own_check,
    state_check,
)
from mjlab_rec.data.formats.hdf5_stored import Kept, StoredColumn, StoredFile
from mjlab_rec.data.schema import DataError

_MOST_STEPS = 1 << 53


class StoredPart:
    """A file of a run, as far as it is whole: its blocks by their number in the file.

    A block whose row of the index is damaged, or what it leads to, is left out.
    """

    def __init__(self, path: Path, check: bool, keep: bool, kept: Kept) -> None:
        self.path = path
        self.file = StoredFile(path, keep)
        self.blocks: list[int] = []
        self.holes: dict[int, str] = {}  # blocks that are left out, and why
        self.missing = ""  # what is missing at the end
        self.columns: dict[str, StoredColumn] = {}
        self.problems: list[str] = []  # that cost no block
        self._check = check
        self._kept = kept
        try:
            self._head = head = hdf5_head.load(self.file.read, self.file.size, path)
            self.problems += head.problems
            self.info, self.run, self.number = head.info, head.run, head.part
            self.layout = None if head.plan is None else head.plan.layout
            self.attachments = self._attachments()
            self.state, self._promised = self._left()
            if head.plan is not None:
                self._find_blocks(head.plan)
                self._read_index(head.plan)
        except BaseException:
            self.file.close()
            raise

    def verify(self) -> list[str]:
        """Read all blocks; a sentence for each damage."""
        if not self._check:
            other = StoredPart(self.path, check=True, keep=False, kept=Kept())
            try:
                return other.verify()
            finally:
                other.file.close()
        found = [*self.problems, *self.holes.values(), *([self.missing] if self.missing else [])]
        for column in self.columns.values():
            for block in self.blocks:
                found += column.damages(block)
        return list(dict.fromkeys(found))

    # -- what columns must know --------------------------------------------------------------------

    def span(self, column: Column, block: int) -> tuple[int, int]:
        """Number of a block's first item, and of its items."""
        if column.items:
            return block * column.items, column.items
        first, count = self._spans[column.table]
        return int(first[block]), int(count[block])

    def expected(self, column: Column, block: int) -> np.ndarray | None:
        """Checksums of a block's units; None if they are not to be compared."""
        if not self._check or column.table == "checks":
            return None
        ahead = self._ahead[column.path]
        if not column.items:
            for other in self._tables[: self._tables.index(column)]:
                ahead += other.checks(self.span(other, block)[1])
        return self._checksums(block)[ahead:]

    def damage(self, column: Column, block: int, first: int, count: int) -> str:
        """A sentence that says that some items of a block are damaged."""
        envs, whose = self.info.envs, ""
        if column.items == len(envs) and column.path != "index/step":
            whose = f" of environments {envs[first]} to {envs[first + count - 1]}"
        return (
            f"'{self.path}', block {block}{self._rows(block)}: '{column.path}'{whose} is damaged,"
            " its checksum differs. All else can be read, and with check=False this, as it is."
        )

    def _rows(self, block: int) -> str:
        steps = self.index["rows"][block]
        if block not in self.steps:
            return f" ({steps} rows)"
        step = self.steps[block]
        return f" ({steps} rows, control steps {step[0]} to {step[max(0, steps - 1)]})"

    def _checksums(self, block: int) -> np.ndarray:
        checks = self._kept.get((self, block))
        if checks is None:
            checks = self._all_checks.block(block)
            if crc32(checks.tobytes()) != self.index["check"][block]:
                raise DataError(
                    f"'{self.path}', block {block}{self._rows(block)}: its checksums are damaged."
                    " All else can be read, and with check=False this as well."
                )
            self._kept.put((self, block), checks)
        return checks

    # -- what there is -----------------------------------------------------------------------------

    def _attachments(self) -> dict[str, bytes]:
        found = {}
        for name, (at, size, expected) in self._head.attachments.items():
            content = self.file.read(at, size)
            if self._check and crc32(content) != expected:
                told = f"'{self.path}': the attached file '{name}' is damaged and left out."
                self.problems.append(told)
            else:
                found[name] = content
        return found

    def _left(self) -> tuple[int, int]:
        """How the file was left, and with how many blocks."""
        content = self.file.read(self._head.state, STATE_DTYPE.itemsize)
        state = np.frombuffer(content, STATE_DTYPE)[0]
        if any(content) and state_check(content) != state["check"]:
            self.problems.append(f"'{self.path}': the mark that it was finished is damaged.")
            return OPEN, 0
        return int(state["state"]), int(state["blocks"])

    def _find_blocks(self, plan: Plan) -> None:
        """Find out which blocks there are."""
        dtype = index_dtype(plan.layout)
        # Only what the index counts is looked at: in a file that is being written, or whose process
        # died, the rest may be there in part.
        content = self.file.read(self._head.index, plan.capacity * dtype.itemsize)
        self.file.look_again()
        size = dtype.itemsize
        rows = [content[at : at + size] for at in range(0, len(content.rstrip(b"\0")), size)]
        self.index: Any = np.frombuffer(content, dtype)
        own, self.steps = self.index["own"].tolist(), {}
        whole = [own_check(row, dtype, n) == own[n] for n, row in enumerate(rows)]
        count = max((n + 1 for n, right in enumerate(whole) if right), default=0)
        if self.state != OPEN:
            count = min(self._promised, plan.capacity)
        elif count < len(rows) and any(rows[count]):
            # It cannot be told whether it was damaged or not written to its end.
            self.missing = (
                f"'{self.path}': block {count} is not whole: the process ended while it was being"
                " written, or it is damaged."
            )
        self.index = self.index[:count]
        whole += [False] * (count - len(whole))
        wrong = [block for block in range(count) if not whole[block]]
        if wrong:
            told = f"{wrong[0]} to {wrong[-1]}" if len(wrong) > 1 else str(wrong[0])
            why = f"'{self.path}': damage in the index hides {len(wrong)} of the blocks {told}."
            self.holes = dict.fromkeys(wrong, why)
        for block in range(count):
            if block not in self.holes and not self._possible(plan, block):
                self.holes[block] = self._hole(block, "its row of the index has impossible numbers")
        self._place(plan)
        self._leave_out()

    def _possible(self, plan: Plan, block: int) -> bool:
        row, tables = self.index[block], {"ends": int(self.index["ends"][block])}
        firsts = [int(row["first_end"]), int(row["first_check"])]
        for number, name in enumerate(plan.layout.model):
            tables[f"model_fields/{name}"] = int(row["models"][number])
            firsts.append(int(row["first_model"][number]))
        numbers = [*firsts, *tables.values(), int(row["gap"])]
        return (
            0 <= row["rows"] <= plan.layout.rows
            and all(0 <= number < _MOST_STEPS for number in numbers)
            and plan.checks(tables) == row["checks"]
        )

    def _place(self, plan: Plan) -> None:
        """Find out where columns are, and leave out blocks that the file ends before."""
        index = self.index
        self._spans = {
            "ends": (index["first_end"], index["ends"]),
            "checks": (index["first_check"], index["checks"]),
        }
        for number, name in enumerate(plan.layout.model):
            span = index["first_model"][:, number], index["models"][:, number]
            self._spans[f"model_fields/{name}"] = span
        self._tables = [column for column in plan.columns if not column.items]
        self._ahead: dict[str, int] = {}
        size = plan.slots * CHUNK_DTYPE.itemsize
        copies = [
            np.frombuffer(self.file.read(self._head.chunks + copy * size, size), CHUNK_DTYPE)
            for copy in range(2)
        ]
        whole = np.array([block not in self.holes for block in range(len(index))], bool)
        end = np.zeros(len(index), np.int64)
        first, ahead = 0, 0
        for column in plan.columns:
            items = (np.arange(len(index)) * column.items, np.full(len(index), column.items))
            start, count = items if column.items else self._spans[column.table]
            last = int((start + count)[whole].max(initial=0))
            used = -(-last // column.chunk) if not column.compression else len(index) * column.tiles
            mine = [copy[first : first + min(used, column.slots)] for copy in copies]
            first += column.slots
            self._ahead[column.path] = ahead
            ahead += column.checks(column.items)
            stored = self.columns[column.path] = StoredColumn(self, column, mine, self._kept)
            end[whole] = np.maximum(end[whole], stored.ends(start[whole], count[whole]))
        self._all_checks = self.columns.pop("index/checks")
        lost = np.flatnonzero(end > self.file.size).tolist()
        if not lost:
            return
        kept = 1 + max((b for b in range(len(index)) if whole[b] and b not in lost), default=-1)
        self.missing = (
            f"'{self.path}' was cut off at byte {self.file.size}: {len(lost)} of {len(index)}"
            f" blocks are missing, from block {lost[0]} on."
        )
        self.index = index[:kept]
        self.holes = {block: why for block, why in self.holes.items() if block < kept}
        self.holes |= {block: self.missing for block in lost if block < kept}

    def _read_index(self, plan: Plan) -> None:
        """Read what is known about blocks without looking at a channel."""
        names = ["index/step", "index/envs", *(c.path for c in self._tables if _is_index(c))]
        read: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for block in self.blocks:
            try:
                values = [self.columns[name].block(block) for name in names]
                self._refuse(plan.layout, block, *values[:3])
            except DataError as error:
                told = str(error)
                here = f"block {block}"
                self.holes[block] = told if here in told else f"{told} It hides {here}."
                continue
            self.steps[block] = values[0]
            for name, value in zip(names, values, strict=True):
                read[name].append(value)
        self._leave_out()
        self.read = read

    def _leave_out(self) -> None:
        self.blocks = [block for block in range(len(self.index)) if block not in self.holes]

    def _refuse(
        self, layout: Layout, block: int, step: np.ndarray, per_env: np.ndarray, ends: np.ndarray
    ) -> None:
        """Raise if numbers of a block cannot be, whatever their checksums say."""
        rows = int(self.index["rows"][block])
        step = step[:rows]
        envs = np.asarray(self.info.envs, np.int64)
        right = (
            (np.diff(step) > 0).all() and ((step >= 0) & (step < _MOST_STEPS)).all(),
            (per_env["first_episode"] >= 0).all() and (per_env["first_step"] >= 0).all(),
            ((ends["env_index"] >= 0) & (ends["env_index"] < layout.num_envs)).all(),
            ((ends["row"] >= -1) & (ends["row"] < max(rows, 1))).all(),
            ((ends["key"] >= 0) & (ends["number"] >= 0) & (ends["block"] == block)).all(),
            np.isin(ends["env"], envs).all(),
            (abs(ends["at"]) < _MOST_STEPS).all(),
        )
        if not all(right):
            raise DataError(self._hole(block, "its numbers of steps or episodes are impossible"))

    def _hole(self, block: int, why: str) -> str:
        return f"'{self.path}', block {block}{self._rows(block)}: {why}. All else can be read."


def _is_index(column: Column) -> bool:
    """Whether a table is read when a file is opened."""
    return (
        column.path == "ends"
        or column.path.startswith("values/")
        or (column.path.startswith("model_fields/") and column.path.endswith("/where"))
    )
