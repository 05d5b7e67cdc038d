"""Everything that the future of an environment depends on, as plain data and tensors.

``save_state`` and ``load_state`` let another process go on exactly where an environment was: on
the same engine and device, with the same cfg and number of environments, the steps that follow are
the same, bit for bit on a CPU.

State is what managers, terms, sensors, actuators and the environment keep in their attributes:
tensors, arrays, random generators, numbers, texts, and lists and dicts of them. So a term of your
own needs no code for this, as long as it keeps its state in attributes of ``self``; variables of
a module, closures and ``torch.nn.Module``s are not seen. Recorders are left out. Cfgs too: what
curricula changed in them is in ``changed_settings``, which also fits another number of
environments.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mjlab_rec.entity.fields import EngineFields
from mjlab_rec.utils import cfg_paths

if TYPE_CHECKING:
    from mjlab_rec.envs.manager_based_rl_env import ManagerBasedRlEnv

# What belongs to the process, to recordings, or to the physics, which has a state of its own.
_LEFT_OUT = {
    *("sim", "cfg", "recorder_manager", "extras", "metadata", "render_mode", "closed"),
    *("_pid", "_renderer", "_step_lock", "_is_running", "_recordings"),
    *("_acts_once", "_substeps_matter", "device", "num_envs"),
}
# What an entity has looked up in the engine's arrays: it does so when it needs it.
_CACHES = ("_bound", "_derived", "_derived_at")
# Objects of these packages are not looked into.
_FOREIGN = ("torch", "numpy", "mujoco", "mujoco_warp", "warp", "mjbatch", "gymnasium", "builtins")
_FOREIGN += ("threading", "_thread", "logging", "functools", "types", "weakref", "pathlib", "enum")
_PLAIN = (bool, int, float, str)
_GENERATORS = (torch.Generator, random.Random, np.random.Generator)
_KIND = "__kind__"  # Marks what weights_only cannot read as it is.


class StateMismatchError(ValueError):
    """A saved state does not fit this environment."""


def save_state(env: ManagerBasedRlEnv) -> dict[str, Any]:
    """Return the state of an environment between two steps: tensors, numbers and texts.

    Tensors may share memory with the environment: write them to a file before the next step.
    """
    sim = env.sim
    expanded = sorted(sim.expanded_fields)
    return {
        "num_envs": env.num_envs,
        "engine": sim.engine_name,
        "device": torch.device(env.device).type,
        "physics": sim.get_state(),
        # Otherwise derived quantities follow from the state.
        "derived": {} if env.cfg.forward_after_step else sim.get_derived(),
        "model": {name: getattr(sim.model, name) for name in expanded},
        "recomputed": bool(sim.per_world_fields - sim.expanded_fields),
        "generation": sim.data.generation,
        "attributes": {slot.path: _encode(slot.value) for slot in _Walk(env).slots},
    }


@torch.no_grad()
def load_state(env: ManagerBasedRlEnv, state: Mapping[str, Any]) -> None:
    """Continue from a saved state.

    Args:
        env: An environment made from the same cfg, between two steps.
        state: What ``save_state`` returned.

    Raises:
        StateMismatchError: It is the state of another environment; nothing was changed.
    """
    from mjlab_rec.sim.cfg import RecomputeLevel

    sim, walk = env.sim, _Walk(env)
    slots = {slot.path: slot for slot in walk.slots}
    missing = [path for path in state["attributes"] if _owner(path, slots, walk) is None]
    _check(env, state, missing)
    for name, value in state["model"].items():
        getattr(sim.model, name).copy_(value)
    if state["recomputed"]:
        sim.recompute_constants(RecomputeLevel.set_const)
    sim.set_state(state["physics"])
    # Values that were computed from the physics are marked with its generation.
    sim.data.__dict__["generation"] = max(sim.data.generation, state["generation"])
    written: dict[int, torch.Tensor] = {}
    for path, value in state["attributes"].items():
        slot = slots.get(path)
        if slot is not None:
            slot.set(_restored(slot.value, _decode(value), env.device, written))
        else:
            owner, name = _owner(path, slots, walk) or (None, "")
            object.__setattr__(owner, name, _restored(None, _decode(value), env.device, written))
    sim.set_derived(state["derived"])
    env.scene.invalidate()
    sim.sense()


def settings(env: ManagerBasedRlEnv) -> dict[str, Any]:
    """Plain values in the live cfgs of all terms, by path: what curricula may change."""
    found = {}
    for path, cfg in _Walk(env).cfgs.items():
        for leaf in cfg_paths.leaves(cfg):
            if _is_leaf(leaf.value) and not _has_tensor(leaf.value):
                found[f"{path}.{leaf.path}"] = _encode(leaf.value)
    return found


def changed_settings(env: ManagerBasedRlEnv, before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from what ``settings`` returned before."""
    return {
        path: value
        for path, value in settings(env).items()
        if path in before and before[path] != value
    }


