"""Steps a Gymnasium task in one way, on request: here, in Gymnasium's vectors, or in EnvPool.

It runs as a separate process, possibly in an interpreter that has EnvPool but not mjlab_rec.
Requests and answers are lines of JSON on a pipe, as in side.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCHES = 16  # of actions, drawn beforehand
WARM_UP_S = 0.2

Step = Callable[[Any], Any]


def gymnasium_id(task: str) -> str:
    """Return Gymnasium's id of a task such as gym-half-cheetah."""
    return "".join(word.capitalize() for word in task.split("-")[1:]) + "-v5"


def make(way: str, task: str, num_envs: int) -> tuple[Any, Any]:
    """Return the environments, reset, and the space of their actions."""
    import gymnasium

    if way.startswith("mjlab_rec"):
        numpy = way.endswith("numpy")
        name = f"mjlab_rec:mjlab_rec/{task}-v0"
        envs: Any = gymnasium.make_vec(name, num_envs=num_envs, device="cpu", numpy=numpy)
    elif way == "EnvPool":
        import envpool  # type: ignore[import-not-found]

        envs = envpool.make_gymnasium(gymnasium_id(task), num_envs=num_envs)
        envs.reset()
        return envs, envs.action_space
    else:
        mode = way.split()[-1]
        envs = gymnasium.make_vec(gymnasium_id(task), num_envs=num_envs, vectorization_mode=mode)
    envs.reset(seed=0)
    return envs, envs.single_action_space


class Runner:
    """Environments and the actions to step them with."""

    def __init__(self, way: str, task: str, num_envs: int) -> None:
        self.envs, space = make(way, task, num_envs)
        self.num_envs = num_envs
        rng = np.random.default_rng(0)
        shape = (BATCHES, num_envs, *space.shape)
        actions: Any = rng.uniform(space.low, space.high, shape).astype(space.dtype)
        if way == "mjlab_rec":
            import torch

            actions = torch.from_numpy(actions)
        self.actions = actions
        self.round(WARM_UP_S)

    def round(self, seconds: float) -> float:
        """Return the env-steps per second in this time, in whole batches of actions."""
        taken, began, now = 0, time.perf_counter(), 0.0
        while now < seconds:
            for action in self.actions:
                self.envs.step(action)
            taken += BATCHES * self.num_envs
            now = time.perf_counter() - began
        return taken / now


def main() -> None:
    """Answer requests until the pipe closes."""
    # What a package prints must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner: Runner | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "make" in request:
            if runner is not None:
                runner.envs.close()
            if request["make"]["way"].startswith("mjlab_rec"):
                import torch

                torch.set_num_threads(request["threads"])
                torch.set_grad_enabled(False)
            runner = Runner(**request["make"])
            answer: Any = True
        else:
            assert runner is not None
            answer = runner.round(request["seconds"])
        print(json.dumps(answer), file=answers)
    if runner is not None:
        runner.envs.close()


if __name__ == "__main__":
    main()
