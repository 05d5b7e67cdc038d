"""Undo what a computation changes in objects: in their attributes, and in tensors in place."""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

# Values without parts that could change.
_PLAIN = (bool, int, float, complex, str, bytes, slice, range, type(None), type)
_PLAIN += (torch.dtype, torch.device, torch.Size, types.FunctionType, types.ModuleType)
# Objects of these packages are not looked into.
_FOREIGN = ("numpy", "mujoco", "mujoco_warp", "warp", "builtins", "threading", "_thread", "weakref")
_FOREIGN += ("logging", "pathlib", "enum", "re", "omni", "pxr", "carb", "viser", "gymnasium")


class SavedState:
    """What objects and their parts hold now, so that ``restore`` can put it back.

    Parts are found through attributes, lists, dicts and bound methods: numbers, tensors, arrays of
    numpy and Warp, and random generators. Variables of modules and of closures are not found.

    Args:
        roots: The objects.
        left_out: Objects that are not looked into.
    """

    def __init__(self, roots: Iterable[object], left_out: Iterable[object] = ()) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, object] = {id(it): it for it in left_out}  # Keeps ids in use.
        for root in roots:
            self._visit(root)

    def restore(self) -> None:
        """Put everything back."""
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _visit(self, value: Any) -> None:
        if isinstance(value, _PLAIN) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable:
                copy = value.copy()
                self._undo.append(lambda: np.copyto(value, copy))
        elif isinstance(value, torch.Generator):
            self._call(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            self._call(value.setstate, value.getstate())
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            self._call(functools.partial(setattr, bits, "state"), bits.state)
        elif isinstance(value, dict):
            self._container(value, dict(value), value.update)
            self._visit_all(value.values())
        elif isinstance(value, (list, deque)):
            self._container(value, list(value), value.extend)
            self._visit_all(value)
        elif isinstance(value, set):
            self._container(value, set(value), value.update)
        elif isinstance(value, tuple):
            self._visit_all(value)
        elif isinstance(value, types.MethodType):
            self._visit(value.__self__)
        elif isinstance(value, functools.partial):
            self._visit_all((value.func, value.args, value.keywords))
        elif _is_warp_array(value):
            self._warp_array(value)
        elif _is_cfg(value):
            self._visit(getattr(value, "func", None))  # A term that is an object lives here.
        elif type(value).__module__.partition(".")[0] not in _FOREIGN:
            self._object(value)

    def _visit_all(self, values: Iterable[Any]) -> None:
        for value in list(values):
            self._visit(value)

    def _call(self, set: Callable[[Any], object], state: Any) -> None:
        self._undo.append(lambda: (set(state), None)[1])

    def _tensor(self, value: torch.Tensor) -> None:
        if any(n > 1 and step == 0 for n, step in zip(value.shape, value.stride(), strict=True)):
            return  # One number that is seen many times: nothing writes through this view.
        copy = value.detach().clone()
        self._undo.append(lambda: (value.detach().copy_(copy), None)[1])

    def _container(self, value: Any, before: Any, fill: Callable[[Any], object]) -> None:
        def undo() -> None:
            now = list(value.items()) if isinstance(value, dict) else list(value)
            then = list(before.items()) if isinstance(value, dict) else list(before)
            if len(now) == len(then) and all(map(_same, now, then)):
                return
            value.clear()
            fill(before)

        self._undo.append(undo)

    def _warp_array(self, value: Any) -> None:
        import warp

        copy = warp.clone(value)
        self._undo.append(lambda: warp.copy(value, copy))

    def _object(self, value: Any) -> None:
        before = _attributes(value)

        def undo() -> None:
            now = _attributes(value)
            for name in now.keys() - before.keys():
                object.__delattr__(value, name)
            for name, then in before.items():
                if name not in now or now[name] is not then:
                    object.__setattr__(value, name, then)

        self._undo.append(undo)
        self._visit_all(before.values())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other) == 2:
        return one[0] is other[0] and one[1] is other[1]  # An entry of a dict.
    return one is other


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name != "__dict__" and name != "__weakref__" and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _is_warp_array(value: Any) -> bool:
    kind = type(value)
    return (
        kind.__module__.partition(".")[0] == "warp"
        and hasattr(value, "ptr")
        and hasattr(value, "strides")
    )


def _is_cfg(value: Any) -> bool:
    return type(value).__name__.endswith("Cfg") and hasattr(value, "__dataclass_fields__")
