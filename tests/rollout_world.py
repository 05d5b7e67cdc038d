"""Worlds in which a test decides how every step ends, and a log of what happens in them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from rollout_model import Call, FailedStep, Happening, Reset, Step
from waiting import PATIENCE_S
from worlds import Goal as _Goal
from worlds import GoalCfg, cart_cfg, tip

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.envs.running_episodes import RunningEpisodes
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RecorderTerm,
    RecorderTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.recorder_manager import RecorderManager
from mjlab_rec.recorders import Channel
from mjlab_rec.sim import MujocoCfg, SimulationCfg


class Boom(Exception):
    """The error of a step that is to fail."""


@dataclass
class Script:
    """What is to happen in the step that is being taken."""

    ends: list[int] = field(default_factory=list)  # 1 terminated, 2 truncated, 3 both
    wins: list[bool] = field(default_factory=list)
    fail: str = ""  # where the step fails
    inside: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    height: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # what the reward said

    def at(self, place: str) -> None:
        """The step has come to a place."""
        due = [call for where, call in self.inside if where == place]
        self.inside = [(where, call) for where, call in self.inside if where != place]
        for call in due:
            call()
        if self.fail == place:
            self.fail = ""
            raise Boom(place)


def script(env: Any) -> Script:
    """The script of an environment."""
    if not hasattr(env, "script"):
        env.script = Script()
    return env.script


def _flags(env: Any, values: list[Any]) -> torch.Tensor:
    return torch.tensor([bool(v) for v in values] or [False] * env.num_envs, device=env.device)


def terminates(env: Any) -> torch.Tensor:
    script(env).at("termination")
    return _flags(env, [end & 1 for end in script(env).ends])


def truncates(env: Any) -> torch.Tensor:
    return _flags(env, [end & 2 for end in script(env).ends])


def wins(env: Any) -> torch.Tensor:
    """What tells successes: a termination term, or a function that a recorder is given."""
    return _flags(env, script(env).wins)


def reward(env: Any) -> torch.Tensor:
    script(env).at("reward")
    script(env).height = tip(env)[:, 2].clone()
    return script(env).height


def at_step(env: Any, env_ids: Any) -> None:
    script(env).at("event")


def at_reset(env: Any, env_ids: torch.Tensor) -> None:
    script(env).at("reset")


def plain_tip(env: Any) -> torch.Tensor:
    script(env).at("observation")
    return tip(env)


class Goal(_Goal):
    def _update_command(self, env_ids: torch.Tensor | None) -> None:
        script(self._env).at("command")
        super()._update_command(env_ids)


@dataclass(kw_only=True)
class ScriptedGoalCfg(GoalCfg):
    def build(self, env: Any) -> Goal:
        return Goal(self, env)


@requires_model_fields("dof_damping")
def soften(env: Any, env_ids: torch.Tensor) -> None:
    """Damping that is another one in each world and episode."""
    count = env.sim.model.dof_damping.shape[1]
    env.sim.model.dof_damping[env_ids] = env.rng.uniform(0.01, 0.3, (len(env_ids), count), env_ids)


@requires_model_fields("dof_frictionloss")
def wear(env: Any, env_ids: Any) -> None:
    """Friction that is another one in each world and step."""
    env.sim.model.dof_frictionloss[:] += 0.001


def age(env: Any) -> torch.Tensor:
    return env.episode_length_buf.clone()


CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "tick": lambda env: env.common_step_counter // 3 % 2 == 1,
    "waves": lambda env: (
        (env.common_step_counter + torch.arange(env.num_envs, device=env.device)) % 5 > 2
    ),
    "old": lambda env: env.episode_length_buf >= 2,
    "odd": lambda env: env.episode_length_buf % 2 == 1,
}

OWN = {
    "own/before": Channel(name="own/before", func=age, when="before"),
    "own/after": Channel(name="own/after", func=age, when="after"),
    "own/tip": Channel(name="own/tip", func=tip, when="after"),
}


def given(channels: tuple[Any, ...]) -> list[Any]:
    """The same channels for start_recording(): those of OWN as a function."""
    own = [c.name.removeprefix("own/") for c in channels if c in (OWN["own/after"], OWN["own/tip"])]
    rest = [c for c in channels if c not in (OWN["own/after"], OWN["own/tip"])]

    def data(env: Any) -> dict[str, Any]:
        values = {"after": age(env).numpy(force=True), "tip": tip(env)}
        return {"own": {name: values[name] for name in own}}

    return [*rest, data] if own else rest


_TERMS = ("joints", "late", "past", "goal", "action")
_PLAIN = ("joints", "tip", "goal")


class Trap(RecorderTerm):
    """A recorder that makes steps fail in its hooks."""

    draws_random_numbers = False

    def record_pre_step(self) -> None:
        script(self._env).at(f"{self.cfg.params['where']} recorder, pre step")

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        script(self._env).at(f"{self.cfg.params['where']} recorder, pre reset")

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        script(self._env).at(f"{self.cfg.params['where']} recorder, post reset")

    def record_post_step(self) -> None:
        script(self._env).at(f"{self.cfg.params['where']} recorder, post step")


class Short:
    """Shows only what differs from the defaults."""

    def __repr__(self) -> str:
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)  # type: ignore[arg-type]
            if f.default is MISSING or getattr(self, f.name) != f.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class World(Short):
    """What kind of environment."""

    num_envs: int = 1
    auto_reset: bool = True
    rich: bool = False  # noise, delays, history
    fields: str = ""  # per-world model fields that change: "", "reset", "step" or "both"
    success_term: bool = False
    engine: str = "mjbatch"

    def cfg(self, recorders: dict[str, Any]) -> ManagerBasedRlEnvCfg:
        """The environment's cfg, with these recorders."""
        if recorders:
            first = RecorderTermCfg(func=Trap, params={"where": "first"})
            last = RecorderTermCfg(func=Trap, params={"where": "last"})
            recorders = {"_first": first, **recorders, "_last": last}
        robot = {"asset_cfg": SceneEntityCfg("robot")}
        command = {"command_name": "goal"}
        plain = {
            "joints": ObservationTermCfg(func=mdp.joint_pos_rel, params=robot),
            "tip": ObservationTermCfg(func=plain_tip),
            "goal": ObservationTermCfg(func=mdp.generated_commands, params=command),
        }
        more: dict[str, Any] = {"plain": ObservationGroupCfg(plain, concatenate_terms=False)}
        base = cart_cfg(self.num_envs)
        observations = {**base.observations, **more} if self.rich else more
        events = {
            **base.events,
            "at step": EventTermCfg(func=at_step, mode="step"),
            "at reset": EventTermCfg(func=at_reset, mode="reset"),
        }
        if self.fields in ("reset", "both"):
            events["soften"] = EventTermCfg(func=soften, mode="reset")
        if self.fields in ("step", "both"):
            events["wear"] = EventTermCfg(func=wear, mode="step")
        terminations = {
            "end": TerminationTermCfg(func=terminates),
            "time": TerminationTermCfg(func=truncates, time_out=True),
        }
        if self.success_term:
            terminations["success"] = TerminationTermCfg(func=wins)
        return cart_cfg(
            self.num_envs,
            decimation=1,
            sim=SimulationCfg(mujoco=MujocoCfg(timestep=0.01), engine=self.engine),
            auto_reset=self.auto_reset,
            observations=observations,
            commands={"goal": ScriptedGoalCfg(resampling_time_range=(0.02, 0.05))},
            rewards={
                "height": RewardTermCfg(func=reward, weight=1.0),
                "effort": RewardTermCfg(func=mdp.action_rate_l2, weight=-0.1),
            },
            terminations=terminations,
            events=events,
            curriculum={},
            recorders=recorders,
        )

    @property
    def observations(self) -> list[str]:
        """Names of the channels that "obs" stands for, without the prefix."""
        plain = [f"plain/{name}" for name in _PLAIN]
        rich = ["actor", *(f"critic/{name}" for name in _TERMS)]
        return rich + plain if self.rich else plain

    def channels(self, asked: tuple[str, ...]) -> list[str]:
        """What channels there must be if these are asked for."""
        found: list[str] = []
        for name in asked:
            if name in ("obs", "next_obs"):
                found += [f"{name}/{each}" for each in self.observations]
            elif name == "command":
                found.append("command/goal")
            else:
                found.append(name)
        if "state" in asked and self.fields in ("step", "both"):
            found.append("model/dof_frictionloss")
        return found


