"""MuJoCo's <dcmotor>: an electric motor with its back-EMF, driven by a voltage or a setpoint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import mujoco
import torch

from mjlab_rec.actuator.actuator import ActuatorCfg, ActuatorCmd, CommandField
from mjlab_rec.actuator.pass_through import PassThroughActuator
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.utils.spec import create_dc_motor_actuator

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity


class DcMotorInputMode(IntEnum):
    """What the targets of a DC motor are."""

    VOLTAGE = 0
    """The voltage at its terminals, given by effort targets in volts."""
    POSITION = 1
    """Position targets of a PID controller, whose output is the voltage."""
    VELOCITY = 2
    """Velocity targets of a P controller, whose output is the voltage."""


_COMMAND: dict[DcMotorInputMode, CommandField] = {
    DcMotorInputMode.VOLTAGE: "effort",
    DcMotorInputMode.POSITION: "position",
    DcMotorInputMode.VELOCITY: "velocity",
}


@dataclass(frozen=True)
class DcMotorDatasheetParams:
    """A DC motor as its datasheet describes it."""

    nominal_voltage: float
    """Voltage at which the other two were measured, in V."""

    stall_torque: float
    """Torque at rest, in N m."""

    no_load_speed: float
    """Speed without a load, in rad/s."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True)
