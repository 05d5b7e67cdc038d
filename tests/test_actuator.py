"""Actuators: what reaches ctrl, and the forces that come of it."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from entity_worlds import ARM, DOG, build, entity, scramble

from mjlab_rec.actuator import (
    Actuator,
    ActuatorCfg,
    ActuatorCmd,
    BuiltinMotorActuatorCfg,
    BuiltinMuscleActuatorCfg,
    BuiltinPdActuatorCfg,
    BuiltinPositionActuator,
    BuiltinPositionActuatorCfg,
    BuiltinVelocityActuatorCfg,
    DcMotorActuator,
    DcMotorActuatorCfg,
    IdealPdActuator,
    IdealPdActuatorCfg,
    TransmissionType,
    XmlActuatorCfg,
)
from mjlab_rec.actuator.groups import ControlLawGroup, PassThroughGroup, SingleActuator
from mjlab_rec.utils.spec import (
    create_motor_actuator,
    create_position_actuator,
    create_velocity_actuator,
)

ALL = (".*",)
XML_SERVOS = ARM.replace(
    "</mujoco>",
    """<actuator>
      <position name="hold" joint="elbow" kp="10"/>
      <motor name="push" joint="shoulder"/>
      <velocity name="spin" joint="elbow" kv="2"/>
      <general name="odd" tendon="cord" gainprm="3" biastype="affine" biasprm="1 2 3"/>
    </actuator></mujoco>""",
)


def random_targets(scene: Any, name: str = "robot", seed: int = 0) -> Any:
    """Random targets of every kind; returns the entity's data."""
    data = scene[name].data
    generator = torch.Generator().manual_seed(seed)
    data.targets.all.copy_(torch.rand(data.targets.all.shape, generator=generator) - 0.5)
    return data


def test_position_velocity_and_motor_use_their_own_targets():
    scene, sim = build(
        entities={
            "robot": entity(
                DOG,
                BuiltinMotorActuatorCfg(target_names_expr=("rr_.*",), effort_limit=9.0),
                BuiltinPositionActuatorCfg(
                    target_names_expr=("fl_.*", "rl_hip"), stiffness=20.0, damping=1.0
                ),
                BuiltinVelocityActuatorCfg(target_names_expr=("fr_.*",), damping=3.0),
            )
        }
    )
    data = random_targets(scene)
    scene.write_data_to_sim()
    pos, vel, effort = data.joint_pos_target, data.joint_vel_target, data.joint_effort_target
    expected = torch.cat((effort[:, 6:8], pos[:, [0, 1, 4]], vel[:, 2:4]), dim=1)
    assert torch.equal(sim.data.ctrl, expected)
    assert len(scene["robot"]._groups) == 1
    scramble(sim, scene)
    scene.write_data_to_sim()
    sim.forward()
    q, v = data.joint_pos, data.joint_vel
    servo = 20.0 * (pos[:, 0] - q[:, 0]) - 1.0 * v[:, 0]
    torch.testing.assert_close(data.actuator_force[:, 2], servo, rtol=1e-4, atol=1e-4)
    speed = 3.0 * (vel[:, 2] - v[:, 2])
    torch.testing.assert_close(data.actuator_force[:, 5], speed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [(ALL,), ((".*_knee",), (".*_hip",))])
def test_contiguous_targets_are_written_by_one_copy(groups: tuple[tuple[str, ...], ...]):
    servos = [
        BuiltinPositionActuatorCfg(target_names_expr=names, stiffness=20.0, damping=1.0)
        for names in groups
    ]
    robot = entity(DOG, *servos, sort_actuators=True)
    scene, sim = build(entities={"arm": entity(ARM), "robot": robot})
    data = random_targets(scene)
    with torch.profiler.profile() as profile:
        scene["robot"].write_data_to_sim()
    calls = {e.key: e.count for e in profile.key_averages() if e.key.startswith("aten::")}
    assert calls == {"aten::copy_": 1}
    assert torch.equal(sim.data.ctrl, data.joint_pos_target)


