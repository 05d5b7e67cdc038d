"""Examples of rollouts with recorders, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from rollout_world import CONDITIONS, OWN, Short, World

FORMATS = (
    *("memory", "hdf5", "hdf5 gzip", "hdf5 episodes"),
    *("csv", "npz folder", "npz file", "parquet"),
)
APPENDS = ("hdf5", "hdf5 gzip", "hdf5 episodes", "csv", "npz folder", "parquet")
"""Formats that can append."""


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
    added: bool = False
    """Whether start_recording() adds it to the running environment, when it is told "add"."""
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
class Steps(Short):
    """Some steps. The other fields describe the last one."""

    count: int = 1
    ends: tuple[int, ...] = ()
    """How the step ends each environment's episode: 0 not, 1 terminated, 2 truncated, 3 both."""
    wins: tuple[int, ...] = ()
    """Environments that succeed in it."""
    fail: str = ""
    """Where it fails."""
    inside: tuple[tuple[str, int, str], ...] = ()
    """Place in the step, recorder, and the request to it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ResetBy(Short):
    """A reset by hand; None: of all environments."""

    envs: tuple[int, ...] | None = None
    fail: bool = False
    """Whether it fails, and all environments are reset after it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Request(Short):
    """A request to a recorder between two steps."""

    recorder: int = 0
    what: str = "flush"
    envs: tuple[int, ...] | None = None
    """Which environments to reset, if that is what it is told; None: all."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A rollout with recorders."""

    world: World
    recorders: tuple[Rec, ...]
    happens: tuple[Steps | ResetBy | Request, ...]
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
    adds: bool = True  # start_recording() and stop_recording()
    told_resets: bool = True  # a recorder's reset()
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
    appends: bool = True  # a second recording is appended to the first
    rich: bool = True
    idle_triggers: bool = True  # a trigger of steps, and pauses or late starts
    reset_triggers: bool = True  # a trigger of steps, and resets by hand
    failed_triggers: bool = True  # a trigger of steps, and steps that fail
    threads: bool = True  # calls from another thread in the middle of a step
    reading: bool = True  # in the middle of a recording
    parts: bool = True
    neutral: bool = True  # the same rollout without recorders is compared
    npz_state: bool = True  # state in npz files where model fields change in the middle of episodes
    warp: bool = False  # the engine, with few worlds
    most_recorders: int = 3
    formats: tuple[str, ...] = FORMATS

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
    keep = maybe(dims.keep, st.sampled_from(["successful", "failed", "separate"]), "all")
    success = None
    if dims.keep:
        needed = keep != "all" and not world.success_term
        success = draw(st.sampled_from(["wins", "end"] if needed else [None, "wins", "end"]))
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
        added=dims.adds and draw(rarely),
        keep=keep,
        success=success,
        max_steps=maybe(dims.max_steps, st.integers(1, 12)),
        max_episodes=maybe(dims.max_episodes, st.integers(1, 5)),
        block_steps=block_steps,
        num_blocks=draw(st.sampled_from([None, 2])),
        dtype=maybe(dims.dtype, st.sampled_from(["float16", "float32", "float64"])),
        append=dims.appends
        and dims.stops
        and keep != "separate"
        and fmt in APPENDS
        and draw(rarely),
        parts=dims.parts and draw(rarely),
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
def takes(draw: Any, dims: Dims, world: World, recs: Sequence[Rec]) -> Steps:
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
        if any(rec.added for rec in recs):  # The "last" recorder comes before them.
            traps = [
                trap for trap in traps if dims.early_traps or trap != "last recorder, pre step"
            ]
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
    return Steps(count=count, ends=ends, wins=won, fail=fail, inside=inside)


