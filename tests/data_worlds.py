"""Random rollouts as blocks, with a plain log of their steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mjlab_rec.data.episodes import EpisodeAssembler
from mjlab_rec.data.schema import Block, ChannelSpec, Ends, Episode, ModelRows, RunInfo

NAMES = ("slider, x", "hinge[0]", 'say "hi"')


def channels(every: int = 1) -> tuple[ChannelSpec, ...]:
    """Channels of many kinds; with `every` above 1 next observations are stored, too."""
    f4 = np.dtype("float32")
    specs = [
        ChannelSpec(name="obs/actor", dtype=f4, shape=(3,), elements=NAMES, when="before"),
        ChannelSpec(name="obs/critic", dtype=np.dtype("float16"), shape=(2,), when="before"),
        ChannelSpec(name="camera", dtype=np.dtype("uint8"), shape=(2, 2), when="before"),
        ChannelSpec(name="state", dtype=np.dtype("float64"), shape=(2,), when="before", units="m"),
        ChannelSpec(name="action", dtype=f4, shape=(2,), elements=("left", "right")),
        ChannelSpec(name="file", dtype=np.dtype("int32")),
        ChannelSpec(name="timestamp", dtype=np.dtype("float64")),
        ChannelSpec(name="flag", dtype=np.dtype("bool"), shape=(2,)),
        ChannelSpec(name="reward", dtype=f4),
        ChannelSpec(name="terminated", dtype=np.dtype("bool")),
        ChannelSpec(name="truncated", dtype=np.dtype("bool")),
    ]
    for name in ("obs/actor", "obs/critic"):
        spec = next(spec for spec in specs if spec.name == name)
        specs.append(
            ChannelSpec(
                name=f"next_{name}",
                dtype=spec.dtype,
                shape=spec.shape,
                elements=spec.elements,
                next_of=name if every == 1 else "",
            )
        )
    return tuple(specs)


@dataclass
class LoggedRow:
    """One row of the log."""

    env: int
    number: int
    step: int  # in the episode
    at: int  # control steps before it
    values: dict[str, np.ndarray]


@dataclass
class LoggedEpisode:
    """One episode of the log, with the rows that count."""

    env: int
    number: int
    length: int = 0
    total: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    rows: list[LoggedRow] = field(default_factory=list)
    model: dict[str, np.ndarray] = field(default_factory=dict)
    steps: int = 0  # so far, while it runs

    @property
    def recorded(self) -> float:
        return sum(float(row.values["reward"]) for row in self.rows)

    def partial(self, every: int) -> bool:
        began = self.rows[0].at - self.rows[0].step
        due = [
            at for at in range(began, began + self.length) if (at - self.rows[0].at) % every == 0
        ]
        return len(self.rows) < len(due)


@dataclass
class World:
    """A few environments with episodes of different lengths.

    ``blocks`` may be called once; afterwards ``episodes`` and ``rows`` say what was in them.
    """

    num_envs: int = 3
    steps: int = 40  # control steps
    block_rows: int = 7
    every: int = 1
    seed: int = 0
    partial: bool = False  # some blocks are written before they are full
    activity: str = "all"  # rows that count: "all", "rows" (some), "episodes" (some), "none"
    gaps: tuple[int, ...] = ()  # numbers of the blocks that get lost
    model: bool = False  # whether episodes have model fields
    ends: bool = True  # whether episodes end
    special: bool = True  # whether NaN and infinities occur

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.info = RunInfo(
            channels=channels(self.every),
            envs=tuple(5 * env_index + 2 for env_index in range(self.num_envs)),
            step_dt=0.02,
            every=self.every,
            about={"task": "made-up", "engine": "none", "seed": self.seed, "cfg": {"a": [1, None]}},
            attachments={"model.mjb": bytes(range(256)), "notes.txt": b"hello"},
        )
        self.episodes: list[LoggedEpisode] = []  # with rows, in the order in which they ended
        self.rows: list[LoggedRow] = []  # in order of time, then environment
        self.lost = 0  # rows, which the next block reports

    def blocks(self) -> Iterator[Block]:
        """Run all steps. A block's memory is overwritten when the next block is requested."""
        self._running = [LoggedEpisode(env=env, number=0) for env in self.info.envs]
        self._models = [self._new_model() for _ in self._running]
        self._obs = [self._fresh_obs() for _ in self._running]
        self._memory = self._new_memory()
        self._known = [(episode, 0, 0.0) for episode in self._running]
        self._gap = 0
        self._begin_block()
        for env_index, model in enumerate(self._models):
            self._running[env_index].model = model
            if model:
                self._new_models.append((env_index, 0, model))
        number = 0
        cuts: list[int] = []
        for t in range(self.steps):
            if len(self._at) == self.block_rows or (self.partial and self.rng.random() < 0.15):
                yield from self._hand_over(number)
                number += 1
            for env_index in cuts:  # resets between steps, possibly after a block was handed over
                self._end(env_index, t, self._obs[env_index], False, False)
            cuts = self._step(t)
        yield from self._hand_over(number)
        for episode, length, total in self._known:
            self._finish(episode, length, total)

    # -- what happens ------------------------------------------------------------------------------

    def _value(self, spec: ChannelSpec) -> np.ndarray:
        """Any value of a channel."""
        if spec.dtype == bool:
            return np.asarray(self.rng.random(spec.shape) < 0.5)
        if spec.dtype.kind in "iu":
            bounds = np.iinfo(spec.dtype)
            value = self.rng.integers(bounds.min, bounds.max, spec.shape, endpoint=True)
            return np.asarray(value).astype(spec.dtype)
        value = np.asarray(self.rng.normal(size=spec.shape)).astype(spec.dtype)
        if self.special and self.rng.random() < 0.3:
            tiny = np.finfo(spec.dtype).smallest_subnormal
            odd = np.array([np.nan, np.inf, -np.inf, -0.0, tiny], spec.dtype)
            value = np.asarray(self.rng.choice(odd, size=spec.shape))
        return value

    def _fresh_obs(self) -> dict[str, np.ndarray]:
        return {s.name: self._value(s) for s in self.info.stored if s.when == "before"}

    def _new_model(self) -> dict[str, np.ndarray]:
        if not self.model:
            return {}
        return {
            "geom_friction": self.rng.normal(size=(2, 3)).astype(np.float32),
            "gravity": self.rng.normal(size=3).astype(np.float32),
        }

    def _step(self, t: int) -> list[int]:
        """Step all environments; returns those that are reset before the next step."""
        cuts, befores = [], []
        rows = []
        for env_index, episode in enumerate(self._running):
            values = dict(self._obs[env_index])
            for spec in self.info.stored:
                if spec.when == "after":
                    values[spec.name] = self._value(spec)
            terminated, truncated = (self.rng.random(2) < 0.1) & self.ends
            values["reward"] = np.asarray(self.rng.normal()).astype(np.float32)
            values["terminated"] = np.asarray(terminated)
            values["truncated"] = np.asarray(truncated)
            after = self._fresh_obs()
            for spec in self.info.channels:
                if spec.next_of:
                    values[spec.name] = after[spec.next_of]
            rows.append(LoggedRow(episode.env, episode.number, episode.steps, t, values))
            befores.append(after)
            episode.steps += 1
            episode.total += float(values["reward"])
        if t % self.every == 0:
            self._record(t, rows)
        for env_index, after in enumerate(befores):
            values = rows[env_index].values
            terminated, truncated = bool(values["terminated"]), bool(values["truncated"])
            self._obs[env_index] = after
            if terminated or truncated:
                self._end(env_index, t + 1, after, terminated, truncated)
            elif self.ends and self.rng.random() < 0.04:
                self._end(env_index, t + 1, after, False, False)
            elif self.ends and self.rng.random() < 0.04:
                cuts.append(env_index)
        return cuts

    def _end(
        self,
        env_index: int,
        at: int,
        final: dict[str, np.ndarray],
        terminated: bool,
        truncated: bool,
    ) -> None:
        """End an environment's episode, and begin the next."""
        episode = self._running[env_index]
        episode.length, episode.terminated, episode.truncated = episode.steps, terminated, truncated
        episode.success = [True, False, None][self.rng.integers(3)]
        self._ended.append((env_index, len(self._at) - 1, at, episode, final))
        self._obs[env_index] = self._fresh_obs()
        if self.rng.random() < 0.6 and self.model:
            self._models[env_index] = self._new_model()
            self._new_models.append((env_index, episode.number + 1, self._models[env_index]))
        self._running[env_index] = LoggedEpisode(
            env=episode.env, number=episode.number + 1, model=self._models[env_index]
        )

    # -- what is recorded --------------------------------------------------------------------------

    def _new_memory(self) -> dict[str, np.ndarray]:
        size = (self.block_rows, self.num_envs)
        memory = {
            spec.name: np.empty((*size, *spec.shape), spec.dtype) for spec in self.info.stored
        }
        memory["(active)"] = np.empty(size, bool)
        for array in memory.values():
            _spoil(array)
        return memory

    def _begin_block(self) -> None:
        self._at: list[int] = []  # control steps before each row
        self._rows: list[LoggedRow] = []  # those that count
        self._first: list[LoggedEpisode] = []
        self._first_steps: list[int] = []
        self._ended: list[tuple[int, int, int, LoggedEpisode, dict[str, np.ndarray]]] = []
        self._new_models: list[tuple[int, int, dict[str, np.ndarray]]] = []

    def _record(self, t: int, rows: list[LoggedRow]) -> None:
        if not self._at:
            self._first = list(self._running)
            self._first_steps = [row.step for row in rows]
        for env_index, row in enumerate(rows):
            for spec in self.info.stored:
                self._memory[spec.name][len(self._at), env_index] = row.values[spec.name]
            active = {
                "all": True,
                "rows": self.rng.random() < 0.6,
                "episodes": row.number % 2 == 1,
                "none": False,
            }[self.activity]
            self._memory["(active)"][len(self._at), env_index] = active
            if active:
                self._rows.append(row)
        self._at.append(t)
        self._last_steps = [episode.steps for episode in self._running]

    def _finish(self, episode: LoggedEpisode, length: int, total: float) -> None:
        """Set the length and return that are known of an episode."""
        if episode.rows and episode not in self.episodes:
            episode.length, episode.total, episode.success = length, total, None
            episode.terminated = episode.truncated = False
            self.episodes.append(episode)

    def _hand_over(self, number: int) -> Iterator[Block]:
        """The running block, unless it is a lost one."""
        if number in self.gaps:
            self._gap += len(self._at)
            self._begin_block()
            return
        self._log()
        block, memory = self._block()
        yield block
        for array in memory:
            _spoil(array)
        for array in self._memory.values():
            _spoil(array)
        self._gap = 0
        self._begin_block()

    def _log(self) -> None:
        """Update what a reader can know after a block."""
        self.lost += self._gap
        self.rows += self._rows
        reported = [id(episode) for *_, episode, _ in self._ended]
        if self._at:
            for (episode, length, total), first in zip(self._known, self._first, strict=True):
                if id(episode) not in reported and episode is not first:
                    self._finish(episode, length, total)  # it ended in a block that was lost
        by_number = {(e.env, e.number): e for e in (*self._first, *self._running)}
        by_number |= {(e.env, e.number): e for *_, e, _ in self._ended}
        for row in self._rows:
            by_number[row.env, row.number].rows.append(row)
        self.episodes += [e for *_, e, _ in self._ended if e.rows]
        for env_index, episode in enumerate(self._running):
            known, length, total = self._known[env_index]
            if self._at:
                known, length = episode, self._last_step(env_index)
            elif id(known) in reported:
                known, length = episode, 0
            if known is episode:  # Otherwise the known one ended in a lost block.
                total = episode.total
            self._known[env_index] = (known, length, total)

    def _last_step(self, env_index: int) -> int:
        """Steps of the running episode up to the last row."""
        row_at = self._at[-1] + 1
        began = max((at for i, _, at, _, _ in self._ended if i == env_index), default=None)
        if began is None:
            return self._first_steps[env_index] + row_at - self._at[0]
        return max(0, row_at - began)

    def _block(self) -> tuple[Block, list[np.ndarray]]:
        memory: list[np.ndarray] = []

        def array(values: Any, dtype: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
            memory.append(np.array(values, dtype).reshape(-1, *shape))
            return memory[-1]

        rows, ended, changed = len(self._at), self._ended, self._new_models
        chained = [s for s in self.info.channels if s.name in self.info.chained]
        first = self._first or self._running
        first_steps = self._first_steps or [e.steps for e in self._running]
        ends = Ends(
            env_index=array([env_index for env_index, *_ in ended], np.int32),
            row=array([row for _, row, *_ in ended], np.int32),
            at=array([at for _, _, at, *_ in ended], np.int64),
            episode=array([e.number for *_, e, _ in ended], np.int32),
            length=array([e.length for *_, e, _ in ended], np.int32),
            total=array([e.total for *_, e, _ in ended], np.float64),
            rows=array([len(e.rows) for *_, e, _ in ended], np.int32),
            recorded=array([e.recorded for *_, e, _ in ended], np.float64),
            terminated=array([e.terminated for *_, e, _ in ended], bool),
            truncated=array([e.truncated for *_, e, _ in ended], bool),
            success=array([-1 if e.success is None else e.success for *_, e, _ in ended], np.int8),
            final={
                s.name: array([final[s.name] for *_, final in ended], s.dtype, s.shape)
                for s in chained
            },
        )
        model = None
        if changed:
            model = ModelRows(
                env_index=array([env_index for env_index, _, _ in changed], np.int32),
                episode=array([number for _, number, _ in changed], np.int32),
                fields={
                    name: array([fields[name] for *_, fields in changed], np.float32, value.shape)
                    for name, value in changed[0][2].items()
                },
            )
        block = Block(
            info=self.info,
            rows=rows,
            arrays={s.name: self._memory[s.name][:rows] for s in self.info.stored},
            tail={
                s.name: array([obs[s.name] for obs in self._obs], s.dtype, s.shape) for s in chained
            },
            step=array(self._at, np.int64),
            first_episode=array([e.number for e in first], np.int32),
            first_step=array(first_steps, np.int32),
            total=array([e.total for e in self._running], np.float64),
            recorded=array([e.recorded for e in self._running], np.float64),
            ends=ends,
            active=None if self.activity == "all" else self._memory["(active)"][:rows],
            model=model,
            gap=self._gap,
        )
        return block, memory


def episodes_of(world: World) -> Iterator[Episode]:
    """The episodes of a world, in the order in which they end."""
    assembler = EpisodeAssembler(world.info)
    for block in world.blocks():
        yield from assembler.add(block)
    yield from assembler.finish()


def _spoil(array: np.ndarray) -> None:
    """Fill memory with values that cannot be mistaken for data."""
    if array.dtype.kind == "f":
        array[...] = np.nan
    elif array.dtype == bool:
        array[...] = ~array
    else:
        array[...] = np.array(113, array.dtype)


def same(a: Any, b: Any) -> bool:
    """Whether two values are of one type and shape, and equal bit for bit (NaN equals NaN)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(
        np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)])
    )
