"""`sim.data` and `sim.model`: physics fields as torch tensors, bound on first use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.sim.engine import (
    Engine,
    array_names,
    has_world_axis,
    uniform_shape,
    why_not_computed,
)
from mjlab_rec.utils.string import nearest


class DataView:
    """The data of all worlds: `data.qpos` is a live tensor (num_envs, nq) at a fixed address.

    A field is bound on first use, and is then an ordinary attribute that is cheap to read.
    """

    nworld: int
    generation: int
    """Rises whenever the engine may have changed what it derives from the state."""
    _engine: Engine
    _mj_model: mujoco.MjModel

    def __init__(self, engine: Engine, model: mujoco.MjModel, num_envs: int) -> None:
        self.__dict__.update(_engine=engine, _mj_model=model, nworld=num_envs, generation=0)

    # Reached only while the attribute does not exist.
    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        reason = why_not_computed(name, self._mj_model)
        if reason:
            raise AttributeError(reason)
        # A tensor created in inference mode could not be written outside it.
        with torch.inference_mode(False):
            try:
                tensor = self._bind(name)
            except KeyError:
                raise AttributeError(
                    f"Unknown data field {name!r} on engine {self._engine.name!r}. "
                    f"{nearest(name, self._engine.data_fields())}"
                ) from None
        self.__dict__[name] = tensor
        return tensor

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(_no_assignment("data", name))

    def renew(self) -> None:
        """Say that derived fields changed, so that what was computed from them is out of date."""
        self.__dict__["generation"] += 1

    def _bind(self, name: str) -> Any:
        try:
            return self._engine.bind(name)
        except KeyError:
            return self._engine.data_struct(name)


class ModelView:
    """The model of all worlds.

    Numbers such as `geom_friction` have the shape (num_envs, ngeom, 3): the live per-world array
    once the field is expanded, before that a broadcast of the shared value (expand it to write it).
    Ids, types and flags such as `geom_bodyid` are shared and have no such axis; neither do sizes
    such as `nbody`. Options are in `opt`, statistics in `stat`.
    """

    _engine: Engine
    _mj_model: mujoco.MjModel
    _num_envs: int
    _device: torch.device

    def __init__(
        self, engine: Engine, model: mujoco.MjModel, num_envs: int, device: torch.device
    ) -> None:
        self.__dict__.update(_engine=engine, _mj_model=model, _num_envs=num_envs, _device=device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        with torch.inference_mode(False):
            value = self._look_up(name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(_no_assignment("model", name))

    def forget(self, names: Iterable[str]) -> None:
        """Look up these fields again on their next use."""
        for name in names:
            self.__dict__.pop(name, None)

    def _look_up(self, name: str) -> Any:
        if name in self._engine.per_world:
            return self._engine.model_field(name)
        if name in ("opt", "stat"):
            return self._engine.model_struct(name)
        value = getattr(self._mj_model, name, None)
        if isinstance(value, (int, np.integer)):
            return int(value)
        if not isinstance(value, np.ndarray):
            raise AttributeError(
                f"Unknown model field {name!r}. {nearest(name, array_names(self._mj_model))} "
                "Names are in sim.mj_model."
            )
        tensor = default_value(name, value).to(self._device)
        if has_world_axis(name, value):
            tensor = tensor.expand(self._num_envs, *tensor.shape)
        return tensor


class SharedStruct:
    """MuJoCo's options or statistics: numbers as read-only tensors with an equal row per world.

    Choices, counts and flags are plain integers.
    """

    def __init__(self, struct: Any, path: str, num_envs: int) -> None:
        self.__dict__.update(_struct=struct, _path=path, _num_envs=num_envs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        known = [field for field in dir(self._struct) if not field.startswith("_")]
        if name not in known:
            raise AttributeError(f"Unknown field {self._path}.{name}. {nearest(name, known)}")
        value = getattr(self._struct, name)
        if isinstance(value, (float, np.ndarray)):
            tensor = torch.tensor(np.asarray(value), dtype=torch.float32)
            return tensor.expand(self._num_envs, *tensor.shape)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"Cannot set {self._path}.{name} in a running simulation. Set it in"
            " SimulationCfg.mujoco."
        )


def default_value(name: str, value: np.ndarray) -> torch.Tensor:
    """Return a C MuJoCo model field as a tensor with the shape and type of `sim.model`."""
    dtype = np.float32 if value.dtype.kind == "f" else value.dtype
    return torch.from_numpy(np.array(value, dtype).reshape(uniform_shape(name, value.shape)))


def _no_assignment(view: str, name: str) -> str:
    return (
        f"Cannot replace sim.{view}.{name}: the engine keeps its own memory. Write into it "
        f"instead: sim.{view}.{name}[:] = value"
    )
