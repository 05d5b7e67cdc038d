"""Draw the picture in README.md: a grid of robots of the tasks, after a second of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.sim.renderer import make_renderer

TASKS = (
    "velocity-rough-quadruped",
    "velocity-flat-biped",
    "lift-arm",
    "cartpole-balance",
    "gym-humanoid",
    "gym-half-cheetah",
    "gym-ant",
    "gym-walker2d",
)


def main(
    path: Path = Path(".github/tasks.png"),
    tasks: tuple[str, ...] = TASKS,
    columns: int = 4,
    steps: int = 20,
    seed: int = 1,
) -> None:
    """Draw the picture and write a PNG file.

    Args:
        path: The picture.
        tasks: One task for each picture of the grid.
        columns: Columns of the grid; full rows only.
        steps: Control steps before the picture is drawn, without actions.
        seed: Seed of the initial states and the ground.
    """
    pictures = [draw(task, steps, seed) for task in tasks]
    rows = [pictures[first : first + columns] for first in range(0, len(pictures), columns)]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(picture).quantize(256).save(path, optimize=True)


def draw(task: str, steps: int, seed: int) -> np.ndarray:
    """Return a picture of a task, (height, width, 3)."""
    cfg = load_env_cfg(task, play=True)
    cfg.scene.num_envs, cfg.seed = 1, seed
    cfg.viewer.width, cfg.viewer.height = 240, 180
    cfg.viewer.distance *= 0.7
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=seed)
        for _ in range(steps):
            env.step(torch.zeros(1, env.action_manager.total_action_dim))
        renderer = make_renderer(env.sim, cfg.viewer, env.scene)
        picture = renderer.draw(renderer.capture(range(1)))[0]
        renderer.close()
    return picture


if __name__ == "__main__":
    tyro.cli(main)