def set_settings(env: ManagerBasedRlEnv, changed: Mapping[str, Any]) -> list[str]:
    """Apply changed settings, and return those that this environment does not have."""
    cfgs = _Walk(env).cfgs
    unknown = []
    for path, value in changed.items():
        holder = max((p for p in cfgs if path.startswith(f"{p}.")), key=len, default=None)
        new = _decode(value)
        try:
            if holder is None:
                raise cfg_paths.CfgPathError(path)
            cfg_paths.update(cfgs[holder], path[len(holder) + 1 :], lambda leaf, new=new: new)
        except cfg_paths.CfgPathError:
            unknown.append(path)
    return unknown


class _Slot:
    """A value of an object, list or dict."""

    def __init__(self, path: str, value: Any, set: Callable[[Any], None]) -> None:
        self.path, self.value, self.set = path, value, set


class _Walk:
    """Finds all state below an environment, each object once and in the same order."""

    def __init__(self, env: ManagerBasedRlEnv) -> None:
        self.slots: list[_Slot] = []
        self.cfgs: dict[str, Any] = {}
        """Cfgs, by path."""
        self.objects: dict[str, Any] = {"env": env}
        """Objects, by path."""
        self._seen = {id(env), id(env.sim), id(env.cfg), id(env.recorder_manager)}
        views = [env.sim.data, env.sim.model]
        live = [value for view in views for value in vars(view).values()]
        # Values of the physics are in its own state, or follow from it.
        self._physics = {_storage(v) for v in live if isinstance(v, torch.Tensor)}
        for name in sorted(vars(env)):
            if name not in _LEFT_OUT:
                self._visit(f"env.{name}", vars(env)[name], _attribute(env, name))

    def _visit(self, path: str, value: Any, set: Callable[[Any], None]) -> None:
        if _is_leaf(value):
            if isinstance(value, torch.Tensor) and _storage(value) in self._physics:
                return
            if isinstance(value, _GENERATORS):
                if id(value) in self._seen:
                    return
                self._seen.add(id(value))
            self.slots.append(_Slot(path, value, set))
            return
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(value, type):
            self._visit(f"{path}.__self__", owner, lambda new: None)
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, dict):
            for key, child in list(value.items()):
                self._visit(f"{path}[{key!r}]", child, _item(value, key))
        elif isinstance(value, (list, tuple, deque)):
            for index, child in enumerate(value):
                fixed = isinstance(value, tuple)
                setter = (lambda new: None) if fixed else _item(value, index)
                self._visit(f"{path}[{index}]", child, setter)
        elif _is_cfg(value):
            self.cfgs[path] = value
        elif _has_state(value):
            self.objects[path] = value
            caches = _CACHES if isinstance(value, EngineFields) else ()
            for name in _attributes(value):
                if name in caches:
                    continue
                self._visit(f"{path}.{name}", getattr(value, name), _attribute(value, name))


def _check(env: ManagerBasedRlEnv, state: Mapping[str, Any], missing: list[str]) -> None:
    differences = []
    here = {
        "num_envs": env.num_envs,
        "engine": env.sim.engine_name,
        "device": torch.device(env.device).type,
    }
    for name, ours in here.items():
        if state[name] != ours:
            differences.append(f"{name} is {ours!r} here and {state[name]!r} there")
    shape = (env.num_envs, env.sim.state_size)
    if not differences and tuple(state["physics"].shape) != shape:
        differences.append(f"the physics has {shape[1]} numbers, not {state['physics'].shape[1]}")
    if set(state["model"]) != env.sim.expanded_fields:
        differences.append("other model fields are randomized")
    if missing:
        differences.append(f"{missing[0]} and {len(missing) - 1} other parts are missing here")
    if differences:
        raise StateMismatchError(
            f"The saved state is that of another environment: {'; '.join(differences)}."
        )


def _owner(path: str, slots: Mapping[str, _Slot], walk: _Walk) -> tuple[Any, str] | None:
    """The object and attribute of a path, also if the attribute does not exist yet."""
    parent, _, name = path.rpartition(".")
    if path in slots:
        return slots, name
    return (walk.objects[parent], name) if parent in walk.objects and name.isidentifier() else None


