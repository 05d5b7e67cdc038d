"""The memory of one block: rows, ends of episodes and model fields, as views of one tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from mjlab_rec.data.schema import DataError, RunInfo

_ALIGNMENT = 64
_TORCH_TYPES = {
    np.dtype(name): getattr(torch, name if name != "bool_" else "bool")
    for name in ("bool_", "uint8", "int8", "int16", "int32", "int64", "float16", "float32")
} | {np.dtype("float64"): torch.float64}


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """The torch type for a numpy type of a channel."""
    try:
        return _TORCH_TYPES[np.dtype(dtype)]
    except KeyError:
        known = ", ".join(str(d) for d in _TORCH_TYPES)
        raise DataError(f"Channels cannot have the dtype {dtype}. Possible: {known}.") from None


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy type for a torch type of a channel."""
    for ours, theirs in _TORCH_TYPES.items():
        if theirs == dtype:
            return ours
    known = ", ".join(str(d) for d in _TORCH_TYPES)
    raise DataError(f"Channels cannot have the dtype {dtype}. Possible: {known}.")


@dataclass(kw_only=True)
class BlockShape:
    """The size of a block."""

    rows: int
    ends: int
    """Maximum number of episodes that end within a block."""
    values: tuple[str, ...] = ()
    """Names of float32 values recorded with each end, such as sums of reward terms."""
    model: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of the per-world model fields, float32."""
    active: bool = False
    """Whether each row has a flag per environment: whether a trigger chose it."""


@dataclass(kw_only=True)
class EndsMemory:
    """Ends of episodes, one per slot. Environments that are not recorded use slots as well."""

    env: torch.Tensor  # (ends,) int64
    row: torch.Tensor  # int32, the last row before the end; -1: none in this block
    at: torch.Tensor  # int64, control steps of the environment
    time: torch.Tensor  # float64, seconds since 1970
    episode: torch.Tensor  # int32
    length: torch.Tensor  # int32; 0: the slot is empty
    total: torch.Tensor  # float64
    rows: torch.Tensor  # int32
    recorded: torch.Tensor  # float64
    terminated: torch.Tensor  # bool
    truncated: torch.Tensor  # bool
    success: torch.Tensor  # int8
    values: torch.Tensor  # (ends, values) float32

    @classmethod
    def allocate(cls, count: int, values: int, device: torch.device | str) -> EndsMemory:
        """Allocate memory for this many ends."""
        return cls(
            **{
                name: torch.zeros((count, *shape), dtype=dtype, device=device)
                for name, shape, dtype in cls.layout(values)
            }
        )

    @staticmethod
    def layout(values: int) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
        """Name, shape of an item and type of each column."""
        for column in fields(EndsMemory):
            shape = (values,) if column.name == "values" else ()
            yield column.name, shape, _END_TYPES[column.name]

    def columns(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All columns by name."""
        for column in fields(self):
            yield column.name, getattr(self, column.name)


_END_TYPES = {
    "env": torch.int64,
    "row": torch.int32,
    "at": torch.int64,
    "time": torch.float64,
    "episode": torch.int32,
    "length": torch.int32,
    "total": torch.float64,
    "rows": torch.int32,
    "recorded": torch.float64,
    "terminated": torch.bool,
    "truncated": torch.bool,
    "success": torch.int8,
    "values": torch.float32,
}


class BlockMemory:
    """One block as named tensors, which are views of a single allocation."""

    def __init__(
        self, info: RunInfo, shape: BlockShape, device: torch.device, pinned: bool = False
    ) -> None:
        num_envs, rows, ends = len(info.envs), shape.rows, shape.ends
        specs = {spec.name: spec for spec in info.stored}
        pieces: list[tuple[tuple[int, ...], torch.dtype]] = []

        def piece(size: tuple[int, ...], dtype: torch.dtype) -> int:
            pieces.append((size, dtype))
            return len(pieces) - 1

        # A "before" channel has one more value than there are rows: that after the last row.
        channels = {
            name: piece(
                (rows + (spec.when == "before"), num_envs, *spec.shape), torch_dtype(spec.dtype)
            )
            for name, spec in specs.items()
        }
        finals = {
            name: piece((ends, *specs[name].shape), torch_dtype(specs[name].dtype))
            for name in info.chained
        }
        active = piece((rows + 1, num_envs), torch.bool) if shape.active else None
        first_episode = piece((num_envs,), torch.int32)
        first_step = piece((num_envs,), torch.int32)
        total = piece((num_envs,), torch.float64)
        recorded = piece((num_envs,), torch.float64)
        columns = {
            name: piece((ends, *item), dtype)
            for name, item, dtype in EndsMemory.layout(len(shape.values))
        }
        model_env = piece((ends,) if shape.model else (0,), torch.int64)
        model_episode = piece((ends,) if shape.model else (0,), torch.int32)
        model = {name: piece((ends, *size), torch.float32) for name, size in shape.model.items()}

        sizes = [math.prod(size) * dtype.itemsize for size, dtype in pieces]
        offsets = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]).tolist()
        self.all = _zeros(offsets[-1], device, pinned)
        views = [
            self.all[offset : offset + nbytes].view(dtype).view(size)
            for (size, dtype), nbytes, offset in zip(pieces, sizes, offsets, strict=False)
        ]
        self.channels = {name: views[i] for name, i in channels.items()}
        """Per stored channel (rows, num_envs, ...), with one more row for "before" channels."""
        self.finals = {name: views[i] for name, i in finals.items()}
        """Per chained channel its value when an episode ended (ends, ...)."""
        self.active = None if active is None else views[active]
        """Which rows a trigger chose (rows + 1, num_envs)."""
        self.first_episode, self.first_step = views[first_episode], views[first_step]
        """Where each environment was before the first row."""
        self.total, self.recorded = views[total], views[recorded]
        """Returns of the running episodes after the last row."""
        self.ends = EndsMemory(**{name: views[i] for name, i in columns.items()})
        self.model_env, self.model_episode = views[model_env], views[model_episode]
        """Which environment and episode each row of the model fields belongs to."""
        self.model = {name: views[i] for name, i in model.items()}


def _zeros(nbytes: int, device: torch.device, pinned: bool) -> torch.Tensor:
    """Bytes that are 0.

    Unlike torch, numpy does not write to new memory, so beginning a recording takes no time, and
    blocks that are never filled need no memory.
    """
    if pinned or device.type != "cpu":
        return torch.zeros(nbytes, dtype=torch.uint8, device=device, pin_memory=pinned)
    memory = np.zeros(nbytes + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[first : first + nbytes])
