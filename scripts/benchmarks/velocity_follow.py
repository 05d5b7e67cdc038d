"""How well a trained policy follows a velocity, and how often it falls.

python scripts/benchmarks/velocity_follow.py --task velocity-flat-quadruped --agent latest
"""

from __future__ import annotations

from typing import Any

import torch
import tyro
from rich.console import Console

from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.rl.agents import load_agent


def main(
    task: str = "velocity-flat-quadruped",
    agent: str = "latest",
    velocity: tuple[float, float, float] = (1.0, 0.0, 0.0),
    episodes: int = 100,
    seconds: float = 20.0,
    settle_s: float = 2.0,
    seed: int = 1000,
) -> None:
    """Print the mean velocity and the share of episodes that ended in a fall.

    The environment is that of the training, with noise, pushes and all randomization, but the
    command is always the same.

    Args:
        task: The task.
        agent: A checkpoint, the folder of a run, latest or best.
        velocity: What is commanded: forward and to the left (m/s), and the yaw rate (rad/s).
        episodes: Number of episodes, all at the same time.
        seconds: Their length.
        settle_s: Time at their beginning that does not count for the mean velocity.
        seed: Seed of the environment.
    """
    torch.set_num_threads(1)
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed, cfg.episode_length_s = episodes, seed, seconds
    cfg.curriculum = {}
    twist: Any = cfg.commands["twist"]
    twist.ranges.lin_vel_x, twist.ranges.lin_vel_y, twist.ranges.ang_vel_z = (
        (value, value) for value in velocity
    )
    twist.rel_standing_envs = twist.rel_heading_envs = twist.rel_forward_envs = 0.0
    with ManagerBasedRlEnv(cfg, device="cpu") as env, torch.inference_mode():
        obs, _ = env.reset()
        policy = load_agent(agent, env, task)
        robot = env.scene["robot"].data
        fallen = torch.zeros(episodes, dtype=torch.bool)
        total, steps = torch.zeros(3), 0
        for step in range(env.max_episode_length):
            obs, _, terminated, _, _ = env.step(policy(obs))
            fallen |= terminated
            if step * env.step_dt >= settle_s and not fallen.all():
                both = (robot.root_link_lin_vel_b[:, :2], robot.root_link_ang_vel_b[:, 2:])
                total += torch.cat(both, dim=1)[~fallen].mean(dim=0)
                steps += 1
    x, y, yaw = (total / max(1, steps)).tolist()
    Console(highlight=False).print(
        f"{task}, commanded {velocity}: {x:.2f} m/s forward, {y:.2f} m/s to the left, {yaw:.2f}"
        f" rad/s; {int(fallen.sum())} of {episodes} episodes of {seconds:g} s ended in a fall."
    )


if __name__ == "__main__":
    tyro.cli(main)