def _told(dims: Dims, recs: Sequence[Rec]) -> tuple[Any, ...]:
    known = ["flush"] * dims.flushes
    if dims.pauses:
        known += ["pause", "start"]
    if dims.stops:
        known += ["stop", "start"]
    if dims.told_resets:
        known.append("reset")
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
    told = st.builds(lambda r, w: Request(recorder=r, what=w), *_told(dims, recs))
    some_take = takes(dims, world, recs)
    kinds: list[Any] = [some_take, some_take, some_take, some_take, told]
    added = [r for r, rec in enumerate(recs) if rec.added]
    if added:
        kinds.append(st.sampled_from([Request(recorder=r, what="remove") for r in added]))
    if dims.told_resets:
        kinds.append(
            st.builds(
                lambda r, envs: Request(recorder=r, what="reset", envs=envs),
                *(st.integers(0, len(recs) - 1), st.one_of(st.none(), subset)),
            )
        )
    if any(rec.trigger == ("manual",) for rec in recs):
        kinds.append(st.integers(0, len(recs) - 1).map(lambda r: Request(recorder=r, what="fire")))
    if dims.resets:
        by_hand = st.builds(
            lambda envs, fail: ResetBy(envs=envs, fail=fail and dims.errors),
            st.one_of(st.none(), subset),
            st.integers(0, 9).map(lambda k: k == 9),
        )
        kinds.append(by_hand)
    if dims.reading:
        look = st.integers(0, len(recs) - 1).map(lambda r: Request(recorder=r, what="read"))
        kinds.append(look)
    happens = draw(st.lists(st.one_of(kinds), min_size=1, max_size=25))
    for r in added:
        at = draw(st.integers(0, len(happens)))
        before = [draw(some_take)] if draw(st.integers(0, 3)) else []
        happens[at:at] = [*before, Request(recorder=r, what="add"), draw(some_take)]
    return Example(
        world=world,
        recorders=tuple(recs),
        happens=tuple(_sane(dims, recs, happens)),
        neutral=dims.neutral and draw(st.integers(0, 9)) == 9 and not _is_changed(recs, happens),
    )


def _is_changed(recs: Sequence[Rec], happens: Sequence[Any]) -> bool:
    """Whether a step fails because of a recorder, or elsewhere than without recorders.

    For final observations, the observation terms are called before the resets too.
    """
    fails = [thing.fail for thing in happens if type(thing) is Steps]
    channels = [channel for rec in recs for channel in rec.channels]
    wants_final_obs = "own/tip" in channels or any("next_obs" in name for name in channels)
    return any("recorder" in fail for fail in fails) or (wants_final_obs and "observation" in fails)


def moments(rec: Rec) -> bool:
    """Whether the recorder has a trigger that chooses moments, not episodes."""
    return rec.trigger is not None and "episodes" not in rec.trigger[0]


def _sane(dims: Dims, recs: Sequence[Rec], happens: Sequence[Any]) -> Iterator[Any]:
    """Leave out what makes no sense: firing other triggers, and what dims rule out."""
    by_moment = any(map(moments, recs))
    there = {r for r, rec in enumerate(recs) if not rec.added}
    removed: set[int] = set()

    def fine(recorder: int, what: str) -> bool:
        rec, what = recs[recorder], what.partition(" ")[0]
        if what == "add":
            return recorder not in there | removed
        if recorder not in there:
            return False
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
        if isinstance(thing, Request) and not fine(thing.recorder, thing.what):
            continue
        if isinstance(thing, Request) and thing.what == "add":
            there.add(thing.recorder)
        if isinstance(thing, Request) and thing.what == "remove":
            there.remove(thing.recorder)
            removed.add(thing.recorder)
        if isinstance(thing, Steps):
            if steps >= 50:
                continue
            steps += thing.count
            if thing.fail and by_moment and not (dims.failed_triggers and dims.reset_triggers):
                thing = replace(thing, fail="")
            if any(not fine(recorder, what) for _, recorder, what in thing.inside):
                thing = replace(thing, inside=())
        yield thing
        if isinstance(thing, Steps) and thing.fail and not dims.stale:
            yield ResetBy()
