"""What may make computed channels other than the task would give, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mjlab_rec.data.attached_model import MODEL
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.recorders.transitions import compiled_model
from mjlab_rec.replay.waves import CHECK, CTRL

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg
    from mjlab_rec.replay.following import Follower
    from mjlab_rec.replay.relabel_env import FollowingEnv
    from mjlab_rec.replay.relabel_run import Relabelling


def notes_of(
    rollouts: Rollouts,
    cfg: ManagerBasedRlEnvCfg,
    run: Relabelling,
    wanted: Sequence[Any],
) -> list[str]:
    """Everything that a user should know about what was computed.

    Args:
        rollouts: The recording.
        cfg: The task as it was given.
        run: How the task followed the recording.
        wanted: What was computed.
    """
    env, follower, why = run.env, run.follower, run.why
    names = [name if isinstance(name, str) else name.name for name in wanted]
    kinds = {name.partition("/")[0] for name in names}
    notes = [*_physics(rollouts, env, follower, why), *_rows(rollouts, run.chosen)]
    if kinds & {"obs", "next_obs"}:
        notes += _observations(cfg, {n.split("/")[1] for n in names if "/" in n} or None)
    if "next_obs" in kinds and (_has_events(cfg) or env.command_manager.active_terms):
        notes.append(
            "The task has events during episodes, or commands. Where no recorded step follows, at"
            " the end of an episode and before missing rows, 'next_obs' does not show what they did"
            " in that step."
        )
    starts = [
        name
        for name, term in cfg.events.items()
        if term is not None and term.mode == "startup" and not hasattr(term.func, "model_fields")
    ]
    if starts and not run.starts_up:
        notes.append(
            f"What the events {', '.join(starts)} drew at start-up is not recorded, and left out."
            " With as many worlds as were recorded, and one seed, it is drawn again."
        )
    if any(term is not None for term in cfg.curriculum.values()):
        notes.append(
            "The task has a curriculum. What it had changed when the recording was made, such as"
            " weights, is not known: the values of the task's cfg are used."
        )
    terms = sorted(set().union(*(reads.terms for reads in env.reads.values())))
    notes += [
        f"Terms read more of the command '{name}' than its recorded values. What they give may"
        " differ from the task."
        for name in terms
    ]
    if (terrain := env.scene.terrain) is not None and terrain.terrain_origins is not None:
        notes.append(
            "The ground is generated: on which tile an environment was is not recorded, so terms"
            " that read the origin of an environment may differ from the task."
        )
    if env.sim.world_to_variant:
        notes.append(
            "Worlds of this task have different variants of an entity. Their physics is that of"
            " the recording, but terms that ask which variant it is may be wrong."
        )
    computed = {"reward_terms"} if "reward" in kinds else set()
    for kind, manager in (
        ("reward_terms", env.reward_manager),
        ("termination_terms", env.termination_manager),
    ):
        known = {f"{kind}/{name}" for name in manager.active_terms}
        if kind in kinds | computed:
            old = [n for n in rollouts.channels if n.startswith(f"{kind}/") and n not in known]
            notes += [f"'{name}' is as it was recorded: the task has no such term." for name in old]
    return notes


def _physics(rollouts: Rollouts, env: FollowingEnv, follower: Follower, why: str) -> Iterator[str]:
    """Whether the physics did again what it did in the recording."""
    if rollouts.attachments.get(MODEL) != compiled_model(env.sim.mj_model):
        yield (
            "The model of this task is not the recorded one, so its physics may differ. Each step"
            " still begins in its recorded state."
        )
    if CTRL not in rollouts.channels or CHECK not in rollouts.channels:
        yield (
            "The channel 'physics' was not recorded: the actuators do what the task's actions tell"
            " them, and delays are drawn again."
        )
    if follower.apart:
        cause = why or (
            "" if CHECK in rollouts.channels else "events may have changed the states in them"
        )
        yield (
            f"In {follower.apart:,} of {follower.compared:,} steps the physics led to another"
            f" state than recorded, with joint positions that differ by up to"
            f" {follower.farthest:.3g}{f': {cause}' if cause else ''}. Results of these steps are"
            " not exactly those of the recorded ones."
        )
    if follower.other_ends:
        yield (
            f"In {follower.other_ends:,} rows the terminations of the task say something else than"
            " the recorded flags, which are kept. Terms that depend on terminations see those of"
            " the task."
        )


def _rows(rollouts: Rollouts, chosen: Sequence[int]) -> Iterator[str]:
    """Whether all steps of the episodes are there."""
    if rollouts.info.every > 1:
        yield (
            f"Only one of {rollouts.info.every} steps was recorded. Terms that look at earlier"
            " steps (earlier actions, histories, delays, air times) see the recorded ones instead."
        )
        return
    partial = int(rollouts.episodes["partial"][chosen].fill_null(False).sum())
    if partial:
        yield (
            f"Rows of {partial} of {len(chosen)} episodes are missing. In these episodes, terms"
            " that look at earlier steps (earlier actions, histories, delays, air times) may"
            " differ from the task, and the return is unknown."
        )


def _observations(cfg: ManagerBasedRlEnvCfg, groups: set[str] | None) -> Iterator[str]:
    """What is random in these groups of observations, or in all."""
    noisy, late = [], []
    for group, group_cfg in cfg.observations.items():
        if group_cfg is None or (groups is not None and group not in groups):
            continue
        terms = {name: term for name, term in group_cfg.terms.items() if term is not None}
        if group_cfg.enable_corruption and any(term.noise for term in terms.values()):
            noisy.append(group)
        late += [
            f"{group}/{name}"
            for name, term in terms.items()
            if term.delay_max_lag > term.delay_min_lag
        ]
    if noisy:
        option = f"--env.observations.{noisy[0]}.enable-corruption False"
        yield (
            f"The noise of {', '.join(noisy)} was drawn again, so it is not the recorded one."
            f" {option} leaves it out."
        )
    if late:
        yield f"The delays of {', '.join(late)} were drawn again."


def _has_events(cfg: ManagerBasedRlEnvCfg) -> bool:
    modes = [term.mode for term in cfg.events.values() if term is not None]
    return "step" in modes or "interval" in modes
