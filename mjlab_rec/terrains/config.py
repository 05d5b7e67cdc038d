"""Ready-made ground: a preset for each kind, and grids of them.

A preset is a function with keyword arguments, which override its values. Add one of your own with
``@terrain_preset``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mjlab_rec import terrains
from mjlab_rec.terrains.terrain_generator import SubTerrainCfg, TerrainGeneratorCfg

ALL_TERRAIN_PRESETS: dict[str, Callable[..., SubTerrainCfg]] = {}
"""The presets by name."""

_Preset = TypeVar("_Preset", bound=Callable[..., SubTerrainCfg])


def terrain_preset(fn: _Preset) -> _Preset:
    """Add a function that makes a sub-terrain's cfg to the presets."""
    ALL_TERRAIN_PRESETS[fn.__name__] = fn
    return fn


@terrain_preset
def flat(**overrides: Any) -> terrains.BoxFlatTerrainCfg:
    """Flat ground."""
    return terrains.BoxFlatTerrainCfg(**overrides)


_STAIRS: dict[str, Any] = {
    "step_height_range": (0.0, 0.2),
    "step_width": 0.3,
    "platform_width": 3.0,
    "border_width": 1.0,
}
_SLOPE: dict[str, Any] = {"slope_range": (0.0, 0.7), "platform_width": 2.0, "border_width": 0.25}


@terrain_preset
def pyramid_stairs(**overrides: Any) -> terrains.BoxPyramidStairsTerrainCfg:
    """Stairs up to a platform."""
    return terrains.BoxPyramidStairsTerrainCfg(**{**_STAIRS, **overrides})


@terrain_preset
def pyramid_stairs_inv(**overrides: Any) -> terrains.BoxInvertedPyramidStairsTerrainCfg:
    """Stairs down to a platform."""
    return terrains.BoxInvertedPyramidStairsTerrainCfg(**{**_STAIRS, **overrides})


@terrain_preset
def hf_pyramid_slope(**overrides: Any) -> terrains.HfPyramidSlopedTerrainCfg:
    """Slopes up to a platform."""
    return terrains.HfPyramidSlopedTerrainCfg(**{**_SLOPE, **overrides})


@terrain_preset
def hf_pyramid_slope_inv(**overrides: Any) -> terrains.HfPyramidSlopedTerrainCfg:
    """Slopes down to a platform."""
    return terrains.HfPyramidSlopedTerrainCfg(**{**_SLOPE, "inverted": True, **overrides})


@terrain_preset
def random_rough(**overrides: Any) -> terrains.HfRandomUniformTerrainCfg:
    """Rough ground, whatever the difficulty."""
    values: dict[str, Any] = {
        "noise_range": (0.02, 0.10),
        "noise_step": 0.02,
        "border_width": 0.25,
    }
    return terrains.HfRandomUniformTerrainCfg(**{**values, **overrides})


@terrain_preset
def wave_terrain(**overrides: Any) -> terrains.HfWaveTerrainCfg:
    """Waves."""
    values: dict[str, Any] = {
        "amplitude_range": (0.0, 0.2),
        "num_waves": 4,
        "border_width": 0.25,
    }
    return terrains.HfWaveTerrainCfg(**{**values, **overrides})


@terrain_preset
def discrete_obstacles(**overrides: Any) -> terrains.HfDiscreteObstaclesTerrainCfg:
    """Low blocks and pits."""
    values: dict[str, Any] = {
        "obstacle_width_range": (0.3, 1.0),
        "obstacle_height_range": (0.05, 0.3),
        "num_obstacles": 40,
        "border_width": 0.25,
    }
    return terrains.HfDiscreteObstaclesTerrainCfg(**{**values, **overrides})


@terrain_preset
def perlin_noise(**overrides: Any) -> terrains.HfPerlinNoiseTerrainCfg:
    """Hills."""
    values: dict[str, Any] = {
        "height_range": (0.0, 1.0),
        "octaves": 4,
        "persistence": 0.3,
        "lacunarity": 2.0,
        "scale": 10.0,
        "horizontal_scale": 0.1,
        "border_width": 0.50,
    }
    return terrains.HfPerlinNoiseTerrainCfg(**{**values, **overrides})


@terrain_preset
def box_random_grid(**overrides: Any) -> terrains.BoxRandomGridTerrainCfg:
    """Square columns of random heights."""
    values: dict[str, Any] = {
        "grid_width": 0.4,
        "grid_height_range": (0.0, 0.3),
        "platform_width": 1.0,
    }
    return terrains.BoxRandomGridTerrainCfg(**{**values, **overrides})


@terrain_preset
def random_spread_boxes(**overrides: Any) -> terrains.BoxRandomSpreadTerrainCfg:
    """Boxes that lie around."""
    values: dict[str, Any] = {
        "num_boxes": 80,
        "box_width_range": (0.1, 1.0),
        "box_length_range": (0.1, 2.0),
        "box_height_range": (0.05, 0.3),
        "platform_width": 1.0,
        "border_width": 0.25,
    }
    return terrains.BoxRandomSpreadTerrainCfg(**{**values, **overrides})


