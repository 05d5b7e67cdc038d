"""MuJoCo's DC motor: its law in each mode, its extensions, its randomization, and wrong configs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from entity_worlds import ARM, build, entity, scramble
from mdp_worlds import arm_cfg, make_env, robot_cfg

from mjlab_rec.actuator import (
    BuiltinDcMotorActuator,
    BuiltinDcMotorActuatorCfg,
    DcMotorDatasheetParams,
    DcMotorInputMode,
    DcMotorPhysicalParams,
    TransmissionType,
)
from mjlab_rec.entity import EntityArticulationInfoCfg
from mjlab_rec.envs.mdp import dr
from mjlab_rec.managers import SceneEntityCfg

MODES = list(DcMotorInputMode)
JOINTS = ("shoulder", "elbow")
SHEET = DcMotorDatasheetParams(nominal_voltage=24.0, stall_torque=2.0, no_load_speed=100.0)
K = 24.0 / 100.0
R = K * 24.0 / 2.0


def motor(mode: DcMotorInputMode = DcMotorInputMode.POSITION, **fields: Any) -> Any:
    """A motor on both joints, with a controller where the mode has one."""
    values: dict[str, Any] = {"target_names_expr": JOINTS, "motor_params": SHEET, "mode": mode}
    if mode is not DcMotorInputMode.VOLTAGE:
        values |= {"stiffness": 5.0, "damping": 0.4, "voltage_limit": 24.0}
    return BuiltinDcMotorActuatorCfg(**(values | fields))


def drive(cfg: Any, engine: Any = "mjbatch", xml: str = ARM) -> tuple[Any, Any, Any]:
    """A scene in a random state with random targets, simulated up to the motors' forces."""
    scene, sim = build(entities={"robot": entity(xml, cfg)}, engine=engine)
    scramble(sim, scene)
    targets = scene["robot"].data.targets.all
    targets.copy_(6.0 * torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) - 3.0)
    scene.write_data_to_sim()
    sim.forward()
    return scene, sim, scene["robot"].data


def voltage(cfg: Any, data: Any) -> torch.Tensor:
    """The config's law without an integral."""
    q, v = data.joint_pos, data.joint_vel
    if cfg.mode is DcMotorInputMode.POSITION:
        volts = cfg.stiffness * (data.joint_pos_target - q) - cfg.damping * v
    elif cfg.mode is DcMotorInputMode.VELOCITY:
        volts = cfg.stiffness * (data.joint_vel_target - v)
    else:
        volts = data.joint_effort_target
    limit = cfg.voltage_limit or math.inf
    return volts.clamp(-limit, limit)


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
@pytest.mark.parametrize("limit", [50.0, 2.0])
@pytest.mark.parametrize("mode", MODES)
def test_the_torque_follows_from_voltage_and_speed(mode: Any, limit: float, engine: str):
    if mode is DcMotorInputMode.VOLTAGE and limit == 50.0:
        limit = 0.0
    cfg = motor(mode, voltage_limit=limit)
    _, _, data = drive(cfg, engine)
    volts = voltage(cfg, data)
    assert bool((volts.abs() == 2.0).any()) is (limit == 2.0)
    expected = K * (volts - K * data.joint_vel) / R
    torch.testing.assert_close(data.actuator_force, expected, rtol=1e-4, atol=1e-5)


def test_physical_constants_describe_the_same_motor():
    params = DcMotorPhysicalParams(kt=K, ke=K, resistance=R)
    _, sim, data = drive(motor(motor_params=params))
    _, other, _ = drive(motor())
    torch.testing.assert_close(sim.data.actuator_force, other.data.actuator_force)
    unequal = DcMotorPhysicalParams(kt=0.1, ke=0.05, resistance=2.0)
    _, sim, _ = drive(motor(motor_params=unequal))
    gains = sim.mj_model.actuator_gainprm[0]
    assert gains[:2] == pytest.approx([2.0, math.sqrt(0.1 * 0.05)])


def test_tendons_and_gears_work():
    cfg = motor(target_names_expr=("cord",), transmission_type=TransmissionType.TENDON)
    _, _, data = drive(cfg)
    volts = 5.0 * (data.tendon_len_target - data.tendon_len) - 0.4 * data.tendon_vel
    expected = K * (volts.clamp(-24.0, 24.0) - K * data.tendon_vel) / R
    torch.testing.assert_close(data.actuator_force, expected, rtol=1e-4, atol=1e-5)
    _, _, data = drive(motor(DcMotorInputMode.VOLTAGE, gear=3.0))
    expected = K * (data.joint_effort_target - K * 3.0 * data.joint_vel) / R
    torch.testing.assert_close(data.actuator_force, expected, rtol=1e-4, atol=1e-5)