def new_env(world: World, recorders: dict[str, Any]) -> ManagerBasedRlEnv:
    """A new environment."""
    return ManagerBasedRlEnv(world.cfg(recorders))


_USED: dict[World, tuple[ManagerBasedRlEnv, dict[str, torch.Tensor]]] = {}


def used_env(world: World, recorders: dict[str, Any]) -> ManagerBasedRlEnv:
    """An environment that was used before, as it was when it was new, with other recorders.

    For engines that take long to make one. Only its recorders are to be closed.
    """
    if world not in _USED:
        env = ManagerBasedRlEnv(world.cfg({}))
        fields = {name: getattr(env.sim.model, name).clone() for name in env.sim.expanded_fields}
        _USED[world] = env, fields
    env, fields = _USED[world]
    env.reset()
    for name, value in fields.items():
        getattr(env.sim.model, name).copy_(value)
    env.common_step_counter = 0
    env.obs_buf = {}
    env.extras = {"log": {}}
    for buffer in ("reward_buf", "reset_buf", "reset_terminated", "reset_time_outs"):
        setattr(env, buffer, torch.zeros_like(getattr(env, buffer)))
    env.script = Script()
    env.running_episodes = RunningEpisodes(env.num_envs, env.device)
    env.termination_manager.compute()
    env.seed(env.cfg.seed)
    env.use_recorders(RecorderManager(world.cfg(recorders).recorders, env))
    return env


