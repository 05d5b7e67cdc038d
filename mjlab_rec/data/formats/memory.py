"""Recordings that stay in memory, for short runs and for tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mjlab_rec.data.formats import episode_table
from mjlab_rec.data.formats.base import Reader, Writer, WriterOptions
from mjlab_rec.data.formats.blocks import BlockRun, BlocksReader
from mjlab_rec.data.formats.segments import END_DTYPE, Index, column, end_rows
from mjlab_rec.data.schema import Block, Episode, RunInfo


class MemoryWriter(Writer):
    """Keeps blocks or episodes in memory. ``MemoryReader`` reads them at any time."""

    def __init__(self, info: RunInfo, options: WriterOptions) -> None:
        super().__init__(info, options)
        self.blocks: list[Block] = []
        self.episodes: list[Episode] = []
        self._nbytes = 0

    @property
    def files(self) -> list[Path]:
        return []

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def write(self, block: Block) -> None:
        kept = copy.deepcopy(block, {id(block.info): block.info})
        self.blocks.append(kept)
        self._count(kept.arrays, kept.tail, kept.model.fields if kept.model else {})

    def write_episode(self, episode: Episode) -> None:
        kept = copy.deepcopy(episode)
        self.episodes.append(kept)
        self._count(kept.arrays, kept.model)

    def close(self) -> None:
        pass

    def _count(self, *groups: dict[str, np.ndarray]) -> None:
        self._nbytes += sum(array.nbytes for group in groups for array in group.values())


def MemoryReader(writer: MemoryWriter) -> Reader:  # noqa: N802 - reads like the other readers
    """A reader of what a writer holds now."""
    if writer.episodes:
        return _EpisodesReader(writer.info, list(writer.episodes))
    return BlocksReader([_MemoryRun(writer.info, list(writer.blocks))])


class _MemoryRun(BlockRun):
    encodes = False

    def __init__(self, info: RunInfo, blocks: list[Block]) -> None:
        self.info = info
        self._blocks = blocks
        num_envs = len(info.envs)
        rows = np.array([block.rows for block in blocks], np.int64)
        step = np.zeros((len(blocks), max([1, *rows])), np.int64)
        for block, steps in zip(blocks, step, strict=True):
            steps[: block.rows] = block.step[: block.rows]
        ends = [end_rows(block.ends, number, info) for number, block in enumerate(blocks)]
        self._final = [(block, at) for block in blocks for at in range(len(block.ends))]
        names = dict.fromkeys(name for block in blocks for name in block.ends.values)
        self.index = Index(
            rows=rows,
            gap=np.array([block.gap for block in blocks], np.int64),
            step=step,
            first_episode=_stack([block.first_episode for block in blocks], num_envs),
            first_step=_stack([block.first_step for block in blocks], num_envs),
            total=_stack([block.total for block in blocks], num_envs),
            recorded=_stack([block.recorded for block in blocks], num_envs),
            ends=np.concatenate(ends) if ends else np.zeros(0, END_DTYPE),
            values={
                name: np.concatenate([column(block.ends, name) for block in blocks])
                for name in names
            },
        )

    def has(self, name: str) -> bool:
        return any(spec.name == name for spec in self.info.stored)

    def rows(self, name: str, block: int, env_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._blocks[block].arrays[name].swapaxes(0, 1), env_indices

    def tails(self, name: str, block: int, env_indices: np.ndarray) -> np.ndarray:
        return self._blocks[block].tail[name][env_indices]

    def finals(self, name: str, ends: np.ndarray) -> np.ndarray:
        block, _ = self._final[ends[0]]
        return block.ends.final[name][[self._final[end][1] for end in ends]]

    def model(self, env_index: int, key: int) -> dict[str, np.ndarray]:
        fields: dict[str, np.ndarray] = {}
        for block in self._blocks:
            if block.model is not None:
                mine = (block.model.env_index == env_index) & (block.model.episode <= key)
                for at in np.flatnonzero(mine):
                    fields.update({name: v[at] for name, v in block.model.fields.items()})
        return {name: value.copy() for name, value in fields.items()}


class _EpisodesReader(Reader):
    """Reads whole episodes."""

    def __init__(self, info: RunInfo, episodes: list[Episode]) -> None:
        self.info = info
        self._episodes = sorted(episodes, key=lambda episode: (episode.env, episode.number))
        self.episodes = episode_table.table(
            episode_table.row_of(episode) for episode in self._episodes
        )

    def read(self, index: int, channels: Sequence[str]) -> dict[str, np.ndarray]:
        self.info.check_names(channels)
        arrays = self._episodes[index].arrays
        return {name: arrays[name].copy() for name in channels}

    def model(self, index: int) -> dict[str, np.ndarray]:
        return {name: value.copy() for name, value in self._episodes[index].model.items()}


def _stack(arrays: list[np.ndarray], num_envs: int) -> np.ndarray:
    return np.stack(arrays) if arrays else np.zeros((0, num_envs), np.int64)
