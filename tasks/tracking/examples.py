"""Motions by formula: examples that need no files, for robots with the joints of the biped."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mjlab_rec.utils.string import nearest
from tasks.tracking.kinematics import Robot
from tasks.tracking.motion import Motion, MotionError

FPS = 50.0
"""Frames per second of the examples: the control rate of the task."""

_FEET = ("left_foot", "right_foot")
_STANCE = {
    "hip_pitch": -0.3,
    "knee": 0.65,
    "ankle_pitch": -0.35,
    "shoulder_pitch": 0.2,
    "elbow": 0.9,
}


def squat(robot: Robot) -> Motion:
    """Go down and up three times, with the arms swinging forward. 8 s."""
    time = _time(8.0)
    depth = _fade(time, 8.0) * 0.5 * (1.0 - torch.cos(2.0 * math.pi * time / 2.4))
    pose = _stance(robot, time)
    for side in ("left", "right"):
        _bend(robot, pose, side, 0.42 * depth)
        _add(robot, pose, f"{side}_shoulder_pitch", -1.0 * depth)
    return _standing_on(robot, pose, left_share=torch.full_like(time, 0.5))


def wave(robot: Robot) -> Motion:
    """Raise the right arm, wave with it, and look left and right. 6 s."""
    time = _time(6.0)
    raised = _fade(time, 6.0, ramp_s=1.5)
    pose = _stance(robot, time)
    _add(robot, pose, "right_shoulder_pitch", -0.9 * raised)
    _add(robot, pose, "right_shoulder_roll", -1.3 * raised)
    _add(robot, pose, "right_shoulder_yaw", 0.4 * raised * torch.sin(2.0 * math.pi * time))
    _add(robot, pose, "right_elbow", -0.6 * raised)
    _add(robot, pose, "waist_yaw", 0.25 * raised * torch.sin(math.pi * time / 1.5))
    return _standing_on(robot, pose, left_share=torch.full_like(time, 0.5))


def step(robot: Robot) -> Motion:
    """Step in place: shift the weight from foot to foot, and lift the free one. 9.6 s."""
    time, period = _time(9.6), 2.4
    sway = _fade(time, 9.6, ramp_s=1.2) * torch.sin(2.0 * math.pi * time / period)
    pose = _stance(robot, time)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        # The weight is on the left where sway is positive, and the other foot leaves the ground
        # only where the weight has left it.
        lift = (-sign * sway - 0.5).clamp(min=0.0) / 0.5
        _bend(robot, pose, side, 0.35 * lift.square())
        _add(robot, pose, f"{side}_hip_roll", -0.16 * sway)
        _add(robot, pose, f"{side}_ankle_roll", 0.16 * sway)
        _add(robot, pose, f"{side}_shoulder_pitch", sign * 0.25 * sway)
    # The foot that carries the weight stays where it is.
    return _standing_on(robot, pose, left_share=(sway > 0).double())


EXAMPLES: dict[str, Callable[[Robot], Motion]] = {"squat": squat, "wave": wave, "step": step}
"""The examples, by name."""


def _time(duration_s: float) -> Tensor:
    return torch.arange(round(duration_s * FPS) + 1, dtype=torch.float64) / FPS


def _fade(time: Tensor, duration_s: float, ramp_s: float = 0.8) -> Tensor:
    """Rise smoothly from 0 to 1 at the beginning, and fall to 0 at the end."""
    edge = torch.minimum(time, duration_s - time).div(ramp_s).clamp(0.0, 1.0)
    return edge * edge * (3.0 - 2.0 * edge)


def _stance(robot: Robot, time: Tensor) -> Tensor:
    """Stand with bent knees, the initial posture of the biped: (frames, joints)."""
    pose = torch.zeros(len(time), len(robot.joint_names), dtype=torch.float64)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for name, angle in _STANCE.items():
            _add(robot, pose, f"{side}_{name}", torch.full_like(time, angle))
        _add(robot, pose, f"{side}_shoulder_roll", torch.full_like(time, 0.2 * sign))
    return pose


def _add(robot: Robot, pose: Tensor, joint: str, angle: Tensor) -> None:
    name = f"{joint}_joint"
    if name not in robot.joint_names:
        raise MotionError(
            f"The examples need the joint '{name}', which the robot does not have."
            f" {nearest(name, robot.joint_names)}"
        )
    pose[:, robot.joint_names.index(name)] += angle


def _bend(robot: Robot, pose: Tensor, side: str, angle: Tensor) -> None:
    """Bend a knee by twice the angle, with the foot level and below the hip."""
    _add(robot, pose, f"{side}_hip_pitch", -angle)
    _add(robot, pose, f"{side}_knee", 2.0 * angle)
    _add(robot, pose, f"{side}_ankle_pitch", -angle)


def _standing_on(robot: Robot, pose: Tensor, left_share: Tensor) -> Motion:
    """Place the level root so that the left foot, the right one, or their middle does not move."""
    feet = robot.site_pos(pose, _FEET)
    share = torch.stack((left_share, 1.0 - left_share), dim=1)[..., None]
    # In the first frame both feet are on the ground, about the origin.
    root = ((feet[0] - feet[0].mean(dim=0) - feet) * share).sum(dim=1)
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(len(pose), 4)
    return robot.motion(FPS, root, upright, pose)
