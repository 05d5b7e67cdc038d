"""Play recorded actions, or states, in another task, whose recorders write what comes of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab_rec.managers.event_manager import EventTermCfg
from mjlab_rec.recorders.triggers import at_episodes
from mjlab_rec.replay.held_commands import HeldCommands
from mjlab_rec.replay.recorded_model import RecordedModel, WorldModels, opened, stacked
from mjlab_rec.sim.engine import state_layout

HELD_TOLERANCE = 0.01
MOST_EPISODES = 4096


@dataclass(frozen=True)
class PlayedEpisode:
    """What became of a recorded episode in the other task."""

    index: int
    """Its row in the table of episodes."""

    env: int
    number: int
    steps: int
    """Recorded steps."""

    played: int
    """Steps until the episode ended in the other task, or the recorded actions did."""

    held: int
    """Steps after which joint positions were still as recorded, within the tolerance."""

    most: float
    """The largest difference of a joint position while it was played."""

    total: float
    """Sum of rewards in the other task."""

    ended: str
    """"terminated", "truncated", or "cut": the recorded actions were over."""

    @property
    def ok(self) -> bool:
        """Whether it held until the end."""
        return self.held == self.steps

    def __str__(self) -> str:
        return (
            f"environment {self.env}, episode {self.number}: held {self.held} of {self.steps}"
            f" steps, {self.ended} after {self.played}, return {self.total:.3f}, positions differ"
            f" by up to {self.most:.3g}"
        )


class _Playing:
    """The recorded episodes and where each environment is in its own.

    Args:
        rollouts: The recording.
        episodes: An episode for each environment.
        use: Whether each step begins with the recorded state.
        tolerance: Largest difference of a position that counts as the same.
    """

    def __init__(
        self, rollouts: Rollouts, episodes: Sequence[int], use: str, tolerance: float
    ) -> None:
        self.recorded = RecordedModel.of(rollouts)
        self.commands = HeldCommands(rollouts)
        names = ["state", "step", "action", *self.commands.channels]
        self.arrays = rollouts.read_many(episodes, names)
        self.lengths = rollouts.episodes["rows"].to_numpy()[list(episodes)].astype(np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.models = [rollouts.model(episode) for episode in episodes]
        self.use = use
        self.tolerance = tolerance
        self.layout = {f.name: f.columns for f in state_layout(self.recorded.model)}
        count = len(episodes)
        self.at = np.zeros(count, np.int64)
        self.over = np.zeros(count, bool)
        self.broken = np.zeros(count, bool)
        self.held = np.zeros(count, np.int64)
        self.most = np.zeros(count)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Playing:
        return self  # Managers copy what they get; this must stay the same for all of them.

    def rows(self, ahead: int = 0) -> np.ndarray:
        """The row of each environment, or a later one of its episode."""
        return self.starts + np.minimum(self.at + ahead, self.lengths - 1)

    def hold_commands(self, env: Any, rows: np.ndarray, env_ids: torch.Tensor) -> None:
        """Give environments the recorded commands."""
        values = {name: self.arrays[name][rows] for name in self.commands.channels}
        self.commands.hold(env, values, env_ids)

    def start(self, env: Any, env_ids: torch.Tensor) -> None:
        """Begin the episodes of these environments as they were recorded."""
        ids = env_ids.cpu().numpy()
        self.at[ids] = 0
        fields = stacked([self.models[i] for i in ids])
        WorldModels(self.recorded, env.sim).write(fields, env_ids)
        rows = self.starts[ids]
        env.sim.set_state(torch.from_numpy(self.arrays["state"][rows]), env_ids)
        self.hold_commands(env, rows, env_ids)

    def compare(self, env: Any) -> None:
        """A step is over: compare positions with the recorded ones."""
        now, after = self.rows(), self.rows(ahead=1)
        step = self.arrays["step"]
        known = step[after] == step[now] + 1
        columns = self.layout.get("qpos", slice(0, 0))
        here = env.sim.get_state()[:, columns].double().cpu().numpy()
        apart = np.abs(here - self.arrays["state"][after, columns]).max(axis=1, initial=0.0)
        apart = np.where(known, np.nan_to_num(apart, nan=math.inf), 0.0)
        running = ~self.over
        self.most[running] = np.maximum(self.most, apart)[running]
        self.broken |= running & (apart > self.tolerance)
        self.held[running & ~self.broken] += 1
        everyone = torch.arange(len(self.at), device=env.device)
        if self.use == "states":
            places = torch.from_numpy(np.flatnonzero(known)).to(env.device)
            states = torch.from_numpy(self.arrays["state"][after[known]])
            env.sim.set_state(states, places)
        self.hold_commands(env, after, everyone)
        self.at += 1


class _PlayingEnv(ManagerBasedRlEnv):
    """The other task, whose episodes begin as the recorded ones do."""

    def __init__(self, cfg: ManagerBasedRlEnvCfg, device: str, playing: _Playing) -> None:
        self._playing = playing
        super().__init__(cfg, device=device)

    def _reset_idx(self, env_ids: torch.Tensor) -> None:
        # Last, because commands may move things, too.
        super()._reset_idx(env_ids)
        self._playing.start(self, env_ids)


def _step(env: Any, env_ids: Any, playing: _Playing) -> None:
    """Event after each step."""
    playing.compare(env)


def play_into_task(
    source: str | Path | Rollouts,
    env_cfg: ManagerBasedRlEnvCfg,
    *,
    episodes: Sequence[int] | None = None,
    use: Literal["actions", "states"] = "actions",
    tolerance: float = HELD_TOLERANCE,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    opened_env: Callable[[ManagerBasedRlEnv], None] | None = None,
) -> tuple[list[PlayedEpisode], list[str]]:
    """Play recorded episodes in a task, whose recorders write a new recording.

    Each episode has its own environment and begins in its recorded state, with its model fields.
    Recorded commands are held. The task's events are left out: what they did is in the recording.

    Args:
        source: A recording with states and actions, or its path.
        env_cfg: The task, with its recorders. Their episodes are the recorded ones.
        episodes: Rows of the table of episodes; None means all.
        use: "actions" only plays the actions. "states" also puts each recorded state into the
            environment, after the step's reward.
        tolerance: Largest difference of a joint position that counts as held.
        device: Where to simulate.
        progress: Called with the number of steps that are done, and of all.
        opened_env: Called with the environment before the first step.

    Returns:
        What became of each episode, and notes on what could not be restored.
    """
    with opened(source) as rollouts:
        if "action" not in rollouts.channels:
            raise DataError("The recording has no actions to play. Record the channel 'action'.")
        if (every := rollouts.info.every) > 1:
            raise DataError(
                f"Only one of {every} steps was recorded, so the actions in between are missing."
                " Record every step."
            )
        chosen = list(range(len(rollouts)) if episodes is None else episodes)
        if not 0 < len(chosen) <= MOST_EPISODES:
            raise DataError(
                f"{len(chosen)} episodes are chosen, but 1 to {MOST_EPISODES} can be played at a"
                " time. Choose others with --episode or --env."
            )
        playing = _Playing(rollouts, chosen, use, tolerance)
        step_dt, table = rollouts.info.step_dt, rollouts.episodes
    env_cfg = copy.deepcopy(env_cfg)
    env_cfg.scene.num_envs = len(chosen)
    params = {"playing": playing}
    env_cfg.events = {"recorded_step": EventTermCfg(func=_step, mode="step", params=params)}
    for recorder in env_cfg.recorders.values():
        if hasattr(recorder, "trigger"):
            recorder.trigger = at_episodes(0)  # pyright: ignore[reportAttributeAccessIssue]
    with _PlayingEnv(env_cfg, device, playing) as env:
        _check_fit(env, playing, step_dt)
        if opened_env is not None:
            opened_env(env)
        totals, played, ended = _play(env, playing, progress)
    found = [
        PlayedEpisode(
            index=index,
            env=int(table["env"][index]),
            number=int(table["number"][index]),
            steps=int(playing.lengths[place]),
            played=int(played[place]),
            held=int(playing.held[place]),
            most=float(playing.most[place]),
            total=float(totals[place]),
            ended=ended[place],
        )
        for place, index in enumerate(chosen)
    ]
    return found, list(playing.commands.notes.values())


def _play(
    env: ManagerBasedRlEnv, playing: _Playing, progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Play all episodes; returns their returns, lengths and ends."""
    count, width = len(playing.at), env.action_manager.total_action_dim
    actions = playing.arrays["action"].reshape(len(playing.arrays["step"]), -1)
    totals, played, ended = np.zeros(count), np.zeros(count, np.int64), ["cut"] * count
    env.reset()
    longest = int(playing.lengths.max())
    for step in range(longest):
        action = np.zeros((count, width), np.float32)
        if actions.shape[1] == width:
            action[:] = actions[playing.rows()]
        env.step(torch.from_numpy(action).to(env.device))
        running = ~playing.over
        totals[running] += env.reward_buf.double().cpu().numpy()[running]
        played[running] += 1
        terminated = env.reset_terminated.cpu().numpy()
        done = env.reset_buf.cpu().numpy()
        for place in np.flatnonzero(running & done):
            ended[place] = "terminated" if terminated[place] else "truncated"
        last = running & (step + 1 >= playing.lengths)
        playing.over |= done | last
        cut = np.flatnonzero(last & ~done)
        if not env.cfg.auto_reset:
            cut = np.flatnonzero(done | last)
        if len(cut):
            env.reset(env_ids=torch.from_numpy(cut).to(env.device))
        if progress is not None:
            progress(step + 1, longest)
        if playing.over.all():
            break
    return totals, played, ended


def _check_fit(env: ManagerBasedRlEnv, playing: _Playing, step_dt: float) -> None:
    """Raise if the recording cannot be played in this environment."""
    size, width = playing.arrays["state"].shape[1], env.action_manager.total_action_dim
    recorded = int(np.prod(playing.arrays["action"].shape[1:], dtype=int))
    if env.sim.state_size != size:
        raise DataError(
            f"The recorded states have {size} numbers, those of this task {env.sim.state_size}: it"
            " simulates something else."
        )
    if not math.isclose(env.step_dt, step_dt, rel_tol=1e-6):
        raise DataError(
            f"A control step of the recording takes {step_dt:g} s, one of this task"
            f" {env.step_dt:g} s. Set --env.decimation or --env.sim.mujoco.timestep."
        )
    if recorded != width and playing.use == "actions":
        raise DataError(
            f"The recorded actions have {recorded} numbers, those of this task {width}. With --use"
            " states the recorded states are played instead, with actions of zero."
        )
