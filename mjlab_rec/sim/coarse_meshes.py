"""Meshes with fewer faces, for images in which the small ones cannot be told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

if TYPE_CHECKING:
    from mjlab_rec.sim.viewer_config import ViewerConfig

_ENOUGH = 2_000  # Meshes with fewer faces than this are drawn quickly as they are.
_PIXELS = 2.0  # Vertices closer than this may be merged: they move by half of it at most.
_NEAREST = 0.25  # Of the distance to what the camera looks at: what is nearer is drawn coarsely.


def drawn_faces(model: mujoco.MjModel, cfg: ViewerConfig) -> int:
    """Return how many faces the meshes have that are shown in one world."""
    shown = np.isin(model.geom_type, (mujoco.mjtGeom.mjGEOM_MESH, mujoco.mjtGeom.mjGEOM_SDF))
    shown &= np.array(cfg.geom_group, dtype=bool)[np.clip(model.geom_group, 0, 5)]
    return int(model.mesh_facenum[model.geom_dataid[shown]].sum())


def merge_size(model: mujoco.MjModel, cfg: ViewerConfig, followed: int | None) -> float:
    """Return the distance in metres that is about a pixel where a free camera looks.

    It is 0 for a camera of the model, which may come close to anything.

    Args:
        model: The model.
        cfg: The camera and its image.
        followed: The body that the camera follows.
    """
    if cfg.camera is not None:
        return 0.0
    fovy = model.vis.global_.fovy if cfg.fovy is None else cfg.fovy
    if model.vis.global_.orthographic:
        return _PIXELS * fovy / cfg.height
    distance = cfg.distance
    if followed is not None:  # The parts of a robot are closer than its middle.
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        own = model.body_rootid[model.geom_bodyid] == model.body_rootid[followed]
        own &= model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
        if own.any():
            reach = np.linalg.norm(data.geom_xpos[own] - data.xpos[followed], axis=1)
            distance -= float((reach + model.geom_rbound[own]).max())
    distance = max(distance, _NEAREST * cfg.distance)
    return _PIXELS * 2.0 * distance * np.tan(np.deg2rad(fovy) / 2.0) / cfg.height


def coarsen_meshes(model: mujoco.MjModel, size: float) -> None:
    """Move vertices that are close to each other to one point, and drop the faces between them.

    Args:
        model: The model, which changes; its meshes are then fit for drawing only.
        size: The distance in metres up to which vertices may be merged; 0 changes nothing.
    """
    if size > 0.0:
        for mesh in np.flatnonzero(model.mesh_facenum >= _ENOUGH):
            _coarsen(model, int(mesh), size)


def _coarsen(model: mujoco.MjModel, mesh: int, size: float) -> None:
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = model.mesh_vert[start : start + count]
    # Cells of which no two points are further apart than the size.
    cells = np.floor(vertices / (size / np.sqrt(3.0))).astype(np.int64)
    cells -= cells.min(axis=0)
    width = cells.max(axis=0) + 1
    key = (cells[:, 0] * width[1] + cells[:, 1]) * width[2] + cells[:, 2]
    _, first, cell, members = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    cell = cell.reshape(-1)
    middle = np.stack(
        [np.bincount(cell, weights=vertices[:, axis]) / members for axis in range(3)], axis=1
    )

    start, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    rows = slice(start, start + count)
    corners = cell[model.mesh_face[rows]]
    flat = (
        (corners[:, 0] == corners[:, 1])
        | (corners[:, 1] == corners[:, 2])
        | (corners[:, 2] == corners[:, 0])
    )
    kept = np.flatnonzero(~flat)
    # Of faces with the same corners in the same order, one is enough.
    turn = corners[kept].argmin(axis=1)
    turned = np.take_along_axis(corners[kept], (turn[:, None] + np.arange(3)) % 3, axis=1)
    kept = kept[np.sort(np.unique(turned, axis=0, return_index=True)[1])]
    if not len(kept):
        return  # The whole mesh is smaller than the size.
    place = slice(start, start + len(kept))
    for field in (model.mesh_facenormal, model.mesh_facetexcoord):
        field[place] = field[rows][kept]
    model.mesh_face[place] = first[corners[kept]]
    vertices[first] = middle
    model.mesh_facenum[mesh] = len(kept)
