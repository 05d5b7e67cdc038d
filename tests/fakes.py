"""A stand-in environment for tests of managers: just the attributes that they rely on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from mjlab_rec.utils.random import RandomStreams


class FakeEntity:
    """An entity that only knows names."""

    joint_names = ("hip", "knee", "ankle", "toe")

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_names"):
            return ()
        raise AttributeError(name)

    def find_joints(self, keys: Any, preserve_order: bool = False) -> Any:
        """Find joints as a real entity does."""
        from mjlab_rec.utils.string import resolve_matching_names

        return resolve_matching_names(keys, self.joint_names, preserve_order)


class FakeScene(dict):
    """A scene with one entity, ``robot``."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__(robot=FakeEntity())


class FakeEnv:
    """What a manager sees of an environment."""

    def __init__(self, num_envs: int = 4, seed: int = 0) -> None:
        self.num_envs = num_envs
        self.device = "cpu"
        self.rng = RandomStreams(num_envs, "cpu", seed)
        self.scene = FakeScene()
        self.max_episode_length_s = 2.0
        self.step_dt = 0.1
        self.recomputed: list[Any] = []
        self.sim = SimpleNamespace(recompute_constants=self.recomputed.append)
        self.value = torch.arange(num_envs, dtype=torch.float)
        self.log: list[Any] = []

    def ids(self, *values: int) -> torch.Tensor:
        """Environment ids as a tensor."""
        return torch.tensor(values, dtype=torch.long)
