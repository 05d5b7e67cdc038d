"""The rules of rows and episodes in mjlab_rec/data/README.md once more, in plain Python.

Nothing here knows how recorders work. ``expected`` takes a list of what happened in a rollout and
a recorder's plan, and says episode by episode what must be in each of the recorder's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(kw_only=True)
class Plan:
    """The options of a recorder that concern the rules of rows and episodes."""

    envs: tuple[int, ...]
    every: int = 1
    trigger: tuple[Any, ...] | None = None
    """Kind and argument, such as ("at_steps", (3, 7)) or ("when", name of a condition)."""
    length: int | None = None
    autostart: bool = True
    added: bool = False
    """Whether it is not there until it is added."""
    keep: str = "all"
    success: str | None = None
    """Name of what tells successes in ``Step.success``."""
    max_steps: int | None = None
    max_episodes: int | None = None


@dataclass(kw_only=True)
class Step:
    """A control step that was taken, of all environments."""

    t: int
    values: dict[str, np.ndarray]  # channel -> (num_envs, ...)
    success: dict[str, np.ndarray]  # what tells successes -> (num_envs,) bool
    conditions: dict[str, Any]  # condition of a trigger -> bool or (num_envs,) bool, before it
    fields: dict[str, np.ndarray]  # per-world model field -> (num_envs, ...), before it


@dataclass(kw_only=True)
class FailedStep:
    """A control step that raised an error."""

    t: int
    conditions: dict[str, Any]


@dataclass(kw_only=True)
class Reset:
    """Environments were reset: by hand, or by the environment after the step before."""

    envs: tuple[int, ...]


@dataclass(kw_only=True)
class Call:
    """A request to a recorder between two steps: start, pause, stop, fire, reset, add or remove."""

    recorder: str
    name: str
    envs: tuple[int, ...] | None = None
    """Which environments to reset; None: all."""


Happening = Step | FailedStep | Reset | Call


@dataclass(kw_only=True)
class ExpectedEpisode:
    """What must be in a file of an episode."""

    env: int
    number: int
    steps: list[Step]  # all of its control steps
    rows: list[int]  # those that have a row, counted within the episode
    terminated: bool
    truncated: bool
    success: bool | None
    known: bool
    every: int
    ended: tuple[float, int]  # moment, environment: the order in which episodes end

    @property
    def recorded(self) -> list[Step]:
        """The steps that have a row."""
        return [self.steps[k] for k in self.rows]

    @property
    def table_row(self) -> dict[str, Any]:
        """Its row in the table of episodes."""
        due = sum(step.t % self.every == 0 for step in self.steps)
        return {
            "env": self.env,
            "number": self.number,
            "start": self.recorded[0].t,
            "length": len(self.steps),
            "rows": len(self.rows),
            "return": self._sum(self.steps) if self.known else None,
            "recorded_return": self._sum(self.recorded),
            "terminated": self.terminated,
            "truncated": self.truncated,
            "cut": not (self.terminated or self.truncated),
            "success": self.success,
            "partial": len(self.rows) < due,
        }

    def _sum(self, steps: list[Step]) -> float:
        return float(sum(np.float64(step.values["reward"][self.env]) for step in steps))


@dataclass(kw_only=True)
class Recording:
    """What must be in the files of one recording, from its start to its stop."""

    files: dict[str, list[ExpectedEpisode]]
    """By kind: "" for all, or "successful" and "failed"; by environment and number."""
    steps: int = 0
    """Steps that have rows, before episodes are skipped."""

    @property
    def empty(self) -> bool:
        """Whether nothing was recorded."""
        return not any(self.files.values())


def expected(
    plan: Plan, name: str, happenings: Sequence[Happening], num_envs: int
) -> list[Recording]:
    """What a recorder must have in its files after it was closed; recordings without rows too."""
    follower = _Follower(plan, num_envs)
    for moment, happening in enumerate(happenings):
        follower.moment = moment
        if isinstance(happening, Reset):
            follower.reset(happening.envs)
        elif isinstance(happening, Step):
            follower.step(happening)
        elif isinstance(happening, FailedStep):
            follower.fail(happening)
        elif happening.recorder == name:
            follower.call(happening.name, happening.envs)
    follower.call("stop")
    return follower.recordings


@dataclass(kw_only=True)
class _Running:
    """An episode that is running, or over and waiting for a reset."""

    number: int
    steps: list[Step] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # in the present recording
    over: bool = False
    known: bool = True  # whether the recorder was there from its start


class _Follower:
    """Goes through a rollout as a recorder with this plan must."""

    def __init__(self, plan: Plan, num_envs: int) -> None:
        self.plan = plan
        self.moment = 0
        self.recordings: list[Recording] = []
        self._state = "recording" if plan.autostart and not plan.added else "stopped"
        self._running: list[_Running | None] = [None] * num_envs
        self._ended: list[ExpectedEpisode] = []  # in the present recording
        self._steps = 0  # that have rows, in the present recording
        self._blind = False  # whether the observation before the next step was not read
        self._trigger = _Trigger(plan, num_envs)

    def call(self, name: str, envs: tuple[int, ...] | None = None) -> None:
        if name == "add":
            self._state = "recording" if self.plan.autostart else "stopped"
            self._trigger = _Trigger(self.plan, len(self._running))
            for episode in self._running:
                if episode is not None:
                    episode.known = not episode.steps
        elif name == "reset":
            for env in range(len(self._running)) if envs is None else envs:
                episode = self._running[env]
                if episode is not None and not episode.over:
                    self._end(env)
                    self._begin(env)
        elif name == "fire":
            self._trigger.fire()
        elif name == "start":
            self._state = "recording"
        elif name == "pause" and self._state == "recording":
            self._state = "paused"
        elif name in ("stop", "remove") and self._state != "stopped":
            self._state = "stopped"
            self._finish()

    def reset(self, envs: tuple[int, ...]) -> None:
        self._blind = False
        for env in envs:
            episode = self._running[env]
            if episode is not None and not episode.over:
                self._end(env)
            self._begin(env)

    def step(self, step: Step) -> None:
        plan = self.plan
        wanted = self._trigger.ask(step.t, step.conditions)
        on = (
            self._state == "recording"
            and not self._blind
            and step.t % plan.every == 0
            and (plan.max_steps is None or self._steps < plan.max_steps)
        )
        any_row = self._blind = False
        for env, episode in enumerate(self._running):
            assert episode is not None and not episode.over
            if on and env in plan.envs and wanted(env, episode.number, len(episode.steps)):
                episode.rows.append(len(episode.steps))
                any_row = True
            episode.steps.append(step)
        self._steps += any_row
        for env in range(len(self._running)):
            if step.values["terminated"][env] or step.values["truncated"][env]:
                self._end(env, by_step=True)

    def fail(self, step: FailedStep) -> None:
        self._trigger.ask(step.t, step.conditions)
        self._blind = True
        for env, episode in enumerate(self._running):
            if episode is not None and not episode.over:
                self._end(env)
                self._begin(env)

    def _begin(self, env: int) -> None:
        last = self._running[env]
        number = 0 if last is None else last.number + bool(last.steps)
        self._running[env] = _Running(number=number)
        self._trigger.begin(env)

    def _end(self, env: int, by_step: bool = False) -> None:
        """The running episode is over: with the step that was taken, or cut after it."""
        episode = self._running[env]
        assert episode is not None
        episode.over = True
        if episode.rows:
            self._ended.append(self._result(env, episode, self.moment, by_step))

    def _result(self, env: int, episode: _Running, moment: float, by_step: bool) -> ExpectedEpisode:
        last = episode.steps[-1]
        success = None
        if self.plan.success is not None:
            success = bool(last.success[self.plan.success][env])
            if not by_step and not success:
                success = None
        return ExpectedEpisode(
            env=env,
            number=episode.number,
            steps=list(episode.steps),
            rows=list(episode.rows),
            terminated=by_step and bool(last.values["terminated"][env]),
            truncated=by_step and bool(last.values["truncated"][env]),
            success=success,
            known=episode.known,
            every=self.plan.every,
            ended=(moment, env),
        )

    def _finish(self) -> None:
        """A recording ends: episodes that are running are cut."""
        kinds = ("successful", "failed") if self.plan.keep == "separate" else ("",)
        files: dict[str, list[ExpectedEpisode]] = {kind: [] for kind in kinds}
        for env, episode in enumerate(self._running):
            if episode is not None and not episode.over and episode.rows:
                self._ended.append(self._result(env, episode, float("inf"), by_step=False))
        for episode in self._running:
            if episode is not None:
                episode.rows = []
        kept = 0
        for result in sorted(self._ended, key=lambda e: e.ended):
            kind = "successful" if result.success else "failed"
            if self.plan.keep not in ("all", "separate", kind):
                continue
            if kept == self.plan.max_episodes:
                break
            kept += 1
            files[kind if self.plan.keep == "separate" else ""].append(result)
        for episodes in files.values():
            episodes.sort(key=lambda e: (e.env, e.number))
        self.recordings.append(Recording(files=files, steps=self._steps))
        self._ended = []
        self._steps = 0


class _Trigger:
    """The steps and environments that a trigger chooses, without the recorder's state."""

    def __init__(self, plan: Plan, num_envs: int) -> None:
        self._kind, *arguments = plan.trigger or ("always",)
        self._argument = arguments[0] if arguments else None
        self._length = plan.length
        self._until: list[float] = [0.0] * num_envs  # the step before which each is recorded
        self._asked = -1
        self._fired = False
        self._before = np.zeros(num_envs, bool)

    def fire(self) -> None:
        self._fired = True

    def begin(self, env: int) -> None:
        if self._length is None:
            self._until[env] = 0.0  # A stretch without a length ends with its episode.

    def ask(self, t: int, conditions: dict[str, Any]) -> Any:
        """Begin stretches before a step; returns what tells who is recorded in it."""
        if self._kind == "always":
            return lambda env, number, taken: True
        if self._kind in ("every_n_episodes", "at_episodes", "capped_cubic_episodes"):
            most = float("inf") if self._length is None else self._length
            return lambda env, number, taken: self._chooses(number) and taken < most
        until = float("inf") if self._length is None else t + self._length
        for env in np.flatnonzero(self._fires(t, conditions)):
            self._until[env] = until
        return lambda env, number, taken: t < self._until[env]

    def _chooses(self, number: int) -> bool:
        if self._kind == "every_n_episodes":
            return number % self._argument == 0
        if self._kind == "at_episodes":
            return number in self._argument
        return number in [k**3 for k in range(10)] or number % 1000 == 0

    def _fires(self, t: int, conditions: dict[str, Any]) -> np.ndarray:
        again, self._asked = t == self._asked, t
        fires = np.zeros(len(self._until), bool)
        if self._kind == "every_n_steps":
            fires[:] = not again and t % self._argument == 0
        elif self._kind == "at_steps":
            fires[:] = not again and t in self._argument
        elif self._kind == "manual":
            fires[:] = self._fired
            self._fired = False
        else:
            now = np.broadcast_to(conditions[self._argument], fires.shape)
            fires[:] = now & ~self._before
            self._before = now.copy()
        return fires
