"""Where worlds start on generated ground, and what moves them."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from mdp_worlds import make_env, robot_cfg
from terrain_worlds import grid
from test_mdp_no_waits import NoWaits

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import CurriculumTermCfg, EventTermCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sim.debug_visualizer import DebugVisualizer
from mjlab_rec.terrains import FlatPatchSamplingCfg, TerrainEntity, TerrainEntityCfg
from mjlab_rec.terrains.config import flat, pyramid_stairs, random_rough
from mjlab_rec.terrains.origins import spread_over_columns

SPAWN = {"spawn": FlatPatchSamplingCfg(num_patches=6, patch_radius=0.4)}


def ground_cfg(**fields: Any) -> TerrainEntityCfg:
    subs = {
        "flat": flat(proportion=1.0, flat_patch_sampling=SPAWN),
        "stairs": pyramid_stairs(proportion=2.0, flat_patch_sampling=SPAWN),
        "rough": random_rough(proportion=1.0),
    }
    generator = grid(curriculum=True, num_rows=4, size=(8.0, 8.0), sub_terrains=subs)
    return TerrainEntityCfg(terrain_type="generator", terrain_generator=generator, **fields)


def env_on(cfg: TerrainEntityCfg, num_envs: int = 6, **fields: Any) -> ManagerBasedRlEnv:
    scene = SceneCfg(num_envs=num_envs, terrain=cfg, entities={"robot": robot_cfg()})
    return make_env(scene=scene, entities={"robot": robot_cfg()}, **fields)


@pytest.mark.parametrize(
    ("num_envs", "shares", "counts"),
    [
        (100, [0.5, 0.3, 0.2], [50, 30, 20]),
        (8, [1.0, 1.0], [4, 4]),
        (3, [0.98, 0.01, 0.01], [1, 1, 1]),
        (10, [0.97, 0.01, 0.01, 0.01], [7, 1, 1, 1]),
        (2, [0.5, 0.3, 0.2], [1, 1, 0]),
        (5, [1.0, 0.0, 1.0], [3, 0, 2]),
        (30, None, [10, 10, 10]),
        (30, [0.25] * 4, [10, 10, 10]),
    ],
)
def test_columns_are_shared_out_by_proportion(num_envs, shares, counts):
    columns = len(counts)
    given = None if shares is None else np.array(shares)
    where = spread_over_columns(num_envs, columns, given)
    assert np.bincount(where, minlength=columns).tolist() == counts
    assert where.tolist() == sorted(where)


def test_every_world_is_on_a_tile_of_its_column_and_level():
    terrain = TerrainEntity(ground_cfg(num_envs=40, max_init_terrain_level=1), seed=3)
    origins = terrain.terrain_origins
    assert origins is not None and origins.shape == (4, 3, 3)
    assert set(terrain.terrain_levels.tolist()) == {0, 1} and terrain.max_terrain_level == 4
    assert torch.bincount(terrain.terrain_types).tolist() == [10, 20, 10]
    chosen = origins[terrain.terrain_levels, terrain.terrain_types]
    assert torch.equal(terrain.env_origins, chosen)
    again = TerrainEntity(ground_cfg(num_envs=40, max_init_terrain_level=1), seed=3)
    assert torch.equal(again.env_origins, terrain.env_origins)
    # Without a seed, that of the ground counts.
    one, other = (TerrainEntity(ground_cfg(num_envs=40)) for _ in range(2))
    assert torch.equal(one.env_origins, other.env_origins)


def test_levels_go_up_and_down_in_place_and_start_anywhere_beyond_the_last():
    terrain = TerrainEntity(ground_cfg(num_envs=8), seed=0)
    live = terrain.env_origins
    terrain.terrain_levels[:] = torch.tensor([0, 1, 2, 3, 0, 1, 3, 3])
    before, types = live.clone(), terrain.terrain_types.clone()
    ids = torch.tensor([0, 1, 2, 3, 6])
    up = torch.tensor([True, False, False, True, True])
    terrain.update_env_origins(ids, up, torch.tensor([False, True, False, False, False]))
    assert terrain.terrain_levels[:3].tolist() == [1, 0, 2]
    assert terrain.terrain_levels[[4, 5, 7]].tolist() == [0, 1, 3]
    assert all(0 <= level < 4 for level in terrain.terrain_levels.tolist())
    terrain.update_env_origins(torch.tensor([4]), torch.tensor([False]), torch.tensor([True]))
    assert terrain.terrain_levels[4] == 0
    assert terrain.env_origins is live and torch.equal(terrain.terrain_types, types)
    assert torch.equal(live[[5, 7]], before[[5, 7]])
    origins = terrain.terrain_origins
    assert origins is not None
    assert torch.equal(live[ids], origins[terrain.terrain_levels[ids], types[ids]])


def test_on_a_plane_nothing_moves():
    terrain = TerrainEntity(TerrainEntityCfg(num_envs=4))
    before = terrain.env_origins.clone()
    yes, ids = torch.ones(4, dtype=torch.bool), torch.arange(4)
    terrain.update_env_origins(ids, yes, ~yes)
    terrain.randomize_env_origins(ids)
    assert torch.equal(terrain.env_origins, before) and terrain.terrain_origins is None
    assert terrain.flat_patches == {}


def test_origins_can_be_configured_anew_in_the_same_tensor():
    terrain = TerrainEntity(TerrainEntityCfg(num_envs=30), seed=1)
    live = terrain.env_origins
    tiles = torch.stack(torch.meshgrid(*[torch.arange(n) for n in (5, 3, 1)], indexing="ij"), -1)
    terrain.configure_env_origins(tiles.reshape(5, 3, 3).float(), np.array([0.5, 0.3, 0.2]))
    assert terrain.env_origins is live and terrain.max_terrain_level == 5
    assert torch.bincount(live[:, 1].long()).tolist() == [15, 9, 6]
    terrain.configure_env_origins()
    assert terrain.env_origins is live and not live[:, 2].any()
    assert torch.equal(live, TerrainEntity(TerrainEntityCfg(num_envs=30)).env_origins)


def test_the_environments_seed_makes_the_ground_unless_it_has_its_own():
    def heights(cfg: TerrainEntityCfg, seed: int) -> np.ndarray:
        return np.array(Scene(SceneCfg(terrain=cfg), seed=seed).compile().hfield_data)

    own = ground_cfg()
    np.testing.assert_array_equal(heights(own, 1), heights(own, 2))
    assert own.terrain_generator is not None
    own.terrain_generator.seed = None
    np.testing.assert_array_equal(heights(own, 1), heights(own, 1))
    assert not np.array_equal(heights(own, 1), heights(own, 2))
    with env_on(own, seed=5) as env:
        assert env.scene.terrain.tiles.seed == 5
        assert env.scene.env_origins is env.scene.terrain.env_origins


def test_a_scene_leaves_the_config_of_the_ground_alone():
    cfg = ground_cfg()
    before = copy.deepcopy(cfg)
    Scene(SceneCfg(num_envs=3, terrain=cfg))
    assert cfg == before


def climb(env: Any, env_ids: torch.Tensor) -> torch.Tensor:
    yes = torch.ones(len(env_ids), dtype=torch.bool)
    env.scene.terrain.update_env_origins(env_ids, yes, ~yes)
    return env.scene.terrain.terrain_levels.float().mean()


def test_a_curriculum_moves_the_origin_before_the_robot_is_placed():
    climbing = {"climb": CurriculumTermCfg(func=climb)}
    with env_on(ground_cfg(max_init_terrain_level=0), curriculum=climbing) as env:
        assert env.scene.terrain.terrain_levels.tolist() == [1] * 6, "the first reset moved them"
        env.reset(env_ids=torch.tensor([2, 4]))
        assert env.scene.terrain.terrain_levels.tolist() == [1, 1, 2, 1, 2, 1]
        robot = env.scene["robot"].data.root_link_pos_w
        offset = robot - env.scene.env_origins
        torch.testing.assert_close(offset, torch.tensor([[0.0, 0.0, 2.0]]).expand(6, 3))


@pytest.mark.parametrize("moves", ["climb", "randomize"])
def test_where_a_world_goes_does_not_depend_on_the_others(moves: str):
    fields: dict[str, Any] = {"curriculum": {"climb": CurriculumTermCfg(func=climb)}}
    if moves == "randomize":
        random = EventTermCfg(func=mdp.randomize_terrain, mode="reset")
        fields = {"events": {"tile": random}}

    def levels_of_world_2(others: list[int]) -> list[float]:
        cfg = ground_cfg(max_init_terrain_level=3)
        with env_on(cfg, **fields) as env:
            seen = []
            for _ in range(8):
                env.reset(env_ids=torch.tensor(sorted({2, *others})))
                seen += env.scene.env_origins[2].tolist()
            return seen

    alone = levels_of_world_2([])
    assert levels_of_world_2([0, 1, 5]) == alone
    assert len(set(alone[::3])) > 1


def test_randomize_terrain_visits_all_tiles_and_only_moves_the_given_worlds():
    with env_on(ground_cfg(), num_envs=64) as env:
        live = env.scene.env_origins
        before = live.clone()
        some = torch.arange(0, 64, 2)
        mdp.randomize_terrain(env, some)
        assert torch.equal(live[1::2], before[1::2]) and env.scene.env_origins is live
        mdp.randomize_terrain(env, None)
        terrain = env.scene.terrain
        places = torch.stack((terrain.terrain_levels, terrain.terrain_types), dim=1).unique(dim=0)
        assert len(places) == 12


def test_robots_are_placed_on_flat_patches_of_their_tile():
    event = EventTermCfg(
        func=mdp.reset_root_state_from_flat_patches,
        mode="reset",
        params={"pose_range": {"z": (0.1, 0.1), "yaw": (-3.0, 3.0)}},
    )
    with env_on(ground_cfg(), num_envs=30, events={"place": event}) as env:
        terrain = env.scene.terrain
        places = terrain.flat_patches["spawn"][terrain.terrain_levels, terrain.terrain_types]
        robot = env.scene["robot"].data.root_link_pos_w - torch.tensor([0.0, 0.0, 2.1])
        distance = (places - robot[:, None]).norm(dim=-1)
        assert distance.min(dim=1).values.max() < 1e-4
        assert len(set(distance.argmin(dim=1).tolist())) > 3, "not always the same patch"
        with pytest.raises(ValueError, match="no flat patches 'spwan'. Did you mean 'spawn'"):
            mdp.reset_root_state_from_flat_patches(env, None, patch_name="spwan")


def test_without_patches_robots_are_placed_at_the_origin():
    with env_on(TerrainEntityCfg()) as env:
        mdp.reset_root_state_from_flat_patches(env, None, pose_range={"x": (0.5, 0.5)})
        env.sim.forward()
        env.scene.invalidate()
        offset = env.scene["robot"].data.root_link_pos_w - env.scene.env_origins
        assert offset.mean(dim=0).tolist() == pytest.approx([0.5, 0.0, 2.0], abs=1e-5)


def test_nothing_waits_for_the_device():
    ids, yes = torch.tensor([1, 3]), torch.tensor([True, False])

    def move(env: ManagerBasedRlEnv) -> None:
        env.scene.terrain.update_env_origins(ids, yes, ~yes)
        mdp.randomize_terrain(env, ids)
        mdp.reset_root_state_from_flat_patches(env, ids)

    with env_on(ground_cfg()) as env:
        env.rng._on_cpu = False  # As on a GPU.
        move(env)  # Constants are copied once.
        with NoWaits():
            move(env)


def test_robots_stand_on_generated_ground():
    with env_on(ground_cfg(), num_envs=9) as env:
        for _ in range(150):
            env.step(torch.zeros(9, env.action_manager.total_action_dim))
        height = env.scene["robot"].data.root_link_pos_w[:, 2] - env.scene.env_origins[:, 2]
        assert height.min() > 0.0 and height.max() < 1.0 and math.isfinite(height.sum())


def test_debug_vis_shows_origins_where_they_are_now():
    terrain = TerrainEntity(ground_cfg(num_envs=5, debug_vis=True), seed=0)
    terrain.randomize_env_origins(torch.arange(5))
    visualizer = DebugVisualizer(show_all_envs=True)
    terrain.debug_vis(visualizer)
    shapes = visualizer.shapes()
    assert len(shapes.kind) == 5 + 12 + 12 * 6
    np.testing.assert_allclose(shapes.pos[:5], terrain.env_origins.numpy())
    assert terrain.spec.compile().nsite == 0, "markers cost nothing in the simulation"
    one = DebugVisualizer(env_idx=3)
    terrain.debug_vis(one)
    np.testing.assert_allclose(one.shapes().pos[0], terrain.env_origins[3].numpy())


def test_debug_vis_is_off_by_default_and_works_on_a_plane():
    visualizer = DebugVisualizer()
    TerrainEntity(ground_cfg()).debug_vis(visualizer)
    assert len(visualizer.shapes().kind) == 0
    with env_on(ground_cfg(debug_vis=True)) as env:
        assert "terrain" in env.debug_vis_sources
    TerrainEntity(TerrainEntityCfg(debug_vis=True)).debug_vis(visualizer)
    assert len(visualizer.shapes().kind) == 1
