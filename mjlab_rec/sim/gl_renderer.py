"""Images of a simulation, drawn by MuJoCo with OpenGL and without a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from mjlab_rec.sim.coarse_meshes import coarsen_meshes, drawn_faces, merge_size
from mjlab_rec.sim.debug_gl import ShapeDrawer
from mjlab_rec.sim.debug_shapes import Shapes
from mjlab_rec.sim.gl import GlContext, find_backend, is_software
from mjlab_rec.sim.simulation import Simulation
from mjlab_rec.sim.snapshot import PosedModel, Snapshot, SnapshotReader
from mjlab_rec.sim.viewer_config import (
    ViewerConfig,
    camera_id,
    check_cfg,
    check_env_ids,
    followed_body,
)

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene

_MAX_GEOMS = 10_000  # besides those of one environment
_MAX_READERS = 4096  # for different sets of captured environments
_SHADOW_PIXELS = 3  # per pixel of the image
_SHADOW_REACH = 1.5  # How far from the point looked at there are shadows, in camera distances.
# A processor draws one face (0.4 us) in about the time in which the ray tracer draws one pixel
# (0.45 us). The ray tracer shows less and compiles first, so it must be twice as fast.
_FACES_PER_PIXEL = 2.0
_MANY_FACES = 20_000  # From here on, drawing is faster with coarser meshes.


@dataclass(frozen=True)
class _Shot:
    snapshot: Snapshot
    pictures: list[list[int]]
    """For each image, the snapshot's rows in it; the one in the middle comes first."""

    shapes: Sequence[Shapes] | None
    """The shapes in each image."""


