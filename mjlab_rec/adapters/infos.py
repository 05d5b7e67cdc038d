"""What environments say in ``info``, as arrays of all environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mjlab_rec.adapters.trees import native
from mjlab_rec.recorders.channels import Source

FINAL_OBS = ("final_obs", "final_observation", "terminal_observation")
"""Names of observations before a reset inside a step: Gymnasium's, ManiSkill's and those of
stable-baselines3."""


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
        self._device = device
        self._all = torch.ones(num_envs, dtype=torch.bool, device=device)
        self._tensors = {name: self._new(shape) for name, shape in self._shapes.items()}

    def _new(self, shape: tuple[int, ...]) -> torch.Tensor:
        size = (len(self._all), *shape)
        return torch.full(size, torch.nan, dtype=torch.float64, device=self._device)

    @property
    def names(self) -> list[str]:
        """Names of the entries."""
        return list(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, name: str) -> torch.Tensor:
        """An entry's value in the last step (num_envs, *shape)."""
        return self._tensors[name]

    def add(self, name: str) -> None:
        """Record another entry, a number."""
        if name not in self._shapes:
            self._shapes[name] = ()
            self._tensors[name] = self._new(())

    def sources(self) -> list[Source]:
        """The entries as channels."""
        return [
            Source(name=f"info/{name}", read=lambda tensor=tensor: tensor)
            for name, tensor in self._tensors.items()
        ]

    def take(self, infos: Any, ended: torch.Tensor | None) -> None:
        """Read the infos that a step returned.

        Args:
            infos: The infos: a dict of arrays, or a dict for each environment.
            ended: The environments that were reset inside the step (num_envs,); their entries
                are in "final_info", or in infos if a wrapper has added them there, such as
                "episode". None: none was.
        """
        for name, values in self._tensors.items():
            values.fill_(torch.nan)
            keys = name.split("/")
            if not isinstance(infos, Mapping):
                for env_id, info in enumerate(infos):
                    self._copy_one(name, env_id, info, keys)
                    if ended is not None and ended[env_id]:
                        self._copy_one(name, env_id, info.get("final_info", {}), keys)
                continue
            self._copy(name, infos, keys, self._all)
            if ended is not None and "final_info" in infos:
                # ManiSkill's has the entries of all environments, and then its infos have only
                # those of the reset, such as the number of steps.
                self._copy(name, infos["final_info"], keys, self._all)
                self._copy(name, infos, keys, ~ended)

    def _copy(self, name: str, infos: Any, keys: Sequence[str], mask: torch.Tensor) -> None:
        """Copy an entry of a dict of arrays, where its masks say that it is there."""
        value = infos
        for key in keys:
            if isinstance(value, np.ndarray) and value.dtype == object:
                break  # A dict for each environment.
            if not isinstance(value, Mapping) or key not in value:
                return
            if f"_{key}" in value:
                mask = mask & self._tensor(value[f"_{key}"]).bool()
            value = value[key]
            keys = keys[1:]
        if isinstance(value, Mapping):
            return
        value = native(value)
        if value.dtype == np.dtype(object):
            for env_id in mask.nonzero().flatten().tolist():
                if value[env_id] is not None:
                    self._copy_one(name, env_id, value[env_id], keys)
            return
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
            raise self._misfit(name, None)
        if not value.ndim:
            raise ValueError(
                f"The info '{name}' is one value for all environments together, but only those"
                " with a value of each environment can be recorded."
            )
        found, into = self._tensor(value), self._tensors[name]
        if found.shape != into.shape:
            raise self._misfit(name, tuple(found.shape[1:]))
        where = mask.view(-1, *[1] * (into.ndim - 1))
        torch.where(where, found.to(into.dtype), into, out=into)

    def _tensor(self, value: Any) -> torch.Tensor:
        value = native(value)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value.astype(np.float64))  # A copy: it may be read-only.
        return value.to(self._device)

    def _copy_one(self, name: str, env_id: int, info: Any, keys: Sequence[str]) -> None:
        for key in keys:
            if not isinstance(info, Mapping) or key not in info:
                return
            info = info[key]
        self._put(name, env_id, info)

    def _put(self, name: str, env_id: int, value: Any) -> None:
        found, into = native(value), self._tensors[name][env_id]
        if isinstance(found, np.ndarray):
            if found.dtype.kind not in "fiub":
                raise self._misfit(name, None)
            found = torch.from_numpy(found.astype(np.float64))
        if found.shape != into.shape:
            raise self._misfit(name, tuple(found.shape))
        into.copy_(found)

    def _misfit(self, name: str, shape: tuple[int, ...] | None) -> ValueError:
        if shape is None:
            return ValueError(f"The info '{name}' is not a number nor an array of numbers.")
        return ValueError(
            f"The info '{name}' has the shape {shape} for one environment, but it is recorded as"
            f" {self._shapes[name]}. Write infos={{{name!r}: {shape}}}."
        )


def final_rows(infos: Any) -> Any:
    """The observations before resets in a step, as infos have them; None if they do not.

    They are a value of all environments, or an array or list of one value per environment, with
    None for those without.
    """
    if isinstance(infos, Mapping):
        return next((infos[name] for name in FINAL_OBS if name in infos), None)
    return [next((info[name] for name in FINAL_OBS if name in info), None) for info in infos]
