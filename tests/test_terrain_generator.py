"""The grid of tiles: places, seeds, border, colours, patches, and what cannot be made."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from terrain_worlds import disc, fingerprint, generate, grid

from mjlab_rec.terrains import (
    BoxFlatTerrainCfg,
    FlatPatchSamplingCfg,
    SubTerrainCfg,
    TerrainGenerator,
    TerrainGeometry,
    TerrainOutput,
)
from mjlab_rec.terrains.config import (
    ALL_TERRAIN_PRESETS,
    ALL_TERRAINS_CFG,
    ROUGH_TERRAINS_CFG,
    STAIRS_TERRAINS_CFG,
    box_random_grid,
    flat,
    perlin_noise,
    pyramid_stairs,
    random_rough,
    terrain_preset,
)

KINDS = sorted(ALL_TERRAIN_PRESETS)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_grid_has_its_tiles_origins_border_and_patches_in_place(data: st.DataObject):
    names = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True))
    spawn = FlatPatchSamplingCfg(
        num_patches=data.draw(st.integers(1, 4)),
        patch_radius=data.draw(st.floats(0.1, 0.5)),
        max_height_diff=data.draw(st.floats(0.0, 0.1)),
    )
    subs: dict[str, SubTerrainCfg] = {
        name: ALL_TERRAIN_PRESETS[name](
            flat_patch_sampling=data.draw(st.sampled_from([None, {"spawn": spawn}]))
        )
        for name in names
    }
    low = data.draw(st.floats(0.0, 1.0))
    cfg = grid(
        seed=data.draw(st.integers(0, 2**40)),
        curriculum=data.draw(st.booleans()),
        size=data.draw(st.sampled_from([(6.0, 6.0), (6.5, 8.0), (9.0, 6.0)])),
        num_rows=data.draw(st.integers(1, 3)),
        num_cols=data.draw(st.integers(1, 3)),
        border_width=data.draw(st.sampled_from([0.0, 1.5])),
        color_scheme=data.draw(st.sampled_from(["height", "random", "none"])),
        difficulty_range=(low, data.draw(st.floats(low, 1.0))),
        sub_terrains=subs,
    )
    before = dataclasses.asdict(cfg)
    generator, ground = generate(cfg)
    assert dataclasses.asdict(cfg) == before, "the caller's config is not changed"
    rows, cols = generator.terrain_origins.shape[:2]
    assert (rows, cols) == (cfg.num_rows, len(names) if cfg.curriculum else cfg.num_cols)

    size = np.array(cfg.size)
    for row in range(rows):
        for col in range(cols):
            tile, origin = generator.tiles[row][col], generator.terrain_origins[row, col]
            assert tile.name in names and low <= tile.difficulty <= cfg.difficulty_range[1]
            middle = (np.array([row, col]) + 0.5 - np.array([rows, cols]) / 2) * size
            np.testing.assert_allclose(origin[:2], middle)
            assert ground.height(*origin[:2]) <= origin[2] + 1e-6
            assert ground.heights(middle + disc(0.4)).max() <= origin[2] + 0.5
            for places in generator.flat_patches.values():
                for place in places[row, col]:
                    if np.array_equal(place, origin):
                        continue  # This kind has no patches, or there are none.
                    heights = ground.heights(place[:2] + disc(spawn.patch_radius - 1e-3))
                    assert np.ptp(heights) <= spawn.max_height_diff + 1e-6
                    assert heights.max() <= place[2] + 1e-6
                    inside = size / 2 - np.abs(place[:2] - middle)
                    assert inside.min() >= spawn.patch_radius - 1e-6

    edge = np.array([rows, cols]) * size / 2
    beyond = np.array([ground.height(edge[0] + 0.7, 0.0), ground.height(0.0, -edge[1] - 0.7)])
    assert np.all(beyond == (0.0 if cfg.border_width else -np.inf))
    model = ground.model
    names_of_geoms = [model.geom(i).name for i in range(model.ngeom)]
    assert names_of_geoms == [f"terrain_{i}" for i in range(model.ngeom)]
    assert set(model.geom_bodyid) == {model.body("terrain").id}
    assert model.body("terrain").mass == 0.0 and set(model.geom_group) == {0}


def everything(**fields: Any) -> Any:
    presets = {name: preset() for name, preset in ALL_TERRAIN_PRESETS.items()}
    return grid(sub_terrains=presets, num_rows=4, num_cols=5, **fields)


@pytest.mark.parametrize("curriculum", [False, True])
def test_the_same_seed_gives_the_same_ground_bit_for_bit(curriculum: bool):
    cfg = everything(seed=5, curriculum=curriculum)
    np.random.seed(1)
    one = fingerprint(generate(cfg)[1].model)
    np.random.seed(2)
    assert fingerprint(generate(cfg)[1].model) == one
    cfg.seed = 6
    assert fingerprint(generate(cfg)[1].model) != one


def test_without_a_seed_that_of_the_caller_counts_and_is_told():
    cfg = everything(seed=None)
    told = TerrainGenerator(cfg, seed=7)
    assert told.seed == 7 and TerrainGenerator(everything(seed=3), seed=7).seed == 3
    drawn = {TerrainGenerator(cfg).seed for _ in range(3)}
    assert len(drawn) == 3


def test_a_tile_does_not_depend_on_its_neighbours():
    def rough(width: float, **fields: Any) -> Any:
        subs = {"rough": random_rough(), "grid": box_random_grid(grid_width=width)}
        return grid(seed=3, curriculum=True, sub_terrains=subs, **fields)

    points = np.random.default_rng(0).uniform(-5.5, -0.5, (50, 2)) * [1.0, 1.0]
    one = generate(rough(0.4))[1].heights(points)
    np.testing.assert_array_equal(generate(rough(0.7))[1].heights(points), one)
    np.testing.assert_array_equal(generate(rough(0.4, color_scheme="none"))[1].heights(points), one)
    np.testing.assert_array_equal(generate(rough(0.4, border_width=3.0))[1].heights(points), one)


def test_in_random_mode_proportions_are_probabilities():
    subs = {"a": flat(proportion=3.0), "b": flat(proportion=1.0), "never": flat(proportion=0.0)}
    generator = TerrainGenerator(grid(sub_terrains=subs, num_rows=30, num_cols=30))
    names = [tile.name for row in generator.tiles for tile in row]
    assert names.count("a") / 900 == pytest.approx(0.75, abs=0.06) and "never" not in names


def test_in_curriculum_mode_rows_are_levels_and_columns_are_kinds():
    subs = {"a": flat(), "b": pyramid_stairs()}
    cfg = grid(
        curriculum=True, num_rows=3, num_cols=9, sub_terrains=subs, difficulty_range=(0.2, 1.0)
    )
    tiles = TerrainGenerator(cfg).tiles
    assert [[t.name for t in row] for row in tiles] == [["a", "b"]] * 3
    assert [row[0].difficulty for row in tiles] == pytest.approx([0.2, 0.6, 1.0])
    cfg.num_rows = 1
    assert TerrainGenerator(cfg).tiles[0][0].difficulty == 0.2
    assert cfg.num_cols == 9


def test_generators_that_share_kinds_keep_their_own_tile_size():
    kind = pyramid_stairs()
    small, large = (grid(size=(s, s), sub_terrains={"a": kind}) for s in (6.0, 10.0))
    one, _ = generate(small)
    generate(large)
    assert generate(small)[1].height(3.1, 0.1) == generate(small)[1].height(3.1, 0.1)
    np.testing.assert_array_equal(generate(small)[0].terrain_origins, one.terrain_origins)
    assert kind.size == (10.0, 10.0)


@dataclasses.dataclass(kw_only=True)
class Blocks(SubTerrainCfg):
    """A kind of one's own, as in other packages."""

    names: tuple[str | None, str | None] = (None, None)
    shape: mujoco.mjtGeom = mujoco.mjtGeom.mjGEOM_BOX

    def function(self, difficulty, spec, rng):
        body = spec.body("terrain")
        geoms = [
            body.add_geom(type=self.shape, size=(0.5, 0.5, 0.5), pos=(i, 1.0, 0.0), name=name)
            for i, name in enumerate(self.names)
        ]
        color = (0.1, 0.2, 0.3, 1.0)
        return TerrainOutput(
            np.zeros(3), [TerrainGeometry(geom=geom, color=color) for geom in geoms]
        )


