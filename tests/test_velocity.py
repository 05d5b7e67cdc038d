"""The velocity tasks: legged robots that follow commands on flat and rough ground."""

import json
from dataclasses import replace

import mujoco
import pytest
import torch

from mjlab_rec.actuator import BuiltinPositionActuatorCfg
from mjlab_rec.commands.collect import work_from
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg, load_rl_cfg
from mjlab_rec.rl.presets import TrainPreset
from mjlab_rec.terrains.config import pyramid_stairs, random_rough
from tasks.velocity import mdp
from tasks.velocity.env_cfg import velocity_env_cfg
from tasks.velocity.mdp.terrain_utils import fit_terrain_normal
from tasks.velocity.robot import Gait, LeggedRobot
from tasks.velocity.robots import quadruped

TASKS = [f"velocity-{g}-{r}" for g in ("flat", "rough") for r in ("quadruped", "biped")]

# A table on four legs that telescope; its feet have no sites.
TABLE = """
<mujoco>
  <worldbody>
    <body name="top" pos="0 0 0.5">
      <freejoint/>
      <geom name="plate" type="box" size="0.3 0.3 0.05" mass="5"/>
      <body name="leg0" pos="0.25 0.25 0">
        <joint name="slide0" type="slide" axis="0 0 1" range="-0.1 0.1"/>
        <geom name="foot0" pos="0 0 -0.4" size="0.05" mass="0.2"/>
      </body>
      <body name="leg1" pos="-0.25 0.25 0">
        <joint name="slide1" type="slide" axis="0 0 1" range="-0.1 0.1"/>
        <geom name="foot1" pos="0 0 -0.4" size="0.05" mass="0.2"/>
      </body>
      <body name="leg2" pos="0 -0.25 0">
        <joint name="slide2" type="slide" axis="0 0 1" range="-0.1 0.1"/>
        <geom name="foot2" pos="0 0 -0.4" size="0.05" mass="0.2"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def small(cfg, num_envs=8):
    """A few environments, on a small piece of ground if it is generated."""
    cfg.scene.num_envs, cfg.seed, cfg.sim.engine = num_envs, 0, "mjbatch"
    ground = cfg.scene.terrain
    if ground.terrain_generator is not None:
        kinds = {"stairs": pyramid_stairs(), "rough": random_rough()}
        ground.terrain_generator = replace(
            ground.terrain_generator, num_rows=3, border_width=2.0, sub_terrains=kinds
        )
    return cfg


def zero(env):
    return torch.zeros(env.num_envs, env.action_manager.total_action_dim)


@pytest.mark.parametrize("task", TASKS)
def test_random_actions_give_finite_numbers_for_every_term(task):
    with ManagerBasedRlEnv(small(load_env_cfg(task))) as env:
        env.reset()
        for _ in range(40):
            obs, *_ = env.step(torch.randn_like(zero(env)))
            assert all(group.isfinite().all() for group in obs.values())
            assert env.reward_manager.step_reward.isfinite().all()
        sums = env.reward_manager.episode_sums
        assert sums["track_linear_velocity"].max() > 0.0 > sums["action_rate_l2"].min()
    assert load_rl_cfg(task).num_steps_per_env > 0


def test_quadruped_stands_under_zero_action():
    cfg = small(load_env_cfg("velocity-flat-quadruped"), num_envs=32)
    cfg.events["push_robot"] = None
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        for _ in range(100):
            *_, terminated, _, _ = env.step(zero(env))
            assert not terminated.any()
        data = env.scene["robot"].data
        assert (data.root_link_pos_w[:, 2] - quadruped().height).abs().max() < 0.02
        assert data.projected_gravity_b[:, 2].max() < -0.98
        assert data.joint_vel.abs().max() < 0.5
        assert (env.scene["feet_ground_contact"].data.found > 0).all()
        weight = -9.81 * env.sim.mj_model.body_mass.sum()
        force = env.scene["feet_ground_contact"].data.force[..., 2].sum(dim=1).mean()
        assert float(force) == pytest.approx(weight, rel=0.05)


def test_cpu_preset_lets_only_feet_collide_and_takes_the_cheap_solver():
    cfg = load_env_cfg("velocity-flat-quadruped")
    TrainPreset("velocity_cpu").apply(cfg, load_rl_cfg("velocity-flat-quadruped"))
    with ManagerBasedRlEnv(small(cfg)) as env:
        model = env.sim.mj_model
        assert model.opt.solver == mujoco.mjtSolver.mjSOL_PGS
        assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_ISLAND
        names = [model.geom(i).name for i in range(model.ngeom) if model.geom_conaffinity[i]]
        assert sorted(names) == [
            "robot/FL_foot_collision",
            "robot/FR_foot_collision",
            "robot/RL_foot_collision",
            "robot/RR_foot_collision",
            "terrain",
        ]
    full = ManagerBasedRlEnv(small(load_env_cfg("velocity-flat-quadruped")))
    assert (full.sim.mj_model.geom_conaffinity > 0).sum() == 1 + 2 + 4 * 4
    full.close()


def test_ground_gets_harder_for_robots_that_walk_far_and_easier_for_those_that_do_not():
    cfg = small(load_env_cfg("velocity-rough-quadruped"))
    cfg.scene.terrain.max_init_terrain_level = 1
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        terrain, robot = env.scene.terrain, env.scene["robot"]
        terrain.update_env_origins(torch.arange(8), torch.ones(8).bool(), torch.zeros(8).bool())
        before = terrain.terrain_levels.clone()
        assert set(before.tolist()) <= {1, 2}
        before.fill_(1)
        terrain.terrain_levels[:] = 1
        env.step(zero(env))
        command = env.command_manager.get_term("twist")
        command.vel_command_b[:] = torch.tensor([1.0, 0.0, 0.0])
        pose = robot.data.root_link_pose_w.clone()
        pose[:, :2] = env.scene.env_origins[:, :2]
        pose[:4, 0] += 4.5  # Beyond the tile of 8 m.
        robot.write_root_link_pose_to_sim(pose)
        env.sim.forward()
        env.reset(env_ids=torch.arange(8))
        assert terrain.terrain_levels.tolist() == [2] * 4 + [0] * 4
        origins = terrain.terrain_origins[terrain.terrain_levels, terrain.terrain_types]
        assert torch.equal(env.scene.env_origins, origins)


def test_commands_get_faster_with_training():
    with ManagerBasedRlEnv(small(load_env_cfg("velocity-flat-quadruped"))) as env:
        env.reset()
        ranges = env.command_manager.get_term_cfg("twist").ranges
        assert ranges.lin_vel_x == (-1.0, 1.0)
        env.common_step_counter = 2000 * 24
        env.reset()
        assert ranges.lin_vel_x == (-1.5, 2.0)


def table():
    """A robot in ten lines."""
    servo = BuiltinPositionActuatorCfg(target_names_expr=(".*",), stiffness=900.0, damping=60.0)
    return LeggedRobot(
        entity=EntityCfg(
            spec_fn=lambda: mujoco.MjSpec.from_string(TABLE),
            articulation=EntityArticulationInfoCfg(actuators=(servo,)),
            init_state=EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 0.46)),
        ),
        base="top",
        height=0.45,
        foot_geoms=("foot.",),
    )


@pytest.mark.parametrize("rough", [False, True])
def test_ten_lines_put_another_robot_into_the_task(rough):
    with ManagerBasedRlEnv(small(velocity_env_cfg(table(), rough))) as env:
        obs, _ = env.reset()
        for _ in range(25):
            obs, *_ = env.step(zero(env))
        assert obs["critic"].isfinite().all()
        assert env.scene["robot"].site_names == ("foot0_foot", "foot1_foot", "foot2_foot")
        assert env.scene["feet_ground_contact"].data.found.shape == (8, 3)
        assert "gait" not in env.reward_manager.active_terms
        heights = mdp.foot_height(env, "foot_height_scan" if rough else None)
        if not rough:
            assert (env.sim.mj_model.geom_conaffinity > 0).sum() == 1 + 1 + 3  # All collide.
            assert (heights - 0.05).abs().max() < 0.03


def test_wrong_names_in_a_robot_are_errors_that_name_the_right_ones():
    with pytest.raises(ValueError, match="no site 'FX'.*FR"):
        velocity_env_cfg(replace(quadruped(), foot_sites=("FX",)))
    with pytest.raises(ValueError, match="no reward 'poses'.*pose"):
        velocity_env_cfg(replace(quadruped(), weights={"poses": 1.0}))
    robot = replace(table(), std_walking={"slide0": 0.1})
    with pytest.raises(ValueError, match="std_walking has no value.*slide1"):
        ManagerBasedRlEnv(small(velocity_env_cfg(robot)))


def test_gait_reward_wants_feet_up_when_it_is_their_turn():
    robot = replace(table(), gait=Gait(frequency_hz=1.25, offsets=(0.0, 0.5, 0.5)))
    cfg = small(velocity_env_cfg(robot))
    cfg.events["push_robot"] = None
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        command = env.command_manager.get_term("twist")
        for _ in range(25):
            env.step(zero(env))
        params = env.reward_manager.get_term_cfg("gait").params
        command.vel_command_b[:] = 0.0
        assert mdp.feet_gait(env, **params).min() > 0.95  # All stand, as they should.
        assert not mdp.gait_clock(env, 1.25, "twist").any()
        command.vel_command_b[:, 0] = 1.0
        env.episode_length_buf[:] = 10  # A quarter of a period.
        assert mdp.feet_gait(env, **params) == pytest.approx(torch.full((8,), 2 / 3), abs=0.05)
        clock = mdp.gait_clock(env, 1.25, "twist")
        assert torch.allclose(clock, torch.tensor([1.0, 0.0]), atol=1e-5)


def test_slope_of_the_ground_is_found_from_points_and_up_where_they_do_not_tell():
    spot = torch.rand(3, 40, 2, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    height = spot @ torch.tensor([0.5, -0.25]) + 7.0
    points = torch.cat((spot, height.unsqueeze(2)), dim=2)
    points[1, :, 0] = 0.0  # A line.
    valid = torch.ones(3, 40, dtype=torch.bool)
    points[0, 0], valid[0, 0] = torch.nan, False
    valid[2, 2:] = False
    normal = fit_terrain_normal(points, valid)
    slope = torch.tensor([-0.5, 0.25, 1.0])
    assert torch.allclose(normal[0], slope / slope.norm(), atol=1e-4)
    assert torch.equal(normal[1:], torch.tensor([[0.0, 0.0, 1.0]] * 2))


def test_collect_writes_down_which_cfg_of_the_task_it_takes():
    words = "--task velocity-flat-quadruped --agent random --episodes 2 --record hdf5 --device cpu"
    where = ["--record.path", "run"]
    for config, seconds in (("train", 20.0), ("play", 1e9)):
        plan = work_from([*words.split(), *where, "--config", config]).plan
        assert json.loads(plan.to_json())["config"] == config
        assert plan.env_cfg["episode_length_s"] == seconds
    assert work_from([*words.split(), *where]).plan.config == "train"


def test_playing_has_no_noise_no_pushes_and_no_end():
    cfg = load_env_cfg("velocity-rough-quadruped", play=True)
    assert not cfg.observations["actor"].enable_corruption
    assert "push_robot" not in cfg.events and not cfg.curriculum
    assert next(iter(cfg.events)) == "randomize_terrain"
    assert not cfg.scene.terrain.terrain_generator.curriculum
