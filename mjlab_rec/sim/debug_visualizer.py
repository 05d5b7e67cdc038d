"""The recorder of draw commands that terms, sensors and terrains call."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.sim.debug_shapes import (
    ALL_ENVS,
    ARROW,
    BOX,
    CYLINDER,
    ELLIPSOID,
    Ghost,
    Shapes,
    joined,
    no_shapes,
    turns_to,
)

_AXIS_COLORS = ((0.9, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.9))
_SHORTEST = 1e-6  # A line that is shorter has no direction, and is not drawn.


class DebugVisualizer:
    """Takes draw commands and keeps them as plain numbers, which every viewer can draw.

    Positions are in the world, colours (red, green, blue, opacity) from 0 to 1. All numbers may be
    lists, arrays or tensors on any device, and are copied. Where a position has three numbers, n
    times three draw n shapes in one call. Shapes with a number that is not finite are left out.

    Args:
        env_idx: The environment to draw.
        show_all_envs: Draw all environments instead.
        meansize: Mean size of the model's bodies, to scale what is drawn.
        env_ids: The environments to draw if ``show_all_envs``; None means all.
        hidden: Names of what the environment must not draw, as ``env.debug_vis_sources`` has them.
    """

    def __init__(
        self,
        env_idx: int = 0,
        show_all_envs: bool = False,
        *,
        meansize: float = 0.1,
        env_ids: Sequence[int] | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self.env_idx = env_idx
        self.show_all_envs = show_all_envs
        self.hidden = hidden
        self._meansize = float(meansize)
        self._env_ids = env_ids
        self.clear()

    @property
    def meansize(self) -> float:
        """Mean size of the model's bodies in metres."""
        return self._meansize

    def get_env_indices(self, num_envs: int) -> Sequence[int]:
        """Return the environments to draw, of ``num_envs``."""
        wanted: Sequence[int] = [self.env_idx]
        if self.show_all_envs:
            wanted = range(num_envs) if self._env_ids is None else self._env_ids
        return [env for env in wanted if env < num_envs]

    def add_arrow(
        self, start: Any, end: Any, color: Any, width: Any = 0.015, label: str | None = None
    ) -> None:
        """Draw an arrow from start to end; ``width`` is the radius of its shaft."""
        self._add_line(ARROW, "add_arrow", start, end, width, color, label)

    def add_cylinder(
        self, start: Any, end: Any, radius: Any, color: Any, label: str | None = None
    ) -> None:
        """Draw a cylinder from start to end."""
        self._add_line(CYLINDER, "add_cylinder", start, end, radius, color, label)

    def add_frame(
        self,
        position: Any,
        rotation_matrix: Any,
        scale: float = 0.3,
        label: str | None = None,
        axis_radius: float = 0.01,
        alpha: float = 1.0,
        axis_colors: Any = None,
    ) -> None:
        """Draw the axes of a frame: an arrow each for x, y and z, red, green and blue by default.

        Args:
            position: Its origin.
            rotation_matrix: Its axes, as columns (3, 3).
            scale: Length of the arrows.
            label: Label of the arrows.
            axis_radius: Radius of the arrows' shafts.
            alpha: Opacity.
            axis_colors: Three colours of three numbers.
        """
        where = "add_frame"
        origin = _vectors(position, where, "position")
        axes = _matrices(rotation_matrix, where, "rotation_matrix")
        colors = _AXIS_COLORS if axis_colors is None else axis_colors
        if len(colors) != 3:
            raise ValueError(f"{where}: axis_colors has {len(colors)} colours; x, y and z need 3.")
        for axis, color in enumerate(colors):
            end = origin + axes[:, :, axis] * scale
            rgba = (*_array(color)[:3].tolist(), alpha)
            self._add_line(ARROW, where, origin, end, axis_radius, rgba, label)

    def add_sphere(self, center: Any, radius: Any, color: Any, label: str | None = None) -> None:
        """Draw a sphere."""
        where = "add_sphere"
        size = np.repeat(_array(radius).reshape(-1, 1), 3, axis=1)
        self._add(ELLIPSOID, where, label, color, _vectors(center, where, "center"), size, *_ROUND)

    def add_ellipsoid(
        self, center: Any, size: Any, mat: Any, color: Any, label: str | None = None
    ) -> None:
        """Draw an ellipsoid with these semi-axes, turned by a matrix of 3 x 3 or 9 numbers."""
        self._add_solid(ELLIPSOID, "add_ellipsoid", center, size, mat, color, label)

    def add_box(
        self, center: Any, size: Any, mat: Any, color: Any, label: str | None = None
    ) -> None:
        """Draw a box with these half-sizes, turned by a matrix of 3 x 3 or 9 numbers."""
        self._add_solid(BOX, "add_box", center, size, mat, color, label)

    def add_ghost_mesh(
        self,
        qpos: Any,
        model: mujoco.MjModel,
        mocap_pos: Any = None,
        mocap_quat: Any = None,
        alpha: float = 0.5,
        label: str | None = None,
    ) -> None:
        """Draw the model once more, see-through, in another pose.

        Args:
            qpos: Its positions, (nq,).
            model: The scene's model, or a copy of it with other colours. Geoms of opacity 0 are
                left out, and so are those that cannot move.
            mocap_pos: Positions of its mocap bodies; three numbers are those of the first one.
            mocap_quat: Rotations of its mocap bodies, likewise.
            alpha: Opacity.
            label: Its label.
        """
        values = np.array(_array(qpos), np.float64).reshape(-1)
        if len(values) != model.nq:
            raise ValueError(
                f"add_ghost_mesh: qpos has {len(values)} numbers, but the model has nq={model.nq}."
            )
        pos, quat = _mocap(mocap_pos, 3, model, "pos"), _mocap(mocap_quat, 4, model, "quat")
        if np.isfinite(values).all():
            ghost = Ghost(model, values, pos, quat, float(alpha), label, self._env, np.zeros(3))
            self._ghosts.append(ghost)

    def clear(self) -> None:
        """Forget everything drawn so far."""
        self._commands: list[tuple[Any, ...]] = []
        self._ghosts: list[Ghost] = []

    def shapes(self) -> Shapes:
        """Return what was drawn since the last ``clear``."""
        ghosts = tuple(self._ghosts)
        if not self._commands:
            return dataclasses.replace(no_shapes(), ghosts=ghosts)
        kinds, envs, labels, *parts = zip(*self._commands, strict=True)
        a, b, mat, radius, rgba = (np.concatenate(part) for part in parts)
        counts = [len(part) for part in parts[0]]
        kind = np.repeat(np.array(kinds, np.uint8), counts)
        shapes = Shapes(
            kind=kind,
            env=np.repeat(np.array(envs, np.int32), counts),
            **_placed(kind, a, b, mat, radius),
            rgba=rgba.clip(0.0, 1.0),
            labels=tuple(
                label for label, count in zip(labels, counts, strict=True) for _ in range(count)
            ),
            ghosts=ghosts,
        )
        whole = np.concatenate([shapes.pos, shapes.mat.reshape(-1, 9), shapes.size, rgba], axis=1)
        good = np.isfinite(whole).all(axis=1) & (shapes.size[:, 2] > _SHORTEST)
        return shapes if good.all() else shapes.chosen(good)

    @property
    def _env(self) -> int:
        return ALL_ENVS if self.show_all_envs else self.env_idx

    def _add(self, kind: int, where: str, label: str | None, color: Any, *values: Any) -> None:
        """Keep a command: positions, ends or sizes, matrices, and radii; one of each or n."""
        rgba = _colors(color, where)
        same = [*values, rgba]
        counts = [len(value) for value in same]
        if 0 in counts:
            return  # n times three numbers, of which there are none
        if counts != _ONE_EACH:
            count = max(counts[:-1])
            same = [_repeated(value, count, where) for value in same]
        self._commands.append((kind, self._env, label, *same))

    def _add_line(
        self, kind: int, where: str, start: Any, end: Any, radius: Any, color: Any, label: Any
    ) -> None:
        ends = _vectors(start, where, "start"), _vectors(end, where, "end")
        self._add(kind, where, label, color, *ends, _NO_TURN, _array(radius).reshape(-1))

    def _add_solid(
        self, kind: int, where: str, center: Any, size: Any, mat: Any, color: Any, label: Any
    ) -> None:
        values = _vectors(center, where, "center"), _vectors(size, where, "size")
        self._add(kind, where, label, color, *values, _matrices(mat, where, "mat"), _NO_RADIUS)