class DcMotorPhysicalParams:
    """A DC motor by its physical constants."""

    kt: float
    """Torque per current, in N m/A."""

    ke: float
    """Voltage induced per speed (back-EMF), in V s/rad."""

    resistance: float
    """Resistance between the terminals, in ohms."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(kw_only=True)
class BuiltinDcMotorActuatorCfg(ActuatorCfg):
    """A <dcmotor> per target: torque = K (V - K omega) / R, with the motor's K and R.

    The voltage V is the target itself, or the output of a controller, limited to
    `voltage_limit`:

    - VOLTAGE: V is the effort target, in volts.
    - POSITION: V = stiffness (target - q) + integral_gain times the error's integral - damping v.
    - VELOCITY: V = stiffness (target - v).

    MuJoCo knows how the torque depends on the speed, so its implicit integrators stay stable.
    """

    on_sites = False

    motor_params: DcMotorDatasheetParams | DcMotorPhysicalParams
    """The motor: numbers of its datasheet, or physical constants."""

    mode: DcMotorInputMode = DcMotorInputMode.POSITION
    """What the targets are."""

    stiffness: float = 0.0
    """Volts per unit of error; positive in the modes POSITION and VELOCITY, zero in VOLTAGE."""

    damping: float = 0.0
    """Volts per unit of velocity. Without effect in the mode VELOCITY, zero in VOLTAGE."""

    voltage_limit: float = 0.0
    """Greatest voltage. Required in the modes POSITION and VELOCITY; in VOLTAGE 0 means none."""

    integral_gain: float = 0.0
    """Volts per unit of the error's integral, in the mode POSITION."""

    integral_limit: float = 0.0
    """Greatest integral of the error; 0 means no limit."""

    slew_rate: float = 0.0
    """Greatest change of the target per second, as the motor follows it; 0 means no limit."""

    effort_limit: float | None = None
    """Greatest electromagnetic torque; None means no limit."""

    gear: float = 1.0
    """Gear ratio."""

    inductance: float = 0.0
    """Inductance of the winding in henries, which makes the current lag behind; 0 means none."""

    electrical_time_constant: float = 0.0
    """Inductance / resistance, in seconds. Used where `inductance` is 0."""

    thermal: tuple[float, float, float, float, float, float] | None = None
    """Heating, which raises the resistance: thermal resistance, heat capacity, time constant,
    temperature coefficient of the resistance, its reference temperature, and that around it."""

    cogging: tuple[float, float, float] | None = None
    """Torque a sin(n q + phase) of the magnets, as (a, n, phase); not limited by `effort_limit`."""

    lugre: tuple[float, float, float, float, float] | None = None
    """Friction of the LuGre model: stiffness and damping of its bristles, Coulomb friction, static
    friction, and Stribeck velocity; not limited by `effort_limit`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mode = DcMotorInputMode(self.mode)
        name = f"{type(self).__name__}: the mode {self.mode.name}"
        gains = ("stiffness", "damping", "integral_gain")
        if self.mode is DcMotorInputMode.VOLTAGE:
            given = {field: getattr(self, field) for field in gains if getattr(self, field)}
            if given:
                raise ValueError(f"{name} has no controller, so {given} must be zero.")
        else:
            needed = {f: getattr(self, f) for f in ("stiffness", "voltage_limit")}
            missing = [field for field, value in needed.items() if not value > 0.0]
            if missing:
                raise ValueError(
                    f"{name} needs positive {' and '.join(missing)}, got "
                    f"{[needed[field] for field in missing]}."
                )
        if self.mode is DcMotorInputMode.VELOCITY and self.integral_gain:
            raise ValueError(
                f"{name} takes no integral_gain: MuJoCo has only the integral of a position "
                f"error, got {self.integral_gain}. Use the mode POSITION."
            )
        for field in (
            *gains,
            *("voltage_limit", "integral_limit", "slew_rate"),
            *("inductance", "electrical_time_constant"),
        ):
            if getattr(self, field) < 0.0:
                raise ValueError(
                    f"{type(self).__name__}: {field} must not be negative, got "
                    f"{getattr(self, field)}."
                )

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> BuiltinDcMotorActuator:
        """Make the actuator."""
        by_voltage = self.mode is DcMotorInputMode.VOLTAGE
        scaled = self.slew_rate > 0.0 if by_voltage else self.mode is DcMotorInputMode.VELOCITY
        cls = ScaledDcMotorActuator if scaled else BuiltinDcMotorActuator
        return cls(self, entity, target_ids, target_names)


class BuiltinDcMotorActuator(PassThroughActuator[BuiltinDcMotorActuatorCfg]):
    """Drives MuJoCo's <dcmotor>; the gains may differ between worlds.

    MuJoCo's controller asks for a torque and compensates the back-EMF: V = (R / K) (kp (u - q) -
    kd v) + K v. So kp = stiffness K / R and kd = (damping + K) K / R give the config's law.
    """

    stiffness: torch.Tensor
    """Proportional gains (num_envs, num_targets). Change them by ``set_gains``."""
    damping: torch.Tensor
    """Derivative gains (num_envs, num_targets)."""

    @property
    def command_fields(self) -> tuple[CommandField, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The one target field that is passed."""
        return (_COMMAND[self.cfg.mode],)

    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add a <dcmotor> per target."""
        cfg, params = self.cfg, self.cfg.motor_params
        by_datasheet = isinstance(params, DcMotorDatasheetParams)
        numbers = tuple(vars(params).values())
        try:
            self._add_each(
                spec,
                target_names,
                create_dc_motor_actuator,
                nominal=numbers if by_datasheet else None,
                constants=None if by_datasheet else numbers,
                effort_limit=cfg.effort_limit,
                gear=cfg.gear,
                inductance=cfg.inductance,
                electrical_time_constant=cfg.electrical_time_constant,
                thermal=cfg.thermal,
                cogging=cfg.cogging,
                lugre=cfg.lugre,
                controller=self._controller,
            )
        except ValueError as error:
            raise ValueError(f"BuiltinDcMotorActuatorCfg on {target_names}: {error}") from None

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Give every world the configured gains."""
        super().initialize(mj_model, model, data, device)
        self._model = model
        shape = (data.nworld, len(self._target_names))
        self.stiffness = torch.full(shape, float(self.cfg.stiffness), device=device)
        self.damping = torch.full(shape, float(self.cfg.damping), device=device)
        self.default_stiffness = self.stiffness.clone()
        self.default_damping = self.damping.clone()

    @property
    def has_gains(self) -> bool:
        """Whether there is a controller."""
        return self.cfg.mode is not DcMotorInputMode.VOLTAGE

    def require_gains(self) -> None:
        """Raise if there is no controller."""
        if not self.has_gains:
            raise ValueError(
                f"The DC motors of {self.target_names} are in the mode VOLTAGE: they have no "
                "controller whose gains could be set."
            )

    def set_gains(
        self,
        env_ids: torch.Tensor,
        kp: torch.Tensor | None = None,
        kd: torch.Tensor | None = None,
    ) -> None:
        """Set gains of the given worlds, in volts: (len(env_ids), num_targets).

        The model field `actuator_gainprm` must have a value per world.
        """
        self.require_gains()
        if kp is not None:
            self.stiffness[env_ids] = kp
        if kd is not None:
            self.damping[env_ids] = kd
        gains = self._model.actuator_gainprm
        for slot, values in self._slots(self.stiffness[env_ids], self.damping[env_ids]).items():
            gains[env_ids[:, None], self.global_ctrl_ids, slot] = values

    def _controller(self, k: float, r: float) -> tuple[int, list[float]]:
        """Inputs and controller of MuJoCo's motor, given its constants K and R."""
        cfg = self.cfg
        self._k, self._k_per_r = k, k / r
        if cfg.mode is DcMotorInputMode.VOLTAGE:
            return _inputs().mjINPUT_VOLTAGE, [0.0, 0.0, 0.0, 0.0, 0.0, cfg.voltage_limit]
        kp, ki = cfg.stiffness * self._k_per_r, cfg.integral_gain * self._k_per_r
        kd = (cfg.damping + k) * self._k_per_r
        limits = [cfg.slew_rate, cfg.integral_limit, cfg.voltage_limit]
        return _inputs().mjINPUT_POS, [kp, ki, kd, *limits]

    def _slots(self, kp: torch.Tensor, kd: torch.Tensor) -> dict[int, torch.Tensor]:
        """What ``actuator_gainprm`` holds for these gains."""
        return {4: kp * self._k_per_r, 6: (kd + self._k) * self._k_per_r}


