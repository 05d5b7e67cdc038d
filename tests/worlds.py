"""A small but complete environment for tests: a cart with a pole, and every kind of term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import torch

from mjlab_rec.actuator import XmlActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    CommandTerm,
    CommandTermCfg,
    CurriculumTermCfg,
    EventTermCfg,
    MetricsTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.utils.noise import UniformNoiseCfg

CART = """
<mujoco>
  <worldbody>
    <body name="cart" pos="0 0 1">
      <joint name="slider" type="slide" axis="1 0 0" damping="0.1"/>
      <geom name="cart" type="box" size="0.2 0.15 0.1" mass="1"/>
      <body name="pole">
        <joint name="hinge" type="hinge" axis="0 1 0" damping="0.01"/>
        <geom name="pole" type="capsule" fromto="0 0 0 0 0 1" size="0.045" mass="0.1"/>
        <site name="tip" pos="0 0 1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="push" joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


def lengths(env: ManagerBasedRlEnv, steps: tuple[int, ...]) -> torch.Tensor:
    """End the episodes of environment i after steps[i % len(steps)] steps."""
    limits = torch.tensor(steps, device=env.device)[
        torch.arange(env.num_envs, device=env.device) % len(steps)
    ]
    return env.episode_length_buf >= limits


def tip(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Position of the pole's tip: a derived quantity, current only after a forward pass."""
    return env.scene["robot"].data.site_pos_w[:, 0]


def tip_height(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Height of the pole's tip as a reward."""
    return tip(env)[:, 2]


def user_noise(env: ManagerBasedRlEnv, env_ids: torch.Tensor) -> None:
    """A user's event that draws from torch's global generator."""
    robot = env.scene["robot"]
    robot.write_joint_velocity_to_sim(torch.rand(len(env_ids), 2) * 0.1, env_ids=env_ids)


def shaky(env: ManagerBasedRlEnv) -> torch.Tensor:
    """A user's observation that draws from torch and from the environment's streams."""
    return torch.rand(env.num_envs, 1) + env.rng.uniform(0.0, 1.0, (env.num_envs, 1))


def user_kick(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> None:
    """A user's event for all environments at once."""
    robot = env.scene["robot"]
    robot.write_joint_velocity_to_sim(robot.data.joint_vel + 0.1)


def reach(env: ManagerBasedRlEnv, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """A curriculum that looks at where the episodes ended: a derived quantity."""
    return {"tip": tip(env)[env_ids, 0].mean()}


class Goal(CommandTerm):
    """A random goal that drifts a little every step."""

    def __init__(self, cfg: GoalCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self.goal = torch.zeros(env.num_envs, 1, device=env.device)
        self.metrics["age"] = torch.zeros(env.num_envs, device=env.device)

    @property
    def command(self) -> torch.Tensor:
        return self.goal

    def _update_metrics(self) -> None:
        self.metrics["age"] += 1

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        self.goal[env_ids] = self._env.rng.uniform(-1.0, 1.0, (len(env_ids), 1), env_ids)

    def _update_command(self, env_ids: torch.Tensor | None) -> None:
        self.goal[slice(None) if env_ids is None else env_ids] += 0.01


@dataclass(kw_only=True)
class GoalCfg(CommandTermCfg):
    """Configuration of ``Goal``."""

    def build(self, env: Any) -> Goal:
        return Goal(self, env)


def cart_cfg(
    num_envs: int = 4, steps: tuple[int, ...] = (7, 4, 9, 5), **overrides: Any
) -> ManagerBasedRlEnvCfg:
    """Noise, delay, history, commands, pushes and resets; episodes end at different steps."""
    noise = UniformNoiseCfg(n_min=-0.1, n_max=0.1)
    robot = SceneEntityCfg("robot")
    terms = {
        "joints": ObservationTermCfg(
            func=mdp.joint_pos_rel, params={"asset_cfg": robot}, noise=noise
        ),
        "late": ObservationTermCfg(
            func=mdp.joint_vel_rel,
            params={"asset_cfg": robot},
            noise=noise,
            delay_max_lag=2,
            delay_hold_prob=0.3,
        ),
        "past": ObservationTermCfg(func=tip, history_length=3),
        "goal": ObservationTermCfg(func=mdp.generated_commands, params={"command_name": "goal"}),
        "action": ObservationTermCfg(func=mdp.last_action),
    }
    cfg: dict[str, Any] = dict(
        decimation=4,
        seed=11,
        episode_length_s=10.0,
        scene=SceneCfg(
            num_envs=num_envs,
            entities={
                "robot": EntityCfg(
                    spec_fn=lambda: mujoco.MjSpec.from_string(CART),
                    articulation=EntityArticulationInfoCfg(
                        actuators=(XmlActuatorCfg(target_names_expr=("slider",)),)
                    ),
                )
            },
        ),
        sim=SimulationCfg(mujoco=MujocoCfg(timestep=0.01)),
        actions={"push": mdp.JointEffortActionCfg(entity_name="robot", actuator_names=("slider",))},
        observations={
            "actor": ObservationGroupCfg(terms, enable_corruption=True),
            "critic": ObservationGroupCfg(dict(terms), concatenate_terms=False),
        },
        commands={"goal": GoalCfg(resampling_time_range=(0.08, 0.3))},
        rewards={
            "height": RewardTermCfg(func=tip_height, weight=1.0),
            "effort": RewardTermCfg(func=mdp.action_rate_l2, weight=-0.1),
        },
        curriculum={"reach": CurriculumTermCfg(func=reach)},
        metrics={"height": MetricsTermCfg(func=tip_height)},
        terminations={
            "end": TerminationTermCfg(func=lengths, params={"steps": steps}),
            "time_out": TerminationTermCfg(func=mdp.time_out, time_out=True),
        },
        events={
            "start": EventTermCfg(
                func=mdp.reset_joints_by_offset,
                mode="reset",
                params={
                    "position_range": (-0.2, 0.2),
                    "velocity_range": (-0.2, 0.2),
                    "asset_cfg": SceneEntityCfg("robot"),
                },
            ),
            "together": EventTermCfg(
                func=user_kick, mode="interval", interval_range_s=(0.1, 0.3), is_global_time=True
            ),
            "kick": EventTermCfg(
                func=mdp.reset_joints_by_offset,
                mode="interval",
                interval_range_s=(0.1, 0.2),
                params={
                    "position_range": (-0.1, 0.1),
                    "velocity_range": (-0.1, 0.1),
                    "asset_cfg": SceneEntityCfg("robot", joint_names=("hinge",)),
                },
            ),
        },
    )
    cfg.update(overrides)
    return ManagerBasedRlEnvCfg(**cfg)


def actions(count: int, num_envs: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """Random actions from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(num_envs, 1, generator=generator) * 2 - 1 for _ in range(count)]
