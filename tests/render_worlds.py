"""A scene of plain colours to draw in tests, and where they are in a picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from mjlab_rec.sim import Simulation, SimulationCfg, gl

# A red ball that can move with a green one on top, on a black floor that cannot.
BALL = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <geom type="plane" size="50 50 1" rgba="0 0 0 1"/>
    <camera name="above" pos="0 0 4"/>
    <body name="robot/base">
      <freejoint/>
      <geom name="ball" size="0.3" rgba="1 0 0 1"/>
      <geom name="hidden" size="1" rgba="0 0 1 1" group="3"/>
      <geom name="glass" size="0.9" rgba="1 1 1 0"/>
      <body name="robot/arm" pos="0 0 0.7">
        <joint type="hinge"/>
        <geom size="0.2" rgba="0 1 0 1"/>
      </body>
    </body>
    <body name="robot/flag" mocap="true" pos="0 0 -5">
      <geom size="0.3" rgba="0 0 1 1" contype="0" conaffinity="0"/>
      <camera name="robot/eye" pos="0 0 2"/>
    </body>
  </worldbody>
</mujoco>
"""

RED, GREEN, BLUE = range(3)


def ball_sim(engine: Any = "mjbatch", num_envs: int = 3, device: str = "cpu") -> Simulation:
    """The scene in a few worlds, with the ball above the origin."""
    model = mujoco.MjModel.from_xml_string(BALL)
    cfg = SimulationCfg(engine=engine, nconmax=20, njmax=80)
    sim = Simulation(num_envs=num_envs, cfg=cfg, model=model, device=device)
    for env in range(num_envs):
        place(sim, env, 0.0, 0.0)
    return sim


def ball_scene(sim: Simulation) -> Any:
    """As much of a scene as the renderers look at."""
    model = sim.mj_model
    robot = SimpleNamespace(
        body_names=("base", "arm"),
        indexing=SimpleNamespace(
            root_body_id=model.body("robot/base").id,
            body_ids=torch.tensor([model.body(f"robot/{n}").id for n in ("base", "arm")]),
        ),
    )
    return SimpleNamespace(env_origins=torch.zeros(sim.num_envs, 3), entities={"robot": robot})


def place(sim: Simulation, env: int, x: float, y: float) -> None:
    """Put the ball of an environment somewhere."""
    sim.data.qpos[env, :7] = torch.tensor([x, y, 1.0, 1.0, 0.0, 0.0, 0.0])


def middle(image: np.ndarray, channel: int) -> tuple[float, float] | None:
    """Mean row and column of what shows this colour, relative to the image's centre; or None."""
    others = [c for c in range(3) if c != channel]
    rows, columns = np.nonzero((image[..., channel] > 100) & (image[..., others] < 60).all(axis=-1))
    if not len(rows):
        return None
    height, width = image.shape[:2]
    return rows.mean() / (height - 1) - 0.5, columns.mean() / (width - 1) - 0.5


def need_gl() -> None:
    """Skip where OpenGL does not work."""
    try:
        gl.GlContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
    except RuntimeError as error:
        pytest.skip(str(error))
