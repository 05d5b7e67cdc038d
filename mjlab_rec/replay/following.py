"""Worlds that follow recorded episodes, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.replay.held_commands import HeldCommands
from mjlab_rec.replay.recorded_model import RecordedModel, WorldModels, stacked
from mjlab_rec.replay.waves import CHECK, CTRL
from mjlab_rec.sim.state_check import StateChecksums, bits_of
from mjlab_rec.terrains.origins import grid_origins

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

FLAGS = ("terminated", "truncated")
_MODEL = "model/"


class Lanes:
    """The recorded rows of the episodes that worlds follow, an episode in each lane.

    Args:
        rollouts: The recording.
        names: The channels that are needed.
        count: Number of worlds.
        longest: Rows of the longest episode.
    """

    def __init__(self, rollouts: Rollouts, names: Sequence[str], count: int, longest: int) -> None:
        kinds = rollouts.info.kinds
        self._rollouts = rollouts
        self._arrays = {
            name: np.zeros((count, longest, *kinds[name][1]), kinds[name][0]) for name in names
        }
        self._sizes = rollouts.episodes["rows"].to_numpy()
        self.episode = np.full(count, -1)
        """Row of each lane's episode in the table of episodes (count,); -1: none any more."""
        self.at = np.zeros(count, np.int64)
        """The row that each lane is at (count,)."""
        self.length = np.ones(count, np.int64)
        """Rows of each lane's episode (count,)."""
        self.model: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
        """Model fields of each lane's episode."""

    @property
    def active(self) -> np.ndarray:
        """Lanes that have an episode."""
        return np.flatnonzero(self.episode >= 0)

    @property
    def has_next(self) -> np.ndarray:
        """Whether each lane's episode has a row after this one (count,)."""
        return self.at + 1 < self.length

    @property
    def goes_on(self) -> np.ndarray:
        """Whether the row after this one is that of the next step (count,)."""
        everyone = np.arange(len(self.at))
        return self.rows("step", everyone, ahead=1) == self.rows("step", everyone) + 1

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def load(self, lanes: np.ndarray, episodes: Sequence[int]) -> None:
        """Begin these episodes in these lanes."""
        arrays = self._rollouts.read_many(episodes, list(self._arrays))
        first = 0
        for lane, episode in zip(lanes.tolist(), episodes, strict=True):
            size = int(self._sizes[episode])
            for name, values in arrays.items():
                self._arrays[name][lane, :size] = values[first : first + size]
            self.episode[lane], self.length[lane], self.at[lane] = episode, size, 0
            self.model[lane] = dict(self._rollouts.model(episode))
            first += size

    def rows(self, name: str, lanes: np.ndarray, ahead: int = 0) -> np.ndarray:
        """A channel's values in the rows that lanes are at, or in later ones."""
        at = np.minimum(self.at + ahead, self.length - 1)[lanes]
        return self._arrays[name][lanes, at]


