"""Configuration of generated ground: a grid of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from mjlab_rec.terrains.colors import ColorScheme
from mjlab_rec.terrains.sub_terrain import SubTerrainCfg
from mjlab_rec.utils.string import nearest


@dataclass(kw_only=True)
class TerrainGeneratorCfg:
    """A grid of tiles: what is in it, and how large and how hard it is."""

    seed: int | None = None
    """Seed of the ground. None takes that of the environment, or draws one."""

    curriculum: bool = False
    """True: a column for each sub-terrain, whatever `num_cols` is, and rows of growing difficulty.
    False: kind and difficulty of each tile are random."""

    size: tuple[float, float]
    """Length of a tile along x and y, in meters."""

    border_width: float = 0.0
    """Width of the flat border around all tiles, in meters."""

    border_height: float = 1.0
    """Thickness of the border, whose top is at height 0, in meters."""

    num_rows: int = 1
    """Number of tiles along x. In curriculum mode these are the levels."""

    num_cols: int = 1
    """Number of tiles along y. In curriculum mode it is the number of sub-terrains instead."""

    color_scheme: ColorScheme = "height"
    """Colours: by "height", by tile ("random"), or "none" for grey."""

    sub_terrains: dict[str, SubTerrainCfg] = field(default_factory=dict)
    """The kinds of ground, by name."""

    difficulty_range: tuple[float, float] = (0.0, 1.0)
    """Least and greatest difficulty."""

    add_lights: bool = False
    """Add a faint light straight from above. It casts no shadows."""


def check_generator_cfg(cfg: TerrainGeneratorCfg) -> None:
    """Raise for a grid that cannot be made."""
    name = type(cfg).__name__
    if not cfg.sub_terrains:
        raise ValueError(
            f"{name}.sub_terrains is empty. Give at least one, for example"
            ' {"flat": BoxFlatTerrainCfg()}.'
        )
    for key, sub in cfg.sub_terrains.items():
        if not isinstance(sub, SubTerrainCfg):
            raise TypeError(
                f"{name}.sub_terrains[{key!r}] must be a SubTerrainCfg, got {type(sub).__name__}."
            )
        if not 0.0 <= sub.proportion < math.inf:
            raise ValueError(
                f"{name}.sub_terrains[{key!r}].proportion must be 0 or above, got {sub.proportion}."
            )
    if not any(sub.proportion for sub in cfg.sub_terrains.values()):
        raise ValueError(f"{name}.sub_terrains: every proportion is 0. Give one a larger one.")
    if not _numbers(cfg.size, 2) or min(cfg.size) <= 0.0:
        raise ValueError(f"{name}.size must be two lengths above 0, got {cfg.size}.")
    for count in ("num_rows", "num_cols"):
        if getattr(cfg, count) < 1:
            raise ValueError(f"{name}.{count} must be at least 1, got {getattr(cfg, count)}.")
    if not 0.0 <= cfg.border_width < math.inf:
        raise ValueError(f"{name}.border_width must be 0 or above, got {cfg.border_width}.")
    if cfg.border_width and not 0.0 < abs(cfg.border_height) < math.inf:
        raise ValueError(f"{name}.border_height must not be 0, got {cfg.border_height}.")
    if not _numbers(cfg.difficulty_range, 2) or cfg.difficulty_range[0] > cfg.difficulty_range[1]:
        raise ValueError(
            f"{name}.difficulty_range must be the least and the greatest difficulty, got"
            f" {cfg.difficulty_range}."
        )
    if cfg.color_scheme not in get_args(ColorScheme):
        schemes = get_args(ColorScheme)
        raise ValueError(
            f"{name}: unknown color_scheme {cfg.color_scheme!r}."
            f" {nearest(str(cfg.color_scheme), schemes)}"
        )
    if cfg.seed is not None and cfg.seed < 0:
        raise ValueError(f"{name}.seed must be 0 or above, got {cfg.seed}.")


def _numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(math.isfinite(value) for value in values)
    )
