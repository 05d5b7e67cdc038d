"""An environment with the hooks, the order of a step and the habits of Isaac Lab, without it.

As in Isaac Lab: recorders are made before the other managers; ``record_pre_step`` comes after the
action is processed, ``record_post_step`` before resets and the step's observation, for which the
observations are computed once more without advancing histories; ``reset()`` calls
``record_pre_reset``, and ``record_post_reset`` before it computes observations; ``close()`` deletes
the managers and closes no term.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import pytest
import torch
from mjlab_fake import ActionManager, CommandManager, Drift, History, TermCfg


class RecorderTerm:
    def __init__(self, cfg: Any, env: Any) -> None:
        self._env = env

    def reset(self, env_ids: Any = None) -> None:
        pass


@dataclass
class RecorderTermCfg:
    class_type: Any


class DatasetExportMode(IntEnum):
    EXPORT_NONE = 0
    EXPORT_ALL = 1


@dataclass
class RecorderManagerBaseCfg:
    dataset_export_dir_path: str = "/tmp"
    dataset_export_mode: DatasetExportMode = DatasetExportMode.EXPORT_ALL


@pytest.fixture
def isaaclab(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``from isaaclab.managers import ...`` find this module's classes."""
    for name in ("isaaclab", "isaaclab.managers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module: Any = sys.modules["isaaclab.managers"]
    for item in (RecorderTerm, RecorderTermCfg, DatasetExportMode, RecorderManagerBaseCfg):
        setattr(module, item.__name__, item)
    monkeypatch.delitem(sys.modules, "mjlab_rec.adapters.isaaclab_term", raising=False)
    yield
    sys.modules.pop("mjlab_rec.adapters.isaaclab_term", None)


class RecorderManager:
    """Calls each term, and stores what it returns, as Isaac Lab does."""

    def __init__(self, cfg: Any, env: Any) -> None:
        self._terms = {
            name: term.class_type(term, env)
            for name, term in ({} if cfg is None else vars(cfg)).items()
            if isinstance(term, RecorderTermCfg)
        }

    @property
    def active_terms(self) -> list[str]:
        return list(self._terms)

    def reset(self, env_ids: Any) -> dict[str, Any]:
        for term in self._terms.values():
            term.reset(env_ids=env_ids)
        return {}

    def record(self, hook: str, *args: Any) -> None:
        for term in self._terms.values():
            if hook == "record_pre_reset" and isinstance(args[0], torch.Tensor):
                args = (args[0].tolist(),)
            key, _ = getattr(term, hook)(*args)
            assert key is None


class ObservationManager:
    def __init__(self, env: Any, groups: dict[str, dict[str, TermCfg]]) -> None:
        self._env, self._groups = env, groups
        self.cfg = types.SimpleNamespace(**groups)
        self.group_obs_concatenate = dict.fromkeys(groups, True)
        self._histories = {
            (g, t): History(c.history)
            for g, ts in groups.items()
            for t, c in ts.items()
            if c.history
        }
        self.group_obs_term_dim = {
            g: [(c.func(env).shape[1] * max(c.history, 1),) for c in ts.values()]
            for g, ts in groups.items()
        }

    @property
    def active_terms(self) -> dict[str, list[str]]:
        return {group: list(terms) for group, terms in self._groups.items()}

    def compute(self, update_history: bool = False) -> dict[str, Any]:
        return {g: self.compute_group(g, update_history) for g in self._groups}

    def compute_group(self, group: str, update_history: bool = False) -> torch.Tensor:
        values = []
        for name, cfg in self._groups[group].items():
            value = cfg.func(self._env).clone()
            if cfg.noise:
                value += cfg.noise * (2.0 * torch.rand_like(value) - 1.0)
            history = self._histories.get((group, name))
            if history is not None:
                if update_history:
                    history.append(value, None)
                value = history.values()
            values.append(value)
        return torch.cat(values, 1)

    def reset(self, env_ids: Any) -> None:
        for history in self._histories.values():
            history.reset(env_ids)


class Rewards:
    active_terms = ["near"]

    def __init__(self, env: Any) -> None:
        self._env, self._step_reward = env, torch.zeros(env.num_envs, 1)
        self._reward = torch.zeros(env.num_envs)

    def compute(self) -> torch.Tensor:
        self._step_reward[:, 0] = -self._env.robot.data.joint_pos[:, 0].abs()
        self._reward[:] = self._step_reward[:, 0] * self._env.step_dt
        return self._reward


class Terminations:
    active_terms = ["time_out", "far"]

    def __init__(self, env: Any) -> None:
        self._env = env
        self.terminated = torch.zeros(env.num_envs, dtype=torch.bool)
        self.time_outs = torch.zeros(env.num_envs, dtype=torch.bool)

    def compute(self) -> torch.Tensor:
        self.time_outs[:] = self._env.episode_length_buf >= self._env.limits
        self.terminated[:] = self._env.robot.data.joint_pos[:, 0].abs() > 0.08
        return self.terminated | self.time_outs

    def get_term(self, name: str) -> torch.Tensor:
        return self.terminated if name == "far" else self.time_outs


@dataclass
class Cfg:
    num_envs: int = 4
    seed: int | None = 0
    decimation: int = 2
    recorders: Any = None
    events: Any = field(default_factory=types.SimpleNamespace)


class FakeIsaacLabEnv:
    """Isaac Lab's ManagerBasedRLEnv, as far as recorders can tell; points that are pushed."""

    physics_dt, step_dt, device = 0.01, 0.02, "cpu"

    def __init__(self, cfg: Cfg) -> None:
        self.cfg = cfg
        torch.manual_seed(cfg.seed or 0)
        self.num_envs = n = cfg.num_envs
        self.common_step_counter = self._sim_step_counter = 0
        self.extras: dict[str, Any] = {}
        self.sim = types.SimpleNamespace(device="cpu")
        data = types.SimpleNamespace(joint_pos=torch.zeros(n, 1), joint_vel=torch.zeros(n, 1))
        self.robot = types.SimpleNamespace(data=data, joint_names=["slider"])
        self.scene = types.SimpleNamespace(
            articulations={"robot": self.robot},
            rigid_objects={},
            sensors={},
            env_origins=torch.zeros(n, 3),
        )
        self.limits = 3 + torch.arange(n) % 5
        self.episode_length_buf = torch.zeros(n, dtype=torch.long)
        self.fails = ""
        self.command_manager = CommandManager(n)
        self.recorder_manager = RecorderManager(cfg.recorders, self)
        self.action_manager = ActionManager(n)
        self.observation_manager = ObservationManager(
            self,
            {
                "policy": {
                    "pos": TermCfg(lambda env: env.robot.data.joint_pos, noise=0.01),
                    "old": TermCfg(lambda env: env.robot.data.joint_vel, history=3),
                    "goal": TermCfg(lambda env: env.command_manager.get_command("goal")),
                },
                "critic": {
                    "vel": TermCfg(lambda env: env.robot.data.joint_vel),
                    "d": TermCfg(Drift(n)),
                },
            },
        )
        self.termination_manager = Terminations(self)
        self.reward_manager = Rewards(self)
        self.obs_buf: dict[str, Any] = {}

    @property
    def unwrapped(self) -> FakeIsaacLabEnv:
        return self

    def reset(self, env_ids: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = torch.arange(self.num_envs) if env_ids is None else env_ids
        self.recorder_manager.record(
            "record_pre_reset", slice(None) if env_ids is None else env_ids
        )
        self._reset_idx(ids)
        self.recorder_manager.record(
            "record_post_reset", slice(None) if env_ids is None else env_ids
        )
        self.obs_buf = self.observation_manager.compute(update_history=True)
        return self.obs_buf, self.extras

    def step(self, action: torch.Tensor) -> tuple[Any, ...]:
        data = self.robot.data
        self.action_manager.action[:] = action
        self.recorder_manager.record("record_pre_step")
        for _ in range(self.cfg.decimation):
            self._sim_step_counter += 1
            if self.fails == "physics":
                raise RuntimeError("The simulation failed.")
            data.joint_vel += 0.2 * self.action_manager.action
            data.joint_pos += self.physics_dt * data.joint_vel
            self.recorder_manager.record("record_post_physics_decimation_step")
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_buf = self.termination_manager.compute()
        self.reset_terminated = self.termination_manager.terminated
        self.reset_time_outs = self.termination_manager.time_outs
        self.reward_buf = self.reward_manager.compute()
        if self.recorder_manager.active_terms:
            self.obs_buf = self.observation_manager.compute()
            self.recorder_manager.record("record_post_step")
        ids = self.reset_buf.nonzero().flatten()
        if len(ids):
            self.recorder_manager.record("record_pre_reset", ids)
            if self.fails == "reset":
                raise RuntimeError("The reset failed.")
            self._reset_idx(ids)
            self.recorder_manager.record("record_post_reset", ids)
        self.command_manager.compute(torch.full((self.num_envs,), self.step_dt))
        data.joint_vel += 0.01 * torch.rand(self.num_envs, 1)  # An interval event.
        self.obs_buf = self.observation_manager.compute(update_history=True)
        flags = self.reset_terminated, self.reset_time_outs
        return self.obs_buf, self.reward_buf, *flags, self.extras

    def close(self) -> None:
        del self.command_manager, self.reward_manager, self.termination_manager
        self.obs_buf.clear()
        del self.action_manager, self.observation_manager
        del self.recorder_manager
        del self.scene

    def _reset_idx(self, ids: torch.Tensor) -> None:
        self.robot.data.joint_pos[ids] = 0.02 * torch.rand(len(ids), 1)
        self.robot.data.joint_vel[ids] = 0.0
        self.observation_manager.reset(ids)
        self.action_manager.action[ids] = 0.0
        self.command_manager.resample(ids)
        self.recorder_manager.reset(ids)
        self.episode_length_buf[ids] = 0
