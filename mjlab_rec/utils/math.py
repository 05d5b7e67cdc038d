"""Rotations and random samples for batches of tensors.

Quaternions are (w, x, y, z), as in MuJoCo. Leading dimensions broadcast, and every function returns
a new tensor. The cost of small batches is that of their torch calls, so the formulas use few,
vectorized ones.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

_Array = TypeVar("_Array", Tensor, np.ndarray)


def normalize(x: Tensor, eps: float = 1e-9) -> Tensor:
    """Scale vectors to length one; a zero vector stays zero."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(eps)


def wrap_to_pi(angles: Tensor) -> Tensor:
    """Bring angles into [-pi, pi]; those already inside keep their exact bits."""
    return torch.sub(angles, torch.round(angles / (2 * math.pi)), alpha=2 * math.pi)


def quat_conjugate(q: Tensor) -> Tensor:
    """Return the inverse rotation of unit quaternions (..., 4)."""
    return torch.cat((q[..., :1], -q[..., 1:]), dim=-1)


def quat_inv(q: Tensor, eps: float = 1e-9) -> Tensor:
    """Return the inverse of quaternions (..., 4) of any length."""
    return quat_conjugate(q) / q.square().sum(-1, keepdim=True).clamp_min(eps)


def quat_unique(q: Tensor) -> Tensor:
    """Return whichever of the quaternions q and -q (..., 4), equal as rotations, has w >= 0."""
    return torch.where(q[..., :1] < 0, -q, q)


def convert_quat(quat: _Array, to: Literal["xyzw", "wxyz"] = "xyzw") -> _Array:
    """Move w to the end of quaternions (..., 4), or with "wxyz" from there to the front."""
    if quat.shape[-1] != 4:
        raise ValueError(f"Quaternions have the shape (..., 4), got {tuple(quat.shape)}.")
    if to not in ("xyzw", "wxyz"):
        raise ValueError(f"Unknown order of a quaternion {to!r}. Known: xyzw, wxyz.")
    shift = -1 if to == "xyzw" else 1
    return quat.roll(shift, -1) if isinstance(quat, Tensor) else np.roll(quat, shift, -1)


def skew_symmetric_matrix(vec: Tensor) -> Tensor:
    """Return matrices (n, 3, 3) that multiply like cross products with vectors (n, 3) or (3,)."""
    if vec.shape[-1] != 3 or vec.ndim > 2:
        raise ValueError(f"Vectors have the shape (3,) or (n, 3), got {tuple(vec.shape)}.")
    x, y, z = vec.view(-1, 3).unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    # torch broadcasts sizes here, but requires equal numbers of dimensions.
    if a.ndim != b.ndim:
        a, b = torch.broadcast_tensors(a, b)
    return torch.linalg.cross(a, b)


def quat_mul(q1: Tensor, q2: Tensor) -> Tensor:
    """Return the rotation that first does q2, then q1: (..., 4)."""
    w1, v1 = q1[..., :1], q1[..., 1:]
    w2, v2 = q2[..., :1], q2[..., 1:]
    w = w1 * w2 - (v1 * v2).sum(-1, keepdim=True)
    xyz = _cross(v1, v2).addcmul_(w1, v2).addcmul_(w2, v1)
    return torch.cat((w, xyz), dim=-1)


