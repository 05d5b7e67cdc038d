"""Time of a height scan on each kind of ground, against the physics and against mj_ray.

On a CPU it is the time of all threads together, which other programs do not change much.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import terrain
from mjlab_rec import cli

if TYPE_CHECKING:
    from mjlab_rec.sim import Simulation
    from mjlab_rec.sim.ray_caster import RayCaster

_DECIMATION = 4
_SETTLING = 20


@dataclass(kw_only=True)
class RaysArgs:
    """Options of `bench.py rays`."""

    num_envs: int = 4096
    """Number of environments."""
    size: tuple[float, float] = (1.6, 1.0)
    """Length and width of the scanned rectangle, in meters."""
    resolution: float = 0.1
    """Distance between rays, in meters."""
    kinds: tuple[str, ...] = ("flat", "pyramid_stairs", "box_random_grid", "hf_pyramid_slope")
    """Kinds of ground, by their names in mjlab_rec.terrains.config."""
    tiles: int = 10
    """Rows and columns of tiles."""
    rounds: int = 5
    """Rounds, in which all kinds take turns; the result is their median."""
    engine: Literal["auto", "warp", "mjbatch"] = "mjbatch"
    """Physics engine."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""
    mj_ray_envs: int = 4
    """Number of environments for which mj_ray is timed as well; 0 for none."""


def main(args: Annotated[RaysArgs, tyro.conf.arg(name="")]) -> None:
    """Time the rays of a height scan, and the physics between two scans."""
    from mjlab_rec.sensor import GridPatternCfg
    from mjlab_rec.sim.ray_spec import RaySpec

    if min(args.num_envs, args.tiles, args.rounds) < 1:
        cli.fail("--num-envs, --tiles and --rounds must be at least 1.")
    options = terrain.TerrainArgs(
        num_envs=args.num_envs, tiles=args.tiles, engine=args.engine, device=args.device
    )
    offsets, directions = GridPatternCfg(args.size, args.resolution).generate_rays(
        None, args.device
    )
    worlds: dict[str, tuple[Simulation, RayCaster]] = {}
    for kind in args.kinds:
        _, sim = terrain.world(kind, options)
        trunk = sim.mj_model.body("robot/trunk").id
        spec = RaySpec(
            frames=[("body", trunk)],
            offsets=offsets,
            directions=directions,
            alignment="yaw",
            max_distance=5.0,
            groups=(0,),
            excluded_bodies=[trunk],
        )
        worlds[kind] = (sim, sim.ray_caster(spec))
        sim.step(_SETTLING)
        sim.forward()
        worlds[kind][1].cast()
    casts: dict[str, list[float]] = {kind: [] for kind in worlds}
    steps: dict[str, list[float]] = {kind: [] for kind in worlds}
    for _ in range(args.rounds):
        for kind, (sim, caster) in worlds.items():
            casts[kind].append(_timed(caster.cast, args.device))
            steps[kind].append(_timed(lambda sim=sim: sim.step(_DECIMATION), args.device))
            sim.forward()
    rays = args.num_envs * len(offsets)
    sim = next(iter(worlds.values()))[0]
    clock = "time" if args.device.startswith("cuda") else "CPU time of all threads"
    table = Table(
        *("ground", "scan (ms)", "ns per ray", f"{_DECIMATION} physics steps (ms)"),
        *("scan / physics", "mj_ray (ns per ray)", "geoms"),
        title=f"{args.num_envs} envs x {len(offsets)} rays, engine {sim.engine_name}: {clock}",
    )
    for kind, (sim, caster) in worlds.items():
        cast, step = median(casts[kind]), median(steps[kind])
        plain = ""
        if args.mj_ray_envs > 0 and args.device == "cpu":
            plain = f"{_mj_ray_time(sim, caster, offsets, args) * 1e9:.0f}"
        table.add_row(
            *(kind, f"{cast * 1e3:.1f}", f"{cast / rays * 1e9:.0f}", f"{step * 1e3:.1f}"),
            *(f"{cast / step:.2f}", plain, str(sim.mj_model.ngeom)),
        )
    console = Console()
    console.print(table)
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def _timed(function, device: str) -> float:
    import torch

    if not device.startswith("cuda"):
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _mj_ray_time(sim, caster, offsets, args: RaysArgs) -> float:
    """Seconds per ray of C MuJoCo, for rays straight down."""
    import mjbatch
    import numpy as np

    count = min(args.mj_ray_envs, sim.num_envs)
    batch = mjbatch.Batch(sim.mj_model, count)
    starts = caster.cast().frame_pos[:count, :1] + offsets
    starts = np.ascontiguousarray(starts.cpu().numpy())
    down = np.zeros_like(starts)
    down[..., 2] = -1.0
    distances = np.zeros(starts.shape[:2], np.float32)
    groups = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    took = []
    for _ in range(args.rounds):
        start = time.process_time()
        batch.rays(starts, down, distances, geomgroup=groups)
        took.append(time.process_time() - start)
    return median(took) / distances.size
