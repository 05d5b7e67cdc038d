"""Rows collected on the device in preallocated blocks, which are passed to the host when full."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mjlab_rec.data.block_memory import BlockMemory, BlockShape
from mjlab_rec.data.schema import Block, ChannelSpec, DataError, Ends, ModelRows, RunInfo
from mjlab_rec.data.worker import WRITER_NICENESS, Worker
from mjlab_rec.utils.copies import copy_all

Overflow = Literal["block", "drop", "error"]

# Writing a large block is spread over this share of the time in which the next one is filled, and
# over at most _LONGEST seconds: until it is done, a kill loses the block.
_LARGE = 8 << 20  # bytes
_SHARE, _LONGEST = 0.7, 2.0

logger = logging.getLogger(__name__)


class RowStore:
    """The block that is being filled: its memory, and how much of it is used.

    Values are written to ``memory`` at ``row``. "before" values of the next row are written ahead,
    also after the last row of a block. Do not change the block between ``begin_step`` and
    ``commit``.
    """

    def __init__(self, info: RunInfo, shape: BlockShape, memory: BlockMemory) -> None:
        self.info = info
        self.shape = shape
        self.memory = memory
        self.row = self.ends = self.models = 0
        self.lost = False
        """Whether rows were lost. The caller that has handled this sets it to False."""
        self._ahead = [spec.name for spec in info.stored if spec.when == "before"]
        self._steps = np.zeros(shape.rows, np.int64)
        self._mark = 0, 0

    def begin_step(self) -> None:
        """A step begins. ``undo_step`` restores this state."""
        self._mark = self.ends, self.models

    def has_room(self, ends: int) -> bool:
        """Whether there is room for a row, and for this many ends and rows of model fields."""
        used = max(self.ends, self.models)
        return self.row < self.shape.rows and used + ends <= self.shape.ends

    def commit(self, step: int) -> None:
        """Complete the row. `step` is the number of control steps before it."""
        self._steps[self.row] = step
        self.row += 1

    def undo_step(self) -> None:
        """Remove what was added since ``begin_step``."""
        self.ends, self.models = self._mark

    def add_ends(self, count: int, row: int, step: int | torch.Tensor) -> slice:
        """Reserve slots for episodes that ended after a row; returns the slots to fill."""
        at = slice(self.ends, self.ends + count)
        ends = self.memory.ends
        ends.row[at].fill_(row)
        ends.at[at] = step
        ends.time[at].fill_(time.time())
        self.ends += count
        return at

    def add_models(self, count: int) -> slice:
        """Reserve slots for model fields; returns the slots to fill."""
        at = slice(self.models, self.models + count)
        self.models += count
        return at

    def hand_over(self) -> None:
        """Begin another block. The "before" values of the next row are copied to it."""
        raise NotImplementedError

    forked = False
    """Whether this is a child of the process that records."""

    def check(self) -> None:
        """Raise the error of a block that was handed over, if there was one."""

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was handed over is written."""

    def finish(self) -> None:
        """Hand over the last block, and free everything."""

    @property
    def empty(self) -> bool:
        """Whether the block holds nothing."""
        return not (self.row or self.ends or self.models)

    def _go_on_in(self, fresh: BlockMemory) -> None:
        old, row = self.memory, self.row
        if fresh is not old or row > 0:
            before, after = old.channels, fresh.channels
            copy_all(
                [after[name][0] for name in self._ahead],
                [before[name][row] for name in self._ahead],
            )
            if old.active is not None and fresh.active is not None:
                fresh.active[0].copy_(old.active[row])
        self.memory = fresh
        self.row = self.ends = self.models = 0
        self._mark = 0, 0


@dataclass
class _Filled:
    """A block on its way to the writer."""

    memory: BlockMemory
    rows: int
    step: np.ndarray
    ends: int
    models: int
    gap: int
    resumes: bool  # whether it is the first after a failure that the caller has handled
    at: float  # when it was handed over
    spread: float  # seconds over which to spread the work on it


