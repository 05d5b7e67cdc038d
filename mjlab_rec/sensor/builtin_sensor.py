"""MuJoCo's own sensors, added to the scene or found in an entity's XML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import mujoco
import torch

from mjlab_rec.sensor.sensor import Sensor, SensorCfg
from mjlab_rec.utils.indexing import Columns
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity

SensorType = Literal[
    "accelerometer",
    "velocimeter",
    "gyro",
    "force",
    "torque",
    "magnetometer",
    "rangefinder",
    "jointpos",
    "jointvel",
    "jointlimitpos",
    "jointlimitvel",
    "jointlimitfrc",
    "jointactuatorfrc",
    "tendonpos",
    "tendonvel",
    "tendonactuatorfrc",
    "actuatorpos",
    "actuatorvel",
    "actuatorfrc",
    "framepos",
    "framequat",
    "framexaxis",
    "frameyaxis",
    "framezaxis",
    "framelinvel",
    "frameangvel",
    "framelinacc",
    "frameangacc",
    "subtreecom",
    "subtreelinvel",
    "subtreeangmom",
    "e_potential",
    "e_kinetic",
    "clock",
]
ObjType = Literal["body", "xbody", "joint", "geom", "site", "actuator", "tendon", "camera"]

_MUJOCO_NAMES = {"jointactuatorfrc": "JOINTACTFRC", "tendonactuatorfrc": "TENDONACTFRC"}
_SITE_SENSORS = get_args(SensorType)[:7]
_FRAMES: tuple[ObjType, ...] = ("body", "xbody", "geom", "site", "camera")


def _allowed_objects(sensor_type: str) -> tuple[ObjType, ...]:
    """Return the object types a sensor may be attached to; none if it measures the whole model."""
    if sensor_type in _SITE_SENSORS:
        return ("site",)
    if sensor_type.startswith("frame"):
        return _FRAMES
    if sensor_type.startswith("subtree"):
        return ("body",)
    for kind in ("joint", "tendon", "actuator"):
        if sensor_type.startswith(kind):
            return (kind,)
    return ()


@dataclass
class ObjRef:
    """An object of the scene that a sensor is attached to or measures relative to."""

    type: ObjType
    """Type of the object. "body" is a body's inertial frame, "xbody" its own."""

    name: str
    """Name of the object."""

    entity: str | None = None
    """Entity the object belongs to; None takes the name as it is in the scene."""

    def prefixed_name(self) -> str:
        """The name in the scene."""
        return f"{self.entity}/{self.name}" if self.entity else self.name


@dataclass
class BuiltinSensorCfg(SensorCfg):
    """One of MuJoCo's sensors, called `<entity>/<name>` if it is on an entity's object."""

    sensor_type: SensorType
    """What to measure, by MuJoCo's name."""

    obj: ObjRef | None = None
    """The object that the sensor is attached to."""

    ref: ObjRef | None = None
    """The object whose frame to measure in, for frame sensors; None is the world."""

    cutoff: float = 0.0
    """Greatest absolute value of the data; 0 for no limit."""

    @property
    def prefixed_name(self) -> str:
        """The key of the sensor in ``scene.sensors``."""
        if self.obj is not None and self.obj.entity:
            return f"{self.obj.entity}/{self.name}"
        return self.name

    def __post_init__(self) -> None:
        if self.sensor_type not in get_args(SensorType):
            raise ValueError(
                f"Sensor '{self.name}': unknown sensor_type '{self.sensor_type}'. "
                f"{nearest(self.sensor_type, get_args(SensorType))}"
            )
        allowed = _allowed_objects(self.sensor_type)
        given = None if self.obj is None else self.obj.type
        if allowed and given not in allowed:
            raise ValueError(
                f"Sensor '{self.name}': a {self.sensor_type} needs obj=ObjRef(type=...) with type "
                f"{' | '.join(allowed)}, got {given}."
            )
        if not allowed and given is not None:
            raise ValueError(
                f"Sensor '{self.name}': a {self.sensor_type} takes no obj, but one is given."
            )
        if self.ref is not None and not self.sensor_type.startswith("frame"):
            raise ValueError(
                f"Sensor '{self.name}': only frame sensors take a ref, not {self.sensor_type}."
            )

    def build(self) -> BuiltinSensor:
        """Make the sensor."""
        return BuiltinSensor(self)


class BuiltinSensor(Sensor[torch.Tensor]):
    """One of MuJoCo's sensors; its data is (num_envs, dim)."""

    def __init__(self, cfg: BuiltinSensorCfg | None = None, name: str | None = None) -> None:
        self.cfg = cfg
        if cfg is not None:
            name = cfg.prefixed_name
        if name is None:
            raise ValueError("BuiltinSensor needs a cfg, or the name of a sensor in the XML.")
        self._name = name
        self._columns: Columns | None = None

    @classmethod
    def from_existing(cls, name: str) -> BuiltinSensor:
        """Wrap a sensor that is already in the XML."""
        return cls(name=name)

    def edit_spec(self, scene_spec: mujoco.MjSpec, entities: dict[str, Entity]) -> None:
        """Add the sensor, unless it is one of the XML."""
        cfg = self.cfg
        if cfg is None:
            return
        if any(sensor.name == self._name for sensor in scene_spec.sensors):
            raise ValueError(
                f"Sensor '{self._name}' exists twice: in the XML and in SceneCfg.sensors. "
                f"The one in the XML is already scene['{self._name}']; remove one, or rename it."
            )
        options: dict[str, Any] = {}
        for prefix, ref in (("obj", cfg.obj), ("ref", cfg.ref)):
            if ref is not None:
                self._check_exists(scene_spec, ref)
                options[f"{prefix}type"] = _mj_object(ref.type)
                options[f"{prefix}name"] = ref.prefixed_name()
        if cfg.cutoff > 0.0:
            options["cutoff"] = cfg.cutoff
        kind = _MUJOCO_NAMES.get(cfg.sensor_type, cfg.sensor_type.upper())
        scene_spec.add_sensor(
            name=self._name, type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"), **options
        )

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Find the sensor's columns of sensordata."""
        sensor = mj_model.sensor(self._name)
        start, dim = int(sensor.adr[0]), int(sensor.dim[0])
        self._columns = Columns(data.sensordata, slice(start, start + dim))

    def _compute_data(self) -> torch.Tensor:
        if self._columns is None:
            raise RuntimeError(
                f"Sensor '{self._name}' has no data yet. Call scene.initialize() first."
            )
        return self._columns.read()

    def _check_exists(self, spec: mujoco.MjSpec, ref: ObjRef) -> None:
        kind = "body" if ref.type == "xbody" else ref.type
        plural = "bodies" if kind == "body" else f"{kind}s"
        known = [element.name for element in getattr(spec, plural)]
        if ref.prefixed_name() not in known:
            raise ValueError(
                f"Sensor '{self._name}': the scene has no {kind} '{ref.prefixed_name()}'. "
                f"{nearest(ref.prefixed_name(), [name for name in known if name])}"
            )


def _mj_object(kind: ObjType) -> mujoco.mjtObj:
    return getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
