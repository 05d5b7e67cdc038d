"""The slope of the ground, from what a ray sensor sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.sensor import RayCastSensor

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv


def fit_terrain_normal(points: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
    """Fit planes z = a x + b y + c to points, and return their upward normals.

    Args:
        points: (num_envs, points, 3) in the world.
        valid_mask: Which of them to use, bool (num_envs, points).

    Returns:
        (num_envs, 3), and straight up where the points do not fix a plane.
    """
    weight = valid_mask.float().unsqueeze(-1)
    points = torch.where(valid_mask.unsqueeze(-1), points, 0.0)
    count = weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    offset = (points - points.sum(dim=1, keepdim=True) / count) * weight
    x, y, z = offset.unbind(dim=-1)
    xx, yy, xy = (x * x).sum(1), (y * y).sum(1), (x * y).sum(1)
    xz, yz = (x * z).sum(1), (y * z).sum(1)
    # The normal equations of the slopes. Points on a line leave the determinant at rounding.
    determinant = xx * yy - xy * xy
    fixed = determinant > 1e-4 * (xx + yy).square()
    determinant = determinant.where(fixed, 1.0)
    a = (xz * yy - yz * xy) / determinant
    b = (yz * xx - xz * xy) / determinant
    normal = torch.stack((-a, -b, torch.ones_like(a)), dim=1)
    fixed = (fixed & normal.isfinite().all(dim=1)).unsqueeze(1)
    up = torch.zeros_like(normal)
    up[:, 2] = 1.0
    return torch.nn.functional.normalize(normal.where(fixed, up), dim=1)


def terrain_normal_from_sensors(
    env: ManagerBasedRlEnv, sensor_names: tuple[str, ...]
) -> torch.Tensor:
    """The normal of the ground around each robot, (num_envs, 3), from what sensors' rays hit."""
    points, valid = [], []
    for name in sensor_names:
        sensor = env.scene[name]
        if not isinstance(sensor, RayCastSensor):
            raise TypeError(f"'{name}' is a {type(sensor).__name__}, but a ray sensor is needed.")
        points.append(sensor.data.hit_pos_w)
        valid.append(sensor.data.distances >= 0.0)
    return fit_terrain_normal(torch.cat(points, dim=1), torch.cat(valid, dim=1))
