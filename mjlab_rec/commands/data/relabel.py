"""Compute rewards or observations again, as a task gives them in the recorded states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from mjlab_rec import cli
from mjlab_rec.commands.data.options import OutputArgs, RecordingAndNew
from mjlab_rec.commands.data.progress import progress_bar

if TYPE_CHECKING:
    from mjlab_rec.replay.relabelling import Relabelled


@dataclass(kw_only=True)
class RelabelArgs(OutputArgs):
    """Options of ``data relabel``.

    --env.PATH VALUE sets any field of the task, such as a weight. mjlab-rec play --task ID --help
    lists them.
    """

    paths: RecordingAndNew = ()
    """The recording, with states, actions and best also the channel physics (--record replay), then
    the new one to write."""
    task: str | None = None
    """Task that gives the new values. None: that of the recording."""
    channels: tuple[str, ...] = ("reward", "reward_terms")
    """What to compute: reward, reward_terms/upright, obs, obs/actor, sensor/feet, ... All other
    channels are kept. Terms of a reward and next_obs follow what they belong to."""
    reward: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Add a reward term of your own: NAME=package.module:function. Its weight is 1, unless
    --env.rewards.NAME.weight sets another. May be repeated."""
    observation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Add a term of your own to a group of observations, new or not:
    GROUP/NAME=package.module:function. May be repeated."""
    episode: tuple[int, ...] = ()
    """Only these episodes, by their places in the recording, from 0."""
    env: tuple[int, ...] = ()
    """Only episodes of these environments."""
    num_worlds: int | None = None
    """Number of episodes that are simulated at the same time. None: as many environments as were
    recorded, if they fit into memory: then unchanged rewards come out the same bit for bit."""
    device: str | None = None
    """cpu or cuda. None: that of the recording, if there is one."""
    task_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module to import first, which registers your own tasks. May be repeated."""
    env_fields: list[cli.Setting] = field(default_factory=list, init=False)
    """What --env.PATH options set."""


def main(args: RelabelArgs) -> None:
    """Write the new recording, and print how far it is from the old one."""
    from mjlab_rec.data.rollouts import open_rollouts
    from mjlab_rec.replay.episodes import chosen_episodes, recording_path
    from mjlab_rec.replay.relabelling import relabel

    if len(args.paths) != 2:
        cli.fail("Give the recording, and the new recording to write.")
    source, out = recording_path(args.paths[0]), Path(args.paths[1])
    with open_rollouts(source) as rollouts, progress_bar("Simulating") as progress:
        found = relabel(
            *(rollouts, out, task_cfg(args, rollouts.info.about)),
            channels=args.channels,
            episodes=chosen_episodes(rollouts, args.episode, args.env),
            options=args.options,
            device=args.device,
            num_worlds=args.num_worlds,
            progress=progress,
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print("\n".join(lines(found)), markup=False)


def task_cfg(args: RelabelArgs, about: dict[str, Any]) -> Any:
    """The cfg of the task, with the terms and fields that the options add."""
    from mjlab_rec import registry
    from mjlab_rec.commands.replay_policy import task_named

    cfg: Any = registry.load_env_cfg(task_named(args.task, args.task_module, about))
    for text in args.reward:
        add_reward(cfg, text)
    for text in args.observation:
        add_observation(cfg, text)
    for setting in args.env_fields:
        cli.override(cfg, setting.path, setting.words)
    return cfg


def add_reward(cfg: Any, text: str) -> None:
    """Add what --reward names."""
    from mjlab_rec.managers import RewardTermCfg

    name, function = _named("--reward", text, "near=my_terms:near")
    if cfg.rewards.get(name) is not None:
        cli.fail(f"--reward {text}: the task has a reward term {name!r}. Choose another name.")
    cfg.rewards[name] = RewardTermCfg(func=function, weight=1.0)


def add_observation(cfg: Any, text: str) -> None:
    """Add what --observation names."""
    from mjlab_rec.managers import ObservationGroupCfg, ObservationTermCfg

    path, function = _named("--observation", text, "goal/distance=my_terms:distance")
    group, _, name = path.partition("/")
    if not group or not name:
        cli.fail(f"--observation {text}: give a group and a name: goal/distance=my_terms:distance.")
    if cfg.observations.get(group) is None:
        cfg.observations[group] = ObservationGroupCfg(terms={})
    terms = cfg.observations[group].terms
    if terms.get(name) is not None:
        cli.fail(f"--observation {text}: the group {group!r} has a term {name!r} already.")
    terms[name] = ObservationTermCfg(func=function)


def _named(option: str, text: str, example: str) -> tuple[str, Any]:
    """The name and function in NAME=package.module:function."""
    from mjlab_rec.utils.lookup import look_up

    name, equals, path = text.partition("=")
    if not equals or not name:
        cli.fail(f"{option} {text}: it must be NAME=package.module:function, such as {example}.")
    try:
        return name, look_up(path)
    except ValueError as error:
        cli.fail(f"{option} {text}: {error}")


def lines(found: Relabelled) -> Sequence[str]:
    """The results in words."""
    text = [str(channel) for channel in found.channels]
    text += [f"Note: {note}" for note in found.notes]
    if any(channel.name == "reward" for channel in found.channels):
        before, after = found.return_before, found.return_after
        text.append(f"Mean sum of an episode's rewards: {after:.6g}, recorded: {before:.6g}.")
    files = ", ".join(map(str, found.files))
    return [*text, f"Wrote {found.episodes} episodes, {found.rows} rows to {files}"]
