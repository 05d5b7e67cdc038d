"""Examples of rollouts with recorders: how they are drawn, run, and compared with the model."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from hypothesis import strategies as st
from rollout_model import ExpectedEpisode, Happening, Plan, Recording, Step, expected
from rollout_world import CONDITIONS, OWN, Driver, Short, World, new_env, used_env, wins

from mjlab_rec.data.formats.memory import MemoryReader, MemoryWriter
from mjlab_rec.data.rollouts import Rollouts, open_rollouts
from mjlab_rec.recorders import (
    CsvRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorder,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
    Trigger,
)

FORMATS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "memory": (MemoryRecorderCfg, "", {}),
    "hdf5": (Hdf5RecorderCfg, ".h5", {}),
    "hdf5 gzip": (Hdf5RecorderCfg, ".h5", {"compression": "gzip"}),
    "hdf5 episodes": (Hdf5RecorderCfg, ".h5", {"layout": "episodes"}),
    "csv": (CsvRecorderCfg, ".csv", {}),
    "npz folder": (NpzRecorderCfg, "", {}),
    "npz file": (NpzRecorderCfg, ".npz", {}),
    "parquet": (ParquetRecorderCfg, "", {}),
}


APPENDS = ("hdf5", "hdf5 gzip", "hdf5 episodes", "csv", "npz folder", "parquet")
"""Formats that can go on with what is there."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Rec(Short):
    """A recorder."""

    format: str = "memory"
    channels: tuple[str, ...] = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    envs: int | tuple[int, ...] | None = None
    every: int = 1
    trigger: tuple[Any, ...] | None = None
    length: int | None = None
    autostart: bool = True
    keep: str = "all"
    success: str | None = None
    max_steps: int | None = None
    max_episodes: int | None = None
    block_steps: int | None = None
    num_blocks: int | None = None
    dtype: str | None = None
    append: bool = False
    parts: bool = False
    """Whether each file is finished soon, and the next part begins."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Take(Short):
    """Some steps. Of the last one the other fields tell."""

    count: int = 1
    ends: tuple[int, ...] = ()
    """How the step ends each environment's episode: 0 not, 1 terminated, 2 truncated, 3 both."""
    wins: tuple[int, ...] = ()
    """Environments that succeed in it."""
    fail: str = ""
    """Where it fails."""
    inside: tuple[tuple[str, int, str], ...] = ()
    """Place in the step, recorder, and what that is told there."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ResetBy(Short):
    """A reset by hand; None: of all environments."""

    envs: tuple[int, ...] | None = None
    fail: bool = False
    """Whether it fails, and all environments are reset after it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Tell(Short):
    """A recorder is told something between two steps."""

    recorder: int = 0
    what: str = "flush"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A rollout with recorders."""

    world: World
    recorders: tuple[Rec, ...]
    happens: tuple[Take | ResetBy | Tell, ...]
    neutral: bool = False
    """Whether to compare with the same rollout without recorders."""
    used: bool = False
    """Whether the environment has been used before."""


@dataclass(frozen=True, kw_only=True)
class Dims:
    """What may happen in examples. Switched off one by one to look for what else is wrong."""

    pauses: bool = True
    stops: bool = True
    flushes: bool = True
    late: bool = True
    inside: bool = True
    errors: bool = True
    stale: bool = True  # steps after a failed one without a reset of all environments
    traps: bool = True  # errors in hooks of other recorders
    late_traps: bool = True  # also in the last hook of the last recorder
    early_traps: bool = True  # also before ours knows that a step begins
    told_in_failed: bool = True  # calls in a step that fails
    inside_stops: bool = True  # stop in the middle of a step
    resets: bool = True
    manual: bool = True  # auto_reset=False
    keep: bool = True
    triggers: bool = True
    conditions: bool = True
    stretches: bool = True  # triggers of steps
    max_steps: bool = True
    max_episodes: bool = True
    every: bool = True
    fields: bool = True
    chains: bool = True  # next_obs with obs
    subsets: bool = True
    dtype: bool = True
    appends: bool = True  # a second recording goes on in the file of the first
    rich: bool = True
    idle_triggers: bool = True  # a trigger of steps, and pauses or late starts
    reset_triggers: bool = True  # a trigger of steps, and resets by hand
    failed_triggers: bool = True  # a trigger of steps, and steps that fail
    limits_of_envs: bool = False  # max_steps with a trigger that chooses environments
    threads: bool = True  # calls from another thread in the middle of a step
    reading: bool = True  # in the middle of a recording
    parts: bool = True
    neutral: bool = True  # the same rollout without recorders is compared
    npz_state: bool = True  # state in npz files where model fields change in the middle of episodes
    warp: bool = False  # the engine, with few worlds
    most_recorders: int = 3
    formats: tuple[str, ...] = tuple(FORMATS)

    @classmethod
    def without(cls, names: Iterable[str]) -> Dims:
        """Everything but these; "+name" switches something on."""
        given: dict[str, Any] = {}
        formats = list(FORMATS)
        for name in names:
            if name in formats:
                formats.remove(name)
            else:
                given[name.lstrip("+")] = name.startswith("+")
        return cls(**given, formats=tuple(formats))


PLACES = ("termination", "reward", "event", "reset", "observation", "command")
TRAPS = tuple(
    f"{which} recorder, {hook}"
    for which in ("first", "last")
    for hook in ("pre step", "pre reset", "post reset", "post step")
)


@st.composite
def worlds(draw: Any, dims: Dims) -> World:
    if dims.warp:  # It takes long to make one, so there are two only.
        auto_reset = draw(st.booleans())
        return World(num_envs=2, fields="both", engine="warp", auto_reset=auto_reset)
    return World(
        num_envs=draw(st.integers(1, 4)),
        auto_reset=not (dims.manual and draw(st.integers(0, 2)) == 2),
        rich=dims.rich and draw(st.integers(0, 4)) == 4,
        fields=draw(st.sampled_from(["", "", "reset", "step", "both"])) if dims.fields else "",
        success_term=draw(st.booleans()) if dims.keep else False,
        engine="mjbatch",
    )


@st.composite
def recorders(draw: Any, dims: Dims, world: World) -> Rec:
    n = world.num_envs
    rarely = st.integers(0, 3).map(lambda k: k == 3)

    def maybe(wanted: bool, strategy: Any, default: Any = None) -> Any:
        return draw(strategy) if wanted and draw(rarely) else default

    trigger = length = None
    if dims.triggers and draw(rarely):
        kinds = [
            st.tuples(st.just("every_n_episodes"), st.integers(1, 3)),
            st.tuples(
                st.just("at_episodes"),
                st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True).map(tuple),
            ),
            st.just(("capped_cubic_episodes",)),
        ]
        moments_too = dims.stretches and (dims.reset_triggers or world.auto_reset)
        if moments_too:
            kinds += [
                st.tuples(st.just("every_n_steps"), st.integers(1, 7)),
                st.tuples(
                    st.just("at_steps"),
                    st.lists(st.integers(0, 15), min_size=1, max_size=3, unique=True).map(tuple),
                ),
                st.just(("manual",)),
            ]
        if moments_too and dims.conditions:
            kinds.append(st.tuples(st.just("when"), st.sampled_from(sorted(CONDITIONS))))
        trigger = draw(st.one_of(kinds))
        length = draw(st.one_of(st.none(), st.integers(1, 6)))
    per_env = trigger is not None and (
        "episodes" in trigger[0] or trigger[0] == "when" or length is None
    )
    keep = maybe(dims.keep, st.sampled_from(["successful", "failed", "separate"]), "all")
    success = None
    if dims.keep:
        needed = keep != "all" and not world.success_term
        success = draw(st.sampled_from(["wins", "end"] if needed else [None, "wins", "end"]))
    limits = dims.max_steps and (dims.limits_of_envs or not per_env)
    fmt = draw(st.sampled_from(dims.formats))
    block_steps = draw(st.one_of(st.none(), st.integers(1, 6), st.integers(1, 17)))
    channels = draw(_channels(dims, world))
    if not dims.npz_state and "npz" in fmt and world.fields in ("step", "both"):
        channels = tuple(name for name in channels if name != "state") or ("reward",)
    return Rec(
        format=fmt,
        channels=channels,
        envs=maybe(
            dims.subsets,
            st.one_of(
                st.integers(1, n),
                st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True).map(tuple),
            ),
        ),
        every=maybe(dims.every, st.integers(2, 7), 1),
        trigger=trigger,
        length=length,
        autostart=not (dims.late and draw(rarely)),
        keep=keep,
        success=success,
        max_steps=maybe(limits, st.integers(1, 12)),
        max_episodes=maybe(dims.max_episodes, st.integers(1, 5)),
        block_steps=block_steps,
        num_blocks=draw(st.sampled_from([None, 2])),
        dtype=maybe(dims.dtype, st.sampled_from(["float16", "float32", "float64"])),
        append=dims.appends
        and dims.stops
        and keep != "separate"
        and fmt in APPENDS
        and draw(rarely),
    )


@st.composite
def _channels(draw: Any, dims: Dims, world: World) -> tuple[str, ...]:
    default = Rec().channels if dims.chains else Rec().channels[:-1]
    if draw(st.integers(0, 2)) == 0:
        return default
    known = ["reward", "terminated", "truncated", "action", "obs", "next_obs", "state", "command"]
    known += ["entity/robot/joint_pos", "reward_terms/height", "ctrl", "processed_action", *OWN]
    known += ["obs/plain/tip", "next_obs/plain/tip"]
    some = draw(st.lists(st.sampled_from(known), min_size=1, max_size=8, unique=True))
    whole = {name for name in some if "/" not in name}
    some = [n for n in some if n in whole or n.split("/")[0] not in whole]  # Nothing twice.
    if not dims.chains and any(name.startswith("obs") for name in some):
        some = [name for name in some if not name.startswith("next_obs")]
    return tuple(some)


@st.composite
def takes(draw: Any, dims: Dims, world: World, recs: Sequence[Rec]) -> Take:
    n = world.num_envs
    kind = draw(st.integers(0, 9))
    ends: tuple[int, ...] = ()
    if kind >= 8:
        ends = (draw(st.integers(1, 3)),) * n
    elif kind >= 4:
        ends = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=n, max_size=n)))
    won: tuple[int, ...] = ()
    if dims.keep and kind % 3 == 2:
        won = tuple(sorted(draw(st.sets(st.integers(0, n - 1), max_size=n))))
    fail = ""
    if dims.errors and draw(st.integers(0, 19)) == 19:
        traps = TRAPS[not dims.early_traps : None if dims.late_traps else -1]
        places = ("action", *PLACES, *(traps if dims.traps else ()))
        fail = draw(st.sampled_from(places))
    inside: tuple[Any, ...] = ()
    if dims.inside and draw(st.integers(0, 19)) == 19:
        recorder, what = _told(dims, recs)
        if dims.threads and draw(st.booleans()):
            # To flush, a thread waits for the end of a step, of which there may be none.
            what = what.filter(lambda word: word != "flush").map(lambda word: f"{word} elsewhere")
        inside = (draw(st.tuples(st.sampled_from(PLACES), recorder, what)),)
    if (fail and not dims.told_in_failed) or ("stop" in str(inside) and not dims.inside_stops):
        inside = ()
    count = draw(st.sampled_from([1, 1, 1, 2, 3, 5, 9]))
    return Take(count=count, ends=ends, wins=won, fail=fail, inside=inside)


def _told(dims: Dims, recs: Sequence[Rec]) -> tuple[Any, ...]:
    known = ["flush"] * dims.flushes
    if dims.pauses:
        known += ["pause", "start"]
    if dims.stops:
        known += ["stop", "start"]
    if dims.late and "start" not in known:
        known.append("start")
    if any(rec.trigger == ("manual",) for rec in recs):
        known.append("fire")
    return st.integers(0, len(recs) - 1), st.sampled_from(known or ["start"])


@st.composite
def examples(draw: Any, dims: Dims) -> Example:
    """Random examples."""
    world = draw(worlds(dims))
    recs = draw(st.lists(recorders(dims, world), min_size=1, max_size=dims.most_recorders))
    n = world.num_envs
    subset = st.sets(st.integers(0, n - 1), min_size=1, max_size=n).map(sorted).map(tuple)
    told = st.builds(lambda r, w: Tell(recorder=r, what=w), *_told(dims, recs))
    some_take = takes(dims, world, recs)
    kinds: list[Any] = [some_take, some_take, some_take, some_take, told]
    if any(rec.trigger == ("manual",) for rec in recs):
        kinds.append(st.integers(0, len(recs) - 1).map(lambda r: Tell(recorder=r, what="fire")))
    if dims.resets:
        by_hand = st.builds(
            lambda envs, fail: ResetBy(envs=envs, fail=fail and dims.errors),
            st.one_of(st.none(), subset),
            st.integers(0, 9).map(lambda k: k == 9),
        )
        kinds.append(by_hand)
    if dims.reading:
        look = st.integers(0, len(recs) - 1).map(lambda r: Tell(recorder=r, what="read"))
        kinds.append(look)
    happens = draw(st.lists(st.one_of(kinds), min_size=1, max_size=25))
    return Example(
        world=world,
        recorders=tuple(recs),
        happens=tuple(_sane(dims, recs, happens)),
        neutral=dims.neutral and draw(st.integers(0, 9)) == 9 and not _traps(happens),
    )


def _traps(happens: Sequence[Any]) -> bool:
    """Whether a recorder makes a step fail."""
    return any("recorder" in getattr(thing, "fail", "") for thing in happens if type(thing) is Take)


def moments(rec: Rec) -> bool:
    """Whether the recorder has a trigger that chooses moments, not episodes."""
    return rec.trigger is not None and "episodes" not in rec.trigger[0]


def _sane(dims: Dims, recs: Sequence[Rec], happens: Sequence[Any]) -> Iterator[Any]:
    """Leave out what makes no sense: firing other triggers, and what dims rule out."""
    by_moment = any(map(moments, recs))

    def fine(recorder: int, what: str) -> bool:
        rec, what = recs[recorder], what.partition(" ")[0]
        if what == "fire":
            return rec.trigger == ("manual",)
        idle = what in ("pause", "stop") or (what == "start" and not rec.autostart)
        if idle and moments(rec) and not dims.idle_triggers:
            return False
        return True

    steps = 0
    for thing in happens:
        if isinstance(thing, ResetBy) and by_moment and not dims.reset_triggers:
            continue
        if isinstance(thing, Tell) and not fine(thing.recorder, thing.what):
            continue
        if isinstance(thing, Take):
            if steps >= 50:
                continue
            steps += thing.count
            if thing.fail and by_moment and not (dims.failed_triggers and dims.reset_triggers):
                thing = replace(thing, fail="")
            if any(not fine(recorder, what) for _, recorder, what in thing.inside):
                thing = replace(thing, inside=())
        yield thing
        if isinstance(thing, Take) and thing.fail and not dims.stale:
            yield ResetBy()


# -- running --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Something that is not as the rules say."""

    what: str  # a word: which part of a recording
    where: str
    text: str

    def __str__(self) -> str:
        return f"[{self.what}] {self.where}: {self.text}"


