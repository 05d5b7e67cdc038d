"""Robots from MJCF and URDF files, and from MuJoCo Menagerie."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from entity_worlds import ARM, DOG, build
from test_spec_export import robot_in_files, write_mesh

from mjlab_rec.actuator import TransmissionType
from mjlab_rec.entity import EntityCfg, entity_from_file, menagerie_entity
from mjlab_rec.terrains import TerrainEntityCfg

ACTUATORS = """
  <actuator>
    <position name="hold" joint="shoulder" kp="20" kv="1"/>
    <motor name="push" joint="elbow"/>
    <motor name="pull" tendon="cord"/>
    <velocity name="turn" joint="elbow" kv="2"/>
    <general name="odd" site="hand" biastype="affine" biasprm="1 2 3"/>
    <motor name="again" joint="elbow"/>
  </actuator>
  <keyframe><key name="low" qpos="0.1 0.2"/><key name="high" qpos="0.3 0.4"/></keyframe>
</mujoco>
"""


def saved(folder: Path, xml: str, name: str = "robot.xml") -> Path:
    (folder / name).write_text(xml)
    return folder / name


def test_a_file_becomes_an_entity_that_starts_as_its_keyframe_says(tmp_path: Path):
    path = saved(tmp_path, ARM.replace("</mujoco>", ACTUATORS))
    scene, sim = build(num_envs=2, entities={"arm": entity_from_file(path)})
    assert scene["arm"].data.default_joint_pos[1].tolist() == pytest.approx([0.1, 0.2])
    assert sim.mj_model.key_ctrl[0, 0] == pytest.approx(0.1)
    high = entity_from_file(path, keyframe="high")
    assert high.init_state.joint_pos == {"shoulder": 0.3, "elbow": 0.4}
    scene, _ = build(num_envs=1, entities={"arm": high})
    assert scene["arm"].data.default_joint_pos[0].tolist() == pytest.approx([0.3, 0.4])
    assert pickle.loads(pickle.dumps(high)).init_state == high.init_state


def test_the_files_actuators_follow_targets_of_their_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tmp_path, ARM.replace("</mujoco>", ACTUATORS))
    cfg = entity_from_file(path)
    assert "follow no targets: push, again. They" in caplog.text
    kinds = {(a.transmission_type, *a.target_names_expr) for a in cfg.articulation.actuators}
    joint, tendon, site = TransmissionType.JOINT, TransmissionType.TENDON, TransmissionType.SITE
    assert kinds == {(joint, "shoulder"), (joint, "elbow"), (tendon, "cord"), (site, "hand")}
    scene, sim = build(num_envs=1, entities={"arm": cfg})
    arm = scene["arm"]
    arm.set_joint_position_target(torch.tensor([[0.5, 9.0]]))
    arm.set_joint_effort_target(torch.tensor([[9.0, 9.0]]))
    arm.set_joint_velocity_target(torch.tensor([[9.0, 0.2]]))
    arm.set_tendon_effort_target(torch.tensor([[0.3]]))
    arm.set_site_effort_target(torch.tensor([[0.4]]))
    scene.write_data_to_sim()
    expected = {"hold": 0.5, "push": 0.0, "pull": 0.3, "turn": 0.2, "odd": 0.4, "again": 0.0}
    ctrl = dict(zip(arm.actuator_names, sim.data.ctrl[0].tolist(), strict=True))
    assert ctrl == pytest.approx(expected)


def test_without_a_keyframe_it_starts_where_the_file_puts_it(tmp_path: Path):
    xml = DOG.replace('<body name="trunk">', '<body name="trunk" pos="1 2 3" euler="0 0 1">')
    xml = xml.replace('name="fl_hip"', 'name="fl_hip" ref="0.2"')
    cfg = entity_from_file(saved(tmp_path, xml))
    assert cfg.init_state.pos == pytest.approx((1, 2, 3))
    assert cfg.init_state.rot == pytest.approx((np.cos(0.5), 0, 0, np.sin(0.5)))
    assert cfg.init_state.joint_pos["fl_hip"] == pytest.approx(0.2)
    assert cfg.articulation is None


def test_meshes_pictures_and_included_files_are_found(tmp_path: Path):
    path = robot_in_files(tmp_path, 0.2)
    cfg = entity_from_file(path)
    model = cfg.build().compile()
    assert model.nmesh == 1 and model.ntex == 2 and model.nhfield == 1
    scene, sim = build(num_envs=1, entities={"robot": cfg})
    assert sim.mj_model.nmesh == 1


def test_a_floor_and_the_files_looks_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
):
    floor = '<worldbody><geom type="plane" size="1 1 1"/>'
    floor = '<visual><map zfar="9"/></visual><size nkey="2"/>' + floor
    path = saved(tmp_path, DOG.replace("<worldbody>", floor))
    _, sim = build(num_envs=1, terrain=TerrainEntityCfg(), entities={"r": entity_from_file(path)})
    assert (sim.mj_model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).sum() == 1
    assert not caplog.text and not recwarn.list
    kept = entity_from_file(path, keep_floor=True).build().compile()
    assert (kept.geom_type == mujoco.mjtGeom.mjGEOM_PLANE).sum() == 1


def test_a_total_mass_stays_the_total_mass(tmp_path: Path):
    xml = DOG.replace('angle="radian"', 'angle="radian" settotalmass="30"')
    _, sim = build(num_envs=1, entities={"robot": entity_from_file(saved(tmp_path, xml))})
    assert sim.mj_model.body_subtreemass[0] == pytest.approx(30.0)


def test_any_field_of_the_entity_can_be_given(tmp_path: Path):
    path = saved(tmp_path, ARM.replace("</mujoco>", ACTUATORS))
    start = EntityCfg.InitialStateCfg(joint_pos={".*": 0.5})
    cfg = entity_from_file(path, init_state=start, articulation=None)
    assert cfg.init_state is start and cfg.articulation is None


def test_the_base_can_be_made_floating_or_fixed(tmp_path: Path):
    fixed = ARM.replace('<joint name="shoulder" axis="0 1 0" range="-2 2" damping="0.5"/>', "")
    fixed = fixed.replace('<joint joint="shoulder" coef="1"/>', "")
    arm = entity_from_file(saved(tmp_path, fixed), floating=True).build()
    assert not arm.is_fixed_base and arm.root_body.name == "upper"
    dog = entity_from_file(saved(tmp_path, DOG, "dog.xml"), floating=False).build()
    assert dog.is_fixed_base and dog.is_mocap
    two = ARM.replace("</worldbody>", '<geom size="1"/></worldbody>')
    with pytest.raises(ValueError, match="needs one root .* 1 bodies and 1 geoms .* 1 joints"):
        entity_from_file(saved(tmp_path, two, "two.xml"), floating=True)


URDF = """<?xml version="1.0"?>
<robot name="walker">
  <link name="base">
    <inertial><mass value="3"/><origin xyz="0 0 .1"/>
      <inertia ixx=".1" iyy=".2" izz=".25" ixy="0" ixz="0" iyz="0"/></inertial>
    <visual><geometry><mesh filename="package://walker/meshes/hull.dae"/></geometry></visual>
    <visual><geometry><mesh filename="package://walker/meshes/hull.obj"/></geometry></visual>
    <collision><geometry><mesh filename="package://walker/meshes/hull.obj"/></geometry></collision>
  </link>
  <link name="leg"><inertial><mass value="1"/>
      <inertia ixx=".1" iyy=".1" izz=".1" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><sphere radius=".1"/></geometry></collision></link>
  <link name="foot"><collision><geometry><sphere radius=".02"/></geometry></collision></link>
  <joint name="hip" type="revolute"><parent link="base"/><child link="leg"/>
    <origin xyz="0 0 -.3"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="0.5" effort="5" velocity="3"/></joint>
  <joint name="sole" type="fixed"><parent link="leg"/><child link="foot"/>
    <origin xyz="0 0 -.3"/></joint>
