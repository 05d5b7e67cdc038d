"""An environment with the hooks, the order of a step and the habits of mjlab 1.6, without mjlab.

MuJoCo simulates each world. As in mjlab, derived quantities are a physics step behind until one
forward pass at the end of a step; sensors keep values until a reset or an update; observations have
delays, histories and noise from torch's global generator; an event pushes; a curriculum reads the
last pose before a reset; episodes reset inside the step, whose final observation nothing computes.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import warp as wp

from mjlab_rec.sim.viewer_config import ViewerConfig

XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <geom name="floor" type="plane" size="3 3 0.1"/>
    <body name="cart" pos="0 0 0.5">
      <joint name="slider" type="slide" axis="1 0 0" damping="0.1"/>
      <geom name="cart" type="box" size="0.2 0.1 0.1" mass="1"/>
      <body name="pole" pos="0 0 0.1">
        <joint name="hinge" type="hinge" axis="0 1 0"/>
        <geom name="pole" type="capsule" fromto="0 0 0 0 0 0.5" size="0.03" mass="0.1"/>
        <site name="tip" pos="0 0 0.5"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="slider" gear="5"/></actuator>
  <sensor><framepos name="tip" objtype="site" objname="tip"/></sensor>
</mujoco>
"""
DECIMATION = 2


class RecorderTerm:
    """What mjlab's recorders derive from."""

    def __init__(self, cfg: Any, env: Any) -> None:
        self.cfg, self._env = cfg, env


@dataclass
class RecorderTermCfg:
    func: Any
    params: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def mjlab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``import mjlab.managers.recorder_manager`` find this module's classes."""
    names = ("mjlab", "mjlab.managers", "mjlab.managers.recorder_manager")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module: Any = sys.modules[names[-1]]
    module.RecorderTerm, module.RecorderTermCfg = RecorderTerm, RecorderTermCfg
    monkeypatch.delitem(sys.modules, "mjlab_rec.adapters.mjlab_term", raising=False)
    yield
    sys.modules.pop("mjlab_rec.adapters.mjlab_term", None)


class TorchArray:
    """mjlab's proxy of a Warp array, which is no tensor."""

    def __init__(self, array: Any) -> None:
        self._tensor = wp.to_torch(array)

    def __getitem__(self, index: Any) -> Any:
        return self._tensor[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._tensor[index] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)


@dataclass
class WpData:
    """Arrays of all worlds."""

    time: Any
    qpos: Any
    qvel: Any
    qacc_warmstart: Any
    ctrl: Any
    qfrc_applied: Any
    xfrc_applied: Any
    xpos: Any
    sensordata: Any


class Bridge:
    def __init__(self, struct: Any) -> None:
        self._arrays = {f.name: TorchArray(getattr(struct, f.name)) for f in fields(struct)}

    def __getattr__(self, name: str) -> Any:
        if name == "_arrays" or name not in self._arrays:
            raise AttributeError(name)
        return self._arrays[name]


class Sim:
    """A world per ``MjData``; the arrays are copied in and out."""

    def __init__(self, num_envs: int) -> None:
        self.mj_model = mujoco.MjModel.from_xml_string(XML)
        self.mj_data = mujoco.MjData(self.mj_model)
        self.num_envs, self.device, self.wp_device = num_envs, "cpu", wp.get_device("cpu")
        self._worlds = [mujoco.MjData(self.mj_model) for _ in range(num_envs)]
        self.wp_data = WpData(
            **{
                f.name: wp.array(
                    np.zeros((num_envs, *np.shape(getattr(self.mj_data, f.name))), np.float32),
                    device="cpu",
                )
                for f in fields(WpData)
            }
        )
        self.wp_model = types.SimpleNamespace()
        self.data, self.model = Bridge(self.wp_data), types.SimpleNamespace()
        self.expanded_fields: set[str] = set()
        self.fails = False
        self.forward()

    def step(self) -> None:
        if self.fails:
            raise RuntimeError("The simulation failed.")
        self._run(mujoco.mj_step)

    def forward(self) -> None:
        self._run(mujoco.mj_forward)

    def sense(self) -> None:
        pass

    def reset(self, env_ids: torch.Tensor) -> None:
        for name in ("qpos", "qvel", "ctrl", "qacc_warmstart", "time"):
            getattr(self.data, name)[env_ids] = 0.0

    def _run(self, function: Callable[..., None]) -> None:
        arrays = {f.name: getattr(self.wp_data, f.name).numpy() for f in fields(WpData)}
        for i, world in enumerate(self._worlds):
            for name in ("time", "qpos", "qvel", "ctrl", "qacc_warmstart"):
                if name == "time":
                    world.time = float(arrays[name][i])
                else:
                    getattr(world, name)[:] = arrays[name][i]
            function(self.mj_model, world)
            for name, array in arrays.items():
                array[i] = getattr(world, name)


