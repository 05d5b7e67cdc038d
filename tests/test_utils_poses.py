"""Ranges, poses as matrices and camera geometry against plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mjlab_rec.utils import camera_geometry as camera
from mjlab_rec.utils import frames, poses, ranges
from mjlab_rec.utils.math import (
    convert_quat,
    matrix_from_quat,
    random_orientation,
    sample_cylinder,
    sample_triangle,
    skew_symmetric_matrix,
)

N = 6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


def rotations(n: int = N) -> torch.Tensor:
    return matrix_from_quat(random_orientation(n, "cpu"))


def close(actual: torch.Tensor, expected: object, tol: float = 1e-5) -> None:
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), rtol=tol, atol=tol)


# Ranges.


def test_ranges_map_their_ends() -> None:
    low, high = torch.tensor([0.0, -2.0]), torch.tensor([1.0, 6.0])
    close(ranges.scale_transform(torch.stack((low, high)), low, high), [[-1, -1], [1, 1]])
    x = torch.randn(N, 2)
    close(ranges.unscale_transform(ranges.scale_transform(x, low, high), low, high), x)
    close(ranges.saturate(x, low, high), np.clip(x.numpy(), low.numpy(), high.numpy()))
    close(ranges.copysign(-2.0, torch.tensor([3.0, -1.0, -0.0])), [2.0, -2.0, -2.0])


def test_quaternions_change_their_order_and_back() -> None:
    q = torch.arange(8.0).view(2, 4)
    close(convert_quat(q), [[1, 2, 3, 0], [5, 6, 7, 4]])
    assert (convert_quat(convert_quat(q.numpy()), to="wxyz") == q.numpy()).all()
    with pytest.raises(ValueError, match="shape"):
        convert_quat(q[:, :3])
    with pytest.raises(ValueError, match="Unknown order"):
        convert_quat(q, to="wzyx")  # type: ignore[arg-type]


def test_a_skew_symmetric_matrix_is_a_cross_product() -> None:
    a, b = torch.randn(N, 3), torch.randn(N, 3)
    product = (skew_symmetric_matrix(a) @ b[..., None])[..., 0]
    close(product, np.cross(a.numpy(), b.numpy()))
    assert skew_symmetric_matrix(a[0]).shape == (1, 3, 3)


def test_samples_lie_where_they_should() -> None:
    points = sample_cylinder(2.0, (-1.0, 3.0), (50, 40), "cpu")
    assert points.shape == (50, 40, 3)
    close(points[..., :2].norm(dim=-1), np.full((50, 40), 2.0))
    close(points[..., 2].mean(), 1.0, tol=0.1)
    drawn = sample_triangle(-1.0, 3.0, 4000, "cpu")
    assert drawn.min() >= -1.0 and drawn.max() <= 3.0
    # The density grows linearly from the middle, so half of it is beyond sqrt(1/2) of the way.
    close(((drawn - 1).abs() > 2 * math.sqrt(0.5)).float().mean(), 0.5, tol=0.03)


# Poses.


def matrix(pos: torch.Tensor, rot: torch.Tensor) -> np.ndarray:
    out = np.tile(np.eye(4), (len(pos), 1, 1))
    out[:, :3, :3], out[:, :3, 3] = rot.numpy(), pos.numpy()
    return out


def test_poses_are_homogeneous_matrices() -> None:
    pos, rot = torch.randn(N, 3), rotations()
    pose = poses.make_pose(pos, rot)
    close(pose, matrix(pos, rot))
    assert all(map(torch.equal, poses.unmake_pose(pose), (pos, rot)))
    close(poses.pose_inv(pose), np.linalg.inv(pose.numpy()), tol=1e-4)
    other = poses.make_pose(torch.randn(N, 3), rotations())
    close(poses.pose_in_A_to_pose_in_B(pose, other), other.numpy() @ pose.numpy(), tol=1e-4)
    a, b = other[0], other[1]
    moved = poses.transform_poses_from_frame_A_to_frame_B(pose, a, b)
    close(moved, a.numpy() @ np.linalg.inv(b.numpy()) @ pose.numpy(), tol=1e-4)


def test_poses_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3, 3\)"):
        poses.make_pose(torch.zeros(2, 3), torch.eye(3))


@pytest.mark.parametrize("axis_angle", [True, False])
@pytest.mark.parametrize("angle", [0.0, 0.01, 1.0, 3.0])
def test_rotations_turn_at_constant_speed(axis_angle: bool, angle: float) -> None:
    start = rotations(1)[0]
    c, s = math.cos(angle), math.sin(angle)
    end = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ start
    path = poses.interpolate_rotations(start, end, 5, axis_angle)
    assert path.shape == (6, 3, 3)
    for i, step in enumerate(path):
        c, s = math.cos(angle * i / 5), math.sin(angle * i / 5)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        close(step, turn @ start.numpy(), tol=2e-5)


def test_paths_include_both_ends() -> None:
    start, end = poses.make_pose(torch.randn(2, 3), rotations(2))
    path, between = poses.interpolate_poses(start, end, num_steps=3)
    assert between == 3 and path.shape == (5, 4, 4)
    close(path[:, :3, 3], np.linspace(start[:3, 3].numpy(), end[:3, 3].numpy(), 5))
    close(path[0], start)
    close(path[-1], end)
    direct, none = poses.interpolate_poses(start, end, num_steps=0)
    assert none == 0 and torch.equal(direct, torch.stack((start, end)))
    length = float((end - start)[:3, 3].norm())
    assert poses.interpolate_poses(start, end, step_size=length / 7.5)[1] == 8
    shaken = poses.interpolate_poses(start, end, num_steps=20, perturb=True)[0]
    assert not torch.equal(shaken, poses.interpolate_poses(start, end, num_steps=20)[0])
    for wrong in ({}, {"num_steps": 2, "step_size": 0.1}):
        with pytest.raises(ValueError, match="either num_steps or step_size"):
            poses.interpolate_poses(start, end, **wrong)
    with pytest.raises(ValueError, match="is no path"):
        poses.interpolate_poses(start, start, step_size=0.1)


def test_random_poses_are_poses_within_the_boundary() -> None:
    for _ in range(20):
        pose = poses.generate_random_transformation_matrix(0.5, 0.1)
        close(pose[:3, :3] @ pose[:3, :3].T, np.eye(3))
        assert pose[:3, 3].abs().max() <= 0.5 and (pose[3] == torch.tensor([0.0, 0, 0, 1])).all()
        assert torch.arccos((pose[:3, :3].trace() - 1) / 2) <= 0.1 * math.sqrt(3) + 1e-3


# Frames.


def test_identity_poses() -> None:
    none = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(N, 1)
    assert frames.is_identity_pose(torch.zeros(N, 3), none)
    assert not frames.is_identity_pose(torch.ones(N, 3), none)
    assert not frames.is_identity_pose(torch.zeros(N, 3), random_orientation(N, "cpu"))


def test_velocity_of_another_point_of_a_body() -> None:
    v, w, t = torch.randn(3, N, 3)
    q = random_orientation(N, "cpu")
    back = np.swapaxes(matrix_from_quat(q).numpy(), 1, 2)
    linear, angular = frames.rigid_body_twist_transform(v, w, t, q)
    point = v.numpy() + np.cross(w.numpy(), t.numpy())
    close(linear, (back @ point[..., None])[..., 0])
    close(angular, (back @ w.numpy()[..., None])[..., 0])


def test_points_are_rotated_and_then_moved() -> None:
    points, pos, q = torch.randn(N, 5, 3), torch.randn(N, 3), random_orientation(N, "cpu")
    turned = np.einsum("nij,npj->npi", matrix_from_quat(q).numpy(), points.numpy())
    close(frames.transform_points(points, pos, q), turned + pos.numpy()[:, None])
    close(frames.transform_points(points, quat=q), turned)
    close(frames.transform_points(points, pos), points + pos[:, None])
    single = frames.transform_points(points[0], pos[0], q[0])
    close(single, turned[0] + pos[0].numpy())
    assert frames.transform_points(points[0], pos, q).shape == (N, 5, 3)
    for wrong in ((points[0, 0],), (points, pos[None]), (points, pos, q[None])):
        with pytest.raises(ValueError, match="must be"):
            frames.transform_points(*wrong)


# Cameras.

INTRINSICS = torch.tensor([[120.0, 0.0, 15.0], [0.0, 100.0, 9.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (N, 8, 6), (N, 8, 6, 1)])
def test_depth_becomes_points_and_back(shape: tuple[int, ...]) -> None:
    depth = torch.rand(shape) + 1.0
    points = camera.unproject_depth(depth, INTRINSICS)
    batch = shape[:1] if len(shape) > 2 and shape[-1] != 1 or len(shape) == 4 else ()
    assert points.shape == (*batch, 48, 3)
    seen = camera.project_points(points, INTRINSICS)
    u, v = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    close(seen[..., 0], np.broadcast_to(u.ravel(), seen.shape[:-1]), tol=1e-4)
    close(seen[..., 1], np.broadcast_to(v.ravel(), seen.shape[:-1]), tol=1e-4)
    picture = depth.reshape(*batch, 8, 6).transpose(-1, -2).reshape(*batch, 48)
    close(seen[..., 2], picture)
    # The distance of a point from the camera's centre is what a perspective depth image holds.
    distance = points.norm(dim=-1).reshape(*batch, 6, 8).transpose(-1, -2).reshape(shape)
    close(camera.orthogonalize_perspective_depth(distance, INTRINSICS), depth, tol=1e-4)
    close(camera.unproject_depth(distance, INTRINSICS, is_ortho=False), points, tol=1e-4)


def test_each_image_may_have_its_own_calibration() -> None:
    each = INTRINSICS.repeat(N, 1, 1)
    each[:, 0, 0] += torch.arange(N)
    depth = torch.rand(N, 8, 6) + 1.0
    points = camera.unproject_depth(depth, each)
    for i in range(N):
        close(points[i], camera.unproject_depth(depth[i], each[i]))
        close(camera.project_points(points, each)[i], camera.project_points(points[i], each[i]))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(1, 2, 3, 4)])
def test_images_and_calibrations_of_other_shapes_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="Depth images are"):
        camera.unproject_depth(bad, INTRINSICS)
    with pytest.raises(ValueError, match="intrinsics must be"):
        camera.project_points(torch.zeros(2, 3), torch.eye(4))
    with pytest.raises(ValueError, match="points must be"):
        camera.project_points(torch.zeros(2, 4), INTRINSICS)


AXES = {  # Forward and up, in the camera's own axes.
    "opengl": ((0, 0, -1), (0, 1, 0)),
    "ros": ((0, 0, 1), (0, -1, 0)),
    "world": ((1, 0, 0), (0, 0, 1)),
}


@pytest.mark.parametrize("origin", AXES)
@pytest.mark.parametrize("target", AXES)
def test_a_camera_looks_the_same_way_in_all_conventions(origin: str, target: str) -> None:
    q = random_orientation(N, "cpu")
    converted = camera.convert_camera_frame_orientation_convention(q, origin, target)  # type: ignore
    for before, after in zip(AXES[origin], AXES[target], strict=True):
        close(
            matrix_from_quat(converted) @ torch.tensor(after, dtype=torch.float32),
            matrix_from_quat(q) @ torch.tensor(before, dtype=torch.float32),
        )


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown convention 'unity'. Known: opengl"):
        camera.convert_camera_frame_orientation_convention(torch.zeros(1, 4), "unity")  # type: ignore


@pytest.mark.parametrize(("axis", "up"), [("Y", (0.0, 1.0, 0.0)), ("Z", (0.0, 0.0, 1.0))])
def test_a_camera_looks_at_its_target_with_up_being_up(axis: str, up: tuple[float, ...]) -> None:
    eyes, targets = torch.randn(N, 3), torch.randn(N, 3)
    targets[0] = eyes[0] + torch.tensor(up)  # Straight up: any roll will do.
    view = camera.create_rotation_matrix_from_view(eyes, targets, axis)  # type: ignore[arg-type]
    close(view @ view.mT, np.tile(np.eye(3), (N, 1, 1)))
    forward = targets - eyes
    close(-view[..., 2], forward / forward.norm(dim=-1, keepdim=True))
    assert (torch.linalg.det(view) > 0.99).all()
    assert (view[1:, :, 1] @ torch.tensor(up) > 0).all()
    close(view[1:, :, 0] @ torch.tensor(up), np.zeros(N - 1))
