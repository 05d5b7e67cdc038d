"""The static part of a Rerun scene: the shape and colour of each geom, and the camera lenses.

Everything that changes over time is written by ``writer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

WORLD = "/world"
"""The parent entity of everything in the 3D scene."""

_GEOM = mujoco.mjtGeom
_MESHES = (int(_GEOM.mjGEOM_MESH), int(_GEOM.mjGEOM_SDF))
_GREY = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default colour of geoms
_HORIZON = 10.0  # half the side of an infinite plane, in extents of the model

# Fields that may differ between worlds and affect geoms of fixed bodies.
_PLACING = ("body_pos", "body_quat", "geom_pos", "geom_quat")
_SHAPING = ("geom_size", "geom_rgba", "geom_matid", "mat_rgba")


@dataclass(frozen=True)
class Mesh:
    """Triangles with a normal at each corner."""

    vertices: np.ndarray  # (vertices, 3) float32
    normals: np.ndarray  # (vertices, 3) float32
    triangles: np.ndarray  # (triangles, 3) uint32


@dataclass(frozen=True)
class Geom:
    """A geom to draw."""

    index: int
    path: str
    """Path of its entity."""
    kind: str
    """Name of the Rerun archetype."""
    moves: bool
    """Whether its pose may change or differ between worlds."""
    varies: bool
    """Whether its size or colour may change or differ between worlds."""
    mesh: int = -1
    """Number of its mesh or height field."""
    envs: tuple[int, ...] | None = None
    """Which of the recorded environments show it; None for all."""


def drawn_geoms(
    model: mujoco.MjModel,
    groups: Sequence[int],
    per_world: Sequence[str],
    meshes: np.ndarray | None = None,
) -> list[Geom]:
    """The geoms of some groups, given the model fields that differ between worlds.

    Args:
        model: The compiled model.
        groups: The groups that are shown.
        per_world: Names of the fields that differ.
        meshes: Numbers of the geoms' meshes in each environment (num_envs, ngeom), if these differ.
            A geom with several is drawn once for each.
    """
    placed_per_world = bool(set(_PLACING) & set(per_world))
    shaped_per_world = bool(set(_SHAPING) & set(per_world))
    taken: set[str] = set()
    geoms = []
    for index in range(model.ngeom):
        if model.geom_group[index] not in groups:
            continue
        body = int(model.geom_bodyid[index])
        root = int(model.body_rootid[body])
        fixed = model.body_weldid[body] == 0 and model.body_mocapid[root] < 0
        path = _path(model, index, body)
        path = f"{path}_{index}" if path in taken else path
        taken.add(path)
        kind = _kind(int(model.geom_type[index]))
        geom = Geom(
            index=index,
            path=path,
            kind=kind,
            moves=not fixed or placed_per_world,
            # All instances of a mesh look the same.
            varies=shaped_per_world and kind != "Mesh3D",
            mesh=int(model.geom_dataid[index]),
        )
        if meshes is None or not (meshes[:, index] != geom.mesh).any():
            geoms.append(geom)
        else:
            geoms += _by_mesh(model, geom, meshes[:, index])
    return geoms


def _by_mesh(model: mujoco.MjModel, geom: Geom, meshes: np.ndarray) -> list[Geom]:
    """A geom for each of the meshes that environments have in its place; -1 is none."""
    return [
        replace(
            geom,
            path=f"{geom.path}{entity_path(model.mesh(mesh).name)}",
            moves=True,
            mesh=mesh,
            envs=tuple(np.flatnonzero(meshes == mesh).tolist()),
        )
        for mesh in np.unique(meshes).tolist()
        if mesh >= 0
    ]


def sizes_of(kind: str, geom_type: int, size: np.ndarray) -> dict[str, np.ndarray]:
    """Convert MuJoCo sizes (n, 3) of a primitive to components of its archetype."""
    if kind in ("Capsules3D", "Cylinders3D"):
        return {"lengths": 2.0 * size[:, 1], "radii": size[:, 0]}
    if geom_type == _GEOM.mjGEOM_SPHERE:
        return {"half_sizes": np.repeat(size[:, :1], 3, axis=1)}
    return {"half_sizes": size}


def colors_of(
    rgba: np.ndarray, matid: np.ndarray, mat_rgba: np.ndarray, textures: np.ndarray
) -> np.ndarray:
    """Colours (n, 4) uint8 of a geom in n worlds, by MuJoCo's rules.

    Args:
        rgba: The geom's own colour (n, 4).
        matid: Its material (n,), -1 for none.
        mat_rgba: Colours of all materials (n, nmat, 4).
        textures: Mean colour of each material's texture (nmat, 3).
    """
    color = np.array(rgba, np.float32)
    own = (color != _GREY).any(axis=1) | (matid < 0)
    if len(textures):
        material = mat_rgba[np.arange(len(matid)), matid]
        color = np.where(own[:, None], color, material)
        color[:, :3] *= np.where(matid[:, None] < 0, 1.0, textures[matid])
    return (color.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def texture_means(model: mujoco.MjModel) -> np.ndarray:
    """Mean colour of each material's texture (nmat, 3); 1 if it has none."""
    means = np.ones((model.nmat, 3), np.float32)
    for material in range(model.nmat):
        texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
        if texture < 0:
            continue
        channels = int(model.tex_nchannel[texture])
        count = int(model.tex_height[texture]) * int(model.tex_width[texture]) * channels
        start = int(model.tex_adr[texture])
        pixels = model.tex_data[start : start + count].reshape(-1, channels)
        means[material] = pixels[:, :3].mean(axis=0) / 255.0
    return means


