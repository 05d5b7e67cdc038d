"""Hills of Perlin noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import interpolate
from mjlab_rec.terrains.checks import check_not_negative, check_positive, check_range
from mjlab_rec.terrains.heights.grid import add_height_field, height_grid
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainOutput


@dataclass(kw_only=True)
class HfPerlinNoiseTerrainCfg(SubTerrainCfg):
    """Smooth hills with smaller hills on them. With a border they rise gently from it."""

    height_range: tuple[float, float]
    """Height of the highest hill above the lowest point, at difficulty 0 and 1, in meters."""

    octaves: int = 4
    """Number of layers of noise."""

    persistence: float = 0.5
    """Height of a layer as a fraction of that of the layer before."""

    lacunarity: float = 2.0
    """Number of hills of a layer, relative to the layer before."""

    scale: float = 10.0
    """Number of hills of the first layer along a tile, if resolution equals horizontal_scale."""

    horizontal_scale: float = 0.1
    """A larger value makes wider hills: their number is scale * resolution / horizontal_scale."""

    resolution: float = 0.05
    """Distance between the points of the height field, in meters."""

    base_thickness_ratio: float = 1.0
    """Thickness of the ground under the lowest point, as a fraction of the difference between the
    highest and the lowest; at least 0.2 m."""

    border_width: float = 0.0
    """Width of the flat border, in meters: 0, or at least horizontal_scale. Hills rise to their
    full height over the same width."""

    def function(
        self, difficulty: float, spec: mujoco.MjSpec, rng: np.random.Generator
    ) -> TerrainOutput:
        """Add a tile; see SubTerrainCfg."""
        check_positive(self, "octaves", "scale", "horizontal_scale", "persistence", "lacunarity")
        check_not_negative(self, "base_thickness_ratio")
        check_range(self, "height_range")
        grid = height_grid(self, self.border_width, self.resolution, "resolution")
        hills = self.scale * self.resolution / self.horizontal_scale
        noise = fractal_noise(
            grid.inner_shape, rng, self.octaves, self.persistence, self.lacunarity, hills
        )
        noise -= noise.min()
        noise /= noise.max() or 1.0
        if grid.border:
            edge = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in grid.inner_shape]
            rise = _ease(np.minimum(np.minimum.outer(*edge) / grid.border, 1.0))
            noise *= rise
        heights = grid.with_border(interpolate(self.height_range, difficulty) * noise)
        return add_height_field(spec, grid, heights, self.base_thickness_ratio)


def fractal_noise(
    shape: tuple[int, int],
    rng: np.random.Generator,
    octaves: int,
    persistence: float,
    lacunarity: float,
    cells: float,
) -> np.ndarray:
    """The sum of layers of Perlin noise, the first with this many cells along each axis."""
    total = np.zeros(shape)
    for octave in range(octaves):
        if cells * lacunarity**octave > max(shape):
            break  # Hills narrower than the distance of points.
        total += persistence**octave * _perlin(shape, rng, cells * lacunarity**octave)
    return total


def _perlin(shape: tuple[int, int], rng: np.random.Generator, cells: float) -> np.ndarray:
    """Noise from random slopes at the corners of a grid of cells, blended between them."""
    corners = math.ceil(cells) + 1
    angle = rng.uniform(0.0, 2.0 * math.pi, (corners, corners))
    slope_y, slope_x = np.sin(angle), np.cos(angle)
    y, x = (np.arange(n) * (cells / n) for n in shape)
    row, column = y.astype(int), x.astype(int)
    fy, fx = (y - row)[:, None], (x - column)[None, :]

    def part(down: int, right: int) -> np.ndarray:
        at = np.ix_(row + down, column + right)
        return slope_y[at] * (fy - down) + slope_x[at] * (fx - right)

    wx, wy = _ease(fx), _ease(fy)
    upper = part(0, 0) * (1 - wx) + part(0, 1) * wx
    lower = part(1, 0) * (1 - wx) + part(1, 1) * wx
    return upper * (1 - wy) + lower * wy


def _ease(t: np.ndarray) -> np.ndarray:
    """From 0 to 1 with zero slope and curvature at both ends."""
    return t**3 * (t * (6.0 * t - 15.0) + 10.0)
