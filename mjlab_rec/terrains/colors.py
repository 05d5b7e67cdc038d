"""Colours of generated ground: by height, by tile, or plain grey."""

from __future__ import annotations

import colorsys
from typing import Literal

import mujoco
import numpy as np

from mjlab_rec.terrains.heights.resample import resample_linear
from mjlab_rec.terrains.sub_terrain import TerrainGeometry
from mjlab_rec.terrains.surface import field_heights

ColorScheme = Literal["height", "random", "none"]

_RAMP_M = 0.4  # Height difference over which colours change most, in meters.
# Colours of heights: 0 is the ground, -1 a deep pit, 1 a high hill.
_PLACES = (-1.0, -0.5, 0.0, 0.35, 0.7, 1.0)
_COLORS = np.array(
    [
        (0.20, 0.25, 0.34),
        (0.42, 0.54, 0.64),
        (0.70, 0.71, 0.68),
        (0.79, 0.71, 0.53),
        (0.76, 0.53, 0.36),
        (0.60, 0.33, 0.26),
    ]
)
_GREY = (0.5, 0.5, 0.5, 1.0)
_BORDER = (0.56, 0.57, 0.55, 1.0)
_MOST_TEXTURES = 900  # MuJoCo allows 1000 in a model.
_BOX = mujoco.mjtGeom.mjGEOM_BOX


def height_colors(height: np.ndarray | float) -> np.ndarray:
    """Colours (..., 3) of these heights in meters, the same in every tile."""
    height = np.asarray(height, dtype=float)
    place = np.sign(height) * (1.0 - np.exp(-np.abs(height) / _RAMP_M))
    return np.stack([np.interp(place, _PLACES, channel) for channel in _COLORS.T], axis=-1)


def random_color(rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour that is neither glaring nor dark."""
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.2, 0.45), rng.uniform(0.6, 0.78))


def border_color(scheme: ColorScheme) -> tuple[float, ...]:
    """Colour of the border around all tiles."""
    return _GREY if scheme == "none" else _BORDER


def paint(
    spec: mujoco.MjSpec,
    geometries: list[TerrainGeometry],
    scheme: ColorScheme,
    rng: np.random.Generator,
) -> None:
    """Give the geoms of a tile their colours."""
    shown = [geometry for geometry in geometries if geometry.geom is not None]
    if scheme == "none":
        colors = np.tile(_GREY[:3], (len(shown), 1))
    else:
        tops = np.array([_top(geometry) for geometry in shown])
        if scheme == "height":
            colors = height_colors(tops)
        else:
            shade = 1.0 + 0.3 * np.tanh(tops / _RAMP_M)
            colors = np.minimum(shade[:, None] * random_color(rng), 1.0)
    for geometry, color in zip(shown, colors.tolist(), strict=True):
        geom = geometry.geom
        assert geom is not None
        if scheme == "height" and geometry.color is not None:
            geom.rgba = geometry.color
        elif scheme == "height" and geom.material:
            continue  # It has colours of its own.
        elif scheme == "height" and geometry.hfield and len(spec.textures) < _MOST_TEXTURES:
            geom.material = _height_texture(spec, geometry)
        else:
            geom.rgba = (*color, 1.0)


def _height_texture(spec: mujoco.MjSpec, geometry: TerrainGeometry) -> str:
    """Add a texture with the colours of a height field; returns the name of its material."""
    assert geometry.hfield is not None
    name = f"{geometry.hfield.name}_colors"
    heights = field_heights(geometry)
    pixels = 128 if max(heights.shape) > 96 else 64
    colors = height_colors(resample_linear(heights, (pixels, pixels)))
    texture = spec.add_texture(
        name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=pixels, height=pixels
    )
    texture.data = (255.0 * colors[::-1]).astype(np.uint8).tobytes()
    material = spec.add_material(name=name)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def _top(geometry: TerrainGeometry) -> float:
    """About how high a geom reaches, in meters."""
    geom = geometry.geom
    assert geom is not None
    if geometry.top is not None:
        return geometry.top
    return float(geom.pos[2]) + (float(geom.size[2]) if geom.type == _BOX else 0.0)
