"""When ray and camera sensors are computed, shown by a sensor that measures a height."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import pytest
import torch

from mjlab_rec.entity import EntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sensor import ContextSensor, Sensor, SensorCfg
from mjlab_rec.sim import Simulation, SimulationCfg

BALL_XML = """
<mujoco>
  <worldbody>
    <body name="ball" pos="0 0 1">
      <freejoint/>
      <geom size="0.1"/>
    </body>
  </worldbody>
</mujoco>
"""
DT = 0.002


@dataclass
class Heights:
    height: torch.Tensor
    names: str = "ball"


@dataclass
class HeightSensorCfg(SensorCfg):
    update_period: float = 0.0

    def build(self):
        return HeightSensor(self.name, self.update_period)


class HeightSensor(ContextSensor[Heights]):
    """Measures the height of the ball, and keeps which worlds it was asked for."""

    def edit_spec(self, scene_spec, entities):
        pass

    def initialize(self, mj_model, model, data, device):
        super().initialize(mj_model, model, data, device)
        self.sim_data = data
        self.asked = []

    def _measure(self, worlds):
        self.asked.append(None if worlds is None else worlds.tolist())
        height = self.sim_data.xpos[:, 1, 2].clone()
        if worlds is not None:
            height[~worlds] = torch.nan  # must not be used
        return Heights(height)


class Bench:
    """A scene with one such sensor, stepped as mjlab's tests do."""

    def __init__(self, period: float = 0.0, num_envs: int = 2) -> None:
        cfg = SceneCfg(
            num_envs=num_envs,
            entities={"ball": EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(BALL_XML))},
            sensors=(HeightSensorCfg("height", update_period=period),),
        )
        self.scene = Scene(cfg, "cpu")
        model = self.scene.compile()
        self.sim = Simulation(num_envs, SimulationCfg(engine="mjbatch"), model)
        self.scene.initialize(self.sim.mj_model, self.sim.model, self.sim.data)
        self.sim.set_sensor_context(self.scene.sensor_context)
        self.sensor = self.scene["height"]

    def step(self, heights=None) -> None:
        self.sim.step()
        if heights is not None:
            self.sim.data.qpos[:, 2] = torch.as_tensor(heights)
        self.sim.forward()
        self.scene.update(DT)
        self.sim.sense()

    def reset(self, ids) -> None:
        self.sim.reset(torch.tensor(ids))
        self.scene.reset(torch.tensor(ids))
        self.sim.forward()
        self.sim.sense()

    def read(self) -> list[float]:
        return [round(value, 4) for value in self.sensor.data.height.tolist()]


def test_scene_without_such_sensors_has_no_context():
    scene = Scene(SceneCfg(), "cpu")
    sim = Simulation(1, SimulationCfg(engine="mjbatch"), scene.compile())
    scene.initialize(sim.mj_model, sim.model, sim.data)
    assert scene.sensor_context is None
    sim.sense()


def test_context_knows_what_its_sensors_do():
    context = Bench().scene.sensor_context
    assert (context.has_raycasts, context.has_cameras) == (True, False)
    assert [s.name for s in context.raycast_sensors] == ["height"]
    assert context.camera_sensors == []


def test_unread_sensor_is_never_computed():
    bench = Bench()
    for _ in range(5):
        bench.step()
    assert bench.sensor.asked == []


def test_reading_again_returns_the_same_object():
    bench = Bench()
    bench.step()
    assert bench.sensor.data is bench.sensor.data
    assert bench.sensor.asked == [None]


@pytest.mark.parametrize("event", ["sense", "update", "invalidate", "reset", "sensor.update"])
def test_it_is_computed_again_after(event):
    bench = Bench()
    before = bench.sensor.data
    bench.sim.data.qpos[:, 2] = 7.0
    bench.sim.forward()
    assert bench.sensor.data is before
    {
        "sense": lambda: bench.sim.sense(),
        "update": lambda: bench.scene.update(DT),
        "invalidate": lambda: bench.scene.invalidate(),
        "reset": lambda: bench.scene.reset(),
        "sensor.update": lambda: bench.sensor.update(DT),
    }[event]()
    assert bench.read() == [7.0, 7.0]
    assert before.height.tolist() == [1.0, 1.0]


