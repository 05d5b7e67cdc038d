"""Shapes in finished pictures of a renderer that cannot draw them itself, with numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from mjlab_rec.sim.debug_shapes import KINDS, Shapes
from mjlab_rec.sim.ghosts import GhostPart, GhostPoser, ghost_parts
from mjlab_rec.sim.meshes import unit_triangles

_NEAR = 0.02  # metres; what is closer to the camera is not drawn
_DIM = 0.35  # brightness of a surface that is seen from the side
_MOST = 2_000_000  # pixels of triangles that are tested at once


@dataclass(frozen=True)
class Lens:
    """A camera: how points in its own frame, where it looks along -z, become pixels."""

    focal: tuple[float, float]
    """Pixels per metre to the right and down, at a distance of one metre."""

    center: tuple[float, float]
    """The pixel that it looks at, from the left and from the top."""

    orthographic: bool = False
    """Whether the distance makes no difference."""


class ShapeOverlay:
    """Draws shapes into pictures whose depths are known. Use it from one thread only.

    Of shapes behind each other only the first is seen, and all light comes from the camera.
    """

    def __init__(self) -> None:
        self._poser = GhostPoser()
        self._parts: dict[int, tuple[mujoco.MjModel, list[GhostPart]]] = {}

    def draw(
        self,
        image: np.ndarray,
        depth: np.ndarray,
        lens: Lens,
        place: np.ndarray,
        axes: np.ndarray,
        shapes: Shapes,
    ) -> None:
        """Draw shapes into a picture.

        Args:
            image: The picture (height, width, 3) uint8; it is changed.
            depth: Distance of what it shows along the camera's axis, (height, width); 0 for none.
            lens: The camera's lens.
            place: Its position, (3,).
            axes: Its axes as columns, (3, 3): to the right, up and backwards.
            shapes: The shapes.
        """
        height, width = depth.shape
        nearest = np.where(depth > 0.0, depth, np.inf).ravel().astype(np.float32)
        color = np.zeros((height * width, 4), np.float32)
        for corners, rgba in self._triangles(shapes):
            seen = (corners - place.astype(np.float32)) @ axes.astype(np.float32)
            _fill(seen, rgba, lens, width, height, nearest, color)
        hit = color[:, 3] > 0.0
        pixels = image.reshape(-1, 3)
        alpha = color[hit, 3:]
        mixed = (1.0 - alpha) * pixels[hit] + alpha * 255.0 * color[hit, :3]
        pixels[hit] = mixed.round().astype(np.uint8)
        image[...] = pixels.reshape(image.shape)

    def _triangles(self, shapes: Shapes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Corners (n, 3, 3) and colours (n, 4) of triangles, in the world."""
        for kind in range(len(KINDS)):
            some = shapes.chosen(shapes.kind == kind)
            if not len(some):
                continue
            mesh = unit_triangles(kind)
            points = mesh.vertices[None] * some.size[:, None]
            points = points @ some.mat.transpose(0, 2, 1) + some.pos[:, None]
            corners = points[:, mesh.faces]
            yield corners.reshape(-1, 3, 3), np.repeat(some.rgba, len(mesh.faces), axis=0)
        for ghost in shapes.ghosts:
            model = ghost.model
            if id(model) not in self._parts:
                self._parts[id(model)] = model, ghost_parts(model)
            data = self._poser.pose(ghost)
            for part in self._parts[id(model)][1]:
                turn = data.xmat[part.body].reshape(3, 3).astype(np.float32)
                shift = (data.xpos[part.body] + ghost.offset).astype(np.float32)
                corners = (part.mesh.vertices @ turn.T + shift)[part.mesh.faces]
                rgba = np.array([[*part.color, ghost.alpha]], np.float32)
                yield corners, np.repeat(rgba, len(corners), axis=0)


def _fill(
    corners: np.ndarray,
    rgba: np.ndarray,
    lens: Lens,
    width: int,
    height: int,
    nearest: np.ndarray,
    color: np.ndarray,
) -> None:
    """Draw triangles, given in the camera's frame, where they are nearer than what is there."""
    far = -corners[:, :, 2]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    toward = -corners[:, 0] / np.maximum(np.linalg.norm(corners[:, 0], axis=1), 1e-9)[:, None]
    if lens.orthographic:
        toward = np.array([0.0, 0.0, 1.0], np.float32)
    facing = (normal * toward).sum(axis=1)
    scale = np.ones_like(far) if lens.orthographic else 1.0 / np.maximum(far, _NEAR)
    x = lens.center[0] + lens.focal[0] * corners[:, :, 0] * scale
    y = lens.center[1] - lens.focal[1] * corners[:, :, 1] * scale
    left = np.clip(np.ceil(x.min(axis=1) - 0.5), 0, width).astype(np.int64)
    right = np.clip(np.floor(x.max(axis=1) - 0.5) + 1, 0, width).astype(np.int64)
    top = np.clip(np.ceil(y.min(axis=1) - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.floor(y.max(axis=1) - 0.5) + 1, 0, height).astype(np.int64)
    count = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    drawn = np.flatnonzero((facing > 0.0) & (far.min(axis=1) > _NEAR) & (count > 0))
    shade = _DIM + (1.0 - _DIM) * facing
    batch = np.cumsum(count[drawn]) // _MOST
    for number in np.unique(batch):
        some = drawn[batch == number]
        which = np.repeat(some, count[some])
        start = np.cumsum(count[some]) - count[some]
        nth = np.arange(len(which)) - np.repeat(start, count[some])
        wide = (right - left)[which]
        column, row = left[which] + nth % wide, top[which] + nth // wide
        inside, depth = _inside(x[which], y[which], far[which], column + 0.5, row + 0.5, lens)
        pixel = row * width + column
        inside &= depth < nearest[pixel]
        pixel, which, depth = pixel[inside], which[inside], depth[inside]
        # The nearest last: of several values for one pixel the last one stays.
        order = np.argsort(-depth, kind="stable")
        pixel, which, depth = pixel[order], which[order], depth[order]
        nearest[pixel] = depth
        color[pixel, :3] = rgba[which, :3] * shade[which, None]
        color[pixel, 3] = rgba[which, 3]


def _inside(
    x: np.ndarray, y: np.ndarray, far: np.ndarray, at_x: np.ndarray, at_y: np.ndarray, lens: Lens
) -> tuple[np.ndarray, np.ndarray]:
    """Whether points are in their triangles (n, 3), and how far the triangles are there."""
    weights = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        weights.append((x[:, j] - at_x) * (y[:, k] - at_y) - (x[:, k] - at_x) * (y[:, j] - at_y))
    a, b, c = weights
    whole = a + b + c
    inside = ((a <= 0) & (b <= 0) & (c <= 0)) | ((a >= 0) & (b >= 0) & (c >= 0))
    whole = np.where(whole == 0.0, 1.0, whole)
    if lens.orthographic:
        return inside, (a * far[:, 0] + b * far[:, 1] + c * far[:, 2]) / whole
    return inside, whole / (a / far[:, 0] + b / far[:, 1] + c / far[:, 2])
