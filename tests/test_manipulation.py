"""The arm can do what the tasks ask for, success is what it should be, and PPO can begin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.entity import Entity
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.registry import load_env_cfg, load_rl_cfg
from mjlab_rec.utils.math import (
    euler_xyz_from_quat,
    quat_apply,
    quat_apply_inverse,
    quat_from_euler_xyz,
)
from tasks.manipulation.mdp import object_grasped, pose_reward
from tasks.robots.arm import HOME, arm_cfg

STATE_TASKS = ("reach-arm", "lift-arm")
CAMERA_TASKS = ("lift-arm-depth", "lift-arm-rgb")
OPEN, CLOSE = 1.0, -1.0
CUBE_HALF = 0.02


def task_cfg(task: str, num_envs: int) -> ManagerBasedRlEnvCfg:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = num_envs, 1
    cfg.sim.engine, cfg.sim.num_threads = "mjbatch", 1
    for sensor in cfg.scene.sensors:
        if task in CAMERA_TASKS and sensor.name == "wrist":
            sensor.width = sensor.height = 16  # type: ignore[attr-defined]
    return cfg


def make(task: str, num_envs: int) -> ManagerBasedRlEnv:
    return ManagerBasedRlEnv(task_cfg(task, num_envs), device="cpu")


def with_ik(cfg: ManagerBasedRlEnvCfg) -> ManagerBasedRlEnvCfg:
    """Let actions be poses of the hand in place of joint positions."""
    cfg.actions["joint_pos"] = mdp.DifferentialIKActionCfg(
        entity_name="robot",
        actuator_names=("joint[1-6]",),
        frame_type="site",
        frame_name="grasp_site",
        use_relative_mode=False,
        orientation_weight=0.3,
        damping=0.02,
        joint_limit_weight=1.0,
    )
    return cfg


def grasp(env: ManagerBasedRlEnv) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Yield, for each step, where the hand shall be and the gripper's action, up to a grasp."""
    cube = env.scene["cube"].data
    pos, quarter = cube.root_link_pos_w.clone(), math.pi / 2
    yaw = euler_xyz_from_quat(cube.root_link_quat_w)[2]
    yaw = (yaw + quarter / 2) % quarter - quarter / 2  # A cube looks the same after a quarter turn.
    down = quat_from_euler_xyz(torch.zeros_like(yaw), torch.full_like(yaw, math.pi), yaw)
    above = pos + torch.tensor([0.0, 0.0, 0.08])
    for where, grip, steps in ((above, OPEN, 15), (pos, OPEN, 8), (pos, CLOSE, 5)):
        for _ in range(steps):
            yield where, down, grip
    held = env.command_manager.get_command("lift_height").clone()
    while True:
        yield held, down, CLOSE


def act(env: ManagerBasedRlEnv, where: torch.Tensor, turn: torch.Tensor, grip: float) -> Any:
    fingers = torch.full((env.num_envs, 1), grip)
    return env.step(torch.cat((where, turn, fingers), dim=-1))


# The arm.


def test_at_zero_the_arm_points_up_and_at_home_its_open_hand_points_down():
    model = Entity(arm_cfg()).spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    hand = data.site("grasp_site")
    assert hand.xpos[2] == pytest.approx(0.063 + 0.041 + 0.264 + 0.252 + 0.074 + 0.05 + 0.125)
    np.testing.assert_allclose(hand.xmat.reshape(3, 3), np.eye(3), atol=1e-12)

    for name, value in HOME.items():
        names = ("left_finger", "right_finger") if "finger" in name else (name,)
        for joint in names:
            data.joint(joint).qpos[0] = value
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(hand.xpos, (0.3, 0.0, 0.15), atol=5e-3)
    np.testing.assert_allclose(hand.xmat.reshape(3, 3)[:, 2], (0.0, 0.0, -1.0), atol=0.01)
    assert data.ncon == 0


