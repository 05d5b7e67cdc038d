"""Cartpole with and without a recorder, for the measurements of recorders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mjlab_rec.data.formats import writer_class
from mjlab_rec.data.staging import Staging
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import DEFAULT_CHANNELS, RolloutRecorder, RolloutRecorderCfg
from mjlab_rec.recorders.presets import KINDS
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.utils.lookup import look_up

CHANNELS = {
    "default": DEFAULT_CHANNELS,
    "all": (
        *("obs", "action", "processed_action", "reward", "reward_terms"),
        *("terminated", "truncated", "next_obs", "command", "state", "ctrl"),
        *("entity/cartpole/joint_pos", "entity/cartpole/joint_vel"),
    ),
}

_SHORT_EPISODE = 32  # steps


@dataclass(kw_only=True)
class World:
    """What is simulated, and what is recorded."""

    num_envs: int
    device: str = "cpu"
    engine: str = "auto"
    channels: Literal["default", "all"] = "all"
    block_steps: int | None = None
    """Steps per block; None leaves it to the recorder."""
    all_time_out: bool = False
    """Let short episodes of all environments end in the same step."""

    def make(self, recorder: RolloutRecorderCfg | None = None) -> ManagerBasedRlEnv:
        """Build the environment and reset it, which starts the recording."""
        cfg: Any = load_env_cfg("cartpole-balance")
        cfg.scene.num_envs = self.num_envs
        cfg.sim.engine = self.engine
        cfg.seed = 0
        if self.all_time_out:
            cfg.episode_length_s = _SHORT_EPISODE * cfg.sim.mujoco.timestep * cfg.decimation
        if recorder is not None:
            cfg.recorders = {"recorder": recorder}
        env = ManagerBasedRlEnv(cfg, device=self.device)
        env.reset()
        if not self.all_time_out:
            # As in training, episodes should not all end in the same step.
            ages = torch.arange(self.num_envs, device=env.device)
            env.episode_length_buf[:] = ages * env.max_episode_length // self.num_envs
        return env

    def recorder(self, name: str, folder: Path, **fields: Any) -> RolloutRecorderCfg:
        """Return the cfg of a recorder by its short name."""
        cfg_type, suffix = KINDS[name]
        path = "" if suffix is None else str(folder / f"rollout{suffix}")
        fields |= {"channels": CHANNELS[self.channels], "block_steps": self.block_steps}
        return look_up(cfg_type)(path=path, **fields)


def recorder_of(env: ManagerBasedRlEnv) -> RolloutRecorder:
    """Return the environment's recorder."""
    recorder: Any = env.recorder_manager.get_term("recorder")
    return recorder


def rows_per_block(recorder: RolloutRecorder) -> int:
    """Return the number of steps after which the recorder hands over its block."""
    assert recorder._store is not None
    return recorder._store.shape.rows


def block_bytes(recorder: RolloutRecorder) -> int:
    """Return the memory of a block."""
    assert isinstance(recorder._store, Staging)
    return recorder._store.block_bytes


def load_writers(names: Sequence[str]) -> None:
    """Import what formats need, so that it does not happen during a measurement."""
    for name in names:
        writer_class(name)
