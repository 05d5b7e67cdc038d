"""Cost of videos: steps that wait for them, step time per picture, and memory."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec import cli

if TYPE_CHECKING:
    from mjlab_rec.recorders.video import VideoRecorder

_WARM_UP_STEPS = 100
_SAMPLES = 10


@dataclass(kw_only=True)
class VideoArgs:
    """Options of `bench.py video`."""

    num_envs: int = 4096
    """Number of environments."""
    clips: int = 5
    """Clips to record while the steps are timed; 0 skips it."""
    length: int = 50
    """Steps in a clip."""
    gap: int = 100
    """Steps from the beginning of a clip to the next."""
    films: int = 1
    """Environments to film."""
    memory_frames: int = 2000
    """Pictures in the clip during which memory is measured; 0 skips it."""
    memory_envs: int = 16
    """Number of environments for that."""
    width: int = 640
    """Width of the pictures."""
    height: int = 480
    """Height of the pictures."""
    shadows: bool = False
    """Draw shadows and reflections, which makes software rendering several times slower."""
    mesh_faces: int = 0
    """Film a robot with this many mesh faces, instead of the cartpole."""
    renderer: Literal["auto", "gl", "warp"] = "auto"
    """What draws."""
    max_pending: int = 256
    """Pictures that may wait to be drawn."""
    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """Physics engine."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""


def main(args: Annotated[VideoArgs, tyro.conf.arg(name="")]) -> None:
    """Measure what filming costs, without a policy: cartpole-balance, or a robot of meshes."""
    console = Console()
    if min(args.num_envs, args.length, args.gap, args.films, args.memory_envs) < 1:
        cli.fail("--num-envs, --length, --gap, --films and --memory-envs must be at least 1.")
    with tempfile.TemporaryDirectory() as folder:
        if args.clips:
            columns = {
                "not filmed": _in_process(time_steps, args, None).lines(),
                "filmed": _in_process(time_steps, args, folder).lines(),
            }
            title = (
                f"Steps of {args.num_envs} environments on {args.device}; clips of {args.length}"
                f" pictures, {args.width} x {args.height}"
            )
            console.print(sideways(title, "", columns))
        if args.memory_frames:
            found = _in_process(watch_memory, args, folder)
            title = f"A clip of {args.memory_frames} pictures, {args.width} x {args.height}"
            console.print(sideways(title, "", {"this process": found}))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


@dataclass(kw_only=True)
class Times:
    """Seconds of steps."""

    steps: list[float]
    """Of every step."""
    hooks: float = 0.0
    """Of the recorder's hooks, per picture."""
    idle_hooks: float = 0.0
    """Of the recorder's hooks, per step without a picture."""
    stalled: float = 0.0
    """Time that the simulation waited for the recorder."""
    frames: int = 0
    """Pictures in the files."""

    def lines(self) -> dict[str, str]:
        """Return a column of the table."""
        steps = np.array(self.steps)
        median, longest = float(np.median(steps)), float(steps.max())
        return {
            "median step (ms)": f"{median * 1e3:.2f}",
            "99th percentile (ms)": f"{np.percentile(steps, 99) * 1e3:.2f}",
            "longest step (ms)": f"{longest * 1e3:.2f}",
            "stall: longest less median, in steps": f"{(longest - median) / median:.2f}",
            "hooks per picture (us)": f"{self.hooks * 1e6:.0f}",
            "hooks per step without (us)": f"{self.idle_hooks * 1e6:.1f}",
            "waited for drawing (s)": f"{self.stalled:.2f}",
            "pictures": str(self.frames),
        }


def time_steps(args: VideoArgs, folder: str | None) -> Times:
    """Time steps while clips are recorded, or the same steps without clips."""
    begins = [_WARM_UP_STEPS + i * args.gap for i in range(args.clips)]
    trigger = f"at_steps({', '.join(map(str, begins))})"
    env, recorder, clock = _make(args, args.num_envs, folder, trigger=trigger, length=args.length)
    from benchmarks.side import random_action

    action = random_action(env)
    for _ in range(_WARM_UP_STEPS):  # The first clip comes later.
        env.step(action)
    clock.clear()
    times = Times(steps=[])
    for _ in range(args.gap * args.clips):
        began = time.perf_counter()
        env.step(action)
        times.steps.append(time.perf_counter() - began)
    if recorder is not None:
        spent, filmed = np.array(clock), np.arange(len(clock)) % args.gap < args.length
        times.hooks = float(spent[filmed].mean()) / args.films
        times.idle_hooks = float(spent[~filmed].mean()) if (~filmed).any() else 0.0
        env.close()
        times.stalled, times.frames = recorder.stalled_s, recorder.rows
    return times


