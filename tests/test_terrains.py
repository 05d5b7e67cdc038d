"""The ground and the grid of origins on it."""

from __future__ import annotations

import copy

import mujoco
import pytest
import torch
from entity_worlds import ARM, build, entity

from mjlab_rec.terrains import TerrainEntity, TerrainEntityCfg
from mjlab_rec.terrains.origins import grid_origins
from mjlab_rec.utils.spec_config import CollisionCfg, LightCfg, MaterialCfg, TextureCfg


@pytest.mark.parametrize("num_envs", [1, 2, 3, 5, 12, 100])
def test_origins_are_a_centered_grid_with_the_given_spacing(num_envs: int):
    origins = grid_origins(num_envs, 3.0, "cpu")
    assert origins.shape == (num_envs, 3) and not origins[:, 2].any()
    distance = torch.cdist(origins, origins) + 100 * torch.eye(num_envs)
    assert num_envs == 1 or distance.min() == pytest.approx(3.0, abs=1e-3)
    assert origins.abs().max() <= 3.0 * num_envs**0.5
    if num_envs in (1, 12, 100):
        torch.testing.assert_close(origins.mean(dim=0), torch.zeros(3))


def test_the_scene_sets_number_and_spacing_on_a_copy():
    cfg = TerrainEntityCfg(terrain_type="plane")
    before = copy.deepcopy(cfg)
    scene, _ = build(num_envs=4, env_spacing=5.0, terrain=cfg, entities={"arm": entity(ARM)})
    assert cfg == before
    assert scene.terrain is scene["terrain"] is scene.entities["terrain"]
    assert torch.equal(scene.env_origins, grid_origins(4, 5.0, "cpu"))
    assert scene.env_origins[:, 0].abs().tolist() == [2.5] * 4


def test_objects_land_on_the_plane():
    box = '<mujoco><worldbody><body name="b"><freejoint/><geom type="box" size=".1 .1 .1"/></body>'
    start = entity(f"{box}</worldbody></mujoco>")
    start.init_state.pos = (0.0, 0.0, 0.3)
    scene, sim = build(num_envs=2, terrain=TerrainEntityCfg(), entities={"box": start})
    scene["box"].write_root_state_to_sim(scene["box"].data.default_root_state)
    sim.step(300)
    assert scene["box"].data.root_link_pos_w[:, 2].tolist() == pytest.approx([0.1, 0.1], abs=5e-3)
    assert sim.mj_model.geom("terrain").type == mujoco.mjtGeom.mjGEOM_PLANE
    assert sim.mj_model.body("terrain").id > 0


def test_a_terrain_is_checked_when_it_is_built_and_not_before():
    unfinished = TerrainEntityCfg(terrain_type="generator")
    with pytest.raises(ValueError, match="terrain_generator must be a TerrainGeneratorCfg, got N"):
        unfinished.build()
    unfinished.terrain_type = "plane"
    unfinished.build()
    # Tasks for flat ground are often made from one for rough ground.
    assert TerrainEntityCfg(terrain_generator=None, max_init_terrain_level=5).build().tiles is None
    with pytest.raises(ValueError, match="Unknown terrain_type 'hills'. .*generator.*plane"):
        TerrainEntity(TerrainEntityCfg(terrain_type="hills"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs env_spacing"):
        TerrainEntity(TerrainEntityCfg(env_spacing=None))
    with pytest.raises(ValueError, match="max_init_terrain_level must be 0 or above, got -1"):
        TerrainEntityCfg(max_init_terrain_level=-1).build()


def test_a_model_of_ones_own_is_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="makes its own model, so spec_fn must not be given"):
        TerrainEntityCfg(spec_fn=lambda: mujoco.MjSpec())


def test_the_default_ground_is_a_lit_checkerboard():
    model = TerrainEntity(TerrainEntityCfg()).compile()
    assert model.geom("terrain").matid == model.material("groundplane").id
    texture = model.material("groundplane").texid[mujoco.mjtTextureRole.mjTEXROLE_RGB]
    assert texture == model.texture("groundplane").id and model.texture(0).width == 300
    assert model.light("sun").type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL

    model = TerrainEntity(TerrainEntityCfg(textures=(), materials=(), lights=())).compile()
    assert (model.ntex, model.nmat, model.nlight) == (0, 0, 0)
    assert model.geom("terrain").matid == -1

    with pytest.raises(ValueError, match="'groundplane': the model has no texture .* whole mat"):
        TerrainEntity(TerrainEntityCfg(textures=()))


def test_the_ground_looks_and_collides_as_configured():
    cfg = TerrainEntityCfg(
        textures=(TextureCfg("sand", "2d", "flat", width=8, height=8),),
        materials=(MaterialCfg("beach", texture="sand", geom_names_expr=("terrain",)),),
        lights=(LightCfg("moon"),),
        collisions=(CollisionCfg(("terrain",), 3, 5, 6, 2, friction=(0.25,)),),
    )
    scene, sim = build(num_envs=1, terrain=cfg, entities={"arm": entity(ARM)})
    model = sim.mj_model
    ground = model.geom("terrain")
    assert ground.matid == model.material("beach").id and model.nmat == 1
    assert model.ntex == 2, "sand and sky"
    assert model.nlight == 1 and model.light(0).name == "moon"
    assert (ground.contype, ground.conaffinity, ground.condim, ground.priority) == (3, 5, 6, 2)
    assert ground.friction[0] == 0.25


def test_configs_of_grounds_share_nothing():
    one, other = TerrainEntityCfg(), TerrainEntityCfg()
    one.textures[0].rgb1 = (1.0, 0.0, 0.0)
    assert other.textures[0].rgb1 != (1.0, 0.0, 0.0)


def test_what_stands_on_the_terrain_is_not_part_of_it():
    scene, _ = build(num_envs=2, terrain=TerrainEntityCfg(), entities={"arm": entity(ARM)})
    terrain = scene["terrain"]
    assert (terrain.body_names, terrain.geom_names) == (("terrain",), ("terrain",))
    assert terrain.joint_names == () and not terrain.is_articulated
