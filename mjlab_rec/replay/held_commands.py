"""Recorded commands, held by the environments of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

_PREFIX = "command/"


class HeldCommands:
    """Gives environments recorded commands, as far as the task has them.

    Args:
        rollouts: The recording.
    """

    def __init__(self, rollouts: Rollouts) -> None:
        self.channels = [name for name in rollouts.channels if name.startswith(_PREFIX)]
        """The recorded commands, as channels."""
        self.notes: dict[str, str] = {}
        """Why a command could not be restored, by its name."""

    @property
    def restored(self) -> set[str]:
        """Names of the commands that are restored."""
        return {name.removeprefix(_PREFIX) for name in self.channels} - set(self.notes)

    def hold(
        self, env: ManagerBasedRlEnv, values: Mapping[str, np.ndarray], env_ids: torch.Tensor
    ) -> None:
        """Give environments these commands until they get others; none are drawn meanwhile.

        Args:
            env: The environments.
            values: Rows of the channels.
            env_ids: The environments that the rows are for.
        """
        for name in env.command_manager.active_terms:
            # A new command might move things.
            env.command_manager.get_term(name).time_left[env_ids] = math.inf
        for channel in self.channels:
            name = channel.removeprefix(_PREFIX)
            if name in self.notes or name not in env.command_manager.active_terms:
                continue
            command = torch.from_numpy(values[channel]).to(env.device)
            try:
                env.command_manager.get_term(name).hold(command, env_ids)
            except (NotImplementedError, ValueError) as error:
                self.notes[name] = f"The command '{name}' could not be restored: {error}"
