"""What viewers show of an environment at one moment, read out in one go."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mjlab_rec.recorders.progress import Progress, progress
from mjlab_rec.sim.snapshot import Snapshot, SnapshotReader
from mjlab_rec.viewer.commands import CommandState, read_commands

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.viewer.playback import Playback

_SPEED_OVER_S = 1.0


@dataclass(frozen=True)
class Frame:
    """Poses and numbers of what is shown at one moment, on the host."""

    shown: int
    """The environment that the numbers are of."""

    snapshot: Snapshot
    """Poses of all environments in the picture."""

    steps: int
    """Control steps taken."""

    seconds: float
    """Simulated time."""

    episode_step: int
    """Control steps since the episode began."""

    paused: bool
    """Whether it waits."""

    measured_speed: float
    """Simulated seconds per second, lately."""

    rewards: dict[str, float]
    """Value times weight of each reward term."""

    observations: dict[str, list[float]]
    """Values of each observation term, by "group-term"."""

    commands: dict[str, CommandState]
    """The command of each command term."""

    recorders: dict[str, Progress]
    """How far each recorder has got."""

    @property
    def row(self) -> int:
        """The row of the snapshot that shows the environment of the numbers."""
        return self.snapshot.env_ids.index(self.shown)


@dataclass
class FrameReader:
    """Reads frames. Only the thread that steps the environment may use it."""

    playback: Playback

    max_envs: int
    """Show no more environments than this at once."""

    _reader: SnapshotReader | None = None
    _moments: deque[tuple[float, float]] = field(default_factory=deque)

    def read(self) -> Frame:
        """What there is to see now."""
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
        )

    def _env_ids(self) -> tuple[int, ...]:
        """Those in the picture: neighbours by number of the one chosen, as many as allowed."""
        playback = self.playback
        if not playback.shows_all:
            return (playback.shown,)
        count = min(playback.env.num_envs, self.max_envs)
        first = min(max(playback.shown - count // 2, 0), playback.env.num_envs - count)
        return tuple(range(first, first + count))

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
    """How far to draw environments from where they are, (environments, 3), in metres.

    The worlds do not see each other, and may lie in the same place. Then they are laid out by their
    origins, or row by row where the origins are the same too.

    Args:
        env: The environment.
        env_ids: Those to be drawn.
        places: Where their robots are, (environments, 3).
    """
    origins = env.scene.env_origins.cpu().numpy()[list(env_ids)]
    if len(np.unique(origins, axis=0)) < len(env_ids):
        side = int(np.ceil(np.sqrt(len(env_ids))))
        rows, columns = np.divmod(np.arange(len(env_ids)), side)
        origins = np.stack((columns, rows, np.zeros(len(env_ids))), axis=1) * env.scene.env_spacing
    if np.ptp(places, axis=0).max() >= 0.5 * np.ptp(origins, axis=0).max():
        return np.zeros((len(env_ids), 3))
    return origins
