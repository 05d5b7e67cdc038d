"""The points of a height field, and the geom that shows it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.terrains.boxes.build import FLAT, Tile
from mjlab_rec.terrains.checks import check_not_negative, check_positive, inner_size
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg, TerrainGeometry, TerrainOutput

_LEAST_BASE = 0.2  # Least thickness of the ground under a height field's lowest point, in meters.
_FEWEST_POINTS = 4  # inside the border, along an axis.
_STANCE = 0.5  # Robots that start in the middle stand within this distance, in meters.


@dataclass(frozen=True)
class HeightGrid:
    """Points of a tile in rows along y and columns along x, and which of them are inside."""

    size: tuple[float, float]
    shape: tuple[int, int]
    border: int
    """Number of points on each side that belong to the flat border."""

    @property
    def inside(self) -> tuple[slice, slice]:
        """Index of the points inside the border."""
        rows, columns = self.shape
        return slice(self.border, rows - self.border), slice(self.border, columns - self.border)

    @property
    def inner_shape(self) -> tuple[int, int]:
        """Number of points inside the border, along y and x."""
        return self.shape[0] - 2 * self.border, self.shape[1] - 2 * self.border

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance between points along x and y, in meters."""
        return self.size[0] / (self.shape[1] - 1), self.size[1] / (self.shape[0] - 1)

    @property
    def inner_lengths(self) -> tuple[float, float]:
        """Length inside the border along x and y, in meters."""
        (rows, columns), (dx, dy) = self.inner_shape, self.spacing
        return (columns - 1) * dx, (rows - 1) * dy

    def with_border(self, heights: np.ndarray, vertical_scale: float | None = None) -> np.ndarray:
        """Put a flat border around heights, rounded to multiples of the scale."""
        if vertical_scale is not None:
            heights = np.rint(heights / vertical_scale) * vertical_scale
        full = np.zeros(self.shape)
        full[self.inside] = heights
        return full


def height_grid(
    cfg: SubTerrainCfg, border_width: float, spacing: float, field: str = "horizontal_scale"
) -> HeightGrid:
    """The points of a tile at about this distance; raise if they are too few."""
    check_positive(cfg, field)
    check_not_negative(cfg, "border_width")
    inner_size(cfg, border_width)
    name = type(cfg).__name__
    if 0.0 < border_width < spacing:
        raise ValueError(
            f"{name}.border_width is {border_width:g} m, narrower than the distance of points,"
            f" {field} = {spacing:g} m. Use 0, or at least {spacing:g}."
        )
    x, y = (round(length / spacing) for length in cfg.size)
    grid = HeightGrid(cfg.size, (y, x), int(border_width / spacing + 1e-6))
    if min(grid.inner_shape) < _FEWEST_POINTS:
        raise ValueError(
            f"{name}.{field} is {spacing:g} m: a tile of {cfg.size[0]:g} m x {cfg.size[1]:g} m has"
            f" only {grid.inner_shape[1]} x {grid.inner_shape[0]} points inside its border, and"
            f" needs {_FEWEST_POINTS} x {_FEWEST_POINTS}. Use a smaller distance or larger tiles."
        )
    return grid


def add_height_field(
    spec: mujoco.MjSpec,
    grid: HeightGrid,
    heights: np.ndarray,
    base_thickness_ratio: float,
    origin: float | None = None,
) -> TerrainOutput:
    """Add a height field with these heights in meters, or a box if they are all equal.

    Args:
        spec: The model.
        grid: Where the heights are.
        heights: Heights of the grid's points, (rows, columns).
        base_thickness_ratio: Thickness of the ground below the lowest point, as a fraction of the
            difference between highest and lowest.
        origin: Height of the place to start from in the middle; None: the highest point near it,
            so that no foot starts in the ground.
    """
    if origin is None:
        origin = _highest_near_middle(grid, heights)
    tile = Tile(spec, grid.size)
    low, high, mean = float(heights.min()), float(heights.max()), float(heights.mean())
    if high - low < FLAT:
        tile.slab(high)
        return tile.output(origin)
    number = len(spec.hfields)
    while spec.hfield(name := f"terrain_hfield_{number}") is not None:
        number += 1
    field = spec.add_hfield(
        name=name,
        # No higher than the ground, so that collision can rule out what is above.
        size=[
            0.5 * grid.size[0],
            0.5 * grid.size[1],
            high - low,
            max(_LEAST_BASE, (high - low) * base_thickness_ratio),
        ],
        nrow=grid.shape[0],
        ncol=grid.shape[1],
        userdata=((heights - low) / (high - low)).astype(np.float32).ravel(),
    )
    geom = tile.body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname=name, pos=[*tile.center, low]
    )
    tile.geometries.append(TerrainGeometry(geom=geom, hfield=field, heights=heights, top=mean))
    return tile.output(origin)


def _highest_near_middle(grid: HeightGrid, heights: np.ndarray) -> float:
    (rows, columns), (dx, dy) = grid.shape, grid.spacing
    x = (np.arange(columns) - (columns - 1) / 2) * dx
    y = (np.arange(rows) - (rows - 1) / 2) * dy
    near = np.hypot(x[None, :], y[:, None]) <= _STANCE + max(dx, dy)
    return float(heights[near].max())
