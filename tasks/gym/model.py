"""The models of Gymnasium's MuJoCo environments, read from the installed gymnasium package."""

from __future__ import annotations

import functools
from pathlib import Path

import gymnasium
import mujoco

from mjlab_rec.actuator import XmlActuatorCfg
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sensor import BuiltinSensorCfg, ObjRef
from mjlab_rec.sim import MujocoCfg, SimulationCfg

ROBOT = "robot"
"""Name of the entity that is everything in the file that moves."""

_NUMBERS = ("timestep", "impratio", "iterations", "tolerance")
_NUMBERS += ("ls_iterations", "ls_tolerance", "ccd_iterations")
# Fields of <option> that SimulationCfg has no setting for.
_FLUID = ("density", "viscosity", "wind")


def load(xml: str) -> mujoco.MjSpec:
    """Read a file of Gymnasium's, such as "hopper.xml"."""
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / xml
    return mujoco.MjSpec.from_file(str(path))


def scene_cfg(xml: str, contact_forces: bool = False) -> SceneCfg:
    """The file as a scene, with one entity: what moves, and its motors.

    Args:
        xml: The file.
        contact_forces: Let MuJoCo compute ``cfrc_ext``, which it does if a sensor of acceleration
            needs it. So this adds one.
    """
    torso = ObjRef("xbody", "torso", entity=ROBOT)
    sensor = BuiltinSensorCfg(name="acceleration", sensor_type="framelinacc", obj=torso)
    return SceneCfg(
        entities={
            ROBOT: EntityCfg(
                spec_fn=functools.partial(_entity_spec, xml),
                init_state=_initial_state(xml),
                articulation=EntityArticulationInfoCfg(
                    actuators=(XmlActuatorCfg(target_names_expr=tuple(motor_joints(xml))),)
                ),
            )
        },
        sensors=(sensor,) if contact_forces else (),
        spec_fn=functools.partial(_finish_scene, xml),
    )


def simulation_cfg(xml: str) -> SimulationCfg:
    """The file's <option>."""
    option = load(xml).option
    choices = {
        "integrator": mujoco.mjtIntegrator,
        "cone": mujoco.mjtCone,
        "jacobian": mujoco.mjtJacobian,
        "solver": mujoco.mjtSolver,
    }
    cfg = MujocoCfg(gravity=tuple(option.gravity))
    for name in _NUMBERS:
        setattr(cfg, name, getattr(option, name))
    for name, kind in choices.items():
        # mjINT_RK4 is "rk4".
        setattr(cfg, name, kind(getattr(option, name)).name.partition("_")[2].lower())
    return SimulationCfg(mujoco=cfg)


def motor_joints(xml: str) -> list[str]:
    """The joints that motors drive, in the order of the action."""
    return [motor.target for motor in load(xml).actuators]


def _entity_spec(xml: str) -> mujoco.MjSpec:
    """What moves in the file."""
    spec = _part(xml)
    for element in (*spec.worldbody.geoms, *spec.worldbody.lights):
        spec.delete(element)
    return spec


def _finish_scene(xml: str, scene: mujoco.MjSpec) -> None:
    """Add what only a whole model has: what is fixed to the world, the total mass and the fluid.

    The floor must not be part of the entity: on the body that carries a robot without a free joint,
    it would not touch the robot's first body.
    """
    source, fixed = load(xml), _part(xml)
    for kind in (fixed.actuators, fixed.tendons, fixed.worldbody.bodies):
        for element in list(kind):
            fixed.delete(element)
    scene.attach(fixed, prefix="", frame=scene.worldbody.add_frame())
    scene.compiler.settotalmass = source.compiler.settotalmass
    for name in _FLUID:
        setattr(scene.option, name, getattr(source.option, name))


def _part(xml: str) -> mujoco.MjSpec:
    """The file without settings of the whole scene, of which attaching it would warn."""
    spec, default = load(xml), mujoco.MjSpec()
    spec.option = default.option
    spec.visual.map.znear = default.visual.map.znear
    spec.compiler.settotalmass = default.compiler.settotalmass
    spec.nkey = default.nkey
    spec.nuser_geom = default.nuser_geom
    return spec


def _initial_state(xml: str) -> EntityCfg.InitialStateCfg:
    """Where MuJoCo starts the model."""
    model = load(xml).compile()
    joints = [model.joint(i) for i in range(model.njnt)]
    free = [joint for joint in joints if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE]
    start = EntityCfg.InitialStateCfg(
        joint_pos={j.name: float(model.qpos0[j.qposadr[0]]) for j in joints if j not in free}
    )
    for joint in free:
        x, y, z = model.qpos0[joint.qposadr[0] :][:3].tolist()
        start.pos = (x, y, z)
    return start
