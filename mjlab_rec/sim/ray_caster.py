"""Casting a pattern of rays in every world: one kernel, which both engines use.

The kernel reads the poses that the engine derived last, which is what the other derived quantities
belong to, so rays always fit the bodies. It aims the rays, finds what they hit and writes the
results, without a tensor operation before or after.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
import warp as wp

from mjlab_rec.sim.ray_scene import RAY_FIELDS, BuiltScene, RayScene, build_scene
from mjlab_rec.sim.ray_shapes import (
    BOX,
    FAR,
    HFIELD,
    MESH,
    NO_HIT,
    SDF,
    hfield_hit,
    mesh_hit,
    next_cell,
    shape_hit,
    span,
)
from mjlab_rec.sim.ray_spec import FrameType, RayAlignment, RayHits, RaySpec
from mjlab_rec.sim.warp_start import say_if_compiling, start_warp

if TYPE_CHECKING:
    from mjlab_rec.sim.simulation import Simulation

wp.set_module_options({"enable_backward": False})

_FRAME_TYPES = get_args(FrameType)
_ALIGNMENTS = get_args(RayAlignment)
_SITE = wp.constant(1)
_GEOM = wp.constant(2)
_YAW = wp.constant(1)
_WORLD = wp.constant(2)
# Below this horizontal length of its x axis, a frame's heading is taken from its y axis.
_STEEP = wp.constant(0.1)
# Faces of boxes reach this share of their coordinates beyond their edges: about as far as rounding
# goes, or rays would slip between boxes that touch.
_SLACK = wp.constant(1.5e-7)
_RAYS_PER_THREAD = 4096


@wp.func
def _is_visible(scene: RayScene, geom: int, world: int) -> bool:
    material = scene.material[world % scene.material.shape[0], geom]
    if material < 0:
        return scene.color[world % scene.color.shape[0], geom][3] != 0.0
    return scene.material_color[world % scene.material_color.shape[0], material][3] != 0.0


@wp.func
def _geom_hit(
    scene: RayScene,
    geom: int,
    world: int,
    groups: int,
    excluded: int,
    start: wp.vec3,
    direction: wp.vec3,
    limit: float,
):
    """Hit with a geom within a distance, and its normal in the world."""
    none = wp.vec3(0.0, 0.0, 0.0)
    if ((groups >> scene.group[geom]) & 1) == 0 or scene.body[geom] == excluded:
        return NO_HIT, none
    kind = scene.kind[geom]
    pos = scene.fixed_pos[geom]
    mat = scene.fixed_mat[geom]
    if scene.is_fixed[geom] == 0:
        pos = scene.pos[world, geom]
        mat = scene.mat[world, geom]
    away = start - pos
    data_id = int(-1)
    if kind == MESH or kind == SDF or kind == HFIELD:
        data_id = scene.data_id[world % scene.data_id.shape[0], geom]
        if data_id < 0:
            return NO_HIT, none
        if kind != HFIELD:
            radius = scene.mesh_radius[data_id]
            along = wp.dot(away, direction)
            outside = wp.dot(away, away) - radius * radius
            if outside > 0.0 and (along > 0.0 or along * along < outside):
                return NO_HIT, none
    turn = wp.transpose(mat)
    p = turn @ away
    v = turn @ direction
    x = float(NO_HIT)
    normal = wp.vec3(0.0, 0.0, 0.0)
    if kind == HFIELD:
        x, normal = hfield_hit(
            scene.hfield_size[data_id],
            scene.hfield_rows[data_id],
            scene.hfield_columns[data_id],
            scene.hfield_data,
            scene.hfield_start[data_id],
            p,
            v,
            limit,
        )
    elif data_id >= 0:
        x, normal = mesh_hit(scene.mesh[data_id], p, v, limit)
    else:
        size = scene.size[world % scene.size.shape[0], geom]
        slack = float(0.0)
        if kind == BOX:
            slack = _SLACK * (wp.norm_l1(start) + wp.norm_l1(pos) + wp.norm_l1(size))
        x, normal = shape_hit(kind, size, p, v, slack)
    if x < 0.0 or x > limit or not _is_visible(scene, geom, world):
        return NO_HIT, none
    return x, mat @ normal


@wp.func
def _heading(mat: wp.mat33) -> wp.mat33:
    """The turn about the vertical axis that a rotation contains."""
    x = mat[0, 0]
    y = mat[1, 0]
    length = wp.sqrt(x * x + y * y)
    if length < _STEEP:
        # The y axis points left: turn it to the right.
        x = mat[1, 1]
        y = -mat[0, 1]
        length = wp.max(wp.sqrt(x * x + y * y), 1.0e-6)
    c = x / length
    s = y / length
    return wp.mat33(c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


@wp.kernel
def _cast(
    first_world: int,
    worlds: wp.array(dtype=wp.bool),  # type: ignore[valid-type]
    frame_type: wp.array(dtype=int),  # type: ignore[valid-type]
    frame_id: wp.array(dtype=int),  # type: ignore[valid-type]
    excluded_body: wp.array(dtype=int),  # type: ignore[valid-type]
    offsets: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    directions: wp.array(dtype=wp.vec3),  # type: ignore[valid-type]
    alignment: int,
    max_distance: float,
    groups: int,
    elsewhere: wp.array(dtype=int),  # type: ignore[valid-type]
    xpos: wp.array2d(dtype=wp.vec3),  # type: ignore[valid-type]
    xmat: wp.array2d(dtype=wp.mat33),  # type: ignore[valid-type]
    site_xpos: wp.array2d(dtype=wp.vec3),  # type: ignore[valid-type]
    site_xmat: wp.array2d(dtype=wp.mat33),  # type: ignore[valid-type]
    geom_xpos: wp.array2d(dtype=wp.vec3),  # type: ignore[valid-type]
    geom_xmat: wp.array2d(dtype=wp.mat33),  # type: ignore[valid-type]
    scene: RayScene,
    # All results in one array, one after the other.
    out: wp.array(dtype=float),  # type: ignore[valid-type]
):
    slice_world, ray = wp.tid()
    world = first_world + slice_world
    if not worlds[world]:
        return
    num_worlds = worlds.shape[0]
    num_frames = frame_id.shape[0]
    frame = ray // offsets.shape[0]
    index = ray % offsets.shape[0]

    kind = frame_type[frame]
    carrier = frame_id[frame]
    pos = wp.vec3(0.0, 0.0, 0.0)
    mat = wp.mat33(0.0)
    if kind == _SITE:
        pos = site_xpos[world, carrier]
        mat = site_xmat[world, carrier]
    elif kind == _GEOM:
        pos = geom_xpos[world, carrier]
        mat = geom_xmat[world, carrier]
    else:
        pos = xpos[world, carrier]
        mat = xmat[world, carrier]
    turn = mat
    if alignment == _YAW:
        turn = _heading(mat)
    elif alignment == _WORLD:
        turn = wp.identity(n=3, dtype=float)
    start = pos + turn @ offsets[index]
    direction = turn @ directions[index]

    best = float(max_distance)
    normal = wp.vec3(0.0, 0.0, 0.0)
    is_hit = bool(False)
    excluded = excluded_body[frame]
    for i in range(elsewhere.shape[0]):
        x, n = _geom_hit(scene, elsewhere[i], world, groups, excluded, start, direction, best)
        if x >= 0.0 and (x < best or not is_hit):
            best = x
            normal = n
            is_hit = True

    # Cross the cells of the map, in units of cells.
    p = wp.cw_div(wp.vec2(start[0], start[1]) - scene.corner, scene.cell)
    v = wp.cw_div(wp.vec2(direction[0], direction[1]), scene.cell)
    at, end = span(p, v, scene.columns, scene.rows, best)
    column = wp.clamp(int(wp.floor(p[0] + at * v[0])), 0, scene.columns - 1)
    row = wp.clamp(int(wp.floor(p[1] + at * v[1])), 0, scene.rows - 1)
    while at <= end:
        cell = row * scene.columns + column
        for i in range(scene.cell_start[cell], scene.cell_start[cell + 1]):
            x, n = _geom_hit(
                scene, scene.cell_geoms[i], world, groups, excluded, start, direction, best
            )
            if x >= 0.0 and (x < best or not is_hit):
                best = x
                normal = n
                is_hit = True
        end = wp.min(end, best)
        at, column, row = next_cell(p, v, column, row)
        if column < 0 or row < 0 or column >= scene.columns or row >= scene.rows:
            break

    num_rays = num_frames * offsets.shape[0]
    place = world * num_rays + ray
    total = num_worlds * num_rays
    hit = start
    if is_hit:
        hit = start + best * direction
    out[place] = wp.where(is_hit, best, NO_HIT)
    for i in range(3):
        out[total + 3 * place + i] = normal[i]
        out[4 * total + 3 * place + i] = hit[i]
    if index == 0:
        total = 7 * total
        place = world * num_frames + frame
        # Warp's quaternions are (x, y, z, w).
        quat = wp.quat_from_matrix(mat)
        sign = wp.where(quat[3] < 0.0, -1.0, 1.0)
        for i in range(3):
            out[total + 3 * place + i] = pos[i]
        total += 3 * num_worlds * num_frames + 4 * place
        out[total] = sign * quat[3]
        for i in range(3):
            out[total + 1 + i] = sign * quat[i]


class RayCaster:
    """Casts the rays of a `RaySpec`, in all worlds of a simulation at once.

    On the CPU the worlds are divided between threads. Results do not depend on their number.
    """

    def __init__(self, sim: Simulation, spec: RaySpec) -> None:
        self._sim = sim
        self._spec = spec
        self._rays = len(spec.frames) * len(spec.offsets)
        if self._rays == 0:
            raise ValueError(
                f"There is nothing to cast: {len(spec.frames)} frames with {len(spec.offsets)} rays"
                " each."
            )
        start_warp()
        self._device = wp.device_from_torch(torch.device(sim.device))
        self._fields: frozenset[str] | None = None
        self._launches: list[Any] = []
        self._built: BuiltScene | None = None
        self._sizes, self._shapes = self._layout()
        self._worlds = torch.ones(sim.num_envs, dtype=torch.bool, device=sim.device)
        self._pool: ThreadPoolExecutor | None = None

    def cast(self, worlds: torch.Tensor | None = None) -> RayHits:
        """Cast all rays from where the derived quantities now have their frames.

        Args:
            worlds: A bool mask of the worlds to compute. The rows of others mean nothing.

        Returns:
            New tensors.
        """
        with torch.inference_mode(False):
            if self._fields != self._per_world_fields():
                self._prepare()
            if worlds is None:
                self._worlds.fill_(True)
            else:
                self._worlds.copy_(worlds)
            out = torch.empty(sum(self._sizes), device=self._sim.device)
            array = wp.from_torch(out)
            for launch in self._launches:
                launch.set_param_by_name("out", array)
            self._launch()
        parts = torch.split(out, self._sizes)
        return RayHits(*(p.view(shape) for p, shape in zip(parts, self._shapes, strict=True)))

    def _layout(self) -> tuple[list[int], list[tuple[int, ...]]]:
        worlds, rays, frames = self._sim.num_envs, self._rays, len(self._spec.frames)
        shapes: list[tuple[int, ...]] = [
            (worlds, rays),
            (worlds, rays, 3),
            (worlds, rays, 3),
            (worlds, frames, 3),
            (worlds, frames, 4),
        ]
        return [int(np.prod(shape)) for shape in shapes], shapes

    def _per_world_fields(self) -> frozenset[str]:
        return RAY_FIELDS & self._sim.per_world_fields

    def _prepare(self) -> None:
        """Build the scene and record the launches, for the model fields that are per world now."""
        sim, spec, model = self._sim, self._spec, self._sim.mj_model
        self._fields = self._per_world_fields()
        self._built = build_scene(model, self._live_field, self._device)
        built = self._built
        kinds = np.array([_FRAME_TYPES.index(kind) for kind, _ in spec.frames], np.int32)
        reachable = np.isin(np.clip(model.geom_group, 0, 5), spec.groups)
        moving = np.intersect1d(built.moving, np.flatnonzero(reachable))
        elsewhere = np.intersect1d(built.elsewhere, np.flatnonzero(reachable))

        def array(values: Any, dtype: Any) -> wp.array:
            return wp.array(values, dtype=dtype, device=self._device)

        def poses(prefix: str, needed: bool) -> tuple[wp.array, wp.array]:
            # A derived field that is never read is never computed.
            if not needed:
                return (
                    wp.zeros((1, 1), dtype=wp.vec3, device=self._device),
                    wp.zeros((1, 1), dtype=wp.mat33, device=self._device),
                )
            pos, mat = getattr(sim.data, f"{prefix}xpos"), getattr(sim.data, f"{prefix}xmat")
            return wp.from_torch(pos, wp.vec3), wp.from_torch(mat, wp.mat33)

        of_bodies = poses("", bool((kinds == 0).any()))
        of_sites = poses("site_", bool((kinds == 1).any()))
        of_geoms = poses("geom_", bool((kinds == 2).any()) or len(moving) > 0)
        built.scene.pos, built.scene.mat = of_geoms
        groups = sum(1 << group for group in set(spec.groups))
        inputs = [
            0,
            wp.from_torch(self._worlds),
            array(kinds, int),
            array([index for _, index in spec.frames], int),
            array(spec.excluded_bodies, int),
            array(spec.offsets.cpu().numpy(), wp.vec3),
            array(spec.directions.cpu().numpy(), wp.vec3),
            _ALIGNMENTS.index(spec.alignment),
            min(spec.max_distance, float(FAR)),
            groups,
            array(elsewhere.astype(np.int32), int),
            *of_bodies,
            *of_sites,
            *of_geoms,
            built.scene,
            wp.zeros(1, dtype=float, device=self._device),
        ]
        self._launches = []
        for first, number in _slices(sim.num_envs, self._num_threads()):
            with say_if_compiling("Compiling the kernel for rays: once per machine."):
                self._launches.append(
                    wp.launch(
                        _cast,
                        dim=(number, self._rays),
                        inputs=[first, *inputs[1:]],
                        device=self._device,
                        record_cmd=True,
                    )
                )
        if len(self._launches) > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._launches) - 1, "rays")

    def _launch(self) -> None:
        if self._device.is_cuda:
            stream = wp.stream_from_torch(torch.cuda.current_stream(self._sim.device))
            self._launches[0].launch(stream)
            return
        others = [self._pool.submit(o.launch) for o in self._launches[1:]] if self._pool else []
        self._launches[0].launch()
        for other in others:
            other.result()

    def _num_threads(self) -> int:
        if self._device.is_cuda:
            return 1
        wanted = self._sim.cfg.num_threads or os.cpu_count() or 1
        return max(1, min(wanted, self._sim.num_envs, self._work() // _RAYS_PER_THREAD))

    def _work(self) -> int:
        return self._sim.num_envs * self._rays

    def _live_field(self, name: str) -> torch.Tensor | None:
        if name not in self._sim.per_world_fields:
            return None
        field = getattr(self._sim.model, name)
        return field if isinstance(field, torch.Tensor) else None


def _slices(total: int, parts: int) -> list[tuple[int, int]]:
    """Divide a range into consecutive slices: (first, number) of each."""
    edges = [total * i // parts for i in range(parts + 1)]
    return [(first, last - first) for first, last in zip(edges, edges[1:], strict=False)]