class TipSensor:
    """A sensor that keeps its value, and the time since the tip was last below its limit."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self._cached: torch.Tensor | None = None
        self.up_time = torch.zeros(sim.num_envs)

    @property
    def data(self) -> torch.Tensor:
        if self._cached is None:
            self._cached = self._sim.data.sensordata[...].clone()
        return self._cached

    def reset(self, env_ids: torch.Tensor) -> None:
        self._cached = None
        self.up_time[env_ids] = 0.0

    def update(self, dt: float) -> None:
        self._cached = None
        self.up_time[:] = torch.where(self._sim.data.sensordata[:, 2] > 1.09, self.up_time + dt, 0)


class History:
    """The last few values of a term, as mjlab's buffers keep them."""

    def __init__(self, length: int) -> None:
        self._length, self._pointer = length, -1
        self._buffer: torch.Tensor | None = None
        self._pushes: torch.Tensor | None = None

    def append(self, value: torch.Tensor, env_ids: torch.Tensor | None) -> None:
        if self._buffer is None or self._pushes is None:
            self._buffer = torch.zeros(self._length, *value.shape)
            self._pushes = torch.zeros(len(value), dtype=torch.long)
        if env_ids is None:
            self._pointer = (self._pointer + 1) % self._length
            self._buffer[self._pointer] = value
            self._buffer[:, self._pushes == 0] = value[self._pushes == 0]
            self._pushes += 1
        else:
            self._buffer[:, env_ids] = value[env_ids]
            self._pushes[env_ids] = 1

    def reset(self, env_ids: torch.Tensor) -> None:
        if self._pushes is not None:
            self._pushes[env_ids] = 0

    def values(self) -> torch.Tensor:
        assert self._buffer is not None
        order = [(self._pointer + 1 + i) % self._length for i in range(self._length)]
        return self._buffer[order].transpose(0, 1).flatten(1)


@dataclass
class TermCfg:
    func: Any
    noise: float = 0.0
    history: int = 0


class Drift:
    """A term with a state: a walk that every call takes a step on."""

    def __init__(self, num_envs: int) -> None:
        self.at = torch.zeros(num_envs, 1)

    def __call__(self, env: Any) -> torch.Tensor:
        self.at += torch.rand(env.num_envs, 1)
        return self.at.clone()


class ObservationManager:
    def __init__(
        self, env: Any, groups: dict[str, dict[str, TermCfg]], joined: bool = True
    ) -> None:
        self._env, self._groups = env, groups
        self.cfg = {name: types.SimpleNamespace(nan_policy="error") for name in groups}
        self.group_obs_concatenate = dict.fromkeys(groups, joined)
        self._histories = {
            (g, t): History(cfg.history)
            for g, terms in groups.items()
            for t, cfg in terms.items()
            if cfg.history
        }
        self._obs_buffer: dict[str, Any] | None = None
        self.group_obs_term_dim = {
            g: [
                (cfg.func(env).shape[1] * max(cfg.history, 1),)  # mjlab calls them all once, too.
                for cfg in terms.values()
            ]
            for g, terms in groups.items()
        }

    @property
    def active_terms(self) -> dict[str, list[str]]:
        return {group: list(terms) for group, terms in self._groups.items()}

    def compute(self, update_history: bool = False, env_ids: Any = None) -> dict[str, Any]:
        if not update_history and self._obs_buffer is not None:
            return self._obs_buffer
        self._obs_buffer = {g: self.compute_group(g, update_history, env_ids) for g in self._groups}
        return self._obs_buffer

    def compute_group(self, group: str, update_history: bool = False, env_ids: Any = None) -> Any:
        values = {}
        for name, cfg in self._groups[group].items():
            value = cfg.func(self._env).clone()
            if self.cfg[group].nan_policy == "error" and not value.isfinite().all():
                raise ValueError("NaN in an observation")
            if cfg.noise:
                value += cfg.noise * (2.0 * torch.rand_like(value) - 1.0)
            history = self._histories.get((group, name))
            if history is not None:
                if update_history:
                    history.append(value, env_ids)
                value = history.values()
            values[name] = value
        return torch.cat(list(values.values()), 1) if self.group_obs_concatenate[group] else values

    def reset(self, env_ids: torch.Tensor) -> None:
        self._obs_buffer = None
        for history in self._histories.values():
            history.reset(env_ids)


