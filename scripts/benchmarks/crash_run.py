"""A process that records until it is killed, and logs its progress outside itself.

The rollout is the same each time, so a process that takes the same steps knows each row of it.
Notes go to a memory-mapped file: they outlive the process, like everything it has written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mjlab_rec.data.formats.base import Writer
from mjlab_rec.data.schema import Block
from mjlab_rec.envs import ManagerBasedRlEnv
from mjlab_rec.managers import SceneEntityCfg, TerminationTermCfg
from mjlab_rec.recorders.presets import KINDS
from mjlab_rec.registry import load_env_cfg
from mjlab_rec.utils.lookup import look_up

SUFFIXES = {"hdf5": ".h5", "csv": ".csv"}
CHANNELS = (
    *("obs", "action", "reward", "terminated", "truncated", "next_obs", "state"),
    "entity/cartpole/joint_pos",
)

# The notes, all counted from the start. A step is a step of all environments.
NOTES = ("steps", "blocks_begun", "blocks_written", "steps_written")
STEPS, BLOCKS_BEGUN, BLOCKS_WRITTEN, STEPS_WRITTEN = range(len(NOTES))

_LONGEST_EPISODE = 40  # steps
_FURTHEST = 0.11  # of the cart (m), or the episode terminates


def make_env(num_envs: int, recorders: dict[str, Any]) -> ManagerBasedRlEnv:
    """Cartpole with episodes so short that in almost every block some end, in both ways."""
    cfg: Any = load_env_cfg("cartpole-balance")
    cfg.scene.num_envs = num_envs
    cfg.sim.engine = "mjbatch"
    cfg.seed = 0
    cfg.episode_length_s = _LONGEST_EPISODE * cfg.sim.mujoco.timestep * cfg.decimation
    cart = SceneEntityCfg("cartpole", joint_names=("slider",))
    cfg.terminations["far_off"] = TerminationTermCfg(func=_far_off, params={"asset_cfg": cart})
    cfg.recorders = recorders
    env = ManagerBasedRlEnv(cfg)
    env.reset()
    # Otherwise all episodes that time out would end in the same step.
    env.episode_length_buf[:] = torch.arange(num_envs) * _LONGEST_EPISODE // num_envs
    return env


def actions(env: ManagerBasedRlEnv) -> Iterator[torch.Tensor]:
    """Return the actions of all steps, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    shape = env.action_manager.action.shape
    while True:
        yield torch.rand(shape, generator=generator) * 2.0 - 1.0


def main() -> None:
    """Record as fast as possible."""
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    notes = np.memmap(asked["notes"], np.int64, "r+")
    cfg_type = look_up(KINDS[asked["format"]][0])
    cfg = cfg_type(channels=CHANNELS, **asked["recorder"])
    cfg.func = _noting(cfg.func, notes)
    env = make_env(asked["num_envs"], {"recorder": cfg})
    with torch.no_grad():
        for step, action in enumerate(actions(env)):
            notes[STEPS] = step
            env.step(action)


def _far_off(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg) -> torch.Tensor:
    joint_pos = env.scene[asset_cfg.name].data.joint_pos[:, asset_cfg.index("joint")]
    return (joint_pos.abs() > _FURTHEST).any(dim=1)


def _noting(recorder: type, notes: np.ndarray) -> type:
    """The recorder, with a writer that notes what it has written."""

    class Noting(recorder):
        def writer(self) -> Any:
            make = super().writer()

            def made(*args: Any) -> Writer:
                writer = make(*args)
                write = writer.write

                def noted(block: Block) -> None:
                    notes[BLOCKS_BEGUN] += 1
                    write(block)
                    notes[STEPS_WRITTEN] += block.rows
                    notes[BLOCKS_WRITTEN] += 1

                writer.write = noted
                return writer

            return made

    return Noting


if __name__ == "__main__":
    main()