def watch_memory(args: VideoArgs, folder: str) -> dict[str, str]:
    """Check whether this process's memory grows during a long clip."""
    env, recorder, _ = _make(args, args.memory_envs, folder, name="long", max_pending=16)
    assert recorder is not None
    from benchmarks.side import random_action

    action = random_action(env)
    for _ in range(_WARM_UP_STEPS):
        env.step(action)
    recorder.flush()
    warm, later, began = _resident(), [], time.perf_counter()
    processor = time.process_time()
    for i in range(1, args.memory_frames - _WARM_UP_STEPS + 1):
        env.step(action)
        if i % max(1, (args.memory_frames - _WARM_UP_STEPS) // _SAMPLES) == 0:
            recorder.flush()
            later.append(_resident())
    recorder.flush()
    frames = args.memory_frames - _WARM_UP_STEPS
    drawn = frames / (time.perf_counter() - began)
    processor = (time.process_time() - processor) / frames
    size = args.width * args.height * 3
    env.close()
    return {
        f"memory after {_WARM_UP_STEPS} pictures (MB)": f"{warm / 1e6:.1f}",
        "most after that (MB)": f"{max(later) / 1e6:.1f}",
        "at the end (MB)": f"{later[-1] / 1e6:.1f}",
        "growth": f"{later[-1] / warm - 1:.2%}",
        "all pictures would take (MB)": f"{args.memory_frames * size / 1e6:.1f}",
        "pictures drawn and encoded per second": f"{drawn:.1f}",
        "processor time per step and picture (ms)": f"{processor * 1e3:.1f}",
    }


def _make(
    args: VideoArgs, num_envs: int, folder: str | None, **fields: Any
) -> tuple[Any, VideoRecorder | None, list[float]]:
    """Build and reset the environment; also return what the hooks take in each step."""
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.recorders.video import VideoRecorder, VideoRecorderCfg
    from mjlab_rec.registry import load_env_cfg

    clock: list[float] = []

    class Timed(VideoRecorder):
        """Records how long its hooks take."""

        def record_pre_step(self) -> None:
            clock.append(0.0)
            super().record_pre_step()

        def record_pre_reset(self, env_ids: Any) -> None:
            began = time.perf_counter()
            super().record_pre_reset(env_ids)
            clock[-1] += time.perf_counter() - began

        def record_post_reset(self, env_ids: Any) -> None:
            began = time.perf_counter()
            super().record_post_reset(env_ids)
            if clock:
                clock[-1] += time.perf_counter() - began

        def record_post_step(self) -> None:
            began = time.perf_counter()
            super().record_post_step()
            clock[-1] += time.perf_counter() - began

    cfg: Any = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs, cfg.sim.engine, cfg.seed = num_envs, args.engine, 0
    if args.mesh_faces:
        _add_robot(cfg, args.mesh_faces)
    cfg.viewer.enable_shadows = cfg.viewer.enable_reflections = args.shadows
    if folder is not None:
        options: dict[str, Any] = dict(
            envs=args.films, width=args.width, height=args.height, path=folder, trigger="at_start"
        )
        options |= dict(renderer=args.renderer, max_pending=args.max_pending) | fields
        cfg.recorders = {"video": VideoRecorderCfg(func=Timed, **options)}
    env = ManagerBasedRlEnv(cfg, device=args.device)
    env.reset()
    recorder: Any = env.recorder_manager.get_term("video") if folder is not None else None
    return env, recorder, clock


def _add_robot(cfg: Any, faces: int) -> None:
    """Put a robot of detailed meshes next to the cartpole, and film it."""
    from benchmarks.mesh_robot import mesh_robot
    from mjlab_rec.entity import EntityCfg

    place = EntityCfg.InitialStateCfg(pos=(0.0, 3.0, 0.6))
    cfg.scene.entities["robot"] = EntityCfg(spec_fn=lambda: mesh_robot(faces), init_state=place)
    cfg.viewer.origin_type = cfg.viewer.OriginType.ASSET_ROOT
    cfg.viewer.entity_name = "robot"
    cfg.viewer.distance, cfg.viewer.elevation, cfg.viewer.azimuth = 2.0, -20.0, 130.0


def _in_process(function: Any, args: VideoArgs, folder: str | None) -> Any:
    """Call a function in a new process, free of earlier measurements' memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, args, folder).result()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
