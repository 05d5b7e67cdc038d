"""Images of a simulation, ray-traced by MuJoCo-Warp: without OpenGL, on the CPU or a GPU."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from mjlab_rec.sim.cameras import CameraDataType
from mjlab_rec.sim.debug_shapes import Shapes
from mjlab_rec.sim.shape_overlay import Lens, ShapeOverlay
from mjlab_rec.sim.simulation import Simulation
from mjlab_rec.sim.snapshot import (
    DRAWN_FIELDS,
    Snapshot,
    SnapshotReader,
    copy_for_drawing,
    to_host,
)
from mjlab_rec.sim.viewer_config import (
    ViewerConfig,
    camera_id,
    check_cfg,
    check_env_ids,
    followed_body,
)
from mjlab_rec.sim.warp_engine import _say_if_compiling, _start_warp, _to_torch
from mjlab_rec.utils.extras import UnavailableError

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene

# Warp keeps its current device and its kernels in global variables.
one_at_a_time = threading.Lock()
_NO_GROUP = -1
_MAX_READERS = 4096  # for different sets of captured environments
_MAX_BATCHES = 4  # for different numbers of them


@dataclass(frozen=True)
class _Shot:
    snapshot: Snapshot | None
    """What is still to be drawn, or None if it already was."""

    pixels: torch.Tensor | None = None
    """The drawn pixels (worlds, height * width), on the host after ``event``."""

    event: Any = None

    view: torch.Tensor | None = None
    """How far what it shows is away, and the cameras; on the host after ``view_event``."""

    view_event: Any = None

    shapes: Sequence[Shapes] | None = None
    """The shapes in each image."""


class WarpRenderer:
    """Draws environments with MuJoCo-Warp's ray tracer; see ``Renderer`` for its methods.

    It shows geoms, height fields and flexes with their materials, textures, lights and shadows,
    and the sky. It does not show neighbour environments, reflections, transparency, sites, tendons
    and skins. With ``cfg.debug_vis`` shapes are drawn into the finished picture, in front of what
    is behind them.

    With the engine ``mjbatch``, ``draw`` does the work, in the thread that calls it. With the
    engine ``warp``, ``capture`` does, because only the stepping thread may give work to warp. On a
    GPU that returns at once, and the GPU draws in order with the simulation; on the CPU it takes as
    long as the drawing.
    """

    def __init__(self, sim: Simulation, cfg: ViewerConfig, scene: Scene) -> None:
        check_cfg(cfg)
        self._sim = sim
        self._cfg = cfg
        self._camera = None if cfg.camera is None else camera_id(cfg.camera, sim.mj_model)
        self._followed = followed_body(cfg, sim.mj_model, scene)
        self._draws_at_once = sim.engine_name == "warp"
        self._readers: dict[tuple[int, ...], SnapshotReader] = {}
        self._batches: dict[tuple[int, tuple[str, ...]], _WorldBatch] = {}
        self._overlay = ShapeOverlay()
        self._model = drawn_model(
            sim.mj_model, own_colors(sim.per_world_fields, lambda: sim.model.geom_rgba)
        )
        self._is_empty = not (
            np.isin(self._model.geom_group, _shown_groups(cfg)).any() or self._model.nflex
        )
        _start_warp()
        self._device = wp.device_from_torch(torch.device(sim.device))
        with self._warp():
            self._check_model()

    def capture(self, env_ids: Sequence[int], shapes: Sequence[Shapes] | None = None) -> _Shot:
        """Capture what these environments look like now."""
        key = tuple(env_ids)
        if key not in self._readers:
            check_env_ids(key, self._sim.num_envs)
            if len(self._readers) == _MAX_READERS:
                self._readers.clear()
            self._readers[key] = SnapshotReader(self._sim, key)
        snapshot = self._readers[key].gather()
        if not self._draws_at_once:
            return _Shot(snapshot, shapes=shapes)
        pixels, view = self._draw(snapshot)
        if pixels.device.type == "cpu":
            return _Shot(None, pixels.clone(), view=view, shapes=shapes)
        seen = (None, None) if view is None else to_host(view)
        return _Shot(None, *to_host(pixels), *seen, shapes)

    def draw(self, shot: _Shot) -> np.ndarray:
        """Draw an image of each environment: new uint8 array (environments, height, width, 3)."""
        pixels, view = shot.pixels, shot.view
        if shot.snapshot is not None:
            pixels, view = self._draw(shot.snapshot)
        assert pixels is not None
        for event in (shot.event, shot.view_event):
            if event is not None:
                event.synchronize()
        colors = pixels.numpy().view(np.uint8)
        colors = colors.reshape(len(pixels), self._cfg.height, self._cfg.width, 4)
        images = np.ascontiguousarray(colors[..., 2::-1])  # A pixel is blue, green, red, alpha.
        if shot.shapes is not None and view is not None:
            self._add_shapes(images, view.numpy(), shot.shapes)
        return images

    def render(self, env_idx: int | None = None, shapes: Shapes | None = None) -> np.ndarray:
        """Capture and draw an environment in one call: (height, width, 3)."""
        env_idx = self._cfg.env_idx if env_idx is None else env_idx
        return self.draw(self.capture([env_idx], None if shapes is None else [shapes]))[0]

    def close(self) -> None:
        """Free the memory of the images. Idempotent."""
        with one_at_a_time:
            self._batches.clear()

    def _add_shapes(self, images: np.ndarray, view: np.ndarray, shapes: Sequence[Shapes]) -> None:
        height, width = self._cfg.height, self._cfg.width
        for image, seen, some in zip(images, view, shapes, strict=True):
            depth, camera = seen[:-_VIEW].reshape(height, width), seen[-_VIEW:]
            place, axes, fovy = camera[:3], camera[3:12].reshape(3, 3), float(camera[12])
            lens = _lens(self._model, self._camera, fovy, width, height)
            self._overlay.draw(image, depth, lens, place, axes, some)

    def _draw(self, snapshot: Snapshot) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw pixels (worlds, height * width), which the next call overwrites.

        With ``cfg.debug_vis``, depths and cameras (worlds, height * width + 13) are returned too.
        """
        if self._is_empty:  # MuJoCo-Warp would crash.
            size = self._cfg.height * self._cfg.width
            return torch.zeros((len(snapshot.env_ids), size), dtype=torch.int32), None
        key = len(snapshot.env_ids), tuple(snapshot.model_fields)
        with self._warp():
            batch = self._batches.get(key)
            if batch is None:
                if len(self._batches) == _MAX_BATCHES:
                    self._batches.clear()
                with _say_if_compiling():
                    batch = _WorldBatch(
                        self._model, self._cfg, self._camera, self._followed, snapshot
                    )
                    pixels = batch.draw(snapshot)
                self._batches[key] = batch
                return pixels, batch.view()
            return batch.draw(snapshot), batch.view()

    def _check_model(self) -> None:
        try:
            mjw.put_model(self._model)
        except (NotImplementedError, ValueError) as error:
            raise UnavailableError(
                f"The renderer 'warp' cannot draw this model: {error} ViewerConfig(renderer='gl')"
                " draws any model."
            ) from error

    @contextmanager
    def _warp(self) -> Iterator[None]:
        """Run warp on the simulation's device, on torch's current stream."""
        with one_at_a_time, wp.ScopedDevice(self._device), torch.inference_mode(False):
            if self._device.is_cpu:
                yield
                return
            stream = wp.stream_from_torch(torch.cuda.current_stream(self._sim.device))
            with wp.ScopedStream(stream):
                yield


