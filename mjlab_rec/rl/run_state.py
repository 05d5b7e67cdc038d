"""The state of a run besides its checkpoints: with it a run goes on exactly where it was."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mjlab_rec.envs import state as env_states
from mjlab_rec.rl import checkpoints, distributed
from mjlab_rec.rl.learner_state import learner_state, load_learner_state
from mjlab_rec.rl.run_folders import as_plain

if TYPE_CHECKING:
    from mjlab_rec.rl.runner import MjlabOnPolicyRunner

logger = logging.getLogger(__name__)

# Changes of these parts of the environment's cfg leave the steps as they are.
_WITHOUT_EFFECT = ("recorders", "viewer", "task")


def write_run_state(runner: MjlabOnPolicyRunner, folder: Path, number: int) -> None:
    """Write what this process holds after an iteration apart from the networks' weights."""
    log = runner.logger
    state = {
        "env_cfg": _env_cfg(runner),
        "world_size": runner.gpu_world_size,
        "env": env_states.save_state(runner.env.unwrapped),
        "learner": learner_state(runner.alg, log, runner.device),
        "total": [log.tot_timesteps, log.tot_time],
        "counts_from": runner.counts_from,
    }
    checkpoints.write(_state_path(folder, number), state)


def remove_other_run_states(folder: Path, number: int) -> None:
    """Remove what this process wrote after other iterations: each file may be large."""
    name = re.compile(_state_path(Path(), r"\d+").name)
    for path in folder.glob("state_*.pt"):
        if name.fullmatch(path.name) and path != _state_path(folder, number):
            path.unlink(missing_ok=True)


def load_run_state(runner: MjlabOnPolicyRunner, folder: Path, number: int) -> bool:
    """Go on from the state after an iteration; False if there is none that fits."""
    path = _state_path(folder, number)
    if not path.is_file():
        return False
    saved = torch.load(path, map_location="cpu", weights_only=True)
    log = runner.logger
    # Curves over time go on in any case.
    log.tot_timesteps, log.tot_time = saved["total"]
    try:
        if saved["env_cfg"] != _env_cfg(runner) or saved["world_size"] != runner.gpu_world_size:
            raise env_states.StateMismatchError(
                "The environments are configured differently than in the run that is resumed."
            )
        env_states.load_state(runner.env.unwrapped, saved["env"])
    except env_states.StateMismatchError as error:
        logger.warning("%s So they begin new episodes.", error)
        return False
    load_learner_state(runner.alg, log, runner.device, saved["learner"])
    runner.counts_from = saved["counts_from"]
    return True


def progress_of_env(runner: MjlabOnPolicyRunner) -> dict[str, Any]:
    """How far the task was, for any number of environments: counters and curricula."""
    env = runner.env.unwrapped
    found: dict[str, Any] = {
        "common_step_counter": env.common_step_counter,
        "settings": env_states.changed_settings(env, runner.first_settings),
    }
    terrain = env.scene.terrain
    if terrain is not None and terrain.terrain_origins is not None:
        found["terrain_levels"] = terrain.terrain_levels.cpu()
    return found


def load_progress_of_env(wrapper: Any, progress: Mapping[str, Any]) -> None:
    """Continue counters and curricula; the environments' episodes are not in there."""
    env = wrapper.unwrapped
    env.common_step_counter = progress["common_step_counter"]
    unknown = env_states.set_settings(env, progress.get("settings", {}))
    if unknown:
        logger.warning("Curricula had changed what is not here: %s.", ", ".join(unknown))
    terrain, levels = env.scene.terrain, progress.get("terrain_levels")
    if levels is not None and terrain is not None and terrain.terrain_origins is not None:
        terrain.set_levels(levels)
        wrapper.reset()


def _env_cfg(runner: MjlabOnPolicyRunner) -> str:
    """The environment's cfg as text, to compare."""
    cfg = {k: v for k, v in as_plain(runner.env.cfg).items() if k not in _WITHOUT_EFFECT}
    cfg["sim"].pop("num_threads")
    return json.dumps(cfg, sort_keys=True)


def _state_path(folder: Path, number: int | str) -> Path:
    """The file of this process."""
    here = distributed.ranks()
    suffix = f"_rank{here.rank}" if here.rank else ""
    return folder / f"state_{number}{suffix}.pt"
