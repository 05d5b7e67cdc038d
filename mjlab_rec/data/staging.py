"""Rows gathered on the device in preallocated blocks, and handed over to the host when full."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from mjlab_rec.data.schema import Block, ChannelSpec, DataError, Ends, ModelRows, RunInfo
from mjlab_rec.data.worker import STEP_BACK, Worker
from mjlab_rec.utils.copies import copy_all

Overflow = Literal["block", "drop", "error"]

_ALIGNMENT = 64
_TORCH_TYPES = {
    np.dtype(name): getattr(torch, name if name != "bool_" else "bool")
    for name in ("bool_", "uint8", "int8", "int16", "int32", "int64", "float16", "float32")
} | {np.dtype("float64"): torch.float64}


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """The torch type of a numpy type that channels may have."""
    try:
        return _TORCH_TYPES[np.dtype(dtype)]
    except KeyError:
        known = ", ".join(str(d) for d in _TORCH_TYPES)
        raise DataError(f"Channels cannot have the dtype {dtype}. Possible: {known}.") from None


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy type of a torch type that channels may have."""
    for ours, theirs in _TORCH_TYPES.items():
        if theirs == dtype:
            return ours
    known = ", ".join(str(d) for d in _TORCH_TYPES)
    raise DataError(f"Channels cannot have the dtype {dtype}. Possible: {known}.")


@dataclass(kw_only=True)
class Shape:
    """What a block has room for."""

    rows: int
    ends: int  # episodes that may end within a block
    values: tuple[str, ...] = ()  # sums over the episode that ends carry, float32
    model: dict[str, tuple[int, ...]] = field(default_factory=dict)  # per-world fields, float32
    active: bool = False  # whether rows have a flag that says if they are wanted


