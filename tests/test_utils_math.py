"""Rotation helpers agree with MuJoCo's own and with values worked out by hand."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.utils import math as m

COUNT = 200


@pytest.fixture
def quats() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    p = m.normalize(torch.randn(COUNT, 4))
    q = m.normalize(torch.randn(COUNT, 4))
    # Half turns and the identity are where formulas break.
    p[:4] = torch.eye(4)
    q[:4] = torch.eye(4).flip(0)
    return p, q


def by_mujoco(function, size: int, *inputs: torch.Tensor) -> torch.Tensor:
    """Call a mju_* function row by row."""
    rows = []
    for row in zip(*(x.double().numpy() for x in inputs), strict=True):
        out = np.zeros(size)
        function(out, *row)
        rows.append(out)
    return torch.tensor(np.array(rows), dtype=torch.float32)


def assert_same_rotation(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close((a * b).sum(-1).abs(), torch.ones(a.shape[:-1]), atol=1e-5, rtol=0)


def test_products_and_inverses_agree_with_mujoco(quats):
    p, q = quats
    close = dict(atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(m.quat_mul(p, q), by_mujoco(mujoco.mju_mulQuat, 4, p, q), **close)
    torch.testing.assert_close(m.quat_conjugate(q), by_mujoco(mujoco.mju_negQuat, 4, q), **close)
    torch.testing.assert_close(m.quat_inv(3 * q), m.quat_conjugate(q) / 3, **close)


def test_rotating_vectors_agrees_with_mujoco(quats):
    _, q = quats
    v = torch.randn(COUNT, 3)
    expected = by_mujoco(lambda out, quat, vec: mujoco.mju_rotVecQuat(out, vec, quat), 3, q, v)
    torch.testing.assert_close(m.quat_apply(q, v), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(m.quat_apply_inverse(q, expected), v, atol=1e-5, rtol=1e-5)


def test_a_quarter_turn_about_z_takes_x_to_y():
    q = m.quat_from_angle_axis(torch.tensor(math.pi / 2), torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(q, torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5]))
    x, y = torch.eye(3)[0], torch.eye(3)[1]
    torch.testing.assert_close(m.quat_apply(q, x), y)
    torch.testing.assert_close(m.quat_apply_inverse(q, y), x)


def test_matrices_agree_with_mujoco_both_ways(quats):
    p, q = quats
    for quat in (p, q):
        expected = by_mujoco(mujoco.mju_quat2Mat, 9, quat).view(-1, 3, 3)
        torch.testing.assert_close(m.matrix_from_quat(quat), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(m.matrix_from_quat(3 * quat), expected, atol=1e-5, rtol=1e-5)
        assert_same_rotation(m.quat_from_matrix(expected), quat)


def test_quaternions_keep_their_digits_whichever_component_is_largest():
    torch.manual_seed(4)
    for size in (1e-4, 0.3):
        for k in range(4):
            quat = m.normalize(torch.eye(4)[k] + size * torch.randn(COUNT, 4))
            back = m.quat_from_matrix(m.matrix_from_quat(quat))
            back *= (back * quat).sum(-1, keepdim=True).sign()
            torch.testing.assert_close(back, quat, atol=1e-6, rtol=0)


def test_rotation_vectors_agree_with_mujoco(quats):
    p, q = quats
    axis = m.normalize(torch.randn(COUNT, 3))
    angle = torch.rand(COUNT) * 2 * math.pi - math.pi
    built = by_mujoco(mujoco.mju_axisAngle2Quat, 4, axis, angle)
    torch.testing.assert_close(m.quat_from_angle_axis(angle, axis), built, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        m.axis_angle_from_quat(built), axis * angle.unsqueeze(-1), atol=1e-5, rtol=1e-5
    )
    # MuJoCo gives the difference in the frame of the first quaternion, we in the world.
    local = by_mujoco(lambda out, a, b: mujoco.mju_subQuat(out, a, b), 3, p, q)[4:]
    p, q = p[4:], q[4:]
    torch.testing.assert_close(m.quat_box_minus(p, q), m.quat_apply(q, local), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        m.quat_error_magnitude(p, q), local.norm(dim=-1), atol=1e-4, rtol=1e-4
    )


def test_turning_on_by_a_rotation_vector_agrees_with_mujoco(quats):
    p, q = quats
    delta = torch.randn(COUNT, 3)
    delta[:3] = torch.tensor([[0.0, 0.0, 0.0], [1e-7, 0.0, 0.0], [0.0, 3.0, 0.0]])

    def turn_on(out, quat, vector):
        out[:] = quat
        mujoco.mju_quatIntegrate(out, vector, 1.0)

    # MuJoCo turns about axes of the body, we about those of the world.
    expected = by_mujoco(turn_on, 4, q, m.quat_apply_inverse(q, delta))
    turned = m.quat_box_plus(q, delta)
    torch.testing.assert_close(turned, m.quat_unique(expected), atol=1e-5, rtol=0)
    assert_same_rotation(m.quat_box_plus(q, m.quat_box_minus(p, q)), p)


def test_the_unique_quaternion_has_a_positive_real_part():
    quat = torch.tensor([[-0.6, 0.8, 0.0, 0.0], [0.6, -0.8, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.6, -0.8, 0.0, 0.0], [0.6, -0.8, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
    assert torch.equal(m.quat_unique(quat), expected)


def test_slerp_turns_evenly_the_short_way(quats):
    p, q = quats
    p, q = p[4:], q[4:]
    between = m.quat_slerp(p, q, 0.3)
    torch.testing.assert_close(between.norm(dim=-1), torch.ones(len(p)), atol=1e-5, rtol=0)
    expected = m.quat_box_plus(p, 0.3 * m.quat_box_minus(q, p))
    assert_same_rotation(between, expected)
    assert torch.equal(m.quat_slerp(p, q, 0.0), p)
    assert_same_rotation(m.quat_slerp(p, q, 1.0), q)
    tau = torch.linspace(0.0, 1.0, len(p))
    each = m.quat_slerp(p, q, tau)
    torch.testing.assert_close(each[57], m.quat_slerp(p[57], q[57], tau[57].item()))


def test_slerp_between_equal_rotations_stays_there():
    quat = torch.tensor([0.6, 0.0, 0.8, 0.0])
    torch.testing.assert_close(m.quat_slerp(quat, quat, 0.4), quat)
    torch.testing.assert_close(m.quat_slerp(quat, -quat, 0.4), quat)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8])
def test_tiny_rotations_keep_their_digits(size):
    vector = torch.tensor([1.0, -2.0, 0.0]) * size
    q = m.quat_from_angle_axis(vector.norm(), vector)
    torch.testing.assert_close(m.axis_angle_from_quat(q), vector, rtol=1e-5, atol=0)
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(
        m.quat_error_magnitude(q, identity), vector.norm(), rtol=1e-5, atol=0
    )
    assert m.axis_angle_from_quat(identity).tolist() == [0.0, 0.0, 0.0]
    assert m.axis_angle_from_quat(-identity).tolist() == [0.0, 0.0, 0.0]


def test_euler_angles_turn_about_fixed_x_then_y_then_z():
    torch.manual_seed(1)
    angles = (torch.rand(COUNT, 3) - 0.5) * torch.tensor([6.2, 3.1, 6.2])
    roll, pitch, yaw = angles.unbind(-1)
    x, y, z = torch.eye(3)
    about = m.quat_from_angle_axis
    expected = m.quat_mul(about(yaw, z), m.quat_mul(about(pitch, y), about(roll, x)))
    quat = m.quat_from_euler_xyz(roll, pitch, yaw)
    torch.testing.assert_close(quat, expected, atol=1e-6, rtol=1e-5)
    back = torch.stack(m.euler_xyz_from_quat(quat), dim=-1)
    torch.testing.assert_close(back, angles, atol=2e-3, rtol=0)
    wrapped = torch.stack(m.euler_xyz_from_quat(quat, wrap_to_2pi=True), dim=-1)
    torch.testing.assert_close(wrapped, back % (2 * math.pi))


@pytest.mark.parametrize("convention", ["XYZ", "ZYX", "ZXZ", "YZX"])
def test_matrices_from_euler_angles_agree_with_mujoco(convention):
    torch.manual_seed(5)
    angles = (torch.rand(COUNT, 3) - 0.5) * 6.2
    # Lower case is MuJoCo's word for axes that move along.
    sequence = convention.lower()
    quat = by_mujoco(lambda out, euler: mujoco.mju_euler2Quat(out, euler, sequence), 4, angles)
    expected = by_mujoco(mujoco.mju_quat2Mat, 9, quat).view(-1, 3, 3)
    matrix = m.matrix_from_euler(angles, convention)
    torch.testing.assert_close(matrix, expected, atol=1e-5, rtol=0)
    batched = m.matrix_from_euler(angles.view(10, 20, 3), convention)
    assert torch.equal(batched.view(-1, 3, 3), matrix)


@pytest.mark.parametrize("convention", ["XY", "xyz", "XXY", "XYZX", "ABC"])
def test_an_impossible_euler_convention_is_named(convention):
    with pytest.raises(ValueError, match=f"about '{convention}'.*for example 'XYZ'"):
        m.matrix_from_euler(torch.zeros(3), convention)


def test_pitch_is_finite_at_the_pole():
    quat = torch.tensor([0.70711, 0.0, 0.70711, 0.0])  # Rounding makes its sine exceed one.
    pitch = m.euler_xyz_from_quat(quat)[1]
    torch.testing.assert_close(pitch, torch.tensor(math.pi / 2))


def test_yaw_quat_keeps_the_heading_only():
    roll, pitch, yaw = torch.tensor(0.3), torch.tensor(-0.4), torch.tensor(2.0)
    quat = m.quat_from_euler_xyz(roll, pitch, yaw)
    expected = torch.tensor([math.cos(1.0), 0.0, 0.0, math.sin(1.0)])
    torch.testing.assert_close(m.yaw_quat(quat), expected)


def test_rotating_by_the_heading_ignores_roll_and_pitch():
    quarter = torch.tensor(math.pi / 2)
    quat = m.quat_from_euler_xyz(torch.tensor(0.3), torch.tensor(-0.4), quarter)
    turned = m.quat_apply_yaw(quat, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(turned, torch.tensor([-2.0, 1.0, 3.0]))


def test_wrap_to_pi_folds_and_keeps_what_is_inside():
    inside = torch.linspace(-3.14, 3.14, 1001)
    assert torch.equal(m.wrap_to_pi(inside), inside)
    limits = torch.tensor([math.pi, -math.pi])
    assert torch.equal(m.wrap_to_pi(limits), limits)
    for turns in (-3, -1, 1, 3):
        folded = m.wrap_to_pi(inside + turns * 2 * math.pi)
        torch.testing.assert_close(folded, inside, atol=1e-5, rtol=0)


def test_leading_dimensions_broadcast(quats):
    p, q = quats
    v = torch.randn(5, COUNT, 3)
    rotated = m.quat_apply(q, v)
    assert rotated.shape == (5, COUNT, 3)
    assert torch.equal(rotated[2], m.quat_apply(q, v[2]))
    assert m.quat_apply(q[:, None], v[0, :1]).shape == (COUNT, 1, 3)
    assert m.quat_apply_inverse(q, v[0, 0]).shape == (COUNT, 3)
    assert torch.equal(m.quat_mul(p[0], q), m.quat_mul(p[:1].expand(COUNT, 4), q))
    assert m.matrix_from_quat(q.view(10, 20, 4)).shape == (10, 20, 3, 3)
    assert m.quat_from_matrix(m.matrix_from_quat(q.view(10, 20, 4))).shape == (10, 20, 4)
    assert m.quat_from_angle_axis(v[..., 0], v[0, 0]).shape == (5, COUNT, 4)


def test_functions_do_not_change_their_inputs(quats):
    p, q = quats
    v = torch.randn(COUNT, 3)
    before = p.clone(), q.clone(), v.clone()
    m.quat_mul(p, q), m.quat_apply(q, v), m.quat_apply_inverse(q, v), m.quat_box_minus(p, q)
    m.quat_slerp(p, q, 0.5), m.quat_box_plus(q, v), m.quat_unique(q), m.quat_apply_yaw(q, v)
    assert all(torch.equal(a, b) for a, b in zip(before, (p, q, v), strict=True))


def test_samples_have_the_asked_shape_and_range():
    torch.manual_seed(2)
    low, high = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 20.0])
    uniform = m.sample_uniform(low, high, (1000, 2), "cpu")
    assert (uniform >= low).all() and (uniform < high).all()
    assert uniform.mean(0).tolist() == pytest.approx([0.5, 15.0], rel=0.05)
    log = m.sample_log_uniform(0.01, 100.0, 1000, "cpu")
    assert log.shape == (1000,)
    assert log.min() >= 0.0099 and log.max() <= 100.1
    assert (log < 1.0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    gaussian = m.sample_gaussian(torch.tensor([0.0, 5.0]), 2.0, (1000, 2), "cpu")
    assert gaussian.mean(0).tolist() == pytest.approx([0.0, 5.0], abs=0.3)
    assert gaussian.std(0).tolist() == pytest.approx([2.0, 2.0], rel=0.1)


def test_samples_repeat_with_the_global_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(m.sample_uniform(-1.0, 1.0, (4, 2), "cpu"))
    assert torch.equal(*draws)


def test_orientations_are_unit_quaternions_spread_evenly():
    torch.manual_seed(6)
    assert m.default_orientation(2, "cpu").tolist() == [[1.0, 0.0, 0.0, 0.0]] * 2
    quat = m.random_orientation(4000, "cpu")
    torch.testing.assert_close(quat.norm(dim=-1), torch.ones(4000))
    # Any direction of the body points anywhere: no mean, and a third of the square on each axis.
    pointed = m.quat_apply(quat, torch.tensor([0.0, 0.0, 1.0]))
    assert pointed.mean(0).tolist() == pytest.approx([0.0, 0.0, 0.0], abs=0.05)
    assert pointed.square().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    roll, pitch, yaw = m.euler_xyz_from_quat(m.random_yaw_orientation(4000, "cpu"), True)
    assert not roll.any() and not pitch.any()
    quarters = torch.bincount((yaw / (math.pi / 2)).long(), minlength=4) / 4000
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.03)
