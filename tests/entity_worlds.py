"""A fixed arm and a floating four-legged robot, alone or in one scene."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.scene import Scene, SceneCfg
from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" range="-2 2" damping="0.5"/>
      <geom name="upper" type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="1"/>
      <body name="fore" pos="0.3 0 0">
        <joint name="elbow" axis="0 1 0" damping="0.5"/>
        <geom name="fore" type="capsule" fromto="0 0 0 0.3 0 0.1" size="0.03" mass="0.5"/>
        <site name="hand" pos="0.3 0 0.1" euler="0.3 0.2 0.1"/>
        <camera name="eye" pos="0.3 0 0.2"/>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="cord"><joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/></fixed>
  </tendon>
</mujoco>
"""

_LEG = """
      <body name="{0}_thigh" pos="{1} {2} 0">
        <joint name="{0}_hip" axis="0 1 0" range="-1.2 1.2" damping="0.2" armature="0.01"/>
        <geom name="{0}_thigh" type="capsule" fromto="0 0 0 0.02 0 -0.15" size="0.02" mass="0.3"/>
        <body name="{0}_shank" pos="0.02 0 -0.15">
          <joint name="{0}_knee" axis="0 1 0" damping="0.2" armature="0.01"/>
          <geom name="{0}_foot" type="sphere" pos="0 0 -0.15" size="0.03" mass="0.1"/>
        </body>
      </body>"""

DOG = f"""
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="trunk">
      <freejoint/>
      <geom name="trunk" type="box" size="0.2 0.1 0.05" pos="0.03 0.01 0.02" mass="4"/>
      <site name="imu" pos="0.1 0 0.05" euler="0.1 0.2 0.3"/>
      {_LEG.format("fl", 0.2, 0.1)}
      {_LEG.format("fr", 0.2, -0.1)}
      {_LEG.format("rl", -0.2, 0.1)}
      {_LEG.format("rr", -0.2, -0.1)}
    </body>
  </worldbody>
  <sensor>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="acc" site="imu"/>
  </sensor>
</mujoco>
"""


def entity(xml: str, *actuators: Any, soft: float = 1.0, **fields: Any) -> EntityCfg:
    """An entity of the given model, driven by the given actuators."""
    if actuators:
        fields["articulation"] = EntityArticulationInfoCfg(
            actuators=actuators, soft_joint_pos_limit_factor=soft
        )
    return EntityCfg(spec_fn=lambda: mujoco.MjSpec.from_string(xml), **fields)


def build(
    num_envs: int = 4,
    generator: torch.Generator | None = None,
    engine: Any = "mjbatch",
    device: str = "cpu",
    **cfg: Any,
) -> tuple[Scene, Simulation]:
    """A scene, compiled, simulated and connected; keyword arguments are those of SceneCfg."""
    scene = Scene(SceneCfg(num_envs=num_envs, **cfg), device=device)
    options = SimulationCfg(engine=engine, mujoco=MujocoCfg(timestep=0.005))
    sim = Simulation(num_envs=num_envs, cfg=options, model=scene.compile(), device=device)
    scene.initialize(sim.mj_model, sim.model, sim.data, generator=generator)
    return scene, sim


def scramble(sim: Simulation, scene: Scene, seed: int = 0) -> None:
    """Put every world into a random state, and compute what derives from it."""
    generator = torch.Generator().manual_seed(seed)
    sim.data.qpos.add_(0.5 * torch.randn(sim.data.qpos.shape, generator=generator))
    sim.data.qvel.add_(torch.randn(sim.data.qvel.shape, generator=generator))
    for robot in scene.entities.values():
        quat = robot.indexing.free_joint_q_adr[3:7]
        if len(quat):
            sim.data.qpos[:, quat] = torch.nn.functional.normalize(sim.data.qpos[:, quat], dim=-1)
    sim.forward()


def reference(sim: Simulation, world: int) -> mujoco.MjData:
    """The same state in plain MuJoCo."""
    data = mujoco.MjData(sim.mj_model)
    state = sim.get_state()[world].double().cpu().numpy()
    mujoco.mj_setState(sim.mj_model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(sim.mj_model, data)
    return data


def object_velocity(sim: Simulation, world: int, kind: mujoco.mjtObj, index: int) -> np.ndarray:
    """Linear, then angular, velocity of an object in the world frame, by MuJoCo itself."""
    data, twist = reference(sim, world), np.zeros(6)
    mujoco.mj_objectVelocity(sim.mj_model, data, kind, index, twist, 0)
    return np.concatenate((twist[3:], twist[:3]))
