"""Entities: names, indices, reading and writing state."""

from __future__ import annotations

import copy
import re
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from entity_worlds import ARM, DOG, build, entity, object_velocity, reference, scramble
from hypothesis import given, settings
from hypothesis import strategies as st

from mjlab_rec.actuator import BuiltinMotorActuatorCfg, BuiltinPositionActuatorCfg, XmlActuatorCfg
from mjlab_rec.entity import Entity, EntityCfg
from mjlab_rec.utils.math import quat_apply, quat_apply_inverse

BODY, XBODY = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY
GEOM, SITE = mujoco.mjtObj.mjOBJ_GEOM, mujoco.mjtObj.mjOBJ_SITE


def two_entities(**kwargs: Any) -> tuple[Any, Any]:
    hips = BuiltinPositionActuatorCfg(target_names_expr=(".*_hip",), stiffness=20.0, damping=1.0)
    dog = entity(DOG, hips, init_state=EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 2.0)))
    motors = BuiltinMotorActuatorCfg(target_names_expr=(".*",), effort_limit=5.0)
    return build(entities={"arm": entity(ARM, motors), "dog": dog}, **kwargs)


def close(actual: torch.Tensor, expected: Any) -> None:
    expected = torch.as_tensor(np.asarray(expected), dtype=torch.float32)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_finds_parts_by_regex_in_the_models_order():
    dog = entity(DOG).build()
    assert dog.find_joints(".*_knee") == (
        [1, 3, 5, 7],
        ["fl_knee", "fr_knee", "rl_knee", "rr_knee"],
    )
    keys = ("rr_hip", "f._hip")
    assert dog.find_joints(keys)[1] == ["fl_hip", "fr_hip", "rr_hip"]
    assert dog.find_joints(keys, preserve_order=True)[1] == ["rr_hip", "fl_hip", "fr_hip"]
    assert dog.find_joints(".*", joint_subset=("rl_hip",)) == ([0], ["rl_hip"])
    assert dog.find_bodies("trunk") == ([0], ["trunk"])
    assert dog.find_geoms(".*_foot")[0] == [2, 4, 6, 8]
    assert dog.find_sites("imu") == ([0], ["imu"])
    arm = entity(ARM, BuiltinMotorActuatorCfg(target_names_expr=("elbow",), effort_limit=1.0))
    arm = arm.build()
    assert arm.find_tendons(".*") == ([0], ["cord"])
    assert arm.find_cameras("eye") == ([0], ["eye"])
    assert arm.find_actuators(".*") == ([0], ["elbow"])
    assert arm.find_joints_by_actuator_names(".*") == ([1], ["elbow"])
    assert (arm.num_joints, arm.num_bodies, dog.num_joints, dog.num_bodies) == (2, 3, 8, 9)


