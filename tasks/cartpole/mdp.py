"""Terms specific to cartpole: one observation and one reward."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

# exp(-LN_10 * (x / margin) ** 2) is a bell that is 1 at x = 0 and 0.1 at x = margin.
_LN_10 = math.log(10.0)
_CART_FALL = -_LN_10 / 2.0**2  # margin: 2 m
_POLE_FALL = -_LN_10 / 5.0**2  # margin: 5 rad/s


def pole_cos_sin(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg) -> torch.Tensor:
    """Cosine and sine of the hinge angle: (1, 0) is upright. Shape (num_envs, 2)."""
    angle = env.scene[asset_cfg.name].data.joint_pos[:, asset_cfg.index("joint", env.scene)]
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def smooth_reward(
    env: ManagerBasedRlEnv, cart_cfg: SceneEntityCfg, pole_cfg: SceneEntityCfg
) -> torch.Tensor:
    """Reward in [0, 1] for an upright, slow pole over a centred cart, pushed gently.

    It is the product of four factors, as in dm_control. Each has a minimum above 0, so it cannot
    cancel the reward alone, except "upright" for a pole that hangs down:

        upright  (1 + cos angle) / 2        centred  (1 + bell(position)) / 2
        gentle   1 - min(1, action^2) / 5   slow     (1 + bell(angular velocity)) / 2
    """
    data = env.scene[cart_cfg.name].data
    cart, pole = cart_cfg.index("joint", env.scene), pole_cfg.index("joint", env.scene)
    joint_pos = data.joint_pos
    centred = joint_pos[:, cart].square().mul_(_CART_FALL).exp_()
    slow = data.joint_vel[:, pole].square().mul_(_POLE_FALL).exp_()
    effort = env.action_manager.action.square().clamp_(max=1.0)
    # On a CPU the number of operations matters: addcmul_(r, x) computes r *= 1 + x at once.
    reward = joint_pos[:, pole].cos().add_(1.0)
    reward.addcmul_(reward, centred).addcmul_(reward, slow).addcmul_(reward, effort, value=-0.2)
    return reward.mul_(1.0 / 8.0).squeeze(-1)
