"""MuJoCo-Warp's structs with their arrays as torch tensors, under mjlab's module name."""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor


class _AnyTensor(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor)


class TorchArray(metaclass=_AnyTensor):
    """``TorchArray(array)`` is a warp array as a torch tensor, which shares its memory.

    There is no class of its own for that: every tensor is an instance.
    """

    def __new__(cls, wp_array: Any, nworld: int | None = None) -> Tensor:  # type: ignore[misc]
        """View the array; one row that is meant for all worlds is shown once per world."""
        with torch.inference_mode(False):
            tensor = as_tensor(wp_array)
        for_all = wp_array.ndim and wp_array.shape[0] == 1
        for_all = for_all and (wp_array.strides[0] == 0 or getattr(wp_array, "_is_batched", False))
        return tensor.expand(nworld, *tensor.shape[1:]) if nworld and for_all else tensor


class WarpBridge:
    """A struct of MuJoCo-Warp whose arrays, also in structs inside it, are torch tensors.

    Other fields are what they are. No field can be replaced, because captured graphs hold the
    addresses of the arrays: write into them.
    """

    def __init__(self, struct: Any, nworld: int | None = None) -> None:
        self.__dict__.update(_struct=struct, _nworld=nworld, _views={})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._struct, name)
        kept = self._views.get(name)
        if kept is not None and kept[0] is value:
            return kept[1]
        if isinstance(value, wp.array):
            view: Any = TorchArray(value, self._nworld)
        elif any(isinstance(field, wp.array) for field in getattr(value, "__dict__", {}).values()):
            view = WarpBridge(value, self._nworld)
        else:
            return value
        # An array that was replaced since then is another object.
        self._views[name] = (value, view)
        return view

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"Cannot set attribute {name!r} on WarpBridge: captured graphs hold the addresses of"
            f" arrays. Use in-place operations instead: {name}[:] = value"
        )

    def __repr__(self) -> str:
        return f"WarpBridge({type(self._struct).__name__})"

    @property
    def struct(self) -> Any:
        """The struct itself."""
        return self._struct

    def clear_cache(self) -> None:
        """Forget all views."""
        self._views.clear()


def as_tensor(array: Any) -> Tensor:
    """Return a warp array as a tensor that shares its memory."""
    if array.size:
        return wp.to_torch(array)
    # warp cannot convert empty arrays on the CPU.
    shape = (*array.shape, *getattr(array.dtype, "_shape_", ()))
    scalar = getattr(array.dtype, "_wp_scalar_type_", array.dtype)
    return torch.empty(shape, dtype=wp.dtype_to_torch(scalar), device=str(array.device))
