"""Poses in other frames, and differences between poses.

A pose is a position (..., 3) and a unit quaternion (..., 4): t01 and q01 are frame 1 in frame 0.
Leading dimensions broadcast.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mjlab_rec.utils.math import (
    axis_angle_from_quat,
    quat_apply,
    quat_apply_inverse,
    quat_conjugate,
    quat_from_angle_axis,
    quat_mul,
)


def combine_frame_transforms(
    t01: Tensor, q01: Tensor, t12: Tensor | None = None, q12: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return frame 2 in frame 0, given frame 1 in frame 0 and frame 2 in frame 1.

    A position or rotation of frame 2 that is not given is frame 1's.
    """
    t02 = t01.clone() if t12 is None else t01 + quat_apply(q01, t12)
    q02 = q01.clone() if q12 is None else quat_mul(q01, q12)
    return t02, q02


def subtract_frame_transforms(
    t01: Tensor, q01: Tensor, t02: Tensor | None = None, q02: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return frame 2 in frame 1, given both in frame 0.

    A position or rotation of frame 2 that is not given is frame 0's.
    """
    t12 = quat_apply_inverse(q01, -t01 if t02 is None else t02 - t01)
    q10 = quat_conjugate(q01)
    return t12, q10 if q02 is None else quat_mul(q10, q02)


def compute_pose_error(
    t01: Tensor,
    q01: Tensor,
    t02: Tensor,
    q02: Tensor,
    rot_error_type: Literal["quat", "axis_angle"] = "axis_angle",
) -> tuple[Tensor, Tensor]:
    """Return the shift and the turn that take pose 1 to pose 2, both in frame 0.

    The turn is a rotation vector (..., 3), or with "quat" a quaternion (..., 4).
    """
    if rot_error_type not in ("quat", "axis_angle"):
        raise ValueError(
            f"rot_error_type is {rot_error_type!r}; it must be 'axis_angle' or 'quat'."
        )
    turn = quat_mul(q02, quat_conjugate(q01))
    return t02 - t01, turn if rot_error_type == "quat" else axis_angle_from_quat(turn)


def apply_delta_pose(
    source_pos: Tensor, source_rot: Tensor, delta_pose: Tensor
) -> tuple[Tensor, Tensor]:
    """Shift and turn a pose, the inverse of `compute_pose_error`.

    Args:
        source_pos: Positions (..., 3).
        source_rot: Unit quaternions (..., 4).
        delta_pose: Shifts, then rotation vectors (..., 6), both in the frame of the poses.
    """
    turn = delta_pose[..., 3:]
    turned = quat_from_angle_axis(torch.linalg.vector_norm(turn, dim=-1), turn)
    return source_pos + delta_pose[..., :3], quat_mul(turned, source_rot)


def is_identity_pose(pos: Tensor, rot: Tensor) -> bool:
    """Whether all positions (..., 3) are zero and all quaternions (..., 4) are (1, 0, 0, 0)."""
    none = torch.zeros_like(rot)
    none[..., 0] = 1.0
    return torch.allclose(pos, torch.zeros_like(pos)) and torch.allclose(rot, none)


def rigid_body_twist_transform(
    v0: Tensor, w0: Tensor, t01: Tensor, q01: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the velocity of frame 1 from that of frame 0; both are fixed to one rigid body.

    Args:
        v0: Linear velocity of frame 0 in its axes (..., 3).
        w0: Angular velocity in the axes of frame 0 (..., 3).
        t01: Position of frame 1 in frame 0 (..., 3).
        q01: Orientation of frame 1 in frame 0 (..., 4).

    Returns:
        Linear and angular velocity of frame 1 in its axes, each (..., 3).
    """
    v1 = quat_apply_inverse(q01, v0 + torch.linalg.cross(w0, t01))
    return v1, quat_apply_inverse(q01, w0)


def transform_points(
    points: Tensor, pos: Tensor | None = None, quat: Tensor | None = None
) -> Tensor:
    """Rotate points by ``quat`` and then move them by ``pos``; what is not given is left out.

    Args:
        points: Points (n, p, 3) or (p, 3).
        pos: Positions (n, 3), one per set of points, or (3,).
        quat: Unit quaternions (n, 4), one per set of points, or (4,).

    Returns:
        Points (n, p, 3), or (p, 3) if nothing had n sets.
    """
    if points.ndim not in (2, 3) or points.shape[-1] != 3:
        raise ValueError(f"points must be (p, 3) or (n, p, 3), got {tuple(points.shape)}.")
    for name, value, size in (("pos", pos, 3), ("quat", quat, 4)):
        if value is not None and (value.ndim not in (1, 2) or value.shape[-1] != size):
            raise ValueError(f"{name} must be ({size},) or (n, {size}), got {tuple(value.shape)}.")
    moved = points.clone()
    if quat is not None:
        moved = quat_apply(quat.unsqueeze(-2), moved)
    if pos is not None:
        moved = moved + pos.unsqueeze(-2)
    return moved.squeeze(0) if points.ndim == 2 and moved.ndim == 3 and len(moved) == 1 else moved