def _restored(
    old: Any, new: Any, device: str, written: dict[int, torch.Tensor] | None = None
) -> Any:
    """The value that takes the place of the old one, which is written in place where possible."""
    written = {} if written is None else written
    if isinstance(new, torch.Tensor):
        fits = isinstance(old, torch.Tensor) and (old.shape, old.dtype) == (new.shape, new.dtype)
        if not fits or old.is_inference():
            return new.to(device if old is None else _device_of(old, device)).clone()
        if id(old) in written and not torch.equal(old.cpu(), new.cpu()):
            return new.to(old.device).clone()  # Here two names share what was separate there.
        if not torch.equal(old.cpu(), new.cpu()):
            old.copy_(new)
        written[id(old)] = old
        return old
    if isinstance(new, np.ndarray) and isinstance(old, np.ndarray) and old.shape == new.shape:
        old[...] = new
        return old
    if isinstance(new, _Generator):
        new.put_into(old)
        return old
    if isinstance(new, dict):
        into = old if isinstance(old, dict) else {}
        values = {k: _restored(into.get(k), v, device, written) for k, v in new.items()}
        into.clear()
        into.update(values)
        return into
    if isinstance(new, (list, tuple, deque, set)):
        known = list(old) if isinstance(old, type(new)) and not isinstance(old, set) else []
        known += [None] * (len(new) - len(known))
        values = [_restored(k, v, device, written) for k, v in zip(known, new, strict=False)]
        if isinstance(old, (list, deque)) and isinstance(new, type(old)):
            old.clear()
            old.extend(values)
            return old
        return type(new)(values)
    return new


class _Generator:
    """The state of a random generator."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def put_into(self, generator: Any) -> None:
        if isinstance(generator, torch.Generator):
            generator.set_state(self.state)
        elif isinstance(generator, random.Random):
            generator.setstate(self.state)
        else:
            generator.bit_generator.state = self.state


def _encode(value: Any) -> Any:
    """Turn a leaf into what ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return {_KIND: "array", "value": torch.from_numpy(np.array(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Generator):
        return {_KIND: "generator", "value": value.get_state()}
    if isinstance(value, random.Random):
        return {_KIND: "generator", "value": value.getstate()}
    if isinstance(value, np.random.Generator):
        return {_KIND: "generator", "value": _encode(dict(value.bit_generator.state))}
    if isinstance(value, slice):
        return {_KIND: "slice", "value": [value.start, value.stop, value.step]}
    if isinstance(value, (deque, set)):
        return {_KIND: type(value).__name__, "value": [_encode(v) for v in value]}
    if isinstance(value, dict):
        return {key: _encode(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(_encode(entry) for entry in value)
    return value


def _decode(value: Any) -> Any:
    """Undo ``_encode``."""
    if isinstance(value, dict) and _KIND in value:
        inner = _decode(value["value"])
        kinds: dict[str, Callable[[Any], Any]] = {
            "array": lambda v: v.numpy(),
            "generator": _Generator,
            "slice": lambda v: slice(*v),
            "deque": deque,
            "set": set,
        }
        return kinds[value[_KIND]](inner)
    if isinstance(value, dict):
        return {key: _decode(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_decode(entry) for entry in value)
    return value


def _is_leaf(value: Any) -> bool:
    """Whether a value is saved as it is: plain data and tensors, and what holds only these."""
    if value is None or isinstance(value, (torch.Tensor, slice, *_GENERATORS)):
        return not isinstance(value, torch.nn.Parameter)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biuf"
    if type(value) in _PLAIN:
        return True
    if type(value) is dict:
        return all(type(k) in _PLAIN for k in value) and all(map(_is_leaf, value.values()))
    return type(value) in (list, tuple, set, deque) and all(map(_is_leaf, value))


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensor, value.values()))
    if isinstance(value, (list, tuple, set, deque)):
        return any(map(_has_tensor, value))
    return isinstance(value, (torch.Tensor, np.ndarray, *_GENERATORS))


def _is_cfg(value: Any) -> bool:
    return type(value).__name__.endswith("Cfg") and hasattr(value, "__dataclass_fields__")


def _has_state(value: Any) -> bool:
    if callable(value) and isinstance(value, type) or isinstance(value, torch.nn.Module):
        return False
    package, _, rest = type(value).__module__.partition(".")
    if package in _FOREIGN or rest.startswith(("sim.", "recorders.")) and package == "mjlab_rec":
        return False
    return bool(_attributes(value))


def _attributes(value: Any) -> list[str]:
    """Names of an object's attributes."""
    names = list(getattr(value, "__dict__", ()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if not name.startswith("__") and hasattr(value, name)]


def _attribute(owner: Any, name: str) -> Callable[[Any], None]:
    def set(value: Any) -> None:
        if getattr(owner, name) is not value:
            object.__setattr__(owner, name, value)

    return set


def _item(owner: Any, key: Any) -> Callable[[Any], None]:
    def set(value: Any) -> None:
        if owner[key] is not value:
            owner[key] = value

    return set


def _device_of(old: Any, device: str) -> Any:
    return old.device if isinstance(old, torch.Tensor) else device


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
