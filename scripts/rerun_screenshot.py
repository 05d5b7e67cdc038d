"""Take a screenshot of the Rerun viewer without a display.

This needs no X server, but a Vulkan driver. Debian's package mesa-vulkan-drivers has one that needs
no GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders.rerun import RerunRecorderCfg
from mjlab_rec.recorders.rerun.viewer import program
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.rl.policies import random_policy

_VULKAN = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")


def main(
    path: Path = Path("rerun.png"),
    recording: Path | None = None,
    task: str = "cartpole-balance",
    num_envs: int = 16,
    steps: int = 200,
    width: int = 1280,
    height: int = 800,
    limit_s: float = 120.0,
) -> None:
    """Take a screenshot of a recording, or of a task that is recorded first.

    Args:
        path: The PNG file to write.
        recording: The .rrd file to show. None: record the task with random actions.
        task: Id of the task to record.
        num_envs: Number of environments.
        steps: Number of control steps.
        width: Width of the window in points; the screenshot may have more pixels.
        height: Height of the window.
        limit_s: Timeout in seconds.
    """
    if lacking := missing():
        sys.exit(f"A screenshot of Rerun needs {lacking}.")
    with tempfile.TemporaryDirectory() as folder:
        if recording is None:
            recording = Path(folder) / f"{task}.rrd"
            record(recording, task, num_envs, steps)
        take(recording, path, (width, height), limit_s)
    print(path)


def missing() -> str:
    """A description of missing requirements; empty if there are none."""
    drivers = [file for folder in _VULKAN for file in Path(folder).glob("*.json")]
    if not drivers and "VK_DRIVER_FILES" not in os.environ:
        return "a Vulkan driver (Debian's package mesa-vulkan-drivers)"
    return ""


def record(path: Path, task: str, num_envs: int, steps: int) -> None:
    """Record a task with random actions, with its environments next to each other."""
    cfg = load_env_cfg(task)
    cfg.scene.num_envs = num_envs
    cfg.seed = 0
    cfg.recorders = {"rerun": RerunRecorderCfg(path=str(path), spacing_m=3.0, trigger=None)}
    with ManagerBasedRlEnv(cfg) as env:
        policy, obs = random_policy(env), env.reset()[0]
        for _ in range(steps):
            obs = env.step(policy(obs))[0]


def take(recording: Path, path: Path, size: tuple[int, int], limit_s: float) -> None:
    """Open a recording in the viewer and save a screenshot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(program(), str(recording), "--headless", "--screenshot-to", str(path)),
        *("--window-size", f"{size[0]}x{size[1]}", "--renderer", "vulkan"),
        *("--bind", "127.0.0.1", "--port", "auto"),
    ]
    with tempfile.TemporaryDirectory() as home:
        try:
            done = subprocess.run(
                command,
                # A temporary home folder, so that the user's viewer layout is not used.
                env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"Rerun took no screenshot within {limit_s:g} s.")
    if done.returncode != 0 or not path.exists():
        sys.exit(f"Rerun took no screenshot:\n{done.stdout}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
