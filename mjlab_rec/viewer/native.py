"""The viewer in MuJoCo's window, with plots, record keys and other environments."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from mjlab_rec.data.worker import Worker
from mjlab_rec.sim.debug_gl import ShapeDrawer
from mjlab_rec.sim.snapshot import PosedModel
from mjlab_rec.sim.viewer_config import camera_id, followed_body
from mjlab_rec.utils.display import why_no_window
from mjlab_rec.utils.extras import UnavailableError
from mjlab_rec.viewer.frame import Frame, FrameReader, spread
from mjlab_rec.viewer.native_figures import NativeFigures, status_texts
from mjlab_rec.viewer.native_keys import NativeKeys

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Playback

_CLOSES_WITHIN_S = 30.0
_EVERYTHING_THAT_MOVES = int(mujoco.mjtCatBit.mjCAT_DYNAMIC)


@dataclass(frozen=True)
class _Picture:
    """Everything that the window shows."""

    frame: Frame
    speed: float | None
    help: list[tuple[str, str]]


class NativeViewer:
    """Shows an environment in MuJoCo's window, which draws in its own thread.

    The stepping thread only copies poses and numbers, a few times a second; another thread passes
    them to the window, and waits if the window is slow. The window shows a copy, so nothing that is
    done in it, such as dragging a body, reaches the simulation. ``NativeKeys`` describes the keys;
    the window lists them.

    Args:
        env: The environment.
        rate_hz: The highest rate at which the window gets new poses.
        max_envs: The most environments that are shown at once.
    """

    def __init__(self, env: ManagerBasedRlEnv, rate_hz: float = 60.0, max_envs: int = 64) -> None:
        if (reason := why_no_window()) is not None:
            raise UnavailableError(
                f"No window can be opened. {reason} On a machine without a screen, choose the"
                ' viewer "web", or "none".'
            )
        self._env = env
        self._period = 1.0 / rate_hz
        self._max_envs = max_envs
        self._next = 0.0
        self._window: Any = None
        self._worker: Worker[_Picture] | None = None
        self._closed = False

    @property
    def closed_by_user(self) -> bool:
        """Whether the window was closed."""
        return self._window is not None and not self._closed and not self._window.is_running()

    def open(self, playback: Playback) -> None:
        """Open the window."""
        import mujoco.viewer

        env, cfg = self._env, self._env.cfg.viewer
        self._playback = playback
        self._reader = FrameReader(playback, self._max_envs)
        self.figures = NativeFigures(playback.timeline)
        self.keys = NativeKeys(playback, self.figures)
        self._posed = PosedModel(env.sim.mj_model)
        if cfg.fovy is not None:
            self._posed.model.vis.global_.fovy = cfg.fovy
        self._extra = PosedModel(env.sim.mj_model)  # The first must stay as shown.
        self._shapes = ShapeDrawer(self._posed.model)
        self._options, self._perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._options.geomgroup[:] = cfg.geom_group
        self._options.sitegroup[:] = cfg.site_group
        self._followed = followed_body(cfg, env.sim.mj_model, env.scene)
        self._spread: tuple[Any, np.ndarray] = (None, np.zeros((1, 3)))
        frame = self._reader.read()
        self._posed.pose(frame.snapshot.wait(), frame.row)
        before = set(threading.enumerate())
        self._window = mujoco.viewer.launch_passive(
            self._posed.model,
            self._posed.data,
            key_callback=self.keys.press,
            show_left_ui=False,
            show_right_ui=False,
        )
        self._threads = set(threading.enumerate()) - before
        with self._window.lock():
            self._window.opt.geomgroup[:] = cfg.geom_group
            self._window.opt.sitegroup[:] = cfg.site_group
            self._place_camera()
        self._worker = Worker("NativeViewer", self._draw, doing="drawing", capacity=1)
        self._worker.submit(self._picture(frame))

    def update(self) -> None:
        """Show the current state, if it is time."""
        now, worker = self._playback.clock(), self._worker
        if now < self._next or worker is None:
            return
        worker.check()
        if worker.ready():
            self._next = now + self._period
            worker.submit(self._picture(self._reader.read()))

    def close(self) -> None:
        """Close the window. Idempotent."""
        if self._window is not None and not self._closed:
            self._closed = True
            if self._worker is not None:
                self._worker.finish()
            self._window.close()
            # Otherwise the process may end, and close the display, while the window still draws.
            for thread in self._threads:
                thread.join(_CLOSES_WITHIN_S)
            if self._worker is not None:
                self._worker.check()

    def _place_camera(self) -> None:
        camera, cfg = self._window.cam, self._env.cfg.viewer
        camera.distance, camera.azimuth, camera.elevation = cfg.distance, cfg.azimuth, cfg.elevation
        camera.lookat[:] = cfg.lookat
        if cfg.camera is not None:
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = camera_id(cfg.camera, self._posed.model)
        elif self._followed is not None:
            camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
            camera.trackbodyid = self._followed

    def _picture(self, frame: Frame) -> _Picture:
        return _Picture(frame, self._playback.speed, self.keys.help())

    def _draw(self, picture: _Picture) -> None:
        """Pass a picture to the window. Called by one thread."""
        frame = picture.frame
        self.figures.add(frame)
        snapshot = frame.snapshot.wait()
        with self._window.lock():
            self._posed.pose(snapshot, frame.row)
            self._draw_others(frame)
            self._draw_shapes(frame)
        self._window.sync()
        viewport = self._window.viewport
        if viewport is not None:
            self._window.set_figures(self.figures.placed(viewport.width, viewport.height))
        status = status_texts(frame, picture.speed)
        self._window.set_texts([*status, _two_columns(picture.help)])

    def _draw_others(self, frame: Frame) -> None:
        """Add the robots of other environments, as shapes that exist only in the picture."""
        scene, env_ids = self._window.user_scn, frame.snapshot.env_ids
        scene.ngeom = 0
        if len(env_ids) == 1:
            return
        body = self._followed or 0
        if self._spread[0] != env_ids:
            places = np.array(
                [
                    self._extra.pose(frame.snapshot, row).xpos[body].copy()
                    for row in range(len(env_ids))
                ]
            )
            self._spread = env_ids, spread(self._env, env_ids, places)
        aside = self._spread[1] - self._spread[1][frame.row]
        self._reader.apart = bool(aside.any())
        for row in range(len(env_ids)):
            if row == frame.row:
                continue
            first = scene.ngeom
            mujoco.mjv_addGeoms(
                *(self._extra.model, self._extra.pose(frame.snapshot, row)),
                *(self._options, self._perturbation, _EVERYTHING_THAT_MOVES, scene),
            )
            for index in range(first, scene.ngeom) if aside[row].any() else ():
                scene.geoms[index].pos += aside[row]

    def _draw_shapes(self, frame: Frame) -> None:
        """Add what terms, sensors and the terrain draw."""
        if frame.shapes is None:
            return
        shapes, env_ids = frame.shapes, frame.snapshot.env_ids
        if len(env_ids) > 1:
            shapes = shapes.moved(env_ids, self._spread[1] - self._spread[1][frame.row])
        self._shapes.draw(self._window.user_scn, shapes)


def _two_columns(lines: list[tuple[str, str]]) -> tuple[Any, ...]:
    names, texts = zip(*lines, strict=True)
    return (
        mujoco.mjtFontScale.mjFONTSCALE_50,
        mujoco.mjtGridPos.mjGRID_TOPRIGHT,
        "\n".join(names),
        "\n".join(texts),
    )