def test_arm_rests_where_it_is_told_to():
    with make("reach-arm", 4) as env:
        env.reset()
        before = env.scene["robot"].data.joint_pos.clone()
        for _ in range(40):
            env.step(torch.zeros(4, 6))
        moved = (env.scene["robot"].data.joint_pos - before).abs()
        assert moved.max() < 2e-3


def test_fingers_mirror_each_other():
    with make("lift-arm", 2) as env:
        env.reset()
        for grip in (OPEN, CLOSE):
            for _ in range(10):
                env.step(torch.cat((torch.zeros(2, 6), torch.full((2, 1), grip)), dim=1))
            left, right = env.scene["robot"].data.joint_pos[:, 6:].unbind(dim=1)
            torch.testing.assert_close(left, right, atol=5e-4, rtol=0.0)
            opening = 0.0375 if grip == OPEN else 0.0
            assert (left - opening).abs().max() < 1e-3


# Every task.


@pytest.mark.parametrize("task", STATE_TASKS + CAMERA_TASKS)
def test_steps_under_random_actions(task):
    generator = torch.Generator().manual_seed(0)
    with make(task, 2) as env:
        env.reset()
        for _ in range(5 if task in CAMERA_TASKS else 100):
            action = torch.randn(2, env.action_manager.total_action_dim, generator=generator)
            obs: Any
            obs, reward, *_ = env.step(action)
            assert all(torch.isfinite(group).all() for group in obs.values())
            assert torch.isfinite(reward).all()
    if task in CAMERA_TASKS:
        channels = 3 if task.endswith("rgb") else 1
        assert obs["camera"].shape == (2, channels, 16, 16)
        assert 0.0 <= obs["camera"].min() < obs["camera"].max() <= 1.0


def test_camera_actor_does_not_know_where_the_cube_is():
    cfg = load_env_cfg("lift-arm-depth")
    assert {"ee_to_cube", "cube_to_goal"} <= set(cfg.observations["critic"].terms)
    assert not {"ee_to_cube", "cube_to_goal"} & set(cfg.observations["actor"].terms)


@pytest.mark.parametrize("task", ("reach-arm", "lift-arm", "lift-arm-depth"))
def test_ppo_can_begin(task):
    pytest.importorskip("rsl_rl")
    from mjlab_rec.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper

    agent = load_rl_cfg(task)
    agent.num_steps_per_env, agent.upload_model = 4, False
    env = RslRlVecEnvWrapper(make(task, 4), clip_actions=agent.clip_actions)
    runner = MjlabOnPolicyRunner(env, asdict(agent), log_dir=None)
    before = [p.clone() for p in runner.alg.actor.parameters()]
    runner.learn(num_learning_iterations=1)
    after = list(runner.alg.actor.parameters())
    env.close()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


# Actions.


def test_joint_steps_are_measured_from_where_the_joints_were():
    with make("reach-arm", 2) as env:
        env.reset()
        robot = env.scene["robot"]
        before = robot.data.joint_pos[:, :6].clone()
        env.step(torch.full((2, 6), 0.5))
        term: Any = env.cfg.actions["joint_pos"]
        torch.testing.assert_close(robot.data.joint_pos_target[:, :6], before + 0.5 * term.scale)
        # The arm went most of the way in these 0.05 s.
        assert (robot.data.joint_pos[:, :6] > before).all()


# Lifting.


def test_scripted_grasp_succeeds_everywhere():
    with ManagerBasedRlEnv(with_ik(task_cfg("lift-arm", 16)), device="cpu") as env:
        env.reset()
        succeeded = torch.zeros(16, dtype=torch.bool)
        for step, target in zip(range(70), grasp(env), strict=False):
            running = ~succeeded
            _, reward, terminated, truncated, _ = act(env, *target)
            success = env.termination_manager.get_term("success")
            if step < 28:
                assert not success.any()
            new = success & running
            assert not truncated.any() and terminated[new].all()
            assert (reward[new] > 0.9 * 100.0 * env.step_dt).all()
            succeeded |= success
            if succeeded.all():
                break
        assert succeeded.all()


