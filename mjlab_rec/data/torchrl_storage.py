"""A recording as the storage of a TorchRL replay buffer.

Importing this module imports torchrl, so it is imported only where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.data.schema import ChannelSpec, DataError
from mjlab_rec.utils.extras import require

if TYPE_CHECKING:
    from mjlab_rec.data.rollouts import Rollouts

_USER = "A TorchRL storage"
_Storage: Any = require("torchrl.data.replay_buffers.storages", None, _USER, "torchrl").Storage
_TensorDict: Any = require("tensordict", None, _USER).TensorDict

Key = str | tuple[str, ...]


class RolloutStorage(_Storage):
    """Reads rows of a recording by number, as TensorDicts with the keys that TorchRL expects.

    A row has "observation", "action", "step_count", "is_init", "episode" (its place in the table of
    episodes), and under "next" the observation, reward, terminated, truncated and done. A number
    has an axis of length 1. Nothing can be written.

    Args:
        rollouts: The recording.
        channels: Names of channels, by default all.
        observation: The channel that is the observation; others keep their names. By default
            "obs/policy", "obs/actor", or else the first one below "obs/".
        memory_bytes: If all rows fit into this, they are read once.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        channels: Sequence[str] | None,
        observation: str | None,
        memory_bytes: int,
    ) -> None:
        super().__init__(max_size=rollouts.rows)
        names = [name for name in rollouts.names(channels) if name != "step"]
        self._keys = keys(rollouts.channels, names, observation)
        self._rows = rollouts.dataset(channels=[*names, "step"], memory_bytes=memory_bytes)
        rows = rollouts.episodes["rows"].to_numpy().astype(np.int64)
        self._bounds = np.cumsum(rows)
        self._firsts = self._bounds - rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, index: Any) -> Any:
        """The rows with these numbers: an int, a slice, or a sequence, array or tensor of ints."""
        while isinstance(index, tuple) and len(index) == 1:
            index = index[0]
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        numbers = np.asarray(index, np.int64)
        flat = numbers.reshape(-1)
        batch = self._rows.batch(flat)
        flat = np.where(flat < 0, flat + len(self), flat)
        values: dict[Key, torch.Tensor] = {}
        for name, key in self._keys.items():
            values[key] = batch[name] if batch[name].ndim > 1 else batch[name][:, None]
        step = batch["step"].long()[:, None]
        episode = np.searchsorted(self._bounds, flat, "right")
        ends = [values[("next", flag)] for flag in ("terminated", "truncated")
                if ("next", flag) in values]  # fmt: skip
        if ends:
            values["next", "done"] = torch.stack(ends).any(0)
        values["step_count"], values["next", "step_count"] = step, step + 1
        values["is_init"] = torch.from_numpy(flat == self._firsts[episode])[:, None]
        values["episode"] = torch.from_numpy(episode)
        found = _TensorDict({}, batch_size=[len(flat)])
        for key, tensor in values.items():
            found.set(key, tensor)
        return found[0] if not numbers.shape else found.reshape(numbers.shape)

    @staticmethod
    def collate(batch: Any) -> Any:
        """The `collate_fn` for a replay buffer: what ``get`` returns is a batch already."""
        return batch

    def set(self, cursor: Any, data: Any, *, set_cursor: bool = True) -> None:
        """Raise: recordings are not changed."""
        raise DataError("A recording cannot be changed through a replay buffer.")

    def state_dict(self) -> dict[str, Any]:
        """Nothing, because the rows are in the recording."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Do nothing."""

    def _empty(self) -> None:
        raise DataError("A recording cannot be emptied through a replay buffer.")


def keys(
    specs: Mapping[str, ChannelSpec], names: Sequence[str], observation: str | None
) -> dict[str, Key]:
    """The key of each channel in a TensorDict."""
    seen = [name for name in specs if name.startswith("obs/")]
    if observation is None:
        preferred = [name for name in ("obs/policy", "obs/actor") if name in seen]
        observation = next(iter([*preferred, *seen]), None)
    elif observation not in specs:
        known = ", ".join(seen) or "none"
        raise DataError(f"There is no channel '{observation}'. Observations: {known}.")
    found: dict[str, Key] = {}
    for name in names:
        base, after = name, specs[name].when == "after" and name != "action"
        if name.startswith("next_"):
            base, after = name.removeprefix("next_"), True
        base = "observation" if base == observation else base
        path = ["next"] * after + base.split("/")
        found[name] = tuple(path) if len(path) > 1 else path[0]
    return found