@terrain_preset
def open_stairs(**overrides: Any) -> terrains.BoxOpenStairsTerrainCfg:
    """Boards as stairs, open below."""
    values: dict[str, Any] = {
        "step_height_range": (0.1, 0.2),
        "step_width_range": (0.4, 0.8),
        "platform_width": 1.0,
        "border_width": 0.25,
        "inverted": False,
    }
    return terrains.BoxOpenStairsTerrainCfg(**{**values, **overrides})


@terrain_preset
def random_stairs(**overrides: Any) -> terrains.BoxRandomStairsTerrainCfg:
    """Stairs with steps of random heights."""
    values: dict[str, Any] = {
        "step_width": 0.8,
        "step_height_range": (0.1, 0.3),
        "platform_width": 1.0,
        "border_width": 0.25,
    }
    return terrains.BoxRandomStairsTerrainCfg(**{**values, **overrides})


@terrain_preset
def stepping_stones(**overrides: Any) -> terrains.BoxSteppingStonesTerrainCfg:
    """Stones over a pit."""
    values: dict[str, Any] = {
        "stone_size_range": (0.4, 0.8),
        "stone_distance_range": (0.2, 0.5),
        "stone_height": 0.2,
        "stone_height_variation": 0.1,
        "stone_size_variation": 0.2,
        "displacement_range": 0.1,
        "floor_depth": 2.0,
        "platform_width": 1.0,
        "border_width": 0.25,
    }
    return terrains.BoxSteppingStonesTerrainCfg(**{**values, **overrides})


@terrain_preset
def narrow_beams(**overrides: Any) -> terrains.BoxNarrowBeamsTerrainCfg:
    """Beams over a pit."""
    values: dict[str, Any] = {
        "num_beams": 12,
        "beam_width_range": (0.2, 0.8),
        "beam_height": 0.2,
        "spacing": 0.8,
        "platform_width": 1.0,
        "border_width": 0.25,
        "floor_depth": 2.0,
    }
    return terrains.BoxNarrowBeamsTerrainCfg(**{**values, **overrides})


@terrain_preset
def nested_rings(**overrides: Any) -> terrains.BoxNestedRingsTerrainCfg:
    """Rings over a pit."""
    values: dict[str, Any] = {
        "num_rings": 8,
        "ring_width_range": (0.3, 0.6),
        "gap_range": (0.1, 0.4),
        "height_range": (0.1, 0.4),
        "platform_width": 1.0,
        "border_width": 0.25,
        "floor_depth": 2.0,
    }
    return terrains.BoxNestedRingsTerrainCfg(**{**values, **overrides})


@terrain_preset
def tilted_grid(**overrides: Any) -> terrains.BoxTiltedGridTerrainCfg:
    """Square columns with tilted tops."""
    values: dict[str, Any] = {
        "grid_width": 1.0,
        "tilt_range_deg": 20.0,
        "height_range": 0.3,
        "platform_width": 1.0,
        "border_width": 0.25,
        "floor_depth": 2.0,
    }
    return terrains.BoxTiltedGridTerrainCfg(**{**values, **overrides})


ROUGH_TERRAINS_CFG = TerrainGeneratorCfg(
    size=(8.0, 8.0),
    border_width=20.0,
    num_rows=10,
    num_cols=20,
    sub_terrains={
        "flat": flat(proportion=0.2),
        "pyramid_stairs": pyramid_stairs(proportion=0.2, step_height_range=(0.0, 0.1)),
        "pyramid_stairs_inv": pyramid_stairs_inv(proportion=0.2, step_height_range=(0.0, 0.1)),
        "hf_pyramid_slope": hf_pyramid_slope(proportion=0.1, slope_range=(0.0, 1.0)),
        "hf_pyramid_slope_inv": hf_pyramid_slope_inv(proportion=0.1, slope_range=(0.0, 1.0)),
        "random_rough": random_rough(proportion=0.1),
        "wave_terrain": wave_terrain(proportion=0.1),
    },
    add_lights=True,
)
"""What legged robots learn to walk on: flat ground, stairs, slopes, rough ground and waves."""

STAIRS_TERRAINS_CFG = TerrainGeneratorCfg(
    size=(8.0, 8.0),
    border_width=20.0,
    num_rows=10,
    num_cols=4,
    curriculum=True,
    sub_terrains={
        "flat": flat(proportion=0.25),
        "easy_stairs": pyramid_stairs(
            proportion=0.35, step_height_range=(0.02, 0.05), step_width=0.40
        ),
        "moderate_stairs": pyramid_stairs(
            proportion=0.25,
            step_height_range=(0.05, 0.08),
            step_width=0.35,
            platform_width=2.5,
            border_width=0.8,
        ),
        "challenging_stairs": pyramid_stairs(
            proportion=0.15,
            step_height_range=(0.08, 0.10),
            step_width=0.30,
            platform_width=2.0,
            border_width=0.5,
        ),
    },
    add_lights=True,
)
"""Stairs of three kinds, and flat ground."""

ALL_TERRAINS_CFG = TerrainGeneratorCfg(
    size=(8.0, 8.0),
    border_width=20.0,
    num_rows=10,
    num_cols=len(ALL_TERRAIN_PRESETS),
    sub_terrains={name: preset(proportion=1.0) for name, preset in ALL_TERRAIN_PRESETS.items()},
    add_lights=True,
)
"""Every preset of this module."""