class ScaledDcMotorActuator(BuiltinDcMotorActuator):
    """A <dcmotor> whose ctrl is its targets times a factor, as MuJoCo's inputs require.

    VELOCITY: with kd = (stiffness + K) K / R, ctrl = target stiffness / (stiffness + K) gives
    V = stiffness (target - v). VOLTAGE with a slew rate, which MuJoCo's voltage input has not: the
    input is a torque, ctrl = target K / R, and kd = K K / R cancels the compensation of back-EMF.
    """

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Set up the factor."""
        super().initialize(mj_model, model, data, device)
        self._factor = torch.full_like(self.stiffness, self._k_per_r)
        if self.cfg.mode is DcMotorInputMode.VELOCITY:
            torch.div(self.stiffness, self.stiffness + self._k, out=self._factor)

    @property
    def constant_between_substeps(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True without a delay: the factor does not change within a step."""
        return type(self) is ScaledDcMotorActuator and not self.has_delay

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        """Return the targets times the factor."""
        return super().compute(cmd) * self._factor

    def set_gains(
        self,
        env_ids: torch.Tensor,
        kp: torch.Tensor | None = None,
        kd: torch.Tensor | None = None,
    ) -> None:
        """Set gains of the given worlds."""
        if self.cfg.slew_rate and self.cfg.mode is DcMotorInputMode.VELOCITY:
            raise ValueError(
                f"The DC motors of {self.target_names} have a slew_rate in the mode VELOCITY, "
                "which holds for one stiffness only. Remove one of the two."
            )
        super().set_gains(env_ids, kp, kd)
        stiffness = self.stiffness[env_ids]
        self._factor[env_ids] = stiffness / (stiffness + self._k)

    def _controller(self, k: float, r: float) -> tuple[int, list[float]]:
        cfg = self.cfg
        self._k, self._k_per_r = k, k / r
        if cfg.mode is DcMotorInputMode.VOLTAGE:
            gain, factor, kind = k, self._k_per_r, _inputs().mjINPUT_FF
        else:
            gain, kind = cfg.stiffness + k, _inputs().mjINPUT_VEL
            factor = cfg.stiffness / gain
        slew = cfg.slew_rate * factor
        return kind, [0.0, 0.0, gain * self._k_per_r, slew, 0.0, cfg.voltage_limit]

    def _slots(self, kp: torch.Tensor, kd: torch.Tensor) -> dict[int, torch.Tensor]:
        return {6: (kp + self._k) * self._k_per_r}


def _inputs() -> Any:
    """MuJoCo's kinds of controllers, which older versions do not have."""
    kinds = getattr(mujoco, "mjtCtrlInput", None)
    if kinds is None:
        raise UnavailableError(
            f"This actuator needs a newer MuJoCo than {mujoco.__version__}:"
            " pip install --upgrade 'mujoco>=3.14'."
        )
    return kinds


def _require_positive(params: Any) -> None:
    wrong = {name: value for name, value in vars(params).items() if not value > 0.0}
    if wrong:
        raise ValueError(f"{type(params).__name__}: {wrong} must be positive.")
