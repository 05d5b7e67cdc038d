"""Time to generate ground, and of a physics step on each kind against flat ground."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec import cli

if TYPE_CHECKING:
    import mujoco

    from mjlab_rec.scene import Scene
    from mjlab_rec.sim import Simulation

_LEG = """
      <body name="{name}" pos="{x} {y} 0">
        <joint name="{name}_hip" axis="0 1 0" range="-1 1" damping="0.5" armature="0.01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.18" size="0.025" mass="0.8"/>
        <body pos="0 0 -0.18">
          <joint name="{name}_knee" axis="0 1 0" range="-1.2 1.2" damping="0.5" armature="0.01"/>
          <geom type="capsule" fromto="0 0 0 0 0 -0.16" size="0.02" mass="0.2"/>
          <geom type="sphere" pos="0 0 -0.18" size="0.025" mass="0.05"/>
        </body>
      </body>"""
_LEGS = "".join(
    _LEG.format(name=f"leg{i}", x=x, y=y)
    for i, (x, y) in enumerate(((0.2, 0.12), (0.2, -0.12), (-0.2, 0.12), (-0.2, -0.12)))
)
WALKER = f"""
<mujoco>
  <worldbody>
    <body name="trunk">
      <freejoint/>
      <geom type="box" size="0.25 0.1 0.05" mass="5"/>{_LEGS}
    </body>
  </worldbody>
</mujoco>
"""
_START = 0.5  # Height of the trunk above the ground.
_SKY = 50.0
_SETTLING = 60  # Steps before the first measurement: all have landed.


@dataclass(kw_only=True)
class TerrainArgs:
    """Options of `bench.py terrain`."""

    num_envs: int = 64
    """Number of environments."""
    tiles: int = 4
    """Rows and columns of tiles of a kind, for the step times."""
    grid: int = 20
    """Rows and columns of the grids that are generated."""
    kinds: tuple[str, ...] = ()
    """Kinds to measure, such as stepping_stones. Without any, all."""
    difficulty: float = 1.0
    """Difficulty of the tiles."""
    steps: int = 20
    """Physics steps per round."""
    rounds: int = 10
    """Rounds, in which all kinds take turns; the result is the fastest, which other programs
    disturbed least."""
    engine: Literal["auto", "warp", "mjbatch"] = "mjbatch"
    """Physics engine."""
    device: str = "cpu"
    """Where to simulate: cpu, cuda or cuda:1."""


def main(args: Annotated[TerrainArgs, tyro.conf.arg(name="")]) -> None:
    """Time the generation of ground, and a four-legged robot's physics step on it."""
    if min(args.num_envs, args.tiles, args.grid, args.steps, args.rounds) < 1:
        cli.fail("--num-envs, --tiles, --grid, --steps and --rounds must be at least 1.")
    console = Console()
    console.print(generation_table(args.grid))
    console.print(step_table(args))
    console.print(f"Again: python {shlex.join(sys.argv)}", soft_wrap=True, markup=False)


def generation_table(grid: int) -> Table:
    """Measure how long grids take, in CPU seconds, which other programs do not change much."""
    import mujoco

    from mjlab_rec.terrains import TerrainGenerator
    from mjlab_rec.terrains.config import ALL_TERRAINS_CFG, ROUGH_TERRAINS_CFG

    table = Table(
        "grid", "generate (s)", "compile (s)", "geoms", title=f"{grid} x {grid} tiles, CPU time"
    )
    for name, cfg in (("rough", ROUGH_TERRAINS_CFG), ("all", ALL_TERRAINS_CFG)):
        cfg = dataclasses.replace(cfg, seed=0, num_rows=grid, num_cols=grid)
        spec, start = mujoco.MjSpec(), time.process_time()
        TerrainGenerator(cfg).compile(spec)
        made = time.process_time()
        model = spec.compile()
        compiled = time.process_time()
        table.add_row(name, f"{made - start:.2f}", f"{compiled - made:.2f}", str(model.ngeom))
    return table