class Follower:
    """Keeps the worlds of an environment on the recorded rows of their lanes.

    Args:
        rollouts: The recording.
        lanes: The rows.
        exact: Whether the physics should give the recorded bits.
    """

    def __init__(self, rollouts: Rollouts, lanes: Lanes, exact: bool) -> None:
        self._rollouts = rollouts
        self.recorded = RecordedModel.of(rollouts)
        self.lanes = lanes
        self.commands = HeldCommands(rollouts)
        self._model = [name for name in rollouts.channels if name.startswith(_MODEL)]
        self._envs = rollouts.episodes["env"].to_numpy()
        self._checks = exact and CHECK in lanes
        self._state: torch.Tensor | None = None
        self._sums: StateChecksums | None = None
        self._worlds: WorldModels | None = None
        self._origins: torch.Tensor | None = None
        self.compared = 0
        """Steps whose physics was compared with the recording."""
        self.apart = 0
        """Steps of which the physics made something else than recorded."""
        self.farthest = 0.0
        """The largest difference of a joint position in them."""
        self.other_ends = 0
        """Rows in which the task's flags are not the recorded ones."""

    @staticmethod
    def channels(rollouts: Rollouts) -> list[str]:
        """The channels that it needs."""
        known = rollouts.channels
        needed = ["state", "action", CTRL, CHECK, *FLAGS]
        more = [n for n in known if n.startswith((_MODEL, "command/"))]
        return [*(name for name in needed if name in known), "step", *more]

    def __deepcopy__(self, memo: dict[int, Any]) -> Follower:
        return self  # Managers copy what they get; this must stay the same for all of them.

    def start(self, env: ManagerBasedRlEnv, env_ids: torch.Tensor) -> None:
        """Begin at the rows of these worlds: the first ones of episodes, or those after gaps."""
        ids = env_ids.cpu().numpy()
        self._place(env, ids, env_ids)
        fields = stacked([self.lanes.model[i] for i in ids])
        self._write_model(env, ids, env_ids, fields)
        env.sim.set_state(self._tensor(env, self.lanes.rows("state", ids)), env_ids)
        env.episode_length_buf[env_ids] = self._steps(env, ids)
        self._hold(env, ids)

    def begin_step(self, env: ManagerBasedRlEnv) -> None:
        """Before the physics: put back what the task changed, as some commands do."""
        everyone = np.arange(len(self.lanes.at))
        self._put(env, everyone, ahead=0)
        env.episode_length_buf.copy_(self._steps(env, everyone))

    @property
    def control_steps(self) -> int:
        """Number of physics steps with recorded controls, in a control step."""
        return self._rollouts.channels[CTRL].shape[0] if CTRL in self.lanes else 0

    def controls(self, env: ManagerBasedRlEnv) -> torch.Tensor | None:
        """What the actuators were told in each physics step (worlds, steps, controls), if known."""
        if CTRL not in self.lanes:
            return None
        return self._tensor(env, self.lanes.rows(CTRL, np.arange(len(self.lanes.at))))

    def end_step(self, env: ManagerBasedRlEnv) -> None:
        """After the rewards: compare, and go to the recorded states that follow.

        Before a gap and at the end of an episode the state stays that to which the step led.
        """
        self._compare_flags(env)
        self._compare(env)
        after = np.flatnonzero(self.lanes.goes_on)
        if self._model:
            self._write_model(env, after, self._ids(env, after), {}, ahead=1)
        self._put(env, after, ahead=1)
        self._hold(env, after, ahead=1)

    def _place(self, env: ManagerBasedRlEnv, ids: np.ndarray, env_ids: torch.Tensor) -> None:
        """Move the worlds' origins to where those of the recorded environments were."""
        terrain = env.scene.terrain
        if terrain is None or terrain.terrain_origins is not None:
            return
        spacing = terrain.cfg.env_spacing
        if self._origins is None and spacing is not None:
            count = self._rollouts.info.about.get("num_envs")
            least = int(self._envs.max()) + 1
            count = max(count, least) if type(count) is int else least
            self._origins = grid_origins(count, spacing, env.device)
        if self._origins is not None:
            envs = self._envs[self.lanes.episode[ids]]
            env.scene.env_origins[env_ids] = self._origins[torch.from_numpy(envs).long()]

    def _write_model(
        self,
        env: ManagerBasedRlEnv,
        ids: np.ndarray,
        env_ids: torch.Tensor,
        fields: dict[str, np.ndarray],
        ahead: int = 0,
    ) -> None:
        if self._worlds is None:
            self._worlds = WorldModels(self.recorded, env.sim)
        now = {n.removeprefix(_MODEL): self.lanes.rows(n, ids, ahead) for n in self._model}
        self._worlds.write({**fields, **now}, env_ids)

    def _put(self, env: ManagerBasedRlEnv, ids: np.ndarray, ahead: int) -> None:
        """Set recorded states, where the worlds are not in them already: that takes time."""
        self._state = state = env.sim.get_state(self._state)
        target = self._tensor(env, self.lanes.rows("state", ids, ahead)).to(state.dtype)
        where = self._ids(env, ids)
        apart = (bits_of(state[where]) != bits_of(target)).any(dim=1)
        if bool(apart.any()):
            env.sim.set_state(target[apart], where[apart])
            env.scene.invalidate()

    def _hold(self, env: ManagerBasedRlEnv, ids: np.ndarray, ahead: int = 0) -> None:
        if len(ids):
            rows = {name: self.lanes.rows(name, ids, ahead) for name in self.commands.channels}
            self.commands.hold(env, rows, self._ids(env, ids))

    def _compare(self, env: ManagerBasedRlEnv) -> None:
        """Compare what the physics made of the step with the recording."""
        lanes, ids = self.lanes, self.lanes.active
        follows = lanes.goes_on[ids]
        self._state = state = env.sim.get_state(self._state)
        if self._checks:
            if self._sums is None:
                self._sums = StateChecksums(env.sim.state_layout, env.device)
            sums = self._sums(state)[self._ids(env, ids)].cpu().numpy()
            other = (sums != lanes.rows(CHECK, ids)).any(axis=1)
            self.compared += len(ids)
        else:
            other = follows
            self.compared += int(follows.sum())
        columns = env.sim.state_layout.get("qpos", slice(0, 0))
        here = state[self._ids(env, ids)][:, columns].double().cpu().numpy()
        there = lanes.rows("state", ids, ahead=1)[:, columns]
        far = np.nan_to_num(np.abs(here - there).max(axis=1, initial=0.0), nan=math.inf)
        if not self._checks:
            other = follows & (far > 0.0)
        self.apart += int(other.sum())
        self.farthest = max(self.farthest, float(far[other & follows].max(initial=0.0)))

    def _compare_flags(self, env: ManagerBasedRlEnv) -> None:
        ids = self.lanes.active
        other = np.zeros(len(ids), bool)
        for name, flag in zip(FLAGS, (env.reset_terminated, env.reset_time_outs), strict=True):
            if name in self.lanes:
                other |= flag.cpu().numpy()[ids] != self.lanes.rows(name, ids)
        self.other_ends += int(other.sum())

    def _steps(self, env: ManagerBasedRlEnv, ids: np.ndarray) -> torch.Tensor:
        return self._tensor(env, self.lanes.rows("step", ids)).to(env.episode_length_buf.dtype)

    def _ids(self, env: ManagerBasedRlEnv, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids).to(env.device)

    def _tensor(self, env: ManagerBasedRlEnv, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(env.device)
