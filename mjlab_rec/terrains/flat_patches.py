"""Flat places on a tile: circles in which the ground hardly varies."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from mjlab_rec.terrains.heights.resample import resample_linear
from mjlab_rec.terrains.sub_terrain import FlatPatchSamplingCfg, TerrainGeometry
from mjlab_rec.terrains.surface import surface


def find_flat_patches(
    spec: mujoco.MjSpec,
    geometries: list[TerrainGeometry],
    size: tuple[float, float],
    cfgs: dict[str, FlatPatchSamplingCfg],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw flat places by name, each (num_patches, 3), or (0, 3) where there are none.

    Args:
        spec: The model of the tile.
        geometries: The geoms of a tile, with its corner at x = y = 0.
        size: Length of the tile along x and y.
        cfgs: What counts as flat, by name.
        rng: Source of the choice.
    """
    found: dict[str, np.ndarray] = {}
    for name, cfg in cfgs.items():
        heights = surface(spec, geometries, size, cfg.grid_resolution)
        rows, columns = heights.shape
        x, y = np.linspace(0.0, size[0], columns), np.linspace(0.0, size[1], rows)
        found[name] = sample_flat_patches(heights, x, y, cfg, rng)
    return found


def sample_flat_patches(
    heights: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    cfg: FlatPatchSamplingCfg,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw places (num_patches, 3) where the ground is flat all around, or (0, 3) if none is.

    The whole patch is on the tile, and nothing in it is higher than its z.

    Args:
        heights: Height of the ground, rows along y and columns along x; -inf where there is none.
        x: Coordinates of the columns, evenly spaced.
        y: Coordinates of the rows.
        cfg: What counts as flat.
        rng: Source of the choice.
    """
    _check(cfg)
    spacing = max(x[1] - x[0], y[1] - y[0])
    if cfg.grid_resolution is not None and cfg.grid_resolution < 0.999 * spacing:
        ends = (y[-1] - y[0], x[-1] - x[0])
        rows, columns = (math.ceil(end / cfg.grid_resolution - 1e-9) + 1 for end in ends)
        heights = resample_linear(heights, (rows, columns))
        x, y = np.linspace(x[0], x[-1], columns), np.linspace(y[0], y[-1], rows)
    dx, dy = x[1] - x[0], y[1] - y[0]
    # Ground between points is no higher than the points around it: include all of those.
    low, high = disc_range(heights, dx, dy, cfg.patch_radius + math.hypot(dx, dy))
    with np.errstate(invalid="ignore"):
        flat = high - low <= cfg.max_height_diff
    radius = cfg.patch_radius - 1e-9
    flat &= _between(x, (max(x[0] + radius, cfg.x_range[0]), min(x[-1] - radius, cfg.x_range[1])))
    flat &= _between(y, (max(y[0] + radius, cfg.y_range[0]), min(y[-1] - radius, cfg.y_range[1])))[
        :, None
    ]
    flat &= _between(high, cfg.z_range)
    rows, columns = np.nonzero(flat)
    if len(rows) == 0:
        return np.zeros((0, 3))
    chosen = rng.choice(len(rows), size=cfg.num_patches, replace=len(rows) < cfg.num_patches)
    rows, columns = rows[chosen], columns[chosen]
    return np.column_stack((x[columns], y[rows], high[rows, columns]))


def disc_range(
    heights: np.ndarray, dx: float, dy: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value in a circle around each point; outside counts like the edge."""
    rows = int(radius / dy + 1e-9)
    widths = [
        int(math.sqrt(max(radius**2 - (k * dy) ** 2, 0.0)) / dx + 1e-9) for k in range(rows + 1)
    ]
    padded = np.pad(heights, ((rows, rows), (widths[0], widths[0])), mode="edge")
    count = heights.shape[0]
    low, high = np.full(heights.shape, np.inf), np.full(heights.shape, -np.inf)
    for k, width in enumerate(widths):
        cut = widths[0] - width
        strip = padded[:, cut : padded.shape[1] - cut]
        least, most = (_sliding(strip, 2 * width + 1, pick) for pick in (np.minimum, np.maximum))
        for shift in {rows + k, rows - k}:
            np.minimum(low, least[shift : shift + count], out=low)
            np.maximum(high, most[shift : shift + count], out=high)
    return low, high


def _sliding(values: np.ndarray, length: int, pick: np.ufunc) -> np.ndarray:
    """Extreme of each window of this length along the rows, by windows of powers of 2."""
    columns = values.shape[1] - length + 1
    power = 1
    while 2 * power <= length:
        values = pick(values[:, :-power], values[:, power:])
        power *= 2
    return pick(values[:, :columns], values[:, length - power : length - power + columns])


def _between(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (values >= bounds[0]) & (values <= bounds[1])


def _check(cfg: FlatPatchSamplingCfg) -> None:
    if cfg.num_patches < 1:
        raise ValueError(
            f"FlatPatchSamplingCfg.num_patches must be at least 1, got {cfg.num_patches}."
        )
    for name in ("patch_radius", "grid_resolution"):
        value = getattr(cfg, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"FlatPatchSamplingCfg.{name} must be above 0, got {value}.")
    if not 0.0 <= cfg.max_height_diff < math.inf:
        raise ValueError(
            f"FlatPatchSamplingCfg.max_height_diff must be 0 or above, got {cfg.max_height_diff}."
        )
