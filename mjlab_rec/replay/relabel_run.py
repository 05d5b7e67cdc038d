"""Let recorded episodes go through the worlds of a task, and take what it makes of their rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.data.copying import episode_of
from mjlab_rec.data.episode_batches import batches
from mjlab_rec.data.formats.base import EPISODE_COLUMNS
from mjlab_rec.data.rewriting import lossless
from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import ChannelSpec, DataError, Episode, bytes_of
from mjlab_rec.recorders.channels import Channel
from mjlab_rec.replay.following import Follower, Lanes
from mjlab_rec.replay.recorded_model import RecordedModel
from mjlab_rec.replay.relabel_env import FollowingEnv
from mjlab_rec.replay.same_bits import choose_engine, usual_worlds, why_not_exact
from mjlab_rec.replay.waves import check_physics
from mjlab_rec.sim.engine import state_layout

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnvCfg

# What is computed where commands are read for rewards.
_OF_REWARDS = ("reward", "reward_terms", "termination_terms")


@dataclass
class RelabelledChannel:
    """A channel that was computed."""

    name: str
    known: bool
    """Whether the recording had it, with the same shape, so that it could be compared."""
    replaced: bool
    """Whether the recording had it."""
    rows: int = 0
    differing: int = 0
    """Rows in which a number is another one."""
    most: float = 0.0
    """The largest difference of a number; infinite where only one of the two is NaN."""

    def compare(self, before: np.ndarray, after: np.ndarray) -> None:
        """Count differences of some rows."""
        self.rows += len(after)
        if not self.known or not len(after):
            return
        old = before.reshape(len(before), -1).astype(np.float64)
        new = after.reshape(len(after), -1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.where((old == new) | (np.isnan(old) & np.isnan(new)), 0.0, np.abs(new - old))
        apart = np.nan_to_num(apart, nan=math.inf)
        self.differing += int((apart > 0.0).any(axis=1).sum())
        self.most = max(self.most, float(apart.max(initial=0.0)))

    def __str__(self) -> str:
        if not self.known:
            return f"{self.name}: {'replaced, in another shape' if self.replaced else 'new'}"
        if not self.differing:
            return f"{self.name}: the same in all {self.rows} rows"
        return f"{self.name}: {self.differing} of {self.rows} rows differ, by up to {self.most:.3g}"


class Relabelling:
    """Lets episodes go through the worlds of the task, and takes what it makes of their rows."""

    def __init__(
        self,
        rollouts: Rollouts,
        cfg: ManagerBasedRlEnvCfg,
        chosen: list[int],
        wanted: list[str | Channel],
        device: str | None,
        num_worlds: int | None,
    ) -> None:
        self._rollouts = rollouts
        self._cfg = cfg
        self._wanted = wanted
        self.chosen = chosen
        self._sizes = rollouts.episodes["rows"].to_numpy()
        self._longest = int(self._sizes[chosen].max())
        self._total = int(self._sizes[chosen].sum())
        self._table: dict[str, list[Any]] = {
            n: rollouts.episodes[n].to_list() for n in EPISODE_COLUMNS
        }
        self.rows = 0
        self.before = self.after = 0.0
        if "action" not in rollouts.channels:
            raise DataError(
                "The recording has no actions, without which its steps cannot be simulated again."
                " Record the channel 'action'."
            )
        recorded = RecordedModel.of(rollouts)
        layout = {f.name: f.columns for f in state_layout(recorded.model)}
        check_physics(rollouts, layout, recorded.decimation)
        if cfg.sim.engine != "auto":
            recorded.cfg.engine = cfg.sim.engine
        self.device = choose_engine(recorded, None, device)
        cfg.sim.engine = recorded.cfg.engine
        seed = rollouts.info.about.get("seed")
        self._knows_seed = type(seed) is int
        if self._knows_seed:
            cfg.seed = seed  # Generated ground is the same again.
        self.why = why_not_exact(rollouts.info.about, recorded, self.device)
        self._num_worlds = num_worlds

    def prepare(self, memory_bytes: int) -> None:
        """Build the environment, with as many worlds as the memory has room for."""
        rollouts, kinds = self._rollouts, self._rollouts.info.kinds
        needed = Follower.channels(rollouts)
        # What is computed takes about as much as what the recording has of it.
        each = bytes_of(kinds[n] for n in kinds if n in needed or n.startswith(("obs", "reward")))
        room = max(1, memory_bytes // max(1, each * self._longest))
        self._share_worlds(room)
        self._lanes = Lanes(rollouts, needed, self._worlds, self._longest)
        self.follower = Follower(rollouts, self._lanes, exact=not self.why)
        self._cfg.scene.num_envs = self._worlds
        self.env = FollowingEnv(self._cfg, self.device, self.follower, self._wanted, self.starts_up)

    def _share_worlds(self, room: int) -> None:
        """Choose the number of worlds, and the episodes that wait for each of them.

        If that is possible, there are as many as in the recording, and each gets the episodes of
        its environment: then sums over terms come out the same in their last bit, too.
        """
        rollouts, chosen = self._rollouts, self.chosen
        usual = usual_worlds(self._cfg.sim.engine, self.device)
        count: Any = rollouts.info.about.get("num_envs")
        used = set(rollouts.episodes["env"][chosen].to_list())
        alike = type(count) is int and max(used) < count <= min(room, max(usual, 2 * len(used)))
        alike = alike and self._num_worlds in (None, count)
        self.starts_up = alike and self._knows_seed
        """Whether start-up events draw again what they drew in the recording."""
        if alike:
            self._worlds = count
            self._waiting = [[] for _ in range(count)]
            for index in reversed(chosen):
                self._waiting[self._table["env"][index]].append(index)
            return
        self._worlds = min(self._num_worlds or usual, room, len(chosen))
        self._waiting = [list(reversed(chosen))] * self._worlds  # The same list for all.

    def begin(self) -> None:
        """Begin the first episodes, which also tells what the channels are."""
        env = self.env
        _check_fit(self._rollouts, self.follower.recorded, env)
        self._start(np.arange(self._worlds))
        recorded = self._rollouts.channels
        self.specs = {spec.name: _stored(recorded.get(spec.name), spec) for spec in env.taken.specs}
        self._made = {
            name: np.zeros((self._worlds, self._longest, *spec.shape), spec.dtype)
            for name, spec in self.specs.items()
        }
        self.found = {}
        for name, spec in self.specs.items():
            old = recorded.get(name)
            known = old is not None and old.shape == spec.shape
            self.found[name] = RelabelledChannel(name, known, old is not None)

    def new_channels(self) -> list[ChannelSpec]:
        """The channels of the new recording."""
        recorded = {spec.name: lossless(spec) for spec in self._rollouts.info.channels}
        specs = {**recorded, **self.specs}
        for name, spec in specs.items():
            source = specs.get(spec.next_of)
            if source is None:
                continue
            kinds = [(s.dtype, s.shape, s.codec) for s in (source, spec)]
            if (name in self.specs) != (source.name in self.specs) or kinds[0] != kinds[1]:
                specs[name] = replace(spec, next_of="")
        return list(specs.values())

    def episodes(self, progress: Callable[[int, int], None] | None) -> Iterator[Episode]:
        """Simulate, and return episodes as they end."""
        lanes, env = self._lanes, self.env
        while len(active := lanes.active):
            everyone = np.arange(self._worlds)
            action = lanes.rows("action", everyone).reshape(self._worlds, -1)
            env.step(torch.from_numpy(action.astype(np.float32)).to(env.device))
            env.note_reads("observations")
            self._refuse_unknown_commands()
            rows = env.taken.latest
            for name, values in self._made.items():
                values[active, lanes.at[active]] = rows[name].cpu().numpy()[active]
            self.rows += len(active)
            if progress is not None:
                progress(self.rows, self._total)
            over = active[~lanes.has_next[active]]
            skips = active[lanes.has_next[active] & ~lanes.goes_on[active]]
            lanes.at[active] += 1
            if len(skips):
                env.skip_gap(torch.from_numpy(skips).to(env.device))
            if len(over):
                yield from self._ended(over)
                lanes.episode[over] = -1
                self._start(over)

    def _start(self, lanes: np.ndarray) -> None:
        """Begin the next episodes in these lanes, as long as there are any."""
        started, episodes = [], []
        for lane in lanes.tolist():
            if self._waiting[lane]:
                started.append(lane)
                episodes.append(self._waiting[lane].pop())
        if started:
            ids = np.array(started)
            self._lanes.load(ids, episodes)
            self.env.reset(env_ids=torch.from_numpy(ids).to(self.env.device))

    def _ended(self, lanes: np.ndarray) -> Iterator[Episode]:
        """Episodes of these lanes, with everything else that was recorded of them."""
        rollouts = self._rollouts
        names, kinds = list(rollouts.info.kinds), rollouts.info.kinds
        lane_of = dict(zip(self._lanes.episode[lanes].tolist(), lanes.tolist(), strict=True))
        sizes = self._table["rows"]
        for batch in batches(sorted(lane_of), sizes, bytes_of(kinds.values())):
            arrays = rollouts.read_many(batch, names)
            first = 0
            for index in batch:
                after = first + sizes[index]
                recorded = {name: values[first:after] for name, values in arrays.items()}
                yield self._changed(index, lane_of[index], recorded)
                first = after

    def _changed(self, index: int, lane: int, recorded: dict[str, np.ndarray]) -> Episode:
        """An episode with what was computed of it."""
        size = self._table["rows"][index]
        made = {name: values[lane, :size].copy() for name, values in self._made.items()}
        for name, channel in self.found.items():
            channel.compare(recorded.get(name, made[name]), made[name])
        row = {name: values[index] for name, values in self._table.items()}
        episode = episode_of(row, {**recorded, **made}, self._rollouts.model(index))
        self.before += _sum(recorded.get("reward"))
        self.after += _sum(episode.arrays.get("reward"))
        if "reward" in made:
            episode.recorded = _sum(made["reward"])
            whole = size == episode.length and not episode.partial
            episode.total = episode.recorded if whole else math.nan
        return episode

    def _refuse_unknown_commands(self) -> None:
        """Raise if something that is wanted depends on a command that is not restored."""
        names = [name if isinstance(name, str) else name.name for name in self._wanted]
        restored = self.follower.commands.restored
        for by, reads in self.env.reads.items():
            kinds = ("obs", "next_obs") if by == "observations" else _OF_REWARDS
            if not any(name.partition("/")[0] in kinds for name in names):
                continue
            unknown = sorted((reads.values | reads.terms) - restored)
            if unknown:
                name = unknown[0]
                why = self.follower.commands.notes.get(name, "It was not recorded.")
                raise DataError(
                    f"The {by} depend on the command '{name}', which is not known. {why} Record"
                    " the channel 'command', or leave out the terms that read it:"
                    " --env.rewards.TERM None."
                )


def _sum(rewards: np.ndarray | None) -> float:
    """The sum of rewards, added in the order of time, as recorders do."""
    if rewards is None or not len(rewards):
        return math.nan
    return float(np.cumsum(rewards.astype(np.float64))[-1])


def _stored(old: ChannelSpec | None, new: ChannelSpec) -> ChannelSpec:
    """How a channel that was computed is stored: as the recorded one, as far as that fits."""
    if old is None:
        return new
    same_kind = old.dtype.kind == new.dtype.kind
    spec = replace(new, dtype=old.dtype if same_kind else new.dtype, next_of=old.next_of)
    return replace(spec, codec=old.codec) if old.shape == new.shape and same_kind else spec


def _check_fit(rollouts: Rollouts, recorded: RecordedModel, env: Any) -> None:
    """Raise if the recording is not one of this task."""
    size, width = rollouts.channels["state"].size, env.action_manager.total_action_dim
    actions = rollouts.channels["action"].size
    if env.sim.state_size != size:
        raise DataError(
            f"The recorded states have {size} numbers, those of this task {env.sim.state_size}: it"
            " simulates something else."
        )
    here = env.physics_dt, env.cfg.decimation
    there = float(recorded.model.opt.timestep), recorded.decimation
    if not math.isclose(here[0], there[0], rel_tol=1e-6) or here[1] != there[1]:
        raise DataError(
            f"In the recording a control step is {there[1]} physics steps of {there[0]:g} s, in"
            f" this task {here[1]} of {here[0]:g} s. Set --env.decimation or"
            " --env.sim.mujoco.timestep."
        )
    if actions != width:
        raise DataError(
            f"The recorded actions have {actions} numbers, those of this task {width}. Give the"
            " task that was recorded, or one with the same actions."
        )
