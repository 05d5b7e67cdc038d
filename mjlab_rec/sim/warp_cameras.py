"""Pictures of cameras in all worlds, ray-traced by MuJoCo-Warp from an engine's own memory."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from mjlab_rec.sim.cameras import CameraDataType, CameraLook, CameraView
from mjlab_rec.sim.warp_engine import _say_if_compiling, _start_warp
from mjlab_rec.sim.warp_renderer import (
    allow_empty_slots,
    drawn_model,
    one_at_a_time,
    single_camera,
)
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.utils.threads import usable_cores

# What the ray tracer reads: derived quantities,
PLACES = {
    "geom_xpos": wp.vec3,
    "geom_xmat": wp.mat33,
    "cam_xpos": wp.vec3,
    "cam_xmat": wp.mat33,
    "light_xpos": wp.vec3,
    "light_xdir": wp.vec3,
    "flexvert_xpos": wp.vec3,
}
# and model fields, which may have a value per world.
LOOKS = (
    *("geom_dataid", "geom_matid", "geom_size", "geom_rgba", "cam_fovy", "cam_intrinsic"),
    *("light_type", "light_castshadow", "light_active", "light_attenuation", "light_cutoff"),
    *("light_exponent", "light_ambient", "light_diffuse", "light_specular"),
    *("mat_texid", "mat_texuniform", "mat_texrepeat", "mat_emission", "mat_specular"),
    *("mat_shininess", "mat_rgba"),
)
_OUTPUTS = ("rgb_data", "depth_data", "seg_data")
_PARTS_PER_THREAD = 2  # Worlds differ in cost.


class WarpCameras:
    """Draws the cameras of a model; see ``Cameras``.

    On a CPU the worlds are shared out to threads. Which thread draws a picture does not change it.

    Args:
        mj_model: The compiled model, as ``drawn_model`` returns it.
        look: What all cameras see.
        num_envs: Number of worlds.
        model: The model in MuJoCo-Warp's form; it may hold the engine's own arrays.
        data: Has ``nworld`` and the arrays of ``PLACES``, which are the engine's own.
        scope: Makes warp use the device and the stream.
        per_world: Names of the model fields with a value per world.
        num_threads: Threads on a CPU; 0 means one per CPU.
    """

    def __init__(
        self,
        mj_model: mujoco.MjModel,
        look: CameraLook,
        num_envs: int,
        model: Any,
        data: Any,
        scope: Callable[[], AbstractContextManager[None]],
        per_world: Iterable[str],
        num_threads: int = 0,
    ) -> None:
        self._num_envs = num_envs
        self._model, self._data, self._scope = model, data, scope
        self._pictures: dict[CameraView, _Picture] = {}
        shown = np.isin(mj_model.geom_group, look.geom_groups).any() or mj_model.nflex
        kind = mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC
        self._is_orthographic = (mj_model.cam_projection == kind).tolist()
        self._is_empty = not shown  # MuJoCo-Warp would crash.
        self._pool: ThreadPoolExecutor | None = None
        self._parts: list[_Part] = []
        if self._is_empty:
            return
        with self._warp(), _say_if_compiling():
            threads = 1
            if wp.get_device().is_cpu and not mj_model.nflex:
                threads = min(num_threads or usable_cores(), num_envs)
            size = num_envs if threads == 1 else -(-num_envs // (threads * _PARTS_PER_THREAD))
            context: Any = mjw.create_render_context(
                mj_model,
                nworld=size,
                cam_res=(1, 1),
                cam_active=[],
                render_rgb=False,
                render_depth=False,
                render_seg=False,
                use_textures=look.use_textures,
                use_shadows=look.use_shadows,
                enabled_geom_groups=list(look.geom_groups),
                render_skybox=True,
                use_precomputed_rays=False,  # The field of view may differ between worlds.
            )
            allow_empty_slots(context)
            if not {"light_type", "light_attenuation"}.isdisjoint(per_world):
                context.light_attenuation_is_default = False
                context.has_spot_lights = True
            for start in range(0, num_envs, size):
                # All parts have one size: the last one may overlap with the one before.
                start = min(start, num_envs - size)
                self._parts.append(_Part(model, data, context, start, size, num_envs))
        if threads > 1:
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cameras")

    def draw(
        self, view: CameraView, worlds: torch.Tensor | None = None
    ) -> dict[CameraDataType, torch.Tensor]:
        """Draw new pictures of a camera."""
        if self._is_empty:
            return _blank(view, self._num_envs, self._data.cam_xpos.device)
        parts = self._parts
        if worlds is not None and worlds.is_cpu:
            parts = [part for part in parts if worlds[part.start : part.stop].any()]
        with self._warp():
            for part in parts:
                part.refit()
            picture = self._pictures.get(view)
            if picture is None:
                picture = self._add(view)
            if self._pool is None:
                for part in parts:
                    part.draw(picture)
            else:
                for drawn in [self._pool.submit(part.draw, picture) for part in parts]:
                    drawn.result()
            return picture.read()

    def _add(self, view: CameraView) -> _Picture:
        """Make memory for the pictures of a camera, and compile what draws them."""
        orthographic = self._is_orthographic[view.camera]
        picture = _Picture(self._parts[0].context, view, self._num_envs, orthographic)
        with _say_if_compiling(), _thread_safe_kernels():
            self._parts[0].draw(picture)
        self._pictures[view] = picture
        return picture

    @contextmanager
    def _warp(self) -> Iterator[None]:
        with one_at_a_time, torch.inference_mode(False), self._scope():
            yield


class _Part:
    """Some worlds, which one thread draws.

    Args:
        model: The model of all worlds.
        data: The derived quantities of all worlds.
        context: A context for as many worlds; parts share what does not move.
        start: The first world.
        size: The number of worlds.
        num_envs: The number of all worlds.
    """

    def __init__(
        self, model: Any, data: Any, context: Any, start: int, size: int, num_envs: int
    ) -> None:
        self.start, self.stop = start, start + size
        self._model, self._data, self.context = model, data, context
        if size == num_envs:
            return
        self._model = copy.copy(model)
        for name in LOOKS:
            array = getattr(model, name)
            if array.shape[0] == num_envs:
                setattr(self._model, name, self.rows(array))
        places = {name: self.rows(getattr(data, name)) for name in PLACES}
        self._data = SimpleNamespace(nworld=size, **places)
        if start > 0:  # Geoms move: a tree of its own, built like that of the first part.
            self.context = context = copy.copy(context)
            context.lower, context.upper = wp.clone(context.lower), wp.clone(context.upper)
            groups = wp.clone(context.group)
            context.bvh = wp.Bvh(context.lower, context.upper, groups=groups, constructor="sah")
            context.bvh_id = context.bvh.id

    def rows(self, array: Any) -> Any:
        """Return this part of an array of all worlds."""
        return array[self.start : self.stop] if array.size else array

    def refit(self) -> None:
        """Take note of where geoms are now."""
        mjw.refit_bvh(self._model, self._data, self.context)

    def draw(self, picture: _Picture) -> None:
        """Draw this part of a picture."""
        context = copy.copy(picture.context)
        context.bvh, context.bvh_id = self.context.bvh, self.context.bvh_id
        for name in _OUTPUTS:
            setattr(context, name, self.rows(getattr(context, name)))
        mjw.render(self._model, self._data, context)
        picture.context._megakernel = context._megakernel  # Specialized once.


class _Picture:
    """The memory that a camera's pictures are drawn into."""

    def __init__(self, context: Any, view: CameraView, num_envs: int, orthographic: bool) -> None:
        shape = num_envs, view.height, view.width
        size = view.width, view.height
        self.context = single_camera(
            context, num_envs, view.camera, *size, view.data_types, orthographic
        )
        outputs: dict[CameraDataType, torch.Tensor] = {}
        for kind in view.data_types:
            if kind == "rgb":
                packed = wp.to_torch(self.context.rgb_data.view(wp.int32))
                outputs[kind] = packed.view(torch.uint8).view(*shape, 4)
            elif kind == "depth":
                outputs[kind] = wp.to_torch(self.context.depth_data).view(*shape, 1)
            else:
                outputs[kind] = wp.to_torch(self.context.seg_data).view(*shape, 2)
        self._outputs = outputs

    def read(self) -> dict[CameraDataType, torch.Tensor]:
        """Copy out what was drawn."""
        found: dict[CameraDataType, torch.Tensor] = {}
        for kind, pixels in self._outputs.items():
            if kind == "rgb":  # A pixel is blue, green, red, alpha.
                picture = pixels.new_empty((*pixels.shape[:3], 3))
                for channel in range(3):
                    picture[..., channel] = pixels[..., 2 - channel]
                found[kind] = picture
            else:
                found[kind] = pixels.clone()
        return found


