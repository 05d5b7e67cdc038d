"""A small room with cameras, for tests of camera sensors."""

from __future__ import annotations

from typing import Any

import mujoco

from mjlab_rec.entity import EntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sensor import CameraSensorCfg
from mjlab_rec.sim import Simulation, SimulationCfg

# Looked at from straight above: a floor at 0, a ball of radius 0.5 at (-1, 0, 1), a box whose upper
# side is at 0.6 at (1, 0), and one that only group 3 shows.
ROOM = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" rgba="0 0 1 1"/>
    <geom name="box" type="box" size="0.5 0.5 0.3" pos="1 0 0.3" rgba="0 1 0 1"/>
    <geom name="hidden" type="box" size="0.5 0.5 0.5" pos="0 2 0.5" rgba="1 1 1 1" group="3"/>
    <camera name="above" pos="0 0 4" fovy="60"/>
    <body name="ball" pos="-1 0 1">
      <freejoint/>
      <geom name="ball" type="sphere" size="0.5" rgba="1 0 0 1"/>
      <camera name="front" pos="0 0 2"/>
    </body>
  </worldbody>
</mujoco>
"""
DOWN: dict[str, Any] = dict(camera_name="room/above", width=40, height=30)
ALL = ("rgb", "depth", "segmentation")


def down(name: str = "eye", **fields: Any) -> CameraSensorCfg:
    """A sensor that looks at the room from above."""
    return CameraSensorCfg(name, **(DOWN | dict(data_types=ALL) | fields))


def room_cfg(*sensors: CameraSensorCfg, num_envs: int = 2, xml: str = ROOM) -> SceneCfg:
    """The room with sensors."""
    entity = EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(xml))
    return SceneCfg(
        num_envs=num_envs, entities={"room": entity}, sensors=sensors, spec_fn=_light_evenly
    )


def _light_evenly(spec: mujoco.MjSpec) -> None:
    """Show geoms in exactly their colours."""
    spec.visual.headlight.ambient = (1.0, 1.0, 1.0)
    spec.visual.headlight.diffuse = spec.visual.headlight.specular = (0.0, 0.0, 0.0)


def make_room(
    *sensors: CameraSensorCfg, engine: str = "mjbatch", num_envs: int = 2, xml: str = ROOM
) -> tuple[Any, Simulation]:
    """The room and its simulation, whose derived quantities are up to date."""
    scene = Scene(room_cfg(*sensors, num_envs=num_envs, xml=xml))
    sim = Simulation(num_envs, SimulationCfg(engine=engine), scene.compile())
    scene.initialize(sim.mj_model, sim.model, sim.data)
    if scene.sensor_context is not None:
        sim.set_sensor_context(scene.sensor_context)
    sim.data.qpos[:] = sim.data.qpos  # Bound before the forward pass.
    refresh(scene, sim)
    return scene, sim


def refresh(scene: Any, sim: Simulation) -> None:
    """Update derived quantities, as an environment does after its last physics step."""
    sim.forward()
    scene.invalidate()
    sim.sense()