class _WorldBatch:
    """The visible state of some worlds on the device, and their image."""

    def __init__(
        self,
        model: mujoco.MjModel,
        cfg: ViewerConfig,
        camera: int | None,
        followed: int | None,
        like: Snapshot,
    ) -> None:
        count = len(like.env_ids)
        batched = {
            field.name
            for field in fields(mjw.Model)
            if isinstance(field.type, wp.array) and field.type.shape[:1] == ("*",)
        }
        names = [name for name in like.model_fields if name in batched]
        self._model: Any = mjw.put_model(model, dict.fromkeys(names, count))
        self._data: Any = mjw.make_data(model, nworld=count, nconmax=1, njmax=1)
        self._context: Any = mjw.create_render_context(
            model,
            nworld=count,
            cam_res=(cfg.width, cfg.height),
            cam_active=[] if camera is None else [camera],
            render_rgb=True,
            render_depth=False,
            render_seg=False,
            use_shadows=cfg.enable_shadows,
            shadow_light_fraction=0.0,
            enabled_geom_groups=_shown_groups(cfg),
            render_skybox=True,
            use_precomputed_rays=False,  # The field of view may differ between worlds.
        )
        allow_empty_slots(self._context)
        self._follow: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        if camera is None:
            self._add_free_camera(model, cfg, count, followed)
        self._targets = {name: _to_torch(getattr(self._model, name)) for name in names}
        for name in like.layout:
            if name not in DRAWN_FIELDS:
                self._targets[name] = _to_torch(getattr(self._data, name))
        self._pixels = wp.to_torch(self._context.rgb_data.view(wp.int32))
        self._depth: torch.Tensor | None = None
        if cfg.debug_vis:
            context, size = self._context, cfg.width * cfg.height
            context.depth_data = wp.zeros((count, size), dtype=float)
            context.depth_adr = wp.array([0], dtype=int)
            context.render_depth = wp.array([True], dtype=bool)
            self._depth = _to_torch(context.depth_data)
            self._seen_by = -1 if camera is None else camera

    def draw(self, snapshot: Snapshot) -> torch.Tensor:
        """Take the poses of a snapshot and draw them."""
        rows = len(snapshot.env_ids)
        for name, target in self._targets.items():
            columns, _ = snapshot.layout[name]
            target.copy_(snapshot.values[:, columns].reshape(rows, *target.shape[1:]))
        model, data = self._model, self._data
        mjw.kinematics(model, data)
        mjw.com_pos(model, data)
        mjw.camlight(model, data)
        mjw.flex(model, data)
        if self._follow is not None:
            position, body, offset = self._follow
            torch.add(body, offset, out=position)
        mjw.refit_bvh(model, data, self._context)
        mjw.render(model, data, self._context)
        return self._pixels

    def view(self) -> torch.Tensor | None:
        """Return new copies of the depths and the cameras: position, axes and field of view."""
        if self._depth is None:
            return None
        rows = len(self._depth)
        number, data = self._seen_by, self._data
        place = _to_torch(data.cam_xpos)[:, number]
        axes = _to_torch(data.cam_xmat)[:, number].reshape(rows, 9)
        fovy = _to_torch(self._model.cam_fovy)[:, number, None].expand(rows, 1)
        return torch.cat((self._depth, place, axes, fovy), dim=1)

    def _add_free_camera(
        self, model: mujoco.MjModel, cfg: ViewerConfig, count: int, followed: int | None
    ) -> None:
        """Append a camera to the model's own, which only this class moves."""
        warp_model, data = self._model, self._data
        fovy = model.vis.global_.fovy if cfg.fovy is None else cfg.fovy
        projection = int(model.vis.global_.orthographic)
        warp_model.cam_projection = wp.array([*model.cam_projection, projection], dtype=int)
        warp_model.cam_sensorsize = wp.array([*model.cam_sensorsize, [0.0, 0.0]], dtype=wp.vec2)
        warp_model.cam_fovy = wp.array([[*model.cam_fovy, fovy]], dtype=float)
        warp_model.cam_intrinsic = wp.array([[*model.cam_intrinsic, [0.0] * 4]], dtype=wp.vec4)
        data.cam_xpos = wp.zeros((count, model.ncam + 1), dtype=wp.vec3)
        data.cam_xmat = wp.zeros((count, model.ncam + 1), dtype=wp.mat33)

        self._context = single_camera(
            self._context, count, model.ncam, cfg.width, cfg.height, ("rgb",), bool(projection)
        )

        axes, offset = _free_view(cfg)
        place = _to_torch(data.cam_xpos)[:, -1]
        _to_torch(data.cam_xmat)[:, -1] = axes.to(place.device)
        if followed is None:
            place.copy_(torch.tensor(cfg.lookat) + offset)
        else:
            body = _to_torch(data.xpos)[:, followed]
            self._follow = place, body, offset.to(place.device)


