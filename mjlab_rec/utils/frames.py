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
