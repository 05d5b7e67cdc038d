"""Whole episodes, put together from blocks that hold rows of many of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from mjlab_rec.data.schema import Block, Episode, RunInfo, is_partial


@dataclass(kw_only=True)
class _Kept:
    """Our own copy of a block: env-major, so that an episode's rows lie side by side."""

    number: int  # counts blocks
    lane: np.ndarray  # (lanes,), where a lane is in the arrays; -1: none of its rows count
    arrays: dict[str, np.ndarray]  # channel -> (lanes kept, rows, *shape), derived ones included
    at: np.ndarray  # (rows,) control steps of the environment before each row
    episode: np.ndarray  # (lanes kept, rows)
    step: np.ndarray  # (lanes kept, rows)
    active: np.ndarray | None  # (lanes kept, rows)

    def rows_of(self, at: int, number: int) -> slice | np.ndarray | None:
        """Those rows of a kept lane that belong to an episode and count; None if there are none."""
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
    """The episodes that run in each lane, as far as the blocks so far tell."""

    def __init__(self, lanes: int) -> None:
        self.number = np.zeros(lanes, np.int64)
        self.length = np.zeros(lanes, np.int64)  # steps up to the last row
        self.total = np.zeros(lanes)
        self.recorded = np.zeros(lanes)

    def lost(self, block: Block) -> np.ndarray:
        """Lanes whose episode ended in blocks that were dropped before this one."""
        ends = block.ends
        told = np.full(block.lanes, not block.rows)
        told[ends.lane[ends.episode == self.number[ends.lane]]] = True
        return np.flatnonzero((block.first_episode > self.number) & ~told)

    def after(self, block: Block, number: np.ndarray, step: np.ndarray) -> Running:
        """The episodes that run after a block, whose rows have these numbers and steps."""
        after = copy.copy(self)
        after.number = self.number.copy()
        if block.rows:
            after.number[:], after.length = number[-1], step[-1].astype(np.int64) + 1
        np.maximum.at(after.number, block.ends.lane, block.ends.episode.astype(np.int64) + 1)
        # Without rows the totals may be those of an episode whose rows were lost.
        mine = bool(block.rows) | (block.first_episode == after.number)
        after.total = np.where(mine, block.total, self.total)
        after.recorded = np.where(mine, block.recorded, self.recorded)
        return after

    def facts(self, lane: int) -> dict[str, Any]:
        """What is known of a lane's episode if it is cut at its last row."""
        return {
            "length": int(self.length[lane]),
            "total": float(self.total[lane]),
            "recorded": float(self.recorded[lane]),
            "terminated": False,
            "truncated": False,
            "success": None,
        }


class EpisodeAssembler:
    """Collects blocks and gives back the episodes in them as they end.

    The work per block does not depend on how many environments there are, but for a copy; the work
    per episode is done when it ends. A copy is dropped once no running episode has rows in it.
    """

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.gaps = 0
        """Rows that were dropped before they came here."""
        lanes = len(info.envs)
        self._blocks: list[_Kept] = []
        self._count = 0
        self._since = np.zeros(lanes, np.int64)  # block in which the running episode began
        self._running = Running(lanes)
        self._models: dict[int, list[tuple[int, dict[str, np.ndarray]]]] = {}

    def add(self, block: Block) -> list[Episode]:
        """Take in a block; returns the episodes that ended, in the order in which they did."""
        self.gaps += block.gap
        self._add_models(block)
        episodes = [self._unfinished(int(lane)) for lane in self._running.lost(block)]
        number, step = block.numbering()
        self._keep(block, number, step)
        ends = block.ends
        for i in range(len(ends)):
            lane, which = int(ends.lane[i]), int(ends.episode[i])
            episodes.append(self._episode(lane, which, ends.facts(i)))
        self._go_on(block, number, step)
        return [episode for episode in episodes if episode is not None]

    def finish(self) -> list[Episode]:
        """The episodes that still run, as cut here; nothing is added later."""
        running = [self._unfinished(lane) for lane in range(len(self.info.envs))]
        self._blocks.clear()
        return [episode for episode in running if episode is not None]

    def _keep(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        """Copy those lanes of a block of which some row counts."""
        if not block.rows:
            return
        if block.active is None:
            lanes = np.arange(block.lanes)
        else:
            lanes = np.flatnonzero(block.active.any(axis=0))
        if len(lanes) == 0:
            return
        where = np.full(block.lanes, -1, np.int32)
        where[lanes] = np.arange(len(lanes))
        every = len(lanes) == block.lanes

        def copy(array: np.ndarray) -> np.ndarray:
            turned = array.swapaxes(0, 1)
            return turned.copy() if every else turned[lanes]

        self._blocks.append(
            _Kept(
                number=self._count,
                lane=where,
                arrays={s.name: copy(block.dense(s.name)) for s in self.info.channels},
                at=block.step.copy(),
                episode=copy(number),
                step=copy(step),
                active=None if block.active is None else copy(block.active),
            )
        )

    def _go_on(self, block: Block, number: np.ndarray, step: np.ndarray) -> None:
        """Note which episodes run on, and drop the blocks that none of them needs."""
        ends, last = block.ends, number[-1] if block.rows else self._running.number
        self._since[last != self._running.number] = self._count
        self._since[ends.lane[ends.episode >= last[ends.lane]]] = self._count + 1
        self._running = self._running.after(block, number, step)
        self._count += 1
        oldest = int(self._since.min())
        self._blocks = [kept for kept in self._blocks if kept.number >= oldest]

    def _unfinished(self, lane: int) -> Episode | None:
        """The running episode of a lane, as far as it came."""
        return self._episode(lane, int(self._running.number[lane]), self._running.facts(lane))

    def _episode(self, lane: int, number: int, facts: dict[str, Any]) -> Episode | None:
        """An episode from the kept blocks; None if none of its rows count."""
        model = self._model(lane, number)
        pieces = []  # (block, lane in it, rows)
        for kept in self._blocks:
            at = int(kept.lane[lane])
            if at >= 0 and kept.number >= self._since[lane]:
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
            env=self.info.envs[lane],
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
            known = self._models.setdefault(int(block.model.lane[i]), [])
            values = {name: rows[i] for name, rows in fields.items()}
            known.append((int(block.model.episode[i]), values))

    def _model(self, lane: int, number: int) -> dict[str, np.ndarray]:
        """The latest model fields of a lane in this episode; older ones are forgotten."""
        known = self._models.get(lane, [])
        while len(known) > 1 and known[1][0] <= number:
            known.pop(0)
        return dict(known[0][1]) if known and known[0][0] <= number else {}
