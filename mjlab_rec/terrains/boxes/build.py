"""Helpers to build tiles from boxes."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from mjlab_rec.terrains.sub_terrain import TerrainGeometry, TerrainOutput

GROUND = 1.0
"""Thickness of solid ground, in meters: enough that nothing falls through."""

FLAT = 1e-4
"""Differences in height below this do not count, in meters."""

_BOX = mujoco.mjtGeom.mjGEOM_BOX
Interval = tuple[float, float]


def interpolate(bounds: tuple[float, float], difficulty: float) -> float:
    """The value between the bounds that belongs to a difficulty, which is the first at 0."""
    return bounds[0] + difficulty * (bounds[1] - bounds[0])


def terrain_body(spec: mujoco.MjSpec) -> mujoco.MjsBody:
    """The body that tiles are added to."""
    body = spec.body("terrain")
    if body is None:
        raise ValueError(
            'The spec has no body "terrain" to add the tile to. Add it first:'
            ' spec.worldbody.add_body(name="terrain").'
        )
    return body


class Tile:
    """Collects the boxes of a tile, whose corner is at x = y = 0."""

    def __init__(self, spec: mujoco.MjSpec, size: tuple[float, float]) -> None:
        self.spec = spec
        self.body = terrain_body(spec)
        self.size = size
        self.center = (0.5 * size[0], 0.5 * size[1])
        self.geometries: list[TerrainGeometry] = []

    def box(self, x: Interval, y: Interval, z: Interval, yaw: float = 0.0) -> None:
        """Add a box between these coordinates, turned about its vertical axis by ``yaw``."""
        geom = self.body.add_geom(
            type=_BOX,
            size=[0.5 * (x[1] - x[0]), 0.5 * (y[1] - y[0]), 0.5 * (z[1] - z[0])],
            pos=[0.5 * (x[0] + x[1]), 0.5 * (y[0] + y[1]), 0.5 * (z[0] + z[1])],
        )
        if yaw:
            geom.quat = [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        self.geometries.append(TerrainGeometry(geom=geom, top=z[1]))

    def slab(self, top: float, depth: float = GROUND) -> None:
        """Add ground under the whole tile."""
        self.box((0.0, self.size[0]), (0.0, self.size[1]), (top - depth, top))

    def block(self, size: tuple[float, float], z: Interval) -> None:
        """Add a box in the middle of the tile."""
        self.box(*self._middle(size), z)

    def frame(self, outer: tuple[float, float], inner: tuple[float, float], z: Interval) -> None:
        """Add four boxes around a hole in the middle of the tile."""
        (x0, x3), (y0, y3) = self._middle(outer)
        (x1, x2), (y1, y2) = self._middle(inner)
        for y in ((y0, y1), (y2, y3)):
            if y[1] - y[0] > FLAT:
                self.box((x0, x3), y, z)
        for x in ((x0, x1), (x2, x3)):
            if x[1] - x[0] > FLAT and y2 - y1 > FLAT:
                self.box(x, (y1, y2), z)

    def border(self, inner: tuple[float, float], z: Interval) -> None:
        """Add a frame along the edges of the tile."""
        self.frame(self.size, inner, z)

    def output(self, height: float) -> TerrainOutput:
        """The tile, where robots start in the middle at this height."""
        return TerrainOutput(np.array([*self.center, height]), self.geometries)

    def _middle(self, size: tuple[float, float]) -> tuple[Interval, Interval]:
        (cx, cy), (hx, hy) = self.center, (0.5 * size[0], 0.5 * size[1])
        return (cx - hx, cx + hx), (cy - hy, cy + hy)


def steps_that_fit(inner: tuple[float, float], platform: float, width: float) -> int:
    """Number of steps of this width on each side of a platform in the middle."""
    return max(0, math.floor((min(inner) - platform) / (2.0 * width) + 1e-9))


def shrunk(size: tuple[float, float], by: float) -> tuple[float, float]:
    """The size without a margin on each side."""
    return size[0] - 2.0 * by, size[1] - 2.0 * by
