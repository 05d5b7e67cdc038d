"""Helpers for several kinds of stock terms: default asset, selected names, constants, ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from mjlab_rec.managers.scene_entity_config import Kind, SceneEntityCfg
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.envs import ManagerBasedRlEnv

_SE3_KEYS = ("x", "y", "z", "roll", "pitch", "yaw")

DEFAULT_ASSET_CFG = SceneEntityCfg("robot")
"""The entity that stock terms use by default: all of "robot"."""


def resolve_env_ids(env: ManagerBasedRlEnv, env_ids: torch.Tensor | None) -> torch.Tensor:
    """Return these environment ids, or those of all environments for None."""
    if env_ids is None:
        return torch.arange(env.num_envs, device=env.device)
    return env_ids


def selected_names(asset: Entity, asset_cfg: SceneEntityCfg, kind: Kind) -> tuple[str, ...]:
    """Names of the selected parts, in the order in which ``asset_cfg.index(kind)`` yields them."""
    names: tuple[str, ...] = tuple(getattr(asset, f"{kind}_names"))
    index = asset_cfg.index(kind)
    return names[index] if isinstance(index, slice) else tuple(names[i] for i in index.tolist())


@lru_cache(maxsize=1024)
def constant(values: tuple[float, ...], device: str) -> torch.Tensor:
    """A float tensor of fixed numbers, copied to the device once. Never write into it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def bounds(
    ranges: Sequence[tuple[float, float]], device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower and upper ends of several ranges, each as a tensor of shape (len(ranges),)."""
    low, high = (tuple(float(r[end]) for r in ranges) for end in (0, 1))
    return constant(low, str(device)), constant(high, str(device))


def sample_se3(
    env: ManagerBasedRlEnv, ranges: Mapping[str, tuple[float, float]], env_ids: torch.Tensor
) -> torch.Tensor:
    """Draw (x, y, z, roll, pitch, yaw) offsets: (len(env_ids), 6), zero where no range is given."""
    for key in ranges:
        if key not in _SE3_KEYS:
            raise KeyError(f"Unknown range '{key}'. {nearest(key, _SE3_KEYS)}")
    low, high = bounds([ranges.get(key, (0.0, 0.0)) for key in _SE3_KEYS], env.device)
    return env.rng.uniform(low, high, (len(env_ids), 6), env_ids)