class GlRenderer:
    """Draws one environment and its nearest neighbours, as configured.

    See ``Renderer`` for its methods.
    """

    def __init__(self, sim: Simulation, cfg: ViewerConfig, scene: Scene) -> None:
        check_cfg(cfg)
        self.backend = find_backend()
        self._sim = sim
        self._cfg = cfg
        self._followed = followed_body(cfg, sim.mj_model, scene)
        # Nearest by the first origins: neighbours that change would flicker.
        self._origins = scene.env_origins.cpu().numpy().copy()
        self._num_others = sim.num_envs - 1
        self._readers: dict[tuple[int, ...], tuple[SnapshotReader, list[list[int]]]] = {}

        # The model is a copy, so that settings for drawing do not reach the physics.
        self._posed = PosedModel(sim.mj_model)
        model = self._posed.model
        if drawn_faces(model, cfg) > _MANY_FACES:
            coarsen_meshes(model, merge_size(model, cfg, self._followed))
        model.vis.global_.offwidth = cfg.width
        model.vis.global_.offheight = cfg.height
        # Software rendering draws shadow maps quickly only if they are small.
        quality = model.vis.quality
        quality.shadowsize = min(quality.shadowsize, _shadow_size(cfg))
        self._shadow_reach = _SHADOW_REACH * cfg.distance
        model.vis.map.shadowclip = self._shadow_reach / model.stat.extent
        if cfg.fovy is not None:
            model.vis.global_.fovy = cfg.fovy
        self._camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._camera)
        if cfg.camera is None:
            self._camera.lookat[:] = cfg.lookat
            self._camera.distance = cfg.distance
            self._camera.elevation = cfg.elevation
            self._camera.azimuth = cfg.azimuth
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = camera_id(cfg.camera, model)

        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = cfg.geom_group
        self._options.sitegroup[:] = cfg.site_group
        self._perturbation = mujoco.MjvPerturb()
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS + model.ngeom)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = cfg.enable_shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = cfg.enable_reflections
        self._frame = mujoco.MjrRect(0, 0, cfg.width, cfg.height)
        self._shapes = ShapeDrawer(model)
        self._gl: GlContext | None = None  # Made in the thread that draws.

    @property
    def is_slow(self) -> bool:
        """Whether the ray tracer is faster: without a graphics card, and with very many faces."""
        model, cfg = self._posed.model, self._cfg
        passes = 1
        if cfg.enable_shadows:
            passes += int((model.light_active & model.light_castshadow).sum())
        if cfg.enable_reflections and (model.mat_reflectance > 0.0).any():
            passes += 1
        faces = drawn_faces(model, cfg) * passes * (1 + min(cfg.max_extra_envs, self._num_others))
        few = faces <= _FACES_PER_PIXEL * cfg.width * cfg.height
        return not few and is_software(self.backend)

    def capture(self, env_ids: Sequence[int], shapes: Sequence[Shapes] | None = None) -> _Shot:
        """Capture what these environments look like now."""
        key = tuple(env_ids)
        if key not in self._readers:
            if len(self._readers) == _MAX_READERS:
                self._readers.clear()
            self._readers[key] = self._reader(key)
        reader, pictures = self._readers[key]
        return _Shot(reader.read(), pictures, shapes)

    def draw(self, shot: _Shot) -> np.ndarray:
        """Draw an image of each environment: new uint8 array (environments, height, width, 3)."""
        if self._gl is None:
            self._gl = GlContext(self._posed.model, self._cfg.width, self._cfg.height, self.backend)
        self._gl.make_current()
        shape = len(shot.pictures), self._cfg.height, self._cfg.width, 3
        images = np.empty(shape, dtype=np.uint8)
        shot.snapshot.wait()
        for number, rows in enumerate(shot.pictures):
            shapes = None if shot.shapes is None else shot.shapes[number]
            self._draw(shot.snapshot, rows, shapes, self._gl, images[number])
        return images[:, ::-1]  # OpenGL counts rows from the bottom.

    def render(self, env_idx: int | None = None, shapes: Shapes | None = None) -> np.ndarray:
        """Capture and draw an environment in one call: (height, width, 3)."""
        env_idx = self._cfg.env_idx if env_idx is None else env_idx
        return self.draw(self.capture([env_idx], None if shapes is None else [shapes]))[0].copy()

    def close(self) -> None:
        """Free the graphics memory. Idempotent."""
        if self._gl is not None:
            self._gl.close()

    def _reader(self, env_ids: tuple[int, ...]) -> tuple[SnapshotReader, list[list[int]]]:
        check_env_ids(env_ids, self._sim.num_envs)
        pictures = [[env_idx, *self._neighbours(env_idx)] for env_idx in env_ids]
        needed = list(dict.fromkeys(env for picture in pictures for env in picture))
        rows = [[needed.index(env) for env in picture] for picture in pictures]
        return SnapshotReader(self._sim, needed), rows

    def _draw(
        self,
        snapshot: Snapshot,
        rows: list[int],
        shapes: Shapes | None,
        gl: GlContext,
        image: np.ndarray,
    ) -> None:
        everything, dynamic = mujoco.mjtCatBit.mjCAT_ALL, mujoco.mjtCatBit.mjCAT_DYNAMIC
        model = self._posed.model
        data = self._posed.pose(snapshot, rows[0])
        if self._followed is not None:
            self._camera.lookat[:] = data.xpos[self._followed]
        # An infinite plane is laid out around where the scene's camera was before.
        mujoco.mjv_updateCamera(model, data, self._camera, self._scene)
        mujoco.mjv_updateScene(
            model,
            data,
            self._options,
            self._perturbation,
            self._camera,
            int(everything),
            self._scene,
        )
        for neighbour in rows[1:]:
            data = self._posed.pose(snapshot, neighbour)
            mujoco.mjv_addGeoms(
                model, data, self._options, self._perturbation, int(dynamic), self._scene
            )
        if shapes is not None:
            self._shapes.draw(self._scene, shapes)
        if self._cfg.enable_shadows:
            self._aim_shadows()
        mujoco.mjr_render(self._frame, self._scene, gl.mjr)
        mujoco.mjr_readPixels(image, None, self._frame, gl.mjr)

    def _aim_shadows(self) -> None:
        """Make parallel light cast its shadows where the camera looks, wherever that is.

        The map of shadows is a square around the light.
        """
        scene, reach = self._scene, self._shadow_reach
        camera = scene.camera[0]
        middle = camera.pos + self._cfg.distance * camera.forward
        for light in scene.lights[: scene.nlight]:
            if light.type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL and not light.headlight:
                light.pos = middle - reach * light.dir
        # The ground casts no shadow, but its inexact depth would speckle it.
        for geom in scene.geoms[: scene.ngeom]:
            if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
                geom.category = mujoco.mjtCatBit.mjCAT_DECOR

    def _neighbours(self, env_idx: int) -> list[int]:
        distance = np.linalg.norm(self._origins - self._origins[env_idx], axis=1)
        distance[env_idx] = np.inf
        count = min(self._cfg.max_extra_envs, len(distance) - 1)
        return np.argsort(distance, kind="stable")[:count].tolist()


def _shadow_size(cfg: ViewerConfig) -> int:
    """Return the side of the shadow map, in pixels, that is fine enough for the image."""
    return 1 << (_SHADOW_PIXELS * max(cfg.width, cfg.height) - 1).bit_length()
