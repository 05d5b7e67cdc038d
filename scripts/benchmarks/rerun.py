"""Cost of recording for Rerun: step time, writer time and file size."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import torch
from rich.console import Console

from benchmarks.side import random_action
from benchmarks.tables import sideways
from mjlab_rec.actuator import XmlActuatorCfg
from mjlab_rec.data.schema import Block
from mjlab_rec.entity import EntityArticulationInfoCfg, EntityCfg
from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, mdp
from mjlab_rec.managers import (
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab_rec.recorders.rerun import RerunRecorder, RerunRecorderCfg
from mjlab_rec.scene import SceneCfg
from mjlab_rec.sim import SimulationCfg
from mjlab_rec.terrains import TerrainEntityCfg


class _Timed(RerunRecorder):
    """The recorder, with a clock in each hook and in the writer's thread."""

    def __init__(self, cfg: Any, env: ManagerBasedRlEnv) -> None:
        self.hooks_s = 0.0
        self.writing_s = 0.0
        self.writing_cpu_s = 0.0
        super().__init__(cfg, env)

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        self._hook(super().record_pre_reset, env_ids)

    def record_post_reset(self, env_ids: torch.Tensor) -> None:
        self._hook(super().record_post_reset, env_ids)

    def record_post_step(self) -> None:
        self._hook(super().record_post_step)

    def process(self, batch: Block) -> None:
        begin, cpu = time.perf_counter(), time.thread_time()
        super().process(batch)
        self.writing_s += time.perf_counter() - begin
        self.writing_cpu_s += time.thread_time() - cpu

    def _hook(self, hook: Callable[..., None], *args: Any) -> None:
        begin = time.perf_counter()
        hook(*args)
        self.hooks_s += time.perf_counter() - begin


def main(
    num_envs: int = 16,
    bodies: int = 12,
    frames: int = 1000,
    rounds: int = 3,
    contacts: bool = False,
    engine: str = "mjbatch",
) -> None:
    """Record robots with many bodies, and print the cost.

    Args:
        num_envs: Environments, all recorded.
        bodies: Bodies of each, in a chain, all moving.
        frames: Steps to record.
        rounds: How often to repeat everything; medians are printed.
        contacts: Record contacts as well.
        engine: Physics engine: "warp", "mjbatch" or "auto".
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            cfg = RerunRecorderCfg(
                func=_Timed,
                path=str(Path(folder) / f"{number}.rrd"),
                contacts=contacts,
                trigger=None,
            )
            plain = _run(num_envs, bodies, frames, engine, None)
            found.append(_run(num_envs, bodies, frames, engine, cfg) | {"plain": plain["step"]})
    middle = {key: statistics.median(run[key] for run in found) for key in found[0]}
    work = middle["hooks"] + middle["writing"] + middle["closing"]
    column = {
        "recorder's work, s": f"{work:.3f}",
        "  in the steps' thread, s": f"{middle['hooks']:.3f}",
        "  in the writer's thread, s": f"{middle['writing']:.3f}",
        "    of that on a processor, s": f"{middle['cpu']:.3f}",
        "  to finish the file, s": f"{middle['closing']:.3f}",
        "file, MB": f"{middle['bytes'] / 1e6:.2f}",
        "hooks per step, us": f"{middle['hooks'] / frames * 1e6:.0f}",
        "median step without, us": f"{middle['plain'] * 1e6:.0f}",
        "median step with, us": f"{middle['step'] * 1e6:.0f}",
    }
    title = f"Rerun: {num_envs} envs x {bodies} bodies x {frames} frames"
    Console().print(sideways(title, "", {"median": column}))


def _run(
    num_envs: int, bodies: int, frames: int, engine: str, recorder: RerunRecorderCfg | None
) -> dict[str, float]:
    cfg = _cfg(num_envs, bodies, engine)
    if recorder is not None:
        cfg.recorders = {"rerun": recorder}
    found: dict[str, float] = {}
    with ManagerBasedRlEnv(cfg) as env:
        env.reset()
        action = random_action(env)
        times = []
        for _ in range(frames):
            begin = time.perf_counter()
            env.step(action)
            times.append(time.perf_counter() - begin)
        found["step"] = statistics.median(times)
        if recorder is not None:
            term: Any = env.recorder_manager.get_term("rerun")
            # What the writer has left to do counts as its own time, not as time to close.
            term.flush()
            begin = time.perf_counter()
            term.stop()
            found["closing"] = time.perf_counter() - begin
            found["hooks"], found["writing"] = term.hooks_s, term.writing_s
            found["cpu"] = term.writing_cpu_s
            found["bytes"] = sum(file.stat().st_size for file in term.files)
    return found


def _cfg(num_envs: int, bodies: int, engine: str) -> ManagerBasedRlEnvCfg:
    """Return a chain that hangs from a floating link above a plane, with a motor in each joint."""
    joints = EntityArticulationInfoCfg(actuators=(XmlActuatorCfg(target_names_expr=(".*",)),))
    robot = EntityCfg(
        spec_fn=lambda: mujoco.MjSpec.from_string(_chain(bodies)), articulation=joints
    )
    action = mdp.JointEffortActionCfg(entity_name="robot", actuator_names=(".*",), scale=0.2)
    cfg = ManagerBasedRlEnvCfg(
        decimation=4,
        seed=0,
        episode_length_s=4.0,
        scene=SceneCfg(
            num_envs=num_envs,
            terrain=TerrainEntityCfg(terrain_type="plane"),
            entities={"robot": robot},
        ),
        sim=SimulationCfg(engine=engine),  # type: ignore[arg-type]
        actions={"joints": action},
        observations={"actor": ObservationGroupCfg({"q": ObservationTermCfg(mdp.joint_pos_rel)})},
        rewards={
            "alive": RewardTermCfg(func=mdp.is_alive, weight=1.0),
            "effort": RewardTermCfg(func=mdp.action_rate_l2, weight=-0.1),
        },
        terminations={"time_out": TerminationTermCfg(func=mdp.time_out, time_out=True)},
    )
    cfg.sim.mujoco.timestep = 0.005
    return cfg


def _chain(bodies: int) -> str:
    links, motors = "", ""
    for i in range(1, bodies):
        kind = "capsule" if i % 2 else "box"
        size = "0.03 0.08" if i % 2 else "0.03 0.03 0.08"
        links += (
            f'<body name="b{i}" pos="0 0.04 -0.16"><joint name="j{i}" axis="{i % 2} {1 - i % 2} 0"'
            f' damping="0.5"/><geom type="{kind}" size="{size}" mass="0.3"/>'
        )
        motors += f'<motor name="m{i}" joint="j{i}" ctrlrange="-5 5"/>'
    return (
        '<mujoco><worldbody><body name="b0" pos="0 0 2.5"><freejoint/>'
        f'<geom type="sphere" size="0.1" mass="1"/>{links}{"</body>" * (bodies - 1)}</body>'
        f"</worldbody><actuator>{motors}</actuator></mujoco>"
    )