@pytest.mark.parametrize("angle", ["radian", "degree"])
def test_ctrlrange_tells_which_setpoints_make_a_difference(angle: str):
    unit = 1.0 if angle == "radian" else 180.0 / math.pi
    xml = f"""
      <mujoco>
        <compiler angle="{angle}"/>
        <worldbody>
          <body>
            <joint name="hinge" range="{-0.5 * unit} {1.5 * unit}"/>
            <joint name="slide" type="slide" range="-0.1 0.2"/>
            <joint name="free" axis="1 0 0"/>
            <geom size="0.1"/>
          </body>
        </worldbody>
        <tendon><fixed name="cord" range="0 3"><joint joint="slide" coef="1"/></fixed></tendon>
      </mujoco>"""
    servo = {"stiffness": 20.0, "damping": 1.0}
    model = (
        entity(
            xml,
            BuiltinPositionActuatorCfg(
                target_names_expr=("hinge", "slide", "free"), effort_limit=10.0, **servo
            ),
            BuiltinPositionActuatorCfg(
                target_names_expr=("cord",),
                transmission_type=TransmissionType.TENDON,
                effort_limit=2.0,
                **servo,
            ),
        )
        .build()
        .compile()
    )
    expected = [[-1.0, 2.0], [-0.6, 0.7], [-0.5, 0.5], [-0.1, 3.1]]
    np.testing.assert_allclose(model.actuator_ctrlrange, expected, atol=1e-6)
    assert not model.actuator_ctrllimited.any()
    unlimited = BuiltinPositionActuatorCfg(target_names_expr=("hinge",), **servo)
    assert not entity(xml, unlimited).build().compile().actuator_ctrlrange.any()


def test_functions_that_add_actuators_take_the_joints_name():
    spec = mujoco.MjSpec.from_string(ARM)
    motor = create_motor_actuator(spec, joint_name="elbow", effort_limit=3.0)
    servo = create_position_actuator(
        spec, joint_name="shoulder", stiffness=5.0, damping=1.0, actuator_name="hold"
    )
    spin = create_velocity_actuator(
        spec, joint_name="elbow", damping=1.0, actuator_name="spin", armature=0.5
    )
    assert [a.name for a in spec.actuators] == ["elbow", "hold", "spin"]
    assert [a.target for a in (motor, servo, spin)] == ["elbow", "shoulder", "elbow"]
    assert spec.joint("elbow").armature == 0.5


def test_names_that_match_other_kinds_too_are_warned_of(caplog: pytest.LogCaptureFixture):
    cfg = BuiltinMotorActuatorCfg(target_names_expr=ALL, effort_limit=1.0)
    with caplog.at_level(logging.WARNING):
        entity(ARM, cfg).build()
    cord, hand = [record.getMessage() for record in caplog.records]
    start = "BuiltinMotorActuatorCfg: target_names_expr ('.*',) is meant for joints, but"
    assert cord.startswith(start) and "the tendons cord," in cord and "TENDON" in cord
    assert hand.startswith(start) and "the sites hand," in hand and "SITE" in hand
    caplog.clear()
    entity(ARM, dataclasses.replace(cfg, target_names_expr=("elbow",))).build()
    assert not caplog.records


def test_sorted_actuators_follow_the_models_order():
    cfgs = (
        BuiltinMotorActuatorCfg(target_names_expr=("elbow",), effort_limit=1.0),
        BuiltinPdActuatorCfg(target_names_expr=("shoulder",), stiffness=5.0, damping=1.0),
    )
    robot = entity(ARM, *cfgs, sort_actuators=True).build()
    assert robot.actuator_names == ("shoulder_pd_pos", "shoulder_pd_vel", "elbow")
    robot = entity(ARM, *cfgs).build()
    assert robot.actuator_names == ("elbow", "shoulder_pd_pos", "shoulder_pd_vel")


@pytest.mark.parametrize("is_sorted", [False, True])
def test_builtin_pd_is_the_law_on_both_targets(is_sorted: bool):
    cfg = BuiltinPdActuatorCfg(target_names_expr=ALL, stiffness=30.0, damping=2.0, effort_limit=8.0)
    scene, sim = build(entities={"robot": entity(ARM, cfg, sort_actuators=is_sorted)})
    scramble(sim, scene)
    data = random_targets(scene)
    scene.write_data_to_sim()
    sim.forward()
    law = 30.0 * (data.joint_pos_target - data.joint_pos)
    law += 2.0 * (data.joint_vel_target - data.joint_vel)
    assert (law.abs() > 8.0).any() and (law.abs() < 8.0).any()
    torch.testing.assert_close(data.qfrc_actuator, law.clamp(-8.0, 8.0), rtol=1e-4, atol=1e-4)


