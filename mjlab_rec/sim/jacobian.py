"""Jacobians of points on bodies, from what the engine has computed anyway."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import torch

from mjlab_rec.sim.views import DataView
from mjlab_rec.utils.indexing import Columns, as_index


class PointJacobian:
    """How a point that moves with a body follows some degrees of freedom, in every world.

    The columns of MuJoCo's ``mj_jac``, for the same moment as `xpos` and all other derived fields:
    between the substeps of a step, that is the beginning of the last substep. It is the same on
    both engines, and needs no kinematics of its own.
    """

    def __init__(
        self, data: DataView, model: mujoco.MjModel, body_id: int, dof_ids: Sequence[int]
    ) -> None:
        self.moving = [_moves(model, dof, body_id) for dof in dof_ids]
        """Whether each degree of freedom moves the body at all."""
        device = data.cdof.device
        self._cdof = Columns(data.cdof, as_index(dof_ids, device))
        self._center = data.subtree_com[:, int(model.body_rootid[body_id])]
        self._mask: torch.Tensor | None = None
        if not all(self.moving):
            self._mask = torch.tensor(self.moving, device=device).float()[:, None]

    def compute(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Jacobians of translation and rotation, in the world frame.

        They are transposed, (num_envs, num_dofs, 3) each: row i is the point's velocity and the
        body's angular velocity if degree of freedom i has velocity 1. Never write to them.

        Args:
            point: Where the point is, (num_envs, 3).
        """
        axes = self._cdof.peek()
        if self._mask is not None:
            axes = axes * self._mask
        # An axis holds the rotation, and the velocity at the centre of mass of the whole tree.
        rotation = axes[..., :3]
        arm = (point - self._center)[:, None]
        translation = torch.linalg.cross(rotation, arm).add_(axes[..., 3:])
        return translation, rotation


def _moves(model: mujoco.MjModel, dof: int, body: int) -> bool:
    """Return whether a degree of freedom belongs to the body or to one that carries it."""
    owner = int(model.dof_bodyid[dof])
    while body > owner:  # Parents come before their children.
        body = int(model.body_parentid[body])
    return body == owner
