"""Configuration of the video recorder: what to show, when and how."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from mjlab_rec.data.files import IfExists
from mjlab_rec.data.mp4 import frame_rate
from mjlab_rec.recorders.cfg_fields import (
    Bounds,
    Count,
    Envs,
    EnvsCfg,
    FileCfg,
    Positive,
    StartCfg,
)
from mjlab_rec.recorders.triggers import (
    Trigger,
    TriggerLike,
    at_start,
    capped_cubic_episodes,
    trigger_from,
)
from mjlab_rec.recorders.video.clips import grid_shape
from mjlab_rec.recorders.video.recorder import VideoRecorder
from mjlab_rec.sim.viewer_config import RendererName, ViewerConfig

logger = logging.getLogger(__name__)

_HOW_TO_DRAW = (
    *("width", "height", "debug_vis", "camera", "follow", "camera_pos", "fovy", "viewer"),
    "renderer",
)

_MAX_GRID_SIDE = 1920  # Pixels; players and hardware decoders show such a grid.


@dataclass(kw_only=True)
class VideoRecorderCfg(StartCfg, EnvsCfg, FileCfg):
    """Configuration of ``VideoRecorder``."""

    func: type = VideoRecorder

    can_append = False

    path: str = "videos"
    """Folder for the clips; or the file, if it ends in .mp4. A file shows everything from start to
    ``stop()``. With a trigger or ``last_clip`` it holds the latest clip: each one replaces the one
    before it, and none begins while another is being recorded."""

    name: str = ""
    """Prefix of the clips' names in the folder. Empty uses the task's id."""

    if_exists: IfExists = "number"
    """What to do if there is a file of that name from an earlier run or recording: raise an
    "error", "overwrite" it, or add a "number" to the name."""

    envs: Envs = 1
    """Environments to show: 3 means the first three, [3] or on the command line "3," only
    environment 3, [0, 3] these two, None all."""

    layout: Literal["separate", "grid"] = "separate"
    """A "separate" file per environment, or one "grid" that shows all of them. A grid's clips begin
    and end with the episodes of its first environment."""

    columns: Count | None = None
    """Number of columns in a grid. None makes it about as high as wide."""

    trigger: TriggerLike | Literal["auto"] | None = "auto"
    """When to begin a clip: "auto" (episodes 0, 1, 8, 27, ..., 1000, 2000, ...),
    every_n_steps(1000), every_n_episodes(10) or another trigger; None makes a single clip, from
    when recording starts. A function such as ``lambda step: step % 1000 == 0`` is a trigger too.
    Each environment counts its own episodes; in a grid, the first one counts. Steps are those of
    ``env.common_step_counter``. "auto" means None if the path is a file or you call ``start()``
    yourself; with ``last_clip`` it means no other clips. A trigger that fires during a clip begins
    another, overlapping one."""

    length: Count | None = None
    """Steps per clip. The clip continues across episode ends."""

    length_s: Positive | None = None
    """Length of a clip in simulated seconds, instead of ``length``."""

    episodes: Count | None = None
    """Whole episodes per clip; the clip begins with the next episode. Without this and a length, a
    clip ends with the episode, or with trigger=None at ``stop()``."""

    last_clip: tuple[str, ...] = ()
    """Termination terms whose episodes get a clip of their last steps, with or without a trigger.
    "end" means every episode end, "close" the last episode before recording stops. The last
    ``length`` steps of each episode, or all of them, are kept in memory: a few numbers per step, or
    whole frames if both the engine and the renderer are "warp". If a clip of the trigger shows just
    these steps, there is no other one."""

    max_clips: Count | None = None
    """Maximum number of clips."""

    fps: Positive | None = None
    """Frames per second of the video. None shows every step, which is 1 / step_dt if ``speed`` is
    1. Otherwise every n-th step is shown; the playback speed stays correct. There is at most a
    frame per step: for more, lower the environment's ``decimation``, or ``speed``."""

    speed: Positive = 1.0
    """Playback speed relative to simulated time: 0.5 is slow motion."""

    width: Count | None = None
    """Width of an environment's image in pixels. None uses the viewer's, which is 640 by default;
    without width and height, a grid's images shrink until it is at most 1920 wide and high."""

    height: Count | None = None
    """Height of an environment's image in pixels. None uses the viewer's, which is 480 by
    default."""

    debug_vis: bool | None = None
    """Show what terms, sensors and the terrain draw, such as arrows of commands. None does what the
    viewer's ``debug_vis`` says."""

    camera: str | int | None = None
    """Name or index of a camera in the model. None uses the viewer's."""

    follow: str | None = None
    """Let a free camera follow an entity, such as "robot", or one of its bodies: "robot/torso"."""

    camera_pos: tuple[float, float, float] | None = None
    """Put the camera here, in metres from the environment's origin, to look at ``camera_lookat``.
    """

    camera_lookat: tuple[float, float, float] | None = None
    """The point that a camera at ``camera_pos`` looks at; None means the environment's origin."""

    fovy: Positive | None = None
    """Vertical field of view of a free camera in degrees. None uses the viewer's."""

    viewer: ViewerConfig | None = None
    """The camera and what is shown. None uses the environment's ``cfg.viewer``. Its ``env_idx`` is
    ignored: ``envs`` selects the environments."""

    renderer: RendererName | None = None
    """How to draw: "gl" uses OpenGL, "warp" does not, "auto" uses OpenGL if it works, unless
    the ray tracer is faster: without a graphics card, for meshes with very many faces. None uses
    the viewer's."""

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
            raise self.error("path", "is empty; set it to the folder for the clips, or to a file.")
        if self.is_file and self.name:
            raise self.error("name", f"is for clips in a folder, but the path is {self.path!r}.")
        self.at_most_one("length", "length_s", "episodes")
        self.at_most_one("camera", "follow", "camera_pos")
        if self.camera_lookat is not None and self.camera_pos is None:
            raise self.error("camera_lookat", "needs camera_pos, the place of the camera.")
        if self.camera_pos is not None:
            ViewerConfig().seen_from(self.camera_pos, self.camera_lookat or (0.0, 0.0, 0.0))
        if self.columns is not None and self.layout != "grid":
            raise self.error("columns", 'needs layout="grid".')
        if self.last_clip and self.trigger == "auto" and self.episodes not in (None, 1):
            raise self.error(
                "episodes",
                f"is {self.episodes}, but a last clip is of one episode. Set a length or nothing,"
                " or give a trigger for clips of several episodes.",
            )

    def check_drawn_elsewhere(self) -> None:
        """Raise ValueError if a field says how to draw, but the environment draws itself."""
        for name in _HOW_TO_DRAW:
            if getattr(self, name) is not None:
                raise self.error(
                    name,
                    "has no effect here: the pictures come from the environment's own render()."
                    " Set up the picture where the environment is made.",
                )

    @property
    def is_file(self) -> bool:
        """Whether the path is a file and not a folder."""
        return Path(self.path).suffix.lower() == ".mp4"

    def chosen_trigger(self, by_hand: bool) -> Trigger | None:
        """The trigger of a recording; None if there are only last clips.

        Args:
            by_hand: Whether the user begins the recording, and not the first reset.
        """
        if self.trigger == "auto" and self.last_clip:
            return None
        by_hand = by_hand or self.is_file
        if self.trigger is None or (self.trigger == "auto" and by_hand):
            return at_start()
        return capped_cubic_episodes() if self.trigger == "auto" else trigger_from(self.trigger)

    def started_by_hand(self) -> VideoRecorderCfg:
        """Return the cfg that ``start_recording`` uses: "auto" becomes everything."""
        everything = self.trigger == "auto" and not self.last_clip
        return replace(self, trigger=None) if everything else self

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
        if self.fps is not None and self.fps > float(rate) * 1.0001 and every == 1:
            logger.warning(
                "%s: fps is %g, but at speed %g there are %g control steps a second; the video has"
                " a frame for each, and %g frames per second. For more, lower the environment's"
                " decimation, or the speed.",
                *(type(self).__name__, self.fps, self.speed, self.speed / step_dt, float(rate)),
            )
        elif self.fps is not None and abs(float(rate) / self.fps - 1.0) > 1e-4:
            logger.warning(
                "%s: %g frames per second at speed %g are not a whole number of steps of %g s per"
                " frame; there is one frame every %d steps, and the video has %g per second.",
                *(type(self).__name__, self.fps, self.speed, step_dt, every, float(rate)),
            )
        return every, rate

    def view(self, viewer: ViewerConfig, num_shown: int = 1) -> ViewerConfig:
        """The camera and what is shown.

        Args:
            viewer: The environment's viewer cfg.
            num_shown: Number of environments that are shown.
        """
        view = copy.copy(viewer if self.viewer is None else self.viewer)
        if self.layout == "grid" and self.viewer is None:
            view.max_extra_envs = 0  # The neighbours have their own cells.
        for name in ("width", "height", "camera", "fovy", "debug_vis"):
            if getattr(self, name) is not None:
                setattr(view, name, getattr(self, name))
        if self.follow is not None:
            kinds = ViewerConfig.OriginType
            entity, _, body = self.follow.partition("/")
            view.camera = None
            view.entity_name, view.body_name = entity, body or None
            view.origin_type = kinds.ASSET_BODY if body else kinds.ASSET_ROOT
        if self.camera_pos is not None:
            view = view.seen_from(self.camera_pos, self.camera_lookat or (0.0, 0.0, 0.0))
        if self.layout == "grid" and self.width is None and self.height is None:
            columns, rows = grid_shape(num_shown, self.columns)
            most = max(columns * view.width, rows * view.height)
            if num_shown > 1 and most > _MAX_GRID_SIDE:
                shrink = _MAX_GRID_SIDE / most
                view.width = max(2, math.floor(view.width * shrink))
                view.height = max(2, math.floor(view.height * shrink))
        return view


VideoRecorder.cfg_type = VideoRecorderCfg
