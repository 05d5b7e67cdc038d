"""What recording costs inside mjlab: no recorder, ours, and one like mjlab's documented example.

Run it with a Python that has mjlab 1.6.0: ``.venv-mjlab``, which ``make test-mjlab`` creates.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import csv
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import mjlab.tasks  # noqa: F401 - registers the tasks
import torch
import tyro
from mjlab.envs import ManagerBasedRlEnv
from mjlab.managers.recorder_manager import RecorderTerm, RecorderTermCfg
from mjlab.tasks.registry import load_env_cfg

from mjlab_rec.adapters.mjlab import for_mjlab
from mjlab_rec.recorders import Hdf5RecorderCfg
from mjlab_rec.utils.tables import format_table


class RowByRow(RecorderTerm):
    """A line of text per environment and step: observation and action, as in mjlab's pages."""

    def __init__(self, cfg: RecorderTermCfg, env: Any) -> None:
        super().__init__(cfg, env)
        self._file = open(cfg.params["path"], "w", newline="")  # noqa: SIM115
        self._lines = csv.writer(self._file)

    def record_pre_reset(self, env_ids: torch.Tensor) -> None:
        """Write the last line of episodes that end."""
        self._write(env_ids)

    def record_post_step(self) -> None:
        """Write a line of the others."""
        self._write((~self._env.reset_buf).nonzero().flatten())

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _write(self, env_ids: torch.Tensor) -> None:
        env = self._env
        obs = env.obs_buf["actor"][env_ids].cpu().tolist()
        for values, action in zip(obs, env.action_manager.action[env_ids].tolist(), strict=True):
            self._lines.writerow(values + action)


def main(
    task: str = "Mjlab-Cartpole-Balance",
    num_envs: int = 1024,
    steps: int = 20,
    rounds: int = 5,
    episode_steps: int = 50,
    device: str = "cpu",
) -> None:
    """Time steps of one environment per kind of recording, in turns.

    Args:
        task: mjlab's name of the task.
        num_envs: Environments.
        steps: Steps of a turn.
        rounds: Turns of each; the fastest counts.
        episode_steps: Length of episodes. Their starts differ, so that some end in every step.
        device: Where to simulate.
    """
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        text = RecorderTermCfg(func=RowByRow, params={"path": str(Path(folder, "run.csv"))})
        kinds: dict[str, Any] = {
            "no recorder": None,
            "ours, HDF5": for_mjlab(Hdf5RecorderCfg(path=str(Path(folder, "run.h5")))),
            "ours, HDF5, no final observations": for_mjlab(
                Hdf5RecorderCfg(path=str(Path(folder, "b.h5")), channels=("obs", "action")),
                final_obs=False,
            ),
            "a line of CSV per environment": text,
        }
        envs = {}
        for name, recorder in kinds.items():
            cfg = load_env_cfg(task)
            cfg.scene.num_envs, cfg.seed = num_envs, 0
            cfg.episode_length_s = episode_steps * cfg.decimation * cfg.sim.mujoco.timestep
            if recorder is not None:
                cfg.recorders["all"] = recorder
            envs[name] = env = ManagerBasedRlEnv(cfg, device=device)
            env.reset()
            env.episode_length_buf[:] = torch.arange(num_envs, device=device) % episode_steps
            _turn(env, 3)
        best = {name: (float("inf"), float("inf")) for name in kinds}
        for _ in range(rounds):
            for name, env in envs.items():
                (cpu, wall), turn = best[name], _turn(env, steps)
                best[name] = min(cpu, turn[0]), min(wall, turn[1])
        for env in envs.values():
            env.close()
    cpu, wall = best["no recorder"]
    rows = [
        (name, f"{c * 1e3:.2f}", f"{c / cpu:.3f}", f"{w * 1e3:.2f}", f"{w / wall:.3f}")
        for name, (c, w) in best.items()
    ]
    header = ("recording", "CPU ms/step", "ratio", "ms/step", "ratio")
    print(format_table(f"{task}, {num_envs} environments, {device}", header, rows))


def _turn(env: Any, steps: int) -> tuple[float, float]:
    """Processor time and time of a step, in seconds."""
    size = env.action_manager.total_action_dim
    action = torch.zeros(env.num_envs, size, device=env.device)
    began = time.process_time(), time.perf_counter()
    for _ in range(steps):
        env.step(action)
    if torch.device(env.device).type == "cuda":
        torch.cuda.synchronize(env.device)
    return (time.process_time() - began[0]) / steps, (time.perf_counter() - began[1]) / steps


if __name__ == "__main__":
    tyro.cli(main)
