"""Time to simulate a recording again and compare every bit, against the time to record it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from benchmarks.tables import sideways


@dataclass(kw_only=True)
class VerifyArgs:
    """Options of `bench.py verify`."""

    task: str = "velocity-flat-quadruped"
    """The task, played with random actions. With its contacts, randomization, commands and pushes
    the default leaves out nothing."""
    num_envs: int = 4096
    """Number of environments."""
    steps: int = 1000
    """Control steps of every environment."""
    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """Physics engine; auto uses warp on a GPU, and mjbatch on a CPU if it is installed."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""
    pushes_s: tuple[float, float] | None = None
    """Seconds between pushes, from and to. None: as the task defines it."""
    out: Path | None = None
    """Folder to write to; what is written there is removed afterwards. None uses the system's
    folder for temporary files."""


def main(args: tyro.conf.OmitArgPrefixes[VerifyArgs]) -> None:
    """Print how long recording and verifying take; the exit code is 1 if a bit differs."""
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        path = Path(folder) / "recording.h5"
        plain = _play(args, None)
        recorded = _play(args, path)
        from mjlab_rec.replay import verify

        found = verify(path, device=args.device)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    steps = args.num_envs * args.steps
    console = Console(highlight=False, soft_wrap=True)
    rows = {
        "environments": f"{args.num_envs}",
        "steps of each": f"{args.steps}",
        "episodes": f"{len(found.episodes)}",
        "size": f"{size / 1e9:.2f} GB",
        "without recording": f"{plain:.1f} s, {steps / plain:,.0f} steps/s",
        "recording": f"{recorded:.1f} s, {steps / recorded:,.0f} steps/s",
        "verifying": f"{found.seconds:.1f} s, {steps / found.seconds:,.0f} steps/s",
        "recording / verifying": f"{recorded / found.seconds:.2f}",
        "tolerance": f"{found.tolerance:g}" + f" ({found.why_tolerance})" * bool(found.tolerance),
        "compared": f"{found.checked} of {found.steps} steps",
        "differing": f"{sum(e.differing for e in found.episodes)} steps",
    }
    title = f"{args.task}, engine {found.engine} on {found.device}"
    console.print(sideways(title, "", {"": rows}))
    if not found.ok:
        raise SystemExit(1)


def _play(args: VerifyArgs, path: Path | None) -> float:
    """Play the task with random actions, and return the seconds that the steps took."""
    import torch

    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.presets import load_preset
    from mjlab_rec.registry import load_env_cfg

    cfg = load_env_cfg(args.task)
    cfg.scene.num_envs = args.num_envs
    cfg.sim.engine = args.engine
    cfg.seed = 0
    if args.pushes_s is not None:
        cfg.events["push_robot"].interval_range_s = args.pushes_s
    if path is not None:
        cfg.recorders["log"] = load_preset("replay", path=str(path), if_exists="overwrite")
    with ManagerBasedRlEnv(cfg, device=args.device) as env:
        env.reset()
        shape = args.num_envs, env.action_manager.total_action_dim
        generator = torch.Generator(env.device).manual_seed(0)
        began = time.perf_counter()
        for _ in range(args.steps):
            env.step(torch.rand(shape, generator=generator, device=env.device) * 2 - 1)
        env.close()
        return time.perf_counter() - began
