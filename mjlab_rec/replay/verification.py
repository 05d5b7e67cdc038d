"""Simulate recorded steps again, and compare the results with the recording."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mjlab_rec.data.rollouts import Rollouts
from mjlab_rec.data.schema import DataError
from mjlab_rec.replay.recorded_model import RecordedModel, WorldModels, opened, stacked
from mjlab_rec.replay.results import Verification, VerifiedEpisode, episodes_of
from mjlab_rec.replay.same_bits import choose_engine, usual_worlds, why_not_exact
from mjlab_rec.replay.waves import CHECK, CTRL, Wave, WaveReader
from mjlab_rec.sim.engine import state_layout
from mjlab_rec.sim.simulation import Simulation
from mjlab_rec.sim.state_check import StateChecksums, bits_of
from mjlab_rec.utils.threads import single_torch_thread

TOLERANCE = 1e-3
"""Tolerance where the same bits cannot be expected."""

# What a step leads to. The rest of the state is given to it, or is the solver's first guess.
_RESULTS = ("time", "qpos", "qvel", "act")


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
        where = choose_engine(recorded, engine, device)
        why = why_not_exact(rollouts.info.about, recorded, where)
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
        self.engine = recorded.cfg.engine
        self.layout = {field.name: field.columns for field in state_layout(recorded.model)}
        self._num_worlds = num_worlds or usual_worlds(self.engine, device)
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
            apart = (bits_of(state[:active]) != bits_of(target)).any(dim=1)
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
        return episodes_of(wave, *results, self._fields, self._rollouts)

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
        values = stacked(fields)
        values |= {name: rows_[rows[at]] for name, rows_ in self._wave.model.items()}
        if values:
            self._worlds.write(values, worlds[torch.from_numpy(at).to(worlds.device)])

    def _fields(self, episode: int) -> dict[str, np.ndarray]:
        if episode not in self._of:
            self._of[episode] = self._rollouts.model(int(self._wave.episodes[episode]))
        return self._of[episode]


def _episodes(rollouts: Rollouts, episodes: Sequence[int] | None) -> list[int]:
    count = len(rollouts)
    if episodes is None:
        return list(range(count))
    for index in episodes:
        if not 0 <= index < count:
            raise DataError(f"There is no episode {index}: the recording has {count}, from 0.")
    return sorted(set(episodes))


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
