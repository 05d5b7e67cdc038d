"""Stock reward terms. Each returns (num_envs,). Penalties are positive: weight them negatively."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, selected_names
from mjlab_rec.managers.reward_manager import RewardTermCfg
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.utils.string import resolve_matching_names_values

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = [
    "action_acc_l2",
    "action_rate_l2",
    "electrical_power_cost",
    "flat_orientation_l2",
    "is_alive",
    "is_terminated",
    "joint_acc_l2",
    "joint_pos_limits",
    "joint_torques_l2",
    "joint_vel_l2",
    "posture",
    "track_angular_velocity",
    "track_linear_velocity",
]


def _sum_of_squares(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(dim=1)


def is_alive(env: ManagerBasedRlEnv) -> torch.Tensor:
    """One for each step that does not end in failure; a time-out is not a failure."""
    return (~env.termination_manager.terminated).float()


def is_terminated(env: ManagerBasedRlEnv) -> torch.Tensor:
    """One in the step in which the episode fails; a time-out is not a failure."""
    return env.termination_manager.terminated.float()


def joint_torques_l2(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Sum of squared actuator forces. Select actuators (not joints) by ``actuator_names``."""
    asset: Entity = env.scene[asset_cfg.name]
    force = asset.data.peek("actuator_force", "ctrl")
    return _sum_of_squares(force[:, asset_cfg.index("actuator", env.scene)])


def joint_vel_l2(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Sum of squared joint velocities."""
    asset: Entity = env.scene[asset_cfg.name]
    return _sum_of_squares(
        asset.data.peek("qvel", "joint_v")[:, asset_cfg.index("joint", env.scene)]
    )


def joint_acc_l2(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Sum of squared joint accelerations."""
    asset: Entity = env.scene[asset_cfg.name]
    return _sum_of_squares(
        asset.data.peek("qacc", "joint_v")[:, asset_cfg.index("joint", env.scene)]
    )


def action_rate_l2(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Sum of squared changes of the policy's action since the last step."""
    actions = env.action_manager
    return _sum_of_squares(actions.action - actions.prev_action)


def action_acc_l2(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Sum of squared second differences of the policy's action over three steps."""
    actions = env.action_manager
    change = torch.sub(actions.action, actions.prev_action, alpha=2)
    return _sum_of_squares(change.add_(actions.prev_prev_action))


def joint_pos_limits(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """How far the joints are outside their soft limits, summed over joints."""
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    pos = asset.data.peek("qpos", "joint_q")[:, joints]
    low, high = asset.data.soft_joint_pos_limits[:, joints].unbind(dim=-1)
    return (pos - torch.clamp(pos, low, high)).abs_().sum(dim=1)


def flat_orientation_l2(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Squared sine of the root's tilt: 0 when upright, 1 when lying on its side."""
    asset: Entity = env.scene[asset_cfg.name]
    return _sum_of_squares(asset.data.projected_gravity_b[:, :2])


def track_linear_velocity(
    env: ManagerBasedRlEnv,
    std: float,
    command_name: str,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """exp(-error^2 / std^2) of the root's linear velocity, in its axes.

    The command gives x and y; the commanded vertical velocity is zero.
    """
    asset: Entity = env.scene[asset_cfg.name]
    command = env.command_manager.get_command(command_name)
    actual = asset.data.root_link_lin_vel_b
    error = _sum_of_squares(command[:, :2] - actual[:, :2]) + actual[:, 2].square()
    return torch.exp(error / -(std**2))


def track_angular_velocity(
    env: ManagerBasedRlEnv,
    std: float,
    command_name: str,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> torch.Tensor:
    """exp(-error^2 / std^2) of the root's angular velocity, in its axes.

    The command's third number is the yaw rate; the commanded roll and pitch rates are zero.
    """
    asset: Entity = env.scene[asset_cfg.name]
    command = env.command_manager.get_command(command_name)
    actual = asset.data.root_link_ang_vel_b
    error = _sum_of_squares(actual[:, :2]) + (command[:, 2] - actual[:, 2]).square()
    return torch.exp(error / -(std**2))


class posture:
    """exp(-mean(error^2 / std^2)) of the joint positions around the default ones.

    ``std`` maps joint names or regexes to the deviation (rad or m) that each joint is allowed.
    """

    def __init__(self, cfg: RewardTermCfg, env: ManagerBasedRlEnv) -> None:
        asset_cfg: SceneEntityCfg = cfg.params.get("asset_cfg", DEFAULT_ASSET_CFG)
        self._weigh(env, asset_cfg, cfg.params["std"])

    def __call__(
        self,
        env: ManagerBasedRlEnv,
        std: dict[str, float],
        asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    ) -> torch.Tensor:
        """Compute the reward. Shape (num_envs,)."""
        asset: Entity = env.scene[asset_cfg.name]
        joints = asset_cfg.index("joint", env.scene)
        if self._joints is not joints or self._std is not std:
            self._weigh(env, asset_cfg, std)
        error = asset.data.joint_pos[:, joints] - asset.data.default_joint_pos[:, joints]
        return torch.exp(error.square_() @ self._weight)

    def _weigh(
        self, env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg, std: dict[str, float]
    ) -> None:
        """Find the weights of the chosen joints, at the start and when the choice has changed."""
        joints = asset_cfg.index("joint", env.scene)
        names = selected_names(env.scene[asset_cfg.name], asset_cfg, "joint")
        ids, _, values = resolve_matching_names_values(std, names)
        if len(ids) < len(names):
            missing = [name for i, name in enumerate(names) if i not in ids]
            raise ValueError(
                f"posture: no std for the joints {missing}. Add a pattern for them, or exclude them"
                " from the term with joint_names."
            )
        # Include the mean's 1/n here, so that the step needs only one weighted sum.
        scale = [-1.0 / (len(names) * value**2) for value in values]
        self._weight = torch.tensor(scale, device=env.device)
        self._joints, self._std = joints, std


def electrical_power_cost(
    env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG
) -> torch.Tensor:
    """Mechanical power (W) that the actuators put into the joints; braking counts as zero."""
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    power = asset.data.qfrc_actuator[:, joints] * asset.data.joint_vel[:, joints]
    return power.clamp_(min=0.0).sum(dim=1)
