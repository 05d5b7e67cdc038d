"""Actuators whose torque a neural network computes from the last few errors and velocities."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mujoco
import torch

from mjlab_rec.actuator.actuator import ActuatorCmd
from mjlab_rec.actuator.dc_actuator import DcMotorActuator, DcMotorActuatorCfg, dc_motor_clip
from mjlab_rec.utils.buffers import CircularBuffer

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

_ORDERS = ("pos_vel", "vel_pos")


@dataclass(kw_only=True)
class LearnedMlpActuatorCfg(DcMotorActuatorCfg):
    """Torques from a network that was trained on data of the real actuator.

    The network sees each joint by itself: a row of `history_length` position errors (target -
    position) and as many velocities, each newest first, and returns the joint's torque. The result
    is limited as DcMotorActuatorCfg says; its gains are not used.
    """

    network_file: str
    """TorchScript file of the network: (rows, 2 history_length) to (rows, 1)."""

    pos_scale: float
    """Factor of position errors before the network."""

    vel_scale: float
    """Factor of velocities before the network."""

    torque_scale: float
    """Factor of torques after the network."""

    input_order: Literal["pos_vel", "vel_pos"] = "pos_vel"
    """Whether the position errors or the velocities come first in a row."""

    history_length: int = 3
    """How many physics steps the network sees, this one included."""

    stiffness: float = 0.0
    """Not used."""

    damping: float = 0.0
    """Not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.history_length < 1:
            raise ValueError(f"{name}: history_length must be positive, got {self.history_length}.")
        if self.input_order not in _ORDERS:
            raise ValueError(
                f"{name}: input_order must be 'pos_vel' or 'vel_pos', got {self.input_order!r}."
            )

    def build(
        self, entity: Entity, target_ids: list[int], target_names: list[str]
    ) -> LearnedMlpActuator:
        """Make the actuator, loading and trying its network."""
        return LearnedMlpActuator(self, entity, target_ids, target_names)


class LearnedMlpActuator(DcMotorActuator[LearnedMlpActuatorCfg]):
    """Computes torques by a network, in one call for all joints and worlds.

    After a reset, a world's first errors and velocities fill its whole history.
    """

    def __init__(
        self,
        cfg: LearnedMlpActuatorCfg,
        entity: Entity,
        target_ids: list[int],
        target_names: list[str],
    ) -> None:
        super().__init__(cfg, entity, target_ids, target_names)
        self.network: torch.jit.ScriptModule = _load_network(cfg)
        """Maps rows of errors and velocities, scaled, to torques before their scale."""

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Move the network to the device and allocate the history."""
        super().initialize(mj_model, model, data, device)
        self.network.to(device)
        scales, self._pos = (self.cfg.pos_scale, self.cfg.vel_scale), 0
        if self.cfg.input_order == "vel_pos":
            scales, self._pos = scales[::-1], 1
        self._scales = torch.tensor(scales, device=device)
        # Errors and velocities in the order of the network, (num_envs, num_targets, 2).
        self._frame = torch.zeros(*self._shape, 2, device=device)
        self.history = CircularBuffer(self.cfg.history_length, data.nworld, device)
        """The last errors and velocities, scaled: frames (num_envs, num_targets, 2)."""

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Forget the history of the given worlds."""
        super().reset(env_ids)
        self.history.reset(env_ids)

    def compute(self, cmd: ActuatorCmd) -> torch.Tensor:
        """Compute the torques, limited to the motor's curve."""
        torch.sub(cmd.position_target, cmd.pos, out=self._frame[..., self._pos])
        self._frame[..., 1 - self._pos].copy_(cmd.vel)
        self.history.append(self._frame.mul_(self._scales))
        # (num_envs, time, num_targets, 2), oldest first -> a row per joint, newest first.
        rows = self.history.window.flip(1).permute(0, 2, 3, 1).reshape(-1, self._row_length)
        with torch.no_grad():
            torque = self.network(rows).view(self._shape) * self.cfg.torque_scale
        return dc_motor_clip(
            torque, self.saturation_effort, self.velocity_limit_motor, self.force_limit, cmd.vel
        )

    @property
    def _row_length(self) -> int:
        return 2 * self.cfg.history_length


def _load_network(cfg: LearnedMlpActuatorCfg) -> torch.jit.ScriptModule:
    """Load the network and try it, so that a wrong file is an error before anything runs."""
    path = Path(cfg.network_file)
    name = f"{type(cfg).__name__}: network_file '{path}'"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{name} {what} (working folder: {Path.cwd()}).")
    try:
        with warnings.catch_warnings():
            # TorchScript is the format of these files, whatever may follow it one day.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name} is not a TorchScript file ({str(error).splitlines()[0]}). Save the network "
            "with torch.jit.script(network).save(path)."
        ) from None
    width = 2 * cfg.history_length
    needs = (
        f"It must map (rows, {width}) to (rows, 1): the last {cfg.history_length} position errors "
        "and velocities of a joint (history_length) to its torque."
    )
    try:
        with torch.no_grad():
            out = network(torch.zeros(3, width))
    except RuntimeError as error:
        first = next((tuple(p.shape) for p in network.parameters() if p.ndim == 2), None)
        hint = "" if first is None else f" Its first layer takes {first[1]} numbers."
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{name} does not take these inputs. {needs}{hint} ({reason})") from None
    shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    if not isinstance(out, torch.Tensor) or out.numel() != 3:
        raise ValueError(f"{name} returns {shape} for 3 rows. {needs}")
    return network
