"""Assemble whole episodes from blocks, each with rows of many episodes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from mjlab_rec.data.schema import Block, Episode, RunInfo, is_partial


@dataclass(kw_only=True)
class _BlockCopy:
    """A copy of a block, env-major, so that an episode's rows are contiguous."""

    number: int  # counts blocks
    env_index: np.ndarray  # (num_envs,), place of an environment in the arrays; -1: no row counts
    arrays: dict[str, np.ndarray]  # channel -> (envs kept, rows, *shape), derived ones included
    at: np.ndarray  # (rows,) control steps of the environment before each row
    episode: np.ndarray  # (envs kept, rows)
    step: np.ndarray  # (envs kept, rows)
    active: np.ndarray | None  # (envs kept, rows)

    def rows_of(self, at: int, number: int) -> slice | np.ndarray | None:
        """The rows of an episode that count; None if there are none."""
        episode = self.episode[at]
        rows = slice(None)
        if episode[0] != number or episode[-1] != number:
            first, last = np.searchsorted(episode, (number, number + 1))
            if first == last:
                return None
            rows = slice(int(first), int(last))
        if self.active is None:
            return rows
        counting = (rows.start or 0) + np.flatnonzero(self.active[at, rows])
        return counting if len(counting) else None


class Running:
    """The running episode of each environment after the blocks so far."""

    def __init__(self, num_envs: int) -> None:
        self.number = np.zeros(num_envs, np.int64)
        self.length = np.zeros(num_envs, np.int64)  # steps up to the last row
        self.total = np.zeros(num_envs)
        self.recorded = np.zeros(num_envs)

    def lost(self, block: Block) -> np.ndarray:
        """Environments whose episode ended in blocks that were dropped before this one."""
        ends = block.ends
        listed = np.zeros(block.num_envs, bool)
        listed[ends.env_index[ends.episode == self.number[ends.env_index]]] = True
        return np.flatnonzero((block.first_episode > self.number) & ~listed)

    def last(self, block: Block, number: np.ndarray) -> np.ndarray:
        """The episode of a block's last row, or the running one after a block without rows."""
        if block.rows:
            return number[-1].astype(np.int64)
        return np.maximum(self.number, block.first_episode)

    def after(self, block: Block, number: np.ndarray, step: np.ndarray) -> Running:
        """The running episodes after a block whose rows have these numbers and steps."""
        after = copy.copy(self)
        after.number = self.last(block, number).copy()
        if block.rows:
            after.length = step[-1].astype(np.int64) + 1
        np.maximum.at(after.number, block.ends.env_index, block.ends.episode.astype(np.int64) + 1)
        # Without rows the totals may be those of an episode whose rows were lost.
        mine = bool(block.rows) | (block.first_episode == after.number)
        after.total = np.where(mine, block.total, self.total)
        after.recorded = np.where(mine, block.recorded, self.recorded)
        return after

    def facts(self, env_index: int) -> dict[str, Any]:
        """The fields of ``Episode`` if an environment's episode is cut at its last row."""
        return {
            "length": int(self.length[env_index]),
            "total": float(self.total[env_index]),
            "recorded": float(self.recorded[env_index]),
            "terminated": False,
            "truncated": False,
            "success": None,
        }


