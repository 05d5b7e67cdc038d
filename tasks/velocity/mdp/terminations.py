"""Ends of episodes: forbidden contacts, and the edge of the ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import SceneEntityCfg
from tasks.velocity.mdp._common import ROBOT, contact_sensor

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["illegal_contact", "out_of_terrain_bounds", "terrain_edge_reached"]


def illegal_contact(
    env: ManagerBasedRlEnv, sensor_name: str, force_threshold: float = 10.0
) -> torch.Tensor:
    """Whether a contact of this sensor is stronger than the threshold, in N.

    With a history it looks at all physics steps of the control step. Without one, any contact
    counts.
    """
    data = contact_sensor(env, sensor_name).data
    if data.force_history is not None:
        force = torch.linalg.vector_norm(data.force_history, dim=-1)
        return (force > force_threshold).flatten(1).any(dim=1)
    assert data.found is not None, "the sensor needs the field 'found'"
    return (data.found > 0).any(dim=1)


def out_of_terrain_bounds(
    env: ManagerBasedRlEnv, margin: float = 0.3, asset_cfg: SceneEntityCfg = ROBOT
) -> torch.Tensor:
    """Whether the robot is about to walk off the generated ground; a plane has no end."""
    terrain = env.scene.terrain
    if terrain is None or terrain.terrain_origins is None:
        return torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    generator = terrain.cfg.terrain_generator
    assert generator is not None
    position = env.scene[asset_cfg.name].data.root_link_pos_w
    outside = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    for axis, tiles in enumerate(terrain.terrain_origins.shape[:2]):
        half = 0.5 * tiles * generator.size[axis] + generator.border_width
        outside |= position[:, axis].abs() > max(0.0, half - margin)
    return outside


def terrain_edge_reached(
    env: ManagerBasedRlEnv,
    threshold_fraction: float = 0.95,
    asset_cfg: SceneEntityCfg = ROBOT,
) -> torch.Tensor:
    """Whether the robot has crossed its tile. That is a success: use it with ``time_out=True``."""
    terrain = env.scene.terrain
    if terrain is None or terrain.terrain_origins is None:
        return torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    generator = terrain.cfg.terrain_generator
    assert generator is not None
    position = env.scene[asset_cfg.name].data.root_link_pos_w
    walked = (position - env.scene.env_origins)[:, :2].abs()
    x, y = (0.5 * size * threshold_fraction for size in generator.size)
    # Right after a reset the position is still that of the episode before.
    return ((walked[:, 0] > x) | (walked[:, 1] > y)) & (env.episode_length_buf > 2)
