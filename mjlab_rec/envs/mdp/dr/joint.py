"""Randomization of what joint encoders read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, resolve_env_ids
from mjlab_rec.envs.mdp.dr.fields import dof_armature as dof_armature
from mjlab_rec.envs.mdp.dr.fields import dof_damping as dof_damping
from mjlab_rec.envs.mdp.dr.fields import dof_frictionloss as dof_frictionloss
from mjlab_rec.envs.mdp.dr.fields import jnt_range as jnt_range
from mjlab_rec.envs.mdp.dr.fields import jnt_stiffness as jnt_stiffness
from mjlab_rec.envs.mdp.dr.fields import joint_armature as joint_armature
from mjlab_rec.envs.mdp.dr.fields import joint_damping as joint_damping
from mjlab_rec.envs.mdp.dr.fields import joint_default_pos as joint_default_pos
from mjlab_rec.envs.mdp.dr.fields import joint_friction as joint_friction
from mjlab_rec.envs.mdp.dr.fields import joint_limits as joint_limits
from mjlab_rec.envs.mdp.dr.fields import joint_stiffness as joint_stiffness
from mjlab_rec.envs.mdp.dr.fields import qpos0 as qpos0
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv


def encoder_bias(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    bias_range: tuple[float, float],
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Draw the constant error of each joint encoder (rad or m).

    It affects observations with ``biased=True`` and position actions, not the physics.
    """
    env_ids = resolve_env_ids(env, env_ids)
    asset: Entity = env.scene[asset_cfg.name]
    joints = asset_cfg.index("joint", env.scene)
    bias = asset.data.encoder_bias
    shape = (len(env_ids), *bias[0, joints].shape)
    value = env.rng.uniform(*bias_range, shape, env_ids)
    if isinstance(joints, slice):
        bias[:, joints][env_ids] = value
    else:
        bias[env_ids[:, None], joints] = value
