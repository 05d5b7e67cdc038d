"""MuJoCo's own actuators, whose ctrl is a target: position, velocity, motor, PD and muscle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import mujoco

from mjlab_rec.actuator.actuator import ActuatorCfg, TransmissionType
from mjlab_rec.actuator.builtin_dc_motor import BuiltinDcMotorActuator as BuiltinDcMotorActuator
from mjlab_rec.actuator.builtin_dc_motor import (
    BuiltinDcMotorActuatorCfg as BuiltinDcMotorActuatorCfg,
)
from mjlab_rec.actuator.builtin_dc_motor import DcMotorDatasheetParams as DcMotorDatasheetParams
from mjlab_rec.actuator.builtin_dc_motor import DcMotorInputMode as DcMotorInputMode
from mjlab_rec.actuator.builtin_dc_motor import DcMotorPhysicalParams as DcMotorPhysicalParams
from mjlab_rec.actuator.pass_through import PassThroughActuator as PassThroughActuator
from mjlab_rec.utils.spec import (
    create_motor_actuator,
    create_muscle_actuator,
    create_position_actuator,
    create_velocity_actuator,
)

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

_COMMON_FIELDS = {field.name for field in fields(ActuatorCfg)}


@dataclass(kw_only=True)
class BuiltinPositionActuatorCfg(ActuatorCfg):
    """A <position> per target: force = stiffness (target - q) - damping v, limited."""

    on_sites = False

    stiffness: float
    """Proportional gain."""

    damping: float
    """Gain on the velocity."""

    effort_limit: float | None = None
    """Greatest force or torque; None means no limit."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinPositionActuator:
        """Make the actuator."""
        return BuiltinPositionActuator(self, entity, target_ids, target_names)


class BuiltinPositionActuator(PassThroughActuator[BuiltinPositionActuatorCfg]):
    """Follows position targets with MuJoCo's <position>."""

    command_fields = ("position",)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <position> per target."""
        cfg = self.cfg
        self._add_each(
            spec,
            target_names,
            create_position_actuator,
            stiffness=cfg.stiffness,
            damping=cfg.damping,
            effort_limit=cfg.effort_limit,
        )


@dataclass(kw_only=True)
class BuiltinVelocityActuatorCfg(ActuatorCfg):
    """A <velocity> per target: force = damping (target - v), limited."""

    on_sites = False

    damping: float
    """Gain on the velocity error."""

    effort_limit: float | None = None
    """Greatest force or torque; None means no limit."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinVelocityActuator:
        """Make the actuator."""
        return BuiltinVelocityActuator(self, entity, target_ids, target_names)


class BuiltinVelocityActuator(PassThroughActuator[BuiltinVelocityActuatorCfg]):
    """Follows velocity targets with MuJoCo's <velocity>."""

    command_fields = ("velocity",)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <velocity> per target."""
        cfg = self.cfg
        self._add_each(
            spec,
            target_names,
            create_velocity_actuator,
            damping=cfg.damping,
            effort_limit=cfg.effort_limit,
        )


@dataclass(kw_only=True)
class BuiltinMotorActuatorCfg(ActuatorCfg):
    """A <motor> per target, which applies the effort target times the gear."""

    effort_limit: float
    """Greatest effort, before the gear."""

    gear: float = 1.0
    """Gear ratio."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinMotorActuator:
        """Make the actuator."""
        return BuiltinMotorActuator(self, entity, target_ids, target_names)


class BuiltinMotorActuator(PassThroughActuator[BuiltinMotorActuatorCfg]):
    """Applies effort targets with MuJoCo's <motor>."""

    command_fields = ("effort",)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <motor> per target."""
        cfg = self.cfg
        self._add_each(
            spec, target_names, create_motor_actuator, effort_limit=cfg.effort_limit, gear=cfg.gear
        )


@dataclass(kw_only=True)
class BuiltinPdActuatorCfg(ActuatorCfg):
    """A PD law on position and velocity targets, computed inside MuJoCo.

    The law is that of IdealPdActuatorCfg. MuJoCo knows the gains, so its implicit integrators stay
    stable where the same law, computed outside the integrator, would diverge.
    """

    on_sites = False

    stiffness: float
    """Proportional gain."""

    damping: float
    """Derivative gain."""

    effort_limit: float | None = None
    """Greatest sum of all actuator forces on the joint or tendon; None means no limit."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinPdActuator:
        """Make the actuator."""
        return BuiltinPdActuator(self, entity, target_ids, target_names)


