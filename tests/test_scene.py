"""The scene: putting entities together, finding them, and what a step must do."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from dataclasses import dataclass
from typing import Any

import mujoco
import pytest
import torch
from entity_worlds import ARM, DOG, build, entity

from mjlab_rec.actuator import BuiltinPositionActuatorCfg, IdealPdActuatorCfg
from mjlab_rec.entity import Entity, EntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sensor import (
    BuiltinSensorCfg,
    ContactMatch,
    ContactSensorCfg,
    ObjRef,
    Sensor,
    SensorCfg,
)
from mjlab_rec.terrains import TerrainEntityCfg

SERVOS = BuiltinPositionActuatorCfg(target_names_expr=(".*",), stiffness=9.0, damping=1.0)


def test_the_config_can_be_given_by_name():
    assert Scene(scene_cfg=SceneCfg(num_envs=3), device="cpu").num_envs == 3


def test_no_worlds_is_an_error():
    for count in (0, -3):
        with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {count}"):
            Scene(SceneCfg(num_envs=count), device="cpu")


def test_entities_and_sensors_are_found_by_name():
    scene, _ = build(num_envs=1, entities={"arm": entity(ARM), "dog": entity(DOG)})
    assert scene["arm"] is scene.entities["arm"] and "dog/gyro" in scene.sensors
    assert "dog/gyro" in scene and "cat" not in scene
    message = "The scene has no 'dgo'. Did you mean 'dog'? Known: arm, dog, dog/gyro, dog/acc."
    with pytest.raises(KeyError, match=re.escape(message)):
        scene["dgo"]


def test_without_terrain_all_origins_are_zero():
    scene, _ = build(num_envs=3, entities={"arm": entity(ARM)})
    assert scene.terrain is None and torch.equal(scene.env_origins, torch.zeros(3, 3))


def test_names_that_clash_or_cannot_be_are_an_error():
    with pytest.raises(ValueError, match="'terrain' is taken"):
        build(terrain=TerrainEntityCfg(), entities={"terrain": entity(ARM)})
    with pytest.raises(ValueError, match="must not be empty or contain '/'"):
        build(entities={"a/b": entity(ARM)})
    clock = BuiltinSensorCfg("arm", "clock")
    with pytest.raises(ValueError, match="Sensor 'arm': the scene already has"):
        build(entities={"arm": entity(ARM)}, sensors=(clock,))


def test_an_error_in_an_entity_names_it():
    with pytest.raises(ValueError, match="^Entity 'dog': BuiltinPositionActuatorCfg: .* 'wheel'"):
        wheels = BuiltinPositionActuatorCfg(
            target_names_expr=("wheel",), stiffness=1.0, damping=1.0
        )
        build(entities={"dog": entity(DOG, wheels)})


@pytest.mark.parametrize("xml", [ARM, DOG])
def test_a_floor_in_a_robots_model_is_warned_of(xml: str, caplog: pytest.LogCaptureFixture):
    floor = '<geom name="ground" type="plane" size="1 1 1"/>'
    with_floor = xml.replace("<worldbody>", f"<worldbody>{floor}")
    for_show = floor.replace("/>", ' contype="0" conaffinity="0"/>')
    with caplog.at_level(logging.WARNING):
        build(terrain=TerrainEntityCfg(), entities={"robot": entity(xml)})
        build(terrain=None, entities={"robot": entity(with_floor)})
        shown = xml.replace("<worldbody>", f"<worldbody>{for_show}")
        build(terrain=TerrainEntityCfg(), entities={"robot": entity(shown)})
        assert not caplog.messages
        build(terrain=TerrainEntityCfg(), entities={"robot": entity(with_floor)})
    (message,) = caplog.messages
    assert "Entity 'robot': its model has a floor of its own (ground)" in message


@pytest.mark.parametrize("xml", [ARM, DOG])
def test_options_that_get_lost_are_warned_of_once(xml: str, caplog: pytest.LogCaptureFixture):
    xml = xml.replace("<worldbody>", '<option timestep="0.01" gravity="0 0 -3"/><worldbody>')
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        build(entities={"robot": entity(xml)})
    message = (
        "Entity 'robot': its model's <option> gravity, timestep has no effect in a scene. Set it "
        "in SimulationCfg.mujoco (MujocoCfg)."
    )
    assert caplog.messages == [message]


def test_the_models_keyframe_holds_every_entitys_start():
    start = EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 2.0), joint_pos={".*_hip": 0.5})
    arm = entity(ARM, SERVOS, init_state=EntityCfg.InitialStateCfg(joint_pos={"elbow": -0.3}))
    hips = IdealPdActuatorCfg(target_names_expr=(".*_hip",), stiffness=1.0, damping=1.0)
    scene, sim = build(entities={"arm": arm, "dog": entity(DOG, hips, init_state=start)})
    key = sim.mj_model.key("init_state")
    assert key.qpos.tolist() == [0, -0.3, 0, 0, 2, 1, 0, 0, 0, *[0.5, 0.0] * 4]
    # Servos hold their joints; a motor's control is a force, not a position.
    assert key.ctrl.tolist() == [0.0, -0.3, 0, 0, 0, 0]
    assert sim.mj_model.nkey == 1


def test_spec_fn_has_the_last_word():
    def add_box(spec: mujoco.MjSpec) -> None:
        assert spec.body("arm/fore") is not None
        spec.worldbody.add_geom(name="extra", size=[0.1, 0.1, 0.1])

    _, sim = build(entities={"arm": entity(ARM)}, spec_fn=add_box, extent=7.0)
    assert sim.mj_model.geom("extra").id >= 0 and sim.mj_model.stat.extent == 7.0


def test_two_scenes_of_one_config_share_nothing():
    cfg = SceneCfg(
        num_envs=2,
        entities={"arm": entity(ARM, SERVOS)},
        terrain=TerrainEntityCfg(),
        sensors=(BuiltinSensorCfg("hand", "framepos", ObjRef("site", "hand", "arm")),),
    )
    shown = {f: copy.copy(getattr(cfg, f)) for f in ("entities", "terrain", "sensors")}
    fields = {k: v for k, v in vars(cfg).items() if k != "num_envs"}
    first, sim1 = build(num_envs=2, **fields)
    second, sim2 = build(num_envs=3, **fields)
    first["arm"].set_joint_position_target(torch.ones(2, 2))
    first.write_data_to_sim()
    second.write_data_to_sim()
    assert sim1.data.ctrl.all() and not sim2.data.ctrl.any()
    assert {f: getattr(cfg, f) for f in shown} == shown


class _StepCounter(Sensor[int]):
    """A user's sensor that counts physics steps."""

    def __init__(self) -> None:
        self.steps, self.dropped = 0, 0

    def edit_spec(self, scene_spec: Any, entities: Any) -> None:
        pass

    def initialize(self, mj_model: Any, model: Any, data: Any, device: str) -> None:
        pass

    def _compute_data(self) -> int:
        return self.steps

    def update(self, dt: float) -> None:
        self.steps += 1

    def invalidate(self) -> None:
        self.dropped += 1


