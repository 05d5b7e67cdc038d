"""A floating robot and a fixed arm in one scene, for tests of the stock terms."""

from __future__ import annotations

from typing import Any

import mujoco
import torch

from mjlab_rec.actuator import (
    BuiltinMotorActuatorCfg,
    BuiltinPositionActuatorCfg,
    IdealPdActuatorCfg,
)
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    SceneEntityCfg,
)
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import MujocoCfg, SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg

ROBOT = """
<mujoco>
  <compiler angle="radian"/>
  <asset>
    <texture name="paint" type="2d" builtin="flat" width="4" height="4"/>
    <texture name="rust" type="2d" builtin="flat" width="4" height="4"/>
    <material name="skin" texture="paint" rgba="1 1 1 1"/>
    <material name="metal" rgba="1 1 1 1"/>
  </asset>
  <worldbody>
    <body name="base">
      <freejoint/>
      <geom name="trunk" type="box" size="0.2 0.1 0.05" mass="5" material="skin"/>
      <site name="imu" pos="0 0 0.1"/>
      <camera name="eye" pos="0.2 0 0"/>
      <light name="lamp" pos="0 0 1"/>
      <body name="left" pos="0 0.1 0">
        <joint name="left_hip" axis="0 1 0" range="-1 1" stiffness="2" damping="0.5"
               armature="0.02" frictionloss="0.1"/>
        <geom name="left_foot" type="capsule" fromto="0 0 0 0 0.05 -0.2" size="0.02" mass="0.5"/>
      </body>
      <body name="right" pos="0 -0.1 0">
        <joint name="right_hip" axis="0 1 0" range="-1 1" stiffness="2" damping="0.5"
               armature="0.02" frictionloss="0.1"/>
        <geom name="right_foot" type="sphere" pos="0 0 -0.2" size="0.03" mass="0.5"/>
      </body>
    </body>
  </worldbody>
  <contact>
    <pair name="feet" geom1="left_foot" geom2="right_foot" condim="6"/>
    <pair name="shin" geom1="left_foot" geom2="trunk"/>
  </contact>
  <sensor>
    <gyro name="gyro" site="imu"/>
    <framezaxis name="up" objtype="body" objname="world" reftype="site" refname="imu"/>
  </sensor>
</mujoco>
"""

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" range="-2 2" damping="1" armature="0.1"/>
      <geom name="upper_geom" type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="1"/>
      <body name="fore" pos="0.3 0 0">
        <joint name="elbow" axis="0 1 0" range="-1 1.5" damping="1" armature="0.1"/>
        <geom name="fore_geom" type="cylinder" size="0.03 0.1" mass="0.5"/>
        <body name="hand" pos="0.2 0 0">
          <joint name="wrist" type="slide" axis="1 0 0" damping="1" armature="0.1"/>
          <geom name="hand_geom" type="ellipsoid" size="0.05 0.04 0.03" mass="0.2"/>
          <site name="tip"/>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="cord" stiffness="1" damping="0.1" frictionloss="0.1">
      <joint joint="shoulder" coef="1"/>
      <joint joint="elbow" coef="-1"/>
    </fixed>
  </tendon>