def test_dropped_cube_is_a_failure():
    with ManagerBasedRlEnv(with_ik(task_cfg("lift-arm", 8)), device="cpu") as env:
        env.reset()
        env.command_manager.get_command("lift_height")[:, 2] = 0.25
        cube = env.scene["cube"].data
        rest = cube.root_link_pos_w[:, 2].clone()
        for _, (where, turn, grip) in zip(range(28), grasp(env), strict=False):
            act(env, where, turn, grip)
        up = where + torch.tensor([0.0, 0.0, 0.08])
        for step in range(28, env.max_episode_length):
            if step == 36:
                assert (cube.root_link_pos_w[:, 2] - rest > 0.06).all()
            _, _, terminated, truncated, _ = act(env, up, turn, CLOSE if step < 36 else OPEN)
            assert not terminated.any()
        assert truncated.all()


def test_holding_still_is_a_failure():
    with make("lift-arm", 4) as env:
        env.reset()
        for _ in range(env.max_episode_length):
            _, _, terminated, truncated, extras = env.step(torch.zeros(4, 7))
            assert not terminated.any()
        assert truncated.all()
        assert extras["log"]["Episode_Termination/success"] == 0
        assert extras["log"]["Episode_Termination/time_out"] == 4


def test_pushing_the_cube_is_no_grasp():
    with ManagerBasedRlEnv(with_ik(task_cfg("lift-arm", 4)), device="cpu") as env:
        env.reset()
        hand, sensor = env.cfg.rewards["reach"].params["asset_cfg"], env.scene["grip"]
        steps = [target for _, target in zip(range(23), grasp(env), strict=False)]
        (pos, turn, _), pressed = steps[-1], {"left": False, "right": False}
        for target in steps:
            act(env, *target)
        # From the right and from the left, along the axis in which the fingers close.
        for side in (1.0, -1.0):
            for step in range(12):
                away = torch.tensor([[0.0, side * min(0.01 * step, 0.06), 0.0]]).expand(4, 3)
                act(env, pos + quat_apply(turn, away), turn, OPEN)
                force = quat_apply_inverse(turn[:, None].expand(4, 2, 4), sensor.data.force)
                pressed["left"] |= bool((force[:, 0, 1] < -0.5).any())
                pressed["right"] |= bool((force[:, 1, 1] > 0.5).any())
                assert not object_grasped(env, "grip", hand).any()
        assert pressed == {"left": True, "right": True}


def test_pressing_on_the_cube_from_above_is_no_grasp_but_closing_is():
    with ManagerBasedRlEnv(with_ik(task_cfg("lift-arm", 4)), device="cpu") as env:
        env.reset()
        hand, steps = env.cfg.rewards["reach"].params["asset_cfg"], grasp(env)
        for _ in range(16):
            pos, turn, _ = next(steps)
        for height in (0.1, 0.1, 0.1, 0.05, 0.045, 0.04, 0.035):
            for _ in range(5):
                act(env, pos + torch.tensor([0.0, 0.0, height - CUBE_HALF]), turn, CLOSE)
        assert (env.scene["grip"].data.force[..., 2] < -0.5).all()
        assert not object_grasped(env, "grip", hand).any()
    with ManagerBasedRlEnv(with_ik(task_cfg("lift-arm", 4)), device="cpu") as env:
        env.reset()
        for _, target in zip(range(28), grasp(env), strict=False):
            act(env, *target)
        assert object_grasped(env, "grip", hand).all()