class ActionManager:
    active_terms, action_term_dim = ["push"], [1]

    def __init__(self, num_envs: int) -> None:
        self.action = torch.zeros(num_envs, 1)
        self.raw_action = self.action

    def get_term(self, name: str) -> Any:
        return self


class CommandManager:
    active_terms = ["goal"]

    def __init__(self, num_envs: int) -> None:
        self._goal = torch.zeros(num_envs, 1)
        self._left = torch.zeros(num_envs)

    def get_command(self, name: str) -> torch.Tensor:
        return self._goal

    def compute(self, dt: torch.Tensor) -> None:
        self._left -= dt
        self.resample((self._left <= 0.0).nonzero().flatten())

    def resample(self, env_ids: torch.Tensor) -> None:
        self._goal[env_ids] = torch.rand(len(env_ids), 1)
        self._left[env_ids] = 0.05 + 0.1 * torch.rand(len(env_ids))


class Rewards:
    active_terms = ["alive", "effort"]

    def __init__(self, env: Any) -> None:
        self._env, self._step_reward = env, torch.zeros(env.num_envs, 2)
        self._total = torch.zeros(env.num_envs)

    def compute(self) -> torch.Tensor:
        env = self._env
        self._step_reward[:, 0] = (
            env.sensor.data[:, 2] - env.command_manager.get_command("goal")[:, 0]
        )
        self._step_reward[:, 1] = -(env.action_manager.action[:, 0] ** 2)
        self._total[:] = self._step_reward.sum(1) * env.step_dt
        return self._total  # The same tensor in every step.


class Terminations:
    active_terms = ["time_out", "fell"]

    def __init__(self, env: Any) -> None:
        self._env = env
        self.terminated = torch.zeros(env.num_envs, dtype=torch.bool)
        self.time_outs = torch.zeros(env.num_envs, dtype=torch.bool)

    def compute(self) -> torch.Tensor:
        env = self._env
        self.time_outs[:] = env.episode_length_buf >= env.limits
        self.terminated[:] = env.sim.data.qpos[:, 1].abs() > env.cfg.max_angle
        return self.terminated | self.time_outs

    def get_term(self, name: str) -> torch.Tensor:
        return self.terminated if name == "fell" else self.time_outs


class RecorderManager:
    def __init__(self, cfg: dict[str, Any], env: Any) -> None:
        self._terms = {name: c.func(copy.deepcopy(c), env) for name, c in cfg.items()}

    @property
    def active_terms(self) -> list[str]:
        return list(self._terms)

    def get_term(self, name: str) -> Any:
        return self._terms[name]

    def __getattr__(self, hook: str) -> Any:
        if not hook.startswith("record_") and hook != "close":
            raise AttributeError(hook)
        return lambda *args: [getattr(term, hook)(*args) for term in self._terms.values()]


@dataclass
class Cfg:
    num_envs: int = 4
    seed: int | None = 0
    decimation: int = DECIMATION
    auto_reset: bool = True
    scale_rewards_by_dt: bool = True
    max_angle: float = 0.25
    joined: bool = True
    hidden: bool = False
    """Whether a term keeps something in a closure, where nobody can put it back."""
    recorders: dict[str, Any] = field(default_factory=dict)
    viewer: Any = field(default_factory=lambda: ViewerConfig(width=64, height=48))
    events: dict[str, Any] = field(default_factory=dict)


