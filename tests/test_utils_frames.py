"""Frames combine as MuJoCo's poses do, and errors between poses undo what leads to them."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.utils import frames as f
from mjlab_rec.utils import math as m

COUNT = 50


@pytest.fixture
def poses() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    quats = m.random_orientation(2 * COUNT, "cpu")
    return torch.randn(COUNT, 3), quats[:COUNT], torch.randn(COUNT, 3), quats[COUNT:]


def close(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=0)


def test_combining_frames_agrees_with_mujoco(poses):
    t02, q02 = f.combine_frame_transforms(*poses)
    rows = zip(*(x.double().numpy() for x in poses), strict=True)
    for i, (t01, q01, t12, q12) in enumerate(rows):
        pos, quat = np.zeros(3), np.zeros(4)
        mujoco.mju_mulPose(pos, quat, t01, q01, t12, q12)
        np.testing.assert_allclose(t02[i], pos, atol=1e-5)
        np.testing.assert_allclose(q02[i], quat, atol=1e-5)


def test_subtracting_frames_undoes_combining(poses):
    t01, q01, t12, q12 = poses
    t02, q02 = f.combine_frame_transforms(t01, q01, t12=t12, q12=q12)
    close(f.subtract_frame_transforms(t01, q01, t02=t02, q02=q02), (t12, q12))


def test_a_part_that_is_not_given_is_that_of_the_frame_before(poses):
    t01, q01, t12, q12 = poses
    none, identity = torch.zeros(COUNT, 3), m.default_orientation(COUNT, "cpu")
    combine, subtract = f.combine_frame_transforms, f.subtract_frame_transforms
    close(combine(t01, q01, t12), combine(t01, q01, t12, identity))
    close(combine(t01, q01, q12=q12), combine(t01, q01, none, q12))
    close(subtract(t01, q01, t12), subtract(t01, q01, t12, identity))
    close(subtract(t01, q01, q02=q12), subtract(t01, q01, none, q12))


def test_frames_are_new_tensors(poses):
    t01, q01, t12, _ = poses
    before = q01.clone()
    f.combine_frame_transforms(t01, q01, t12)[1].zero_()
    f.subtract_frame_transforms(t01, q01, t12)[1].zero_()
    assert torch.equal(q01, before)


def test_one_frame_serves_many_points(poses):
    t01, q01, t12, _ = poses
    points = torch.randn(COUNT, 7, 3)
    moved, _ = f.subtract_frame_transforms(t01[:, None], q01[:, None], points)
    close((moved[:, 4],), f.subtract_frame_transforms(t01, q01, points[:, 4])[:1])


def test_the_error_between_poses_leads_from_one_to_the_other(poses):
    t01, q01, t02, q02 = poses
    shift, turn = f.compute_pose_error(t01, q01, t02, q02)
    pos, rot = f.apply_delta_pose(t01, q01, delta_pose=torch.cat((shift, turn), dim=-1))
    close((pos, m.quat_unique(rot)), (t02, m.quat_unique(q02)))
    shift, turn = f.compute_pose_error(t01, q01, t02, q02, rot_error_type="quat")
    close((t01 + shift, m.quat_mul(turn, q01)), (t02, q02))


def test_a_pose_error_by_hand_is_in_the_frame_that_both_are_in():
    s = 0.5**0.5
    t01, t02 = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 3.5]])
    q01, q02 = torch.tensor([[s, 0.0, 0.0, s]]), torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    shift, turn = f.compute_pose_error(t01, q01, t02, q02)
    close(
        (shift, turn), (torch.tensor([[0.0, -2.0, 0.5]]), torch.tensor([[0.0, torch.pi / 2, 0.0]]))
    )


def test_no_turn_keeps_the_orientation_and_its_sign():
    quat = torch.tensor([[-0.6, 0.0, -0.8, 0.0]])
    pos, rot = f.apply_delta_pose(torch.zeros(1, 3), quat, torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    close((pos, rot), (torch.tensor([[1.0, 0.0, 0.0]]), quat))


def test_an_unknown_kind_of_error_is_named(poses):
    with pytest.raises(ValueError, match="'euler'; it must be 'axis_angle' or 'quat'"):
        f.compute_pose_error(*poses, rot_error_type="euler")  # type: ignore[arg-type]