def test_effort_limit_bounds_the_motor_but_not_its_cogging():
    cfg = motor(DcMotorInputMode.VOLTAGE, effort_limit=0.05, cogging=(0.5, 4.0, 0.1))
    _, _, data = drive(cfg)
    force = (K * (data.joint_effort_target - K * data.joint_vel) / R).clamp(-0.05, 0.05)
    expected = force + 0.5 * torch.sin(4.0 * data.joint_pos + 0.1)
    torch.testing.assert_close(data.qfrc_actuator, expected, rtol=1e-4, atol=1e-5)


def _steps(cfg: Any, n: int, **targets: float) -> torch.Tensor:
    """Torques at the beginning of the last of n steps from rest."""
    scene, sim = build(num_envs=1, entities={"robot": entity(ARM, cfg)})
    data = scene["robot"].data
    for name, value in targets.items():
        getattr(data, name).fill_(value)
    for _ in range(n):
        scene.write_data_to_sim()
        sim.step()
    return data.qfrc_actuator[0].clone()


def test_the_integral_of_the_error_raises_the_torque():
    # The armature keeps the joints where they are.
    weak = {"stiffness": 1e-4, "damping": 0.0, "armature": 1e4}
    off = _steps(motor(**weak), 20, joint_pos_target=0.5)
    on = _steps(motor(**weak, integral_gain=10.0), 20, joint_pos_target=0.5)
    bounded = _steps(
        motor(**weak, integral_gain=10.0, integral_limit=1e-3), 20, joint_pos_target=0.5
    )
    assert bool((on > 100.0 * off.abs()).all())
    # 19 steps of 5 ms have been integrated.
    torch.testing.assert_close(on, torch.full((2,), K * 10.0 * 0.5 * 0.095 / R), rtol=0.1, atol=0.0)
    assert bool((bounded < 0.1 * on).all())


@pytest.mark.parametrize(("mode", "field"), [(0, "effort"), (1, "pos"), (2, "vel")])
def test_a_slew_rate_is_in_units_of_the_target(mode: int, field: str):
    cfg = motor(DcMotorInputMode(mode), slew_rate=10.0, armature=1e4)
    torque = _steps(cfg, 1, **{f"joint_{field}_target": 4.0})
    gain = 1.0 if mode == 0 else 5.0
    torch.testing.assert_close(torque, torch.full((2,), K * gain * 10.0 * 0.005 / R))


def test_inductance_heat_and_friction_reduce_the_torque():
    volts = {"joint_effort_target": 50.0}
    plain = _steps(motor(DcMotorInputMode.VOLTAGE), 3, **volts)
    lagging = _steps(motor(DcMotorInputMode.VOLTAGE, inductance=1.0), 3, **volts)
    assert bool((lagging < 0.1 * plain).all())
    by_time = _steps(motor(DcMotorInputMode.VOLTAGE, electrical_time_constant=1.0 / R), 3, **volts)
    torch.testing.assert_close(by_time, lagging)
    heat = (1.0, 0.1, 0.0, 0.01, 0.0, 0.0)
    assert bool((_steps(motor(DcMotorInputMode.VOLTAGE, thermal=heat), 5, **volts) < plain).all())
    rough = _steps(motor(DcMotorInputMode.VOLTAGE, lugre=(1e4, 100.0, 0.1, 0.15, 0.01)), 3, **volts)
    assert bool((rough < plain - 0.05).all())


@pytest.mark.parametrize("engine", ["mjbatch", "warp"])
def test_a_reset_clears_the_motors_state(engine: str):
    cfg = motor(integral_gain=10.0, thermal=(1.0, 0.1, 0.0, 0.01, 0.0, 0.0))
    scene, sim = build(num_envs=2, entities={"robot": entity(ARM, cfg)}, engine=engine)
    scene["robot"].data.joint_pos_target.fill_(0.5)
    for _ in range(3):
        scene.write_data_to_sim()
        sim.step()
    assert bool((sim.data.act != 0).any(dim=1).all())
    sim.reset([0])
    sim.forward()
    assert bool((sim.data.act[0] == 0).all()) and bool((sim.data.act[1] != 0).any())


