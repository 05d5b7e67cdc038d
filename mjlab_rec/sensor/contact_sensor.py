"""Contact sensors: contacts of geoms, bodies or subtrees, with their forces and durations.

Shapes: P is the number of primaries, the watched elements; N = P * num_slots is the number of
contacts kept, grouped by primary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import mujoco
import torch
from torch import Tensor

from mjlab_rec.sensor.air_time import AirTime
from mjlab_rec.sensor.contact_matching import (
    OBJECT_TYPES,
    ContactMatch,
    SecondaryPolicy,
    find_matches,
    find_secondary,
)
from mjlab_rec.sensor.sensor import Sensor, SensorCfg
from mjlab_rec.utils.indexing import Columns, EnvIds, as_index, write_block
from mjlab_rec.utils.string import nearest

if TYPE_CHECKING:
    from mjlab_rec.entity import Entity
    from mjlab_rec.viewer.debug_visualizer import DebugVisualizer

logger = logging.getLogger(__name__)

ContactField = Literal["found", "force", "torque", "dist", "pos", "normal", "tangent"]
ContactReduce = Literal["none", "mindist", "maxforce", "netforce"]

# In the order of MuJoCo's bits for them (mjtConDataField) and of its reductions.
_FIELDS: tuple[ContactField, ...] = get_args(ContactField)
_REDUCTIONS: tuple[ContactReduce, ...] = get_args(ContactReduce)
_SCALARS = ("found", "dist")
_WITH_HISTORY = ("force", "torque", "dist")
_SHOW_CONTACT = ("found", "normal", "force")  # Above 0, or not all 0, where there is a contact.

_CONTACT_RADIUS = 0.2  # of a drawn contact, in mean sizes of bodies
_CONTACT_COLOR = (0.1, 0.8, 0.3, 0.9)
_FORCE_COLOR = (1.0, 0.6, 0.1, 0.9)


@dataclass
class ContactSensorCfg(SensorCfg):
    """Watches contacts of the primaries with anything, or with one secondary."""

    primary: ContactMatch
    """Elements to watch, such as a robot's feet."""

    secondary: ContactMatch | None = None
    """Element whose contacts with the primaries count; None means anything."""

    fields: tuple[str, ...] = ("found", "force")
    """What to measure: found, force, torque, dist, pos, normal, tangent."""

    reduce: ContactReduce = "maxforce"
    """Which contacts of a primary to keep: "none" any, "mindist" the deepest, "maxforce" the
    strongest; "netforce" sums them all to one."""

    num_slots: int = 1
    """How many contacts to keep per primary; with "netforce" always one."""

    secondary_policy: SecondaryPolicy = "first"
    """If the secondary's pattern matches several: take the "first", "any" contact at all, or raise
    an "error"."""

    track_air_time: bool = False
    """Whether to time the contact and air phases of each primary. Needs "found"."""

    global_frame: bool = False
    """Whether force and torque are in the world frame rather than the contact's, whose x axis is
    the normal. Needs "normal" and "tangent". With "netforce" they always are."""

    history_length: int = 0
    """How many physics steps of force, torque and dist to keep, for contacts shorter than a control
    step; 0 for none."""

    debug: bool = False
    """Whether to log the MuJoCo sensors that are added."""

    debug_vis: bool = False
    """Whether to draw contacts, where a viewer or a recorder shows such drawings: a sphere at each,
    and an arrow of its force if that is known in the world frame. Without the field "pos" they are
    drawn at the primary's origin."""

    def __post_init__(self) -> None:
        where = f"Contact sensor '{self.name}'"
        for name in self.fields:
            if name not in _FIELDS:
                raise ValueError(f"{where}: unknown field '{name}'. {nearest(name, _FIELDS)}")
        if self.reduce not in _REDUCTIONS:
            raise ValueError(
                f"{where}: unknown reduce '{self.reduce}'. {nearest(self.reduce, _REDUCTIONS)}"
            )
        if self.num_slots < 1:
            raise ValueError(f"{where}: num_slots must be at least 1, got {self.num_slots}.")
        if self.history_length < 0:
            raise ValueError(f"{where}: history_length must not be negative.")
        needs = []
        if self.track_air_time:
            needs.append(("track_air_time=True", ("found",)))
        if self.global_frame and self.reduce != "netforce":
            needs.append(("global_frame=True", ("normal", "tangent")))
        for option, names in needs:
            missing = [name for name in names if name not in self.fields]
            if missing:
                raise ValueError(f"{where}: {option} needs {missing} in fields {self.fields}.")

    def build(self) -> ContactSensor:
        """Make the sensor."""
        return ContactSensor(self)