def test_a_kind_of_ones_own_keeps_its_names_and_colours():
    subs: dict[str, SubTerrainCfg] = {"named": Blocks(names=("foo", "bar")), "unnamed": Blocks()}
    _, ground = generate(grid(curriculum=True, num_rows=1, sub_terrains=subs))
    model = ground.model
    assert [model.geom(i).name for i in range(4)] == ["foo", "bar", "terrain_2", "terrain_3"]
    np.testing.assert_allclose(model.geom_rgba[:, :3], [(0.1, 0.2, 0.3)] * 4, atol=1e-6)
    np.testing.assert_allclose(model.geom_pos[2], [-3.0, 1.0, 0.0])


@dataclasses.dataclass(kw_only=True)
class Log(SubTerrainCfg):
    """A geom that is given by its ends."""

    def function(self, difficulty, spec, rng):
        geom = spec.body("terrain").add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[1, 1, 0, 1, 4, 0], size=[0.2, 0, 0]
        )
        return TerrainOutput(np.zeros(3), [TerrainGeometry(geom=geom)])


def test_a_geom_that_is_given_by_its_ends_is_moved_too():
    _, ground = generate(grid(num_rows=1, num_cols=2, sub_terrains={"log": Log()}))
    np.testing.assert_allclose(ground.model.geom_pos[:, :2], [(-2.0, -3.5), (-2.0, 2.5)])


