"""Events: each changes what it should in the worlds it is given, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mdp_worlds import ARM, arm_cfg, chosen, ids, make_env, robot_cfg, scramble, spec

from mjlab_rec.entity import EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, mdp
from mjlab_rec.managers import EventTermCfg, SceneEntityCfg

SOME = torch.tensor([1, 3])
OTHERS = torch.tensor([0, 2])


def state(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.sim.get_state().clone()


def q_of(env: ManagerBasedRlEnv, name: str) -> torch.Tensor:
    return env.sim.data.qpos[:, env.scene[name].indexing.joint_q_adr]


# What every event that takes random numbers must keep to.

RANDOM_EVENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "root": (
        mdp.reset_root_state_uniform,
        {"pose_range": {"x": (-1, 1), "yaw": (-3, 3)}, "velocity_range": {"z": (-1.0, 1.0)}},
    ),
    "joints": (
        mdp.reset_joints_by_offset,
        {"position_range": (-0.1, 0.1), "velocity_range": (-1.0, 1.0)},
    ),
    "push": (mdp.push_by_setting_velocity, {"velocity_range": {"x": (-1.0, 1.0)}}),
    "force": (
        mdp.apply_external_force_torque,
        {"force_range": (-1.0, 1.0), "torque_range": (-1.0, 1.0)},
    ),
    "bias": (mdp.dr.encoder_bias, {"bias_range": (-0.1, 0.1)}),
}


def outcome(env: ManagerBasedRlEnv) -> torch.Tensor:
    return torch.cat([state(env), env.scene["robot"].data.encoder_bias], dim=1)


@pytest.mark.parametrize("name", RANDOM_EVENTS)
def test_worlds_not_given_keep_every_bit(name: str):
    func, params = RANDOM_EVENTS[name]
    env = make_env()
    scramble(env)
    before = outcome(env)
    func(env, SOME, **params)
    after = outcome(env)
    assert torch.equal(before[OTHERS], after[OTHERS])
    assert (before[SOME] != after[SOME]).any(dim=1).all()


@pytest.mark.parametrize("name", RANDOM_EVENTS)
def test_draws_of_a_world_do_not_depend_on_other_worlds(name: str):
    func, params = RANDOM_EVENTS[name]
    together, alone = make_env(), make_env()
    func(together, None, **params)
    func(alone, torch.tensor([2]), **params)
    assert torch.equal(outcome(together)[2], outcome(alone)[2])
    assert (outcome(together)[2] != outcome(together)[3]).any()


@pytest.mark.parametrize("name", RANDOM_EVENTS)
def test_same_seed_same_values(name: str):
    func, params = RANDOM_EVENTS[name]
    a, b, c = make_env(), make_env(), make_env(seed=4)
    for env in (a, b, c):
        func(env, None, **params)
    assert torch.equal(outcome(a), outcome(b))
    assert not torch.equal(outcome(a), outcome(c))


# One by one.


def test_default_state_is_at_the_env_origins():
    env = make_env()
    scramble(env)
    mdp.reset_scene_to_default(env, SOME)
    env.sim.forward()
    env.scene.invalidate()
    robot, arm = env.scene["robot"], env.scene["arm"]
    origins = env.scene.env_origins
    assert (origins[1] - origins[3]).abs().max() >= 1.0
    torch.testing.assert_close(
        robot.data.root_link_pos_w[SOME], origins[SOME] + torch.tensor([0.0, 0.0, 2.0])
    )
    torch.testing.assert_close(q_of(env, "robot")[SOME], torch.tensor([[0.2, 0.0]] * 2))
    torch.testing.assert_close(q_of(env, "arm")[SOME], torch.tensor([[0.3, -0.4, 0.0]] * 2))
    torch.testing.assert_close(arm.data.joint_vel[SOME], torch.tensor([[0.0, 0.0, 0.1]] * 2))
    hand = env.sim.data.xpos[:, ids(env, "arm", "body", "upper")[0]]
    torch.testing.assert_close(hand[SOME], origins[SOME] + torch.tensor([0.0, 0.0, 1.0]))


def test_root_offsets_stay_in_range_and_keep_to_their_axes():
    env = make_env(64)
    mdp.reset_root_state_uniform(
        env,
        None,
        pose_range={"x": (1.0, 2.0), "yaw": (0.5, 1.0)},
        velocity_range={"y": (-0.2, -0.1), "roll": (1.0, 2.0)},
    )
    env.sim.forward()
    env.scene.invalidate()
    data = env.scene["robot"].data
    offset = data.root_link_pos_w - env.scene.env_origins
    assert ((offset[:, 0] >= 1.0) & (offset[:, 0] <= 2.0)).all()
    torch.testing.assert_close(offset[:, 1:], torch.tensor([[0.0, 2.0]]).repeat(64, 1))
    heading = data.heading_w
    assert ((heading >= 0.5 - 1e-5) & (heading <= 1.0 + 1e-5)).all()
    assert offset[:, 0].std() > 0.1 and heading.std() > 0.05
    velocity = torch.cat([data.root_link_lin_vel_w, data.root_link_ang_vel_w], dim=1)
    assert ((velocity[:, 1] >= -0.2001) & (velocity[:, 1] <= -0.0999)).all()
    assert ((velocity[:, 3] >= 0.999) & (velocity[:, 3] <= 2.001)).all()
    assert velocity[:, [0, 2, 4, 5]].abs().max() < 1e-5


def test_a_fixed_base_is_placed_by_its_mocap_body():
    env = make_env(4)
    mdp.reset_root_state_uniform(
        env, SOME, pose_range={"z": (0.5, 0.5)}, asset_cfg=chosen(env, "arm")
    )
    env.sim.forward()
    upper = env.sim.data.xpos[:, ids(env, "arm", "body", "upper")[0]] - env.scene.env_origins
    torch.testing.assert_close(upper[:, 2], torch.tensor([1.0, 1.5, 1.0, 1.5]))


def test_misspelt_range_is_an_error():
    with pytest.raises(KeyError, match="Did you mean 'yaw'"):
        mdp.reset_root_state_uniform(make_env(), None, pose_range={"yawn": (0.0, 1.0)})


def test_joint_offsets_respect_soft_limits_and_selection():
    env = make_env(64)
    before = q_of(env, "arm").clone()
    elbow = chosen(env, "arm", joint_names=("elbow",))
    mdp.reset_joints_by_offset(env, None, (-5.0, 5.0), (0.25, 0.25), asset_cfg=elbow)
    pos = q_of(env, "arm")
    assert torch.equal(pos[:, [0, 2]], before[:, [0, 2]])
    assert pos[:, 1].min() == pytest.approx(-0.375) and pos[:, 1].max() == pytest.approx(0.875)
    vel = env.sim.data.qvel[:, env.scene["arm"].indexing.joint_v_adr]
    torch.testing.assert_close(vel[0], torch.tensor([0.0, 0.25, 0.1]))


def test_joints_without_limits_are_not_clamped():
    env = make_env(4)
    wrist = chosen(env, "arm", joint_names=("wrist",))
    mdp.reset_joints_by_offset(env, None, (7.0, 7.0), (0.0, 0.0), asset_cfg=wrist)
    torch.testing.assert_close(q_of(env, "arm")[:, 2], torch.full((4,), 7.0))


def test_push_adds_to_the_velocity_of_the_moment():
    env = make_env()
    scramble(env)
    # Newer than any derived quantity.
    dofs = env.scene["robot"].indexing.free_joint_v_adr
    env.sim.data.qvel[:, dofs] = torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    mdp.push_by_setting_velocity(env, SOME, {"x": (0.5, 0.5), "z": (-1.0, -1.0)})
    qvel = env.sim.data.qvel[:, dofs]
    pushed = torch.tensor([1.5, 2.0, 2.0, 0.1, 0.2, 0.3])
    torch.testing.assert_close(qvel[SOME], pushed.repeat(2, 1))


def test_push_turns_about_world_axes():
    env = make_env()
    scramble(env)
    env.sim.data.qvel.zero_()
    mdp.push_by_setting_velocity(env, None, {"yaw": (2.0, 2.0)})
    env.sim.forward()
    env.scene.invalidate()
    expected = torch.tensor([0.0, 0.0, 2.0]).repeat(4, 1)
    spin = env.scene["robot"].data.root_link_ang_vel_w
    torch.testing.assert_close(spin, expected, atol=1e-5, rtol=0)


def test_a_fixed_base_cannot_be_pushed():
    env = make_env()
    with pytest.raises(ValueError, match="base is fixed"):
        mdp.push_by_setting_velocity(env, None, {"x": (0, 1)}, asset_cfg=chosen(env, "arm"))


def test_a_welded_root_cannot_be_moved():
    welded = EntityCfg(spec_fn=spec(ARM))
    env = make_env(entities={"arm": welded})
    env.scene["arm"].__class__ = type(
        "Welded", (type(env.scene["arm"]),), {"is_mocap": property(lambda self: False)}
    )
    with pytest.raises(ValueError, match="welded to the world"):
        mdp.reset_root_state_uniform(env, None, {"x": (0, 1)}, asset_cfg=chosen(env, "arm"))


def test_external_force_hits_the_chosen_bodies_only():
    env = make_env()
    body = chosen(env, "arm", body_names=("hand",))
    mdp.apply_external_force_torque(env, SOME, (1.0, 2.0), (-4.0, -3.0), asset_cfg=body)
    wrench = env.sim.data.xfrc_applied
    hand = ids(env, "arm", "body", "hand")[0]
    hit = wrench[SOME, hand]
    assert ((hit[:, :3] >= 1.0) & (hit[:, :3] <= 2.0)).all()
    assert ((hit[:, 3:] >= -4.0) & (hit[:, 3:] <= -3.0)).all()
    assert wrench.count_nonzero() == hit.count_nonzero() == 12


# Impulses.


def impulse_env(
    num_envs: int = 3, events: dict[str, EventTermCfg] | None = None, **params: Any
) -> ManagerBasedRlEnv:
    settings = dict(
        force_range=(1.0, 2.0),
        torque_range=(0.0, 0.0),
        duration_s=(0.03, 0.03),
        cooldown_s=(0.05, 0.05),
    )
    term = EventTermCfg(
        func=mdp.apply_body_impulse,
        mode="step",
        params={**settings, **params, "asset_cfg": SceneEntityCfg("robot", body_names=("base",))},
    )
    return make_env(num_envs, events={**(events or {}), "bump": term})


def force(env: ManagerBasedRlEnv) -> torch.Tensor:
    return env.sim.data.xfrc_applied[:, ids(env, "robot", "body", "base")[0]].clone()


def forces(env: ManagerBasedRlEnv, steps: int) -> torch.Tensor:
    rows = []
    for _ in range(steps):
        env.step(torch.zeros(env.num_envs, 0))
        rows.append(force(env))
    return torch.stack(rows)


def test_impulses_wait_push_and_wait_again():
    env = impulse_env()
    pushes = forces(env, 21)[:, 0]
    on = pushes.abs().sum(dim=1) > 0
    # A step takes 0.01 s: five steps of waiting, three of force.
    assert on.int().tolist() == ([0] * 4 + [1] * 3 + [0] * 5 + [1] * 3 + [0] * 5 + [1])
    first, second = pushes[4:7], pushes[12:15]
    assert (first == first[0]).all() and (first[:, :3] >= 1.0).all() and (first[:, 3:] == 0).all()
    assert not torch.equal(first[0], second[0])


def test_a_reset_ends_only_the_impulse_of_its_world():
    env = impulse_env()
    before = forces(env, 5)[-1]
    assert (before[:, 0] > 0).all()
    env.reset(env_ids=torch.tensor([1]))
    after = force(env)
    assert (after[1] == 0).all() and torch.equal(after[[0, 2]], before[[0, 2]])
    on = forces(env, 5)[..., 0] > 0
    assert on[:, 0].tolist() == [True, True, False, False, False]
    assert on[:, 1].tolist() == [False, False, False, False, True]


def test_an_impulse_off_centre_turns_the_body():
    env = impulse_env(body_point_offset=(0.0, 0.0, 0.5))
    pushed = forces(env, 5)[-1]
    quat = env.scene["robot"].data.root_link_quat_w
    assert (quat[:, 0] > 0.99).all()  # It stands upright, so the arm is along z.
    expected = torch.cross(torch.tensor([[0.0, 0.0, 0.5]] * 3), pushed[:, :3], dim=-1)
    torch.testing.assert_close(pushed[:, 3:], expected, atol=0.05, rtol=0.05)
    assert pushed[:, 3:].abs().max() > 0.3


def test_impulses_add_to_other_forces_and_leave_them_behind():
    env = impulse_env()
    base = ids(env, "robot", "body", "base")[0]
    env.sim.data.xfrc_applied[:, base, 0] = 7.0
    x = forces(env, 12)[..., 0]
    assert (x[:4] == 7.0).all() and (x[7:] == 7.0).all()
    assert ((x[4:7] >= 8.0) & (x[4:7] <= 9.0)).all()


def test_wind_drawn_at_a_reset_survives_the_end_of_an_impulse():
    wind = EventTermCfg(
        func=mdp.apply_external_force_torque,
        mode="reset",
        params={
            "force_range": (7.0, 7.0),
            "torque_range": (0.0, 0.0),
            "asset_cfg": SceneEntityCfg("robot", body_names=("base",)),
        },
    )
    env = impulse_env(events={"wind": wind})
    assert (forces(env, 5)[-1, :, 0] >= 8.0).all()
    env.reset(env_ids=torch.tensor([1]))
    assert force(env)[1, 0] == 7.0
    assert forces(env, 4)[-1, 1, 0] == 7.0


def test_an_impulse_of_one_world_does_not_depend_on_another_worlds_reset():
    a, b = impulse_env(), impulse_env()
    forces(a, 6), forces(b, 6)
    b.reset(env_ids=torch.tensor([2]))
    assert torch.equal(forces(a, 12)[:, 0], forces(b, 12)[:, 0])


def test_entities_hold_what_the_tests_assume():
    env = make_env(1, entities={"robot": robot_cfg(), "arm": arm_cfg()})
    assert not env.scene["robot"].is_fixed_base and env.scene["arm"].is_mocap
    assert np.all(env.sim.mj_model.jnt_range[ids(env, "arm", "joint", "elbow")] == [-1, 1.5])
