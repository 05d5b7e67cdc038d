"""A task that follows recorded episodes, and what it makes of each of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mjlab_rec.data.schema import ChannelSpec, RunInfo
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.managers.command_manager import CommandManager
from mjlab_rec.managers.event_manager import EventTermCfg
from mjlab_rec.recorders import Channel, TransitionRecorder, TransitionRecorderCfg
from mjlab_rec.replay.following import Follower


class _WatchedCommands(CommandManager):
    """Commands that notice when they are read."""

    def __init__(self, cfg: dict[str, Any], env: ManagerBasedRlEnv) -> None:
        self.values: set[str] = set()
        """Commands whose values were read."""
        self.terms: set[str] = set()
        """Commands of which something else may have been read."""
        super().__init__(cfg, env)

    def get_command(self, name: str) -> torch.Tensor:
        """The commands of a term. Shape (num_envs, command_dim)."""
        self.values.add(name)
        return super().get_term(name).command

    def get_term(self, name: str) -> Any:
        """The term of this name."""
        self.terms.add(name)
        return super().get_term(name)


@dataclass
class Reads:
    """Commands that were read, by their names."""

    values: set[str] = field(default_factory=set)
    """Those whose values were read."""
    terms: set[str] = field(default_factory=set)
    """Those of which something else may have been read."""


class FollowingEnv(ManagerBasedRlEnv):
    """The task, whose worlds follow recorded episodes until these end.

    Args:
        cfg: The task. Its events, curricula and recorders are left out.
        device: Where to simulate.
        follower: Keeps the worlds on the recorded rows.
        channels: What to take from each row.
        starts_up: Whether events at start-up happen. With the recorded seed and number of worlds
            they draw again what is not in the recording, such as biases of encoders.
    """

    def __init__(
        self,
        cfg: ManagerBasedRlEnvCfg,
        device: str,
        follower: Follower,
        channels: Sequence[str | Channel],
        starts_up: bool,
    ) -> None:
        self._follower = follower
        self._controls: torch.Tensor | None = None
        self._substep = 0
        self.reads = {"rewards": Reads(), "observations": Reads()}
        """What read commands."""
        params = {"follower": follower}
        kept = {n: e for n, e in cfg.events.items() if starts_up and e and e.mode == "startup"}
        cfg.events = {
            **kept,
            "recorded_step": EventTermCfg(func=_step, mode="step", params=params),
        }
        cfg.curriculum, cfg.metrics = {}, {}
        cfg.sim.nan_guard.enabled = False
        cfg.auto_reset = False
        cfg.recorders = {"taken": TransitionRecorderCfg(func=_Taken, channels=tuple(channels))}
        super().__init__(cfg, device=device)

    @property
    def taken(self) -> _Taken:
        """The rows of the last step."""
        term: Any = self.recorder_manager.get_term("taken")
        return term

    def use_recorders(self, manager: Any) -> None:
        """Also tell the physics what it was told in each of its steps, if that differed."""
        super().use_recorders(manager)
        if self._follower.control_steps > 1:
            self._acts_once, self._substeps_matter = False, True

    def _optional(self, manager: Any, null: Any, cfg: dict[str, Any]) -> Any:
        watched = _WatchedCommands if manager is CommandManager else manager
        return super()._optional(watched, null, cfg)

    def _reset_idx(self, env_ids: torch.Tensor) -> None:
        # Last, because commands may move things, too.
        super()._reset_idx(env_ids)
        self._follower.start(self, env_ids)

    @torch.no_grad()
    def skip_gap(self, env_ids: torch.Tensor) -> None:
        """Go on at rows before which others are missing; terms keep what they remember."""
        with self._running():
            self._follower.start(self, env_ids)
            self._forward(None if self.cfg.forward_after_step else env_ids)
            self.sim.sense()
            self.obs_buf = self.observation_manager.compute(update_history=True, env_ids=env_ids)
            self.recorder_manager.record_post_reset(env_ids)

    def _check_nothing_awaits_reset(self) -> None:
        """Episodes end where the recorded ones do, whatever the task says."""

    def _simulate(self) -> None:
        self._follower.begin_step(self)
        self._controls, self._substep = self._follower.controls(self), 0
        super()._simulate()
        self.note_reads(None)

    def _act(self) -> None:
        super()._act()
        if self._controls is not None:
            step = min(self._substep, self._controls.shape[1] - 1)
            self.sim.data.ctrl.copy_(self._controls[:, step])
            self._substep += 1

    def note_reads(self, by: Literal["rewards", "observations"] | None) -> None:
        """Note which commands were read since the last call."""
        manager = self.command_manager
        if not isinstance(manager, _WatchedCommands):
            return
        if by is not None:
            self.reads[by].values |= manager.values
            self.reads[by].terms |= manager.terms
        manager.values.clear()
        manager.terms.clear()


class _Taken(TransitionRecorder):
    """Keeps the rows of the last step."""

    specs: tuple[ChannelSpec, ...] = ()
    latest: Any = None

    def begin_recording(self, info: RunInfo, block_rows: int) -> None:
        """Keep what the rows are."""
        self.specs = info.channels

    def record(self, rows: Any) -> None:
        """Keep the rows, which the next step overwrites."""
        self.latest = rows


def _step(env: Any, env_ids: Any, follower: Follower) -> None:
    """Event after each step."""
    env.note_reads("rewards")
    follower.end_step(env)
    env.note_reads(None)
