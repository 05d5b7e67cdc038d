"""What the choices of the CPU preset cost and change: the physics of the quadruped, step by step.

Each variant changes some fields of the task's config. All of them start from the same states, which
the unchanged task gets into under random actions, and take the same control step from there. Times
are of the process on one thread, in alternating rounds, so that other programs hardly disturb them.

    python scripts/benchmarks/velocity_physics.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.utils.cfg_paths import update

FEET_ONLY = {"scene.entities.robot.collisions.0.disable_other_geoms": True}
NO_MIDPHASE = {"sim.mujoco.disableflags": ("midphase",)}
NO_ISLANDS = {"sim.mujoco.disableflags": ("island",)}


def pgs(iterations: int) -> dict[str, Any]:
    """The solver PGS with at most this number of iterations."""
    return {"sim.mujoco.solver": "pgs", "sim.mujoco.iterations": iterations}


def timestep(seconds: float) -> dict[str, Any]:
    """Physics steps of this length, as many as fit into a control step of 0.02 s."""
    return {"sim.mujoco.timestep": seconds, "decimation": round(0.02 / seconds)}


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "again": {},
    "feet only": FEET_ONLY,
    "no midphase": NO_MIDPHASE,
    "no islands": NO_ISLANDS,
    "newton, 4 iterations": {"sim.mujoco.iterations": 4},
    "newton, 100 iterations": {"sim.mujoco.iterations": 100},
    "cg": {"sim.mujoco.solver": "cg"},
    "pgs, 20 iterations": pgs(20),
    "pgs, 10 iterations": pgs(10),
    "pgs, 5 iterations": pgs(5),
    "2 steps of 10 ms": timestep(0.01),
    "5 steps of 4 ms": timestep(0.004),
    "10 steps of 2 ms": timestep(0.002),
    "elliptic cone": {"sim.mujoco.cone": "elliptic"},
    "elliptic, impratio 10": {"sim.mujoco.cone": "elliptic", "sim.mujoco.impratio": 10.0},
    "feet only, pgs 5": {**FEET_ONLY, **pgs(5)},
    "feet only, pgs 5, no islands": {**FEET_ONLY, **pgs(5), **NO_ISLANDS},
    "that, 2 steps of 10 ms": {**FEET_ONLY, **pgs(5), **NO_ISLANDS, **timestep(0.01)},
}


def main(
    task: str = "velocity-flat-quadruped",
    num_envs: int = 128,
    rounds: int = 10,
    every: int = 10,
    variants: tuple[str, ...] = tuple(VARIANTS),
) -> None:
    """Print a table of the variants.

    Args:
        task: The task, whose robot is called "robot".
        num_envs: Worlds.
        rounds: States to step from, and rounds of timing.
        every: Control steps between these states.
        variants: What to compare; the first variant is always among them.
    """
    torch.set_num_threads(1)
    chosen = {name: VARIANTS[name] for name in dict.fromkeys(("as it is", *variants))}
    envs = {name: _make(task, num_envs, changes) for name, changes in chosen.items()}
    first = next(iter(envs.values()))
    states = _states(first, rounds, every)
    results = {name: _Result() for name in envs}
    for state in states:
        for name, env in envs.items():
            results[name].step(env, state)
    heights = {name: _standing_height(env) for name, env in envs.items()}
    for env in envs.values():
        env.close()

    base, load = results["as it is"], first.scene["robot"].data.default_root_state[0, 2]
    table = Table(title=f"{task}: a control step of {num_envs} worlds on one thread")
    for column in ("variant", "time", "speed of joints (rad/s)", "force at feet", "stands at (m)"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, result in results.items():
        ratios = torch.tensor(result.seconds) / torch.tensor(base.seconds)
        speed = torch.stack(result.qvel) - torch.stack(base.qvel)
        force = torch.stack(result.force) - torch.stack(base.force)
        table.add_row(
            name,
            f"{ratios.median():.2f}",
            _spread(speed[..., 6:]),
            f"{force.abs().sum() / torch.stack(base.force).sum():.1%}",
            f"{heights[name]:.4f}",
        )
    console = Console(width=110)
    console.print(table)
    per_second = num_envs / torch.tensor(base.seconds).median()
    console.print(
        f"The first variant takes {per_second:.0f} control steps a second of its thread's time. It"
        " starts its episodes"
        f" {load:.2f} m high.\nSpeed of joints: how far it is from the first variant's after the"
        " step, median and 99th percentile.\nForce at feet: mean difference, as a part of the mean"
        " force, in the same states."
    )


class _Result:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.qvel: list[torch.Tensor] = []
        self.force: list[torch.Tensor] = []

    def step(self, env: ManagerBasedRlEnv, state: torch.Tensor) -> None:
        """Set the state, look at the forces there, and take a control step with a clock."""
        env.sim.set_state(state)
        env.sim.forward()
        env.scene.update(0.0)
        self.force.append(env.scene["feet_ground_contact"].data.force.norm(dim=-1).clone())
        start = time.process_time()
        for _ in range(env.cfg.decimation):
            env.sim.step()
        self.seconds.append(time.process_time() - start)
        self.qvel.append(env.sim.data.qvel.clone())


def _make(task: str, num_envs: int, changes: dict[str, Any]) -> ManagerBasedRlEnv:
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = num_envs, 1
    cfg.sim.engine, cfg.sim.num_threads = "mjbatch", 1
    cfg.terminations, cfg.curriculum = {}, {}
    del cfg.events["push_robot"]
    for path, value in changes.items():
        update(cfg, path, lambda leaf, value=value: value)
    env = ManagerBasedRlEnv(cfg, device="cpu")
    env.reset()
    return env


def _states(env: ManagerBasedRlEnv, count: int, every: int) -> list[torch.Tensor]:
    """States under actions that wander about, so that the robots step and stumble, but rarely fall.

    The first half of a second, in which the robots land, is left out.
    """
    random = torch.Generator().manual_seed(0)
    action = torch.zeros(env.num_envs, env.action_manager.total_action_dim)
    states = []
    for i in range(25 + count * every):
        action = 0.9 * action + 0.1 * torch.randn(action.shape, generator=random)
        env.step(action)
        if i >= 25 and (i - 25) % every == 0:
            states.append(env.sim.get_state())
    return states


def _standing_height(env: ManagerBasedRlEnv) -> float:
    """Mean height of the base after two seconds of zero actions."""
    env.reset(seed=1)
    for _ in range(100):
        env.step(torch.zeros(env.num_envs, env.action_manager.total_action_dim))
    return float(env.scene["robot"].data.root_link_pos_w[:, 2].mean())


def _spread(difference: torch.Tensor) -> str:
    size = difference.abs().flatten()
    return f"{size.quantile(0.5):.3f} {size.quantile(0.99):.2f}"


if __name__ == "__main__":
    tyro.cli(main)
