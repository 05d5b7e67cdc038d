"""The uniform velocity command and the curricula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mdp_worlds import make_env

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import CurriculumTermCfg, RewardTermCfg, TerminationTermCfg

RANGES = mdp.UniformVelocityCommandCfg.Ranges


def command_cfg(**kwargs: Any) -> mdp.UniformVelocityCommandCfg:
    settings: dict[str, Any] = dict(
        entity_name="robot",
        resampling_time_range=(10.0, 10.0),
        ranges=RANGES(lin_vel_x=(-1.0, 1.0), lin_vel_y=(-0.5, 0.5), ang_vel_z=(-0.3, 0.3)),
    )
    return mdp.UniformVelocityCommandCfg(**{**settings, **kwargs})


def command_env(num_envs: int = 64, seed: int = 3, **kwargs: Any) -> ManagerBasedRlEnv:
    return make_env(num_envs, seed=seed, commands={"twist": command_cfg(**kwargs)})


def step(env: ManagerBasedRlEnv, n: int = 1) -> None:
    for _ in range(n):
        env.step(torch.zeros(env.num_envs, 0))


def test_commands_fill_their_ranges():
    command = command_env(256).command_manager.get_command("twist")
    for axis, limit in enumerate((1.0, 0.5, 0.3)):
        assert command[:, axis].abs().max() <= limit
        assert command[:, axis].max() > 0.9 * limit and command[:, axis].min() < -0.9 * limit


def test_a_command_does_not_depend_on_the_other_worlds():
    a, b = command_env(4), command_env(4)
    b.reset(env_ids=torch.tensor([1]))
    c, d = (env.command_manager.get_command("twist") for env in (a, b))
    assert torch.equal(c[[0, 2, 3]], d[[0, 2, 3]]) and not torch.equal(c[1], d[1])


def test_standing_overrides_everything():
    env = command_env(rel_standing_envs=1.0, rel_forward_envs=1.0, rel_world_envs=1.0)
    assert (env.command_manager.get_command("twist") == 0).all()


def test_shares_of_the_kinds_of_environments():
    env = command_env(2048, rel_standing_envs=0.25, rel_forward_envs=0.5)
    command = env.command_manager.get_command("twist")
    standing = (command == 0).all(dim=1)
    assert standing.float().mean() == pytest.approx(0.25, abs=0.04)
    forward = (command[:, 0] >= 0.3) & (command[:, 1:] == 0).all(dim=1)
    assert forward.float().mean() == pytest.approx(0.5 * 0.75, abs=0.04)


def test_heading_steers_the_yaw_rate():
    ranges = RANGES((0.5, 0.5), (0.0, 0.0), (-0.3, 0.3), heading=(1.0, 1.0))
    env = command_env(4, heading_command=True, heading_control_stiffness=0.25, ranges=ranges)
    robot = env.scene["robot"]
    yaw = torch.tensor([0.0, 0.5, 1.5, -2.0])
    quat = torch.stack([(yaw / 2).cos(), 0 * yaw, 0 * yaw, (yaw / 2).sin()], dim=1)
    env.sim.data.qpos[:, robot.indexing.free_joint_q_adr[3:7]] = quat
    env.sim.data.qvel.zero_()
    step(env)
    command = env.command_manager.get_command("twist")
    error = torch.remainder(1.0 - robot.data.heading_w + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(command[:, 2], (0.25 * error).clamp(-0.3, 0.3), atol=1e-5, rtol=0)
    assert command[0, 2] == pytest.approx(0.25, abs=1e-2)


def test_world_commands_keep_their_direction_as_the_robot_turns():
    env = command_env(4, rel_world_envs=1.0)
    robot, term = env.scene["robot"], env.command_manager.get_term("twist")
    wanted = term.vel_command_w[:, :2].clone()
    env.sim.data.qvel.zero_()
    env.sim.data.qvel[:, robot.indexing.free_joint_v_adr[5]] = 20.0
    for _ in range(5):
        step(env)
        heading = robot.data.heading_w
        x, y = term.command[:, 0], term.command[:, 1]
        cos, sin = heading.cos(), heading.sin()
        world = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1)
        torch.testing.assert_close(world, wanted, atol=1e-5, rtol=1e-4)
    assert heading.abs().max() > 0.5


def test_episodes_may_begin_at_the_commanded_velocity():
    env = command_env(64, init_velocity_prob=0.5)
    env.sim.forward()
    env.scene.invalidate()
    data = env.scene["robot"].data
    actual = torch.cat([data.root_link_lin_vel_b[:, :2], data.root_link_ang_vel_b[:, 2:]], dim=1)
    command = env.command_manager.get_command("twist")
    moving = (actual - command).abs().amax(dim=1) < 1e-5
    still = (actual == 0).all(dim=1)
    assert (moving | still).all() and 15 < moving.sum() < 49


def test_metrics_average_the_error_over_the_longest_command():
    env = command_env(4, resampling_time_range=(0.05, 0.05))
    term = env.command_manager.get_term("twist")
    env.sim.data.qvel.zero_()
    term.vel_command_b[:] = torch.tensor([0.3, 0.4, -0.2])
    env.sim.forward()
    env.scene.invalidate()
    for value in term.metrics.values():
        value.zero_()
    term._update_metrics()
    torch.testing.assert_close(term.metrics["error_vel_xy"], torch.full((4,), 0.5 / 5))
    torch.testing.assert_close(term.metrics["error_vel_yaw"], torch.full((4,), 0.2 / 5))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"heading_command": True}, "set ranges.heading"),
        ({"ranges": RANGES((0, 1), (0, 1), (0, 1), heading=(0, 1))}, "set heading_command=True"),
    ],
)
def test_heading_without_its_other_half_is_an_error(kwargs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        command_cfg(**kwargs)


# Curricula.


def two(env: ManagerBasedRlEnv, height: float = 0.0) -> torch.Tensor:
    return torch.full((env.num_envs,), height)


def curriculum_env(**curriculum: CurriculumTermCfg) -> ManagerBasedRlEnv:
    return make_env(
        2,
        episode_length_s=0.02,
        commands={"twist": command_cfg()},
        rewards={"two": RewardTermCfg(func=two, weight=1.0, params={"height": 1.0})},
        terminations={
            "time": TerminationTermCfg(func=mdp.time_out, time_out=True),
            "low": TerminationTermCfg(
                func=mdp.root_height_below_minimum, params={"minimum_height": -1.0}
            ),
        },
        curriculum=curriculum,
    )


def test_reward_stages_begin_at_their_step():
    stages = [
        {"step": 0, "weight": 2.0},
        {"step": 4, "weight": 3.0, "params": {"height": 5.0}},
        {"step": 8, "weight": 4.0},
    ]
    term = CurriculumTermCfg(
        func=mdp.reward_curriculum, params={"reward_name": "two", "stages": stages}
    )
    env = curriculum_env(rule=term)
    cfg = env.reward_manager.get_term_cfg("two")
    seen = []
    for _ in range(5):
        seen.append((cfg.weight, cfg.params["height"]))
        step(env, 2)
    assert seen == [(2.0, 1.0), (2.0, 1.0), (3.0, 5.0), (3.0, 5.0), (4.0, 5.0)]
    assert env.extras["log"]["Curriculum/rule/weight"] == 4.0
    assert env.extras["log"]["Curriculum/rule/height"] == 5.0


def test_termination_stages_change_parameters():
    stages = [{"step": 2, "params": {"minimum_height": 0.5}, "time_out": True}]
    term = CurriculumTermCfg(
        func=mdp.termination_curriculum, params={"termination_name": "low", "stages": stages}
    )
    env = curriculum_env(rule=term)
    step(env, 2)
    cfg = env.termination_manager.get_term_cfg("low")
    assert cfg.params["minimum_height"] == 0.5 and cfg.time_out is True


def test_velocity_stages_widen_the_command():
    stages = [{"step": 0, "lin_vel_x": (0.0, 0.1)}, {"step": 2, "lin_vel_x": (2.0, 3.0)}]
    term = CurriculumTermCfg(
        func=mdp.commands_vel, params={"command_name": "twist", "velocity_stages": stages}
    )
    env = curriculum_env(rule=term)
    assert env.command_manager.get_command("twist")[:, 0].max() <= 0.1
    step(env, 2)
    assert env.command_manager.get_command("twist")[:, 0].min() >= 2.0
    assert env.extras["log"]["Curriculum/rule/lin_vel_x_max"] == 3.0


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ([{"step": 5, "weight": 1.0}, {"step": 1, "weight": 2.0}], ValueError, "ascending order"),
        ([{"step": 0, "wieght": 1.0}], AttributeError, "Did you mean 'weight'"),
        ([{"step": 0, "params": {"hight": 1.0}}], KeyError, "Did you mean 'height'"),
    ],
)
def test_wrong_stages_are_found_at_the_start(stages: Any, error: type, message: str):
    term = CurriculumTermCfg(
        func=mdp.reward_curriculum, params={"reward_name": "two", "stages": stages}
    )
    with pytest.raises(error, match=message):
        curriculum_env(rule=term)
