"""Poses as 4x4 matrices: their parts, other frames, paths between two, and random ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mjlab_rec.utils.math import (
    matrix_from_euler,
    matrix_from_quat,
    quat_box_minus,
    quat_from_angle_axis,
    quat_from_matrix,
    quat_mul,
    quat_slerp,
)


def make_pose(pos: Tensor, rot: Tensor) -> Tensor:
    """Join positions (..., 3) and rotation matrices (..., 3, 3) to poses (..., 4, 4)."""
    if pos.shape[-1:] != (3,) or rot.shape != (*pos.shape[:-1], 3, 3):
        raise ValueError(
            "Positions (..., 3) and rotation matrices (..., 3, 3) must have the same leading"
            f" dimensions, got {tuple(pos.shape)} and {tuple(rot.shape)}."
        )
    pose = pos.new_zeros(*pos.shape[:-1], 4, 4)
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = rot, pos, 1.0
    return pose


def unmake_pose(pose: Tensor) -> tuple[Tensor, Tensor]:
    """Split poses (..., 4, 4) into views: positions (..., 3) and rotation matrices (..., 3, 3)."""
    return pose[..., :3, 3], pose[..., :3, :3]


def pose_inv(pose: Tensor) -> Tensor:
    """Return the inverse poses (..., 4, 4): frame A in B, given frame B in A."""
    pos, rot = unmake_pose(pose)
    back = rot.transpose(-1, -2)
    return make_pose(-(back @ pos.unsqueeze(-1)).squeeze(-1), back)


def pose_in_A_to_pose_in_B(pose_in_A: Tensor, pose_A_in_B: Tensor) -> Tensor:  # noqa: N802, N803
    """Return poses (..., 4, 4) in frame B, given them and frame B's pose of A."""
    return pose_A_in_B @ pose_in_A


def transform_poses_from_frame_A_to_frame_B(  # noqa: N802
    src_poses: Tensor,
    frame_A: Tensor,  # noqa: N803
    frame_B: Tensor,  # noqa: N803
) -> Tensor:
    """Return the poses (t, 4, 4) that are to frame A as ``src_poses`` are to frame B."""
    return frame_A @ pose_inv(frame_B) @ src_poses


def interpolate_rotations(
    R1: Tensor,  # noqa: N803
    R2: Tensor,  # noqa: N803
    num_steps: int,
    axis_angle: bool = True,
) -> Tensor:
    """Return a path of rotation matrices (num_steps + 1, 3, 3) from R1 to R2, at constant speed.

    Args:
        R1: Rotation matrix (3, 3) of the start.
        R2: Rotation matrix (3, 3) of the end.
        num_steps: Number of steps of equal size.
        axis_angle: Turn about one fixed axis; else interpolate quaternions. Both go the short way.
    """
    q1, q2 = quat_from_matrix(R1), quat_from_matrix(R2)
    done = torch.arange(num_steps, dtype=R1.dtype, device=R1.device) / num_steps
    if axis_angle:
        turn = quat_box_minus(q2, q1)
        angle = torch.linalg.vector_norm(turn)
        steps = quat_mul(quat_from_angle_axis(done * angle, turn.expand(num_steps, 3)), q1)
    else:
        steps = quat_slerp(q1.expand(num_steps, 4), q2.expand(num_steps, 4), done)
    return torch.cat((matrix_from_quat(steps), R2[None]))


def interpolate_poses(
    pose_1: Tensor,
    pose_2: Tensor,
    num_steps: int | None = None,
    step_size: float | None = None,
    perturb: bool = False,
) -> tuple[Tensor, int]:
    """Return a path between two poses (4, 4), both included, and the number of poses between them.

    Args:
        pose_1: Start.
        pose_2: End.
        num_steps: Number of poses between them.
        step_size: Distance between neighbours, from which their number follows, if that is not
            given.
        perturb: Move the positions between the two by up to half a step, along the path.
    """
    if (num_steps is None) == (step_size is None):
        raise ValueError("interpolate_poses takes either num_steps or step_size, not both.")
    (pos_1, rot_1), (pos_2, rot_2) = unmake_pose(pose_1), unmake_pose(pose_2)
    way = pos_2 - pos_1
    if num_steps is None:
        length = float(torch.linalg.vector_norm(way))
        if length == 0.0 or step_size is None or step_size <= 0.0:
            raise ValueError(
                f"A distance of {length} in steps of {step_size} is no path. Give num_steps."
            )
        num_steps = math.ceil(length / step_size)
    if num_steps == 0:
        return torch.stack((pose_1, pose_2)), 0
    pieces = num_steps + 1
    grid = torch.arange(pieces, dtype=pos_1.dtype, device=pos_1.device)
    if perturb:
        grid[1:-1] += torch.rand(pieces - 2, device=pos_1.device) - 0.5
    pos = torch.cat((pos_1 + grid[:, None] * (way / pieces), pos_2[None]))
    return make_pose(pos, interpolate_rotations(rot_1, rot_2, pieces)), num_steps


def generate_random_rotation(rot_boundary: float = 2 * math.pi) -> Tensor:
    """Draw a rotation matrix (3, 3): turns about the fixed x, y and z axis, up to the boundary."""
    return matrix_from_euler((torch.rand(3) * rot_boundary).flip(0), "ZYX")


def generate_random_translation(pos_boundary: float = 1) -> Tensor:
    """Draw a position (3,) in a cube around the origin."""
    return (2 * torch.rand(3) - 1) * pos_boundary


def generate_random_transformation_matrix(
    pos_boundary: float = 1, rot_boundary: float = 2 * math.pi
) -> Tensor:
    """Draw a pose (4, 4) from the two functions above."""
    rot = generate_random_rotation(rot_boundary)
    return make_pose(generate_random_translation(pos_boundary), rot)
