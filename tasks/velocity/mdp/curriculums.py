"""Curricula: harder ground for robots that walk far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from tasks.velocity.mdp._common import ROBOT

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["terrain_levels_vel"]


def terrain_levels_vel(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    command_name: str,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> dict[str, torch.Tensor]:
    """Move environments to harder or easier ground by how far the robot got in its episode.

    One that left its tile goes to the next row. One that did not get half as far as it was told
    to goes to the row before.
    """
    terrain = env.scene.terrain
    if terrain is None or terrain.terrain_origins is None:
        raise ValueError(
            "terrain_levels_vel needs generated ground: set SceneCfg.terrain to a TerrainEntityCfg"
            " with terrain_type='generator', or remove the term from the curriculum."
        )
    generator = terrain.cfg.terrain_generator
    assert generator is not None
    if isinstance(env_ids, slice):
        env_ids = torch.arange(env.num_envs, device=env.device)[env_ids]
    # Before the first step robots have not walked, so where they are says nothing.
    if env.common_step_counter > 0:
        position = env.scene[asset_cfg.name].data.root_link_pos_w[env_ids, :2]
        walked = torch.linalg.vector_norm(position - env.scene.env_origins[env_ids, :2], dim=1)
        command = env.command_manager.get_command(command_name)[env_ids, :2]
        wanted = torch.linalg.vector_norm(command, dim=1) * env.max_episode_length_s
        up = walked > generator.size[0] / 2.0
        terrain.update_env_origins(env_ids, up, (walked < 0.5 * wanted) & ~up)

    levels, kinds = terrain.terrain_levels.float(), terrain.terrain_types
    log = {"mean": levels.mean(), "max": levels.max()}
    names = list(generator.sub_terrains)
    if terrain.terrain_origins.shape[1] == len(names):  # A column for each kind.
        for i, name in enumerate(names):
            here = kinds == i
            log[name] = (levels * here).sum() / here.sum().clamp(min=1)
    return log
