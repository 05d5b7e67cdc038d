"""Height of frames, such as feet, above the ground below them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from mjlab_rec.sensor.raycast_sensor import RayCastData, RayCastSensor, RayCastSensorCfg
from mjlab_rec.utils.string import nearest

Reduction = Literal["min", "max", "mean", "none"]


@dataclass
class TerrainHeightData(RayCastData):
    """What the rays hit, and how high the frames are above it."""

    heights: torch.Tensor
    """(num_envs, F): height of each frame above the ground; with reduction "none" one per ray,
    (num_envs, F, rays per frame)."""


@dataclass
class TerrainHeightSensorCfg(RayCastSensorCfg):
    """Measures how high each frame is above the ground below it."""

    reduction: Reduction = "min"
    """How the rays of a frame make one height: "min", "max" or "mean"; "none" keeps them all."""

    def build(self) -> TerrainHeightSensor:
        """Make the sensor."""
        return TerrainHeightSensor(self)


class TerrainHeightSensor(RayCastSensor[TerrainHeightData]):
    """Heights of frames above what their rays hit.

    The height is 0 if the ray starts inside of something, so that it meets a surface from behind.
    A ray that misses counts as ``max_distance``; if all rays of a frame miss, the height is the
    frame's z, within 0 and ``max_distance``.
    """

    cfg: TerrainHeightSensorCfg

    def __init__(self, cfg: TerrainHeightSensorCfg) -> None:
        if cfg.reduction not in get_args(Reduction):
            raise ValueError(
                f"Ray sensor '{cfg.name}': unknown reduction '{cfg.reduction}'."
                f" {nearest(cfg.reduction, get_args(Reduction))}"
            )
        super().__init__(cfg)

    @property
    def element_names(self) -> dict[str, tuple[str, ...]]:
        """A name for each element of the fields of `data`, for recordings."""
        names = super().element_names
        frames = tuple(self._frame_names)
        return {**names, "heights": names["distances"] if self.cfg.reduction == "none" else frames}

    def _complete(self, data: RayCastData) -> Any:
        shape = (-1, self.num_frames, self.num_rays_per_frame)
        frame_z = data.frame_pos_w[:, :, 2:]
        distances = data.distances.view(shape)
        is_miss = distances < 0.0
        from_behind = data.normals_w[..., 2].view(shape) < 0.0  # Normals of misses are 0.
        heights = frame_z - data.hit_pos_w[..., 2].view(shape)
        heights = heights.masked_fill(from_behind, 0.0)
        limit = self.cfg.max_distance
        all_miss = is_miss.all(dim=-1, keepdim=True)
        missing = frame_z.clamp(0.0, limit).masked_fill(~all_miss, limit)
        heights = torch.where(is_miss, missing, heights)
        if self.cfg.reduction == "min":
            heights = heights.amin(dim=-1)
        elif self.cfg.reduction == "max":
            heights = heights.amax(dim=-1)
        elif self.cfg.reduction == "mean":
            heights = heights.mean(dim=-1)
        return TerrainHeightData(**vars(data), heights=heights)
