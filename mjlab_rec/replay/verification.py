"""Simulate recorded steps again, and compare the results with the recording."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.replay.recorded_model import RecordedModel, WorldModels, opened
from mjlab_rec.replay.waves import CHECK, CTRL, Wave, WaveReader
from mjlab_rec.sim.simulation import Simulation, resolve_device
from mjlab_rec.sim.state_check import StateChecksums
from mjlab_rec.utils.cpu import cpu_name
from mjlab_rec.utils.string import nearest
from mjlab_rec.utils.threads import single_torch_thread

TOLERANCE = 1e-3
"""Tolerance where the same bits cannot be expected."""

_WORLDS = {"mjbatch": 512, "warp": 256, "cuda": 4096}
# What a step leads to. The rest of the state is given to it, or is the solver's first guess.
_RESULTS = ("time", "qpos", "qvel", "act")


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


def verify(
    source: str | Path | Rollouts,
    *,
    episodes: Sequence[int] | None = None,
    tolerance: float | None = None,
    engine: str | None = None,
    device: str | None = None,
    num_worlds: int | None = None,
    memory_bytes: int = 1 << 30,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Simulate each recorded step again, from its recorded state, and compare the results.

    Needs no code of the task: model, states, controls and model fields of each world are in the
    file. With the channel "physics" every step is compared, also where an event changed the state
    afterwards. Without it a step is compared with the next recorded state, so what events wrote
    looks like a difference, and last steps of episodes are not compared.

    Args:
        source: A recording, or its path.
        episodes: Rows of the table of episodes; None means all.
        tolerance: Largest difference between numbers, relative to those greater than 1. 0 compares
            every bit. None is 0 if the same engine runs in the same versions on a CPU, else 1e-3.
        engine: "mjbatch" or "warp"; None means that of the recording.
        device: "cpu" or "cuda"; None means that of the recording if there is one, else the CPU.
        num_worlds: Number of worlds that are simulated at the same time.
        memory_bytes: Memory for recorded data.
        progress: Called with the number of steps that are done, and of all.
    """
    if tolerance is not None and not 0.0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, but it must be at least 0, and finite.")
    if num_worlds is not None and num_worlds < 1:
        raise ValueError(f"num_worlds is {num_worlds}, but it must be at least 1.")
    began = time.perf_counter()
    with opened(source) as rollouts:
        recorded = RecordedModel.of(rollouts)
        _choose_engine(recorded, engine)
        where = _device(recorded, device)
        why = _why_not_exact(rollouts.info.about, recorded, where)
        if tolerance is None:
            tolerance = TOLERANCE if why else 0.0
        chosen = _episodes(rollouts, episodes)
        runner = _Runner(recorded, rollouts, where, tolerance, num_worlds)
        total = int(rollouts.episodes["rows"].to_numpy()[chosen].sum()) if chosen else 0
        found: list[VerifiedEpisode] = []
        done = 0
        reader = WaveReader(rollouts, runner.layout, recorded.decimation, memory_bytes)
        with torch.no_grad(), single_torch_thread(where):
            for wave in reader.waves(chosen):
                report = _progress(progress, done, total)
                found += runner.run(wave, report)
                done += len(wave.of)
        return Verification(
            episodes=tuple(found),
            engine=runner.engine,
            device=where,
            tolerance=tolerance,
            why_tolerance=why if tolerance else "",
            notes=_notes(rollouts),
            seconds=time.perf_counter() - began,
        )


