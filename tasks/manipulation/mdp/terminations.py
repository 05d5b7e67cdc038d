"""When an episode is over: the goal is reached, or the object is out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers import TerminationTermCfg
from tasks.manipulation.mdp.commands import LiftingCommand, PoseCommand

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

__all__ = ["goal_reached", "object_out_of_reach"]


class goal_reached:
    """What a command asks for has been the case for ``hold_time_s`` without interruption."""

    def __init__(self, cfg: TerminationTermCfg, env: ManagerBasedRlEnv) -> None:
        self._held = torch.zeros(env.num_envs, dtype=torch.long, device=env.device)

    def __call__(
        self, env: ManagerBasedRlEnv, command_name: str, hold_time_s: float
    ) -> torch.Tensor:
        """Count the steps. Shape (num_envs,), bool."""
        command = env.command_manager.get_term(command_name)
        if not isinstance(command, (LiftingCommand, PoseCommand)):
            raise TypeError(
                f"goal_reached: the command '{command_name}' is a {type(command).__name__}, but a"
                " LiftingCommand or a PoseCommand is needed."
            )
        self._held.add_(1).mul_(command.compute_success())
        return self._held > round(hold_time_s / env.step_dt)

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Begin to count again."""
        self._held[slice(None) if env_ids is None else env_ids] = 0


def object_out_of_reach(
    env: ManagerBasedRlEnv, object_name: str, max_distance: float
) -> torch.Tensor:
    """The object is further than this from the environment's origin, as after a hard push."""
    offset = env.scene[object_name].data.root_link_pos_w - env.scene.env_origins
    return torch.linalg.vector_norm(offset, dim=-1) > max_distance
