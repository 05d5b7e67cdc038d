"""Damped least squares: the joint displacement that follows a pose, in all worlds at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mjlab_rec.envs.mdp.actions.differential_ik import DifferentialIKActionCfg

_MIN_DAMPING = 1e-6


class IkSolver:
    """Minimizes the squares that DifferentialIKActionCfg lists, by the normal equations.

    They are solved in double precision, where even the least damping makes them definite.

    Args:
        cfg: The weights.
        lower: Soft limits, (num_envs, num_joints).
        upper: Soft limits, (num_envs, num_joints).
        posture: Preferred positions, (num_envs, num_joints).
    """

    def __init__(
        self, cfg: DifferentialIKActionCfg, lower: Tensor, upper: Tensor, posture: Tensor
    ) -> None:
        self._lower, self._upper, self._posture = lower, upper, posture
        self._max_dq = cfg.max_dq
        self._limit_weight, self._posture_weight = cfg.joint_limit_weight**2, cfg.posture_weight**2
        weights = [cfg.position_weight] * 3 if cfg.position_weight else []
        weights += [cfg.orientation_weight] * 3 if cfg.orientation_weight else []
        num_envs, n = posture.shape
        m, device = len(weights), posture.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num_envs, *shape, dtype=torch.float64, device=device)

        self._weights: Tensor | None = None
        if any(weight != 1.0 for weight in weights):
            self._weights = torch.tensor(weights, dtype=torch.float64, device=device)
        self._rows, self._error = zeros(n, m), zeros(m)
        self._has_pos, self._has_rot = cfg.position_weight > 0.0, cfg.orientation_weight > 0.0
        self.pos_error = self._error[:, :3]
        """The way to go, (num_envs, 3). Fill it in place; not used if the position is free."""
        self.rot_error = self._error[:, -3:]
        """The rotation vector to go, (num_envs, 3), likewise."""
        self._matrix, self._side = zeros(n, n), zeros(n, 1)
        self._matrix_diagonal = self._matrix.diagonal(dim1=-2, dim2=-1)
        damping = max(cfg.damping, _MIN_DAMPING) ** 2 + self._posture_weight
        eye = torch.eye(n, dtype=torch.float64, device=device)
        self._damping = (damping * eye).expand(num_envs, n, n)

    def set_jacobian(self, shift: Tensor, turn: Tensor) -> None:
        """Take the Jacobians of translation and rotation, (num_envs, num_joints, 3) each."""
        if self._has_pos:
            self._rows[..., :3].copy_(shift)
        if self._has_rot:
            self._rows[..., -3:].copy_(turn)

    def solve(self, q: Tensor) -> Tensor:
        """Return the joint displacements, (num_envs, num_joints), given the joint positions."""
        rows, error, side = self._rows, self._error, self._side[..., 0]
        if self._weights is not None:
            rows.mul_(self._weights)
            error.mul_(self._weights)
        torch.baddbmm(self._damping, rows, rows.mT, out=self._matrix)
        torch.bmm(rows, error[..., None], out=self._side)
        if self._limit_weight:
            back = torch.clamp(q, self._lower, self._upper).sub_(q)
            self._matrix_diagonal.add_(back != 0.0, alpha=self._limit_weight)
            side.add_(back, alpha=self._limit_weight)
        if self._posture_weight:
            side.add_(self._posture - q, alpha=self._posture_weight)
        # Unlike solve, it does not wait for a GPU to tell whether a matrix was singular.
        dq = torch.linalg.solve_ex(self._matrix, self._side)[0][..., 0]
        return dq.float().clamp_(-self._max_dq, self._max_dq)
