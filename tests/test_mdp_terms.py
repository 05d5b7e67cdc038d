"""Observations, rewards, terminations and metrics against plain MuJoCo and hand computations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from mdp_worlds import chosen, ids, make_env, reference, scramble

from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import CommandTerm, CommandTermCfg, RewardTermCfg, TerminationTermCfg

HIPS = mdp.JointPositionActionCfg(entity_name="robot", actuator_names=(".*_hip",))


class Fixed(CommandTerm):
    """The same velocity for ever."""

    @property
    def command(self) -> torch.Tensor:
        return torch.tensor([[0.5, -0.2, 0.3]], device=self.device).repeat(self.num_envs, 1)

    def _update_metrics(self) -> None: ...
    def _resample_command(self, env_ids: torch.Tensor) -> None: ...
    def _update_command(self, env_ids: torch.Tensor | None) -> None: ...


@dataclass(kw_only=True)
class FixedCfg(CommandTermCfg):
    def build(self, env: Any) -> Fixed:
        return Fixed(self, env)


@pytest.fixture(scope="module")
def env() -> ManagerBasedRlEnv:
    env = make_env(
        actions={"hips": HIPS}, commands={"twist": FixedCfg(resampling_time_range=(1.0, 1.0))}
    )
    env.step(torch.tensor([[0.1, -0.2], [0.5, 0.5], [-1.0, 0.0], [0.3, 0.9]]))
    scramble(env)
    return env


def by_world(env: ManagerBasedRlEnv, func: Any) -> torch.Tensor:
    """func(reference data) for each world, as a tensor."""
    rows = [np.asarray(func(reference(env, i))) for i in range(env.num_envs)]
    return torch.from_numpy(np.stack(rows)).float()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=2e-4)


def rotation(data: mujoco.MjData) -> np.ndarray:
    return data.body("robot/base").xmat.reshape(3, 3)


def velocity(env: ManagerBasedRlEnv, data: mujoco.MjData, local: bool) -> np.ndarray:
    """(angular, linear) velocity of the robot's base."""
    out = np.zeros(6)
    body = env.sim.mj_model.body("robot/base").id
    mujoco.mj_objectVelocity(
        env.sim.mj_model, data, mujoco.mjtObj.mjOBJ_XBODY, body, out, int(local)
    )
    return out


# Observations.


def test_root_observations_agree_with_mujoco(env: ManagerBasedRlEnv):
    pos = by_world(env, lambda d: d.body("robot/base").xpos) - env.scene.env_origins
    close(mdp.root_pos_w(env), pos)
    close(mdp.root_quat_w(env), by_world(env, lambda d: d.body("robot/base").xquat))
    close(mdp.root_lin_vel_w(env), by_world(env, lambda d: velocity(env, d, False)[3:]))
    close(mdp.root_ang_vel_w(env), by_world(env, lambda d: velocity(env, d, False)[:3]))
    close(mdp.base_lin_vel(env), by_world(env, lambda d: velocity(env, d, True)[3:]))
    close(mdp.base_ang_vel(env), by_world(env, lambda d: velocity(env, d, True)[:3]))
    close(mdp.projected_gravity(env), by_world(env, lambda d: rotation(d).T @ [0, 0, -1]))


def test_joint_observations_select_and_subtract_defaults(env: ManagerBasedRlEnv):
    arm = chosen(env, "arm", joint_names=("elbow", "wrist"))
    pos = by_world(env, lambda d: [d.joint(f"arm/{n}").qpos[0] for n in ("elbow", "wrist")])
    vel = by_world(env, lambda d: [d.joint(f"arm/{n}").qvel[0] for n in ("elbow", "wrist")])
    close(mdp.joint_pos(env, asset_cfg=arm), pos)
    close(mdp.joint_vel(env, asset_cfg=arm), vel)
    close(mdp.joint_pos_rel(env, asset_cfg=arm), pos - torch.tensor([-0.4, 0.0]))
    close(mdp.joint_vel_rel(env, asset_cfg=arm), vel - torch.tensor([0.0, 0.1]))


def test_selection_in_another_order_is_kept(env: ManagerBasedRlEnv):
    forward = mdp.joint_pos(env, asset_cfg=chosen(env, "arm"))
    order = chosen(env, "arm", joint_names=("wrist", "shoulder"), preserve_order=True)
    assert torch.equal(mdp.joint_pos(env, asset_cfg=order), forward[:, [2, 0]])