class Driver:
    """Takes the steps and resets of an environment and notes what happened."""

    def __init__(self, env: ManagerBasedRlEnv, world: World) -> None:
        self.env = env
        self.world = world
        self.log: list[Happening] = []
        self.awaits_reset: set[int] = set()
        self.later: dict[str, Any] = {}  # cfgs of the recorders that are added
        self.terms: dict[str, RecorderTerm] = {}
        self._actions = torch.Generator().manual_seed(5)
        script(env)

    def call(self, recorder: str, name: str, envs: tuple[int, ...] | None = None) -> None:
        """Make a request to a recorder, or add or remove it."""
        if name == "add":
            cfg = self.later[recorder]
            data = given(cfg.channels)
            self.terms[recorder] = self.env.start_recording(data, cfg, name=recorder)
        elif name == "remove":
            self.env.stop_recording(recorder)
        elif name == "reset":
            self.terms[recorder].reset(envs)
        else:
            getattr(self.terms[recorder], name)()
        if name != "flush":
            self.log.append(Call(recorder=recorder, name=name, envs=envs))

    def reset(self, envs: list[int] | None = None, fail: bool = False) -> None:
        """Reset some environments by hand; None: all. If it is to fail, all are reset after it."""
        n = self.env.num_envs
        if fail:
            script(self.env).fail = "reset"
            with contextlib.suppress(Boom):
                self.env.reset(env_ids=None if envs is None else torch.tensor(envs))
            envs = None
        self.env.reset(env_ids=None if envs is None else torch.tensor(envs))
        self.awaits_reset -= set(range(n) if envs is None else envs)
        self.log.append(Reset(envs=tuple(range(n) if envs is None else envs)))

    def step(
        self,
        ends: list[int],
        won: list[bool],
        fail: str = "",
        inside: tuple[tuple[str, str, str], ...] = (),
    ) -> bool:
        """Steps a step; returns whether it went well."""
        env, n = self.env, self.env.num_envs
        t = env.common_step_counter
        called: list[Call] = []

        def later(recorder: str, name: str) -> Callable[[], None]:
            name, _, where = name.partition(" ")

            def call() -> None:
                told = getattr(self.terms[recorder], name)
                if where:  # by another thread
                    thread = threading.Thread(target=told, daemon=True)
                    thread.start()
                    thread.join(PATIENCE_S)
                    assert not thread.is_alive(), "a call from another thread does not come back"
                else:
                    told()
                if name != "flush":
                    called.append(Call(recorder=recorder, name=name))

            return call

        calls = [(place, later(recorder, name)) for place, recorder, name in inside]
        conditions = {name: _copy(func(env)) for name, func in CONDITIONS.items()}
        values = {f"obs/{name}": _copy(v) for name, v in _flat(env.obs_buf)}
        values["command/goal"] = _copy(env.command_manager.get_command("goal"))
        values["entity/robot/joint_pos"] = _copy(env.scene["robot"].data.joint_pos)
        values["state"] = _copy(env.sim.get_state())
        values["own/before"] = _copy(env.episode_length_buf)
        values["own/after"] = values["own/before"] + 1
        fields = {}
        if self.world.fields in ("reset", "both"):
            fields["dof_damping"] = _copy(env.sim.model.dof_damping)
        if self.world.fields in ("step", "both"):
            values["model/dof_frictionloss"] = _copy(env.sim.model.dof_frictionloss)
        size = 7 if fail == "action" else 1
        action = torch.rand(n, size, generator=self._actions) * 2 - 1
        env.script = Script(ends, won, fail, calls)
        over = [e | (w and self.world.success_term) for e, w in zip(ends, won, strict=True)]
        try:
            _, reward, terminated, truncated, extras = env.step(action.to(env.device))
        except Exception as error:
            if not isinstance(error, Boom) and fail != "action":
                raise
            if not self.world.auto_reset:
                self.awaits_reset = set(env._awaits_reset)
            self.log.append(FailedStep(t=t, conditions=conditions))
            self.log += called
            return False
        finally:
            height, env.script = env.script.height, Script(ends, won)
        if "final_obs" in extras:  # Otherwise it is not compared.
            values |= {f"next_obs/{name}": _copy(v) for name, v in _flat(extras["final_obs"])}
            values["own/tip"] = values["next_obs/plain/tip"]
        values["action"] = values["processed_action"] = values["ctrl"] = _copy(action)
        values["reward"] = _copy(reward)
        values["terminated"] = _copy(terminated)
        values["truncated"] = _copy(truncated)
        values["reward_terms/height"] = _copy(height * env.step_dt)
        assert values["terminated"].tolist() == [bool(end & 1) for end in over]
        assert values["truncated"].tolist() == [bool(end & 2) for end in over]
        success = {"wins": np.array(won), "end": np.array([bool(end & 1) for end in ends])}
        self.log.append(
            Step(t=t, values=values, success=success, conditions=conditions, fields=fields)
        )
        done = tuple(np.flatnonzero(values["terminated"] | values["truncated"]).tolist())
        if self.world.auto_reset and done:
            self.log.append(Reset(envs=done))
        else:
            self.awaits_reset |= set(done)
        self.log += called
        return True


def _flat(obs: dict[str, Any], prefix: str = "") -> Any:
    for name, value in obs.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _copy(value: Any) -> Any:
    return value if isinstance(value, bool) else value.detach().cpu().numpy().copy()
