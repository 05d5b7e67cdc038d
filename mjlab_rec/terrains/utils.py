"""Helpers for sub-terrains of your own: planes, borders, and flat places of a height field."""

from __future__ import annotations

import mujoco
import numpy as np

from mjlab_rec.terrains.flat_patches import sample_flat_patches
from mjlab_rec.terrains.sub_terrain import FlatPatchSamplingCfg

_BOX = mujoco.mjtGeom.mjGEOM_BOX


def find_flat_patches_from_heightfield(
    heights: np.ndarray,
    horizontal_scale: float,
    z_offset: float,
    cfg: FlatPatchSamplingCfg,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw flat places on a height field, (num_patches, 3), in coordinates from its corner.

    Where nothing is flat, all are in the middle.

    Args:
        heights: Heights in meters, rows along y and columns along x.
        horizontal_scale: Distance between neighbouring heights, in meters.
        z_offset: What to add to the heights.
        cfg: What counts as flat.
        rng: Source of the choice.
    """
    heights = np.asarray(heights, dtype=float) + z_offset
    rows, columns = heights.shape
    x, y = np.arange(columns) * horizontal_scale, np.arange(rows) * horizontal_scale
    places = sample_flat_patches(heights, x, y, cfg, rng)
    if len(places) == 0:
        middle = (columns * horizontal_scale / 2, rows * horizontal_scale / 2)
        places = np.array([[*middle, heights[rows // 2, columns // 2]]])
        places = np.repeat(places, cfg.num_patches, axis=0)
    return places


def make_plane(
    body: mujoco.MjsBody,
    size: tuple[float, float],
    height: float,
    center_zero: bool = True,
    plane_thickness: float = 1.0,
) -> list[mujoco.MjsGeom]:
    """Add a flat box whose top is at ``height``, around x = y = 0 or with its corner there."""
    x, y = (0.0, 0.0) if center_zero else (size[0] / 2, size[1] / 2)
    return [
        body.add_geom(
            type=_BOX,
            size=[size[0] / 2, size[1] / 2, plane_thickness / 2],
            pos=[x, y, height - plane_thickness / 2],
        )
    ]


def make_border(
    body: mujoco.MjsBody,
    size: tuple[float, float],
    inner_size: tuple[float, float],
    height: float,
    position: tuple[float, float, float],
) -> list[mujoco.MjsGeom]:
    """Add four boxes that surround a rectangle: those at high and low y, then at low and high x.

    Args:
        body: Where to add them.
        size: Outer size along x and y.
        inner_size: Size of the rectangle.
        height: Height of the boxes.
        position: Center of the rectangle, at half the height.
    """
    across, along = ((outer - inner) / 2 for outer, inner in zip(size, inner_size, strict=True))
    x, y, z = position
    dx, dy = (inner_size[0] + across) / 2, (inner_size[1] + along) / 2
    boxes = [
        ((size[0], along), (x, y + dy)),
        ((size[0], along), (x, y - dy)),
        ((across, inner_size[1]), (x - dx, y)),
        ((across, inner_size[1]), (x + dx, y)),
    ]
    return [
        body.add_geom(type=_BOX, size=[dx / 2, dy / 2, height / 2], pos=[*middle, z])
        for (dx, dy), middle in boxes
    ]
