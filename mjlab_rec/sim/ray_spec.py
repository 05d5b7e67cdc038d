"""Which rays to cast, and what they hit: the arguments and results of `Simulation.ray_caster`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

FrameType = Literal["body", "site", "geom"]
RayAlignment = Literal["base", "yaw", "world"]


@dataclass(kw_only=True)
class RaySpec:
    """Which rays to cast: the same pattern of rays at every frame."""

    frames: list[tuple[FrameType, int]]
    """Kind and id of the objects that carry the rays."""
    offsets: torch.Tensor
    """(rays, 3): where each ray starts, in the frame."""
    directions: torch.Tensor
    """(rays, 3): unit vectors in the frame."""
    alignment: RayAlignment = "base"
    """Whether the pattern turns with the frame ("base"), only with its heading ("yaw"), or not at
    all ("world")."""
    max_distance: float = float("inf")
    """Hits that are further away do not count."""
    groups: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Geom groups that rays can hit."""
    excluded_bodies: list[int]
    """For each frame, a body whose geoms its rays pass through; -1 for none."""


@dataclass
class RayHits:
    """What a pattern of rays hit; R is the number of frames times that of rays."""

    distances: torch.Tensor
    """(num_envs, R): distance to the hit, -1 without."""
    normals: torch.Tensor
    """(num_envs, R, 3): outward normal of the surface in the world, 0 without a hit."""
    points: torch.Tensor
    """(num_envs, R, 3): place of the hit in the world, the ray's start without."""
    frame_pos: torch.Tensor
    """(num_envs, frames, 3): positions of the frames in the world."""
    frame_quat: torch.Tensor
    """(num_envs, frames, 4): orientations of the frames in the world, (w, x, y, z)."""