@dataclass
class ContactData:
    """Data of a contact sensor; None for fields that are not measured."""

    found: Tensor | None = None
    """(num_envs, N): 0 without contact, else how many contacts matched."""
    force: Tensor | None = None
    """(num_envs, N, 3): the force that the primary exerts on what it touches."""
    torque: Tensor | None = None
    """(num_envs, N, 3)."""
    dist: Tensor | None = None
    """(num_envs, N): distance, negative for penetration."""
    pos: Tensor | None = None
    """(num_envs, N, 3) in the world."""
    normal: Tensor | None = None
    """(num_envs, N, 3) in the world, from the primary to what it touches."""
    tangent: Tensor | None = None
    """(num_envs, N, 3) in the world."""

    current_air_time: Tensor | None = None
    """(num_envs, P): seconds in the air so far."""
    last_air_time: Tensor | None = None
    """(num_envs, P): seconds of the last finished air phase."""
    current_contact_time: Tensor | None = None
    """(num_envs, P): seconds in contact so far."""
    last_contact_time: Tensor | None = None
    """(num_envs, P): seconds of the last finished contact."""

    force_history: Tensor | None = None
    """(num_envs, N, H, 3): the newest physics step first."""
    torque_history: Tensor | None = None
    """(num_envs, N, H, 3): the newest physics step first."""
    dist_history: Tensor | None = None
    """(num_envs, N, H): the newest physics step first."""