class Staging(RowStore):
    """Hands full blocks to a writer thread.

    It allocates nothing. It waits only if no block is free and `overflow` is "block".

    A block that cannot be written is lost, and so are those after it until ``check`` notices: their
    rows are a gap. With `overflow` "drop" the error is logged, otherwise it is raised, once.

    Args:
        info: Channels and environments.
        shape: Size of a block.
        device: Device of the values.
        num_blocks: Blocks on the host, on a CPU including the one that is being filled.
        overflow: What to do if no block is free: wait, drop the block's rows, or raise.
        work: Writes a block, in another thread.
        name: Name of the recorder, for messages.
        seconds: Hand over a block after this time, even if it is not full.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        info: RunInfo,
        shape: BlockShape,
        device: str | torch.device,
        num_blocks: int,
        overflow: Overflow,
        work: Callable[[Block], None],
        name: str,
        seconds: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if num_blocks < 2:
            raise ValueError(f"num_blocks must be at least 2, got {num_blocks}.")
        device = torch.device(device)
        super().__init__(info, shape, BlockMemory(info, shape, device))
        self.stalled_s = 0.0
        """Seconds for which the simulation waited for a free block."""
        self.block_bytes = self.memory.all.nbytes
        self._overflow, self._drops = overflow, overflow == "drop"
        self._name = name
        self._work = work
        self._seconds, self._clock = seconds, clock
        self._since = clock()
        self._cuda = device.type == "cuda"
        self._free: queue.SimpleQueue[BlockMemory] = queue.SimpleQueue()
        cpu = torch.device("cpu")
        for _ in range(num_blocks - (not self._cuda)):
            self._free.put(BlockMemory(info, shape, cpu, pinned=self._cuda))
        if self._cuda:
            self._on_device = [self.memory, BlockMemory(info, shape, device)]
            self._stream = torch.cuda.Stream(device)
        self._copied: dict[int, Any] = {}  # on a GPU: event that a block's copy is complete
        self._gap = self._dropped_rows = 0
        self._failure: Exception | None = None  # set by the writer thread, raised by `check`
        self._first_failure: Exception | None = None
        self._resumes = self._warned = False
        self._index_of = np.full(max(info.envs) + 2, -1, np.int32)
        self._index_of[list(info.envs)] = np.arange(len(info.envs))
        # Used by the writer thread:
        self._known_model: dict[str, np.ndarray] = {}
        self._losing = False
        self._lost_rows = self._unwritten_rows = 0
        self._thread = Worker(
            name, self._write, release=self._give_back, niceness=WRITER_NICENESS, clock=clock
        )

    # -- on the environment's thread ---------------------------------------------------------------

    def has_room(self, ends: int) -> bool:  # noqa: D102
        return super().has_room(ends) and (
            self.row == 0 or self._clock() - self._since < self._seconds
        )

    def hand_over(self) -> None:  # noqa: D102
        if self.empty:
            return
        host = self._take_free()
        if host is None:
            self._lose_rows()
            return
        now = self._clock()
        spread = 0.0
        if self.block_bytes >= _LARGE:
            spread = min(_SHARE * (now - self._since), _LONGEST)
        filled = _Filled(
            self.memory,
            self.row,
            self._steps[: self.row].copy(),
            self.ends,
            self.models,
            self._gap,
            self._resumes,
            now,
            spread,
        )
        self._gap, self._resumes = 0, False
        self._go_on_in(self._pass_on(host, filled))
        self._since = self._clock()

    def check(self) -> None:
        """Raise the writer thread's error; if rows may be dropped, log it."""
        self._thread.check()
        if self._failure is None:
            return
        failure, self._failure = self._failure, None
        self._lose_rows()
        self._resumes = True
        message = f"{self._name}: writing failed: {failure}"
        if not (self._drops and isinstance(failure, (OSError, DataError))):
            raise DataError(message) from failure
        if not self._warned:
            self._warned = True
            logger.warning("%s. Rows are dropped until writing works again.", message.rstrip("."))

    @property
    def dropped_rows(self) -> int:
        """Rows that were lost, each of all environments."""
        return self._dropped_rows + self._unwritten_rows

    @property
    def forked(self) -> bool:  # type: ignore[override]  # noqa: D102
        return self._thread.forked

    def flush(self, timeout: float | None = None) -> None:  # noqa: D102
        self._thread.wait(timeout)

    def finish(self) -> None:
        """Hand over the last block, wait until it is written, and end the thread."""
        try:
            if not self._thread.forked:
                self._overflow = "block"
                self.hand_over()
        finally:
            self._thread.finish()
        self._thread.check()
        if self._first_failure is not None and not self._drops:
            failure = self._first_failure
            raise DataError(f"{self._name}: writing failed: {failure}") from failure

    def _lose_rows(self) -> None:
        """Drop the rows of the running block."""
        self.lost = True
        self._dropped_rows += self.row
        self._gap += self.row
        self._go_on_in(self.memory)
        self._since = self._clock()

    def _take_free(self) -> BlockMemory | None:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        if self._overflow == "drop":
            return None
        if self._overflow == "error":
            raise DataError(
                f"{self._name}: the disk is too slow: no block is free, and overflow is 'error'."
                " Set overflow to 'block' (wait) or 'drop' (lose rows), record less, or raise"
                " memory_bytes."
            )
        return self._wait_for_free()

    def _wait_for_free(self) -> BlockMemory:
        since = time.perf_counter()
        while True:
            try:
                return self._free.get(timeout=0.2)
            except queue.Empty:
                self._thread.check()
            finally:
                self.stalled_s += time.perf_counter() - since
                since = time.perf_counter()

    def _pass_on(self, host: BlockMemory, filled: _Filled) -> BlockMemory:
        """Pass the filled block to the writer; returns the block to fill next."""
        old = filled.memory
        if not self._cuda:
            self._thread.submit(filled)
            return host
        here = torch.cuda.current_stream(old.all.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            host.all.copy_(old.all, non_blocking=True)
            self._copied[id(old)] = self._copied[id(host)] = self._stream.record_event()
        filled.memory = host
        self._thread.submit(filled)
        fresh = self._on_device[1 - self._on_device.index(old)]
        if id(fresh) in self._copied:
            here.wait_event(self._copied[id(fresh)])
        return fresh

    # -- on the writer's thread --------------------------------------------------------------------

    def _write(self, filled: _Filled) -> None:
        if self._cuda:
            self._copied[id(filled.memory)].synchronize()
        if filled.resumes:
            self._losing = False
            self._known_model.clear()
        filled.gap += self._lost_rows
        if not self._losing:
            try:
                self._work(self._block(filled))
                self._lost_rows, self._warned = 0, False
                return
            except Exception as error:
                self._losing = True
                self._first_failure = self._first_failure or error
                self._failure = error
        self._lost_rows = filled.gap + filled.rows
        self._unwritten_rows += filled.rows

    def _give_back(self, filled: _Filled) -> None:
        self._free.put(filled.memory)

    def _block(self, filled: _Filled) -> Block:
        """A ``Block`` whose arrays are views of a block's memory."""
        memory, rows = filled.memory, filled.rows
        return Block(
            info=self.info,
            rows=rows,
            arrays={name: values.numpy()[:rows] for name, values in memory.channels.items()},
            tail={name: memory.channels[name][rows].numpy() for name in self.info.chained},
            step=filled.step,
            first_episode=memory.first_episode.numpy(),
            first_step=memory.first_step.numpy(),
            total=memory.total.numpy(),
            recorded=memory.recorded.numpy(),
            ends=self._ends(filled),
            active=None if memory.active is None else memory.active.numpy()[:rows],
            model=self._model_rows(filled.models, memory) if filled.models else None,
            gap=filled.gap,
            pace=lambda done: self._thread.pause_until(filled.at + done * filled.spread),
        )

    def _env_indices(self, envs: np.ndarray) -> np.ndarray:
        """The index of each environment in `info.envs`, -1 for those that are not recorded."""
        return self._index_of[np.minimum(envs, len(self._index_of) - 1)]

    def _ends(self, filled: _Filled) -> Ends:
        used = slice(filled.ends)
        columns = {name: values[used].numpy() for name, values in filled.memory.ends.columns()}
        env_index = self._env_indices(columns.pop("env"))
        keep = np.flatnonzero((env_index >= 0) & (columns["length"] > 0))
        # Sort them by time: those that ended during a pause are added later.
        keep = keep[np.argsort(columns["at"][keep], kind="stable")]
        kept = {name: values[keep] for name, values in columns.items()}
        wall_time, values = kept.pop("time"), kept.pop("values")
        finals = filled.memory.finals.items()
        return Ends(
            env_index=env_index[keep],
            **kept,
            final={name: memory[used].numpy()[keep] for name, memory in finals},
            values={
                "wall_time": wall_time,
                **{name: values[:, i] for i, name in enumerate(self.shape.values)},
            },
        )

    def _model_rows(self, count: int, memory: BlockMemory) -> ModelRows | None:
        """Model fields that changed since they were last written for their environment."""
        env_index = self._env_indices(memory.model_env[:count].numpy())
        episode = memory.model_episode[:count].numpy()
        fields = {name: values[:count].numpy() for name, values in memory.model.items()}
        keep = np.zeros(count, bool)
        for each in _rounds(env_index):
            for name, values in fields.items():
                if name not in self._known_model:
                    shape = (len(self.info.envs), *values.shape[1:])
                    self._known_model[name] = np.full(shape, np.nan, np.float32)
                known = self._known_model[name]
                differs = known[env_index[each]] != values[each]
                keep[each] |= differs.reshape(len(each), -1).any(axis=1)
                known[env_index[each]] = values[each]
        if not keep.any():
            return None
        return ModelRows(
            env_index=env_index[keep],
            episode=episode[keep],
            fields={name: values[keep] for name, values in fields.items()},
        )


def _rounds(env_index: np.ndarray) -> Iterator[np.ndarray]:
    """Split indices of recorded environments into arrays that hold each of them at most once."""
    rest = np.flatnonzero(env_index >= 0)
    while len(rest):
        _, first = np.unique(env_index[rest], return_index=True)
        yield rest[np.sort(first)]
        rest = np.delete(rest, first)


def rows_for(
    specs: Sequence[ChannelSpec], num_envs: int, num_blocks: int, memory_bytes: int
) -> int:
    """The number of rows per block if all blocks together take this much memory."""
    row = max(1, num_envs * sum(spec.nbytes for spec in specs))
    return max(1, memory_bytes // (num_blocks * row))