def run(example: Example, log: list[Happening] | None = None) -> list[Deviation]:
    """Let an example happen, and compare every recording with the model.

    What happened is added to `log`.
    """
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        return _run(example, folder, [] if log is None else log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(example: Example, folder: Path, log: list[Happening]) -> list[Deviation]:
    world = example.world
    memory: dict[str, list[MemoryWriter]] = {}
    cfgs = {}
    for i, rec in enumerate(example.recorders):
        cfgs[f"r{i}"] = _cfg(rec, folder / f"r{i}", memory.setdefault(f"r{i}", []))
    used = example.used or world.engine == "warp"
    env = (used_env if used else new_env)(world, cfgs)
    # What a step led to is read before a reset only where there are final observations.
    env.cfg.final_obs = any("own/tip" in rec.channels for rec in example.recorders)
    driver = Driver(env, world)
    driver.log = log
    terms = {name: env.recorder_manager.get_term(name) for name in cfgs}
    found: list[Deviation] = []

    def look(i: int) -> None:
        rec, name = example.recorders[i], f"r{i}"
        terms[name].flush()
        if rec.format == "memory":
            sources: list[Any] = memory[name][-1:]
        else:
            sources = [file for file in terms[name].files[-1:] if file.exists()]
        wanted = expected(plan(rec, world), name, driver.log, world.num_envs)
        for source in sources:
            found.extend(_compare_early(rec, f"{name} {rec.format} early", wanted, source))

    try:
        _happen(driver, example, look)
        env.recorder_manager.close()
    except Exception as error:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        line = (
            "" if at is None else f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"
        )
        with contextlib.suppress(Exception):
            env.recorder_manager.close()
        text = f"{type(error).__name__}{line}: {error}"
        return [Deviation(what="crash", where="rollout", text=text)]
    for i, rec in enumerate(example.recorders):
        name = f"r{i}"
        wanted = expected(plan(rec, world), name, driver.log, world.num_envs)
        files = [] if rec.format == "memory" else list(dict.fromkeys(terms[name].files))
        rows, due = terms[name].rows, sum(recording.steps for recording in wanted)
        if rows != due and rec.trigger is None and rec.max_episodes is None:
            text = f"rows is {rows} instead of {due}"
            found.append(Deviation(what="counter", where=f"{name} {rec.format}", text=text))
        try:
            found += list(_compare(rec, world, f"{name} {rec.format}", wanted, files, memory[name]))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            found.append(Deviation(what="unreadable", where=f"{name} {rec.format}", text=text))
    if example.neutral:
        found += _compare_without_recorders(example, driver)
    return found


def _compare_without_recorders(example: Example, driver: Driver) -> Iterator[Deviation]:
    """Recording never changes the rollout."""
    used = example.used or example.world.engine == "warp"
    env = (used_env if used else new_env)(example.world, {})
    other = Driver(env, example.world)
    _happen(other, replace(example, happens=tuple(_bare(example))), lambda _: None)
    ours = [h for h in driver.log if isinstance(h, Step)]
    theirs = [h for h in other.log if isinstance(h, Step)]
    for a, b in zip(ours, theirs, strict=True):
        for name, value in b.values.items():
            if name in a.values and not np.array_equal(a.values[name], value):
                text = f"{name} of step {a.t} is another one without recorders"
                yield Deviation(what="changed", where="rollout", text=text)
                return


def _bare(example: Example) -> Iterator[Take | ResetBy | Tell]:
    """What happens to the environment alone."""
    for thing in example.happens:
        if isinstance(thing, Take):
            yield replace(thing, inside=())
        elif isinstance(thing, ResetBy):
            yield thing


def _happen(driver: Driver, example: Example, look: Callable[[int], None]) -> None:
    n = example.world.num_envs
    started = False

    def begin() -> None:
        nonlocal started
        if not started:
            started = True
            driver.reset()

    for thing in example.happens:
        if isinstance(thing, Tell) and thing.what == "read":
            look(thing.recorder)
            continue
        if isinstance(thing, Tell):
            driver.call(f"r{thing.recorder}", thing.what)
            continue
        if isinstance(thing, ResetBy):
            started = started or thing.envs is None
            begin()
            driver.reset(None if thing.envs is None else list(thing.envs), thing.fail)
            continue
        begin()
        for k in range(thing.count):
            last = k == thing.count - 1
            if driver.awaits_reset:
                driver.reset(sorted(driver.awaits_reset))
            ends = list(thing.ends) if last and thing.ends else [0] * n
            won = [last and i in thing.wins for i in range(n)]
            inside = tuple((place, f"r{r}", what) for place, r, what in thing.inside)
            driver.step(ends, won, thing.fail if last else "", inside if last else ())


def plan(rec: Rec, world: World) -> Plan:
    """What the model must know of a recorder."""
    n = world.num_envs
    envs = (
        tuple(range(n if rec.envs is None else rec.envs))
        if not isinstance(rec.envs, tuple)
        else rec.envs
    )
    return Plan(
        envs=envs,
        every=rec.every,
        trigger=rec.trigger,
        length=rec.length,
        autostart=rec.autostart,
        keep=rec.keep,
        success=rec.success or ("wins" if world.success_term else None),
        max_steps=rec.max_steps,
        max_episodes=rec.max_episodes,
    )


def _cfg(rec: Rec, path: Path, memory: list[MemoryWriter]) -> Any:
    make, suffix, more = FORMATS[rec.format]
    trigger = None
    if rec.trigger is not None:
        kind, *rest = rec.trigger
        value = rest[0] if rest else None
        key = {"when": "predicate"}.get(kind, "numbers" if isinstance(value, tuple) else "n")
        if kind == "when":
            value = CONDITIONS[value]
        trigger = Trigger(kind=kind, **({key: value} if rest else {}))
    if rec.format == "memory":
        more = {"func": _keeping(memory)}
    return make(
        path=str(path.with_suffix(suffix)),
        channels=tuple(OWN.get(name, name) for name in rec.channels),
        envs=rec.envs,
        every=rec.every,
        trigger=trigger,
        length=rec.length,
        autostart=rec.autostart,
        keep=rec.keep,
        success=wins if rec.success == "wins" else rec.success,
        max_steps=rec.max_steps,
        max_episodes=rec.max_episodes,
        block_steps=rec.block_steps,
        num_blocks=rec.num_blocks,
        dtype=rec.dtype,
        if_exists="append" if rec.append else "error",
        roll_over_bytes=3000 if rec.parts else 4 << 30,
        **more,
    )


def _keeping(memory: list[MemoryWriter]) -> type[MemoryRecorder]:
    """A recorder whose writers can be read after it was closed."""

    def make(info: Any, options: Any) -> MemoryWriter:
        memory.append(MemoryWriter(info, options))
        return memory[-1]

    class Keeping(MemoryRecorder):
        def writer(self) -> Any:
            return make

    return Keeping


# -- comparing ------------------------------------------------------------------------------------


def _compare(
    rec: Rec,
    world: World,
    where: str,
    wanted: list[Recording],
    files: list[Path],
    memory: list[MemoryWriter],
) -> Iterator[Deviation]:
    """Compare a recorder's recordings with those that it should have made."""
    kinds = ("successful", "failed") if rec.keep == "separate" else ("",)
    sources: list[Any] = memory
    if rec.format != "memory":
        sources = [file for file in files if ".part" not in file.name]
    groups = [sources[i : i + len(kinds)] for i in range(0, len(sources), len(kinds))]
    opened = []
    for group in groups:
        rollouts = [
            Rollouts(MemoryReader(s)) if isinstance(s, MemoryWriter) else open_rollouts(s)
            for s in group
        ]
        opened.append(list(zip(kinds, group, rollouts, strict=True)))
    real = [group for group in opened if any(len(r) for _, _, r in group)]
    due = [recording for recording in wanted if not recording.empty]
    if rec.append and due:
        due = [_joined(due)]
        for _, _, rollouts in real[0] if real else ():
            found = rollouts.episodes.select("env", "number").rows()
            if len(set(found)) < len(found):
                text = f"(env, number) is not unique: {found}"
                yield Deviation(what="repeated", where=where, text=text)
                return
    if len(real) != len(due):
        text = f"{len(real)} recordings with rows instead of {len(due)}"
        yield Deviation(what="recordings", where=where, text=text)
    for number, (group, recording) in enumerate(zip(real, due, strict=False)):
        for kind, source, rollouts in group:
            here = f"{where} recording {number} {kind}".rstrip()
            episodes = recording.files[kind]
            yield from _compare_file(rec, world, here, episodes, rollouts)
            rollouts.close()
            if isinstance(source, Path):
                yield from _compare_raw(rec, world, here, episodes, source)


def _compare_early(
    rec: Rec, where: str, wanted: list[Recording], source: Path | MemoryWriter
) -> Iterator[Deviation]:
    """Compare a recording that goes on with what it should hold if it ended now."""
    if len(wanted) != 1 or rec.keep == "separate":
        return  # It is not known which recording this is.
    memory = isinstance(source, MemoryWriter)
    rollouts = Rollouts(MemoryReader(source)) if memory else open_rollouts(source)
    of_key = {(e.env, e.number): e for e in wanted[0].files[""]}
    by_block = rec.format in ("memory", "hdf5", "hdf5 gzip", "csv")
    by_block &= rec.keep == "all" and rec.trigger is None and rec.max_episodes is None
    seen = set()
    for index, row in enumerate(rollouts.episodes.iter_rows(named=True)):
        key = row["env"], row["number"]
        seen.add(key)
        if key not in of_key:
            yield Deviation(what="early episodes", where=where, text=f"there is no episode {key}")
            continue
        episode, arrays = of_key[key], rollouts[index]
        running = np.isinf(episode.ended[0])
        for name, truth in episode.table_row.items():
            value = row[name]
            if running and name not in ("start", "terminated", "truncated", "cut"):
                continue
            same = value == truth or (rec.format == "csv" and value is None)
            if isinstance(truth, float) and value is not None:
                same = bool(np.isclose(value, truth, rtol=1e-3))
            if not same:
                text = f"episode {key}: {name} is {value} instead of {truth}"
                yield Deviation(what=f"early {name}", where=where, text=text)
        steps = arrays["step"].tolist()
        if steps != episode.rows:
            text = f"episode {key}: steps are {steps} instead of {episode.rows}"
            yield Deviation(what="early step", where=where, text=text)
            continue
        for name in rollouts.channels:
            if not np.array_equal(arrays[name], _truth(rec, name, episode)):
                text = f"episode {key}: {name} is wrong"
                yield Deviation(what="early value", where=where, text=text)
    rollouts.close()
    if rec.format in ("npz file", "parquet"):
        return  # They hold back what they have.
    due = {key for key, e in of_key.items() if by_block or not np.isinf(e.ended[0])}
    if not due <= seen:
        text = f"episodes {sorted(due - seen)} are missing"
        yield Deviation(what="early episodes", where=where, text=text)


def _joined(recordings: list[Recording]) -> Recording:
    """What is in a file if recordings go on after each other in it."""
    files: dict[str, list[ExpectedEpisode]] = {}
    for recording in recordings:
        for kind, episodes in recording.files.items():
            there = files.setdefault(kind, [])
            offset = 1 + max((episode.number for episode in there), default=-1)
            there += [replace(e, number=e.number + offset) for e in episodes]
    for episodes in files.values():
        episodes.sort(key=lambda e: (e.env, e.number))
    return Recording(files=files)


def _compare_file(
    rec: Rec, world: World, where: str, episodes: list[ExpectedEpisode], rollouts: Rollouts
) -> Iterator[Deviation]:
    def deviation(what: str, text: str) -> Deviation:
        return Deviation(what=what, where=where, text=text)

    channels = world.channels(rec.channels)
    if len(rollouts) and sorted(rollouts.channels) != sorted(channels):
        yield deviation("channels", f"{sorted(rollouts.channels)} instead of {sorted(channels)}")
        return
    table = list(rollouts.episodes.iter_rows(named=True))
    found = [(row["env"], row["number"]) for row in table]
    keys = [(e.env, e.number) for e in episodes]
    if found != sorted(found):
        yield deviation("order", f"episodes are not ordered by env and number: {found}")
    if sorted(found) != keys:
        yield deviation("episodes", f"(env, number) of episodes are {found} instead of {keys}")
    of_key = dict(zip(keys, episodes, strict=True))
    for index, row in enumerate(table):
        episode = of_key.get((row["env"], row["number"]))
        if episode is None:
            continue
        here = f"episode {(episode.env, episode.number)}"
        for name, truth in episode.table_row.items():
            value = row[name]
            if rec.format == "csv" and value is None:
                continue
            same = value == truth
            if isinstance(truth, float) and value is not None:
                # A table of rows knows the rewards only as it stores them.
                coarse = rec.format == "csv" and rec.dtype == "float16"
                same = bool(np.isclose(value, truth, rtol=1e-3 if coarse else 1e-9, atol=1e-12))
            if not same:
                yield deviation(name, f"{here}: {name} is {value} instead of {truth}")
        arrays = rollouts[index]
        if arrays["step"].tolist() != episode.rows:
            text = f"{here}: steps are {arrays['step'].tolist()} instead of {episode.rows}"
            yield deviation("step", text)
            continue
        for name in channels:
            truth = _truth(rec, name, episode)
            value = arrays[name]
            if value.shape != truth.shape or value.dtype != truth.dtype:
                text = f"{value.dtype} {value.shape} instead of {truth.dtype} {truth.shape}"
                yield deviation("type", f"{here}: {name} is {text}")
            elif not np.array_equal(value, truth):
                rows = np.flatnonzero((value != truth).reshape(len(truth), -1).any(axis=1))
                text = f"{here}: {name} is wrong in rows {rows.tolist()} of {len(truth)}"
                yield deviation(name.split("/")[0], text)
        if rec.format != "csv" and "state" in rec.channels:
            model = rollouts.model(index)
            truth_of = {k: v[episode.env] for k, v in episode.recorded[0].fields.items()}
            if sorted(model) != sorted(truth_of):
                text = f"{here}: model fields are {sorted(model)} instead of {sorted(truth_of)}"
                yield deviation("model", text)
            elif any(not np.array_equal(model[k], v) for k, v in truth_of.items()):
                yield deviation("model", f"{here}: model fields are {model} instead of {truth_of}")


def _truth(rec: Rec, name: str, episode: ExpectedEpisode) -> np.ndarray:
    truth = np.stack([step.values[name][episode.env] for step in episode.recorded])
    exact = name == "state" or name.startswith("model/")
    if rec.dtype is not None and truth.dtype.kind == "f" and not exact:
        truth = truth.astype(rec.dtype)
    return truth


def _compare_raw(
    rec: Rec, world: World, where: str, episodes: list[ExpectedEpisode], path: Path
) -> Iterator[Deviation]:
    """Look into a file with nothing of ours."""
    if rec.append:
        return
    if rec.format == "csv":
        wrong = _raw_csv(rec, world, episodes, path)
    elif rec.format == "hdf5 episodes":
        wrong = _raw_robomimic(rec, episodes, path)
    else:
        return
    for text in wrong:
        yield Deviation(what="raw", where=where, text=text)


def _raw_csv(rec: Rec, world: World, episodes: list[ExpectedEpisode], path: Path) -> Iterator[str]:
    files = [path, *sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))]
    frame = pl.concat([pl.read_csv(file, infer_schema_length=None) for file in files])
    frame = frame.sort("env", "episode", "step")
    keys = [(e.env, e.number, k) for e in episodes for k in e.rows]
    found = list(frame.select("env", "episode", "step").iter_rows())
    if found != keys:
        yield f"rows (env, episode, step) are {found} instead of {keys}"
        return
    if not keys:
        return
    times = [round(k * 0.01, 9) for _, _, k in keys]
    if frame["time"].to_list() != times:
        yield f"time is {frame['time'].to_list()} instead of {times}"
    for name in world.channels(rec.channels):
        columns = [c for c in frame.columns if c == name or c.startswith(name + "[")]
        truth = np.concatenate([_truth(rec, name, e).reshape(len(e.rows), -1) for e in episodes])
        value = frame.select(columns).to_numpy()
        if value.shape != truth.shape or not np.array_equal(value.astype(truth.dtype), truth):
            yield f"column {name} is {value.tolist()} instead of {truth.tolist()}"


