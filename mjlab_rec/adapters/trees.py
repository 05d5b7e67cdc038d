"""Values of Gymnasium spaces as arrays with names, and buffers that hold them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from mjlab_rec.data.block_memory import torch_dtype
from mjlab_rec.data.schema import DataError

logger = logging.getLogger(__name__)

# Types that files do not have, and those that hold the same numbers.
_WIDER = {np.dtype("uint16"): np.dtype("int32"), np.dtype("uint32"): np.dtype("int64")}
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """An array in the values of a space."""

    name: str
    """Keys and positions with slashes between them; "" if the value is an array itself."""

    keys: tuple[Any, ...]
    """What leads to it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    """Of one environment's array, as files have it."""

    def of(self, value: Any) -> Any:
        """The array in a value of the space."""
        for key in self.keys:
            value = value[key]
        return value


def leaves(space: gymnasium.Space, what: str) -> list[Leaf]:
    """The arrays in the values of one environment's space.

    Parts that are no arrays of a fixed shape are left out, with a warning.

    Args:
        space: The space.
        what: What it is for, for messages.

    Raises:
        ValueError: If nothing is left.
    """
    left_out: list[str] = []
    found = _leaves(space, (), left_out)
    if not found:
        raise ValueError(
            f"The {what} space {space} cannot be recorded: its values are not arrays of a fixed"
            " shape. Possible are Box, Discrete, MultiDiscrete and MultiBinary, and Dict and Tuple"
            " of them. Put a wrapper inside that turns the values into arrays, such as"
            " gymnasium.wrappers.TransformObservation."
        )
    if left_out:
        logger.warning(
            "Parts of the %s space are not recorded, because they are not arrays of a fixed shape:"
            " %s.",
            *(what, ", ".join(left_out)),
        )
    return found


def _leaves(space: gymnasium.Space, keys: tuple[Any, ...], left_out: list[str]) -> list[Leaf]:
    name = "/".join(map(str, keys))
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return [leaf for key, part in parts for leaf in _leaves(part, (*keys, key), left_out)]
    if isinstance(space, _ARRAYS) and space.shape is not None and space.dtype is not None:
        dtype = np.dtype(space.dtype)
        dtype = _WIDER.get(dtype, dtype)
        try:
            torch_dtype(dtype)
            return [Leaf(name=name, keys=keys, shape=tuple(space.shape), dtype=dtype)]
        except DataError:
            left_out.append(f"{name or 'all'} ({dtype})")
            return []
    left_out.append(f"{name or 'all'} ({type(space).__name__})")
    return []


class Buffer:
    """A copy of an array of all environments, which keeps its type and shape.

    Args:
        name: What it is, for messages.
        shape: Shape of one environment's value.
        dtype: Type of the numbers.
        num_envs: Number of environments.
        device: Where to keep it.
    """

    def __init__(
        self, name: str, shape: Sequence[int], dtype: np.dtype, num_envs: int, device: str
    ) -> None:
        self._name = name
        self._wants = dtype
        self.tensor = torch.zeros((num_envs, *shape), dtype=torch_dtype(dtype), device=device)
        """(num_envs, *shape)."""
        self._array = self.tensor.numpy() if self.tensor.device.type == "cpu" else None
        self._rounds = False  # Whether values were changed to fit, which is said once.

    def put(self, value: Any) -> None:
        """Copy a value of all environments."""
        value = native(value)
        if isinstance(value, torch.Tensor):
            self._check(value)
            if value.dtype != self.tensor.dtype:
                self._warn_if_rounded(value.cpu().numpy(), str(value.dtype))
            self.tensor.copy_(value)
            return
        array = self._array
        if array is not None and value.dtype == array.dtype and value.shape == array.shape:
            np.copyto(array, value)
            return
        self._check(value)
        if value.dtype != self._wants:
            self._warn_if_rounded(value, str(value.dtype))
            value = value.astype(self._wants)
        if array is not None:
            np.copyto(array, value)
        else:
            self.tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def put_rows(self, value: Any, env_ids: torch.Tensor) -> None:
        """Copy a value of all environments, but only for some of them."""
        value = native(value)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, dtype=self._wants))
        self._check(value)
        rows = value.to(self.tensor.device)[env_ids]
        self.tensor[env_ids] = rows.to(self.tensor.dtype)

    def put_row(self, value: Any, env_id: int) -> None:
        """Copy one environment's value."""
        value = native(value)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, dtype=self._wants))
        self.tensor[env_id].copy_(value)

    def take_type_of(self, value: Any) -> None:
        """Adopt the type of a value of all environments, if it has another one than its space."""
        value = native(value)
        known = str(value.dtype).removeprefix("torch.")
        dtype = np.dtype(known)
        dtype = _WIDER.get(dtype, dtype)
        if dtype != self._wants and dtype.kind in "fiub":
            tensor = self.tensor
            self.__init__(
                self._name, tensor.shape[1:], dtype, len(tensor), device=str(tensor.device)
            )

    def _check(self, value: Any) -> None:
        if tuple(value.shape) != tuple(self.tensor.shape):
            raise ValueError(
                f"{self._name} has the shape {tuple(value.shape)}, but its space says"
                f" {tuple(self.tensor.shape)}: the number of environments, then the shape of one"
                " environment's value."
            )

    def _warn_if_rounded(self, value: np.ndarray, given: str) -> None:
        if self._rounds:
            return
        cast = value.astype(self._wants)
        if not np.array_equal(cast.astype(value.dtype), value, equal_nan=value.dtype.kind == "f"):
            self._rounds = True
            logger.warning(
                "%s is of type %s, but is recorded as %s, the type of its space, and so it is"
                " rounded. Let both be the same to record it exactly.",
                *(self._name, given, self._wants),
            )


def native(value: Any) -> Any:
    """A value as a numpy array or a torch tensor, without a copy if possible."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib", "cupy"):
        device = getattr(value, "device", None)
        if getattr(device, "platform", "cpu") != "cpu" or hasattr(
            value, "__cuda_array_interface__"
        ):
            return torch.from_dlpack(value)
    return np.asarray(value)
