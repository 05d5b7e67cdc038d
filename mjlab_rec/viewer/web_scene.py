"""The robots on the web page: MuJoCo's bodies as meshes that move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from mjlab_rec.sim.snapshot import PosedModel, Snapshot, copy_for_drawing
from mjlab_rec.sim.viewer_config import camera_id, followed_body
from mjlab_rec.utils.extras import require
from mjlab_rec.viewer.frame import Frame, spread
from mjlab_rec.viewer.web_shapes import WebShapes

if TYPE_CHECKING:
    from mjlab_rec.viewer.playback import Playback

# Half the height of the picture, as a multiple of the extent of several environments: the panel
# covers a part of it.
_ROOM = 1.25
# What a geom looks like, and where on its body it is.
_SHAPING = ("geom_dataid", "geom_matid", "geom_rgba", "geom_size", "geom_pos", "geom_quat")


class WebScene:
    """Draws frames on a viser page.

    Meshes are made from the compiled model: bodies move as in each world, but sizes and colours
    that differ between worlds look the same. If entities have variants, all environments in the
    picture look like the one that is shown.

    Args:
        server: The ``viser.ViserServer``.
        playback: What is shown.
        first: The first frame.
        user: What needs mjviser, for the message if it is missing.
    """

    def __init__(self, server: Any, playback: Playback, first: Frame, user: str) -> None:
        mjviser = require("mjviser", "web", user)
        self._server = server
        self._playback = playback
        env, cfg = playback.env, playback.env.cfg.viewer
        model = env.sim.mj_model
        self._posed = PosedModel(model)
        # A copy, because mjviser writes colours and scales into it. It is given one world, but
        # draws as many as it gets positions for.
        self._scene = mjviser.ViserMujocoScene(server, copy_for_drawing(model), num_envs=1)
        self._meshes: np.ndarray | None = None  # Those of the variants that are shown.
        self._scene.geom_groups_visible = [bool(on) for on in cfg.geom_group]
        self._scene.site_groups_visible = [bool(on) for on in cfg.site_group]
        self._scene.rebuild_visual_handles()
        server.scene.set_background_image(_sky(model), format="png")
        self._followed = followed_body(cfg, model, env.scene)
        self._scene._tracked_body_id = self._followed
        self._scene.camera_tracking_enabled = self.can_follow and cfg.camera is None
        self._shapes = WebShapes(server)
        self.apart = False
        """Whether some environments are drawn elsewhere than they are."""
        self._spread: tuple[Any, np.ndarray] = (None, np.zeros((1, 3)))
        self._focus = np.zeros(3)  # Position of the followed body.
        self._in_picture = 1
        self._cameras: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        look_at = np.zeros(3) if self.follows else np.array(cfg.lookat)
        position = look_at + _backward(cfg.azimuth, cfg.elevation) * cfg.distance
        fovy = model.vis.global_.fovy if cfg.fovy is None else cfg.fovy
        if cfg.camera is not None:
            number = camera_id(cfg.camera, model)
            data = self._posed.pose(first.snapshot.wait(), first.row)
            position = data.cam_xpos[number].copy()
            look_at = position - data.cam_xmat[number].reshape(3, 3)[:, 2] * cfg.distance
            fovy = model.cam_fovy[number]
        server.initial_camera.fov = np.deg2rad(fovy)
        server.initial_camera.position = tuple(position)
        server.initial_camera.look_at = tuple(look_at)

    @property
    def can_follow(self) -> bool:
        """Whether there is a body to follow."""
        return self._followed is not None

    @property
    def follows(self) -> bool:
        """Whether the camera follows the body that it looks at."""
        return self._scene.camera_tracking_enabled

    def follow(self, on: bool) -> None:
        """Make the cameras follow, or stay where they are; the picture does not jump."""
        if on == self.follows:
            return
        # To follow, move the scene so that the body is at the origin.
        shift = -self._focus if on else self._focus
        self._scene.camera_tracking_enabled = on
        for client in self._server.get_clients().values():
            camera = client.camera
            position, look_at = camera.position + shift, camera.look_at + shift
            with client.atomic():
                camera.position, camera.look_at = position, look_at

    def draw(self, frame: Frame) -> None:
        """Update the page. Called by one thread."""
        snapshot, model = frame.snapshot.wait(), self._posed.model
        count = len(snapshot.env_ids)
        body_pos = np.empty((count, model.nbody, 3))
        body_mat = np.empty((count, model.nbody, 3, 3))
        mocap_pos = np.empty((count, model.nmocap, 3))
        mocap_quat = np.empty((count, model.nmocap, 4))
        for row in range(count):
            data = self._posed.pose(snapshot, row)
            body_pos[row] = data.xpos
            body_mat[row] = data.xmat.reshape(-1, 3, 3)
            mocap_pos[row] = data.mocap_pos
            mocap_quat[row] = data.mocap_quat
        self._show_variant(snapshot, frame.row)
        aside = self._aside(frame, body_pos[:, self._followed or 0])
        if self._followed is not None:
            self._focus = body_pos[frame.row, self._followed].copy()
        self._scene.update_from_arrays(
            body_pos + aside,
            body_mat,
            mocap_pos + aside,
            mocap_quat,
            env_idx=frame.row,
        )
        shapes = frame.shapes
        if shapes is not None:
            shapes = shapes.moved(frame.snapshot.env_ids, aside[:, 0])
        self.apart = bool(aside.any())
        self._shapes.draw(shapes, self._scene._scene_offset)
        if (count > 1) != (self._in_picture > 1):
            self._take_in(body_pos[:, self._followed or 0] + aside[:, 0], frame.row)
        self._in_picture = count

    def close(self) -> None:
        """Remove everything from the page."""
        self._shapes.close()
        for name in ("/bodies", "/fixed_bodies", "/hull", "/decor"):
            self._server.scene.remove_by_name(name)
        self._server.scene.set_background_image(None)

    def _show_variant(self, snapshot: Snapshot, row: int) -> None:
        """Rebuild meshes if the environment that is shown has other ones."""
        if "geom_dataid" not in snapshot.layout:
            return
        meshes = snapshot["geom_dataid"][row]
        if self._meshes is not None and np.array_equal(meshes, self._meshes):
            return
        self._meshes = meshes.copy()
        for name in _SHAPING:
            if name in snapshot.layout:
                field = getattr(self._scene.mj_model, name)
                field[...] = snapshot[name][row].reshape(field.shape)
        self._scene.rebuild_visual_handles()

    def _take_in(self, places: np.ndarray, middle: int) -> None:
        """Move the cameras back until they see all positions; undo that if only one is left."""
        for number, client in self._server.get_clients().items():
            camera = client.camera
            if len(places) > 1:
                self._cameras[number] = camera.position, camera.look_at
                away = camera.position - camera.look_at
                look_at = places.mean(axis=0) - (places[middle] if self.follows else 0.0)
                radius = np.linalg.norm(places - places.mean(axis=0), axis=1).max()
                reach = radius + float(self._posed.model.stat.extent) / 2
                distance = _ROOM * reach / np.tan(camera.fov / 2)
                scale = max(1.0, distance / np.linalg.norm(away))
                position = look_at + away * scale
            elif number in self._cameras:
                position, look_at = self._cameras.pop(number)
            else:
                continue
            with client.atomic():
                camera.position, camera.look_at = position, look_at

    def _aside(self, frame: Frame, places: np.ndarray) -> np.ndarray:
        """Return how far each environment is drawn from where it is; zero for the one shown."""
        if self._spread[0] != frame.snapshot.env_ids:
            env_ids = frame.snapshot.env_ids
            self._spread = env_ids, spread(self._playback.env, env_ids, places)
        return (self._spread[1] - self._spread[1][frame.row])[:, None]


def _sky(model: mujoco.MjModel) -> np.ndarray | None:
    """Return a column of the sky's colours from above to the horizon; None if there is no sky."""
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if not len(skies):
        return None
    sky = skies[0]
    side, channels, start = model.tex_width[sky], model.tex_nchannel[sky], model.tex_adr[sky]
    face = model.tex_data[start : start + side * side * channels].reshape(side, side, channels)
    return face[: side // 2 + 1, :, :3].mean(axis=1, keepdims=True).astype(np.uint8)


def _backward(azimuth: float, elevation: float) -> np.ndarray:
    """Return the unit vector from what a camera looks at to the camera; angles in degrees."""
    azimuth, elevation = np.deg2rad(azimuth), np.deg2rad(elevation)
    return -np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
