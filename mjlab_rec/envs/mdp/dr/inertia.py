"""Randomization of mass, centre of mass and inertia that stays physically possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mjlab_rec.envs.mdp._common import DEFAULT_ASSET_CFG, resolve_env_ids
from mjlab_rec.envs.mdp.dr._core import default_values, draw_angle, model_ids
from mjlab_rec.envs.mdp.dr._types import Distribution
from mjlab_rec.managers.event_manager import requires_model_fields
from mjlab_rec.managers.scene_entity_config import SceneEntityCfg
from mjlab_rec.sim import RecomputeLevel
from mjlab_rec.utils.math import matrix_from_quat, quat_from_matrix, quat_mul

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv

# Each Jacobi sweep of a 3x3 matrix at least squares the error: after 5 only round-off is left.
_JACOBI_SWEEPS = 5


@requires_model_fields(
    "body_mass", "body_ipos", "body_inertia", "body_iquat", recompute=RecomputeLevel.set_const
)
def pseudo_inertia(
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | None,
    alpha_range: tuple[float, float] = (0.0, 0.0),
    d_range: tuple[float, float] | None = None,
    d1_range: tuple[float, float] = (0.0, 0.0),
    d2_range: tuple[float, float] = (0.0, 0.0),
    d3_range: tuple[float, float] = (0.0, 0.0),
    s12_range: tuple[float, float] = (0.0, 0.0),
    s13_range: tuple[float, float] = (0.0, 0.0),
    s23_range: tuple[float, float] = (0.0, 0.0),
    t_range: tuple[float, float] | None = None,
    t1_range: tuple[float, float] = (0.0, 0.0),
    t2_range: tuple[float, float] = (0.0, 0.0),
    t3_range: tuple[float, float] = (0.0, 0.0),
    distribution: Distribution | str = "uniform",
    asset_cfg: SceneEntityCfg = DEFAULT_ASSET_CFG,
) -> None:
    """Randomize mass, centre of mass and inertia together, so that a real body could have them.

    Every grain of the body's matter moves from x to A x + t in the body's axes, and its mass is
    scaled by exp(2 alpha). A is [[e^d1, s12, s13], [0, e^d2, s23], [0, 0, e^d3]]: it stretches by
    d and shears by s. Whatever the numbers, the result is the inertia of matter of positive
    density. The start is the model as compiled. (Parameters after Rucker and Wensing, 2022.)

    Args:
        env: The environment.
        env_ids: Environments; None for all.
        alpha_range: Half the logarithm of the mass factor; inertia scales with it.
        d_range: The same range for d1, d2 and d3.
        d1_range: Logarithm of the stretch along x.
        d2_range: Logarithm of the stretch along y.
        d3_range: Logarithm of the stretch along z.
        s12_range: Shear of x by y.
        s13_range: Shear of x by z.
        s23_range: Shear of y by z.
        t_range: The same range for t1, t2 and t3.
        t1_range: Shift of the centre of mass along x (m).
        t2_range: Shift along y (m).
        t3_range: Shift along z (m).
        distribution: The distribution of all of them. A range of (0, 0) always means zero.
        asset_cfg: Entity and bodies.
    """
    if d_range is not None:
        d1_range = d2_range = d3_range = d_range
    if t_range is not None:
        t1_range = t2_range = t3_range = t_range
    env_ids = resolve_env_ids(env, env_ids)
    ids = model_ids(env, asset_cfg, "body")
    shape = (len(env_ids), len(ids))

    def drawn(range_: tuple[float, float]) -> torch.Tensor:
        return draw_angle(env, distribution, range_, shape, env_ids).double()

    def default(field: str) -> torch.Tensor:
        return default_values(env, field, ids, env_ids).double()

    # Double precision: the model is float32, and the conversion to second moments costs digits.
    density = torch.exp(2 * drawn(alpha_range))
    zero = torch.zeros(shape, dtype=torch.double, device=env.device)
    rows = (
        torch.stack((drawn(d1_range).exp(), drawn(s12_range), drawn(s13_range)), dim=-1),
        torch.stack((zero, drawn(d2_range).exp(), drawn(s23_range)), dim=-1),
        torch.stack((zero, zero, drawn(d3_range).exp()), dim=-1),
    )
    stretch = torch.stack(rows, dim=-2)
    shift = torch.stack((drawn(t1_range), drawn(t2_range), drawn(t3_range)), dim=-1)

    iquat, inertia = default("body_iquat"), default("body_inertia")
    new_ipos = (stretch @ default("body_ipos")[..., None]).squeeze(-1) + shift
    # Second moments about the centre of mass follow from the moments of inertia and back:
    # moment_x = (I_y + I_z - I_x) / 2, I_x = moment_y + moment_z.
    moments = 0.5 * inertia.sum(-1, keepdim=True) - inertia
    # In the axes of the old inertia: unless rotated, they keep their exact orientation.
    axes = matrix_from_quat(iquat)
    local = axes.mT @ stretch @ axes
    moments, turn = _diagonalize(local @ torch.diag_embed(moments) @ local.mT)
    new_inertia = density[..., None] * (moments.sum(-1, keepdim=True) - moments)

    model, cells = env.sim.model, (env_ids[:, None], ids)
    model.body_mass[cells] = (density * default("body_mass")).float()
    model.body_ipos[cells] = new_ipos.float()
    model.body_inertia[cells] = new_inertia.float()
    model.body_iquat[cells] = quat_mul(iquat, quat_from_matrix(turn)).float()


def _diagonalize(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (..., 3) and rotation (..., 3, 3) of symmetric matrices: R diag(values) R^T.

    torch.linalg.eigh would work, but on CUDA it waits for the device and takes gigabytes of
    workspace. This also leaves matrices unchanged that are already diagonal.
    """
    rotation = torch.eye(3, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    negligible = 1e-12 * matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    for _ in range(_JACOBI_SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            off, gap = matrix[..., p, q], matrix[..., q, q] - matrix[..., p, p]
            # Round-off would rotate the axes of a round body arbitrarily.
            off = torch.where(off.abs() > negligible, off, 0.0)
            # The smaller of the two angles that zero the off-diagonal entry; 0 if it is zero.
            angle = 0.5 * torch.atan2(2 * off * torch.where(gap < 0, -1.0, 1.0), gap.abs())
            cos, sin = torch.cos(angle), torch.sin(angle)
            givens = torch.eye(3, dtype=matrix.dtype, device=matrix.device).repeat(*off.shape, 1, 1)
            givens[..., p, p] = givens[..., q, q] = cos
            givens[..., p, q], givens[..., q, p] = sin, -sin
            matrix = givens.mT @ matrix @ givens
            rotation = rotation @ givens
    return matrix.diagonal(dim1=-2, dim2=-1), rotation
