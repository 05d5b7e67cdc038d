"""MuJoCo's own sensors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from entity_worlds import ARM, DOG, build, entity, reference, scramble

from mjlab_rec.sensor import BuiltinSensor, BuiltinSensorCfg, ObjRef

HAND = ObjRef("site", "hand", "arm")


def test_added_sensors_show_what_mujoco_shows():
    sensors = (
        BuiltinSensorCfg("pos", "framepos", HAND),
        BuiltinSensorCfg("rel", "framequat", HAND, ref=ObjRef("xbody", "upper", "arm")),
        BuiltinSensorCfg("angle", "jointpos", ObjRef("joint", "elbow", "arm")),
        BuiltinSensorCfg("momentum", "subtreeangmom", ObjRef("body", "upper", "arm")),
        BuiltinSensorCfg("clipped", "framelinvel", HAND, cutoff=0.1),
        BuiltinSensorCfg("time", "clock"),
    )
    scene, sim = build(entities={"arm": entity(ARM)}, sensors=sensors)
    scramble(sim, scene)
    data = reference(sim, 2)
    for name in ("arm/pos", "arm/rel", "arm/angle", "arm/momentum", "arm/clipped", "time"):
        shown = scene[name].data
        expected = torch.tensor(data.sensor(name).data, dtype=torch.float32)
        assert shown.shape == (4, len(expected))
        torch.testing.assert_close(shown[2], expected, rtol=1e-4, atol=1e-5)
    assert scene["arm/clipped"].data.abs().max() <= 0.1 + 1e-6


def test_sensors_of_the_xml_are_there_by_name():
    scene, sim = build(entities={"dog": entity(DOG)})
    scramble(sim, scene)
    assert isinstance(scene["dog/gyro"], BuiltinSensor) and scene["dog/gyro"].cfg is None
    expected = torch.tensor(reference(sim, 1).sensor("dog/gyro").data, dtype=torch.float32)
    torch.testing.assert_close(scene["dog/gyro"].data[1], expected, rtol=1e-4, atol=1e-5)


def test_data_is_a_copy_and_always_current():
    scene, sim = build(entities={"dog": entity(DOG)})
    scramble(sim, scene)
    kept = scene["dog/gyro"].data
    copy = kept.clone()
    scramble(sim, scene, seed=5)
    assert torch.equal(kept, copy) and not torch.equal(kept, scene["dog/gyro"].data)


@pytest.mark.parametrize(
    ("sensor", "message"),
    [
        (("a", "gyroo", HAND), "unknown sensor_type 'gyroo'. Did you mean 'gyro'?"),
        (("a", "gyro"), "a gyro needs obj=ObjRef(type=...) with type site, got None."),
        (
            ("a", "jointpos", HAND),
            "a jointpos needs obj=ObjRef(type=...) with type joint, got site",
        ),
        (("a", "clock", HAND), "a clock takes no obj, but one is given."),
        (("a", "gyro", HAND, HAND), "only frame sensors take a ref, not gyro."),
    ],
)
def test_impossible_sensors_are_an_error(sensor: tuple[Any, ...], message: str):
    with pytest.raises(ValueError, match=re.escape(f"Sensor 'a': {message}")):
        BuiltinSensorCfg(*sensor)


def test_an_object_that_is_not_there_is_an_error():
    cfg = BuiltinSensorCfg("a", "framepos", ObjRef("site", "hnad", "arm"))
    message = "Sensor 'arm/a': the scene has no site 'arm/hnad'. Did you mean 'arm/hand'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        build(entities={"arm": entity(ARM)}, sensors=(cfg,))


def test_a_sensor_that_the_xml_has_too_is_an_error():
    cfg = BuiltinSensorCfg("gyro", "gyro", ObjRef("site", "imu", "dog"))
    with pytest.raises(ValueError, match="'dog/gyro' exists twice"):
        build(entities={"dog": entity(DOG)}, sensors=(cfg,))