_VIEW = 13  # numbers that describe a camera: position, axes and field of view


def _lens(model: mujoco.MjModel, camera: int | None, fovy: float, width: int, height: int) -> Lens:
    """Return the lens of a camera of the model, or of the free one."""
    center = 0.5 * width, 0.5 * height
    projection = model.vis.global_.orthographic if camera is None else model.cam_projection[camera]
    if projection:
        return Lens((height / fovy, height / fovy), center, orthographic=True)
    if camera is None or not model.cam_sensorsize[camera, 1]:
        focal = 0.5 * height / math.tan(0.5 * math.radians(fovy))
        return Lens((focal, focal), center)
    wide, high = model.cam_sensorsize[camera]
    wide, high = min(wide, high * width / height), min(high, wide * height / width)
    fx, fy, cx, cy = model.cam_intrinsic[camera]
    return Lens(
        (float(fx * width / wide), float(fy * height / high)),
        (float(center[0] - cx * width / wide), float(center[1] - cy * height / high)),
    )


def own_colors(per_world: Container[str], colors: Callable[[], torch.Tensor]) -> np.ndarray | None:
    """Return the colours of all worlds' geoms (num_envs, ngeom, 4) if they may differ.

    Args:
        per_world: Names of the model fields with a value per world.
        colors: Returns the field ``geom_rgba``, if it is one of them.
    """
    return colors().cpu().numpy() if "geom_rgba" in per_world else None


