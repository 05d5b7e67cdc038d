"""Ray and camera sensors and what they share: when they are computed, and by which simulation.

The rules, for every sensor with ``requires_sensor_context = True``:

- ``scene.initialize`` makes one `SensorContext` for all of them, ``scene.sensor_context``; it is
  None if there are none. ``sim.set_sensor_context(scene.sensor_context)`` connects it to the
  simulation. Before that, reading such a sensor is an error.
- ``sim.sense()``, ``scene.update()``, ``scene.reset()`` and ``scene.invalidate()`` say that derived
  quantities (body poses, ...) are new. The first ``sensor.data`` after one of them computes the
  sensor, from the derived quantities of that moment and for all worlds at once; further reads
  return the same object. So rewards see rays that fit the bodies they see, observations see rays
  from after the forward pass, and an unread sensor costs nothing.
- A sensor with an ``update_period`` holds each world's sample for that long. Once it has been read
  for the first time, ``sim.sense()`` takes new samples where they are due: where a period has ended
  or the world was reset. In between, also in rewards, ``data`` is the last sample. The clock is the
  world's own and starts at its reset, so no other world's reset matters.
- What ``data`` returned never changes later; every computation makes new tensors.
- If model fields get a value per world, `SensorContext.recreate` tells the sensors.

A sensor derives from `ContextSensor`, says in ``senses`` whether it casts rays or draws pictures,
and implements ``_measure``. Sensors that share a computation can compare
`SensorContext.moment`, which changes whenever derived quantities do.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

import mujoco
import torch

from mjlab_rec.sensor.sensor import Sensor
from mjlab_rec.utils.indexing import EnvIds

if TYPE_CHECKING:
    from mjlab_rec.sim import Simulation
    from mjlab_rec.sim.cameras import CameraLook, Cameras

T = TypeVar("T")

# A sample is due at a tick of the world's clock; rounding of time must not delay it by a step.
_EARLY = 1.0e-4


class SensorContext:
    """What the ray and camera sensors of a scene share.

    Args:
        mj_model: The compiled model.
        model: The simulation's model fields.
        data: The simulation's data fields.
        camera_sensors: Sensors that draw pictures.
        raycast_sensors: Sensors that cast rays.
        device: Where tensors live.
    """

    def __init__(
        self,
        mj_model: mujoco.MjModel,
        model: Any,
        data: Any,
        camera_sensors: Sequence[ContextSensor[Any]],
        raycast_sensors: Sequence[ContextSensor[Any]],
        device: str,
    ) -> None:
        self.mj_model = mj_model
        self.model = model
        self.data = data
        self.device = device
        self.camera_sensors = list(camera_sensors)
        self.raycast_sensors = list(raycast_sensors)
        self.moment = 0
        """Grows whenever derived quantities change: results of an earlier moment are out of
        date."""
        self._sim: Simulation | None = None
        self._cameras: Cameras | None = None
        for sensor in self.sensors:
            sensor.set_context(self)

    @property
    def sensors(self) -> list[ContextSensor[Any]]:
        """All sensors of this context."""
        return [*self.camera_sensors, *self.raycast_sensors]

    @property
    def has_cameras(self) -> bool:
        """Whether a sensor draws pictures."""
        return bool(self.camera_sensors)

    @property
    def has_raycasts(self) -> bool:
        """Whether a sensor casts rays."""
        return bool(self.raycast_sensors)

    @property
    def sim(self) -> Simulation:
        """The simulation that computes rays and pictures."""
        if self._sim is None:
            names = ", ".join(f"'{sensor.name}'" for sensor in self.sensors)
            raise RuntimeError(
                f"The sensors {names} are not connected to a simulation yet. Call"
                " sim.set_sensor_context(scene.sensor_context) after scene.initialize()."
            )
        return self._sim

    def connect(self, sim: Simulation) -> None:
        """Compute everything with this simulation; ``sim.set_sensor_context`` calls it."""
        self._sim = sim
        self._cameras = None
        self.invalidate()

    def cameras(self, look: CameraLook) -> Cameras:
        """What draws pictures, made at the first picture; all camera sensors have the same look."""
        if self._cameras is None:
            self._cameras = self.sim.cameras(look)
        return self._cameras

    def recreate(
        self, mj_model: mujoco.MjModel, expanded_fields: Iterable[str] | None = None
    ) -> None:
        """Tell the sensors that model fields got a value per world.

        Args:
            mj_model: The compiled model.
            expanded_fields: All fields with a value per world, or None if not known.
        """
        self.mj_model = mj_model
        self._cameras = None
        fields = set(expanded_fields or ())
        for sensor in self.sensors:
            sensor.model_changed(fields)
        self.invalidate()

    def sense(self) -> None:
        """Tell all sensors that derived quantities are up to date with the state."""
        self.invalidate()
        for sensor in self.sensors:
            sensor.sense()

    def invalidate(self) -> None:
        """Tell all sensors that derived quantities have changed."""
        self.moment += 1


def make_sensor_context(
    sensors: Iterable[Sensor[Any]], mj_model: mujoco.MjModel, model: Any, data: Any, device: str
) -> SensorContext | None:
    """Make the context of all sensors that need one; None if none does."""
    needing = [cast(ContextSensor[Any], s) for s in sensors if s.requires_sensor_context]
    if not needing:
        return None
    for sensor in needing:
        if not isinstance(sensor, ContextSensor):
            raise TypeError(
                f"The sensor class {type(sensor).__name__} sets requires_sensor_context, but does"
                " not derive from mjlab_rec.sensor.ContextSensor."
            )
    return SensorContext(
        mj_model,
        model,
        data,
        camera_sensors=[s for s in needing if s.senses == "pictures"],
        raycast_sensors=[s for s in needing if s.senses == "rays"],
        device=device,
    )


class ContextSensor(Sensor[T]):
    """Base class of sensors that cast rays or draw pictures, computed when they are read.

    A subclass calls ``super().__init__(name, update_period)`` and ``super().initialize(...)``, sets
    ``senses``, and implements ``_measure``. With an update period, its data must be a tensor or a
    dataclass of tensors, with the worlds as first axis.
    """

    requires_sensor_context = True
    senses: ClassVar[Literal["rays", "pictures"]] = "rays"

    def __init__(self, name: str, update_period: float = 0.0) -> None:
        if not update_period >= 0.0:
            raise ValueError(
                f"Sensor '{name}': update_period must be 0 (every step) or a time in seconds, got"
                f" {update_period}."
            )
        self.name = name
        self.update_period = update_period
        self._context: SensorContext | None = None
        self._value: T | None = None
        self._moment = -1  # of the context, at which the value was computed
        self._time: torch.Tensor | None = None  # (num_envs,), since each world's reset
        # Numbers of the periods of each world's sample, and of those that can no longer change.
        self._tick: torch.Tensor | None = None
        self._last_tick: torch.Tensor | None = None

    @property
    def needs_substeps(self) -> bool:
        """False: the clocks may advance by several physics steps at once."""
        return False

    @abstractmethod
    def _measure(self, worlds: torch.Tensor | None) -> T:
        """Compute new data from the current derived quantities, in new tensors.

        Args:
            worlds: A bool mask (num_envs,) of the worlds whose rows will be used, so that the
                others need no work; None means all.
        """

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Allocate the clocks."""
        self._value = None
        if self.update_period > 0.0:
            self._time = torch.zeros(data.nworld, dtype=torch.float64, device=device)
            self._tick = torch.full_like(self._time, -1.0)
            self._last_tick = self._tick.clone()

    def set_context(self, context: SensorContext) -> None:
        """Compute data with what this context provides."""
        self._context = context
        self._value = None

    @property
    def context(self) -> SensorContext:
        """The context, which a scene sets when it is initialized."""
        if self._context is None:
            raise RuntimeError(
                f"Sensor '{self.name}' has no data yet. Call scene.initialize() first."
            )
        return self._context

    @property
    def data(self) -> T:
        """The current data, or the last sample with an update period. It never changes later."""
        context = self.context
        if self._value is None or (self._time is None and self._moment != context.moment):
            self._compute_data()
        assert self._value is not None
        return self._value

    def model_changed(self, expanded_fields: set[str]) -> None:
        """Adapt to model fields that now have a value per world."""

    def sense(self) -> None:
        """Take the samples that are due, if there is an update period."""
        if self._time is not None and self._value is not None:
            self._compute_data()

    def reset(self, env_ids: EnvIds = None) -> None:
        """Restart the clocks of the given worlds."""
        self.invalidate()
        if self._time is not None:
            assert self._tick is not None and self._last_tick is not None
            index = slice(None) if env_ids is None else env_ids
            self._time[index] = 0.0
            self._tick[index] = -1.0
            self._last_tick[index] = -1.0

    def update(self, dt: float) -> None:
        """Advance the clocks by ``dt`` seconds."""
        self.invalidate()
        if self._time is not None:
            assert self._tick is not None and self._last_tick is not None
            self._time += dt
            # Until here a sample followed the derived quantities of its step.
            self._last_tick.copy_(self._tick)

    def invalidate(self) -> None:
        """Recompute the data at the next read."""
        self._moment = -1

    def _compute_data(self) -> T:
        if self._time is None:
            self._value = self._measure(None)
        else:
            self._sample()
        assert self._value is not None
        self._moment = self.context.moment
        return self._value

    def _sample(self) -> None:
        """Replace the samples that are due, and keep those of other worlds."""
        assert self._time is not None and self._tick is not None and self._last_tick is not None
        tick = torch.floor(self._time / self.update_period + _EARLY)
        if self._value is None:
            self._value = self._measure(None)
        else:
            due = tick != self._last_tick
            if due.is_cpu and not due.any():
                return
            self._value = _choose(due, self._measure(due), self._value)
        self._tick.copy_(tick)


def _choose(worlds: torch.Tensor, new: T, old: T) -> T:
    """Take the rows of `new` in some worlds and of `old` in the others."""

    def choose(one: Any, other: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        return torch.where(worlds.view(-1, *[1] * (one.ndim - 1)), one, other)

    if isinstance(new, torch.Tensor):
        return choose(new, old)
    merged = {
        field.name: choose(getattr(new, field.name), getattr(old, field.name))
        for field in dataclasses.fields(cast(Any, new))
    }
    return dataclasses.replace(cast(Any, new), **merged)