def test_a_preset_of_ones_own_joins_the_others():
    @terrain_preset
    def moon(**overrides: Any) -> BoxFlatTerrainCfg:
        return BoxFlatTerrainCfg(**overrides)

    try:
        assert ALL_TERRAIN_PRESETS["moon"](proportion=0.5).proportion == 0.5
    finally:
        del ALL_TERRAIN_PRESETS["moon"]


def test_colours_tell_heights_and_the_border_is_plain():
    subs = {"up": pyramid_stairs(), "hills": perlin_noise()}
    cfg = grid(curriculum=True, num_rows=1, border_width=1.0, sub_terrains=subs)
    cfg.difficulty_range = (1.0, 1.0)
    cfg.size = (8.0, 8.0)
    model = generate(cfg)[1].model
    steps = model.geom_rgba[:7]
    assert len(np.unique(steps, axis=0)) == 7, "each step has its own colour"
    assert model.nmat == 1 and model.ntex == 1, "height fields have a texture"
    assert len(np.unique(model.geom_rgba[-4:], axis=0)) == 1

    cfg.color_scheme = "none"
    model = generate(cfg)[1].model
    assert model.ntex == 0 and len(np.unique(model.geom_rgba, axis=0)) == 1
    cfg.color_scheme = "random"
    model = generate(cfg)[1].model
    assert model.ntex == 0 and len(np.unique(model.geom_rgba, axis=0)) > 7


def test_the_light_is_faint_and_casts_no_shadow():
    cfg = grid(add_lights=True, sub_terrains={"flat": flat()})
    model = generate(cfg)[1].model
    assert model.nlight == 1 and not model.light_castshadow[0]
    assert model.light_diffuse.max() < 0.2
    assert generate(dataclasses.replace(cfg, add_lights=False))[1].model.nlight == 0


def test_presets_of_grids():
    assert list(ROUGH_TERRAINS_CFG.sub_terrains) == [
        "flat",
        "pyramid_stairs",
        "pyramid_stairs_inv",
        "hf_pyramid_slope",
        "hf_pyramid_slope_inv",
        "random_rough",
        "wave_terrain",
    ]
    assert STAIRS_TERRAINS_CFG.curriculum and len(STAIRS_TERRAINS_CFG.sub_terrains) == 4
    assert set(ALL_TERRAINS_CFG.sub_terrains) == set(ALL_TERRAIN_PRESETS)