class _Slab:
    """One block's memory, in one piece, seen as named tensors."""

    def __init__(self, info: RunInfo, shape: Shape, device: torch.device, pinned: bool) -> None:
        lanes, rows, ends = len(info.envs), shape.rows, shape.ends
        parts: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for spec in info.stored:
            # One more value before than rows: what came after the last one.
            count = rows + (spec.when == "before")
            parts["/" + spec.name] = ((count, lanes, *spec.shape), torch_dtype(spec.dtype))
        for name in info.chained:
            spec = next(spec for spec in info.stored if spec.name == name)
            parts["final/" + name] = ((ends, *spec.shape), torch_dtype(spec.dtype))
        if shape.active:
            parts["active"] = ((rows + 1, lanes), torch.bool)
        for name, dtype in _LANE_PARTS.items():
            parts[name] = ((lanes,), dtype)
        for name, dtype in _END_PARTS.items():
            parts[name] = ((ends,), dtype)
        parts["end/values"] = ((ends, len(shape.values)), torch.float32)
        if shape.model:
            parts["model/env"] = ((ends,), torch.int64)
            parts["model/episode"] = ((ends,), torch.int32)
        for name, field_shape in shape.model.items():
            parts["model/=" + name] = ((ends, *field_shape), torch.float32)

        offsets, total = {}, 0
        for name, (size, dtype) in parts.items():
            offsets[name] = total
            total += math.prod(size) * dtype.itemsize
            total = -(-total // _ALIGNMENT) * _ALIGNMENT
        self.memory = torch.zeros(total, dtype=torch.uint8, device=device, pin_memory=pinned)
        self.parts = {
            name: self.memory[offsets[name] :][: math.prod(size) * dtype.itemsize]
            .view(dtype)
            .view(size)
            for name, (size, dtype) in parts.items()
        }
        self.copied: Any = None  # on a GPU, when the block has left it


_LANE_PARTS = {
    "first_episode": torch.int32,
    "first_step": torch.int32,
    "total": torch.float64,
    "recorded": torch.float64,
}
_END_PARTS = {
    "end/env": torch.int64,
    "end/episode": torch.int32,
    "end/length": torch.int32,
    "end/total": torch.float64,
    "end/rows": torch.int32,
    "end/recorded": torch.float64,
    "end/terminated": torch.bool,
    "end/truncated": torch.bool,
    "end/success": torch.int8,
}


@dataclass
class _Filled:
    """A block on its way to the writer."""

    slab: _Slab
    rows: int
    step: np.ndarray
    ends: list[tuple[int, int, int, float]]  # how many; last row, control steps, time of the end
    models: int
    gap: int


class Staging:
    """Gathers rows in blocks on the device and hands full ones to a writer thread.

    The recorder writes values into ``parts`` at ``row``, which counts from ``commit`` on. The
    "before" values of the row to come are written ahead, also behind the last row of a block.
    Nothing is allocated, and nothing is waited for but a free block, if there is none and
    `overflow` is "block".

    Args:
        info: Channels and environments.
        shape: What a block has room for.
        device: Where the values are.
        num_blocks: Blocks on the host; on a CPU one of them is being filled.
        overflow: What to do when no block is free: wait, forget the block's rows, or raise.
        work: Writes a block, in another thread.
        name: Who records, for messages.
    """

    def __init__(
        self,
        info: RunInfo,
        shape: Shape,
        device: str | torch.device,
        num_blocks: int,
        overflow: Overflow,
        work: Callable[[Block], None],
        name: str,
    ) -> None:
        if num_blocks < 2:
            raise ValueError(f"num_blocks must be at least 2, got {num_blocks}.")
        self.info = info
        self.shape = shape
        self.dropped_rows = 0
        self.stalled_s = 0.0
        self._overflow = overflow
        self._name = name
        self._work = work
        device = torch.device(device)
        self._cuda = device.type == "cuda"
        self._free: queue.SimpleQueue[_Slab] = queue.SimpleQueue()
        for _ in range(num_blocks - (not self._cuda)):
            self._free.put(_Slab(info, shape, torch.device("cpu"), pinned=self._cuda))
        self._on_device = [_Slab(info, shape, device, pinned=False)]
        if self._cuda:
            self._on_device.append(_Slab(info, shape, device, pinned=False))
            self._stream = torch.cuda.Stream(device)
        self.block_bytes = self._on_device[0].memory.nbytes
        ahead = ["/" + spec.name for spec in info.stored if spec.when == "before"]
        self._ahead = ahead + ["active"] * shape.active  # What is written before its row begins.
        self._gap = 0
        self._steps = np.zeros(shape.rows, np.int64)
        self._thread = Worker(name, self._write, release=self._give_back, niceness=STEP_BACK)
        self._lane_of = np.full(max(info.envs) + 2, -1, np.int32)
        self._lane_of[list(info.envs)] = np.arange(len(info.envs))
        self._known_model: dict[str, np.ndarray] = {}
        self._start(self._on_device[0])

    # -- on the environment's thread ---------------------------------------------------------------

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The running block's tensors: channels as "/name", the others as in ``_Slab``."""
        return self._slab.parts

    @property
    def full(self) -> bool:
        """Whether the running block has no room for another row."""
        return self.row == self.shape.rows

    def has_room(self, ends: int) -> bool:
        """Whether this many more episodes may end within the running block."""
        return max(self.ends, self.models) + ends <= self.shape.ends

    def commit(self, step: int) -> None:
        """The row is complete; `step` counts the control steps before it."""
        self._steps[self.row] = step
        self.row += 1

    def add_ends(self, count: int, row: int, step: int) -> slice:
        """Note that episodes ended with a row; returns where to write about them."""
        at = slice(self.ends, self.ends + count)
        self._events.append((count, row, step, time.time()))
        self.ends += count
        return at

    def add_models(self, count: int) -> slice:
        """Note that model fields follow; returns where to write them."""
        at = slice(self.models, self.models + count)
        self.models += count
        return at

    def hand_over(self) -> bool:
        """Give the running block away and start another; "before" values carry over.

        Returns False if its rows had to be dropped.
        """
        old, row = self._slab, self.row
        self._thread.check()
        if row == 0 and not self._events and not self.models:
            return True
        host = self._take_free()
        if host is None:
            self.dropped_rows += row
            self._gap += row
            fresh = old
        else:
            filled = (row, self._steps[:row].copy(), self._events, self.models, self._gap)
            self._gap = 0
            fresh = self._pass_on(old, host, filled)
        self._carry(old, row, fresh)
        self._start(fresh)
        return host is not None

    def check(self) -> None:
        """Raise what went wrong in the writer thread, if anything did."""
        self._thread.check()

    @property
    def failed(self) -> bool:
        """Whether the writer thread has given up."""
        return self._thread.error is not None

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that records."""
        return self._thread.forked

    def flush(self) -> None:
        """Hand over what there is and wait until it is written."""
        self.hand_over()
        self._thread.wait()

    def finish(self) -> None:
        """Hand over what is left, wait until it is written, and free the memory."""
        try:
            if not self._thread.forked and self._thread.error is None:
                self._overflow = "block"
                self.hand_over()
        finally:
            self._thread.finish()
        self._thread.check()

    def _start(self, slab: _Slab) -> None:
        self._slab = slab
        self.row = 0
        self.ends = 0
        self.models = 0
        self._events: list[tuple[int, int, int, float]] = []

    def _take_free(self) -> _Slab | None:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        if self._overflow == "drop":
            return None
        if self._overflow == "error":
            raise DataError(
                f"{self._name}: the disk is too slow: no block is free, and overflow is 'error'."
                " Choose overflow='block' to wait or 'drop' to lose rows, record less, or raise"
                " memory_bytes."
            )
        since = time.perf_counter()
        while True:
            try:
                return self._free.get(timeout=0.2)
            except queue.Empty:
                self._thread.check()
            finally:
                self.stalled_s += time.perf_counter() - since
                since = time.perf_counter()

    def _pass_on(self, old: _Slab, host: _Slab, filled: tuple) -> _Slab:
        """Send a filled block to the writer; returns the block to fill next."""
        if not self._cuda:
            self._thread.submit(_Filled(old, *filled))
            return host
        here = torch.cuda.current_stream(old.memory.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            host.memory.copy_(old.memory, non_blocking=True)
            old.copied = host.copied = self._stream.record_event()
        self._thread.submit(_Filled(host, *filled))
        fresh = self._on_device[1 - self._on_device.index(old)]
        if fresh.copied is not None:
            here.wait_event(fresh.copied)
        return fresh

    def _carry(self, old: _Slab, row: int, fresh: _Slab) -> None:
        if fresh is not old or row > 0:
            copy_all(
                [fresh.parts[name][0] for name in self._ahead],
                [old.parts[name][row] for name in self._ahead],
            )

    # -- on the writer's thread --------------------------------------------------------------------

    def _write(self, filled: _Filled) -> None:
        if filled.slab.copied is not None:
            filled.slab.copied.synchronize()
        self._work(self._block(filled))

    def _give_back(self, filled: _Filled) -> None:
        self._free.put(filled.slab)

    def _block(self, filled: _Filled) -> Block:
        """See a slab as a block."""
        rows, parts = filled.rows, {k: v.numpy() for k, v in filled.slab.parts.items()}
        ends = self._ends(filled, parts)
        return Block(
            info=self.info,
            rows=rows,
            arrays={spec.name: parts["/" + spec.name][:rows] for spec in self.info.stored},
            tail={name: parts["/" + name][rows] for name in self.info.chained},
            step=filled.step,
            first_episode=parts["first_episode"],
            first_step=parts["first_step"],
            total=parts["total"],
            recorded=parts["recorded"],
            ends=ends,
            active=parts["active"][:rows] if self.shape.active else None,
            model=self._model_rows(filled.models, parts) if filled.models else None,
            gap=filled.gap,
        )

    def _lanes(self, envs: np.ndarray) -> np.ndarray:
        """The lane of each environment, -1 for those that are not recorded."""
        return self._lane_of[np.minimum(envs, len(self._lane_of) - 1)]

    def _ends(self, filled: _Filled, parts: dict[str, np.ndarray]) -> Ends:
        counts, rows, steps, times = zip(*filled.ends, strict=True) if filled.ends else [()] * 4
        total = sum(counts)
        lane = self._lanes(parts["end/env"][:total])
        length = parts["end/length"][:total]
        row = np.repeat(np.array(rows, np.int32), counts)
        # An error may have kept the last row from being completed.
        keep = np.flatnonzero((lane >= 0) & (length > 0) & (row < filled.rows))
        at = np.repeat(np.array(steps, np.int64), counts)
        wall = np.repeat(np.array(times, np.float64), counts)

        def chosen(name: str) -> np.ndarray:
            return parts[name][:total][keep]

        values = chosen("end/values")
        return Ends(
            lane=lane[keep],
            row=row[keep],
            at=at[keep],
            length=length[keep],
            episode=chosen("end/episode"),
            total=chosen("end/total"),
            rows=chosen("end/rows"),
            recorded=chosen("end/recorded"),
            terminated=chosen("end/terminated"),
            truncated=chosen("end/truncated"),
            success=chosen("end/success"),
            final={name: chosen("final/" + name) for name in self.info.chained},
            values={
                "wall_time": wall[keep],
                **{name: values[:, i] for i, name in enumerate(self.shape.values)},
            },
        )

    def _model_rows(self, count: int, parts: dict[str, np.ndarray]) -> ModelRows | None:
        """Those model fields that differ from what is known of their lane."""
        lane = self._lanes(parts["model/env"][:count])
        episode = parts["model/episode"][:count]
        fields = {name: parts["model/=" + name][:count] for name in self.shape.model}
        keep = np.zeros(count, bool)
        for each in _rounds(lane):
            for name, values in fields.items():
                if name not in self._known_model:
                    shape = (len(self.info.envs), *values.shape[1:])
                    self._known_model[name] = np.full(shape, np.nan, np.float32)
                known = self._known_model[name]
                differs = known[lane[each]] != values[each]
                keep[each] |= differs.reshape(len(each), -1).any(axis=1)
                known[lane[each]] = values[each]
        if not keep.any():
            return None
        return ModelRows(
            lane=lane[keep],
            episode=episode[keep],
            fields={name: values[keep] for name, values in fields.items()},
        )


def _rounds(lane: np.ndarray) -> Iterator[np.ndarray]:
    """Split the indices of recorded lanes so that no lane comes twice in one part."""
    rest = np.flatnonzero(lane >= 0)
    while len(rest):
        _, first = np.unique(lane[rest], return_index=True)
        yield rest[np.sort(first)]
        rest = np.delete(rest, first)


def rows_for(specs: Sequence[ChannelSpec], lanes: int, num_blocks: int, memory_bytes: int) -> int:
    """How many rows a block may have if all blocks together take this much memory."""
    row = max(1, lanes * sum(spec.nbytes for spec in specs))
    return max(1, min(_MOST_ROWS, memory_bytes // (num_blocks * row)))


_MOST_ROWS = 256