def shapes_of(
    env: Any, env_ids: Sequence[int], apart: bool = False, hidden: Collection[str] = ()
) -> Shapes:
    """Let an environment's terms, sensors and terrain draw, and return the shapes.

    Args:
        env: The environment.
        env_ids: The environments to draw.
        apart: Whether each shape must be known to belong to one environment, which then is asked
            by itself. Otherwise all are asked together, which is faster.
        hidden: Names of what must not be drawn.
    """
    meansize = env.sim.mj_model.stat.meansize
    groups = [[env_id] for env_id in env_ids] if apart else [list(env_ids)]
    parts = []
    for group in groups:
        visualizer = DebugVisualizer(
            *(group[0], len(group) > 1), meansize=meansize, env_ids=group, hidden=hidden
        )
        env.update_visualizers(visualizer)
        parts.append(visualizer.shapes())
    return joined(parts)


def _placed(
    kind: np.ndarray, a: np.ndarray, b: np.ndarray, mat: np.ndarray, radius: np.ndarray
) -> dict[str, np.ndarray]:
    """Position, rotation and size of shapes: of lines from both ends, of solids as given."""
    is_line = (kind == ARROW) | (kind == CYLINDER)
    along = np.where(is_line[:, None], b - a, (0.0, 0.0, 1.0))
    length = np.linalg.norm(along, axis=1)
    unit = along / np.maximum(length, _SHORTEST)[:, None]
    mat = np.where(is_line[:, None, None], turns_to(unit), mat)
    is_cylinder = kind == CYLINDER
    reach = np.where(is_cylinder, 0.5 * length, length)
    size = np.where(is_line[:, None], np.stack([radius, radius, reach], axis=1), b)
    pos = np.where(is_cylinder[:, None], 0.5 * (a + b), a)
    return {
        "pos": pos.astype(np.float32),
        "mat": mat.astype(np.float32),
        "size": size.astype(np.float32),
    }