def test_places_without_flat_ground_are_at_the_origin_with_a_warning(caplog):
    patches = {"spawn": FlatPatchSamplingCfg(num_patches=3, patch_radius=0.5, max_height_diff=0.0)}
    subs = {
        "rough": random_rough(flat_patch_sampling=patches),
        "flat": flat(flat_patch_sampling={"spawn": FlatPatchSamplingCfg(num_patches=5)}),
        "none": flat(),
    }
    cfg = grid(curriculum=True, num_rows=1, sub_terrains=subs)
    with caplog.at_level(logging.WARNING):
        generator, _ = generate(cfg)
    assert "'rough' in row 0, column 0 has no flat patch for spawn" in caplog.text
    places = generator.flat_patches["spawn"]
    assert places.shape == (1, 3, 5, 3) and generator.flat_patch_radii == {"spawn": 0.5}
    for col in (0, 2):
        np.testing.assert_array_equal(places[0, col], [generator.terrain_origins[0, col]] * 5)
    assert len(np.unique(places[0, 1], axis=0)) == 5


def test_fewer_patches_than_on_other_tiles_repeat():
    subs = {
        name: flat(flat_patch_sampling={"spawn": FlatPatchSamplingCfg(num_patches=count)})
        for name, count in (("two", 2), ("six", 6))
    }
    generator, _ = generate(grid(curriculum=True, num_rows=1, sub_terrains=subs))
    two = generator.flat_patches["spawn"][0, 0]
    np.testing.assert_array_equal(two[:2], two[2:4])
    assert len(np.unique(two, axis=0)) == 2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sub_terrains": {}}, "sub_terrains is empty"),
    ({"sub_terrains": {"a": flat(proportion=0.0)}}, "every proportion is 0"),
    ({"sub_terrains": {"a": flat(proportion=-1.0)}}, r"\['a'\].proportion must be 0 or above"),
    ({"size": (0.0, 4.0)}, "size must be two lengths above 0"),
    ({"size": (4.0,)}, "size must be two lengths above 0"),
    ({"num_rows": 0}, "num_rows must be at least 1, got 0"),
    ({"num_cols": -2}, "num_cols must be at least 1, got -2"),
    ({"border_width": -1.0}, "border_width must be 0 or above, got -1"),
    ({"border_width": 1.0, "border_height": 0.0}, "border_height must not be 0"),
    ({"difficulty_range": (1.0, 0.0)}, "the least and the greatest difficulty"),
    ({"color_scheme": "hight"}, "unknown color_scheme 'hight'. Did you mean 'height'"),
    ({"seed": -1}, "seed must be 0 or above, got -1"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_an_impossible_grid_is_one_clear_error(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TerrainGenerator(grid(**{"sub_terrains": {"a": flat()}} | fields))


def test_errors_of_a_kind_name_the_sub_terrain():
    with pytest.raises(TypeError, match=r"sub_terrains\['a'\] must be a SubTerrainCfg, got dict"):
        TerrainGenerator(grid(sub_terrains={"a": {}}))
    with pytest.raises(ValueError, match="Sub-terrain 'steep': BoxPyramidStairsTerrainCfg.step_w"):
        generate(grid(sub_terrains={"steep": pyramid_stairs(step_width=-1.0)}))
    bad = {"spawn": FlatPatchSamplingCfg(patch_radius=0.0)}
    with pytest.raises(ValueError, match="Sub-terrain 'a': FlatPatchSamplingCfg.patch_radius must"):
        generate(grid(sub_terrains={"a": flat(flat_patch_sampling=bad)}))
    balls = Blocks(
        shape=mujoco.mjtGeom.mjGEOM_SPHERE, flat_patch_sampling={"a": FlatPatchSamplingCfg()}
    )
    with pytest.raises(ValueError, match="'a': flat patches cannot be found on a sphere"):
        generate(grid(sub_terrains={"a": balls}))
