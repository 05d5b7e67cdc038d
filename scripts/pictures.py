"""Draw the picture in README.md: a grid of cartpoles after random actions."""

from __future__ import annotations

from pathlib import Path

import torch
import tyro
from PIL import Image

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.recorders.video.clip_writer import arrange
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.sim.renderer import make_renderer


def main(
    path: Path = Path(".github/cartpole.png"),
    rows: int = 2,
    columns: int = 4,
    steps: int = 4,
    seed: int = 1,
) -> None:
    """Draw the picture and write a PNG file.

    Args:
        path: The picture.
        rows: Rows of the grid.
        columns: Columns of the grid.
        steps: Control steps before the picture is drawn.
        seed: Seed of the initial states and actions.
    """
    count = rows * columns
    cfg = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = count
    cfg.events["reset_pole"].params["position_range"] = (-0.7, 0.7)
    cfg.viewer.width, cfg.viewer.height = 240, 160
    cfg.viewer.distance, cfg.viewer.elevation = 3.4, -12.0
    pushes = torch.rand(steps, count, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    with ManagerBasedRlEnv(cfg) as env:
        env.reset(seed=seed)
        for push in pushes:
            env.step(push)
        renderer = make_renderer(env.sim, cfg.viewer, env.scene)
        pictures = renderer.draw(renderer.capture(range(count)))
        renderer.close()
    picture = arrange(list(pictures), columns, range(count))
    Image.fromarray(picture).quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
