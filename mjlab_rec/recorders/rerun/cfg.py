"""Configuration of the Rerun recorder: what to show, where and when."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import mujoco

from mjlab_rec.recorders.cfg import TransitionRecorderCfg
from mjlab_rec.recorders.cfg_fields import Bounds, Count, FileCfg
from mjlab_rec.recorders.channels import Channel
from mjlab_rec.recorders.rerun.recorder import RerunRecorder
from mjlab_rec.recorders.triggers import TriggerLike, capped_cubic_episodes


@dataclass(kw_only=True)
class RerunRecorderCfg(TransitionRecorderCfg, FileCfg):
    """Configuration of ``RerunRecorder``.

    The path of the file ends in .rrd. Without a path, a viewer or a stream, the recording goes to
    Rerun's own current recording, the one of ``rerun.init()``.
    """

    func: type = RerunRecorder

    can_append = False

    connect: str | None = None
    """URL of a running viewer to send the recording to, such as
    "rerun+http://127.0.0.1:9876/proxy"."""

    serve: bool = False
    """Serve a web page to browsers on this machine, while the environment is open."""

    web_port: Annotated[int, Bounds(1, 65535)] = 9090
    """Port of the web page; if it is taken, the next free one is used."""

    spawn: bool = False
    """Open Rerun's window and send the recording to it; the window stays open afterwards. If it is
    closed, or the page's server ends, recording goes on."""

    recording_stream: Any = None
    """Your own ``rerun.RecordingStream`` to log to. It is flushed at the end and stays open. If
    there is a path, the recording goes there instead, and the stream gets nothing."""

    trigger: TriggerLike | Literal["auto"] | None = "auto"
    """When to record. "auto" means capped_cubic_episodes(): episodes 0, 1, 8, 27, ..., 1000, 2000,
    ... of each environment. But it means everything if a viewer shows it live (``connect``,
    ``serve`` or ``spawn``), if ``length`` is set, or if you begin the recording with ``start()``
    (``autostart=False``). None records everything."""

    length: Count | None = None
    """Steps per clip, from when the trigger fires. None records until the episode ends. Without a
    trigger, clips of this length follow each other without a gap."""

    channels: tuple[str | Channel, ...] = ("reward", "reward_terms", "action")
    """What to plot, by the channel names of the other recorders: a line per environment, and of
    more than eight environments also their mean, minimum and maximum."""

    envs: int | tuple[int, ...] | None = None
    """Which environments: at most the first N, or a tuple of indices. None means all."""

    spacing_m: Annotated[float, Bounds(0)] | None = None
    """Place the environments in a grid with this spacing in metres. None shows them where they are,
    which may be all in one place."""

    geom_groups: tuple[int, ...] = (0, 1, 2)
    """Geom groups to show."""

    contacts: bool = False
    """Show contact points. They are recomputed from the recorded positions."""

    debug_vis: bool | None = None
    """Show what terms, sensors and the terrain draw, such as arrows of commands, in every recorded
    step. The simulation waits for it. None does what the environment's ``cfg.viewer`` says."""

    cameras: bool = True
    """Show the model's cameras, as placed in the first recorded environment."""

    blueprint: Any = None
    """A ``rerun.blueprint.Blueprint`` for the viewer's layout. None shows the scene, with plots of
    the channels next to it; of more than eight environments the lines are hidden at first."""

    max_bytes: Count | None = None
    """Stop once the file has this size in bytes."""

    block_steps: Count | None = None
    """Steps to write at once: the most that a kill can lose and that a viewer can lag behind. None
    means 128 if there is only a file, else 16."""

    block_seconds: Annotated[float, Bounds(0)] = 10.0
    """Write after this many seconds even if there are fewer steps."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RerunRecorderCfg:
        """Copy the cfg; copies share the recording stream and the blueprint."""
        shared = ("recording_stream", "blueprint")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        copies = {n: v if n in shared else copy.deepcopy(v, memo) for n, v in values.items()}
        return type(self)(**copies)

    def check(self) -> None:
        """Raise ValueError for the first invalid value."""
        super().check()
        name = type(self).__name__
        if self.recording_stream is not None and self.live:
            raise ValueError(
                f"{name}: a recording_stream has its own destination, so connect, serve and spawn"
                " must not be set."
            )
        streams = self.recording_stream is None or hasattr(self.recording_stream, "send_columns")
        if not streams:
            raise ValueError(
                f"{name}.recording_stream is {self.recording_stream!r}; it must be a"
                " rerun.RecordingStream. For a file, set path."
            )
        if self.blueprint is not None and not hasattr(self.blueprint, "to_blueprint"):
            raise ValueError(
                f"{name}.blueprint is {self.blueprint!r}; it must be a blueprint, container or view"
                " of rerun.blueprint."
            )
        if not set(self.geom_groups) <= set(range(mujoco.mjNGROUP)):
            raise self.error(
                "geom_groups",
                f"is {self.geom_groups}; groups are numbered from 0 to {mujoco.mjNGROUP - 1}.",
            )

    @property
    def live(self) -> bool:
        """Whether a viewer shows the recording live."""
        return self.connect is not None or self.serve or self.spawn

    @property
    def chosen_trigger(self) -> TriggerLike | None:
        """When to record, with "auto" replaced by what it means."""
        if self.trigger != "auto":
            return self.trigger
        wants_all = self.live or self.length is not None or not self.autostart
        return None if wants_all else capped_cubic_episodes()

    def started_by_hand(self) -> RerunRecorderCfg:
        """Return the cfg that ``start_recording`` uses: "auto" becomes everything."""
        return replace(self, trigger=None) if self.trigger == "auto" else self

    def env_ids(self, num_envs: int) -> tuple[int, ...]:
        """Indices of the environments to show, out of `num_envs`."""
        if isinstance(self.envs, int) and self.envs > num_envs:
            return tuple(range(num_envs))
        return super().env_ids(num_envs)


RerunRecorder.cfg_type = RerunRecorderCfg
