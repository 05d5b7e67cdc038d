"""Motions from files of several kinds: motion files, tables of positions, and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mjlab_rec.data import open_rollouts
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.entity import EntityCfg
from mjlab_rec.utils.math import convert_quat, quat_apply
from mjlab_rec.utils.string import nearest
from tasks.tracking.examples import EXAMPLES
from tasks.tracking.kinematics import Robot
from tasks.tracking.motion import Motion, MotionError

_ENTITY_CHANNELS = ("root_link_pose_w", "root_link_vel_w", "joint_pos", "joint_vel")


def load_motion(
    source: str | Path, robot: EntityCfg, *, csv_fps: float = 30.0, episode: int = 0
) -> Motion:
    """Return the motion that a name or a file stands for.

    Args:
        source: The name of an example, such as "squat", or a path: an NPZ motion file, a CSV table
            of positions, or a recording, in any format.
        robot: The robot that moves.
        csv_fps: Frames per second of a CSV table.
        episode: Which episode of a recording: its row in ``rollouts.episodes``.
    """
    kinematics = Robot(robot)
    path = Path(source)
    if str(source) in EXAMPLES:
        return EXAMPLES[str(source)](kinematics)
    if not path.exists():
        raise MotionError(
            f"There is no motion '{source}': neither a file nor an example."
            f" {nearest(str(source), list(EXAMPLES))}"
        )
    if path.is_file() and _has_bodies(path):
        return Motion.load(path, kinematics.joint_names, kinematics.body_names)
    if path.suffix.lower() == ".csv" and _is_headless(path):
        return motion_from_csv(path, kinematics, csv_fps)
    try:
        rollouts = open_rollouts(path)
    except DataError as error:
        raise MotionError(
            f"'{path}' is neither a motion file, nor a CSV table of numbers without header, nor a"
            f" recording. {error}"
        ) from None
    with rollouts:
        return motion_from_rollout(rollouts, kinematics, episode)


def motion_from_csv(path: str | Path, robot: Robot, fps: float = 30.0) -> Motion:
    """Read a table without header: root position (3), quaternion (x, y, z, w), joint positions.

    This is the format in which motions are usually retargeted to robots, LAFAN1's for example.
    """
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise MotionError(f"'{path}' is not a table of numbers: {error}") from None
    wanted = 7 + len(robot.joint_names)
    if table.size == 0 or table.shape[1] != wanted:
        raise MotionError(
            f"'{path}' has {table.shape[1] if table.size else 0} columns, but {wanted} are needed:"
            " root position (3), root quaternion (x, y, z, w), and the positions of the joints"
            f" {', '.join(robot.joint_names)}."
        )
    values = torch.from_numpy(table)
    quat = convert_quat(values[:, 3:7], to="wxyz")
    try:
        return robot.motion(fps, values[:, :3], quat, values[:, 7:])
    except MotionError as error:
        raise MotionError(f"'{path}': {error}") from None


def motion_from_rollout(
    rollouts: Rollouts,
    robot: Robot,
    episode: int = 0,
    *,
    entity: str = "robot",
    origin: Sequence[float] | None = None,
) -> Motion:
    """Return what a robot did in a recorded episode.

    The recording needs the channel "state", or four of the robot: "entity/robot/root_link_pose_w",
    and likewise "root_link_vel_w", "joint_pos" and "joint_vel".

    Args:
        rollouts: The recording.
        robot: The robot. It must have the joints of the recorded one.
        episode: The episode: its row in ``rollouts.episodes``.
        entity: Name of the robot in the recorded scene.
        origin: Origin of the recorded environment (3). None: below the root in the first row.
    """
    channels = [f"entity/{entity}/{name}" for name in _ENTITY_CHANNELS]
    if all(name in rollouts.channels for name in channels):
        rows = rollouts.read(episode, [*channels, "step"])
        pose, vel, joint_pos, joint_vel = (
            torch.from_numpy(rows[name]).double() for name in channels
        )
        names = rollouts.channels[channels[2]].elements or robot.joint_names
    elif "state" in rollouts.channels:
        rows = rollouts.read(episode, ["state", "step"])
        pose, vel, joint_pos, joint_vel = _from_state(rollouts, rows["state"], robot)
        names = robot.joint_names
    else:
        raise MotionError(
            "The recording does not tell how the robot moved. Record the channel 'state', or"
            f" {', '.join(channels)}. It has: {', '.join(rollouts.channels)}."
        )
    every = rollouts.info.every
    if (np.diff(rows["step"]) != every).any():
        raise MotionError(
            f"Episode {episode} of the recording has gaps, so it is no motion. Choose another one,"
            " or record without a trigger that skips steps."
        )
    if set(names) != set(robot.joint_names):
        odd = sorted(set(names) ^ set(robot.joint_names))
        raise MotionError(
            f"The recorded robot has other joints than this one: they differ in {', '.join(odd)}."
        )
    order = [list(names).index(name) for name in robot.joint_names]
    start = pose[0, :3] * torch.tensor([1.0, 1.0, 0.0])
    place = start if origin is None else torch.tensor(origin, dtype=torch.float64)
    return robot.motion(
        1.0 / (rollouts.info.step_dt * every),
        pose[:, :3] - place,
        pose[:, 3:],
        joint_pos[:, order],
        velocity=(vel[:, :3], vel[:, 3:], joint_vel[:, order]),
    )


def _from_state(
    rollouts: Rollouts, state: np.ndarray, robot: Robot
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pose and velocity of the root, and those of the joints, of the only thing that moves."""
    elements = rollouts.channels["state"].elements
    qpos, qvel = (
        torch.from_numpy(state[:, [i for i, e in enumerate(elements) if e.startswith(field)]])
        for field in ("qpos.", "qvel.")
    )
    joints = len(robot.joint_names)
    if qpos.shape[1] != 7 + joints or qvel.shape[1] != 6 + joints:
        raise MotionError(
            f"The recorded scene has {qpos.shape[1]} positions, but the robot alone has"
            f" {7 + joints}. If other things move in the scene, record the robot's channels"
            f" {', '.join(_ENTITY_CHANNELS)} as 'entity/robot/...' instead of 'state'."
        )
    pose, vel = qpos[:, :7].double(), qvel[:, :6].double()
    # MuJoCo has the angular velocity of a free joint in the frame of its body.
    vel = torch.cat((vel[:, :3], quat_apply(pose[:, 3:], vel[:, 3:])), dim=1)
    return pose, vel, qpos[:, 7:].double(), qvel[:, 6:].double()


def _has_bodies(path: Path) -> bool:
    """Whether a file is a motion file, rather than a recording in NPZ files."""
    try:
        with np.load(path) as file:
            return "body_pos_w" in getattr(file, "files", ())
    except (OSError, BadZipFile, ValueError, EOFError):
        return False


def _is_headless(path: Path) -> bool:
    """Whether a CSV file begins with numbers, rather than with the names that a recording has."""
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline().split(",")[0].strip()
    try:
        float(first)
    except ValueError:
        return not first
    return True
