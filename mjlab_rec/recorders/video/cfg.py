"""Configuration of the video recorder: what to show, when and how."""

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
    """Prefix of the clips' names. Empty uses the task's id."""

    if_exists: IfExists = "number"
    """What to do if a clip with that name exists: raise an "error", "overwrite" it, or add a
    "number" to the name."""

    envs: int | tuple[int, ...] | None = 1
    """Environments to show: a number for the first N, or a tuple of indices. None means all."""

    layout: Literal["separate", "grid"] = "separate"
    """A "separate" file per environment, or one "grid" that shows all of them. A grid's clips begin
    and end with the episodes of its first environment."""

    columns: Count | None = None
    """Number of columns in a grid. None makes it about as high as wide."""

    trigger: Trigger | Mapping[str, Any] | str | None = None
    """When to begin a clip, such as every_n_steps(1000) or every_n_episodes(10). None begins one
    when recording starts. A trigger that fires during a clip begins another, overlapping one."""

    length: Count | None = None
    """Steps per clip. The clip continues across episode ends."""

    length_s: Positive | None = None
    """Length of a clip in simulated seconds, instead of ``length``."""

    episodes: Count | None = None
    """Whole episodes per clip; the clip begins with the next episode. Without this and a length, a
    clip ends with the episode, or, if there is no trigger either, at ``stop()``."""

    last_clip: tuple[str, ...] = ()
    """Termination terms whose episodes get a clip of their last steps, instead of a trigger. "end"
    means every episode end, "close" the last episode before recording stops. The last ``length``
    steps of each episode, or all of them, are kept in memory: a few numbers per step, or whole
    frames if both the engine and the renderer are "warp"."""

    max_clips: Count | None = None
    """Maximum number of clips."""

    fps: Positive | None = None
    """Frames per second of the video. None shows every step, which is 1 / step_dt if ``speed`` is
    1. Otherwise every n-th step is shown; the playback speed stays correct."""

    speed: Positive = 1.0
    """Playback speed relative to simulated time: 0.5 is slow motion."""

    width: Count | None = None
    """Width of an environment's image in pixels. None uses the viewer's."""

    height: Count | None = None
    """Height of an environment's image in pixels. None uses the viewer's."""

    camera: str | int | None = None
    """Name or index of a camera in the model. None uses the viewer's."""

    follow: str | None = None
    """Let a free camera follow an entity, such as "robot", or one of its bodies: "robot/torso"."""

    viewer: ViewerConfig | None = None
    """The camera and what is shown. None uses the environment's ``cfg.viewer``. Its ``env_idx`` is
    ignored: ``envs`` selects the environments."""

    renderer: RendererName | None = None
    """How to draw: "gl" uses OpenGL, "warp" does not, "auto" uses OpenGL if it works. None uses the
    viewer's."""

    overlay: bool | tuple[str, ...] = False
    """Values to show in the frames: any of env, episode, step, time, return, reward, command. True
    shows step, time, return and command."""

    crf: Annotated[int, Bounds(0, 51)] = 23
    """Quality from 0 (lossless, large files) to 51 (worst, small files)."""

    max_pending: Count = 256
    """Maximum number of frames that wait to be drawn, each stored as a few numbers. If it is
    reached, the simulation waits. A kill loses the waiting frames."""

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        if not self.path:
            raise self.error("path", "is empty; set it to the folder for the clips.")
        self.at_most_one("length", "length_s", "episodes")
        self.at_most_one("camera", "follow")
        if self.columns is not None and self.layout != "grid":
            raise self.error("columns", 'needs layout="grid".')
        if self.last_clip and (self.trigger is not None or self.episodes not in (None, 1)):
            raise self.error(
                "last_clip",
                "cannot be combined with a trigger (leave it out, or set it to None) or with more"
                " than one episode; a length is possible.",
            )

    def steps(self, step_dt: float) -> int | None:
        """Steps per clip; None if its length is not set in steps or seconds."""
        if self.length_s is None:
            return self.length
        return max(1, round(self.length_s / step_dt))

    def stride(self, step_dt: float) -> tuple[int, Fraction]:
        """Steps from one frame to the next, and frames per second of the video."""
        every = 1
        if self.fps is not None:
            every = max(1, round(self.speed / (self.fps * step_dt)))
        rate = frame_rate(every * step_dt, self.speed)
        if self.fps is not None and abs(float(rate) / self.fps - 1.0) > 1e-4:
            logger.warning(
                "%s: %g frames per second at speed %g are not a whole number of steps of %g s per"
                " frame; there is one frame every %d steps, and the video has %g per second.",
                *(type(self).__name__, self.fps, self.speed, step_dt, every, float(rate)),
            )
        return every, rate

    def view(self, viewer: ViewerConfig) -> ViewerConfig:
        """The camera and what is shown, given the environment's viewer cfg."""
        view = copy.copy(viewer if self.viewer is None else self.viewer)
        if self.layout == "grid" and self.viewer is None:
            view.max_extra_envs = 0  # The neighbours have their own cells.
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
