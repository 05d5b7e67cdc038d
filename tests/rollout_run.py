"""Let examples happen in an environment, and see what their recorders made of them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rollout_compare import Deviation, compare, compare_early
from rollout_examples import Example, Rec, Request, ResetBy, Steps
from rollout_model import Happening, Plan, Step, expected
from rollout_world import CONDITIONS, OWN, Driver, World, new_env, used_env, wins

from mjlab_rec.data.formats.memory import MemoryWriter
from mjlab_rec.recorders import (
    CsvRecorderCfg,
    Hdf5RecorderCfg,
    MemoryRecorder,
    MemoryRecorderCfg,
    NpzRecorderCfg,
    ParquetRecorderCfg,
    Trigger,
)

MAKERS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "memory": (MemoryRecorderCfg, "", {}),
    "hdf5": (Hdf5RecorderCfg, ".h5", {}),
    "hdf5 gzip": (Hdf5RecorderCfg, ".h5", {"compression": "gzip"}),
    "hdf5 episodes": (Hdf5RecorderCfg, ".h5", {"layout": "episodes"}),
    "csv": (CsvRecorderCfg, ".csv", {}),
    "npz folder": (NpzRecorderCfg, "", {}),
    "npz file": (NpzRecorderCfg, ".npz", {}),
    "parquet": (ParquetRecorderCfg, "", {}),
}


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
    cfgs, later = {}, {}
    for i, rec in enumerate(example.recorders):
        cfg = _cfg(rec, folder / f"r{i}", memory.setdefault(f"r{i}", []))
        (later if rec.added else cfgs)[f"r{i}"] = cfg
    used = example.used or world.engine == "warp"
    env = (used_env if used else new_env)(world, cfgs)
    # What a step led to is read before a reset only where there are final observations.
    env.cfg.final_obs = any(
        "own/tip" in rec.channels and not rec.added for rec in example.recorders
    )
    driver = Driver(env, world)
    driver.log, driver.later = log, later
    driver.later = later
    driver.terms = terms = {name: env.recorder_manager.get_term(name) for name in cfgs}
    found: list[Deviation] = []

    def look(i: int) -> None:
        rec, name = example.recorders[i], f"r{i}"
        terms[name].flush()
        if rec.format == "memory":
            sources: list[Any] = memory[name][-1:]
        else:
            whole = [file for file in terms[name].files if ".part" not in file.name]
            sources = [file for file in whole[-1:] if file.exists()]
        wanted = expected(plan(rec, world), name, driver.log, world.num_envs)
        for source in sources:
            found.extend(compare_early(rec, f"{name} {rec.format} early", wanted, source))

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
        if name not in terms:
            continue  # It was never added.
        wanted = expected(plan(rec, world), name, driver.log, world.num_envs)
        files = [] if rec.format == "memory" else list(dict.fromkeys(terms[name].files))
        rows, due = terms[name].rows, sum(recording.steps for recording in wanted)
        if rows != due and rec.trigger is None and rec.max_episodes is None:
            text = f"rows is {rows} instead of {due}"
            found.append(Deviation(what="counter", where=f"{name} {rec.format}", text=text))
        try:
            found += list(compare(rec, world, f"{name} {rec.format}", wanted, files, memory[name]))
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


def _bare(example: Example) -> Iterator[Steps | ResetBy | Request]:
    """What happens to the environment alone."""
    for thing in example.happens:
        if isinstance(thing, Steps):
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
        if isinstance(thing, Request) and thing.what == "read":
            look(thing.recorder)
            continue
        if isinstance(thing, Request):
            driver.call(f"r{thing.recorder}", thing.what, thing.envs)
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
        added=rec.added,
        keep=rec.keep,
        success=rec.success or ("wins" if world.success_term else None),
        max_steps=rec.max_steps,
        max_episodes=rec.max_episodes,
    )


def _cfg(rec: Rec, path: Path, memory: list[MemoryWriter]) -> Any:
    make, suffix, more = MAKERS[rec.format]
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
