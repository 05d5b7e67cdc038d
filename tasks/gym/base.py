"""What the configs of all Gymnasium tasks have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import JointEffortActionCfg, time_out
from mjlab_rec.managers import (
    EventTermCfg,
    MetricsTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.viewer import ViewerConfig
from tasks.gym import mdp
from tasks.gym.model import ROBOT, motor_joints, scene_cfg, simulation_cfg


def gym_env_cfg(
    xml: str,
    *,
    frame_skip: int,
    observations: dict[str, ObservationTermCfg],
    rewards: dict[str, RewardTermCfg],
    reset: EventTermCfg,
    terminations: dict[str, TerminationTermCfg] | None = None,
    metrics: dict[str, MetricsTermCfg] | None = None,
    position: Callable[[ManagerBasedRlEnv], torch.Tensor] | None = None,
    contact_forces: bool = False,
    max_episode_steps: int = 1000,
    viewer: ViewerConfig | None = None,
) -> ManagerBasedRlEnvCfg:
    """Build a task that behaves like one of Gymnasium's MuJoCo environments.

    Args:
        xml: The model's file in the gymnasium package.
        frame_skip: Physics steps per control step.
        observations: What the policy sees.
        rewards: The terms of the reward, under the names of Gymnasium's info.
        reset: How an episode starts.
        terminations: Why an episode ends, apart from the time limit.
        metrics: The other entries of Gymnasium's info.
        position: Where the robot is, if a term reads its velocity.
        contact_forces: Whether a term reads ``cfrc_ext``.
        max_episode_steps: The time limit.
        viewer: The camera.
    """
    sim = simulation_cfg(xml)
    motors: dict[str, Any] = {
        "entity_name": ROBOT,
        "actuator_names": motor_joints(xml),
        "preserve_order": True,
    }
    return ManagerBasedRlEnvCfg(
        scene=scene_cfg(xml, contact_forces),
        sim=sim,
        viewer=viewer or follow("torso"),
        decimation=frame_skip,
        episode_length_s=max_episode_steps * frame_skip * sim.mujoco.timestep,
        # The critic sees the same: rl_cfg says so.
        observations={"actor": ObservationGroupCfg(observations)},
        actions={
            mdp.MOTORS: JointEffortActionCfg(**motors)
            if position is None
            else mdp.MotorActionCfg(**motors, position=position)
        },
        rewards=rewards,
        scale_rewards_by_dt=False,
        terminations={
            "time_out": TerminationTermCfg(func=time_out, time_out=True),
            **(terminations or {}),
        },
        events={"reset": reset},
        metrics=metrics or {},
        # Gymnasium observes what the last physics step left.
        forward_after_step=False,
    )


def follow(body: str, distance: float = 4.0, elevation: float = -20.0) -> ViewerConfig:
    """A camera that follows a body. All worlds share one place, so only one is drawn."""
    return ViewerConfig(
        origin_type=ViewerConfig.OriginType.ASSET_BODY,
        entity_name=ROBOT,
        body_name=body,
        distance=distance,
        elevation=elevation,
        max_extra_envs=0,
    )


def watch(
    lookat: tuple[float, float, float], distance: float, elevation: float = -20.0
) -> ViewerConfig:
    """A camera that stays where it is. All worlds share one place, so only one is drawn."""
    return ViewerConfig(
        origin_type=ViewerConfig.OriginType.WORLD,
        lookat=lookat,
        distance=distance,
        elevation=elevation,
        max_extra_envs=0,
    )


def mean(func: Callable[..., torch.Tensor], **params: object) -> MetricsTermCfg:
    """Log the mean over an episode."""
    return MetricsTermCfg(func=func, params=params)


def last(func: Callable[..., torch.Tensor], **params: object) -> MetricsTermCfg:
    """Log the value at the end of an episode."""
    return MetricsTermCfg(func=func, params=params, reduce="last")
