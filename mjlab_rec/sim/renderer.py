"""Pictures of a simulation, drawn by MuJoCo without a window."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from mjlab_rec.sim.gl import GlContext
from mjlab_rec.sim.simulation import Simulation
from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.scene import Scene

_MAX_GEOMS = 10_000


class OffscreenRenderer:
    """Draws one environment, and its nearest neighbours around it, as the config says.

    It reads the simulation's state and never changes it, so rendering leaves no trace in a
    rollout. One thread may use a renderer.
    """

    def __init__(self, sim: Simulation, cfg: ViewerConfig, scene: Scene) -> None:
        _check(cfg)
        self._sim = sim
        self._cfg = cfg
        self._followed = _followed_body(cfg, sim.mj_model, scene)
        # Nearest by the first origins: were the neighbours to change, they would flicker.
        self._origins = scene.env_origins.cpu().numpy().copy()

        # A copy, so that what only the picture needs does not reach the physics.
        self._model = _drawn_model(sim.mj_model, cfg)
        self._data = mujoco.MjData(self._model)
        self._camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(self._model, self._camera)
        self._camera.lookat[:] = cfg.lookat
        self._camera.distance = cfg.distance
        self._camera.elevation = cfg.elevation
        self._camera.azimuth = cfg.azimuth

        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = cfg.geom_group
        self._options.sitegroup[:] = cfg.site_group
        self._perturbation = mujoco.MjvPerturb()
        self._scene = mujoco.MjvScene(self._model, maxgeom=_MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = cfg.enable_shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = cfg.enable_reflections
        self._frame = mujoco.MjrRect(0, 0, cfg.width, cfg.height)
        self._gl = GlContext(self._model, cfg.width, cfg.height)

    def render(self, env_idx: int | None = None, camera: str | None = None) -> np.ndarray:
        """Draw the present state.

        Args:
            env_idx: The environment to show instead of ``cfg.env_idx``.
            camera: Name of a camera of the model, such as "robot/front", to look through.

        Returns:
            A new uint8 array (height, width, 3).
        """
        env_idx = self._cfg.env_idx if env_idx is None else env_idx
        if not 0 <= env_idx < self._sim.num_envs:
            raise ValueError(
                f"env_idx is {env_idx}, but there are {self._sim.num_envs} environments: choose 0"
                f" to {self._sim.num_envs - 1}."
            )
        everything, dynamic = mujoco.mjtCatBit.mjCAT_ALL, mujoco.mjtCatBit.mjCAT_DYNAMIC
        self._load(env_idx)
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._options,
            self._perturbation,
            self._look_through(camera),
            int(everything),
            self._scene,
        )
        for neighbour in self._neighbours(env_idx):
            self._load(neighbour)
            mujoco.mjv_addGeoms(
                self._model,
                self._data,
                self._options,
                self._perturbation,
                int(dynamic),
                self._scene,
            )
        self._gl.make_current()
        mujoco.mjr_render(self._frame, self._scene, self._gl.mjr)
        image = np.empty((self._cfg.height, self._cfg.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(image, None, self._frame, self._gl.mjr)
        return image[::-1].copy()  # OpenGL counts rows from the bottom.

    def close(self) -> None:
        """Free the graphics memory. Idempotent."""
        self._gl.close()

    def _load(self, env_idx: int) -> None:
        """Bring one environment's state and model into the copies that are drawn."""
        for name in self._sim.expanded_fields:
            target = getattr(self._model, name)
            target[...] = _row(getattr(self._sim.model, name), env_idx).reshape(target.shape)
        data, source = self._data, self._sim.data
        data.qpos[:] = _row(source.qpos, env_idx)
        if self._model.nmocap:
            data.mocap_pos[:] = _row(source.mocap_pos, env_idx)
            data.mocap_quat[:] = _row(source.mocap_quat, env_idx)
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_camlight(self._model, data)
        mujoco.mj_flex(self._model, data)
        mujoco.mj_tendon(self._model, data)

    def _look_through(self, name: str | None) -> mujoco.MjvCamera:
        if name is None:
            if self._followed is not None:
                self._camera.lookat[:] = self._data.xpos[self._followed]
            return self._camera
        names = [self._model.camera(i).name for i in range(self._model.ncam)]
        if name not in names:
            raise ValueError(f"There is no camera {name!r}. {nearest(name, names)}")
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = names.index(name)
        return camera

    def _neighbours(self, env_idx: int) -> list[int]:
        distance = np.linalg.norm(self._origins - self._origins[env_idx], axis=1)
        distance[env_idx] = np.inf
        count = min(self._cfg.max_extra_envs, len(distance) - 1)
        return np.argsort(distance, kind="stable")[:count].tolist()


def _row(values, env_idx: int) -> np.ndarray:
    return values[env_idx].cpu().numpy()


def _drawn_model(model: mujoco.MjModel, cfg: ViewerConfig) -> mujoco.MjModel:
    model = copy.copy(model)
    model.vis.global_.offwidth = cfg.width
    model.vis.global_.offheight = cfg.height
    if cfg.fovy is not None:
        model.vis.global_.fovy = cfg.fovy
    # MuJoCo skips local offsets that were zero when the model was compiled; in a randomized
    # environment they need not be.
    for shortcut in (model.body_sameframe, model.geom_sameframe, model.site_sameframe):
        shortcut[:] = 0
    return model


def _followed_body(cfg: ViewerConfig, model: mujoco.MjModel, scene: Scene) -> int | None:
    """The body that the camera looks at; None for a fixed point."""
    kinds = ViewerConfig.OriginType
    if cfg.origin_type is kinds.WORLD:
        return None
    if cfg.origin_type is kinds.AUTO:
        moves = model.body_weldid != 0
        placed = model.body_mocapid[model.body_rootid] >= 0
        movable = np.flatnonzero(moves | placed)
        return int(movable[0]) if len(movable) else None

    names = list(scene.entities)
    name = cfg.entity_name
    if name is None and len(names) == 1:
        name = names[0]
    if name not in scene.entities:
        given = "is not set" if name is None else f"is {name!r}"
        raise ValueError(
            f"ViewerConfig.entity_name {given}, but origin_type {cfg.origin_type.name} follows an"
            f" entity. {nearest(name or '', names)}"
        )
    entity = scene.entities[name]
    if cfg.origin_type is kinds.ASSET_ROOT:
        return entity.indexing.root_body_id
    if cfg.body_name not in entity.body_names:
        raise ValueError(
            f"ViewerConfig.body_name is {cfg.body_name!r}, which is no body of {name!r}."
            f" {nearest(cfg.body_name or '', entity.body_names)}"
        )
    return int(entity.indexing.body_ids[entity.body_names.index(cfg.body_name)])


def _check(cfg: ViewerConfig) -> None:
    if cfg.width < 1 or cfg.height < 1:
        raise ValueError(
            f"ViewerConfig.width and height are {cfg.width} x {cfg.height}; both must be positive."
        )
    if cfg.max_extra_envs < 0:
        raise ValueError(f"ViewerConfig.max_extra_envs is {cfg.max_extra_envs}; the least is 0.")
