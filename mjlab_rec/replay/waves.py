"""Episodes in groups that fit into memory, cut into lanes that many worlds simulate at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.sim.state_check import StateChecksums

CTRL, CHECK = "physics/ctrl", "physics/check"
# Parts of the state that the task writes and the physics only reads.
_GIVEN = ("qfrc_applied", "xfrc_applied", "eq_active", "mocap_pos", "mocap_quat", "userdata")
# Shorter lanes would start more often than they step.
_LEAST_LANE = 16


@dataclass(frozen=True)
class Wave:
    """The rows of some episodes, one after another, and what is known of each step's result."""

    episodes: np.ndarray
    """Places of the episodes in the table of episodes (episodes,)."""

    of: np.ndarray
    """Which of these episodes a row belongs to (rows,)."""

    env: np.ndarray
    """The environment of each row (rows,)."""

    step: np.ndarray
    """Steps of the episode before each row (rows,)."""

    start: np.ndarray
    """What each step started from (rows, numbers)."""

    ctrl: np.ndarray | None
    """Controls of each step (rows, 1 or decimation, nu); None if there are none."""

    check: np.ndarray
    """Checksums of what each step led to (rows, fields) int64."""

    checked: np.ndarray
    """Whether these checksums are known (rows,) bool."""

    next: np.ndarray
    """Row of the next state (rows,); the same row if there is none."""

    comparable: np.ndarray
    """Whether that state still has the field as the step left it (rows, fields) bool."""

    model: dict[str, np.ndarray]
    """Model fields that change within episodes (rows, ...)."""

    def lanes(self, num_worlds: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut the rows into lanes of consecutive rows of one environment: first rows, and lengths.

        Lanes have nearly the same length; there are about `num_worlds`, or fewer if they would be
        very short. The longest comes first.
        """
        rows = len(self.of)
        bounds = np.flatnonzero(np.diff(self.env)) + 1
        firsts = np.concatenate(([0], bounds))
        sizes = np.diff(np.concatenate((firsts, [rows])))
        length = max(_LEAST_LANE, -(-rows // num_worlds))
        starts, lengths = [], []
        for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True):
            count = -(-size // length)
            cuts = first + np.arange(count + 1) * size // count
            starts.append(cuts[:-1])
            lengths.append(np.diff(cuts))
        start, lengths_ = np.concatenate(starts), np.concatenate(lengths)
        order = np.argsort(-lengths_, kind="stable")
        return start[order], lengths_[order]


class WaveReader:
    """Reads waves of a recording.

    Args:
        rollouts: The recording.
        layout: The columns of each field of a state.
        decimation: Physics steps per control step.
        memory_bytes: Memory that a wave may use, except that it holds at least one episode.
    """

    def __init__(
        self, rollouts: Rollouts, layout: dict[str, slice], decimation: int, memory_bytes: int
    ) -> None:
        self._rollouts = rollouts
        self._layout = layout
        self._memory_bytes = memory_bytes
        self._checksums = StateChecksums(layout)
        known = rollouts.channels
        self._has_check = CHECK in known
        self._ctrl = next((name for name in (CTRL, "ctrl") if name in known), None)
        self._fields = [name for name in known if name.startswith("model/")]
        self._names = ["state", "step", *self._fields]
        self._names += [CHECK] if self._has_check else []
        self._names += [self._ctrl] if self._ctrl else []
        check_physics(rollouts, layout, decimation)

    def waves(self, episodes: Sequence[int]) -> Iterator[Wave]:
        """Read these episodes, in groups."""
        sizes = self._rollouts.episodes["rows"].to_numpy()
        kinds = self._rollouts.info.kinds
        row_bytes = sum(kinds[n][0].itemsize * int(np.prod(kinds[n][1])) for n in self._names)
        row_bytes += 2 * kinds["state"][0].itemsize * int(np.prod(kinds["state"][1]))
        most = max(1, self._memory_bytes // row_bytes)
        group: list[int] = []
        rows = 0
        for episode in episodes:
            if group and rows + sizes[episode] > most:
                yield self._read(group, sizes)
                group, rows = [], 0
            group.append(episode)
            rows += int(sizes[episode])
        if group:
            yield self._read(group, sizes)

    def _read(self, episodes: list[int], sizes: np.ndarray) -> Wave:
        arrays = self._rollouts.read_many(episodes, self._names)
        state, step = arrays["state"], arrays["step"]
        rows = len(step)
        of = np.repeat(np.arange(len(episodes)), sizes[episodes])
        every = self._rollouts.info.every
        follows = np.zeros(rows, bool)
        if every == 1 and rows:
            follows[:-1] = (of[1:] == of[:-1]) & (step[1:] == step[:-1] + 1)
        next_row = np.arange(rows) + follows
        sums = self._checksums(torch.from_numpy(state)).numpy()
        after = sums[next_row]
        check = arrays[CHECK] if self._has_check else after
        comparable = (after == check) & follows[:, None]
        envs = self._rollouts.episodes["env"].to_numpy()[episodes]
        return Wave(
            episodes=np.asarray(episodes),
            of=of,
            env=envs[of],
            step=step,
            start=self._with_given(state, next_row, comparable),
            ctrl=self._controls(arrays, state, next_row),
            check=check,
            checked=np.ones(rows, bool) if self._has_check else follows,
            next=next_row,
            comparable=comparable,
            model={name.partition("/")[2]: arrays[name] for name in self._fields},
        )

    def _with_given(
        self, state: np.ndarray, next_row: np.ndarray, comparable: np.ndarray
    ) -> np.ndarray:
        """The states, with applied forces and such as the task set them before the physics ran."""
        start = state
        for number, (name, columns) in enumerate(self._layout.items()):
            if name not in _GIVEN:
                continue
            mine = np.flatnonzero(comparable[:, number])
            given = state[next_row[mine], columns]
            changed = (given != state[mine, columns]).any(axis=1)
            if changed.any():
                start = state.copy() if start is state else start
                start[mine[changed], columns] = given[changed]
        return start

    def _controls(
        self, arrays: dict[str, np.ndarray], state: np.ndarray, next_row: np.ndarray
    ) -> np.ndarray | None:
        """The controls of each step; without a channel for them, those in the next state."""
        if "ctrl" not in self._layout:
            return None
        if self._ctrl is None:
            return state[next_row, self._layout["ctrl"]][:, None].astype(np.float32)
        ctrl = arrays[self._ctrl]
        return ctrl if ctrl.ndim == 3 else ctrl[:, None]


def check_physics(rollouts: Rollouts, layout: dict[str, slice], decimation: int) -> None:
    """Raise if the recorded states, controls or checksums do not fit the model."""
    kinds = rollouts.info.kinds
    columns = layout.get("ctrl", slice(0, 0))
    nu = columns.stop - columns.start
    wanted: dict[str, Any] = {"ctrl": [(nu,)], CTRL: [(1, nu), (decimation, nu)]}
    wanted[CHECK] = [(len(layout),)]
    for name, shapes in wanted.items():
        if name in kinds and kinds[name][1] not in shapes:
            raise DataError(
                f"The recording is damaged: the channel '{name}' has shape {kinds[name][1]}, but"
                f" its model needs {' or '.join(map(str, shapes))}."
            )
    if kinds["state"][0] not in (np.dtype("float64"), np.dtype("float32")):
        raise DataError("The recording is damaged: the states are no floating-point numbers.")
    if CHECK in kinds and kinds[CHECK][0] != np.dtype("int64"):
        raise DataError(f"The recording is damaged: '{CHECK}' has type {kinds[CHECK][0]}.")
