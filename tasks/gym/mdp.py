"""Terms that several of these tasks share: observations, motors, velocities, costs and resets.

They read MuJoCo's own arrays rather than the entity's, as Gymnasium's environments do: the model of
a task is the whole world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp import JointEffortAction, JointEffortActionCfg
from mjlab_rec.envs.mdp.actions.ranges import target_ranges
from tasks.gym.model import ROBOT

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

MOTORS = "motors"
"""Name of the action term."""


def qpos(env: ManagerBasedRlEnv, skip: int = 0) -> torch.Tensor:
    """Positions of the joints, without the first ``skip``. Shape (num_envs, nq - skip)."""
    return env.sim.data.qpos[:, skip:]


def qvel(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Velocities of the joints. Shape (num_envs, nv)."""
    return env.sim.data.qvel


def position(env: ManagerBasedRlEnv, index: int, origin: float = 0.0) -> torch.Tensor:
    """One number of qpos, measured from ``origin``. Shape (num_envs,)."""
    value = env.sim.data.qpos[:, index]
    return value - origin if origin else value


def distance_from_origin(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Length of the first two numbers of qpos, x and y. Shape (num_envs,)."""
    return torch.linalg.vector_norm(env.sim.data.qpos[:, :2], dim=-1)


def contact_forces(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Torque and force of the contacts on each body but the world. Shape (num_envs, 6 * bodies).

    They are zero at the start of an episode, as in Gymnasium, where no step has computed them yet.
    """
    return torch.where(env.episode_length_buf[:, None] == 0, 0.0, step_contact_forces(env))


def step_contact_forces(env: ManagerBasedRlEnv) -> torch.Tensor:
    """The same for terms that are computed only after a step, such as rewards."""
    return env.sim.data.cfrc_ext[:, 1:].flatten(start_dim=1)


def largest(*parts: torch.Tensor) -> torch.Tensor:
    """The largest absolute value in a row of all parts; NaN if one is NaN. Shape (num_envs,)."""
    return torch.linalg.vector_norm(torch.cat(parts, dim=-1), ord=torch.inf, dim=-1)


def is_finite(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Whether all positions and velocities are finite numbers. Shape (num_envs,)."""
    return largest(env.sim.data.qpos, env.sim.data.qvel) < torch.inf


def body_pos(env: ManagerBasedRlEnv, body: str) -> torch.Tensor:
    """Where a body is in the world. Shape (num_envs, 3)."""
    return env.sim.data.xpos[:, _body_id(env, body)]


def between(env: ManagerBasedRlEnv, a: str, b: str) -> torch.Tensor:
    """The way from body b to body a. Shape (num_envs, 3)."""
    return body_pos(env, a) - body_pos(env, b)


def distance(env: ManagerBasedRlEnv, a: str, b: str) -> torch.Tensor:
    """Distance of two bodies. Shape (num_envs,)."""
    return torch.linalg.vector_norm(between(env, a, b), dim=-1)


def root_xy(env: ManagerBasedRlEnv) -> torch.Tensor:
    """The first two numbers of qpos, as precisely as the engine has them. Shape (num_envs, 2)."""
    return env.sim.precise("qpos")[:, :2]


@dataclass(kw_only=True)
class MotorActionCfg(JointEffortActionCfg):
    """Torques of the motors. The term also measures how fast the robot moves during a step."""

    position: Callable[[ManagerBasedRlEnv], torch.Tensor]
    """Where the robot is. Shape (num_envs, n)."""

    def build(self, env: ManagerBasedRlEnv) -> MotorAction:
        """Make the term."""
        return MotorAction(self, env)


class MotorAction(JointEffortAction):
    """Torques of the motors. It notes where the robot is before the physics takes its steps."""

    cfg: MotorActionCfg

    def __init__(self, cfg: MotorActionCfg, env: ManagerBasedRlEnv) -> None:
        super().__init__(cfg, env)
        self._before = cfg.position(env)
        self._velocity: torch.Tensor | None = None

    @property
    def action_bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The motors' ranges of control, beyond which MuJoCo clamps; each (action_dim,)."""
        model, kind = self._env.sim.mj_model, self.cfg.transmission_type
        ids = self._target_ids.tolist()
        low, high = target_ranges(model, self._entity, kind, "effort", ids)
        return low.to(self.device), high.to(self.device)

    @property
    def velocity(self) -> torch.Tensor:
        """Distance covered in this control step through its duration. Shape (num_envs, n)."""
        if self._velocity is None:
            distance = self.cfg.position(self._env) - self._before
            self._velocity = (distance / self._env.step_dt).float()
        return self._velocity

    def process_actions(self, actions: torch.Tensor) -> None:
        """Take the policy's action, and note where the robot is."""
        super().process_actions(actions)
        self._before = self.cfg.position(self._env)
        self._velocity = None


def velocity(env: ManagerBasedRlEnv, axis: int) -> torch.Tensor:
    """Mean velocity during the control step along x (0) or y (1). Shape (num_envs,)."""
    motors = env.action_manager.get_term(MOTORS)
    assert isinstance(motors, MotorAction)
    return motors.velocity[:, axis]


def action_l2(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Sum of the squared actions, as the policy gave them. Shape (num_envs,)."""
    return env.action_manager.action.square().sum(dim=-1)


def reset_with_noise(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    pos_noise: float,
    vel_noise: float,
    gaussian_vel: bool = False,
) -> None:
    """Start near the model's initial state.

    Args:
        env: The environment.
        env_ids: Environments to reset; None for all.
        pos_noise: Largest change of a position.
        vel_noise: Largest velocity; its standard deviation if it is Gaussian.
        gaussian_vel: Draw velocities from a normal distribution instead of a uniform one.
    """
    ids = all_or(env, env_ids)
    qpos, qvel = env.sim.data.qpos, env.sim.data.qvel
    start = env.sim.get_default_field("qpos0")
    noise = env.rng.uniform(-pos_noise, pos_noise, (len(ids), qpos.shape[1]), ids)
    shape = (len(ids), qvel.shape[1])
    if gaussian_vel:
        speed = env.rng.gaussian(0.0, vel_noise, shape, ids)
    else:
        speed = env.rng.uniform(-vel_noise, vel_noise, shape, ids)
    qpos[ids] = start + noise
    qvel[ids] = speed


def all_or(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> torch.Tensor:
    """Return the ids, or those of all environments for None."""
    return torch.arange(env.num_envs, device=env.device) if env_ids is None else env_ids


def _body_id(env: ManagerBasedRlEnv, body: str) -> int:
    return env.sim.mj_model.body(f"{ROBOT}/{body}").id
