"""Shapes that are drawn into a scene to explain it, such as arrows, as plain numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

ARROW, CYLINDER, ELLIPSOID, BOX = range(4)
"""Kinds of shapes. A sphere is an ellipsoid, and a frame three arrows."""

KINDS = ("arrows", "cylinders", "ellipsoids", "boxes")

ALL_ENVS = -1
"""In place of an environment, for shapes that belong to several or to none."""


@dataclass(frozen=True)
class Ghost:
    """A second, see-through picture of a model, in a pose of its own."""

    model: mujoco.MjModel
    """The model, with the colours to draw; geoms of opacity 0 are left out."""

    qpos: np.ndarray
    mocap_pos: np.ndarray | None
    mocap_quat: np.ndarray | None
    alpha: float
    """Opacity, instead of the model's."""

    label: str | None
    env: int
    offset: np.ndarray
    """How far it is drawn from where it is, (3,)."""


@dataclass(frozen=True)
class Shapes:
    """Shapes at one moment, on the host: each is a row of the arrays.

    A shape is a unit shape that is scaled by ``size``, turned by ``mat`` and moved to ``pos``. An
    arrow goes from its origin along z, and its size is twice the radius of its shaft and once its
    length. The others are around their origin, and have half-sizes.
    """

    kind: np.ndarray
    """Index into ``KINDS``, (n,) uint8."""

    env: np.ndarray
    """The environment, or ``ALL_ENVS``, (n,) int32."""

    pos: np.ndarray
    """(n, 3) float32."""

    mat: np.ndarray
    """Rotation matrices, (n, 3, 3) float32."""

    size: np.ndarray
    """(n, 3) float32."""

    rgba: np.ndarray
    """Colours from 0 to 1, (n, 4) float32."""

    labels: tuple[str | None, ...] = ()
    """The label of each shape. No viewer writes them into its picture."""

    ghosts: tuple[Ghost, ...] = ()

    def __len__(self) -> int:
        """Number of shapes, without ghosts."""
        return len(self.kind)

    def chosen(self, which: np.ndarray) -> Shapes:
        """Return some of the shapes, given a mask or indices; and all ghosts."""
        numbers = np.arange(len(self))[which]
        labels = tuple(self.labels[number] for number in numbers) if self.labels else ()
        arrays: dict[str, Any] = {name: getattr(self, name)[which] for name in _ARRAYS}
        return dataclasses.replace(self, **arrays, labels=labels)

    def moved(self, env_ids: Sequence[int], offsets: np.ndarray) -> Shapes:
        """Return them where environments are drawn that are drawn elsewhere than they are.

        Args:
            env_ids: The environments.
            offsets: How far each is moved, (environments, 3).
        """
        if not offsets.any():
            return self
        of = {env: offset.astype(np.float32) for env, offset in zip(env_ids, offsets, strict=True)}
        none = np.zeros(3, np.float32)
        ghosts = [
            dataclasses.replace(ghost, offset=ghost.offset + of.get(ghost.env, none))
            for ghost in self.ghosts
        ]
        known, rows = np.unique(self.env, return_inverse=True)
        pos = self.pos
        if len(known):
            pos = pos + np.stack([of.get(int(env), none) for env in known])[rows]
        return dataclasses.replace(self, pos=pos, ghosts=tuple(ghosts))


_ARRAYS = ("kind", "env", "pos", "mat", "size", "rgba")


def no_shapes() -> Shapes:
    """Return an empty list of shapes."""
    return Shapes(
        np.zeros(0, np.uint8),
        np.zeros(0, np.int32),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3, 3), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 4), np.float32),
    )


def joined(parts: Sequence[Shapes]) -> Shapes:
    """Return the shapes of several lists in one; what is drawn twice in the same way, once."""
    if len(parts) == 1:
        return parts[0]
    parts = [no_shapes(), *parts]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS
    }
    whole = Shapes(
        **arrays,
        labels=tuple(label for part in parts for label in part.labels),
        ghosts=tuple(ghost for part in parts for ghost in part.ghosts),
    )
    looks = np.concatenate(
        [whole.kind[:, None], whole.pos, whole.mat.reshape(-1, 9), whole.size, whole.rgba], axis=1
    )
    _, first = np.unique(looks, axis=0, return_index=True)
    return whole if len(first) == len(whole) else whole.chosen(np.sort(first))


def turns_to(direction: np.ndarray) -> np.ndarray:
    """Return rotation matrices (n, 3, 3) that turn z to unit vectors (n, 3)."""
    x, y, z = direction.T
    # After Duff et al., "Building an Orthonormal Basis, Revisited": exact near both poles.
    sign = np.where(z >= 0.0, 1.0, -1.0)
    a = -1.0 / (sign + z)
    b = x * y * a
    first = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x], axis=-1)
    second = np.stack([b, sign + y * y * a, -y], axis=-1)
    return np.stack([first, second, direction], axis=-1).astype(np.float32)
