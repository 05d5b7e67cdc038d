"""The base of all actuators: targets in a model, delayed commands and a law that gives ctrl."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import mujoco
import torch

from mjlab_rec.utils.buffers import DelayBuffer
from mjlab_rec.utils.mujoco import CommandField as CommandField
from mjlab_rec.utils.spec import TransmissionType as TransmissionType
from mjlab_rec.utils.spec import apply_target_overrides

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity, EntityData

ActuatorCfgT = TypeVar("ActuatorCfgT", bound="ActuatorCfg")

COMMAND_FIELDS: tuple[CommandField, ...] = ("position", "velocity", "effort")


@dataclass(kw_only=True)
class ActuatorCfg(ABC):
    """Actuators of one kind on the joints, tendons or sites that match some names."""

    on_sites: ClassVar[bool] = True
    """Whether sites can be targets; they have no length to control."""

    target_names_expr: tuple[str, ...]
    """Names or regular expressions of the targets, of the kind `transmission_type` says."""

    transmission_type: TransmissionType = TransmissionType.JOINT
    """What is actuated: joints, tendons or sites."""

    armature: float | None = None
    """Inertia of the rotor as seen by the joint. None keeps the XML's value."""

    frictionloss: float | None = None
    """Dry friction that does not depend on load or speed. None keeps the XML's value."""

    viscous_damping: float | None = None
    """Passive damping b in f = -b v, present even without a command. None keeps the XML's value."""

    delay_min_lag: int = 0
    """Least delay of commands, in physics steps."""

    delay_max_lag: int = 0
    """Greatest delay of commands, in physics steps; each lag is drawn between the two. 0: none."""

    delay_hold_prob: float = 0.0
    """Probability of keeping the lag when a new one is due."""

    delay_update_period: int = 0
    """Physics steps that a lag lasts; 0 draws a new one each step."""

    delay_per_env_phase: bool = True
    """Draw new lags at different steps in different worlds, rather than all at once."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.transmission_type == TransmissionType.SITE and not self.on_sites:
            raise ValueError(
                f"{name} does not support SITE transmission: a site has no length to control."
                " Use BuiltinMotorActuatorCfg."
            )
        passive = {
            "armature": self.armature,
            "frictionloss": self.frictionloss,
            "viscous_damping": self.viscous_damping,
        }
        negative = {k: v for k, v in passive.items() if v is not None and v < 0.0}
        if negative:
            raise ValueError(f"{name}: {negative} must not be negative.")
        if self.transmission_type == TransmissionType.SITE and any(passive.values()):
            raise ValueError(
                f"{name}: sites have no armature, frictionloss or viscous_damping; got {passive}. "
                "Set them on the joints."
            )
        if not 0 <= self.delay_min_lag <= self.delay_max_lag:
            raise ValueError(
                f"{name}: lags must satisfy 0 <= delay_min_lag <= delay_max_lag, "
                f"got {self.delay_min_lag} and {self.delay_max_lag}."
            )
        if not 0.0 <= self.delay_hold_prob <= 1.0:
            raise ValueError(f"{name}: delay_hold_prob {self.delay_hold_prob} is not in [0, 1].")
        if self.delay_update_period < 0:
            raise ValueError(f"{name}: delay_update_period must not be negative.")

    @abstractmethod
    def build(self, entity: Entity, target_ids: list[int], target_names: list[str]) -> Actuator:
        """Make the actuator for targets given by their indices in the entity."""


@dataclass
class ActuatorCmd:
    """An actuator's targets and measured state, each (num_envs, num_targets)."""

    position_target: torch.Tensor
    """Desired joint positions or tendon lengths; zero for sites."""
    velocity_target: torch.Tensor
    """Desired joint or tendon velocities; zero for sites."""
    effort_target: torch.Tensor
    """Desired feed-forward forces or torques."""
    pos: torch.Tensor
    """Current joint positions or tendon lengths; zero for sites."""
    vel: torch.Tensor
    """Current joint or tendon velocities; zero for sites."""