def test_success_must_last():
    with make("lift-arm", 2) as env:
        env.reset()
        cube, goal = env.scene["cube"], env.command_manager.get_command("lift_height")
        term = env.termination_manager.get_term_cfg("success")
        at_goal = torch.cat((goal, torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)), dim=1)
        away = at_goal + torch.tensor([0.0, 0, 0.1, 0, 0, 0, 0])

        def put(pose: torch.Tensor) -> list[bool]:
            cube.write_root_link_pose_to_sim(pose)
            env.sim.forward()
            return term.func(env, **term.params).tolist()

        assert [put(at_goal)[0] for _ in range(4)] == [False] * 4
        put(torch.stack((at_goal[0], away[1])))
        assert put(at_goal) == [True, False]
        term.func.reset(env_ids=torch.tensor([0]))
        assert put(at_goal) == [False, False]


def test_cube_out_of_reach_ends_the_episode():
    with make("lift-arm", 2) as env:
        env.reset()
        pose = env.scene["cube"].data.root_link_pose_w.clone()
        pose[0, 0] += 0.5
        env.scene["cube"].write_root_link_pose_to_sim(pose)
        _, _, terminated, _, _ = env.step(torch.zeros(2, 7))
        assert terminated.tolist() == [True, False]
        assert not env.termination_manager.get_term("success").any()


def test_every_environment_has_its_own_cube_and_goal():
    with make("lift-arm", 64) as env:
        env.reset()
        cube, origins = env.scene["cube"], env.scene.env_origins
        start = cube.data.root_link_pos_w - origins
        goal = env.command_manager.get_command("lift_height") - origins
        ranges: Any = env.cfg.commands["lift_height"]
        for values, where in (
            (start, ranges.object_pose_range),
            (goal, ranges.target_position_range),
        ):
            low, high = torch.tensor([where.x, where.y, where.z]).T
            assert (values >= low - 1e-5).all() and (values <= high + 1e-5).all()
            assert values[:, :2].std(dim=0).min() > 0.02
        yaw = euler_xyz_from_quat(cube.data.root_link_quat_w)[2]
        assert yaw.std() > 1.0

        mass = env.sim.model.body_mass[:, cube.indexing.body_ids[0]]
        pads = env.scene["robot"].find_geoms(".*_pad1")[0]
        pads = env.scene["robot"].indexing.geom_ids[pads]
        friction = env.sim.model.geom_friction[:, pads, 0]
        assert 0.02 < mass.min() < 0.035 and 0.08 < mass.max() < 0.11
        assert 0.6 <= friction.min() < 0.75 and 1.3 < friction.max() <= 1.5
        torch.testing.assert_close(friction[:, 0], friction[:, 1])


# Reaching.


def test_hand_can_take_the_poses_that_are_asked_for():
    cfg = with_ik(task_cfg("reach-arm", 64))
    with ManagerBasedRlEnv(cfg, device="cpu") as env:
        env.reset()
        goal = env.command_manager.get_command("ee_pose").clone()
        succeeded = torch.zeros(64, dtype=torch.bool)
        for _ in range(40):
            env.step(goal)
            succeeded |= env.termination_manager.get_term("success")
        assert succeeded.float().mean() >= 0.95


def test_nearness_in_position_and_angle_is_rewarded():
    with ManagerBasedRlEnv(with_ik(task_cfg("reach-arm", 2)), device="cpu") as env:
        env.reset()
        site = env.scene["robot"].data
        target = env.command_manager.get_command("ee_pose")
        target[:, :3] = site.site_pos_w[:, 0]
        target[:, 3:] = site.site_quat_w[:, 0]
        best = pose_reward(env, "ee_pose", 0.2, 0.5)
        torch.testing.assert_close(best, torch.full((2,), 2.0), atol=2e-3, rtol=0.0)
        target[0, 2] += 0.05
        target[1, 3:] = quat_from_euler_xyz(*torch.tensor([[0.0], [math.pi / 2], [0.0]]))[0]
        worse = pose_reward(env, "ee_pose", 0.2, 0.5)
        assert (worse < best - 0.2).all()