def mesh_of(model: mujoco.MjModel, index: int, data: int | None = None) -> Mesh:
    """The triangles of a geom that is not a primitive; ``data`` is another mesh in its place."""
    geom_type = int(model.geom_type[index])
    data = int(model.geom_dataid[index]) if data is None else data
    if geom_type in _MESHES:
        return _mesh(model, data)
    if geom_type == _GEOM.mjGEOM_HFIELD:
        return _height_field(model, data)
    return _plane(model, index)


def camera_lens(model: mujoco.MjModel, camera: int) -> dict[str, Any]:
    """Arguments of ``rerun.Pinhole`` for a camera."""
    said = model.cam_resolution[camera].tolist()
    width, height = said if min(said) > 1 else _LENS
    lens: dict[str, Any] = {"width": width, "height": height}
    sensor = model.cam_sensorsize[camera]
    if (sensor > 0.0).all():
        pixels = np.array([width, height]) / sensor
        fx, fy, cx, cy = model.cam_intrinsic[camera]
        lens["focal_length"] = [fx * pixels[0], fy * pixels[1]]
        lens["principal_point"] = [width / 2 + cx * pixels[0], height / 2 + cy * pixels[1]]
    else:
        half_angle = np.radians(model.cam_fovy[camera]) / 2
        lens["focal_length"] = float(0.5 * height / np.tan(half_angle))
    return lens


_LENS = (640, 480)  # default resolution of a camera in pixels


def entity_path(*parts: str) -> str:
    """An entity's path from names; slashes separate levels, special characters are escaped."""
    import rerun

    names = [name for part in parts for name in part.split("/") if name]
    return "/" + "/".join(rerun.escape_entity_path_part(name) for name in names)


def _path(model: mujoco.MjModel, index: int, body: int) -> str:
    name = model.geom(index).name.rpartition("/")[2] or f"geom_{index}"
    return entity_path(WORLD, (model.body(body).name or f"body_{body}") if body else "", name)


def _kind(geom_type: int) -> str:
    return {
        _GEOM.mjGEOM_SPHERE: "Ellipsoids3D",
        _GEOM.mjGEOM_ELLIPSOID: "Ellipsoids3D",
        _GEOM.mjGEOM_CAPSULE: "Capsules3D",
        _GEOM.mjGEOM_CYLINDER: "Cylinders3D",
        _GEOM.mjGEOM_BOX: "Boxes3D",
    }.get(_GEOM(geom_type), "Mesh3D")


def _mesh(model: mujoco.MjModel, mesh: int) -> Mesh:
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    corner = model.mesh_face[first : first + count].reshape(-1)
    normal = model.mesh_facenormal[first : first + count].reshape(-1)
    # A corner at an edge has several normals; each used pair becomes a vertex.
    pairs, at = np.unique(np.stack([corner, normal], axis=1), axis=0, return_inverse=True)
    return Mesh(
        vertices=model.mesh_vert[int(model.mesh_vertadr[mesh]) + pairs[:, 0]],
        normals=model.mesh_normal[int(model.mesh_normaladr[mesh]) + pairs[:, 1]],
        triangles=at.reshape(-1, 3).astype(np.uint32),
    )


def _height_field(model: mujoco.MjModel, field: int) -> Mesh:
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    start = int(model.hfield_adr[field])
    half_x, half_y, top, _ = model.hfield_size[field]
    height = model.hfield_data[start : start + rows * columns].reshape(rows, columns) * top
    x, y = np.linspace(-half_x, half_x, columns), np.linspace(-half_y, half_y, rows)
    grid = np.stack([*np.meshgrid(x, y), height], axis=-1).astype(np.float32)
    slope_y, slope_x = np.gradient(height, y, x)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(height)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    corner = np.arange(rows * columns, dtype=np.uint32).reshape(rows, columns)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = np.stack([a, b, d, a, d, c], axis=-1).reshape(-1, 3)
    return Mesh(grid.reshape(-1, 3), normals.reshape(-1, 3).astype(np.float32), triangles)


def _plane(model: mujoco.MjModel, index: int) -> Mesh:
    far = _HORIZON * max(float(model.stat.extent), 1.0)
    x, y = (float(side) if side > 0.0 else far for side in model.geom_size[index, :2])
    vertices = np.array([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]], np.float32)
    normals = np.tile(np.array([0, 0, 1], np.float32), (4, 1))
    return Mesh(vertices, normals, np.array([[0, 1, 2], [0, 2, 3]], np.uint32))
