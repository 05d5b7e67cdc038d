"""What is known of the blocks in some parts of a run without reading a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mjlab_rec.data.formats.hdf5_blocks import StoredPart
from mjlab_rec.data.formats.hdf5_layout import ENV_DTYPE, MODEL_DTYPE
from mjlab_rec.data.formats.segments import END_DTYPE

_FLOAT = np.dtype("float64")


@dataclass(kw_only=True)
class Chunk:
    """B blocks in consecutive parts of a run."""

    counts: np.ndarray  # blocks of each part
    block: np.ndarray  # (B,), number in the part
    rows: np.ndarray  # (B,)
    gap: np.ndarray  # (B,)
    step: np.ndarray  # (B, K); -1 after the last row of a block
    envs: np.ndarray  # (B, N) of ENV_DTYPE
    ends: np.ndarray  # (n,) of END_DTYPE
    ended: np.ndarray  # (B,), ends of each block
    values: dict[str, np.ndarray]  # values that recorders added to ends, (n,)
    changes: dict[str, tuple[np.ndarray, np.ndarray]]  # model field -> changes, and those per block


def chunk_of(part: StoredPart) -> Chunk:
    """What is known of the blocks of a part that can be read."""
    layout = part.layout
    assert layout is not None
    count = len(part.blocks)
    values = {name: f"values/{path}" for name, path in layout.value_paths.items()}
    changes = {name: f"model_fields/{name}/where" for name in layout.model}
    where = {name: part.read[path] for name, path in changes.items()}
    return Chunk(
        counts=np.array([count]),
        block=np.array(part.blocks, np.int64),
        rows=part.index["rows"][part.blocks].astype(np.int64),
        gap=part.index["gap"][part.blocks].astype(np.int64),
        step=np.array(part.read["index/step"], np.int64).reshape(count, layout.rows),
        envs=np.array(part.read["index/envs"], ENV_DTYPE).reshape(count, layout.num_envs),
        ends=_together(part.read["ends"], END_DTYPE),
        ended=_lengths(part.read["ends"]),
        values={n: _together(part.read[path], _FLOAT).astype(_FLOAT) for n, path in values.items()},
        changes={n: (_together(some, MODEL_DTYPE), _lengths(some)) for n, some in where.items()},
    )


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks in order as one. Values and model fields that some do not have are unknown there."""
    if len(chunks) == 1:
        return chunks[0]
    width = max([1, *(chunk.step.shape[1] for chunk in chunks)])
    steps = [np.full((len(chunk.step), width), -1, np.int64) for chunk in chunks]
    for into, chunk in zip(steps, chunks, strict=True):
        into[:, : chunk.step.shape[1]] = chunk.step
    values = dict.fromkeys(name for chunk in chunks for name in chunk.values)
    changes = dict.fromkeys(name for chunk in chunks for name in chunk.changes)

    def all_of(name: str) -> np.ndarray:
        return np.concatenate([getattr(chunk, name) for chunk in chunks])

    def value(chunk: Chunk, name: str) -> np.ndarray:
        return chunk.values.get(name, np.full(len(chunk.ends), np.nan))

    def changed(name: str, which: int) -> np.ndarray:
        none: Any = np.zeros(0, MODEL_DTYPE), np.zeros(0, np.int64)
        found = [
            chunk.changes.get(name, (none[0], np.zeros(len(chunk.block), np.int64)))
            for chunk in chunks
        ]
        return np.concatenate([each[which] for each in found])

    return Chunk(
        **{n: all_of(n) for n in ("counts", "block", "rows", "gap", "envs", "ends", "ended")},
        step=np.concatenate(steps),
        values={name: np.concatenate([value(c, name) for c in chunks]) for name in values},
        changes={name: (changed(name, 0), changed(name, 1)) for name in changes},
    )


def none(num_envs: int) -> Chunk:
    """No blocks."""
    zeros = np.zeros(0, np.int64)
    return Chunk(
        counts=zeros,
        block=zeros,
        rows=zeros,
        gap=zeros,
        step=np.zeros((0, 1), np.int64),
        envs=np.zeros((0, num_envs), ENV_DTYPE),
        ends=np.zeros(0, END_DTYPE),
        ended=zeros,
        values={},
        changes={},
    )


def _together(arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


def _lengths(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(each) for each in arrays], np.int64)