</robot>"""


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    """A URDF file in the package walker, with a mesh of the package."""
    folder = tmp_path / "walker" / "urdf"
    folder.mkdir(parents=True)
    write_mesh(tmp_path / "walker" / "meshes" / "hull.obj", 0.2)
    return saved(folder, URDF, "walker.urdf")


def test_a_urdf_file_keeps_its_links_masses_and_meshes(urdf: Path):
    cfg = entity_from_file(urdf, floating=True)
    robot = cfg.build()
    assert robot.body_names == ("base", "leg", "foot") and robot.joint_names == ("hip",)
    model = robot.compile()
    assert model.body("base").mass[0] == 3 and model.nmesh == 1
    assert model.joint("hip").range.tolist() == [-1, 0.5]
    scene, _ = build(num_envs=1, entities={"robot": cfg})
    assert not scene["robot"].is_fixed_base
    assert entity_from_file(urdf).build().is_mocap


def test_a_copied_package_without_its_folder_is_found(urdf: Path, tmp_path: Path):
    shutil.copytree(tmp_path / "walker", tmp_path / "elsewhere" / "robot")
    shutil.rmtree(tmp_path / "walker")
    path = tmp_path / "elsewhere" / "robot" / "urdf" / "walker.urdf"
    assert entity_from_file(path).build().compile().nmesh == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (URDF.replace("hull.obj", "gone.stl"), "'package://walker/meshes/gone.stl' was found"),
        (URDF.replace('hull.obj"/></geometry></coll', 'h.dae"/></geometry></coll'), "not read"),
        ("<robot><link", "not XML"),
        ("<mujoco/>", "begins with <robot>, but this one with <mujoco>"),
    ],
)
def test_a_urdf_file_that_cannot_be_read_is_an_error_that_names_it(
    urdf: Path, content: str, message: str
):
    with pytest.raises(ValueError, match=f"Cannot load .*walker.urdf: .*{message}"):
        entity_from_file(saved(urdf.parent, content, "walker.urdf"))


def test_wrong_files_and_names_are_clear_errors(tmp_path: Path):
    path = saved(tmp_path, ARM.replace("</mujoco>", ACTUATORS))
    with pytest.raises(FileNotFoundError, match="no file .*robt.xml. Did you mean 'robot.xml'"):
        entity_from_file(tmp_path / "robt.xml")
    with pytest.raises(ValueError, match="no keyframe 'hihg'. Did you mean 'high'"):
        entity_from_file(path, keyframe="hihg")
    with pytest.raises(ValueError, match="Cannot load .*broken.xml: "):
        entity_from_file(saved(tmp_path, "<mujoco><worldbody></mujoco>", "broken.xml"))
    gone = ARM.replace("<worldbody>", '<asset><mesh name="m" file="gone.stl"/></asset><worldbody>')
    with pytest.raises(ValueError, match="Cannot compile .*gone.xml: .*gone.stl"):
        entity_from_file(saved(tmp_path, gone, "gone.xml"))


@pytest.fixture
def menagerie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with one small robot, under a name of MuJoCo Menagerie."""
    pytest.importorskip("mujoco_menagerie")
    folder = tmp_path / "unitree_go1"
    folder.mkdir()
    start = "0 0 .3 1 0 0 0 0 0 0 0 0 0 0 0"
    key = f"<keyframe><key qpos='{start}'/></keyframe></mujoco>"
    saved(folder, DOG.replace("</mujoco>", key), "go1.xml")
    saved(folder, "<mujoco><include file='go1.xml'/></mujoco>", "scene.xml")
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    return tmp_path


