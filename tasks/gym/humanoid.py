"""Humanoid: a body with arms and legs walks forward."""

from __future__ import annotations

import torch

from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.envs.mdp import is_alive
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg, TerminationTermCfg
from tasks.gym import mdp
from tasks.gym.base import gym_env_cfg, last, mean


def mass_center(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Where the centre of all mass is, as precisely as the engine has it. Shape (num_envs, 2)."""
    places = env.sim.precise("xipos")[..., :2]
    mass = env.sim.model.body_mass.to(places.dtype)
    return (mass[..., None] * places).sum(dim=1) / mass.sum(dim=1, keepdim=True)


def inertia(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Inertia and mass of each body but the world (cinert). Shape (num_envs, 10 * bodies)."""
    return env.sim.data.cinert[:, 1:].flatten(start_dim=1)


def body_velocity(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Velocity of each body but the world (cvel). Shape (num_envs, 6 * bodies)."""
    return env.sim.data.cvel[:, 1:].flatten(start_dim=1)


def motor_torque(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Torques of the motors on the joints behind the free one. Shape (num_envs, nv - 6)."""
    return env.sim.data.qfrc_actuator[:, 6:]


def contact_cost(env: ManagerBasedRlEnv, largest: float) -> torch.Tensor:
    """Sum of the squared contact forces, at most ``largest``. Shape (num_envs,)."""
    return mdp.step_contact_forces(env).square().sum(dim=-1).clamp(max=largest)


def tendon(env: ManagerBasedRlEnv, field: str, index: int) -> torch.Tensor:
    """One tendon's number in ``ten_length`` or ``ten_velocity``. Shape (num_envs,)."""
    return getattr(env.sim.data, field)[:, index]


def unhealthy(env: ManagerBasedRlEnv, z_range: tuple[float, float] = (1.0, 2.0)) -> torch.Tensor:
    """The torso is too low or too high. Shape (num_envs,)."""
    z = env.sim.data.qpos[:, 2]
    return ~((z > z_range[0]) & (z < z_range[1]))


def humanoid_env_cfg() -> ManagerBasedRlEnvCfg:
    """Humanoid-v5: a body with arms and legs walks forward."""
    return gym_env_cfg(
        "humanoid.xml",
        frame_skip=5,
        position=mass_center,
        contact_forces=True,
        observations={
            "qpos": ObservationTermCfg(func=mdp.qpos, params={"skip": 2}),
            "qvel": ObservationTermCfg(func=mdp.qvel),
            "inertia": ObservationTermCfg(func=inertia),
            "body_velocity": ObservationTermCfg(func=body_velocity),
            "motor_torque": ObservationTermCfg(func=motor_torque),
            "contact_forces": ObservationTermCfg(func=mdp.contact_forces),
        },
        rewards={
            "reward_survive": RewardTermCfg(func=is_alive, weight=5.0),
            "reward_forward": RewardTermCfg(func=mdp.velocity, params={"axis": 0}, weight=1.25),
            "reward_ctrl": RewardTermCfg(func=mdp.action_l2, weight=-0.1),
            # At most 10 is lost.
            "reward_contact": RewardTermCfg(
                func=contact_cost, params={"largest": 2e7}, weight=-5e-7
            ),
        },
        terminations={"unhealthy": TerminationTermCfg(func=unhealthy)},
        metrics={
            "x_position": last(mdp.position, index=0),
            "y_position": last(mdp.position, index=1),
            "tendon_length_0": mean(tendon, field="ten_length", index=0),
            "tendon_length_1": mean(tendon, field="ten_length", index=1),
            "tendon_velocity_0": mean(tendon, field="ten_velocity", index=0),
            "tendon_velocity_1": mean(tendon, field="ten_velocity", index=1),
            "distance_from_origin": last(mdp.distance_from_origin),
            "x_velocity": mean(mdp.velocity, axis=0),
            "y_velocity": mean(mdp.velocity, axis=1),
        },
        reset=EventTermCfg(
            func=mdp.reset_with_noise,
            mode="reset",
            params={"pos_noise": 1e-2, "vel_noise": 1e-2},
        ),
    )
