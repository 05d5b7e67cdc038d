"""What the physics was told in a step, and a checksum of what it made of it."""

from __future__ import annotations

from typing import Any

import torch

from mjlab_rec.sim.state_check import StateChecksums


class PhysicsProbe:
    """Reads controls and a checksum of the state, before events and resets change them.

    Args:
        env: The environment.
    """

    def __init__(self, env: Any) -> None:
        self._sim = sim = env.sim
        once = env.action_manager.constant_between_substeps and env.scene.constant_between_substeps
        self.needs_substeps = not once
        """Whether the controls may change between the physics steps of a control step."""
        count = 1 if once else env.cfg.decimation
        self.ctrl = torch.zeros(env.num_envs, count, sim.mj_model.nu, device=sim.device)
        """Controls of each physics step, or once if they do not change: (num_envs, steps, nu)."""
        self._checksums = StateChecksums(sim.state_layout, sim.device)
        self.fields = self._checksums.fields
        """The fields of the state."""
        self.check = torch.zeros(
            env.num_envs, len(self.fields), dtype=torch.int64, device=sim.device
        )
        """Checksum of each field after the last physics step: (num_envs, fields)."""
        self._state: torch.Tensor | None = None
        self._taken = 0

    def begin_step(self) -> None:
        """A step begins."""
        self._taken = 0

    def after_substep(self) -> None:
        """A physics step is over."""
        if self.needs_substeps:
            self.ctrl[:, self._taken].copy_(self._sim.data.ctrl)
            self._taken += 1

    def after_physics(self) -> None:
        """The last physics step of a control step is over."""
        if not self.needs_substeps:
            self.ctrl[:, 0].copy_(self._sim.data.ctrl)
        self._state = state = self._sim.get_state(self._state)
        self._checksums(state, self.check)
