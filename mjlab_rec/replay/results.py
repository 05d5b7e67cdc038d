"""What came of steps that were simulated again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.replay.waves import Wave


@dataclass(frozen=True)
class Difference:
    """A step whose result was another one."""

    step: int
    """Steps of the episode before it."""

    fields: tuple[str, ...]
    """Parts of the state that differ, such as "qpos"."""

    amount: float | None
    """The largest difference of a number; None if what was recorded is not in the file."""


@dataclass(frozen=True)
class VerifiedEpisode:
    """What became of an episode."""

    index: int
    """Its row in the table of episodes."""

    env: int
    number: int
    steps: int
    """Recorded steps."""

    checked: int
    """Steps whose results could be compared."""

    differing: int
    """Steps with another result."""

    first: Difference | None
    """The first of them."""

    def __str__(self) -> str:
        name = f"environment {self.env}, episode {self.number}"
        if self.first is None:
            return f"{name}: {self.checked} steps are the same"
        amount = self.first.amount
        by = "" if amount is None else f" by up to {amount:.3g}"
        return (
            f"{name}: {self.differing} of {self.checked} steps differ, first step"
            f" {self.first.step} in {', '.join(self.first.fields)}{by}"
        )


@dataclass(frozen=True)
class Verification:
    """The result of ``verify``."""

    episodes: tuple[VerifiedEpisode, ...]
    engine: str
    device: str
    tolerance: float
    """0: every bit was compared."""

    why_tolerance: str
    """Why the bits were not compared; empty if they were, or if a tolerance was given."""

    notes: tuple[str, ...]
    """What the recording lacks for a complete comparison."""

    seconds: float

    @property
    def ok(self) -> bool:
        """Whether something was compared, and nothing differs."""
        return self.checked > 0 and not any(e.differing for e in self.episodes)

    @property
    def steps(self) -> int:
        """Steps that were simulated."""
        return sum(e.steps for e in self.episodes)

    @property
    def checked(self) -> int:
        """Steps whose results were compared."""
        return sum(e.checked for e in self.episodes)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ok": self.ok,
            "engine": self.engine,
            "device": self.device,
            "tolerance": self.tolerance,
            "why_tolerance": self.why_tolerance,
            "notes": list(self.notes),
            "seconds": self.seconds,
            "steps": self.steps,
            "checked": self.checked,
            "differing": sum(e.differing for e in self.episodes),
            "episodes": [_episode_json(e) for e in self.episodes],
        }


def episodes_of(
    wave: Wave,
    bad: np.ndarray,
    amount: np.ndarray,
    checked: np.ndarray,
    fields: list[str],
    rollouts: Rollouts,
) -> list[VerifiedEpisode]:
    """What became of the episodes of a wave.

    Args:
        wave: The wave.
        bad: Which fields of each row's result differ (rows, fields).
        amount: The largest difference of a number in each row (rows,); NaN: unknown.
        checked: Which rows were compared (rows,).
        fields: Names of the fields.
        rollouts: The recording.
    """
    table = rollouts.episodes
    sizes = np.bincount(wave.of, minlength=len(wave.episodes))
    ends = np.cumsum(sizes)
    differs: np.ndarray = np.asarray(bad.any(axis=1))
    found = []
    for place, index in enumerate(wave.episodes.tolist()):
        rows = slice(ends[place] - sizes[place], ends[place])
        apart = np.flatnonzero(differs[rows])
        first = None
        if len(apart):
            row = rows.start + apart[0]
            by = float(amount[row])
            flags = np.asarray(bad[row]).tolist()
            first = Difference(
                step=int(wave.step[row]),
                fields=tuple(name for name, flag in zip(fields, flags, strict=True) if flag),
                amount=None if math.isnan(by) else by,
            )
        found.append(
            VerifiedEpisode(
                index=index,
                env=int(table["env"][index]),
                number=int(table["number"][index]),
                steps=int(sizes[place]),
                checked=int(checked[rows].sum()),
                differing=len(apart),
                first=first,
            )
        )
    return found


def _episode_json(episode: VerifiedEpisode) -> dict[str, Any]:
    first = episode.first
    return {
        "index": episode.index,
        "env": episode.env,
        "number": episode.number,
        "steps": episode.steps,
        "checked": episode.checked,
        "differing": episode.differing,
        "first": None
        if first is None
        else {"step": first.step, "fields": list(first.fields), "amount": first.amount},
    }