@dataclass
class _StepCounterCfg(SensorCfg):
    def build(self) -> _StepCounter:
        return _StepCounter()


class _Writer(Entity):
    """A user's entity that does something in every physics step."""

    def write_data_to_sim(self) -> None:
        super().write_data_to_sim()


class _WriterCfg(EntityCfg):
    def build(self) -> Entity:
        return _Writer(self)


def test_substeps_are_needed_only_if_something_happens_in_them():
    touch = ContactMatch("geom", ".*_foot", "dog")

    def needs(*actuators: Any, sensors: tuple[Any, ...] = (), robot: Any = None) -> bool:
        entities = {"dog": robot or entity(DOG, *actuators)}
        return Scene(SceneCfg(entities=entities, sensors=sensors), "cpu").needs_substeps

    gains: dict[str, Any] = dict(target_names_expr=(".*",), stiffness=1.0, damping=1.0)
    assert not needs() and not needs(SERVOS)
    assert not needs(SERVOS, sensors=(ContactSensorCfg("feet", touch),))
    assert needs(BuiltinPositionActuatorCfg(**gains, delay_max_lag=2))
    assert needs(IdealPdActuatorCfg(**gains))
    assert needs(SERVOS, sensors=(_StepCounterCfg("steps"),))
    assert needs(SERVOS, sensors=(ContactSensorCfg("feet", touch, track_air_time=True),))
    assert needs(SERVOS, sensors=(ContactSensorCfg("feet", touch, history_length=2),))
    assert needs(robot=_WriterCfg(spec_fn=lambda: mujoco.MjSpec.from_string(DOG)))


def test_without_need_for_substeps_one_write_gives_the_same_bits():
    outcomes = []
    for many in (True, False):
        scene, sim = build(entities={"dog": entity(DOG, SERVOS)}, terrain=TerrainEntityCfg())
        assert not scene.needs_substeps
        for step in range(10):
            scene["dog"].set_joint_position_target(torch.full((4, 8), 0.1 * step))
            for _ in range(4 if many else 1):
                scene.write_data_to_sim()
                sim.step(1 if many else 4)
        outcomes.append(sim.get_state())
    assert torch.equal(*outcomes)


def test_sensors_hear_of_steps_resets_and_changes():
    scene, _ = build(entities={"dog": entity(DOG)}, sensors=(_StepCounterCfg("steps"),))
    sensor = scene["steps"]
    scene.update(0.01)
    scene.update(0.01)
    scene.reset()
    scene.invalidate()
    assert (sensor.data, sensor.dropped) == (2, 4)
