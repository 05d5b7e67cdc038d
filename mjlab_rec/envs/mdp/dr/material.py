"""Randomization of the materials of geoms and the textures of materials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, resolve_env_ids
from mjlab_rec.envs.mdp.dr._core import Axis, model_ids
from mjlab_rec.envs.mdp.dr.fields import mat_emission as mat_emission
from mjlab_rec.envs.mdp.dr.fields import mat_rgba as mat_rgba
from mjlab_rec.envs.mdp.dr.fields import mat_shininess as mat_shininess
from mjlab_rec.envs.mdp.dr.fields import mat_specular as mat_specular
from mjlab_rec.envs.mdp.dr.fields import mat_texrepeat as mat_texrepeat
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


@requires_model_fields("geom_matid")
def geom_matid(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    shared_random: bool = False,
) -> None:
    """Assign each selected geom one of the selected materials, or all the same one."""
    materials = _pick(env, env_ids, "material", "geom", asset_cfg, shared_random)
    cells = (resolve_env_ids(env, env_ids)[:, None], model_ids(env, asset_cfg, "geom"))
    env.sim.model.geom_matid[cells] = materials.to(env.sim.model.geom_matid.dtype)


@requires_model_fields("mat_texid")
def mat_texid(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
    role: int = mujoco.mjtTextureRole.mjTEXROLE_RGB.value,
    shared_random: bool = False,
) -> None:
    """Assign the selected materials one of the selected textures, in a role (mjtTextureRole)."""
    textures = _pick(env, env_ids, "texture", "material", asset_cfg, shared_random)
    cells = (resolve_env_ids(env, env_ids)[:, None], model_ids(env, asset_cfg, "material"))
    env.sim.model.mat_texid[*cells, role] = textures.to(env.sim.model.mat_texid.dtype)


def _pick(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    pool: Axis,
    along: Axis,
    asset_cfg: SceneEntityCfg,
    shared_random: bool,
) -> torch.Tensor:
    """Draw one of the selected parts of the kind ``pool`` for each of the kind ``along``."""
    choices = model_ids(env, asset_cfg, pool)
    if len(choices) == 0:
        raise ValueError(
            f"'{asset_cfg.name}' has no {pool} to choose from. Add some to its model, or select"
            f" others by {pool}_names."
        )
    env_ids = resolve_env_ids(env, env_ids)
    columns = 1 if shared_random else len(model_ids(env, asset_cfg, along))
    return choices[env.rng.integers(0, len(choices), (len(env_ids), columns), env_ids)]
