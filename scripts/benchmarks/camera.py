"""Speed of camera sensors: pictures per second, and what a control step with them costs."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console

from benchmarks.tables import sideways
from mjlab_rec import cli

_ROUNDS = 5
_KINDS: dict[str, tuple[str, ...]] = {
    "rgb": ("rgb",),
    "depth": ("depth",),
    "all three": ("rgb", "depth", "segmentation"),
}


@dataclass(kw_only=True)
class CameraArgs:
    """Options of `bench.py camera`."""

    num_envs: int = 64
    """Number of environments, each with a picture."""
    width: int = 84
    """Width of the pictures."""
    height: int = 84
    """Height of the pictures."""
    shadows: bool = False
    """Draw shadows."""
    mesh_faces: int = 0
    """Look at a robot with this many mesh faces, instead of the cartpole."""
    engine: Literal["auto", "warp", "mjbatch"] = "auto"
    """Physics engine."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""


def main(args: Annotated[CameraArgs, tyro.conf.arg(name="")]) -> None:
    """Measure how fast the pictures of camera sensors are drawn."""
    console = Console()
    if min(args.num_envs, args.width, args.height) < 1:
        cli.fail("--num-envs, --width and --height must be at least 1.")
    columns, name = {}, ""
    for title, kinds in _KINDS.items():
        columns[title], name = _measure(args, kinds)
    what = f"a robot of {args.mesh_faces} faces" if args.mesh_faces else "the cartpole"
    title = (
        f"{args.num_envs} pictures of {what}, {args.width} x {args.height}, engine {name} on"
        f" {args.device}"
    )
    console.print(sideways(title, "", columns))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def _measure(args: CameraArgs, kinds: Any) -> tuple[dict[str, str], str]:
    """Return a column of the table, and the engine's name."""
    from benchmarks.mesh_robot import mesh_robot
    from benchmarks.side import random_action
    from mjlab_rec.entity import EntityCfg
    from mjlab_rec.envs import ManagerBasedRlEnv
    from mjlab_rec.registry import load_env_cfg
    from mjlab_rec.sensor import CameraSensorCfg

    cfg: Any = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs, cfg.sim.engine, cfg.seed = args.num_envs, args.engine, 0
    pos = 0.0, -3.0, 1.0
    if args.mesh_faces:
        place = EntityCfg.InitialStateCfg(pos=(0.0, 3.0, 0.6))
        cfg.scene.entities["robot"] = EntityCfg(
            spec_fn=lambda: mesh_robot(args.mesh_faces), init_state=place
        )
        pos = 0.0, 1.8, 0.5
    camera = CameraSensorCfg(
        "camera",
        pos=pos,
        quat=(0.70710678, 0.70710678, 0.0, 0.0),  # Looks along +y.
        fovy=50.0,
        width=args.width,
        height=args.height,
        data_types=kinds,
        use_shadows=args.shadows,
    )
    cfg.scene.sensors = (*cfg.scene.sensors, camera)
    env = ManagerBasedRlEnv(cfg, device=args.device)
    env.reset()
    sensor, action = env.scene["camera"], random_action(env)
    times: dict[str, list[float]] = {"step": [], "pictures": [], "processor": []}
    began = time.perf_counter()
    _wait(sensor.data, kinds)
    first = time.perf_counter() - began
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        env.step(action)
        middle, processor = time.perf_counter(), time.process_time()
        _wait(sensor.data, kinds)
        times["step"].append(middle - began)
        times["pictures"].append(time.perf_counter() - middle)
        times["processor"].append(time.process_time() - processor)
    env.close()
    step, pictures, processor = (float(np.median(values)) for values in times.values())
    return {
        "pictures per second": f"{args.num_envs / pictures:.0f}",
        "per second of processor time": f"{args.num_envs / max(processor, 1e-9):.0f}",
        "time of all pictures (ms)": f"{pictures * 1e3:.1f}",
        "step without them (ms)": f"{step * 1e3:.2f}",
        "the first ones (s)": f"{first:.1f}",
    }, env.sim.engine_name


def _wait(data: Any, kinds: Any) -> None:
    """Wait for a GPU, if that draws."""
    for kind in kinds:
        getattr(data, kind)[0, 0, 0].cpu()
