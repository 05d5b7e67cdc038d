"""What a Rerun recorder can be told: what to show, where, and when."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Annotated, Any

import mujoco

from mjlab_rec.recorders.cfg import TransitionRecorderCfg
from mjlab_rec.recorders.cfg_fields import Bounds, Count, FileCfg
from mjlab_rec.recorders.channels import Channel
from mjlab_rec.recorders.rerun.recorder import RerunRecorder


@dataclass(kw_only=True)
class RerunRecorderCfg(TransitionRecorderCfg, FileCfg):
    """Configuration of ``RerunRecorder``.

    The path of its file ends in .rrd. It may be empty if the recording goes elsewhere.
    """

    func: type = RerunRecorder

    can_append = False

    connect: str | None = None
    """Send it also to a viewer that runs: its URL, such as
    "rerun+http://127.0.0.1:9876/proxy"."""

    serve: bool = False
    """Serve it as a web page to browsers on this machine, as long as the environment is open."""

    web_port: Annotated[int, Bounds(1, 65535)] = 9090
    """Port of that page; if it is taken, the next free one is used."""

    spawn: bool = False
    """Open Rerun's window and send it there; the window stays open afterwards. If somebody closes
    it, or the page's server ends, recording goes on."""

    recording_stream: Any = None
    """A ``rerun.RecordingStream`` of your own to log to, instead of all the above. It is flushed at
    the end and stays open."""

    channels: tuple[str | Channel, ...] = ("reward", "reward_terms", "action")
    """What to plot, by the names that other recorders have for it; a line per environment."""

    envs: int | tuple[int, ...] | None = None
    """Which environments: the first so many, as far as there are, or these. None means all."""

    spacing_m: Annotated[float, Bounds(0)] | None = None
    """Set the environments apart in a grid, this far from one to the next, in metres. None shows
    them where they are, which may be all in one place."""

    geom_groups: tuple[int, ...] = (0, 1, 2)
    """Which groups of geoms are shown."""

    contacts: bool = False
    """Show the points of contact. They are computed anew from the recorded positions."""

    cameras: bool = True
    """Show the model's cameras, those of the first environment recorded."""

    blueprint: Any = None
    """A ``rerun.blueprint.Blueprint`` that says how the viewer arranges it all. None shows the
    scene, and plots of the channels beside it."""

    max_bytes: Count | None = None
    """Stop once the file has this size."""

    block_steps: Count | None = None
    """Steps that are written at once, the most that a kill can lose and a viewer lags behind. None
    means 128, or 16 if it goes to a viewer."""

    block_seconds: Annotated[float, Bounds(0)] = 10.0
    """Write after this many seconds even if there are fewer steps."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RerunRecorderCfg:
        """A copy; a stream leads to the same place for all copies, which share it."""
        shared = ("recording_stream", "blueprint")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        copies = {n: v if n in shared else copy.deepcopy(v, memo) for n, v in values.items()}
        return type(self)(**copies)

    def check(self) -> None:
        """Raise ValueError for the first value that does not fit its field."""
        super().check()
        name = type(self).__name__
        elsewhere = self.live or self.recording_stream is not None
        if not self.path and not elsewhere:
            raise ValueError(
                f"{name} says nowhere to write to. Give a path, connect to a viewer, serve a page,"
                " spawn a window or give a recording_stream."
            )
        if self.recording_stream is not None and (self.path or self.live):
            raise ValueError(
                f"{name}: a recording_stream goes where its owner sends it, so path, connect, serve"
                " and spawn must not be set."
            )
        streams = self.recording_stream is None or hasattr(self.recording_stream, "send_columns")
        if not streams:
            raise ValueError(
                f"{name}.recording_stream is {self.recording_stream!r}; it must be a"
                " rerun.RecordingStream. A file's name is path."
            )
        if self.blueprint is not None and not hasattr(self.blueprint, "to_blueprint"):
            raise ValueError(
                f"{name}.blueprint is {self.blueprint!r}; it must be a blueprint, container or view"
                " of rerun.blueprint."
            )
        if not set(self.geom_groups) <= set(range(mujoco.mjNGROUP)):
            raise self.error(
                "geom_groups",
                f"is {self.geom_groups}; groups are from 0 to {mujoco.mjNGROUP - 1}.",
            )

    @property
    def live(self) -> bool:
        """Whether a viewer shows it while it is recorded."""
        return self.connect is not None or self.serve or self.spawn

    def env_ids(self, num_envs: int) -> tuple[int, ...]:
        """The environments to show, of this many."""
        if isinstance(self.envs, int) and self.envs > num_envs:
            return tuple(range(num_envs))
        return super().env_ids(num_envs)


RerunRecorder.cfg_type = RerunRecorderCfg
