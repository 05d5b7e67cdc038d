"""Every kind of tile: it compiles, robots start on it, and impossible ones are refused."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from terrain_worlds import disc, tile

from mjlab_rec import terrains
from mjlab_rec.terrains.config import ALL_TERRAIN_PRESETS, pyramid_stairs

_MESH = mujoco.mjtGeom.mjGEOM_MESH
KINDS = sorted(ALL_TERRAIN_PRESETS)
# Height fields without a platform: robots start above the highest point near the middle.
ROUGH = {"random_rough", "wave_terrain", "perlin_noise"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("difficulty", [0.0, 0.4, 1.0])
def test_robots_start_on_the_surface_and_not_in_it(name: str, difficulty: float):
    output, ground = tile(ALL_TERRAIN_PRESETS[name](size=(8.0, 8.0)), difficulty)
    assert output.origin[:2].tolist() == [4.0, 4.0]
    below = ground.height(4.0, 4.0)
    if name in ROUGH:
        nearby = ground.heights(output.origin[:2] + disc(0.5))
        assert nearby.max() <= output.origin[2] + 1e-6
        assert output.origin[2] <= ground.heights(output.origin[:2] + disc(0.75)).max() + 0.03
    else:
        assert below == pytest.approx(output.origin[2], abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_tile_stays_within_its_size(name: str):
    size = (7.0, 9.0)
    output, ground = tile(ALL_TERRAIN_PRESETS[name](size=size), 1.0, seed=3)
    model, outside = ground.model, 0.0
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    box = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    for geom in range(model.ngeom):
        corners = model.geom_aabb[geom, :3] + box * model.geom_aabb[geom, 3:]
        if (mesh := model.geom_dataid[geom]) >= 0 and model.geom(geom).type == _MESH:
            start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            corners = model.mesh_vert[start : start + count]
        corners = data.geom_xpos[geom] + corners @ data.geom_xmat[geom].reshape(3, 3).T
        outside = max(outside, -corners[:, :2].min(), (corners[:, :2] - size).max())
    # The corners of slanted beams end within the border.
    assert outside <= (0.01 if name == "narrow_beams" else 1e-6)
    assert output.origin[:2].tolist() == [3.5, 4.5]


@pytest.mark.parametrize("name", KINDS)
def test_the_edges_of_a_tile_meet_its_neighbours(name: str):
    """No gap and no wall on the seam between two tiles of a kind."""
    _, ground = tile(ALL_TERRAIN_PRESETS[name](size=(8.0, 8.0)), 0.7, seed=1)
    edge = np.array([(s, e) for s in np.linspace(0.3, 7.7, 12) for e in (0.02, 7.98)])
    heights = np.concatenate((ground.heights(edge), ground.heights(edge[:, ::-1])))
    assert np.ptp(heights) <= 1e-6


@pytest.mark.parametrize(
    ("name", "geoms"),
    [
        ("flat", 1),
        ("pyramid_stairs", 7),
        ("pyramid_stairs_inv", 25),
        ("random_stairs", 5),
        ("hf_pyramid_slope", 1),
        ("box_random_grid", 325),
    ],
)
def test_few_geoms_are_enough(name: str, geoms: int):
    assert tile(ALL_TERRAIN_PRESETS[name](size=(8.0, 8.0)), 1.0)[1].model.ngeom == geoms


@pytest.mark.parametrize("name", [n for n in KINDS if n not in ("random_rough", "open_stairs")])
def test_without_difficulty_flat_ground_is_one_box(name: str):
    kind = ALL_TERRAIN_PRESETS[name](size=(8.0, 8.0))
    ranges = ("step_height_range", "obstacle_height_range")
    for field in ranges:
        if hasattr(kind, field):
            setattr(kind, field, (0.0, 0.0))
    _, ground = tile(kind, 0.0)
    spread = ground.heights(np.random.default_rng(0).uniform(0.5, 7.5, (40, 2))).std()
    if spread < 1e-9:
        assert ground.model.ngeom == 1 and ground.model.nhfield == 0


def test_stairs_have_the_configured_steps():
    kind = pyramid_stairs(size=(8.0, 8.0), step_height_range=(0.0, 0.2), step_width=0.5)
    _, ground = tile(kind, 0.5)
    line = ground.heights(np.column_stack((np.arange(0.05, 4.0, 0.1), np.full(40, 4.0))))
    # A border of 1 m, three steps of 0.5 m and 0.1 m, and the platform.
    expected = np.concatenate(([0.0] * 10, [0.1] * 5, [0.2] * 5, [0.3] * 5, [0.4] * 15))
    np.testing.assert_allclose(line, expected, atol=1e-6)
    down = terrains.BoxInvertedPyramidStairsTerrainCfg(
        size=(8.0, 8.0),
        step_height_range=(0.0, 0.2),
        step_width=0.5,
        platform_width=3.0,
        border_width=1.0,
    )
    _, ground = tile(down, 0.5)
    line = ground.heights(np.column_stack((np.full(40, 4.0), np.arange(0.05, 4.0, 0.1))))
    np.testing.assert_allclose(line, -expected, atol=1e-6)


@pytest.mark.parametrize("inverted", [False, True])
def test_holes_leave_a_cross(inverted: bool):
    cls = (
        terrains.BoxInvertedPyramidStairsTerrainCfg
        if inverted
        else terrains.BoxPyramidStairsTerrainCfg
    )
    kind = cls(
        size=(8.0, 8.0),
        step_height_range=(0.1, 0.1),
        step_width=0.5,
        platform_width=2.0,
        border_width=0.5,
        holes=True,
    )
    _, ground = tile(kind)
    sign = -1.0 if inverted else 1.0
    assert ground.height(0.7, 4.0) == pytest.approx(sign * 0.1)
    assert ground.height(4.0, 7.3) == pytest.approx(sign * 0.1)
    assert ground.height(1.2, 4.0) == pytest.approx(sign * 0.2)
    assert ground.height(1.5, 1.5) == -np.inf and ground.height(0.2, 4.0) == -np.inf


def test_height_fields_have_the_configured_heights_along_the_right_axes():
    size = (6.0, 10.0)
    _, ground = tile(
        terrains.HfWaveTerrainCfg(size=size, amplitude_range=(0.2, 0.2), num_waves=2), 0.0
    )
    # Two waves along y, 5 m each; those along x are as long.
    for x, y in ((0.0, 1.25), (2.5, 3.75), (4.0, 6.0)):
        expected = 0.1 * (np.sin(2 * np.pi * y / 5) + np.cos(2 * np.pi * x / 5))
        assert ground.height(max(x, 0.01), y) == pytest.approx(expected, abs=0.02)

    slope = terrains.HfPyramidSlopedTerrainCfg(
        size=(8.0, 8.0), slope_range=(0.5, 0.5), platform_width=2.0
    )
    _, ground = tile(slope)
    assert ground.height(2.0, 4.0) - ground.height(1.0, 4.0) == pytest.approx(0.5, abs=0.02)
    assert ground.height(4.0, 1.5) == pytest.approx(0.75, abs=0.02)

    lowered = terrains.HfRandomUniformTerrainCfg(
        size=(6.0, 6.0), noise_range=(-0.2, -0.1), noise_step=0.05, border_width=1.0
    )
    _, ground = tile(lowered)
    points = np.random.default_rng(0).uniform(1.3, 4.7, (60, 2))
    assert ground.height(0.5, 0.5) == pytest.approx(0.0, abs=1e-6), "the border is at height 0"
    assert -0.2001 <= ground.heights(points).min() and ground.heights(points).max() <= -0.0999


def test_rough_ground_grows_with_difficulty_if_asked():
    kind = terrains.HfRandomUniformTerrainCfg(
        size=(6.0, 6.0), noise_range=(0.0, 0.4), scale_with_difficulty=True
    )
    points = np.random.default_rng(0).uniform(0.5, 5.5, (80, 2))
    spread = [np.ptp(tile(kind, d)[1].heights(points)) for d in (0.0, 0.3, 1.0)]
    assert spread[0] == pytest.approx(0.0) and 0.0 < spread[1] < 0.5 * spread[2]


def test_smooth_ground_between_distant_random_heights():
    kind = terrains.HfRandomUniformTerrainCfg(
        size=(6.0, 6.0), noise_range=(0.0, 0.5), downsampled_scale=1.0, vertical_scale=0.001
    )
    output, _ = tile(kind)
    heights = output.geometries[0].heights
    assert heights is not None and np.ptp(heights) > 0.3
    assert np.abs(np.diff(heights, axis=0)).max() < 0.15, "neighbours are 0.1 m apart"


def test_merging_columns_needs_fewer_geoms_and_changes_heights_little():
    plain = terrains.BoxRandomGridTerrainCfg(
        size=(8.0, 8.0), grid_width=0.4, grid_height_range=(0.1, 0.1)
    )
    merged = dataclasses.replace(plain, merge_similar_heights=True)
    one, other = tile(plain)[1], tile(merged)[1]
    assert other.model.ngeom < 0.75 * one.model.ngeom
    points = np.random.default_rng(0).uniform(0.5, 7.5, (100, 2))
    assert np.abs(one.heights(points) - other.heights(points)).max() <= 0.0251


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), difficulty=st.floats(0.0, 1.0), platform=st.floats(0.6, 2.5))
def test_no_box_lies_on_the_place_to_start_from(seed: int, difficulty: float, platform: float):
    kind = terrains.BoxRandomSpreadTerrainCfg(size=(6.0, 7.0), platform_width=platform)
    output, ground = tile(kind, difficulty, seed)
    half = platform / 2 - 1e-3
    corners = output.origin[:2] + np.array([(x, y) for x in (-half, half) for y in (-half, half)])
    assert np.abs(ground.heights(corners)).max() < 1e-6


BAD: list[tuple[type, dict[str, Any], str]] = [
    (terrains.BoxPyramidStairsTerrainCfg, {"step_width": 0.0}, "step_width must be above 0, got 0"),
    (terrains.BoxPyramidStairsTerrainCfg, {"step_width": 9.0}, "step_width is 9 m, but the tile"),
    (terrains.BoxPyramidStairsTerrainCfg, {"border_width": 4.0}, "leaves nothing of a tile of 8 m"),
    (terrains.BoxPyramidStairsTerrainCfg, {"step_height_range": (-0.1, 0.1)}, "each at least 0"),
    (terrains.BoxOpenStairsTerrainCfg, {"step_width_range": (9.0, 9.0)}, "step_width_range is 9"),
    (
        terrains.BoxRandomStairsTerrainCfg,
        {"platform_width": -1.0},
        "platform_width must be above 0",
    ),
    (terrains.BoxRandomGridTerrainCfg, {"grid_width": 20.0}, "grid_width is 20 m"),
    (terrains.BoxRandomSpreadTerrainCfg, {"num_boxes": -1}, "num_boxes must be 0 or above"),
    (terrains.BoxRandomSpreadTerrainCfg, {"platform_width": 9.0}, "platform_width is 9 m"),
    (terrains.BoxSteppingStonesTerrainCfg, {"stone_size_range": (0.0, 0.5)}, "each above 0"),
    (terrains.BoxSteppingStonesTerrainCfg, {"floor_depth": 0.0}, "floor_depth must be above 0"),
    (terrains.BoxNarrowBeamsTerrainCfg, {"num_beams": 0}, "num_beams must be above 0"),
    (terrains.BoxTiltedGridTerrainCfg, {"tilt_range_deg": 85.0}, "below 80 degrees, got 85"),
    (terrains.BoxNestedRingsTerrainCfg, {"gap_range": (0.1,)}, "gap_range must be two numbers"),
    (terrains.HfPyramidSlopedTerrainCfg, {"horizontal_scale": 4.0}, "needs 4 x 4"),
    (terrains.HfPyramidSlopedTerrainCfg, {"border_width": 0.05}, "narrower than the distance"),
    (terrains.HfRandomUniformTerrainCfg, {"downsampled_scale": 0.05}, "at least horizontal_scale"),
    (terrains.HfRandomUniformTerrainCfg, {"noise_range": (0.2, 0.1)}, "the least and the greatest"),
    (terrains.HfWaveTerrainCfg, {"num_waves": 0}, "num_waves must be above 0, got 0"),
    (
        terrains.HfDiscreteObstaclesTerrainCfg,
        {"obstacle_height_mode": "fix"},
        "'fix'. Did you mean",
    ),
    (terrains.HfPerlinNoiseTerrainCfg, {"scale": float("nan")}, "scale must be above 0, got nan"),
]
NEEDED: dict[type, dict[str, Any]] = {
    terrains.BoxPyramidStairsTerrainCfg: {"step_height_range": (0.0, 0.1), "step_width": 0.3},
    terrains.BoxRandomGridTerrainCfg: {"grid_width": 0.4, "grid_height_range": (0.0, 0.2)},
    terrains.HfPyramidSlopedTerrainCfg: {"slope_range": (0.0, 0.5)},
    terrains.HfRandomUniformTerrainCfg: {"noise_range": (0.0, 0.1)},
    terrains.HfWaveTerrainCfg: {"amplitude_range": (0.0, 0.1)},
    terrains.HfPerlinNoiseTerrainCfg: {"height_range": (0.0, 0.1)},
    terrains.HfDiscreteObstaclesTerrainCfg: {
        "obstacle_width_range": (0.3, 0.5),
        "obstacle_height_range": (0.0, 0.1),
        "num_obstacles": 3,
    },
}


@pytest.mark.parametrize(("cls", "fields", "message"), BAD)
def test_an_impossible_tile_is_one_clear_error(cls: type, fields: dict[str, Any], message: str):
    kind = cls(**{"size": (8.0, 8.0)} | NEEDED.get(cls, {}) | fields)
    with pytest.raises(ValueError, match=message) as error:
        tile(kind)
    assert cls.__name__ in str(error.value)


def test_stairs_without_room_for_a_step_are_flat_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        tile(pyramid_stairs(size=(4.0, 4.0)))
    assert "no step of 0.3 m fits between the border and the platform of 3 m" in caplog.text


def test_a_spec_without_the_body_is_an_error():
    with pytest.raises(ValueError, match='no body "terrain"'):
        terrains.BoxFlatTerrainCfg().function(0.0, mujoco.MjSpec(), np.random.default_rng(0))