@pytest.mark.parametrize("mode", [DcMotorInputMode.POSITION, DcMotorInputMode.VELOCITY])
@pytest.mark.parametrize(("operation", "kp", "kd"), [("scale", 2.0, 3.0), ("abs", 10.0, 1.2)])
def test_gains_are_randomized_per_world(mode: Any, operation: str, kp: float, kd: float):
    cfg = motor(mode)
    env = motor_env(cfg)
    some = torch.tensor([1, 3])
    dr.pd_gains(env, some, (kp, kp), (kd, kd), SceneEntityCfg("arm"), operation=operation)
    data = env.scene["arm"].data
    data.joint_pos_target.fill_(0.3)
    data.joint_vel_target.fill_(-0.4)
    env.sim.data.qvel.fill_(0.2)
    env.scene.write_data_to_sim()
    env.sim.forward()
    volts = voltage(cfg, data)
    cfg.stiffness, cfg.damping = 10.0, 1.2
    volts[some] = voltage(cfg, data)[some]
    actuator = env.scene["arm"].actuators[0]
    assert isinstance(actuator, BuiltinDcMotorActuator)
    expected = (K * (volts - K * data.joint_vel) / R)[:, actuator.target_ids]
    torch.testing.assert_close(data.actuator_force, expected, rtol=1e-4, atol=1e-5)
    assert actuator.stiffness[:, 0].tolist() == [5.0, 10.0, 5.0, 10.0]
    env.close()


def test_effort_limits_are_randomized_per_world():
    env = motor_env(motor(effort_limit=0.5))
    dr.effort_limits(env, torch.tensor([2]), (0.1, 0.1), SceneEntityCfg("arm"))
    ids = env.scene["arm"].indexing.ctrl_ids
    limits = env.sim.model.actuator_forcerange[:, ids, 1]
    torch.testing.assert_close(limits[:, 0], torch.tensor([0.5, 0.5, 0.05, 0.5]))
    env.close()


def test_gains_of_a_motor_without_a_controller_are_an_error():
    env = motor_env(motor(DcMotorInputMode.VOLTAGE))
    with pytest.raises(ValueError, match="mode VOLTAGE: they have no controller"):
        dr.pd_gains(env, None, (1.0, 1.0), (1.0, 1.0), SceneEntityCfg("arm"))
    env.close()


def motor_env(cfg: Any) -> Any:
    """An environment whose arm has these motors, with model fields per world."""
    arm = arm_cfg(articulation=EntityArticulationInfoCfg(actuators=(cfg,)))
    env = make_env(entities={"robot": robot_cfg(), "arm": arm}, actions={})
    env.sim.expand_model_fields([*dr.pd_gains.model_fields, *dr.effort_limits.model_fields])
    return env


def test_only_scaled_inputs_have_their_own_group():
    for mode, slew, direct in [(0, 0.0, True), (0, 1.0, False), (1, 1.0, True), (2, 0.0, False)]:
        scene, _, _ = drive(motor(DcMotorInputMode(mode), slew_rate=slew))
        actuator = scene["robot"].actuators[0]
        assert actuator.passes_through is direct
        assert actuator.constant_between_substeps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stiffness": 0.0}, "the mode POSITION needs positive stiffness, got"),
        ({"voltage_limit": 0.0}, "the mode POSITION needs positive voltage_limit, got"),
        ({"mode": DcMotorInputMode.VOLTAGE}, "VOLTAGE has no controller, so {'stiffness': 5.0"),
        ({"slew_rate": -1.0}, "slew_rate must not be negative, got -1.0"),
        ({"transmission_type": TransmissionType.SITE}, "does not support SITE"),
        (
            {"mode": DcMotorInputMode.VELOCITY, "integral_gain": 1.0},
            "the mode VELOCITY takes no integral_gain",
        ),
    ],
)
def test_impossible_settings_are_an_error(fields: dict[str, Any], message: str):
    values = {"stiffness": 5.0, "voltage_limit": 24.0} | fields
    with pytest.raises(ValueError, match=message):
        BuiltinDcMotorActuatorCfg(target_names_expr=JOINTS, motor_params=SHEET, **values)


def test_an_impossible_motor_is_an_error():
    with pytest.raises(ValueError, match="DcMotorPhysicalParams: {'resistance': 0.0} must be pos"):
        DcMotorPhysicalParams(kt=0.1, ke=0.1, resistance=0.0)
    # MuJoCo itself knows which of the six numbers must be given.
    message = r"BuiltinDcMotorActuatorCfg on \['shoulder', 'elbow'\]: .* capacitance must be"
    with pytest.raises(ValueError, match=message):
        entity(ARM, motor(thermal=(1.0, 0.0, 0.0, 0.01, 0.0, 0.0))).build()