def test_context_counts_moments():
    bench = Bench()
    context = bench.scene.sensor_context
    moments = [context.moment]
    for change in (bench.sim.sense, bench.scene.invalidate, bench.scene.reset):
        change()
        moments.append(context.moment)
    assert moments == sorted(set(moments))


def test_sample_is_held_for_the_period():
    bench = Bench(period=3 * DT)
    bench.read()
    seen = []
    for step in range(1, 8):
        bench.step([step, 10 + step])
        seen.append(bench.read())
    held = [[1.0, 1.0]] * 2 + [[3.0, 13.0]] * 3 + [[6.0, 16.0]] * 2
    assert seen == held


def test_held_sample_is_not_computed_between():
    bench = Bench(period=3 * DT)
    bench.read()
    for _ in range(6):
        bench.step()
        bench.read()
    assert bench.sensor.asked == [None, [True, True], [True, True]]


def test_partial_reset_samples_only_that_world():
    bench = Bench(period=3 * DT)
    bench.read()
    bench.step([5, 5])
    bench.step([6, 6])
    bench.sim.data.qpos[1, 2] = 8.0
    bench.reset([0])
    assert bench.read() == [1.0, 1.0]  # world 0 sampled again, world 1 still its first sample
    assert bench.sensor.asked[1:] == [[True, False]]
    bench.step([2, 12])
    assert bench.read() == [1.0, 12.0]  # a period of world 1 has ended
    for height in (3, 4):
        bench.step([height, 10 + height])
    assert bench.read() == [4.0, 12.0]


def test_sample_follows_later_changes_within_its_step():
    bench = Bench(period=3 * DT)
    bench.read()
    for _ in range(3):
        bench.step([2, 2])
    assert bench.read() == [2.0, 2.0]
    bench.sim.data.qpos[:, 2] = 9.0  # as a reset event does, before the forward pass
    bench.sim.forward()
    bench.sim.sense()
    assert bench.read() == [9.0, 9.0]


def test_unread_sensor_with_a_period_is_never_computed():
    bench = Bench(period=3 * DT)
    for _ in range(5):
        bench.step()
    assert bench.sensor.asked == []


def test_reset_before_sense_does_not_lose_the_new_sample():
    bench = Bench(period=100 * DT)
    bench.read()
    bench.sim.data.qpos[:, 2] = 4.0
    bench.scene.reset(torch.tensor([1]))
    bench.scene.update(DT)
    bench.sim.forward()
    bench.sim.sense()
    assert bench.read() == [1.0, 4.0]


def test_sensors_learn_of_expanded_model_fields():
    bench = Bench()
    told = []
    bench.sensor.model_changed = told.append
    before = bench.sensor.data
    bench.sim.expand_model_fields(["geom_pos"])
    bench.sim.expand_model_fields(["geom_pos", "cam_fovy"])
    assert told == [{"geom_pos"}, {"geom_pos", "cam_fovy"}]
    assert bench.sensor.data is not before


def test_reading_before_initialize_says_so():
    with pytest.raises(RuntimeError, match="'height' has no data yet. Call scene.initialize"):
        _ = HeightSensor("height").data


def test_context_without_simulation_says_so():
    context = Bench().scene.sensor_context
    context._sim = None
    with pytest.raises(RuntimeError, match="sensors 'height' are not connected.*set_sensor_cont"):
        _ = context.sim


def test_negative_period_is_refused():
    with pytest.raises(ValueError, match="'height': update_period must be 0 .* got -1"):
        HeightSensor("height", -1)


def test_class_that_only_sets_the_flag_is_refused():
    class Plain(Sensor[int]):
        requires_sensor_context = True

        def edit_spec(self, scene_spec, entities):
            pass

        def initialize(self, mj_model, model, data, device):
            pass

        def _compute_data(self):
            return 0

    @dataclass
    class PlainCfg(SensorCfg):
        def build(self):
            return Plain()

    scene = Scene(SceneCfg(sensors=(PlainCfg("plain"),)), "cpu")
    sim = Simulation(1, SimulationCfg(engine="mjbatch"), scene.compile())
    with pytest.raises(TypeError, match="Plain sets requires_sensor_context, but does not derive"):
        scene.initialize(sim.mj_model, sim.model, sim.data)
