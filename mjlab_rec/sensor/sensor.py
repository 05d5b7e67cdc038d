"""The base classes of all sensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import mujoco
import torch

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

T = TypeVar("T")


@dataclass
class SensorCfg(ABC):
    """A sensor to add to the scene."""

    name: str
    """Name of the sensor in the scene."""

    @property
    def prefixed_name(self) -> str:
        """The key of the sensor in ``scene.sensors``."""
        return self.name

    @abstractmethod
    def build(self) -> Sensor[Any]:
        """Make the sensor."""


class Sensor(ABC, Generic[T]):
    """Base class of sensors: edits the scene's spec before compiling, then gives data of type T.

    Data is computed whenever it is read, so it is always as current as the simulation. A sensor
    that caches data must drop it in ``invalidate``.
    """

    requires_sensor_context: bool = False
    """Whether it casts rays or draws pictures, with a ``SensorContext``; see `ContextSensor`."""

    @property
    def needs_substeps(self) -> bool:
        """Whether ``update`` must run after every physics step rather than once a control step."""
        return type(self).update is not Sensor.update

    @abstractmethod
    def edit_spec(self, scene_spec: mujoco.MjSpec, entities: dict[str, Entity]) -> None:
        """Add what the sensor needs to the scene's spec, before it is compiled."""

    @abstractmethod
    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Look up indices and allocate state, after compiling.

        Args:
            mj_model: The compiled model.
            model: The simulation's model fields.
            data: The simulation's data fields.
            device: Where tensors live.
        """

    @property
    def data(self) -> T:
        """The current data, a copy that later steps do not change."""
        return self._compute_data()

    @abstractmethod
    def _compute_data(self) -> T:
        """Compute the current data."""

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Override to draw what the sensor measures."""

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> None:
        """Clear the history of the given worlds."""

    def update(self, dt: float) -> None:
        """Update the sensor after a physics step of ``dt`` seconds."""

    def invalidate(self) -> None:
        """Drop cached data: the simulation has changed, with or without a step."""