def cameras_on_cpu(
    mj_model: mujoco.MjModel,
    look: CameraLook,
    num_envs: int,
    places: dict[str, torch.Tensor],
    looks: dict[str, torch.Tensor],
    num_threads: int,
) -> WarpCameras:
    """Draw cameras from arrays of another engine, which are used where they are.

    Args:
        mj_model: The compiled model.
        look: What all cameras see.
        num_envs: Number of worlds.
        places: Derived quantities by name, float32: those of ``PLACES``.
        looks: The model fields with a value per world, of those in ``LOOKS``.
        num_threads: Threads to draw with.
    """
    _start_warp()
    with one_at_a_time, wp.ScopedDevice("cpu"):
        try:
            drawn = drawn_model(
                mj_model, looks["geom_rgba"].numpy() if "geom_rgba" in looks else None
            )
            model: Any = mjw.put_model(drawn)
        except (NotImplementedError, ValueError) as error:
            raise UnavailableError(
                f"MuJoCo-Warp, which draws the pictures of camera sensors, cannot draw this model:"
                f" {error}"
            ) from error
        types: dict[str, Any] = {field.name: field.type for field in fields(mjw.Model)}
        for name, tensor in looks.items():
            setattr(model, name, _as_warp(tensor, types[name].dtype, num_envs))
        arrays = {name: _as_warp(places[name], kind, num_envs) for name, kind in PLACES.items()}
    data = SimpleNamespace(nworld=num_envs, **arrays)
    scope: Any = lambda: wp.ScopedDevice("cpu")  # noqa: E731
    return WarpCameras(drawn, look, num_envs, model, data, scope, looks, num_threads)


