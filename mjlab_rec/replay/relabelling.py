"""Compute rewards, observations and other channels of a recording with a task, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mjlab_rec.data.discovery import Source
from mjlab_rec.data.rewriting import OutputOptions, check_outputs, write_episodes
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.recorders.channels import Channel
from mjlab_rec.replay.episodes import chosen_episodes
from mjlab_rec.replay.recorded_model import opened
from mjlab_rec.replay.relabel_notes import notes_of
from mjlab_rec.replay.relabel_run import RelabelledChannel, Relabelling

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

# What happened: other values would be those of other episodes.
_FACTS = ("state", "action", "ctrl", "physics", "command", "terminated", "truncated")
_FACTS += ("step", "model")
_REWARD, _REWARD_TERMS, _OBS = "reward", "reward_terms/", "obs/"


@dataclass(frozen=True)
class Relabelled:
    """The result of ``relabel``."""

    files: list[Path]
    episodes: int
    rows: int
    channels: tuple[RelabelledChannel, ...]
    """What was computed, and how far it is from what was recorded."""
    return_before: float
    """Mean recorded reward of an episode's rows; NaN: not known."""
    return_after: float
    """The same with the new reward."""
    notes: tuple[str, ...]
    """What may make values other than the task would give."""

    @property
    def same(self) -> bool:
        """Whether everything that was computed is as it was recorded, bit for bit."""
        return all(channel.known and not channel.differing for channel in self.channels)


def relabel(
    source: Source | Sequence[Source] | Rollouts,
    out: str | Path,
    env_cfg: ManagerBasedRlEnvCfg,
    *,
    channels: Sequence[str | Channel] = (_REWARD, "reward_terms"),
    episodes: Sequence[int] | None = None,
    options: OutputOptions | None = None,
    device: str | None = None,
    num_worlds: int | None = None,
    memory_bytes: int = 1 << 30,
    progress: Callable[[int, int], None] | None = None,
) -> Relabelled:
    """Write a recording with the rewards or observations that a task gives in the recorded states.

    Each episode is simulated again, from the recorded states and with the recorded actions, so
    that terms see what they see in a rollout: sensors, contacts, earlier actions, histories. An
    episode keeps its steps and its end, whatever the task's terminations say. Returns follow.

    Args:
        source: A recording with states and actions, best with the channel "physics", or what
            ``open_rollouts`` takes.
        out: Path of the new recording.
        env_cfg: The task, with the terms to compute. Its events and curricula are left out: what
            they did to states and models is in the recording.
        channels: What to compute, as recorders name it: "reward", "reward_terms/upright", "obs",
            "obs/actor", "sensor/feet", or a ``Channel`` of your own. Other channels are kept, but
            terms of a reward and next observations follow what they belong to.
        episodes: Rows of the table of episodes; None means all.
        options: Format of the new recording, and what to do if it exists.
        device: Where to simulate. None: as in the recording, if that is here.
        num_worlds: Number of episodes at the same time, at most.
        memory_bytes: Memory for recorded data, except that one episode always fits.
        progress: Called with the number of steps that are done, and of all.
    """
    if num_worlds is not None and num_worlds < 1:
        raise ValueError(f"num_worlds is {num_worlds}, but it must be at least 1.")
    if episodes is not None and not episodes:
        raise DataError("There are no episodes to relabel.")
    with opened(source) as rollouts:
        chosen = chosen_episodes(rollouts, episodes or ())
        check_outputs(rollouts, [out], options)
        wanted = _wanted(rollouts, channels)
        runner = Relabelling(rollouts, copy.deepcopy(env_cfg), chosen, wanted, device, num_worlds)
        runner.prepare(memory_bytes)
        with runner.env:
            runner.begin()
            files = write_episodes(
                *(rollouts, chosen, out, options),
                how="relabel",
                changed=runner.episodes(progress),
                channels=runner.new_channels(),
                task=env_cfg.task,
                channels_computed=list(runner.specs),
            )
            notes = notes_of(rollouts, env_cfg, runner, wanted)
        return Relabelled(
            files=files,
            episodes=len(chosen),
            rows=runner.rows,
            channels=tuple(runner.found.values()),
            return_before=runner.before / len(chosen),
            return_after=runner.after / len(chosen),
            notes=tuple(notes),
        )


def _wanted(rollouts: Rollouts, channels: Sequence[str | Channel]) -> list[str | Channel]:
    """What to compute, with the recorded channels that belong to it."""
    if isinstance(channels, str) or not channels:
        raise ValueError(f"channels must be a list of names such as ['reward'], got {channels!r}.")
    found: list[str | Channel] = []
    for channel in channels:
        name = channel if isinstance(channel, str) else channel.name
        if name.partition("/")[0] in _FACTS:
            raise DataError(
                f"'{name}' cannot be computed again, because it is what happened: another value"
                " would lead to other episodes. To play recorded actions in another task, use"
                " mjlab-rec replay --task."
            )
        found.append(channel)
        if not isinstance(channel, str):
            continue
        if name == _REWARD and any(n.startswith(_REWARD_TERMS) for n in rollouts.channels):
            found.append(_REWARD_TERMS.rstrip("/"))
        if f"{name}/".startswith(_OBS):
            follows = f"next_{name}"
            if any(n == follows or n.startswith(f"{follows}/") for n in rollouts.channels):
                found.append(follows)
    return [channel for i, channel in enumerate(found) if channel not in found[:i]]