def test_a_name_that_matches_nothing_is_an_error_that_helps():
    scene, _ = two_entities(num_envs=1)
    message = (
        "Looking for joints of entity 'arm': No name matches 'elbo' (the whole name must match). "
        "Did you mean 'elbow'? Known: shoulder, elbow. "
        "Write 'elbo.*' to match all names that begin like this."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scene["arm"].find_joints("elbo")


def test_names_are_without_prefix_in_the_scene():
    scene, sim = two_entities(num_envs=1)
    assert scene["arm"].body_names == ("mocap_base", "upper", "fore")
    assert sim.mj_model.body("arm/upper").id == scene["arm"].indexing.body_ids[1]
    assert scene["dog"].all_joint_names[0] == "floating_base_joint"


def test_indices_agree_with_the_model():
    scene, sim = two_entities(num_envs=1)
    model = sim.mj_model
    for name in ("arm", "dog"):
        indexing, robot = scene[name].indexing, scene[name]
        for kind, ids in (("body", indexing.body_ids), ("geom", indexing.geom_ids)):
            for local, i in zip(getattr(robot, f"{kind}_names"), ids.tolist(), strict=True):
                assert getattr(model, kind)(i).name == f"{name}/{local}"
        for i, joint in enumerate(robot.joint_names):
            assert model.joint(f"{name}/{joint}").qposadr[0] == indexing.joint_q_adr[i]
            assert model.joint(f"{name}/{joint}").dofadr[0] == indexing.joint_v_adr[i]
    assert scene["dog"].indexing.ctrl_ids.tolist() == [2, 3, 4, 5]
    assert scene["dog"].indexing.mocap_id is None and scene["arm"].indexing.mocap_id == 0


@pytest.mark.parametrize("name", ["arm", "dog"])
def test_frames_and_velocities_agree_with_mujoco(name: str):
    scene, sim = two_entities()
    scramble(sim, scene)
    robot = scene[name]
    data, ix, world = robot.data, robot.indexing, 2
    d = reference(sim, world)
    bodies, geoms, sites = ix.body_ids.tolist(), ix.geom_ids.tolist(), ix.site_ids.tolist()

    def velocities(kind: mujoco.mjtObj, ids: list[int]) -> np.ndarray:
        return np.array([object_velocity(sim, world, kind, i) for i in ids])

    close(data.body_link_vel_w[world], velocities(XBODY, bodies))
    close(data.body_com_vel_w[world], velocities(BODY, bodies))
    close(data.geom_vel_w[world], velocities(GEOM, geoms))
    close(data.site_vel_w[world], velocities(SITE, sites))
    close(data.body_link_pose_w[world], np.hstack((d.xpos[bodies], d.xquat[bodies])))
    close(data.body_com_pos_w[world], d.xipos[bodies])
    close(data.geom_pos_w[world], d.geom_xpos[geoms])
    close(data.site_pos_w[world], d.site_xpos[sites])
    x = torch.tensor([1.0, 0.0, 0.0])
    close(quat_apply(data.site_quat_w[world], x.expand(1, 3)), d.site_xmat[sites][:, [0, 3, 6]])
    axes = quat_apply(data.geom_quat_w[world], x.expand(len(geoms), 3))
    close(axes, d.geom_xmat[geoms][:, [0, 3, 6]])
    axes = quat_apply(data.body_com_quat_w[world], x.expand(len(bodies), 3))
    close(axes, d.ximat[bodies][:, [0, 3, 6]])
    for parts in ("body_link", "body_com", "geom", "site"):
        pose, vel = getattr(data, f"{parts}_pose_w"), getattr(data, f"{parts}_vel_w")
        close(getattr(data, f"{parts}_pos_w"), pose[..., :3])
        close(getattr(data, f"{parts}_quat_w"), pose[..., 3:])
        close(getattr(data, f"{parts}_lin_vel_w"), vel[..., :3])
        close(getattr(data, f"{parts}_ang_vel_w"), vel[..., 3:])


@pytest.mark.parametrize("name", ["arm", "dog"])
def test_root_agrees_with_mujoco(name: str):
    scene, sim = two_entities()
    scramble(sim, scene)
    data, root = scene[name].data, scene[name].indexing.root_body_id
    for world in (0, 3):
        d = reference(sim, world)
        quat = torch.tensor(d.xquat[root], dtype=torch.float32)[None]
        close(data.root_link_pose_w[world], [*d.xpos[root], *d.xquat[root]])
        close(data.root_link_pos_w[world], d.xpos[root])
        close(data.root_link_quat_w[world], d.xquat[root])
        link = torch.tensor(object_velocity(sim, world, XBODY, root), dtype=torch.float32)[None]
        com = torch.tensor(object_velocity(sim, world, BODY, root), dtype=torch.float32)[None]
        close(data.root_link_vel_w[world : world + 1], link)
        close(data.root_com_vel_w[world : world + 1], com)
        close(data.root_com_pos_w[world], d.xipos[root])
        close(data.root_com_pose_w[world, :3], d.xipos[root])
        for frame, velocity in (("link", link), ("com", com)):
            linear = getattr(data, f"root_{frame}_lin_vel_b")[world : world + 1]
            angular = getattr(data, f"root_{frame}_ang_vel_b")[world : world + 1]
            close(linear, quat_apply_inverse(quat, velocity[:, :3]))
            close(angular, quat_apply_inverse(quat, velocity[:, 3:]))
            close(getattr(data, f"root_{frame}_lin_vel_w")[world], velocity[0, :3])
            close(getattr(data, f"root_{frame}_ang_vel_w")[world], velocity[0, 3:])
        down = quat_apply_inverse(quat, torch.tensor([[0.0, 0.0, -1.0]]))
        close(data.projected_gravity_b[world : world + 1], down)
        forward = d.xmat[root].reshape(3, 3)[:, 0]
        close(data.heading_w[world], np.arctan2(forward[1], forward[0]))


def test_the_root_dates_from_the_same_moment_as_all_bodies():
    scene, sim = two_entities()
    scramble(sim, scene)
    data = scene["dog"].data
    sim.step(2)
    before = sim.data.qpos[:, 2:9].clone()
    sim.step()
    now = sim.data.qpos[:, 2:9].clone()
    assert not torch.allclose(now, before, atol=1e-4)
    for _ in range(2):
        torch.testing.assert_close(data.root_link_pose_w, before, rtol=0, atol=1e-5)
        assert torch.equal(data.root_link_pose_w, data.body_link_pose_w[:, 0])
        assert torch.equal(data.root_link_vel_w, data.body_link_vel_w[:, 0])
        torch.testing.assert_close(data.root_com_vel_w, data.body_com_vel_w[:, 0])
        scene["dog"].write_root_link_pose_to_sim(now)  # Shows only after forward().
    sim.forward()
    torch.testing.assert_close(data.root_link_pose_w, now, rtol=0, atol=1e-5)


VELOCITIES = ["root_link", "root_com", "body_link", "body_com", "geom", "site"]
CHANGES = ["step", "forward", "forward_some", "reset", "reset_some", "write", "set_state"]


@given(st.lists(st.sampled_from([*CHANGES, *VELOCITIES]), max_size=12))
@settings(max_examples=30, deadline=None)
def test_velocities_are_never_out_of_date(actions: list[str]):
    scene, sim = two_entities()
    scramble(sim, scene)
    kept, some = sim.get_state(), torch.tensor([True, False, True, False])
    change = {
        "step": sim.step,
        "forward": sim.forward,
        "forward_some": lambda: sim.forward(some),
        "reset": sim.reset,
        "reset_some": lambda: sim.reset(some),
        "write": lambda: scene["dog"].write_root_link_velocity_to_sim(torch.rand(4, 6)),
        "set_state": lambda: sim.set_state(kept[some], some),
    }
    for action in [*actions, *VELOCITIES]:
        if action in change:
            change[action]()
            continue
        for name in ("dog", "arm"):
            data = scene[name].data
            fresh = copy.copy(data)
            fresh._derived, fresh._derived_at = {}, -1
            for quantity in (f"{action}_lin_vel_w", f"{action}_vel_w"):
                value = getattr(data, quantity)
                assert torch.equal(value, getattr(fresh, quantity)), (actions, name, quantity)
                value.zero_()  # What was read belongs to the reader.
                assert torch.equal(getattr(data, quantity), getattr(fresh, quantity))


def test_joint_and_force_reads_agree_with_mujoco():
    scene, sim = two_entities()
    scramble(sim, scene)
    dog, arm = scene["dog"], scene["arm"]
    arm.set_joint_effort_target(torch.tensor([[1.0, -2.0]]).expand(4, 2))
    push = torch.tensor([3.0, 1.0, 2.0]).expand(4, 1, 3)
    dog.write_external_wrench_to_sim(push, 0.1 * push, body_ids=[2])
    scene.write_data_to_sim()
    sim.forward()
    for world in (0, 3):
        d = reference(sim, world)
        close(arm.data.joint_pos[world], d.qpos[:2])
        close(dog.data.joint_vel[world], d.qvel[8:])
        close(dog.data.joint_acc[world], d.qacc[8:])
        close(arm.data.actuator_force[world], d.actuator_force[:2])
        close(dog.data.qfrc_actuator[world], d.qfrc_actuator[8:])
        close(arm.data.tendon_len[world], d.ten_length)
        close(arm.data.tendon_vel[world], d.ten_velocity)
        pushed = np.zeros(sim.mj_model.nv)
        body = int(dog.indexing.body_ids[2])
        wrench = d.xfrc_applied[body]
        mujoco.mj_applyFT(sim.mj_model, d, wrench[:3], wrench[3:], d.xipos[body], body, pushed)
        torch.testing.assert_close(
            dog.data.qfrc_external[world],
            torch.tensor(pushed[8:], dtype=torch.float32),
            rtol=1e-3,
            atol=1e-4,
        )


def test_values_that_were_read_do_not_change():
    scene, sim = two_entities()
    scramble(sim, scene)
    for robot in (scene["arm"], scene["dog"]):
        names = [n for n in dir(type(robot.data)) if re.match("joint_|root_|body_|geom_|site_", n)]
        names += ["actuator_force", "projected_gravity_b", "heading_w", "tendon_len"]
        kept = {name: getattr(robot.data, name) for name in names}
        copies = {name: value.clone() for name, value in kept.items()}
        assert len(kept) > 40
        scramble(sim, scene, seed=1)
        for name, value in kept.items():
            torch.testing.assert_close(value, copies[name], rtol=0, atol=0, msg=name)


def test_joint_limits_are_infinite_without_a_range():
    scene, _ = build(num_envs=2, entities={"arm": entity(ARM, motors(), soft=0.5)})
    inf = float("inf")
    data = scene["arm"].data
    assert data.joint_pos_limits[1].tolist() == [[-2.0, 2.0], [-inf, inf]]
    assert data.default_joint_pos_limits[1].tolist() == [[-2.0, 2.0], [-inf, inf]]
    assert data.soft_joint_pos_limits[1].tolist() == [[-1.0, 1.0], [-inf, inf]]


def motors() -> BuiltinMotorActuatorCfg:
    return BuiltinMotorActuatorCfg(target_names_expr=(".*",), effort_limit=5.0)


@pytest.mark.parametrize(
    "env_ids", [None, torch.tensor([3, 1]), torch.tensor([False, True, False, True]), slice(1, 3)]
)
def test_writes_change_only_the_chosen_worlds(env_ids: Any):
    scene, sim = two_entities()
    scramble(sim, scene)
    rows = torch.arange(4)[slice(None) if env_ids is None else env_ids]
    dog, arm, n = scene["dog"], scene["arm"], len(rows)
    values = torch.rand(n, 13)
    values[:, 3:7] = torch.nn.functional.normalize(values[:, 3:7], dim=-1)
    joint_pos, joint_vel = torch.rand(n, 8), torch.rand(n, 8)
    pose, forces = values[:, :7] + 0.0, torch.rand(n, 9, 3)
    qpos, qvel = sim.data.qpos.clone(), sim.data.qvel.clone()
    targets = torch.rand(n, 8)

    dog.write_root_state_to_sim(values, env_ids)
    dog.write_joint_state_to_sim(joint_pos, joint_vel, env_ids=env_ids)
    arm.write_mocap_pose_to_sim(pose, env_ids)
    dog.write_external_wrench_to_sim(forces, None, env_ids)
    dog.set_joint_position_target(targets, env_ids=env_ids)
    sim.forward()

    torch.testing.assert_close(dog.data.root_link_pose_w[rows], values[:, :7])
    torch.testing.assert_close(dog.data.root_link_vel_w[rows], values[:, 7:])
    torch.testing.assert_close(dog.data.joint_pos[rows], joint_pos)
    torch.testing.assert_close(dog.data.joint_vel[rows], joint_vel)
    torch.testing.assert_close(arm.data.root_link_pose_w[rows], pose)
    torch.testing.assert_close(dog.data.body_external_force[rows], forces)
    torch.testing.assert_close(dog.data.joint_pos_target[rows], targets)
    others = torch.tensor([i for i in range(4) if i not in rows.tolist()], dtype=torch.long)
    assert torch.equal(sim.data.qpos[others], qpos[others])
    assert torch.equal(sim.data.qvel[others], qvel[others])
    assert torch.equal(arm.data.root_link_pos_w[others], torch.zeros(len(others), 3))
    assert not dog.data.body_external_wrench[others].any()
    assert not dog.data.joint_pos_target[others].any()


def test_a_mask_works_with_rows_for_all_worlds():
    scene, sim = two_entities()
    dog, mask = scene["dog"], torch.tensor([True, False, False, True])
    full = torch.rand(4, 6)
    before = sim.data.qvel.clone()
    dog.write_root_link_velocity_to_sim(full, mask)
    sim.forward()
    torch.testing.assert_close(dog.data.root_link_vel_w[mask], full[mask])
    assert torch.equal(sim.data.qvel[~mask], before[~mask])
    dog.write_joint_position_to_sim(torch.full((4, 2), 0.3), torch.tensor([1, 6]), mask)
    expected = torch.zeros(4, 8)
    expected[0, [1, 6]] = expected[3, [1, 6]] = 0.3
    torch.testing.assert_close(dog.data.joint_pos, expected)


@pytest.mark.parametrize("env_ids", [None, torch.tensor([2, 0]), slice(0, 2)])
@pytest.mark.parametrize("joint_ids", [[6, 1], torch.tensor([6, 1]), slice(2, 4), slice(0, 4, 3)])
def test_chosen_joints_of_chosen_worlds_are_an_outer_product(env_ids: Any, joint_ids: Any):
    scene, _ = two_entities()
    dog = scene["dog"]
    rows = torch.arange(4)[slice(None) if env_ids is None else env_ids]
    columns = torch.arange(8)[joint_ids]
    values = torch.rand(len(rows), len(columns))
    expected = torch.zeros(4, 8)
    expected[rows[:, None], columns] = values
    dog.write_joint_position_to_sim(values, joint_ids, env_ids)
    dog.write_joint_velocity_to_sim(values, joint_ids, env_ids)
    dog.set_joint_position_target(values, joint_ids, env_ids)
    torch.testing.assert_close(dog.data.joint_pos, expected)
    torch.testing.assert_close(dog.data.joint_vel, expected)
    torch.testing.assert_close(dog.data.joint_pos_target, expected)


def test_velocities_equal_those_of_mujoco():
    scene, sim = two_entities()
    scramble(sim, scene)
    dog, root = scene["dog"], scene["dog"].indexing.root_body_id
    ids, velocity = torch.tensor([1, 3]), torch.rand(2, 6)
    dog.write_root_com_velocity_to_sim(velocity, ids)
    for row, world in enumerate((1, 3)):
        close(torch.tensor(object_velocity(sim, world, BODY, root)).float(), velocity[row])
    dog.write_root_link_velocity_b_to_sim(velocity, ids)
    sim.forward()
    torch.testing.assert_close(dog.data.root_link_lin_vel_b[ids], velocity[:, :3])
    torch.testing.assert_close(dog.data.root_link_ang_vel_b[ids], velocity[:, 3:])


def test_a_fixed_base_has_a_pose_per_world():
    scene, sim = build(
        entities={"arm": entity(ARM, init_state=EntityCfg.InitialStateCfg(pos=(1.0, 2.0, 3.0)))}
    )
    arm = scene["arm"]
    assert arm.is_fixed_base and arm.is_mocap and arm.data.default_root_state.shape == (4, 7)
    sim.forward()
    close(arm.data.root_link_pos_w, np.tile([1.0, 2.0, 3.0], (4, 1)))
    pose = torch.zeros(1, 7)
    pose[0, 0], pose[0, 3] = 5.0, 1.0
    arm.write_mocap_pose_to_sim(pose, torch.tensor([2]))
    sim.forward()
    close(arm.data.body_link_pos_w[:, 1, 0], [1.0, 1.0, 5.0, 1.0])


def test_writing_missing_parts_is_an_error():
    scene, _ = two_entities()
    with pytest.raises(ValueError, match="'arm' has a fixed base.*write_mocap_pose_to_sim"):
        scene["arm"].write_root_link_pose_to_sim(torch.zeros(4, 7))
    with pytest.raises(ValueError, match="'dog' has no mocap base.*write_root_link_pose_to_sim"):
        scene["dog"].write_mocap_pose_to_sim(torch.zeros(4, 7))
    with pytest.raises(ValueError, match=r"root state has 13 numbers, got 7 \(shape \(4, 7\)\)"):
        scene["dog"].write_root_state_to_sim(torch.zeros(4, 7))
    with pytest.raises(ValueError, match="'arm' has no actuators on tendons"):
        scene["arm"].set_tendon_len_target(torch.zeros(4, 1))


def test_ctrl_can_be_written_by_hand():
    scene, sim = two_entities()
    scene["dog"].write_ctrl_to_sim(torch.full((2, 1), 7.0), [2], torch.tensor([0, 3]))
    assert sim.data.ctrl[:, 4].tolist() == [7.0, 0.0, 0.0, 7.0]
    assert sim.data.ctrl.count_nonzero() == 2


def test_initial_state_comes_from_names_or_from_the_keyframe():
    start = EntityCfg.InitialStateCfg(
        pos=(0.0, 0.0, 1.0), joint_pos={".*_hip": 0.4, "rr_knee": -1.0}, joint_vel={"fl_.*": 2.0}
    )
    scene, _ = build(
        num_envs=2, entities={"arm": entity(ARM), "dog": entity(DOG, init_state=start)}
    )
    data = scene["dog"].data
    close(data.default_joint_pos[1], [0.4, 0.0, 0.4, 0.0, 0.4, 0.0, 0.4, -1.0])
    close(data.default_joint_vel[1], [2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    close(data.default_root_state[1], [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])

    key = '<keyframe><key name="home" qpos="0.1 -0.2"/></keyframe></mujoco>'
    keyed = entity(
        ARM.replace("</mujoco>", key), init_state=EntityCfg.InitialStateCfg(joint_pos=None)
    )
    # The second entity's part of the merged keyframe must not be taken for the first one's.
    scene, _ = build(num_envs=1, entities={"dog": entity(DOG), "arm": keyed})
    close(scene["arm"].data.default_joint_pos[0], [0.1, -0.2])
    with pytest.raises(ValueError, match="joint_pos=None .* the model has none"):
        entity(ARM, init_state=EntityCfg.InitialStateCfg(joint_pos=None)).build()
    with pytest.raises(ValueError, match="No name matches 'elbo'"):
        entity(ARM, init_state=EntityCfg.InitialStateCfg(joint_pos={"elbo": 1.0})).build()


def test_ball_joints_start_unrotated_and_are_written_whole():
    xml = """<mujoco><worldbody><body name="a"><joint name="ball" type="ball"/><geom size="0.1"/>
      <body name="b" pos="1 0 0"><joint name="hinge"/><geom size="0.1"/></body></body></worldbody>
      </mujoco>"""
    scene, _ = build(num_envs=2, entities={"x": entity(xml)})
    data = scene["x"].data
    close(data.default_joint_pos[0], [1.0, 0.0, 0.0, 0.0, 0.0])
    assert data.joint_pos.shape == (2, 5) and data.joint_vel.shape == (2, 4)
    scene["x"].write_joint_state_to_sim(data.default_joint_pos, data.default_joint_vel)
    with pytest.raises(ValueError, match="ball joints.*joint_ids=None"):
        scene["x"].write_joint_position_to_sim(torch.zeros(2, 1), [1])
    with pytest.raises(ValueError, match="'ball' is a ball joint, which one number"):
        entity(xml, init_state=EntityCfg.InitialStateCfg(joint_pos={"ball": 0.5})).build()


def test_more_than_one_free_joint_is_an_error():
    body = '<body name="{0}" pos="{1} 0 0"><freejoint name="{0}"/><geom size="0.1"/></body>'
    two = f"<mujoco><worldbody>{body.format('a', 0)}{body.format('b', 1)}</worldbody></mujoco>"
    with pytest.raises(ValueError, match="2 free joints"):
        entity(two).build()


BESIDE = """
<mujoco>
  <worldbody>
    <body name="post" pos="1 0 0.5">
      <geom size="0.1"/>
      <body name="gate"><joint name="gate"/><geom size="0.1" pos="0.3 0 0"/></body>
    </body>
    <body name="ball"><freejoint name="free"/><geom name="ball" size="0.1" mass="2"/>
      <body name="tail"><joint name="tail"/><geom size="0.05" pos="0.2 0 0" mass="0.1"/></body>
    </body>
  </worldbody>
  <keyframe><key qpos="0.3  0 0 0 1 0 0 0  0.4"/></keyframe>
</mujoco>
"""


@pytest.mark.parametrize("joint_pos", [{"gate": 0.3, "tail": 0.4}, None])
def test_the_body_with_the_free_joint_is_the_root_wherever_it_is(joint_pos: Any):
    start = EntityCfg.InitialStateCfg(pos=(2.0, 3.0, 4.0), joint_pos=joint_pos)
    cfg = entity(BESIDE, init_state=start)
    alone = cfg.build()
    assert alone.root_body.name == "ball" and not alone.is_fixed_base and not alone.is_mocap
    scene, sim = build(num_envs=3, entities={"x": cfg})
    key = sim.mj_model.key_qpos[0]
    assert key == pytest.approx([0.3, 2, 3, 4, 1, 0, 0, 0, 0.4])
    robot = scene["x"]
    close(robot.data.default_joint_pos[0], [0.3, 0.4])
    assert sim.mj_model.body(robot.indexing.root_body_id).name == "x/ball"
    pose = torch.tensor([[5.0, 6, 7, 0, 1, 0, 0]]).expand(3, 7)
    robot.write_root_link_pose_to_sim(pose)
    robot.write_root_link_velocity_to_sim(torch.ones(3, 6))
    robot.write_joint_position_to_sim(torch.tensor([[0.1, 0.2]]).expand(3, 2))
    sim.forward()
    close(robot.data.root_link_pose_w[0], pose[0])
    close(robot.data.root_link_vel_w[0], np.ones(6))
    names = list(robot.body_names)
    close(robot.data.body_link_pos_w[0, names.index("ball")], [5, 6, 7])
    close(robot.data.body_link_pos_w[0, names.index("post")], [1, 0, 0.5])
    close(robot.data.joint_pos[0], [0.1, 0.2])


def test_the_entitys_own_model_has_a_keyframe_with_its_start():
    start = EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 2.0), joint_pos={"fl_hip": 0.4})
    hips = BuiltinPositionActuatorCfg(target_names_expr=(".*_hip",), stiffness=20.0, damping=1.0)
    model = entity(DOG, hips, init_state=start).build().compile()
    assert [model.key(i).name for i in range(model.nkey)] == ["init_state"]
    assert model.key_qpos[0] == pytest.approx([0, 0, 2, 1, 0, 0, 0, 0.4, *[0] * 7])
    assert model.key_ctrl[0] == pytest.approx([0.4, 0, 0, 0])


def test_a_pattern_that_also_matches_other_kinds_of_parts_is_warned_of(
    caplog: pytest.LogCaptureFixture,
):
    entity(ARM, BuiltinMotorActuatorCfg(target_names_expr=(".*",), effort_limit=5.0)).build()
    assert "('.*',) is meant for joints, but" in caplog.text
    assert "the tendons cord, which" in caplog.text and "the sites hand, which" in caplog.text
    assert "TransmissionType.SITE" in caplog.text
    caplog.clear()
    entity(ARM, BuiltinMotorActuatorCfg(target_names_expr=("elbow",), effort_limit=5.0)).build()
    # Actuators of the XML: sites that have none cannot be meant.
    motors = "<actuator><motor joint='elbow'/></actuator></mujoco>"
    xml = ARM.replace("</mujoco>", motors).replace('name="shoulder"', 'name="elbow2"')
    entity(
        xml.replace('joint="shoulder"', 'joint="elbow2"'),
        XmlActuatorCfg(target_names_expr=("elbow|hand|cord",)),
    ).build()
    assert not caplog.text


def test_a_spec_handed_out_twice_is_not_edited():
    spec = mujoco.MjSpec.from_string(ARM)
    cfg = EntityCfg(spec_fn=lambda: spec)
    for _ in range(2):
        build(num_envs=1, entities={"arm": cfg})
    assert [body.name for body in spec.bodies] == ["world", "upper", "fore"]


def test_the_callers_config_is_not_changed():
    cfg = entity(ARM, motors())
    before = copy.deepcopy(cfg.articulation), copy.deepcopy(cfg.init_state)
    scene, _ = build(entities={"arm": cfg})
    scene.reset()
    assert (cfg.articulation, cfg.init_state) == before


def test_reset_clears_the_targets_of_the_chosen_worlds():
    scene, _ = two_entities()
    scene["arm"].set_joint_effort_target(torch.ones(4, 2))
    scene.reset(torch.tensor([1, 2]))
    assert scene["arm"].data.joint_effort_target[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    scene.reset(torch.tensor([True, False, False, False]))
    assert scene["arm"].data.joint_effort_target[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0]
    scene.reset()
    assert not scene["arm"].data.targets.all.any()


def test_data_before_initialize_is_an_error():
    robot: Entity = entity(ARM).build()
    with pytest.raises(RuntimeError, match=r"no data yet"):
        _ = robot.data


def test_a_second_body_tree_has_its_own_velocity():
    # Two trees on the same mocap base would be one; two under the world are not.
    xml = """<mujoco><worldbody><body name="base" mocap="true"/>
      <body name="left"><joint/><geom size="0.1" pos="0.5 0 0"/></body>
      <body name="right" pos="3 0 0"><joint/><geom size="0.1" pos="0.5 0 0"/></body>
      </worldbody></mujoco>"""
    scene, sim = build(num_envs=2, entities={"pair": entity(xml)})
    scramble(sim, scene)
    robot = scene["pair"]
    for i, body in enumerate(robot.indexing.body_ids.tolist()):
        close(robot.data.body_link_vel_w[1, i], object_velocity(sim, 1, XBODY, body))
