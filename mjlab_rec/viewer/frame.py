"""The data that viewers show of an environment at one moment, read in one call."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.recorders.progress import Progress, progress
from mjlab_rec.sim.debug_shapes import Shapes
from mjlab_rec.sim.debug_visualizer import shapes_of
from mjlab_rec.sim.snapshot import Snapshot, SnapshotReader
from mjlab_rec.viewer.commands import CommandState, read_commands

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Playback

_SPEED_OVER_S = 1.0


@dataclass(frozen=True)
class Frame:
    """Poses and numbers shown at one moment, on the host."""

    shown: int
    """The environment that the numbers belong to."""

    snapshot: Snapshot
    """Poses of all environments in the picture."""

    steps: int
    """Control steps taken."""

    seconds: float
    """Simulated time."""

    episode_step: int
    """Control steps since the episode began."""

    paused: bool
    """Whether playback is paused."""

    measured_speed: float
    """Recent simulated seconds per second."""

    rewards: dict[str, float]
    """Value times weight of each reward term."""

    observations: dict[str, list[float]]
    """Values of each observation term, by "group-term"."""

    commands: dict[str, CommandState]
    """The command of each command term."""

    recorders: dict[str, Progress]
    """The progress of each recorder."""

    shapes: Shapes | None
    """What terms, sensors and the terrain draw of these environments; None if it is not shown."""

    where: str = ""
    """What is shown of a recording, if one is."""

    picture: tuple[str, np.ndarray] | None = None
    """Kind and picture (height, width, channels) of the camera sensor that is shown."""

    @property
    def row(self) -> int:
        """The snapshot's row of the environment that the numbers belong to."""
        return self.snapshot.env_ids.index(self.shown)


@dataclass
class FrameReader:
    """Reads frames. Only the thread that steps the environment may use it."""

    playback: Playback

    max_envs: int
    """Limit the number of environments shown at once."""

    camera: tuple[str, str] | None = None
    """Camera sensor and kind of picture to show; None for none. Any thread may set it."""

    apart: bool = False
    """Whether environments are drawn elsewhere than they are. Drawing finds out, so the first frame
    may not know it yet."""

    _reader: SnapshotReader | None = None
    _moments: deque[tuple[float, float]] = field(default_factory=deque)

    def read(self) -> Frame:
        """Read the current frame."""
        playback = self.playback
        env, shown = playback.env, playback.shown
        recorders = env.recorder_manager
        return Frame(
            shown=shown,
            snapshot=self._reader_of(self._env_ids()).read(),
            steps=playback.steps,
            seconds=playback.seconds,
            episode_step=int(env.episode_length_buf[shown]),
            paused=playback.paused,
            measured_speed=self._speed(),
            rewards={
                name: values[0]
                for name, values in env.reward_manager.get_active_iterable_terms(shown)
            },
            observations={
                name: list(values)
                for name, values in env.observation_manager.get_active_iterable_terms(shown)
            },
            commands=read_commands(env, shown),
            recorders={name: progress(recorders.get_term(name)) for name in recorders.active_terms},
            where="" if playback.timeline is None else playback.timeline.describe(),
            picture=self._picture(),
            shapes=self._shapes(),
        )

    def _picture(self) -> tuple[str, np.ndarray] | None:
        if self.camera is None:
            return None
        name, kind = self.camera
        pictures = getattr(self.playback.env.scene.sensors[name].data, kind)
        return kind, pictures[self.playback.shown].cpu().numpy().copy()

    def _env_ids(self) -> tuple[int, ...]:
        """Return the environments shown: the chosen one, or up to ``max_envs`` around it."""
        playback = self.playback
        if not playback.shows_all:
            return (playback.shown,)
        count = min(playback.env.num_envs, self.max_envs)
        first = min(max(playback.shown - count // 2, 0), playback.env.num_envs - count)
        return tuple(range(first, first + count))

    def _shapes(self) -> Shapes | None:
        playback = self.playback
        if not playback.shows_debug_vis:
            return None
        hidden = tuple(playback.debug_vis_hidden)
        return shapes_of(playback.env, self._env_ids(), self.apart, hidden)

    def _reader_of(self, env_ids: tuple[int, ...]) -> SnapshotReader:
        if self._reader is None or self._reader.env_ids != env_ids:
            self._reader = SnapshotReader(self.playback.env.sim, env_ids)
        return self._reader

    def _speed(self) -> float:
        moments = self._moments
        moments.append((self.playback.clock(), self.playback.seconds))
        while len(moments) > 2 and moments[-1][0] - moments[1][0] >= _SPEED_OVER_S:
            moments.popleft()
        (begin, first), (end, last) = moments[0], moments[-1]
        return (last - first) / (end - begin) if end > begin else 0.0


def spread(env: ManagerBasedRlEnv, env_ids: tuple[int, ...], places: np.ndarray) -> np.ndarray:
    """Return how far environments are drawn from where they are, (environments, 3), in metres.

    Worlds do not interact, and may be in the same place. Then they are laid out by their origins,
    or row by row if the origins are the same too.

    Args:
        env: The environment.
        env_ids: The environments to draw.
        places: Positions of their robots, (environments, 3).
    """
    origins = env.scene.env_origins.cpu().numpy()[list(env_ids)]
    if len(np.unique(origins, axis=0)) < len(env_ids):
        side = int(np.ceil(np.sqrt(len(env_ids))))
        rows, columns = np.divmod(np.arange(len(env_ids)), side)
        origins = np.stack((columns, rows, np.zeros(len(env_ids))), axis=1) * env.scene.env_spacing
    if np.ptp(places, axis=0).max() >= 0.5 * np.ptp(origins, axis=0).max():
        return np.zeros((len(env_ids), 3))
    return origins
