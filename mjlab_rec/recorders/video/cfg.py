"""What a video recorder can be told: what to show, when, and how."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.mp4 import frame_rate
from mjlab_rec.recorders.cfg_fields import Bounds, Count, EnvsCfg, FileCfg, Positive, StartCfg
from mjlab_rec.recorders.triggers import Trigger
from mjlab_rec.recorders.video.recorder import VideoRecorder
from mjlab_rec.sim.viewer_config import RendererName, ViewerConfig

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class VideoRecorderCfg(StartCfg, EnvsCfg, FileCfg):
    """Configuration of ``VideoRecorder``."""

    func: type = VideoRecorder

    can_append = False

    path: str = "videos"
    """Folder for the clips."""

    name: str = ""
    """Beginning of their names. Empty takes the task's id."""

    if_exists: IfExists = "number"
    """What to do if a clip of that name exists: raise an "error", "overwrite" it, or add a "number"
    to the name."""

    envs: int | tuple[int, ...] | None = 1
    """Environments to show: a number for the first ones, or a list of them. None means all."""

    layout: Literal["separate", "grid"] = "separate"
    """A file for each environment, or all side by side in one picture. A grid begins and ends with
    the episodes of the first of its environments."""

    columns: Count | None = None
    """Environments side by side in a grid. None makes it about as high as wide."""

    trigger: Trigger | Mapping[str, Any] | str | None = None
    """When to begin a clip, such as every_n_steps(1000) or every_n_episodes(10). None begins one
    when recording begins. A trigger that fires during a clip begins another one beside it."""

    length: Count | None = None
    """Steps in a clip. It goes on over ends of episodes."""

    length_s: Positive | None = None
    """The same in simulated seconds."""

    episodes: Count | None = None
    """Whole episodes in a clip, which begins with the next episode. Without this and a length, a
    clip goes to the end of the episode; without a trigger as well it goes on until ``stop()``."""

    last_clip: tuple[str, ...] = ()
    """Instead of a trigger: keep the last steps of each episode in memory, ``length`` of them or
    all, and make a clip of them if a termination of one of these names ends it. "end" stands for
    every end, and "close" for the last episode before recording stops. Of a step a few numbers are
    kept; where both the engine and the renderer are "warp", whole pictures."""

    max_clips: Count | None = None
    """Clips at most, whatever happens."""

    fps: Positive | None = None
    """Pictures per second of the video. None shows every step, and is 1 / step_dt if ``speed`` is
    1. Otherwise a picture is taken every so many steps; the video keeps the right speed."""

    speed: Positive = 1.0
    """Times as fast as in the simulation: 0.5 is slow motion."""

    width: Count | None = None
    """Width of an environment's picture in pixels. None takes the viewer's."""

    height: Count | None = None
    """Height of an environment's picture in pixels. None takes the viewer's."""

    camera: str | int | None = None
    """Name or number of a camera of the model. None takes the viewer's."""

    follow: str | None = None
    """Let a free camera follow an entity, such as "robot", or a body of it: "robot/torso"."""

    viewer: ViewerConfig | None = None
    """The camera and what is shown. None takes the environment's ``cfg.viewer``. Its ``env_idx`` is
    not used: ``envs`` says whom to show."""

    renderer: RendererName | None = None
    """What draws: "gl" with OpenGL, "warp" without, "auto" with OpenGL if it works. None takes the
    viewer's."""

    overlay: bool | tuple[str, ...] = False
    """Numbers to write into the pictures: of env, episode, step, time, return, reward, command.
    True shows step, time, return and command."""

    crf: Annotated[int, Bounds(0, 51)] = 23
    """Quality from 0 (lossless, large) to 51 (worst, small)."""

    max_pending: Count = 256
    """Pictures that may wait to be drawn, as a few numbers each. If there are more, the simulation
    waits; those that wait are what a kill loses."""

    def check(self) -> None:
        """Raise ValueError for the first value that does not fit its field."""
        super().check()
        if not self.path:
            raise self.error("path", "is empty; it is the folder for the clips.")
        self.at_most_one("length", "length_s", "episodes")
        self.at_most_one("camera", "follow")
        if self.columns is not None and self.layout != "grid":
            raise self.error("columns", 'is for layout="grid".')
        if self.last_clip and (self.trigger is not None or self.episodes not in (None, 1)):
            raise self.error(
                "last_clip",
                "takes no trigger (leave it out, or set it to None) and at most one episode; a"
                " length may be given.",
            )

    def steps(self, step_dt: float) -> int | None:
        """Steps in a clip; None if they are not what it is counted in."""
        if self.length_s is None:
            return self.length
        return max(1, round(self.length_s / step_dt))

    def stride(self, step_dt: float) -> tuple[int, Fraction]:
        """Steps from one picture to the next, and pictures per second of the video."""
        every = 1
        if self.fps is not None:
            every = max(1, round(self.speed / (self.fps * step_dt)))
        rate = frame_rate(every * step_dt, self.speed)
        if self.fps is not None and abs(float(rate) / self.fps - 1.0) > 1e-4:
            logger.warning(
                "%s: %g pictures per second at speed %g are not a whole number of steps of %g s;"
                " there is one every %d steps, and the video has %g per second.",
                *(type(self).__name__, self.fps, self.speed, step_dt, every, float(rate)),
            )
        return every, rate

    def view(self, viewer: ViewerConfig) -> ViewerConfig:
        """The camera and what is shown, given what the environment says."""
        view = copy.copy(viewer if self.viewer is None else self.viewer)
        if self.layout == "grid" and self.viewer is None:
            view.max_extra_envs = 0  # The neighbours have pictures of their own.
        for name in ("width", "height", "camera"):
            if getattr(self, name) is not None:
                setattr(view, name, getattr(self, name))
        if self.follow is not None:
            kinds = ViewerConfig.OriginType
            entity, _, body = self.follow.partition("/")
            view.camera = None
            view.entity_name, view.body_name = entity, body or None
            view.origin_type = kinds.ASSET_BODY if body else kinds.ASSET_ROOT
        return view


VideoRecorder.cfg_type = VideoRecorderCfg
