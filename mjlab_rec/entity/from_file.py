"""A robot from any MJCF or URDF file."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from mjlab_rec.actuator import ActuatorCfg, TransmissionType, XmlActuatorCfg
from mjlab_rec.entity.config import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.entity.urdf import urdf_text
from mjlab_rec.utils.mujoco import CommandField, detect_command_field, qpos_width
from mjlab_rec.utils.spec import get_free_joint
from mjlab_rec.utils.string import nearest

logger = logging.getLogger(__name__)

_TRANSMISSIONS = {
    int(mujoco.mjtTrn.mjTRN_JOINT): TransmissionType.JOINT,
    int(mujoco.mjtTrn.mjTRN_JOINTINPARENT): TransmissionType.JOINT,
    int(mujoco.mjtTrn.mjTRN_TENDON): TransmissionType.TENDON,
    int(mujoco.mjtTrn.mjTRN_SITE): TransmissionType.SITE,
}
_GROUNDS = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)


def entity_from_file(
    path: str | Path,
    *,
    floating: bool | None = None,
    keyframe: str | None = None,
    keep_floor: bool = False,
    **fields: Any,
) -> EntityCfg:
    """An entity of an MJCF or URDF file, ready for ``SceneCfg.entities``.

    It starts as the file's keyframe says, or else where the file puts it, and is driven by the
    actuators of the file. Meshes, textures and included files are found as MuJoCo finds them, and
    those of a URDF also by ``package://``.

    Args:
        path: The file; one that ends in ``.urdf`` is read as URDF.
        floating: Whether the base floats. None leaves it to the file, in which robots of URDF are
            fixed.
        keyframe: Name of the keyframe to start from; None takes the first, if there is one.
        keep_floor: Keep planes and height fields that are fixed to the world; a scene has a
            terrain for that.
        fields: Any field of EntityCfg, to replace what comes from the file.
    """
    path = Path(path).expanduser().resolve()
    spec_fn = functools.partial(load_spec, path, floating, keyframe, keep_floor)
    spec = spec_fn()
    made = {
        "spec_fn": spec_fn,
        "init_state": _initial_state(spec, _compiled(spec, path)),
        "articulation": _articulation(spec),
    }
    return EntityCfg(**{**made, **fields})


def load_spec(
    path: Path, floating: bool | None, keyframe: str | None, keep_floor: bool
) -> mujoco.MjSpec:
    """Load the file and change what the arguments of ``entity_from_file`` say."""
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".xml", ".urdf"))
        raise FileNotFoundError(f"There is no file {path}. {nearest(path.name, near)}")
    try:
        if path.suffix.lower() == ".urdf":
            spec = mujoco.MjSpec.from_string(urdf_text(path))
        else:
            spec = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise ValueError(f"Cannot load {path}: {error}") from error
    if not keep_floor:
        for geom in spec.worldbody.geoms:
            if geom.type in _GROUNDS:
                spec.delete(geom)
    _choose_keyframe(spec, keyframe, path)
    if floating is not None:
        spec = _with_base(spec, floating, path)
    if spec.compiler.settotalmass > 0:
        _fix_masses(spec, path)
    # A scene has its own, and MuJoCo would warn of each difference.
    plain = mujoco.MjSpec()
    spec.visual, spec.stat = plain.visual, plain.stat
    for name in dir(spec):
        if name.startswith("nuser_") or name == "nkey":
            setattr(spec, name, getattr(plain, name))
    return spec


def _compiled(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    try:
        return spec.copy().compile()
    except ValueError as error:
        raise ValueError(f"Cannot compile {path}: {error}") from error


def _choose_keyframe(spec: mujoco.MjSpec, name: str | None, path: Path) -> None:
    """Delete all keyframes but one, because an entity takes the first one."""
    names = [key.name for key in spec.keys]
    if name is not None and name not in names:
        raise ValueError(f"{path} has no keyframe '{name}'. {nearest(name, names)}")
    kept = names.index(name) if name is not None else 0
    for i, key in enumerate(list(spec.keys)):
        if i != kept:
            spec.delete(key)


def _with_base(spec: mujoco.MjSpec, floating: bool, path: Path) -> mujoco.MjSpec:
    """Add or remove the free joint of the root."""
    free = get_free_joint(spec)
    if floating == (free is not None):
        return spec
    for key in list(spec.keys):
        spec.delete(key)  # It has seven numbers too many or too few.
    if free is not None:
        spec.delete(free)
        return spec
    roots, geoms = spec.worldbody.bodies, spec.worldbody.geoms
    if len(roots) != 1 or geoms or roots[0].joints:
        raise ValueError(
            f"{path}: floating=True needs one root body without joints, but {len(roots)} bodies "
            f"and {len(geoms)} geoms are attached to the world, and the first body has "
            f"{len(roots[0].joints) if roots else 0} joints. Put them below one body."
        )
    roots[0].add_freejoint()
    return spec


def _fix_masses(spec: mujoco.MjSpec, path: Path) -> None:
    """Write the masses that <compiler settotalmass> gives into the bodies.

    Otherwise they would be those before, once the model is a part of a scene.
    """
    model = _compiled(spec, path)
    for i, body in enumerate(spec.bodies):
        if i == 0 or model.body_mass[i] == 0:
            continue
        body.explicitinertial = True
        body.fullinertia[:] = (np.nan, 0, 0, 0, 0, 0)
        body.mass = model.body_mass[i]
        body.ipos[:], body.iquat[:] = model.body_ipos[i], model.body_iquat[i]
        body.inertia[:] = model.body_inertia[i]
    spec.compiler.settotalmass = -1
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO


def _initial_state(spec: mujoco.MjSpec, model: mujoco.MjModel) -> EntityCfg.InitialStateCfg:
    qpos = model.key_qpos[0] if model.nkey else model.qpos0
    state = EntityCfg.InitialStateCfg()
    positions: dict[str, float] = {}
    by_name = True
    for joint in range(model.njnt):
        start, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
        values = [float(x) for x in qpos[start : start + qpos_width(kind)]]
        name = model.joint(joint).name.split("/")[-1]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            x, y, z, *rot = values
            state.pos, state.rot = (x, y, z), tuple(rot)  # pyright: ignore[reportAttributeAccessIssue]
        elif kind == mujoco.mjtJoint.mjJNT_BALL or not name:
            by_name = False
        else:
            positions[re.escape(name)] = values[0]
    # Not every position can be given by a name and a number; the keyframe has all.
    state.joint_pos = positions if by_name or not spec.keys else None
    return state


def _articulation(spec: mujoco.MjSpec) -> EntityArticulationInfoCfg | None:
    """The file's actuators, those of one kind together."""
    of_target: dict[tuple[TransmissionType | None, CommandField, str], list[str]] = {}
    for actuator in spec.actuators:
        transmission = _TRANSMISSIONS.get(int(actuator.trntype))
        key = transmission, _command_field(actuator), actuator.target
        of_target.setdefault(key, []).append(actuator.name or actuator.target)
    groups: dict[tuple[TransmissionType, CommandField], list[str]] = {}
    left_out: list[str] = []
    for (transmission, field, target), names in of_target.items():
        if transmission is None or len(names) > 1:
            left_out += names
        else:
            name = target.split("/")[-1]
            groups.setdefault((transmission, field), []).append(re.escape(name))
    if left_out:
        logger.warning(
            "These actuators of the file stay in the model but follow no targets: %s. They act on "
            "something else than joints, tendons and sites, or several act on one in the same way. "
            "Write sim.data.ctrl for them.",
            ", ".join(left_out),
        )
    cfgs: list[ActuatorCfg] = [
        XmlActuatorCfg(
            target_names_expr=tuple(names),
            transmission_type=transmission,
            command_field=field,
        )
        for (transmission, field), names in groups.items()
    ]
    return EntityArticulationInfoCfg(actuators=tuple(cfgs)) if cfgs else None


def _command_field(actuator: mujoco.MjsActuator) -> CommandField:
    try:
        return detect_command_field(actuator)
    except ValueError:
        return "effort"  # Its ctrl is passed on as it is.
