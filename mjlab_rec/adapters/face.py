"""The face of an environment that has no managers: what recorders read, filled step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium
import numpy as np
import torch

from mjlab_rec.adapters.infos import Infos, final_rows
from mjlab_rec.adapters.random_numbers import GlobalRandom
from mjlab_rec.adapters.stand_ins import (
    GROUP,
    Actions,
    NoRewardTerms,
    NoScene,
    NoSim,
    Observations,
    Terminations,
)
from mjlab_rec.adapters.trees import Buffer, Leaf, leaves
from mjlab_rec.envs.running_episodes import RunningEpisodes
from mjlab_rec.managers.command_manager import NullCommandManager
from mjlab_rec.managers.recorder_manager import NullRecorderManager, RecorderManager
from mjlab_rec.recorders.channels import Source
from mjlab_rec.sim.viewer_config import ViewerConfig

Autoreset = Literal["next_step", "same_step", "disabled"]
"""When an environment is reset whose episode ended: by the next step, which only resets it, inside
the step, or by the caller."""


@dataclass(kw_only=True)
class FaceCfg:
    """What recordings say about an environment."""

    task: str
    """Its id or name."""

    seed: Any = None
    """The seed of the last reset that had one."""

    autoreset: Autoreset
    """When environments whose episode ended are reset."""

    about: dict[str, Any] = field(default_factory=dict)
    """More about it: classes, arguments, spaces, versions."""

    final_obs: bool = True
    """Whether it provides the observation before a reset. Recorders ask for it."""

    viewer: ViewerConfig = field(default_factory=lambda: ViewerConfig(debug_vis=False))
    """Not used: pictures come from ``render()``."""

    @property
    def auto_reset(self) -> bool:
        """Whether the caller does not need to reset environments."""
        return self.autoreset != "disabled"


class _Observed:
    """Buffers of the observations of one moment."""

    def __init__(self, found: Sequence[Leaf], num_envs: int, device: str) -> None:
        self._leaves = found
        self._buffers = _buffers("observation", found, num_envs, device)
        self.show()

    def show(self) -> None:
        """Set ``groups`` again, because buffers were replaced."""
        tensors = {
            leaf.name: buffer.tensor
            for leaf, buffer in zip(self._leaves, self._buffers, strict=True)
        }
        self.groups: dict[str, Any] = {GROUP: tensors.get("", tensors)}
        """The observations, as ``obs_buf`` has them."""

    def take_types_of(self, obs: Any) -> None:
        """Adopt the types that observations really have."""
        for leaf, buffer in zip(self._leaves, self._buffers, strict=True):
            buffer.take_type_of(leaf.of(obs))
        self.show()

    def put(self, obs: Any) -> None:
        """Copy the observations of all environments."""
        for leaf, buffer in zip(self._leaves, self._buffers, strict=True):
            buffer.put(leaf.of(obs))

    def put_rows(self, obs: Any, env_ids: torch.Tensor) -> None:
        """Copy the observations of some environments."""
        for leaf, buffer in zip(self._leaves, self._buffers, strict=True):
            buffer.put_rows(leaf.of(obs), env_ids)

    def put_row(self, obs: Any, env_id: int) -> None:
        """Copy the observation of one environment."""
        for leaf, buffer in zip(self._leaves, self._buffers, strict=True):
            buffer.put_row(leaf.of(obs), env_id)

    def copy(self, other: _Observed) -> None:
        """Copy all that another one holds."""
        for mine, theirs in zip(self._buffers, other._buffers, strict=True):
            mine.tensor.copy_(theirs.tensor)


class Face:
    """What recorders read of an environment, filled by a wrapper with copies of what it passes on.

    Args:
        num_envs: Number of environments.
        device: Where recorders read it, "cpu" or a GPU.
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        step_dt: Seconds per step.
        cfg: What recordings say about the environment.
        engine_name: What simulates it, for descriptions.
        infos: Entries of infos to record.
        success: Name of the entry of infos that tells successes, or "".
        single: Whether values are those of one environment, without an axis of environments.
    """

    obs_buf: dict[str, Any]
    extras: dict[str, Any]

    def __init__(
        self,
        num_envs: int,
        device: str,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        step_dt: float,
        cfg: FaceCfg,
        *,
        engine_name: str = "unknown",
        infos: Sequence[str] | Mapping[str, tuple[int, ...]] = (),
        success: str = "",
        single: bool = False,
    ) -> None:
        self.num_envs, self.device, self.cfg = num_envs, device, cfg
        self.step_dt = self.physics_dt = step_dt
        self.common_step_counter = 0
        self.pending_resets: torch.Tensor | None = None
        """The environments that the next step only resets (num_envs,); None: it never does that."""
        if cfg.autoreset == "next_step":
            self.pending_resets = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.running_episodes = RunningEpisodes(num_envs, device, self.pending_resets)
        self.recorder_manager: RecorderManager = NullRecorderManager()
        self.rng = GlobalRandom(device, 0)
        self.frames: Any = None
        """Stands for a renderer, for videos; None: nothing draws the environments."""
        self.resetting = False
        """Whether recorders are told of a step in which environments were reset."""

        def buffer(name: str, dtype: str) -> Buffer:
            return Buffer(name, (), np.dtype(dtype), num_envs, device)

        observed = leaves(observation_space, "observation", single)
        self._now = _Observed(observed, num_envs, device)
        self._next = _Observed(observed, num_envs, device)
        self._final = _Observed(observed, num_envs, device)
        self._began = False  # Whether there was a reset.
        self.obs_buf = {}
        self._acted = leaves(action_space, "action", single)
        self._actions = _buffers("action", self._acted, num_envs, device)
        self._reward, self._terminated, self._truncated = (
            buffer("The reward", "float64"),
            buffer("terminated", "bool"),
            buffer("truncated", "bool"),
        )
        self.reward_buf = self._reward.tensor
        self.reset_terminated, self.reset_time_outs = (
            self._terminated.tensor,
            self._truncated.tensor,
        )
        self._none = torch.zeros(0, dtype=torch.long, device=device)
        self._only_reset = self._none  # By the next step, if there is no other reset before it.
        self.reset_buf = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.extras = {"log": {}}

        self.infos = Infos(infos, num_envs, device)
        terms = {
            "terminated": lambda: self.reset_terminated,
            "truncated": lambda: self.reset_time_outs,
        }
        if success:
            self.infos.add(success)
            terms["success"] = lambda: self.infos[success] > 0  # NaN is not.
        parts = {
            leaf.name: buffer.tensor
            for leaf, buffer in zip(self._acted, self._actions, strict=True)
        }
        self.action_manager = Actions(parts.get("", parts))
        self.observation_manager = Observations({leaf.name: leaf.shape for leaf in observed})
        self.reward_manager = NoRewardTerms(num_envs, device)
        self.command_manager = NullCommandManager()
        self.termination_manager = Terminations(terms)
        self.scene, self.sim = NoScene(num_envs, device), NoSim(engine_name)

    @property
    def has_pending_resets(self) -> bool:
        """Whether the next step only resets some environments."""
        return self._only_reset.shape[0] > 0

    @property
    def episode_length_buf(self) -> torch.Tensor:
        """Steps of each running episode (num_envs,)."""
        return self.running_episodes.length.clamp(min=0).long()

    def use_recorders(self, manager: RecorderManager) -> None:
        """Call this manager's recorders from the next step on."""
        self.recorder_manager = manager

    def own_sources(self) -> list[Source]:
        """The channels that only this environment has: entries of infos."""
        return self.infos.sources()

    def put_action(self, action: Any) -> None:
        """Copy the action of a step that is about to be taken."""
        for leaf, buffer in zip(self._acted, self._actions, strict=True):
            buffer.put(leaf.of(action))

    def put_reset(self, obs: Any, env_ids: torch.Tensor | None) -> None:
        """Copy what a reset returned.

        Args:
            obs: The observations of all environments.
            env_ids: The environments that were reset; None: all.
        """
        if not self._began:
            self._began = True
            for observed in (self._now, self._next, self._final):
                observed.take_types_of(obs)
        if env_ids is None:
            self._now.put(obs)
            env_ids = torch.arange(self.num_envs, device=self.device)
        else:
            self._now.put_rows(obs, env_ids)
        if self.pending_resets is not None:
            self.pending_resets[env_ids] = False
            self._only_reset = self.pending_resets.nonzero().flatten()
        self.obs_buf = self._now.groups
        self.extras = {"log": {}}

    def put_step(
        self, obs: Any, reward: Any, terminated: Any, truncated: Any, infos: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy what a step returned; ``obs_buf`` is still what it was before, until ``advance``.

        Returns:
            The environments that the step only reset, and those whose episode it ended.
        """
        # First what tells which environments the next step resets: what follows may raise.
        self._reward.put(reward)
        self._terminated.put(terminated)
        self._truncated.put(truncated)
        pending, only_reset = self.pending_resets, self._only_reset
        if pending is not None and self.has_pending_resets:
            for values in (self.reward_buf, self.reset_terminated, self.reset_time_outs):
                values.index_fill_(0, only_reset, 0)
        torch.logical_or(self.reset_terminated, self.reset_time_outs, out=self.reset_buf)
        ended = self.reset_buf.nonzero().flatten()
        if pending is not None:
            pending.copy_(self.reset_buf)
            self._only_reset = ended
        self.common_step_counter += 1
        self._next.put(obs)
        final = self._next
        self.resetting = self.cfg.autoreset == "same_step" and ended.shape[0] > 0
        if self.infos:
            self.infos.take(infos, self.reset_buf if self.resetting else None)
        if self.resetting and self.recorder_manager.needs_final_obs:
            final = self._final
            self._take_finals(infos, ended)
        self.extras = {"log": {}, "final_obs": final.groups}
        return only_reset, ended

    def advance(self) -> None:
        """Show the observations of the step's end."""
        self._now, self._next = self._next, self._now
        self.obs_buf = self._now.groups

    def _take_finals(self, infos: Any, ended: torch.Tensor) -> None:
        """Copy the observations before the resets inside the step."""
        rows, ids = final_rows(infos), ended.tolist()
        if rows is None or (_is_per_env(rows) and any(rows[env_id] is None for env_id in ids)):
            raise ValueError(
                "Episodes ended and were reset inside the step, but its infos have no 'final_obs',"
                " the observation before the reset, so next_obs is not known. Leave next_obs out of"
                " the recorder's channels, or use the autoreset mode NEXT_STEP."
            )
        self._final.copy(self._next)
        if _is_per_env(rows):
            for env_id in ids:
                self._final.put_row(rows[env_id], env_id)
        else:
            self._final.put_rows(rows, ended)


def _buffers(what: str, found: Sequence[Leaf], num_envs: int, device: str) -> list[Buffer]:
    return [
        Buffer(f"The {what} {leaf.name}".rstrip(), leaf.shape, leaf.dtype, num_envs, device)
        for leaf in found
    ]


def _is_per_env(rows: Any) -> bool:
    """Whether observations are listed by environment, and not arrays of all environments."""
    return isinstance(rows, list) or (isinstance(rows, np.ndarray) and rows.dtype == object)
