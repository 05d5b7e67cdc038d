"""The targets of an entity's actuators, in one block of memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mjlab_rec.actuator import CommandField, TransmissionType

_FIELDS: dict[tuple[TransmissionType, CommandField], str] = {
    (TransmissionType.JOINT, "position"): "joint_pos_target",
    (TransmissionType.JOINT, "velocity"): "joint_vel_target",
    (TransmissionType.JOINT, "effort"): "joint_effort_target",
    (TransmissionType.TENDON, "position"): "tendon_len_target",
    (TransmissionType.TENDON, "velocity"): "tendon_vel_target",
    (TransmissionType.TENDON, "effort"): "tendon_effort_target",
    (TransmissionType.SITE, "effort"): "site_effort_target",
}


class Targets:
    """All targets of an entity in one tensor, so that one copy moves them all to ctrl."""

    def __init__(self, num_envs: int, counts: dict[TransmissionType, int], device: str) -> None:
        self._start: dict[str, int] = {}
        self._width: dict[str, int] = {}
        width = 0
        for (kind, _), name in _FIELDS.items():
            self._start[name], self._width[name] = width, counts[kind]
            width += counts[kind]
        self.all = torch.zeros(num_envs, width, device=device)
        """Every target, (num_envs, width)."""

    def view(self, name: str) -> torch.Tensor:
        """Return the part of the block with one kind of target, such as joint_pos_target."""
        return self.all.narrow(1, self._start[name], self._width[name])

    def columns(
        self, kind: TransmissionType, field: CommandField, ids: Sequence[int] | torch.Tensor
    ) -> list[int]:
        """Return the block's columns for the targets of the given joints, tendons or sites."""
        name = _FIELDS.get((kind, field))
        if name is None:
            raise ValueError(
                f"A {kind.value} has no {field} target. Possible for a {kind.value}: "
                f"{', '.join(f for k, f in _FIELDS if k == kind)}."
            )
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
        return [self._start[name] + i for i in ids]