class _Runner:
    """Simulates waves."""

    def __init__(
        self,
        recorded: RecordedModel,
        rollouts: Rollouts,
        device: str,
        tolerance: float,
        num_worlds: int | None,
    ) -> None:
        self._recorded = recorded
        self._rollouts = rollouts
        self._device = device
        self._tolerance = tolerance
        probe = recorded.simulation(1, device)
        self.engine = probe.engine_name
        self.layout = probe.state_layout
        kind = self.engine if device == "cpu" else "cuda"
        self._num_worlds = num_worlds or _WORLDS[kind]
        self._sim: Simulation | None = None
        self._checksums = StateChecksums(self.layout, device)
        self._fields = list(self.layout)
        self._is_result = torch.tensor([name in _RESULTS for name in self._fields], device=device)

    def run(self, wave: Wave, report: Callable[[int], None]) -> list[VerifiedEpisode]:
        """Simulate the steps of a wave; returns what became of its episodes."""
        starts, lengths = wave.lanes(self._num_worlds)
        sim = self._simulation(len(starts))
        models = _LaneModels(wave, self._rollouts, WorldModels(self._recorded, sim))
        rows = len(wave.of)
        bad = torch.zeros(rows, len(self._fields), dtype=torch.bool, device=self._device)
        amount = torch.full((rows,), torch.nan, dtype=torch.float64, device=self._device)
        state = sim.get_state()
        simulated = 0
        for at in range(int(lengths[0])):
            active = int(np.searchsorted(-lengths, -at, side="left"))  # Lanes longer than this.
            here = starts[:active] + at
            worlds = torch.arange(active, device=self._device)
            models.write(here, worlds)
            target = self._tensor(wave.start[here]).to(state.dtype)
            # A world that is where the recording was goes on: writing its state takes time.
            apart = (_bits(state[:active]) != _bits(target)).any(dim=1)
            ids = apart.nonzero().flatten()
            sim.set_state(target[ids], ids)
            self._step(sim, wave, here)
            sim.get_state(state)
            index = self._tensor(here)
            bad[index], amount[index] = self._compare(wave, here, state[:active])
            simulated += active
            report(simulated)
        follows = wave.next != np.arange(rows)
        checked = follows if self._tolerance else wave.checked
        results = bad.cpu().numpy(), amount.cpu().numpy(), checked
        return _episodes_of(wave, *results, self._fields, self._rollouts)

    def _simulation(self, lanes: int) -> Simulation:
        """A simulation with a world for each lane.

        On mjbatch a new one for each wave, since worlds that had other model fields before would
        keep them in single precision.
        """
        if self.engine == "warp":
            if self._sim is None or self._sim.num_envs < lanes:
                self._sim = self._recorded.simulation(max(lanes, 1), self._device)
            return self._sim
        return self._recorded.simulation(lanes, self._device)

    def _step(self, sim: Simulation, wave: Wave, here: np.ndarray) -> None:
        """Take the physics steps of a control step."""
        count = self._recorded.decimation
        if wave.ctrl is None:
            sim.step(count)
            return
        ctrl = self._tensor(wave.ctrl[here])
        if ctrl.shape[1] == 1:
            sim.data.ctrl[: len(here)] = ctrl[:, 0]
            sim.step(count)
            return
        for substep in range(count):
            sim.data.ctrl[: len(here)] = ctrl[:, substep]
            sim.step()

    def _compare(
        self, wave: Wave, here: np.ndarray, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which fields differ in each lane, and the largest difference of a number."""
        comparable = self._tensor(wave.comparable[here])
        if not self._tolerance:
            checked = self._tensor(wave.checked[here])
            bad = self._checksums(state) != self._tensor(wave.check[here])
            bad &= checked[:, None]
            if not bool(bad.any()):
                return bad, torch.zeros(len(here), dtype=torch.float64, device=self._device)
            apart = self._differences(wave, here, state, relative=False)
            apart = torch.where(comparable & bad, apart, -1.0)
        else:
            comparable = comparable & self._is_result
            apart = self._differences(wave, here, state, relative=True)
            bad = comparable & ~(apart <= self._tolerance)
            apart = torch.where(comparable, apart, -1.0)
        most = apart.amax(dim=1)
        return bad, torch.where(most < 0.0, torch.nan, most)

    def _differences(
        self, wave: Wave, here: np.ndarray, state: torch.Tensor, relative: bool
    ) -> torch.Tensor:
        """The largest difference of each field from the next recorded state (lanes, fields)."""
        after = self._tensor(wave.start[wave.next[here]]).double()
        apart = (state.double() - after).abs()
        if relative:
            apart /= after.abs().clamp(min=1.0)
        same = torch.isnan(state) & torch.isnan(after)
        apart = torch.where(same, 0.0, apart).nan_to_num(nan=math.inf)
        columns = self.layout.values()
        return torch.stack([apart[:, c].amax(dim=1) for c in columns], dim=1)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)


class _LaneModels:
    """The model fields of each lane's world, rewritten when it comes to another episode."""

    def __init__(self, wave: Wave, rollouts: Rollouts, worlds: WorldModels) -> None:
        self._wave = wave
        self._worlds = worlds
        self._of: dict[int, dict[str, np.ndarray]] = {}
        self._rollouts = rollouts
        self._known = np.zeros(0, int)
        self._before: dict[str, np.ndarray] = {}

    def write(self, rows: np.ndarray, worlds: torch.Tensor) -> None:
        """Write the fields of the rows' episodes into the worlds, where they may have changed."""
        episode = self._wave.of[rows]
        first = not len(self._known)
        known = np.full(len(rows), -1) if first else self._known[: len(rows)]
        changed = known != episode
        for name, values in self._wave.model.items():
            now = values[rows]
            if name in self._before and not first:
                before = self._before[name][: len(rows)]
                changed |= (now != before).reshape(len(rows), -1).any(axis=1)
            self._before[name] = now
        self._known = episode
        at = np.flatnonzero(changed)
        if not len(at):
            return
        fields = [self._fields(int(episode[i])) for i in at]
        values = {name: np.stack([f[name] for f in fields]) for name in fields[0]}
        values |= {name: rows_[rows[at]] for name, rows_ in self._wave.model.items()}
        if values:
            self._worlds.write(values, worlds[torch.from_numpy(at).to(worlds.device)])

    def _fields(self, episode: int) -> dict[str, np.ndarray]:
        if episode not in self._of:
            self._of[episode] = self._rollouts.model(int(self._wave.episodes[episode]))
        return self._of[episode]


def _episodes_of(
    wave: Wave,
    bad: np.ndarray,
    amount: np.ndarray,
    checked: np.ndarray,
    fields: list[str],
    rollouts: Rollouts,
) -> list[VerifiedEpisode]:
    table = rollouts.episodes
    sizes = np.bincount(wave.of, minlength=len(wave.episodes))
    ends = np.cumsum(sizes)
    differs = bad.any(axis=1)
    found = []
    for place, index in enumerate(wave.episodes.tolist()):
        rows = slice(ends[place] - sizes[place], ends[place])
        apart = np.flatnonzero(differs[rows])
        first = None
        if len(apart):
            row = rows.start + apart[0]
            by = float(amount[row])
            first = Difference(
                step=int(wave.step[row]),
                fields=tuple(np.asarray(fields)[bad[row]].tolist()),
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


def _bits(state: torch.Tensor) -> torch.Tensor:
    """States as integers, of which two are equal only if all bits are."""
    return state.view(torch.int64 if state.dtype == torch.float64 else torch.int32)


def _episodes(rollouts: Rollouts, episodes: Sequence[int] | None) -> list[int]:
    count = len(rollouts)
    if episodes is None:
        return list(range(count))
    for index in episodes:
        if not 0 <= index < count:
            raise DataError(f"There is no episode {index}: the recording has {count}, from 0.")
    return sorted(set(episodes))


def _choose_engine(recorded: RecordedModel, engine: str | None) -> None:
    known = ("mjbatch", "warp")
    if engine is not None:
        if engine not in known:
            raise ValueError(f"Unknown engine {engine!r}. {nearest(engine, known)}")
        recorded.cfg.engine = engine  # pyright: ignore[reportAttributeAccessIssue]
    elif recorded.cfg.engine == "mjbatch" and importlib.util.find_spec("mjbatch") is None:
        recorded.cfg.engine = "auto"


def _device(recorded: RecordedModel, device: str | None) -> str:
    if device is None:
        wanted = recorded.device == "cuda" and recorded.cfg.engine != "mjbatch"
        device = "cuda" if wanted and torch.cuda.is_available() else "cpu"
    return str(resolve_device(device))


def _why_not_exact(about: Mapping[str, Any], recorded: RecordedModel, device: str) -> str:
    """Why the same bits cannot be expected; empty if they can."""
    engine = "mjbatch" if recorded.cfg.engine == "auto" and device == "cpu" else None
    engine = engine or recorded.cfg.engine
    if about.get("engine") != engine:
        return f"it was recorded with the engine {about.get('engine')}, and this is {engine}"
    if recorded.device != "cpu" or device != "cpu":
        return "on a GPU the same step may give slightly different numbers each time"
    packages = ("mujoco", "mjbatch") if engine == "mjbatch" else ("mujoco-warp", "warp-lang")
    versions = about.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    for package in packages:
        here, there = importlib.metadata.version(package), versions.get(package)
        if here != there:
            return f"it was recorded with {package} {there}, and this is {here}"
    if about.get("cpu") != cpu_name():
        return f"it was recorded on the CPU {about.get('cpu')}, and this is {cpu_name()}"
    return ""


def _notes(rollouts: Rollouts) -> tuple[str, ...]:
    notes = []
    known = rollouts.channels
    if CHECK not in known:
        notes.append(
            "The channel 'physics' was not recorded: steps are compared with the next recorded"
            " state, so what events write looks like a difference, and the last step of an episode"
            " is not compared."
        )
    if CTRL not in known and "ctrl" not in known:
        notes.append(
            "No controls were recorded: they are taken from the next state, which is wrong where"
            " they change between the physics steps of a control step."
        )
    return tuple(notes)


def _progress(
    progress: Callable[[int, int], None] | None, done: int, total: int
) -> Callable[[int], None]:
    if progress is None:
        return lambda more: None
    return lambda more: progress(done + more, total)


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