def _raw_robomimic(rec: Rec, episodes: list[ExpectedEpisode], path: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        paths = [path, *path.parent.glob(f"{path.stem}.part*{path.suffix}")]
        files: list[Any] = [stack.enter_context(h5py.File(each, "r")) for each in paths]
        demos = [demo for file in files for demo in file["data"].values()]
        found = {(int(d.attrs["env"]), int(d.attrs["episode"])): d for d in demos}
        keys = [(e.env, e.number) for e in episodes]
        if sorted(found) != keys:
            yield f"demos are {sorted(found)} instead of {keys}"
            return
        for episode in episodes:
            demo = found[episode.env, episode.number]
            for name, at in (("action", "actions"), ("reward", "rewards"), ("state", "states")):
                if name in rec.channels:
                    if not np.array_equal(demo[at][()], _truth(rec, name, episode)):
                        yield f"{at} of {(episode.env, episode.number)} are wrong"
            dones = demo["dones"][()].tolist()
            if len(dones) != len(episode.rows) or any(dones[:-1]):
                yield f"dones of {(episode.env, episode.number)} are {dones}"
            # Whether an episode is done whose last step has no row is a matter of taste.
            whole = episode.rows[-1] == len(episode.steps) - 1
            if whole and dones[-1] != (episode.terminated or episode.truncated):
                yield f"the last of dones of {(episode.env, episode.number)} is {dones[-1]}"
