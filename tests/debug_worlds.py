"""A small environment in which every kind of thing draws, for tests of debug drawings."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from worlds import Goal as PlainGoal
from worlds import GoalCfg, cart_cfg, tip_height

from mjlab_rec.envs import ManagerBasedRlEnvCfg
from mjlab_rec.managers import EventTermCfg, ObservationTermCfg, RewardTermCfg
from mjlab_rec.sim.viewer_config import ViewerConfig
from mjlab_rec.terrains import TerrainEntityCfg

SPHERE, BOX, CYLINDER, ELLIPSOID = (1.0, 0.0, 0.0, 1.0), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 0, 1)


class Goal(PlainGoal):
    """A goal that is drawn as a sphere, a frame and a ghost of the robot."""

    calls = 0
    """How often any goal was drawn."""

    def _debug_vis_impl(self, visualizer: Any) -> None:
        Goal.calls += 1
        torch.rand(3)  # Drawing may use random numbers.
        self._env.rng.uniform(0.0, 1.0, (self.num_envs, 1))
        for env in visualizer.get_env_indices(self.num_envs):
            x = self.command[env, 0]
            place = torch.stack((x, torch.zeros(()), 2.5 + torch.zeros(())))
            visualizer.add_sphere(place, 0.15, SPHERE, label=f"goal_{env}")
            visualizer.add_frame(place.numpy(), np.eye(3), scale=0.4, axis_radius=0.02)
            if self.cfg.ghosts:
                model = self._env.sim.mj_model
                if not hasattr(self, "_ghost"):
                    self._ghost = copy.deepcopy(model)
                    self._ghost.geom_rgba[:] = (0.2, 0.9, 0.2, 0.5)
                visualizer.add_ghost_mesh(np.array([float(x), 0.0]), self._ghost)


@dataclass(kw_only=True)
class DrawnGoalCfg(GoalCfg):
    """Configuration of ``Goal``."""

    debug_vis: bool = True
    ghosts: bool = True

    def build(self, env: Any) -> Goal:
        return Goal(self, env)


class Height:
    """A reward that draws a box at the tip."""

    calls = 0

    def __init__(self, cfg: Any, env: Any) -> None:
        self._env = env

    def __call__(self, env: Any) -> torch.Tensor:
        return tip_height(env)

    def debug_vis(self, visualizer: Any) -> None:
        Height.calls += 1
        tips = self._env.scene["robot"].data.site_pos_w[:, 0]
        for env in visualizer.get_env_indices(self._env.num_envs):
            visualizer.add_box(tips[env], (0.1, 0.05, 0.05), np.eye(3), BOX)


class Still:
    """An observation that draws a cylinder, and an event that draws an ellipsoid."""

    def __init__(self, cfg: Any, env: Any) -> None:
        self._env = env
        self._observes = isinstance(cfg, ObservationTermCfg)

    def __call__(self, env: Any, env_ids: Any = None) -> torch.Tensor:
        return torch.zeros(env.num_envs, 1)

    def debug_vis(self, visualizer: Any) -> None:
        if self._observes:
            visualizer.add_cylinder((0, 0, 0), (0, 0, 0.5), 0.05, CYLINDER)
        else:
            visualizer.add_ellipsoid((1, 0, 0.2), (0.2, 0.1, 0.1), np.eye(3).ravel(), ELLIPSOID)


def drawn_cfg(num_envs: int = 2, ghosts: bool = True, **overrides: Any) -> ManagerBasedRlEnvCfg:
    """The cart, whose command, reward, observation and event draw."""
    cfg = cart_cfg(num_envs, **overrides)
    cfg.commands["goal"] = DrawnGoalCfg(resampling_time_range=(0.08, 0.3), ghosts=ghosts)
    cfg.rewards["height"] = RewardTermCfg(func=Height, weight=1.0)
    cfg.observations["critic"].terms["still"] = ObservationTermCfg(func=Still)
    cfg.events["still"] = EventTermCfg(func=Still, mode="reset")
    cfg.scene.terrain = TerrainEntityCfg()
    return cfg


def world_picture(**fields: Any) -> ViewerConfig:
    """A camera that sees all that is drawn, without shadows."""
    view = ViewerConfig(width=320, height=240, enable_shadows=False, max_extra_envs=0, **fields)
    return view.seen_from((1.0, -6.0, 2.5), (0.0, 0.0, 1.3))


def share(image: np.ndarray, color: int) -> float:
    """Share of the pixels that show red (0) or green (1)."""
    values = image.astype(int)
    others = np.delete(values, color, axis=-1).max(axis=-1)
    return float((values[..., color] - others > 60).mean())