def step_table(args: TerrainArgs) -> Table:
    """Measure the physics step on each kind, in alternating rounds."""
    import torch

    from mjlab_rec.terrains.config import ALL_TERRAIN_PRESETS

    unknown = [kind for kind in args.kinds if kind not in ALL_TERRAIN_PRESETS]
    if unknown:
        cli.fail(f"Unknown kind {unknown[0]!r}. Known: {', '.join(ALL_TERRAIN_PRESETS)}.")
    kinds = ["flat", *(k for k in args.kinds or ALL_TERRAIN_PRESETS if k != "flat")]
    worlds = {kind: world(kind, args) for kind in kinds}
    for _, sim in worlds.values():
        sim.step(_SETTLING)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    generator = torch.Generator().manual_seed(0)
    for _ in range(args.rounds):
        for kind, (_, sim) in worlds.items():
            push = 2.0 * torch.randn(sim.data.ctrl.shape, generator=generator)
            sim.data.ctrl.copy_(push)
            seconds[kind].append(step_time(sim, args.steps))
    table = Table(
        *("ground", "step (ms)", "against flat", "contacts", "geoms"),
        title=f"A physics step of {args.num_envs} robots, engine {worlds['flat'][1].engine_name}",
    )
    flat = min(seconds["flat"])
    for kind, (scene, sim) in worlds.items():
        took = min(seconds[kind])
        table.add_row(
            *(kind, f"{took * 1e3:.2f}", f"{took / flat:.2f}", f"{contacts(sim):.1f}"),
            str(len(scene["terrain"].geom_names)),
        )
    return table


def world(kind: str, args: TerrainArgs) -> tuple[Scene, Simulation]:
    """Robots above tiles of one kind."""
    import mujoco
    import torch

    from mjlab_rec.actuator import BuiltinMotorActuatorCfg
    from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
    from mjlab_rec.scene import Scene, SceneCfg
    from mjlab_rec.sim import MujocoCfg, Simulation, SimulationCfg
    from mjlab_rec.terrains import TerrainEntityCfg, TerrainGeneratorCfg
    from mjlab_rec.terrains.config import ALL_TERRAIN_PRESETS

    generator = TerrainGeneratorCfg(
        seed=0,
        size=(8.0, 8.0),
        num_rows=args.tiles,
        num_cols=args.tiles,
        sub_terrains={kind: ALL_TERRAIN_PRESETS[kind]()},
        difficulty_range=(args.difficulty, args.difficulty),
    )
    motors = BuiltinMotorActuatorCfg(target_names_expr=(".*",), effort_limit=20.0)
    robot = EntityCfg(
        spec_fn=lambda: mujoco.MjSpec.from_string(WALKER),
        articulation=EntityArticulationInfoCfg(actuators=(motors,)),
    )
    scene = Scene(
        SceneCfg(
            num_envs=args.num_envs,
            terrain=TerrainEntityCfg(terrain_type="generator", terrain_generator=generator),
            entities={"robot": robot},
        ),
        device=args.device,
        seed=0,
    )
    options = SimulationCfg(engine=args.engine, mujoco=MujocoCfg(timestep=0.005))
    sim = Simulation(args.num_envs, options, spec=scene.spec, device=args.device)
    scene.initialize(sim.mj_model, sim.model, sim.data)
    pose = torch.zeros(args.num_envs, 7)
    pose[:, :3] = scene.env_origins.cpu()
    pose[:, 3] = 1.0
    # Not all on the platform in the middle.
    spread = torch.rand(args.num_envs, 2, generator=torch.Generator().manual_seed(1))
    pose[:, :2] += 2.5 * (2.0 * spread - 1.0)
    pose[:, 2] = torch.tensor(ground_heights(sim.mj_model, pose[:, :2].tolist())) + _START
    pose = pose.to(args.device)
    scene["robot"].write_root_link_pose_to_sim(pose)
    sim.forward()
    return scene, sim


def ground_heights(model: mujoco.MjModel, places: list[list[float]]) -> list[float]:
    """Heights of the ground at these places, by MuJoCo's rays; no robot is there."""
    import mujoco
    import numpy as np

    data, down, geom = mujoco.MjData(model), np.array([0.0, 0.0, -1.0]), np.zeros(1, np.int32)
    mujoco.mj_kinematics(model, data)
    above = [np.array([x, y, _SKY]) for x, y in places]
    return [_SKY - mujoco.mj_ray(model, data, at, down, None, 1, -1, geom) for at in above]


def step_time(sim: Simulation, steps: int) -> float:
    """Seconds that a physics step takes."""
    import torch

    start = time.perf_counter()
    sim.step(steps)
    if sim.device.startswith("cuda"):
        torch.cuda.synchronize(sim.device)
    return (time.perf_counter() - start) / steps


def contacts(sim: Simulation, most: int = 16) -> float:
    """Mean number of contacts of a world, by plain MuJoCo."""
    import mujoco

    model, data, found = sim.mj_model, mujoco.MjData(sim.mj_model), 0
    states = sim.get_state()[:most].double().cpu().numpy()
    for state in states:
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        found += data.ncon
    return found / len(states)
