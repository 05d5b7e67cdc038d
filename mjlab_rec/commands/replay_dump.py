"""Show a dump of the flight recorder or the NaN guard: in a viewer, or as a video."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mjlab_rec.data.files import local_path
from mjlab_rec.data.rollouts import open_rollouts
from mjlab_rec.data.schema import DataError

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.viewer.playback import Viewer

_ROWS = "rollout.npz"


@dataclass(frozen=True)
class Dump:
    """The states in a dump, aligned at their end: what happened last is in the last row."""

    folder: Path
    reason: dict[str, Any]
    envs: list[int]
    """The environments' numbers in the run that wrote the dump."""
    states: np.ndarray
    """(steps, environments, numbers), each environment's first state repeated before its start."""
    elements: tuple[str, ...]
    """Name of each number of a state."""

    @property
    def finite(self) -> np.ndarray:
        """Whether a state is finite: (steps, environments)."""
        return np.asarray(np.isfinite(self.states).all(axis=2))

    def shown(self) -> np.ndarray:
        """The states to show: in place of one that is not finite, the last one before it."""
        states, finite = self.states.copy(), self.finite
        for step in range(len(states)):
            for column in np.flatnonzero(~finite[step]):
                states[step, column] = states[step - 1, column] if step else 0.0
        return states


def read_dump(path: str | Path) -> Dump:
    """Read a dump, given its folder or the file of rows in it."""
    folder = local_path(path)
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / _ROWS).exists():
        raise DataError(
            f"'{path}' is not a dump of a flight recorder or NaN guard: there is no {_ROWS}."
        )
    by_env: dict[int, list[np.ndarray]] = {}
    with open_rollouts(folder / _ROWS) as rollouts:
        if "state" not in rollouts.channels:
            raise DataError(
                f"The dump '{folder}' has no states. Record the channel 'state', as by default."
            )
        elements = rollouts.channels["state"].columns()
        for index, env in enumerate(rollouts.episodes["env"].to_list()):
            by_env.setdefault(env, []).append(rollouts.read(index, ["state"])["state"])
    parts = {env: np.concatenate(rows) for env, rows in by_env.items()}
    steps = max(map(len, parts.values()))
    aligned = [
        np.concatenate((np.repeat(rows[:1], steps - len(rows), axis=0), rows))
        for rows in parts.values()
    ]
    reason_file = folder / "reason.json"
    reason = json.loads(reason_file.read_text()) if reason_file.exists() else {}
    return Dump(folder, reason, list(parts), np.stack(aligned, axis=1), tuple(elements))


def prepare(cfg: ManagerBasedRlEnvCfg, dump: Dump) -> None:
    """Make the task's environment show the dump and nothing else."""
    cfg.scene.num_envs = len(dump.envs)
    cfg.recorders, cfg.terminations, cfg.curriculum = {}, {}, {}
    cfg.sim.nan_guard.enabled = False
    cfg.viewer.env_idx = min(cfg.viewer.env_idx, len(dump.envs) - 1)


class ReplayedEnv:
    """An environment whose steps put the states of a dump into it, over and over."""

    def __init__(self, env: ManagerBasedRlEnv, dump: Dump) -> None:
        size = dump.states.shape[2]
        if env.sim.state_size != size:
            raise DataError(
                f"The states in '{dump.folder}' have {size} numbers, those of this task"
                f" {env.sim.state_size}. Give the task that wrote the dump."
            )
        self._env = env
        self._states = torch.from_numpy(dump.shown()).to(env.device)
        self._at = -1
        self._none = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Show the first state."""
        self._at = -1
        return self.step(None)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Show the next state; after the last one comes the first."""
        env = self._env
        self._at = (self._at + 1) % len(self._states)
        env.sim.set_state(self._states[self._at])
        env.scene.invalidate()
        env.episode_length_buf.fill_(self._at)
        obs = env.get_observations()
        return obs, torch.zeros_like(env.reward_buf), self._none, self._none, {}


def report(dump: Dump) -> Table:
    """A table of what is in the dump, and of where numbers are not finite."""
    table = Table(show_header=False)
    table.add_row("Dump", escape(str(dump.folder)))
    table.add_row("Reason", escape(str(dump.reason.get("reason", "unknown"))))
    table.add_row("Steps", str(len(dump.states)))
    for column, env in enumerate(dump.envs):
        bad = np.flatnonzero(~dump.finite[:, column])
        text = "finite"
        if len(bad):
            row = dump.states[bad[0], column]
            names = [dump.elements[i] for i in np.flatnonzero(~np.isfinite(row))]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            text = f"not finite from step {bad[0]} on: {', '.join(names[:5])}{more}"
        table.add_row(f"Environment {env}", escape(text))
    return table


def run(env: ManagerBasedRlEnv, dump: Dump, viewer: Viewer | None) -> None:
    """Show the dump in a viewer until it is closed; without one, write a video into its folder."""
    from mjlab_rec.viewer.playback import Playback

    console = Console()
    console.print(report(dump))
    env.reset()
    replayed: Any = ReplayedEnv(env, dump)
    if viewer is None:
        path = _write_video(replayed, len(dump.states), dump.folder / "replay.mp4")
        console.print(f"Wrote {path}", highlight=False, soft_wrap=True)
        return
    replayed.reset()
    playback = Playback(replayed, lambda obs: obs, viewers=[viewer], speed=1.0)
    with playback:
        if url := getattr(viewer, "url", ""):
            console.print(f"Watch it at {url}, until Ctrl-C", highlight=False, soft_wrap=True)
        playback.run(lambda: False, lambda result: None)


def _write_video(env: Any, steps: int, path: Path) -> Path:
    from mjlab_rec.data.mp4 import Mp4Writer, find_ffmpeg, frame_rate

    ffmpeg = find_ffmpeg("--replay-dump without --viewer")
    env.reset()
    picture = env.render()
    height, width, _ = picture.shape
    writer = Mp4Writer(path, width, height, frame_rate(env.step_dt), ffmpeg, if_exists="number")
    try:
        writer.write(picture)
        for _ in range(steps - 1):
            env.step(None)
            writer.write(env.render())
    finally:
        writer.close()
    return writer.path
