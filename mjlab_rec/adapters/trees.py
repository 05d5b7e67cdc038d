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

    single: bool
    """Whether values are those of one environment, without an axis of environments."""

    def of(self, value: Any) -> Any:
        """The array in a value of the space: (environments, *shape)."""
        for key in self.keys:
            value = value[key]
        return native(value)[None] if self.single else value


def leaves(space: gymnasium.Space, what: str, single: bool) -> list[Leaf]:
    """The arrays in the values of one environment's space.

    Parts that are no arrays of a fixed shape are left out, with a warning.

    Args:
        space: The space.
        what: What it is for, for messages.
        single: Whether values are those of one environment, without an axis of environments.

    Raises:
        ValueError: If nothing is left.
    """
    left_out: list[str] = []
    found = _leaves(space, (), single, left_out)
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
    names = [leaf.name for leaf in found]
    if len(set(names)) < len(names):
        twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
        raise ValueError(
            f"The {what} space has several parts that are recorded under the same name: {twice}."
            " Names are keys with slashes between them; use keys without slashes."
        )
    return found


def _leaves(
    space: gymnasium.Space, keys: tuple[Any, ...], single: bool, left_out: list[str]
) -> list[Leaf]:
    name = "/".join(map(str, keys))
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        each = (_leaves(part, (*keys, key), single, left_out) for key, part in parts)
        return [leaf for found in each for leaf in found]
    if isinstance(space, _ARRAYS) and space.shape is not None and space.dtype is not None:
        dtype = np.dtype(space.dtype)
        dtype = _WIDER.get(dtype, dtype)
        try:
            torch_dtype(dtype)
        except DataError:
            left_out.append(f"{name or 'all'} ({dtype})")
            return []
        return [Leaf(name=name, keys=keys, shape=tuple(space.shape), dtype=dtype, single=single)]
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
        array = self._array
        if (
            array is not None
            and isinstance(value, np.ndarray)
            and value.dtype == array.dtype
            and value.shape == array.shape
        ):
            np.copyto(array, value)
            return
        value = native(value)
        self._check(value)
        if isinstance(value, torch.Tensor):
            self.tensor.copy_(self._converted(value))
        elif array is not None:
            np.copyto(array, self._converted(value))
        else:
            self.tensor.copy_(torch.from_numpy(np.ascontiguousarray(self._converted(value))))

    def put_rows(self, value: Any, env_ids: torch.Tensor) -> None:
        """Copy a value of all environments, but only for some of them."""
        value = native(value)
        self._check(value)
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, dtype=self._wants))
        rows = value.to(self.tensor.device)[env_ids]
        self.tensor[env_ids] = rows.to(self.tensor.dtype)

    def put_row(self, value: Any, env_id: int) -> None:
        """Copy one environment's value."""
        value = native(value)
        into = self.tensor[env_id]
        if tuple(value.shape) != tuple(into.shape):
            raise ValueError(
                f"{self._name} of environment {env_id} has the shape {tuple(value.shape)}, but its"
                f" space says {tuple(into.shape)}."
            )
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, dtype=self._wants))
        into.copy_(value)

    def take_type_of(self, value: Any) -> None:
        """Adopt the type of a value of all environments, if it has another one than its space."""
        known = str(native(value).dtype).removeprefix("torch.")
        try:
            dtype = np.dtype(known)
            dtype = _WIDER.get(dtype, dtype)
            torch_dtype(dtype)
        except (TypeError, DataError):
            return  # A type that files do not have.
        if dtype != self._wants:
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

    def _converted(self, value: Any) -> Any:
        """The value in this type; what that rounds is said once."""
        given = value.dtype
        if isinstance(value, torch.Tensor):
            wants: Any = self.tensor.dtype
            same_kind = given.is_floating_point == wants.is_floating_point
            fits = same_kind and torch.promote_types(given, wants) == wants
            cast: Any = value.to(wants)
            back = cast if fits else cast.to(given)
        else:
            wants = self._wants
            fits = np.can_cast(given, wants) and (given.kind == "f") == (wants.kind == "f")
            cast = value.astype(wants, copy=False)
            back = cast if fits else cast.astype(given)
        if not (fits or self._rounds) and ((back != value) & (value == value)).any():  # No NaN.
            self._rounds = True
            logger.warning(
                "%s is of type %s, but is recorded as %s, the type of its space, and so it is"
                " rounded. Let both be the same to record it exactly.",
                *(self._name, given, wants),
            )
        return cast


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