def test_biased_positions_add_the_encoder_bias(env: ManagerBasedRlEnv):
    true = mdp.joint_pos(env)
    bias = env.scene["robot"].data.encoder_bias
    bias[2, 1] = 0.5
    try:
        difference = mdp.joint_pos_rel(env, biased=True) - mdp.joint_pos_rel(env)
        expected = torch.zeros(4, 2)
        expected[2, 1] = 0.5
        torch.testing.assert_close(difference, expected)
        assert torch.equal(mdp.joint_pos(env), true)
        torch.testing.assert_close(mdp.joint_pos(env, biased=True) - true, expected)
    finally:
        bias.zero_()


def test_sensors_by_name(env: ManagerBasedRlEnv):
    gyro = by_world(env, lambda d: d.sensor("robot/gyro").data)
    close(mdp.builtin_sensor(env, "robot/gyro"), gyro)
    close(mdp.projected_gravity_from_sensor(env, "robot/up"), mdp.projected_gravity(env))


def test_generated_commands(env: ManagerBasedRlEnv):
    close(mdp.generated_commands(env, "twist")[0], torch.tensor([0.5, -0.2, 0.3]))


# Rewards.


def test_alive_and_terminated_ignore_time_outs():
    env = make_env(
        2,
        terminations={
            "late": TerminationTermCfg(func=lambda e: e.episode_length_buf >= 2, time_out=True),
            "fell": TerminationTermCfg(
                func=lambda e: (e.episode_length_buf >= 1) & (torch.arange(2) == 1)
            ),
        },
        rewards={
            "alive": RewardTermCfg(func=mdp.is_alive, weight=1.0),
            "dead": RewardTermCfg(func=mdp.is_terminated, weight=1.0),
        },
    )
    for _ in range(2):
        env.step(torch.zeros(2, 0))
    # World 0 is out of time, world 1 has failed.
    assert env.reset_buf.tolist() == [True, True]
    assert env.reward_manager.step_reward.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_effort_velocity_and_acceleration_penalties(env: ManagerBasedRlEnv):
    arm = ids(env, "arm", "actuator", "shoulder", "elbow")
    selection = chosen(env, "arm", actuator_names=("shoulder", "elbow"))
    force = by_world(env, lambda d: np.square(d.actuator_force[arm]).sum())
    close(mdp.joint_torques_l2(env, selection) / force, torch.ones(4))
    elbow = chosen(env, "arm", joint_names="elbow")
    close(mdp.joint_vel_l2(env, elbow), by_world(env, lambda d: d.joint("arm/elbow").qvel[0] ** 2))
    acc = by_world(env, lambda d: d.joint("arm/elbow").qacc[0] ** 2)
    close(mdp.joint_acc_l2(env, elbow) / acc, torch.ones(4))


def test_power_counts_only_positive_work_of_actuators(env: ManagerBasedRlEnv):
    hips = [env.sim.mj_model.joint(f"robot/{s}_hip").dofadr[0] for s in ("left", "right")]
    power = by_world(env, lambda d: np.maximum(d.qfrc_actuator[hips] * d.qvel[hips], 0.0).sum())
    assert (power > 0).any()
    close(mdp.electrical_power_cost(env), power)


def test_action_rate_and_acceleration():
    env = make_env(1, actions={"hips": HIPS})
    a, b, c = (torch.tensor([x]) for x in ([0.1, 0.2], [0.5, -0.2], [0.0, 1.0]))
    for action in (a, b, c):
        env.step(action)
    close(mdp.action_rate_l2(env), (c - b).square().sum(dim=1))
    close(mdp.action_acc_l2(env), (c - 2 * b + a).square().sum(dim=1))
    close(mdp.mean_action_acc(env), (c - 2 * b + a).abs().mean(dim=1))


