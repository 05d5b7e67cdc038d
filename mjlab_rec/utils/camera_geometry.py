"""From depth images to points and back, and orientations of cameras.

Intrinsics are calibration matrices (3, 3) or (n, 3, 3); the camera looks along +z, y points down.
Depth images are (h, w), (h, w, 1), (n, h, w) or (n, h, w, 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mjlab_rec.utils.math import quat_conjugate, quat_mul

Convention = Literal["opengl", "ros", "world"]

# Each convention's axes in those of OpenGL, as (w, x, y, z), and back.
_TO_OPENGL: dict[str, tuple[float, float, float, float]] = {
    "opengl": (1.0, 0.0, 0.0, 0.0),
    "ros": (0.0, 1.0, 0.0, 0.0),
    "world": (0.5, 0.5, -0.5, -0.5),
}


def orthogonalize_perspective_depth(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Turn distances from the camera's centre into distances from its image plane."""
    images, (height, width) = _images(depth)
    fx, fy, cx, cy = _parameters(intrinsics)
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    longer = torch.sqrt(1 + ((u - cx) / fx) ** 2 + ((v - cy) / fy) ** 2)
    return (images / longer).view(depth.shape)


def unproject_depth(depth: Tensor, intrinsics: Tensor, is_ortho: bool = True) -> Tensor:
    """Turn depth images into points in the camera's frame, column by column.

    Args:
        depth: Depth images.
        intrinsics: Calibration matrices.
        is_ortho: Whether depth is measured from the image plane; else from the camera's centre.

    Returns:
        Points (h * w, 3), or (n, h * w, 3) for n images.
    """
    if not is_ortho:
        depth = orthogonalize_perspective_depth(depth, intrinsics)
    images, (height, width) = _images(depth)
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)
    pixels = torch.cartesian_prod(u, v)
    pixels = torch.cat((pixels, torch.ones_like(pixels[:, :1])), dim=1)
    rays = pixels @ torch.linalg.inv(intrinsics).transpose(-1, -2)
    rays = rays / rays[..., 2:]
    points = rays * images.transpose(1, 2).reshape(len(images), -1, 1)
    return points if _is_batch(depth) else points.squeeze(0)


def project_points(points: Tensor, intrinsics: Tensor) -> Tensor:
    """Turn points in the camera's frame into pixel coordinates u and v, and depth.

    Args:
        points: Points (p, 3) or (n, p, 3).
        intrinsics: Calibration matrices.

    Returns:
        (u, v, depth) of each point, shaped like the points.
    """
    if points.ndim not in (2, 3) or points.shape[-1] != 3:
        raise ValueError(f"points must be (p, 3) or (n, p, 3), got {tuple(points.shape)}.")
    _parameters(intrinsics)
    seen = points @ intrinsics.transpose(-1, -2)
    return torch.cat((seen[..., :2] / seen[..., 2:], points[..., 2:]), dim=-1)


def convert_camera_frame_orientation_convention(
    orientation: Tensor, origin: Convention = "opengl", target: Convention = "ros"
) -> Tensor:
    """Rotate camera orientations (..., 4) so that the camera looks the same way.

    In "opengl" it looks along -z with y up, in "ros" along z with y down, in "world" along x with z
    up.
    """
    for name in (origin, target):
        if name not in _TO_OPENGL:
            raise ValueError(f"Unknown convention {name!r}. Known: {', '.join(_TO_OPENGL)}.")
    if origin == target:
        return orientation.clone()
    there, back = orientation.new_tensor([_TO_OPENGL[origin], _TO_OPENGL[target]])
    return quat_mul(quat_mul(orientation, there), quat_conjugate(back))


def create_rotation_matrix_from_view(
    eyes: Tensor, targets: Tensor, up_axis: Literal["Y", "Z"] = "Z", device: str = "cpu"
) -> Tensor:
    """Return orientations (n, 3, 3) of OpenGL cameras at ``eyes`` that look at ``targets``.

    Args:
        eyes: Positions of the cameras (n, 3).
        targets: Points to look at (n, 3).
        up_axis: Axis of the world that is up in the picture.
        device: Device of the result.
    """
    if up_axis not in ("Y", "Z"):
        raise ValueError(f"Unknown up axis {up_axis!r}. Known: Y, Z.")
    eyes, targets = eyes.to(device), targets.to(device)
    axes = torch.eye(3, dtype=eyes.dtype, device=device)
    up, other = (axes[1], axes[2]) if up_axis == "Y" else (axes[2], axes[1])
    back = normalize(eyes - targets, dim=-1, eps=1e-5)
    # A camera that looks straight up or down has no up direction of its own.
    steep = (back @ up).abs()[..., None] > 1 - 1e-5
    right = torch.where(steep, other, up).cross(back, dim=-1)
    right = normalize(right, dim=-1, eps=1e-5)
    return torch.stack((right, back.cross(right, dim=-1), back), dim=-1)


def _is_batch(depth: Tensor) -> bool:
    return depth.ndim == 4 or (depth.ndim == 3 and depth.shape[-1] != 1)


def _images(depth: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return depth as (n, h, w), and (h, w)."""
    if depth.ndim not in (2, 3, 4) or (depth.ndim == 4 and depth.shape[-1] != 1):
        raise ValueError(
            "Depth images are (h, w), (h, w, 1), (n, h, w) or (n, h, w, 1), got"
            f" {tuple(depth.shape)}."
        )
    images = (
        depth.squeeze(-1) if depth.ndim == 4 or not _is_batch(depth) and depth.ndim == 3 else depth
    )
    images = images if images.ndim == 3 else images[None]
    return images, (images.shape[1], images.shape[2])


def _parameters(intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return focal lengths and centre (fx, fy, cx, cy), each (n, 1, 1)."""
    if intrinsics.ndim not in (2, 3) or intrinsics.shape[-2:] != (3, 3):
        raise ValueError(f"intrinsics must be (3, 3) or (n, 3, 3), got {tuple(intrinsics.shape)}.")
    k = intrinsics.view(-1, 3, 3)[:, None, None]
    return k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]
