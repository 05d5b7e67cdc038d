"""mjlab's simulation as recorders see it, and its physics put back after an extra forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco
import numpy as np
import torch

from mjlab_rec.sim.engine import state_layout
from mjlab_rec.sim.snapshot import DRAWN_FIELDS
from mjlab_rec.utils.spec_export import files_on_disk, packed, zip_of


class MjlabSim:
    """Shows mjlab's simulation with tensors instead of its proxies, and with whole states.

    Args:
        sim: ``env.sim`` of mjlab.
    """

    engine_name = "warp"

    def __init__(self, sim: Any) -> None:
        self._sim = sim
        self.data = _Tensors(sim, "data")
        self.model = _Tensors(sim, "model")
        self._layout = state_layout(sim.mj_model)
        self.state_size = self._layout[-1].columns.stop

    def __getattr__(self, name: str) -> Any:
        if name == "_sim":
            raise AttributeError(name)
        return getattr(self._sim, name)

    @property
    def per_world_fields(self) -> set[str]:
        """Model fields with a value per world: expanded ones, and recomputed constants."""
        found = set(self._sim.expanded_fields)
        if self._sim.num_envs > 1:
            arrays = ((name, getattr(self._sim.wp_model, name, None)) for name in DRAWN_FIELDS)
            found |= {n for n, a in arrays if a is not None and a.shape[0] == self._sim.num_envs}
        return found

    @property
    def state_layout(self) -> dict[str, slice]:
        """The columns of each field in the state: time, qpos, qvel, ..."""
        return {field.name: field.columns for field in self._layout}

    def get_state(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """Everything that the physics continues from, in the order of MuJoCo's mj_getState."""
        count = self._sim.num_envs
        if out is None:
            out = torch.empty(count, self.state_size, device=self._sim.device)
        for field in self._layout:
            value = getattr(self.data, field.name)
            out[:, field.columns].copy_(value.reshape(count, -1))
        return out


class _Tensors:
    """Fields of mjlab's data or model as plain tensors."""

    def __init__(self, sim: Any, part: str) -> None:
        self._sim, self._part = sim, part

    def __getattr__(self, name: str) -> Any:
        value = getattr(getattr(self._sim, self._part), name)
        is_proxy = type(value).__name__ == "TorchArray"
        return value[...] if is_proxy else value


class MjlabPhysics:
    """Refreshes what mjlab's observations are computed from, and undoes that.

    Args:
        env: mjlab's environment.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._copies: list[tuple[Any, Any]] = []
        self._no_ids = torch.empty(0, dtype=torch.long, device=env.device)

    def objects(self) -> Sequence[object]:
        """Sensors, which keep values between calls."""
        scene = self._env.scene
        return [*scene.sensors.values(), scene.sensor_context]

    def left_out(self) -> Sequence[object]:
        """The rest of the environment."""
        env = self._env
        managers = [value for name, value in vars(env).items() if name.endswith("_manager")]
        sim, scene = env.sim, env.scene
        parts = [env, env.cfg, sim, scene, sim.data, sim.model, sim.mj_model, sim.mj_data]
        return [*parts, *managers, *scene.entities.values()]

    def save(self) -> None:
        """Copy all arrays of the physics."""
        import warp as wp

        with wp.ScopedDevice(self._env.sim.wp_device):
            if not self._copies:
                arrays = _arrays(self._env.sim.wp_data, wp.array)
                self._copies = [(array, wp.clone(array)) for array in arrays]
                return
            for array, saved in self._copies:
                wp.copy(saved, array)

    def refresh(self) -> None:
        """Do what mjlab does between a step's resets and its observations."""
        sim = self._env.sim
        sim.forward()
        for sensor in self._env.scene.sensors.values():
            sensor.reset(self._no_ids)  # Forgets values that it keeps; of no environment else.
        sim.sense()

    def restore(self) -> None:
        """Copy them back."""
        import warp as wp

        with wp.ScopedDevice(self._env.sim.wp_device):
            for array, saved in self._copies:
                wp.copy(array, saved)


def _arrays(struct: Any, kind: type) -> Iterator[Any]:
    """Every array of a struct of MuJoCo-Warp and of the structs in it."""
    for field in dataclasses.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, kind):
            if value.size:
                yield value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _arrays(value, kind)


def model_zip(scene: Any, model: mujoco.MjModel) -> bytes:
    """A scene as ``scene.xml`` and its files in a zip file, with the options of its compiled model.

    mjlab sets options after compiling, and leaves files with the entities that they came with.
    """
    spec = scene.spec.copy()
    files = dict(spec.assets)
    for entity in scene.entities.values():
        for name, data in {**entity.spec.assets, **files_on_disk(entity.spec)}.items():
            if files.setdefault(name, data) != data:
                raise ValueError(f"two entities have different files of the name '{name}'")
    spec.assets = files
    for name in dir(model.opt):
        value = getattr(model.opt, name)
        if name.startswith("_") or callable(value) or not hasattr(spec.option, name):
            continue
        if isinstance(value, np.ndarray):
            getattr(spec.option, name)[:] = value
        else:
            setattr(spec.option, name, value)
    return zip_of(packed(spec, "scene.xml"))