class Actuator(ABC, Generic[ActuatorCfgT]):
    """Base class of actuators: edits the spec before compiling, then turns commands into ctrl.

    A subclass adds its MuJoCo actuators in ``edit_spec``, appending each to ``_mjs_actuators``,
    and computes their ctrl in ``compute`` once every physics step.
    """

    constant_between_substeps: bool = False
    """Whether ctrl stays the same over a control step, so that writing it once is enough."""

    param_names: ClassVar[tuple[str, ...]] = ()
    """Attributes (num_envs, num_targets) that ``control_law`` reads, see IdealPdActuator."""

    def __init__(
        self, cfg: ActuatorCfgT, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> None:
        self.cfg = cfg
        self.entity = entity
        self._target_ids_list = target_ids
        self._target_names = target_names
        self._target_ids: torch.Tensor | None = None
        self._ctrl_ids: torch.Tensor | None = None
        self._global_ctrl_ids: torch.Tensor | None = None
        self._mjs_actuators: list[mujoco.MjsActuator] = []
        self._site_zeros: torch.Tensor | None = None
        self._delay_buffer: DelayBuffer | None = None

    @property
    def has_delay(self) -> bool:
        """Whether commands arrive late."""
        return self.cfg.delay_max_lag > 0

    @property
    def transmission_type(self) -> TransmissionType:
        """What is actuated: joints, tendons or sites."""
        return self.cfg.transmission_type

    @property
    def target_names(self) -> list[str]:
        """Names of the targets, without the entity's prefix."""
        return self._target_names

    @property
    def target_ids(self) -> torch.Tensor:
        """Indices of the targets in the entity."""
        return _initialized(self._target_ids)

    @property
    def ctrl_ids(self) -> torch.Tensor:
        """Indices of the controls in the entity."""
        return _initialized(self._ctrl_ids)

    @property
    def global_ctrl_ids(self) -> torch.Tensor:
        """Indices of the controls in the model."""
        return _initialized(self._global_ctrl_ids)

    @abstractmethod
    def edit_spec(self, spec: mujoco.MjSpec, target_names: list[str]) -> None:
        """Add MuJoCo actuators to the entity's spec, before it is compiled.

        Args:
            spec: The entity's spec.
            target_names: The targets' names in the spec. They have a prefix if the spec was
                itself built with ``MjSpec.attach``.
        """

    def _override_passive(self, spec: mujoco.MjSpec, target_name: str) -> None:
        """Set the target's armature, friction loss and damping where the config has them."""
        apply_target_overrides(
            spec,
            target_name,
            self.transmission_type,
            armature=self.cfg.armature,
            frictionloss=self.cfg.frictionloss,
            viscous_damping=self.cfg.viscous_damping,
        )

    def _add_each(
        self,
        spec: mujoco.MjSpec,
        target_names: list[str],
        create: Callable[..., mujoco.MjsActuator],
        **values: Any,
    ) -> None:
        """Add an actuator per target with a ``create_*`` function of `mjlab_rec.utils.spec`."""
        for name in target_names:
            actuator = create(spec, name, transmission_type=self.transmission_type, **values)
            self._override_passive(spec, name)
            self._mjs_actuators.append(actuator)

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Look up indices and allocate state, after compiling.

        Args:
            mj_model: The compiled model.
            model: The simulation's model fields.
            data: The simulation's data fields.
            device: Where tensors live.
        """
        self._target_ids = torch.tensor(self._target_ids_list, dtype=torch.long, device=device)
        ids = [actuator.id for actuator in self._mjs_actuators]
        place = {gid: i for i, gid in enumerate(self.entity.indexing.ctrl_ids.tolist())}
        self._global_ctrl_ids = torch.tensor(ids, dtype=torch.long, device=device)
        self._ctrl_ids = torch.tensor([place[i] for i in ids], dtype=torch.long, device=device)
        if self.transmission_type == TransmissionType.SITE:
            self._site_zeros = torch.zeros(data.nworld, len(self._target_ids_list), device=device)

    def apply_delay(self, cmd: ActuatorCmd) -> ActuatorCmd:
        """Delay the three targets by the same lag; the measured state is never delayed."""
        if self._delay_buffer is None:
            return cmd
        targets = (cmd.position_target, cmd.velocity_target, cmd.effort_target)
        self._delay_buffer.append(torch.cat(targets, dim=1))
        position, velocity, effort = self._delay_buffer.compute().chunk(3, dim=1)
        return dataclasses.replace(
            cmd, position_target=position, velocity_target=velocity, effort_target=effort
        )

    def set_lags(self, lags: torch.Tensor, env_ids: torch.Tensor | slice | None = None) -> None:
        """Set the delay in physics steps; actuators that share a delay buffer share the lag."""
        if self._delay_buffer is not None:
            self._delay_buffer.set_lags(lags, env_ids)

    def get_command(self, data: EntityData) -> ActuatorCmd:
        """Collect this actuator's targets and measured state."""
        ids = self.target_ids
        if self.transmission_type == TransmissionType.SITE:
            zeros = _initialized(self._site_zeros)
            return ActuatorCmd(zeros, zeros, data.site_effort_target[:, ids], zeros, zeros)
        if self.transmission_type == TransmissionType.TENDON:
            return ActuatorCmd(
                position_target=data.tendon_len_target[:, ids],
                velocity_target=data.tendon_vel_target[:, ids],
                effort_target=data.tendon_effort_target[:, ids],
                pos=data.tendon_len[:, ids],
                vel=data.tendon_vel[:, ids],
            )
        return ActuatorCmd(
            position_target=data.joint_pos_target[:, ids],
            velocity_target=data.joint_vel_target[:, ids],
            effort_target=data.joint_effort_target[:, ids],
            pos=data.joint_pos[:, ids],
            vel=data.joint_vel[:, ids],
        )

    @abstractmethod
    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        """Turn a command into ctrl, (num_envs, num_controls), once every physics step."""

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Reset the state of the given worlds. The entity resets the delays."""

    def update(self, dt: float) -> None:
        """Advance internal state after a physics step of ``dt`` seconds."""


def _initialized(value: torch.Tensor | None) -> torch.Tensor:
    if value is None:
        raise RuntimeError("The actuator has no indices yet. Call scene.initialize() first.")
    return value
