"""What environments say in ``info``, as arrays of all environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mjlab_rec.adapters.trees import native
from mjlab_rec.recorders.channels import Source

FINAL_OBS = ("final_obs", "final_observation")
"""Names of the observations before a reset inside a step, of Gymnasium 1 and of ManiSkill."""


class Infos:
    """The entries of infos that are recorded: float64, NaN where an environment says nothing.

    Args:
        wanted: Names, such as "x_position" or "episode/r"; or for each name the shape of one
            environment's value.
        num_envs: Number of environments.
        device: Where to keep them.
    """

    def __init__(
        self,
        wanted: Sequence[str] | Mapping[str, tuple[int, ...]],
        num_envs: int,
        device: str,
    ) -> None:
        if isinstance(wanted, str):
            raise TypeError(f"infos is a string; write ({wanted!r},) for a single name.")
        self._shapes = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, ())
        self._num_envs = num_envs
        self._values = {
            name: np.full((num_envs, *shape), np.nan) for name, shape in self._shapes.items()
        }
        self._tensors = {
            name: torch.from_numpy(values).to(device) for name, values in self._values.items()
        }
        self._on_cpu = torch.device(device).type == "cpu"

    @property
    def names(self) -> list[str]:
        """Names of the entries."""
        return list(self._shapes)

    def __getitem__(self, name: str) -> torch.Tensor:
        """An entry's value in the last step (num_envs, *shape)."""
        return self._tensors[name]

    def add(self, name: str) -> None:
        """Record another entry, a number."""
        if name not in self._shapes:
            self._shapes[name] = ()
            self._values[name] = np.full(self._num_envs, np.nan)
            self._tensors[name] = torch.from_numpy(self._values[name])

    def sources(self) -> list[Source]:
        """The entries as channels."""
        return [
            Source(name=f"info/{name}", read=lambda tensor=tensor: tensor)
            for name, tensor in self._tensors.items()
        ]

    def take(self, infos: Any, ended: np.ndarray | None) -> None:
        """Read the infos that a step returned.

        Args:
            infos: The infos: a dict of arrays, or a dict for each environment.
            ended: The environments that were reset inside the step (num_envs,); their entries
                are in "final_info". None: none was.
        """
        for name, values in self._values.items():
            values.fill(np.nan)
            keys = name.split("/")
            if isinstance(infos, Mapping):
                final = infos.get("final_info") if ended is not None else None
                if final is not None:
                    # ManiSkill's infos of all environments are there if one of them was reset.
                    self._copy(name, final, keys, None)
                    self._copy(name, infos, keys, ~ended if ended is not None else None)
                else:
                    self._copy(name, infos, keys, None if ended is None else ~ended)
            else:
                for env_id, info in enumerate(infos):
                    if ended is not None and ended[env_id]:
                        info = info.get("final_info", info)
                    self._copy_one(name, env_id, info, keys)
            if not self._on_cpu:
                self._tensors[name].copy_(torch.from_numpy(values))

    def _copy(self, name: str, infos: Any, keys: Sequence[str], only: np.ndarray | None) -> None:
        """Copy an entry of a dict of arrays, where its masks say that it is there."""
        mask = np.ones(self._num_envs, bool) if only is None else only
        value = infos
        for key in keys:
            if isinstance(value, np.ndarray) and value.dtype == object:
                self._copy_each(name, value, keys, mask)
                return
            if not isinstance(value, Mapping) or key not in value:
                return
            if f"_{key}" in value:
                mask = mask & _host(value[f"_{key}"]).astype(bool)
            value = value[key]
        if isinstance(value, Mapping) or not mask.any():
            return
        found = _host(value)
        if found.dtype == object:
            for env_id in np.flatnonzero(mask):
                if found[env_id] is not None:
                    self._put(name, int(env_id), found[env_id])
            return
        into = self._values[name]
        if found.shape != into.shape:
            raise self._misfit(name, found.shape[1:])
        into[mask] = found[mask]

    def _copy_each(self, name: str, each: np.ndarray, keys: Sequence[str], mask: Any) -> None:
        """Copy an entry of a dict for each environment, as an object array."""
        for env_id in np.flatnonzero(mask):
            if each[env_id] is not None:
                self._copy_one(name, int(env_id), each[env_id], keys)

    def _copy_one(self, name: str, env_id: int, info: Any, keys: Sequence[str]) -> None:
        for key in keys:
            if not isinstance(info, Mapping) or key not in info:
                return
            info = info[key]
        self._put(name, env_id, info)

    def _put(self, name: str, env_id: int, value: Any) -> None:
        found, into = _host(value), self._values[name]
        if found.shape != into.shape[1:] or found.dtype.kind not in "fiub":
            raise self._misfit(name, found.shape if found.dtype.kind in "fiub" else None)
        into[env_id] = found

    def _misfit(self, name: str, shape: tuple[int, ...] | None) -> ValueError:
        if shape is None:
            return ValueError(f"The info '{name}' is not a number nor an array of numbers.")
        return ValueError(
            f"The info '{name}' has the shape {shape} for one environment, but it is recorded as"
            f" {self._shapes[name]}. Write infos={{{name!r}: {shape}}}."
        )


def final_rows(infos: Any, num_envs: int) -> Any:
    """The observations before resets in a step, as infos have them; None if they do not.

    They are a value of all environments, or an array or list of one value per environment, with
    None for those without.
    """
    if isinstance(infos, Mapping):
        return next((infos[name] for name in FINAL_OBS if name in infos), None)
    rows = [next((info[name] for name in FINAL_OBS if name in info), None) for info in infos]
    return None if all(row is None for row in rows) else rows


def _host(value: Any) -> np.ndarray:
    value = native(value)
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
