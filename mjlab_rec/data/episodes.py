"""Whole episodes, put together from blocks in which many of them lie side by side."""

from __future__ import annotations

from dataclasses import dataclass

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
        self._running = np.zeros(lanes, np.int64)  # its number
        self._length = np.zeros(lanes, np.int64)  # its steps up to the last row
        self._total = np.zeros(lanes)
        self._recorded = np.zeros(lanes)
        self._models: dict[int, list[tuple[int, dict[str, np.ndarray]]]] = {}

    def add(self, block: Block) -> list[Episode]:
        """Take in a block; returns the episodes that ended, in the order in which they did."""
        self.gaps += block.gap
        self._add_models(block)
        episodes = self._lost(block) if block.rows else []
        number, step = block.numbering()
        self._keep(block, number, step)
        ends = block.ends
        for i in range(len(ends)):
            success = int(ends.success[i])
            episode = self._episode(
                int(ends.lane[i]),
                int(ends.episode[i]),
                length=int(ends.length[i]),
                total=float(ends.total[i]),
                recorded=float(ends.recorded[i]),
                terminated=bool(ends.terminated[i]),
                truncated=bool(ends.truncated[i]),
                success=None if success < 0 else success == 1,
            )
            if episode is not None:
                episodes.append(episode)
        self._go_on(block, number, step)
        return episodes

    def finish(self) -> list[Episode]:
        """The episodes that still run, as cut here. What comes later is none of their business."""
        running = [self._unfinished(lane) for lane in range(len(self.info.envs))]
        self._blocks.clear()
        return [episode for episode in running if episode is not None]

    def _lost(self, block: Block) -> list[Episode]:
        """Running episodes that ended in blocks that were dropped, as cut at their last row."""
        told = np.zeros(block.lanes, bool)
        ends = block.ends
        told[ends.lane[ends.episode == self._running[ends.lane]]] = True
        lost = np.flatnonzero((block.first_episode > self._running) & ~told)
        episodes = [self._unfinished(int(lane)) for lane in lost]
        return [episode for episode in episodes if episode is not None]

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
        if block.rows:
            self._since[number[-1] != self._running] = self._count
            self._running[:] = number[-1]
            self._length[:] = step[-1] + 1
        ends = block.ends
        after_rows = ends.episode >= self._running[ends.lane]
        np.maximum.at(self._running, ends.lane, ends.episode + 1)
        # Without rows the totals may be those of an episode whose rows were lost.
        mine = True if block.rows else block.first_episode == self._running
        np.copyto(self._total, block.total, where=mine)
        np.copyto(self._recorded, block.recorded, where=mine)
        self._since[ends.lane[after_rows]] = self._count + 1
        self._count += 1
        oldest = int(self._since.min())
        self._blocks = [kept for kept in self._blocks if kept.number >= oldest]

    def _unfinished(self, lane: int) -> Episode | None:
        """The running episode of a lane, as far as it came."""
        return self._episode(
            lane,
            int(self._running[lane]),
            length=int(self._length[lane]),
            total=float(self._total[lane]),
            recorded=float(self._recorded[lane]),
            terminated=False,
            truncated=False,
            success=None,
        )

    def _episode(
        self,
        lane: int,
        number: int,
        *,
        length: int,
        total: float,
        recorded: float,
        terminated: bool,
        truncated: bool,
        success: bool | None,
    ) -> Episode | None:
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
        start = int(kept.at[rows][0])
        return Episode(
            env=self.info.envs[lane],
            number=number,
            start=start,
            length=length,
            total=total,
            recorded=recorded,
            terminated=terminated,
            truncated=truncated,
            success=success,
            partial=bool(is_partial(step[0], length, len(step), self.info.every)),
            arrays=arrays,
            model=model,
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
