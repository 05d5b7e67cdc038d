"""Motions: what a robot's joints and bodies do over time, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mjlab_rec.utils.math import normalize, quat_slerp
from mjlab_rec.utils.string import nearest

MIN_FRAMES = 3
"""Frames without which there is no velocity in the middle of a motion."""

ARRAYS = (
    "joint_pos",
    "joint_vel",
    "body_pos_w",
    "body_quat_w",
    "body_lin_vel_w",
    "body_ang_vel_w",
)
"""The arrays of a motion file, one row per frame."""

_UNIT_TOLERANCE = 1e-2


class MotionError(ValueError):
    """A motion, or a file of one, that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What all joints and bodies of a robot do, frame by frame, about the world's origin."""

    fps: float
    """Frames per second."""
    joint_names: tuple[str, ...]
    """Names of the joints, without that of the floating base."""
    body_names: tuple[str, ...]
    """Names of the bodies."""
    joint_pos: Tensor
    """Positions of the joints (frames, joints)."""
    joint_vel: Tensor
    """Velocities of the joints (frames, joints)."""
    body_pos_w: Tensor
    """Positions of the bodies (frames, bodies, 3)."""
    body_quat_w: Tensor
    """Orientations of the bodies, (w, x, y, z) (frames, bodies, 4)."""
    body_lin_vel_w: Tensor
    """Linear velocities of the bodies (frames, bodies, 3)."""
    body_ang_vel_w: Tensor
    """Angular velocities of the bodies (frames, bodies, 3)."""

    def __post_init__(self) -> None:
        """Raise MotionError for arrays that do not fit together."""
        frames, joints, bodies = len(self), len(self.joint_names), len(self.body_names)
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise MotionError(f"A motion's fps must be a positive number, got {self.fps}.")
        if frames < MIN_FRAMES:
            raise MotionError(
                f"The motion is too short: it has {frames} frames, but needs {MIN_FRAMES}."
            )
        for name in ARRAYS:
            width = (joints,) if name.startswith("joint") else (bodies, 4 if "quat" in name else 3)
            value = getattr(self, name)
            if tuple(value.shape) != (frames, *width):
                what = "joints" if name.startswith("joint") else "bodies"
                raise MotionError(
                    f"'{name}' has the shape {tuple(value.shape)}, but {frames} frames of"
                    f" {width[0]} {what} need {(frames, *width)}."
                )
            if not value.isfinite().all():
                frame = int((~value.isfinite().flatten(1).all(dim=1)).nonzero()[0])
                raise MotionError(f"'{name}' has a number that is not finite, in frame {frame}.")
        check_unit(self.body_quat_w, "'body_quat_w'")

    def __len__(self) -> int:
        return len(self.joint_pos)

    @property
    def time_step_total(self) -> int:
        """Number of frames."""
        return len(self)

    @property
    def duration_s(self) -> float:
        """Time from the first frame to the last, in seconds."""
        return (len(self) - 1) / self.fps

    def resampled(self, fps: float) -> Motion:
        """Return the motion with another number of frames per second.

        Positions and velocities are interpolated linearly, rotations at constant speed.
        """
        if abs(fps - self.fps) < 1e-6 * fps:
            return self
        # As many frames as fit; the tolerance keeps a last frame that rounding would cut off.
        count = int(self.duration_s * fps + 1e-6) + 1
        place = torch.arange(count, dtype=torch.float64) * (self.fps / fps)
        first = place.long().clamp_(max=len(self) - 2)
        share = (place - first).float()
        arrays: dict[str, Tensor] = {}
        for name in ARRAYS:
            value = getattr(self, name)
            low, high = value[first], value[first + 1]
            if name == "body_quat_w":
                arrays[name] = normalize(quat_slerp(low, high, share[:, None]))
            else:
                arrays[name] = low.lerp(high, share.view(-1, *[1] * (value.ndim - 1)))
        return replace(self, fps=fps, **arrays)

    def cut(self, start_s: float = 0.0, end_s: float | None = None) -> Motion:
        """Return the part between two times, in seconds; None means the end."""
        end = self.duration_s if end_s is None else end_s
        first, last = (round(time * self.fps) for time in (start_s, end))
        if not 0 <= first < last <= len(self) - 1:
            raise MotionError(
                f"The motion takes {self.duration_s:g} s; it has no part from {start_s:g} s to"
                f" {end:g} s."
            )
        return replace(self, **{name: getattr(self, name)[first : last + 1] for name in ARRAYS})

    def of_robot(self, joint_names: Sequence[str], body_names: Sequence[str]) -> Motion:
        """Return the motion with exactly these joints and bodies, in this order."""
        joints = _places(joint_names, self.joint_names, "joint")
        bodies = _places(body_names, self.body_names, "body")
        chosen = {
            name: getattr(self, name)[:, joints if name.startswith("joint") else bodies]
            for name in ARRAYS
        }
        return replace(self, joint_names=tuple(joint_names), body_names=tuple(body_names), **chosen)

    def to(self, device: str | torch.device) -> Motion:
        """Return the motion on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ARRAYS})

    def save(self, path: str | Path) -> None:
        """Write an NPZ file with the arrays that mjlab's motion files have, and the names."""
        arrays = {name: getattr(self, name).cpu().numpy() for name in ARRAYS}
        names = {
            "joint_names": np.array(self.joint_names),
            "body_names": np.array(self.body_names),
        }
        with open(path, "wb") as file:
            np.savez_compressed(file, fps=np.array([self.fps]), **names, **arrays)

    @classmethod
    def load(
        cls, path: str | Path, joint_names: Sequence[str], body_names: Sequence[str]
    ) -> Motion:
        """Read an NPZ file for a robot.

        Args:
            path: The file. Files of mjlab have no names; theirs are in the order of the robot.
            joint_names: The robot's joints, in its order.
            body_names: The robot's bodies, in its order.
        """
        try:
            with np.load(path) as file:
                data: dict[str, Any] = {name: file[name] for name in file.files}
        except (OSError, BadZipFile, ValueError, EOFError) as error:
            raise MotionError(f"Cannot read the motion file '{path}': {error}") from None
        missing = [name for name in ("fps", *ARRAYS) if name not in data]
        if missing:
            raise MotionError(
                f"'{path}' is not a motion file: it has no {', '.join(missing)}. It has:"
                f" {', '.join(data) or 'nothing'}."
            )
        try:
            named = "joint_names" in data and "body_names" in data
            motion = cls(
                fps=float(np.ravel(data["fps"])[0]),
                joint_names=tuple(map(str, data["joint_names"] if named else joint_names)),
                body_names=tuple(map(str, data["body_names"] if named else body_names)),
                **{name: torch.tensor(data[name], dtype=torch.float32) for name in ARRAYS},
            )
            return motion.of_robot(joint_names, body_names)
        except (MotionError, TypeError, IndexError) as error:
            raise MotionError(f"The motion file '{path}': {error}") from None


def check_unit(quat: Tensor, what: str) -> None:
    """Raise MotionError unless quaternions (frames, ..., 4) have the length one."""
    error = (quat.norm(dim=-1) - 1.0).abs().view(len(quat), -1).amax(dim=1)
    if error.max() > _UNIT_TOLERANCE:
        frame = int(error.argmax())
        raise MotionError(
            f"{what} has quaternions that are no rotations: in frame {frame} the length differs"
            f" from 1 by {error[frame]:.3g}."
        )


def _places(wanted: Sequence[str], known: Sequence[str], kind: str) -> list[int]:
    """Positions of names; each must be there, and none may be left over of joints."""
    missing = [name for name in wanted if name not in known]
    if missing:
        raise MotionError(
            f"the motion has no {kind} '{missing[0]}' ({len(missing)} of {len(wanted)} are"
            f" missing). {nearest(missing[0], known)}"
        )
    more = [name for name in known if name not in wanted]
    if kind == "joint" and more:
        raise MotionError(
            f"the motion has a joint '{more[0]}' ({len(more)} too many) that the robot does not"
            f" have. {nearest(more[0], wanted)}"
        )
    return [list(known).index(name) for name in wanted]