def _as_warp(tensor: torch.Tensor, dtype: Any, num_envs: int) -> Any:
    if not tensor.numel():
        return wp.zeros((num_envs, 0), dtype=dtype)
    if dtype is wp.bool:
        tensor = tensor.view(torch.bool)
    return wp.from_torch(tensor, dtype=dtype)


def _blank(view: CameraView, num_envs: int, device: Any) -> dict[CameraDataType, torch.Tensor]:
    """Return pictures of nothing."""
    shape = num_envs, view.height, view.width
    found: dict[CameraDataType, torch.Tensor] = {}
    for kind in view.data_types:
        if kind == "rgb":
            found[kind] = torch.zeros((*shape, 3), dtype=torch.uint8, device=str(device))
        elif kind == "depth":
            found[kind] = torch.zeros((*shape, 1), device=str(device))
        else:
            found[kind] = torch.full((*shape, 2), -1, dtype=torch.int32, device=str(device))
    return found


@contextmanager
def _thread_safe_kernels() -> Iterator[None]:
    """Compile kernels so that several threads may run one of them at the same time.

    By default warp keeps a pointer to a kernel's stack in a variable that all threads share; on ARM
    it is in a register. Kernels that use no tiles, such as the ray tracer, need no such stack.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        yield
        return
    before = wp.config.enable_tiles_in_stack_memory
    wp.config.enable_tiles_in_stack_memory = False
    try:
        yield
    finally:
        wp.config.enable_tiles_in_stack_memory = before
