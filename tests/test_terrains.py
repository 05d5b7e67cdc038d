"""The ground and the grid of origins on it."""

from __future__ import annotations

import copy

import mujoco
import pytest
import torch
from entity_worlds import ARM, build, entity

from mjlab_rec.terrains import TerrainEntity, TerrainEntityCfg
from mjlab_rec.terrains.terrain_entity import grid_origins


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


def test_the_plane_holds_what_falls_on_it():
    box = '<mujoco><worldbody><body name="b"><freejoint/><geom type="box" size=".1 .1 .1"/></body>'
    start = entity(f"{box}</worldbody></mujoco>")
    start.init_state.pos = (0.0, 0.0, 0.3)
    scene, sim = build(num_envs=2, terrain=TerrainEntityCfg(), entities={"box": start})
    scene["box"].write_root_state_to_sim(scene["box"].data.default_root_state)
    sim.step(300)
    assert scene["box"].data.root_link_pos_w[:, 2].tolist() == pytest.approx([0.1, 0.1], abs=5e-3)
    assert sim.mj_model.geom("terrain").type == mujoco.mjtGeom.mjGEOM_PLANE
    assert sim.mj_model.body("terrain").id > 0


def test_terrain_that_is_not_there_yet_is_an_error():
    with pytest.raises(
        ValueError, match="Unknown terrain_type 'generator'. Known: plane. .* later"
    ):
        TerrainEntityCfg(terrain_type="generator")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs env_spacing"):
        TerrainEntity(TerrainEntityCfg(env_spacing=None))