_NO_TURN = np.eye(3, dtype=np.float32)[None]
_NO_RADIUS = np.zeros(1, np.float32)
_ROUND = _NO_TURN, _NO_RADIUS
_ONE_EACH = [1] * 5


def _array(values: Any) -> np.ndarray:
    """Return a copy as numbers on the host."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.array(values, np.float32)


def _vectors(values: Any, where: str, name: str) -> np.ndarray:
    array = _array(values)
    if array.shape == (3,):
        return array[None]
    if array.shape[-1:] != (3,) or array.ndim > 2:
        raise ValueError(f"{where}: {name} must be (3,) or (n, 3), got {array.shape}.")
    return array.reshape(-1, 3)


def _matrices(values: Any, where: str, name: str) -> np.ndarray:
    array = _array(values)
    if array.shape[-2:] != (3, 3) and array.shape[-1:] != (9,):
        raise ValueError(
            f"{where}: {name} must be a rotation matrix (3, 3), n of them (n, 3, 3) or the nine"
            f" numbers of each, got {array.shape}."
        )
    return array.reshape(-1, 3, 3)


def _colors(color: Any, where: str) -> np.ndarray:
    if type(color) is not tuple:
        return _color_rows(color, where)
    try:
        return _known_color(color)
    except (TypeError, ValueError):  # It is wrong, or has tensors.
        return _color_rows(color, where)


@lru_cache
def _known_color(color: tuple[float, ...]) -> np.ndarray:
    return _color_rows(color, "")


def _color_rows(color: Any, where: str) -> np.ndarray:
    array = _array(color)
    if array.shape[-1:] not in ((3,), (4,)):
        raise ValueError(
            f"{where}: a color is red, green, blue and opacity from 0 to 1, got {color!r}."
        )
    array = array.reshape(-1, array.shape[-1])
    if array.shape[1] == 3:
        array = np.concatenate([array, np.ones_like(array[:, :1])], axis=1)
    return array


def _repeated(values: np.ndarray, count: int, where: str) -> np.ndarray:
    if len(values) == count:
        return values
    if len(values) != 1:
        raise ValueError(f"{where}: {len(values)} values do not fit {count} shapes.")
    return np.repeat(values, count, axis=0)


def _mocap(values: Any, width: int, model: mujoco.MjModel, name: str) -> np.ndarray | None:
    """Return poses of all mocap bodies (nmocap, width), or None without a value."""
    if values is None or model.nmocap == 0:
        return None
    given = _array(values).reshape(-1, width) if _array(values).size % width == 0 else None
    if given is None or len(given) not in (1, model.nmocap):
        raise ValueError(
            f"add_ghost_mesh: mocap_{name} has {_array(values).size} numbers, but the model has"
            f" {model.nmocap} mocap bodies: {width} numbers each, or those of the first."
        )
    body = np.flatnonzero(model.body_mocapid >= 0)
    own = model.body_pos if name == "pos" else model.body_quat
    whole = np.empty((model.nmocap, width))
    whole[model.body_mocapid[body]] = own[body]
    whole[: len(given)] = given
    return whole