class EpisodeAssembler:
    """Collects blocks and returns the episodes in them as they end.

    Each block is copied; a copy is dropped once no running episode has rows in it. All other work
    is done when an episode ends.
    """

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.gaps = 0
        """Rows that were dropped."""
        num_envs = len(info.envs)
        self._blocks: list[_BlockCopy] = []
        self._count = 0
        self._since = np.zeros(num_envs, np.int64)  # block in which the running episode began
        self._running = Running(num_envs)
        self._models: dict[int, list[tuple[int, dict[str, np.ndarray]]]] = {}

    def add(self, block: Block) -> list[Episode]:
        """Add a block; returns the episodes that ended, in the order in which they ended."""
        self.gaps += block.gap
        self._add_models(block)
        episodes = [self._unfinished(int(env_index)) for env_index in self._running.lost(block)]
        number, step = block.numbering()
        self._copy_block(block, number, step)
        ends = block.ends
        for i in range(len(ends)):
            env_index, which = int(ends.env_index[i]), int(ends.episode[i])
            episodes.append(self._episode(env_index, which, ends.facts(i)))
        self._go_on(block, number, step)
        return [episode for episode in episodes if episode is not None]

    def finish(self) -> list[Episode]:
        """The episodes that are still running, cut here. Call it once, at the end."""
        running = [self._unfinished(env_index) for env_index in range(len(self.info.envs))]
        self._blocks.clear()
        return [episode for episode in running if episode is not None]

    def _copy_block(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        """Copy the environments of a block that have a row that counts."""
        if not block.rows:
            return
        active = block.counting(step)
        if active is None:
            env_indices = np.arange(block.num_envs)
        else:
            env_indices = np.flatnonzero(active.any(axis=0))
        if len(env_indices) == 0:
            return
        where = np.full(block.num_envs, -1, np.int32)
        where[env_indices] = np.arange(len(env_indices))
        every = len(env_indices) == block.num_envs

        def copy(array: np.ndarray) -> np.ndarray:
            turned = array.swapaxes(0, 1)
            return turned.copy() if every else turned[env_indices]

        self._blocks.append(
            _BlockCopy(
                number=self._count,
                env_index=where,
                arrays={s.name: copy(block.dense(s.name)) for s in self.info.channels},
                at=block.step.copy(),
                episode=copy(number),
                step=copy(step),
                active=None if active is None else copy(active),
            )
        )

    def _go_on(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        """Note which episodes are running, and drop the blocks that none of them needs."""
        ends, last = block.ends, self._running.last(block, number)
        self._since[last != self._running.number] = self._count
        self._since[ends.env_index[ends.episode >= last[ends.env_index]]] = self._count + 1
        self._running = self._running.after(block, number, step)
        self._count += 1
        oldest = int(self._since.min())
        self._blocks = [kept for kept in self._blocks if kept.number >= oldest]

    def _unfinished(self, env_index: int) -> Episode | None:
        """The running episode of an environment, cut at its last row."""
        return self._episode(
            env_index, int(self._running.number[env_index]), self._running.facts(env_index)
        )

    def _episode(self, env_index: int, number: int, facts: dict[str, Any]) -> Episode | None:
        """An episode from the kept blocks; None if none of its rows count."""
        model = self._model(env_index, number)
        pieces = []  # (block, place in it, rows)
        for kept in self._blocks:
            at = int(kept.env_index[env_index])
            if at >= 0 and kept.number >= self._since[env_index]:
                rows = kept.rows_of(at, number)
                if rows is not None:
                    pieces.append((kept, at, rows))
        if not pieces:
            return None
        kept, _, rows = pieces[0]
        arrays = {
            spec.name: np.concatenate([k.arrays[spec.name][at, r] for k, at, r in pieces])
            for spec in self.info.channels
        }
        step = arrays["step"] = np.concatenate([k.step[at, r] for k, at, r in pieces])
        return Episode(
            env=self.info.envs[env_index],
            number=number,
            start=int(kept.at[rows][0]),
            partial=bool(is_partial(step[0], facts["length"], len(step), self.info.every)),
            arrays=arrays,
            model=model,
            **facts,
        )

    def _add_models(self, block: Block) -> None:
        if block.model is None:
            return
        fields = {name: values.copy() for name, values in block.model.fields.items()}
        for i in range(len(block.model)):
            known = self._models.setdefault(int(block.model.env_index[i]), [])
            values = {name: rows[i] for name, rows in fields.items()}
            known.append((int(block.model.episode[i]), values))

    def _model(self, env_index: int, number: int) -> dict[str, np.ndarray]:
        """The model fields of an environment in an episode; older ones are dropped."""
        known = self._models.get(env_index, [])
        while len(known) > 1 and known[1][0] <= number:
            known.pop(0)
        return dict(known[0][1]) if known and known[0][0] <= number else {}