def test_a_robot_of_menagerie_in_one_line(menagerie: Path):
    cfg = menagerie_entity("unitree_go1")
    assert cfg.init_state.pos == (0.0, 0.0, 0.3)
    scene, _ = build(num_envs=1, entities={"robot": cfg})
    assert scene["robot"].num_joints == 8
    assert menagerie_entity("unitree_go1", "scene", floating=False).build().is_mocap


def test_robots_that_menagerie_does_not_have_are_clear_errors(menagerie: Path):
    with pytest.raises(ValueError, match="no robot 'unitre_go1'. Did you mean 'unitree_go1'"):
        menagerie_entity("unitre_go1")
    with pytest.raises(ValueError, match="has no model 'sceen'. Did you mean 'scene'"):
        menagerie_entity("unitree_go1", "sceen")
    with pytest.raises(RuntimeError, match="Cannot get the robot 'unitree_g1': .*MENAGERIE_ROOT"):
        menagerie_entity("unitree_g1")


def test_without_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module: Any = pytest.importorskip("mujoco_menagerie")
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(tmp_path / "cache"))
    # A folder instead of the network: it has no archives.
    monkeypatch.setenv("MENAGERIE_BASE_URL", (tmp_path / "nothing").as_uri())
    with pytest.raises(RuntimeError, match="Cannot get .*Without network: run 'mujoco-menagerie"):
        menagerie_entity(module.names()[0])