def allow_empty_slots(context: Any) -> None:
    """Let geoms of a context have mesh -1 in some worlds: it is not seen there."""
    nothing = wp.Mesh(
        points=wp.array([[1e9, 1e9, 1e9]] * 3, dtype=wp.vec3),
        indices=wp.array([0, 1, 2], dtype=int),
    )
    context.mesh_registry[nothing.id] = nothing
    # Read at -1, before the beginning of the slice.
    ids = wp.array([nothing.id, *context.mesh_bvh_id.numpy().tolist()], dtype=wp.uint64)
    context.mesh_bvh_id = ids[1:] if len(ids) > 1 else ids


def single_camera(
    context: Any,
    count: int,
    camera: int,
    width: int,
    height: int,
    data_types: Sequence[CameraDataType],
    orthographic: bool,
) -> Any:
    """Return a context that draws one camera into new memory and shares the rest with another.

    Args:
        context: The other context.
        count: Number of worlds.
        camera: Number of the camera.
        width: Width of the pictures.
        height: Height of the pictures.
        data_types: Kinds of pictures.
        orthographic: Whether the camera's projection is orthographic.
    """
    context, size = copy.copy(context), width * height
    context.nrender = 1
    context.has_orthographic_camera = orthographic
    context.cam_id_map = wp.array([camera], dtype=int)
    context.cam_res = wp.array([[width, height]], dtype=wp.vec2i)
    context.total_rays = size
    for kind, short, dtype in (
        ("rgb", "rgb", wp.uint32),
        ("depth", "depth", float),
        ("segmentation", "seg", wp.vec2i),
    ):
        on = kind in data_types
        setattr(context, f"{short}_data", wp.zeros((count, size if on else 1), dtype=dtype))
        setattr(context, f"{short}_adr", wp.array([0 if on else -1], dtype=int))
        setattr(context, f"render_{short}", wp.array([on], dtype=bool))
    return context


def _shown_groups(cfg: ViewerConfig) -> list[int]:
    return [group for group, shown in enumerate(cfg.geom_group) if shown]


def _free_view(cfg: ViewerConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the free camera's axes (3, 3), as columns, and its offset from what it looks at."""
    azimuth, elevation = math.radians(cfg.azimuth), math.radians(cfg.elevation)
    level = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    forward = math.cos(elevation) * level + math.sin(elevation) * up
    above = math.cos(elevation) * up - math.sin(elevation) * level
    # A camera looks along its own -z, with +x to the right and +y up.
    axes = np.stack([np.cross(forward, above), above, -forward], axis=1)
    return torch.from_numpy(axes).float(), torch.from_numpy(-cfg.distance * forward).float()


def drawn_model(model: mujoco.MjModel, colors: np.ndarray | None = None) -> mujoco.MjModel:
    """Return a copy of a model for drawing only, without physics that MuJoCo-Warp may lack.

    Args:
        model: The model.
        colors: The geoms' colours (num_envs, ngeom, 4), if they differ between worlds.
    """
    model = copy_for_drawing(model)
    option = model.opt
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.jacobian = mujoco.mjtJacobian.mjJAC_AUTO
    option.noslip_iterations = 0
    option.enableflags = 0
    option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_MULTICCD)
    model.geom_contype[:] = model.geom_conaffinity[:] = 0
    # The ray tracer does not support transparency: omit what is fully transparent.
    rgba = (model.geom_rgba if colors is None else colors).reshape(-1, model.ngeom, 4)
    own = (rgba != (0.5, 0.5, 0.5, 1.0)).any(axis=-1)
    alpha = rgba[..., 3].copy()
    from_material = (model.geom_matid >= 0) & ~own
    alpha[from_material] = model.mat_rgba[model.geom_matid[from_material.nonzero()[1]], 3]
    model.geom_group[(alpha == 0.0).all(axis=0)] = _NO_GROUP
    return model