</mujoco>
"""


def spec(xml: str) -> Any:
    return lambda: mujoco.MjSpec.from_string(xml)


def robot_cfg(**overrides: Any) -> EntityCfg:
    """Floating, hips driven by a PD law outside of MuJoCo."""
    cfg: dict[str, Any] = dict(
        spec_fn=spec(ROBOT),
        init_state=EntityCfg.InitialStateCfg(pos=(0.0, 0.0, 2.0), joint_pos={"left_hip": 0.2}),
        articulation=EntityArticulationInfoCfg(
            actuators=(
                IdealPdActuatorCfg(
                    target_names_expr=(".*_hip",), stiffness=20.0, damping=1.0, effort_limit=5.0
                ),
            )
        ),
    )
    return EntityCfg(**{**cfg, **overrides})


def arm_cfg(**overrides: Any) -> EntityCfg:
    """Fixed, with position servos on two joints and a motor on the third."""
    cfg: dict[str, Any] = dict(
        spec_fn=spec(ARM),
        init_state=EntityCfg.InitialStateCfg(
            joint_pos={"shoulder": 0.3, "elbow": -0.4}, joint_vel={"wrist": 0.1}
        ),
        articulation=EntityArticulationInfoCfg(
            actuators=(
                BuiltinPositionActuatorCfg(
                    target_names_expr=("shoulder", "elbow"),
                    stiffness=50.0,
                    damping=2.0,
                    effort_limit=10.0,
                ),
                BuiltinMotorActuatorCfg(target_names_expr=("wrist",), effort_limit=3.0),
            ),
            soft_joint_pos_limit_factor=0.5,
        ),
    )
    return EntityCfg(**{**cfg, **overrides})


def make_env(
    num_envs: int = 4,
    entities: dict[str, EntityCfg] | None = None,
    events: dict[str, EventTermCfg] | None = None,
    **cfg: Any,
) -> ManagerBasedRlEnv:
    """An environment that is reset to its defaults, with whatever terms the test is about."""
    entities = entities or {"robot": robot_cfg(), "arm": arm_cfg()}
    start = {"start": EventTermCfg(func=mdp.reset_scene_to_default, mode="reset")}
    joints = ObservationTermCfg(
        func=mdp.joint_pos, params={"asset_cfg": SceneEntityCfg(next(iter(entities)))}
    )
    settings: dict[str, Any] = dict(
        decimation=2,
        seed=3,
        episode_length_s=10.0,
        scene=SceneCfg(
            num_envs=num_envs,
            env_spacing=2.0,
            terrain=TerrainEntityCfg(terrain_type="plane"),
            entities=entities,
        ),
        sim=SimulationCfg(engine="mjbatch", mujoco=MujocoCfg(timestep=0.005)),
        observations={"actor": ObservationGroupCfg({"pos": joints})},
        events={**start, **(events or {})},
    )
    env = ManagerBasedRlEnv(ManagerBasedRlEnvCfg(**{**settings, **cfg}))
    env.reset()
    return env


def chosen(env: ManagerBasedRlEnv, name: str, **names: Any) -> SceneEntityCfg:
    """A resolved selection, as managers hand it to terms."""
    cfg = SceneEntityCfg(name, **names)
    cfg.resolve(env.scene)
    return cfg


def ids(env: ManagerBasedRlEnv, name: str, kind: str, *patterns: str) -> list[int]:
    """Model indices of parts of an entity, found by MuJoCo's own names."""
    model, found = env.sim.mj_model, []
    count = getattr(model, {"joint": "njnt", "tendon": "ntendon"}.get(kind, f"n{kind}"))
    for i in range(count):
        if getattr(model, kind)(i).name in [f"{name}/{p}" for p in patterns]:
            found.append(i)
    assert len(found) == len(patterns)
    return found


def scramble(env: ManagerBasedRlEnv, seed: int = 0) -> None:
    """Put every world into a random state and bring derived quantities up to date."""
    generator = torch.Generator().manual_seed(seed)
    qpos, qvel = env.sim.data.qpos, env.sim.data.qvel
    qpos += 0.3 * torch.randn(qpos.shape, generator=generator)
    for entity in env.scene.entities.values():
        quat = entity.indexing.free_joint_q_adr[3:7]
        if len(quat):
            qpos[:, quat] = torch.nn.functional.normalize(qpos[:, quat], dim=-1)
    qvel += torch.randn(qvel.shape, generator=generator)
    env.sim.forward()
    env.scene.invalidate()


def reference(env: ManagerBasedRlEnv, world: int) -> mujoco.MjData:
    """The same state in plain MuJoCo, with all derived quantities."""
    data = mujoco.MjData(env.sim.mj_model)
    state = env.sim.get_state()[world].double().cpu().numpy()
    mujoco.mj_setState(env.sim.mj_model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(env.sim.mj_model, data)
    return data