def test_xml_actuators_are_found_by_target_and_kind():
    scene, sim = build(
        entities={
            "robot": entity(
                XML_SERVOS,
                XmlActuatorCfg(target_names_expr=("shoulder",)),
                XmlActuatorCfg(target_names_expr=("elbow",), command_field="velocity"),
                XmlActuatorCfg(
                    target_names_expr=("cord",),
                    transmission_type=TransmissionType.TENDON,
                    command_field="position",
                ),
            )
        }
    )
    assert [a.target_names for a in scene["robot"].actuators] == [["shoulder"], ["elbow"], ["cord"]]
    data = random_targets(scene)
    sim.data.ctrl[:, 0] = 7.0
    scene.write_data_to_sim()
    assert (sim.data.ctrl[:, 0] == 7.0).all()
    assert torch.equal(sim.data.ctrl[:, 1], data.joint_effort_target[:, 0])
    assert torch.equal(sim.data.ctrl[:, 2], data.joint_vel_target[:, 1])
    assert torch.equal(sim.data.ctrl[:, 3], data.tendon_len_target[:, 0])


@pytest.mark.parametrize(
    ("xml", "options", "message"),
    [
        (XML_SERVOS, {}, "'elbow' has several actuators: ['hold', 'spin']. Choose one kind"),
        (XML_SERVOS, {"command_field": "effort"}, "the actuators on 'elbow' follow: {'hold': 'pos"),
        (ARM, {}, "the XML has no actuator on the joints ['shoulder', 'elbow']. It has actuators"),
        (
            XML_SERVOS.replace('<velocity name="spin" joint="elbow" kv="2"/>', ""),
            {},
            "these actuators follow different targets: {'shoulder': 'effort', 'elbow': 'position'}",
        ),
        (
            XML_SERVOS,
            {"target_names_expr": ("cord",), "transmission_type": TransmissionType.TENDON},
            "Cannot tell which command the XML actuator 'odd' follows",
        ),
    ],
)
def test_unclear_xml_actuators_are_an_error(xml: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        entity(xml, XmlActuatorCfg(**{"target_names_expr": ALL, **options})).build()


def test_passive_properties_override_the_xml():
    cfg = BuiltinMotorActuatorCfg(
        target_names_expr=("elbow",),
        effort_limit=1.0,
        armature=0.3,
        frictionloss=0.2,
        viscous_damping=0.7,
    )
    model = entity(ARM, cfg).build().compile()
    assert model.dof_armature.tolist() == [0.0, 0.3]
    assert model.dof_frictionloss.tolist() == [0.0, 0.2]
    assert model.dof_damping.tolist() == [0.5, 0.7]
    xml = XmlActuatorCfg(target_names_expr=("shoulder",), armature=0.1)
    assert entity(XML_SERVOS, xml).build().compile().dof_armature[0] == 0.1


def test_tendons_and_sites_can_be_driven():
    scene, sim = build(
        entities={
            "robot": entity(
                ARM,
                BuiltinMotorActuatorCfg(
                    target_names_expr=("hand",),
                    effort_limit=9.0,
                    transmission_type=TransmissionType.SITE,
                ),
                BuiltinPositionActuatorCfg(
                    target_names_expr=("cord",),
                    stiffness=4.0,
                    damping=1.0,
                    transmission_type=TransmissionType.TENDON,
                ),
                IdealPdActuatorCfg(target_names_expr=ALL, stiffness=1.0, damping=0.0),
            )
        }
    )
    robot = scene["robot"]
    assert robot.has_tendon_actuators and robot.has_site_actuators
    robot.set_site_effort_target(torch.full((4, 1), 2.0))
    robot.set_tendon_len_target(torch.full((4, 1), 0.5))
    scene.write_data_to_sim()
    assert sim.data.ctrl[0, :2].tolist() == [2.0, 0.5]
    with pytest.raises(ValueError, match="does not support SITE"):
        BuiltinPositionActuatorCfg(
            target_names_expr=ALL,
            stiffness=1.0,
            damping=1.0,
            transmission_type=TransmissionType.SITE,
        )


def test_muscle_excitation_is_the_effort_target():
    cfg = BuiltinMuscleActuatorCfg(target_names_expr=("shoulder",), length_range=(0.1, 2.0))
    scene, sim = build(entities={"robot": entity(ARM, cfg)})
    scene["robot"].set_joint_effort_target(torch.tensor([0.7]), [0])
    scene.write_data_to_sim()
    sim.step(5)
    assert sim.data.ctrl[0].tolist() == pytest.approx([0.7])
    assert (sim.data.act[:, 0] > 0.0).all()


def test_ideal_pd_equals_the_formula():
    stiff = IdealPdActuatorCfg(
        target_names_expr=(".*_hip",), stiffness=30.0, damping=2.0, effort_limit=6.0
    )
    soft = IdealPdActuatorCfg(target_names_expr=(".*_knee",), stiffness=10.0, damping=0.5)
    scene, sim = build(entities={"arm": entity(ARM), "robot": entity(DOG, stiff, soft)})
    scramble(sim, scene)
    data = random_targets(scene)
    scene.write_data_to_sim()
    position, velocity = (
        data.joint_pos_target - data.joint_pos,
        data.joint_vel_target - data.joint_vel,
    )
    kp, kd = torch.tensor([30.0, 10.0]).repeat(4), torch.tensor([2.0, 0.5]).repeat(4)
    law = kp * position + kd * velocity + data.joint_effort_target
    law[:, ::2] = law[:, ::2].clamp(-6.0, 6.0)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    torch.testing.assert_close(sim.data.ctrl, law[:, order], rtol=1e-5, atol=1e-5)
    # Without a limit on the effort the motor must not clip either.
    sim.forward()
    torch.testing.assert_close(data.qfrc_actuator, law, rtol=1e-4, atol=1e-4)
    assert [type(group) for group in scene["robot"]._groups] == [ControlLawGroup]


def test_gains_of_one_world_reach_the_law():
    cfg = IdealPdActuatorCfg(target_names_expr=("shoulder",), stiffness=10.0, damping=0.0)
    other = IdealPdActuatorCfg(target_names_expr=("elbow",), stiffness=10.0, damping=0.0)
    scene, sim = build(entities={"robot": entity(ARM, cfg, other)})
    shoulder, elbow = scene["robot"].actuators
    assert isinstance(shoulder, IdealPdActuator) and isinstance(elbow, IdealPdActuator)
    elbow.set_gains(torch.tensor([1]), kp=torch.tensor([20.0]))
    elbow.set_effort_limit(torch.tensor([2]), torch.tensor([3.0]))
    scene["robot"].set_joint_position_target(torch.ones(4, 2))
    scene.write_data_to_sim()
    assert sim.data.ctrl[:, 1].tolist() == [10.0, 20.0, 3.0, 10.0]
    assert sim.data.ctrl[:, 0].tolist() == [10.0] * 4
    assert elbow.default_stiffness[:, 0].tolist() == [10.0] * 4


def test_dc_motor_follows_its_torque_speed_curve():
    cfg = DcMotorActuatorCfg(
        target_names_expr=("elbow",),
        stiffness=0.0,
        damping=0.0,
        effort_limit=6.0,
        saturation_effort=10.0,
        velocity_limit=20.0,
    )
    scene, sim = build(num_envs=6, entities={"robot": entity(ARM, cfg)})
    robot = scene["robot"]
    assert isinstance(robot.actuators[0], DcMotorActuator)
    speed = torch.tensor([0.0, 10.0, 20.0, 30.0, 100.0, -10.0])
    robot.write_joint_velocity_to_sim(speed[:, None], [1])
    for effort, expected in ((99.0, [6, 5, 0, -5, -6, 6]), (-99.0, [-6, -6, -6, -6, -6, -5])):
        robot.set_joint_effort_target(torch.full((6, 1), effort), [1])
        scene.write_data_to_sim()
        assert sim.data.ctrl[:, 0].tolist() == expected


def test_dc_motor_without_a_continuous_limit_is_warned_of(caplog: pytest.LogCaptureFixture):
    motor: dict[str, Any] = dict(target_names_expr=ALL, stiffness=1.0, damping=1.0)
    with caplog.at_level(logging.WARNING):
        DcMotorActuatorCfg(**motor, saturation_effort=1.0, velocity_limit=1.0)
        DcMotorActuatorCfg(**motor, saturation_effort=1.0, velocity_limit=1.0, effort_limit=2.0)
    assert ["infinite" in caplog.messages[0], "exceeds" in caplog.messages[1]] == [True, True]
    with pytest.raises(ValueError, match="must be positive"):
        DcMotorActuatorCfg(**motor, saturation_effort=0.0, velocity_limit=1.0)


DELAYED = {
    "position": (
        BuiltinPositionActuatorCfg(
            target_names_expr=ALL, stiffness=10.0, damping=0.0, delay_min_lag=2, delay_max_lag=2
        ),
        1.0,
    ),
    "ideal": (
        IdealPdActuatorCfg(
            target_names_expr=ALL, stiffness=10.0, damping=0.0, delay_min_lag=2, delay_max_lag=2
        ),
        10.0,
    ),
}


@pytest.mark.parametrize("kind", [*DELAYED, "custom"])
def test_a_command_arrives_as_many_physics_steps_late_as_configured(kind: str):
    cfg, gain = DELAYED.get(kind) or (_DoubleCfg(delay_min_lag=2, delay_max_lag=2), 2.0)
    scene, sim = build(entities={"robot": entity(ARM, cfg)})
    robot, seen = scene["robot"], []
    for step in range(6):
        robot.set_joint_position_target(torch.full((4, 2), float(step)))
        scene.write_data_to_sim()
        seen.append(sim.data.ctrl[1, 0].item())
    # The first command stands in for those before it.
    assert seen == [gain * t for t in (0, 0, 0, 1, 2, 3)]
    scene.reset(torch.tensor([1]))
    robot.set_joint_position_target(torch.full((4, 2), 9.0))
    scene.write_data_to_sim()
    assert sim.data.ctrl[:, 0].tolist() == [gain * t for t in (4.0, 9.0, 4.0, 4.0)]


def test_a_lag_set_on_one_actuator_applies_to_its_group():
    late: dict[str, Any] = dict(stiffness=1.0, damping=0.0, delay_max_lag=3, delay_hold_prob=1.0)
    scene, sim = build(
        num_envs=2,
        entities={
            "robot": entity(
                ARM,
                BuiltinPositionActuatorCfg(target_names_expr=("shoulder",), **late),
                BuiltinPositionActuatorCfg(target_names_expr=("elbow",), **late),
            )
        },
    )
    robot = scene["robot"]
    robot.actuators[1].set_lags(torch.tensor([0, 3]))
    for step in range(5):
        robot.set_joint_position_target(torch.full((2, 2), float(step)))
        scene.write_data_to_sim()
    assert sim.data.ctrl.tolist() == [[4.0, 4.0], [1.0, 1.0]]


def test_random_lags_come_from_the_scenes_generator():
    cfg = BuiltinPositionActuatorCfg(
        target_names_expr=ALL, stiffness=1.0, damping=0.0, delay_max_lag=4
    )

    def controls(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        torch.rand(seed + 1)  # What the global generator does must not matter.
        scene, sim = build(entities={"robot": entity(ARM, cfg)}, generator=generator)
        seen = []
        for step in range(20):
            scene["robot"].set_joint_position_target(torch.full((4, 2), float(step)))
            scene.write_data_to_sim()
            seen.append(sim.data.ctrl.clone())
        return torch.stack(seen)

    first = controls(1)
    assert torch.equal(first, controls(1)) and not torch.equal(first, controls(2))


@dataclass(kw_only=True)
class _DoubleCfg(ActuatorCfg):
    target_names_expr: tuple[str, ...] = ALL

    def build(self, entity: Any, target_ids: list[int], target_names: list[str]) -> Any:
        return _Double(self, entity, target_ids, target_names)


class _Double(Actuator[_DoubleCfg]):
    """A user's own actuator: twice the position target, and a clock."""

    time = 0.0

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        for name in target_names:
            motor = create_motor_actuator(spec, name, effort_limit=100.0)
            self._mjs_actuators.append(motor)

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        assert cmd.pos.shape == cmd.vel.shape == (4, 2)
        return 2.0 * cmd.position_target

    def update(self, dt: float) -> None:
        self.time += dt


class _Offset(BuiltinPositionActuator):
    """A stock actuator with the command changed on its way."""

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        return cmd.position_target + 1.0


@dataclass(kw_only=True)
class _OffsetCfg(BuiltinPositionActuatorCfg):
    def build(self, entity: Any, target_ids: list[int], target_names: list[str]) -> Any:
        return _Offset(self, entity, target_ids, target_names)


class _Halved(IdealPdActuator):
    """An ideal PD law of the user's."""

    @staticmethod
    def control_law(params: dict[str, torch.Tensor], cmd: ActuatorCmd) -> torch.Tensor:
        return 0.5 * params["stiffness"] * (cmd.position_target - cmd.pos)


@dataclass(kw_only=True)
class _HalvedCfg(IdealPdActuatorCfg):
    def build(self, entity: Any, target_ids: list[int], target_names: list[str]) -> Any:
        return _Halved(self, entity, target_ids, target_names)


def test_a_users_actuator_computes_its_own_control():
    scene, sim = build(entities={"robot": entity(ARM, _DoubleCfg())})
    data = random_targets(scene)
    scene.write_data_to_sim()
    scene.update(0.005)
    assert torch.equal(sim.data.ctrl, 2.0 * data.joint_pos_target)
    assert scene["robot"].actuators[0].time == 0.005


def test_a_subclass_that_changes_the_command_is_heeded():
    scene, sim = build(
        entities={
            "robot": entity(
                ARM,
                _OffsetCfg(target_names_expr=("shoulder",), stiffness=1.0, damping=1.0),
                _HalvedCfg(target_names_expr=("elbow",), stiffness=10.0, damping=1.0),
            )
        }
    )
    data = random_targets(scene)
    scene.write_data_to_sim()
    assert [type(g) for g in scene["robot"]._groups] == [SingleActuator, ControlLawGroup]
    torch.testing.assert_close(sim.data.ctrl[:, 0], data.joint_pos_target[:, 0] + 1.0)
    torch.testing.assert_close(sim.data.ctrl[:, 1], 5.0 * data.joint_pos_target[:, 1])


def test_unlike_actuators_do_not_share_a_group():
    pos = dict(stiffness=1.0, damping=1.0)
    robot = entity(
        DOG,
        BuiltinPositionActuatorCfg(target_names_expr=("fl_.*",), **pos),
        BuiltinVelocityActuatorCfg(target_names_expr=("fr_.*",), damping=1.0),
        BuiltinPositionActuatorCfg(target_names_expr=("rl_.*",), delay_max_lag=1, **pos),
        IdealPdActuatorCfg(target_names_expr=("rr_hip",), **pos),
        IdealPdActuatorCfg(target_names_expr=("rr_knee",), delay_max_lag=1, **pos),
    )
    scene, _ = build(entities={"robot": robot})
    kinds = [type(group) for group in scene["robot"]._groups]
    assert kinds == [PassThroughGroup, PassThroughGroup, ControlLawGroup, ControlLawGroup]


def test_only_undelayed_actuators_inside_mujoco_are_constant_between_substeps():
    def constant(*cfgs: ActuatorCfg, xml: str = ARM) -> bool:
        return entity(xml, *cfgs).build().constant_between_substeps

    gains: dict[str, Any] = dict(target_names_expr=ALL, stiffness=1.0, damping=1.0)
    assert constant() and constant(BuiltinPositionActuatorCfg(**gains))
    assert constant(BuiltinPdActuatorCfg(**gains))
    assert constant(XmlActuatorCfg(target_names_expr=("shoulder",)), xml=XML_SERVOS)
    assert not constant(BuiltinPositionActuatorCfg(**gains, delay_max_lag=1))
    assert not constant(IdealPdActuatorCfg(**gains))
    assert not constant(_DoubleCfg())
    assert not constant(_OffsetCfg(**gains))


def test_targets_that_do_not_exist_are_an_error_that_hints():
    cfg = BuiltinMotorActuatorCfg(target_names_expr=("cord",), effort_limit=1.0)
    message = (
        "BuiltinMotorActuatorCfg: Looking for joints of the entity: No name matches 'cord' (the "
        "whole name must match). Known: shoulder, elbow. The tendons cord match: did you mean "
        "transmission_type=TransmissionType.TENDON?"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        entity(ARM, cfg).build()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"armature": -1.0}, "{'armature': -1.0} must not be negative"),
        ({"delay_min_lag": 3, "delay_max_lag": 1}, "delay_max_lag, got 3 and 1"),
        ({"delay_hold_prob": 2.0}, "delay_hold_prob 2.0 is not in"),
        ({"delay_update_period": -1}, "delay_update_period must not be negative"),
        (
            {"armature": 1.0, "transmission_type": TransmissionType.SITE},
            "sites have no armature",
        ),
    ],
)
def test_impossible_settings_are_an_error(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        BuiltinMotorActuatorCfg(target_names_expr=ALL, effort_limit=1.0, **options)


def test_a_law_on_a_ball_joint_is_an_error():
    xml = """<mujoco><worldbody><body><joint name="ball" type="ball"/><geom size="0.1"/></body>
      </worldbody></mujoco>"""
    cfg = IdealPdActuatorCfg(target_names_expr=ALL, stiffness=1.0, damping=1.0)
    with pytest.raises(ValueError, match="ball joints.*IdealPdActuator cannot"):
        build(entities={"robot": entity(xml, cfg)})
