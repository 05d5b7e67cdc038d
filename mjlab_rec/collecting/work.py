"""A worker's part: play a shard of the plan, and write it into its folder."""

from __future__ import annotations

import copy
import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.collecting.folder import WORKER, Folder
from mjlab_rec.collecting.plan import Plan, Shard
from mjlab_rec.data.formats.plain_files import replace as replace_file
from mjlab_rec.recorders.triggers import at_episodes
from mjlab_rec.utils.plain_data import json_text

if TYPE_CHECKING:
    from mjlab_rec.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
    from mjlab_rec.rl.policies import Policy

_TELL_S = 0.25
Tell = Callable[[int, int], None]
"""Gets the episodes finished so far in a shard, and the steps of all its environments."""


@dataclass(kw_only=True)
class Work:
    """All that a worker needs to play any shard."""

    plan: Plan
    """What is collected."""
    env_cfg: ManagerBasedRlEnvCfg
    """Cfg of the environments. The paths of its recorders are names in the folder of a shard."""
    device: str
    """Device of the environments."""
    make_policy: Callable[[ManagerBasedRlEnv], Policy]
    """Makes the policy for an environment."""
    rank: int = 0
    """Number of the worker."""

    def recording(self, folder: Path) -> Path:
        """Where the rollouts of a shard are recorded, in its folder."""
        from mjlab_rec.recorders.cfg import RolloutRecorderCfg

        recorders = self.env_cfg.recorders.values()
        (path,) = (r.path for r in recorders if isinstance(r, RolloutRecorderCfg))
        return folder / Path(path).name

    def play(self, shard: Shard, folder: Path, tell: Tell) -> dict[str, Any]:
        """Play a shard and record it into a folder; returns what is known about its episodes.

        Everything is made for this shard and depends on its seed only, so that it does not matter
        what the worker did before.
        """
        from mjlab_rec.envs import ManagerBasedRlEnv
        from mjlab_rec.rl.evaluate import evaluate

        cfg, seed = copy.deepcopy(self.env_cfg), self.plan.seed_of(shard)
        # The seed of the plan for what is built, such as the ground: all shards have the same
        # model, as the environments of one recording have.
        cfg.seed = self.plan.seed
        cfg.recorders = {n: _in(folder, r, shard) for n, r in cfg.recorders.items()}
        random.seed(seed)
        np.random.seed(seed)  # A policy may use it. The environment does not.
        torch.manual_seed(seed)
        told = time.monotonic()
        steps = 0

        def on_step(done: int) -> None:
            nonlocal told, steps
            steps += shard_envs
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                tell(done, steps)

        with ManagerBasedRlEnv(cfg, device=self.device) as env:
            shard_envs = env.num_envs
            env.seed(seed)  # Before the policy, which may have random numbers from this seed.
            found = evaluate(env, self.make_policy(env), shard.episodes, seed, on_step)
        tell(shard.episodes, steps)
        return {
            "episodes": len(found),
            "rows": int(found.lengths.sum()),
            "steps": steps,
            "return_mean": float(found.returns.mean()),
        }


def do_shard(
    work: Work,
    folder: Folder,
    shard: Shard,
    tell: Tell,
    meanwhile: Callable[[Path], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Any]:
    """Play a shard and add it to the folder; returns the content of its worker.json.

    If another worker has added it, or adds it meanwhile, this does nothing: both have the same
    episodes.

    Args:
        work: What to play.
        folder: Where to.
        shard: The shard.
        tell: Gets the progress.
        meanwhile: A context in which it is played, given its recording.
    """
    if finished := folder.worker(shard):
        return finished
    plan = work.plan
    about: dict[str, Any] = {
        "shard": shard.number,
        "shards": len(plan.shards),
        "finished": False,
        # A recorder that keeps some of the episodes only has fewer, which is not a fault.
        "planned_episodes": shard.episodes if plan.recorder.get("keep") == "all" else None,
        "rank": work.rank,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "seed": plan.seed,
        "shard_seed": plan.seed_of(shard),
        "versions": dict(plan.versions),
        "cfg_hash": plan.cfg_hash,
        "policy_hash": plan.policy_hash,
    }
    began = time.monotonic()
    try:
        with folder.writing(shard) as path:
            replace_file(path / WORKER, _text(about), sync=False)
            with meanwhile(work.recording(path)):
                found = work.play(shard, path, tell)
            about |= {**found, "seconds": round(time.monotonic() - began, 3), "finished": True}
            replace_file(path / WORKER, _text(about), sync=False)
    except Exception:
        # Others remove the hidden folders of a finished shard.
        if not (finished := folder.worker(shard)):
            raise
        about |= finished
    return about


def _in(folder: Path, recorder: Any, shard: Shard) -> Any:
    """A recorder's cfg with a path in a folder; a recorder of rollouts records the shard."""
    from mjlab_rec.recorders.cfg import RolloutRecorderCfg

    if path := getattr(recorder, "path", None):
        recorder = replace(recorder, path=str(folder / Path(path).name))
    if isinstance(recorder, RolloutRecorderCfg):
        numbers = range(shard.per_env)
        recorder = replace(recorder, trigger=at_episodes(*numbers), envs=shard.envs)
    return recorder


def _text(about: dict[str, Any]) -> bytes:
    return (json_text(about, indent=1) + "\n").encode()