class BuiltinPdActuator(PassThroughActuator[BuiltinPdActuatorCfg]):
    """A <position> and a <velocity> on each target; ctrl has all positions, then all velocities."""

    command_fields = ("position", "velocity")

    def __init__(
        self,
        cfg: BuiltinPdActuatorCfg,
        entity: Entity,
        target_ids: list[int],
        target_names: list[str],
    ) -> None:
        super().__init__(cfg, entity, target_ids, target_names)
        self._servos: tuple[list[mujoco.MjsActuator], list[mujoco.MjsActuator]] = ([], [])

    @property
    def num_targets(self) -> int:
        """Number of targets, which is half the number of controls."""
        return len(self._target_names)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a pair per target, and limit the sum of their forces."""
        kind = self.cfg.transmission_type
        for name in target_names:
            servo = create_position_actuator(
                spec,
                name,
                actuator_name=f"{name}_pd_pos",
                stiffness=self.cfg.stiffness,
                damping=0.0,
                armature=self.cfg.armature,
                frictionloss=self.cfg.frictionloss,
                viscous_damping=self.cfg.viscous_damping,
                transmission_type=kind,
            )
            self._servos[0].append(servo)
        for name in target_names:
            servo = create_velocity_actuator(
                spec,
                name,
                actuator_name=f"{name}_pd_vel",
                damping=self.cfg.damping,
                transmission_type=kind,
            )
            self._servos[1].append(servo)
            limit = self.cfg.effort_limit
            if limit is not None:
                is_joint = kind == TransmissionType.JOINT
                target = spec.joint(name) if is_joint else spec.tendon(name)
                target.actfrclimited = mujoco.mjtLimited.mjLIMITED_TRUE
                target.actfrcrange[:] = (-limit, limit)
        # Called once per target if the entity sorts its actuators: keep the two blocks apart.
        self._mjs_actuators = [*self._servos[0], *self._servos[1]]


@dataclass(kw_only=True)
class BuiltinMuscleActuatorCfg(ActuatorCfg):
    """A <muscle> per target; the effort target, between 0 and 1, is its excitation."""

    on_sites = False

    length_range: tuple[float, float] = (0.0, 0.0)
    """Range of the actuator's length; zeros let MuJoCo compute it."""

    gear: float = 1.0
    """Gear ratio."""

    timeconst: tuple[float, float] = (0.01, 0.04)
    """Time constants of activation and deactivation, in seconds."""

    tausmooth: float = 0.0
    """Width of the smooth transition between the two time constants."""

    range: tuple[float, float] = (0.75, 1.05)
    """Range of lengths, in units of the optimal length."""

    force: float = -1.0
    """Peak force at rest; a negative value derives it from `scale`."""

    scale: float = 200.0
    """Factor that turns the inverse of the actuator's acceleration into its peak force."""

    lmin: float = 0.5
    """Shortest length at which there is force, in optimal lengths."""

    lmax: float = 1.6
    """Longest length at which there is active force, in optimal lengths."""

    vmax: float = 1.5
    """Shortening speed at which the force is zero, in optimal lengths per second."""

    fpmax: float = 1.3
    """Passive force at `lmax`, in peak forces."""

    fvmax: float = 1.2
    """Active force at the lengthening speed `vmax`, in peak forces."""

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinMuscleActuator:
        """Make the actuator."""
        return BuiltinMuscleActuator(self, entity, target_ids, target_names)


class BuiltinMuscleActuator(PassThroughActuator[BuiltinMuscleActuatorCfg]):
    """Excites MuJoCo's <muscle> with effort targets."""

    command_fields = ("effort",)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <muscle> per target."""
        names = [field.name for field in fields(self.cfg) if field.name not in _COMMON_FIELDS]
        values = {name: getattr(self.cfg, name) for name in names}
        self._add_each(spec, target_names, create_muscle_actuator, **values)