def quat_apply(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by unit quaternions (..., 4)."""
    xyz = quat[..., 1:]
    t = _cross(xyz, vec)
    return torch.add(vec, _cross(xyz, t).addcmul_(quat[..., :1], t), alpha=2)


def quat_apply_inverse(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by the inverse of unit quaternions (..., 4)."""
    xyz = quat[..., 1:]
    t = _cross(vec, xyz)
    return torch.add(vec, _cross(t, xyz).addcmul_(quat[..., :1], t), alpha=2)


def yaw_quat(quat: Tensor) -> Tensor:
    """Keep only the heading of rotations (..., 4): their turn about the world's z axis."""
    w, x, y, z = quat.unbind(-1)
    half = 0.5 * torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    zero = torch.zeros_like(half)
    return torch.stack((torch.cos(half), zero, zero, torch.sin(half)), dim=-1)


def quat_apply_yaw(quat: Tensor, vec: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by the heading alone of unit quaternions (..., 4)."""
    return quat_apply(yaw_quat(quat), vec)


def quat_from_angle_axis(angle: Tensor, axis: Tensor) -> Tensor:
    """Build quaternions (..., 4) from angles (...) in radians about axes (..., 3) of any length."""
    half = 0.5 * angle.unsqueeze(-1)
    xyz = normalize(axis) * torch.sin(half)
    return torch.cat((torch.cos(half).expand(*xyz.shape[:-1], 1), xyz), dim=-1)


def axis_angle_from_quat(quat: Tensor, eps: float = 1e-6) -> Tensor:
    """Turn unit quaternions (..., 4) into rotation vectors (..., 3) of at most pi radians.

    Args:
        quat: Unit quaternions.
        eps: Vector parts shorter than this are doubled instead, which is the formula's limit.
    """
    w, xyz = quat[..., :1], quat[..., 1:]
    length = torch.linalg.vector_norm(xyz, dim=-1, keepdim=True)
    # atan2 stays exact near the identity, where acos(w) loses all digits in float32.
    angle = 2 * torch.atan2(length, w.abs())
    scale = torch.where(length > eps, angle / length.clamp_min(eps), 2.0)
    return xyz * torch.where(w < 0, -scale, scale)


def quat_from_euler_xyz(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """Build quaternions (..., 4) from turns about the fixed x, then y, then z axis, in radians."""
    cr, sr = torch.cos(roll * 0.5), torch.sin(roll * 0.5)
    cp, sp = torch.cos(pitch * 0.5), torch.sin(pitch * 0.5)
    cy, sy = torch.cos(yaw * 0.5), torch.sin(yaw * 0.5)
    cc, ss, sc, cs = cp * cy, sp * sy, sp * cy, cp * sy
    return torch.stack(
        (cr * cc + sr * ss, sr * cc - cr * ss, cr * sc + sr * cs, cr * cs - sr * sc), dim=-1
    )


def euler_xyz_from_quat(quat: Tensor, wrap_to_2pi: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return roll, pitch and yaw (...) in radians, the inverse of `quat_from_euler_xyz`.

    Args:
        quat: Unit quaternions (..., 4).
        wrap_to_2pi: Give angles in [0, 2 pi) rather than in [-pi, pi].
    """
    w, x, y, z = quat.unbind(-1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = torch.asin((2 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    if wrap_to_2pi:
        return roll % (2 * math.pi), pitch % (2 * math.pi), yaw % (2 * math.pi)
    return roll, pitch, yaw


def matrix_from_quat(quaternions: Tensor) -> Tensor:
    """Turn quaternions (..., 4) of any length into rotation matrices (..., 3, 3)."""
    w, x, y, z = quaternions.unbind(-1)
    scale = 2.0 / (w * w).addcmul_(x, x).addcmul_(y, y).addcmul_(z, z)
    sx, sy, sz = scale * x, scale * y, scale * z
    wx, wy, wz = w * sx, w * sy, w * sz
    xx, xy, xz = x * sx, x * sy, x * sz
    yy, yz, zz = y * sy, y * sz, z * sz
    rows = (1 - (yy + zz), xy - wz, xz + wy, xy + wz, 1 - (xx + zz), yz - wx)
    rows += (xz - wy, yz + wx, 1 - (xx + yy))
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_from_matrix(matrix: Tensor) -> Tensor:
    """Turn rotation matrices (..., 3, 3) into unit quaternions (..., 4)."""
    a, b, c, d, e, f, g, h, i = matrix.flatten(-2).unbind(-1)
    plus, minus, total, diff = 1 + a, 1 - a, e + i, e - i
    wx, wy, wz = h - f, c - g, d - b
    xy, xz, yz = b + d, c + g, f + h
    # The quaternion times one of its own components, times four, in four ways. One whose square,
    # on the diagonal, is at least one loses no digits: x or y where i is negative, else w or z.
    x_or_w = torch.stack((wx, plus - total, xy, xz, plus + total, wx, wy, wz))
    y_or_z = torch.stack((wy, xy, minus + diff, yz, wz, xz, yz, minus - diff))
    negative = i < 0
    rows = torch.where(a > torch.where(negative, e, -e), x_or_w, y_or_z)
    row = torch.where(negative, rows[:4], rows[4:])
    # A sum over the last dimension is far faster if it is contiguous.
    return normalize(row.movedim(0, -1).contiguous())


def matrix_from_euler(euler_angles: Tensor, convention: str) -> Tensor:
    """Turn Euler angles (..., 3) in radians into rotation matrices (..., 3, 3).

    Args:
        euler_angles: One angle for each letter of the convention.
        convention: Three axes such as "XYZ". Each turn is about an axis of the frame that the turns
            before it produced.
    """
    letters = tuple(convention)
    if len(letters) != 3 or not set(letters) <= set("XYZ") or letters[1] in letters[::2]:
        raise ValueError(
            f"Euler angles cannot turn about {convention!r}. A convention is three of the letters "
            "X, Y and Z, with no letter twice in a row, for example 'XYZ' or 'ZXZ'."
        )
    axes = torch.eye(3, device=euler_angles.device, dtype=euler_angles.dtype)
    first, second, third = (
        quat_from_angle_axis(angle, axes["XYZ".index(letter)])
        for letter, angle in zip(letters, euler_angles.unbind(-1), strict=True)
    )
    return matrix_from_quat(quat_mul(quat_mul(first, second), third))


def quat_box_minus(q1: Tensor, q2: Tensor) -> Tensor:
    """Return the rotation vector (..., 3), in the world frame, that takes q2 to q1."""
    return axis_angle_from_quat(quat_mul(q1, quat_conjugate(q2)))


def quat_box_plus(q: Tensor, delta: Tensor) -> Tensor:
    """Rotate rotations (..., 4) further by rotation vectors (..., 3) in the world frame.

    The inverse of `quat_box_minus`, exact for tiny vectors too. The result has w >= 0.
    """
    angle = torch.linalg.vector_norm(delta, dim=-1)
    return quat_unique(quat_mul(quat_from_angle_axis(angle, delta), q))


def quat_slerp(q1: Tensor, q2: Tensor, tau: float | Tensor) -> Tensor:
    """Interpolate between two rotations at constant speed, the short way round.

    Args:
        q1: Unit quaternions (..., 4) to start from.
        q2: Unit quaternions (..., 4) to end at; the result there may be their negative.
        tau: How far to go, from 0 to 1: a number, or one for each rotation (...).
    """
    tau = tau.unsqueeze(-1) if isinstance(tau, Tensor) else tau
    q2 = torch.where((q1 * q2).sum(-1, keepdim=True) < 0, -q2, q2)
    # Half the angle between the two, from the diagonals of their rhombus: exact if small, too.
    across = torch.linalg.vector_norm(q2 - q1, dim=-1, keepdim=True)
    along = torch.linalg.vector_norm(q2 + q1, dim=-1, keepdim=True)
    angle = torch.atan2(across, along) * (2 / math.pi)
    # Ratios of sines, written so that nothing divides by zero; the angle is at most a quarter turn.
    whole = torch.sinc(angle)
    weight1 = torch.sinc((1 - tau) * angle) / whole * (1 - tau)
    weight2 = torch.sinc(tau * angle) / whole * tau
    return weight1 * q1 + weight2 * q2


def quat_error_magnitude(q1: Tensor, q2: Tensor) -> Tensor:
    """Return the angle (...) between two rotations, in radians from 0 to pi."""
    diff = quat_mul(q1, quat_conjugate(q2))
    length = torch.linalg.vector_norm(diff[..., 1:], dim=-1)
    return 2 * torch.atan2(length, diff[..., 0].abs())


def default_orientation(num: int, device: str) -> Tensor:
    """Return copies of the identity quaternion: (num, 4)."""
    quat = torch.zeros(num, 4, device=device)
    quat[:, 0] = 1.0
    return quat


def random_orientation(num: int, device: str) -> Tensor:
    """Draw rotations (num, 4), all equally likely, with torch's global generator."""
    return normalize(torch.randn(num, 4, device=device))


def random_yaw_orientation(num: int, device: str) -> Tensor:
    """Draw turns about the z axis (num, 4), all equally likely, with torch's global generator."""
    half = math.pi * torch.rand(num, device=device)
    zero = torch.zeros_like(half)
    return torch.stack((torch.cos(half), zero, zero, torch.sin(half)), dim=-1)


def sample_uniform(
    lower: Tensor | float, upper: Tensor | float, size: int | tuple[int, ...], device: str
) -> Tensor:
    """Draw from [lower, upper) with torch's global generator."""
    return torch.rand(size, device=device) * (upper - lower) + lower


def sample_log_uniform(
    lower: Tensor | float, upper: Tensor | float, size: int | tuple[int, ...], device: str
) -> Tensor:
    """Draw from [lower, upper), both positive, uniformly in the logarithm."""
    low = torch.as_tensor(lower, dtype=torch.float32, device=device).log()
    high = torch.as_tensor(upper, dtype=torch.float32, device=device).log()
    return sample_uniform(low, high, size, device).exp()


def sample_gaussian(
    mean: Tensor | float, std: Tensor | float, size: int | tuple[int, ...], device: str
) -> Tensor:
    """Draw from a normal distribution with torch's global generator."""
    return torch.randn(size, device=device) * std + mean


def sample_triangle(lower: float, upper: float, size: int | tuple[int, ...], device: str) -> Tensor:
    """Draw from [lower, upper], the more likely the farther from the middle, which is never drawn.

    The density grows in proportion to the distance from the middle: two triangles, as in mjlab.
    """
    spread = 2 * torch.rand(size, device=device) - 1
    spread = spread.sign() * spread.abs().sqrt()
    return lower + (upper - lower) * (spread + 1) / 2


def sample_cylinder(
    radius: float, h_range: tuple[float, float], size: int | tuple[int, ...], device: str
) -> Tensor:
    """Draw points (*size, 3) on the side of a cylinder about the z axis, all equally likely."""
    angle = 2 * math.pi * torch.rand(size, device=device)
    height = sample_uniform(*h_range, size, device)
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle), height), dim=-1)