class ContactSensor(Sensor[ContactData]):
    """Contacts of every primary, measured by MuJoCo's contact sensors.

    All who read ``data`` before it changes get the same tensors, so do not write into them.
    """

    def __init__(self, cfg: ContactSensorCfg) -> None:
        self.cfg = cfg
        self._num_slots = 1 if cfg.reduce == "netforce" else cfg.num_slots
        self._primary_names: list[str] = []
        self._columns: dict[str, Columns] = {}
        self._everything: Columns | None = None
        self._parts: dict[str, slice] = {}
        self._air_time: AirTime | None = None
        self._history: dict[str, Tensor] = {}
        self._spare: dict[str, Tensor] = {}
        # What was computed since the simulation, or the durations, last changed.
        self._kept: dict[Any, Any] = {}
        self._kept_at = -1
        self._data: Any = None

    @property
    def primary_names(self) -> list[str]:
        """Names of the primaries, in the order of the data."""
        return list(self._primary_names)

    @property
    def needs_substeps(self) -> bool:
        """True if contacts are timed or kept for each step."""
        overridden = type(self).update is not ContactSensor.update
        return overridden or self.cfg.track_air_time or self.cfg.history_length > 0

    def edit_spec(self, scene_spec: mujoco.MjSpec, entities: dict[str, Entity]) -> None:
        """Add one MuJoCo sensor per field and primary."""
        cfg = self.cfg
        self._primary_names = find_matches(cfg.name, cfg.primary, entities)
        other: dict[str, Any] = {}
        if cfg.secondary is not None:
            name = find_secondary(cfg.name, cfg.secondary, cfg.secondary_policy, entities)
            if name is not None:
                other["reftype"] = OBJECT_TYPES[cfg.secondary.mode]
                other["refname"] = cfg.secondary.prefixed(name)
        # Grouped by field, so that one field of all primaries is contiguous in sensordata.
        for field in cfg.fields:
            for name in self._primary_names:
                scene_spec.add_sensor(
                    name=self._mj_name(name, field),
                    type=mujoco.mjtSensor.mjSENS_CONTACT,
                    objtype=OBJECT_TYPES[cfg.primary.mode],
                    objname=cfg.primary.prefixed(name),
                    intprm=[
                        1 << _FIELDS.index(field),
                        _REDUCTIONS.index(cfg.reduce),
                        self._num_slots,
                    ],
                    **other,
                )
                if cfg.debug:
                    logger.info(
                        "Contact sensor '%s' watches %s of '%s' with '%s'.",
                        cfg.name,
                        field,
                        cfg.primary.prefixed(name),
                        other.get("refname", "anything"),
                    )

    def initialize(self, mj_model: mujoco.MjModel, model: Any, data: Any, device: str) -> None:
        """Find the columns of sensordata, and allocate the history."""
        num_envs: int = data.nworld
        find = mj_model.geom if self.cfg.primary.mode == "geom" else mj_model.body
        self._primary_ids = [find(self.cfg.primary.prefixed(n)).id for n in self._primary_names]
        # As MuJoCo draws contact forces.
        self._metres_per_newton = mj_model.vis.map.force / mj_model.stat.meanmass
        self._data = data
        everything: list[int] = []
        for field in self.cfg.fields:
            ids: list[int] = []
            for name in self._primary_names:
                sensor = mj_model.sensor(self._mj_name(name, field))
                start, dim = int(sensor.adr[0]), int(sensor.dim[0])
                ids += range(start, start + dim)
            self._columns[field] = Columns(data.sensordata, as_index(ids, device))
            self._parts[field] = slice(len(everything), len(everything) + len(ids))
            everything += ids
        self._everything = Columns(data.sensordata, as_index(everything, device))
        if self.cfg.track_air_time:
            self._air_time = AirTime(num_envs, len(self._primary_names), device)
        if self.cfg.history_length > 0:
            for field in set(self.cfg.fields).intersection(_WITH_HISTORY):
                now = self._contacts()[field]
                shape = (*now.shape[:2], self.cfg.history_length, *now.shape[2:])
                self._history[field] = torch.zeros(shape, device=device)
                self._spare[field] = torch.zeros(shape, device=device)

    def debug_vis(self, visualizer: DebugVisualizer) -> None:
        """Draw the contacts and their forces."""
        if not self.cfg.debug_vis:
            return
        now = self._contacts()
        env_ids = list(visualizer.get_env_indices(len(next(iter(now.values())))))
        strengths = [self._strength(now[name][env_ids]) for name in _SHOW_CONTACT if name in now]
        if not env_ids or not strengths:
            return
        touches = strengths[0] > 0.0
        pos = now["pos"][env_ids] if "pos" in now else self._origins()[env_ids]
        place = pos[touches]
        radius = _CONTACT_RADIUS * visualizer.meansize
        visualizer.add_sphere(place, radius, _CONTACT_COLOR)
        if "force" in now and (self.cfg.global_frame or self.cfg.reduce == "netforce"):
            end = place + now["force"][env_ids][touches] * self._metres_per_newton
            visualizer.add_arrow(place, end, _FORCE_COLOR, 0.5 * radius)

    def reset(self, env_ids: EnvIds = None) -> None:
        """Clear the durations and the history of the given worlds."""
        self.invalidate()
        if self._air_time is not None:
            self._air_time.reset(env_ids)
        for history in self._history.values():
            write_block(history, 0.0, env_ids)

    def update(self, dt: float) -> None:
        """Time and store a physics step of ``dt`` seconds."""
        self.invalidate()
        if self._air_time is not None:
            touches = self._columns["found"].peek() > 0.0
            if self._num_slots > 1:
                touches = touches.unflatten(1, (-1, self._num_slots)).any(dim=-1)
            self._air_time.update(touches, dt)
        if self._history:
            now = self._contacts()
            for field, history in self._history.items():
                newer = self._spare[field]
                torch.cat((now[field].unsqueeze(2), history[:, :, :-1]), dim=2, out=newer)
                self._history[field], self._spare[field] = newer, history

    def invalidate(self) -> None:
        """Drop what was computed: the simulation has changed."""
        self._kept.clear()

    def compute_first_contact(self, dt: float, abs_tol: float = 1.0e-6) -> Tensor:
        """Return which primaries made contact within the last ``dt`` seconds, (num_envs, P)."""
        timer = self._timer("compute_first_contact")
        return self._keep(("contact", dt, abs_tol), lambda: timer.first_contact(dt, abs_tol))

    def compute_first_air(self, dt: float, abs_tol: float = 1.0e-6) -> Tensor:
        """Return which primaries lost contact within the last ``dt`` seconds, (num_envs, P)."""
        timer = self._timer("compute_first_air")
        return self._keep(("air", dt, abs_tol), lambda: timer.first_air(dt, abs_tol))

    @property
    def data(self) -> ContactData:
        """The current data, which later steps do not change."""
        return self._keep("data", self._compute_data)

    def _keep(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returned since something last changed."""
        if self._kept and self._kept_at != self._data.generation:
            self._kept.clear()
        value = self._kept.get(key)
        if value is None:
            value = self._kept[key] = compute()
            self._kept_at = self._data.generation
        return value

    def _compute_data(self) -> ContactData:
        data = ContactData(**self._contacts())
        if self._air_time is not None:
            (
                data.current_air_time,
                data.current_contact_time,
                data.last_air_time,
                data.last_contact_time,
            ) = self._air_time.read()
        for field, history in self._history.items():
            setattr(data, f"{field}_history", history.clone())
        return data

    def _contacts(self) -> dict[str, Tensor]:
        """Return the current value of every field, (num_envs, N) or (num_envs, N, 3)."""
        if self._everything is None:
            raise RuntimeError(
                f"Sensor '{self.cfg.name}' has no data yet. Call scene.initialize() first."
            )
        values = self._everything.read()  # One copy for all fields.
        contacts = {
            field: values[:, part] if field in _SCALARS else values[:, part].unflatten(1, (-1, 3))
            for field, part in self._parts.items()
        }
        if self.cfg.global_frame and self.cfg.reduce != "netforce":
            normal, tangent = contacts["normal"], contacts["tangent"]
            # The axes of the contact frame. Without a contact everything is and stays zero.
            axes = torch.stack((normal, tangent, torch.linalg.cross(normal, tangent)), dim=-1)
            for field in ("force", "torque"):
                if field in contacts:
                    contacts[field] = (axes @ contacts[field].unsqueeze(-1)).squeeze(-1)
        return contacts

    def _strength(self, values: Tensor) -> Tensor:
        """Return numbers (num_envs, N) that are above 0 where there is a contact."""
        return values if values.ndim == 2 else values.abs().sum(dim=-1)

    def _origins(self) -> Tensor:
        """Return the primaries' origins, (num_envs, N, 3)."""
        data, ids = self._data, self._primary_ids
        places = data.geom_xpos if self.cfg.primary.mode == "geom" else data.xpos
        return places[:, ids].repeat_interleave(self._num_slots, dim=1)

    def _mj_name(self, primary: str, field: str) -> str:
        return f"{self.cfg.name}_{primary}_{field}"

    def _timer(self, what: str) -> AirTime:
        if self._air_time is None:
            raise RuntimeError(
                f"Sensor '{self.cfg.name}': {what}() needs ContactSensorCfg(track_air_time=True)."
            )
        return self._air_time
