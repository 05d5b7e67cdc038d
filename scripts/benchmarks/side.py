"""One side of a comparison: builds the cartpole of a package and times its steps on request.

It runs as a separate process, possibly in an interpreter that has mjlab but not mjlab_rec, so it
imports neither until requested. Requests and answers are lines of JSON on a pipe.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch

WARM_UP_STEPS = 10
LEAST_ROUND_S = 0.2


def make_env(package: str, num_envs: int, device: str, engine: str) -> Any:
    """Build cartpole-balance, reset it and take the first steps, which are slower."""
    if package == "mjlab":
        from mjlab.envs import ManagerBasedRlEnv  # type: ignore[import-not-found]
        from mjlab.tasks.cartpole.cartpole_env_cfg import (  # type: ignore[import-not-found]
            cartpole_balance_env_cfg,
        )

        cfg = cartpole_balance_env_cfg()
    else:
        from mjlab_rec.envs import ManagerBasedRlEnv
        from mjlab_rec.registry import load_env_cfg

        cfg: Any = load_env_cfg("cartpole-balance")
        cfg.sim.engine = engine
    cfg.scene.num_envs = num_envs
    cfg.seed = 0
    env = ManagerBasedRlEnv(cfg, device=device)
    env.reset()
    # As in training, episodes should not all end in the same step.
    ages = torch.arange(num_envs, device=device) * env.max_episode_length // num_envs
    env.episode_length_buf[:] = ages
    take_steps(env, random_action(env), WARM_UP_STEPS)
    return env


def random_action(env: Any) -> torch.Tensor:
    """Return an action for every environment, uniform in [-1, 1]."""
    shape = env.action_manager.action.shape
    return torch.rand(shape, device=env.device) * 2.0 - 1.0


def take_steps(env: Any, action: torch.Tensor, steps: int) -> float:
    """Take steps with the same action and return the seconds for all of them."""
    synchronize(env.device)
    with torch.no_grad():
        start = time.perf_counter()
        for _ in range(steps):
            env.step(action)
        synchronize(env.device)
        return time.perf_counter() - start


def step_time(env: Any, steps: int) -> float:
    """Return the seconds per step in a round of this many steps, or more if they are too quick."""
    action = random_action(env)
    seconds, taken = 0.0, 0
    while taken < steps or seconds < LEAST_ROUND_S:
        seconds += take_steps(env, action, steps)
        taken += steps
    return seconds / taken


def synchronize(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def main() -> None:
    """Answer requests until the pipe closes."""
    # A package's prints must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    env: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if "threads" in request:
            torch.set_num_threads(request["threads"])
            answer = torch.get_num_threads()
        elif "make" in request:
            if env is not None:
                env.close()
            env = make_env(**request["make"])
            answer = env.num_envs
        else:
            answer = step_time(env, request["steps"])
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