def test_joint_limit_penalty_is_the_distance_beyond_soft_limits(env: ManagerBasedRlEnv):
    qpos = env.sim.data.qpos.clone()
    pos = torch.tensor([[0.0, 0.0], [1.2, 0.0], [-1.1, 1.0], [0.9, -0.9]])
    adr = [env.sim.mj_model.joint(f"arm/{n}").qposadr[0] for n in ("shoulder", "elbow")]
    env.sim.data.qpos[:, adr] = pos
    env.scene.invalidate()
    try:
        arm = chosen(env, "arm", joint_names=("shoulder", "elbow"))
        # Soft limits: half of (-2, 2) and of (-1, 1.5), around the same middle.
        expected = torch.tensor([0.0, 0.2, 0.1 + 0.125, 0.9 - 0.375])
        close(mdp.joint_pos_limits(env, arm), expected)
        assert mdp.joint_pos_out_of_limit(env, arm).tolist() == [False, True, True, True]
        everything = chosen(env, "arm")
        close(mdp.joint_pos_limits(env, everything), expected)  # The wrist has no limits.
    finally:
        env.sim.data.qpos[:] = qpos
        env.scene.invalidate()


def test_flat_orientation_and_bad_orientation(env: ManagerBasedRlEnv):
    up = by_world(env, lambda d: rotation(d)[2, 2])
    close(mdp.flat_orientation_l2(env), 1 - up.square())
    for angle in (0.1, 0.5, 1.0, 2.0):
        expected = torch.acos(up.clamp(-1, 1)) > angle
        assert mdp.bad_orientation(env, angle).tolist() == expected.tolist()
    assert not mdp.bad_orientation(env, math.pi).any()


def test_velocity_tracking(env: ManagerBasedRlEnv):
    lin = by_world(env, lambda d: velocity(env, d, True)[3:])
    ang = by_world(env, lambda d: velocity(env, d, True)[:3])
    error = (lin - torch.tensor([0.5, -0.2, 0.0])).square().sum(dim=1)
    close(mdp.track_linear_velocity(env, 2.0, "twist"), torch.exp(-error / 4.0))
    error = (ang - torch.tensor([0.0, 0.0, 0.3])).square().sum(dim=1)
    close(mdp.track_angular_velocity(env, 2.0, "twist"), torch.exp(-error / 4.0))


def test_posture_weighs_joints_by_name(env: ManagerBasedRlEnv):
    order = chosen(env, "arm", joint_names=("wrist", "shoulder"), preserve_order=True)
    params = {"std": {"shoulder": 0.5, "wrist": 0.1}, "asset_cfg": order}
    term = mdp.posture(RewardTermCfg(func=mdp.posture, params=params, weight=1.0), env)
    error = mdp.joint_pos_rel(env, asset_cfg=order)
    expected = torch.exp(-0.5 * ((error[:, 0] / 0.1) ** 2 + (error[:, 1] / 0.5) ** 2))
    close(term(env, **params), expected)


def test_posture_wants_a_std_for_every_joint():
    params = {"std": {"left_.*": 0.5}}
    with pytest.raises(ValueError, match=r"no std for the joints \['right_hip'\]"):
        make_env(rewards={"p": RewardTermCfg(func=mdp.posture, params=params, weight=1.0)})


# Terminations.


def test_time_out_after_the_last_step():
    env = make_env(
        1,
        episode_length_s=0.03,
        terminations={"t": TerminationTermCfg(func=mdp.time_out, time_out=True)},
    )
    flags = [env.step(torch.zeros(1, 0))[3].item() for _ in range(6)]
    assert flags == [False, False, True, False, False, True]


def test_root_height(env: ManagerBasedRlEnv):
    height = by_world(env, lambda d: d.body("robot/base").xpos[2])
    limit = height.sort()[0][1:3].mean().item()
    assert mdp.root_height_below_minimum(env, limit).tolist() == (height < limit).tolist()


@pytest.mark.parametrize("field", ["qpos", "qvel"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_detection_finds_the_world(field: str, value: float):
    env = make_env(3)
    assert not mdp.nan_detection(env).any()
    getattr(env.sim.data, field)[1, 2] = value
    assert mdp.nan_detection(env).tolist() == [False, True, False]


def test_nan_detection_restarts_a_world_that_diverged():
    env = make_env(
        2,
        terminations={"nan": TerminationTermCfg(func=mdp.nan_detection)},
    )
    env.sim.data.qvel[1, -1] = 1e30
    terminated = torch.zeros(2, dtype=torch.bool)
    for _ in range(3):
        terminated |= env.step(torch.zeros(2, 0))[2]
    assert terminated.tolist() == [False, True]
    assert env.sim.data.qpos.isfinite().all()


def test_a_sensor_of_another_kind_is_an_error(env: ManagerBasedRlEnv):
    with pytest.raises(TypeError, match="'robot' is a Entity, but a BuiltinSensor"):
        mdp.builtin_sensor(env, "robot")
