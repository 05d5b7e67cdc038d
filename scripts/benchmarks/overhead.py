"""How much longer a step takes with a recorder than without, in alternating rounds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch

from benchmarks import parts
from benchmarks.recording import World, recorder_of, rows_per_block
from benchmarks.side import random_action, synchronize, take_steps
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders import RolloutRecorderCfg


@dataclass(kw_only=True)
class Overhead:
    """Times of steps in seconds, a list for each round, and the recorder's own figures."""

    without: list[list[float]] = field(default_factory=list)
    recorded: list[list[float]] = field(default_factory=list)
    engine: str = ""
    rows: int = 0  # of a block
    nbytes: int = 0
    stalled_s: float = 0.0
    dropped_rows: int = 0
    close_s: float = 0.0
    host_waits: tuple[float, float] = (0.0, 0.0)  # per step, without and with; on a GPU

    def lines(self, on_gpu: bool) -> dict[str, str]:
        """Return quantities for a table."""
        each = [
            sum(ours) / sum(plain) for ours, plain in zip(self.recorded, self.without, strict=True)
        ]
        ours, plain = sum(self.recorded, []), sum(self.without, [])
        steps = len(self.recorded[0])
        lines = {
            "steps per block": str(self.rows),
            "steps per round": str(steps),
            "step without (ms)": f"{median(map(sum, self.without)) / steps * 1e3:.3f}",
            "step recorded (ms)": f"{median(map(sum, self.recorded)) / steps * 1e3:.3f}",
            "time of a round, ratio": f"{median(each):.3f}",
            "  lowest": f"{min(each):.3f}",
            "  highest": f"{max(each):.3f}",
            "median step, ratio": f"{median(ours) / median(plain):.3f}",
            "95th percentile, ratio": f"{_percentile(ours, 95) / _percentile(plain, 95):.3f}",
            "99th percentile, ratio": f"{_percentile(ours, 99) / _percentile(plain, 99):.3f}",
            "longest without (ms)": f"{max(plain) * 1e3:.1f}",
            "longest recorded (ms)": f"{max(ours) * 1e3:.1f}",
            "waited for disk (s)": f"{self.stalled_s:.2f}",
            "dropped steps": str(self.dropped_rows),
            "written (MB)": f"{self.nbytes / 1e6:.0f}",
            "close (s)": f"{self.close_s:.2f}",
        }
        if on_gpu:
            lines["host waits without"] = f"{self.host_waits[0]:.2f}"
            lines["host waits recorded"] = f"{self.host_waits[1]:.2f}"
        return lines


def measure(world: World, cfg: RolloutRecorderCfg, steps: int, rounds: int) -> Overhead:
    """Step two environments in turn, one of which is recorded.

    Timing begins and ends just after a block is handed over, so it contains as many writes as
    blocks. While the other environment is timed, the writer is idle.
    """
    plain, recorded = world.make(), world.make(cfg)
    found = Overhead(engine=plain.sim.engine_name)
    recorder = recorder_of(recorded)
    found.rows = rows = rows_per_block(recorder)
    steps = -(-steps // rows) * rows
    action = random_action(plain)
    # Use all blocks once, and get past anything else that is slow in the first steps.
    for env in (plain, recorded):
        take_steps(env, action, 4 * rows)
    stalled, dropped = recorder.stalled_s, recorder.dropped_rows
    for _ in range(rounds):
        take_steps(plain, action, rows + 1)
        found.without.append(step_times(plain, action, steps))
        recorder.flush()
        take_steps(recorded, action, rows + 1)
        found.recorded.append(step_times(recorded, action, steps))
        recorder.flush()
    found.stalled_s = recorder.stalled_s - stalled
    found.dropped_rows = recorder.dropped_rows - dropped
    if world.device.startswith("cuda"):
        found.host_waits = parts.host_waits(plain, steps), parts.host_waits(recorded, steps)
    recorder.flush()
    found.nbytes = recorder.nbytes
    plain.close()
    start = time.perf_counter()
    recorded.close()
    found.close_s = time.perf_counter() - start
    return found


@torch.no_grad()
def step_times(env: ManagerBasedRlEnv, action: torch.Tensor, steps: int) -> list[float]:
    """Return the time of each step. On a GPU the last one includes the work left at the end."""
    synchronize(env.device)
    times = [time.perf_counter()]
    for _ in range(steps):
        env.step(action)
        times.append(time.perf_counter())
    synchronize(env.device)
    times[-1] = time.perf_counter()
    return [after - before for before, after in zip(times, times[1:], strict=False)]


def _percentile(values: list[float], percent: int) -> float:
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]
