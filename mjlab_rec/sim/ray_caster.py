"""Casting a pattern of rays in every world: one kernel, which both engines use.

The kernel reads the poses that the engine derived last, which is what the other derived quantities
belong to, so rays always fit the bodies. It needs no tensor operation before or after.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
import warp as wp

from mjlab_rec.sim.ray_kernel import cast_rays
from mjlab_rec.sim.ray_scene import RAY_FIELDS, BuiltScene, RayScene, build_scene
from mjlab_rec.sim.ray_shapes import FAR
from mjlab_rec.sim.ray_spec import FrameType, RayAlignment, RayHits, RaySpec
from mjlab_rec.sim.warp_start import say_if_compiling, start_warp
from mjlab_rec.utils.threads import usable_cores

if TYPE_CHECKING:
    from mjlab_rec.sim.simulation import Simulation

_FRAME_TYPES = get_args(FrameType)
_ALIGNMENTS = get_args(RayAlignment)
_RAYS_PER_THREAD = 4096


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
        planes = np.intersect1d(built.planes, np.flatnonzero(reachable))

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
            array(planes.astype(np.int32), int),
            array(moving.astype(np.int32), int),
            array(built.radii[moving].astype(np.float32), float),
            *of_bodies,
            *of_sites,
            *of_geoms,
            wp.array([built.scene], dtype=RayScene, device=self._device),
            wp.zeros(1, dtype=float, device=self._device),
        ]
        self._launches = []
        for first, number in _slices(sim.num_envs, self._num_threads()):
            with say_if_compiling("Compiling the kernel for rays: once per machine."):
                self._launches.append(
                    wp.launch(
                        cast_rays,
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
        wanted = self._sim.cfg.num_threads or usable_cores()
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