class FakeMjlabEnv:
    """mjlab's ManagerBasedRlEnv, as far as recorders can tell."""

    physics_dt, step_dt, device = 0.01, 0.01 * DECIMATION, "cpu"

    def __init__(self, cfg: Cfg) -> None:
        self.cfg = cfg
        torch.manual_seed(cfg.seed or 0)
        self.num_envs = n = cfg.num_envs
        self._sim_step_counter = self.common_step_counter = 0
        self.extras: dict[str, Any] = {}
        self.obs_buf: dict[str, Any] = {}
        self.sim = Sim(n)
        self.sensor = TipSensor(self.sim)
        self.scene = types.SimpleNamespace(
            spec=mujoco.MjSpec.from_string(XML),
            sensors={"tip": self.sensor},
            entities={},
            sensor_context=None,
            env_origins=torch.zeros(n, 3),
        )
        self.limits = 3 + torch.arange(n) % 5
        self.level = torch.zeros(n)
        self.episode_length_buf = torch.zeros(n, dtype=torch.long)
        # As in mjlab, reward_buf and the flags do not exist before the first step.
        self.action_manager = ActionManager(n)
        self.command_manager = CommandManager(n)
        data = self.sim.data
        policy = {
            "qpos": TermCfg(lambda env: data.qpos[...], noise=0.1),
            "tip": TermCfg(lambda env: env.sensor.data),
            "old": TermCfg(lambda env: data.xpos[:, 2, :2], history=3),
            "up_time": TermCfg(lambda env: env.sensor.up_time[:, None]),
            "action": TermCfg(lambda env: env.action_manager.action),
            "goal": TermCfg(lambda env: env.command_manager.get_command("goal")),
        }
        critic = {"qvel": TermCfg(lambda env: data.qvel[...]), "drift": TermCfg(Drift(n))}
        if cfg.hidden:
            calls = iter(range(1_000_000))
            critic["calls"] = TermCfg(lambda env: torch.full((n, 1), float(next(calls))))
        groups = {"policy": policy, "critic": critic}
        self.observation_manager = ObservationManager(self, groups, cfg.joined)
        self.termination_manager = Terminations(self)
        self.reward_manager = Rewards(self)
        self.recorder_manager = RecorderManager(cfg.recorders, self)

    def reset(self, env_ids: torch.Tensor | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = torch.arange(self.num_envs) if env_ids is None else env_ids
        self._reset_idx(ids)
        self.sim.forward()
        self.obs_buf = self.observation_manager.compute(update_history=True, env_ids=ids)
        self.recorder_manager.record_post_reset(ids)
        return self.obs_buf, self.extras

    def step(self, action: torch.Tensor) -> tuple[Any, ...]:
        self.extras["log"] = {}
        if action.shape != (self.num_envs, 1):
            raise ValueError("Invalid action shape")
        self.action_manager.action[:] = action
        for _ in range(self.cfg.decimation):
            self._sim_step_counter += 1
            self.sim.data.ctrl[:] = self.action_manager.action
            self.sim.step()
            self.sensor.update(self.physics_dt)
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_buf = self.termination_manager.compute()
        self.reset_terminated = self.termination_manager.terminated
        self.reset_time_outs = self.termination_manager.time_outs
        self.reward_buf = self.reward_manager.compute()
        if self.common_step_counter % 3 == 0:
            self.sim.data.qvel[:, 1] += 0.5 * torch.rand(self.num_envs)
        ids = self.reset_buf.nonzero().flatten()
        resets = self.cfg.auto_reset and len(ids) > 0
        if resets:
            self.recorder_manager.record_pre_reset(ids)
            self._reset_idx(ids)
        self.sim.forward()
        dt = torch.full((self.num_envs,), self.step_dt)
        dt[ids] = 0.0
        self.command_manager.compute(dt)
        self.obs_buf = self.observation_manager.compute(update_history=True)
        if resets:
            self.recorder_manager.record_post_reset(ids)
        self.recorder_manager.record_post_step()
        flags = self.reset_terminated, self.reset_time_outs
        return self.obs_buf, self.reward_buf, *flags, self.extras

    def close(self) -> None:
        self.recorder_manager.close()

    def _reset_idx(self, ids: torch.Tensor) -> None:
        # A curriculum that reads derived quantities of the episode's last substep.
        self.level[ids] += self.sim.data.xpos[ids, 2, 0] + self.sensor.data[ids, 2]
        self.sim.reset(ids)
        self.sensor.reset(ids)
        self.sim.data.qpos[ids] = 0.02 * torch.rand(len(ids), 2) + 0.001 * self.level[ids, None]
        self.observation_manager.reset(ids)
        self.action_manager.action[ids] = 0.0
        self.command_manager.resample(ids)
        self.episode_length_buf[ids] = 0
